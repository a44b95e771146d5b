# SPDX-License-Identifier: Apache-2.0
"""Searches for the maxima of acquisition functions."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize

ValuesAndGradients = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""`points [q, M] -> values [q], their gradients [q, M]`."""


class Box(NamedTuple):
    """Where queries may be.

    Attributes:
      low: float32 `[M]`.
      high: float32 `[M]`.
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
        """Returns the box of data, symmetric about zero.

        Args:
          latents: `[n, M]`.
          quantile: Which quantile of the absolute latents bounds them.
          margin: What this is multiplied by.
          shares_bound: Whether one bound holds for all coordinates, rather
            than one for each.
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
        """Returns the nearest points of the box, float32."""
        points = np.asarray(points, np.float32)
        return np.clip(points, self.low, self.high)

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draws uniformly, float32 `[count, M]`."""
        shares = rng.random((count, len(self.low)))
        return self.clip(self.low + shares * (self.high - self.low))


class Maxima(NamedTuple):
    """What a search found.

    Attributes:
      points: float32 `[k, M]`.
      values: float64 `[k]`.
    """

    points: np.ndarray
    values: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """The best point, `[1, M]`."""
        return self.points[[int(np.argmax(self.values))]]


class _Stopped(Exception):
    """Ends a climb that is no longer wanted."""


def climb(
    function: ValuesAndGradients,
    starts: np.ndarray,
    box: Box,
    max_iterations: int = 100,
) -> Maxima:
    """Climbs from several starts at once by L-BFGS-B.

    Climbs do not know of each other, but all that wait for the function get
    its values of one call: a thread each runs scipy's optimiser, in step with
    the others. So the order in which threads run changes nothing.

    Args:
      function: What to maximise; always called with as many points as there
        are starts, where a climb that has ended repeats its last one.
      starts: `[k, M]`, in the box.
      box: Where to stay.
      max_iterations: Of each climb.

    Returns:
      The best point of each climb.
    """
    climbs = _Climbs(starts, box, max_iterations)
    points = np.array(starts, np.float64)
    best_points, best_values = points.copy(), np.full(len(points), -np.inf)
    try:
        while True:
            waiting = climbs.wait(points)
            if not waiting:
                break
            values, gradients = function(points)
            # The optimiser minimises, and has no use for NaN.
            values = np.where(np.isfinite(values), values, -1e300)
            better = values > best_values
            best_points[better] = points[better]
            best_values[better] = values[better]
            climbs.answer(waiting, -values, -np.nan_to_num(gradients))
    finally:
        climbs.stop()
    return Maxima(box.clip(best_points), best_values)


def climb_in_turn(
    function: ValuesAndGradients,
    starts: np.ndarray,
    box: Box,
    max_iterations: int = 100,
) -> Maxima:
    """Climbs from one start after another, until a climb levels off.

    That is often the first, so what is found depends on which start that is.
    A climb that ends otherwise (at once, where there is no gradient) is
    followed by the next.

    Args:
      function: What to maximise.
      starts: `[k, M]`, in the box.
      box: Where to stay.
      max_iterations: Of each climb.

    Returns:
      The best point of each climb that was made.
    """

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        values, gradients = function(point[None])
        if not np.isfinite(values[0]):
            return 1e300, np.zeros_like(point)
        return -float(values[0]), -np.nan_to_num(gradients[0])

    points, values = [], []
    for start in starts:
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
    """Minimises a function, which returns its gradient, too, by L-BFGS-B."""
    return scipy.optimize.minimize(
        loss,
        np.asarray(start, np.float64),
        jac=True,
        bounds=box.pairs,
        method="L-BFGS-B",
        options={"maxiter": max_iterations},
    )


class _Climbs:
    """Threads that run an optimiser each, and wait for values together."""

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
        """Waits until each climb asks or has ended; writes into `points`.

        Returns:
          Which of them ask.
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
    """Maximises a function without gradients in a box, from a population.

    Args:
      function: `points [q, M] -> values [q]`.
      starts: The first population, `[k, M]`; k at least 5.
      box: Where to stay; may be a point in some coordinates.
      seed: Of the search.
      max_iterations: Generations.

    Returns:
      The last population, the best of it first.
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
    draws: np.ndarray, incumbent: float, count: int, first: int | None = None
) -> np.ndarray:
    """Chooses a batch of greatest expected improvement, one after another.

    Args:
      draws: Joint draws of f at candidates, `[num_draws, C]`.
      incumbent: What to improve on.
      count: Points of the batch, at most C.
      first: The candidate that is chosen first; None for the best by draws.

    Returns:
      int64 index of `count` different candidates.
    """
    chosen: list[int] = []
    reached = np.full((len(draws), 1), incumbent)
    free = np.ones(draws.shape[1], bool)
    for i in range(count):
        gains = np.maximum(draws - reached, 0.0).mean(0)
        # Where no draw improves, the candidate that comes nearest.
        nearest = (draws - reached).mean(0)
        order = np.lexsort([nearest, gains, free])
        best = first if i == 0 and first is not None else int(order[-1])
        chosen.append(best)
        free[best] = False
        reached = np.maximum(reached, draws[:, [best]])
    return np.array(chosen, np.int64)


def distinct_rows(points: np.ndarray) -> np.ndarray:
    """Returns where each distinct row stands first, rising."""
    _, first = np.unique(points, axis=0, return_index=True)
    return np.sort(first)
