# SPDX-License-Identifier: Apache-2.0
"""Figures of a single optimisation, and of several in comparison."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfvae import plots
from tfvae.lso import curves
from tfvae.lso.snapshots import MANIFOLD, SAMPLES, WEIGHTS
from tfvae.runs import optimization_results
from tfvae.runs.optimization_results import NUM_BEST, Run

Groups = Mapping[str, Sequence[Run]]
"""By label, runs that differ in their seed only."""
Points = Callable[[str, int], Sequence[tuple[float, float, float]]]
"""From label and K to published points: (query, mean, standard deviation)."""

FIGURES = "figures"
TOP = (1, 10, 50)
_START = "best of the data"
_FRAME = 3  # Grey border around images in pixels, visible on white paper.


def write_run_figures(run_dir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Draws all available figures of an optimisation into its folder.

    Args:
      run_dir: Folder of the optimisation.

    Returns:
      The files written.

    Raises:
      FileNotFoundError: If there is no optimisation in the folder.
      ValueError: If it has no queries yet.
    """
    run = optimization_results.read(run_dir)
    folder = run.path / FIGURES
    folder.mkdir(exist_ok=True)
    groups = {run.setting: [run]}
    drawn = {
        "top_k.png": draw_curves(groups, folder / "top_k.png"),
        "weights.png": draw_weights(groups, folder / "weights.png"),
        "samples.png": draw_samples(groups, folder / "samples.png"),
        "manifold.png": draw_manifold(run, folder / "manifold.png"),
        "best.png": draw_best(groups, folder / "best.png"),
    }
    return [folder / name for name, is_there in drawn.items() if is_there]


def score_label(run: Run) -> str:
    """Returns a label of the scores, with their unit and direction."""
    if run.maximise:
        return run.score_label
    return f"{run.score_label} (smaller is better)"


def top_k(runs: Sequence[Run], k: int) -> np.ndarray:
    """Returns the top-K curves of several runs, `[runs, queries]`."""
    found = [run.top_k(k) for run in runs]
    length = max(map(len, found))
    return np.stack(
        [np.pad(one, (0, length - len(one)), "edge") for one in found]
    )


def draw_curves(
    groups: Groups,
    path: pathlib.Path,
    *,
    published: Points | None = None,
    title: str | None = None,
) -> bool:
    """Draws top-1, top-10 and top-50 over queries, mean and std over runs.

    Args:
      groups: The runs.
      path: File to write.
      published: Published points to draw beside the curves, or None.
      title: Title of the figure, or None.

    Returns:
      Whether a figure was drawn.
    """
    content: dict[str, dict[str, plots.Band]] = {}
    for k in TOP:
        panel = content.setdefault(f"top-{k}", {})
        for label, runs in groups.items():
            mean, spread = curves.mean_and_spread(top_k(runs, k))
            points = published(label, k) if published else ()
            shown = [point for point in points if point[0] <= len(mean)]
            panel[label] = plots.Band(mean, spread, shown)
    run = _first(groups)
    plots.top_k_curves(
        content,
        path,
        y_label=score_label(run),
        references=_references(groups),
        title=title,
    )
    return True


def _first(groups: Groups) -> Run:
    return next(iter(groups.values()))[0]


def _references(groups: Groups) -> dict[str, float]:
    """Returns reference lines: best of the data, optimum unless far away.

    The optimum is left out if it is farther from the best score of all runs
    than the best score is from the worst initial or final score.
    """
    every = [run for runs in groups.values() for run in runs]
    known = [run.best_in_data for run in every if run.best_in_data is not None]
    if not known:
        return {}
    start = float(np.mean(known))
    found = {_START: start}
    run = every[0]
    if run.optimum is not None:
        ends = [one.sign * one.top_k(1)[-1] for one in every]
        reached = max(*ends, run.sign * start)
        missing = run.sign * run.optimum - reached
        if missing <= reached - min(*ends, run.sign * start):
            found["optimum"] = float(run.optimum)
    return found


def draw_weights(
    groups: Groups, path: pathlib.Path, *, title: str | None = None
) -> bool:
    """Draws the first-round weights of data, of one run of each group.

    Args:
      groups: The runs.
      path: File to write.
      title: Title of the figure, or None.

    Returns:
      Whether a figure was drawn; not if no run has saved weights.
    """
    known: dict[bytes, tuple[list[str], plots.Weighted]] = {}
    for label, runs in groups.items():
        found = _first_arrays(runs, WEIGHTS)
        if found is not None:
            data = plots.Weighted(found["scores"], found["weights"])
            same = np.stack(data).tobytes()
            known.setdefault(same, ([], data))[0].append(label)
    if not known:
        return False
    content = {", ".join(labels): data for labels, data in known.values()}
    run = _first(groups)
    plots.weights(
        content,
        path,
        x_label=score_label(run),
        maximise=run.maximise,
        title=title,
    )
    return True


def _first_arrays(runs: Sequence[Run], name: str) -> dict[str, Any] | None:
    return next(
        (found for run in runs if (found := run.arrays(name)) is not None), None
    )


def draw_samples(
    groups: Groups, path: pathlib.Path, *, title: str | None = None
) -> bool:
    """Draws the scores of prior samples in the first and the last round.

    Args:
      groups: The runs; the samples of all seeds are pooled.
      path: File to write.
      title: Title of the figure, or None.

    Returns:
      Whether a figure was drawn; not if no run has scored samples.
    """
    content = {}
    for label, runs in groups.items():
        found = [
            scores
            for run in runs
            if (arrays := run.arrays(SAMPLES)) is not None
            and len(scores := arrays["scores"])
        ]
        if not found:
            continue
        panel = {"first round": np.concatenate([one[0] for one in found])}
        if any(len(one) > 1 for one in found):
            last = np.concatenate([one[-1] for one in found])
            panel["last round"] = last
        content[label] = panel
    if not content:
        return False
    run = _first(groups)
    # The legend takes its labels from the first panel.
    content = dict(sorted(content.items(), key=lambda item: -len(item[1])))
    plots.sample_scores(
        content,
        path,
        x_label=score_label(run),
        maximise=run.maximise,
        references={
            label: value
            for label, value in _references(groups).items()
            if label == _START
        },
        title=title,
    )
    return True


def draw_manifold(
    run: Run, path: pathlib.Path, *, title: str | None = None
) -> bool:
    """Draws the decoded grid of two latents at several rounds of a run.

    Args:
      run: The run. If it has no scores of the grid, images are coloured by the
        sum of their pixels.
      path: File to write.
      title: Title of the figure, or None.

    Returns:
      Whether a figure was drawn; not if the run has no saved grid.
    """
    found = run.arrays(MANIFOLD)
    if found is None:
        return False
    images = np.asarray(found["images"], np.float64)
    scores = found.get("scores")
    rounds = [int(number) + 1 for number in found["rounds"]]
    plots.manifold(
        images,
        path,
        bound=float(found["bound"]),
        labels=[f"round {number}" for number in rounds],
        scores=images.sum(axis=(-2, -1)) if scores is None else scores,
        score_label=score_label(run) if scores is not None else "sum",
        maximise=run.maximise,
        title=title,
    )
    return True


def best(runs: Sequence[Run], count: int = NUM_BEST) -> list[tuple[float, Any]]:
    """Returns (score, input) of the best distinct inputs of all runs."""
    sign = runs[0].sign
    every = [pair for run in runs for pair in run.best(count)]
    found: dict[str, tuple[float, Any]] = {}
    for score, one in sorted(every, key=lambda pair: -sign * pair[0]):
        found.setdefault(repr(one), (score, one))
    return list(found.values())[:count]


def draw_best(
    groups: Groups, path: pathlib.Path, *, title: str | None = None
) -> bool:
    """Draws the best inputs, if they have images.

    Args:
      groups: The runs.
      path: File to write.
      title: Title of the figure, or None.

    Returns:
      Whether a figure was drawn.
    """
    strips = {}
    for label, runs in groups.items():
        ranked = best(runs)
        known = {k: one for run in runs for k, one in run.pictures().items()}
        keys = [optimization_results.key(one) for _, one in ranked]
        if not ranked or not known.keys() >= set(keys):
            continue
        found = [np.asarray(known[one], np.float64) for one in keys]
        points = np.full((NUM_BEST, found[0].size), 0.5)
        points[: len(found)] = [one.ravel() for one in found]
        row = f"{label}\n{ranked[0][0]:.5g} to {ranked[-1][0]:.5g}"
        strip = plots.tiles(points, found[0].shape, NUM_BEST, (0.0, 1.0))
        around = [(_FRAME, _FRAME), (_FRAME, _FRAME), (0, 0)]
        strips[row, ""] = np.pad(strip, around, constant_values=0.5)
    if not strips:
        return False
    rows = [row for row, _ in strips]
    plots.sheet_of_pictures(strips, rows, [""], path, title=title)
    return True
