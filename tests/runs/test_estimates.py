# SPDX-License-Identifier: Apache-2.0
"""Tests of the line that says how long a restoration takes."""

from __future__ import annotations

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.latent_model import Costs
from tfvae.restoration import Restoration
from tfvae.runs import estimates


class LineTest(parameterized.TestCase):
    @parameterized.parameters(
        (
            2400.0,
            "62,001 patches, 32 epochs: about 40 min and 1.2 GB; --stride=2: "
            "about 10 min; --stride=4: about 3 min",
        ),
        (200.0, "62,001 patches, 32 epochs: about 3 min and 1.2 GB"),
    )
    def test_larger_strides_are_suggested_until_training_is_short(
        self, seconds, expected
    ):
        task = Restoration(np.zeros((256, 256)))
        found = estimates.line(task, 32, seconds, seconds, 1.2e9)
        self.assertEqual(found, expected)

    def test_no_stride_is_larger_than_a_patch(self):
        task = Restoration(np.zeros((64, 64)), patch=(3, 9), stride=1)
        found = estimates.line(task, 1, 1e6, 1e6, 1e9)
        self.assertRegex(found, r"--stride=2: about \d+\.\d h$")

    @parameterized.parameters(
        (0.2, "1 s"), (89.0, "89 s"), (91.0, "2 min"), (5401.0, "1.5 h")
    )
    def test_durations_are_rounded(self, seconds, expected):
        self.assertEqual(estimates.duration(seconds), expected)


class TrainingLineTest(parameterized.TestCase):
    def test_line_says_where_bytes_are_and_how_fast_it_is(self):
        known = Costs(64_000_000, 32_768_000_000, 4123.0)
        found = estimates.training_line(1e8, known, 33e9, 3, 64_000_000)
        self.assertEqual(
            found,
            "a process takes 100 MB of memory for data and 64 MB for states, "
            "32.8 GB of disk for states; 3 checkpoints take 99 GB; roughly "
            "4,100 points/s, 4.3 h an epoch",
        )
        without = estimates.training_line(
            500, known._replace(points_per_second=None), 1e6, 1, 1
        )
        self.assertRegex(without, r"^a process takes 0.5 kB.* take 1 MB$")


if __name__ == "__main__":
    absltest.main()
