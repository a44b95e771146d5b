# SPDX-License-Identifier: Apache-2.0
"""Data from TensorFlow Datasets, which are downloaded only on request.

TensorFlow Datasets itself downloads a missing data set, and without a network
retries for minutes. Here nothing is downloaded unless `download=True`, and an
error says at once what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_positive
from tfvae.data.shard_inputs import INPUT_BYTES
from tfvae.data.shard_writing import Part
from tfvae.data.source import Observations, occurring_range

_READ_BATCH = 1024
_LABEL = "label"


@typed_gin.register
def tfds_images(
    name: str,
    *,
    split: str = "train",
    test_split: str | None = "test",
    feature: str = "image",
    size: tuple[int, int] | None = None,
    scale: float | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    download: bool = False,
) -> Observations:
    """Images, or another numeric feature, of a TensorFlow Datasets name.

    The data must be prepared in `data_dir` already, or be prepared there now
    from files in `manual_dir`, or be downloaded with `download`. A data set
    of your own works as well: import the module with its builder first (in
    a gin file: `import my_package.my_dataset`), and pass `download=True` the
    first time to let it prepare itself, even if it needs no network.

    Args:
      name: Data set name, such as "mnist" or "my_data/config:1.0.0".
      split: Split to train on; slices such as "train[:5000]" work.
      test_split: Split to test on, or None.
      feature: Name of the numeric feature to use.
      size: Height and width to resize images to.
      scale: Factor from the stored values to the model's; if None, 1/255
        for 8-bit features and 1 for others.
      data_dir: Where prepared data lies; the library's own default
        (~/tensorflow_datasets or $TFDS_DATA_DIR) if None.
      manual_dir: Folder with the files the data set would download, under
        their original names; prepares the data set without network.
      download: Whether the data may be downloaded.

    Returns:
      The flattened, scaled data points; where the data set has a feature
      "label" that is a class, the labels as well.

    Raises:
      FileNotFoundError: If the data is not there and may not be
        downloaded, with instructions.
      ConnectionError: If it may be, but the download fails.
      ValueError: If the name, a split or the feature does not exist, or
        the files in `manual_dir` are not the expected ones.
    """
    if scale is not None:
        check_positive(scale=scale)
    builder = _prepared(name, data_dir, manual_dir, download)
    train, train_labels = _read(builder, "split", split, feature, size)
    test, test_labels = None, None
    if test_split is not None:
        test, test_labels = _read(
            builder, "test_split", test_split, feature, size
        )

    is_8_bit = builder.info.features[feature].np_dtype == np.uint8
    if scale is None:
        scale = 1.0 / 255.0 if is_8_bit else 1.0
    event_shape = train.shape[1:] or (1,)
    # In place: there may be gigabytes of them.
    train = train.reshape(len(train), -1)
    train *= np.float32(scale)
    if test is not None:
        test = test.reshape(len(test), -1)
        test *= np.float32(scale)
    limits = (0.0, 255.0 * scale) if is_8_bit else occurring_range(train)
    return Observations(
        name=name.replace("/", "_").replace(":", "_"),
        train=train,
        test=test,
        event_shape=event_shape,
        value_range=limits,
        train_labels=train_labels,
        test_labels=test_labels,
    )


class TfdsSplit:
    """A split of a prepared data set as what shards are written from.

    Its order is that of the data set's own files, the same in every run.

    Attributes:
      name: Name of the data.
      num_rows: N.
    """

    def __init__(
        self,
        name: str,
        split: str,
        *,
        feature: str = "image",
        size: tuple[int, int] | None = None,
        data_dir: str | None = None,
        manual_dir: str | None = None,
        download: bool = False,
    ) -> None:
        """Opens the data set.

        Args:
          name: See `tfds_images`, as for all that follow.
          split: The split, or a slice of one.
          feature: Name of the numeric feature.
          size: Height and width to resize images to.
          data_dir: Where prepared data lies.
          manual_dir: Folder with the files the data set would download.
          download: Whether the data may be downloaded.

        Raises:
          FileNotFoundError: If the data is not there and may not be downloaded.
          ConnectionError: If it may be, but the download fails.
          ValueError: If the name, the split or the feature does not exist.
        """
        builder = _prepared(name, data_dir, manual_dir, download)
        _check_feature(builder.info.features, feature, size)
        self._examples = _examples(builder, "split", split, {feature})
        self._feature = feature
        self._size = size
        self._identity = {
            "tfds": builder.info.full_name,
            "split": split,
            "feature": feature,
            "size": size,
        }
        self.name = builder.info.full_name.replace("/", "_")
        self.num_rows: int | None = int(builder.info.splits[split].num_examples)

    def identity(self) -> Any:
        return self._identity

    def where(self, item: int) -> str:
        return f"{self._identity['tfds']}, split {self._identity['split']!r}"

    def parts(self, item: int, offset: int) -> Iterator[Part]:
        values = self._examples.skip(offset).map(
            lambda example: _value(example[self._feature], self._size),
            tf.data.AUTOTUNE,
        )
        spec = values.element_spec
        row_bytes = spec.dtype.size * (spec.shape.num_elements() or 1)
        batches = values.batch(max(1, INPUT_BYTES // row_bytes))
        for batch in batches.as_numpy_iterator():
            yield Part(0, offset, batch)
            offset += len(batch)


def _prepared(
    name: str, data_dir: str | None, manual_dir: str | None, download: bool
) -> Any:
    """Returns the builder of a data set, prepared now if need be."""
    builder = _make_builder(name, data_dir)
    if not _is_prepared(builder):
        _prepare(builder, name, manual_dir, download)
    return builder


def _make_builder(name: str, data_dir: str | None) -> Any:
    # Imported here, since nothing else in the package needs it.
    import tensorflow_datasets as tfds

    hub, separator, rest = name.partition(":")
    if separator and "/" not in hub and rest[:1] not in tuple("0123456789*"):
        raise ValueError(
            "`name` must be a data set of TensorFlow Datasets itself or of an "
            f"imported module, not one of another hub, got {name!r}"
        )
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (ValueError, AssertionError, ImportError) as error:
        # The library's message goes on to list every data set it knows.
        reason = str(error).split("\n")[0]
        raise ValueError(
            "`name` must be a data set that TensorFlow Datasets knows, whose "
            "module was imported, or that is prepared in `data_dir`, got "
            f"{name!r}: {reason}"
        ) from error


def _is_prepared(builder: Any) -> bool:
    # Asked only of an existing folder, as it logs a warning otherwise.
    return os.path.isdir(builder.data_path) and builder.is_prepared()


def _prepare(
    builder: Any, name: str, manual_dir: str | None, download: bool
) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager

    if manual_dir is not None:
        _check_manual_files(builder, manual_dir, download)
    elif not download:
        raise FileNotFoundError(
            f"`name` must be prepared in `data_dir`, got {name!r}, which is "
            f"not at {builder.data_path}. Either pass `data_dir`, the folder "
            "that holds the prepared data; or `manual_dir`, a folder with the "
            "files it is made of"
            + _file_list(builder)
            + "; or `download=True` to let it download what it needs."
        )
    config = tfds.download.DownloadConfig(
        manual_dir=manual_dir, try_download_gcs=False
    )
    try:
        builder.download_and_prepare(download_config=config)
    except download_manager.NonMatchingChecksumError as error:
        raise ValueError(
            "`manual_dir` must hold the data set's original files, byte for "
            f"byte, got {manual_dir!r}: {str(error).splitlines()[0]}"
        ) from error
    except OSError as error:
        # What the HTTP client raises is an OSError; so is a full disk, whose
        # own message says so.
        if isinstance(error, FileNotFoundError) or error.errno is not None:
            raise
        raise ConnectionError(
            f"`download` of {name!r} failed; check the network, or pass "
            f"`manual_dir` instead: {str(error).splitlines()[0]}"
        ) from error


def _file_names(builder: Any) -> list[str]:
    """Names of the files a registered data set downloads."""
    infos = (builder.url_infos or {}).values()
    return sorted({info.filename for info in infos if info.filename})


def _file_list(builder: Any, limit: int = 8) -> str:
    names = _file_names(builder)
    if not names:
        return ""
    more = ", ..." if len(names) > limit else ""
    return f" ({', '.join(names[:limit])}{more})"


def _check_manual_files(builder: Any, manual_dir: str, download: bool) -> None:
    """Raises where files are missing that the library would download."""
    if not os.path.isdir(manual_dir):
        raise FileNotFoundError(
            f"`manual_dir` must be a folder, got {manual_dir!r}"
        )
    missing = [
        name
        for name in _file_names(builder)
        if not os.path.exists(os.path.join(manual_dir, name))
    ]
    if missing and not download and not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        raise FileNotFoundError(
            "`manual_dir` must hold all files the data set is made of (or "
            f"`download` be True), got {manual_dir!r} without "
            f"{', '.join(missing[:8])}" + (", ..." if missing[8:] else "")
        )


def _check_feature(
    features: Any, feature: str, size: tuple[int, int] | None
) -> None:
    if not hasattr(features, "keys") or feature not in features:
        raise ValueError(
            "`feature` must be one of "
            f"{sorted(getattr(features, 'keys', list)())}, got {feature!r}"
        )
    shape = features[feature].shape
    dtype = features[feature].np_dtype
    if np.dtype(dtype).kind not in "buif":
        raise ValueError(
            f"`feature` must be numeric, got {feature!r} of {np.dtype(dtype)}"
        )
    if size is None and None in shape:
        raise ValueError(
            f"`size` must be given, since {feature!r} has examples of "
            f"different shapes, {shape!r}"
        )


def _has_labels(builder: Any) -> bool:
    import tensorflow_datasets as tfds

    features = builder.info.features
    return _LABEL in features and isinstance(
        features[_LABEL], tfds.features.ClassLabel
    )


def _read(
    builder: Any,
    argument: str,
    split: str,
    feature: str,
    size: tuple[int, int] | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """All examples of a split, `[N, ...]` float32, unscaled, and labels."""
    _check_feature(builder.info.features, feature, size)
    has_labels = _has_labels(builder)

    def prepare(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        value = tf.cast(_value(example[feature], size), tf.float32)
        return (value, example[_LABEL]) if has_labels else (value,)

    wanted = {feature, _LABEL} if has_labels else {feature}
    examples = _examples(builder, argument, split, wanted)
    batches = examples.map(prepare, tf.data.AUTOTUNE).batch(_READ_BATCH)
    parts = list(batches.as_numpy_iterator())
    if not parts:
        raise ValueError(f"`{argument}` must not be empty, got {split!r}")
    values = np.concatenate([part[0] for part in parts])
    if not has_labels:
        return values, None
    return values, np.concatenate([part[1] for part in parts])


def _examples(
    builder: Any, argument: str, split: str, wanted: Collection[str]
) -> tf.data.Dataset:
    """Returns the wanted features of a split, in the order of its files."""
    import tensorflow_datasets as tfds

    try:
        return builder.as_dataset(
            split=split,
            decoders=tfds.decode.PartialDecoding(dict.fromkeys(wanted, True)),
            shuffle_files=False,
        )
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"`{argument}` must be one of the splits "
            f"{sorted(builder.info.splits)} or a slice of one, got {split!r}"
        ) from error


def _value(value: tf.Tensor, size: tuple[int, int] | None) -> tf.Tensor:
    """Returns a feature, resized to float32 if there is a size."""
    if size is None:
        return value
    value = tf.cast(value, tf.float32)
    return tf.image.resize(value, size, antialias=True)
