# SPDX-License-Identifier: Apache-2.0
"""What tests of figures share."""

from __future__ import annotations

import os
from unittest import mock

import numpy as np
import PIL.Image
import tensorflow as tf
from absl.testing import parameterized
from matplotlib.figure import Figure


class FigureTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        self.path = os.path.join(self.folder, "figure.png")

    def draw(self, function, *arguments, **options):
        """Calls a function of `plots`; returns the figure that it wrote."""
        written = []
        original = Figure.savefig

        def savefig(figure, *positional, **named):
            written.append(figure)
            return original(figure, *positional, **named)

        with mock.patch.object(Figure, "savefig", savefig):
            function(*arguments, self.path, **options)
        with PIL.Image.open(self.path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self.assertGreater(pixels.std(), 1.0)  # not blank
        self.assertGreaterEqual(pixels.shape[1], 300)
        self.assertLen(written, 1)
        return written[0]

    def titles(self, figure):
        return [
            axes.get_title(loc=loc)
            for axes in figure.axes
            for loc in ("left", "center")
            if axes.get_title(loc=loc)
        ]
