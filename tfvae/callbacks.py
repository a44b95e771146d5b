# SPDX-License-Identifier: Apache-2.0
"""Keras callbacks that observe a training run and write down what they see.

Keras calls the callbacks of a list in order and hands all of them the same
dictionary of logs: what `Observe` adds to it, the ones behind it see too.
"""

from __future__ import annotations

import csv
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TextIO

import keras
import numpy as np
import tensorflow as tf
import tqdm

from tfvae import files

# Between two plain progress lines.
_SECONDS_BETWEEN_LINES = 5.0
# What is worth a place in a progress line, where it is known.
_SHOWN = {
    "bound": ("bound", "{:.3f}"),
    "psnr": ("PSNR", "{:.2f} dB"),
    "noise_std": ("noise", "{:.4g}"),
    "active": ("active", "{:.2f}"),
}


class Observation(NamedTuple):
    """What was seen after an epoch, beside the logs of the model."""

    scalars: dict[str, float]
    """Columns for the metrics of the epoch."""
    images: dict[str, np.ndarray]
    """Pictures for TensorBoard, each `[h, w, 1 or 3]` on 0..1."""


class DivergedError(RuntimeError):
    """Training has left the finite numbers."""


class StopWhenDiverged(keras.callbacks.Callback):
    """Ends a run whose bound or parameters are not finite.

    It belongs in front of all that write anything down, so that the
    checkpoint before this epoch is the last one.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Looks at the epoch.

        Raises:
          DivergedError: If something is not finite.
        """
        bound = float((logs or {}).get("bound", 0.0))
        if not math.isfinite(bound):
            reason = f"the bound is {bound}"
        elif not all(
            np.isfinite(variable.numpy()).all()
            for variable in self.model.trainable_variables
        ):
            reason = "parameters are not finite"
        else:
            return
        raise DivergedError(
            f"training diverged in epoch {epoch + 1} ({reason}); lower the "
            "learning rate, such as cyclical_adam.max_learning_rate, in a "
            "new run folder."
        )


class Observe(keras.callbacks.Callback):
    """Calls a function after some epochs and adds its scalars to the logs."""

    def __init__(
        self, observe: Callable[[int], Observation], every: int
    ) -> None:
        """Creates the callback.

        Args:
          observe: Given the number of complete epochs, returns what it saw.
          every: Number of epochs from one call to the next. It is called at
            the last epoch in any case.

        Raises:
          ValueError: If `every` is less than 1.
        """
        super().__init__()
        if every < 1:
            raise ValueError(f"`every` must be at least 1, got {every!r}.")
        self._observe = observe
        self._every = every
        self.images: dict[str, np.ndarray] = {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Observes; `images` holds this epoch's pictures afterwards."""
        done = epoch + 1
        self.images = {}
        if done % self._every and done != self.params["epochs"]:
            return
        scalars, self.images = self._observe(done)
        if logs is not None:
            logs.update(scalars)


class MetricsTable(keras.callbacks.Callback):
    """Keeps one row of metrics per epoch, in memory and in a CSV file.

    The file is rewritten as a whole after each epoch and renamed into place,
    so a reader or a kill never finds it half written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rows: list[dict[str, float]] | None = None,
    ) -> None:
        """Creates the table and, where there are rows, writes it.

        Args:
          path: The CSV file.
          rows: Rows of the epochs before, when a run is resumed.
        """
        super().__init__()
        self._path = pathlib.Path(path)
        self._started = 0.0
        self.rows = list(rows or [])
        if self.rows:
            self._write()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock of the epoch."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Appends the row of the epoch."""
        row: dict[str, float] = {"epoch": epoch + 1}
        row.update({name: float(value) for name, value in (logs or {}).items()})
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        row["seconds"] = time.perf_counter() - self._started
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        columns.sort(key=lambda name: name in ("learning_rate", "seconds"))
        with files.replacing(self._path, newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class TensorBoardLog(keras.callbacks.Callback):
    """Writes the logs of each epoch and observed pictures for TensorBoard."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        observe: Observe | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        """Creates the log.

        Args:
          directory: Folder of the event files.
          observe: Callback ahead of this one whose pictures are to be logged.
          texts: Texts to log once, such as the configuration.
        """
        super().__init__()
        self._writer = tf.summary.create_file_writer(os.fspath(directory))
        self._observe = observe
        self._texts = dict(texts or {})

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Logs the texts."""
        with self._writer.as_default():
            for name, text in self._texts.items():
                lines = "\n".join("    " + line for line in text.splitlines())
                tf.summary.text(name, lines, step=0)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs scalars and pictures of the epoch."""
        with self._writer.as_default():
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, float(value), step=epoch + 1)
            images = self._observe.images if self._observe else {}
            for name, image in images.items():
                picture = np.clip(image, 0.0, 1.0)[None]
                tf.summary.image(name, picture, step=epoch + 1)
        self._writer.flush()


class Progress(keras.callbacks.Callback):
    """Tells the progress of a run, with the time left.

    On a terminal a bar follows the steps of the epoch and each epoch leaves a
    line; elsewhere there are plain lines only, a few seconds apart at least.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """Creates the callback.

        Args:
          stream: Where to write; standard error when None.
        """
        super().__init__()
        self._stream = sys.stderr if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._bar: tqdm.tqdm | None = None
        self._first_epoch: int | None = None
        self._started = self._told = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock at the first epoch, a bar at each one."""
        if self._first_epoch is None:
            self._first_epoch = epoch
            self._started = time.perf_counter()
        if self._on_terminal:
            self._bar = tqdm.tqdm(
                total=self.params["steps"],
                desc=f"epoch {epoch + 1}",
                file=self._stream,
                leave=False,
                unit="step",
            )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar on."""
        if self._bar is not None:
            self._bar.update(batch + 1 - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the line of the epoch."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        now = time.perf_counter()
        epochs = self.params["epochs"]
        is_due = now - self._told >= _SECONDS_BETWEEN_LINES
        if not (self._on_terminal or is_due or epoch + 1 == epochs):
            return
        self._told = now
        elapsed = now - self._started
        per_epoch = elapsed / (epoch + 1 - (self._first_epoch or 0))
        line = progress_line(epoch + 1, epochs, logs or {}, elapsed, per_epoch)
        print(line, file=self._stream, flush=True)


def progress_line(
    epoch: int,
    epochs: int,
    logs: Mapping[str, Any],
    elapsed_seconds: float,
    seconds_per_epoch: float,
) -> str:
    """Returns the line that tells of one epoch.

    Args:
      epoch: The number of complete epochs.
      epochs: The number of epochs of the run.
      logs: Metrics of the epoch.
      elapsed_seconds: Since the run, or this part of it, started.
      seconds_per_epoch: What the epochs to come are expected to take.

    Returns:
      One line without its end.
    """
    parts = [f"epoch {epoch:{len(str(epochs))}d}/{epochs}"]
    for name, (label, form) in _SHOWN.items():
        if name in logs and math.isfinite(float(logs[name])):
            parts.append(f"{label} {form.format(float(logs[name]))}")
    left = (epochs - epoch) * seconds_per_epoch
    parts.append(f"{_clock(elapsed_seconds)} elapsed, {_clock(left)} left")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    """Returns `m:ss`, or `h:mm:ss` from one hour on."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minute:02d}:{second:02d}"
    return f"{minute}:{second:02d}"
