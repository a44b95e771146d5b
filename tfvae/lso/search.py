# SPDX-License-Identifier: Apache-2.0
"""Maximisation of acquisition functions: L-BFGS-B, differential evolution."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import scipy.optimize
import threadpoolctl

ValuesAndGradients = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""`points [q, M] -> values [q], gradients [q, M]`."""


class Box(NamedTuple):
    """Box constraints of queries.

    Attributes:
      low: Lower bounds, float32 `[M]`.
      high: Upper bounds, float32 `[M]`.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(
        cls,
        latents: np.ndarray,
        quantile: float = 0.999,
        margin: float = 1.1,
        shares_bound: bool = True,
    ) -> Box:
        """Returns the bounding box of data, symmetric about zero.

        Args:
          latents: `[n, M]`.
          quantile: The quantile of the absolute latents that is the bound.
          margin: Factor that the bound is multiplied by.
          shares_bound: Whether all coordinates have one common bound, rather
            than one each.
        """
        sizes = np.abs(np.asarray(latents, np.float64))
        axis = None if shares_bound else 0
        bound = margin * np.quantile(sizes, quantile, axis=axis)
        high = np.broadcast_to(bound, sizes.shape[1:]).astype(np.float32)
        return cls(-high, high)

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """The bounds of each coordinate, as scipy takes them."""
        return list(zip(self.low.tolist(), self.high.tolist(), strict=True))

    def clip(self, points: np.ndarray) -> np.ndarray:
        """Projects points to the box, float32."""
        points = np.asarray(points, np.float32)
        return np.clip(points, self.low, self.high)

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draws uniformly, float32 `[count, M]`."""
        shares = rng.random((count, len(self.low)))
        return self.clip(self.low + shares * (self.high - self.low))


class Maxima(NamedTuple):
    """Local maxima found by a search.

    Attributes:
      points: float32 `[k, M]`.
      values: Function values there, float64 `[k]`.
    """

    points: np.ndarray
    values: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """The best point, `[1, M]`."""
        return self.points[[int(np.argmax(self.values))]]


def one_blas_thread() -> AbstractContextManager:
    """Limits BLAS to one thread in this process, inside a `with` statement.

    L-BFGS-B multiplies tiny matrices, for which several threads only wait for
    each other: tens of times as long where other programs are running too.
    """
    return _thread_pools().limit(limits=1, user_api="blas")


@functools.cache
def _thread_pools() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


class _Stopped(Exception):
    """Ends the thread of a search that is cancelled."""


def multi_start_lbfgs(
    function: ValuesAndGradients,
    starts: np.ndarray,
    box: Box,
    max_iterations: int = 100,
) -> Maxima:
    """Maximises a function by L-BFGS-B from several starts in parallel.

    The searches are independent, but their function evaluations are batched:
    each runs scipy's optimizer in a thread of its own, in lockstep with the
    others, so that the result does not depend on thread scheduling.

    Args:
      function: The function to maximise; always called with k points, where a
        search that has ended repeats its last one.
      starts: `[k, M]`, in the box.
      box: Box constraints.
      max_iterations: Iterations of each search.

    Returns:
      The best point of each search.
    """
    with one_blas_thread():
        return _multi_start(function, starts, box, max_iterations)


def _multi_start(
    function: ValuesAndGradients,
    starts: np.ndarray,
    box: Box,
    max_iterations: int,
) -> Maxima:
    searches = _Searches(starts, box, max_iterations)
    points = np.array(starts, np.float64)
    best_points, best_values = points.copy(), np.full(len(points), -np.inf)
    try:
        while True:
            waiting = searches.wait(points)
            if not waiting:
                break
            values, gradients = function(points)
            # scipy minimises, and cannot handle NaN.
            values = np.where(np.isfinite(values), values, -1e300)
            better = values > best_values
            best_points[better] = points[better]
            best_values[better] = values[better]
            searches.answer(waiting, -values, -np.nan_to_num(gradients))
    finally:
        searches.stop()
    return Maxima(box.clip(best_points), best_values)


def sequential_lbfgs(
    function: ValuesAndGradients,
    starts: np.ndarray,
    box: Box,
    max_iterations: int = 100,
) -> Maxima:
    """Maximises by L-BFGS-B from one start after another, until one converges.

    That is often the first search, so the result depends on the order of the
    starts. A search that ends otherwise (such as at once, where there is no
    gradient) is followed by the next.

    Args:
      function: The function to maximise.
      starts: `[k, M]`, in the box.
      box: Box constraints.
      max_iterations: Iterations of each search.

    Returns:
      The best point of each search that was made.
    """

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        values, gradients = function(point[None])
        if not np.isfinite(values[0]):
            return 1e300, np.zeros_like(point)
        return -float(values[0]), -np.nan_to_num(gradients[0])

    points, values = [], []
    for start in starts:
        with one_blas_thread():
            result = _minimized(loss, start, box, max_iterations)
        points.append(result.x)
        values.append(-float(result.fun))
        if "REDUCTION" in str(result.message).upper():
            break
    return Maxima(box.clip(np.array(points)), np.array(values))


def _minimized(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    box: Box,
    max_iterations: int,
) -> scipy.optimize.OptimizeResult:
    """Minimises a function that returns value and gradient by L-BFGS-B."""
    return scipy.optimize.minimize(
        loss,
        np.asarray(start, np.float64),
        jac=True,
        bounds=box.pairs,
        method="L-BFGS-B",
        options={"maxiter": max_iterations},
    )


class _Searches:
    """Threads that each run an optimizer, and wait for values together."""

    def __init__(self, starts: np.ndarray, box: Box, max_iterations: int):
        """Starts them."""
        self._asked: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: list[queue.SimpleQueue] = [
            queue.SimpleQueue() for _ in starts
        ]
        self._running = set(range(len(starts)))

        def run(i: int) -> None:
            result = None
            try:
                result = _minimized(
                    functools.partial(self._ask, i),
                    starts[i],
                    box,
                    max_iterations,
                )
            except _Stopped:
                pass
            except Exception as error:
                result = error
            self._asked.put((i, None, result))

        self._threads = [
            threading.Thread(target=run, args=[i], daemon=True)
            for i in range(len(starts))
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, i: int, point: np.ndarray) -> tuple[float, np.ndarray]:
        self._asked.put((i, np.array(point), None))
        answer = self._answers[i].get()
        if answer is None:
            raise _Stopped
        return answer

    def wait(self, points: np.ndarray) -> list[int]:
        """Waits until each search needs a value or has ended.

        Args:
          points: `[k, M]`, overwritten by the points to evaluate.

        Returns:
          Indices of the searches that need a value.
        """
        waiting = []
        for _ in range(len(self._running)):
            i, point, result = self._asked.get()
            if point is not None:
                points[i] = point
                waiting.append(i)
            elif isinstance(result, Exception):
                self._running = set(waiting)
                raise result
        self._running = set(waiting)
        return waiting

    def answer(
        self, waiting: list[int], values: np.ndarray, gradients: np.ndarray
    ) -> None:
        for i in waiting:
            self._answers[i].put((float(values[i]), gradients[i].copy()))

    def stop(self) -> None:
        for answers in self._answers:
            answers.put(None)
        for thread in self._threads:
            thread.join()


def differential_evolution(
    function: Callable[[np.ndarray], np.ndarray],
    starts: np.ndarray,
    box: Box,
    seed: int,
    max_iterations: int = 50,
) -> Maxima:
    """Maximises a function without gradients by differential evolution.

    Args:
      function: `points [q, M] -> values [q]`.
      starts: Initial population, `[k, M]`; k at least 5.
      box: Box constraints; the bounds of a coordinate may be equal.
      seed: Seed of the search.
      max_iterations: Number of generations.

    Returns:
      The last population, its best member first.
    """
    result = scipy.optimize.differential_evolution(
        lambda columns: -function(columns.T),
        box.pairs,
        init=np.asarray(starts, np.float64),
        maxiter=max_iterations,
        polish=False,
        vectorized=True,
        updating="deferred",
        seed=seed,
    )
    return Maxima(box.clip(result.population), -result.population_energies)


def greedy_batch(
    draws: np.ndarray,
    incumbent: float,
    count: int,
    first: Sequence[int] = (),
    probs: np.ndarray | None = None,
) -> np.ndarray:
    """Greedily chooses a batch by joint expected improvement, by Monte Carlo.

    Args:
      draws: Joint draws of f at candidates, `[num_draws, C]`.
      incumbent: The score to improve on.
      count: Size of the batch, at most C.
      first: Indices of candidates that are chosen first.
      probs: Probabilities that the candidates are feasible, `[C]`; None for 1.
        The others have to improve on what those chosen reach in expectation
        over whether they are feasible, draw by draw.

    Returns:
      Indices of `count` distinct candidates, int64.
    """
    chosen: list[int] = []
    reached = np.full((len(draws), 1), incumbent)
    free = np.ones(draws.shape[1], bool)
    probs = np.ones(draws.shape[1]) if probs is None else probs
    for i in range(count):
        if i < len(first):
            best = first[i]
        else:
            best = _most_improving(draws - reached, probs, free)
        chosen.append(best)
        free[best] = False
        share = probs[best]
        improved = np.maximum(reached, draws[:, [best]])
        reached = (1.0 - share) * reached + share * improved
    return np.array(chosen, np.int64)


def _most_improving(
    gains: np.ndarray, probs: np.ndarray, free: np.ndarray
) -> int:
    """Returns the free candidate of the largest expected improvement."""
    improvement = probs * np.maximum(gains, 0.0).mean(0)
    # Where no draw improves, take the smallest mean shortfall.
    order = np.lexsort([gains.mean(0), improvement, free])
    return int(order[-1])


def distinct_rows(points: np.ndarray) -> np.ndarray:
    """Returns the index of the first of each distinct row, ascending."""
    rows: dict[bytes, int] = {}
    for i, row in enumerate(points + 0.0):  # No -0.0.
        rows.setdefault(row.tobytes(), i)
    return np.fromiter(rows.values(), np.int64, len(rows))
