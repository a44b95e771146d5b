# SPDX-License-Identifier: Apache-2.0
"""The loop with a latent space, a retrainer and a surrogate that are fakes."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from tests.lso import fakes, tiny
from tests.lso.fakes import Count, sequence
from tfvae.lso import (
    FB,
    Plan,
    PriorSampling,
    Rank,
    ScoredData,
    Stopping,
    reading,
    trust_region,
)
from tfvae.lso.plan import Use
from tfvae.lso.strategies import select_points

ROOT = pathlib.Path(__file__).parents[2]
FIRST = tiny.data(5).points[0]
PLAN = Plan(budget=7, queries_per_round=3, num_best=4, num_random=6, seed=5)


class LoopTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        # Nothing here pulls the plug, and a sync takes 10 ms.
        self.enter_context(mock.patch.object(os, "fsync"))

    def _open(self, folder, **kwargs):
        values = {"plan": PLAN, "weighting": Rank(0.1), **kwargs}
        return fakes.opened(folder, **values)

    def _unbroken(self):
        folder = self.create_tempdir().full_path
        with self._open(folder) as optimizer:
            optimizer.run()
            return sequence(optimizer.ledger.entries)

    def test_rounds_and_queries_are_numbered_and_scores_are_the_objective(self):
        folder = self.create_tempdir().full_path
        with self._open(folder) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        self.assertEqual([e.query for e in entries], list(range(7)))
        self.assertEqual([e.round for e in entries], [0, 0, 0, 1, 1, 1, 2])
        for entry in entries:
            self.assertEqual(entry.score, tiny.objective(entry.input))

    def test_same_seed_same_queries_and_another_seed_others(self):
        once, again = self._unbroken(), self._unbroken()
        self.assertEqual(once, again)
        folder = self.create_tempdir().full_path
        plan = dataclasses.replace(PLAN, seed=6)
        with self._open(folder, plan=plan) as optimizer:
            optimizer.run()
            other = sequence(optimizer.ledger.entries)
        self.assertNotEqual(once[0][2], other[0][2])

    @parameterized.parameters(range(7))
    def test_interrupted_run_goes_on_as_if_it_had_not_been(self, moment):
        folder = self.create_tempdir().full_path
        calls = []

        def interrupted(point):
            calls.append(point)
            if len(calls) == moment + 1:
                raise KeyboardInterrupt
            return tiny.objective(point)

        with self._open(folder, task=tiny.task(objective=interrupted)) as first:
            with self.assertRaises(KeyboardInterrupt):
                first.run()
            self.assertLen(first.ledger.entries, moment)
        # Another process has another model, until the run's is restored.
        with self._open(folder) as second:
            second.run()
            found = sequence(second.ledger.entries)
        self.assertEqual(found, self._unbroken())

    @parameterized.product(moment=[3, 6], weighting=[Rank(0.1), FB(0.5)])
    def test_run_that_stops_between_rounds_goes_on_the_same(
        self, moment, weighting
    ):
        whole, parted = (self.create_tempdir().full_path for _ in range(2))
        with self._open(whole, weighting=weighting) as optimizer:
            optimizer.run()
            expected = sequence(optimizer.ledger.entries)
            num_data = len(optimizer.collection.points)
        with self._open(parted, weighting=weighting) as optimizer:
            for _ in optimizer.steps():
                if optimizer.num_done == moment:
                    break
        with self._open(parted, weighting=weighting) as optimizer:
            optimizer.run()
            self.assertEqual(sequence(optimizer.ledger.entries), expected)
            self.assertLen(optimizer.collection.points, num_data)

    def test_model_is_retrained_before_each_round_on_what_was_kept(self):
        space = fakes.Space()
        retrainer = fakes.Retrainer(space)
        with self._open(
            self.create_tempdir().full_path,
            space=space,
            retrainer=retrainer,
            weighting=FB(0.5),
        ) as optimizer:
            optimizer.run()
        n = tiny.NUM_DATA
        # FB drops an old point for each new one, which stays with weight 0.
        (first, *_), second, third = retrainer.calls
        self.assertEqual(first, n)
        for num_points, num_kept, is_first in (second, third):
            self.assertGreater(num_points, n)
            self.assertEqual(num_kept, n)
            self.assertFalse(is_first)
        self.assertTrue(retrainer.calls[0][2])

    def test_retraining_knows_scores_and_what_the_surrogate_is_fitted_to(self):
        space = fakes.Space()
        retrainer, surrogate = fakes.Retrainer(space), fakes.Believing()
        fits = []
        surrogate.fit = lambda latents, *_: fits.append(latents)
        with self._open(
            self.create_tempdir().full_path,
            task=tiny.task(invalid_score=-5.0),
            space=space,
            retrainer=retrainer,
            surrogate=surrogate,
        ) as optimizer:
            # The first fit of a round is to data alone.
            for now in range(3):
                while optimizer.num_done < 3 * now:
                    (query, *_) = optimizer.ask()
                    optimizer.tell(
                        query.number, tiny.objective(np.array(query.input))
                    )
                fits.clear()
                optimizer.ask()
                points, scores, rows = retrainer.scores[now]
                expected = [max(tiny.objective(one), -5.0) for one in points]
                np.testing.assert_allclose(scores, expected)
                self.assertLen(points, tiny.NUM_DATA + 3 * now)
                np.testing.assert_array_equal(
                    fits[0], space.encode(points[rows], rows)
                )

    def test_trust_region_moves_with_the_best_input(self):
        space, centres = fakes.Space(), []
        surrogate = fakes.Believing()
        surrogate.lengthscales = lambda: None
        region_of = trust_region.region_of

        def watched(centre, *rest):
            centres.append(centre)
            return region_of(centre, *rest)

        with (
            mock.patch.object(trust_region, "region_of", watched),
            self._open(
                self.create_tempdir().full_path,
                space=space,
                retrainer=fakes.Retrainer(space),
                surrogate=surrogate,
                strategy=trust_region.TrustRegion(fakes.Walk()),
            ) as optimizer,
        ):
            for num_done in (0, 3, 6):
                for _ in optimizer.steps():
                    if optimizer.num_done >= num_done:
                        break
                optimizer.ask()
                data = optimizer.collection
                best = np.argmax(data.scores)
                # By the model of this round, wherever it was before.
                (latent,) = space.encode(data.points[[best]], [best])
                first = centres[num_done]
                np.testing.assert_array_equal(first, latent)
        self.assertLen({tuple(one) for one in centres[::3]}, 3)

    def test_loop_imports_neither_tensorflow_nor_keras(self):
        # The packages import them, for their other modules.
        program = """if True:
            import importlib, sys, types
            for name in ("tensorflow", "keras", "tensorflow_probability"):
                sys.modules[name] = None
            for name in ("tfvae", "tfvae.lso"):
                package = types.ModuleType(name)
                package.__path__ = [name.replace(".", "/")]
                sys.modules[name] = package
            print(importlib.import_module("tfvae.lso.loop").__name__)
        """
        found = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(found.stdout.strip(), "tfvae.lso.loop", found.stderr)

    def test_asking_and_telling_by_processes_of_their_own_is_the_same(self):
        folder = self.create_tempdir().full_path
        while True:
            with self._open(folder) as optimizer:
                asked = optimizer.ask()
                entries = sequence(optimizer.ledger.entries)
            if not asked:
                break
            with self._open(folder) as optimizer:
                (query,) = asked
                optimizer.tell(query.number, tiny.objective(query.input))
        self.assertEqual(entries, self._unbroken())

    def test_warm_fits_are_those_within_a_round(self):
        surrogate = Count()
        folder = self.create_tempdir().full_path
        with self._open(folder, surrogate=surrogate) as optimizer:
            optimizer.run()
        self.assertEqual(
            surrogate.fits,
            [(10, False), (11, True), (12, True)] * 2 + [(10, False)],
        )

    def test_what_a_round_finds_are_data_in_the_next(self):
        folder = self.create_tempdir().full_path
        with self._open(folder) as optimizer:
            optimizer.run()
            points = optimizer.collection.points
            scores = optimizer.collection.scores
        # The last round, of one query, is not added to anything.
        self.assertLen(points, tiny.NUM_DATA + 6)
        np.testing.assert_allclose(
            scores[-6:], [tiny.objective(point) for point in points[-6:]]
        )

    def test_asking_twice_gives_the_same_and_telling_moves_on(self):
        folder = self.create_tempdir().full_path
        with self._open(folder, strategy=PriorSampling()) as optimizer:
            asked = optimizer.ask()
            self.assertEqual([q.number for q in asked], [0, 1, 2])
            optimizer.tell(1, -3.0)
            left = optimizer.ask()
            self.assertEqual([q.number for q in left], [0, 2])
            self.assertEqual(left[0].input, asked[0].input)
        with self._open(folder, strategy=PriorSampling()) as optimizer:
            again = optimizer.ask()
            self.assertEqual([q.number for q in again], [0, 2])
            self.assertEqual(again[1].input, asked[2].input)
            optimizer.tell(2, failure="the vessel broke")
            optimizer.tell(0, -1.0)
            self.assertEqual([q.number for q in optimizer.ask()], [3, 4, 5])
            entries = optimizer.ledger.entries
        self.assertEqual([e.score for e in entries], [-1.0, -3.0, None])
        self.assertEqual(entries[2].failure, "the vessel broke")

    def test_telling_what_nobody_asked_is_an_error(self):
        folder = self.create_tempdir().full_path
        with self._open(folder, strategy=PriorSampling()) as optimizer:
            optimizer.ask()
            with self.assertRaisesRegex(ValueError, r"\(0, 1, 2\), got 3"):
                optimizer.tell(3, 1.0)
            optimizer.tell(0, 1.0)
            with self.assertRaisesRegex(ValueError, r"\(1, 2\), got 0"):
                optimizer.tell(0, 1.0)
            with self.assertRaisesRegex(ValueError, "not both"):
                optimizer.tell(1)

    @parameterized.parameters(
        (float("nan"),), (float("inf"),), ("text",), (None,)
    )
    def test_scores_that_are_none_are_recorded_failures(self, score):
        folder = self.create_tempdir().full_path
        task = tiny.task(objective=lambda point: score, invalid_score=-50.0)
        with self._open(folder, task=task) as optimizer:
            optimizer.run(stopping=Stopping(failures_in_a_row=None))
            entries = optimizer.ledger.entries
            self.assertLen(optimizer.collection.points, tiny.NUM_DATA)
            self.assertEqual(optimizer.collection.score_of(entries[0]), -50.0)
        self.assertTrue(all(entry.score is None for entry in entries))
        self.assertTrue(all(entry.failure for entry in entries))

    @parameterized.parameters("3.7", True, [[1.0, 2.0]], object())
    def test_telling_no_number_is_an_error_and_records_nothing(self, score):
        folder = self.create_tempdir().full_path
        with self._open(folder, strategy=PriorSampling()) as optimizer:
            optimizer.ask()
            with self.assertRaisesRegex(TypeError, "`score` must be a number"):
                optimizer.tell(1, score)
            self.assertEqual(optimizer.num_done, 0)
            optimizer.tell(1, np.float32(2.5))
            optimizer.tell(0, float("nan"))
            first, second = optimizer.ledger.entries
        self.assertEqual(second.score, 2.5)
        self.assertRegex(first.failure, "must be a finite number, got nan")

    def test_huge_scores_are_failures_and_large_ones_are_not(self):
        scores = iter([1e300, -1e160, 9e99, -9e99, 1.0, 2.0, 3.0])
        task = tiny.task(objective=lambda point: next(scores))
        folder = self.create_tempdir().full_path
        with self._open(
            folder, task=task, strategy=PriorSampling()
        ) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        self.assertEqual(
            [entry.score for entry in entries],
            [None, None, 9e99, -9e99, 1.0, 2.0, 3.0],
        )
        self.assertRegex(entries[0].failure, "at most 1e.100 in size")

    def test_objectives_may_write_to_their_inputs(self):
        def objective(point):
            score = sum(point)
            point[:] = [0.0] * len(point)
            return score

        task = tiny.task(objective=objective, from_json=lambda content: content)
        folder = self.create_tempdir().full_path
        with self._open(folder, task=task) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        for entry in entries:
            np.testing.assert_allclose(entry.score, sum(entry.input))
            self.assertNotEqual(entry.score, 0.0)

    def test_what_can_not_be_read_is_a_failure(self):
        def read(means, seed):
            is_datum = means[0, 0] == FIRST[0]
            if len(means) > 1 or means[0, 0] > 0.0 and not is_datum:
                raise ZeroDivisionError("no such thing")
            return list(means)

        def objective(point):
            self.assertLessEqual(point[0], 0.0)
            return -1.0

        def from_json(content):
            if content[2] > 0.0 and content[2] != float(FIRST[2]):
                raise KeyError("lost")
            return np.asarray(content)

        task = tiny.task(read=read, objective=objective, from_json=from_json)
        folder = self.create_tempdir().full_path
        plan = Plan(budget=30, seed=5)
        with self._open(
            folder, task=task, plan=plan, strategy=PriorSampling()
        ) as optimizer:
            optimizer.run(stopping=Stopping(failures_in_a_row=None))
            entries = optimizer.ledger.entries
        self.assertLen(entries, 30)
        self.assertEqual(
            {entry.failure for entry in entries},
            {
                None,
                "reading fails: ZeroDivisionError: no such thing",
                "`from_json` fails: KeyError: 'lost'",
            },
        )

    def test_run_goes_on_where_no_input_can_be_made_of_json(self):
        def from_json(content):
            if content[0] != float(FIRST[0]):
                raise ZeroDivisionError
            return np.asarray(content)

        task = tiny.task(from_json=from_json)
        with self._open(
            self.create_tempdir().full_path, task=task, strategy=PriorSampling()
        ) as optimizer:
            optimizer.run(stopping=Stopping(failures_in_a_row=None))
            failures = {one.failure for one in optimizer.ledger.entries}
            self.assertEqual(optimizer.num_done, 7)
        (failure,) = failures
        self.assertRegex(failure, "`from_json` fails: ZeroDivisionError")

    def test_score_that_has_no_room_on_the_disk_is_reported(self):
        folder = self.create_tempdir().full_path
        with self._open(folder, strategy=PriorSampling()) as optimizer:
            optimizer.ask()
            with (
                mock.patch.object(
                    os, "write", side_effect=OSError(errno.ENOSPC, "No space")
                ),
                self.assertRaisesRegex(
                    OSError, "query 1 .* record its result: 3.25"
                ),
            ):
                optimizer.tell(1, 3.25)
            self.assertEqual(optimizer.num_done, 0)
            optimizer.tell(1, 3.25)
            self.assertEqual(optimizer.num_done, 1)

    def test_disk_that_fills_up_meanwhile_loses_nothing(self):
        folder = self.create_tempdir().full_path
        write, calls = os.write, []

        def full(file, data):
            # Nothing but what is reserved is left.
            if os.path.exists(f"{folder}/ledger.jsonl.reserve"):
                raise OSError(errno.ENOSPC, "No space")
            return write(file, data)

        def objective(point):
            calls.append(point)
            return 1.0

        def none_left(*args):
            raise OSError(errno.ENOSPC, "No space")

        task = tiny.task(objective=objective)
        with self._open(
            folder, task=task, strategy=PriorSampling()
        ) as optimizer:
            steps = optimizer.steps()
            with mock.patch.object(os, "write", full):
                next(steps)
            self.assertEqual(optimizer.num_done, 3)
            with (
                mock.patch.object(os, "posix_fallocate", none_left),
                self.assertRaisesRegex(
                    OSError, "not enough disk space .* need [0-9,]+ bytes"
                ),
            ):
                next(steps)
        self.assertLen(calls, 3)
        with self._open(
            folder, task=task, strategy=PriorSampling()
        ) as optimizer:
            optimizer.run()
        self.assertLen(calls, 7)
        self.assertFalse(os.path.exists(f"{folder}/ledger.jsonl.reserve"))

    def test_invalid_decodes_are_counted_and_never_evaluated(self):
        folder = self.create_tempdir().full_path
        task = tiny.task(
            read=lambda outputs, seed: [None] * len(outputs),
            objective=lambda point: self.fail("was evaluated"),
        )
        with self._open(folder, task=task) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        self.assertLen(entries, 7)
        self.assertEqual({e.failure for e in entries}, {reading.NO_INPUT})
        self.assertEqual({e.input for e in entries}, {None})

    def test_minimisation_is_maximisation_of_the_negative(self):
        least = tiny.task(
            maximise=False,
            objective=lambda point: -tiny.objective(point),
            data=lambda seed: ScoredData(
                tiny.data(seed).points, -tiny.data(seed).scores
            ),
        )
        folder = self.create_tempdir().full_path
        with self._open(folder, task=least) as optimizer:
            optimizer.run()
            found = sequence(optimizer.ledger.entries)
        most = self._unbroken()
        self.assertEqual([one[3] for one in found], [one[3] for one in most])
        self.assertEqual([-one[4] for one in found], [one[4] for one in most])

    def test_another_configuration_is_refused_but_budget_may_grow(self):
        folder = self.create_tempdir().full_path
        with self._open(folder) as optimizer:
            optimizer.run()
            before = sequence(optimizer.ledger.entries)
        for change, message in (
            ({"weighting": Rank(0.2)}, "weighting"),
            ({"plan": dataclasses.replace(PLAN, seed=1)}, "seed"),
            ({"task": tiny.task(name="other")}, "task"),
            (
                {"task": tiny.task(data=lambda seed: tiny.data(9))},
                "they have changed since",
            ),
        ):
            with self.assertRaisesRegex(ValueError, message):
                self._open(folder, **change)
        plan = dataclasses.replace(PLAN, budget=10)
        with self._open(folder, plan=plan) as optimizer:
            optimizer.run()
            after = sequence(optimizer.ledger.entries)
        self.assertEqual(after[:7], before)
        self.assertEqual([one[0] for one in after[7:]], [2, 2, 3])

    def test_budget_of_whole_rounds_may_grow(self):
        folder = self.create_tempdir().full_path
        for budget in (6, 9):
            plan = dataclasses.replace(PLAN, budget=budget)
            with self._open(folder, plan=plan) as optimizer:
                optimizer.run()
                self.assertEqual(optimizer.num_done, budget)
                kept = optimizer.collection.num_kept
        self.assertEqual(kept, tiny.NUM_DATA + 6)

    def test_models_that_were_lost_are_an_error(self):
        folder = self.create_tempdir().full_path
        with self._open(folder) as optimizer:
            optimizer.run()
        for path in (pathlib.Path(folder) / "rounds").iterdir():
            if path.stem != "000":
                path.unlink()
        with self.assertRaisesRegex(
            ValueError, "must have the model of round 1 or 2, got that of rou"
        ):
            self._open(folder)

    def test_ledger_that_was_shortened_behind_a_checkpoint_is_an_error(self):
        folder = self.create_tempdir().full_path
        with self._open(folder) as optimizer:
            optimizer.run()
            path = optimizer.ledger.path
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:3]))
        with self.assertRaisesRegex(ValueError, "shortened"):
            self._open(folder)

    def test_ledger_that_was_emptied_in_its_first_round_is_an_error(self):
        folder = self.create_tempdir().full_path
        plan = dataclasses.replace(PLAN, queries_per_round=None)
        with self._open(folder, plan=plan) as optimizer:
            steps = optimizer.steps()
            for _ in range(3):
                next(steps)
            path = optimizer.ledger.path
        path.write_bytes(b"")
        with self.assertRaisesRegex(
            ValueError, "beginning of round 0.*shortened"
        ):
            self._open(folder, plan=plan)

    def test_cut_snapshots_are_made_again(self):
        folder = self.create_tempdir().full_path
        plan = dataclasses.replace(PLAN, num_samples=9)
        with self._open(folder, plan=plan) as optimizer:
            next(optimizer.steps())
        with open(f"{folder}/samples.npz", "wb"):
            pass
        with self._open(folder, plan=plan) as optimizer:
            optimizer.run()
        samples = np.load(f"{folder}/samples.npz")
        np.testing.assert_array_equal(samples["rounds"], [0, 1, 2])

    def test_invalid_score_better_than_the_data_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "must not be better"):
            self._open(
                self.create_tempdir().full_path,
                task=tiny.task(invalid_score=0.5),
            )

    def test_no_point_counts_for_less_than_an_invalid_one(self):
        seen = []

        class Watched(Count):
            def fit(self, latents, scores, seed, warm):
                seen.extend(scores)
                super().fit(latents, scores, seed, warm)

        folder = self.create_tempdir().full_path
        task = tiny.task(invalid_score=-8.0, objective=lambda point: -99.0)
        with self._open(folder, task=task, surrogate=Watched()) as optimizer:
            optimizer.run()
        self.assertEqual(min(seen), -8.0)
        self.assertLess(tiny.data(5).scores.min(), -8.0)

    def test_folder_can_be_opened_after_an_error(self):
        folder = self.create_tempdir().full_path
        with self._open(folder) as optimizer:
            optimizer.run()
            path = optimizer.ledger.path
        whole = path.read_bytes()
        path.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
        with self.assertRaisesRegex(ValueError, "shortened"):
            self._open(folder)
        path.write_bytes(whole)
        self._open(folder).close()

    def test_surrogate_is_asked_for_where_a_strategy_needs_it(self):
        with self.assertRaisesRegex(ValueError, "`surrogate` must be given"):
            self._open(self.create_tempdir().full_path, surrogate=None)

    def test_model_without_room_for_what_may_be_found_is_an_error(self):
        space = fakes.Space()
        retrainer = fakes.Retrainer(space)
        retrainer.capacity = tiny.NUM_DATA + 6
        with self.assertRaisesRegex(ValueError, "for 31 data .* got 30; use"):
            self._open(
                self.create_tempdir().full_path,
                space=space,
                retrainer=retrainer,
            )

    def test_model_of_another_size_is_an_error(self):
        task = tiny.task(
            data=lambda seed: ScoredData(
                np.zeros((3, 5), np.float32), [0, 1, 2]
            )
        )
        with self.assertRaisesRegex(ValueError, "must observe the 5"):
            self._open(self.create_tempdir().full_path, task=task)

    def test_samples_and_weights_are_kept_for_figures(self):
        folder = self.create_tempdir().full_path
        plan = dataclasses.replace(PLAN, num_samples=9)
        with self._open(folder, plan=plan) as optimizer:
            optimizer.run()
        samples = np.load(f"{folder}/samples.npz")
        np.testing.assert_array_equal(samples["rounds"], [0, 1, 2])
        self.assertEqual(samples["scores"].shape, (3, 9))
        weights = np.load(f"{folder}/weights.npz")
        np.testing.assert_allclose(weights["scores"], tiny.data(5).scores)
        np.testing.assert_allclose(
            weights["weights"], Rank(0.1)(tiny.data(5).scores)
        )

    def test_plane_of_two_latents_is_kept_where_inputs_are_pictures(self):
        task = tiny.task(to_picture=lambda one: np.clip(one, 0, 1)[None])
        plan = dataclasses.replace(PLAN, num_samples=9)
        pictured, other = (self.create_tempdir().full_path for _ in range(2))
        with self._open(pictured, task=task, plan=plan) as optimizer:
            optimizer.run()
        with self._open(other, plan=plan) as optimizer:
            optimizer.run()
        self.assertFalse(os.path.exists(f"{other}/manifold.npz"))
        plane = np.load(f"{pictured}/manifold.npz")
        np.testing.assert_array_equal(plane["rounds"], [0, 1, 2])
        self.assertEqual(plane["images"].shape, (3, 17, 17, 1, 4))
        self.assertEqual(plane["scores"].shape, (3, 17, 17))

    @parameterized.parameters((1, False), (200, True))
    def test_inputs_of_known_score_are_passed_over(self, proposals, is_new):
        # Eight inputs there are; the least likely is one draw in a few.
        task = tiny.task(
            read=lambda means, seed: list((means[:, :3] > 0.0).astype(float)),
            write=lambda inputs: np.pad(np.stack(inputs), ((0, 0), (0, 1))),
            objective=lambda one: float(np.sum(one)),
        )
        plan = Plan(budget=6, num_proposals=proposals, seed=1)
        folder = self.create_tempdir().full_path
        space = fakes.Space()
        with self._open(
            folder,
            task=task,
            space=space,
            retrainer=fakes.Retrainer(space),
            plan=plan,
            strategy=PriorSampling(),
        ) as optimizer:
            optimizer.run()
            found = [tuple(one.input) for one in optimizer.ledger.entries]
        reached = space.decode(space.sample_prior(0, 2000))
        num_possible = len({tuple(one) for one in reached[:, :3] > 0.0})
        if is_new:
            self.assertLen(set(found), min(6, num_possible))
        self.assertLen(found, 6)

    def test_ledger_has_the_settings_and_lines_are_json(self):
        folder = self.create_tempdir().full_path
        with self._open(folder) as optimizer:
            optimizer.run()
        with open(f"{folder}/ledger.jsonl") as file:
            header, *entries = [json.loads(line) for line in file]
        self.assertEqual(header["header"]["weighting"], repr(Rank(0.1)))
        self.assertEqual(header["header"]["budget"], 7)
        self.assertLen([one for one in entries if "result" in one], 7)


class PlanTest(absltest.TestCase):
    def test_seeds_are_those_of_runs_on_record(self):
        found = [
            PLAN.seed_of(use, number)
            for use, number in (
                (Use.RETRAINING, 0),
                (Use.POINTS, 2),
                (Use.SAMPLING, 1),
            )
        ]
        self.assertEqual(found, [8411699, 2039029340, 2125130072])


class PointsTest(absltest.TestCase):
    def test_surrogate_gets_the_best_and_others(self):
        scores = np.arange(20.0)
        chosen = select_points(scores, 3, 5, seed=0)
        np.testing.assert_array_equal(chosen[:3], [19, 18, 17])
        self.assertLen(set(chosen.tolist()), 8)


if __name__ == "__main__":
    absltest.main()
