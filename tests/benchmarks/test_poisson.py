# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
from unittest import mock

import scipy.ndimage
from absl.testing import absltest

from benchmarks import poisson


def _blurred(task, epochs):
    """A linear denoiser of patches, in place of a model."""
    data = task.observations()
    patches = data.train.reshape(-1, *data.event_shape)
    blurred = scipy.ndimage.gaussian_filter(patches, (0, 1.5, 1.5, 0))
    return blurred.reshape(data.train.shape)


class PoissonTest(absltest.TestCase):
    def _main(self, *argv):
        out = io.StringIO()
        with (
            mock.patch.object(poisson, "_estimates", _blurred),
            mock.patch.object(poisson, "_HAS_BM3D", False),
            contextlib.redirect_stdout(out),
        ):
            rows = poisson.main(list(argv))
        return rows, out.getvalue()

    def test_every_method_maps_estimates_back_to_counts(self):
        rows, out = self._main("--crop=40,60,64,64", "--seeds=2")
        self.assertEqual([row[0] for row in rows], [*poisson.CASES])
        self.assertIn("64 x 64 pixels", out)
        self.assertIn("bm3d is not installed (its licence", out)
        for _, noisy, *methods in rows:
            self.assertLen(methods, len(poisson.METHODS))
            gaussian = float(methods[0])
            for method in methods[:-1]:
                self.assertGreater(float(method), float(noisy) + 1.0)
                # The same blur, in units that differ.
                self.assertAlmostEqual(float(method), gaussian, delta=1.5)
            self.assertGreater(float(methods[-1]), float(noisy) + 1.0)

    def test_missing_picture_is_skipped_with_a_reason(self):
        rows, out = self._main("--image=no.png")
        self.assertEqual(rows, [])
        self.assertEqual(out, "skipped: `--image` no.png does not exist\n")


if __name__ == "__main__":
    absltest.main()
