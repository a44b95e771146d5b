# SPDX-License-Identifier: Apache-2.0
"""What every layer of the library computes after each way of saving it.

A slow test prints the largest difference of outputs, for each layer and way:

    python -m pytest -m slow -s tests/test_saved_weights.py
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests.networks import small as small_networks
from tests.priors import small as small_priors
from tests.tvae import tiny as tiny_tvae
from tests.vae import tiny as tiny_vae
from tfvae import likelihoods, networks, priors, registration, vae
from tfvae.networks.autoregressive import AutoregressiveDecoder
from tfvae.networks.binary import MIN_SPARSE_INPUTS, BinaryDense
from tfvae.tvae import TVAE, Exploration, StateStore
from tfvae.tvae.prior import BernoulliPrior


@keras.saving.register_keras_serializable("tests.saved_weights")
class Holder(keras.Model):
    """A model of one layer, whose outputs depend on all of its weights."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer
        self.built = True

    def call(self, x):
        layer = self.layer
        if isinstance(layer, likelihoods.Likelihood):
            outputs = tf.tile(x, [1, layer.num_outputs(x.shape[-1]) // 6])
            return layer.log_prob(x, tf.ones_like(x), outputs)
        if isinstance(layer, AutoregressiveDecoder):
            return layer([x[:, :2], x[:, 2:]])
        if isinstance(layer, vae.Encoder):
            return tf.concat(layer(x), -1)
        if isinstance(layer, StateStore):
            index = tf.cast(x[:, 0], tf.int32)
            packed = tf.cast(tf.gather(layer.packed.value, index), tf.float32)
            visited = tf.gather(layer.visited.value, index)
            visited = tf.cast(visited, tf.float32)[:, None]
            return tf.concat([packed[..., 0], visited], -1)
        return layer.log_prob(x)

    def get_config(self):
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config.pop("layer"))
        return cls(layer, **config)


def _call(model, inputs):
    return model(inputs)


class Case(NamedTuple):
    """A model around one object of the library, and what it computes."""

    make: Callable[[], keras.Model]
    inputs: tf.Tensor
    compute: Callable[[keras.Model, tf.Tensor], tf.Tensor] = _call


def _network_case(case: small_networks.Case) -> Case:
    def make():
        network = small_networks.built(case)
        return keras.Sequential([keras.layers.Input(case.inputs), network])

    return Case(make, small_networks.inputs(case))


def _held(make: Callable[[], keras.layers.Layer]) -> Case:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (5, tiny_vae.NUM_OBSERVED)).astype(np.float32)
    return Case(lambda: Holder(make()), tf.constant(x))


def _binary_dense() -> keras.Model:
    inputs = keras.layers.Input((MIN_SPARSE_INPUTS,))
    return keras.Sequential([inputs, BinaryDense(4, "tanh")])


def _quantizing() -> vae.Encoder:
    posterior = vae.VectorQuantizedPosterior(4, 1)
    return vae.learnable(tiny_vae.network, 2, posterior=posterior)


def _of_codes() -> keras.layers.Layer:
    return priors.QuantizedPrior(2, num_variables=2, num_codes=4)


NETWORKS = {case.make: _network_case(case) for case in small_networks.CASES}
PRIORS = {
    cls: Case(lambda cls=cls: small_priors.model(cls, 3), tf.ones([5, 3]))
    for cls in small_priors.CASES
}
LIKELIHOODS = {
    likelihoods.GaussianLikelihood: _held(likelihoods.GaussianLikelihood),
    likelihoods.DiagonalGaussianLikelihood: _held(
        likelihoods.DiagonalGaussianLikelihood
    ),
    likelihoods.BernoulliLikelihood: _held(likelihoods.BernoulliLikelihood),
    likelihoods.PoissonLikelihood: _held(likelihoods.PoissonLikelihood),
    likelihoods.SequenceLikelihood: _held(
        lambda: likelihoods.SequenceLikelihood(2, 3, (0, 1, 1))
    ),
}
MODELS = {
    AutoregressiveDecoder: _held(lambda: AutoregressiveDecoder(2, 2, 2, 3)),
    BinaryDense: Case(_binary_dense, tf.eye(4, MIN_SPARSE_INPUTS)),
    vae.Encoder: _held(
        lambda: tiny_vae.POLICIES["partially_non_learnable"](
            tiny_vae.network, tiny_vae.NUM_LATENTS
        )
    ),
    vae.VectorQuantizedPosterior: Case(
        lambda: tiny_vae.make(encoder=_quantizing(), prior=_of_codes()),
        tf.constant(tiny_vae.data()),
    ),
    BernoulliPrior: _held(lambda: BernoulliPrior(tiny_vae.NUM_OBSERVED)),
    StateStore: _held(lambda: StateStore(2, 3, 4)),
    vae.VAE: Case(tiny_vae.make, tf.constant(tiny_vae.data())),
    # Not its call, an evolution that takes seconds to trace.
    TVAE: Case(
        lambda: tiny_tvae.make(exploration=Exploration()),
        tf.eye(tiny_tvae.NUM_LATENTS),
        TVAE.decode,
    ),
}
CASES = NETWORKS | PRIORS | LIKELIHOODS | MODELS
EVERY_CASE = [(make.__name__, case) for make, case in CASES.items()]


def _drawn(case: Case, seed: int) -> keras.Model:
    """Returns a model all of whose weights are drawn anew."""
    model = case.make()
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if tf.as_dtype(weight.dtype).is_floating:
            weight.assign(rng.uniform(0.3, 0.7, weight.shape))
        else:
            weight.assign(rng.integers(0, 4, weight.shape))
    return model


@pytest.mark.usefixtures("kept_kernels")
class SavedWeightsTest(tf.test.TestCase, parameterized.TestCase):
    def test_every_registered_layer_has_a_case(self):
        registered = set()
        for module, names in registration.CLASSES.items():
            package = __import__(module, fromlist=names)
            registered |= {getattr(package, name) for name in names}
        self.assertContainsSubset(
            {cls for cls in registered if issubclass(cls, keras.layers.Layer)},
            set(CASES),
        )
        self.assertEqual(
            {make for make in CASES if inspect.isfunction(make)},
            {
                getattr(networks, name)
                for name in networks.__all__
                if inspect.isfunction(getattr(networks, name))
            },
        )

    @parameterized.named_parameters(*EVERY_CASE)
    def test_no_file_changes_an_output_of(self, case):
        differences, _ = self._differences(_drawn(case, 0), case)
        self.assertEqual(differences, [0.0] * 3)

    @pytest.mark.slow  # As above, and exported; prints a table.
    def test_no_way_of_saving_changes_an_output(self):
        ways = ("weights", ".keras", ".h5", "Checkpoint", "SavedModel")
        print(f"\n{'':<26}", *(f"{way:>10}" for way in ways))
        for name, case in EVERY_CASE:
            model = _drawn(case, 0)
            differences, expected = self._differences(model, case)
            served = np.abs(self._served(model, case) - expected).max()
            cells = (f"{number:10.1e}" for number in (*differences, served))
            print(f"{name:<26} {len(model.weights):>10}", *cells)
            self.assertEqual(differences, [0.0] * 3)
            # Graphs of inference round otherwise.
            self.assertLess(served, 1e-5 * np.abs(expected).max() + 1e-6)

    def _differences(self, model, case):
        """Returns the largest differences of outputs, and the outputs."""
        expected = case.compute(model, case.inputs).numpy()
        self.assertAllInRange(expected, -1e6, 1e6)
        self.path = self.create_tempdir().full_path
        copies = (
            self._loaded(model),
            self._with_weights(model, _drawn(case, 1)),
            self._restored(model, _drawn(case, 1)),
        )
        outputs = [case.compute(copy, case.inputs) for copy in copies]
        return [np.abs(y - expected).max() for y in outputs], expected

    def _loaded(self, model):
        model.save(f"{self.path}/model.keras")
        loaded = keras.saving.load_model(f"{self.path}/model.keras")
        self._assert_same_weights(loaded, model)
        return loaded

    def _with_weights(self, model, other):
        model.save_weights(f"{self.path}/model.weights.h5")
        other.load_weights(f"{self.path}/model.weights.h5")
        self._assert_same_weights(other, model)
        return other

    def _restored(self, model, other):
        path = tf.train.Checkpoint(model=model).write(f"{self.path}/checkpoint")
        tf.train.Checkpoint(model=other).read(path).assert_consumed()
        self._assert_same_weights(other, model)
        return other

    def _served(self, model, case):
        def serve(x):
            return case.compute(model, x)

        archive = keras.export.ExportArchive()
        archive.track(model)
        data = tf.TensorSpec([None, *case.inputs.shape[1:]], tf.float32)
        archive.add_endpoint("serve", serve, [data])
        archive.write_out(f"{self.path}/served", verbose=False)
        served = tf.saved_model.load(f"{self.path}/served")
        return served.serve(case.inputs)

    def _assert_same_weights(self, found, expected):
        self.assertLen(found.weights, len(expected.weights))
        for one, other in zip(found.weights, expected.weights, strict=True):
            self.assertAllEqual(one, other, msg=other.path)


if __name__ == "__main__":
    tf.test.main()
