# SPDX-License-Identifier: Apache-2.0
"""Tests of array files and of MNIST's format."""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import arrays

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


class ArrayFileTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def _save(self, name, *positional, **arrays_by_name):
        path = os.path.join(self.folder, name)
        save = np.savez if name.endswith("npz") else np.save
        save(path, *positional, **arrays_by_name)
        return path

    @parameterized.parameters(
        bool, np.uint8, np.int64, np.float16, np.float32, np.float64
    )
    def test_numbers_of_any_type_are_flattened(self, dtype):
        array = np.arange(24).reshape(2, 3, 4).astype(dtype)
        data = arrays.array_file(self._save("x.npy", array))
        self.assertAllEqual(data.train, array.reshape(2, 12).astype(float))
        self.assertDTypeEqual(data.train, np.float32)
        self.assertEqual(data.event_shape, (3, 4))
        self.assertEqual(data.value_range, (0.0, float(array.max())))
        self.assertEqual(data.name, "x")
        self.assertIsNone(data.test)

    def test_scale_applies_to_points_and_range(self):
        path = self._save("x.npy", np.array([[0, 255], [51, 102]], np.uint8))
        data = arrays.array_file(path, scale=1 / 255)
        self.assertAllClose(data.train, [[0.0, 1.0], [0.2, 0.4]])
        self.assertAllClose(data.value_range, (0.0, 1.0))

    def test_missing_entries_do_not_enter_the_range(self):
        path = self._save("x.npy", np.array([[np.nan, 2.0], [-1.0, np.nan]]))
        self.assertEqual(arrays.array_file(path).value_range, (-1.0, 2.0))

    def test_a_vector_holds_points_of_one_dimension(self):
        data = arrays.array_file(self._save("x.npy", np.arange(3.0)))
        self.assertEqual(data.train.shape, (3, 1))
        self.assertEqual(data.event_shape, (1,))

    def test_constant_data_gets_a_valid_range(self):
        data = arrays.array_file(self._save("x.npy", np.ones((3, 2))))
        self.assertEqual(data.value_range, (0.0, 1.0))

    def test_npz_members_are_chosen_by_key(self):
        train, test = np.zeros((4, 2)), np.ones((3, 2))
        path = self._save("x.npz", train=train, test=test)
        data = arrays.array_file(path, "train", test_key="test")
        self.assertAllEqual(data.train, train)
        self.assertAllEqual(data.test, test)

    def test_only_member_needs_no_key(self):
        path = self._save("x.npz", values=np.eye(2))
        self.assertAllEqual(arrays.array_file(path).train, np.eye(2))

    def test_test_points_come_from_another_file(self):
        path = self._save("x.npy", np.zeros((4, 2, 2)))
        test_path = self._save("y.npy", np.ones((3, 2, 2)))
        data = arrays.array_file(path, test_path=test_path)
        self.assertAllEqual(data.test, np.ones((3, 4)))

    def test_fraction_splits_the_points(self):
        path = self._save("x.npy", np.arange(10.0)[:, None])
        data = arrays.array_file(path, test_fraction=0.3, seed=1)
        both = np.concatenate([data.train, data.test])[:, 0]
        self.assertEqual(data.test.shape, (3, 1))
        self.assertAllEqual(np.sort(both), np.arange(10))

    def test_event_shape_may_be_given(self):
        path = self._save("x.npy", np.zeros((2, 6)))
        data = arrays.array_file(path, event_shape=(3, 2))
        self.assertEqual(data.event_shape, (3, 2))

    def test_refuses_absent_files(self):
        with self.assertRaisesRegex(FileNotFoundError, "`path` must.*'gone'"):
            arrays.array_file("gone")
        path = self._save("x.npy", np.zeros((2, 6)))
        with self.assertRaisesRegex(FileNotFoundError, "`test_path` must"):
            arrays.array_file(path, test_path="gone")

    @parameterized.named_parameters(
        ("key", {"key": "c"}, r"^`key` must name one .*\['a', 'b'\].*'c'"),
        ("no_key", {}, r"^`key` must name .*\['a', 'b'\].*None"),
        ("test", {"key": "a", "test_key": "c"}, r"^`test_key` must name"),
        (
            "two_tests",
            {"key": "a", "test_key": "b", "test_fraction": 0.1},
            r"`test_fraction` must be 0 if.*0\.1",
        ),
        ("scale", {"key": "a", "scale": 0.0}, r"`scale` must be pos.*0\.0"),
        ("shape", {"key": "a", "event_shape": (3,)}, r"`event_shape` must"),
        ("columns", {"key": "a", "test_key": "b"}, r"`test` must have as ma"),
    )
    def test_refuses(self, arguments, message):
        path = self._save("x.npz", a=np.ones((2, 2)), b=np.ones((2, 3)))
        with self.assertRaisesRegex(ValueError, message):
            arrays.array_file(path, **arguments)

    @parameterized.named_parameters(
        ("text", b"not an array", r"readable \.npy or \.npz"),
        ("empty", b"", r"readable \.npy or \.npz"),
        ("cut_zip", b"PK\x03\x04 cut", r"readable \.npy or \.npz"),
    )
    def test_refuses_broken_files(self, content, message):
        path = os.path.join(self.folder, "broken.npy")
        with open(path, "wb") as file:
            file.write(content)
        with self.assertRaisesRegex(ValueError, message):
            arrays.array_file(path)

    def test_refuses_key_for_a_single_array(self):
        path = self._save("x.npy", np.zeros((2, 6)))
        with self.assertRaisesRegex(ValueError, r"`key` must name.*\[\].*'a'"):
            arrays.array_file(path, "a")

    def test_refuses_truncated_arrays(self):
        path = self._save("x.npy", np.zeros((20, 6)))
        os.truncate(path, 300)
        with self.assertRaisesRegex(ValueError, "`path` must be a readable"):
            arrays.array_file(path)

    @parameterized.named_parameters(
        ("text", np.array(["a"]), TypeError, r"must hold numbers, got dtype"),
        ("complex", np.array([1j]), TypeError, r"numbers, got dtype complex"),
        ("scalar", np.array(1.0), ValueError, r"not empty, got shape \(\)"),
        ("empty", np.zeros((0, 3)), ValueError, r"got shape \(0, 3\)"),
        ("infinite", np.array([[np.inf]]), ValueError, r"must be finite"),
        ("huge", np.array([[1e300]]), ValueError, r"must be finite"),
    )
    def test_refuses_arrays(self, array, error, message):
        path = self._save("x.npy", array)
        with self.assertRaisesRegex(error, message):
            arrays.array_file(path)

    def test_pickles_are_never_loaded(self):
        path = os.path.join(self.folder, "x.npy")
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with self.assertRaisesRegex(ValueError, "allow_pickle=False"):
            arrays.array_file(path)


def _idx(array, kind=0x08):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, kind, array.ndim]) + sizes + array.tobytes()


class IdxImagesTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.images = (
            np.random.default_rng(0).integers(256, size=(7, 3, 2))
        ).astype(np.uint8)

    def _write(self, name, content):
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(content)

    @parameterized.parameters("", ".gz")
    def test_reads_plain_and_compressed_files(self, suffix):
        pack = gzip.compress if suffix else bytes
        self._write("train-images-idx3-ubyte" + suffix, pack(_idx(self.images)))
        self._write(
            "t10k-images-idx3-ubyte" + suffix, pack(_idx(self.images[:2]))
        )
        data = arrays.idx_images(self.folder)
        expected = self.images.reshape(7, 6) / 255
        self.assertAllClose(data.train, expected, rtol=1e-6)
        self.assertAllClose(data.test, expected[:2], rtol=1e-6)
        self.assertEqual(data.event_shape, (3, 2, 1))
        self.assertEqual(data.value_range, (0.0, 1.0))

    def test_numbers_limit_the_images(self):
        self._write("train-images-idx3-ubyte", _idx(self.images))
        self._write("t10k-images-idx3-ubyte", _idx(self.images))
        data = arrays.idx_images(self.folder, num_train=4, num_test=3, scale=1)
        self.assertAllEqual(data.train, self.images[:4].reshape(4, 6))
        self.assertAllEqual(data.test, self.images[:3].reshape(3, 6))
        self.assertIsNone(arrays.idx_images(self.folder, num_test=0).test)

    @parameterized.parameters("", ".gz")
    def test_labels_are_read_where_they_are(self, suffix):
        labels = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
        pack = gzip.compress if suffix else bytes
        self._write("train-images-idx3-ubyte", _idx(self.images))
        self._write("t10k-images-idx3-ubyte", _idx(self.images[:2]))
        self._write("train-labels-idx1-ubyte" + suffix, pack(_idx(labels)))
        data = arrays.idx_images(self.folder, num_train=4)
        self.assertAllEqual(data.train_labels, labels[:4])
        self.assertIsNone(data.test_labels)
        self._write("t10k-labels-idx1-ubyte" + suffix, pack(_idx(labels[:2])))
        data = arrays.idx_images(self.folder)
        self.assertAllEqual(data.train_labels, labels)
        self.assertAllEqual(data.test_labels, labels[:2])
        self.assertIsNone(arrays.idx_images(self.folder, num_test=0).test)

    @parameterized.parameters((6,), (8,), (7, 1))
    def test_refuses_other_than_one_label_an_image(self, *shape):
        self._write("train-images-idx3-ubyte", _idx(self.images))
        self._write("train-labels-idx1-ubyte", _idx(np.zeros(shape, np.uint8)))
        with self.assertRaisesRegex(
            ValueError, r"`directory` must have as many labels as.*\(7\), got"
        ):
            arrays.idx_images(self.folder)

    def test_test_images_are_optional(self):
        self._write("train-images-idx3-ubyte", _idx(self.images))
        self.assertIsNone(arrays.idx_images(self.folder).test)

    def test_refuses_folder_without_images(self):
        with self.assertRaisesRegex(
            FileNotFoundError, "`directory` must contain train-images-idx3"
        ):
            arrays.idx_images(self.folder)

    @parameterized.parameters(0, 8)
    def test_refuses_number_of_images(self, num_train):
        self._write("train-images-idx3-ubyte", _idx(self.images))
        with self.assertRaisesRegex(
            ValueError, rf"`num_train` must be in \[1, 7\].*{num_train}"
        ):
            arrays.idx_images(self.folder, num_train=num_train)

    def test_refuses_labels_in_place_of_images(self):
        self._write(
            "train-images-idx3-ubyte", _idx(np.zeros(5, dtype=np.uint8))
        )
        with self.assertRaisesRegex(ValueError, r"\[count, height, width\]"):
            arrays.idx_images(self.folder)

    @parameterized.named_parameters(
        ("empty", b"", r"idx file of unsigned bytes"),
        ("other", b"\x89PNG....", r"begins with b'.x89PNG'"),
        ("floats", _idx(np.zeros((1, 1, 1)), 0x0D), r"unsigned bytes"),
        ("header", bytes([0, 0, 8, 3, 0]), r"\(\) values.*got 0"),
        ("short", _idx(np.zeros((2, 2, 2), np.uint8))[:-1], r"got 7 in"),
        ("long", _idx(np.zeros((2, 2, 2), np.uint8)) + b"0", r"got 9 in"),
        (
            "gzip",
            gzip.compress(_idx(np.ones((2, 2, 2), np.uint8)))[:-9],
            r"whole gzip file",
        ),
        ("not_gzip", b"\x1f\x8b\x08 no", r"whole gzip file"),
    )
    def test_refuses_broken_files(self, content, message):
        self._write("train-images-idx3-ubyte", content)
        with self.assertRaisesRegex(ValueError, message):
            arrays.idx_images(self.folder)

    @pytest.mark.skipif(
        not os.path.isdir(DEBIAN_FASHION_MNIST),
        reason="needs Debian's package dataset-fashion-mnist",
    )
    def test_reads_fashion_mnist_as_packaged_by_debian(self):
        data = arrays.idx_images(DEBIAN_FASHION_MNIST, num_train=1000)
        self.assertEqual(data.train.shape, (1000, 784))
        self.assertEqual(data.test.shape, (10_000, 784))
        self.assertEqual(data.name, "fashion-mnist")
        # The published test set has 1000 images of each of the ten classes.
        self.assertAllEqual(np.bincount(data.test_labels), [1000] * 10)
        self.assertLen(data.train_labels, 1000)
        # Mean of the whole training set is 0.2860; of an image, its standard
        # deviation is about 0.13, so four standard errors are 0.016.
        self.assertAllClose(data.train.mean(), 0.286, atol=0.016)


if __name__ == "__main__":
    tf.test.main()
