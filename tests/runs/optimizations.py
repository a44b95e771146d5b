# SPDX-License-Identifier: Apache-2.0
"""Folders of optimisations that nobody has run, for tests of reports."""

from __future__ import annotations

import base64
import contextlib
import json
from unittest import mock

import numpy as np

from tfvae.lso.ledger import Ledger
from tfvae.lso.records import Measurement, Proposal, Query, Round
from tfvae.runs import optimization_figures
from tfvae.sweeps import optimization_report


def text_input(number):
    """Returns an input like an expression."""
    return None if number is None else f"sin(x*{number})+1/3"


def square(area, side=64):
    """Returns the text that stands for an image with so many pixels of 1."""
    pixels = np.arange(side * side) < area
    return base64.b64encode(np.packbits(pixels).tobytes()).decode()


def write(
    folder,
    scores,
    inputs,
    *,
    task="expressions",
    score_label=None,
    setting="k_low_r_low",
    seed=0,
    maximise=True,
    budget=None,
    optimum=None,
    best_in_data=None,
    invalid_score=None,
    finished=True,
    pending=0,
    **more,
):
    """Writes a ledger and a result.

    Args:
      folder: Of the optimisation; it is made.
      scores: Of the queries, None for a failure.
      inputs: Of the queries, None for an invalid decode.
      task: See `Task`.
      score_label: See `Task`; None for a folder of a former version.
      setting: Name of the setting.
      seed: Of the run.
      maximise: See `Task`.
      budget: See `Plan`; the number of queries by default.
      optimum: See `Task`.
      best_in_data: The best score of the data.
      invalid_score: See `Task`.
      finished: Whether there is a result.
      pending: Number of further queries, without results.
      **more: Further keys of the header.
    """
    folder.mkdir(parents=True)
    shared = {
        "task": task,
        "maximise": maximise,
        "budget": budget or len(scores),
        "best_in_data": best_in_data,
    }
    header = {**shared, "optimum": optimum, "invalid_score": invalid_score}
    header |= more
    with Ledger(folder / "ledger.jsonl", header) as ledger:
        ledger.append(Round(0))
        for query, (score, one) in enumerate(zip(scores, inputs, strict=True)):
            failure = "no score" if score is None else None
            ledger.append(Proposal([Query(query, 0, [0.0], one, seed)]))
            ledger.append(Measurement(query, score, failure, None, 0.1, "now"))
        for query in range(len(scores), len(scores) + pending):
            one = Query(query, 0, [0.0], f"pending {query}", seed)
            ledger.append(Proposal([one]))
    if not finished:
        return
    seconds = {
        "retrain": 20.0,
        "encode": 1.0,
        "fit": 10.0,
        "acquisition": 5.0,
        "decode": 0.5,
        "evaluate": 0.25,
        "total": 60.0,
    }
    result = {**shared, "setting": setting, "seed": seed, "seconds": seconds}
    if score_label is not None:
        result["score_label"] = score_label
    (folder / "result.json").write_text(json.dumps(result))


def write_arrays(folder, scores, weights, samples, *, with_manifold=False):
    """Writes the optional files.

    Args:
      folder: Of the optimisation.
      scores: Of the data.
      weights: Of the data.
      samples: `[rounds, n]` scores of samples.
      with_manifold: Whether to write squares that grow.
    """
    np.savez(folder / "weights.npz", scores=scores, weights=weights)
    np.savez(
        folder / "samples.npz", scores=samples, rounds=np.arange(len(samples))
    )
    if not with_manifold:
        return
    side, pixels, rounds = 9, 32, 3
    images = np.zeros((rounds, side, side, pixels, pixels), np.uint8)
    for now in range(rounds):
        for i in range(side):
            for j in range(side):
                size = 2 + (i * (now + 1))
                top = 3 * j
                images[now, i, j, top : top + size, 8 : 8 + size] = 1
    np.savez(
        folder / "manifold.npz",
        images=images,
        rounds=np.array([0, 49, 99]),
        scores=images.sum((-1, -2)).astype(np.float64),
        bound=4.0,
    )


def write_study(folder, cells):
    """Writes what says which cells a study has.

    Args:
      folder: Of the study.
      cells: Levels and repetition of each, by name.
    """
    content = {
        "cells": [
            {"name": name, "levels": levels, "repetition": repetition}
            for name, (levels, repetition) in cells.items()
        ],
    }
    (folder / "study.json").write_text(json.dumps(content))


class Study:
    """Writes a study of optimisations, and its report without figures."""

    def __init__(self, folder):
        """Starts with no cell in a folder."""
        self.folder = folder
        self.cells = {}

    def add(
        self,
        setting,
        ends,
        task="expressions",
        *,
        inputs=None,
        score_label="score",
        **levels,
    ):
        """Adds a cell for each end; a run rises to it in three queries."""
        for seed, end in enumerate(ends):
            name = "-".join([setting, *levels.values(), str(seed)])
            write(
                self.folder / "cells" / name,
                [end - 2.0, None, end],
                inputs or [f"{setting}{seed}", None, "x"],
                task=task,
                score_label=score_label,
                setting=setting,
                seed=seed,
                best_in_data=-5.0,
                invalid_score=-7.0,
            )
            self.cells[name] = ({"setting": setting, **levels}, seed)

    def report(self, write_report, *, draws=False):
        """Returns the text of a report, one space beside each cell."""
        write_study(self.folder, self.cells)
        with contextlib.ExitStack() as stack:
            for name in () if draws else dir(optimization_figures):
                if name.startswith("draw_"):
                    stack.enter_context(
                        mock.patch.object(
                            optimization_figures, name, return_value=False
                        )
                    )
            text = write_report(self.folder).read_text()
        return "\n".join(" ".join(one.split()) for one in text.splitlines())

    def comparison(self):
        """Returns what is compared, of a study of a single task."""
        write_study(self.folder, self.cells)
        cells = [
            {"name": name, "levels": levels}
            for name, (levels, _) in self.cells.items()
        ]
        (one,) = optimization_report.comparisons(self.folder, cells)
        return one
