# SPDX-License-Identifier: Apache-2.0
"""InceptionV3 (ImageNet) features of images."""

from __future__ import annotations

import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.data import Observations
from tfvae.metrics.features import check_shape, compiled

WEIGHTS_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
"""Name of the weights file, as Keras publishes it."""

_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3"
)
_SMALLEST_SIDE = 75


@typed_gin.register
class InceptionFeatures:
    """The 2048 average-pooled features of InceptionV3 trained on ImageNet.

    Images are resized bilinearly, grey ones are repeated to three channels,
    and values scaled to [-1, 1].

    The weights are those that Keras publishes. The Frechet inception distance
    was defined with a different graph of 2015, so distances in these features
    are comparable with each other, but not with values from pytorch-fid and
    other programs that use that graph.

    Attributes:
      name: "Keras InceptionV3 features".
    """

    name = "Keras InceptionV3 features"

    def __init__(
        self,
        data: Observations,
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        weights_path: str | os.PathLike[str] | None = None,
        side: int = 299,
    ) -> None:
        """Reads the weights; never downloads them.

        Args:
          data: Used for shape and range of the images.
          cache_dir: Ignored, as nothing is trained; present so that this
            class can replace `ClassifierFeatures`.
          weights_path: File with the weights of InceptionV3 without its top;
            if None, Keras's download cache,
            `models/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5`
            under $KERAS_HOME or ~/.keras.
          side: Height and width that images are resized to; the weights were
            trained for 299, and 75 is the smallest that works.

        Raises:
          FileNotFoundError: If there is no such file; the message says where
            to get it.
          ValueError: If it holds other weights, `data` are no images of one
            or three channels, or `side` is too small.
        """
        check_shape(data.event_shape, 1)
        if data.event_shape[2:] not in ((), (1,), (3,)):
            raise ValueError(
                "`data` must be images of one or three channels, got shape "
                f"{data.event_shape!r}"
            )
        if side < _SMALLEST_SIDE:
            raise ValueError(
                f"`side` must be at least {_SMALLEST_SIDE}, got {side!r}"
            )
        path = _weights_file(weights_path)
        network = keras.applications.InceptionV3(
            include_top=False,
            weights=None,
            input_shape=(side, side, 3),
            pooling="avg",
        )
        try:
            network.load_weights(path)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError(
                "`weights_path` must hold weights of Keras's InceptionV3 "
                f"without its top, got {path}: {error}"
            ) from error
        self._features = compiled(
            lambda points: network(_inputs(points, data, side), training=False),
            data.num_observed,
        )

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Maps images `[n, D]` to features `[n, 2048]`, both float32."""
        return self._features(tf.convert_to_tensor(points, tf.float32)).numpy()


def _weights_file(
    weights_path: str | os.PathLike[str] | None,
) -> pathlib.Path:
    if weights_path is None:
        home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
        path = pathlib.Path(home) / "models" / WEIGHTS_FILE
    else:
        path = pathlib.Path(weights_path)
    if not path.is_file():
        raise FileNotFoundError(
            "`weights_path` must be a file of the weights of Keras's "
            f"InceptionV3, got {weights_path!r}, and there is none at {path}. "
            "Nothing is downloaded here; Keras publishes the file as "
            f"{_URL}/{WEIGHTS_FILE}"
        )
    return path


def _inputs(points: tf.Tensor, data: Observations, side: int) -> tf.Tensor:
    """Maps images `[n, D]` to `[n, side, side, 3]` on [-1, 1]."""
    low, high = data.value_range
    height, width = data.event_shape[:2]
    images = tf.reshape(points, [tf.shape(points)[0], height, width, -1])
    images = tf.image.resize(images, [side, side])
    images = tf.broadcast_to(images, [*tf.unstack(tf.shape(images))[:3], 3])
    return 2.0 * (images - low) / (high - low) - 1.0
