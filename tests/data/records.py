# SPDX-License-Identifier: Apache-2.0
"""Small TFRecord files."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def write(
    path: pathlib.Path, examples: Sequence[Mapping[str, Any]]
) -> pathlib.Path:
    """Writes examples: features are bytes, or lists of floats or integers."""
    compression = "GZIP" if path.suffix == ".gz" else ""
    with tf.io.TFRecordWriter(str(path), compression) as file:
        for example in examples:
            features = {key: _feature(one) for key, one in example.items()}
            message = tf.train.Example(
                features=tf.train.Features(feature=features)
            )
            file.write(message.SerializeToString())
    return path


def _feature(value: Any) -> tf.train.Feature:
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if np.asarray(value).dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
