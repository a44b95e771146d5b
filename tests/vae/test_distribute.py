# SPDX-License-Identifier: Apache-2.0
"""A VAE in two replicas trains as in one."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest

_ROOT = pathlib.Path(__file__).parents[2]


class DistributeTest(absltest.TestCase):
    @pytest.mark.slow
    def test_two_replicas_train_as_one(self):
        # A process of its own: devices can be cut in two at its start only.
        done = subprocess.run(
            [sys.executable, __file__],
            cwd=_ROOT,
            env={"PYTHONPATH": str(_ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("largest difference", done.stdout)


def _trained(strategy: tf.distribute.Strategy | None) -> list[np.ndarray]:
    from tests.vae import tiny
    from tfvae import likelihoods

    x = tiny.data(num_data=64)
    with strategy.scope() if strategy else contextlib.nullcontext():
        # Hardly any noise, and none that depends on the replica's batch.
        model = tiny.make(
            "non_learnable",
            likelihood=likelihoods.GaussianLikelihood(0.5, is_fixed=True),
        )
        model.adapt(x)
        model.compile(keras.optimizers.SGD(0.05))
    model.fit(x, batch_size=32, epochs=20, shuffle=False, verbose=0)
    return [v.numpy() for v in model.trainable_variables]


def main() -> int:
    """Compares a training in one replica with one in two."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    both = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    difference = max(
        np.abs(one - other).max()
        for one, other in zip(_trained(None), _trained(both), strict=True)
    )
    print(f"largest difference of a weight: {difference:.3g}")
    # Latents have a standard deviation of 0.001; twice the rate is off by 0.1.
    return 0 if difference < 2e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
