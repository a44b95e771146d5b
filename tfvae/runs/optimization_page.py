# SPDX-License-Identifier: Apache-2.0
"""`report.html`: an optimisation so far as one page that opens from disk.

The page is a list of panels, see `_panels`, in the frame of `pages`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Hashable, Iterable, Mapping
from html import escape
from typing import Any

import numpy as np

from tfvae import __version__, files
from tfvae.lso.records import Entry
from tfvae.plots import embedding
from tfvae.runs import (
    optimization_figures,
    optimization_results,
    optimization_status,
    pages,
)
from tfvae.runs.optimization_state import (
    NUM_BEST,
    RESULT,
    Ranked,
    State,
    key,
    read_json,
)
from tfvae.runs.optimization_status import (
    input_text,
    number,
    printable,
    shortened,
)
from tfvae.runs.pages import (
    NAME,
    Cell,
    Head,
    Panel,
    number_cell,
    rows_table,
)

_LONGEST_INPUT = 200
_LONGEST_SETTING = 400
_LONGEST_ALT = 80
_MOST_PENDING = 50


def write(state: State) -> pathlib.Path:
    """Writes the page of a run so far and returns its path."""
    path = state.path / NAME
    with files.replacing(path) as file:
        file.write(page(state))
    return path


def page(state: State) -> str:
    """Returns the page of a run so far as HTML."""
    task = _text(str(state.header.get("task", state.path.name)))
    changed = f"{state.changed():%Y-%m-%d %H:%M %Z}"
    return pages.page(
        _head(state, task),
        _tiles(state),
        _panels(state),
        f"tfvae {__version__}; last result {changed}",
        "optimization_page",
    )


def _head(state: State, task: str) -> Head:
    is_finished = state.num_done >= state.budget
    note = (
        "All settings are in config.gin of the run folder, and hold until "
        "others are given."
    )
    if is_finished:
        note = "The budget is spent; a larger one continues the run."
    return Head(
        f"{task}, optimised",
        f"{escape(task)} <span>optimised</span>",
        "finished" if is_finished else "unfinished",
        f"{state.num_done} of {state.budget} queries are done",
        optimization_status.command(state),
        note,
    )


def _text(one: str) -> str:
    return printable(one)


def _tiles(state: State) -> Iterable[str]:
    """Yields the figures at the head of the page."""
    ranked = state.ranked
    direction = "larger" if state.maximise else "smaller"
    if ranked:
        best = ranked[0]
        by = f", by {state.ranked_by}" if state.is_noisy else ""
        note = f"query {best.entry.query}; {direction} is better{by}"
        yield pages.tile("Best", number(best.value), note)
    else:
        yield pages.tile("Best", "none", "no query has a score yet")
    data = state.header.get("best_in_data")
    if data is not None:
        yield pages.tile("Best of the data", number(data), "before any query")
    yield pages.tile(
        "Queries",
        f"{state.num_done} / {state.budget}",
        f"round {max(state.round, 0) + 1} of {state.num_rounds}",
    )
    yield pages.tile("Pending", str(len(state.pending)), "wait for results")
    yield pages.tile("Failed", str(len(state.failed)), "have no score")
    total, left = sum(state.seconds.values()), state.seconds_left()
    if total >= 0.05:
        note = f"{pages.duration(left)} left at this pace" if left else "so far"
        yield pages.tile("Time", pages.duration(total), note)


def _panels(state: State) -> list[Panel]:
    """Returns the panels in their order; those without content are left out."""
    pictures = optimization_results.pictures(state.path)
    result = read_json(state.path / RESULT)
    panels = [
        _best_one(state, pictures),
        _progress(state),
        _best(state, pictures),
        _sets(result),
        _candidates(result),
        _pending(state, pictures),
        _failures(state),
        _constraints(state),
        _time(state),
        _queries(state),
        _settings(state),
    ]
    return [panel for panel in panels if panel is not None]


Pictures = Mapping[Hashable, np.ndarray]


def _shown(
    one: Any,
    pictures: Pictures,
    count: int = _LONGEST_INPUT,
    score: str = "",
) -> str:
    """Returns an input as its picture, or else as text; a drawing has both.

    Args:
      one: The input, in its JSON form.
      pictures: Pictures by the keys of inputs.
      count: Most characters of the text.
      score: What the input scores, for those who see no pictures.
    """
    line = input_text(one)
    text = f"<code>{escape(shortened(line, count))}</code>"
    picture = pictures.get(key(one))
    if picture is None:
        return text
    is_drawing = picture.ndim == 3
    values = np.asarray(picture, np.float64)
    shown = embedding.embedded(values if is_drawing else values[..., None])
    alt = shortened(line, _LONGEST_INPUT if is_drawing else _LONGEST_ALT)
    alt = f"input {alt}{', ' * bool(score)}{score}"
    kind = 'class="drawing"' if is_drawing else "data-small"
    image = (
        f'<img {kind} src="{shown.uri}" width="{shown.width}" '
        f'height="{shown.height}" alt="{escape(alt)}">'
    )
    return f"{image} {text}" if is_drawing else image


def _best_one(state: State, pictures: Pictures) -> Panel | None:
    ranked = state.ranked
    if not ranked:
        return None
    best = ranked[0]
    shown = _shown(best.entry.input, pictures, 2000, _scored(state, best))
    body = (
        f'<div class="input">{shown}</div>\n'
        f'<p class="note">{escape(_described(state, best))}</p>'
    )
    return Panel("best-one", "Best input", body, is_wide=True)


def _scored(state: State, one: Ranked) -> str:
    return f"{_text(state.score_label)} {number(one.value)}"


def _described(state: State, best: Ranked) -> str:
    """Says what is known of the best input."""
    entry = best.entry
    said = [
        f"{_scored(state, best)}, query {entry.query} of round "
        f"{entry.round + 1}."
    ]
    if state.is_noisy:
        std = "" if best.std is None else f" +- {best.std:.2g}"
        count = best.num_scores
        said.append(
            f"Ranked by {state.ranked_by}{std}; "
            f"{count} score{'s' * (count > 1)}."
        )
    for name, value in (entry.constraints or {}).items():
        said.append(f"{_text(name)} = {number(value)}.")
    return " ".join(said)


def _progress(state: State) -> Panel | None:
    if not state.entries:
        return None
    best = state.top().get("1")
    drawing = optimization_figures.progress_chart(
        state, f"Scores over queries, the best {number(best)}"
    )
    note = (
        "Each dot is a query, each line the best, 10th or 50th best score of "
        "distinct inputs so far."
    )
    if state.failed:
        note += " A dot on the axis is a query without a score."
    if state.is_noisy:
        note += (
            " Scores are those of single queries; the best inputs are ranked "
            f"by {state.ranked_by}."
        )
    body = f'{drawing}<p class="note">{note}</p>'
    return Panel("progress", "Progress", body, is_wide=True)


def _best(state: State, pictures: Pictures) -> Panel | None:
    ranked = state.ranked[:NUM_BEST]
    if len(ranked) < 2:
        return None
    head = ["rank", "score", "query", "input"]
    if state.is_noisy:
        head[2:2] = ["+-", "scores"]
    rows = []
    for rank, one in enumerate(ranked, 1):
        row = [number_cell(rank), number_cell(one.value)]
        if state.is_noisy:
            row += [number_cell(one.std), number_cell(one.num_scores)]
        row.append(number_cell(one.entry.query))
        shown = _shown(one.entry.input, pictures, score=_scored(state, one))
        rows.append([*row, Cell(shown)])
    title = f"The {len(ranked)} best inputs"
    if state.is_noisy:
        title += f", by {state.ranked_by}"
    return Panel("best", title, rows_table(head, rows, title), is_wide=True)


def _sets(result: Mapping[str, Any]) -> Panel | None:
    """Returns figures of the sets of inputs that were found."""
    found = result.get("inputs") or {}
    names = [*dict.fromkeys(name for one in found.values() for name in one)]
    if not set(names) - {"num"}:
        return None
    rows = [
        [
            Cell(escape(_text("inputs" if name == "num" else name))),
            *(number_cell(one.get(name), 3) for one in found.values()),
        ]
        for name in names
    ]
    title = "How new and different the inputs are"
    body = rows_table(["", *map(_text, found)], rows, title)
    return Panel("sets", title, body)


def _candidates(result: Mapping[str, Any]) -> Panel | None:
    """Returns what candidates have been decoded to, and what was refused."""
    found = result.get("decodes")
    if not found:
        return None
    rows = [
        ("decoded", pages.number(found["num"])),
        ("decode to an input", f"{100.0 * found['validity']:.1f} %"),
    ]
    rows += [
        (f"refused: {_text(why)}", pages.number(count))
        for why, count in found["refused"].items()
    ]
    return Panel("candidates", "Candidates", pages.table(rows))


def _pending(state: State, pictures: Pictures) -> Panel | None:
    if not state.pending:
        return None
    known = {one.query: one.num_results for one in state.entries}
    head = ["query", "round", "input"]
    if state.repeats > 1:
        head.insert(2, "results")
    rows = []
    for query in state.pending[:_MOST_PENDING]:
        row = [number_cell(query.number), number_cell(query.round + 1)]
        if state.repeats > 1:
            done = known.get(query.number, 0)
            row.append(Cell(f"{done} of {state.repeats}"))
        rows.append([*row, Cell(_shown(query.input, pictures))])
    body = rows_table(head, rows, "Pending queries")
    more = len(state.pending) - _MOST_PENDING
    if more > 0:
        body += f'<p class="note">And {more} more.</p>'
    return Panel("pending", "Pending queries", body, is_wide=True)


def _failures(state: State) -> Panel | None:
    reasons = state.reasons()
    if not reasons:
        return None
    rows = [
        [
            number_cell(len(queries)),
            Cell(escape(_text(reason))),
            Cell(
                ", ".join(map(str, queries[:20]))
                + ", ..." * (len(queries) > 20)
            ),
        ]
        for reason, queries in reasons.items()
    ]
    body = rows_table(
        ["count", "reason", "queries"], rows, "Failures by reason"
    )
    return Panel("failures", "Failures by reason", body, is_wide=True)


def _constraints(state: State) -> Panel | None:
    rows = []
    for name in state.constraints:
        values = [
            one.constraints[name]
            for one in state.entries
            if one.constraints and name in one.constraints
        ]
        rows.append(
            [
                Cell(escape(_text(name))),
                number_cell(sum(value <= 0.0 for value in values)),
                number_cell(sum(value > 0.0 for value in values)),
                number_cell(min(values)),
                number_cell(max(values)),
            ]
        )
    if not rows:
        return None
    head = ["constraint", "satisfied", "violated", "least", "largest"]
    body = rows_table(head, rows, "Constraints") + (
        '<p class="note">A constraint holds where its value is at most 0.</p>'
    )
    return Panel("constraints", "Constraints", body, is_wide=True)


def _time(state: State) -> Panel | None:
    total = sum(state.seconds.values())
    if total < 0.05:
        return None
    rows = "\n".join(
        f'<tr><th scope="row">{escape(stage)}</th><td class="bar">'
        f'<span style="width:{100.0 * seconds / total:.1f}%"></span></td>'
        f"<td>{pages.duration(seconds)}</td></tr>"
        for stage, seconds in state.seconds.items()
    )
    return Panel("time", "Time by stage", f"<table>{rows}</table>")


def _queries(state: State) -> Panel | None:
    """Returns a table of all queries, which the page can sort and filter."""
    if not state.entries:
        return None
    names = state.constraints
    head = ["query", "round", "score", *map(_text, names), "time / s", "input"]
    if state.repeats > 1:
        head.insert(3, "spread")
    rows = [_query_row(state, one) for one in state.entries]
    kinds = [_kind(one) for one in state.entries]
    options = "".join(
        f'<option value="{kind}">{label} ({kinds.count(kind)})</option>'
        for kind, label in (
            ("scored", "with a score"),
            ("failed", "failed"),
            ("infeasible", "violate a constraint"),
        )
        if kind in kinds
    )
    body = (
        '<div class="filter"><label>Find <input type="search" id="find" '
        'placeholder="text of an input or a failure"></label>\n'
        '<label>Show <select id="show"><option value="">all '
        f"({len(rows)})</option>{options}</select></label>\n"
        '<output id="count" aria-live="polite"></output></div>\n'
        + rows_table(head, rows, "All queries", kinds)
    )
    return Panel("queries", "All queries", body, is_wide=True)


def _kind(one: Entry) -> str:
    if not one.is_feasible:
        return "infeasible"
    return "failed" if one.score is None else "scored"


def _query_row(state: State, one: Entry) -> list[Cell]:
    shown = escape(shortened(input_text(one.input), _LONGEST_INPUT))
    content = f"<code>{shown}</code>"
    if one.failure is not None:
        why = escape(_text(one.failure))
        content = (
            f'<span class="why">{why}</span>'
            if one.input is None
            else f'{content}<span class="why">{why}</span>'
        )
    score = number_cell(one.score)
    if one.score is None:
        text = "failed" if one.is_feasible else "no score"
        score = Cell(f'<span class="mark">{text}</span>', "", True)
    elif one.is_amended:
        score = score._replace(html=f"{score.html} <small>amended</small>")
    row = [number_cell(one.query), number_cell(one.round + 1), score]
    if state.repeats > 1:
        row.append(number_cell(one.spread))
    known = one.constraints or {}
    row += [number_cell(known.get(name)) for name in state.constraints]
    return [*row, number_cell(one.seconds, 3), Cell(content)]


def _settings(state: State) -> Panel:
    rows = (
        (name, escape(shortened(_setting(value), _LONGEST_SETTING)))
        for name, value in state.header.items()
    )
    return Panel("settings", "Settings", pages.table(rows), is_wide=True)


def _setting(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return _text(text)
