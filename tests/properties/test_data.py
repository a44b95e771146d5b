# SPDX-License-Identifier: Apache-2.0
"""Properties of checks of data, and of what draws batches, on drawn data."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import tensorflow as tf
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.properties import drawn
from tfvae import inputs
from tfvae.data import WeightedBatches, indexed_batches, loss_weighted_batches
from tfvae.data.source import Observations, split_test
from tfvae.data.splits import enlarge
from tfvae.data.weighted import alias_table


@st.composite
def weights(draw, min_size=1, max_size=12):
    """Draws weights float64 `[N]`, not all of them zero, of any sizes."""
    found = draw(
        hnp.arrays(
            np.float64,
            st.integers(min_size, max_size),
            elements=st.one_of(
                drawn.WEIGHTS,
                st.floats(1e-3, 1e3),
                st.sampled_from([5e-324, 1e-300, 1e300]),
            ),
        )
    )
    assume(found.any())
    return found


class ChecksTest(tf.test.TestCase):
    @given(st.data())
    def test_data_of_any_numeric_type_are_taken_as_they_are(self, data):
        x = data.draw(drawn.reals(data.draw(st.integers(1, 4))))
        given_x = data.draw(drawn.as_users_have_it(x))
        expected = given_x.astype(np.float32)
        for check in (inputs.check_data, inputs.as_batch):
            found = np.asarray(check(given_x, x.shape[1]))
            self.assertEqual(found.dtype, np.float32)
            self.assertAllEqual(found, expected)

    @given(st.data())
    def test_what_is_no_number_is_refused(self, data):
        shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=4))
        dtype = data.draw(st.sampled_from([np.bool_, np.complex64, "U1", "O"]))
        x = np.zeros(shape, dtype)
        with self.assertRaisesRegex(TypeError, "`x` must be numbers"):
            inputs.check_data(x, shape[1])

    @given(
        hnp.arrays(
            np.float64,
            hnp.array_shapes(min_dims=2, max_dims=2, max_side=4),
            elements=st.sampled_from([0.0, 1.0, -3.5e38, 1e308, np.inf]),
        )
    )
    @example(np.array([[3.5e38]]))  # Warned of an overflow in a cast.
    def test_data_beyond_float32_are_refused(self, x):
        assume(np.abs(x).max() > 3.4e38)
        with self.assertRaisesRegex(ValueError, "`x` must be finite"):
            inputs.check_data(x, x.shape[1])

    @given(weights())
    @example(np.array([1e300]))  # Passed the check, and failed in the graph.
    def test_weights_that_pass_the_check_pass_in_the_graph(self, found):
        if found.max() > inputs.MAX_WEIGHT:
            with self.assertRaisesRegex(ValueError, "`sample_weight` must be"):
                inputs.check_weights(found, len(found))
        else:
            inputs.check_weights(found, len(found))
            self.assertAllClose(inputs.as_weights(found), found, rtol=1e-6)

    @given(st.data())
    def test_observations_hold_the_same_data_as_float32(self, data):
        x = data.draw(drawn.reals(data.draw(st.integers(1, 4))))
        given_x = data.draw(drawn.as_users_have_it(x))
        if given_x.dtype.kind == "f":
            found = Observations("drawn", given_x)
            self.assertAllEqual(found.train, given_x.astype(np.float32))
        else:
            with self.assertRaisesRegex(TypeError, "`train` must be an array"):
                Observations("drawn", given_x)


class BatchesTest(tf.test.TestCase):
    @drawn.FILES
    @given(st.data())
    def test_an_epoch_visits_each_data_point_once(self, data):
        x = data.draw(drawn.reals(2, max_rows=12))
        size = data.draw(st.integers(1, 15))
        seed = data.draw(st.integers(-(2**63), 2**63 - 1))
        steps = -(-len(x) // size)
        batches = list(indexed_batches(x, size, seed).take(2 * steps))
        for epoch in (0, 1):
            parts = batches[epoch * steps : (epoch + 1) * steps]
            order = np.concatenate([index for _, index in parts])
            self.assertAllEqual(np.sort(order), np.arange(len(x)))
            found = np.concatenate([points for points, _ in parts])
            self.assertAllEqual(found, x[order])
        later = next(iter(indexed_batches(x, size, seed, start_epoch=1)))
        self.assertAllEqual(later[1], batches[steps][1])

    @drawn.FILES
    @given(st.data())
    def test_loss_weights_are_proportional_and_one_on_average(self, data):
        found = data.draw(weights())
        x = np.arange(len(found), dtype=np.float32)[:, None]
        size = data.draw(st.integers(1, 15))
        batches = loss_weighted_batches(x, found, size, with_index=True)
        parts = list(batches.take(-(-len(x) // size)))
        order = np.concatenate([index for _, index, _ in parts])
        scaled = np.concatenate([weight for *_, weight in parts])
        self.assertAllClose(scaled.mean(), 1.0, rtol=1e-5)
        expected = found[order] / found.max()
        self.assertAllClose(scaled / scaled.max(), expected, rtol=1e-5)

    @given(weights())
    def test_alias_tables_hold_the_probabilities(self, found):
        table = alias_table(found)
        self.assertAllInRange(table.accept, 0.0, 1.0)
        probs = np.float64(table.accept)
        np.add.at(probs, table.alias, 1.0 - table.accept)
        expected = found / found.max()
        expected *= len(found) / expected.sum()
        self.assertAllClose(probs, expected, rtol=1e-5, atol=1e-6 * len(found))
        # Not even by rounding.
        self.assertAllEqual(probs[found == 0.0], np.zeros(sum(found == 0.0)))

    @drawn.MODELS
    @given(weights(), st.data())
    def test_draws_of_a_step_do_not_depend_on_other_steps(self, found, data):
        x = np.arange(len(found), dtype=np.float32)[:, None]
        size = data.draw(st.integers(1, 9))
        batches = WeightedBatches(x, found, size, data.draw(drawn.SEEDS))
        start = data.draw(st.integers(0, 2**40))
        together = batches.draw(tf.constant(start, tf.int64), 5)
        for step in range(5):
            alone = batches.indices(start + step)
            self.assertAllEqual(together[step], alone)
        self.assertAllGreater(found[together.numpy()], 0.0)
        # Units of weights do not matter.
        batches.replace(found / found.max() * 2.0**-40)
        again = batches.draw(tf.constant(start, tf.int64), 5)
        self.assertAllEqual(again, together)

    @given(st.integers(2, 30), st.floats(0.0, 0.99), drawn.SEEDS)
    def test_splits_hold_every_row_once(self, num_rows, fraction, seed):
        rows = np.arange(num_rows)
        assume(round(fraction * num_rows) < num_rows)
        train, test = split_test(rows, fraction, seed)
        test = rows[:0] if test is None else test
        self.assertAllEqual(np.sort(np.concatenate([train, test])), rows)
        self.assertAllEqual(np.sort(train), train)

    @given(st.data())
    def test_enlarged_images_are_shrunk_to_the_same(self, data):
        shape = data.draw(hnp.array_shapes(min_dims=4, max_dims=4, max_side=3))
        images = data.draw(drawn.arrays(shape))
        factor = data.draw(st.integers(1, 3))
        found = enlarge(images, factor)
        for row in range(factor):
            for column in range(factor):
                part = found[:, row::factor, column::factor]
                self.assertAllEqual(part, images)


if __name__ == "__main__":
    tf.test.main()
