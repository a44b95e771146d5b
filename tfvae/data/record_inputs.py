# SPDX-License-Identifier: Apache-2.0
"""TFRecord files as what shards are written from."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.data.shard_inputs import INPUT_BYTES, Files


class RecordFiles(Files):
    """TFRecord files, a `tf.train.Example` for each data point.

    A data point is one feature of it: a list of numbers, the bytes of an array
    or an encoded picture (PNG, JPEG, BMP, or GIF of one frame). Files that end
    in .gz are compressed.
    """

    def __init__(
        self,
        paths: Sequence[str],
        key: str | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        raw: str | None = None,
    ) -> None:
        """Sets the files.

        Args:
          paths: The files, at least one.
          key: Name of the feature; may be left out if there is only one.
          shape: Shape of a data point; None for that of the picture, or for a
            vector.
          raw: Type of the numbers that the bytes of a feature are, such as
            "uint8"; None where they are an encoded picture.

        Raises:
          ValueError: If `shape` is not of positive sizes, or `raw` is no type
            of numbers.
        """
        super().__init__(paths, key=key, shape=shape, raw=raw)
        self._key = key
        self._shape = shape
        self._raw = None if raw is None else _numeric_dtype(raw)
        if shape is not None and (not shape or min(shape) < 1):
            raise ValueError(
                f"`shape` must be positive sizes or None, got {shape!r}"
            )

    def _values(self, path: pathlib.Path, start: int) -> Iterator[np.ndarray]:
        compression = "GZIP" if path.suffix == ".gz" else ""
        records = tf.data.TFRecordDataset(str(path), compression).skip(start)
        points: list[np.ndarray] = []
        num_bytes = 0
        try:
            for number, record in enumerate(records.as_numpy_iterator(), start):
                point = self._point(record, f"record {number} of {path}")
                if points and point.shape != points[0].shape:
                    raise ValueError(
                        "all data points must have the shape "
                        f"{points[0].shape!r} of those before, got "
                        f"{point.shape!r} in record {number} of {path}"
                    )
                points.append(point)
                num_bytes += point.nbytes
                if num_bytes >= INPUT_BYTES:
                    yield np.stack(points)
                    points, num_bytes = [], 0
        except tf.errors.OpError as error:
            raise ValueError(
                "`inputs` must be undamaged TFRecord files (those that end in "
                f".gz compressed), got {path}: {error.message}"
            ) from error
        if points:
            yield np.stack(points)

    def _point(self, record: bytes, where: str) -> np.ndarray:
        """Returns the data point of a record."""
        feature = self._feature(record, where)
        kind = feature.WhichOneof("kind")
        if kind == "float_list":
            values = np.array(feature.float_list.value, np.float32)
        elif kind == "int64_list":
            values = np.array(feature.int64_list.value, np.int64)
        elif kind == "bytes_list" and len(feature.bytes_list.value) == 1:
            values = self._decoded(feature.bytes_list.value[0], where)
        else:
            raise ValueError(
                "`key` must name a feature of numbers, or of the bytes of one "
                f"array or picture, got another one in {where}"
            )
        if self._shape is None:
            return values
        if values.size != math.prod(self._shape):
            raise ValueError(
                f"`shape` must have as many entries as each data point, got "
                f"{self._shape!r} for the {values.size} of {where}"
            )
        return values.reshape(self._shape)

    def _feature(self, record: bytes, where: str) -> Any:
        try:
            example = tf.train.Example.FromString(record)
        except Exception as error:  # `DecodeError`, of a private module.
            raise ValueError(
                f"`inputs` must have tf.train.Example in their records, got "
                f"something else in {where}"
            ) from error
        features = example.features.feature
        key = self._key
        if key is None and len(features) == 1:
            key = next(iter(features))
        if key is None or key not in features:
            raise ValueError(
                f"`key` must name one of the features {sorted(features)!r}, "
                f"got {self._key!r} in {where}"
            )
        return features[key]

    def _decoded(self, content: bytes, where: str) -> np.ndarray:
        """Returns the array or the picture that the bytes are."""
        try:
            if self._raw is not None:
                return np.frombuffer(content, self._raw)
            return tf.io.decode_image(content, expand_animations=False).numpy()
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            expected = (
                "encoded pictures; `raw` is the type of arrays"
                if self._raw is None
                else f"arrays of {self._raw}"
            )
            raise ValueError(
                f"`inputs` must have bytes that are {expected}, got others in "
                f"{where}"
            ) from error


def _numeric_dtype(name: str) -> np.dtype:
    try:
        dtype = np.dtype(name)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "buif":
        raise ValueError(
            "`raw` must be a type of numbers, such as 'uint8' or 'float32', "
            f"got {name!r}"
        )
    return dtype
