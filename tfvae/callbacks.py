# SPDX-License-Identifier: Apache-2.0
"""Keras callbacks for monitoring: metrics table, TensorBoard, progress bar.

Keras calls the callbacks of a list in order with the same dictionary of logs:
what `Observe` adds to it is visible to the callbacks after it.
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
from tfvae.arguments import check_counts

# Shortest time between two plain progress lines.
_SECONDS_BETWEEN_LINES = 5.0
# Metrics shown in a progress line, if they are logged.
_SHOWN = {
    "bound": ("bound", "{:.3f}"),
    "psnr": ("PSNR", "{:.2f} dB"),
    "noise_std": ("noise", "{:.4g}"),
    "active": ("active", "{:.2f}"),
}


class Observation(NamedTuple):
    """Additional metrics and images of an epoch."""

    scalars: dict[str, float]
    """Additional metrics of the epoch, by name."""
    images: dict[str, np.ndarray]
    """Images for TensorBoard, each `[h, w, 1 or 3]` on 0..1."""


class DivergedError(RuntimeError):
    """The bound or the parameters became NaN or infinite in training."""


class StopWhenDiverged(keras.callbacks.Callback):
    """Stops training when the bound or a parameter is not finite.

    Put it before all callbacks that save or log, so that the last checkpoint is
    that of an epoch before.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Checks the bound and the parameters.

        Raises:
          DivergedError: If one of them is not finite.
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
            "learning rate, such as cyclical_adam.max_learning_rate, and "
            "train again in a new run folder"
        )


class Observe(keras.callbacks.Callback):
    """Calls a function every few epochs and adds its metrics to the logs."""

    def __init__(
        self, observe: Callable[[int], Observation], every: int
    ) -> None:
        """Creates the callback.

        Args:
          observe: From the number of completed epochs to an observation.
          every: Number of epochs from one call to the next; it is always
            called after the last epoch.

        Raises:
          ValueError: If `every` is less than 1.
        """
        super().__init__()
        check_counts(every=every)
        self._observe = observe
        self._every = every
        self.images: dict[str, np.ndarray] = {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Observes; sets `images` to the images of this epoch."""
        done = epoch + 1
        self.images = {}
        if done % self._every and done != self.params["epochs"]:
            return
        scalars, self.images = self._observe(done)
        if logs is not None:
            logs.update(scalars)


class MetricsTable(keras.callbacks.Callback):
    """Keeps one row of metrics per epoch, in memory and in a CSV file.

    The file is rewritten atomically after each epoch, so it is always complete.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rows: list[dict[str, float]] | None = None,
    ) -> None:
        """Creates the table, and writes it if there are rows.

        Args:
          path: The CSV file.
          rows: Rows of earlier epochs when a run is resumed.
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
        row["learning_rate"] = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )
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
    """Writes the logs and observed images of each epoch for TensorBoard."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        observe: Observe | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        """Creates the log.

        Args:
          directory: Folder of the event files.
          observe: Callback before this one, whose images are logged.
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
        """Logs metrics and images of the epoch."""
        with self._writer.as_default():
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, float(value), step=epoch + 1)
            images = self._observe.images if self._observe else {}
            for name, image in images.items():
                picture = np.clip(image, 0.0, 1.0)[None]
                tf.summary.image(name, picture, step=epoch + 1)
        self._writer.flush()


class Progress(keras.callbacks.Callback):
    """Prints the progress of a run, with the time left.

    On a terminal there is a bar for the steps of the epoch, and a line for each
    epoch; elsewhere only plain lines, at least a few seconds apart.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        """Creates the callback.

        Args:
          stream: Stream to print to; None for standard error.
          factors: What to multiply metrics by, such as to print noise in the
            units of an image.
        """
        super().__init__()
        self._factors = dict(factors or {})
        self._stream = sys.stderr if stream is None else stream
        self._on_terminal = self._stream.isatty()
        self._bar: tqdm.tqdm | None = None
        self._first_epoch: int | None = None
        self._started = self._told = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock at the first epoch, and a bar at each one."""
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
        """Advances the bar."""
        if self._bar is not None:
            self._bar.update(batch + 1 - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Prints the line of the epoch."""
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
        shown = {
            name: float(value) * self._factors.get(name, 1.0)
            for name, value in (logs or {}).items()
        }
        line = progress_line(epoch + 1, epochs, shown, elapsed, per_epoch)
        print(line, file=self._stream, flush=True)


class MeasureSteps(keras.callbacks.Callback):
    """Measures the first steps, and calls a function once with what it found.

    The first step of a process, which compiles, does not count. A run that is
    too short to be measured ends without a call.
    """

    def __init__(
        self, found: Callable[[int, float], None], least_seconds: float = 5.0
    ) -> None:
        """Creates the callback.

        Args:
          found: Called with the number of steps so far, of all epochs, and the
            mean seconds of one.
          least_seconds: How long to measure.
        """
        super().__init__()
        self._found = found
        self._least_seconds = least_seconds
        self._epoch = 0
        self._first: tuple[int, float] | None = None
        self._is_done = False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Counts the steps of earlier epochs."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measures, and calls the function when that was long enough."""
        if self._is_done:
            return
        now = time.perf_counter()
        steps = self._epoch * self.params["steps"] + batch + 1
        if self._first is None:
            self._first = steps, now
            return
        first, started = self._first
        if now - started >= self._least_seconds:
            self._is_done = True
            self._found(steps, (now - started) / (steps - first))


def progress_line(
    epoch: int,
    epochs: int,
    logs: Mapping[str, Any],
    elapsed_seconds: float,
    seconds_per_epoch: float,
) -> str:
    """Formats the progress line of one epoch.

    Args:
      epoch: The number of completed epochs.
      epochs: The number of epochs of the run.
      logs: Metrics of the epoch.
      elapsed_seconds: Time since the start or the resumption of the run.
      seconds_per_epoch: Expected time of each remaining epoch.

    Returns:
      One line without a line break.
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
