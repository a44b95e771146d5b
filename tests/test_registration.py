# SPDX-License-Identifier: Apache-2.0
"""Saved models load after `import tfvae` alone."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

import tfvae
from tests.tvae import tiny as tiny_tvae
from tests.vae import tiny as tiny_vae
from tfvae import lso, registration

ROOT = pathlib.Path(__file__).parents[1]
# Tried after one of the others: these import Keras after tfvae, or before.
_LOAD = """
import json, sys
import numpy as np
model = keras.models.load_model(sys.argv[1])
x = np.full((2, model.num_observed), 0.5, "float32")
json.dump(model.predict(x, verbose=0).tolist(), sys.stdout)
"""

_STAND_INS = """
import sys
import tfvae, keras

find = keras.saving.get_registered_object
stand_in = find("tfvae>GaussianLikelihood")
assert "tfvae.likelihoods" not in sys.modules
assert hasattr(stand_in, "get_config")
assert type(stand_in()) is tfvae.GaussianLikelihood
assert stand_in == tfvae.GaussianLikelihood
assert stand_in is not tfvae.GaussianLikelihood
assert find("tfvae>GaussianLikelihood") is tfvae.GaussianLikelihood
name = keras.saving.get_registered_name(stand_in)
assert name == "tfvae>GaussianLikelihood", name

class Mine(find("tfvae>FusedAdam")):
    pass

assert Mine.__mro__[1] is tfvae.FusedAdam
assert type(Mine(0.1)) is Mine
"""
_OWN_CLASS = """
import keras

@keras.saving.register_keras_serializable("tfvae")
class FusedAdam(keras.optimizers.Adam):
    pass

import tfvae

find = keras.saving.get_registered_object
assert find("tfvae>FusedAdam") is FusedAdam
assert find("tfvae>TVAE") is not None

@keras.saving.register_keras_serializable("tfvae")
class Rank(keras.layers.Layer):
    pass

assert find("tfvae>Rank") is Rank
"""


class RegistrationTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_registered_class_has_a_stand_in(self):
        for package in (tfvae, tfvae.data, lso):
            for name in package.__all__:
                getattr(package, name)
        ours = {
            key
            for key in keras.saving.get_custom_objects()
            if key.startswith("tfvae>")
        }
        listed = {
            f"tfvae>{name}"
            for names in registration.CLASSES.values()
            for name in names
        }
        self.assertEqual(ours, listed)

    @parameterized.parameters(*registration.CLASSES.items())
    def test_stand_ins_name_the_module_that_has_the_class(self, module, names):
        __import__(module)
        for name in names:
            found = getattr(sys.modules[module], name)
            registered = keras.saving.get_registered_name(found)
            self.assertEqual(registered, f"tfvae>{name}")

    @pytest.mark.slow
    def test_model_loads_elsewhere_where_stand_ins_are_as_good(self):
        self._assert_loads(_STAND_INS, "vae")

    @pytest.mark.slow  # Ten seconds, of which the test before takes half.
    def test_model_loads_elsewhere_where_no_stand_in_replaces_a_class(self):
        self._assert_loads(_OWN_CLASS, "tvae")

    def _assert_loads(self, program, kind):
        make = {"vae": tiny_vae.make, "tvae": tiny_tvae.make}[kind]
        model = make()
        path = pathlib.Path(self.get_temp_dir()) / f"{kind}.keras"
        model.save(path)
        ended = subprocess.run(
            [sys.executable, "-c", program + _LOAD, path],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        x = np.full((2, model.num_observed), 0.5, np.float32)
        self.assertAllClose(
            json.loads(ended.stdout), model.predict(x, verbose=0), atol=1e-6
        )


if __name__ == "__main__":
    tf.test.main()
