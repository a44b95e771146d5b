# SPDX-License-Identifier: Apache-2.0
"""Worker process of `training`: trains, and prints one JSON line per epoch.

Usage: `python -m benchmarks.training_worker config.gin '{"epochs": 4}'`. The
second argument has the arguments of `train` (or, as "profile", those of
`_profile`), and optionally "bindings" that override the configuration.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil
import tensorflow as tf

import benchmarks.training  # noqa: F401 (registers with gin)
import tfvae.checkpoints
from benchmarks import profiling
from tfvae.callbacks import Observation
from tfvae.restoration import Restoration
from tfvae.runs import config
from tfvae.runs.experiment import Experiment, experiment, fit
from tfvae.runs.run_directory import RunDirectory, UnexpectedError
from tfvae.tvae import TVAE

# The slow and simple reference implementation, an oracle of the tests.
_PLAIN = pathlib.Path(__file__).parents[1] / "tests" / "tvae" / "plain.py"
_OBSERVING = "observing_seconds"


def main(argv: Sequence[str]) -> int:
    """Runs the worker and returns its exit code."""
    path, settings = argv
    _limit_memory()
    try:
        given = json.loads(settings)
        config.load([path], given.pop("bindings", []))
        if "profile" in given:
            _profile(**given["profile"])
        else:
            train(**given)
        return 0
    except Exception as err:
        cause = err.__cause__ if isinstance(err, UnexpectedError) else err
        if isinstance(cause, tf.errors.ResourceExhaustedError | MemoryError):
            cause = MemoryError("it needs more memory than is available")
        print(f"error: {_one_line(cause)}", file=sys.stderr)
        return 2


def train(
    epochs: int,
    num_points: int | None = None,
    plain: bool = False,
    observe: bool = False,
) -> None:
    """Trains the configured experiment in a temporary folder.

    Args:
      epochs: Number of epochs.
      num_points: `max_points` of `experiment`; None for all.
      plain: Whether to train the reference implementation.
      observe: Whether to restore the image after every epoch, if the data are
        patches of one. This time is not counted.
    """
    parts = _parts(num_points, plain)
    rows = _fit(parts, epochs, _observer(parts) if observe else None)
    for row in rows:
        row["seconds"] -= row.pop(_OBSERVING, 0.0)
        row["per_second"] = parts.observations.num_data / row["seconds"]
        print(json.dumps(row))
    print(json.dumps({"facts": _facts(parts)}))


def _profile(num_points: int | None, epochs: int, steps: int) -> None:
    """Trains a model, then profiles its training step."""
    parts = _parts(num_points, plain=False)
    rows = _fit(parts, epochs, None)
    batch_size = config.value("fit.batch_size") or 32
    steps_of_epoch = -(-parts.observations.num_data // batch_size)
    found = profiling.profile(
        parts.model, parts.observations.train, batch_size, steps
    )
    found["loop_ms"] = 1e3 * rows[-1]["seconds"] / steps_of_epoch
    print(json.dumps({"facts": {**_facts(parts), "profile": found}}))


def _parts(num_points: int | None, plain: bool) -> Experiment:
    parts = experiment(max_points=num_points)
    return parts._replace(model=plain_form(parts.model)) if plain else parts


def _fit(
    parts: Experiment,
    epochs: int,
    observer: Callable[[int], Observation] | None,
) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        return fit(
            RunDirectory(folder),
            parts,
            observer or (lambda epoch: Observation({}, {})),
            epochs=epochs,
            observe_every=epochs if observer is None else 1,
            checkpoint_every=epochs,
        )


def _observer(parts: Experiment) -> Callable[[int], Observation] | None:
    """Returns an observer that scores the restored image, if there is one."""
    model, points = parts.model, parts.observations.train
    restoration = parts.restoration
    if not isinstance(restoration, Restoration) or restoration.clean is None:
        return None

    def observe(epoch: int) -> Observation:
        started = time.perf_counter()
        estimates = model.stored_reconstruction(points, np.arange(len(points)))
        scores = restoration.score(restoration.restore(estimates)) or {}
        spent = time.perf_counter() - started
        return Observation({**scores, _OBSERVING: spent}, {})

    return observe


def plain_form(model: TVAE) -> TVAE:
    """Returns the reference implementation of a model, with its weights.

    Raises:
      FileNotFoundError: If the folder of the tests is missing.
    """
    if not _PLAIN.exists():
        raise FileNotFoundError(
            "the reference implementation is part of the tests, but "
            f"{_PLAIN} does not exist"
        )
    spec = importlib.util.spec_from_file_location("tfvae_plain", _PLAIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    plain = module.PlainTVAE.from_config(model.get_config())
    plain.set_weights(model.get_weights())
    return plain


def _facts(parts: Experiment) -> dict[str, Any]:
    """Returns the properties of model and data, for the output."""
    model, data = parts.model, parts.observations
    states = model.states
    return {
        "data": data.name,
        "num_data": data.num_data,
        "num_observed": data.num_observed,
        "num_latents": model.num_latents,
        "num_states": model.num_states,
        "batch_size": config.value("fit.batch_size"),
        "state_store_bytes": 0
        if states is None
        else sum(weight.value.numpy().nbytes for weight in states.weights),
        "checkpoint_bytes": tfvae.checkpoints.checkpoint_bytes(model),
    }


def _one_line(error: BaseException | None) -> str:
    """Returns the text of an error without gin's call stack."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(
        line
        for line in lines
        if line and not line.startswith("In call to configurable")
    )


def _limit_memory() -> None:
    """Limits memory, so that too large an allocation raises an error."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    free = psutil.virtual_memory().available
    if most == resource.RLIM_INFINITY or free < most:
        resource.setrlimit(resource.RLIMIT_DATA, (free, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
