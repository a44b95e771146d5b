# SPDX-License-Identifier: Apache-2.0
"""Surrogates of what latents decode to, rather than of the latents.

What a score depends on may be far plainer in an input than in its latents: the
parts of a molecule, the words of a text. A task says what that is by `features`
of its inputs; a surrogate of these sees latents through the decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfvae import typed_gin
from tfvae.lso.evaluation_worker import one_line
from tfvae.lso.feasibility import fresh
from tfvae.lso.tasks.base import Input, Task

if TYPE_CHECKING:
    from tfvae.lso.surrogates import Surrogate

Decode = Callable[[np.ndarray], Sequence[Input | None]]
"""From latents `[n, M]` to n inputs, None where there is none."""

# Latents whose features are remembered.
_MOST_REMEMBERED = 30_000


@typed_gin.register
@dataclasses.dataclass(eq=False)
class InputSurrogate:
    """Surrogate of the features of the inputs that latents decode to.

    The features are those of `Task.features`, and one more, which is 1 for
    latents that decode to no valid input; all others are 0 there. Strategies
    that need gradients search without them; `WindowEvolution` and
    `ThompsonSampling` need none.

    Attributes:
      surrogate: The surrogate that is fitted to features, such as
        `TanimotoProcess` where they are counts.
      features: From latents `[n, M]` to features `[n, F]`; None for those of
        the task, which an optimiser sets.
    """

    surrogate: Surrogate
    features: Callable[[np.ndarray], np.ndarray] | None = dataclasses.field(
        default=None, repr=False
    )
    has_gradients = False

    def __post_init__(self) -> None:
        """Makes a surrogate of its own."""
        # Copies are fitted to other things, such as constraints.
        self.surrogate = fresh(self.surrogate)

    def _features(self, latents: Any) -> np.ndarray:
        if self.features is None:
            raise ValueError(
                "`features` must be given for `InputSurrogate` outside of an "
                "optimiser, got None"
            )
        return self.features(np.asarray(latents))

    def fit(
        self, latents: np.ndarray, scores: np.ndarray, seed: int, warm: bool
    ) -> None:
        self.surrogate.fit(self._features(latents), scores, seed, warm)

    def predict(self, latents: Any) -> tuple[Any, Any]:
        return self.surrogate.predict(self._features(latents))

    def covariance(self, first: Any, second: Any) -> Any:
        return self.surrogate.covariance(
            self._features(first), self._features(second)
        )

    def lengthscales(self) -> None:
        """Returns None: features are no latents."""
        return None

    def sample(
        self, latents: np.ndarray, num_samples: int, seed: int
    ) -> np.ndarray:
        features = self._features(latents)
        return self.surrogate.sample(features, num_samples, seed)

    def state(self) -> dict[str, np.ndarray]:
        return self.surrogate.state()

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.surrogate.restore(state)


class DecodedFeatures:
    """Features of what latents decode to, remembered.

    Called with latents `[n, M]`, it returns `[n, F + 1]`, see `InputSurrogate`.
    """

    def __init__(self, task: Task, decode: Decode) -> None:
        """Stores the parts.

        Args:
          task: Its `features` are called.
          decode: Decodes latents.

        Raises:
          ValueError: If the task has no `features`.
        """
        if task.features is None:
            raise ValueError(
                f"`features` of task {task.name} must be a function for "
                "`InputSurrogate`, got None"
            )
        self._task = task
        self._decode = decode
        self._known: dict[bytes, np.ndarray] = {}
        # Features of no input: their number and dtype, once they are known.
        self._none: np.ndarray | None = None

    def forget(self) -> None:
        """Forgets all latents, as their decoder has changed."""
        self._known = {}

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        latents = np.asarray(latents, np.float32)
        keys = [one.tobytes() for one in latents]
        if len(self._known) > _MOST_REMEMBERED:
            self.forget()
        rows = {key: i for i, key in enumerate(keys) if key not in self._known}
        if rows:
            found = self._read(latents[[*rows.values()]])
            self._known.update(zip(rows, found, strict=True))
        return np.stack([self._known[key] for key in keys])

    def _read(self, latents: np.ndarray) -> np.ndarray:
        """Returns the features of latents, in the dtype of the task."""
        inputs = self._decode(latents)
        rows = [i for i, one in enumerate(inputs) if one is not None]
        if rows:
            of_inputs = features_of(self._task, [inputs[i] for i in rows])
            self._none = np.zeros_like(of_inputs[:0])
        elif self._none is None:
            raise ValueError(
                f"none of {len(latents):,} latents decodes to a valid input of "
                f"task {self._task.name}, whose `features` a surrogate needs"
            )
        else:
            of_inputs = self._none
        shape = (len(latents), of_inputs.shape[1] + 1)
        found = np.zeros(shape, of_inputs.dtype)
        found[rows, :-1] = of_inputs
        found[:, -1] = 1
        found[rows, -1] = 0
        return found


def features_of(task: Task, inputs: Sequence[Input]) -> np.ndarray:
    """Returns features of inputs by the `features` of a task, `[n, F]`.

    Raises:
      ValueError: If it raises, or returns another shape, or numbers that are
        not finite.
    """
    assert task.features is not None
    try:
        features = np.asarray(task.features(inputs))
    except Exception as error:
        raise ValueError(
            f"`features` of task {task.name} fails: {one_line(error)}"
        ) from error
    is_numeric = features.dtype.kind in "biuf"
    if (
        not is_numeric
        or features.shape[:1] != (len(inputs),)
        or (features.ndim != 2 or not features.shape[1])
    ):
        raise ValueError(
            f"`features` of task {task.name} must return an array of numbers, "
            f"[{len(inputs)}, features], got {features.dtype} "
            f"{features.shape!r}"
        )
    if not np.isfinite(features).all():
        raise ValueError(
            f"`features` of task {task.name} must return finite numbers"
        )
    return features
