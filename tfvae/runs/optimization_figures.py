# SPDX-License-Identifier: Apache-2.0
"""Figures of a single optimisation, and of several in comparison."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tfvae import plots
from tfvae.lso import curves
from tfvae.lso.snapshots import MANIFOLD, SAMPLES, WEIGHTS
from tfvae.runs import charts, optimization_results, optimization_state
from tfvae.runs.optimization_results import Run
from tfvae.runs.optimization_state import NUM_BEST, TOP, State

Groups = Mapping[str, Sequence[Run]]
"""By label, runs that differ in their seed only."""
Points = Callable[[str, int], Sequence[tuple[float, float, float]]]
"""From label and K to published points: (query, mean, standard deviation)."""

FIGURES = "figures"
_START = "best of the data"
_NUM_DRAWINGS = 9
_FRAME = 3  # Grey border around images in pixels, visible on white paper.


def write_run_figures(run_dir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Draws all available figures of an optimisation into its folder.

    Figures that only change with their files are drawn where these are newer.

    Args:
      run_dir: Folder of the optimisation.

    Returns:
      The figures that there are.

    Raises:
      FileNotFoundError: If there is no optimisation in the folder.
      ValueError: If it has no queries yet.
    """
    run = optimization_results.read(run_dir)
    folder = run.path / FIGURES
    folder.mkdir(exist_ok=True)
    groups = {run.setting: [run]}
    state = optimization_state.read(run_dir)
    draw_progress(state, folder / "top_k.png")
    drawn = ["top_k.png"]
    draws: dict[str, tuple[str, Callable[[pathlib.Path], bool]]] = {
        "weights.png": (WEIGHTS, lambda path: draw_weights(groups, path)),
        "samples.png": (SAMPLES, lambda path: draw_samples(groups, path)),
        "manifold.png": (MANIFOLD, lambda path: draw_manifold(run, path)),
    }
    for name, (source, draw) in draws.items():
        path = folder / name
        if _is_newer(path, run.path / source) or draw(path):
            drawn.append(name)
    if draw_best_inputs(state, folder / "best.png"):
        drawn.append("best.png")
    return [folder / name for name in drawn]


def _is_newer(path: pathlib.Path, source: pathlib.Path) -> bool:
    """Whether a figure has been drawn after its source was written."""
    if not path.exists() or not source.exists():
        return False
    return path.stat().st_mtime_ns > source.stat().st_mtime_ns


def draw_progress(state: State, path: pathlib.Path) -> None:
    """Draws the scores of a run over its queries, and top-K."""
    plots.progress(
        progress(state),
        path,
        y_label=_labelled(state.score_label, state.maximise),
        references=progress_references(state),
    )


def progress_chart(state: State, description: str) -> str:
    """Returns the same as a chart of HTML pages."""
    content = progress(state)
    has_score = np.isfinite(content.scores)
    found = {
        "score": (content.scores, has_score & content.is_feasible),
        "violates a constraint": (
            content.scores,
            has_score & ~content.is_feasible,
        ),
    }
    series = [
        charts.Series(label, curve, "steps")
        for label, curve in content.curves.items()
    ]
    series += [
        charts.Series(label, np.where(shown, values, math.nan), "dots")
        for label, (values, shown) in found.items()
        if shown.any()
    ]
    if not has_score.all():
        marks = np.where(has_score, math.nan, 1.0)
        series.append(charts.Series("no score", marks, "marks"))
    return charts.chart(
        "progress",
        np.arange(1, len(has_score) + 1),
        series,
        x_label="query",
        y_label=_labelled(state.score_label, state.maximise),
        references=progress_references(state),
        description=description,
    )


def progress(state: State) -> plots.Progress:
    """Returns what is drawn of the progress of a run.

    Each curve of top-K begins where there are K distinct inputs with a score
    that satisfy all constraints.
    """
    entries = state.entries
    num_distinct = len(state.ranked)
    return plots.Progress(
        np.array(
            [math.nan if one.score is None else one.score for one in entries]
        ),
        {f"top-{k}": _top_k_from_k(state, k) for k in TOP if k <= num_distinct},
        np.array([one.is_feasible for one in entries], bool),
    )


def _top_k_from_k(state: State, k: int) -> np.ndarray:
    """Returns the K-th best score, NaN for fewer than K distinct inputs."""
    counts = [
        one.score is not None and one.is_feasible for one in state.entries
    ]
    counted = [
        one for one, is_in in zip(state.entries, counts, strict=True) if is_in
    ]
    keys = [state.keys[one.query] for one in counted]
    scores = np.array([one.score for one in counted], np.float64)
    curve = state.sign * curves.top_k(state.sign * scores, keys, k)
    seen: set[str | None] = set()
    for place, name in enumerate(keys):
        seen.add(name)
        if len(seen) < k:
            curve[place] = math.nan
    # After each query, whether or not it counts.
    after = np.concatenate([[math.nan], curve])
    return after[np.cumsum(counts)]


def progress_references(state: State) -> dict[str, float]:
    """Returns the best score of the data, and the optimum unless far away."""
    start, optimum = (
        state.header.get(name) for name in ("best_in_data", "optimum")
    )
    scores = [one.score for one in state.entries if one.score is not None]
    found = {} if start is None else {_START: float(start)}
    if optimum is not None and (scores or found):
        known = [state.sign * one for one in (*scores, *found.values())]
        if state.sign * optimum - max(known) <= max(known) - min(known):
            found["optimum"] = float(optimum)
    return found


def score_label(run: Run) -> str:
    """Returns a label of the scores, with their unit and direction."""
    return _labelled(run.score_label, run.maximise)


def _labelled(label: str, maximise: bool) -> str:
    return label if maximise else f"{label} (smaller is better)"


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
    found: dict[Hashable, tuple[float, Any]] = {}
    for score, one in sorted(every, key=lambda pair: -sign * pair[0]):
        found.setdefault(optimization_results.key(one), (score, one))
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
    strips: _Strips = {}
    for label, runs in groups.items():
        known = {k: one for run in runs for k, one in run.pictures().items()}
        strips |= _strip(label, best(runs), known)
    return _draw_strips(strips, path, title)


def draw_best_inputs(state: State, path: pathlib.Path) -> bool:
    """Draws the best inputs of a run that have scores, if they have images.

    Pictures are a row, drawings a table with a score below each.

    Returns:
      Whether a figure was drawn.
    """
    ranked = [(one.value, one.entry.input) for one in state.ranked[:NUM_BEST]]
    known = optimization_results.pictures(state.path)
    drawings = [
        (score, picture)
        for score, one in ranked[:_NUM_DRAWINGS]
        if (picture := known.get(optimization_results.key(one))) is not None
        and picture.ndim == 3
    ]
    if drawings:
        plots.captioned_pictures(
            [np.asarray(picture, np.float64) for _, picture in drawings],
            [f"{score:.5g}" for score, _ in drawings],
            path,
            title=_labelled(state.score_label, state.maximise),
        )
        return True
    return _draw_strips(_strip(state.path.name, ranked, known), path, None)


_Strips = dict[tuple[str, str], np.ndarray]


def _strip(
    label: str,
    ranked: Sequence[tuple[float, Any]],
    known: Mapping[Hashable, np.ndarray],
) -> _Strips:
    """Returns the images of inputs side by side, empty if they have none.

    Args:
      label: What they are the best of.
      ranked: Scores and inputs, best first.
      known: Images by the keys of the inputs.
    """
    keys = [optimization_results.key(one) for _, one in ranked]
    if not ranked or not known.keys() >= set(keys):
        return {}
    found = [np.asarray(known[one], np.float64) for one in keys]
    points = np.full((NUM_BEST, found[0].size), 0.5)
    points[: len(found)] = [one.ravel() for one in found]
    row = f"{label}\n{ranked[0][0]:.5g} to {ranked[-1][0]:.5g}"
    strip = plots.tiles(points, found[0].shape, NUM_BEST, (0.0, 1.0))
    around = [(_FRAME, _FRAME), (_FRAME, _FRAME), (0, 0)]
    return {(row, ""): np.pad(strip, around, constant_values=0.5)}


def _draw_strips(
    strips: _Strips, path: pathlib.Path, title: str | None
) -> bool:
    if not strips:
        return False
    rows = [row for row, _ in strips]
    plots.sheet_of_pictures(strips, rows, [""], path, title=title)
    return True
