# SPDX-License-Identifier: Apache-2.0
"""Tests of the E-step: it climbs, keeps states distinct, and finds the best."""

from __future__ import annotations

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids, oracles
from tfvae import tvae
from tfvae.ops import bits, random, truncated
from tfvae.tvae import evolution, static

NUM_DATA, NUM_LATENTS, NUM_STATES = 6, 9, 12

PARENTS = (tvae.Fitness(), tvae.Elite(), tvae.Softmax(), tvae.Uniform())
VARIATIONS = (
    tvae.RandFlip(),
    tvae.SparseFlip(0.2),
    tvae.Crossover(),
    tvae.Crossover(tvae.RandFlip()),
    tvae.Crossover(tvae.SparseFlip()),
)
KINDS = ("own", "shared", "pool")
EVERY_COMBINATION = tuple(itertools.product(PARENTS, VARIATIONS, KINDS))


@keras.saving.register_keras_serializable("tests")
def first_parents(seed, log_joints, num_parents):
    """Takes the first states, whatever they are."""
    first = tf.range(num_parents)[None]
    return tf.tile(first, [tf.shape(log_joints)[0], 1])


class SpiedCandidates:
    """Candidates that remember what is added to them, and what they return."""

    def __init__(self, candidates):
        self.candidates = candidates
        self.added, self.log_joints = [], []

    def add(self, packed):
        log_joints = self.candidates.add(packed)
        self.added.append(packed.numpy())
        self.log_joints.append(log_joints.numpy())
        return log_joints

    def best(self, num_states):
        return self.candidates.best(num_states)


class TableTestCase(tf.test.TestCase, parameterized.TestCase):
    """Log-joints looked up in a table: exact, so no tolerance is needed."""

    num_latents = NUM_LATENTS

    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(0)
        self.table = rng.normal(-40.0, 8.0, (NUM_DATA, 2**NUM_LATENTS)).astype(
            np.float32
        )
        self.first = truncated.initial_states(
            random.make_seed(0), NUM_DATA, NUM_STATES, self.num_latents
        )

    def log_joint(self, packed):
        """Scores each data point's states, `[B, K, W]` to `[B, K]`."""
        states = bits.unpack(packed, NUM_LATENTS)
        place_values = 2.0 ** np.arange(NUM_LATENTS, dtype=np.float32)
        code = tf.cast(tf.linalg.matvec(states, place_values), tf.int32)
        return tf.gather(tf.constant(self.table), code, batch_dims=1)

    def candidates(self, kind, log_joint=None, is_point=None, pool_size=None):
        """Returns an empty set; `log_joint` replaces the one above."""
        log_joint = log_joint or self.log_joint
        if kind == "own":
            return evolution.OwnCandidates(log_joint)

        def features(packed):
            return tf.transpose(log_joint(tf.repeat(packed[None], NUM_DATA, 0)))

        # A data point's feature picks its column: products are exact.
        of_data = tf.eye(NUM_DATA)
        if kind == "shared":
            return evolution.SharedCandidates(of_data, features)
        if is_point is None:
            is_point = tf.ones([NUM_DATA], tf.bool)
        return static.PooledCandidates(of_data, features, is_point, pool_size)

    def e_step(self, packed, settings, seed=0, candidates=None):
        return evolution.e_step(
            random.make_seed(seed),
            packed,
            candidates or self.candidates("own"),
            settings,
            tf.constant(2.0),
            self.num_latents,
        )

    def infer(self, settings, max_steps, tolerance=0.0, seed=0, log_joint=None):
        return evolution.infer(
            random.make_seed(seed),
            truncated.StateSet(self.first, self.log_joint(self.first)),
            log_joint or self.log_joint,
            settings,
            tf.constant(2.0),
            self.num_latents,
            tf.constant(max_steps),
            tf.constant(tolerance),
        )


class EStepTest(TableTestCase):
    @parameterized.parameters(*EVERY_COMBINATION)
    @grids.by_default(0, 14, 28)
    def test_bound_never_falls_and_states_stay_distinct(
        self, parents, variation, kind
    ):
        settings = tvae.Evolution(parents, variation, 4, 3, 2)
        packed = self.first
        before = -np.sort(-self.log_joint(packed).numpy(), -1)
        improved = False
        for step in range(3):
            states, _ = self.e_step(
                packed, settings, step, self.candidates(kind)
            )
            packed, after = states.packed, states.log_joints.numpy()
            # State by state, the best first: stronger than the bound alone.
            self.assertAllGreaterEqual(after - before, 0.0)
            self.assertAllGreaterEqual(
                truncated.free_energy(after) - truncated.free_energy(before),
                0.0,
            )
            improved |= (after > before).any()
            for row in packed.numpy():
                self.assertEqual(oracles.count_distinct(row), NUM_STATES)
            # What is stored belongs together, and is sorted.
            self.assertAllEqual(self.log_joint(packed), after)
            self.assertAllLessEqual(np.diff(after, axis=-1), 0.0)
            before = after
        self.assertTrue(improved)

    @parameterized.parameters(
        *itertools.product(
            (tvae.RandFlip(), tvae.SparseFlip(), tvae.Crossover()), KINDS
        )
    )
    def test_candidates_are_states_and_the_children_of_each_generation(
        self, variation, kind
    ):
        settings = tvae.Evolution(tvae.Elite(), variation, 4, 3, 3)
        candidates = SpiedCandidates(self.candidates(kind))
        self.e_step(self.first, settings, candidates=candidates)
        self.assertEqual(
            [packed.shape[1] for packed in candidates.added],
            [NUM_STATES] + 3 * [12],
        )
        self.assertAllEqual(candidates.added[0], self.first)
        for packed, values in zip(
            candidates.added, candidates.log_joints, strict=True
        ):
            self.assertAllEqual(self.log_joint(packed), values)

    @parameterized.parameters(*KINDS)
    def test_result_is_the_best_of_old_states_and_all_children(self, kind):
        settings = tvae.Evolution(tvae.Softmax(), tvae.RandFlip(), 4, 3, 3)
        candidates = SpiedCandidates(self.candidates(kind))
        states, replaced = self.e_step(
            self.first, settings, candidates=candidates
        )
        packed = np.concatenate(candidates.added, 1)
        if kind != "own":
            # Those of the whole batch, for each data point.
            packed = packed.reshape(1, -1, packed.shape[-1])
            packed = packed.repeat(NUM_DATA, 0)
        values, old = self.log_joint(packed).numpy(), self.first.numpy()
        for n in range(NUM_DATA):
            expected = oracles.best_distinct(packed[n], values[n], NUM_STATES)
            self.assertAllEqual(states.log_joints[n], expected)
            held = {row.tobytes() for row in old[n]}
            new = [
                row.tobytes() not in held for row in states.packed[n].numpy()
            ]
            self.assertAllClose(replaced[n], np.mean(new))

    @parameterized.parameters(*KINDS)
    def test_later_generations_choose_among_the_children_before(self, kind):
        offered = []

        def parents(seed, log_joints, num_parents):
            offered.append(log_joints.numpy())
            return first_parents(seed, log_joints, num_parents)

        settings = tvae.Evolution(parents, tvae.RandFlip(), 4, 3, 3)
        candidates = SpiedCandidates(self.candidates(kind))
        self.e_step(self.first, settings, candidates=candidates)
        self.assertLen(offered, 3)
        for pool, values in zip(
            offered, candidates.log_joints[:3], strict=True
        ):
            self.assertAllEqual(pool, values)

    def test_generations_and_steps_draw_from_different_streams(self):
        seeds = []

        def parents(seed, log_joints, num_parents):
            seeds.append(tuple(seed.numpy()))
            return first_parents(seed, log_joints, num_parents)

        def variation(seed, *arguments):
            seeds.append(tuple(seed.numpy()))
            return tvae.RandFlip()(seed, *arguments)

        settings = tvae.Evolution(parents, variation, 2, 2, 3)
        for step in range(3):
            self.e_step(self.first, settings, step)
        self.assertLen(seeds, 18)
        self.assertLen(set(seeds), 18)

    def test_expected_ones_and_latents_reach_the_variation(self):
        received = []

        def variation(seed, parents, num_children, expected_ones, num_latents):
            received.append((float(expected_ones), num_latents))
            return tvae.RandFlip()(
                seed, parents, num_children, expected_ones, num_latents
            )

        self.e_step(self.first, tvae.Evolution(variation=variation))
        self.assertEqual(set(received), {(2.0, NUM_LATENTS)})

    @parameterized.parameters(
        (tvae.Fitness(), tvae.RandFlip()),
        (tvae.Softmax(), tvae.SparseFlip()),
        (tvae.Uniform(), tvae.Crossover(tvae.RandFlip())),
    )
    @grids.by_default(1)
    def test_step_is_the_same_in_graphs(self, parents, variation):
        settings = tvae.Evolution(parents, variation, 4, 3, 2)
        # How many states are distinct, a graph does not know: XLA needs to.
        for kind, jit in (
            *(("own", False), ("own", True)),
            *(("shared", False), ("pool", False), ("pool", True)),
        ):
            expected, replaced = self.e_step(
                self.first, settings, candidates=self.candidates(kind)
            )

            @tf.function(jit_compile=jit)
            def step(kind=kind):
                return self.e_step(
                    self.first, settings, candidates=self.candidates(kind)
                )

            states, share = step()
            self.assertAllEqual(states.packed, expected.packed)
            self.assertAllEqual(states.log_joints, expected.log_joints)
            self.assertAllClose(share, replaced)


class SharedCandidatesTest(TableTestCase):
    @parameterized.parameters(*VARIATIONS)
    def test_every_distinct_state_is_scored_once(self, variation):
        scored = []

        def log_joint(packed):
            scored.append(packed[0].numpy())
            return self.log_joint(packed)

        settings = tvae.Evolution(tvae.Fitness(), variation, 5, 3, 3)
        candidates = SpiedCandidates(self.candidates("shared", log_joint))
        self.e_step(self.first, settings, candidates=candidates)
        self.assertLen(scored, 4)
        found = np.concatenate(scored)
        self.assertEqual(oracles.count_distinct(found), len(found))
        added = np.concatenate(
            [packed.reshape(-1, 2) for packed in candidates.added]
        )
        self.assertLess(len(found), len(added))
        self.assertEqual(
            {row.tobytes() for row in found}, {row.tobytes() for row in added}
        )

    def test_addition_of_known_states_scores_none(self):
        candidates = self.candidates("shared")
        first = candidates.add(self.first)
        again = candidates.add(self.first[:, ::-1])
        self.assertAllEqual(first[:, ::-1], again)
        best = candidates.best(NUM_STATES)
        for row in best.packed.numpy():
            self.assertEqual(oracles.count_distinct(row), NUM_STATES)

    def test_no_data_point_does_worse_than_with_its_own_children(self):
        # The same children, as parents depend on their log-joints alone.
        settings = tvae.Evolution(tvae.Elite(), tvae.RandFlip(), 4, 3, 1)
        own, shared = (
            self.e_step(self.first, settings, candidates=self.candidates(kind))[
                0
            ].log_joints.numpy()
            for kind in ("own", "shared")
        )
        self.assertAllGreaterEqual(shared - own, 0.0)
        self.assertAllGreater((shared - own).sum(-1), 0.0)


class PooledCandidatesTest(TableTestCase):
    """The form for XLA, eagerly: `test_step_is_the_same_in_graphs` compiles."""

    def _assert_same(self, found, expected):
        self.assertAllEqual(found[0].packed, expected[0].packed)
        self.assertAllEqual(found[0].log_joints, expected[0].log_joints)
        self.assertAllEqual(found[1], expected[1])

    @parameterized.product(parents=PARENTS, variation=VARIATIONS)
    @grids.by_default(0, 13)
    def test_large_pool_finds_what_shared_candidates_find(
        self, parents, variation
    ):
        settings = tvae.Evolution(parents, variation, 4, 3, 2)
        expected = self.e_step(
            self.first, settings, candidates=self.candidates("shared")
        )
        for pool_size in (None, 2**NUM_LATENTS):
            pool = self.candidates("pool", pool_size=pool_size)
            found = self.e_step(self.first, settings, candidates=pool)
            self._assert_same(found, expected)
            self.assertEqual(pool.num_left_out, 0)

    @parameterized.parameters(None, 60)
    def test_places_without_data_points_change_nothing(self, pool_size):
        settings = tvae.Evolution(num_parents=4, num_children=3)
        alone, filled = (
            self.e_step(
                tf.concat([self.first[:4], others], 0),
                settings,
                candidates=self.candidates(
                    "pool",
                    is_point=tf.constant(4 * [True] + 2 * [False]),
                    pool_size=pool_size,
                ),
            )
            for others in (self.first[4:], tf.repeat(self.first[:1], 2, 0))
        )
        rows = [
            (truncated.StateSet(*(one[:4] for one in states)), replaced[:4])
            for states, replaced in (alone, filled)
        ]
        self._assert_same(*rows)

    @parameterized.parameters(NUM_STATES, 40, 90)
    def test_small_pool_shares_the_first_states(self, pool_size):
        settings = tvae.Evolution(tvae.Softmax(), tvae.RandFlip(), 4, 3, 3)
        candidates = SpiedCandidates(
            self.candidates("pool", pool_size=pool_size)
        )
        states, _ = self.e_step(self.first, settings, candidates=candidates)
        every = [one.reshape(-1, 2) for one in candidates.added]
        distinct = list(
            dict.fromkeys(row.tobytes() for row in np.concatenate(every))
        )
        left_out = candidates.candidates.num_left_out
        self.assertEqual(left_out, max(len(distinct) - pool_size, 0))
        self.assertGreater(left_out, 0)
        pool = np.frombuffer(b"".join(distinct[:pool_size]), np.uint8)
        pool = pool.reshape(1, -1, 2).repeat(NUM_DATA, 0)
        own = np.concatenate(candidates.added, 1)
        packed = np.concatenate([pool, own], 1)
        values = self.log_joint(packed).numpy()
        for n in range(NUM_DATA):
            expected = oracles.best_distinct(packed[n], values[n], NUM_STATES)
            self.assertAllEqual(states.log_joints[n], expected)
            kept = states.packed[n].numpy()
            self.assertEqual(oracles.count_distinct(kept), NUM_STATES)
        self.assertAllEqual(self.log_joint(states.packed), states.log_joints)


class LongStatesTest(TableTestCase):
    """States of more than 64 latents, whose keys are hashes."""

    num_latents = 130

    def log_joint(self, packed):
        # Sums of whole numbers below 2**24: exact in any order.
        weights = np.random.default_rng(1).integers(
            -(2**16), 2**16, (NUM_DATA, self.num_latents)
        )
        states = bits.unpack(packed, self.num_latents)
        return tf.reduce_sum(states * np.float32(weights)[:, None], -1)

    @parameterized.parameters(
        *itertools.product(
            (tvae.RandFlip(), tvae.Crossover(tvae.SparseFlip())), KINDS
        )
    )
    def test_no_old_state_gives_way_but_to_a_better_one(self, variation, kind):
        settings = tvae.Evolution(tvae.Softmax(), variation, 4, 3, 2)
        packed = self.first
        for step in range(4):
            candidates = SpiedCandidates(self.candidates(kind))
            states, _ = self.e_step(packed, settings, step, candidates)
            pool = np.concatenate(candidates.added, 1)
            if kind != "own":
                pool = pool.reshape(1, -1, pool.shape[-1]).repeat(NUM_DATA, 0)
            values = self.log_joint(pool).numpy()
            after = states.log_joints.numpy()
            before = -np.sort(-self.log_joint(packed).numpy(), -1)
            self.assertAllGreaterEqual(after - before, 0.0)
            self.assertAllEqual(self.log_joint(states.packed), after)
            for n in range(NUM_DATA):
                expected = oracles.best_distinct(pool[n], values[n], NUM_STATES)
                self.assertAllEqual(after[n], expected)
                kept = states.packed[n].numpy()
                self.assertEqual(oracles.count_distinct(kept), NUM_STATES)
            packed = states.packed


class InferTest(TableTestCase):
    @parameterized.parameters(
        (tvae.Uniform(), tvae.RandFlip()),
        (tvae.Softmax(4.0), tvae.RandFlip()),
        (tvae.Elite(), tvae.SparseFlip(0.3)),
        (tvae.Fitness(), tvae.Crossover(tvae.SparseFlip(0.3))),
    )
    @grids.by_default(0, 3)
    def test_search_ends_at_the_best_states_of_all(self, parents, variation):
        # Every bit adds its share, so that single flips lead everywhere; most
        # shares are negative, as sparse flips do not go far beyond the
        # expected number of ones.
        rng = np.random.default_rng(1)
        shares = rng.normal(-3.0, 3.0, (NUM_DATA, NUM_LATENTS))
        states = oracles.enumerate_states(NUM_LATENTS)
        self.table = np.float32(shares @ states.T - 40.0)
        settings = tvae.Evolution(parents, variation, 6, 9, 2)

        @tf.function
        def search():
            return self.infer(settings, 80)

        states, _ = search()
        best = -np.sort(-self.table, -1)[:, :NUM_STATES]
        self.assertAllEqual(states.log_joints, best)

    def test_more_steps_never_lower_the_bound(self):
        settings = tvae.Evolution(tvae.Softmax(), tvae.RandFlip(), 3, 2, 1)
        before = np.full((NUM_DATA, NUM_STATES), -np.inf)
        for max_steps in (1, 2, 3, 5, 9):
            states, num_steps = self.infer(settings, max_steps)
            self.assertEqual(int(num_steps), max_steps)
            after = states.log_joints.numpy()
            self.assertTrue((after >= before).all())
            for row in states.packed.numpy():
                self.assertEqual(oracles.count_distinct(row), NUM_STATES)
            before = after

    def test_repeated_e_steps_evaluate_no_state_again(self):
        settings = tvae.Evolution(tvae.Softmax(), tvae.RandFlip(), 3, 2, 2)
        evaluated = []

        def spy(packed):
            evaluated.append(packed.shape[1])
            return self.log_joint(packed)

        found, _ = self.infer(settings, 4, tolerance=-1.0, log_joint=spy)
        # Two generations a step, of 3 x 2 children.
        self.assertEqual(evaluated, 4 * 2 * [6])
        packed = self.first
        for step in range(4):
            seed = random.make_seed(random.make_seed(0), step)
            states, _ = evolution.e_step(
                seed,
                packed,
                self.candidates("own"),
                settings,
                tf.constant(2.0),
                self.num_latents,
            )
            packed = states.packed
        self.assertAllEqual(found.packed, packed)
        self.assertAllEqual(found.log_joints, states.log_joints)

    @pytest.mark.slow  # 120 steps, eagerly.
    def test_search_ends_when_the_mean_gain_is_small(self):
        settings = tvae.Evolution(tvae.Softmax(), tvae.RandFlip(), 1, 1, 1)
        packed, bounds = self.first, []
        for step in range(120):
            seed = random.make_seed(random.make_seed(0), step)
            states, _ = self.e_step(packed, settings, seed)
            packed = states.packed
            bounds.append(truncated.free_energy(states.log_joints).numpy())
        gains, memory = np.diff(np.mean(bounds, 1)), 512 / NUM_DATA
        for tolerance in (0.0, 0.02, 0.1, 1e9):
            expected, mean = 1, 0.0
            while expected < 120 and (expected < memory or mean >= tolerance):
                mean += (gains[expected - 1] - mean) / min(expected, memory)
                expected += 1
            _, num_steps = self.infer(settings, 120, tolerance=tolerance)
            self.assertEqual(int(num_steps), expected, tolerance)
        self.assertEqual(expected, -(-512 // NUM_DATA))

    def test_point_alone_is_searched_as_long_as_among_others(self):
        # With a child a step, most steps have no gain.
        settings = tvae.Evolution(tvae.Softmax(), tvae.RandFlip(), 1, 1, 1)
        _, among = self.infer(settings, 60, tolerance=1e-3)
        self.first, self.table = self.first[:1], self.table[:1]
        _, alone = self.infer(settings, 60, tolerance=1e-3)
        self.assertEqual(int(among), 60)
        self.assertEqual(int(alone), 60)

    def test_at_least_one_step_is_made(self):
        _, num_steps = self.infer(tvae.Evolution(), 0)
        self.assertEqual(int(num_steps), 1)


class EvolutionTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_setting_survives_a_round_trip(self):
        settings = tvae.Evolution(
            parents=tvae.Softmax(3.0),
            variation=tvae.Crossover(tvae.SparseFlip(0.2)),
            num_parents=5,
            num_children=2,
            num_generations=3,
            shared=False,
        )
        sharing = tvae.Evolution(num_migrants=3, pool_size=4096)
        default = tvae.Evolution()
        for field in dataclasses.fields(settings):
            name = field.name
            self.assertNotEqual(
                (getattr(settings, name), getattr(sharing, name)),
                (getattr(default, name), getattr(default, name)),
                name,
            )
        for one in (settings, sharing):
            copy = keras.saving.deserialize_keras_object(
                keras.saving.serialize_keras_object(one)
            )
            self.assertEqual(copy, one)

    def test_function_survives_as_an_operator(self):
        settings = tvae.Evolution(parents=first_parents)
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(settings)
        )
        self.assertIs(copy.parents, first_parents)

    @parameterized.parameters(
        (tvae.RandFlip(), 20), (tvae.SparseFlip(), 20), (tvae.Crossover(), 12)
    )
    def test_children_per_generation_are_counted(self, variation, expected):
        settings = tvae.Evolution(tvae.Elite(), variation, 4, 5)
        self.assertEqual(settings.children_per_generation, expected)

    def test_default_is_valid_for_few_states_and_few_latents(self):
        for num_latents in range(1, 10):
            for num_states in range(1, min(2**num_latents, 40)):
                settings = evolution.default_evolution(num_states, num_latents)
                settings.validate(num_states, num_latents)
        self.assertEqual(evolution.default_evolution(64, 64), tvae.Evolution())

    def test_migrants_that_can_not_be_are_reported(self):
        with self.assertRaisesRegex(
            ValueError, "`num_migrants` must be an integer .* got -1"
        ):
            tvae.Evolution(num_migrants=-1)
        with self.assertRaisesRegex(
            ValueError, "`num_migrants` must be 0 .* not `shared`, got 3"
        ):
            tvae.Evolution(num_migrants=3, shared=False)

    @parameterized.parameters("num_parents", "num_children", "num_generations")
    def test_numbers_that_are_not_positive_integers_are_reported(self, name):
        for value in (0, -2, 1.5, "3"):
            with self.assertRaisesRegex(
                ValueError,
                f"`{name}` must be an integer of at least 1, got {value!r}",
            ):
                tvae.Evolution(**{name: value})

    @parameterized.parameters("parents", "variation")
    def test_what_is_no_operator_is_reported(self, name):
        for value in ("elite", tvae.Elite, None):
            with self.assertRaisesRegex(
                TypeError, f"`{name}` must be an operator.*got"
            ):
                tvae.Evolution(**{name: value})

    @parameterized.parameters(
        (dict(num_parents=9), "`num_parents` must be at most `num_states` = 8"),
        (
            dict(num_children=6),
            "`num_children` must be at most `num_latents` = 5",
        ),
        (
            dict(variation=tvae.Crossover(), num_parents=1),
            "crossover must have at least 2 parents and 2 latents, got 1",
        ),
        (
            dict(num_parents=9, num_children=6),
            "`num_parents` must be .*; `num_children` must be ",
        ),
    )
    def test_settings_that_do_not_fit_the_model_are_reported(
        self, changes, message
    ):
        settings = tvae.Evolution(
            **{"num_parents": 3, "num_children": 2, **changes}
        )
        with self.assertRaisesRegex(ValueError, message):
            settings.validate(num_states=8, num_latents=5)

    def test_children_of_sparse_flips_may_outnumber_the_latents(self):
        settings = tvae.Evolution(
            variation=tvae.SparseFlip(), num_parents=3, num_children=6
        )
        settings.validate(num_states=8, num_latents=5)


if __name__ == "__main__":
    tf.test.main()
