# SPDX-License-Identifier: Apache-2.0
"""Tests for the checks of numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.arguments import check_counts, check_positive


class CheckCountsTest(parameterized.TestCase):
    @parameterized.parameters(
        (1, 1),
        (np.uint8(3), 3),
        ((2, np.int64(3)), (2, 3)),
        (range(1, 3), (1, 2)),
        ([], ()),
    )
    def test_returns_integers_of_any_kind(self, value: Any, count: Any) -> None:
        found = check_counts(size=value, other=np.int32(5))
        self.assertEqual(found, (count, 5))
        # NumPy's integers equal Python's, but are printed otherwise.
        self.assertEqual(repr(found), repr((count, 5)))

    @parameterized.parameters(
        0, -1, 2.0, math.nan, True, np.True_, "2", None, np.float32(2)
    )
    def test_refuses_what_is_no_count(self, value: Any) -> None:
        with self.assertRaisesRegex(
            ValueError, "^`size` must be an integer of at least 1, got "
        ):
            check_counts(size=value)

    def test_names_the_one_of_several(self) -> None:
        with self.assertRaisesRegex(
            ValueError,
            r"^`fit.sizes` must be integers of at least 2, got \(3, 1\)$",
        ):
            check_counts(minimum=2, width=2, **{"fit.sizes": (3, 1)})


class CheckPositiveTest(parameterized.TestCase):
    @parameterized.parameters(1, 1e-30, np.float32(0.5), np.int64(2))
    def test_takes_numbers(self, value: Any) -> None:
        check_positive(scale=value)

    @parameterized.parameters(0, -1.0, math.nan, math.inf, "1", None, 1j)
    def test_refuses_others(self, value: Any) -> None:
        with self.assertRaisesRegex(
            ValueError, "^`scale` must be positive and finite, got "
        ):
            check_positive(scale=value)


if __name__ == "__main__":
    absltest.main()
