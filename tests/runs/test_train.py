# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import pathlib
import shutil
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from tests import grids
from tests.runs import small
from tfvae import callbacks, checkpoints, data, serving
from tfvae.runs import run_directory
from tfvae.runs.experiment import experiment
from tfvae.runs.train import features_found, train
from tfvae.tvae import StateStore


class TrainTest(tf.test.TestCase, parameterized.TestCase):
    unbroken: pathlib.Path | None = None

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _train(self, folder, *params, epochs=3):
        """Trains without pictures, which take longer than all the rest."""
        small.load_bars(
            "train.export = False", f"fit.epochs = {epochs}", *params
        )
        with (
            mock.patch("tfvae.runs.summaries.draw"),
            mock.patch("tfvae.runs.summaries.draw_model"),
            mock.patch("tfvae.runs.summaries.read_figures", return_value={}),
        ):
            return train(folder)

    def test_fewer_data_points_than_processes_are_refused(self):
        small.load_bars()
        with self.assertRaisesRegex(ValueError, "each process, got 40 for 41"):
            experiment(ranks=mock.Mock(size=41))

    def _finished(self):
        """Returns a copy of a run of three epochs."""
        cls = type(self)
        if cls.unbroken is None:
            folder = self.create_tempdir(cleanup=absltest.TempFileCleanup.OFF)
            cls.unbroken = pathlib.Path(folder.full_path) / "unbroken"
            self._train(cls.unbroken)
        copy = self.folder / "finished"
        shutil.copytree(cls.unbroken, copy)
        return copy

    def _interrupt(self, folder, owner, name):
        """Trains until the second call of the function or method `name`."""
        original = getattr(owner, name)
        calls = []

        def second_time(*args, **kwargs):
            calls.append(None)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        with mock.patch.object(owner, name, second_time):
            with self.assertRaises(KeyboardInterrupt):
                self._train(folder)

    def test_run_folder_holds_everything(self):
        small.load_bars("fit.epochs = 2", "bars.num_test = 8")
        folder = self.folder / "run"
        with mock.patch.object(serving, "check_saved_model"):
            summary = train(folder)
        self.assertContainsSubset(
            {
                "config.gin",
                "operative_config.gin",
                "metrics.csv",
                "summary.json",
                "checkpoints",
                "figures",
                "tensorboard",
                "saved_model",
            },
            {path.name for path in folder.iterdir()},
        )
        self.assertEqual(
            {path.name for path in (folder / "figures").iterdir()},
            {
                "bound.png",
                "features.png",
                "latent_usage.png",
                "reconstructions.png",
                "samples.png",
            },
        )
        self.assertEqual(
            json.loads((folder / "summary.json").read_text()), summary
        )
        self.assertEqual(summary["epochs"], 2)
        self.assertEqual(summary["features"], 8)
        self.assertTrue(np.isfinite(summary["test_bound"]))
        rows = small.metrics(folder)
        self.assertLen(rows, 2)
        self.assertEqual(float(rows[-1]["bound"]), summary["bound"])
        self.assertEqual(rows[0]["test_bound"], "")
        self.assertNotEqual(rows[1]["test_bound"], "")

    @parameterized.named_parameters(
        ("before_the_metrics", callbacks.MetricsTable, "on_epoch_end"),
        ("before_the_checkpoint", checkpoints, "save"),
    )
    def test_resumed_run_ends_like_the_unbroken_one(self, owner, name):
        unbroken, broken = self._finished(), self.folder / "broken"
        self._interrupt(broken, owner, name)
        self.assertFalse((broken / "summary.json").exists())
        resumed = self._train(broken)
        self.assertEqual(small.metrics(broken), small.metrics(unbroken))
        expected = json.loads((unbroken / "summary.json").read_text())
        for figure in ("bound", "noise_std", "active"):
            self.assertEqual(resumed[figure], expected[figure])

    @pytest.mark.slow  # Two runs.
    def test_steps_in_one_go_do_not_cross_the_end_of_an_epoch(self):
        tables = []
        for steps in (1, 16):  # of 3 steps an epoch
            run = self.folder / f"run_{steps}"
            self._train(run, f"fit.steps_per_execution = {steps}", epochs=2)
            tables.append(small.metrics(run))
        self.assertEqual(*tables)

    @parameterized.parameters((None, 3), (6, 8), (100, 3))
    def test_learning_rate_follows_the_gradient_steps(
        self, m_batch_size, steps
    ):
        # 40 data points are batches of 16, 16 and 8; of 6: 3, 3 and 2 steps.
        built = []

        def build(*args, **kwargs):
            parts = experiment(*args, **kwargs)
            built.append(parts.model)
            return parts

        with mock.patch("tfvae.runs.train.experiment", build):
            self._train(
                self.folder / "run",
                f"TVAE.m_batch_size = {m_batch_size}",
                "cyclical_adam.half_cycle_epochs = 1",
                epochs=1,
            )
        optimizer = built[0].optimizer
        rate = optimizer.get_config()["learning_rate"]["config"]
        self.assertEqual(rate["half_cycle_steps"], steps)
        self.assertEqual(int(optimizer.iterations), steps)

    def test_resumes_before_a_damaged_checkpoint(self):
        run = self._finished()
        expected = small.metrics(run)
        (run / "summary.json").unlink()
        (run / "checkpoints/checkpoint-000003.npz").write_bytes(b"")
        with self.assertLogs("tfvae.checkpoints", "WARNING"):
            self._train(run)
        self.assertEqual(small.metrics(run), expected)

    def test_more_epochs_extend_a_finished_run(self):
        self._train(self.folder / "run", epochs=1)
        # The states of the checkpoint replace what would be drawn.
        with mock.patch.object(StateStore, "initialize") as draw:
            self._train(self.folder / "run", epochs=3)
        draw.assert_not_called()
        self.assertEqual(
            small.metrics(self.folder / "run"), small.metrics(self._finished())
        )

    def test_finished_run_is_left_as_it_is(self):
        run = self._finished()
        before = (run / "summary.json").read_text()
        with mock.patch("tfvae.runs.train.experiment") as untouched:
            self.assertEqual(self._train(run), json.loads(before))
        untouched.assert_not_called()
        self.assertEqual((run / "summary.json").read_text(), before)

    def test_fewer_epochs_than_there_are_is_an_error(self):
        with self.assertRaisesRegex(
            ValueError, "`fit.epochs` must be at least 3.*got 2"
        ):
            self._train(self._finished(), epochs=2)

    def test_other_configuration_is_refused(self):
        with self.assertRaisesRegex(
            ValueError, "TVAE.num_states was 8, is now 9"
        ):
            self._train(self._finished(), "TVAE.num_states = 9")

    def test_what_has_no_influence_may_change(self):
        run = self._finished()
        before = (run / "summary.json").read_text()
        self._train(run, "fit.keep_checkpoints = 5", "train.export = True")
        self.assertEqual((run / "summary.json").read_text(), before)

    def test_other_data_are_refused(self):
        run, path = self.folder / "run", self.folder / "points.npy"
        points = np.random.default_rng(0).normal(size=(40, 16))
        params = (
            "experiment.data = @array_file()",
            f"array_file.path = '{path}'",
        )
        np.save(path, points)
        self._train(run, *params, epochs=1)
        points[3, 5] += 1e-3
        np.save(path, points)
        with self.assertRaisesRegex(
            ValueError, "`experiment.data` must be the data.*with other values"
        ):
            self._train(run, *params, epochs=2)

    def test_failed_start_does_not_occupy_the_folder(self):
        run = self.folder / "run"
        with self.assertRaisesRegex(ValueError, "num_states"):
            self._train(run, "TVAE.num_states = 65")
        self._train(run, epochs=1)

    def test_other_seed_is_another_run(self):
        run = self.folder / "run"
        self._train(run, "experiment.seed = 6")
        self.assertNotEqual(small.metrics(run), small.metrics(self._finished()))

    def test_no_disk_space_is_reported_before_training(self):
        usage = mock.Mock(free=1000)
        with mock.patch("shutil.disk_usage", return_value=usage):
            with self.assertRaisesRegex(OSError, r"needs [\d,]+ bytes"):
                self._train(self.folder / "run")
        self.assertFalse((self.folder / "run/metrics.csv").exists())

    @parameterized.parameters(1e20, 1e38)
    @grids.by_default(0)
    def test_diverged_training_keeps_the_checkpoint_before(self, rate):
        run = self.folder / "run"
        params = (
            f"cyclical_adam.max_learning_rate = {rate}",
            "cyclical_adam.half_cycle_epochs = 2",
        )
        with mock.patch("keras.optimizers.Adam.apply"):  # Learns nothing.
            self._train(run, *params, epochs=1)
        before = small.metrics(run)
        with self.assertRaisesRegex(
            callbacks.DivergedError,
            r"training diverged in epoch 2 \((the bound is|parameters are).*; "
            "lower the learning rate, such as cyclical_adam.max_learning_rate",
        ):
            self._train(run, *params)
        self.assertEqual(small.metrics(run), before)
        self.assertEqual(
            [path.name for path in (run / "checkpoints").iterdir()],
            ["checkpoint-000001.npz"],
        )

    def test_picture_is_refused_with_the_tool_to_use(self):
        small.load_picture("fit.epochs = 1")
        with self.assertRaisesRegex(ValueError, "use `tfvae denoise`"):
            train(self.folder / "run")

    @parameterized.parameters(
        "fit.epochs = 0",
        "fit.batch_size = True",
        "fit.checkpoint_every = 0",
        "fit.keep_checkpoints = 0",
        "fit.steps_per_execution = -1",
    )
    def test_numbers_must_be_positive_integers(self, param):
        name, _, value = param.partition(" = ")
        with self.assertRaisesRegex(
            ValueError,
            f"`{name}` must be an integer of .* got {value}",
        ):
            self._train(self.folder / "run", param)

    @parameterized.parameters(
        "fit.epochs = 'abc'", "fit.epochs = 2.5", "fit.observe_every = None"
    )
    def test_numbers_must_be_of_the_right_type(self, param):
        name, _, value = param.partition(" = ")
        with self.assertRaisesRegex(
            ValueError, f"`{name}` must be of type int, got {value}"
        ):
            self._train(self.folder / "run", param)

    @parameterized.parameters(
        "@keras.optimizers.Adam", "@keras.optimizers.Adam()", "@bars", "3"
    )
    def test_optimizer_must_be_a_function_that_makes_one(self, value):
        with self.assertRaisesRegex(
            TypeError, "`fit.optimizer` must be a function.*@cyclical_adam"
        ):
            self._train(self.folder / "run", f"fit.optimizer = {value}")

    @parameterized.parameters("-1", "4294967296", "0.5")
    def test_seed_must_be_one(self, value):
        with self.assertRaisesRegex(ValueError, "`experiment.seed` must be"):
            self._train(self.folder / "run", f"experiment.seed = {value}")

    def test_held_out_data_must_be_in_the_support(self):
        paths = [self.folder / name for name in ("train.npy", "test.npy")]
        for path, high in zip(paths, (1.0, 2.0), strict=True):
            np.save(path, np.linspace(0.0, high, 32, dtype=np.float32)[:, None])
        with self.assertRaisesRegex(
            ValueError, r"test data: `x` must be in \[0, 1\].*to 2"
        ):
            self._train(
                self.folder / "run",
                "experiment.data = @array_file()",
                f"array_file.path = '{paths[0]}'",
                f"array_file.test_path = '{paths[1]}'",
                "experiment.likelihood = @BernoulliLikelihood",
            )

    def test_decoder_starts_alike_with_one_seed(self):
        small.load_bars("experiment.seed = 3")
        one, two = experiment().model, experiment().model
        for first, second in zip(one.weights, two.weights, strict=True):
            self.assertAllEqual(first.numpy(), second.numpy())

    def test_features_found_counts_each_latent_once(self):
        features = data.bar_features(8)
        self.assertEqual(features_found(features[::-1] + 0.2, features), 8)
        self.assertEqual(features_found(features + 0.3, features), 0)
        doubled = np.concatenate([features[:1], features[:1]])
        self.assertEqual(features_found(doubled, features), 1)

    def test_layout_is_the_documented_one(self):
        layout = vars(run_directory.RunDirectory("a"))
        for name in ("checkpoints", "figures", "saved_model", "tensorboard"):
            self.assertEqual(layout[name], pathlib.Path("a", name))


if __name__ == "__main__":
    tf.test.main()
