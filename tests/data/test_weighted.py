# SPDX-License-Identifier: Apache-2.0
"""Tests of weighted draws and weighted losses, against weights and loops."""

from __future__ import annotations

import itertools
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tfvae.data import WeightedBatches, indexed_batches, loss_weighted_batches
from tfvae.data.weighted import alias_table


def _points(num_data: int, num_observed: int = 3) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(num_data, num_observed)).astype(np.float32)


def _weights(num_data: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=num_data) ** 2


def _take(dataset: tf.data.Dataset, count: int) -> list:
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def _counts(batches: WeightedBatches, num_batches: int) -> np.ndarray:
    """Returns how often each data point is drawn in the first steps."""
    index = batches.draw(tf.constant(0, tf.int64), num_batches)
    return np.bincount(index.numpy().ravel(), minlength=batches.num_data)


class Traced(keras.Model):
    """A linear model that counts how often its step is traced."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.num_traces = 0
        self.shapes = []

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        self.num_traces += 1
        self.shapes.append(tuple(x.shape))
        return tf.reduce_mean(y_pred**2)


class AliasTableTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.product(
        num_data=[1, 2, 3, 5, 10, 50_000],
        kind=["equal", "counted", "skewed", "rank", "one", "half", "huge"],
    )
    def test_columns_have_the_probabilities_of_the_weights(
        self, num_data, kind
    ):
        generator = np.random.default_rng(num_data)
        weights = {
            "equal": np.full(num_data, 0.1),
            # Some have the mean weight, with neither room nor excess.
            "counted": np.arange(1.0, num_data + 1.0),
            "skewed": generator.exponential(size=num_data) ** 8,
            "rank": 1.0 / (1e-3 * num_data + np.arange(num_data)),
            "one": 1.0 * (np.arange(num_data) == num_data // 2),
            "half": np.where(np.arange(num_data) % 2, 0.0, 1e-300),
            "huge": np.full(num_data, 1e308),
        }[kind]
        table = alias_table(weights)
        accept = table.accept.astype(np.float64)
        found = accept.copy()
        np.add.at(found, table.alias, 1.0 - accept)
        scaled = weights / weights.max()
        scaled *= num_data / scaled.sum()
        # Columns are in float32: 2**-24 of each that gives an index, which
        # for the largest weights are as many as the weight.
        np.testing.assert_allclose(found, scaled, rtol=1e-6, atol=1e-7)
        self.assertEqual(np.count_nonzero(accept[weights == 0.0]), 0)
        self.assertTrue(np.all(weights[table.alias[accept < 1.0]] > 0.0))


class WeightedBatchesTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(2, 5, 300)
    def test_frequencies_are_the_weights(self, num_data):
        weights = _weights(num_data)
        batches = WeightedBatches(_points(num_data), weights, 250, seed=3)
        # Chi-square wants some of each: of those with less than a thousandth
        # of the mean there are too few to count.
        weights[weights < 1e-3 * weights.mean()] = 0.0
        batches.replace(weights)
        p_value = oracles.chi_square_p(_counts(batches, 4000), weights)
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_draws_of_one_batch_are_independent(self):
        batches = WeightedBatches(_points(3), [1.0, 2.0, 4.0], 2, seed=1)
        pairs = batches.draw(tf.constant(0, tf.int64), 20_000).numpy()
        counts = np.bincount(3 * pairs[:, 0] + pairs[:, 1], minlength=9)
        probs = np.outer([1.0, 2.0, 4.0], [1.0, 2.0, 4.0]).ravel()
        p_value = oracles.chi_square_p(counts, probs)
        self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)

    def test_weight_zero_is_never_drawn(self):
        weights = np.zeros(1000)
        weights[[3, 500, 999]] = 1e-12, 1e-12, 2e-12
        counts = _counts(WeightedBatches(_points(1000), weights, 64), 1000)
        self.assertAllEqual(np.flatnonzero(counts), [3, 500, 999])

    def test_small_shares_of_many_points_are_drawn(self):
        # A cumulative sum in float32 would give most of the small ones none.
        num_data = 1_000_000
        weights = np.full(num_data, 1.0)
        weights[: num_data // 2] = 1e9
        weights[::2] *= 1e-3
        drawn = WeightedBatches(_points(num_data, 1), weights, 1000).draw(
            tf.constant(0, tf.int64), 1000
        )
        even = np.mean(drawn.numpy() % 2 == 0)
        expected = 1e-3 / (1.0 + 1e-3)
        error = np.sqrt(expected / 1e6)  # Standard error of 1e6 draws.
        self.assertNear(even, expected, 4.0 * error)
        self.assertLess(drawn.numpy().max(), num_data // 2)

    @parameterized.parameters((1, 1), (7, 3), (8, 3), (32, 20_000))
    def test_any_step_can_be_computed_anew(self, batch_size, num_observed):
        points = _points(50, num_observed)
        batches = WeightedBatches(
            points, _weights(50), batch_size, seed=5, with_index=True
        )
        taken = _take(batches.dataset(infinite=True), 70)
        for step, (x, index) in enumerate(taken):
            self.assertAllEqual(index, batches.indices(step))
            self.assertAllEqual(x, points[index])
        later = _take(batches.dataset(start_step=33, infinite=True), 37)
        for (_, index), (_, expected) in zip(later, taken[33:], strict=True):
            self.assertAllEqual(index, expected)

    def test_element_types_and_shapes_are_static(self):
        batches = WeightedBatches(_points(9), _weights(9), 4)
        spec = batches.dataset(infinite=True).element_spec
        self.assertEqual(spec, tf.TensorSpec([4, 3], tf.float32))
        batches = WeightedBatches(_points(9), _weights(9), 4, with_index=True)
        x, index = batches.dataset(infinite=True).element_spec
        self.assertEqual(x, tf.TensorSpec([4, 3], tf.float32))
        self.assertEqual(index, tf.TensorSpec([4], tf.int32))
        self.assertEqual(
            batches.dataset(infinite=True).cardinality(),
            tf.data.INFINITE_CARDINALITY,
        )

    def test_seeds_and_steps_give_different_draws(self):
        def draws(seed, step):
            batches = WeightedBatches(_points(1000), np.ones(1000), 16, seed)
            return tuple(batches.indices(step))

        keys = [(0, 0), (0, 1), (1, 0), (2**40, 0), (-1, 0), (0, 2**40)]
        self.assertLen({draws(*key) for key in keys}, len(keys))
        self.assertEqual(draws(0, 1), draws(0, 1))

    def test_same_dataset_goes_on_after_a_change(self):
        batches = WeightedBatches(
            _points(20), _weights(20), 4, seed=2, with_index=True
        )
        dataset = batches.dataset(infinite=True)
        _take(dataset, 3)
        batches.replace(_weights(20, seed=1))
        batches.start_step = 3
        self.assertEqual(batches.start_step, 3)
        for step, (_, index) in enumerate(_take(dataset, 70), start=3):
            self.assertAllEqual(index, batches.indices(step))

    def test_new_iterator_has_no_batch_of_old_weights_or_points(self):
        batches = WeightedBatches(_points(20), np.ones(20), 4)
        dataset = batches.dataset(infinite=True)
        self.assertLen(_take(dataset, 5), 5)
        old = iter(dataset)
        next(old)
        for num_data in (30, 10):
            points = np.full((num_data, 3), num_data, np.float32)
            weights = np.arange(num_data) == num_data - 1
            batches.replace(weights, points)
            self.assertEqual(batches.num_data, num_data)
            for x in _take(dataset, 150):
                self.assertAllEqual(x, points[:4])
            self.assertAllEqual(batches.indices(7), 4 * [num_data - 1])

    def test_state_is_json_and_restores_the_step(self):
        batches = WeightedBatches(_points(20), _weights(20), 4, seed=7)
        batches.start_step += 11
        state = json.loads(json.dumps(batches.state()))
        again = WeightedBatches(_points(20), _weights(20), 4, seed=7)
        again.restore(state)
        self.assertAllEqual(
            _take(again.dataset(infinite=True), 3),
            _take(batches.dataset(infinite=True), 3),
        )
        other = WeightedBatches(_points(20), _weights(20), 4, seed=8)
        with self.assertRaisesRegex(ValueError, "`state` must have the seed 8"):
            other.restore(state)

    def test_shards_draw_differently_from_the_same_weights(self):
        weights = np.arange(1.0, 6.0)
        batches = WeightedBatches(_points(5, 1), weights, 50, with_index=True)
        drawn = [
            np.array(
                [
                    i
                    for _, i in _take(
                        batches.dataset(shard=(s, 2), infinite=True), 200
                    )
                ]
            )
            for s in range(2)
        ]
        self.assertAllEqual(drawn[1][3], batches.indices(3, shard_number=1))
        self.assertNotAllEqual(drawn[0], drawn[1])
        for each in drawn:
            counts = np.bincount(each.ravel(), minlength=5)
            p_value = oracles.chi_square_p(counts, weights)
            self.assertGreater(p_value, oracles.CHI_SQUARE_LEVEL)
        self.assertLess(
            abs(np.corrcoef(drawn[0].ravel(), drawn[1].ravel())[0, 1]),
            4.0 / np.sqrt(drawn[0].size),
        )

    def test_fit_traces_once_though_weights_and_points_change(self):
        batches = WeightedBatches(_points(20), _weights(20), 4)
        dataset = batches.dataset(infinite=True)
        model = Traced()
        model.compile("sgd")
        for num_data in (20, 20, 33, 5):
            batches.replace(_weights(num_data), _points(num_data))
            batches.start_step += 6
            model.fit(
                dataset, steps_per_epoch=3, epochs=2, verbose=0, shuffle=False
            )
        # Once to build the metrics, once to train.
        self.assertEqual(model.num_traces, 2)

    @parameterized.named_parameters(
        ("length", {"weights": np.ones(4)}, r"`weights`.*\(5,\).*\(4,\)"),
        ("rank", {"weights": np.ones((5, 1))}, r"`weights`.*\(5, 1\)"),
        ("negative", {"weights": [1, 1, -1, 1, 1]}, "`weights`.*got -1"),
        ("nan", {"weights": [1, 1, np.nan, 1, 1]}, "`weights`.*got nan"),
        ("infinite", {"weights": [1, 1, np.inf, 1, 1]}, "`weights`.*got inf"),
        ("zeros", {"weights": np.zeros(5)}, "`weights` must not all be zero"),
        ("points", {"points": np.ones(5)}, r"`points`.*\(5,\)"),
        ("batch_size", {"batch_size": 0}, "`batch_size` must be.*got 0"),
        ("half", {"batch_size": 1.5}, "`batch_size` must be.*got 1.5"),
        (
            "empty",
            {"points": _points(0), "weights": np.ones(0)},
            "`points` must have at least one row",
        ),
    )
    def test_refuses(self, arguments, message):
        given = {"points": _points(5), "weights": np.ones(5), "batch_size": 2}
        with self.assertRaisesRegex(ValueError, message):
            WeightedBatches(**{**given, **arguments})

    @parameterized.parameters("sampled", "by loss")
    def test_batches_of_bytes_are_those_of_the_same_floats(self, use):
        points = np.eye(5, dtype=np.uint8)

        def batches(points):
            if use == "by loss":
                return loss_weighted_batches(points, _weights(5), 2)
            made = WeightedBatches(points, _weights(5), 2)
            self.assertEqual(made.dtype, points.dtype)
            return made.dataset(infinite=True)

        for one, other in zip(
            _take(batches(points), 4),
            _take(batches(points.astype(np.float32)), 4),
            strict=True,
        ):
            if use == "by loss":
                self.assertAllEqual(one[-1], other[-1])
                one, other = one[0], other[0]
            self.assertAllEqual(one, other)
            self.assertEqual(one.dtype, np.float32)

    def test_refused_changes_change_nothing(self):
        batches = WeightedBatches(_points(5), np.ones(5), 2)
        before = _take(batches.dataset(infinite=True), 3)
        for arguments, message in (
            ((np.ones(6),), r"`weights` must have shape \(5,\)"),
            ((np.ones(6), _points(6, 2)), "`points` must have 3 columns"),
            ((np.zeros(6), _points(6)), "`weights` must not all be zero"),
            ((np.ones(6), np.ones((6, 3), np.uint8)), "float32.*got uint8"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                batches.replace(*arguments)
        self.assertAllEqual(_take(batches.dataset(infinite=True), 3), before)

    @parameterized.parameters((1, 1), (-1, 2), (0, 0))
    def test_refuses_shards_that_are_not(self, *shard):
        batches = WeightedBatches(_points(5), np.ones(5), 2)
        with self.assertRaisesRegex(ValueError, "`shard` must be .*, got"):
            batches.dataset(shard=shard)

    def test_refuses_steps_before_the_first(self):
        batches = WeightedBatches(_points(5), np.ones(5), 2)
        for call in (batches.dataset, batches.indices):
            with self.assertRaisesRegex(ValueError, "at least 0, got -1"):
                call(-1)
        with self.assertRaisesRegex(ValueError, "at least 0, got -1"):
            batches.start_step = -1


class TargetsTest(tf.test.TestCase, parameterized.TestCase):
    def test_each_point_has_its_own_target(self):
        points = _points(10)
        targets = points.astype(np.float64).sum(1) / 3.0
        batches = WeightedBatches(points, _weights(10), 4, targets=targets)
        dataset = batches.dataset(infinite=True)
        fewer = _points(10)[3:8] + 1.0
        for values in (points, fewer):
            if values is fewer:
                batches.replace(_weights(5), fewer, fewer.sum(1))
            for x, y in _take(dataset, 5):
                self.assertAllClose(
                    y,
                    x.astype(np.float64).sum(1)
                    / (3.0 if values is points else 1.0),
                )
        self.assertEqual(dataset.element_spec[1].dtype, tf.float64)

    def test_targets_change_no_draws(self):
        points = _points(10)
        plain, paired = (
            WeightedBatches(points, _weights(10), 4, targets=targets)
            for targets in (None, np.zeros(10))
        )
        pairs = zip(
            _take(plain.dataset(), 5), _take(paired.dataset(), 5), strict=True
        )
        for x, (other, _) in pairs:
            self.assertAllEqual(x, other)

    def test_loss_weighted_points_have_their_targets(self):
        points = _points(10)
        dataset = loss_weighted_batches(
            points, _weights(10), 4, targets=points[:, 0]
        )
        for x, y, _ in _take(dataset, 5):
            self.assertAllEqual(y, x[:, 0])

    @parameterized.parameters(
        ({"targets": np.zeros(4)}, "the 5 rows of `points`.*got 4"),
        ({"targets": np.zeros(5), "with_index": True}, "`with_index`.*True"),
    )
    def test_refuses(self, arguments, message):
        for make in (WeightedBatches, loss_weighted_batches):
            with self.assertRaisesRegex(ValueError, message):
                make(_points(5), np.ones(5), 2, **arguments)

    @parameterized.parameters(
        (None, (np.ones(5), _points(5), np.zeros(5))),
        (np.zeros(5), (np.ones(5), _points(5))),
        (np.zeros(5), (np.ones(5), None, np.zeros(5))),
        (np.zeros(5), (np.ones(5), _points(5), np.zeros(4))),
    )
    def test_targets_are_replaced_with_points(self, targets, arguments):
        batches = WeightedBatches(_points(5), np.ones(5), 2, targets=targets)
        with self.assertRaisesRegex(ValueError, "`targets` must"):
            batches.replace(*arguments)


class EpochTest(tf.test.TestCase):
    """Datasets that end, so that `fit` does."""

    def _epochs(self, dataset, count=3):
        return [[x.numpy() for x in dataset] for _ in range(count)]

    def test_epochs_go_on_where_the_last_ended(self):
        batches = WeightedBatches(_points(18), _weights(18), 4, seed=2)
        dataset = batches.dataset()
        self.assertLen(dataset, 5)
        drawn = np.concatenate(self._epochs(dataset))
        self.assertAllEqual(drawn, _take(batches.dataset(infinite=True), 15))

    def test_setting_the_step_begins_there(self):
        batches = WeightedBatches(_points(18), _weights(18), 4, seed=2)
        dataset = batches.dataset()
        expected = _take(batches.dataset(infinite=True), 20)
        self._epochs(dataset, 2)
        batches.start_step = 7
        drawn = np.concatenate(self._epochs(dataset, 2))
        self.assertAllEqual(drawn, expected[7:17])
        batches.start_step = 7
        self.assertAllEqual(self._epochs(dataset, 1)[0], expected[7:12])

    def test_given_step_is_that_of_the_first_epoch(self):
        batches = WeightedBatches(_points(18), _weights(18), 4, seed=2)
        drawn = np.concatenate(self._epochs(batches.dataset(start_step=3), 2))
        expected = _take(batches.dataset(infinite=True), 13)
        self.assertAllEqual(drawn, expected[3:])

    def test_datasets_do_not_disturb_each_other(self):
        batches = WeightedBatches(_points(18), _weights(18), 4, seed=2)
        one, other = batches.dataset(), batches.dataset()
        self.assertAllEqual(self._epochs(one), self._epochs(other))

    def test_fit_ends(self):
        inputs = keras.Input([1])
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        model.compile("sgd", loss=lambda y, prediction: 0.0 * prediction)
        batches = WeightedBatches(_points(18, 1), _weights(18), 4)
        dataset = batches.dataset().map(lambda x: (x, x))
        history = model.fit(dataset, epochs=2, verbose=0, shuffle=False)
        self.assertLen(history.epoch, 2)
        self.assertEqual(int(model.optimizer.iterations), 10)


class LossWeightedBatchesTest(tf.test.TestCase, parameterized.TestCase):
    def test_each_epoch_visits_every_point_with_its_weight(self):
        points, weights = _points(10), _weights(10)
        batches = loss_weighted_batches(
            points, weights, 4, seed=3, start_epoch=2, with_index=True
        )
        plain = _take(indexed_batches(points, 4, 3, 2), 6)
        for (x, index, weight), (x_plain, index_plain) in zip(
            _take(batches, 6), plain, strict=True
        ):
            self.assertAllEqual(x, x_plain)
            self.assertAllEqual(index, index_plain)
            self.assertAllClose(weight, weights[index] / weights.mean())

    @parameterized.parameters(True, False)
    def test_keras_multiplies_the_loss_by_the_weight(self, with_index):
        points, weights = _points(8), _weights(8)
        batches = loss_weighted_batches(
            points, weights, 8, with_index=with_index
        )
        seen = []

        class Weighed(keras.Model):
            def train_step(self, data):
                seen.append(keras.utils.unpack_x_y_sample_weight(data))
                return {"sum": tf.reduce_sum(seen[-1][2] * seen[-1][0][:, 0])}

        model = Weighed()
        model.compile()
        history = model.fit(
            batches, steps_per_epoch=1, verbose=0, shuffle=False
        )
        self.assertEqual(seen[0][1] is not None, with_index)
        expected = np.sum(weights / weights.mean() * points[:, 0])
        self.assertAllClose(history.history["sum"][0], expected, rtol=1e-5)

    def test_both_ways_have_the_same_expectation(self):
        num_data, batch_size, num_batches = 40, 50, 2000
        weights = _weights(num_data)
        points = _points(num_data, 1)
        values = np.sin(3.0 * points[:, 0])
        probs = weights / weights.sum()
        expected = probs @ values
        epoch = _take(loss_weighted_batches(points, weights, 7), 6)
        by_loss = sum(
            np.sum(weight * np.sin(3.0 * x[:, 0])) for x, _, weight in epoch
        )
        self.assertAllClose(by_loss / num_data, expected, rtol=1e-5)
        batches = WeightedBatches(points, weights, batch_size, seed=1)
        index = batches.draw(tf.constant(0, tf.int64), num_batches)
        variance = probs @ (values - expected) ** 2
        error = np.sqrt(variance / (batch_size * num_batches))
        mean = values[index.numpy()].mean()
        self.assertNear(mean, expected, 4.0 * error)

    def test_refuses_wrong_weights(self):
        with self.assertRaisesRegex(ValueError, r"`weights`.*\(5,\)"):
            loss_weighted_batches(_points(5), np.ones(4), 2)


class DistributedTest(tf.test.TestCase):
    @pytest.mark.slow
    def test_replicas_share_a_batch_or_have_one_each(self):
        done = subprocess.run(
            # A process of its own: devices are made before all else.
            [sys.executable, "-m", "tests.data.test_weighted"],
            cwd=pathlib.Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])


def main() -> None:
    """Draws batches for two replicas."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    both = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    points = np.arange(20.0, dtype=np.float32)[:, None]
    with both.scope():
        batches = WeightedBatches(points, np.arange(20.0), 8)
        model = Traced()
        model.compile("sgd")
    dataset = batches.dataset(infinite=True)
    split = next(iter(both.experimental_distribute_dataset(dataset)))
    parts = both.experimental_local_results(split)
    np.testing.assert_array_equal(
        np.concatenate(parts)[:, 0], batches.indices(0)
    )
    for _ in range(2):
        batches.replace(np.ones(20))
        model.fit(dataset, steps_per_epoch=2, verbose=0, shuffle=False)
    # Once for each replica.
    np.testing.assert_array_equal(model.shapes, [(4, 1), (4, 1)])
    made = both.distribute_datasets_from_function(
        lambda context: batches.dataset(
            shard=(context.input_pipeline_id, context.num_input_pipelines)
        )
    )
    each = both.experimental_local_results(next(iter(made)))
    for step, x in enumerate(each):
        np.testing.assert_array_equal(x[:, 0], batches.indices(step))


if __name__ == "__main__":
    main()
