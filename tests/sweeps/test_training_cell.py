# SPDX-License-Identifier: Apache-2.0
"""Tests of a cell of a study, and of runs of VAEs."""

from __future__ import annotations

import contextlib
import pathlib
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tests.runs import small
from tfvae import serving
from tfvae.runs import config
from tfvae.runs.denoise import denoise
from tfvae.runs.evaluate import evaluate
from tfvae.runs.train import train
from tfvae.sweeps import grid, study, training_cell  # noqa: F401

_STUDY = "papers/thesis2021_random_encoders/digits.gin"
_BINARY = "studies/binary_latents.gin"
_SMALL = (
    "resplit_images.num_train = 100",
    "reference/resplit_images.num_train = 100",
    "resplit_images.num_test = 40",
    "FullyConnectedDecoder.hidden = (16,)",
    "fully_connected_encoder.hidden = (16,)",
    "cell.features = @ClassifierFeatures",
    "ClassifierFeatures.num_steps = 3",
    "fit.epochs = 2",
    "fit.batch_size = 50",
)


def _load(name, levels, *params):
    config.load([name])
    factors = config.value("study.factors")
    base = study._without_study(config.text())
    files, bindings = grid.files_and_bindings(factors, levels)
    path = pathlib.Path(tf.compat.v1.test.get_temp_dir()) / "base.gin"
    path.write_text(base)
    config.read([path, *files], [*bindings, *_SMALL, *params])


@contextlib.contextmanager
def _without_figures():
    with (
        mock.patch("tfvae.runs.summaries.draw"),
        mock.patch("tfvae.runs.summaries.draw_model"),
        mock.patch("tfvae.runs.summaries.read_figures", return_value={}),
    ):
        yield


class CellTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def test_cell_measures_everything_that_a_study_compares(self):
        levels = {
            "layer": "fc",
            "prior": "flow2",
            "encoder": "NL",
            "objective": "thesis",
        }
        _load(_STUDY, levels)
        found = training_cell.run_cell(self.folder / "cells" / "one")
        for name in ("train", "test"):
            self.assertAllClose(
                found[f"{name}_loss"],
                found[f"{name}_squared_error"]
                - found[f"{name}_regularization"],
                rtol=1e-4,
            )
        # Entropy and base density of codes around zero, log-determinants of
        # flows that have only begun to train.
        self.assertBetween(found["test_regularization"], -8.0, -4.0)
        self.assertGreaterEqual(
            found["test_tight_bound"], found["test_bound"] - 1.0
        )
        self.assertGreater(found["frechet_distance"], 0.0)
        self.assertEqual(found["num_generated"], 100)
        self.assertGreater(
            found["trainable_parameters"], found["published_count"]
        )
        figures = self.folder / "cells" / "one" / "figures"
        self.assertEqual(
            {path.stem for path in figures.glob("*.png")},
            {"samples", "reconstructions", "interpolations"},
        )

    @parameterized.parameters("TVAE", "relaxed")
    @grids.by_default(1)
    def test_binary_latents_have_exact_log_likelihoods(self, model):
        _load(
            _BINARY,
            {"data": "bars", "model": model},
            "bars.num_data = 60",
            "bars.num_test = 20",
        )
        found = training_cell.run_cell(self.folder / "cells" / model)
        self.assertLessEqual(
            found["test_tight_bound"], found["test_exact_log_likelihood"] + 1e-2
        )
        self.assertBetween(found["test_active"], 0.0, 8.0)


class VAERunTest(tf.test.TestCase):
    def test_part_that_is_no_function_is_reported(self):
        config.load(["runs/digits.gin"], ["vae.prior = 3"])
        with self.assertRaisesRegex(TypeError, "`vae.prior` must be a .*got 3"):
            train(self.create_tempdir().full_path)

    def test_picture_to_restore_asks_for_a_tvae(self):
        small.load_picture(
            "experiment.model = @vae",
            "vae.network = @fully_connected_encoder",
            "fully_connected_encoder.num_observed = 16",
            "vae.prior = @StandardNormalPrior",
            "vae.num_latents = 2",
        )
        with self.assertRaisesRegex(
            TypeError, "must be @TVAE to restore an image"
        ):
            denoise(self.create_tempdir().full_path)

    @pytest.mark.slow  # Its parts are tested in tests/runs.
    def test_run_is_trained_resumed_evaluated_and_exported(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        levels = {
            "layer": "fc",
            "prior": "flow2",
            "encoder": "PNL",
            "objective": "elbo",
        }
        _load(_STUDY, levels, "fit.observe_every = 1")
        # What the check is worth is in test_serving_vae.
        with mock.patch.object(serving, "check_saved_model"):
            whole = train(folder / "whole")
        _load(
            _STUDY,
            levels,
            "fit.observe_every = 1",
            "fit.epochs = 1",
            "train.export = False",
        )
        with _without_figures():
            train(folder / "parts")
        _load(_STUDY, levels, "fit.observe_every = 1", "train.export = False")
        with _without_figures():
            resumed = train(folder / "parts")
        self.assertEqual(
            small.metrics(folder / "parts"), small.metrics(folder / "whole")
        )
        self.assertEqual(resumed["bound"], whole["bound"])
        figures = evaluate(folder / "parts", num_points=10)
        self.assertTrue(np.isfinite(figures["bound"]))
        loaded = tf.saved_model.load(str(folder / "whole" / "saved_model"))
        sample = loaded.signatures["sample"](
            num_samples=tf.constant(3), seed=tf.constant(0)
        )
        self.assertEqual(sample["mean"].shape, [3, 1024])


if __name__ == "__main__":
    tf.test.main()
