# SPDX-License-Identifier: Apache-2.0
"""Inputs that a task refuses are no queries; data that it refuses stay data."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pathlib
import pickle
from unittest import mock

import numpy as np
from absl.testing import absltest

from tests.lso import fakes, tiny
from tfvae.lso import Addition, Plan, PriorSampling, ScoredData
from tfvae.lso.collection import Collection
from tfvae.lso.reading import read, resolved
from tfvae.lso.stopping import Stopping
from tfvae.lso.tasks.base import Decodes
from tfvae.runs import (
    evaluations,
    optimization_figures,
    optimization_readout,
)

POSITIVE = "the first number must be negative"


def refuse(one):
    """Allows vectors whose first number is negative."""
    return POSITIVE if one[0] >= 0.0 else None


def data(seed=0):
    """Returns vectors of which some are refused, the best one too."""
    points = tiny.data(seed).points
    scores = [tiny.objective(one) for one in points]
    return ScoredData(points, scores, list(points))


def task(**kwargs):
    return tiny.task(**{"data": data, "refuse": refuse} | kwargs)


class RefusalsTest(absltest.TestCase):
    def opened(self, plan, folder=None, **values):
        folder = folder or self.create_tempdir().full_path
        values = {"task": task(), "strategy": PriorSampling()} | values
        return fakes.opened(folder, plan, **values)

    def test_no_query_is_refused_and_all_are_counted(self):
        with self.opened(Plan(budget=12, queries_per_round=4)) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
            count = optimizer.task.decodes
        self.assertLen(entries, 12)
        for one in entries:
            self.assertLess(one.input[0], 0.0)
            self.assertIsNone(one.failure)
        self.assertEqual({*count.refused}, {POSITIVE})
        self.assertEqual(count.num_invalid, 0)
        self.assertGreaterEqual(count.num - count.refused[POSITIVE], 12)

    def test_search_without_anything_allowed_says_why(self):
        def never(one):
            return None if one[3] > 50.0 else "the last number must be large"

        def with_one(seed):
            points = np.concatenate([tiny.data().points, [[0, 0, 0, 60]]])
            return ScoredData(points, np.arange(len(points)), list(points))

        made = task(refuse=never, data=with_one)
        with self.opened(Plan(budget=2), task=made) as optimizer:
            optimizer.run()
            self.assertEmpty(optimizer.ledger.entries)
            self.assertRegex(
                optimizer.stopped,
                "0 to none, and [0-9,]+ to inputs that the task refuses "
                r"\([0-9,]+ x the last number must be large\)",
            )

    def test_what_a_strategy_has_read_again_is_counted(self):
        strategy = _Rereading()
        with self.opened(Plan(budget=2), strategy=strategy) as optimizer:
            optimizer.run()
            count = optimizer.task.decodes
        # Its own reading, and that of the latents that it proposes.
        self.assertGreaterEqual(count.num, 52)

    def test_resumed_run_makes_the_same_queries(self):
        whole, broken = (self.create_tempdir().full_path for _ in range(2))
        plan = Plan(budget=8, queries_per_round=3)
        with self.opened(plan, whole) as optimizer:
            optimizer.run()
            expected = fakes.sequence(optimizer.ledger.entries)
        for _ in range(8):
            with self.opened(plan, broken) as optimizer:
                (query,) = optimizer.ask()[:1]
                optimizer.tell(query.number, tiny.objective(query.input))
        with self.opened(plan, broken) as optimizer:
            found = fakes.sequence(optimizer.ledger.entries)
        self.assertEqual(found, expected)

    def test_best_of_the_data_is_allowed_and_refused_weigh_less(self):
        made = resolved(task(), data())
        collection = Collection(made, made.data(0))
        refused = np.array([one[0] >= 0.0 for one in data().points])
        np.testing.assert_array_equal(collection.is_refused, refused)
        np.testing.assert_array_equal(collection.is_feasible, ~refused)
        scores = collection.weights(_Scores())
        median = np.median(collection.scores)
        self.assertLessEqual(scores[refused].max(), median)
        np.testing.assert_array_equal(
            scores[~refused], collection.scores[~refused]
        )
        with self.opened(Plan(budget=2)) as optimizer:
            best = optimizer.ledger.header["best_in_data"]
        self.assertEqual(best, collection.scores[~refused].max())
        self.assertLess(best, collection.scores.max())

    def test_surrogate_knows_all_allowed_data_before_others(self):
        plan = Plan(budget=2, num_best=10, num_random=1)
        with self.opened(plan, strategy=fakes.Walk()) as optimizer:
            optimizer.ask(1)
            rows = optimizer._proposer.rows_of(0)
        refused = np.array([one[0] >= 0.0 for one in data().points])
        self.assertFalse(refused[rows[:10]].any())

    def test_rule_is_asked_once_about_an_addition(self):
        asked = mock.Mock(side_effect=refuse)
        made = task(refuse=asked)
        collection = Collection(resolved(made, data()), made.data(0))
        asked.reset_mock()
        for value in (1, 2, 1):
            one = Addition(9.0, input=[value, 0, 0, 0])
            self.assertTrue(collection.refuses(one))
        self.assertEqual(asked.call_count, 2)

    def test_additions_that_are_refused_are_never_feasible(self):
        with self.opened(Plan(budget=4, queries_per_round=2)) as optimizer:
            optimizer.ask(1)
            best = [Addition(99.0, input=[one, 0, 0, 0]) for one in (1, -1)]
            optimizer.add(best)
            optimizer.run()
            collection = optimizer.collection
        rows = np.flatnonzero(collection.scores == 99.0)
        np.testing.assert_array_equal(
            collection.is_feasible[rows], [False, True]
        )

    def test_additions_that_a_rule_fails_for_are_an_error(self):
        def fails_for_seven(one):
            return 1 // 0 if one[0] == 7.0 else None

        made = task(refuse=fails_for_seven)
        with self.opened(Plan(budget=1), task=made) as optimizer:
            with self.assertRaisesRegex(ValueError, "`refuse` .* b.csv: Zero"):
                optimizer.add([Addition(1.0, [7, 0, 0, 0], source="b.csv")])
            self.assertEmpty(optimizer.ledger.records.additions)

    def test_data_without_inputs_cannot_be_asked_about(self):
        made = task(data=tiny.data)
        with self.assertRaisesRegex(ValueError, "`inputs` must .* got None"):
            resolved(made, made.data(0))

    def test_another_rule_is_another_run_if_it_refuses_other_data(self):
        folder = self.create_tempdir().full_path
        with self.opened(Plan(budget=2), folder) as optimizer:
            optimizer.run()
        with self.assertRaisesRegex(ValueError, "data"):
            self.opened(
                Plan(budget=2),
                folder,
                task=task(refuse=lambda one: None),
            )

    def test_rule_that_raises_refuses_decodes_and_stops_with_data(self):
        made = tiny.task(refuse=lambda one: 1 / 0)
        (one,) = read(made, tiny.data().points[:1], 0)
        self.assertTrue(one.is_refused)
        self.assertRegex(one.failure, "refusing fails: ZeroDivisionError")
        with self.assertRaisesRegex(ValueError, "`refuse` fails for datum 0"):
            task(refuse=lambda one: 1 / 0).data(0)

    def test_rule_is_kept_by_copies_and_pickles(self):
        made = task()
        self.assertIs(resolved(made, made.data(0)).decodes, made.decodes)
        again = pickle.loads(pickle.dumps(made.data))
        self.assertEqual(again(0).refusals, made.data(0).refusals)
        self.assertEqual(made.decodes, Decodes())


class ReadOutTest(absltest.TestCase):
    def test_counts_are_those_of_the_whole_run(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        for name in ("write_run_figures", "progress_chart"):
            self.enter_context(
                mock.patch.object(optimization_figures, name, return_value="")
            )
        counted, made = [], task()
        read(made, tiny.data(1).points, 0)  # For something else.
        for budget, one in ((3, made), (6, task())):
            plan = Plan(budget=budget)
            with fakes.opened(
                folder, plan, task=one, strategy=PriorSampling()
            ) as optimizer:
                read_out = optimization_readout.ReadOut(folder, one, None)
                before = one.decodes.copy()
                aside = io.StringIO()
                with contextlib.redirect_stdout(aside):
                    result = evaluations.run(
                        optimizer, None, Stopping(), read_out
                    )
                counted.append(one.decodes.since(before))
        both = counted[0].plus(counted[1])
        self.assertEqual(
            result["decodes"],
            {
                "num": both.num,
                "num_invalid": 0,
                "validity": 1.0,
                "refused": {POSITIVE: both.refused[POSITIVE]},
            },
        )
        refused = int(made.data(0).is_refused.sum())
        self.assertIn(
            f"{refused} of the data would be refused as queries "
            f"({refused} x {POSITIVE})",
            aside.getvalue(),
        )
        self.assertIn(
            f"{both.num:,} candidates decoded, 100.0 % to an input; refused "
            f"before a query: {both.refused[POSITIVE]:,} x {POSITIVE}",
            aside.getvalue(),
        )
        # Who only tells a result decodes nothing.
        again = optimization_readout.write(folder)
        self.assertEqual(again["decodes"], result["decodes"])


@dataclasses.dataclass(frozen=True)
class _Rereading(PriorSampling):
    """A strategy that proposes draws of the prior which the task allows."""

    def propose(self, context, num_queries, seed):
        latents = context.space.sample_prior(seed, 50)
        _, rows = context.reread(latents, seed)
        return latents[rows[:num_queries]]


class _Scores:
    """A weighting whose weights are the scores."""

    def __call__(self, scores):
        return scores


if __name__ == "__main__":
    absltest.main()
