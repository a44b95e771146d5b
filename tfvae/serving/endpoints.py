# SPDX-License-Identifier: Apache-2.0
"""Serving signatures of each kind of model."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import tensorflow as tf

from tfvae.networks import binary
from tfvae.ops import bits
from tfvae.ops.distributions import (
    DiagonalGaussian,
    IndependentBernoulli,
    IndependentCategorical,
    Quantized,
)
from tfvae.serving.limits import Limits, after, at_least, at_most
from tfvae.tvae import TVAE, Inference
from tfvae.vae import VAE

DEFAULT_SIGNATURE = "serving_default"

# As the default one, with a mask in the place of NaN.
OBSERVED_SIGNATURE = "serving_observed"

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
    IndependentCategorical: lambda posterior: {"probs": posterior.mean},
    Quantized: lambda posterior: {
        "mean": posterior.mean,
        "codes": posterior.codes,
    },
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

    Attributes:
      limit_names: The fields of `Limits` that act on this kind of model.
    """

    limit_names: ClassVar[tuple[str, ...]]

    def __init__(self, model: _Model, limits: Limits):
        """Creates the endpoints.

        Args:
          model: The model to serve.
          limits: The largest requests that are answered.

        Raises:
          ValueError: If a limit is set that does not act on the model.
        """
        for field in dataclasses.fields(limits):
            found = getattr(limits, field.name)
            if field.name not in self.limit_names and found != field.default:
                raise ValueError(
                    f"`limits.{field.name}` must not be set, as it does not "
                    f"act on {type(model).__name__} (its limits are "
                    f"{', '.join(self.limit_names)}), got {found}"
                )
        self._model: _Model = model
        self._limits = limits

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

    def _acting_limits(self) -> dict[str, int]:
        limits = dataclasses.asdict(self._limits)
        return {name: limits[name] for name in self.limit_names}

    @abc.abstractmethod
    def reconstruct_by_default(self, data: tf.Tensor) -> Outputs:
        """Returns mean and bound, given data `[B, D]` alone."""

    @functools.cached_property
    def _default_graph(self) -> Any:
        """`reconstruct_by_default`, traced once for both default signatures."""
        function = tf.function(
            self.reconstruct_by_default,
            input_signature=self._data_specs("data"),
        )
        return function.get_concrete_function()

    def serve_default(self, data: tf.Tensor) -> Outputs:
        return self._default_graph(data)

    def serve_observed(self, data: tf.Tensor, observed: tf.Tensor) -> Outputs:
        """As `serve_default`; data where `observed` is 0 do not count.

        They may be anything there: strict JSON has no NaN.
        """
        width = self._model.num_observed
        data = self._as_rows("data", data, width)
        observed = self._as_rows("observed", observed, width)
        checks = [
            tf.debugging.Assert(
                tf.shape(observed)[0] == tf.shape(data)[0],
                [
                    "observed must have as many rows as data, got",
                    tf.shape(observed)[0],
                    "and",
                    tf.shape(data)[0],
                ],
            ),
            _zeros_and_ones("observed", observed),
        ]
        is_observed = after(checks, observed > 0.0)
        return self._default_graph(tf.where(is_observed, data, math.nan))

    def sample(self, num_samples: tf.Tensor, seed: tf.Tensor) -> Outputs:
        num_samples = self._as_count(
            "num_samples", num_samples, 0, self._limits.num_samples
        )
        seed = _as_scalar(seed)
        return {
            "observations": self._model.sample(num_samples, seed),
            "mean": self._model.sample(num_samples, seed, mean=True),
        }

    def _decoded(self, latents: tf.Tensor) -> Outputs:
        with binary.plain_products():
            return {"mean": self._model.decode(latents)}

    def _as_rows(self, name: str, rows: tf.Tensor, width: int) -> tf.Tensor:
        """Returns rows of a request, with runtime checks of their shape."""
        # The runtime does not enforce a signature's shapes, and a wrong width
        # might broadcast.
        rows = tf.ensure_shape(rows, [None, width])
        name = f"rows of {name}"
        return after(
            [at_most(name, tf.shape(rows)[0], self._limits.rows)], rows
        )

    def _as_data(
        self,
        data: tf.Tensor,
        repeats: int | tf.Tensor,
        name: str,
        most: int,
    ) -> tf.Tensor:
        """Returns data of a request, with runtime checks of their shape.

        Args:
          data: `[B, D]`.
          repeats: How often each row is to be processed.
          name: Name of `repeats`, for messages.
          most: The largest B times `repeats`.
        """
        data = self._as_rows("data", data, self._model.num_observed)
        product = tf.shape(data, tf.int64)[0] * tf.cast(repeats, tf.int64)
        return after(
            [at_most(f"rows of data times {name}", product, most)], data
        )

    def _as_count(
        self, name: str, count: tf.Tensor, minimum: int, maximum: int
    ) -> tf.Tensor:
        """Returns a count of a request, with runtime checks of its range."""
        count = _as_scalar(count)
        checks = [at_least(name, count, minimum), at_most(name, count, maximum)]
        return after(checks, count)

    def _row_spec(self, name: str, width: int) -> tf.TensorSpec:
        return tf.TensorSpec([None, width], tf.float32, name)

    def _data_specs(self, *names: str) -> list[tf.TensorSpec]:
        width = self._model.num_observed
        return [self._row_spec(name, width) for name in names]

    def _probe_rows(self, repeats: int, most: int) -> int:
        """Returns the rows of a probe, 2 where the limits allow that."""
        return min(2, self._limits.rows, most // repeats)


class TVAEEndpoints(Endpoints[TVAE]):
    """Evolutionary inference, decoding and sampling of a TVAE."""

    limit_names = ("rows", "num_samples", "max_steps", "row_steps")

    def __init__(self, model: TVAE, limits: Limits):
        """Creates the endpoints.

        Args:
          model: The model to serve.
          limits: The largest requests that are answered.

        Raises:
          ValueError: If `limits` refuse every request to infer with the
            model's own number of steps.
        """
        super().__init__(model, limits)
        if limits.row_steps < model.inference_steps:
            raise ValueError(
                "`limits.row_steps` must be at least the model's "
                f"`inference_steps` = {model.inference_steps}, got "
                f"{limits.row_steps}"
            )

    def signatures(self) -> dict[str, Signature]:
        data = self._data_specs("data")
        masked = self._data_specs("data", "observed")
        states = self._row_spec("states", self._model.num_latents)
        unseen = [*data, *_scalars("max_steps", "seed")]
        return {
            DEFAULT_SIGNATURE: Signature(self.serve_default, data),
            OBSERVED_SIGNATURE: Signature(self.serve_observed, masked),
            "encode": Signature(self.encode, unseen),
            "decode": Signature(self.decode, [states]),
            "reconstruct": Signature(self.reconstruct, unseen),
            "sample": Signature(self.sample, _scalars("num_samples", "seed")),
            "log_likelihood_bound": Signature(
                self.log_likelihood_bound, unseen
            ),
        }

    def probes(self) -> dict[str, dict[str, Any]]:
        number = self._probe_rows(1, self._limits.row_steps)
        batch = _with_missing(self._model.sample(number))
        unseen = {"data": batch, "max_steps": 1, "seed": 1}
        states = np.eye(number, self._model.num_latents, dtype=np.float32)
        # The default signatures may take long, and are `reconstruct` with
        # constants.
        return {
            "decode": {"states": states},
            "encode": unseen,
            "log_likelihood_bound": unseen,
            "reconstruct": unseen,
            "sample": {
                "num_samples": min(2, self._limits.num_samples),
                "seed": 1,
            },
        }

    def facts(self) -> dict[str, Any]:
        return {
            "model": "TVAE",
            "num_states": self._model.num_states,
            "inference_steps": self._model.inference_steps,
            "inference_tolerance": self._model.inference_tolerance,
            "limits": self._acting_limits(),
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
        return self._reconstructed(self._infer(data, max_steps, seed))

    def reconstruct_by_default(self, data: tf.Tensor) -> Outputs:
        # The number of steps is the exporter's, and not subject to a limit.
        steps, seed = self._model.inference_steps, self._model.seed
        return self._reconstructed(self._infer_in(data, steps, seed))

    def log_likelihood_bound(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        return {"bound": self._infer(data, max_steps, seed).bound}

    def decode(self, states: tf.Tensor) -> Outputs:
        states = self._as_rows("states", states, self._model.num_latents)
        checks = [_zeros_and_ones("states", states)]
        return self._decoded(after(checks, states))

    def _infer(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> Inference:
        max_steps = self._as_count(
            "max_steps", max_steps, 0, self._limits.max_steps
        )
        return self._infer_in(data, max_steps, _as_scalar(seed))

    def _infer_in(
        self, data: tf.Tensor, max_steps: int | tf.Tensor, seed: int | tf.Tensor
    ) -> Inference:
        most = self._limits.row_steps
        data = self._as_data(data, max_steps, "steps", most)
        return self._model.infer(data, seed=seed, max_steps=max_steps)

    def _reconstructed(self, inference: Inference) -> Outputs:
        return {
            "mean": self._model.posterior_mean(inference),
            "bound": inference.bound,
        }


class VAEEndpoints(Endpoints[VAE]):
    """Encoding, decoding, sampling and the bound of an amortised VAE."""

    limit_names = ("rows", "num_samples", "row_samples")

    def __init__(self, model: VAE, limits: Limits):
        """Creates the endpoints.

        Args:
          model: The model to serve.
          limits: The largest requests that are answered.

        Raises:
          ValueError: If `limits` refuse every request for a bound with the
            default number of draws.
        """
        super().__init__(model, limits)
        if limits.row_samples < DEFAULT_NUM_SAMPLES:
            raise ValueError(
                f"`limits.row_samples` must be at least {DEFAULT_NUM_SAMPLES}, "
                f"the draws of {DEFAULT_SIGNATURE}, got {limits.row_samples}"
            )

    def signatures(self) -> dict[str, Signature]:
        data = self._data_specs("data")
        masked = self._data_specs("data", "observed")
        latents = self._row_spec("latents", self._model.num_latents)
        num_samples, seed = _scalars("num_samples", "seed")
        drawn = [*data, num_samples, seed]
        return {
            DEFAULT_SIGNATURE: Signature(self.serve_default, data),
            OBSERVED_SIGNATURE: Signature(self.serve_observed, masked),
            "mean": Signature(self.mean, data),
            "encode": Signature(self.encode, data),
            "decode": Signature(self.decode, [latents]),
            "reconstruct": Signature(self.reconstruct, drawn),
            "sample": Signature(self.sample, [num_samples, seed]),
            "log_likelihood_bound": Signature(self.log_likelihood_bound, drawn),
        }

    def probes(self) -> dict[str, dict[str, Any]]:
        number = self._probe_rows(DEFAULT_NUM_SAMPLES, self._limits.row_samples)
        latents = np.eye(number, self._model.num_latents, dtype=np.float32)
        # Fixed latents, as draws from the prior may be extreme.
        complete = self._model.decode(latents)
        batch = _with_missing(complete)
        num_samples = min(2, self._limits.num_samples)
        drawn = {"data": batch, "num_samples": num_samples, "seed": 1}
        return {
            DEFAULT_SIGNATURE: {"data": batch},
            OBSERVED_SIGNATURE: {
                "data": complete,
                "observed": 1.0 - np.isnan(batch).astype(np.float32),
            },
            "mean": {"data": batch},
            "decode": {"latents": latents},
            "encode": {"data": batch},
            "log_likelihood_bound": drawn,
            "reconstruct": drawn,
            "sample": {"num_samples": num_samples, "seed": 1},
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
            "limits": self._acting_limits(),
        }

    def encode(self, data: tf.Tensor) -> Outputs:
        data = self._as_rows("data", data, self._model.num_observed)
        posterior = self._model.encode(data)
        return _PARAMETERS[type(posterior)](posterior)

    def mean(self, data: tf.Tensor) -> Outputs:
        data = self._as_rows("data", data, self._model.num_observed)
        with binary.plain_products():
            return {"mean": self._model.reconstruct(data)}

    def reconstruct(
        self, data: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        return {
            **self.mean(data),
            **self.log_likelihood_bound(data, num_samples, seed),
        }

    def reconstruct_by_default(self, data: tf.Tensor) -> Outputs:
        # The number of draws is the exporter's, and not subject to a limit.
        return {
            **self.mean(data),
            **self._bound(data, DEFAULT_NUM_SAMPLES, self._model.seed),
        }

    def log_likelihood_bound(
        self, data: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor
    ) -> Outputs:
        num_samples = self._as_count(
            "num_samples", num_samples, 1, self._limits.num_samples
        )
        return self._bound(data, num_samples, _as_scalar(seed))

    def decode(self, latents: tf.Tensor) -> Outputs:
        latents = self._as_rows("latents", latents, self._model.num_latents)
        is_finite = tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(latents)),
            ["latents must be finite, got NaN or infinity"],
        )
        mean = self._decoded(after([is_finite], latents))["mean"]
        # Networks overflow where latents are large.
        has_finite_mean = tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(mean)),
            [
                "latents must have a finite mean, got values from",
                tf.reduce_min(latents),
                "to",
                tf.reduce_max(latents),
            ],
        )
        return {"mean": after([has_finite_mean], mean)}

    def _bound(
        self,
        data: tf.Tensor,
        num_samples: int | tf.Tensor,
        seed: int | tf.Tensor,
    ) -> Outputs:
        most = self._limits.row_samples
        data = self._as_data(data, num_samples, "num_samples", most)
        bound = self._model.log_likelihood_bound(data, num_samples, seed)
        return {"bound": bound}


@functools.singledispatch
def endpoints_of(model: object, limits: Limits) -> Endpoints:
    """Returns the endpoints of a model, by its class.

    Raises:
      TypeError: If the model is neither a TVAE nor a VAE.
      ValueError: If the limits refuse every request to its default signature.
    """
    raise TypeError(f"`model` must be a TVAE or a VAE, got {model!r}")


endpoints_of.register(TVAE, TVAEEndpoints)
endpoints_of.register(VAE, VAEEndpoints)


def _scalars(*names: str) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([], tf.int32, name) for name in names]


def _as_scalar(value: tf.Tensor) -> tf.Tensor:
    """Returns a scalar of a request, with a runtime check that it is one."""
    return tf.ensure_shape(value, [])


def _with_missing(batch: tf.Tensor) -> np.ndarray:
    """Returns a batch with one entry missing, if rows have several entries."""
    data = batch.numpy()
    if data.shape[1] > 1:
        data[0, 0] = np.nan
    return data


def _zeros_and_ones(name: str, values: tf.Tensor) -> tf.Operation:
    """Returns a check that all values are 0 or 1."""
    return tf.debugging.Assert(
        tf.reduce_all((values == 0.0) | (values == 1.0)),
        [
            f"{name} must be zeros and ones, got values from",
            tf.reduce_min(values),
            "to",
            tf.reduce_max(values),
        ],
    )
