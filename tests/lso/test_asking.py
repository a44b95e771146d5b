# SPDX-License-Identifier: Apache-2.0
"""The day around an optimisation: asks, tells, amendments, additions."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from tests.lso import fakes, tiny
from tests.lso.fakes import Believing, Walk
from tfvae.lso import (
    FB,
    Addition,
    Ledger,
    Plan,
    PriorSampling,
    Rank,
    Score,
    ScoredData,
    Stopping,
    records,
)

PLAN = Plan(budget=24, queries_per_round=8, num_best=4, num_random=6, seed=5)


class Seeing:
    """A strategy that draws near a datum, and keeps its last context."""

    uses_data = True
    uses_surrogate = False

    def __repr__(self):
        return "Seeing()"

    def num_at_a_time(self, num_left):
        return 1

    def propose(self, context, num_queries, seed):
        self.context = context
        step = np.random.default_rng(seed).normal(size=(num_queries, 2))
        return (context.latents[:1] + step).astype(np.float32)


class Case(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        # Nothing here pulls the plug, and a sync takes 10 ms.
        self.enter_context(mock.patch.object(os, "fsync"))
        self.folder = self.create_tempdir().full_path

    def open(self, folder=None, **kwargs):
        values = {"plan": PLAN, "weighting": Rank(0.1), **kwargs}
        return fakes.opened(folder or self.folder, **values)

    def proposals(self, folder=None):
        """Returns all queries of the ledger, in the order of their proposal."""
        with self.open(folder) as optimizer:
            return [*optimizer.ledger.records._queries.values()]


class RereadTest(Case):
    def test_latents_of_distinct_inputs_come_back_with_their_rows(self):
        def read(means, seed):
            whole = np.round(means)
            return [None if row[0] > 2.0 else row.tolist() for row in whole]

        strategy, space = Seeing(), fakes.Space()
        with self.open(
            task=tiny.task(read=read), strategy=strategy, space=space
        ) as optimizer:
            optimizer.ask(1)
        # The second decodes to nothing, the third as the first does.
        points = np.array([[1, 2, 0, 1], [3, 0, 0, 0], [1, 2, 0, 1], [0] * 4])
        with mock.patch.object(space, "decode", lambda latents: points + 0.1):
            latents, rows = strategy.context.reread(np.zeros((4, 2)), 0)
        np.testing.assert_array_equal(rows, [0, 3])
        np.testing.assert_array_equal(latents, space.encode(points[rows]))
        with mock.patch.object(space, "decode", lambda latents: points + 9.0):
            latents, rows = strategy.context.reread(np.zeros((4, 2)), 0)
        self.assertEqual((latents.shape, rows.shape), ((0, 2), (0,)))


class PendingTest(Case):
    def test_more_can_be_asked_for_while_others_are_pending(self):
        with self.open() as optimizer:
            first = optimizer.ask(5)
            self.assertEqual([one.number for one in first], [0, 1, 2, 3, 4])
            second = optimizer.ask(2)
            self.assertEqual([one.number for one in second], [5, 6])
            self.assertEqual(optimizer.ask(), first + second)

    def test_pending_queries_are_believed_to_have_the_mean(self):
        surrogate = Believing()
        with self.open(surrogate=surrogate) as optimizer:
            optimizer.ask(1)
            num_known = len(surrogate.known[1])
            (second,) = optimizer.ask(1)
            latents, scores = surrogate.known
            self.assertLen(scores, num_known + 1)
            self.assertAlmostEqual(scores[-1], np.mean(scores[:-1]))
            (first, _) = optimizer.ask()
            np.testing.assert_array_equal(latents[-1], np.float32(first.latent))
        self.assertEqual(second.saw, 0)

    def test_strategies_know_the_scores_in_the_order_of_their_results(self):
        strategy = Seeing()
        with self.open(strategy=strategy, surrogate=None) as optimizer:
            optimizer.ask(5)
            optimizer.tell(3, -3.0)
            optimizer.tell(1, failure="no")
            optimizer.tell(0, -7.0, constraints={"size": 1.0})
            optimizer.tell(2, -2.0)
            optimizer.amend(1, -1.0)
            optimizer.amend(2, failure="wrong")
            optimizer.withdraw(3)
            optimizer.tell(3, -4.0)
            optimizer.ask(1)
        expected = [-1.0, -np.inf, -np.inf, -4.0]
        np.testing.assert_array_equal(strategy.context.history, expected)
        with self.open(strategy=strategy, surrogate=None) as optimizer:
            optimizer.ask(1)
        np.testing.assert_array_equal(strategy.context.history, expected)

    def test_strategies_without_surrogates_know_what_is_pending(self):
        strategy = Seeing()
        with self.open(strategy=strategy, surrogate=None) as optimizer:
            (first, _) = optimizer.ask(2)
            optimizer.tell(1, -1.0)
            optimizer.ask(1)
        np.testing.assert_array_equal(
            strategy.context.pending, [np.float32(first.latent)]
        )
        self.assertLen(strategy.context.latents, 10 + 1)

    def test_what_was_believed_leaves_no_trace(self):
        def second_after(count):
            folder = self.create_tempdir().full_path
            with self.open(folder) as optimizer:
                (first, *others) = optimizer.ask(count)
                optimizer.tell(0, -1.0)
                for one in others:
                    optimizer.tell(one.number, -2.0)
                return optimizer._proposer._state.surrogate

        once, again = second_after(3), second_after(3)
        np.testing.assert_array_equal(once["scale"], again["scale"])

    def test_a_round_begins_while_queries_of_the_last_are_pending(self):
        with self.open() as optimizer:
            optimizer.ask(8)
            for number in range(6):
                optimizer.tell(number, -float(number))
            (new,) = optimizer.ask(1)
            self.assertEqual((new.number, new.round, new.saw), (8, 1, 6))
            self.assertLen(optimizer.collection.points, tiny.NUM_DATA + 6)
            late = optimizer.tell(6, -6.0)
            self.assertEqual(late.round, 0)
            # It is known to the surrogate now, and data from the next round on.
            surrogate = optimizer._proposer._surrogate
            optimizer.ask(1)
            self.assertIn(-6.0, surrogate.known[1])
            optimizer.ask(6)
            for one in optimizer.ask():
                optimizer.tell(one.number, -1.0)
            optimizer.ask(1)
            self.assertLen(optimizer.collection.points, tiny.NUM_DATA + 16)

    def test_points_of_earlier_rounds_stay_as_they_were(self):
        with self.open() as optimizer:
            seen = []
            while queries := optimizer.ask():
                for query in queries:
                    optimizer.tell(query.number, tiny.objective(query.input))
                seen.append(optimizer.collection.points)
            copies = [one.copy() for one in seen]
            optimizer.collection.follow(
                records.Round(3), None, optimizer._weighting
            )
            points = optimizer.collection.points
        self.assertLen(points, tiny.NUM_DATA + PLAN.budget)
        for before, copy in zip(seen, copies, strict=True):
            np.testing.assert_array_equal(before, copy)
            np.testing.assert_array_equal(points[: len(copy)], copy)
        np.testing.assert_array_equal(copies[0], tiny.data(5).points)
        inputs = [one.input for one in optimizer.ledger.entries]
        np.testing.assert_array_equal(
            points[tiny.NUM_DATA :], np.float32(inputs)
        )

    def test_what_is_known_grows_to_what_is_read_from_the_ledger(self):
        plan = dataclasses.replace(PLAN, budget=12, queries_per_round=12)
        with self.open(plan=plan) as optimizer:
            for step in range(3):
                for query in optimizer.ask(4):
                    optimizer.tell(query.number, -float(query.number))
                optimizer.amend(step, failure="wrong")
                optimizer.amend(3 + step, -9.0, constraints={"size": 1.0})
            optimizer.withdraw(2)
            optimizer.add([Addition(0.5, point=[1.0, 2.0, 3.0, 4.0])])
            before = self._known(optimizer)
        with self.open(plan=plan) as optimizer:
            after = self._known(optimizer)
        self.assertLen(before[1], 10 + 11 + 1)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)

    def _known(self, optimizer):
        """Returns all that the surrogate is fitted to, and the points."""
        optimizer.predicted()  # Enters the round.
        proposer = optimizer._proposer
        known = proposer._points.known(proposer._state)
        found = [
            *known[:3],
            known.constraints["size"],
            proposer._points.points(),
        ]
        self.assertTrue(np.isnan(found[3][:10]).all())
        return found

    def test_a_budget_that_is_refused_does_not_become_that_of_the_run(self):
        with self.open() as optimizer:
            for query in optimizer.ask(3):
                optimizer.tell(query.number, -1.0)
            before = optimizer.ledger.path.read_bytes()
        with self.assertRaisesRegex(ValueError, "`budget` must be at least 3"):
            self.open(plan=dataclasses.replace(PLAN, budget=2))
        self.assertEqual(optimizer.ledger.path.read_bytes(), before)
        self.open().close()

    def test_the_budget_counts_what_is_pending(self):
        plan = dataclasses.replace(PLAN, budget=10)
        with self.open(plan=plan) as optimizer:
            self.assertLen(optimizer.ask(7), 7)
            self.assertLen(optimizer.ask(7), 3)
            self.assertEqual(optimizer.ask(1), [])
            optimizer.tell(4, -1.0)
            self.assertEqual(optimizer.ask(1), [])
            optimizer.withdraw(4)
            self.assertEqual(optimizer.ask(1), [])

    @parameterized.parameters(0, -1, True, 2.0, "2")
    def test_number_of_queries_is_checked(self, count):
        with (
            self.open() as optimizer,
            self.assertRaisesRegex(
                ValueError, "`count` must be an integer of at least 1"
            ),
        ):
            optimizer.ask(count)

    @parameterized.product(seed=[0, 1, 2, 3], weighting=[Rank(0.1), FB(0.5)])
    def test_kills_lose_and_repeat_nothing(self, seed, weighting):
        """Same tells in the same order, whether or not processes end."""
        whole, broken = (self.create_tempdir().full_path for _ in range(2))
        rng = np.random.default_rng(seed)
        with self.open(whole, weighting=weighting) as optimizer:
            script = self._run(optimizer, rng)
            expected = [*optimizer.ledger.records._queries.values()]
            scores = optimizer.collection.scores
        for step in script:
            # Each in a process of its own, with a model of its own.
            with self.open(broken, weighting=weighting) as optimizer:
                self._step(optimizer, step)
        with self.open(broken, weighting=weighting) as optimizer:
            found = [*optimizer.ledger.records._queries.values()]
            np.testing.assert_array_equal(optimizer.collection.scores, scores)
        self.assertEqual(found, expected)
        self.assertLen(found, PLAN.budget)

    def _run(self, optimizer, rng):
        """Asks and tells in random order, five pending at a time."""
        script = []

        def do(*step):
            script.append(step)
            self._step(optimizer, step)

        while optimizer.num_done < PLAN.budget:
            waiting = [one.number for one in optimizer.ledger.waiting]
            count = min(5 - len(waiting), int(rng.integers(1, 4)))
            if count > 0 and optimizer._num_left():
                do("ask", count)
                continue
            number = int(rng.choice(waiting))
            do("tell", number, float(-rng.exponential()))
            if rng.random() < 0.2:
                do("amend", number, float(-rng.exponential()))
            if rng.random() < 0.1:
                do("withdraw", number)
            if rng.random() < 0.1:
                do("add", float(-rng.exponential()))
        return script

    def _step(self, optimizer, step):
        name, *values = step
        if name == "add":
            point = [values[0]] * tiny.NUM_OBSERVED
            optimizer.add([Addition(values[0], point=point)])
        else:
            getattr(optimizer, name)(*values)

    @parameterized.parameters("state", "proposal", "train", "round")
    def test_kill_within_an_ask_changes_nothing(self, moment):
        def killed(*args, **kwargs):
            raise KeyboardInterrupt

        whole, broken = (self.create_tempdir().full_path for _ in range(2))
        places = {
            "state": ("tfvae.lso.surrogate_state.save", killed),
            "proposal": (
                "tfvae.lso.ledger.Ledger.append",
                lambda ledger, record: (
                    killed()
                    if isinstance(record, records.Proposal)
                    else append(ledger, record)
                ),
            ),
            "train": ("tests.lso.fakes.Retrainer.retrain", killed),
            "round": ("tests.lso.fakes.Retrainer.save", killed),
        }
        append = Ledger.append
        for folder in (whole, broken):
            with self.open(folder) as optimizer:
                optimizer.ask(8)
                for number in range(6):
                    optimizer.tell(number, -float(number))
            if folder == broken:
                with (
                    self.open(folder) as optimizer,
                    mock.patch(places[moment][0], places[moment][1]),
                    self.assertRaises(KeyboardInterrupt),
                ):
                    optimizer.ask(2)
                with self.open(folder) as optimizer:
                    # What comes between makes no difference to the training.
                    optimizer.amend(0, -0.5)
            with self.open(folder) as optimizer:
                if moment in ("state", "proposal") and folder == whole:
                    optimizer.amend(0, -0.5)
                if moment in ("train", "round") and folder == whole:
                    optimizer._prepare()
                    optimizer.amend(0, -0.5)
                optimizer.ask(2)
        self.assertEqual(self.proposals(broken), self.proposals(whole))

    def test_damaged_state_of_the_surrogate_is_made_anew(self):
        with self.open() as optimizer:
            optimizer.ask(2)
        path = pathlib.Path(self.folder) / "surrogate.npz"
        for data in (path.read_bytes()[:100], b"", b"text"):
            path.write_bytes(data)
            with (
                self.open() as optimizer,
                self.assertLogs("tfvae.lso", "WARNING") as logs,
            ):
                optimizer.ask(1)
            self.assertIn("surrogate.npz is damaged", logs.output[0])


class AmendmentTest(Case):
    def test_surrogate_and_weights_have_the_amended_score(self):
        with self.open() as optimizer:
            optimizer.ask(8)
            for number in range(8):
                optimizer.tell(number, -5.0)
            optimizer.amend(2, -1.5)
            surrogate = optimizer._proposer._surrogate
            optimizer.ask(1)
            self.assertIn(-1.5, surrogate.known[1])
            self.assertEqual(optimizer.collection.scores[-6], -1.5)
            # Also once it is data.
            optimizer.amend(2, -0.25)
            optimizer.amend(3, failure="spilt")
            self.assertEqual(optimizer.collection.scores[-6], -0.25)
            self.assertFalse(optimizer.collection.is_kept[-5])
            self.assertEqual(optimizer.best(), -0.25)
            optimizer.ask(1)
            self.assertIn(-0.25, surrogate.known[1])
            self.assertNotIn(-1.5, surrogate.known[1])

    def test_withdrawn_result_is_forgotten_and_the_query_waits(self):
        with self.open() as optimizer:
            optimizer.ask(8)
            for number in range(8):
                optimizer.tell(number, 7.0 + number)
            optimizer.ask(1)
            optimizer.withdraw(7)
            self.assertFalse(optimizer.collection.is_kept[-1])
            self.assertEqual(optimizer.best(), 13.0)
            self.assertEqual([q.number for q in optimizer.ask()], [7, 8])
            surrogate = optimizer._proposer._surrogate
            optimizer.ask(1)
            self.assertNotIn(14.0, surrogate.known[1])
            optimizer.tell(7, 3.5)
            optimizer.ask(1)
            self.assertIn(3.5, surrogate.known[1])

    def test_failed_queries_can_be_tried_again(self):
        calls = []

        def objective(point):
            calls.append(point)
            if len(calls) <= 5:
                raise RuntimeError("no licence")
            return -1.0

        task = tiny.task(objective=objective)
        with self.open(task=task) as optimizer:
            with self.assertRaisesRegex(
                RuntimeError,
                "(?s)5 evaluations in a row .*; the first was query 0:.*no lic",
            ):
                optimizer.run()
            self.assertTrue(optimizer.has_failed)
            self.assertEqual(
                optimizer.stopped,
                "5 evaluations in a row have failed, the last: RuntimeError: "
                "no licence",
            )
            self.assertEqual(optimizer.num_done, 5)
            self.assertLen(optimizer.failures, 5)
            self.assertEqual(optimizer.retry_failed(), [0, 1, 2, 3, 4])
            optimizer.run()
            self.assertIsNone(optimizer.stopped)
            self.assertFalse(optimizer.has_failed)
            scores = [one.score for one in optimizer.ledger.entries]
        self.assertEqual(scores, [-1.0] * PLAN.budget)
        self.assertLen(calls, PLAN.budget + 5)

    def test_only_what_violates_a_constraint_is_no_failure(self):
        with self.open() as optimizer:
            optimizer.ask(3)
            optimizer.tell(0, failure="broke", constraints={"size": -1.0})
            optimizer.tell(1, failure="too large", constraints={"size": 1.0})
            optimizer.ask(1)
            known = optimizer._proposer._points.known(
                optimizer._proposer._state
            )
            self.assertEqual(optimizer.retry_failed(), [0])
        invalid = optimizer.collection.invalid_score
        np.testing.assert_array_equal(known.scores[-2:], [invalid, np.nan])
        np.testing.assert_array_equal(known.constraints["size"][-2:], [-1, 1])

    def test_no_input_has_no_score(self):
        task = tiny.task(read=lambda means, seed: [None] * len(means))
        with self.open(task=task) as optimizer:
            self.assertEqual(optimizer.ask(1), [])
            before = optimizer.ledger.path.read_bytes()
            with self.assertRaisesRegex(
                ValueError, "`query` must be one with an input .* got 0, whose"
            ):
                optimizer.amend(0, 1.0)
            self.assertEqual(optimizer.ledger.path.read_bytes(), before)

    @parameterized.parameters(
        ({"size": np.nan}, ValueError, "must be a finite number, got nan"),
        ({"size": "large"}, TypeError, "must be a number, got 'large'"),
        ([1.0], TypeError, "`constraints` must be a dictionary of numbers"),
    )
    def test_constraints_are_checked_before_anything_is_recorded(
        self, constraints, error, message
    ):
        point = [0.0] * tiny.NUM_OBSERVED
        with self.open() as optimizer:
            optimizer.ask(2)
            optimizer.tell(0, 1.0)
            before = optimizer.ledger.path.read_bytes()
            with self.assertRaisesRegex(error, message):
                optimizer.tell(1, 1.0, constraints=constraints)
            with self.assertRaisesRegex(error, message):
                optimizer.amend(0, 1.0, constraints=constraints)
            with self.assertRaisesRegex(error, message):
                optimizer.add([Addition(1.0, None, point, constraints)])
            self.assertEqual(optimizer.ledger.path.read_bytes(), before)
            constraints = {"size": np.float32(0.5)}
            optimizer.tell(1, 1.0, constraints=constraints)
        with self.open() as optimizer:
            self.assertFalse(optimizer.ledger.entries[1].is_feasible)

    def test_a_model_needs_no_room_for_what_is_evaluated_again(self):
        space = fakes.Space()
        retrainer = fakes.Retrainer(space)
        retrainer.capacity = tiny.NUM_DATA + PLAN.budget
        with self.open(space=space, retrainer=retrainer) as optimizer:
            for now in range(3):
                for query in optimizer.ask(8):
                    optimizer.tell(query.number, -1.0)
                for number in range(8 * now):  # They are data points.
                    optimizer.withdraw(number)
                    optimizer.tell(number, -2.0)
        self.assertEqual(retrainer.calls[-1][0], tiny.NUM_DATA + 16)


class AdditionTest(Case):
    def test_added_measurements_are_known_at_once_and_data_in_the_next_round(
        self,
    ):
        with self.open() as optimizer:
            optimizer.ask(8)
            optimizer.add(
                [
                    Addition(3.5, point=[1.0, 2.0, None, 4.0]),
                    Addition(4.5, input=[1.0, 1.0, 1.0, 1.0]),
                ]
            )
            surrogate = optimizer._proposer._surrogate
            for number in range(8):
                optimizer.tell(number, -1.0)
            optimizer.ask(1)
            points = optimizer.collection.points[-2:]
            np.testing.assert_array_equal(
                points, [[1.0, 2.0, np.nan, 4.0], [1.0] * 4]
            )
            np.testing.assert_array_equal(
                optimizer.collection.scores[-2:], [3.5, 4.5]
            )
            self.assertIn(4.5, surrogate.known[1])

    def test_they_are_known_before_the_next_round(self):
        task = tiny.task()
        with self.open(task=task) as optimizer:
            optimizer.ask(1)
            optimizer.add([Addition(4.5, input=[1.0, 1.0, 1.0, 1.0])])
            surrogate = optimizer._proposer._surrogate
            optimizer.ask(1)
            self.assertIn(4.5, surrogate.known[1])

    @parameterized.parameters(
        (Addition(1.0, point=[1.0], source="line 3"), "4 numbers, got 1 in l"),
        (Addition(1.0, input="x", source="line 3"), "`input` .* line 3"),
        (
            Addition(1.0, point=[0.0, 1e39, 0.0, 0.0], source="line 3"),
            "`point` must be finite in float32, .* line 3",
        ),
        (Addition(np.nan, point=[0.0] * 4), "`score` must be a finite number"),
    )
    def test_what_can_not_be_data_is_refused_and_nothing_added(self, one, text):
        good = Addition(1.0, point=[0.0] * 4)
        with self.open() as optimizer:
            with self.assertRaisesRegex(ValueError, text):
                optimizer.add([good, one])
            self.assertEqual(optimizer.ledger.records.additions, [])
            optimizer.add([good])
            (added,) = optimizer.ledger.records.additions
            self.assertRegex(added.time, r"^\d{4}-\d\d-\d\dT.*\+00:00$")


class BudgetTest(Case):
    def test_budget_can_be_lowered_down_to_what_is_done(self):
        with self.open() as optimizer:
            optimizer.ask(5)
            for number in range(4):
                optimizer.tell(number, -1.0)
        for budget in (6, 4, 30):
            plan = dataclasses.replace(PLAN, budget=budget)
            with self.open(plan=plan) as optimizer:
                self.assertEqual(optimizer.ledger.header["budget"], budget)
        plan = dataclasses.replace(PLAN, budget=3)
        with self.assertRaisesRegex(
            ValueError, "`budget` must be at least 4, the queries that are done"
        ):
            self.open(plan=plan)
        with self.open(plan=dataclasses.replace(PLAN, budget=4)) as optimizer:
            # The pending one may still be told.
            optimizer.tell(4, -1.0)
            self.assertEqual(optimizer.num_done, 5)
        with self.open(plan=dataclasses.replace(PLAN, budget=4)) as optimizer:
            self.assertEqual(optimizer.ask(), [])

    def test_a_lowered_budget_holds_for_what_is_pending(self):
        with self.open() as optimizer:
            optimizer.ask(6)
            optimizer.tell(1, -1.0)
        with self.open(plan=dataclasses.replace(PLAN, budget=3)) as optimizer:
            optimizer.run()
            self.assertEqual(optimizer.num_done, 3)
            self.assertLen(optimizer.ask(), 3)
        with self.open(plan=dataclasses.replace(PLAN, budget=7)) as optimizer:
            optimizer.run()
            self.assertEqual(optimizer.num_done, 7)


def _grid(means, seed):
    """Decodes to five inputs."""
    return [int(one) for one in np.clip(np.round(means[:, 0]), -2, 2)]


def _grid_task(**kwargs):
    return tiny.task(
        read=_grid,
        write=lambda inputs: np.repeat(
            np.array(inputs, float)[:, None], tiny.NUM_OBSERVED, 1
        ),
        objective=lambda one: float(one),
        **kwargs,
    )


class NewQueriesTest(Case):
    def test_known_inputs_are_no_queries_and_the_run_ends_without_new_ones(
        self,
    ):
        plan = dataclasses.replace(PLAN, skips_known=True, num_proposals=3)
        with self.open(plan=plan, task=_grid_task()) as optimizer:
            optimizer.run()
            inputs = [one.input for one in optimizer.ledger.entries]
            self.assertCountEqual(inputs, [-2, -1, 0, 1, 2])
            self.assertTrue(optimizer.is_exhausted)
            self.assertRegex(
                optimizer.stopped,
                r"nothing new .* of [0-9,]+ latents .*, [0-9,]+ decode to known"
                " inputs and 0 to none$",
            )
            self.assertEqual(optimizer.ask(), [])

    def test_a_run_goes_on_with_a_smaller_distance(self):
        plan = dataclasses.replace(PLAN, budget=2, min_distance=1e6)
        with self.open(plan=plan) as optimizer:
            optimizer.run()
            self.assertEqual(optimizer.num_done, 0)
            self.assertRegex(
                optimizer.stopped,
                "nearer than `min_distance` = 1e.06 to others",
            )
        plan = dataclasses.replace(plan, min_distance=1e-6)
        with self.open(plan=plan) as optimizer:
            changed = {"min_distance": (1e6, 1e-6)}
            self.assertEqual(optimizer.ledger.changed, changed)
            optimizer.run()
            self.assertEqual(optimizer.num_done, 2)

    def test_inputs_of_the_data_are_known(self):
        data = tiny.data()
        inputs = [0, 1] * (tiny.NUM_DATA // 2)
        task = _grid_task(
            data=lambda seed: ScoredData(data.points, data.scores, inputs)
        )
        plan = dataclasses.replace(PLAN, skips_known=True, num_proposals=3)
        with self.open(plan=plan, task=task) as optimizer:
            optimizer.run()
            found = [one.input for one in optimizer.ledger.entries]
        self.assertCountEqual(found, [-2, -1, 2])

    def test_the_surrogate_takes_known_scores_for_free(self):
        seen = []

        class Watched(Believing):
            def fit(self, latents, scores, seed, warm):
                seen.append(len(scores))
                super().fit(latents, scores, seed, warm)

        plan = dataclasses.replace(PLAN, skips_known=True)
        with self.open(
            plan=plan, task=_grid_task(), surrogate=Watched()
        ) as optimizer:
            optimizer.run()
            num_done = optimizer.num_done
        self.assertEqual(num_done, 5)
        self.assertGreater(max(seen), 10 + num_done)

    def test_what_is_known_to_be_infeasible_is_so_for_free(self):
        def objective(one):
            if one == 2:
                return Score(None, {"size": 2.0})
            return Score(float(one), {"size": one - 0.5})

        plan = dataclasses.replace(PLAN, skips_known=True, num_proposals=3)
        task = dataclasses.replace(_grid_task(), objective=objective)
        with self.open(plan=plan, task=task) as optimizer:
            optimizer.run()
            proposer = optimizer._proposer
            known = proposer._points.known(proposer._state)
            decoded = _grid(proposer._space.decode(known.latents), 0)
        # Known latents are data, then results, then those that came for free.
        first = len(known.scores) - len(proposer._state.latents)
        self.assertIn(1, decoded[first:])
        for i in range(first, len(known.scores)):
            expected = 2.0 if decoded[i] == 2 else decoded[i] - 0.5
            self.assertEqual(known.constraints["size"][i], expected)
            self.assertEqual(known.is_feasible[i], decoded[i] < 1)
            self.assertEqual(np.isnan(known.scores[i]), decoded[i] == 2)

    def test_a_proposal_of_nothing_leaves_no_trace(self):
        plan = dataclasses.replace(PLAN, skips_known=True)
        whole, broken = (self.create_tempdir().full_path for _ in range(2))
        task = _grid_task()
        for folder in (whole, broken):
            with self.open(folder, plan=plan, task=task) as optimizer:
                optimizer.run()
                self.assertTrue(optimizer.is_exhausted)
                if folder == whole:
                    self.assertEqual(optimizer.ask(), [])
                    optimizer.withdraw(0)
                    optimizer.tell(0, -1.0)
                    optimizer.ask(1)
                    expected = optimizer._proposer._state
        with self.open(broken, plan=plan, task=task) as optimizer:
            optimizer.withdraw(0)
            optimizer.tell(0, -1.0)
            optimizer.ask(1)
            found = optimizer._proposer._state
        self.assertEqual(found.surrogate, expected.surrogate)
        self.assertEqual(found.inputs, expected.inputs)

    def test_without_it_repeats_are_paid_for_as_published(self):
        with self.open(task=_grid_task()) as optimizer:
            optimizer.run()
            self.assertEqual(optimizer.num_done, PLAN.budget)

    @parameterized.parameters("known", "pending", "batch")
    def test_no_query_is_near_to_another(self, kind):
        strategy = {"batch": PriorSampling()}.get(kind, Walk())
        plan = dataclasses.replace(PLAN, min_distance=0.3, num_random=60)
        spreads = {}
        with self.open(plan=plan, strategy=strategy) as optimizer:
            while optimizer.num_done < plan.budget:
                found = optimizer.ask(*([3] if kind == "pending" else []))
                points = optimizer._proposer._points
                spreads[points.round] = points.latents.std(0)
                if not found:
                    break
                for one in found:
                    optimizer.tell(one.number, -1.0)
            entries = optimizer.ledger.entries
        self.assertGreater(len(entries), 10)
        for now in range(3):
            latents = np.array([e.latent for e in entries if e.round == now])
            gaps = (latents[:, None] - latents) / spreads[now]
            size = np.sqrt(np.mean(gaps**2, -1)) + 9.0 * np.eye(len(latents))
            self.assertGreaterEqual(size.min(initial=9.0), 0.99 * 0.3)
        # Nor are the data points, to any of those before.
        points = np.array([entry.input for entry in entries])
        others = np.concatenate([tiny.data(PLAN.seed).points, points])
        for i, entry in enumerate(entries):
            num_data = tiny.NUM_DATA + 8 * entry.round
            unit = np.sqrt(np.mean(others[:num_data].var(0)))
            gaps = (points[i] - others[: tiny.NUM_DATA + i]) / unit
            size = np.sqrt(np.mean(gaps**2, -1))
            self.assertGreaterEqual(size.min(), 0.99 * 0.3)

    def test_distances_to_what_was_known_are_on_record(self):
        with self.open() as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
            spread = optimizer._proposer._points.latents.std(0)
            known = optimizer._proposer._points.latents
        last = entries[-1]
        before = [e.latent for e in entries[:-1] if e.round == last.round]
        others = np.concatenate([known, np.array(before, np.float32)])
        gaps = (np.array(last.latent) - others) / spread
        expected = np.sqrt(np.mean(gaps**2, -1)).min()
        self.assertAlmostEqual(last.distance, expected, places=4)


class HistoryTest(Case):
    def test_points_know_their_place_in_the_history(self):
        with self.open() as optimizer:
            optimizer.ask(8)
            for number in (5, 2, 7, 0, 1, 3, 4):
                optimizer.tell(number, -1.0 - number)
            optimizer.ask(3)
            optimizer.tell(8, -9.0)
            optimizer.add([Addition(2.0, point=[0.0] * 4)])
            context = _context(optimizer)
        np.testing.assert_array_equal(
            context.history, [-6, -3, -8, -1, -2, -4, -5, -9]
        )
        places = context.query_of
        is_query = (places >= 0) & (places < 8)
        np.testing.assert_array_equal(
            context.scores[is_query],
            np.maximum(
                context.history[places[is_query]],
                optimizer.collection.invalid_score,
            ),
        )
        # Numbers 6, 9 and 10 are pending.
        np.testing.assert_array_equal(places[-3:], [8, 8, 8])
        self.assertEqual((places < 0).sum(), len(places) - 3 - is_query.sum())


class ConstraintTest(Case):
    def test_infeasible_scores_are_not_the_best_and_not_the_worst_datum(self):
        def objective(point):
            return Score(9.0, {"size": float(point[0])})

        task = tiny.task(objective=objective, invalid_score=-100.0)
        with self.open(task=task) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
            feasible = [e for e in entries if e.input[0] <= 0.0]
            self.assertEqual(
                [e.is_feasible for e in entries],
                [e.input[0] <= 0.0 for e in entries],
            )
            self.assertEqual(optimizer.best(), 9.0 if feasible else None)
            context = _context(optimizer)
            self.assertNotIn(-100.0, context.scores)
            np.testing.assert_array_equal(
                context.is_feasible
                if context.is_feasible is not None
                else np.ones(len(context.scores), bool),
                optimizer._proposer._points.known(
                    optimizer._proposer._state
                ).is_feasible,
            )

    def test_inputs_without_a_value_teach_constraints_alone(self):
        task = tiny.task(objective=lambda point: Score(None, {"size": 1.0}))
        with self.open(task=task) as optimizer:
            optimizer.run()
            self.assertIsNone(optimizer.stopped)  # They are no failures.
            known = optimizer._proposer._points.known(
                optimizer._proposer._state
            )
        is_missing = np.isnan(known.scores)
        # Those of earlier rounds as well.
        self.assertEqual(is_missing.sum(), PLAN.budget)
        np.testing.assert_array_equal(known.constraints["size"][is_missing], 1)
        self.assertTrue(np.isnan(known.constraints["size"][~is_missing]).all())

    def test_constraints_of_the_data_count(self):
        data = tiny.data()
        values = np.where(np.arange(tiny.NUM_DATA) % 2, 1.0, -1.0)
        task = tiny.task(
            data=lambda seed: ScoredData(
                data.points, data.scores, constraints={"odd": values}
            )
        )
        with self.open(task=task) as optimizer:
            optimizer.ask(1)
            weights = optimizer.collection.weights(Rank(1e-3))
            best = np.argmax(weights)
            known = optimizer._proposer._points.known(
                optimizer._proposer._state
            )
        self.assertEqual(best % 2, 0)
        np.testing.assert_array_equal(
            known.is_feasible, known.constraints["odd"] <= 0.0
        )

    def _with_odd(self, values):
        data = tiny.data()
        return tiny.task(
            data=lambda seed: ScoredData(
                data.points, data.scores, constraints={"odd": values}
            )
        )

    def test_constraints_are_part_of_the_data_that_must_not_change(self):
        values = np.where(np.arange(tiny.NUM_DATA) % 2, 1.0, np.nan)
        self.open(task=self._with_odd(values)).close()
        self.open(task=self._with_odd(values.copy())).close()
        for changed in (-values, np.full(tiny.NUM_DATA, np.nan)):
            with self.assertRaisesRegex(ValueError, "have changed since"):
                self.open(task=self._with_odd(changed))

    def test_the_best_of_the_data_is_one_that_is_feasible(self):
        scores = tiny.data().scores
        best = float(np.max(scores))
        for values, expected in (
            (np.where(scores == best, 1.0, -1.0), np.sort(scores)[-2]),
            (np.ones(tiny.NUM_DATA), best),
        ):
            folder = self.create_tempdir().full_path
            with self.open(folder, task=self._with_odd(values)) as optimizer:
                header = optimizer.ledger.header
            self.assertEqual(header["best_in_data"], expected)

    def test_oracles_count_what_is_infeasible_as_invalid(self):
        task = tiny.task(
            objective=lambda point: Score(9.0, {"size": float(point[0])}),
            invalid_score=-100.0,
        )
        with self.open(task=task) as optimizer:
            scores, _ = optimizer._proposer._scorer.of_means(
                np.float32([[1.0] * 4, [-1.0] * 4]), 0
            )
        np.testing.assert_array_equal(scores, [-100.0, 9.0])


def _context(optimizer):
    proposer = optimizer._proposer
    return proposer._fitted(99, 0, proposer._state, [])[0]


class RepeatTest(Case):
    def test_each_query_is_evaluated_so_often(self):
        scores = iter(range(1000))
        task = tiny.task(objective=lambda point: float(next(scores)))
        plan = dataclasses.replace(PLAN, budget=4, repeats=3)
        with self.open(task=task, plan=plan) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        self.assertEqual([e.score for e in entries], [1.0, 4.0, 7.0, 10.0])
        self.assertEqual([e.spread for e in entries], [1.0] * 4)

    def test_interrupted_repeats_are_gone_on_with(self):
        calls = []

        def objective(point):
            calls.append(point)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return float(len(calls))

        plan = dataclasses.replace(PLAN, budget=4, repeats=3)
        task = tiny.task(objective=objective)
        with self.open(task=task, plan=plan) as optimizer:
            with self.assertRaises(KeyboardInterrupt):
                optimizer.run()
            self.assertEqual(optimizer.num_done, 1)
        with self.open(task=task, plan=plan) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        self.assertLen(calls, 13)
        self.assertEqual({e.num_results for e in entries}, {3})
        self.assertEqual(entries[1].scores, (4.0, 6.0, 7.0))

    def test_tells_are_counted(self):
        plan = dataclasses.replace(PLAN, repeats=2)
        with self.open(plan=plan) as optimizer:
            optimizer.ask(2)
            optimizer.tell(0, 1.0)
            self.assertEqual([q.number for q in optimizer.ask()], [0, 1])
            optimizer.tell(0, 2.0)
            self.assertEqual([q.number for q in optimizer.ask()], [1])
            with self.assertRaisesRegex(ValueError, "has its result already"):
                optimizer.tell(0, 3.0)

    def test_a_lucky_repeat_is_no_target(self):
        scores = iter([9.0, 1.0, 2.0, 4.0, 8.0, 6.0, *[0.0] * 99])
        task = tiny.task(objective=lambda point: next(scores))
        plan = dataclasses.replace(PLAN, repeats=3)
        with self.open(task=task, plan=plan) as optimizer:
            optimizer.run(stopping=Stopping(target=5.0))
            self.assertEqual(optimizer.stopped, "the target of 5 is reached")
            found = [one.score for one in optimizer.ledger.entries]
        self.assertEqual(found, [4.0, 6.0])


class StoppingTest(Case):
    def _run(self, stopping, **kwargs):
        with self.open(**kwargs) as optimizer:
            optimizer.run(stopping=stopping)
            return optimizer.stopped, optimizer.num_done

    def test_target_ends_a_run(self):
        scores = iter(range(100))
        task = tiny.task(objective=lambda point: float(next(scores)))
        why, num_done = self._run(Stopping(target=6.0), task=task)
        self.assertEqual((why, num_done), ("the target of 6 is reached", 7))

    def test_target_of_a_minimisation(self):
        scores = iter(range(100))
        task = tiny.task(
            objective=lambda point: -float(next(scores)), maximise=False
        )
        _, num_done = self._run(Stopping(target=-6.0), task=task)
        self.assertEqual(num_done, 7)

    def test_patience_ends_a_run(self):
        scores = iter([1.0, 2.0, *[0.0] * 100])
        task = tiny.task(objective=lambda point: next(scores))
        why, num_done = self._run(Stopping(patience=4), task=task)
        self.assertEqual(num_done, 6)
        self.assertEqual(why, "4 queries have brought nothing better")

    def test_time_limit_ends_a_run_within_a_batch(self):
        clock = iter(range(1000))
        with mock.patch("time.monotonic", lambda: float(next(clock))):
            why, num_done = self._run(
                Stopping(seconds=6.0), strategy=PriorSampling()
            )
        self.assertEqual(why, "the time limit of 6 s is reached")
        self.assertBetween(num_done, 1, 7)

    def test_request_ends_after_the_evaluation_under_way(self):
        holder = []

        def objective(point):
            holder[0].request_stop("interrupted")
            return 1.0

        with self.open(
            task=tiny.task(objective=objective), strategy=PriorSampling()
        ) as optimizer:
            holder.append(optimizer)
            optimizer.run()
            self.assertEqual(optimizer.stopped, "interrupted")
            self.assertEqual(optimizer.num_done, 1)

    @parameterized.parameters(
        ({"target": np.nan}, "`target` must be finite"),
        ({"patience": 0}, "`patience` must be an integer of at least 1"),
        ({"failures_in_a_row": 2.5}, "`failures_in_a_row` must be an integer"),
        ({"seconds": 0.0}, "`seconds` must be positive"),
    )
    def test_conditions_are_checked(self, values, message):
        with self.assertRaisesRegex(ValueError, message):
            Stopping(**values)


if __name__ == "__main__":
    absltest.main()
