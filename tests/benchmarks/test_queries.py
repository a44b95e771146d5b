# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmark of the cost of a query."""

from __future__ import annotations

import os
import time
from unittest import mock

from absl.testing import absltest

from benchmarks import queries
from tfvae.lso import AggregateSampling, LatentSpaceOptimizer, Plan, Rank, Task


class Steps:
    """Calls each of its methods within the one before."""

    def __init__(self, tick):
        self._tick = tick

    def fit(self):
        self._tick(1.0)

    def ask(self, count):
        self._tick(10.0)
        self.fit()
        self._tick(100.0)
        return count


class QueriesTest(absltest.TestCase):
    def test_time_counts_for_one_part(self):
        now = [0.0]

        def tick(seconds):
            now[0] += seconds

        clock, steps = queries.Clock(), Steps(tick)
        clock.measure(steps, "fit", "fit")
        clock.measure(steps, "ask", "propose")
        with mock.patch.object(time, "process_time", lambda: now[0]):
            self.assertEqual(steps.ask(7), 7)
            steps.fit()
        spent = {part: one for part, one in clock.seconds.items() if one}
        self.assertEqual(spent, {"fit": 2.0, "propose": 110.0})

    def test_windows_are_spread_over_the_run(self):
        self.enter_context(mock.patch.object(os, "fsync"))
        model, clock = queries.IdentityModel(8), queries.Clock()
        task = Task("distance", queries.data, queries.objective)
        with LatentSpaceOptimizer(
            self.create_tempdir().full_path,
            task,
            model,
            model,
            Plan(40, queries_per_round=10),
            strategy=AggregateSampling(),
            weighting=Rank(1e-3),
        ) as optimizer:
            clock.measure(optimizer, "ask", "propose")
            found = [*queries.windows(optimizer, clock, 5, 3)]
            self.assertEqual(optimizer.num_done, 40)
            with self.assertRaisesRegex(
                ValueError, "`budget` must be at least"
            ):
                next(queries.windows(optimizer, clock, 20, 3))
        self.assertEqual([one.first for one in found], [5, 20, 35])
        for one in found:
            self.assertGreater(one.milliseconds["propose"], 0.0)
            self.assertGreater(one.memory, 1.0)


if __name__ == "__main__":
    absltest.main()
