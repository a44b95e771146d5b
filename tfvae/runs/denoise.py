# SPDX-License-Identifier: Apache-2.0
"""Run that denoises or in-paints a single image (zero-shot)."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from tfvae import plots, typed_gin
from tfvae.callbacks import Observation
from tfvae.data import images
from tfvae.restoration import Restoration
from tfvae.runs import config, summaries
from tfvae.runs.experiment import Experiment, experiment, fit
from tfvae.runs.run_directory import RunDirectory

_RESTORED = "restored.png"
HALF_CYCLE = "cyclical_adam.half_cycle_epochs"


def schedule_bindings(
    run_dir: str | os.PathLike[str] | None, epochs: int | None
) -> list[str]:
    """Returns bindings for one learning rate cycle over all epochs of a run.

    Args:
      run_dir: Folder of the run. A run that has checkpoints keeps the cycle
        that it was started with, so that more epochs extend it.
      epochs: Number of epochs, which are one cycle of the learning rate; None
        for the cycle of the configuration, without any binding.
    """
    if epochs is None:
        return []
    half_cycle = f"{epochs / 2:g}"
    if run_dir:
        run = RunDirectory(run_dir)
        if run.config.exists() and run.has_checkpoints:
            saved = config.bindings(run.config.read_text(encoding="utf-8"))
            half_cycle = saved.get(HALF_CYCLE, half_cycle)
    return [f"{HALF_CYCLE} = {half_cycle}"]


@typed_gin.configurable
@typed_gin.uses(experiment, fit)
def denoise(
    run_dir: str | os.PathLike[str],
    *,
    output: str | None = None,
    export: bool = True,
) -> dict[str, Any]:
    """Trains on the patches of an image and writes the restored image.

    During training, figures/restored_latest.png has the image as restored so
    far. Call it again with the same configuration to resume an interrupted
    run; a finished run is not changed, and its image is written to `output`.

    Args:
      run_dir: Folder of the run, see `RunDirectory`.
      output: File to write the restored image to, in addition to the run
        folder; None for none.
      export: Whether to write a SavedModel at the end.

    Returns:
      The summary of the run.

    Raises:
      ValueError: If a value of the configuration is out of range, or
        `run_dir` has a run of another configuration.
      RuntimeError: If another process is using `run_dir`.
    """
    config.check("denoise")
    run = RunDirectory(run_dir)
    with run.locked_for_training() as is_finished:
        if output is not None:
            _check_output(output)
        if is_finished:
            if output is not None:
                _copy_restored(run, output)
            return summaries.report_finished(run)
        parts = experiment()
        if parts.restoration is None:
            raise ValueError(
                "`experiment.data` must be an image to restore, such as "
                "@corrupted_image(), got data points; use `tfvae train` for "
                "them."
            )
        if parts.restoration.noise is not None:
            print(parts.restoration.noise.describe(), flush=True)
        observer = _Observer(run, parts, parts.restoration)
        rows = fit(run, parts, observer)
        summaries.announce_end(export)
        with run.our_errors():
            restored = observer.restored(len(rows))
            summaries.draw(run, parts, rows)
            _draw(run, parts.restoration, restored)
            if output is not None:
                _write(output, restored, parts.restoration.bits)
            if export:
                summaries.export(run, parts)
        final: dict[str, Any] = {"data": parts.observations.name}
        final.update(_scores(parts.restoration, restored))
        summary = run.write_summary(rows, final, parts.seed)
        summaries.report(run, summary)
        summaries.print_unused(config.unused("denoise"))
    return summary


class _Observer:
    """Restores the image during training and writes it to the run folder."""

    def __init__(
        self, run: RunDirectory, parts: Experiment, restoration: Restoration
    ) -> None:
        self._run = run
        self._parts = parts
        self._restoration = restoration
        self._last: tuple[int, np.ndarray] | None = None

    def __call__(self, epoch: int) -> Observation:
        restored = self.restored(epoch)
        self._run.figures.mkdir(exist_ok=True)
        images.write_image(
            self._run.figures / "restored_latest.png",
            restored,
            bits=self._restoration.bits,
        )
        scores = {}
        if self._restoration.clean is not None:
            scores = self._restoration.score(restored)
        return Observation(scores, {"restored": restored / images.WHITE})

    def restored(self, epoch: int) -> np.ndarray:
        """Returns the image as restored after `epoch` epochs."""
        if self._last is None or self._last[0] != epoch:
            points = self._parts.observations.train
            estimates = self._parts.model.stored_reconstruction(
                points, np.arange(len(points))
            )
            self._last = epoch, self._restoration.restore(estimates)
        return self._last[1]


def _write(path: str | os.PathLike[str], image: np.ndarray, bits: int) -> None:
    """Writes an image with `bits` per channel if the format supports it."""
    can_be_deep = pathlib.Path(path).suffix.lower() in (".png", ".tif", ".tiff")
    images.write_image(path, image, bits=bits if can_be_deep else 8)


def _check_output(output: str) -> None:
    """Raises an error if the image could not be written to `output`."""
    path = pathlib.Path(output)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".tif", ".tiff"):
        raise ValueError(
            "`output` must end in .png, .jpg, .jpeg, .tif or .tiff, got "
            f"{output!r}."
        )
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(
            f"`output` must be in an existing folder, got {output!r}."
        )


def _copy_restored(run: RunDirectory, output: str) -> None:
    """Copies the restored image of a finished run to `output`."""
    path = run.figures / _RESTORED
    if not path.exists():
        raise FileNotFoundError(
            f"`output` needs the restored image of the finished run, but {path}"
            " does not exist."
        )
    _write(output, *images.read_image(path))
    print(f"wrote {output}, a copy of {path}")


def _draw(
    run: RunDirectory, restoration: Restoration, restored: np.ndarray
) -> None:
    """Writes the restored image, alone and beside the corrupted image."""
    _write(run.figures / _RESTORED, restored, restoration.bits)
    plots.restoration_panel(
        restoration.clean,
        restoration.image,
        restored,
        run.figures / "restoration.png",
    )


def _scores(restoration: Restoration, restored: np.ndarray) -> dict[str, float]:
    """Returns PSNR and SSIM before and after, if there is a clean image."""
    if restoration.clean is None:
        return {}
    after = restoration.score(restored)
    before = restoration.corrupted_score() or {}
    return {
        **after,
        **{f"corrupted_{name}": value for name, value in before.items()},
    }
