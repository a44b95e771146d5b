# SPDX-License-Identifier: Apache-2.0
"""State of a sparse Gaussian process fit: scaling, Adam moments, jitter."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.lso.collapsed_bound import MAX_JITTER, MIN_JITTER, Parameters

STANDARDISATIONS = ("each", "all", "none")

Data = tuple[tf.Tensor, tf.Tensor]
"""Standardised latents `[n, M]` and scores `[n]`, float64."""


class Adam:
    """Adam (Kingma and Ba, 2015) whose state consists of NumPy arrays.

    Attributes:
      count: Number of steps so far.
      first: First moments of the gradients.
      second: Second moments of the gradients.
    """

    def __init__(self, parameters: Parameters):
        """Initialises all moments to zero."""
        self.count = 0
        self.first = Parameters(*(np.zeros_like(p) for p in parameters))
        self.second = Parameters(*(np.zeros_like(p) for p in parameters))

    def step(
        self, parameters: Parameters, gradients: Parameters, rate: float
    ) -> Parameters:
        self.count += 1
        self.first = _decay(self.first, gradients, 0.9)
        squares = Parameters(*(np.square(g) for g in gradients))
        self.second = _decay(self.second, squares, 0.999)
        first_share = 1.0 - 0.9**self.count
        second_share = 1.0 - 0.999**self.count
        return Parameters(
            *(
                value
                - rate * m / first_share / (np.sqrt(v / second_share) + 1e-8)
                for value, m, v in zip(
                    parameters, self.first, self.second, strict=True
                )
            )
        )


def _decay(old: Parameters, new: Parameters, kept: float) -> Parameters:
    return Parameters(
        *(kept * o + (1 - kept) * n for o, n in zip(old, new, strict=True))
    )


class Scale(NamedTuple):
    """Standardisation of latents and scores, set in a cold fit.

    Attributes:
      centre: Offset of the latents, `[M]`.
      spread: Scale of the latents, `[M]`, positive.
      score_centre: Offset of the scores, scalar.
      score_spread: Scale of the scores, scalar, positive.
    """

    centre: np.ndarray
    spread: np.ndarray
    score_centre: np.ndarray
    score_spread: np.ndarray

    @classmethod
    def of(
        cls, latents: np.ndarray, scores: np.ndarray, standardise: str
    ) -> Scale:
        num_latents = latents.shape[1]
        if standardise == "none":
            zero, one = np.zeros(num_latents), np.ones(num_latents)
            return cls(zero, one, np.array(0.0), np.array(1.0))
        axis = 0 if standardise == "each" else None
        return cls(
            np.broadcast_to(latents.mean(axis), num_latents).copy(),
            np.broadcast_to(_spread(latents, axis), num_latents).copy(),
            np.array(scores.mean()),
            np.array(_spread(scores)),
        )


def _spread(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Returns standard deviations; 1 where values are nearly constant."""
    spread = values.std(axis)
    size = np.abs(values).max(axis)
    return np.where(spread > 1e-9 * size, spread, 1.0)


@dataclasses.dataclass
class Fit:
    """State that a warm fit continues from.

    Attributes:
      parameters: Parameters of the sparse Gaussian process, for standardised
        data.
      scale: Standardisation of the data.
      adam: State of the optimizer.
      jitter: Smallest jitter that has sufficed so far, as a fraction of the
        kernel variance.
    """

    parameters: Parameters
    scale: Scale
    adam: Adam
    jitter: float = MIN_JITTER

    def is_exact(self, data: Data) -> bool:
        """Returns whether all data points are inducing points."""
        inducing = {row.tobytes() for row in self.parameters.inducing}
        return all(row.tobytes() in inducing for row in data[0].numpy())

    def add_inducing(self, data: Data, limit: int) -> None:
        """Adds inducing points at new data points, the last ones.

        Otherwise a point far from all inducing points would be forgotten: the
        uncertainty there would remain, and queries would return to it.
        """
        inducing = self.parameters.inducing
        room = limit - len(inducing)
        if room <= 0:
            return
        known = {row.tobytes() for row in inducing}
        new = {row.tobytes(): row for row in data[0].numpy()}
        rows = [row for key, row in new.items() if key not in known][-room:]
        if not rows:
            return
        self.parameters = self.parameters._replace(
            inducing=np.concatenate([inducing, rows])
        )
        adam = self.adam
        adam.first, adam.second = (
            moments._replace(
                inducing=np.concatenate([moments.inducing, np.zeros_like(rows)])
            )
            for moments in (adam.first, adam.second)
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns copies of all arrays, by name."""
        arrays = {**self.parameters._asdict(), **self.scale._asdict()}
        for kind in ("first", "second"):
            moments = getattr(self.adam, kind)._asdict()
            arrays.update({f"{kind}/{k}": v for k, v in moments.items()})
        arrays["count"] = self.adam.count
        arrays["jitter"] = self.jitter
        return {name: np.array(value) for name, value in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Fit:
        names = Parameters._fields
        parameters = Parameters(*(np.array(arrays[k]) for k in names))
        adam = Adam(parameters)
        adam.count = int(arrays["count"])
        for kind in ("first", "second"):
            moments = (np.array(arrays[f"{kind}/{k}"]) for k in names)
            setattr(adam, kind, Parameters(*moments))
        scale = Scale(*(np.array(arrays[k]) for k in Scale._fields))
        return cls(parameters, scale, adam, float(arrays["jitter"]))


def standardised(scale: Scale, latents: np.ndarray, scores: np.ndarray) -> Data:
    """Returns data in standardised units."""
    return (
        tf.constant((latents - scale.centre) / scale.spread),
        tf.constant((scores - scale.score_centre) / scale.score_spread),
    )


def with_jitter(function: Any, fit: Fit, data: Data) -> Any:
    """Calls `function`, raising the jitter until its result is finite."""
    while True:
        try:
            result = function(fit.parameters, *data, np.array(fit.jitter))
            if np.all(np.isfinite(result[0])):
                return result
            error: Exception = FloatingPointError(
                "a sparse Gaussian process must have finite parameters, got "
                f"{fit.parameters!r}"
            )
        except tf.errors.InvalidArgumentError as caught:
            # Raised by TensorFlow for matrices that are not positive definite.
            error = caught
        if fit.jitter >= MAX_JITTER:
            raise error
        fit.jitter *= 10.0


def inducing_of(
    points: np.ndarray, count: int, num_inits: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns k-means centres, or all distinct points if at most `count`."""
    distinct = np.unique(points, axis=0)
    if len(distinct) <= count:
        return distinct
    from sklearn import cluster

    means = cluster.MiniBatchKMeans(
        n_clusters=count,
        batch_size=min(10_000, len(points)),
        n_init=num_inits,
        random_state=int(rng.integers(2**31)),
    )
    return means.fit(points).cluster_centers_.astype(np.float64)


def root_of(covariance: np.ndarray, variance: float) -> np.ndarray:
    """Returns R of R R^T = covariance, up to the jitter that is needed."""
    identity = np.eye(len(covariance))
    jitter = MIN_JITTER
    while True:
        try:
            return np.linalg.cholesky(covariance + jitter * variance * identity)
        except np.linalg.LinAlgError:
            if jitter >= MAX_JITTER:
                raise
            jitter *= 10.0
