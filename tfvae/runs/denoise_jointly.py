# SPDX-License-Identifier: Apache-2.0
"""Training of one model of the patches of several pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfvae.callbacks import Observation
from tfvae.data import images
from tfvae.joint_restoration import JointRestoration
from tfvae.runs import (
    config,
    estimates,
    restoration_page,
    summaries,
    uncertainty,
)
from tfvae.runs.denoise import (
    STD_FACTOR,
    check_inputs,
    shown_rows,
    write_restored,
)
from tfvae.runs.experiment import Experiment, experiment, fit
from tfvae.runs.run_directory import RunDirectory


def train_jointly(
    run: RunDirectory, names: Sequence[str], owns: Sequence[RunDirectory]
) -> None:
    """Trains one model of all pictures and writes what is restored.

    Args:
      run: Folder of the run, locked.
      names: Names of the pictures, in the order of the configuration.
      owns: Folders for the figures of each picture.

    Raises:
      TypeError: If `experiment.data` is no JointRestoration.
      ValueError: See `denoise`.
    """
    given = config.value("denoise.std_factor")
    std_factor = STD_FACTOR if given is None else given
    uncertainty.check_factor(std_factor)
    keras.utils.clear_session()

    def prepare(joint: JointRestoration) -> None:
        print(joint.describe(), flush=True)
        check_inputs(run, joint)
        estimates.announce_work(joint)

    parts = experiment(prepare, draws_states=False)
    joint = parts.restoration
    if not isinstance(joint, JointRestoration):
        raise TypeError(
            f"`experiment.data` must be a JointRestoration, got {joint!r}"
        )
    observer = _Observer(run, parts, joint)
    rows = fit(run, parts, observer)
    export = config.value("denoise.export") is not False
    summaries.announce_end(export)
    results: dict[str, Any] = {}
    with run.our_errors():
        summaries.draw(run, parts, rows)
        restored = observer.restored(len(rows))
        for name, own, one, image, points in zip(
            names,
            owns,
            joint.restorations,
            restored,
            joint.rows(),
            strict=True,
        ):
            results[name] = write_restored(
                own, parts, one, image, points, rows[-1], std_factor
            )
        if export:
            summaries.export(run, parts)
    summaries.print_scores(results)
    final: dict[str, Any] = {"data": parts.observations.name}
    if "noise_std" in rows[-1] and not joint.is_transformed:
        final["noise_std"], share = joint.in_units(rows[-1]["noise_std"])
        if not joint.is_noise_known:
            found = f"{100.0 * share:.3g} % of the range"
            if joint.has_one_range:
                found = f"{final['noise_std']:.4g} ({found})"
            print(f"noise: standard deviation {found}")
    final["pictures"] = results
    rows = shown_rows(joint, rows)
    summary = run.write_summary(rows, final, parts.seed)
    # Scores over epochs are means of all pictures.
    means = {"psnr", "ssim"}
    own_rows = [
        {name: row[name] for name in row if name not in means} for row in rows
    ]
    with run.our_errors():
        for name, own, one, image in zip(
            names, owns, joint.restorations, restored, strict=True
        ):
            restoration_page.write(
                run, one, image, own_rows, own.path, results[name]
            )
    print(f"wrote {restoration_page.NAME} of each to {run.path / 'pictures'}")
    summaries.report(run, summary)


class _Observer:
    """Restores all pictures during training; shows the first of them."""

    def __init__(
        self, run: RunDirectory, parts: Experiment, joint: JointRestoration
    ) -> None:
        self._run = run
        self._parts = parts
        self._joint = joint
        self._last: tuple[int, list[np.ndarray]] | None = None

    def __call__(self, epoch: int) -> Observation:
        restored = self.restored(epoch)
        self._run.figures.mkdir(exist_ok=True)
        shown = images.shown_channels(restored[0])
        images.write_image(self._run.figures / "restored_latest.png", shown)
        scores = self._joint.score(restored)
        return Observation(scores, {"restored": shown / images.WHITE})

    def restored(self, epoch: int) -> list[np.ndarray]:
        """Returns the images as restored after `epoch` epochs."""
        if self._last is None or self._last[0] != epoch:
            estimate = functools.partial(
                summaries.stored_estimates, self._parts
            )
            self._last = epoch, self._joint.restore(estimate)
        return self._last[1]
