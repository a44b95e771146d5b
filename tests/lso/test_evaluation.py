# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import decimal
import fractions
import functools
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from unittest import mock

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from tests.children import is_alive, wait_for
from tests.lso import objectives
from tfvae import processes
from tfvae.lso import evaluation
from tfvae.lso.evaluation import (
    InProcess,
    ProcessPool,
    Result,
    Score,
    evaluate_one,
)

ROOT = pathlib.Path(__file__).parents[2]


def _results(evaluator, objective, inputs):
    """Returns the results in the order of the inputs, and that of their end."""
    results = {}

    def done(i, result):
        assert i not in results
        results[i] = result

    evaluator(objective, inputs, done)
    if isinstance(inputs, list):
        assert len(results) == len(inputs)
    return [results[i] for i in range(len(results))], list(results)


def _failing(error):
    def objective(x):
        raise error

    return objective


class WithoutText(Exception):
    def __str__(self):
        raise RuntimeError("no text")


# What `objectives.disturb` does -> the failure, or score, that is recorded.
_DISTURBANCES = (
    ("raise", "Unusual: no message"),
    ("return", "Unusual: no message"),
    ("recurse", "RecursionError: maximum recursion depth exceeded"),
    ("memory", "MemoryError"),
    ("long", "ValueError: " + "x" * 488),
    ("escapes", r"ValueError: \x1b[31m \udc80"),
    ("group", "BaseExceptionGroup: several (1 sub-exception)"),
    ("stdin", 0.0),
    ("stdout", 0.0),
    ("stderr", 0.0),
    ("folder", 0.0),
    ("alarm", 0.0),
)


class EvaluateOneTest(parameterized.TestCase):
    @parameterized.parameters(
        (3,),
        (3.0,),
        (np.float32(3),),
        (np.int8(3),),
        (np.array(3.0),),
        (np.array([[3.0]]),),
        (fractions.Fraction(3),),
        (decimal.Decimal(3),),
    )
    def test_numbers_of_all_kinds_are_scores(self, value):
        result = evaluate_one(lambda x: value, None)
        self.assertEqual(result[:2], (3.0, None))
        self.assertIs(type(result.score), float)

    @parameterized.parameters((3.0,), ([[3.0]],))
    def test_tensors_of_one_entry_are_scores(self, value):
        result = evaluate_one(tf.constant, value)
        self.assertEqual(result[:2], (3.0, None))

    @parameterized.parameters(
        (None, "TypeError: the objective must return a number, got None"),
        (True, "TypeError: the objective must return a number, got True"),
        ("3", "TypeError: the objective must return a number, got '3'"),
        (1j, "TypeError: the objective must return a number, got 1j"),
        (np.bool_(True), "TypeError: .* must return a number, got .*True.*"),
        (np.array("3"), "TypeError: .* must return a number, got array.*"),
        ([3.0], r"TypeError: .* must return a number, got \[3.0\]"),
        (np.ones(2), r"TypeError: .* got a ndarray of shape \(2,\)"),
        (np.ones(0), r"TypeError: .* got a ndarray of shape \(0,\)"),
        (np.nan, "ValueError: .* must return a finite number, got nan"),
        (np.float32(np.inf), "ValueError: .* a finite number, got inf"),
        (np.array(-np.inf), "ValueError: .* a finite number, got -inf"),
        (10**400, "ValueError: .* must return a finite number, got inf"),
        (-1e101, "ValueError: .* at most 1e.100 in size, got -1e.101"),
        (np.ma.masked, "ValueError: .* a finite number, got nan"),
        (np.ma.array([3], mask=[True]), "(Type|Value)Error: .*"),
    )
    def test_other_results_are_failures(self, value, pattern):
        result = evaluate_one(lambda x: value, None)
        self.assertIsNone(result.score)
        self.assertRegex(result.failure, f"^{pattern}$")

    def test_constraints_are_numbers_beside_the_score(self):
        score = Score(np.float32(2), {"size": np.array([1.5]), "cost": -3})
        result = evaluate_one(lambda x: score, None)
        self.assertEqual(result[:2], (2.0, None))
        self.assertEqual(result.constraints, {"size": 1.5, "cost": -3.0})
        self.assertEqual(
            {type(one) for one in result.constraints.values()}, {float}
        )

    @parameterized.parameters((Score(3),), (Score(3, {}),), (3,))
    def test_without_constraints_there_are_none(self, value):
        result = evaluate_one(lambda x: value, None)
        self.assertEqual(result[:2], (3.0, None))
        self.assertIsNone(result.constraints)

    def test_violated_constraints_may_be_the_reason_for_no_score(self):
        score = Score(None, {"a": 0.0, "size": 2, "cost": 0.1})
        result = evaluate_one(lambda x: score, None)
        self.assertEqual(
            result[:2], (None, "no value, as it violates size, cost")
        )
        self.assertEqual(result.constraints, {"a": 0.0, "size": 2, "cost": 0.1})

    @parameterized.parameters(
        (
            Score(None),
            r"ValueError: .* with a value, .*, got Score\(.*",
        ),
        (Score(None, {"a": 0.0}), "ValueError: .* `Score` with a value, .*"),
        (Score("3"), "TypeError: .* whose value is a number, got '3'"),
        (Score(np.nan), "ValueError: .* value is a finite number, got nan"),
        (Score(1, {"a": None}), "TypeError: .* 'a' is a number, got None"),
        (Score(1, {"a": False}), "TypeError: .* 'a' is a number, got False"),
        (Score(1, {"a": np.inf}), "ValueError: .* 'a' is a finite .* got inf"),
        (Score(1, {3: 1.0}), "TypeError: .* have texts as names, got 3"),
        (Score(1, [2.0]), r"TypeError: .* a dictionary of .*, got \[2.0\]"),
        (Score(Score(1)), "TypeError: .* value is a number, got Score.*"),
    )
    def test_other_constraints_are_failures(self, value, pattern):
        result = evaluate_one(lambda x: value, None)
        self.assertIsNone(result.score)
        self.assertIsNone(result.constraints)
        self.assertRegex(result.failure, f"^{pattern}$")

    @parameterized.parameters(
        (ValueError("first\nsecond"), "ValueError: first"),
        (KeyError("a"), "KeyError: 'a'"),
        (SystemExit(3), "SystemExit: 3"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("\n two \n"), "RuntimeError: two"),
        (WithoutText(), "WithoutText: no message"),
    )
    def test_failure_is_the_type_and_first_line_of_an_error(self, error, text):
        result = evaluate_one(_failing(error), None)
        self.assertEqual(result[:2], (None, text))

    def test_long_messages_are_cut(self):
        result = evaluate_one(_failing(ValueError("x" * 10**6)), None)
        self.assertLessEqual(len(result.failure), 500)

    def test_interrupt_passes_through(self):
        with self.assertRaises(KeyboardInterrupt):
            evaluate_one(_failing(KeyboardInterrupt()), None)

    def test_seconds_are_those_of_the_call(self):
        start = time.perf_counter()
        result = evaluate_one(objectives.sleep, 0.05)
        self.assertBetween(result.seconds, 0.05, time.perf_counter() - start)

    def test_details_are_the_traceback_of_the_objective(self):
        def inner():
            raise ValueError("first\nsecond")

        result = evaluate_one(lambda x: inner(), None)
        lines = result.details.splitlines()
        self.assertEqual(lines[0], "Traceback (most recent call last):")
        self.assertRegex(lines[1], r'File ".*test_evaluation.py", line \d+')
        self.assertEqual(lines[-2:], ["ValueError: first", "second"])

    @parameterized.parameters((ValueError("x" * 10**6),), (WithoutText(),))
    def test_details_are_of_limited_length(self, error):
        result = evaluate_one(_failing(error), None)
        self.assertStartsWith(result.details, "Traceback")
        self.assertLess(len(result.details), 20_100)

    def test_without_an_error_of_the_objective_there_are_no_details(self):
        for value in (3.0, None, np.nan):
            result = evaluate_one(lambda x, value=value: value, None)
            self.assertIsNone(result.details)

    @parameterized.parameters(*_DISTURBANCES)
    def test_disturbance_is_recorded_and_harms_no_other(self, name, expected):
        folder = os.getcwd()
        streams = [os.fstat(number).st_ino for number in (0, 1, 2)]
        results, _ = _results(InProcess(), objectives.disturb, [name, 3])
        self.assertEqual(results[0].failure or results[0].score, expected)
        self.assertEqual(results[1].score, 9.0)
        self.assertEqual(os.getcwd(), folder)
        self.assertEqual(
            [os.fstat(number).st_ino for number in (0, 1, 2)], streams
        )

    def test_alarm_of_the_caller_stays(self):
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 1000.0)
        evaluate_one(objectives.square, 3)
        self.assertGreater(signal.getitimer(signal.ITIMER_REAL)[0], 0.0)


class InProcessTest(absltest.TestCase):
    def test_input_is_taken_once_the_result_before_is_known(self):
        found = []

        def inputs():
            yield 1.0
            while len(found) < 4:
                yield found[-1] + 1.0

        InProcess()(
            objectives.square, inputs(), lambda _, one: found.append(one.score)
        )
        self.assertEqual(found, [1.0, 4.0, 25.0, 676.0])

    def test_each_result_comes_before_the_next_evaluation(self):
        events = []

        def objective(x):
            events.append(f"evaluate {x}")
            return x

        InProcess()(
            objective, [5, 6], lambda i, result: events.append((i, *result[:2]))
        )
        self.assertEqual(
            events, ["evaluate 5", (0, 5.0, None), "evaluate 6", (1, 6.0, None)]
        )

    def test_interrupt_does_not_cut_a_record(self):
        found = []

        def done(i, result):
            signal.raise_signal(signal.SIGINT)
            found.append((i, result.score))

        with self.assertRaises(KeyboardInterrupt):
            InProcess()(objectives.square, [3, 4], done)
        self.assertEqual(found, [(0, 9.0)])

    def test_goes_on_after_failures(self):
        results, _ = _results(
            InProcess(), objectives.misbehave, ["raise", "exit", "nan", 3]
        )
        self.assertEqual([one.score for one in results], [None] * 3 + [9.0])


class ProcessPoolTest(parameterized.TestCase):
    @parameterized.parameters(1, 2)
    def test_results_are_those_of_this_process(self, workers):
        inputs = [3, "raise", 4, "exit", "nan", 5]
        expected, _ = _results(InProcess(), objectives.misbehave, inputs)
        with ProcessPool(workers) as pool:
            actual, order = _results(pool, objectives.misbehave, inputs)
        self.assertEqual(
            [one[:2] for one in actual], [one[:2] for one in expected]
        )
        if workers == 1:
            self.assertEqual(order, [*range(6)])

    def test_constraints_cross_processes(self):
        expected, _ = _results(InProcess(), objectives.constrained, [2.0, 5.0])
        with ProcessPool() as pool:
            actual, _ = _results(pool, objectives.constrained, [2.0, 5.0])
            imports, _ = _results(pool, objectives.num_slow_imports, [0])
        self.assertEqual(expected[0].constraints, {"size": -1.0})
        self.assertEqual(
            [one._replace(seconds=0.0) for one in actual],
            [one._replace(seconds=0.0) for one in expected],
        )
        self.assertEqual(imports[0].score, 1.0)  # The library itself.

    def test_no_inputs_start_no_process(self):
        pool = ProcessPool()
        pool(objectives.square, [], self.fail)
        self.assertEmpty(pool._workers)

    def test_processes_stay_for_later_calls_and_import_nothing_slow(self):
        with ProcessPool() as pool:
            first, _ = _results(pool, objectives.process_id, [0, 0])
            other, _ = _results(pool, objectives.num_slow_imports, [0])
            again, _ = _results(pool, objectives.process_id, [0])
        scores = {one.score for one in (*first, *again)}
        self.assertLen(scores, 1)
        self.assertNotIn(os.getpid(), scores)
        self.assertEqual(other[0].score, 0.0)

    def test_process_that_ends_is_a_failure_and_is_replaced(self):
        inputs = [2, "leave", 3, "abort", "segfault", 4, "close", 5]
        with ProcessPool() as pool:
            results, _ = _results(pool, objectives.misbehave, inputs)
            self.assertLen(pool._workers, 1)
        self.assertEqual(
            [one.failure or one.score for one in results],
            [
                4.0,
                "process ended with exit code 3",
                9.0,
                "process ended by SIGKILL",
                "process ended by SIGSEGV",
                16.0,
                "process ended by SIGKILL",
                25.0,
            ],
        )

    def test_hung_evaluation_is_killed_with_what_it_started(self):
        path = self.create_tempdir().full_path + "/processes"
        with ProcessPool(timeout_seconds=0.7) as pool:
            results, _ = _results(pool, objectives.hang_with_child, [path])
            again, _ = _results(pool, objectives.square, [3])
        self.assertEqual(results[0].failure, "no answer after 0.7 seconds")
        self.assertBetween(results[0].seconds, 0.7, 5.0)
        self.assertEqual(again[0].score, 9.0)
        for one in pathlib.Path(path).read_text().split():
            self.assertTrue(wait_for(lambda one=one: not is_alive(one)))

    @parameterized.parameters(
        (objectives.leave_children, 0.0),
        (objectives.hang_with_children, "no answer after 0.7 seconds"),
    )
    def test_no_evaluation_leaves_processes_in_other_sessions(
        self, objective, expected
    ):
        path = self.create_tempdir().full_path + "/processes"
        with ProcessPool(timeout_seconds=0.7) as pool:
            results, _ = _results(pool, objective, [path])
            started = pathlib.Path(path).read_text().split()
            self.assertEqual([*map(is_alive, started)], [False, False])
        self.assertEqual(results[0].failure or results[0].score, expected)

    def test_disturbances_are_recorded_and_harm_no_other(self):
        expected = {
            **dict(_DISTURBANCES),
            "interrupt": "KeyboardInterrupt",
            "fork": 0.0,
            "stream": 0.0,
            "thread": 0.0,
            "recursion": 0.0,
            "channel": 0.0,
            "print": 0.0,
            "stop": "no answer after 1 seconds",
        }
        inputs = [one for name in expected for one in (name, 3)]
        with ProcessPool(timeout_seconds=1) as pool:
            results, _ = _results(pool, objectives.disturb_worker, inputs)
        found = [one.failure or one.score for one in results[::2]]
        self.assertEqual(
            dict(zip(expected, found, strict=True)),
            expected,
        )
        self.assertEqual({one.score for one in results[1::2]}, {9.0})

    def test_details_come_from_the_process(self):
        with ProcessPool() as pool:
            results, _ = _results(pool, objectives.misbehave, ["raise", 3])
        self.assertRegex(
            results[0].details, r"(?s)^Traceback.*1 / 0.*ZeroDivisionError: "
        )
        self.assertIsNone(results[1].details)

    def test_others_are_delivered_while_one_hangs(self):
        with ProcessPool(workers=2, timeout_seconds=1.0) as pool:
            results, order = _results(
                pool, objectives.misbehave, ["hang", 1, 2, 3]
            )
        self.assertEqual(order[-1], 0)
        self.assertEqual([one.score for one in results], [None, 1.0, 4.0, 9.0])

    def test_end_is_seen_though_a_child_keeps_the_pipes(self):
        path = self.create_tempdir().full_path + "/child"
        with ProcessPool() as pool:
            results, _ = _results(
                pool, objectives.leave_child_with_pipes, [path]
            )
        self.assertEqual(results[0].failure, "process ended with exit code 5")
        child = pathlib.Path(path).read_text()
        self.assertTrue(wait_for(lambda: not is_alive(child)))

    @parameterized.parameters(
        (lambda worker: worker.process.pid,),
        (lambda worker: worker.process._popen.pid,),  # The supervisor.
    )
    def test_process_that_ended_between_calls_is_replaced(self, killed):
        with ProcessPool() as pool:
            first, _ = _results(pool, objectives.process_id, [0])
            (worker,) = pool._workers
            os.kill(killed(worker), signal.SIGKILL)
            self.assertTrue(wait_for(lambda: worker.process.has_ended))
            second, _ = _results(pool, objectives.process_id, [0])
        self.assertIsNone(second[0].failure)
        self.assertNotEqual(first[0].score, second[0].score)

    def test_output_of_objectives_is_no_answer(self):
        with ProcessPool() as pool:
            results, _ = _results(pool, objectives.talk, [1, 2])
        self.assertEqual([one.score for one in results], [1.0, 2.0])

    def test_idle_processes_leave_in_order(self):
        path = self.create_tempdir().full_path + "/left"
        with ProcessPool() as pool:
            _results(pool, objectives.write_on_leaving, [path])
            self.assertFalse(pathlib.Path(path).exists())
        self.assertTrue(pathlib.Path(path).exists())

    @parameterized.parameters(10**6, 3 * 10**7)
    def test_large_inputs_arrive_whole(self, size):
        with ProcessPool() as pool:
            results, _ = _results(pool, len, [b"x" * size])
        self.assertEqual(results[0].score, size)

    @parameterized.parameters(
        (objectives.Power(3), 8.0), (functools.partial(pow, 3), 9.0)
    )
    def test_objective_may_be_an_object_that_is_called(self, objective, score):
        with ProcessPool() as pool:
            results, _ = _results(pool, objective, [2])
        self.assertEqual(results[0].score, score)

    def test_objective_may_be_a_lambda_or_a_function_inside_another(self):
        offset = 2.0

        def inner(x):
            return objectives.square(x) + offset

        with ProcessPool() as pool:
            results, _ = _results(pool, inner, [3])
            others, _ = _results(pool, lambda x: inner(x) - 1.0, [3])
        self.assertEqual(results[0][:2], (11.0, None))
        self.assertEqual(others[0][:2], (10.0, None))

    def test_module_loaded_from_a_file_is_loaded_there_too(self):
        path = self.create_tempfile("mine.py", _OWN_TASK).full_path
        specification = importlib.util.spec_from_file_location("own_7", path)
        module = importlib.util.module_from_spec(specification)
        sys.modules["own_7"] = module
        self.addCleanup(sys.modules.pop, "own_7")
        specification.loader.exec_module(module)
        with ProcessPool() as pool:
            results, _ = _results(pool, module.objective, [module.Number(4)])
        self.assertEqual(results[0][:2], (5.0, None))

    def test_module_that_shadows_an_installed_one_is_the_right_one(self):
        path = self.create_tempfile("wave.py", "def f(x): return 1.5").full_path
        specification = importlib.util.spec_from_file_location("wave", path)
        module = importlib.util.module_from_spec(specification)
        sys.modules["wave"] = module
        self.addCleanup(sys.modules.pop, "wave")
        specification.loader.exec_module(module)
        with ProcessPool() as pool:
            results, _ = _results(pool, module.f, [0])
        self.assertEqual(results[0].score, 1.5)

    def test_what_can_not_be_pickled_is_refused_before_any_start(self):
        pool = ProcessPool()
        lock = threading.Lock()
        with self.assertRaisesRegex(
            TypeError, "`objective` must be .* got <function .*cannot pickle"
        ):
            pool(lambda x: lock, [1], self.fail)
        with self.assertRaisesRegex(TypeError, r"`inputs\[0\]` must be"):
            pool(objectives.square, [lock], self.fail)
        self.assertEmpty(pool._workers)

    def test_input_that_can_not_be_pickled_loses_no_result_before_it(self):
        found = []
        with ProcessPool() as pool:
            with self.assertRaisesRegex(TypeError, r"`inputs\[1\]` must be"):
                pool(
                    objectives.square,
                    [3, threading.Lock(), 4],
                    lambda i, result: found.append((i, result.score)),
                )
        self.assertEqual(found, [(0, 9.0)])

    @parameterized.parameters(1, 2, 3)
    def test_input_is_taken_when_a_process_is_free_and_not_before(
        self, workers
    ):
        events = []

        def inputs():
            for i in range(7):
                events.append(i)
                yield i

        with ProcessPool(workers) as pool:
            pool(
                objectives.square, inputs(), lambda i, _: events.append("done")
            )
        self.assertEqual(events[:workers], [*range(workers)])
        self.assertEqual(events.count("done"), 7)
        for i in range(7):
            taken = events.index(i)
            free = workers - i + events[:taken].count("done")
            self.assertGreater(free, 0)

    def test_end_of_the_iteration_lets_the_others_finish(self):
        found = []

        def inputs():
            yield 0.0
            yield 0.3
            while not found:
                yield 0.0

        with ProcessPool(2) as pool:
            pool(objectives.sleep, inputs(), lambda *one: found.append(one))
        indices, results = zip(*found, strict=True)
        self.assertCountEqual(indices, range(len(found)))
        self.assertEqual({one.failure for one in results}, {None})
        self.assertIn(0.3, [one.score for one in results])

    def test_iteration_that_has_ended_is_not_asked_again(self):
        class Inputs:
            num_ends = 0

            def __iter__(self):
                return self

            def __next__(self):
                self.num_ends += 1
                if self.num_ends < 3:
                    return 0.1 * self.num_ends
                raise StopIteration

        inputs = Inputs()
        with ProcessPool(3) as pool:
            results, _ = _results(pool, objectives.sleep, inputs)
        self.assertLen(results, 2)
        self.assertEqual(inputs.num_ends, 3)

    def test_error_of_the_iteration_loses_no_result_known_by_then(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "evaluated"
        found = []

        def inputs():
            yield str(path)
            assert wait_for(path.exists)
            raise OSError("disk full")

        pool = ProcessPool(2)
        _results(pool, objectives.answer_slowly, [None])  # It has started.
        with self.assertRaisesRegex(OSError, "disk full"):
            pool(
                objectives.answer_slowly,
                inputs(),
                lambda i, result: found.append((i, result.score)),
            )
        self.assertEqual(found, [(0, 7.0)])
        self.assertEmpty(pool._workers)

    def test_input_that_can_not_be_read_is_a_failure(self):
        with ProcessPool() as pool:
            results, _ = _results(
                pool, objectives.square, [objectives.Unreadable(), 2]
            )
        self.assertStartsWith(results[0].failure, "ValueError: invalid literal")
        self.assertEqual(results[1].score, 4.0)

    def test_objective_that_can_not_be_loaded_is_no_failure_of_its_inputs(self):
        path = self.create_tempfile("broken.py", "f = len").full_path
        module = type(sys)("broken_7")
        module.__file__ = path
        sys.modules["broken_7"] = module
        self.addCleanup(sys.modules.pop, "broken_7")
        exec("def f(x): return x", module.__dict__)
        pathlib.Path(path).write_text("raise ImportError('no such library')")
        pool = ProcessPool()
        with self.assertRaisesRegex(
            RuntimeError, "`objective` must be .* ImportError: no such library"
        ):
            pool(module.f, [1, 2], self.fail)
        self.assertEmpty(pool._workers)

    def test_error_of_the_caller_ends_what_is_running(self):
        pool = ProcessPool(workers=2)

        def done(i, result):
            raise OSError("disk full")

        start = time.monotonic()
        with self.assertRaisesRegex(OSError, "disk full"):
            pool(objectives.misbehave, ["hang", 3], done)
        self.assertLess(time.monotonic() - start, 10.0)
        self.assertEmpty(pool._workers)
        results, _ = _results(pool, objectives.square, [3])
        self.assertEqual(results[0].score, 9.0)
        pool.close()

    def test_what_others_have_finished_survives_an_error_of_the_caller(self):
        found = []

        def done(i, result):
            found.append((i, result.score))
            if len(found) == 1:
                (other,) = pool._busy()
                self.assertLen(processes.wait([other.process], 20.0), 1)
                raise OSError("disk full")

        with ProcessPool(workers=2) as pool:
            _results(pool, objectives.square, [0, 1])  # Both have started.
            with self.assertRaisesRegex(OSError, "disk full"):
                pool(objectives.square, [2, 3], done)
        self.assertCountEqual(found, [(0, 4.0), (1, 9.0)])

    def test_interrupt_does_not_come_between_a_result_and_its_record(self):
        found = []
        receive = processes.Process.receive

        def interrupted(process, timeout, number):
            answer = receive(process, timeout, number)
            if answer is not None and "result" in answer:
                signal.raise_signal(signal.SIGINT)
            return answer

        pool = ProcessPool()
        with (
            mock.patch.object(processes.Process, "receive", interrupted),
            self.assertRaises(KeyboardInterrupt),
        ):
            pool(objectives.square, [3, 4], lambda *one: found.append(one))
        self.assertEqual([(i, one.score) for i, one in found], [(0, 9.0)])
        self.assertEmpty(pool._workers)

    def test_evaluation_that_ends_as_the_interrupt_comes_is_recorded(self):
        path = pathlib.Path(self.create_tempdir().full_path) / "evaluated"
        found = []

        def done(i, result):
            found.append((i, result.score))
            if len(found) == 1:
                self.assertTrue(wait_for(path.exists))
                raise KeyboardInterrupt

        pool = ProcessPool(workers=2)
        objective = objectives.answer_slowly
        _results(pool, objective, [None, None])  # Both have started.
        with self.assertRaises(KeyboardInterrupt):
            pool(objective, [None, str(path)], done)
        self.assertEqual(found, [(0, 3.0), (1, 7.0)])
        self.assertEmpty(pool._workers)

    def test_processes_end_with_the_pool(self):
        pool = ProcessPool()
        results, _ = _results(pool, objectives.process_id, [0])
        del pool
        self.assertTrue(wait_for(lambda: not is_alive(int(results[0].score))))

    @parameterized.parameters(0, -1, 1.5, True, "2")
    def test_refuses_workers(self, workers):
        with self.assertRaisesRegex(ValueError, "`workers` must be"):
            ProcessPool(workers)

    @parameterized.parameters(0, -1.0, float("nan"))
    def test_refuses_timeouts(self, seconds):
        with self.assertRaisesRegex(ValueError, "`timeout_seconds` must be"):
            ProcessPool(timeout_seconds=seconds)

    def test_gin_chooses_evaluators(self):
        @gin.register(module="test_evaluation")
        def chosen(evaluator):
            return evaluator

        gin.parse_config(
            """
            test_evaluation.chosen.evaluator = @ProcessPool()
            ProcessPool.workers = 3
            """
        )
        pool = gin.get_configurable(chosen)()
        self.assertIsInstance(pool, ProcessPool)
        self.assertEqual(pool.workers, 3)
        gin.parse_config("test_evaluation.chosen.evaluator = @InProcess()")
        evaluator = gin.get_configurable(chosen)()
        self.assertEqual(
            _results(evaluator, objectives.square, [3])[0][0].score, 9.0
        )


_OWN_TASK = """
import dataclasses

@dataclasses.dataclass
class Number:
    value: float

def objective(number):
    return number.value + 1.0
"""

# The packages themselves would import TensorFlow, which takes seconds.
_PARENT = """
import signal, sys, types

# A shell's background jobs ignore interrupts, and so do their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("tfvae", "tfvae.lso"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [{root!r} + "/" + name.replace(".", "/")]
sys.path.insert(0, {root!r})
from tests.lso import objectives
from tfvae.lso.evaluation import ProcessPool

class Own:
    offset = 3.0

def own(x):
    return x.factor * 2.0 + Own.offset

if {objective!r} == "own":
    one = Own()
    one.factor = 1.0
    ProcessPool()(own, [one], lambda i, result: print(i, *result[:2]))
pool = ProcessPool(workers=2)
pool(objectives.square, [2, 3], lambda i, result: None)
print(*(one.process.pid for one in pool._workers), flush=True)
if {objective!r} == "hang":
    pool(objectives.hang_with_child, [{path!r}], print)
if {objective!r} == "wait":
    sys.stdin.read()
"""


class EndOfParentTest(parameterized.TestCase):
    def _start(self, objective, path=""):
        text = textwrap.dedent(_PARENT).format(
            root=str(ROOT), objective=objective, path=path
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        def end():
            with parent:
                parent.kill()

        self.addCleanup(end)
        return parent

    @parameterized.parameters(signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    def test_none_outlives_a_parent_that_is_killed(self, number):
        path = self.create_tempdir().full_path + "/processes"
        parent = self._start("hang", path)
        workers = parent.stdout.readline().split()
        self.assertLen(workers, 2)
        self.assertTrue(wait_for(pathlib.Path(path).exists))
        busy, child = pathlib.Path(path).read_text().split()
        self.assertIn(busy, workers)
        for one in (*workers, child):
            self.assertTrue(is_alive(one))
        parent.send_signal(number)
        for one in (*workers, child):
            self.assertTrue(wait_for(lambda one=one: not is_alive(one)))

    @parameterized.parameters("wait", "leave")
    def test_idle_processes_end_with_their_parent(self, objective):
        parent = self._start(objective)
        workers = parent.stdout.readline().split()
        self.assertLen(workers, 2)
        if objective == "wait":
            parent.kill()
        self.assertEqual(
            parent.wait(20), -signal.SIGKILL if objective == "wait" else 0
        )
        for one in workers:
            self.assertTrue(wait_for(lambda one=one: not is_alive(one)))

    def test_objective_may_be_part_of_the_script_itself(self):
        parent = self._start("own")
        out, errors = parent.communicate(timeout=20)
        self.assertStartsWith(out, "0 5.0 None", errors)


class ResultTest(absltest.TestCase):
    def test_is_the_one_of_the_processes(self):
        self.assertIs(evaluation.evaluation_worker.Result, Result)


if __name__ == "__main__":
    absltest.main()
