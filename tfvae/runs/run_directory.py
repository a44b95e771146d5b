# SPDX-License-Identifier: Apache-2.0
"""Run folder: layout, lock, configuration and summary files."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import tfvae.checkpoints
from tfvae import files
from tfvae.callbacks import DivergedError
from tfvae.ranks import ONE_PROCESS, Ranks
from tfvae.runs import config, identity, locks
from tfvae.runs.errors import UnexpectedError
from tfvae.runs.kinds import CONFIG, ERRORS, METRICS, SUMMARY, Kind

_PACKAGES = (
    "tfvae",
    "tensorflow",
    "keras",
    "tensorflow-probability",
    "numpy",
    "gin-config",
)


class RunDirectory:
    """Paths, lock, configuration and JSON files of a run folder.

    Layout: config.gin (the configuration, can be passed as --gin_file),
    operative_config.gin (the parameters used, defaults included), metrics.csv
    (a row per epoch), summary.json (final metrics; exists once the run is
    finished), report.html, checkpoints/, figures/, tensorboard/ and
    saved_model/.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Sets the paths; nothing is created on disk.

        Args:
          path: The folder.
        """
        self.path = pathlib.Path(path)
        self.config = self.path / CONFIG
        self.operative_config = self.path / "operative_config.gin"
        self.metrics = self.path / METRICS
        self.summary = self.path / SUMMARY
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"
        self.tensorboard = self.path / "tensorboard"
        self.saved_model = self.path / "saved_model"
        self.error_log = self.path / ERRORS
        # Only exists during training, if features do not fit into memory.
        self.features = self.path / "features.npy"

    @contextlib.contextmanager
    def locked(self, kind: Kind | None = None) -> Iterator[None]:
        """Creates and locks the folder, so that no other process writes to it.

        Args:
          kind: What the folder is to hold, for a run that writes its
            configuration to it; None for other uses of the folder.

        Raises:
          RuntimeError: If another process has locked it.
          ValueError: If it holds something of another kind.
          OSError: If the folder can not be created.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locks.locked(self.path):
            if kind is not None:
                self._refuse_other_kinds(kind)
            yield

    def _refuse_other_kinds(self, kind: Kind) -> None:
        """Raises a ValueError if the folder holds another kind of run only."""
        found = {
            one: name
            for one in Kind
            for name in reversed(one.value[1])
            if (self.path / name).exists()
        }
        # Runs of its own kind are compared by their configurations instead.
        if found and kind not in found:
            other, name = next(iter(found.items()))
            raise ValueError(
                f"`run_dir` must be empty or hold {kind.value[0]}, got "
                f"{self.path}, which holds {other.value[0]} ({name}); choose "
                "another folder."
            )

    @contextlib.contextmanager
    def locked_for_training(self, ranks: Ranks = ONE_PROCESS) -> Iterator[bool]:
        """Locks the folder, to start or resume the run that gin configures.

        Args:
          ranks: The processes of the run, the first of which locks it.

        Yields:
          Whether the run is already finished.

        Raises:
          RuntimeError: If another process has locked it.
          ValueError: If it has a run of another kind or configuration.
          OSError: If the folder can not be created.
        """
        if ranks.rank:
            yield ranks.broadcast(None)
            return
        with self.locked(Kind.TRAINING):
            self.check_config()
            yield ranks.broadcast(self.is_finished())

    @contextlib.contextmanager
    def our_errors(self) -> Iterator[None]:
        """Converts errors in the block, after user input has been validated.

        The whole traceback is written to error.log of the folder.

        Raises:
          UnexpectedError: From any error other than OSError and
            DivergedError.
        """
        try:
            yield
        except (OSError, DivergedError):
            raise
        except Exception as err:
            _write(self.error_log, "".join(traceback.format_exception(err)))
            first = str(err).strip().partition("\n")[0]
            raise UnexpectedError(
                f"{type(err).__name__}: {first} (this should not happen; the "
                f"traceback is in {self.error_log})"
            ) from err

    def is_finished(self) -> bool:
        """Whether the run has a summary, with the configured epochs if any."""
        summary = self.read_summary()
        return summary is not None and (
            summary.get("epochs") == config.value(identity.EPOCHS)
        )

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return any(
            True
            for name in ("checkpoint-*.npz", "round-*.npz")
            for _ in self.checkpoints.glob(name)
        )

    def check_config(self) -> None:
        """Compares gin's configuration with that of the run in the folder.

        A folder without checkpoints may have any configuration.

        Raises:
          ValueError: If a parameter differs that must not.
        """
        if self.has_checkpoints:
            self.refuse_others(identity.TRAINING)

    def refuse_others(self, rules: identity.Rules) -> None:
        """Checks gin's configuration against that of the folder.

        Args:
          rules: The parameters that may differ.

        Raises:
          ValueError: If a parameter differs that must not.
        """
        saved = self.read_config()
        if saved is not None:
            identity.check(self.path, saved, config.text(), rules)

    def read_config(self) -> str | None:
        """Returns the configuration; None if missing, empty or no text."""
        try:
            saved = self.config.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        return saved if saved.strip() else None

    def write_config(self) -> None:
        """Writes gin's configuration to config.gin."""
        _write(self.config, config.text_of_run())

    def write_json(self, name: str, content: dict[str, Any]) -> pathlib.Path:
        """Writes a JSON file atomically and returns its path."""
        path = self.path / name
        _write(path, json.dumps(content, indent=2, default=float) + "\n")
        return path

    def write_summary(
        self,
        rows: list[dict[str, float]],
        final: dict[str, Any],
        seed: int | None,
    ) -> dict[str, Any]:
        """Writes the operative configuration and, last, the summary.

        Args:
          rows: The metrics of each epoch, or of each round, as their first
            column says.
          final: Metrics in addition to those of the last one.
          seed: Seed of the run; None for a run without.

        Returns:
          The summary.
        """
        _write(self.operative_config, config.operative_text())
        last = {
            name: value
            for name, value in rows[-1].items()
            if name not in ("epoch", "round", "seconds", "learning_rate")
        }
        summary = {
            "rounds" if "round" in rows[-1] else "epochs": len(rows),
            **last,
            **final,
            **({} if seed is None else {"seed": seed}),
            "training_seconds": sum(row["seconds"] for row in rows),
            "command": shlex.join(sys.argv),
            "versions": versions(),
        }
        self.write_json(self.summary.name, summary)
        self.error_log.unlink(missing_ok=True)  # Of an earlier attempt.
        return summary

    def read_summary(self) -> dict[str, Any] | None:
        """Returns the summary, or None if the run is not finished."""
        try:
            return json.loads(self.summary.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def restore(self, model: Any) -> tfvae.checkpoints.Checkpoint:
        """Restores a model from the newest checkpoint of the run.

        Raises:
          FileNotFoundError: If there is no intact checkpoint.
        """
        found = tfvae.checkpoints.restore_latest(self.checkpoints, model)
        if found is None:
            raise FileNotFoundError(
                f"`run_dir` must hold a checkpoint, got none in "
                f"{self.checkpoints}; train first."
            )
        return found


def versions() -> dict[str, str]:
    """Returns the versions of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file atomically and syncs it to disk."""
    with files.replacing(path, is_synced=True) as file:
        file.write(text)
