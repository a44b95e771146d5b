# SPDX-License-Identifier: Apache-2.0
"""What every model of the library must do, and that callers rely on it."""

from __future__ import annotations

import ast
import itertools
import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.lso import tiny
from tfvae import latent_model, priors, tvae, vae
from tfvae.lso.latent_space import latent_space
from tfvae.tvae import Explore

ROOT = pathlib.Path(__file__).parents[1]
KINDS = {"VAE": tiny.model, "TVAE": tiny.binary_model}
EVERY = [(kind, kind) for kind in KINDS]


def _switches(source):
    """Returns the lines of `isinstance` calls that name VAE or TVAE."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and {"VAE", "TVAE"}
        & {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    ]


class CallersTest(parameterized.TestCase):
    def test_only_the_models_know_of_which_kind_they_are(self):
        for path in itertools.chain(
            *((ROOT / name).rglob("*.py") for name in ("tfvae", "benchmarks"))
        ):
            folder = path.relative_to(ROOT).parts[:2]
            if folder not in (("tfvae", "vae"), ("tfvae", "tvae")):
                self.assertEmpty(_switches(path.read_text()), path)

    def test_switch_is_found_where_there_is_one(self):
        self.assertEqual(_switches("\nisinstance(model, VAE | None)"), [2])
        self.assertEmpty(_switches("isinstance(model, LatentModel)"))


@keras.saving.register_keras_serializable("tests.latent_model")
class ListOfLayers(keras.layers.Layer):
    """A user's decoder, with layers where TensorFlow does not look."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.parts = [keras.layers.Dense(3), keras.layers.Dense(size)]
        self.named = {"last": keras.layers.Dense(size)}

    def build(self, shape):
        for part in (*self.parts, self.named["last"]):
            part.build(shape)
            shape = part.compute_output_shape(shape)

    def call(self, latents):
        for part in (*self.parts, self.named["last"]):
            latents = part(latents)
        return latents

    def compute_output_shape(self, shape):
        return (shape[0], self.size)


class CheckpointTest(tf.test.TestCase, parameterized.TestCase):
    def _model(self, kind):
        decoder = ListOfLayers(tiny.NUM_OBSERVED)
        if kind == "TVAE":
            return tvae.TVAE(decoder, 4, tiny.NUM_DATA, num_states=5)
        encoder = tiny.model().encoder
        return vae.VAE(encoder, decoder, priors.VampPrior(tiny.NUM_LATENTS, 3))

    @parameterized.named_parameters(*EVERY)
    def test_tensorflow_checkpoint_holds_layers_in_lists(self, kind):
        model, x = self._model(kind), tiny.data().points
        model.adapt(x)
        model.compile("sgd")
        index = np.arange(len(x)) if model.needs_index else None
        model.fit(x, index, verbose=0)
        path = f"{self.create_tempdir().full_path}/weights"
        tf.train.Checkpoint(model=model).write(path)
        other = self._model(kind)
        tf.train.Checkpoint(model=other).read(path).expect_partial()
        self.assertLen(other.weights, len(model.weights))
        for one, two in zip(model.weights, other.weights, strict=True):
            self.assertAllEqual(one, two, msg=one.path)


class ConformanceTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.named_parameters(*EVERY)
    def test_fit_takes_the_batches_of_the_model(self, kind):
        model, x = KINDS[kind](), tiny.data().points
        weights = np.arange(1.0, len(x) + 1.0)
        model.compile("sgd")
        for settings in ({}, {"weights": weights}):
            batches = model.batches(x, 10, seed=3, **settings)
            model.fit(batches, steps_per_epoch=3, shuffle=False, verbose=0)
            batch = next(iter(batches))
            points = batch[0] if model.needs_index else batch
            self.assertEqual(points.shape, [10, tiny.NUM_OBSERVED])
            if model.needs_index:
                self.assertAllEqual(points, x[batch[1].numpy()])
        self.assertEqual(model.iteration, 6)

    @parameterized.product(kind=list(KINDS), is_weighted=[True, False])
    def test_batches_go_on_in_the_epoch_they_start_with(
        self, kind, is_weighted
    ):
        model, x = KINDS[kind](), tiny.data().points
        weights = np.arange(len(x)) + 1.0 if is_weighted else None
        whole = model.batches(x, 10, seed=3, weights=weights)
        rest = model.batches(x, 10, 3, 2, weights=weights)
        # 24 data points are three batches.
        for expected, found in zip(whole.skip(6).take(4), rest, strict=False):
            for one, other in zip(
                tf.nest.flatten(expected), tf.nest.flatten(found), strict=True
            ):
                self.assertAllEqual(one, other)

    @parameterized.named_parameters(*EVERY)
    def test_points_are_inferred_as_bound_and_reconstruction(self, kind):
        model, x = KINDS[kind](), tiny.data().points
        bound, mean = model.infer_points(x)
        self.assertAllClose(bound, model.log_likelihood_bound(x), rtol=1e-5)
        self.assertAllClose(mean, model.reconstruct(x), rtol=1e-4, atol=1e-5)
        again = model.log_likelihood_bound(x, num_samples=8, seed=5)
        self.assertAllEqual(
            again, model.log_likelihood_bound(x, num_samples=8, seed=5)
        )

    @parameterized.named_parameters(*EVERY)
    def test_figures_are_data_points_and_depend_on_the_seed_alone(self, kind):
        model = KINDS[kind]()
        found, again = model.figures(seed=4), model.figures(seed=4)
        self.assertEqual(list(found), list(again))
        self.assertAllEqual(
            found["samples"].points, model.sample(64, seed=4, mean=True)
        )
        for name, figure in found.items():
            self.assertAllEqual(figure.points, again[name].points)
            self.assertEqual(figure.points.shape[1], tiny.NUM_OBSERVED)
            self.assertNotEqual(figure.title, "")

    @parameterized.named_parameters(*EVERY)
    def test_latent_space_has_the_latents_of_the_model(self, kind):
        model, x = KINDS[kind](), tiny.data().points
        space = latent_space(model)
        self.assertEqual(space.is_binary, model.has_binary_latents)
        latents = space.encode(x)
        self.assertAllEqual(latents, model.posterior_mode(x))
        self.assertEqual(latents.shape, (len(x), space.num_latents))
        self.assertAllClose(space.decode(latents), model.decode(latents))
        draws = space.sample_prior(7, 2000)
        self.assertAllEqual(draws, model.sample_prior(2000, seed=7))
        expected = 0.0
        if space.is_binary:
            self.assertAllInSet(latents, [0.0, 1.0])
            expected = model.prior_probs
        # Standard deviations are at most 1: five standard errors of the mean.
        self.assertAllClose(
            draws.mean(0), np.broadcast_to(expected, draws.shape[1]), atol=0.112
        )

    def test_other_objects_have_no_latent_space(self):
        with self.assertRaisesRegex(TypeError, "a VAE or a TVAE, got dict"):
            latent_space({})

    def test_base_class_leaves_the_model_to_subclasses(self):
        model = latent_model.LatentModel()
        for call in (
            lambda: model.log_likelihood_bound(np.zeros((1, 2))),
            lambda: model.posterior_mode(np.zeros((1, 2))),
            lambda: model.decode(np.zeros((1, 2))),
            lambda: model.sample(1),
            lambda: model.has_binary_latents,
        ):
            with self.assertRaisesRegex(NotImplementedError, ""):
                call()


class VAETest(tf.test.TestCase):
    def test_any_number_of_data_points_fits(self):
        model = tiny.model()
        self.assertIsNone(model.capacity)
        self.assertIs(model.with_capacity(10**9), model)
        self.assertFalse(model.has_binary_latents)
        self.assertIsNone(model.prior_probs)
        self.assertIsNone(model.singleton_means())
        self.assertEmpty(model.training_callbacks())
        self.assertEqual(model.gradient_steps(21, 10), 3)
        self.assertEqual(model.describe_latents(), "2 latents")

    def test_lines_between_latents_end_at_draws_from_the_prior(self):
        model = tiny.model()
        # Through an affine decoder a line of latents is a line of data.
        model.decoder = lambda latents, training: tf.tile(latents, [1, 2])
        figure = model.figures(seed=4)["interpolations"]
        lines = figure.points.reshape(8, figure.per_row, -1)
        self.assertAllClose(
            np.diff(lines, 2, axis=1), np.zeros((8, 6, 4)), atol=1e-5
        )
        self.assertNotAllClose(lines[:, 0], lines[:, -1])

    def test_terms_of_the_bound_are_what_evaluate_logs(self):
        model, x = tiny.model(), tiny.data().points
        model.compile()
        terms = model.bound_terms(x)
        self.assertAllClose(
            terms["bound"], terms["log_likelihood"] - terms["kl"], rtol=1e-5
        )

    def test_nothing_is_stored_of_training_data(self):
        model, x = tiny.model(), tiny.data().points
        with self.assertRaisesRegex(TypeError, "got a VAE; use reconstruct"):
            model.stored_reconstruction(x, np.arange(len(x)))


class TVAETest(tf.test.TestCase):
    def test_capacity_is_the_number_of_data_points_with_states(self):
        model = tiny.binary_model()
        self.assertEqual(model.capacity, tiny.NUM_DATA)
        self.assertIs(model.with_capacity(tiny.NUM_DATA), model)
        for num_data in (30, 10, 0):
            self.assertEqual(model.with_capacity(num_data).capacity, num_data)

    def test_other_capacity_leaves_parameters_and_states_as_they_are(self):
        model, x = tiny.binary_model(), tiny.data().points
        model.compile("sgd")
        model.fit(x, np.arange(len(x)), epochs=2, verbose=0)
        grown = model.with_capacity(30)
        for name in ("packed", "visited"):
            old, new = getattr(model.states, name), getattr(grown.states, name)
            self.assertAllEqual(new[: tiny.NUM_DATA], old)
        self.assertAllEqual(grown.prior_probs, model.prior_probs)
        self.assertEqual(grown.iteration, model.iteration)
        index = np.arange(len(x))
        self.assertAllEqual(
            grown.stored_reconstruction(x, index),
            model.stored_reconstruction(x, index),
        )

    def test_mode_is_the_best_stored_state_of_what_training_visited(self):
        model, x = tiny.binary_model(), tiny.data().points
        index = np.arange(len(x))
        self.assertAllEqual(
            model.posterior_mode(x, index), model.posterior_mode(x)
        )
        model.compile("sgd")
        model.fit(x[:5], index[:5], epochs=1, verbose=0)
        found = model.posterior_mode(x, index)
        packed = model.states.packed.numpy()[:5, 0]
        expected = np.unpackbits(packed, axis=-1, bitorder="little")
        self.assertAllEqual(found[:5], expected[:, : model.num_latents])
        self.assertAllEqual(found[5:], model.posterior_mode(x[5:]))

    def test_training_explores_and_steps_by_m_step_batches(self):
        model = tiny.binary_model()
        callback, _ = model.training_callbacks()
        self.assertIsInstance(callback, Explore)
        self.assertEqual(model.gradient_steps(24, 10), 3)
        model.m_batch_size = 4
        # Batches of 10, 10 and 4: three, three and one M-step batches.
        self.assertEqual(model.gradient_steps(24, 10), 7)
        self.assertEqual(model.describe_latents(), "6 latents, 8 states each")

    def test_prior_can_not_be_replaced(self):
        x = tiny.data().points
        with self.assertRaisesRegex(TypeError, "a TVAE fits in training, got"):
            tiny.binary_model().with_fitted_prior(
                priors.GaussianMixturePrior(6), x
            )

    def test_features_are_sorted_by_how_often_they_occur(self):
        model = tiny.binary_model()
        model.prior_probs.assign([0.1, 0.6, 0.2, 0.5, 0.3, 0.4])
        means = model.singleton_means().numpy()
        self.assertAllEqual(
            model.figures()["features"].points, means[[1, 3, 5, 4, 2, 0]]
        )


if __name__ == "__main__":
    tf.test.main()
