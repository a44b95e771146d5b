# SPDX-License-Identifier: Apache-2.0
"""Tests of convolutional networks."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import networks


class ConvDecoderTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        ((28, 28, 1), (32, 16)),
        ((5, 7, 3), (4, 4)),
        ((8, 8, 1), ()),
        ((1, 1, 2), (3,)),
    )
    def test_images_of_any_size_are_made(self, image_shape, filters):
        size = int(np.prod(image_shape))
        network = networks.ConvDecoder(
            size, image_shape, filters, dense_filters=3
        )
        self.assertEqual(network(tf.ones([2, 5])).shape, (2, size))

    def test_each_doubling_doubles_the_sides(self):
        network = networks.ConvDecoder(16 * 12, (16, 12, 1), (6, 5))
        network.build((None, 4))
        shape, sides = (None, 4), []
        for layer in network.layers:
            shape = layer.compute_output_shape(shape)
            if len(shape) == 4:
                sides.append(tuple(shape[1:3]))
        self.assertEqual(sides, [(4, 3), (8, 6), (16, 12), (16, 12)])

    @parameterized.parameters(((4, 6, 2),), ((3, 5, 2),))
    def test_output_is_flattened_row_by_row_with_channels_last(self, shape):
        # What doubling makes too much is cut off below and on the right.
        network = networks.ConvDecoder(int(np.prod(shape)), shape, (3,))
        states = tf.ones([1, 5])
        flat = network(states)
        maps = states
        for layer in network.layers:
            maps = layer(maps)
        self.assertEqual(maps.shape, (1, 4, 6, 2))
        height, width, _ = shape
        self.assertAllClose(tf.reshape(flat, shape), maps[0, :height, :width])

    def test_heads_of_several_outputs_an_entry_follow_one_another(self):
        # Biases alone decide the output: head 0 is 1 and 2, head 1 is 3 and 4
        # in the two channels.
        network = networks.ConvDecoder(2 * 3 * 3 * 2, (3, 3, 2), (2,))
        network.build((None, 4))
        last = network.layers[-1]
        kernel, _ = last.get_weights()
        last.set_weights([0.0 * kernel, np.array([1.0, 2.0, 3.0, 4.0])])
        outputs = network(tf.ones([1, 4])).numpy().reshape(2, 9, 2)
        self.assertAllEqual(outputs[0], [[1.0, 2.0]] * 9)
        self.assertAllEqual(outputs[1], [[3.0, 4.0]] * 9)

    def test_outputs_that_make_no_whole_images_are_told(self):
        with self.assertRaisesRegex(
            ValueError, r"`num_outputs` must be a multiple of 12.*got 18"
        ):
            networks.ConvDecoder(18, (2, 3, 2))


if __name__ == "__main__":
    tf.test.main()
