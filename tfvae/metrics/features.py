# SPDX-License-Identifier: Apache-2.0
"""Feature extractors of images: a classifier trained on the data themselves."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.data import Observations, batches_with

SMALLEST_SIDE = 8
"""Smallest height and width of images for `ClassifierFeatures`, pixels."""

_FORMAT = 2  # of a cached classifier; also stands for the constants below
_BATCH_SIZE = 128
_LEARNING_RATE = 2e-3

_logger = logging.getLogger(__name__)


class FeatureExtractor(Protocol):
    """A function from flattened images to features, with a name."""

    @property
    def name(self) -> str:
        """Name of the features, for reports."""

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Maps images `[n, D]` to features `[n, F]`, both float32."""


@typed_gin.register
class ClassifierFeatures:
    """Penultimate-layer features of a small classifier trained on the data.

    A convolutional network learns the labels of the training points; its
    penultimate layer gives the features. That needs nothing but the data, and
    is sensitive to differences between their classes. Distances in these
    features are comparable only among models of the same data with the same
    classifier, neither across data sets nor with published numbers. For
    several splits of the same data, use one extractor for all of them. Over
    the training points, the mean square of the features is 1.

    Attributes:
      name: "classifier features".
      test_accuracy: Accuracy of the classifier on the test points; None if
        `data` has no labelled test points.
    """

    name = "classifier features"

    def __init__(
        self,
        data: Observations,
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        num_features: int = 64,
        max_images: int = 10_000,
        num_steps: int = 240,
        seed: int = 0,
    ) -> None:
        """Trains the classifier, or loads it from the cache.

        Args:
          data: Labelled images of shape `(height, width)` or
            `(height, width, channels)`, each side at least 8 pixels.
          cache_dir: Folder to cache trained classifiers in, created if
            needed; None for no cache. A cached file is used only for
            exactly the same images, labels and settings.
          num_features: Size of a feature vector, F.
          max_images: Largest number of training images, drawn by `seed`.
          num_steps: Gradient steps, of 128 images each.
          seed: Seed of initial weights and of the order of the images. The
            result also depends, through rounding, on the number of threads.

        Raises:
          ValueError: If labels are missing, the images are too small or have
            missing entries, or a number is below 1.
        """
        images, labels = _labelled_images(data, max_images, seed)
        classes = np.unique(labels)
        classifier = _make_classifier(data, num_features, len(classes), seed)
        settings = [_FORMAT, data.event_shape, data.value_range]
        settings += [num_features, num_steps, seed]
        path = _cache_path(
            cache_dir, settings, [images, labels, data.test, data.test_labels]
        )
        accuracy = _read_cache(path, classifier)
        if accuracy is None:
            _train(
                classifier,
                images,
                np.searchsorted(classes, labels),
                num_steps,
                seed,
            )
            _normalize(classifier, images)
            accuracy = _accuracy(classifier, classes, data)
            _write_cache(path, classifier, accuracy)
        self.test_accuracy = None if math.isnan(accuracy) else accuracy
        self._features = compiled(_penultimate(classifier), data.num_observed)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Maps images `[n, D]` to features `[n, F]`, both float32."""
        return self._features(tf.convert_to_tensor(points, tf.float32)).numpy()


def _labelled_images(
    data: Observations, max_images: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns validated images `[n, D]` and labels `[n]` to train on."""
    if data.train_labels is None:
        raise ValueError(
            "`data` must have `train_labels` to train a classifier, got None "
            f"for {data.name!r}"
        )
    check_shape(data.event_shape, SMALLEST_SIDE)
    check_counts(max_images=max_images)
    chosen = np.random.default_rng(seed).permutation(data.num_data)
    chosen = np.sort(chosen[:max_images])
    images, labels = data.train[chosen], data.train_labels[chosen]
    if np.isnan(images).any():
        raise ValueError(
            "`data` must have no missing entries to train a classifier, got "
            f"some in {data.name!r}"
        )
    return images, labels


def check_shape(event_shape: tuple[int, ...], smallest_side: int) -> None:
    """Raises a ValueError unless data are images of at least that size."""
    if len(event_shape) not in (2, 3) or min(event_shape[:2]) < smallest_side:
        raise ValueError(
            "`data` must be images of shape (height, width) or (height, "
            f"width, channels) with sides of at least {smallest_side} pixels, "
            f"got shape {event_shape!r}"
        )


def _make_classifier(
    data: Observations, num_features: int, num_classes: int, seed: int
) -> keras.Model:
    """Returns a network from images `[n, D]` to logits `[n, num_classes]`."""
    check_counts(num_features=num_features)
    low, high = data.value_range
    scale = 2.0 / (high - low)
    height, width = data.event_shape[:2]
    # Each convolution halves the sides, until about 4 x 4 pixels are left.
    num_halvings = max(2, math.ceil(math.log2(max(height, width) / 4)))

    def initializer(layer: int) -> keras.Initializer:
        return keras.initializers.HeNormal(seed=1000 * seed + layer)

    values = inputs = keras.Input((data.num_observed,))
    values = keras.layers.Rescaling(scale, -1.0 - scale * low)(values)
    values = keras.layers.Reshape((height, width, -1))(values)
    for i in range(num_halvings):
        values = keras.layers.Conv2D(
            min(16 * 2**i, 64),
            3,
            strides=2,
            padding="same",
            activation="relu",
            kernel_initializer=initializer(i + 2),
        )(values)
    values = keras.layers.Flatten()(values)
    values = keras.layers.Dense(
        num_features, "leaky_relu", kernel_initializer=initializer(0)
    )(values)
    values = keras.layers.Dense(num_classes, kernel_initializer=initializer(1))(
        values
    )
    return keras.Model(inputs, values)


def _train(
    classifier: keras.Model,
    images: np.ndarray,
    classes: np.ndarray,
    num_steps: int,
    seed: int,
) -> None:
    check_counts(num_steps=num_steps)
    classifier.compile(
        keras.optimizers.Adam(_LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    classifier.fit(
        batches_with(images, classes, _BATCH_SIZE, seed),
        steps_per_epoch=num_steps,
        shuffle=False,
        verbose=0,
    )


def _penultimate(classifier: keras.Model) -> keras.Model:
    return keras.Model(classifier.inputs, classifier.layers[-2].output)


def _normalize(classifier: keras.Model, images: np.ndarray) -> None:
    """Scales the features to a mean square of 1 without changing the logits.

    Leaky ReLU is homogeneous, so the weights before and after it can be scaled.
    """
    features = _penultimate(classifier).predict(
        images, batch_size=_BATCH_SIZE, verbose=0
    )
    scale = float(np.sqrt(np.mean(np.square(features, dtype=np.float64))))
    if scale > 0.0:
        before, after = classifier.layers[-2:]
        for weight in before.weights:
            weight.assign(weight / scale)
        after.kernel.assign(after.kernel * scale)


def _accuracy(
    classifier: keras.Model, classes: np.ndarray, data: Observations
) -> float:
    """Returns the accuracy on labelled test points, NaN if there are none."""
    if data.test is None or data.test_labels is None:
        return math.nan
    logits = classifier.predict(data.test, batch_size=1000, verbose=0)
    return float(np.mean(classes[logits.argmax(-1)] == data.test_labels))


def _cache_path(
    cache_dir: str | os.PathLike[str] | None,
    settings: list[Any],
    arrays: Iterable[np.ndarray | None],
) -> pathlib.Path | None:
    """Returns the cache file of a classifier with these settings and data."""
    if cache_dir is None:
        return None
    key = hashlib.sha256(json.dumps(settings).encode())
    for array in arrays:
        key.update(str(None if array is None else array.shape).encode())
        key.update(b"" if array is None else array.data)
    folder = pathlib.Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"classifier-{key.hexdigest()[:16]}.npz"


def _read_cache(
    path: pathlib.Path | None, classifier: keras.Model
) -> float | None:
    """Loads cached weights; returns the accuracy, None if nothing is cached."""
    if path is None or not path.exists():
        return None
    try:
        # Opened here, since NumPy leaves a broken archive open.
        with path.open("rb") as file, np.load(file) as archive:
            accuracy = float(archive["accuracy"])
            weights = [
                archive[f"weight_{i}"] for i in range(len(classifier.weights))
            ]
        classifier.set_weights(weights)
    except (
        EOFError,
        KeyError,
        OSError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        _logger.warning("Replacing the damaged file %s: %s", path, error)
        return None
    return accuracy


def _write_cache(
    path: pathlib.Path | None, classifier: keras.Model, accuracy: float
) -> None:
    """Writes a cache file atomically."""
    if path is None:
        return
    arrays = {
        f"weight_{i}": weight
        for i, weight in enumerate(classifier.get_weights())
    }
    handle, temporary = tempfile.mkstemp(suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, accuracy=accuracy, **arrays)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def compiled(
    network: Callable[[tf.Tensor], tf.Tensor], num_observed: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a `tf.function` of points `[n, D]`, traced once for any n."""
    return tf.function(
        network,
        input_signature=[tf.TensorSpec([None, num_observed], tf.float32)],
        autograph=False,
    )
