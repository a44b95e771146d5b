# SPDX-License-Identifier: Apache-2.0
"""What command lines want of an optimisation: settings that hold, answers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import types

import tensorflow as tf
from absl.testing import parameterized

from tests.lso import tiny
from tests.runs import test_optimize_inputs as inputs
from tfvae import lso
from tfvae.lso.ledger import Contents, read_ledger
from tfvae.lso.records import Entry
from tfvae.lso.running import Failure
from tfvae.lso.stopping import Stopping
from tfvae.runs import (
    added_measurements,
    evaluations,
    optimize,
    told_results,
)
from tfvae.runs.errors import StoppedError


class SettingsTest(inputs.Case):
    """A folder's settings hold until others are given."""

    def setUp(self):
        super().setUp()
        self.path = self.write(inputs.TASK)
        self.gin_file = self.write(
            "optimize.task = @own_task()\n"
            "optimize.strategy = @PriorSampling()\n"
            "optimize.budget = 100\n"
            "optimize.num_best = 10\n"
            "experiment.data = @scored_data()\n"
            "scored_data.task = @own_task()\n"
            "experiment.model = @vae\nvae.encoder = @learnable\n"
            "vae.network = @fully_connected_encoder\n"
            "fully_connected_encoder.num_observed = 4\n"
            "vae.prior = @StandardNormalPrior\nvae.num_latents = 2\n"
            "experiment.decoder = @FullyConnectedDecoder\n"
            "fit.epochs = 1\n",
            "lab.gin",
        )

    def given(self, files, *params):
        """Loads and runs as a command line does; returns its stderr."""
        files = [str(self.gin_file)] if files else []
        optimize.load(files, params, run_dir=self.run_dir)
        aside = io.StringIO()
        with contextlib.redirect_stderr(aside):
            self.optimize(
                requests=optimize.Requests(io.StringIO()),
                strategy=lso.PriorSampling(),
            )
        return aside.getvalue()

    def header(self):
        return read_ledger(self.run_dir / "ledger.jsonl").header

    def test_settings_hold_until_others_are_given(self):
        task = f"own_task.path = {str(self.path)!r}"
        said = self.given(
            True, task, "optimize.budget = 3", "optimize.num_best = 7"
        )
        self.assertEqual(said, "")
        for files, params, budget in (
            (False, [], 3),
            (True, [task], 3),
            (False, [task, "optimize.budget = 5"], 5),
            (True, [task], 5),
            (False, ["optimize.budget = 4"], 4),
        ):
            before = self.header()["budget"]
            said = self.given(files, *params)
            self.assertEqual(self.header()["budget"], budget)
            self.assertEqual(self.header()["num_best"], 7)
            change = f"budget {before} -> {budget}\n"
            self.assertEqual(said, change if before != budget else "")

    def test_distance_between_queries_can_be_changed_and_holds(self):
        task = f"own_task.path = {str(self.path)!r}"
        least = "optimize.min_distance"
        self.given(True, task, "optimize.budget = 3", f"{least} = 0.1")
        said = self.given(False, f"{least} = 0.01")
        self.assertEqual(said, "min_distance 0.1 -> 0.01\n")
        for files in (False, True):
            self.assertEqual(self.given(files), "")
            self.assertEqual(self.header()["min_distance"], 0.01)

    def test_what_contradicts_the_folder_is_refused(self):
        task = f"own_task.path = {str(self.path)!r}"
        self.given(True, task, "optimize.budget = 3")
        for files in (True, False):
            with self.assertRaisesRegex(
                ValueError,
                "optimize.num_best was 10, is now 11. Only `optimize.budget` "
                "may be changed",
            ):
                self.given(files, task, "optimize.num_best = 11")

    def test_budget_of_the_ledger_is_the_one_that_holds(self):
        task = f"own_task.path = {str(self.path)!r}"
        self.given(True, task, "optimize.budget = 3")
        # As if killed between the ledger and the configuration.
        old = (self.run_dir / "config.gin").read_text()
        self.given(False, "optimize.budget = 6")
        (self.run_dir / "config.gin").write_text(old)
        self.given(False)
        self.assertEqual(self.header()["budget"], 6)


class AnswersTest(inputs.Case):
    def answers(self, num_new=None, **kwargs):
        out = io.StringIO()
        self.optimize(requests=optimize.Requests(out, num_new), **kwargs)
        return [json.loads(line) for line in out.getvalue().splitlines()]

    def test_pending_and_new_queries_are_printed(self):
        first = self.answers(budget=3, num_new=2)
        self.assertEqual([one["query"] for one in first], [0, 1])
        self.assertEqual({*first[0]}, {"query", "input", "round"})
        aside = io.StringIO()
        with contextlib.redirect_stderr(aside):
            new = self.answers(budget=3, num_new=2)
        self.assertEqual([one["query"] for one in new], [2])
        self.assertEqual(
            aside.getvalue(), "1 queries: the budget of 3 is reached\n"
        )
        self.assertEqual(self.answers(budget=3), [*first, *new])

    def test_query_is_printed_once_for_each_missing_evaluation(self):
        lines = self.answers(budget=1, repeats=3)
        self.assertEqual([one["repeat"] for one in lines], [1, 2, 3])
        self.assertEqual({one["repeats"] for one in lines}, {3})
        said = told_results.record(
            self.run_dir, told_results.Requests(told=["0=1", "0=3"]).parsed()
        )
        self.assertRegex(said[0], r"^query 0: 1 \(1 of 3 results, mean 1\)")
        self.assertRegex(said[1], r"^query 0: 3 \(2 of 3 results, mean 2\)")
        (left,) = self.answers(budget=1, repeats=3)
        self.assertEqual((left["query"], left["repeat"]), (0, 3))


class AddedTest(inputs.Case, parameterized.TestCase):
    def read(self, text, known=(), data_inputs=None):
        path = self.write(text, "measured.csv")
        task = tiny.task()
        data = task.data(0)
        data = lso.ScoredData(data.points, data.scores, data_inputs)
        task = lso.reading.resolved(task, tiny.data(0))
        return added_measurements.read(path, task, data, known)

    def test_points_inputs_and_constraints_are_read(self):
        head = "score,x0,x1,x2,x3,constraint:tox\n"
        first, second = self.read(f"{head}1.5,1,2,3,4,-1\n2,0,0,0,0,\n")
        self.assertEqual(first.point, [1.0, 2.0, 3.0, 4.0])
        self.assertEqual(first.constraints, {"tox": -1.0})
        self.assertEqual(first.source, "line 2 of measured.csv")
        self.assertIsNone(second.constraints)
        (one,) = self.read('score,input\n1,"[1, 2, 3, 4]"\n')
        self.assertEqual((one.input, one.point), ([1, 2, 3, 4], None))
        known = [[0.0] * 4]
        (one,) = self.read(f"{head}1.5,1,2,3,4,-1\n", known)
        self.assertEqual((one.input, one.point), ([1.0, 2.0, 3.0, 4.0], None))

    def test_rows_of_evaluations_that_failed_are_left_out(self):
        self.optimize(task=tiny.task(objective=tiny.objective), budget=2)
        table = (self.run_dir / "evaluations.csv").read_text()
        self.assertIn("x3", table)
        known = [one.input for one in self.entries()]
        both = self.read(table, known)
        self.assertEqual([one.input for one in both], known)
        failed = table.replace("True,True", "False,False")
        lines = failed.splitlines()
        cells = lines[1].split(",")
        cells[2], cells[5] = "", "broken"
        lines[1] = ",".join(cells)
        self.assertLen(self.read("\n".join(lines), known), 1)

    def entries(self):
        return read_ledger(self.run_dir / "ledger.jsonl").entries

    def test_rows_that_the_run_has_are_not_new(self):
        head = "score,x0,x1,x2,x3,constraint:tox\n"
        first = self.read(f"{head}1,1,1,1,1,\n2,2,2,2,2,-1\n2,2,2,2,2,-1\n")
        query = Entry(
            0, 7, [0.0], [9.0] * 4, 2.0, None, 1.0, 0, "", scores=(1.0, 3.0)
        )
        known = Contents({}, [query], [], first[:2])
        grown = self.read(
            f"{head}2,2,2,2,2,-1\n5,1,1,1,1,\n2,2,2,2,2,-2\n1,1,1,1,1,\n"
            f"2,2,2,2,2,-1\n"
        )
        task = lso.reading.resolved(tiny.task(), tiny.data(0))
        new = added_measurements.new(grown, known, task)
        self.assertEqual(
            [one.source for one in new],
            [f"line {i} of measured.csv" for i in (3, 4, 6)],
        )
        vector = [[0.0] * 4]
        for score, count in ((1, 0), (2, 0), (3, 0), (4, 1)):
            again = self.read(f"{head}{score},9,9,9,9,\n", vector)
            found = added_measurements.new(again, known, task)
            self.assertLen(found, count)
        integers = self.read('score,input\n2,"[9, 9, 9, 9]"\n', vector)
        self.assertEqual(added_measurements.new(integers, known, task), [])
        # As a ledger has it whose inputs were not in the task's own form.
        raw = integers[0]._replace(input=[0.1, 9, 9, 9])
        known = Contents({}, [], [], [raw])
        again = self.read('score,input\n2,"[0.1, 9, 9, 9]"\n', vector)
        self.assertEqual(added_measurements.new(again, known, task), [])

    def test_measurements_are_added_once_and_nothing_is_evaluated(self):
        path = self.write("score,x0,x1,x2,x3\n9.5,1,1,1,1\n", "a.csv")
        requests = optimize.Requests(evaluates=False, added=[str(path)])
        asked = optimize.Requests(io.StringIO())
        self.optimize(requests=asked)
        for num_new in (1, 0):
            aside = io.StringIO()
            with contextlib.redirect_stderr(aside):
                result = self.optimize(requests=requests)
            self.assertIn(f"{num_new} measurements added", aside.getvalue())
            self.assertEqual(result["num_added"], 1)
            self.assertEqual(result["num_pending"], 2)
            self.assertEqual(result["num_queries"], 0)
        self.assertIn("1 measurements were in the run", aside.getvalue())

    @parameterized.parameters(
        ("score,x0\n1,2\n", "got 1 of them in line 2"),
        ("score,x0,x2\n1,2,3\n", "`x1` must be a column"),
        ("score,x0,x1,x2,x3\n1,2,3,4,5\n1,2,3,four,5\n", "'four' in line 3"),
        ("score,x0,x1,x2,x3\n1_0,2,3,4,5\n", "`score` .*'1_0' in line 2"),
        ("score,x0,x1,x2,x3\n,2,3,4,5\n", "`score` .*'' in line 2"),
        ("score,x0,x1,x2,x3\n1,2,3,4\n", "line 2 .*must have 5 values"),
        ("x0\n1\n", "`score` must be a column"),
        ("score\n1\n", "`input`, or `x0` and so on, must be columns"),
        ("score,input\n1,[1\n", "`input` must be one .*line 2"),
        ("score,input\n1,\n", "`input` must be given, got none in line 2"),
        ('score,input\n1,"[1, 2]"\n', "`input` must be one .*line 2"),
        ("score,failure\n,broken\n", "a file with scores"),
    )
    def test_wrong_row_is_named_by_its_line(self, text, message):
        with self.assertRaisesRegex(ValueError, message):
            self.read(text)

    def test_measurements_are_added_to_a_run(self):
        path = self.write("score,x0,x1,x2,x3\n9.5,1,1,1,1\n", "a.csv")
        requests = optimize.Requests(io.StringIO(), added=[str(path)])
        aside = io.StringIO()
        with contextlib.redirect_stderr(aside):
            result = self.optimize(requests=requests)
        self.assertIn("1 measurements added", aside.getvalue())
        self.assertEqual(result["num_added"], 1)
        path.write_text("score,x0,x1,x2,x3\n1,1,1,1,1\n1,1\n")
        with self.assertRaisesRegex(ValueError, "line 3 of a.csv"):
            self.optimize(requests=requests)
        found = read_ledger(self.run_dir / "ledger.jsonl")
        self.assertLen(found.additions, 1)


class _Optimizer:
    """An optimizer of which each step is a function that is given."""

    def __init__(self, steps, stopped=None):
        self._steps, self.stopped = steps, stopped
        self.failures, self.has_failed = [], False
        self.num_done, self.requested = 0, []
        self.plan = types.SimpleNamespace(
            budget=9, num_rounds=1, round_size=9, round_of=lambda number: 0
        )
        self.task = types.SimpleNamespace(name="fake", sign=1.0, refuse=None)
        self.collection = types.SimpleNamespace(num_kept=3)
        self.ledger = types.SimpleNamespace(header={"best_in_data": 1.0})

    def best(self):
        return 1.0

    def request_stop(self, reason):
        self.requested.append(reason)
        self.stopped = reason

    def steps(self, evaluator, stopping):
        for step in self._steps:
            step(self)
            self.num_done += 1
            yield


class _ReadOut:
    run_dir = "runs/fake"

    def __init__(self):
        self.calls = []

    def refresh(self):
        self.calls.append("refresh")

    def write(self):
        self.calls.append("write")
        return {
            "top": {},
            "ranked_by": "score",
            "num_queries": 0,
            "num_failures": 0,
            "num_distinct": 0,
            "num_near_repeats": 0,
            "best_in_data": 1.0,
        }


class EvaluationsTest(tf.test.TestCase):
    def run_(self, optimizer):
        """Returns what a run prints to stderr, and its error, if any."""
        out, err = io.StringIO(), io.StringIO()
        self.read_out = _ReadOut()
        error = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                evaluations.run(optimizer, None, Stopping(), self.read_out)
            except StoppedError as caught:
                error = caught
        return out.getvalue(), err.getvalue(), error

    def test_read_out_follows_each_step_and_the_end(self):
        _, _, error = self.run_(_Optimizer([lambda one: None] * 2))
        self.assertIsNone(error)
        self.assertEqual(self.read_out.calls, ["refresh", "refresh", "write"])

    def test_first_failure_is_printed_in_full_and_others_are_counted(self):
        def fail(optimizer):
            number = optimizer.num_done
            optimizer.failures.append(
                Failure(number, "ValueError: no", "Traceback:\n  at line 3\n")
            )

        _, err, _ = self.run_(_Optimizer([fail, fail, fail]))
        self.assertEqual(err.count("Traceback:\n  at line 3\n"), 1)
        self.assertIn("query 0 has failed: ValueError: no\nTraceback", err)
        self.assertIn("3 evaluations have failed, the last of query 2", err)

    def test_failures_in_a_row_end_with_code_1_after_all_is_written(self):
        def fail(optimizer):
            optimizer.failures.append(Failure(0, "no", None))

        optimizer = _Optimizer([fail, fail], "2 evaluations in a row failed")
        optimizer.has_failed = True
        _, _, error = self.run_(optimizer)
        self.assertEqual(error.code, 1)
        self.assertEqual(str(error), "stopped: 2 evaluations in a row failed")
        self.assertEqual(self.read_out.calls[-1], "write")

    def test_target_that_is_reached_is_no_error(self):
        out, _, error = self.run_(_Optimizer([], "the target of 3 is reached"))
        self.assertIsNone(error)
        self.assertIn("stopped: the target of 3 is reached\n", out)

    def test_first_interrupt_waits_and_the_second_aborts(self):
        def interrupt(optimizer):
            os.kill(os.getpid(), signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        optimizer = _Optimizer([interrupt])
        _, err, error = self.run_(optimizer)
        self.assertEqual(optimizer.requested, ["interrupted"])
        self.assertIn("stopping after what is under way; Ctrl-C again", err)
        self.assertEqual(error.code, 130)
        self.assertEqual(self.read_out.calls, ["refresh", "write"])
        self.assertIs(signal.getsignal(signal.SIGINT), before)
        with self.assertRaises(KeyboardInterrupt):
            self.run_(_Optimizer([interrupt, interrupt]))
        self.assertEqual(self.read_out.calls, ["refresh", "write"])
        self.assertIs(signal.getsignal(signal.SIGINT), before)
        # As a shell starts what it does not wait for.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        with self.assertRaises(KeyboardInterrupt):
            self.run_(_Optimizer([interrupt, interrupt]))
        self.assertIs(signal.getsignal(signal.SIGINT), signal.SIG_IGN)


if __name__ == "__main__":
    tf.test.main()
