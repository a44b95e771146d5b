# SPDX-License-Identifier: Apache-2.0
"""What exported models of every kind must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def assert_unobserved_is_ignored(
    test: tf.test.TestCase, loaded: Any, x: np.ndarray
) -> None:
    """Compares `serving_observed` with `serving_default` of NaN.

    Args:
      test: The test case.
      loaded: A loaded SavedModel.
      x: `[B, D]`, NaN where missing.
    """
    observed = 1.0 - np.isnan(x).astype(np.float32)
    expected = loaded.serving_default(x)
    for anything in (0.0, 1e30, -np.inf, np.nan):
        data = np.where(observed, x, np.float32(anything))
        found = loaded.serving_observed(data, observed)
        test.assertAllEqual(found["mean"], expected["mean"])
        test.assertAllEqual(found["bound"], expected["bound"])
