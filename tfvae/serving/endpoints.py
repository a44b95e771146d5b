# SPDX-License-Identifier: Apache-2.0
"""Serving signatures of each kind of model."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from tfvae.ops import bits
from tfvae.ops.distributions import DiagonalGaussian, IndependentBernoulli
from tfvae.tvae import TVAE, Inference
from tfvae.vae import VAE

DEFAULT_SIGNATURE = "serving_default"

# Number of draws for the bound of a VAE's default signature, the default of
# `VAE.log_likelihood_bound`.
DEFAULT_NUM_SAMPLES = 128

Outputs = dict[str, tf.Tensor]

_Model = TypeVar("_Model", TVAE, VAE)

# Outputs of `VAE.encode`, by their names for clients.
_PARAMETERS: dict[type, Callable[[Any], Outputs]] = {
    DiagonalGaussian: lambda posterior: {
        "mean": posterior.mean,
        "variance": tf.broadcast_to(
            tf.exp(posterior.log_variance), tf.shape(posterior.mean)
        ),
    },
    IndependentBernoulli: lambda posterior: {"probs": posterior.mean},
}


class Signature(NamedTuple):
    """A serving signature.

    Attributes:
      function: From input tensors to outputs by name.
      inputs: Specs of the input tensors, in order.
    """

    function: Callable[..., Outputs]
    inputs: list[tf.TensorSpec]


class Endpoints(abc.ABC, Generic[_Model]):
    """Serving signatures and metadata of a kind of model.

    To support another kind of model, add a subclass and list it in `_KINDS`.
    """

    def __init__(self, model: _Model):
        """Creates the endpoints.

        Args:
          model: The model to serve.
        """
        self._model: _Model = model

    @abc.abstractmethod
    def signatures(self) -> dict[str, Signature]:
        """Returns the signatures by name, `DEFAULT_SIGNATURE` among them."""

    @abc.abstractmethod
    def probes(self) -> dict[str, dict[str, Any]]:
        """Returns cheap arguments of signatures, to check an export with.

        Signatures that are not among them are only checked to exist.
        """

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """Returns metadata for clients that are specific to the model kind."""

    def sample(self, num_samples: tf.Tensor, seed: tf.Tensor) -> Outputs:
        num_samples = _at_least(0, num_samples, "must not be negative")
        return {
            "observations": self._model.sample(num_samples, seed),
            "mean": self._model.sample(num_samples, seed, mean=True),
        }

    def _as_data(self, data: tf.Tensor) -> tf.Tensor:
        # The runtime does not enforce a signature's shapes, and a wrong width
        # might broadcast.
        return tf.ensure_shape(data, [None, self._model.num_observed])

    def _data_spec(self) -> tf.TensorSpec:
        shape = [None, self._model.num_observed]
        return tf.TensorSpec(shape, tf.float32, "data")


class TVAEEndpoints(Endpoints[TVAE]):
    """Evolutionary inference, decoding and sampling of a TVAE."""

    def signatures(self) -> dict[str, Signature]:
        data = self._data_spec()
        shape = [None, self._model.num_latents]
        states = tf.TensorSpec(shape, tf.float32, "states")
        max_steps, seed = _scalars("max_steps", "seed")
        unseen = [data, max_steps, seed]
        return {
            DEFAULT_SIGNATURE: Signature(self.reconstruct_by_default, [data]),
            "encode": Signature(self.encode, unseen),
            "decode": Signature(self.decode, [states]),
            "reconstruct": Signature(self.reconstruct, unseen),
            "sample": Signature(self.sample, _scalars("num_samples", "seed")),
            "log_likelihood_bound": Signature(
                self.log_likelihood_bound, unseen
            ),
        }

    def probes(self) -> dict[str, dict[str, Any]]:
        batch = _with_missing(self._model.sample(2))
        unseen = {"data": batch, "max_steps": 1, "seed": 1}
        states = np.eye(2, self._model.num_latents, dtype=np.float32)
        # The default signature may take long, and is `reconstruct` with
        # constants.
        return {
            "decode": {"states": states},
            "encode": unseen,
            "log_likelihood_bound": unseen,
            "reconstruct": unseen,
            "sample": {"num_samples": 2, "seed": 1},
        }

    def facts(self) -> dict[str, Any]:
        return {
            "model": "TVAE",
            "num_states": self._model.num_states,
            "inference_steps": self._model.inference_steps,
            "inference_tolerance": self._model.inference_tolerance,
        }

    def encode(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        inference = self._infer(data, max_steps, seed)
        states = bits.unpack(inference.packed, self._model.num_latents)
        return {"states": states, **inference._asdict()}

    def reconstruct(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        inference = self._infer(data, max_steps, seed)
        return {
            "mean": self._model.posterior_mean(inference),
            "bound": inference.bound,
        }

    def reconstruct_by_default(self, data: tf.Tensor) -> Outputs:
        model = self._model
        return self.reconstruct(data, model.inference_steps, model.seed)

    def log_likelihood_bound(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        return {"bound": self._infer(data, max_steps, seed).bound}

    def decode(self, states: tf.Tensor) -> Outputs:
        states = tf.ensure_shape(states, [None, self._model.num_latents])
        return {"mean": self._model.decode(states)}

    def _infer(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> Inference:
        data = self._as_data(data)
        return self._model.infer(data, seed=seed, max_steps=max_steps)


class VAEEndpoints(Endpoints[VAE]):
    """Encoding, decoding, sampling and the bound of an amortised VAE."""

    def signatures(self) -> dict[str, Signature]:
        data = self._data_spec()
        shape = [None, self._model.num_latents]
        latents = tf.TensorSpec(shape, tf.float32, "latents")
        num_samples, seed = _scalars("num_samples", "seed")
        drawn = [data, num_samples, seed]
        return {
            DEFAULT_SIGNATURE: Signature(self.reconstruct_by_default, [data]),
            "encode": Signature(self.encode, [data]),
            "decode": Signature(self.decode, [latents]),
            "reconstruct": Signature(self.reconstruct, drawn),
            "sample": Signature(self.sample, [num_samples, seed]),
            "log_likelihood_bound": Signature(self.log_likelihood_bound, drawn),
        }

    def probes(self) -> dict[str, dict[str, Any]]:
        latents = np.eye(2, self._model.num_latents, dtype=np.float32)
        # Fixed latents, as draws from the prior may be extreme.
        batch = _with_missing(self._model.decode(latents))
        drawn = {"data": batch, "num_samples": 2, "seed": 1}
        return {
            DEFAULT_SIGNATURE: {"data": batch},
            "decode": {"latents": latents},
            "encode": {"data": batch},
            "log_likelihood_bound": drawn,
            "reconstruct": drawn,
            "sample": {"num_samples": 2, "seed": 1},
        }

    def facts(self) -> dict[str, Any]:
        encoder = self._model.encoder
        return {
            "model": "VAE",
            "prior": type(self._model.prior).__name__,
            "encoder": {
                "posterior": type(encoder.posterior).__name__,
                "has_frozen_part": encoder.frozen is not None,
                "has_trained_part": encoder.trained is not None,
            },
            "num_samples": DEFAULT_NUM_SAMPLES,
        }

    def encode(self, data: tf.Tensor) -> Outputs:
        posterior = self._model.encode(self._as_data(data))
        return _PARAMETERS[type(posterior)](posterior)

    def reconstruct(
        self, data: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        return {
            "mean": self._model.reconstruct(self._as_data(data)),
            **self.log_likelihood_bound(data, num_samples, seed),
        }

    def reconstruct_by_default(self, data: tf.Tensor) -> Outputs:
        return self.reconstruct(data, DEFAULT_NUM_SAMPLES, self._model.seed)

    def log_likelihood_bound(
        self, data: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        num_samples = _at_least(1, num_samples, "must be at least 1")
        bound = self._model.log_likelihood_bound(
            self._as_data(data), num_samples, seed
        )
        return {"bound": bound}

    def decode(self, latents: tf.Tensor) -> Outputs:
        latents = tf.ensure_shape(latents, [None, self._model.num_latents])
        return {"mean": self._model.decode(latents)}


@functools.singledispatch
def endpoints_of(model: object) -> Endpoints:
    """Returns the endpoints of a model, by its class.

    Raises:
      TypeError: If the model is neither a TVAE nor a VAE.
    """
    raise TypeError(f"`model` must be a TVAE or a VAE, got {model!r}")


endpoints_of.register(TVAE, TVAEEndpoints)
endpoints_of.register(VAE, VAEEndpoints)


def _scalars(*names: str) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([], tf.int32, name) for name in names]


def _with_missing(batch: tf.Tensor) -> np.ndarray:
    """Returns a batch with one entry missing, if rows have several entries."""
    data = batch.numpy()
    if data.shape[1] > 1:
        data[0, 0] = np.nan
    return data


def _at_least(minimum: int, num_samples: tf.Tensor, rule: str) -> tf.Tensor:
    """Returns `num_samples`, with a runtime check of its minimum."""
    is_valid = tf.debugging.Assert(
        tf.greater_equal(num_samples, minimum),
        [f"num_samples {rule}, got", num_samples],
    )
    with tf.control_dependencies([is_valid]):
        return tf.identity(num_samples)
