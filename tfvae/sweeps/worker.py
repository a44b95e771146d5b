# SPDX-License-Identifier: Apache-2.0
"""Worker program of a study: runs one cell after the other.

`python -m tfvae.sweeps.worker module:function`: the function gets the folder
of a cell, with gin's configuration loaded, and returns its result. `pool`
documents the messages.
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

RunCell = Callable[[pathlib.Path], Mapping[str, Any]]
"""Trains and measures what is configured, in a folder."""


def main(argv: list[str]) -> int:
    """Answers jobs until there are no more."""
    jobs = processes.Requests()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    module, _, function = argv[0].partition(":")
    run_cell: RunCell = getattr(importlib.import_module(module), function)
    # What is here now stays; to look through it after each cell takes long.
    gc.collect()
    gc.freeze()
    jobs.send({"ready": True})
    for job in jobs:
        jobs.answer({"error": answer(run_cell, pathlib.Path(job["path"]))})
    return 0


def answer(run_cell: RunCell, folder: pathlib.Path) -> str | None:
    """Trains a cell and writes its result, or else its error.

    Args:
      run_cell: Does it.
      folder: Of the cell; its configuration is there.

    Returns:
      Why it failed, in one line; None if it did not.
    """
    started = time.perf_counter()
    saved = _write_to(folder / folders.LOG)
    try:
        config.load([folder / folders.CONFIG])
        result = dict(run_cell(folder))
        # A cell that is trained is not to be trained again, even if the study
        # is interrupted now.
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
    (folder / folders.ERROR).unlink(missing_ok=True)  # Of an attempt before.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return None


def _write_to(path: pathlib.Path) -> tuple[int, int]:
    """Sends all output to the end of a file; returns where it went before."""
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
