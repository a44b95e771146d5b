# SPDX-License-Identifier: Apache-2.0
"""Models as SavedModels: for TF Serving, C++ or Python without tfvae.

Evolutionary inference is part of the graph, so what is exported needs nothing
but TensorFlow to run. The states of the training data stay behind: an export
is as large as the decoder, however many data points there were.
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

from tfvae.ops import bits
from tfvae.resources import check_disk_space
from tfvae.tvae import TVAE, Inference

DEFAULT_SIGNATURE = "serving_default"
METADATA_FILE = "assets.extra/tfvae.json"

_FORMAT = 1
# What TensorFlow, and `export_saved_model`, write into a SavedModel's folder.
_SAVED_MODEL_ENTRIES = {
    "assets",
    "assets.extra",
    "fingerprint.pb",
    "saved_model.pb",
    "variables",
}
# Outputs that the check of an export compares by value. The others are bits
# and their order, which a rounding error may rightly change on some device.
_COMPARED = ("bound", "mean")
_RELATIVE_TOLERANCE = 1e-3

_Outputs = dict[str, tf.Tensor]


def export_saved_model(
    model: TVAE,
    path: str | os.PathLike[str],
    *,
    event_shape: Sequence[int] | None = None,
) -> None:
    """Writes a trained model as a SavedModel with named signatures.

    Signatures, with H latents, D observed dimensions, S states, W = ceil(H /
    8) bytes a packed state, and any batch size B; NaN marks missing data:

    * `serving_default`: data [B, D] -> mean [B, D], bound [B]. Reconstructs
      with the model's own `inference_steps` and `seed`, as `model.infer(x)`
      does. As its one input and its outputs are batches, it is what servers
      can batch, and REST clients can send as a plain list.
    * `reconstruct`: the same, given max_steps and seed (int32 scalars).
    * `encode`: data, max_steps, seed -> packed uint8 [B, S, W], states
      [B, S, H], as `decode` takes them, weights [B, S], bound [B], num_steps.
    * `log_likelihood_bound`: data, max_steps, seed -> bound [B].
    * `decode`: states [B, H] -> mean [B, D].
    * `sample`: num_samples, seed (int32 scalars) -> observations and their
      means given the latents, both [num_samples, D].

    All of them return what `model.infer`, `posterior_mean`, `decode` and
    `sample` return in Python for the same arguments. In Python they are also
    methods of what `tf.saved_model.load(path)` returns.

    The folder is written beside `path`, loaded and compared with the model,
    and only then renamed: `path` never holds a part of an export. A SavedModel
    that was there is replaced. Facts for clients (sizes, likelihood, event
    shape, versions) are in its `assets.extra/tfvae.json`.

    Args:
      model: The model; its weights at this moment are exported.
      path: Folder to write. TF Serving wants it to be named by a version
        number, such as `models/tfvae/1`.
      event_shape: Shape of one observation before it was flattened to D, for
        the metadata; None for (D,).

    Raises:
      TypeError: If `model` is no TVAE.
      ValueError: If a weight is not finite, or `event_shape` has not D
        entries.
      FileExistsError: If `path` exists and holds anything but a SavedModel.
      OSError: If the disk has no room, or cannot be written to.
      RuntimeError: If the written model does not compute what `model` does.
    """
    if not isinstance(model, TVAE):
        raise TypeError(f"`model` must be a TVAE, got {model!r}")
    shape = (model.num_observed,) if event_shape is None else event_shape
    shape = tuple(int(size) for size in shape)
    if math.prod(shape) != model.num_observed:
        raise ValueError(
            f"`event_shape` must have {model.num_observed} entries, the "
            f"model's observed dimensions, got {shape!r}"
        )
    path = pathlib.Path(path).resolve()
    _check_replaceable(path)
    functions = _functions(model)
    weights = _weights(functions)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # Of an export that was killed.
    partial.mkdir(parents=True)
    try:
        _write(partial, functions, weights, _metadata(model, shape))
        check_saved_model(partial, model)
        _flush(partial)
        _replace(path, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_saved_model(path: str | os.PathLike[str], model: TVAE) -> None:
    """Compares an exported model with the one in memory, on a tiny batch.

    Args:
      path: Folder of the SavedModel.
      model: What was exported there.

    Raises:
      RuntimeError: If it cannot be loaded or called, or if the shape, type or
        value of an output differs.
    """
    endpoints = _Endpoints(model)
    batch = model.sample(2).numpy()
    if model.num_observed > 1:
        batch[0, 0] = np.nan
    unseen = {"data": batch, "max_steps": 1, "seed": 1}
    arguments = {
        "decode": {"states": np.eye(2, model.num_latents, dtype=np.float32)},
        "encode": unseen,
        "log_likelihood_bound": unseen,
        "reconstruct": unseen,
        "sample": {"num_samples": 2, "seed": 1},
    }
    try:
        signatures = tf.saved_model.load(os.fspath(path)).signatures
        # Its inference may take long; it is `reconstruct` with constants.
        signatures[DEFAULT_SIGNATURE]
        found = {
            name: signatures[name](
                **{key: tf.constant(value) for key, value in inputs.items()}
            )
            for name, inputs in arguments.items()
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
    for name, inputs in arguments.items():
        _compare(name, found[name], getattr(endpoints, name)(**inputs))


def _compare(name: str, found: _Outputs, expected: _Outputs) -> None:
    """Raises a RuntimeError where outputs of a signature differ."""
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
            if not error <= _RELATIVE_TOLERANCE * (1.0 + np.abs(other).max()):
                problems.append(f"`{key}` off by {error:.3g}")
    if problems:
        raise RuntimeError(
            f"exported signature `{name}` must return what the model does, "
            f"got {'; '.join(problems)}"
        )


class _Endpoints:
    """What the signatures compute."""

    def __init__(self, model: TVAE):
        self._model = model

    def encode(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> _Outputs:
        inference = self._infer(data, max_steps, seed)
        states = bits.unpack(inference.packed, self._model.num_latents)
        return {"states": states, **inference._asdict()}

    def reconstruct(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> _Outputs:
        inference = self._infer(data, max_steps, seed)
        return {
            "mean": self._model.posterior_mean(inference),
            "bound": inference.bound,
        }

    def reconstruct_by_default(self, data: tf.Tensor) -> _Outputs:
        model = self._model
        return self.reconstruct(data, model.inference_steps, model.seed)

    def log_likelihood_bound(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> _Outputs:
        return {"bound": self._infer(data, max_steps, seed).bound}

    def decode(self, states: tf.Tensor) -> _Outputs:
        states = tf.ensure_shape(states, [None, self._model.num_latents])
        return {"mean": self._model.decode(states)}

    def sample(self, num_samples: tf.Tensor, seed: tf.Tensor) -> _Outputs:
        is_valid = tf.debugging.Assert(
            tf.greater_equal(num_samples, 0),
            ["num_samples must not be negative, got", num_samples],
        )
        with tf.control_dependencies([is_valid]):
            num_samples = tf.identity(num_samples)
        return {
            "observations": self._model.sample(num_samples, seed),
            "mean": self._model.sample(num_samples, seed, mean=True),
        }

    def _infer(
        self, data: tf.Tensor, max_steps: tf.Tensor, seed: tf.Tensor
    ) -> Inference:
        # The runtime does not hold clients to a signature's shapes, and a
        # wrong width might broadcast.
        data = tf.ensure_shape(data, [None, self._model.num_observed])
        return self._model.infer(data, seed=seed, max_steps=max_steps)


def _functions(model: TVAE) -> dict[str, Any]:
    """Returns the traced function of each signature."""
    endpoints = _Endpoints(model)
    data = tf.TensorSpec([None, model.num_observed], tf.float32, "data")
    states = tf.TensorSpec([None, model.num_latents], tf.float32, "states")
    max_steps, seed, num_samples = (
        tf.TensorSpec([], tf.int32, name)
        for name in ("max_steps", "seed", "num_samples")
    )
    unseen = [data, max_steps, seed]
    signatures = {
        DEFAULT_SIGNATURE: (endpoints.reconstruct_by_default, [data]),
        "encode": (endpoints.encode, unseen),
        "decode": (endpoints.decode, [states]),
        "reconstruct": (endpoints.reconstruct, unseen),
        "sample": (endpoints.sample, [num_samples, seed]),
        "log_likelihood_bound": (endpoints.log_likelihood_bound, unseen),
    }
    return {
        name: tf.function(function, input_signature=specs)
        for name, (function, specs) in signatures.items()
    }


def _weights(functions: dict[str, Any]) -> list[tf.Variable]:
    """Returns the variables that the functions read, and no others.

    Those of the optimizer and the states of the training data are not among
    them, which tracking the model would export too.

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
                "`model` must have finite weights to be exported, got others "
                f"in {variable.name}"
            )
    return list(used.values())


def _metadata(model: TVAE, event_shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns the facts about a model that a client may need."""
    try:
        version = importlib.metadata.version("tfvae")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    return {
        "format": _FORMAT,
        "num_latents": model.num_latents,
        "num_observed": model.num_observed,
        "num_states": model.num_states,
        "event_shape": list(event_shape),
        "likelihood": type(model.likelihood).__name__,
        # Least and largest value of data; JSON has no infinity.
        "support": [
            bound if math.isfinite(bound) else None
            for bound in model.likelihood.support
        ],
        "inference_steps": model.inference_steps,
        "inference_tolerance": model.inference_tolerance,
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


def _check_replaceable(path: pathlib.Path) -> None:
    """Raises a FileExistsError where something would be lost."""
    if not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(
            "`path` must be a new folder or a SavedModel to replace, got the "
            f"file {path}"
        )
    entries = {entry.name for entry in path.iterdir()}
    others = sorted(entries - _SAVED_MODEL_ENTRIES)
    if others or (entries and "saved_model.pb" not in entries):
        raise FileExistsError(
            "`path` must be a new folder or a SavedModel to replace, got "
            f"{path} with {', '.join((others or sorted(entries))[:3])} in it"
        )


def _flush(path: pathlib.Path) -> None:
    """Brings a folder's files to the disk, lest a rename overtakes them."""
    for file in [*path.rglob("*"), path]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(path: pathlib.Path, new: pathlib.Path) -> None:
    """Renames `new` to `path`; what was there goes away last."""
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
