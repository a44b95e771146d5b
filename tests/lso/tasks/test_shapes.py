# SPDX-License-Identifier: Apache-2.0
"""Tests of the task of large areas."""

from __future__ import annotations

import functools
import json
import pickle

import gin
import numpy as np
import tensorflow as tf

from tfvae import data
from tfvae.lso.tasks import shapes

SMALL = functools.partial(data.squares, 6, 1, 3, None, copies=2)


class ShapesTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.task = shapes.shapes(SMALL, (6, 6))

    def test_scores_are_those_of_the_objective(self):
        found = self.task.data(0)
        images = self.task.read(found.points, 0)
        self.assertAllEqual(
            found.scores, list(map(self.task.objective, images))
        )
        self.assertAllEqual(np.unique(found.scores), [1, 4, 9])

    def test_data_are_the_training_points_whatever_the_seed(self):
        for seed in (0, 5):
            self.assertAllEqual(self.task.data(seed).points, SMALL().train)

    def test_area_counts_ones_alone(self):
        image = np.array([[0, 1, 2], [1, 1, 0]], np.uint8)
        self.assertEqual(shapes.area(image), 3.0)
        self.assertIs(type(shapes.area(image)), float)

    def test_half_is_rounded_down(self):
        means = np.full((2, 36), 0.5, np.float32)
        means[0, 7] = np.nextafter(np.float32(0.5), np.float32(1))
        dark, light = self.task.read(means, 0)[::-1]
        self.assertEqual(dark.dtype, np.uint8)
        self.assertEqual(dark.shape, (6, 6))
        self.assertEqual(self.task.objective(dark), 0.0)
        self.assertEqual(self.task.objective(light), 1.0)
        self.assertEqual(light[1, 1], 1)

    def test_points_are_read_and_written_without_a_change(self):
        points = self.task.data(0).points[:9]
        written = self.task.write(self.task.read(points, 0))
        self.assertEqual(written.dtype, np.float32)
        self.assertAllEqual(written, points)

    def test_best_is_an_image_of_ones(self):
        self.assertTrue(self.task.maximise)
        ones = np.ones((6, 6), np.uint8)
        self.assertEqual(self.task.optimum, self.task.objective(ones))
        self.assertEqual(shapes.shapes().optimum, 4096.0)

    def test_images_survive_json(self):
        rng = np.random.default_rng(0)
        task = shapes.shapes(SMALL, (9, 4))
        for image in rng.integers(0, 2, (5, 9, 4), dtype=np.uint8):
            text = json.dumps(task.to_json(image))
            # 36 bits are 5 bytes, 8 characters, and quotes.
            self.assertLen(text, 10)
            found = task.from_json(json.loads(text))
            self.assertEqual(found.dtype, np.uint8)
            self.assertAllEqual(found, image)

    def test_objective_can_be_sent_to_another_process(self):
        copy = pickle.loads(pickle.dumps(self.task.objective))
        self.assertEqual(copy(np.ones((2, 3))), 6.0)

    def test_images_of_another_size_are_reported(self):
        with self.assertRaisesRegex(
            ValueError, r"`image_shape` must have the 36 pixels.*\(5, 5\)"
        ):
            shapes.shapes(SMALL, (5, 5)).data(0)

    def test_gin_refers_to_it_by_name(self):
        with gin.unlock_config():
            gin.bind_parameter("shapes.image_shape", (3, 5))
        self.assertEqual(gin.get_configurable("shapes")().optimum, 15.0)


if __name__ == "__main__":
    tf.test.main()
