# SPDX-License-Identifier: Apache-2.0
"""`Observations`: the validated arrays that every data source returns."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfvae.ops.rows import LazyRows


@dataclasses.dataclass(frozen=True)
class Observations:
    """Validated, flattened data points of one data source.

    A data source is any callable without required arguments that returns
    one of these. NaN marks a missing entry.

    Attributes:
      name: Short name of the data, used in titles and file names.
      train: `[N, D]` float32, the data points a model is trained on; or
        `LazyRows`, which are used like them, but computed when asked for.
      test: `[N_test, D]` float32, held-out data points, or None.
      event_shape: Shape of one data point before it was flattened, such
        as `(28, 28, 1)` for a grey image; its product is D.
      value_range: Smallest and largest plausible value of an entry; used by
        figures and written images, not in training.
      features: `[K, D]` float32, ground-truth generative fields (bars
        only), or None.
      log_likelihood: Mean log-likelihood of a training point under the
        generating parameters, in nats, or None when unknown.
      train_labels: `[N]` int64, the class of each training point, or None.
      test_labels: `[N_test]` int64, the class of each test point, or None.
      validation: `[N_val, D]` float32, data points held out to monitor
        training, or None.
      weights: `[N]` float64, sampling weights of the training points for
        `WeightedBatches`; None to visit each once per epoch.
    """

    name: str
    train: np.ndarray
    test: np.ndarray | None = None
    event_shape: tuple[int, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    features: np.ndarray | None = None
    log_likelihood: float | None = None
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    validation: np.ndarray | None = None
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Checks every field, and stores arrays as contiguous float32."""
        train = self.train
        if not isinstance(train, LazyRows):
            train = _as_points("train", train)
        shape = tuple(int(size) for size in self.event_shape)
        shape = shape or (train.shape[1],)
        if min(shape) < 1 or math.prod(shape) != train.shape[1]:
            raise ValueError(
                "`event_shape` must be positive sizes whose product is the "
                f"{train.shape[1]} columns of `train`, got {shape!r}"
            )
        low, high = (float(limit) for limit in self.value_range)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(
                "`value_range` must be two finite numbers, the smaller one "
                f"first, got {self.value_range!r}"
            )
        test = _matching("test", self.test, train)
        weights = self.weights
        if weights is not None:
            weights = check_weights(weights, len(train))
        for field, value in (
            ("train", train),
            ("test", test),
            ("validation", _matching("validation", self.validation, train)),
            ("features", _matching("features", self.features, train)),
            ("train_labels", _labels("train", self.train_labels, train)),
            ("test_labels", _labels("test", self.test_labels, test)),
            ("event_shape", shape),
            ("value_range", (low, high)),
            ("weights", weights),
        ):
            object.__setattr__(self, field, value)

    @property
    def num_data(self) -> int:
        """Number of training points, N."""
        return self.train.shape[0]

    @property
    def num_observed(self) -> int:
        """Number of observed dimensions, D."""
        return self.train.shape[1]


def check_weights(weights: np.ndarray, num_points: int) -> np.ndarray:
    """Validates weights of data points; returns them as float64 `[N]`.

    Raises:
      ValueError: If there is not one for each point, or they are negative, not
        finite or all zero.
    """
    weights = np.asarray(weights, np.float64)
    if weights.shape != (num_points,):
        raise ValueError(
            f"`weights` must have shape ({num_points},), one for each point, "
            f"got shape {weights.shape!r}"
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0.0)))
    if wrong.size:
        raise ValueError(
            "`weights` must be finite and not negative, got "
            f"{weights[wrong[0]]} at {wrong[0]} and {wrong.size} such values "
            "in all"
        )
    if not weights.any():
        raise ValueError("`weights` must not all be zero")
    return weights


def _matching(
    name: str, array: np.ndarray | None, train: np.ndarray
) -> np.ndarray | None:
    if array is None:
        return None
    points = _as_points(name, array)
    if points.shape[1] != train.shape[1]:
        raise ValueError(
            f"`{name}` must have as many columns as `train` "
            f"({train.shape[1]}), got shape {points.shape!r}"
        )
    return points


def _labels(
    name: str,
    array: np.ndarray | None,
    points: np.ndarray | None,
) -> np.ndarray | None:
    if array is None:
        return None
    labels = np.asarray(array)
    if labels.dtype.kind not in "ui":
        raise TypeError(
            f"`{name}_labels` must be an array of integers, got dtype "
            f"{labels.dtype}"
        )
    num_points = 0 if points is None else len(points)
    if labels.shape != (num_points,):
        raise ValueError(
            f"`{name}_labels` must have shape ({num_points},), one label for "
            f"each row of `{name}`, got shape {labels.shape!r}"
        )
    return np.ascontiguousarray(labels, dtype=np.int64)


def _as_points(name: str, array: np.ndarray) -> np.ndarray:
    """Validates data points; returns them as float32 `[N, D]`."""
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(
            f"`{name}` must be an array of floats, got dtype {array.dtype}"
        )
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"`{name}` must have shape [points, dimensions], neither of them "
            f"zero, got shape {array.shape!r}"
        )
    with np.errstate(over="ignore"):
        points = np.ascontiguousarray(array, dtype=np.float32)
    if np.isinf(points).any():
        rows = np.flatnonzero(np.isinf(points).any(axis=1))
        raise ValueError(
            f"`{name}` must be finite in float32 (NaN marks a missing entry), "
            f"got infinite values in {_rows(rows)}"
        )
    empty = np.flatnonzero(np.isnan(points).all(axis=1))
    if empty.size:
        raise ValueError(
            f"`{name}` must have an observed entry in every row, got only "
            f"missing ones in {_rows(empty)}"
        )
    return points


def _rows(rows: np.ndarray) -> str:
    listed = ", ".join(str(row) for row in rows[:5])
    more = ", ..." if rows.size > 5 else ""
    return f"{rows.size} row{'s' if rows.size > 1 else ''} ({listed}{more})"


def occurring_range(points: np.ndarray) -> tuple[float, float]:
    """Returns the smallest and largest finite value; (0, 1) if equal."""
    finite = points[np.isfinite(points)]
    if finite.size == 0 or finite.min() == finite.max():
        return 0.0, 1.0
    return float(finite.min()), float(finite.max())


def split_test(
    points: np.ndarray, test_fraction: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Holds out a random share of the data points.

    Args:
      points: `[N, ...]`, any dtype.
      test_fraction: Fraction of the points to hold out, in [0, 1); zero
        holds out none, and any other value at least one.
      seed: Chooses which points are held out.

    Returns:
      The training points and the held-out ones (None if there are none),
      each in their original order.

    Raises:
      ValueError: If the fraction leaves no training point.
    """
    if not 0.0 <= test_fraction < 1.0:
        raise ValueError(
            f"`test_fraction` must be in [0, 1), got {test_fraction!r}"
        )
    if test_fraction == 0.0:
        return points, None
    num_test = max(1, round(test_fraction * len(points)))
    if num_test >= len(points):
        raise ValueError(
            "`test_fraction` must leave at least one training point, got "
            f"{test_fraction!r} for {len(points)} points"
        )
    held_out = np.zeros(len(points), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(points))
    held_out[order[:num_test]] = True
    return points[~held_out], points[held_out]
