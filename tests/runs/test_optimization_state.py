# SPDX-License-Identifier: Apache-2.0
"""State, tables and read-out of an optimisation, from its files alone."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import pathlib

import numpy as np
import pandas as pd
from absl.testing import absltest, parameterized

from tests.lso import tiny
from tests.runs import optimizations
from tfvae.lso import ledger, snapshots
from tfvae.lso.ledger import Ledger
from tfvae.lso.records import Amendment, Measurement, Proposal, Query
from tfvae.lso.tasks.base import LeftOut
from tfvae.runs import (
    optimization_figures,
    optimization_page,
    optimization_readout,
    optimization_results,
    optimization_state,
    optimization_status,
    optimization_tables,
)

_FORMULAS = ["=1+1", "+1", "-1", "@x", "'quoted", "\tx", "\rx", "plain", "NA"]


class Case(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"

    def write(self, scores, inputs=None, **kwargs):
        """Writes a run; returns its state."""
        if inputs is None:
            inputs = [f"input {i}" for i in range(len(scores))]
        optimizations.write(self.folder, scores, inputs, **kwargs)
        return optimization_state.read(self.folder)

    def tell(self, measurements, inputs):
        """Writes queries and their results, and returns the state."""
        with Ledger(self.folder / "ledger.jsonl") as opened:
            for one in inputs:
                number = opened.records.next_number
                query = Query(number, 0, [0.0], one, 0)
                opened.append(Proposal([query]))
            for one in measurements:
                opened.append(one)
        return optimization_state.read(self.folder)

    def table(self, name="evaluations.csv"):
        optimization_tables.write(optimization_state.read(self.folder))
        with (self.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))


class StateTest(Case):
    @parameterized.parameters((9, ["1"]), (10, ["1", "10"]), (49, ["1", "10"]))
    def test_there_is_a_top_k_of_k_distinct_inputs_only(self, count, expected):
        scores = [float(i) for i in range(count)]
        inputs = [f"{i}" for i in range(count)]
        state = self.write([*scores, 0.0, None], [*inputs, "0", "failed"])
        self.assertEqual([*state.top()], expected)
        self.assertEqual(state.top()["1"], count - 1.0)

    def test_smaller_scores_are_better_where_they_are_minimised(self):
        state = self.write([3.0, 1.0, 2.0], maximise=False)
        self.assertEqual([one.value for one in state.ranked], [1, 2, 3])

    def test_infeasible_queries_are_neither_best_nor_failures(self):
        self.write([], budget=4)
        state = self.tell(
            [
                Measurement(0, 9.0, None, {"tox": 0.1}),
                Measurement(1, 1.0, None, {"tox": -0.1}),
                Measurement(2, None, "too hot", {"tox": 2.0}),
                Measurement(3, None, "broken"),
            ],
            ["a", "b", "c", "d"],
        )
        (best,) = state.ranked
        self.assertEqual((best.value, best.entry.input), (1.0, "b"))
        self.assertEqual(state.reasons(), {"broken": [3]})
        result = optimization_state.summary(state)
        self.assertEqual(result["num_infeasible"], 2)
        self.assertEqual(result["num_failures"], 1)
        text = optimization_status.text(self.folder)
        self.assertIn("4 distinct inputs, 0 near-repeats, 2 infeasible", text)

    def test_noisy_scores_are_averaged_over_all_queries_of_an_input(self):
        self.write([], budget=9, repeats=2, is_noisy=True)
        state = self.tell(
            [
                Measurement(0, 5.0),
                Measurement(0, 1.0),
                Measurement(1, 5.0),
                Measurement(2, 3.0),
            ],
            ["a", "b", "b"],
        )
        first, second = state.ranked
        self.assertEqual((first.entry.input, first.num_scores), ("b", 2))
        self.assertEqual((first.value, first.std), (4.0, math.sqrt(2.0)))
        self.assertEqual((second.value, second.num_scores), (3.0, 2))
        self.assertEqual(state.ranked_by, "mean of its scores")
        self.assertEqual(state.num_done, 1)

    def test_noisy_inputs_are_ranked_by_the_surrogate_if_it_is_of_now(self):
        state = self.write([5.0, 4.0], is_noisy=True)
        predicted = {0: (1.0, 0.5), 1: (3.0, 0.25)}
        optimization_state.write_predicted(self.folder, predicted)
        state = optimization_state.read(self.folder)
        self.assertEqual(state.ranked_by, "surrogate's mean")
        best = state.ranked[0]
        self.assertEqual((best.value, best.std), (3.0, 0.25))
        self.assertIn(
            "by surrogate's mean", optimization_status.text(state.path)
        )
        state = self.tell([Measurement(2, 1.0)], ["new"])
        self.assertEqual(state.ranked_by, "mean of its scores")
        self.assertEqual(state.ranked[0].value, 5.0)

    @parameterized.parameters(
        ([0, 10, 20, 30], 10.0),
        ([0, 10, 86400, 86410], 10.0),  # A night between two of them.
        ([5], None),
        ([5, 5], None),
    )
    def test_pace_is_that_of_the_last_queries(self, seconds, expected):
        self.write([], budget=10)
        start = np.datetime64("2026-01-01T00:00:00")
        state = self.tell(
            [
                Measurement(i, 1.0, time=f"{start + np.timedelta64(at, 's')}Z")
                for i, at in enumerate(seconds)
            ],
            [f"{i}" for i in range(len(seconds))],
        )
        self.assertEqual(state.seconds_a_query(), expected)
        if expected is not None:
            left = (10 - len(seconds)) * expected
            self.assertEqual(state.seconds_left(), left)

    @parameterized.product(
        name=["result.json", "rounds.csv", "predicted.json"],
        content=[
            b"",
            b"\x80\xff\0",
            b"[",
            b"[1]",
            b"round,loss\nx,1\n",
            b"nul\0",
        ],
    )
    def test_damaged_file_is_ignored_with_a_warning(self, name, content):
        self.write([1.0, 2.0], is_noisy=True)
        (self.folder / name).write_bytes(content)
        is_empty_table = name == "rounds.csv" and not content
        context = (
            self.assertNoLogs("tfvae")
            if is_empty_table
            else self.assertLogs("tfvae", "WARNING")
        )
        with context:
            state = optimization_state.read(self.folder)
            run = optimization_results.read(self.folder)
        self.assertEqual(run.top_k(1).tolist(), [1.0, 2.0])
        self.assertEqual(sum(state.seconds.values()), 0.0)

    def test_near_repeats_are_counted(self):
        for more, expected in (({}, 1), ({"min_distance": 0.5}, 2)):
            path = self.folder / str(expected)
            optimizations.write(path, [], [], **more)
            with Ledger(path / "ledger.jsonl") as opened:
                for number, distance in enumerate((None, 0.01, 0.2, 0.9)):
                    query = Query(number, 0, [0.0], "a", 0, distance=distance)
                    opened.append(Proposal([query]))
                    opened.append(Measurement(number, 1.0))
            result = optimization_state.summary(optimization_state.read(path))
            self.assertEqual(result["num_near_repeats"], expected)
            self.assertEqual(result["num_distinct"], 1)

    def test_equal_numbers_are_one_input(self):
        inputs = [[0.0, 1], [-0.0, 1.0], [0.5, 1]]
        self.write([1.0, 2.0, 3.0], inputs)
        result = optimization_state.summary(
            optimization_state.read(self.folder)
        )
        self.assertEqual(result["num_distinct"], 2)
        self.assertEqual(result["top"], {"1": 3.0})

    def test_run_of_an_earlier_version_is_read(self):
        self.write([1.0])
        path = self.folder / "ledger.jsonl"
        header = path.read_bytes().splitlines(keepends=True)[0]
        entries = [
            {
                "round": 0,
                "query": number,
                "latent": [0.5],
                "input": f"{number}",
                "score": score,
                "failure": None if score else "broken",
                "seconds": 1.5,
                "seed": 3,
                "time": "2025-01-01T00:00:00+00:00",
            }
            for number, score in enumerate((2.0, None, 4.0))
        ]
        lines = [ledger._line(one) for one in entries]
        path.write_bytes(header + b"".join(lines))
        result = optimization_readout.write(self.folder)
        self.assertEqual(result["best"]["input"], "2")
        self.assertEqual(result["num_failures"], 1)
        text = optimization_status.text(self.folder)
        self.assertIn("3 of 1 queries done", text)

    def test_damaged_snapshots_begin_anew_with_a_warning(self):
        self.write([1.0])
        path = self.folder / snapshots.SAMPLES
        np.savez(path, other=np.zeros(3))
        with self.assertLogs("tfvae", "WARNING"):
            rounds, scores = snapshots._read(path, "rounds", "scores")
        self.assertEqual((rounds.size, scores.size), (0, 0))

    def test_damaged_weights_are_written_again(self):
        self.write([1.0])
        scores = np.arange(3.0)
        path = self.folder / snapshots.WEIGHTS
        path.write_bytes(b"PK")
        with self.assertLogs("tfvae", "WARNING"):
            snapshots.save_weights(self.folder, scores, scores)
        snapshots.save_weights(self.folder, scores + 1.0, scores)
        found = optimization_results.arrays(path)
        self.assertEqual(found["scores"].tolist(), [0.0, 1.0, 2.0])

    def test_damaged_arrays_are_ignored_with_a_warning(self):
        self.write([1.0, 2.0])
        path = self.folder / "weights.npz"
        scores = np.arange(2000.0)
        np.savez_compressed(path, scores=scores, weights=scores)
        whole = path.read_bytes()
        for content in (b"", b"\x80\xff", whole[:-100], whole[100:], b"PK\3\4"):
            path.write_bytes(content)
            with self.assertLogs("tfvae", "WARNING"):
                self.assertIsNone(optimization_results.arrays(path))
        broken = bytearray(whole)
        broken[200] ^= 255
        path.write_bytes(broken)
        with self.assertLogs("tfvae", "WARNING"):
            self.assertIsNone(optimization_results.arrays(path))


class StatusTest(Case):
    def test_lines_fit_and_control_no_terminal(self):
        self.write(
            [1.0, None], ["x" * 300, "\x1b[31mred\n"], pending=12, budget=20
        )
        for width in (40, 80, 200):
            text = optimization_status.text(self.folder, width)
            self.assertLessEqual(max(map(len, text.splitlines())), width)
            self.assertNotIn("\x1b", text)
        self.assertIn("2 of 20 queries done, 12 pending, 1 failed", text)
        self.assertIn("1 x no score (query 1)", text)
        self.assertIn("and 2 more", text)

    def test_folder_before_its_first_query_has_a_status(self):
        (self.folder / "model").mkdir(parents=True)
        self.assertIn("no query yet", optimization_status.text(self.folder))
        (self.folder / "model" / "metrics.csv").write_text("epoch\n1\n2\n")
        self.assertIn("2 epochs", optimization_status.text(self.folder))
        (self.folder / "ledger.jsonl").touch()
        self.assertIn("no query yet", optimization_status.text(self.folder))

    @parameterized.parameters((0, 2, True), (0, 0, False), (1, 2, False))
    def test_pending_queries_are_not_evaluated_if_none_was(
        self, num_done, pending, asks
    ):
        folder = self.folder / f"{num_done} {pending}"
        scores = [1.0] * num_done
        optimizations.write(folder, scores, scores, pending=pending, budget=9)
        command = optimization_status.command(optimization_state.read(folder))
        self.assertEqual(command.endswith(" --ask"), asks)

    @parameterized.parameters((3, 4, ""), (4, 4, "--budget=8"), (5, 3, "=10"))
    def test_spent_budget_is_doubled(self, num_done, budget, expected):
        scores = [1.0] * num_done
        self.write(scores, scores, budget=budget)
        *_, last = optimization_status.text(self.folder, 400).splitlines()
        self.assertEqual("--budget" in last, bool(expected))
        self.assertTrue(last.endswith(expected), last)

    def test_run_without_results_has_a_status(self):
        self.write([], pending=1, budget=5)
        text = optimization_status.text(self.folder)
        self.assertIn("0 of 5 queries done, 1 pending", text)
        self.assertIn("no query has a score yet", text)


class TablesTest(Case):
    def test_rows_are_the_queries(self):
        self.write([2.0, None, 1.0, 3.0], ["a", None, "b", "c"])
        rows = self.table()
        self.assertEqual(
            [row["score"] for row in rows], ["2.0", "", "1.0", "3.0"]
        )
        self.assertEqual([row["failure"] for row in rows][1], "no score")
        self.assertEqual(
            [row["is_best_so_far"] for row in rows],
            ["True", "False", "False", "True"],
        )
        best = self.table("best.csv")
        self.assertEqual([row["input"] for row in best], ["c", "a", "b"])
        self.assertEqual([row["rank"] for row in best], ["1", "2", "3"])

    def test_texts_are_no_formulas_and_pandas_reads_them_back(self):
        self.write([1.0] * len(_FORMULAS), _FORMULAS)
        cells = [row["input"] for row in self.table()]
        for cell in cells:
            self.assertNotIn(cell[0], "=+-@\t\r")
        table = pd.read_csv(
            self.folder / "evaluations.csv",
            keep_default_na=False,
            na_values=[""],
            converters={"input": optimization_tables.unescaped},
        )
        self.assertEqual(table["input"].tolist(), _FORMULAS)
        self.assertEqual(table["score"].dtype, np.float64)
        self.assertEqual(table["is_feasible"].dtype, bool)

    def test_failures_are_no_formulas(self):
        self.write([])
        self.tell([Measurement(0, None, "=HYPERLINK()")], ["a"])
        self.assertEqual(self.table()[0]["failure"], "'=HYPERLINK()")

    @parameterized.parameters(
        ([[1.0, -2.0], None, [3, 4.5]], {"x0": "1.0", "x1": "-2.0"}),
        ([[1.0] * 65], {"input": json.dumps([1.0] * 65)}),
        ([[1.0], [1.0, 2.0]], {"input": "[1.0]"}),
        ([{"a": 1}, "text"], {"input": '{"a": 1}'}),
        ([True], {"input": "true"}),
        (["lone \ud800"], {"input": "lone \\ud800"}),
        (["two\nlines,\"'"], {"input": "two\nlines,\"'"}),
    )
    def test_inputs_have_columns_of_their_kind(self, inputs, cells):
        self.write([None if one is None else 1.0 for one in inputs], inputs)
        row = self.table()[0]
        columns = [name for name in row if name[0] == "x" or name == "input"]
        self.assertEqual({name: row[name] for name in columns}, cells)

    def test_lines_that_became_no_data_are_listed(self):
        self.write([1.0])
        lines = [LeftOut(3, "=1+1", "no molecule"), LeftOut(9, "CC.O", "salt")]
        optimization_tables.write_left_out(self.folder, lines)
        self.assertEqual(
            self.table("left_out.csv"),
            [
                {"line": "3", "text": "'=1+1", "reason": "no molecule"},
                {"line": "9", "text": "CC.O", "reason": "salt"},
            ],
        )

    def test_constraints_and_repeats_have_columns(self):
        self.write([], repeats=2)
        self.tell(
            [
                Measurement(0, 1.0, None, {"tox": -1.0}),
                Measurement(0, 3.0, None, {"tox": 2.0}),
            ],
            ["a"],
        )
        (row,) = self.table()
        self.assertEqual(
            (row["score"], row["num_results"], row["constraint:tox"]),
            ("2.0", "2", "0.5"),
        )
        self.assertEqual(float(row["spread"]), math.sqrt(2.0))
        self.assertEqual(row["is_feasible"], "False")


class ReadOutTest(Case):
    def test_everything_is_written_and_agrees(self):
        self.write([1.0, None, 3.0], pending=1, budget=5)
        result = optimization_readout.write(self.folder)
        written = (self.folder / "result.json").read_text()
        self.assertEqual(json.loads(written), json.loads(json.dumps(result)))
        self.assertEqual(result["top"], {"1": 3.0})
        self.assertEqual(
            (result["num_pending"], result["num_failures"]), (1, 1)
        )
        for name in ("evaluations.csv", "best.csv", "figures/top_k.png"):
            self.assertTrue((self.folder / name).stat().st_size)
        self.assertIn("input 2", (self.folder / "report.html").read_text())

    def test_page_of_a_relative_folder_has_a_command_for_any(self):
        self.write([], pending=1, budget=5)
        with contextlib.chdir(self.folder.parent):
            optimization_readout.write(self.folder.name)
        page = (self.folder / "report.html").read_text()
        self.assertIn(f"--run_dir={self.folder}", page)

    def test_run_without_results_has_a_read_out(self):
        self.write([], pending=1)
        result = optimization_readout.write(self.folder)
        self.assertIsNone(result["best"])
        self.assertIn("pending 0", (self.folder / "report.html").read_text())

    def test_pictures_are_of_the_best_and_the_pending_inputs(self):
        self.write([1.0], [[0.5]])
        state = self.tell([], [[0.25]])
        made = []

        def picture(one):
            made.append(one)
            return np.full((2, 2), one[0])

        task = tiny.task(from_json=np.array, to_picture=picture)
        optimization_results.update_pictures(state, task)
        found = optimization_results.pictures(self.folder)
        self.assertEqual({*found}, {"[0.5]", "[0.25]"})
        self.assertEqual(found["[0.25]"].tolist(), [[0.25] * 2] * 2)
        optimization_results.update_pictures(state, task)
        self.assertLen(made, 2)

    def test_best_inputs_that_are_drawn_have_scores(self):
        self.write([1.0, None, 3.0], [[0.5], [0.1], [0.2]])
        task = tiny.task(
            from_json=np.array, to_picture=lambda one: np.full((2, 2), one[0])
        )
        optimization_readout.write(self.folder, task)
        found = optimization_results.pictures(self.folder)
        self.assertEqual({*found}, {"[0.2]", "[0.5]"})
        path = self.folder / "figures" / "best.png"
        drawn = path.read_bytes()
        with Ledger(self.folder / "ledger.jsonl") as opened:
            opened.append(Amendment(2, 0.5))
        optimization_readout.write(self.folder)
        self.assertNotEqual(path.read_bytes(), drawn)

    def test_drawings_are_shown_with_texts_and_scores(self):
        self.write([1.0, 3.0], ['C"<C', "OC"])
        task = tiny.task(
            from_json=str, to_picture=lambda one: np.full((9, 8, 3), 0.5)
        )
        optimization_readout.write(self.folder, task)
        text = (self.folder / "report.html").read_text()
        for alt, score in (("OC", 3), ("C&quot;&lt;C", 1)):
            self.assertRegex(
                text,
                rf'<img class="drawing" src="data:image/png[^>]* width="8" '
                rf'height="9" alt="input {alt}, score {score}"> '
                rf"<code>{alt}</code>",
            )
        self.assertTrue((self.folder / "figures" / "best.png").exists())

    def test_picture_that_fails_is_a_warning(self):
        self.write([1.0], [[0.5]])
        task = tiny.task(from_json=np.array, to_picture=lambda one: 1 / 0)
        with self.assertLogs("tfvae", "WARNING") as logged:
            optimization_readout.write(self.folder, task)
        self.assertIn("ZeroDivisionError", logged.output[0])

    def test_read_outs_take_a_twentieth_of_the_time(self):
        self.write([1.0])
        now, written = [0.0], []
        read_out = optimization_readout.ReadOut(
            self.folder, tiny.task(), None, clock=lambda: now[0]
        )

        def write():
            written.append(now[0])
            now[0] += 1.0  # It takes a second.
            read_out._took, read_out._written = 1.0, now[0]

        read_out.write = write
        while now[0] < 100.0:
            read_out.refresh()
            now[0] += 0.5
        self.assertLen(written, 5)
        self.assertEqual(written[0], 0.0)


class ProgressTest(Case):
    def test_curves_begin_at_k_distinct_inputs_and_failures_have_no_score(self):
        scores = [None, 5.0, 5.0, None, *(float(i) for i in range(9))]
        inputs = [None, "a", "a", "x", *(f"{i}" for i in range(9))]
        state = self.write(scores, inputs)
        drawn = optimization_figures.progress(state)
        self.assertEqual([*drawn.curves], ["top-1", "top-10"])
        nan = math.nan
        np.testing.assert_array_equal(
            drawn.curves["top-1"], [nan, 5, 5, 5, *[5.0] * 6, 6, 7, 8]
        )
        np.testing.assert_array_equal(
            drawn.curves["top-10"], [*[nan] * 12, 0.0]
        )
        self.assertEqual(np.isnan(drawn.scores).sum(), 2)

    def test_infeasible_scores_do_not_count(self):
        self.write([])
        state = self.tell(
            [
                Measurement(0, 9.0, None, {"tox": 1.0}),
                Measurement(1, 1.0, None, {"tox": -1.0}),
            ],
            ["a", "b"],
        )
        drawn = optimization_figures.progress(state)
        np.testing.assert_array_equal(drawn.curves["top-1"], [math.nan, 1.0])
        self.assertEqual(drawn.is_feasible.tolist(), [False, True])

    def test_run_without_any_score_is_drawn(self):
        state = self.write([None, None])
        path = self.folder / "a.png"
        optimization_figures.draw_progress(state, path)
        self.assertGreater(path.stat().st_size, 0)


class PageTest(Case):
    def test_what_people_wrote_is_escaped(self):
        nasty = "<b>&\"'</b><script>alert(1)</script>"
        self.write([1.0, None], [nasty, nasty], pending=1, task=nasty)
        state = self.tell(
            [
                Measurement(3, None, nasty, None),
                Measurement(4, 1.0, None, {nasty: 1.0}),
            ],
            [nasty, "b"],
        )
        text = optimization_page.page(state)
        self.assertNotIn("<b>", text)
        self.assertNotIn("alert(1)</script>", text)
        self.assertIn("&lt;b&gt;&amp;&quot;", text)

    def test_page_has_all_queries_and_what_there_is(self):
        self.write([1.0, None, 2.0], pending=2, budget=9)
        text = optimization_page.page(optimization_state.read(self.folder))
        self.assertEqual(text.count("<tr data-kind="), 3)
        self.assertEqual(text.count('<tr data-kind="failed">'), 1)
        for name in ("best-one", "progress", "best", "pending", "failures"):
            self.assertIn(f'<section class="panel wide" id="{name}"', text)
        self.assertNotIn('id="constraints"', text)
        self.assertIn(f"tfvae optimize --run_dir={self.folder}", text)


if __name__ == "__main__":
    absltest.main()
