# SPDX-License-Identifier: Apache-2.0
"""Tests of features of images."""

from __future__ import annotations

import os
import pathlib
from unittest import mock

import gin
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import data
from tfvae.metrics import features


def _images(count=60, shape=(8, 8), seed=0, **fields):
    """Noisy images with one of four corners bright; the label tells which."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=2 * count)
    images = rng.uniform(0.0, 0.4, size=(2 * count, *shape))
    middle = (shape[0] // 2, shape[1] // 2)
    for image, label in zip(images, labels, strict=True):
        rows = slice(None, middle[0]) if label < 2 else slice(middle[0], None)
        columns = (
            slice(None, middle[1]) if label % 2 else slice(middle[1], None)
        )
        image[rows, columns] += 0.6
    points = images.reshape(2 * count, -1).astype(np.float32)
    return data.Observations(
        **{
            "name": "corners",
            "train": points[:count],
            "train_labels": labels[:count],
            "test": points[count:],
            "test_labels": labels[count:],
            "event_shape": shape,
        }
        | fields
    )


class ClassifierFeaturesTest(tf.test.TestCase, parameterized.TestCase):
    def _extractor(self, images, cache_dir=None, **settings):
        settings = {"num_features": 6, "num_steps": 2} | settings
        return features.ClassifierFeatures(images, cache_dir, **settings)

    def _without_training(self):
        """Leaves classifiers at their initial weights, which is quick."""
        return mock.patch.object(features, "_train")

    def test_classes_are_learnt_and_read_off_the_features(self):
        cache = self.create_tempdir().full_path
        images = _images(400)
        extractor = self._extractor(images, cache, num_steps=60)
        self.assertGreater(extractor.test_accuracy, 0.97)
        self.assertEqual(extractor.name, "classifier features")
        # What is kept ends with the map from features to logits, of which the
        # largest tells the class.
        (path,) = pathlib.Path(cache).iterdir()
        with np.load(path) as archive:
            count = len(archive.files) - 1
            kernel = archive[f"weight_{count - 2}"]
            bias = archive[f"weight_{count - 1}"]
        found = extractor(images.test)
        self.assertEqual(found.shape, (400, 6))
        self.assertDTypeEqual(found, np.float32)
        labels = (found @ kernel + bias).argmax(-1)
        self.assertAllClose(
            extractor.test_accuracy, (labels == images.test_labels).mean()
        )

    def test_features_have_unit_mean_square_without_effect_on_classes(self):
        images = _images()
        with (
            self._without_training(),
            mock.patch.object(features, "_normalize") as normalize,
        ):
            raw = self._extractor(images)(images.train)
        classifier, points = normalize.call_args.args
        logits = classifier(points)
        features._normalize(classifier, points)
        self.assertAllClose(classifier(points), logits, rtol=1e-4, atol=1e-5)
        with self._without_training():
            found = self._extractor(images)(images.train)
        self.assertAllClose(np.mean(found**2), 1.0, rtol=1e-5)
        scale = np.sqrt(np.mean(raw**2))
        self.assertAllClose(found, raw / scale, rtol=1e-4, atol=1e-5)

    def test_same_seed_gives_the_same_features(self):
        images = _images()
        first = self._extractor(images)(images.test)
        self.assertAllEqual(first, self._extractor(images)(images.test))

    def test_features_of_an_image_depend_on_nothing_but_the_image(self):
        images = _images()
        scaled = _images(
            train=255 * images.train - 100,
            test=255 * images.test - 100,
            value_range=(-100.0, 155.0),
        )
        with self._without_training():
            extractor = self._extractor(images)
            other_unit = self._extractor(scaled)
            other_seed = self._extractor(images, seed=1)
        together = extractor(images.test)
        apart = [extractor(one[None])[0] for one in images.test[:5]]
        self.assertAllClose(together[:5], apart, rtol=1e-5, atol=1e-6)
        self.assertAllClose(together, other_unit(scaled.test), atol=1e-4)
        self.assertNotAllClose(together, other_seed(images.test))

    @parameterized.parameters((8, 8), (9, 13, 3), (32, 32, 1))
    def test_images_of_any_shape_have_features(self, *shape):
        images = _images(10, shape)
        with self._without_training():
            found = self._extractor(images)(images.test)
        self.assertEqual(found.shape, (10, 6))
        self.assertGreater(found.std(0).max(), 0.0)

    def test_labels_may_be_any_integers(self):
        images = _images()
        numbers = np.array([-1, 7, 300, 1_000_000])
        renamed = _images(
            train_labels=numbers[images.train_labels],
            test_labels=numbers[images.test_labels],
        )
        with self._without_training() as train:
            extractor = self._extractor(renamed)
            accuracy = self._extractor(images).test_accuracy
        for call in train.call_args_list:
            self.assertAllEqual(call.args[2], images.train_labels)
        self.assertEqual(extractor.test_accuracy, accuracy)

    @parameterized.parameters("test", "test_labels")
    def test_accuracy_is_unknown_without_labelled_test_points(self, missing):
        cache = self.create_tempdir().full_path
        images = _images(**{"test_labels": None, missing: None})
        with self._without_training() as train:
            for _ in range(2):
                extractor = self._extractor(images, cache)
                self.assertIsNone(extractor.test_accuracy)
        train.assert_called_once()

    def test_kept_classifier_is_used_again(self):
        cache = os.path.join(self.create_tempdir().full_path, "new", "folder")
        images = _images()
        first = self._extractor(images, cache)
        with self._without_training() as train:
            again = self._extractor(images, cache)
        train.assert_not_called()
        self.assertAllEqual(first(images.test), again(images.test))
        self.assertEqual(first.test_accuracy, again.test_accuracy)
        self.assertLen(os.listdir(cache), 1)

    def test_other_data_or_settings_train_another(self):
        cache = self.create_tempdir().full_path
        images = _images()
        swapped = np.roll(images.train_labels, 1)
        with (
            self._without_training() as train,
            mock.patch.object(features, "_accuracy", return_value=0.5),
        ):
            self._extractor(images, cache)
            self._extractor(images, cache, seed=1)
            self._extractor(images, cache, num_steps=3)
            self._extractor(images, cache, num_features=5)
            self._extractor(images, cache, max_images=50)
            self._extractor(_images(train_labels=swapped), cache)
            self._extractor(_images(seed=1), cache)
            self._extractor(_images(value_range=(0.0, 2.0)), cache)
            self._extractor(_images(event_shape=(8, 8, 1)), cache)
            self._extractor(_images(test=images.train), cache)
        self.assertEqual(train.call_count, 10)
        self.assertLen(os.listdir(cache), 10)

    @parameterized.parameters("cut", "flipped", "foreign")
    def test_damaged_file_is_replaced(self, damage):
        cache = self.create_tempdir().full_path
        images = _images()
        with self._without_training() as train:
            self._extractor(images, cache)
            (path,) = pathlib.Path(cache).iterdir()
            whole = path.read_bytes()
            if damage == "cut":
                path.write_bytes(whole[:-100])
            elif damage == "flipped":
                middle = len(whole) // 2
                flipped = bytes([whole[middle] ^ 1])
                path.write_bytes(whole[:middle] + flipped + whole[middle + 1 :])
            else:
                np.savez(path, accuracy=1.0, weight_0=np.zeros(3))
            with self.assertLogs(features.__name__, "WARNING") as logs:
                self._extractor(images, cache)
            self.assertEqual(train.call_count, 2)
            self.assertRegex(logs.output[0], "Replacing the damaged file")
            self._extractor(images, cache)  # is whole again
            self.assertEqual(train.call_count, 2)

    def test_interrupted_write_leaves_nothing(self):
        cache = self.create_tempdir().full_path
        with (
            mock.patch.object(np, "savez", side_effect=KeyboardInterrupt),
            self._without_training(),
            self.assertRaises(KeyboardInterrupt),
        ):
            self._extractor(_images(), cache)
        self.assertEmpty(os.listdir(cache))

    def test_gin_makes_one(self):
        gin.bind_parameter("ClassifierFeatures.num_features", 3)
        images = _images()
        make = gin.get_configurable(features.ClassifierFeatures)
        with self._without_training():
            self.assertEqual(make(images)(images.test).shape, (60, 3))

    @parameterized.named_parameters(
        ("labels", {"train_labels": None}, {}, r"`train_labels`.*'corners'"),
        ("small", {"shape": (7, 9)}, {}, r"`data`.*at least 8 pix.*\(7, 9\)"),
        ("rank", {"event_shape": (64,)}, {}, r"`data` must be images.*64,"),
        ("steps", {}, {"num_steps": 0}, r"`num_steps` must be an integer.*0"),
        ("count", {}, {"max_images": 0}, r"`max_images` must be an integer"),
        ("size", {}, {"num_features": 0}, r"`num_features` must be an integer"),
    )
    def test_refuses(self, fields, settings, message):
        with self.assertRaisesRegex(ValueError, message):
            self._extractor(_images(**fields), **settings)

    def test_refuses_missing_entries(self):
        images = _images()
        images.train[3, 4] = np.nan
        with self.assertRaisesRegex(ValueError, "`data`.*no missing entries"):
            self._extractor(images)


if __name__ == "__main__":
    tf.test.main()
