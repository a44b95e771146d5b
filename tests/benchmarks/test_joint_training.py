# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmark of joint training, on few queries."""

from __future__ import annotations

import contextlib
import io
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import joint_training
from tests.lso import tiny
from tfvae.lso import ScoredData


class QualityTest(tf.test.TestCase):
    def test_scores_that_latents_tell_are_predicted_and_others_are_not(self):
        model = tiny.model()
        model.compile("sgd", run_eagerly=True)
        rng = np.random.default_rng(0)
        points = rng.normal(size=(120, tiny.NUM_OBSERVED)).astype(np.float32)
        latents = model.posterior_mode(points)[:, 0]
        both = {}
        for name, scores in (
            ("known", latents / latents.std()),
            ("unknown", rng.normal(size=120)),
        ):
            data = ScoredData(points[:60], scores[:60])
            held_out = ScoredData(points[60:], scores[60:])
            both[name] = joint_training.quality(model, data, held_out)
        self.assertGreater(both["known"][0], 0.9)
        self.assertLess(both["unknown"][0], 0.2)
        # That of noise of a variance of 1 is -1.42.
        self.assertGreater(both["known"][1], 0.0)
        self.assertBetween(both["unknown"][1], -1.9, -1.2)
        self.assertEqual(both["known"][2], both["unknown"][2])


class RunTest(tf.test.TestCase):
    @pytest.mark.slow
    def test_prints_a_row_for_each_weight(self):
        output = io.StringIO()
        arguments = ["--seeds", "7", "--budget", "2", "--num_data", "300"]
        with (
            contextlib.redirect_stdout(output),
            mock.patch("sys.argv", ["", *arguments, "--epochs", "1"]),
        ):
            joint_training.main()
        *_, head, without, joint = output.getvalue().splitlines()
        self.assertIn("log-likelihood", head)
        self.assertEqual((without.split()[0], joint.split()[0]), ("0", "1"))


if __name__ == "__main__":
    tf.test.main()
