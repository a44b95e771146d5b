# SPDX-License-Identifier: Apache-2.0
"""Exploration: a way for a TVAE out of local optima.

Gradient steps and closed-form updates end in the optimum next to where they
began, where two latents share a feature, say, or one stands for its absence.
Exploration moves between optima instead: at the end of every cycle of some
epochs it returns to the best parameters so far, and begins the next cycle with
the decoder's weights shrunk and perturbed (Ash and Adams, 2020, "On
warm-starting neural network training", https://arxiv.org/abs/1910.08475).
What stays in place lets the next cycle find most of the old features again;
what was perturbed lets it find others. The last cycle is not followed by a
perturbation: from there on the best is trained to the end.

It also keeps latents sparse. The model is the same if the two values of a
latent change names, but operators of the evolution and readers of its features
take 1 for the rare one. So a latent that is on in most data is renamed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfvae.ops import bits, random
from tfvae.settings import Settings, saved_settings

if TYPE_CHECKING:
    from tfvae.tvae.model import TVAE

# The stream of random numbers; the model itself has those from 0 on.
_PERTURBATION = 1000
# As many different integers as `random.integers` can draw.
_NUM_SEEDS = 2**23


@saved_settings
class Exploration(Settings):
    """When, and how far, a TVAE leaves the optimum that it is in.

    Attributes:
      period: Epochs of a cycle. With a cyclical learning rate a whole number
        of its cycles, so that optima are compared where it is low.
      until: Epochs of exploration; training should go on after them.
      share: Part of a perturbed weight that is drawn anew, in (0, 1]; the rest
        is the best so far.
    """

    period: int = 20
    until: int = 320
    share: float = 0.5

    def __post_init__(self) -> None:
        problems = []
        for name, least in (("period", 1), ("until", self.period)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                bound = f"`period` = {least}" if name == "until" else least
                problems.append(
                    f"`{name}` must be an integer of at least {bound}, got "
                    f"{value!r}"
                )
        if not 0.0 < self.share <= 1.0:
            problems.append(f"`share` must be in (0, 1], got {self.share!r}")
        if problems:
            raise ValueError("; ".join(problems))

    def ends_cycle(self, num_epochs: int) -> bool:
        """Returns whether a cycle is over after so many epochs."""
        return 0 < num_epochs <= self.until and num_epochs % self.period == 0

    def perturbs(self, num_epochs: int) -> bool:
        """Returns whether another cycle begins after so many epochs."""
        is_last = num_epochs + self.period > self.until
        return self.ends_cycle(num_epochs) and not is_last


class BestParameters(keras.layers.Layer):
    """The parameters of the cycle with the highest bound, as weights.

    Being weights of the model they are saved with it, so that a run goes on
    from a file as if it had never stopped.

    Attributes:
      bound: Scalar float32 weight, -inf before the first cycle is over.
      copies: Weights like the parameters.
      is_watched: Whether a callback looks after them.
    """

    def __init__(self, variables: Sequence[keras.Variable], **kwargs: Any):
        """Creates room for the parameters.

        Args:
          variables: What will be kept; their values do not matter yet.
          **kwargs: Of `keras.layers.Layer`.
        """
        super().__init__(**{"trainable": False, **kwargs})
        self.is_watched = False
        self.bound = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(-math.inf),
            dtype="float32",
            trainable=False,
            name="bound",
        )
        self.copies = [
            self.add_weight(
                shape=variable.shape,
                initializer="zeros",
                dtype=variable.dtype,
                trainable=False,
                name=f"best_{variable.name}",
            )
            for variable in variables
        ]
        self.built = True

    def check_watched(self) -> None:
        """Raises RuntimeError if training would not explore."""
        if not self.is_watched:
            raise RuntimeError(
                "TVAE was created with `exploration`; train it with "
                "fit(..., callbacks=[tfvae.Explore()])"
            )

    def update(self, bound: float, variables: Sequence[keras.Variable]) -> None:
        """Keeps the parameters if none were better, else brings the best back.

        Args:
          bound: At the parameters; one that is not a number is no better.
          variables: The parameters.
        """
        pairs = list(zip(self.copies, variables, strict=True))
        if bound > float(self.bound):
            self.bound.assign(bound)
            for copy, variable in pairs:
                copy.assign(variable)
        elif float(self.bound) > -math.inf:
            for copy, variable in pairs:
                variable.assign(copy)


class Explore(keras.callbacks.Callback):
    """Explores as the `exploration` of the trained TVAE says, if it has one.

    A model with `exploration` needs it in front of callbacks that save:

        model = tfvae.TVAE(..., exploration=tfvae.Exploration())
        model.fit(x, index, epochs=400, callbacks=[tfvae.Explore()])

    It goes by the number of the epoch, so a run that is resumed needs its
    `initial_epoch`. Returning to the best ends an epoch, perturbation begins
    one: what is saved or looked at in between is the best so far.
    """

    def set_model(self, model: TVAE) -> None:
        """Meets the model that is trained."""
        super().set_model(model)
        if model.best_parameters is not None:
            model.best_parameters.is_watched = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Perturbs the decoder where a cycle begins."""
        model = self.model
        if model.exploration and model.exploration.perturbs(epoch):
            perturb(
                model.decoder,
                model.exploration.share,
                random.make_seed(model.seed, _PERTURBATION, epoch),
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Renames latents; returns to the best where a cycle ends."""
        model = self.model
        if not model.exploration:
            return
        rename_frequent(model)
        if model.exploration.ends_cycle(epoch + 1):
            bound = (logs or {})["bound"]
            model.best_parameters.update(float(bound), parameters(model))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves the model."""
        if self.model.best_parameters is not None:
            self.model.best_parameters.is_watched = False


def parameters(model: TVAE) -> list[keras.Variable]:
    """Returns all that a bound depends on but the states.

    With the sums of a pass that is not complete, which belong to them.
    """
    return [
        *model.decoder.weights,
        *model.prior.weights,
        *model.likelihood.weights,
    ]


# Perturbation.


def perturb(decoder: keras.layers.Layer, share: float, seed: tf.Tensor) -> None:
    """Moves weights towards a fresh draw: w = (1 - share) w + share w'.

    Args:
      decoder: Its trainable weights are perturbed whose layer knows how they
        began, as Keras's own know by their `kernel_initializer` and such.
      share: In (0, 1].
      seed: `[2]` int32.
    """
    initializers = _initializers(decoder)
    for index, variable in enumerate(decoder.trainable_variables):
        initializer = initializers.get(id(variable))
        if initializer is None:
            continue
        config = initializer.get_config()
        if "seed" in config:
            # Keras takes an integer, where the seeds here are pairs.
            own_seed = random.integers(
                random.make_seed(seed, index), [], _NUM_SEEDS
            )
            initializer = type(initializer).from_config(
                {**config, "seed": int(own_seed)}
            )
        fresh = initializer(variable.shape, dtype=variable.dtype)
        variable.assign((1.0 - share) * variable + share * fresh)


def _initializers(
    decoder: keras.layers.Layer,
) -> dict[int, keras.initializers.Initializer]:
    """Returns the known initialisers, by the identity of the variable."""
    found = {}
    # Inner layers come later than those around them, and know better.
    for layer in decoder._flatten_layers():
        for variable in layer.trainable_variables:
            initializer = getattr(layer, f"{variable.name}_initializer", None)
            if isinstance(initializer, keras.initializers.Initializer):
                found[id(variable)] = initializer
    return found


# Renaming.


def rename_frequent(model: TVAE) -> None:
    """Renames s_h to 1 - s_h for every latent with pi_h over 1/2.

    With f(s) = s W + b the decoder's first layer,
      f(s) = (1 - s_h) (-W_h) + sum_{k != h} s_k W_k + (b + W_h),
    so the model is the same with -W_h, b + W_h, 1 - pi_h, and bit h of stored
    states inverted. So are the gradients with respect to what is new,
      d/d(-W_h) = sum (1 - s_h) d/df = d/db - d/dW_h,
    and with them the mean gradient of an optimizer such as Adam. Its mean
    squared gradient can not be known and is left alone.

    Args:
      model: Left alone if `first_dense` finds nothing in its decoder.
    """
    dense = first_dense(model.decoder)
    is_frequent = model.prior_probs.numpy() > 0.5  # [H]
    if dense is None or not is_frequent.any():
        return
    _rename_momentums(model, dense, is_frequent)
    kernel = dense.kernel.numpy()
    dense.bias.assign(dense.bias.numpy() + kernel[is_frequent].sum(0))
    dense.kernel.assign(np.where(is_frequent[:, None], -kernel, kernel))
    probs, ones_sum, visits = model.prior.weights
    for ones, total in ((probs, 1.0), (ones_sum, float(visits))):
        values = ones.numpy()
        ones.assign(np.where(is_frequent, total - values, values))
    if model.states is not None:
        packed = model.states.packed
        mask = bits.pack(tf.constant(is_frequent, tf.float32))
        packed.assign(tf.bitwise.bitwise_xor(packed.value, mask))


def first_dense(decoder: keras.layers.Layer) -> keras.layers.Dense | None:
    """Returns the dense layer that a decoder hands its states to.

    Args:
      decoder: A dense layer, or a layer whose `layers` follow each other, as
        do those of the library's decoders and of a `keras.Sequential`.

    Returns:
      The layer, None where there is none, it has no bias, or the decoder is
      a model of another kind, which may use its states more than once.
    """
    while not isinstance(decoder, keras.layers.Dense):
        is_model = isinstance(decoder, keras.Model)
        is_chain = not is_model or isinstance(decoder, keras.Sequential)
        layers = getattr(decoder, "layers", None)
        if not is_chain or not layers:
            return None
        decoder = layers[0]
    return decoder if decoder.use_bias else None


def _rename_momentums(
    model: TVAE, dense: keras.layers.Dense, renamed: np.ndarray
) -> None:
    """Renames in the mean gradients of an optimizer that keeps some.

    Args:
      model: Compiled or not.
      dense: Its decoder's first layer.
      renamed: bool `[H]`.
    """
    optimizer = getattr(model, "optimizer", None)
    momentums = getattr(optimizer, "_momentums", [])
    by_variable = {
        id(variable): momentum
        for variable, momentum in zip(
            model.trainable_variables, momentums, strict=False
        )
    }
    of_kernel = by_variable.get(id(dense.kernel))
    of_bias = by_variable.get(id(dense.bias))
    if of_kernel is None or of_bias is None:
        return
    values = of_kernel.numpy()
    values[renamed] = of_bias.numpy() - values[renamed]
    of_kernel.assign(values)
