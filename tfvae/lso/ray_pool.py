# SPDX-License-Identifier: Apache-2.0
"""Evaluator of objectives on a Ray cluster: one machine or many.

Each input is a task of Ray, in which a `ProcessPool` of one process evaluates
it. Ray thus decides where and when, whereas time limits, crashes and the end of
what an objective starts are those of the pool.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tfvae import __version__, processes, typed_gin
from tfvae.arguments import check_counts
from tfvae.lso.evaluation import (
    INSTALLED,
    Done,
    Objective,
    Pickled,
    ProcessPool,
    Result,
    check_timeout,
    one_line,
    pickled_inputs,
)

# Seconds between looks at the size of the cluster.
_LOOK_SECONDS = 1.0
# Seconds that tasks have to end when they are cancelled, and that finished ones
# have to be reported then.
_CANCEL_SECONDS = 10.0
_LAST_SECONDS = 1.0
# Of a Ray that is started here, bytes; inputs and results are small.
_OBJECT_STORE = 100 * 2**20
# Variables of the processes of tasks. By default Ray kills the children of such
# a process with it. The only one is the supervisor of `tfvae.processes`, which
# has to live to end what it has started.
_VARIABLES = {"RAY_kill_child_processes_on_worker_exit": "0"}


class _Task(NamedTuple):
    """An evaluation that Ray has been given."""

    number: int
    """That of its input in the iteration."""
    pickled: str
    started: float
    num_losses: int
    """How often its node was lost."""


@typed_gin.register
class RayPool:
    """Evaluates inputs in parallel, on a Ray cluster.

    As with a `ProcessPool`, whatever an objective does is a recorded result. An
    input whose node is lost is evaluated again, on another one. Inputs, the
    objective and modules that were loaded from files by their paths are sent to
    the nodes; tfvae and other installed packages must be there.

    Needs `pip install 'tfvae[ray]'`.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout_seconds: float | None = None,
        *,
        address: str | None = None,
        num_cpus: float = 1,
        num_gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        retries_of_lost_nodes: int = 1,
    ) -> None:
        """Creates the pool; it connects to Ray when needed.

        Args:
          workers: The maximum number of evaluations at a time; None for as many
            as the cluster has resources for, which may change.
          timeout_seconds: Time limit of an evaluation, which begins when it
            does; None for no limit.
          address: Of the cluster, such as "10.0.0.1:6379"; None for that of the
            environment variable RAY_ADDRESS, or, without it, for a cluster of
            this machine only, which is started here and ends with `close`.
          num_cpus: Processors of an evaluation.
          num_gpus: GPUs of an evaluation.
          resources: Other resources of an evaluation, by their names in the
            cluster.
          retries_of_lost_nodes: How often an input is evaluated again whose
            node was lost; then it fails.

        Raises:
          ValueError: If an argument is out of range.
        """
        if workers is not None:
            check_counts(workers=workers)
        check_timeout(timeout_seconds)
        for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
            if not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be at least 0, got {value!r}")
        if retries_of_lost_nodes < 0:
            raise ValueError(
                "`retries_of_lost_nodes` must be at least 0, got "
                f"{retries_of_lost_nodes!r}"
            )
        self.workers = workers
        self.timeout_seconds = timeout_seconds
        self.address = address
        self.retries_of_lost_nodes = retries_of_lost_nodes
        self._needed = {
            "CPU": num_cpus,
            "GPU": num_gpus,
            **(resources or {}),
        }
        self._options: dict[str, Any] = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "resources": {**(resources or {})},
            "max_retries": 0,
            "runtime_env": {"env_vars": _VARIABLES},
        }
        self._is_mine = False

    def __call__(
        self, objective: Objective, inputs: Iterable[Any], done: Done
    ) -> None:
        pickled = Pickled.of(objective).with_sources()
        ray = self._connected()
        sent = ray.put(pickled)
        _Run(self, ray, sent, pickled_inputs(inputs), done).finish()

    def close(self) -> None:
        """Ends the connection, and Ray itself if it was started here."""
        if self._is_mine:
            self._is_mine = False
            _ray().shutdown()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _connected(self) -> Any:
        """Returns the module of Ray, once it is connected to a cluster."""
        # Else it sends statistics of its use to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # What it will do by default: leave GPUs alone that it does not manage.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray = _ray()
        if ray.is_initialized():
            return ray
        address = self.address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"address": address}
        if address is None or address == "local":
            options = {"address": "local", "include_dashboard": False}
            options["object_store_memory"] = _OBJECT_STORE
            if self.workers is not None:
                needed = math.ceil(self.workers * self._needed["CPU"])
                options["num_cpus"] = max(needed, 1)
        # Processes of tasks import this module where it is not installed.
        path = [one for one in map(os.path.abspath, sys.path)]
        own = [one for one in path if not f"{one}/".startswith(INSTALLED)]
        variables = {"PYTHONPATH": os.pathsep.join(own)}
        ray.init(
            **options,
            logging_level="ERROR",
            runtime_env={"env_vars": variables},
        )
        self._is_mine = True
        return ray

    def num_slots(self, total: Mapping[str, float]) -> int:
        """Returns the number of evaluations at a time.

        Args:
          total: Resources of the cluster.
        """
        fitting = min(
            (
                int(total.get(name, 0.0) / needed)
                for name, needed in self._needed.items()
                if needed
            ),
            default=1,
        )
        # One waits for the cluster to grow; Ray says so.
        return max(min(fitting, self.workers or fitting), 1)


class _Run:
    """The tasks of one call of a pool."""

    def __init__(
        self,
        pool: RayPool,
        ray: Any,
        sent: Any,
        inputs: Iterator[tuple[int, str]],
        done: Done,
    ) -> None:
        self._pool = pool
        self._ray = ray
        self._sent = sent
        self._inputs = inputs
        self._done = done
        self._remote = ray.remote(_evaluate).options(**pool._options)
        self._running: dict[Any, _Task] = {}

    def finish(self) -> None:
        """Evaluates all inputs."""
        try:
            while self._hand_out():
                self._collect(_LOOK_SECONDS)
        except BaseException:
            with processes.interrupts_held():
                # Record what has been evaluated in the meantime.
                with contextlib.suppress(Exception):
                    self._collect_last()
                self._cancel()
            raise

    def _hand_out(self) -> bool:
        """Starts as many tasks as may run; returns whether any is running."""
        num_slots = self._pool.num_slots(self._ray.cluster_resources())
        while len(self._running) < num_slots:
            found = next(self._inputs, None)
            if found is None:
                break
            self._start(_Task(*found, time.perf_counter(), 0))
        return bool(self._running)

    def _start(self, task: _Task) -> None:
        limit = self._pool.timeout_seconds
        with processes.interrupts_held():  # So that it can be cancelled.
            reference = self._remote.remote(self._sent, task.pickled, limit)
            self._running[reference] = task

    def _collect(self, seconds: float) -> None:
        """Waits for a result; passes on those that there are."""
        self._ray.wait([*self._running], num_returns=1, timeout=seconds)
        ready, _ = self._ray.wait(
            [*self._running], num_returns=len(self._running), timeout=0
        )
        for reference in ready:
            # So that an interrupt does not lose a result.
            with processes.interrupts_held():
                task = self._running.pop(reference)
                result = self._result(reference, task)
                if result is not None:
                    self._done(task.number, result)

    def _result(self, reference: Any, task: _Task) -> Result | None:
        """Returns the result of a task that has ended.

        If its node was lost, it may be started again, and has none.
        """
        errors = self._ray.exceptions
        seconds = time.perf_counter() - task.started
        try:
            return Result(**self._ray.get(reference))
        except errors.RayTaskError as error:
            if isinstance(error.cause, RuntimeError):
                raise RuntimeError(str(error.cause)) from error
            raise RuntimeError(
                f"tfvae {__version__} must be installed on all nodes, got "
                f"{one_line(error.cause or error)}"
            ) from error
        except (errors.NodeDiedError, errors.LocalRayletDiedError) as error:
            lost = error
        except errors.RuntimeEnvSetupError:
            raise
        except errors.RayError as error:
            return Result(None, one_line(error), seconds, None, str(error))
        if task.num_losses < self._pool.retries_of_lost_nodes:
            self._start(task._replace(num_losses=task.num_losses + 1))
            return None
        failure = "the node was lost"
        return Result(None, failure, seconds, None, str(lost))

    def _collect_last(self) -> None:
        """Passes on results that are already known."""
        end = time.monotonic() + _LAST_SECONDS
        while self._running and (left := end - time.monotonic()) > 0.0:
            self._collect(left)

    def _cancel(self) -> None:
        """Ends all tasks, running or not, and waits for their end."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        if self._running:
            self._ray.wait(
                [*self._running],
                num_returns=len(self._running),
                timeout=_CANCEL_SECONDS,
            )
        self._running.clear()


def _ray() -> Any:
    """Returns the module of Ray."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "`RayPool` must have Ray, got none: pip install 'tfvae[ray]'"
        ) from error
    return ray


# In the processes of Ray.


def _evaluate(
    sent: Pickled, pickled: str, timeout_seconds: float | None
) -> dict[str, Any]:
    """Returns the fields of the result of an input; the function of tasks."""
    results: list[Result] = []
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    pool = _pool(timeout_seconds, devices)
    try:
        pool.evaluate(
            sent,
            iter([(0, pickled)]),
            lambda _, result: results.append(result),
        )
    except RuntimeError as error:
        raise RuntimeError(f"{error} (on {socket.gethostname()})") from error
    return results[0]._asdict()


@functools.lru_cache(maxsize=1)
def _pool(timeout_seconds: float | None, devices: str | None) -> ProcessPool:
    """Returns the pool of this process, which later tasks use again.

    Args:
      timeout_seconds: See `ProcessPool`.
      devices: The GPUs of this process, which its children see as well.
    """
    return ProcessPool(1, timeout_seconds)
