# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import types

import numpy as np
from absl.testing import absltest

import tfvae
from tfvae.ops.rows import LazyRows
from tfvae.runs import summaries


class SummariesTest(absltest.TestCase):
    def test_lazy_points_of_one_of_several_pictures_are_not_computed(self):
        image = np.arange(80.0, dtype=np.float32).reshape(8, 10)
        one = tfvae.Restoration(image)
        joint = tfvae.JointRestoration((one, one))
        points = np.asarray(joint.observations().train)
        for train in (points, joint.patches()):
            parts = types.SimpleNamespace(
                observations=types.SimpleNamespace(train=train),
                rows_of_rank=lambda train=train: train,
            )
            found, index = summaries.stored_points(parts, slice(2, 6))
            self.assertEqual(
                isinstance(found, LazyRows), isinstance(train, LazyRows)
            )
            np.testing.assert_array_equal(found, points[2:6])
            np.testing.assert_array_equal(index, [2, 3, 4, 5])
            found, index = summaries.stored_points(parts)
            self.assertIs(found, train)
            np.testing.assert_array_equal(index, np.arange(6))


if __name__ == "__main__":
    absltest.main()
