# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import optimizers, schedules

RATES = {
    "constant": lambda: 0.01,
    "cyclical": lambda: schedules.TriangularCyclical(1e-3, 0.05, 4),
}


def _model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh"),
            keras.layers.Dense(2),
        ]
    )
    return model


def _train(optimizer, steps=25):
    model = _model()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 2))
    model.compile(optimizer, "mse")
    x, y = np.tile(x, (steps, 1)), np.tile(y, (steps, 1))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    return model


class FusedAdamTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(*RATES)
    def test_it_is_adam(self, rate):
        settings = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4}
        models = [
            _train(kind(RATES[rate](), **settings))
            for kind in (keras.optimizers.Adam, optimizers.FusedAdam)
        ]
        for one, other in zip(*(m.get_weights() for m in models), strict=True):
            self.assertAllClose(one, other, atol=2e-6)
        states = [m.optimizer.variables for m in models]
        for one, other in zip(*states, strict=True):
            self.assertAllClose(one, other, atol=2e-6)

    def test_amsgrad_is_kerass_own(self):
        models = [
            _train(kind(0.01, amsgrad=True))
            for kind in (keras.optimizers.Adam, optimizers.FusedAdam)
        ]
        for one, other in zip(*(m.get_weights() for m in models), strict=True):
            self.assertAllEqual(one, other)

    def test_training_goes_on_from_a_file(self):
        model = _train(optimizers.FusedAdam(0.01))
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        self.assertIsInstance(loaded.optimizer, optimizers.FusedAdam)
        x, y = np.ones((8, 3)), np.zeros((8, 2))
        for one in (model, loaded):
            one.fit(x, y, epochs=2, verbose=0)
        self.assertAllEqual(
            model.predict(x, verbose=0), loaded.predict(x, verbose=0)
        )


if __name__ == "__main__":
    tf.test.main()
