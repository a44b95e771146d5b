# SPDX-License-Identifier: Apache-2.0
"""The process that trains cells of a study, one after the other.

`python -m tfvae.sweeps.worker module:function`: the function gets
the folder of a cell, with gin's configuration loaded, and returns its result.
See `pool` for what is said.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pathlib
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfvae.runs import config
from tfvae.sweeps import folders

RunCell = Callable[[pathlib.Path], Mapping[str, Any]]
"""Trains and measures what is configured, in a folder."""


def main(argv: list[str]) -> int:
    """Answers jobs until there are no more."""
    # What a cell prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    jobs: queue.Queue[dict[str, str]] = queue.Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    module, _, function = argv[0].partition(":")
    run_cell: RunCell = getattr(importlib.import_module(module), function)
    # What is here now stays; to look through it after each cell takes long.
    gc.collect()
    gc.freeze()
    _say(answers, {"ready": True})
    while True:
        folder = pathlib.Path(jobs.get()["path"])
        _say(answers, {"error": answer(run_cell, folder)})


def answer(run_cell: RunCell, folder: pathlib.Path) -> str | None:
    """Trains a cell and writes its result, or else its error.

    Args:
      run_cell: Does it.
      folder: Of the cell; its configuration is there.

    Returns:
      A line that tells why it failed, None if it did not.
    """
    started = time.perf_counter()
    saved = _write_to(folder / folders.LOG)
    try:
        config.load([folder / folders.CONFIG])
        result = dict(run_cell(folder))
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


def _read_jobs(jobs: queue.Queue[dict[str, str]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    os._exit(0)  # The study has ended, or was killed; nobody waits for us.


def _say(answers: Any, content: Mapping[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


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
