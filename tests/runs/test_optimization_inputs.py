# SPDX-License-Identifier: Apache-2.0
"""Novelty of what an optimisation has found, and what its task says of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest

from tests.runs import optimizations
from tfvae.lso import ScoredData, Task
from tfvae.lso.ledger import Ledger
from tfvae.lso.records import Measurement, Proposal, Query
from tfvae.runs import (
    evaluations,
    optimization_figures,
    optimization_inputs,
    optimization_readout,
    optimization_state,
)

INPUTS = ["new", "old", None, "new", "worst", "older"]
SCORES = [5.0, 4.0, None, 3.0, None, 2.0]


def _data(seed):
    known = ["new"] if seed == 7 else ["old", "older", "oldest"]
    return ScoredData(np.zeros((len(known), 1)), np.arange(len(known)), known)


def _lengths(inputs):
    return {"mean length": np.mean([len(one) for one in inputs])}


def _least(inputs):
    return {"least": min(map(int, inputs))}


def _task(**kwargs):
    values = {"data": _data, "objective": len, "summarize": _lengths}
    values |= {"from_json": str}
    return Task("words", **values | kwargs)


class InputsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"
        optimizations.write(self.folder, SCORES, INPUTS)
        self.state = optimization_state.read(self.folder)
        for name in ("write_run_figures", "progress_chart"):
            self.enter_context(
                mock.patch.object(optimization_figures, name, return_value="")
            )

    def test_they_are_of_the_best_and_of_all_distinct_inputs(self):
        self.assertEqual(
            optimization_inputs.described(self.state, _task()),
            {
                "best": {"num": 3, "novelty": 1 / 3, "mean length": 11 / 3},
                "all": {"num": 4, "novelty": 1 / 2, "mean length": 4.0},
            },
        )

    def test_data_are_those_of_the_seed(self):
        header = {**self.state.header, "seed": 7}
        contents = self.state.contents._replace(header=header)
        state = dataclasses.replace(self.state, contents=contents)
        found = optimization_inputs.described(state, _task())
        self.assertEqual(found["all"]["novelty"], 3 / 4)

    def test_best_are_few(self):
        inputs = [f"{i}" for i in range(15)]
        folder = self.folder.with_name("long")
        optimizations.write(folder, [float(i) for i in range(15)], inputs)
        state = optimization_state.read(folder)
        found = optimization_inputs.described(
            state,
            _task(summarize=_least),
        )
        self.assertEqual(found["best"], {"num": 10, "novelty": 1, "least": 5})
        self.assertEqual(found["all"], {"num": 15, "novelty": 1, "least": 0})

    def test_without_inputs_of_the_data_novelty_is_unknown(self):
        data = ScoredData(np.zeros((2, 1)), np.zeros(2))
        task = _task(data=lambda seed: data, summarize=None)
        found = optimization_inputs.described(self.state, task)
        self.assertEqual(found, {"best": {"num": 3}, "all": {"num": 4}})

    def test_what_the_task_does_wrong_is_a_warning(self):
        task = _task(summarize=lambda inputs: 1 / 0)
        with self.assertLogs("tfvae", "WARNING") as logged:
            found = optimization_inputs.described(self.state, task)
        self.assertRegex(logged.output[0], "`summarize` .* ZeroDivisionError")
        self.assertEqual(found["all"], {"num": 4, "novelty": 1 / 2})

    def test_result_and_page_have_them_until_another_result_is_told(self):
        result = optimization_readout.write(self.folder, _task())
        self.assertEqual(result["inputs"]["all"]["mean length"], 4.0)
        page = (self.folder / "report.html").read_text()
        self.assertIn('id="sets"', page)
        self.assertIn("mean length", page)
        self.assertNotIn('id="candidates"', page)
        again = optimization_readout.write(self.folder)
        self.assertEqual(again["inputs"], result["inputs"])
        with Ledger(self.folder / "ledger.jsonl") as ledger:
            ledger.append(Proposal([Query(6, 0, [0.0], "newest", 0)]))
            ledger.append(Measurement(6, 1.0, None, None, 0.1, "now"))
        self.assertNotIn("inputs", optimization_readout.write(self.folder))
        self.assertNotIn('id="sets"', (self.folder / "report.html").read_text())

    def test_page_has_what_was_refused(self):
        decodes = {
            "num": 1200,
            "num_invalid": 12,
            "validity": 0.99,
            "refused": {"<too large>": 34},
        }
        (self.folder / "result.json").write_text(
            json.dumps({"decodes": decodes})
        )
        result = optimization_readout.write(self.folder)
        self.assertEqual(result["decodes"], decodes)
        page = (self.folder / "report.html").read_text()
        self.assertIn("99.0 %", page)
        self.assertIn("refused: &lt;too large&gt;</th><td>34</td>", page)

    def test_they_are_printed(self):
        result = optimization_readout.write(self.folder, _task())
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            evaluations._print_result(result, "runs/one")
        self.assertIn(
            "\nall 4 distinct inputs: novelty 0.5, mean length 4\n",
            printed.getvalue(),
        )


if __name__ == "__main__":
    absltest.main()
