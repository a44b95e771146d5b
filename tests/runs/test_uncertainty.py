# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib
import types

import numpy as np
import tensorflow as tf

import tfvae
from tfvae.data import images
from tfvae.ranks import ONE_PROCESS
from tfvae.runs import uncertainty
from tfvae.runs.experiment import Experiment
from tfvae.runs.run_directory import RunDirectory


class UncertaintyTest(tf.test.TestCase):
    def test_few_filled_in_values_are_seen_in_the_figure(self):
        image = np.full((20, 20), 100.0, np.float32)
        image[3, 4] = np.nan
        restoration = tfvae.Restoration(image, keep_observed=True)
        points = restoration.observations().train
        moments = np.full(points.shape, 100.0), np.full(points.shape, 0.04)
        model = types.SimpleNamespace(
            ranks=ONE_PROCESS, stored_moments=lambda x, index: iter([moments])
        )
        parts = Experiment(model, restoration.observations(), restoration, 0)
        run = RunDirectory(self.create_tempdir().full_path)
        run.figures.mkdir()
        restored = np.full((20, 20, 1), 100.0, np.float32)
        std = uncertainty.merged(parts, restoration)
        uncertainty.write(run, restoration, restored, std, 1.0)
        std = np.load(run.path / uncertainty.FILE)
        self.assertAllClose(std[3, 4], 0.2)
        self.assertEqual(np.count_nonzero(std), 1)
        shown = images.read_image(pathlib.Path(run.figures, "uncertainty.png"))
        self.assertEqual(shown.values[3, 4, 0], 255)
        self.assertEqual(np.count_nonzero(shown.values), 1)

    def test_file_that_can_not_hold_the_channels_is_named(self):
        image = np.zeros((9, 9, 5), np.float32)
        restoration = tfvae.Restoration(image)
        uncertainty.check_kind("std.tif", restoration)
        with self.assertRaisesRegex(
            ValueError, "`output_std` must end in .tif, as .npy.*5 channels"
        ):
            uncertainty.check_kind("std.npy", restoration)


if __name__ == "__main__":
    tf.test.main()
