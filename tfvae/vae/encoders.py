# SPDX-License-Identifier: Apache-2.0
"""Encoders: a network that may be frozen, in part or whole, and a posterior.

How much of a network trains is a policy over any Keras network, not a network
of its own: `learnable`, `partially_non_learnable`, `non_learnable` and
`random_kitchen_sinks` cut the same network in two at different places. What is
before the cut never changes, so its features can be computed once for a whole
data set (`frozen_features`).
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import gin
import keras
import numpy as np
import tensorflow as tf

from tfvae.resources import check_disk_space
from tfvae.vae.posteriors import Distribution, GaussianPosterior, Posterior

NetworkFactory = Callable[[int], keras.Model]
"""From a number of outputs to a network from `[b, D]` to `[b, outputs]`."""

# The published variance of encoders that give means alone.
FROZEN_VARIANCE = 1e-6

_FEATURE_BATCH = 1024


@keras.saving.register_keras_serializable("tfvae")
class Encoder(keras.layers.Layer):
    """A frozen network, then a trained one, then the posterior q(z | x).

    Frozen layers run in inference mode, take no gradient and no optimizer
    state.

    Attributes:
      frozen: From `[b, D]` to features, or None.
      trained: From features (or data) to the posterior's outputs, or None.
      posterior: What the outputs mean.
      num_observed: D.
      num_latents: M.
      feature_shape: Shape of one data point's features.
    """

    def __init__(
        self,
        frozen: keras.Model | None,
        trained: keras.Model | None,
        posterior: Posterior | None = None,
        **kwargs: Any,
    ):
        """Creates the encoder; the policies are the usual way to one.

        Args:
          frozen: A built Keras model, or None where all is trained.
          trained: A built Keras model, or None where nothing is.
          posterior: Family of q(z | x); None for `GaussianPosterior()`.
          **kwargs: Of `keras.layers.Layer`.

        Raises:
          ValueError: If there is no network, or the two do not fit.
        """
        super().__init__(**kwargs)
        parts = [part for part in (frozen, trained) if part is not None]
        if not parts:
            raise ValueError(
                "`frozen` or `trained` must be a network, got None for both"
            )
        self.frozen = frozen
        self.trained = trained
        self.posterior: Posterior = posterior or GaussianPosterior()
        if frozen is not None:
            frozen.trainable = False
        self.feature_shape = _sizes(parts[-1].input_shape)
        if frozen is not None:
            self.feature_shape = _sizes(frozen.output_shape)
        if trained is not None and self.feature_shape != _sizes(
            trained.input_shape
        ):
            raise ValueError(
                "`trained` must take what `frozen` makes, "
                f"{self.feature_shape!r}, got {_sizes(trained.input_shape)!r}"
            )
        (self.num_observed,) = _flat(parts[0].input_shape, "inputs")
        (num_outputs,) = _flat(parts[-1].output_shape, "outputs")
        self.num_latents = self.posterior.num_latents(num_outputs)
        self.built = True

    def features(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what never changes in training, `[b, *feature_shape]`."""
        return x if self.frozen is None else self.frozen(x, training=False)

    def posterior_of_features(
        self, features: tf.Tensor, training: bool = False
    ) -> Distribution:
        """Returns q(z | x), given the features of x."""
        outputs = features
        if self.trained is not None:
            outputs = self.trained(features, training=training)
        return self.posterior.distribution(tf.cast(outputs, tf.float32))

    def call(self, x: tf.Tensor, training: bool = False) -> Distribution:
        """Returns q(z | x), `[b, D]` to a distribution of `[b, M]`."""
        return self.posterior_of_features(self.features(x), training)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "frozen": serialize(self.frozen),
            "trained": serialize(self.trained),
            "posterior": serialize(self.posterior),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Encoder:
        config = dict(config)
        for name in ("frozen", "trained", "posterior"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


@gin.register
def learnable(
    network: NetworkFactory,
    num_latents: int,
    *,
    posterior: Posterior | None = None,
) -> Encoder:
    """Returns an encoder that trains as a whole, as in the usual VAE.

    Args:
      network: Called with the number of outputs.
      num_latents: M.
      posterior: Family of q(z | x); None for `GaussianPosterior()`.
    """
    posterior = posterior or GaussianPosterior()
    outputs = posterior.num_outputs(num_latents)
    return Encoder(None, network(outputs), posterior)


@gin.register
def partially_non_learnable(
    network: NetworkFactory,
    num_latents: int,
    *,
    posterior: Posterior | None = None,
) -> Encoder:
    """Returns an encoder that trains the last of its layers with weights.

    The others keep their initial, random weights. Over a network of many
    random features and a dense layer it is a trained compression of random
    kitchen sinks.

    Args:
      network: Called with the number of outputs.
      num_latents: M.
      posterior: Family of q(z | x); None for `GaussianPosterior()`.

    Raises:
      ValueError: If the network can not be cut before that layer.
    """
    posterior = posterior or GaussianPosterior()
    whole = network(posterior.num_outputs(num_latents))
    return Encoder(*cut_before_last(whole), posterior)


@gin.register
def non_learnable(
    network: NetworkFactory,
    num_latents: int,
    *,
    variance: float = FROZEN_VARIANCE,
) -> Encoder:
    """Returns an encoder that keeps its initial weights and gives means alone.

    Args:
      network: Called with the number of outputs, M.
      num_latents: M.
      variance: Of every latent.
    """
    return Encoder(network(num_latents), None, GaussianPosterior(variance))


@gin.register
def random_kitchen_sinks(
    network: NetworkFactory,
    num_latents: int,
    *,
    variance: float = FROZEN_VARIANCE,
) -> Encoder:
    """Returns an encoder of random features, the latents themselves.

    As `non_learnable`, over a network of a single random layer such as
    `networks.random_features` or `networks.random_conv_features`.

    Reference: Rahimi and Recht, 2008, "Weighted sums of random kitchen sinks".

    Args:
      network: Called with the number of outputs, M; only its last layer may
        have weights.
      num_latents: M.
      variance: Of every latent.

    Raises:
      ValueError: If the network has several layers with weights.
    """
    sinks = network(num_latents)
    weighted = [layer.name for layer in sinks.layers if layer.weights]
    if len(weighted) > 1:
        raise ValueError(
            "`network` must have one layer with weights, such as "
            f"random_features, got {', '.join(weighted)}"
        )
    return Encoder(sinks, None, GaussianPosterior(variance))


def cut_before_last(network: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cuts a network in front of its last layer with weights.

    Args:
      network: A built functional or sequential Keras model; the one tensor
        that goes into that layer has to be all that its end depends on.

    Returns:
      The network up to the cut, and the rest, with the same weights.

    Raises:
      ValueError: If there is no such place.
    """
    weighted = [layer for layer in network.layers if layer.weights]
    if len(weighted) < 2:
        raise ValueError(
            "`network` must have two layers with weights at least, one to "
            f"freeze and one to train, got {len(weighted)}"
        )
    try:
        place = weighted[-1].input
        return (
            keras.Model(network.inputs[0], place, name="frozen"),
            keras.Model(place, network.outputs[0], name="trained"),
        )
    except (AttributeError, ValueError) as err:
        raise ValueError(
            "`network` must be one chain of layers from its last layer with "
            f"weights on, got {network.name}: {err}"
        ) from err


def frozen_features(
    encoder: Encoder,
    x: np.ndarray,
    *,
    path: str | os.PathLike[str] | None = None,
    max_memory_bytes: int = 2**30,
) -> np.ndarray | None:
    """Computes the features of a data set that training never changes.

    Args:
      encoder: The encoder.
      x: `[N, D]`, NaN where missing (the encoder sees zeros there).
      path: File that features go to, as NumPy writes arrays, when they take
        more memory than they may.
      max_memory_bytes: How much that is.

    Returns:
      `[N, *feature_shape]` float32, in memory or mapped from the file; None
      where the encoder has nothing frozen.

    Raises:
      ValueError: If a file is needed and `path` is None.
      OSError: If the disk has no room.
    """
    if encoder.frozen is None:
        return None
    shape = (len(x), *encoder.feature_shape)
    num_bytes = 4 * math.prod(shape)
    features: np.ndarray
    if num_bytes <= max_memory_bytes:
        features = np.empty(shape, np.float32)
    elif path is None:
        raise ValueError(
            f"`path` must be a file for features of {num_bytes:,} bytes, more "
            f"than `max_memory_bytes` = {max_memory_bytes:,}, got None"
        )
    else:
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        check_disk_space(path.parent, num_bytes, f"caching features in {path}")
        features = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.float32, shape=shape
        )
    compute = tf.function(encoder.features)
    for start in range(0, len(x), _FEATURE_BATCH):
        batch = np.nan_to_num(x[start : start + _FEATURE_BATCH])
        features[start : start + len(batch)] = compute(batch)
    return features


def _sizes(shape: Any) -> tuple[int, ...]:
    """Returns the shape of one data point."""
    return tuple(shape[1:])


def _flat(shape: Any, what: str) -> tuple[int, ...]:
    """Returns the width of a flat shape, as a tuple of one."""
    sizes = _sizes(shape)
    if len(sizes) != 1 or sizes[0] is None:
        raise ValueError(
            f"an encoder's {what} must have shape [b, number], got "
            f"{tuple(shape)!r}"
        )
    return sizes
