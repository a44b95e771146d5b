# SPDX-License-Identifier: Apache-2.0
"""Encoders: a partly or fully frozen network and a posterior family.

How much of a network is trained is a policy that applies to any Keras network:
`learnable`, `partially_non_learnable`, `non_learnable` and
`random_kitchen_sinks` split the same network in two at different layers. The
part before the split is frozen, so its features can be computed once for a
whole data set (`frozen_features`).
"""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae import likelihoods, typed_gin
from tfvae.ops import limits, moments
from tfvae.ranks import ONE_PROCESS, Ranks
from tfvae.resources import check_disk_space
from tfvae.vae.posteriors import Distribution, GaussianPosterior, Posterior

NetworkFactory = Callable[[int], keras.Model]
"""Factory `num_outputs -> network` from `[b, D]` to `[b, num_outputs]`."""

# The published variance of encoders that output only means.
FROZEN_VARIANCE = 1e-6

_FEATURE_BATCH = 1024
# Data of unit scale have no larger values, and some at least this far from
# their column's mean. Standardised values up to the former are not compressed.
_USUAL = 10.0
_UNIT_SPREAD = 0.1


@keras.saving.register_keras_serializable("tfvae")
class Encoder(keras.layers.Layer):
    """A frozen network, then a trained one, then the posterior q(z | x).

    Frozen layers run in inference mode, without gradients or optimizer state.

    Networks see data of unit scale, whatever the units of the data: `adapt`
    finds an offset for each observed dimension and a scale for all of them,
    unless the data are of unit scale already. Standardised values beyond +-10
    are compressed to their logarithm, so that no data point is out of reach,
    and missing entries are zeros.

    Attributes:
      frozen: From `[b, D]` to features, or None.
      trained: From features (or data) to posterior parameters, or None.
      posterior: Family of q(z | x).
      num_observed: D.
      num_latents: M.
      feature_shape: Shape of one data point's features.
      offset: float32 weight `[D]`, not trained; zeros before `adapt`.
      scale: Scalar float32 weight, not trained; 1 before `adapt`.
    """

    def __init__(
        self,
        frozen: keras.Model | None,
        trained: keras.Model | None,
        posterior: Posterior | None = None,
        **kwargs: Any,
    ):
        """Creates the encoder; usually the policy functions do.

        Args:
          frozen: A built Keras model, or None if all is trained.
          trained: A built Keras model, or None if nothing is trained.
          posterior: Family of q(z | x); None for `GaussianPosterior()`.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If both are None, or their shapes do not fit.
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
                "`trained` must have the output shape of `frozen` as input "
                f"shape, {self.feature_shape!r}, got "
                f"{_sizes(trained.input_shape)!r}"
            )
        (self.num_observed,) = _flat(parts[0].input_shape, "inputs")
        (num_outputs,) = _flat(parts[-1].output_shape, "outputs")
        self.num_latents = self.posterior.num_latents(num_outputs)
        self.offset = self._add_fixed("offset", (self.num_observed,), "zeros")
        self.scale = self._add_fixed("scale", (), "ones")
        # Data stay float32 until they are standardised; networks cast theirs.
        self.autocast = False
        self.built = True

    def _add_fixed(
        self, name: str, shape: tuple[int, ...], initializer: str
    ) -> keras.Variable:
        return self.add_weight(
            shape=shape,
            initializer=initializer,
            dtype="float32",
            trainable=False,
            autocast=False,
            name=name,
        )

    def adapt(self, x: np.ndarray, ranks: Ranks = ONE_PROCESS) -> None:
        """Sets offset and scale for the networks' inputs.

        Data are of unit scale, and left as they are, if no value is beyond
        +-10 and some value is at least 0.1 from its column's mean. Otherwise
        the offset is the mean of each column, and the scale the standard
        deviation of all entries about these.

        Args:
          x: `[N, D]`, NaN where missing.
          ranks: The processes, each of which passes its part of the data.
        """
        found = moments.merged(ranks.gather(moments.of_columns(x)))
        offset, scale = found.mean, 1.0
        # NaN of columns without values.
        largest = np.nanmax(np.maximum(-found.low, found.high))
        farthest = np.nanmax(
            np.maximum(offset - found.low, found.high - offset)
        )
        if largest <= _USUAL and farthest >= _UNIT_SPREAD:
            offset = np.zeros_like(offset)
        else:
            scale = moments.scale_of(found.within_columns(), 1.0)
        self.offset.assign(offset)
        self.scale.assign(scale)

    def standardize(self, x: tf.Tensor) -> tf.Tensor:
        """Returns what the networks see of data `[b, D]`: zeros for NaN."""
        standardized = (x - self.offset.value) / self.scale.value
        # As likelihoods do: what is further away counts as no further.
        standardized = tf.clip_by_value(
            standardized, -likelihoods.MAX_DISTANCE, likelihoods.MAX_DISTANCE
        )
        missing = tf.math.is_nan(x)
        return limits.compress(tf.where(missing, 0.0, standardized), _USUAL)

    def features(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs of the frozen part, `[b, *feature_shape]`.

        Args:
          x: `[b, D]`, NaN where missing.
        """
        return self._features_of_standardized(self.standardize(x))

    def _features_of_standardized(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.frozen is None:
            return inputs
        return self.frozen(inputs, training=False)

    def posterior_of_standardized(self, inputs: tf.Tensor) -> Distribution:
        """Returns q(z | x), given what `standardize` returns of x, `[b, D]`."""
        return self.posterior_of_features(
            self._features_of_standardized(inputs)
        )

    def posterior_of_features(
        self, features: tf.Tensor, training: bool = False
    ) -> Distribution:
        """Returns q(z | x), given the features of x."""
        outputs = features
        if self.trained is not None:
            outputs = self.trained(features, training=training)
        return self.posterior.distribution(tf.cast(outputs, tf.float32))

    def call(self, x: tf.Tensor, training: bool = False) -> Distribution:
        """Returns q(z | x), a distribution of `[b, M]`.

        Args:
          x: `[b, D]`, NaN where missing.
          training: Whether the trained part runs in training mode.
        """
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


@typed_gin.register
@typed_gin.uses(defaults={"posterior": GaussianPosterior})
def learnable(
    network: NetworkFactory,
    num_latents: int,
    *,
    posterior: Posterior | None = None,
) -> Encoder:
    """Returns a fully trained encoder, as in a standard VAE.

    Args:
      network: Factory, called with the number of outputs.
      num_latents: M.
      posterior: Family of q(z | x); None for `GaussianPosterior()`.
    """
    posterior = posterior or GaussianPosterior()
    outputs = posterior.num_outputs(num_latents)
    return Encoder(None, network(outputs), posterior)


@typed_gin.register
@typed_gin.uses(defaults={"posterior": GaussianPosterior})
def partially_non_learnable(
    network: NetworkFactory,
    num_latents: int,
    *,
    posterior: Posterior | None = None,
) -> Encoder:
    """Returns an encoder of which only the last layer with weights is trained.

    The others keep their initial, random weights. With a network of many
    random features and a dense layer, it is a trained linear compression of
    random kitchen sinks.

    Args:
      network: Factory, called with the number of outputs.
      num_latents: M.
      posterior: Family of q(z | x); None for `GaussianPosterior()`.

    Raises:
      ValueError: If the network cannot be split before that layer.
    """
    posterior = posterior or GaussianPosterior()
    whole = network(posterior.num_outputs(num_latents))
    return Encoder(*cut_before_last(whole), posterior)


@typed_gin.register
@typed_gin.uses(
    builds={GaussianPosterior: typed_gin.arguments("`non_learnable.variance`")}
)
def non_learnable(
    network: NetworkFactory,
    num_latents: int,
    *,
    variance: float = FROZEN_VARIANCE,
) -> Encoder:
    """Returns an encoder that is not trained, and outputs means only.

    Args:
      network: Factory, called with the number of outputs, M.
      num_latents: M.
      variance: Posterior variance of every latent.
    """
    return Encoder(network(num_latents), None, GaussianPosterior(variance))


@typed_gin.register
@typed_gin.uses(
    builds={
        GaussianPosterior: typed_gin.arguments(
            "`random_kitchen_sinks.variance`"
        )
    }
)
def random_kitchen_sinks(
    network: NetworkFactory,
    num_latents: int,
    *,
    variance: float = FROZEN_VARIANCE,
) -> Encoder:
    """Returns an encoder whose posterior means are random features.

    As `non_learnable`, with a network of a single random layer such as
    `networks.random_features` or `networks.random_conv_features`.

    Reference: Rahimi and Recht, 2008, "Weighted sums of random kitchen sinks".

    Args:
      network: Factory, called with the number of outputs, M; only the last
        layer may have weights.
      num_latents: M.
      variance: Posterior variance of every latent.

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
    """Splits a network before its last layer with weights.

    Args:
      network: A built functional or sequential Keras model, a single chain of
        layers from that layer on.

    Returns:
      The network before the split, and the rest, sharing its weights.

    Raises:
      ValueError: If the network cannot be split there.
    """
    weighted = [layer for layer in network.layers if layer.weights]
    if len(weighted) < 2:
        raise ValueError(
            "`network` must have at least two layers with weights, one to "
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
    """Computes the outputs of an encoder's frozen part for a data set.

    Args:
      encoder: The encoder, after `adapt`.
      x: `[N, D]`, NaN where missing.
      path: File to store features in (`.npy` format) that exceed
        `max_memory_bytes`.
      max_memory_bytes: Largest size of features that are kept in memory.

    Returns:
      `[N, *feature_shape]` float32, in memory or a memory map of the file;
      None if the encoder has no frozen part.

    Raises:
      ValueError: If a file is needed and `path` is None.
      OSError: If the features do not fit on the disk.
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
        batch = np.asarray(x[start : start + _FEATURE_BATCH], np.float32)
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
