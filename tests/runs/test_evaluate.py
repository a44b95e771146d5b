# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import pathlib
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests.runs import small
from tfvae import serving
from tfvae.runs import config, summaries
from tfvae.runs.denoise import denoise
from tfvae.runs.evaluate import evaluate
from tfvae.runs.export import export
from tfvae.runs.train import train
from tfvae.tvae.prior import BernoulliPrior


class EvaluateTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        draw = mock.patch("tfvae.runs.summaries.draw")
        draw.start()
        self.addCleanup(draw.stop)

    @pytest.mark.slow  # Others show parts of it.
    def test_figures_are_those_of_the_last_checkpoint(self):
        small.load_bars(
            "fit.epochs = 1", "bars.num_test = 8", "train.export = False"
        )
        with mock.patch("tfvae.runs.summaries.read_figures", return_value={}):
            with mock.patch("tfvae.runs.summaries.draw_model"):
                summary = train(self.folder)
        limits = ["export.limits = @Limits()", "Limits.rows = 6"]
        config.load_run(self.folder, gin_params=limits)
        figures = evaluate(self.folder)
        self.assertEqual(figures["bound"], summary["test_bound"])
        self.assertLessEqual(figures["bound"], figures["log_likelihood"] + 1e-4)
        self.assertEqual(figures["split"], "test")
        self.assertEqual(figures["points"], 8)
        self.assertGreater(figures["reconstruction_rmse"], 0.0)
        written = json.loads((self.folder / "evaluation.json").read_text())
        self.assertEqual(written, figures)

        with mock.patch.object(serving, "check_saved_model"):
            path = export(self.folder, output=str(self.folder / "served/1"))
        served = tf.saved_model.load(str(path)).signatures
        states = np.eye(6, dtype=np.float32)
        means = served["decode"](states=tf.constant(states))["mean"]
        self.assertEqual(means.shape, (6, 16))
        metadata = json.loads((path / serving.METADATA_FILE).read_text())
        self.assertEqual(metadata["limits"]["rows"], 6)

    def test_enumeration_is_left_out_where_it_takes_long(self):
        few, many = np.zeros((2, 16)), np.zeros((1000, 3072))

        def can(num_latents, points):
            prior = BernoulliPrior(num_latents)
            model = mock.Mock(num_latents=num_latents, prior=prior)
            return summaries.can_enumerate(model, points)

        self.assertTrue(can(8, few))
        self.assertTrue(can(20, few))
        self.assertFalse(can(21, few))
        self.assertFalse(can(20, many))

    def test_restored_picture_is_scored(self):
        small.load_picture("fit.epochs = 1", "denoise.export = False")
        summary = denoise(self.folder)
        config.load_run(self.folder, [], ["evaluate.num_points = 5"])
        figures = evaluate(self.folder)
        self.assertAlmostEqual(figures["psnr"], summary["psnr"], places=4)
        self.assertEqual(figures["split"], "train")
        self.assertEqual(figures["points"], 5)
        self.assertEqual(figures["points_of_split"], 13 * 13)
        with self.assertRaisesRegex(ValueError, "num_points` must be at least"):
            evaluate(self.folder, num_points=0)

    def test_run_without_checkpoint_is_reported(self):
        small.load_bars("fit.epochs = 1")
        for tool in (evaluate, export):
            with self.assertRaisesRegex(
                FileNotFoundError, "`run_dir` must hold a checkpoint"
            ):
                tool(self.folder)


if __name__ == "__main__":
    tf.test.main()
