# SPDX-License-Identifier: Apache-2.0
"""SavedModel export, for TF Serving, C++, or Python without tfvae.

Inference, evolutionary or by an encoder, is part of the graph, so an export
needs nothing but TensorFlow to run. A TVAE's latent states of the training data
are not exported: the size of an export does not depend on the number of data
points.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae.resources import check_disk_space
from tfvae.serving import folders
from tfvae.serving.endpoints import (
    DEFAULT_NUM_SAMPLES,
    DEFAULT_SIGNATURE,
    OBSERVED_SIGNATURE,
    Endpoints,
    Outputs,
    endpoints_of,
)
from tfvae.serving.limits import Limits
from tfvae.tvae import TVAE
from tfvae.vae import VAE

__all__ = [
    "DEFAULT_NUM_SAMPLES",
    "DEFAULT_SIGNATURE",
    "METADATA_FILE",
    "OBSERVED_SIGNATURE",
    "Limits",
    "check_limits",
    "check_saved_model",
    "export_saved_model",
]

METADATA_FILE = "assets.extra/tfvae.json"

_FORMAT = 1
# Outputs that the check of an export compares by value. The others are latent
# bits and their order, which rounding may legitimately change on some device.
_COMPARED = ("bound", "mean", "probs", "variance")
# Relative differences that rounding may make, by the type of networks.
_RELATIVE_TOLERANCES = {
    "float64": 1e-3,
    "float32": 1e-3,
    "float16": 0.02,
    "bfloat16": 0.15,
}


def export_saved_model(
    model: TVAE | VAE,
    path: str | os.PathLike[str],
    *,
    event_shape: Sequence[int] | None = None,
    limits: Limits | None = None,
) -> None:
    """Writes a trained model as a SavedModel with named signatures.

    Signatures of a TVAE, with H latents, D observed dimensions, S states, W =
    ceil(H / 8) bytes per packed state, and any batch size B; NaN marks missing
    data:

    * `serving_default`: data [B, D] -> mean [B, D], bound [B]. Reconstructs
      with the model's own `inference_steps` and `seed`, as `model.infer(x)`
      does. Its only input and its outputs are batches, so servers can batch
      requests, and REST clients can send a plain list.
    * `serving_observed`: data, observed [B, D] -> mean, bound. The same, for
      clients that can not send NaN: 1 where data are observed, 0 where they
      are missing, whatever they are there.
    * `reconstruct`: the same, given max_steps and seed (int32 scalars).
    * `encode`: data, max_steps, seed -> packed uint8 [B, S, W], states
      [B, S, H], as `decode` takes them, weights [B, S], bound [B], num_steps.
    * `log_likelihood_bound`: data, max_steps, seed -> bound [B].
    * `decode`: states [B, H] -> mean [B, D].
    * `sample`: num_samples, seed (int32 scalars) -> observations and their
      means given the latents, both [num_samples, D].

    Signatures of a VAE, with M latents:

    * `serving_default`: data [B, D] -> mean [B, D], bound [B], as
      `reconstruct` with `DEFAULT_NUM_SAMPLES` and the model's own `seed`.
    * `serving_observed`: as of a TVAE.
    * `mean`: data -> mean [B, D], without draws, for converters.
    * `reconstruct`: data, num_samples, seed (int32 scalars) -> mean, bound.
    * `encode`: data -> mean and variance of q(z | x), [B, M]; probs [B, M]
      where the latents are binary.
    * `log_likelihood_bound`: data, num_samples, seed -> bound [B].
    * `decode`: latents [B, M] -> mean [B, D].
    * `sample`: as of a TVAE.

    All of them return what the model's methods (`infer` and `posterior_mean`,
    or `encode`, `reconstruct` and `log_likelihood_bound`; `decode`, `sample`)
    return in Python for the same arguments. In Python they are also methods of
    the object that `tf.saved_model.load(path)` returns. Requests that exceed
    `limits` fail before any work.

    The folder is written next to `path`, loaded and compared with the model,
    and only then renamed: `path` never holds an incomplete export. An existing
    SavedModel is replaced. Metadata for clients (kind of model, sizes,
    likelihood, event shape, limits, versions) are in its
    `assets.extra/tfvae.json`.

    Args:
      model: The model; its present weights are exported.
      path: Folder to write. TF Serving expects a version number as its name,
        such as `models/tfvae/1`.
      event_shape: Shape of one observation before it was flattened to D, for
        the metadata; None for (D,).
      limits: The largest requests that are answered; None for `Limits()`.

    Raises:
      TypeError: If `model` is neither a TVAE nor a VAE.
      ValueError: If a weight is not finite, `event_shape` does not have D
        entries, or `limits` refuse every request to the default signature.
      FileExistsError: If `path` exists and holds anything but a SavedModel.
      OSError: If the disk is full or cannot be written to.
      RuntimeError: If the written model does not compute what `model` does.
    """
    limits = limits or Limits()
    endpoints = endpoints_of(model, limits)
    shape = (model.num_observed,) if event_shape is None else event_shape
    shape = tuple(int(size) for size in shape)
    if math.prod(shape) != model.num_observed:
        raise ValueError(
            f"`event_shape` must have {model.num_observed} entries, the "
            f"model's observed dimensions, got {shape!r}"
        )
    path = pathlib.Path(path).resolve()
    folders.check_replaceable(path)
    functions = _functions(endpoints)
    weights = _weights(functions)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # Of an export that was killed.
    partial.mkdir(parents=True)
    try:
        metadata = {**_metadata(model, shape), **endpoints.facts()}
        _write(partial, functions, weights, metadata)
        check_saved_model(partial, model, limits)
        folders.flush(partial)
        folders.replace(path, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_limits(model: TVAE | VAE, limits: Limits | None) -> None:
    """Raises a ValueError if limits are not for a model.

    Args:
      model: The model.
      limits: None for `Limits()`.

    Raises:
      ValueError: If the limits refuse every request to the default signature.
    """
    endpoints_of(model, limits or Limits())


def check_saved_model(
    path: str | os.PathLike[str],
    model: TVAE | VAE,
    limits: Limits | None = None,
) -> None:
    """Compares an exported model with the one in memory, on a tiny batch.

    Args:
      path: Folder of the SavedModel.
      model: The model that was exported.
      limits: What it was exported with; None for `Limits()`.

    Raises:
      RuntimeError: If it cannot be loaded or called, or if the shape, type or
        value of an output differs.
    """
    endpoints = endpoints_of(model, limits or Limits())
    expected = endpoints.signatures()
    probes = endpoints.probes()
    try:
        signatures = tf.saved_model.load(os.fspath(path)).signatures
        loaded = {name: signatures[name] for name in expected}
        found = {
            name: loaded[name](
                **{key: tf.constant(value) for key, value in inputs.items()}
            )
            for name, inputs in probes.items()
        }
    except (
        AttributeError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
        tf.errors.OpError,
    ) as err:
        raise RuntimeError(
            f"exported model {os.fspath(path)} must load and run, got "
            f"{type(err).__name__}: {err}"
        ) from err
    tolerance = _tolerance(model)
    for name, inputs in probes.items():
        _compare(
            name, found[name], expected[name].function(**inputs), tolerance
        )


def _tolerance(model: TVAE | VAE) -> float:
    """Returns the relative difference that rounding may make."""
    # Layers may have types of their own, whatever the models around them.
    types = {layer.compute_dtype for layer in model._flatten_layers()}
    return max(_RELATIVE_TOLERANCES.get(one, 0.0) for one in types)


def _compare(
    name: str, found: Outputs, expected: Outputs, tolerance: float
) -> None:
    """Raises a RuntimeError if outputs of a signature differ."""
    problems = []
    if found.keys() != expected.keys():
        problems.append(f"outputs {sorted(found)}, not {sorted(expected)}")
    for key in found.keys() & expected.keys():
        one, other = found[key].numpy(), expected[key].numpy()
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            problems.append(
                f"`{key}` of {one.dtype} {one.shape}, not {other.dtype} "
                f"{other.shape}"
            )
        elif key in _COMPARED:
            error = np.max(np.abs(one - other))
            # Also true where the error is NaN.
            if not error <= tolerance * (1.0 + np.abs(other).max()):
                problems.append(f"`{key}` off by {error:.3g}")
    if problems:
        raise RuntimeError(
            f"exported signature `{name}` must return what the model does, "
            f"got {'; '.join(problems)}"
        )


def _functions(endpoints: Endpoints) -> dict[str, Any]:
    """Returns the traced function of each signature."""
    return {
        name: tf.function(signature.function, input_signature=signature.inputs)
        for name, signature in endpoints.signatures().items()
    }


def _weights(functions: dict[str, Any]) -> list[tf.Variable]:
    """Returns the variables that the functions read, and no others.

    Tracking the model would also export the optimizer and the states of the
    training data.

    Raises:
      ValueError: If a value is not finite.
    """
    used = {
        variable.ref(): variable
        for function in functions.values()
        for variable in function.get_concrete_function().graph.variables
    }
    for variable in used.values():
        value = variable.numpy()
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(
                "`model` must have finite weights to be exported, got NaN or "
                f"infinity in {variable.name}"
            )
    return list(used.values())


def _metadata(
    model: TVAE | VAE, event_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Returns the metadata that clients may need of any model."""
    try:
        version = importlib.metadata.version("tfvae")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    return {
        "format": _FORMAT,
        "num_latents": model.num_latents,
        "num_observed": model.num_observed,
        "event_shape": list(event_shape),
        "likelihood": type(model.likelihood).__name__,
        # Least and largest value of data; JSON has no infinity.
        "support": [
            bound if math.isfinite(bound) else None
            for bound in model.likelihood.support
        ],
        "seed": model.seed,
        "versions": {
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "tfvae": version,
        },
    }


def _write(
    path: pathlib.Path,
    functions: dict[str, Any],
    weights: list[tf.Variable],
    metadata: dict[str, Any],
) -> None:
    """Writes the SavedModel's files into an existing folder."""
    weight_bytes = sum(weight.numpy().nbytes for weight in weights)
    graph_bytes = sum(
        function.get_concrete_function().graph.as_graph_def().ByteSize()
        for function in functions.values()
    )
    check_disk_space(
        path, weight_bytes + graph_bytes, f"exporting to {path.parent}"
    )
    module = tf.Module(name="tfvae")
    module.weights = weights
    for name, function in functions.items():
        setattr(module, name, function)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, os.fspath(path), functions, options)
    except tf.errors.OpError as err:
        raise OSError(f"cannot write {path}: {err.message}") from err
    file = path / METADATA_FILE
    file.parent.mkdir()
    text = json.dumps(metadata, indent=2) + "\n"
    file.write_text(text, encoding="utf-8")
