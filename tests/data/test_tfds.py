# SPDX-License-Identifier: Apache-2.0
"""Tests of TensorFlow Datasets, on data that needs no network."""

from __future__ import annotations

import gzip
import os
import socket
import struct
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets
from absl.testing import parameterized

from tfvae.data import ShardedRows, splits, tfds, write_shards

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def _image(index: int, size: int = 6) -> np.ndarray:
    generator = np.random.default_rng(index)
    return generator.integers(256, size=(size, 5, 3)).astype(np.uint8)


class TinyPictures(tensorflow_datasets.core.GeneratorBasedBuilder):
    """Seven training and three test pictures, some features beside them."""

    VERSION = tensorflow_datasets.core.Version("1.0.0")

    def _info(self):
        features = tensorflow_datasets.features
        return tensorflow_datasets.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "image": features.Image(shape=(6, 5, 3)),
                    "varied": features.Image(shape=(None, 5, 3)),
                    "vector": features.Tensor(shape=(2,), dtype=np.float32),
                    "number": features.Scalar(dtype=np.int64),
                    "caption": features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, 7),
            "test": self._generate_examples(7, 10),
        }

    def _generate_examples(self, start, stop):
        for index in range(start, stop):
            yield (
                index,
                {
                    "image": _image(index),
                    "varied": _image(index, 3 + index),
                    "vector": [index, -index],
                    "number": index,
                    "caption": f"picture {index}",
                },
            )


class ManualPictures(TinyPictures):
    """The same, but wants a file that one has to fetch by hand."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put start.txt there."

    def _split_generators(self, dl_manager):
        start = int((dl_manager.manual_dir / "start.txt").read_text())
        return {"train": self._generate_examples(start, start + 2)}


class LabelledPictures(TinyPictures):
    """Pictures as SVHN's: 32 x 32 in three colours, each with a class."""

    def _info(self):
        features = tensorflow_datasets.features
        return tensorflow_datasets.core.DatasetInfo(
            builder=self,
            features=features.FeaturesDict(
                {
                    "image": features.Image(shape=(32, 32, 3)),
                    "label": features.ClassLabel(num_classes=10),
                }
            ),
        )

    def _generate_examples(self, start, stop):
        for index in range(start, stop):
            picture = np.full((32, 32, 3), 20 * index, np.uint8)
            yield index, {"image": picture, "label": index % 10}


class TfdsImagesTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        # No test may wait for a network: any look-up of a name fails at once.
        refused = OSError("no network in tests")
        self.enter_context(
            mock.patch.object(socket, "getaddrinfo", side_effect=refused)
        )

    def _tiny(self, name="tiny_pictures", **arguments):
        return tfds.tfds_images(
            name, data_dir=self.folder, download=True, **arguments
        )

    def _sorted(self, points):
        return points[np.lexsort(points.T)]

    def test_reads_a_registered_builder(self):
        data = self._tiny()
        train = np.stack([_image(i).reshape(-1) for i in range(7)]) / 255
        test = np.stack([_image(i).reshape(-1) for i in range(7, 10)]) / 255
        self.assertAllClose(self._sorted(data.train), self._sorted(train))
        self.assertAllClose(self._sorted(data.test), self._sorted(test))
        self.assertEqual(data.event_shape, (6, 5, 3))
        self.assertEqual(data.value_range, (0.0, 1.0))
        self.assertEqual(data.name, "tiny_pictures")

    def test_prepared_data_needs_no_permission(self):
        first = self._tiny()
        again = tfds.tfds_images("tiny_pictures", data_dir=self.folder)
        self.assertAllEqual(first.train, again.train)
        version = tfds.tfds_images("tiny_pictures:1.0.0", data_dir=self.folder)
        self.assertEqual(version.name, "tiny_pictures_1.0.0")

    def test_prepared_data_needs_no_builder_code(self):
        prepared = self._tiny()
        os.rename(
            os.path.join(self.folder, "tiny_pictures"),
            os.path.join(self.folder, "unheard_of"),
        )
        read = tfds.tfds_images("unheard_of", data_dir=self.folder)
        self.assertAllEqual(read.train, prepared.train)

    def test_splits_may_be_sliced_and_left_out(self):
        data = self._tiny(split="train[:3]", test_split=None, scale=1.0)
        self.assertEqual(data.train.shape, (3, 90))
        self.assertIsNone(data.test)
        self.assertEqual(data.value_range, (0.0, 255.0))

    def test_split_becomes_shards(self):
        data_set = {"data_dir": self.folder, "download": True}
        source = tfds.TfdsSplit("tiny_pictures", "train[2:]", **data_set)
        folder = self.create_tempdir().full_path + "/new"
        write_shards(folder, source, rows_per_shard=2)
        rows = ShardedRows(folder)
        expected = self._tiny(split="train[2:]", scale=1.0)
        self.assertEqual(rows.manifest.name, "tiny_pictures_1.0.0")
        self.assertEqual(rows.manifest.dtype, "uint8")
        self.assertEqual(rows.manifest.event_shape, (6, 5, 3))
        self.assertEqual(rows.rows_of_shards, [2, 2, 1])
        self.assertAllEqual(np.asarray(rows), expected.train)
        rest = [part.values for part in source.parts(0, 3)]
        self.assertAllEqual(np.concatenate(rest).reshape(2, -1), rows[3:])

    def test_split_is_resized_and_of_another_feature(self):
        data_set = {"data_dir": self.folder, "download": True}
        resized = tfds.TfdsSplit(
            "tiny_pictures", "test", feature="varied", size=(4, 4), **data_set
        )
        with mock.patch.object(tfds, "INPUT_BYTES", 400):
            parts = list(resized.parts(0, 0))
        self.assertEqual([part.offset for part in parts], [0, 2])
        expected = self._tiny(feature="varied", size=(4, 4), scale=1.0)
        values = np.concatenate([part.values for part in parts])
        self.assertAllEqual(values.reshape(3, -1), expected.test)
        with self.assertRaisesRegex(ValueError, "`feature` must be one of"):
            tfds.TfdsSplit("tiny_pictures", "test", feature="x", **data_set)
        with self.assertRaisesRegex(ValueError, "`split` must be one of"):
            tfds.TfdsSplit("tiny_pictures", "nothing", **data_set)

    def test_pictures_of_different_sizes_are_resized(self):
        data = self._tiny(feature="varied", size=(4, 4))
        self.assertEqual(data.event_shape, (4, 4, 3))
        with self.assertRaisesRegex(ValueError, r"`size` must be.*\(None, 5"):
            self._tiny(feature="varied")

    def test_other_features_are_not_scaled(self):
        data = self._tiny(feature="vector")
        expected = [[i, -i] for i in range(7)]
        self.assertAllEqual(data.train[np.argsort(data.train[:, 0])], expected)
        self.assertEqual(data.value_range, (-6.0, 6.0))
        number = self._tiny(feature="number")
        self.assertEqual(number.train.shape, (7, 1))

    def test_labels_are_those_of_the_pictures(self):
        data = self._tiny("labelled_pictures", scale=1.0)
        self.assertEqual(data.event_shape, (32, 32, 3))
        self.assertAllEqual(data.train[:, 0], 20 * data.train_labels)
        self.assertAllEqual(data.test[:, 0], 20 * data.test_labels)
        self.assertAllEqual(np.sort(data.test_labels), [7, 8, 9])
        again = tfds.tfds_images(
            "labelled_pictures", data_dir=self.folder, test_split=None
        )
        self.assertAllEqual(again.train_labels, data.train_labels)
        self.assertIsNone(again.test_labels)
        self.assertIsNone(self._tiny().train_labels)

    def test_pictures_may_be_split_anew(self):
        data = splits.resplit_images(
            self._tiny("labelled_pictures"),
            num_train=5,
            num_validation=2,
            size=(32, 32),
        )
        self.assertEqual(data.train.shape, (5, 3072))
        self.assertEqual(data.validation.shape, (2, 3072))
        self.assertAllClose(data.test[:, 0] * 255, 20 * data.test_labels)

    @parameterized.named_parameters(
        ("split", {"split": "none"}, r"`split` must be.*\['test', 'train'\]"),
        ("test", {"test_split": "val"}, r"`test_split` must be one.*'val'"),
        ("feature", {"feature": "label"}, r"`feature` must be one of \['cap"),
        ("text", {"feature": "caption"}, r"`feature` must be numeric"),
        ("empty", {"split": "train[:0]"}, r"`split`.*'train\[:0\]'"),
        ("scale", {"scale": -1.0}, r"`scale` must be positive.*-1\.0"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            self._tiny(**arguments)

    @parameterized.parameters(
        ("no_such_data", "not found"),
        ("tiny_pictures:9.9.9", "9.9.9"),
        ("tiny_pictures/odd", "odd"),
        ("huggingface:mnist", "hub"),
    )
    def test_refuses_unknown_names(self, name, reason):
        with self.assertRaisesRegex(
            ValueError, f"`name` must be a data set .*{reason}"
        ) as caught:
            self._tiny(name)
        self.assertLess(len(str(caught.exception)), 500)

    def test_absent_data_is_reported_at_once_with_what_to_do(self):
        with self.assertRaisesRegex(
            FileNotFoundError,
            r"`name` must be prepared.*'fashion_mnist'.*`manual_dir`.*"
            r"train-images-idx3-ubyte\.gz.*`download=True`",
        ):
            tfds.tfds_images("fashion_mnist", data_dir=self.folder)
        socket.getaddrinfo.assert_not_called()

    def test_incomplete_manual_files_are_reported_at_once(self):
        with open(f"{self.folder}/t10k-images-idx3-ubyte.gz", "wb"):
            pass  # the others are missing
        with self.assertRaisesRegex(
            FileNotFoundError,
            r"`manual_dir` must hold all.*without t10k-labels.*train-images",
        ):
            tfds.tfds_images(
                "fashion_mnist", data_dir=self.folder, manual_dir=self.folder
            )
        with self.assertRaisesRegex(FileNotFoundError, "`manual_dir` must be"):
            tfds.tfds_images(
                "fashion_mnist", data_dir=self.folder, manual_dir="gone"
            )
        socket.getaddrinfo.assert_not_called()

    def test_wrong_manual_files_are_reported_by_their_checksums(self):
        manual = self.create_tempdir().full_path
        for part in ("train", "t10k"):
            for kind in ("images-idx3", "labels-idx1"):
                name = f"{part}-{kind}-ubyte.gz"
                with open(os.path.join(manual, name), "wb") as file:
                    file.write(b"something else")
        with self.assertRaisesRegex(ValueError, "`manual_dir`.*byte for byte"):
            tfds.tfds_images(
                "fashion_mnist", data_dir=self.folder, manual_dir=manual
            )
        socket.getaddrinfo.assert_not_called()

    def test_manual_folder_is_passed_to_the_builder(self):
        manual = self.create_tempdir()
        manual.create_file("start.txt", content="4")
        data = tfds.tfds_images(
            "manual_pictures",
            test_split=None,
            scale=1.0,
            data_dir=self.folder,
            manual_dir=manual.full_path,
        )
        expected = np.stack([_image(i).reshape(-1) for i in (4, 5)])
        self.assertAllEqual(self._sorted(data.train), self._sorted(expected))

    def test_failed_download_is_a_connection_error(self):
        with self.assertRaisesRegex(
            ConnectionError, "`download` of 'tiny_pictures' failed.*no route"
        ):
            with mock.patch.object(
                TinyPictures,
                "download_and_prepare",
                side_effect=OSError("no route"),
            ):
                self._tiny()

    @pytest.mark.slow
    @pytest.mark.skipif(
        not os.path.isdir(DEBIAN_FASHION_MNIST),
        reason="needs Debian's package dataset-fashion-mnist",
    )
    def test_prepares_fashion_mnist_from_local_files(self):
        manual = self.create_tempdir().full_path
        for name in os.listdir(DEBIAN_FASHION_MNIST):
            _restore_original(name, manual)
        data = tfds.tfds_images(
            "fashion_mnist", data_dir=self.folder, manual_dir=manual
        )
        self.assertEqual(data.train.shape, (60_000, 784))
        self.assertEqual(data.test.shape, (10_000, 784))
        self.assertAllClose(data.train.mean(), 0.2860, atol=1e-4)
        self.assertAllEqual(np.bincount(data.train_labels), [6000] * 10)
        socket.getaddrinfo.assert_not_called()


def _restore_original(name: str, folder: str) -> None:
    """Undoes Debian's removal of name and time from the gzip header.

    With them the file is, byte for byte, the one that was published, which
    TensorFlow Datasets checks.
    """
    with open(os.path.join(DEBIAN_FASHION_MNIST, name), "rb") as file:
        content = file.read()
    seconds = 1504176606 if name.startswith("train") else 1504176627
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", seconds) + content[8:10]
    original = header + name.removesuffix(".gz").encode() + b"\0" + content[10:]
    assert gzip.decompress(original) == gzip.decompress(content)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(original)


if __name__ == "__main__":
    tf.test.main()
