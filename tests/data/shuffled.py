# SPDX-License-Identifier: Apache-2.0
"""What all streams of shuffled batches have to do, whatever their order."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import tensorflow as tf


def points(num_data: int, num_observed: int = 3) -> np.ndarray:
    """Returns random data points, float32 `[N, D]`."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(num_data, num_observed)).astype(np.float32)


def take(dataset: tf.data.Dataset, count: int) -> list:
    """Returns the first elements of a dataset."""
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def check_epochs(
    test: tf.test.TestCase,
    dataset: tf.data.Dataset,
    data: np.ndarray,
    batch_size: int,
) -> None:
    """Checks that three epochs visit each of `data` once, with its number."""
    num_data = len(data)
    steps = -(-num_data // batch_size)
    batches = take(dataset, 3 * steps)
    for epoch in range(3):
        part = batches[epoch * steps : (epoch + 1) * steps]
        index = np.concatenate([index for _, index in part])
        test.assertAllEqual(np.sort(index), np.arange(num_data))
        for values, rows in part:
            test.assertAllEqual(values, data[rows])
        sizes = [len(rows) for _, rows in part]
        test.assertEqual(sizes[:-1], [batch_size] * (steps - 1))


def check_parts(
    test: tf.test.TestCase,
    batches_of: Callable[[np.ndarray], tf.data.Dataset],
) -> None:
    """Checks that parts of ten data points share batches of four.

    Args:
      test: The test.
      batches_of: Returns the batches of a part.
    """
    sizes = {}
    for num_data in (5, 1, 4):
        index = [one for _, one in take(batches_of(points(num_data)), 2 * 3)]
        for epoch in (index[:3], index[3:]):
            rows = np.sort(np.concatenate(epoch))
            test.assertAllEqual(rows, np.arange(num_data))
        sizes[num_data] = [len(one) for one in index]
    test.assertEqual(
        sizes, {5: [2, 2, 1] * 2, 1: [0, 0, 1] * 2, 4: [1, 2, 1] * 2}
    )


def check_spec(test: tf.test.TestCase, dataset: tf.data.Dataset) -> None:
    """Checks what Keras knows of batches of three-dimensional points."""
    values, index = dataset.element_spec
    test.assertEqual((values.dtype, index.dtype), (tf.float32, tf.int32))
    test.assertEqual(values.shape.as_list(), [None, 3])
    test.assertEqual(index.shape.as_list(), [None])
    test.assertEqual(
        dataset.cardinality().numpy(),
        tf.data.experimental.INFINITE_CARDINALITY,
    )
