# SPDX-License-Identifier: Apache-2.0
"""Run that denoises or in-paints a single image (zero-shot)."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfvae import files, plots, typed_gin
from tfvae.callbacks import Observation
from tfvae.data import encoding, images
from tfvae.joint_restoration import JointRestoration
from tfvae.local_subspaces import LocalSubspaces
from tfvae.ops import residuals
from tfvae.plots import embedding
from tfvae.ranks import ONE_PROCESS, Ranks
from tfvae.restoration import Restoration
from tfvae.runs import (
    config,
    denoise_by_subspaces,
    estimates,
    identity,
    restoration_page,
    summaries,
    uncertainty,
)
from tfvae.runs.denoise_by_subspaces import Restored
from tfvae.runs.experiment import Experiment, experiment, fit
from tfvae.runs.run_directory import RunDirectory

OUTPUT_SUFFIXES = (
    ".png",
    ".tif",
    ".tiff",
    ".npy",
    ".jpg",
    ".jpeg",
    ".exr",
    ".webp",
    ".jp2",
    ".bmp",
    ".gif",
    ".pgm",
    ".ppm",
)
"""Endings of the files that a restored image can be written to."""

STD_FACTOR = 1.0
"""Default factor of standard deviations; benchmarks/calibration.py fits it."""

_INPUTS = "inputs.json"
OF_MODEL = ("experiment", "fit")
"""Functions that a restoration without a model does not call."""
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
    ranks: Ranks = ONE_PROCESS,
    *,
    method: LocalSubspaces | None = None,
    output: str | None = None,
    overwrite: bool = False,
    lossy: bool = False,
    export: bool = True,
    output_std: str | None = None,
    std_factor: float = STD_FACTOR,
) -> dict[str, Any]:
    """Restores an image and writes it.

    By default a model is trained on its patches. Meanwhile
    figures/restored_latest.png has the image as restored so far; at the end,
    figures/restored.png has it in its own dtype, or restored.tif where PNG can
    not hold that, and report.html shows the run on a page. figures/residual.npy
    has what was removed from observed values, in their units, NaN where they
    are missing, and figures/residual.png shows it, mid-grey where it is 0.

    Call it again with the same configuration and files to resume an interrupted
    run; a finished run is not changed, and its image is written to `output`.

    Args:
      run_dir: Folder of the run, see `RunDirectory`.
      ranks: The processes that train the model together, each of which calls
        this function and restores its patches.
      method: What restores the image in place of a model; None for a model.
      output: File to write the restored image to, in addition to the run
        folder; None for none. JPEG has a quality of 95.
      overwrite: Whether `output` may be a file that is read.
      lossy: Whether `output` may be JPEG where observed values are to stay
        exactly as they are, which JPEG changes.
      export: Whether to write a SavedModel of the model at the end.
      output_std: File to write the standard deviations of the restored values
        to, in addition to uncertainty.npy in the run folder: `.npy` or TIFF,
        float32, in the image's own units.
      std_factor: What the standard deviations are multiplied by. Those of the
        posterior alone have 1, which holds for photographs on average, see
        docs/pictures.md.

    Returns:
      The summary of the run; empty on all ranks but the first.

    Raises:
      ValueError: If a value of the configuration is out of range, or
        `run_dir` has a run of another configuration or of other files.
      OSError: If `output` can not be written.
      RuntimeError: If another process is using `run_dir`.
    """
    config.check("denoise", optional=() if method is None else OF_MODEL)
    run = RunDirectory(run_dir)
    with run.locked_for_training(ranks) as is_finished:
        if output is not None:
            check_place(output, overwrite)
        if output_std is not None:
            check_place(
                output_std, overwrite, "output_std", uncertainty.SUFFIXES
            )
            if output is not None and _is_same(output, output_std):
                raise ValueError(
                    "`output_std` must be another file than `output`, got "
                    f"{output_std!r}."
                )
        uncertainty.check_factor(std_factor)
        if is_finished and ranks.rank:
            return {}
        if is_finished:
            run.refuse_others(identity.TRAINING)
            _copy_restored(run, output, lossy)
            if output_std is not None:
                uncertainty.copy(run, output_std)
            return summaries.report_finished(run, "--epochs")

        places = _Places(output, output_std, std_factor)

        def prepare(restoration: Restoration) -> None:
            if ranks.rank:
                return
            print(restoration.describe(), flush=True)
            if output is not None:
                check_kind(output, restoration, lossy)
            if output_std is not None:
                uncertainty.check_kind(output_std, restoration)
            check_inputs(run, restoration)
            estimates.announce_work(restoration)

        if method is not None:
            return _restored_by(run, method, prepare, places)
        parts = experiment(prepare, ranks, draws_states=False)
        if not isinstance(parts.restoration, Restoration):
            raise _no_image()
        restoration = parts.restoration
        observer = _Observer(run, parts, restoration)
        rows = fit(run, parts, observer)
        if ranks.rank:
            with run.our_errors():
                observer.restored()
                uncertainty.merged(parts, restoration)
            return {}
        summaries.announce_end(export)
        with run.our_errors():
            restored = observer.restored()
            summaries.draw(run, parts, rows)
            std = uncertainty.merged(parts, restoration)
            if export:
                summaries.export(run, parts)
        found = noise_in_units(restoration, rows[-1])
        noise_std = found.get("noise_std")
        if noise_std is not None and restoration.noise is None:
            width = restoration.value_range.width
            print(
                f"noise: standard deviation {noise_std:.4g} "
                f"({100.0 * noise_std / width:.3g} % of the range "
                f"{restoration.value_range})"
            )
        rows = shown_rows(restoration, rows)
        return _written(
            run,
            restoration,
            Restored(restored, std, rows, found),
            places,
            parts.seed,
        )


def _no_image() -> ValueError:
    return ValueError(
        "`experiment.data` must be an image to restore, such as "
        "@corrupted_image(), got data points; use `tfvae train` for them."
    )


class _Places(NamedTuple):
    """Where a restored image is written; see `denoise`."""

    output: str | None
    output_std: str | None
    std_factor: float


def _restored_by(
    run: RunDirectory,
    method: LocalSubspaces,
    prepare: Callable[[Restoration], None],
    places: _Places,
) -> dict[str, Any]:
    """Restores an image without a model; see `denoise`."""
    restoration = config.evaluated("experiment.data")
    if not isinstance(restoration, Restoration):
        raise _no_image()
    prepare(restoration)
    noise = denoise_by_subspaces.noise_of(restoration)
    with run.our_errors():
        found = denoise_by_subspaces.restore(run, restoration, method, noise)
    return _written(run, restoration, found, places, None)


def _written(
    run: RunDirectory,
    restoration: Restoration,
    found: Restored,
    places: _Places,
    seed: int | None,
) -> dict[str, Any]:
    """Writes what has been restored, and returns the summary."""
    restored, std, rows, noise = found
    output, output_std, std_factor = places
    with run.our_errors():
        _draw(run, restoration, restored)
        if output is not None:
            images.write_values(output, restoration.picture(restored))
            print(f"wrote {output}")
    final: dict[str, Any] = {"data": restoration.name}
    final.update(_scores(restoration, restored))
    final.update(noise)
    noise_std = noise.get("noise_std")
    final.update(_correlation(restoration, restored, noise_std))
    with run.our_errors():
        final.update(
            uncertainty.write(run, restoration, restored, std, std_factor)
        )
        if output_std is not None:
            uncertainty.copy(run, output_std)
    summary = run.write_summary(rows, final, seed)
    with run.our_errors():
        page = restoration_page.write(run, restoration, restored, rows)
    print(f"wrote {page}, which a browser shows: before, after, residual")
    summaries.report(run, summary)
    # Gin does not see it used where there is no model.
    unused = set(config.unused("denoise")) - {"experiment.data"}
    summaries.print_unused(sorted(unused))
    return summary


def _is_same(first: str, second: str) -> bool:
    return pathlib.Path(first).resolve() == pathlib.Path(second).resolve()


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
        restored = self.restored()
        if self._parts.model.ranks.rank:
            return Observation({}, {})
        self._run.figures.mkdir(exist_ok=True)
        is_deep = self._restoration.source.values.dtype == np.uint16
        shown = images.shown_channels(restored)
        images.write_image(
            self._run.figures / "restored_latest.png",
            shown,
            bits=16 if is_deep else 8,
        )
        scores = {}
        if self._restoration.clean is not None:
            scores = self._restoration.score(restored)
        return Observation(scores, {"restored": shown / images.WHITE})

    def restored(self) -> np.ndarray:
        """Returns the image as restored now; all ranks have to call it."""
        model = self._parts.model
        step = int(model.iteration)
        if self._last is None or self._last[0] != step:
            estimates = summaries.stored_estimates(self._parts)
            restored = self._restoration.restore(estimates, model.ranks)
            self._last = step, restored
        return self._last[1]


def check_place(
    output: str,
    overwrite: bool,
    argument: str = "output",
    suffixes: Sequence[str] = OUTPUT_SUFFIXES,
) -> None:
    """Raises an error if no file could be written to `output`."""
    path = pathlib.Path(output)
    if path.suffix.lower() not in suffixes:
        raise ValueError(
            f"`{argument}` must end in {', '.join(suffixes)}, got {output!r}."
        )
    if not path.resolve().parent.is_dir() or path.is_dir():
        raise FileNotFoundError(
            f"`{argument}` must be a file in an existing folder, got "
            f"{output!r}."
        )
    try:
        if path.exists():
            with path.open("r+b"):
                pass
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as err:
        raise OSError(
            f"`{argument}` must be writable, got {output!r}: {err.strerror}."
        ) from err
    for name in ("image", "mask", "clean"):
        given = config.value(f"corrupted_image.{name}")
        is_file = isinstance(given, str) and os.path.exists(given)
        if is_file and path.exists() and path.samefile(given):
            if overwrite:
                continue
            raise ValueError(
                f"`{argument}` must not be `{name}` unless `--overwrite` is "
                f"given, got {output!r}."
            )


def check_kind(output: str, restoration: Restoration, lossy: bool) -> None:
    """Raises a ValueError if `output` could not hold the restored image."""
    suffix = pathlib.Path(output).suffix.lower()
    source = restoration.source
    kind = (source.values.dtype, source.values.shape[2])
    has_alpha = source.alpha is not None
    reason = encoding.why_unsuitable(suffix, *kind, has_alpha)
    if reason is not None:
        suitable = [
            one
            for one in (".png", ".tif", ".npy")
            if encoding.why_unsuitable(one, *kind, has_alpha) is None
        ]
        raise ValueError(
            f"`output` must end in {' or '.join(suitable)}, as {suffix} can "
            f"not hold {reason}, got {output!r}."
        )
    is_jpeg = suffix in (".jpg", ".jpeg")
    if is_jpeg and restoration.keep_observed and not lossy:
        raise ValueError(
            "`output` must not be JPEG where observed values stay exactly as "
            "they are, as it would change them, unless `--lossy` is given, got "
            f"{output!r}."
        )


def check_inputs(
    run: RunDirectory, restoration: Restoration | JointRestoration
) -> None:
    """Checks that a started run is of these files; records them for a new one.

    Raises:
      ValueError: If the folder has checkpoints or results of other ones.
    """
    path = run.path / _INPUTS
    current = {"sha256": restoration.fingerprint()}
    if run.has_checkpoints or run.is_finished():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError) as err:
            raise ValueError(
                f"`run_dir` {run.path} must have {_INPUTS}, which says what "
                "image it restores; it is damaged or of an earlier version; "
                "choose another folder."
            ) from err
        if saved != current:
            raise ValueError(
                f"`run_dir` {run.path} must be empty or of the same image, "
                f"mask and reference, got {restoration.name} with other "
                "values than the run was started with; choose another folder."
            )
        return
    run.write_json(_INPUTS, current)


def _copy_restored(run: RunDirectory, output: str | None, lossy: bool) -> None:
    """Copies the restored image of a finished run to `output`, if any."""
    restoration = config.evaluated("experiment.data")
    check_inputs(run, restoration)
    _add_page(run, restoration)
    if output is None:
        return
    check_kind(output, restoration, lossy)
    path = _restored_path(run, restoration)
    if not path.exists():
        raise FileNotFoundError(
            f"`output` needs the restored image of the finished run, but {path}"
            " does not exist."
        )
    images.write_values(output, images.read_image(path))
    print(f"wrote {output}, a copy of {path}")


def _add_page(run: RunDirectory, restoration: Restoration) -> None:
    """Writes the page of a finished run without it, if its files remain."""
    path = _restored_path(run, restoration)
    if restoration_page.is_current(run) or not (
        path.exists() and run.metrics.exists()
    ):
        return
    values = images.read_image(path).values
    restored = restoration.value_range.to_pixels(values)
    rows = restoration_page.read_rows(run)
    restoration_page.write(run, restoration, restored, rows)


def _restored_path(run: RunDirectory, restoration: Restoration) -> pathlib.Path:
    """Returns the file of the run that has the restored image."""
    source = restoration.source
    # Premultiplied values can be converted for PNG, but not back.
    reason = "premultiplied alpha" if source.is_premultiplied else None
    reason = reason or encoding.why_unsuitable(
        ".png",
        source.values.dtype,
        source.values.shape[2],
        source.alpha is not None,
    )
    suffix = ".png" if reason is None else ".tif"
    return run.figures / f"restored{suffix}"


def _draw(
    run: RunDirectory, restoration: Restoration, restored: np.ndarray
) -> None:
    """Writes the restored image, its residual, and a figure of both."""
    images.write_values(
        _restored_path(run, restoration), restoration.picture(restored)
    )
    plots.restoration_panel(
        restoration.clean,
        restoration.image,
        restored,
        run.figures / "restoration.png",
    )
    residual = restoration.residual(restored)
    with files.replacing(run.figures / "residual.npy", "wb") as file:
        np.save(file, encoding.as_array(residual))
    shown = images.shown_channels(residual)
    limit = embedding.signed_limit(shown) or 1.0
    images.write_image(
        run.figures / "residual.png",
        images.WHITE * embedding.signed(shown, limit),
    )


def noise_in_units(
    restoration: Restoration, row: Mapping[str, float]
) -> dict[str, Any]:
    """Returns the noise that was known or found, in the image's units.

    Args:
      restoration: The restoration.
      row: The metrics of the last epoch.
    """
    known: dict[str, Any] = {}
    if restoration.noise is not None:
        known["noise"] = restoration.noise.describe().removeprefix("noise: ")
    if "noise_std" not in row or restoration.is_transformed:
        return known
    return {**known, "noise_std": restoration.in_units(row["noise_std"])[0]}


def shown_rows(
    restoration: Restoration | JointRestoration,
    rows: Sequence[Mapping[str, float]],
) -> list[dict[str, float]]:
    """Returns metrics without those that have no units of the picture.

    Args:
      restoration: The restoration.
      rows: The metrics of each epoch.
    """
    left_out = {"noise_std"} if restoration.is_transformed else set()
    return [
        {name: row[name] for name in row if name not in left_out}
        for row in rows
    ]


def _correlation(
    restoration: Restoration, restored: np.ndarray, noise_std: float | None
) -> dict[str, list[float]]:
    """Returns how correlated the noise is, and warns where it is not white.

    Args:
      restoration: The corrupted image.
      restored: The restored one, on 0..255.
      noise_std: Standard deviation that was learned, in the image's units.
    """
    if restoration.keep_observed or restoration.strength == 0.0:
        return {}
    change = (restoration.image - restored) / restoration.strength
    estimate = np.where(np.isnan(change), restored, restoration.image - change)
    found = residuals.autocorrelation(restoration.image, estimate)
    if not found.is_white:
        remedies = ["a picture of half the size", "--strength=0.5 for JPEG"]
        if noise_std is not None and restoration.noise is None:
            remedies.insert(0, f"--known_noise_std={2.0 * noise_std:.4g}")
        print(
            "warning: what was removed from flat parts of "
            f"{restoration.name} is not white, neighbours have correlations "
            f"of {found.down:.2f} down and {found.across:.2f} across; "
            "correlated noise is taken for detail, "
            f"or detail was lost; try {', '.join(remedies)}"
        )
    return {"noise_autocorrelation": [found.down, found.across]}


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


def write_restored(
    run: RunDirectory,
    parts: Experiment,
    restoration: Restoration,
    restored: np.ndarray,
    rows: slice,
    metrics: Mapping[str, float],
    std_factor: float,
) -> dict[str, Any]:
    """Writes one of several pictures that a model has restored.

    Args:
      run: Folder of the picture, which is created.
      parts: The trained experiment.
      restoration: The restoration of the picture.
      restored: `[height, width, channels]` on 0..255.
      rows: The data points of the picture, as a slice of all with both ends.
      metrics: The metrics of the last epoch.
      std_factor: What standard deviations are multiplied by.

    Returns:
      PSNR and SSIM before and after, if there is a clean image, the noise and
      how correlated it is, and the standard deviations' mean.
    """
    run.figures.mkdir(parents=True, exist_ok=True)
    _draw(run, restoration, restored)
    return {
        **_scores(restoration, restored),
        **noise_in_units(restoration, metrics),
        **_correlation(restoration, restored, None),
        **uncertainty.write(
            run,
            restoration,
            restored,
            uncertainty.merged(parts, restoration, rows),
            std_factor,
        ),
    }
