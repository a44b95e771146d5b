# SPDX-License-Identifier: Apache-2.0
"""Exploration: shrink-and-perturb restarts for a TVAE to leave local optima.

Gradient steps and closed-form updates converge to the nearest local optimum, in
which, for example, two latents share a feature, or one encodes its absence.
Exploration moves between optima: at the end of every cycle of some epochs it
returns to the best parameters so far, and starts the next cycle with the
decoder's weights shrunk and perturbed (Ash and Adams, 2020, "On warm-starting
neural network training", https://arxiv.org/abs/1910.08475). What is kept lets
the next cycle recover most of the old features; the perturbation lets it find
others. The last cycle is not followed by a perturbation: the best parameters
are then trained to the end.

It also keeps latents sparse. The model is invariant to exchanging the two
values of a latent, but evolutionary operators and the interpretation of
features assume that 1 is the rare value. So a latent that is 1 in most data is
inverted.
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
from tfvae.tvae.states import StateStore

if TYPE_CHECKING:
    from tfvae.tvae.model import TVAE

# The random stream of exploration; the model itself uses those from 0 on.
_PERTURBATION = 1000
# The number of distinct integers that `random.integers` can draw.
_NUM_SEEDS = 2**23


@saved_settings
class Exploration(Settings):
    """Schedule and strength of shrink-and-perturb restarts.

    Attributes:
      period: Epochs of a cycle. With a cyclical learning rate, a multiple of
        its cycle, so that optima are compared where it is low.
      until: Epochs of exploration; training should continue after them.
      share: Weight of the random draw in a perturbed weight, in (0, 1]; the
        rest is the best weight so far.
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
        """Returns whether a cycle ends after `num_epochs` epochs."""
        return 0 < num_epochs <= self.until and num_epochs % self.period == 0

    def perturbs(self, num_epochs: int) -> bool:
        """Returns whether another cycle begins after `num_epochs` epochs."""
        is_last = num_epochs + self.period > self.until
        return self.ends_cycle(num_epochs) and not is_last


class BestParameters(keras.layers.Layer):
    """The parameters of the cycle with the highest bound, as weights.

    As weights of the model they are saved with it, so that a resumed run
    continues exactly.

    Attributes:
      bound: Scalar float32 weight, nats; -inf before the first cycle ends.
      copies: Weights of the same shapes as the parameters.
      is_watched: Whether an `Explore` callback updates them.
    """

    def __init__(self, variables: Sequence[keras.Variable], **kwargs: Any):
        """Creates weights for copies of the parameters.

        Args:
          variables: The parameters; their values are not copied yet.
          **kwargs: Keyword arguments of `keras.layers.Layer`.
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
        # A tuple: TensorFlow checkpoints do not track variables in lists.
        self.copies = tuple(
            self.add_weight(
                shape=variable.shape,
                initializer="zeros",
                dtype=variable.dtype,
                trainable=False,
                name=f"best_{variable.name}",
            )
            for variable in variables
        )
        self.built = True

    def check_watched(self) -> None:
        """Raises RuntimeError if no `Explore` callback is attached."""
        if not self.is_watched:
            raise RuntimeError(
                "TVAE was created with `exploration`; train it with "
                "fit(..., callbacks=[tfvae.Explore()])"
            )

    def update(self, bound: float, variables: Sequence[keras.Variable]) -> None:
        """Stores the parameters if they are the best, else restores the best.

        Args:
          bound: Bound at the parameters; NaN counts as worse.
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
    """Callback that explores by the settings `exploration` of a TVAE.

    A model with `exploration` needs it, before callbacks that save:

        model = tfvae.TVAE(..., exploration=tfvae.Exploration())
        model.fit(x, index, epochs=400, callbacks=[tfvae.Explore()])

    It depends on the number of the epoch, so a resumed run must pass
    `initial_epoch`. The best parameters are restored at the end of an epoch,
    and perturbed at the start of one: saved models are the best so far.
    """

    def set_model(self, model: TVAE) -> None:
        """Attaches the callback to the model."""
        super().set_model(model)
        if model.best_parameters is not None:
            model.best_parameters.is_watched = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Perturbs the decoder if a cycle begins."""
        model = self.model
        if model.exploration and model.exploration.perturbs(epoch):
            perturb(
                model.decoder,
                model.exploration.share,
                random.make_seed(model.seed, _PERTURBATION, epoch),
            )
            # Initializers of one's own may draw by no seed.
            model.share(model.decoder.weights)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Inverts frequent latents; restores the best if a cycle ends."""
        model = self.model
        if not model.exploration:
            return
        invert_frequent(model)
        if model.exploration.ends_cycle(epoch + 1):
            bound = (logs or {})["bound"]
            model.best_parameters.update(float(bound), parameters(model))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Detaches the callback from the model."""
        if self.model.best_parameters is not None:
            self.model.best_parameters.is_watched = False


def parameters(model: TVAE) -> list[keras.Variable]:
    """Returns all variables that the bound depends on, except the states.

    They include the sufficient statistics of an incomplete pass.
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
      decoder: The decoder; of its trainable weights, those are perturbed whose
        layer has an initializer attribute, such as `kernel_initializer`.
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
    """Returns the known initializers, by the identity of the variable."""
    found = {}
    # Inner layers come after the layers around them, and take precedence.
    for layer in decoder._flatten_layers():
        for variable in layer.trainable_variables:
            initializer = getattr(layer, f"{variable.name}_initializer", None)
            if isinstance(initializer, keras.initializers.Initializer):
                found[id(variable)] = initializer
    return found


# Inversion of frequent latents.


def invert_frequent(model: TVAE) -> None:
    """Inverts every latent with pi_h > 1/2: s_h becomes 1 - s_h.

    With f(s) = s W + b the decoder's first layer,
      f(s) = (1 - s_h) (-W_h) + sum_{k != h} s_k W_k + (b + W_h),
    so the model is the same with -W_h, b + W_h, 1 - pi_h, and bit h of stored
    states inverted. So are the gradients with respect to what is new,
      d/d(-W_h) = sum (1 - s_h) d/df = d/db - d/dW_h,
    and with them the first moment of an optimizer such as Adam. Its second
    moment cannot be derived and is left unchanged.

    Args:
      model: Left unchanged if `first_dense` finds no layer in its decoder.
    """
    dense = first_dense(model.decoder)
    is_frequent = model.prior_probs.numpy() > 0.5  # [H]
    if dense is None or not is_frequent.any():
        return
    _invert_momentums(model, dense, is_frequent)
    kernel = dense.kernel.numpy()
    dense.bias.assign(dense.bias.numpy() + kernel[is_frequent].sum(0))
    dense.kernel.assign(np.where(is_frequent[:, None], -kernel, kernel))
    probs, ones_sum, *_ = model.prior.weights
    total_weight = float(model.prior.total_weight)
    for ones, total in ((probs, 1.0), (ones_sum, total_weight)):
        values = ones.numpy()
        ones.assign(np.where(is_frequent, total - values, values))
    if isinstance(model.states, StateStore):  # Never on disk, see `TVAE`.
        packed = model.states.packed
        mask = bits.pack(tf.constant(is_frequent, tf.float32))
        packed.assign(tf.bitwise.bitwise_xor(packed.value, mask))


def first_dense(decoder: keras.layers.Layer) -> keras.layers.Dense | None:
    """Returns the dense layer that receives a decoder's inputs.

    Args:
      decoder: A dense layer, or a layer with sequential `layers`, such as the
        library's decoders and `keras.Sequential`.

    Returns:
      The layer; None if there is none, it has no bias, or the decoder is a
      model of another kind, which may use its inputs more than once.
    """
    while not isinstance(decoder, keras.layers.Dense):
        is_model = isinstance(decoder, keras.Model)
        is_chain = not is_model or isinstance(decoder, keras.Sequential)
        layers = getattr(decoder, "layers", None)
        if not is_chain or not layers:
            return None
        decoder = layers[0]
    return decoder if decoder.use_bias else None


def _invert_momentums(
    model: TVAE, dense: keras.layers.Dense, inverted: np.ndarray
) -> None:
    """Inverts latents in an optimizer's first moments, if it has some.

    Args:
      model: Compiled or not.
      dense: Its decoder's first layer.
      inverted: bool `[H]`, the inverted latents.
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
    values[inverted] = of_bias.numpy() - values[inverted]
    of_kernel.assign(values)
