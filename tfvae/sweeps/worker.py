# SPDX-License-Identifier: Apache-2.0
"""Worker process of a study, which runs cells one after the other.

Usage: `python -m tfvae.sweeps.worker module:function`. The function takes the
folder of a cell, with gin's configuration loaded, and returns its result. See
`tfvae.sweeps.pool` for the messages.
"""

from __future__ import annotations

import gc
import importlib
import os
import pathlib
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfvae import processes
from tfvae.runs import config
from tfvae.sweeps import folders

_NUMBERS_OF_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)

RunCell = Callable[[pathlib.Path], Mapping[str, Any]]
"""From the folder of a cell to its result; runs the configured experiment."""


def variables(num_threads: int) -> dict[str, str]:
    """Returns environment variables of processes that run cells.

    Args:
      num_threads: The number of threads that each uses.
    """
    return {
        **dict.fromkeys(_NUMBERS_OF_THREADS, str(num_threads)),
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
    }


def main(argv: list[str]) -> int:
    """Runs jobs until there are no more."""
    jobs = processes.Requests()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    module, _, function = argv[0].partition(":")
    run_cell: RunCell = getattr(importlib.import_module(module), function)
    # Present objects stay; scanning them in each later collection is slow.
    gc.collect()
    gc.freeze()
    jobs.send({"ready": True})
    for job in jobs:
        error = answer(run_cell, pathlib.Path(job["path"]))
        jobs.answer({"error": error}, job)
    return 0


def answer(run_cell: RunCell, folder: pathlib.Path) -> str | None:
    """Runs a cell and writes its result, or its error.

    Args:
      run_cell: Runs the cell.
      folder: Folder of the cell, with its configuration.

    Returns:
      Error message of one line; None if the cell succeeded.
    """
    started = time.perf_counter()
    saved = _write_to(folder / folders.LOG)
    try:
        config.load_run(folder)
        result = dict(run_cell(folder))
        # So that a finished cell is recorded even if the study is interrupted.
        with processes.finishing():
            result["cell_seconds"] = time.perf_counter() - started
            folders.write_json(folder / folders.RESULT, result)
    except Exception as err:
        folders.write_text(folder / folders.ERROR, traceback.format_exc())
        first = str(err).strip().partition("\n")[0]
        return f"{type(err).__name__}: {first}"
    finally:
        _write_back(saved)
        keras.backend.clear_session()
        gc.collect()
    (folder / folders.ERROR).unlink(missing_ok=True)  # Of an earlier attempt.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return None


def _write_to(path: pathlib.Path) -> tuple[int, int]:
    """Appends all output to a file; returns the previous descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return saved


def _write_back(saved: tuple[int, int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for number, descriptor in enumerate(saved, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
