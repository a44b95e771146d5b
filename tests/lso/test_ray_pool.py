# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import sys
import threading
import time
import types
from unittest import mock

import gin
import pytest
from absl.testing import absltest, parameterized

from tests.children import is_alive, wait_for
from tests.lso import objectives
from tfvae.lso import ray_pool
from tfvae.lso.evaluation import Pickled, ProcessPool, Result, pickled
from tfvae.lso.ray_pool import RayPool

_HAS_RAY = importlib.util.find_spec("ray") is not None


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(cause)
        self.cause = cause


class NodeDiedError(RayError):
    pass


class LocalRayletDiedError(RayError):
    pass


class RuntimeEnvSetupError(RayError):
    pass


class FakeRay(types.ModuleType):
    """Stands for Ray: tasks end, in order, when they are waited for.

    The input of a task says how it ends: with a score, or as its exception.
    """

    def __init__(self, num_cpus=2):
        super().__init__("ray")
        self.exceptions = sys.modules[__name__]
        self.resources = {"CPU": float(num_cpus)}
        self.running, self.cancelled, self.inits = [], [], []
        self.num_running = []
        """The number of running tasks after each start of one."""

    def is_initialized(self):
        return bool(self.inits)

    def init(self, **options):
        self.inits.append(options)

    def shutdown(self):
        self.inits.clear()

    def put(self, value):
        return value

    def cluster_resources(self):
        return self.resources

    def remote(self, function):
        return self

    def options(self, **options):
        self.task_options = options
        return types.SimpleNamespace(remote=self._start)

    def _start(self, sent, one_input, limit):
        reference = object()
        self.running.append((reference, one_input))
        self.num_running.append(len(self.running))
        return reference

    def wait(self, references, num_returns, timeout):
        assert references
        return references[:1], references[1:]

    def get(self, reference):
        ends = {
            pickled("", 1): Result(1.0, None, 0.1)._asdict(),
            pickled("", "lost"): NodeDiedError("the node is dead"),
            pickled("", "crash"): RayError("worker died\nwhy"),
            pickled("", "load"): RayTaskError(RuntimeError("not loaded")),
            pickled("", "old"): RayTaskError(AttributeError("no such name")),
            pickled("", "env"): RuntimeEnvSetupError("no folder"),
        }
        (found,) = (one for one in self.running if one[0] is reference)
        self.running.remove(found)
        end = ends[found[1]]
        if isinstance(end, Exception):
            raise end
        return end

    def cancel(self, reference, force):
        assert force
        self.cancelled.append(reference)


class TasksTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.ray = FakeRay()
        self.enter_context(mock.patch.dict(sys.modules, {"ray": self.ray}))
        self.enter_context(mock.patch.dict(os.environ))
        os.environ.pop("RAY_ADDRESS", None)
        self.found = {}

    def _run(self, inputs, **kwargs):
        pool = RayPool(**kwargs)
        pool(objectives.square, inputs, self.found.__setitem__)
        return [self.found[i] for i in range(len(self.found))]

    def test_each_input_has_a_result(self):
        results = self._run([1, "crash", 1])
        self.assertEqual(
            [one[:2] for one in results],
            [(1.0, None), (None, "RayError: worker died"), (1.0, None)],
        )
        self.assertEqual(results[1].details, "worker died\nwhy")

    @parameterized.parameters(
        (None, 2, {}, 2),
        (1, 2, {}, 1),
        (9, 2, {}, 2),
        (None, 8, {"num_cpus": 3}, 2),
        (None, 8, {"resources": {"licence": 1}}, 3),
        (None, 8, {"resources": {"licence": 2}, "num_cpus": 0}, 1),
        (None, 8, {"num_gpus": 1}, 1),
        (None, 0, {}, 1),
    )
    def test_inputs_are_taken_as_the_cluster_has_room(
        self, workers, num_cpus, options, expected
    ):
        self.ray.resources = {"CPU": float(num_cpus), "licence": 3.0}

        def inputs():
            for _ in range(12):
                self.assertLess(len(self.ray.running), expected)
                yield 1

        self._run(inputs(), workers=workers, **options)
        self.assertLen(self.found, 12)
        self.assertEqual(max(self.ray.num_running), expected)

    def test_room_is_looked_up_again_as_the_cluster_grows(self):
        def inputs():
            for i in range(12):
                self.ray.resources = {"CPU": 5.0 if i > 5 else 1.0}
                yield 1

        self.ray.resources = {"CPU": 1.0}
        self._run(inputs())
        self.assertEqual(max(self.ray.num_running[:6]), 1)
        self.assertEqual(max(self.ray.num_running), 5)

    @parameterized.parameters(0, 1, 3)
    def test_lost_node_is_replaced_as_often_as_it_may(self, retries):
        results = self._run(["lost", 1], retries_of_lost_nodes=retries)
        self.assertEqual(
            [one[:2] for one in results],
            [(None, "the node was lost"), (1.0, None)],
        )
        self.assertEqual(results[0].details, "the node is dead")
        self.assertLen(self.ray.num_running, 2 + retries)

    @parameterized.parameters(
        ("load", RuntimeError, "^not loaded$"),
        ("old", RuntimeError, "must be installed on all nodes, got Attribute"),
        ("env", RuntimeEnvSetupError, "no folder"),
    )
    def test_what_is_no_fault_of_an_input_ends_the_call(
        self, one_input, kind, pattern
    ):
        with self.assertRaisesRegex(kind, pattern):
            self._run([one_input, 1, 1])
        self.assertEqual(self.found[1].score, 1.0)
        self.assertNotIn(2, self.found)

    def test_interrupt_cancels_what_is_running(self):
        def inputs():
            yield from (1, 1, 1)
            self.ray.wait = lambda references, **_: ([], references)
            raise KeyboardInterrupt

        with mock.patch.object(ray_pool, "_LAST_SECONDS", 0.05):
            with self.assertRaises(KeyboardInterrupt):
                self._run(inputs())
        self.assertLen(self.ray.cancelled, 1)
        self.assertLen(self.found, 2)

    def test_ray_is_started_here_or_the_one_that_there_is_is_used(self):
        with RayPool(3, num_cpus=2) as pool:
            pool(objectives.square, [1], self.found.__setitem__)
            (options,) = self.ray.inits
            self.assertEqual(options["address"], "local")
            self.assertEqual(options["num_cpus"], 6)
            with RayPool() as other:
                other(objectives.square, [1], self.found.__setitem__)
            self.assertLen(self.ray.inits, 1)
        self.assertEmpty(self.ray.inits)

    @parameterized.parameters((None, "b:1"), ("a:1", "a:1"))
    def test_address_is_that_of_the_variable_if_none_is_given(
        self, address, expected
    ):
        os.environ["RAY_ADDRESS"] = "b:1"
        self._run([1], address=address)
        (options,) = self.ray.inits
        self.assertEqual(options["address"], expected)
        self.assertNotIn("num_cpus", options)

    def test_tasks_ask_for_their_resources(self):
        self._run([1], num_cpus=2, num_gpus=0.5, resources={"licence": 1})
        options = self.ray.task_options
        self.assertEqual(
            (options["num_cpus"], options["num_gpus"], options["resources"]),
            (2, 0.5, {"licence": 1}),
        )
        self.assertEqual(options["max_retries"], 0)


class ArgumentsTest(parameterized.TestCase):
    def test_without_ray_the_extra_is_named(self):
        with mock.patch.dict(sys.modules, {"ray": None}):
            with self.assertRaisesRegex(ImportError, r"tfvae\[ray\]"):
                RayPool()(objectives.square, [1], self.fail)

    @parameterized.parameters(
        ({"workers": 0}, "`workers` must be"),
        ({"timeout_seconds": 0}, "`timeout_seconds` must be"),
        ({"num_cpus": -1}, "`num_cpus` must be at least 0, got -1"),
        ({"num_gpus": float("nan")}, "`num_gpus` must be at least 0, got nan"),
        ({"retries_of_lost_nodes": -1}, "`retries_of_lost_nodes` must be"),
    )
    def test_refuses_values(self, options, pattern):
        with self.assertRaisesRegex(ValueError, pattern):
            RayPool(**options)

    def test_gin_knows_it(self):
        gin.parse_config("RayPool.workers = 3")
        self.assertEqual(gin.get_configurable("RayPool")().workers, 3)


class TaskTest(absltest.TestCase):
    """What runs in a process of Ray, in this one."""

    def setUp(self):
        super().setUp()
        self.addCleanup(ray_pool._pool.cache_clear)

    def test_gives_results_of_a_process_that_stays(self):
        sent = Pickled.of(objectives.process_id)
        found = [
            ray_pool._evaluate(sent, pickled("", 0), 9.0) for _ in range(2)
        ]
        self.assertEqual(found[0]["score"], found[1]["score"])
        self.assertNotEqual(found[0]["score"], os.getpid())
        other = ray_pool._evaluate(sent, pickled("", 0), None)
        self.assertNotEqual(other["score"], found[0]["score"])

    def test_module_is_sent_that_is_not_there(self):
        texts = {
            "own_8": "def g(x): return 1.0\n",
            "own_9": "from own_8 import g\ndef f(x): return x + g(x)\n",
        }
        for name, text in texts.items():
            path = self.create_tempfile(f"file_of_{name}.py", text).full_path
            specification = importlib.util.spec_from_file_location(name, path)
            module = importlib.util.module_from_spec(specification)
            sys.modules[name] = module
            self.addCleanup(sys.modules.pop, name)
            specification.loader.exec_module(module)
        sent = Pickled.of(module.f).with_sources()
        for name in texts:
            os.remove(sent.modules[name])
        found = ray_pool._evaluate(sent, pickled("", 3.0), None)
        self.assertEqual((found["score"], found["failure"]), (4.0, None))

    def test_objective_that_can_not_be_loaded_names_the_machine(self):
        class Unreadable:
            def __reduce__(self):
                return (int, ("no number",))

        sent = Pickled.of(Unreadable())
        with self.assertRaisesRegex(
            RuntimeError, r"`objective` must be .* ValueError.* \(on .+\)$"
        ):
            ray_pool._evaluate(sent, pickled("", 3.0), None)


def _processes(path):
    """Returns the processes that `objectives.leave_children` has noted."""
    try:
        return pathlib.Path(path).read_text().split()
    except FileNotFoundError:
        return []


@pytest.mark.slow  # Ray starts within seconds, many on a busy machine.
@pytest.mark.skipif(not _HAS_RAY, reason="needs pip install 'tfvae[ray]'")
class RayTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.enter_context(mock.patch.dict(os.environ))
        os.environ.pop("RAY_ADDRESS", None)
        self.path = self.create_tempdir().full_path + "/processes"

    def _results(self, pool, objective, inputs):
        found = {}
        pool(objective, inputs, found.__setitem__)
        return [found[i] for i in range(len(found))]

    def test_results_are_those_of_a_pool_of_processes(self):
        inputs = [3, "raise", "abort", "segfault", 4, "leave", "nan", "hang", 5]
        with ProcessPool(2, 2.0) as pool:
            expected = self._results(pool, objectives.misbehave, inputs)
        with RayPool(2, 2.0) as pool:
            actual = self._results(pool, objectives.misbehave, inputs)
            scores = self._results(pool, objectives.constrained, [2.0, 7.0])
        self.assertEqual(
            [one[:2] for one in actual], [one[:2] for one in expected]
        )
        self.assertEqual([one.score for one in scores], [2.0, None])
        self.assertEqual(scores[1].constraints, {"size": 4.0})

    def test_nothing_is_left_of_what_hangs_or_is_interrupted(self):
        with RayPool(2, 2.0) as pool:
            (result,) = self._results(
                pool, objectives.hang_with_children, [self.path]
            )
            self.assertEqual(result.failure, "no answer after 2 seconds")
            started = _processes(self.path)
            self.assertEqual([*map(is_alive, started)], [False, False])

            def inputs():
                yield self.path
                self.assertTrue(wait_for(lambda: _processes(self.path), 60.0))
                raise KeyboardInterrupt

            os.remove(self.path)
            pool.timeout_seconds = None
            with self.assertRaises(KeyboardInterrupt):
                pool(objectives.hang_with_children, inputs(), self.fail)
            started = _processes(self.path)
            self.assertLen(started, 2)
            self.assertTrue(
                wait_for(lambda: not any(map(is_alive, started)), 60.0)
            )

    def test_lost_node_costs_no_evaluation(self):
        from ray import cluster_utils

        memory = {"object_store_memory": 100 * 2**20}
        head = {"num_cpus": 0, "include_dashboard": False, **memory}
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args=head
        )
        self.addCleanup(cluster.shutdown)
        first = cluster.add_node(num_cpus=1, **memory)
        found = {}
        with RayPool(address=cluster.address) as pool:
            pool._connected()  # Its signal handlers need the main thread.
            thread = threading.Thread(
                target=pool,
                args=(_hang_once, [self.path], found.__setitem__),
            )
            thread.start()
            self.assertTrue(wait_for(lambda: _processes(self.path), 60.0))
            cluster.add_node(num_cpus=1, **memory)
            cluster.remove_node(first, allow_graceful=False)
            thread.join(120.0)
            self.assertEqual(found[0][:2], (7.0, None))
            started = _processes(self.path)
            self.assertTrue(
                wait_for(lambda: not any(map(is_alive, started)), 60.0)
            )


def _hang_once(path):
    with contextlib.suppress(FileExistsError):
        with open(path, "x", encoding="utf-8") as file:
            file.write(str(os.getpid()))
        time.sleep(1000)
    return 7.0


if __name__ == "__main__":
    absltest.main()
