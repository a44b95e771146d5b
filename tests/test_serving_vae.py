# SPDX-License-Identifier: Apache-2.0
"""Exports of VAEs; what does not depend on the model is in test_serving."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from benchmarks import conversion_worker
from tests import grids, served
from tests.vae import tiny
from tfvae import likelihoods, priors, serving, vae
from tfvae.serving import endpoints

D, M = tiny.NUM_OBSERVED, tiny.NUM_LATENTS
LIMITS = serving.Limits(rows=300, num_samples=99, row_samples=300 * 128)


def _flow():
    prior = priors.RealNVPPrior(M, num_flows=2, hidden=(4,))
    return tiny.make("learnable", prior=prior)


def _binary():
    encoder = vae.learnable(
        tiny.network, M, posterior=vae.RelaxedBernoulliPosterior()
    )
    return tiny.make(
        encoder=encoder,
        prior=priors.IndependentBernoulliPrior(M),
        likelihood=likelihoods.BernoulliLikelihood(),
    )


def _disarm():
    encoder = vae.learnable(tiny.network, M, posterior=vae.BernoulliPosterior())
    return tiny.make(encoder=encoder, prior=priors.IndependentBernoulliPrior(M))


def _categorical():
    encoder = vae.learnable(
        tiny.network,
        M,
        posterior=vae.RelaxedCategoricalPosterior(num_variables=1),
    )
    return tiny.make(
        encoder=encoder, prior=priors.AutoregressiveCategoricalPrior(M, 1, 3)
    )


def _quantized():
    posterior = vae.VectorQuantizedPosterior(4, 1)
    return tiny.make(
        encoder=vae.learnable(tiny.network, M, posterior=posterior),
        prior=priors.QuantizedPrior(M, num_variables=M, num_codes=4),
    )


VARIANTS = {
    "normal": lambda: tiny.make("random_kitchen_sinks", seed=5),
    "flow": _flow,
    "mixture": lambda: tiny.make(
        "non_learnable", prior=priors.GaussianMixturePrior(M, num_components=3)
    ),
    "vamp": lambda: tiny.make(
        "partially_non_learnable",
        prior=priors.VampPrior(M, num_pseudo_inputs=3),
    ),
    "binary": _binary,
    "disarm": _disarm,
    "categorical": _categorical,
    "quantized": _quantized,
}
# Those whose encoders return probabilities, not means and variances.
DISCRETE = {"binary", "categorical", "disarm"}
# The others' exports skip the check, which takes as long as the rest; their
# outputs are compared below.
CHECKED = "flow"


def _new_model(variant):
    model = VARIANTS[variant]()
    rng = np.random.default_rng(1)
    # No weight keeps a value that it also would have if it were forgotten.
    for weight in _float_variables(model.encoder, model.decoder, model.prior):
        weight.assign_add(rng.uniform(0.1, 0.5, weight.shape))
    return model


def _float_variables(*parts):
    # By identity: a prior may hold on to the encoder.
    variables = {
        id(variable): variable for part in parts for variable in part.variables
    }
    return [
        variable
        for variable in variables.values()
        if keras.backend.is_float_dtype(variable.dtype)
    ]


@functools.cache
def _exported(variant):
    """A model, the path of its export and the export loaded."""
    model = _new_model(variant)
    folder = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
    path = pathlib.Path(folder) / "models" / "1"
    check = serving.check_saved_model if variant == CHECKED else mock.Mock()
    with mock.patch.object(serving, "check_saved_model", check):
        serving.export_saved_model(
            model, path, event_shape=(3, 2), limits=LIMITS
        )
    return model, path, tf.saved_model.load(path)


def _data(batch_size):
    x = tiny.data(batch_size, batch_size)
    x[0, :2] = np.nan
    x[-1, 4:] = np.nan
    return x


every_variant = parameterized.product(
    variant=tuple(VARIANTS), batch_size=(1, 4)
)


@pytest.mark.usefixtures("kept_kernels")
class SignaturesTest(tf.test.TestCase, parameterized.TestCase):
    """What an export returns is what the model in memory does."""

    @every_variant
    @grids.by_default(8)
    def test_bound_and_reconstruction_equal_those_of_the_model(
        self, variant, batch_size
    ):
        model, _, loaded = _exported(variant)
        x = _data(batch_size)
        found = loaded.reconstruct(x, 3, 7)
        bound = model.log_likelihood_bound(x, 3, 7)
        self.assertAllClose(found["mean"], model.reconstruct(x))
        self.assertAllClose(found["bound"], bound)
        alone = loaded.log_likelihood_bound(x, 3, 7)["bound"]
        self.assertAllClose(alone, bound)

    @parameterized.parameters(*VARIANTS)
    @grids.by_default(0, 1, 4)
    def test_default_equals_the_defaults_of_the_model(self, variant):
        model, _, loaded = _exported(variant)
        x = _data(4)
        found = loaded.serving_default(x)
        self.assertAllClose(found["mean"], model.reconstruct(x))
        self.assertAllClose(found["bound"], model.log_likelihood_bound(x))

    def test_values_where_observed_is_0_are_ignored(self):
        _, _, loaded = _exported("normal")
        served.assert_unobserved_is_ignored(self, loaded, _data(4))

    @every_variant
    @grids.by_default(0, 2, 8)
    def test_mean_is_the_reconstruction_without_draws(
        self, variant, batch_size
    ):
        model, _, loaded = _exported(variant)
        x = _data(batch_size)
        self.assertAllClose(loaded.mean(x)["mean"], model.reconstruct(x))
        self.assertNotIn("Random", _operations(loaded.signatures["mean"]))
        self.assertIn("Random", _operations(loaded.signatures["sample"]))

    @parameterized.parameters(*VARIANTS)
    @grids.by_default(0, 1, 4)
    def test_signatures_without_draws_use_what_onnx_has(self, variant):
        loaded = _exported(variant)[2]
        for name in ("mean", "encode", "decode"):
            operations = _operations(loaded.signatures[name])
            self.assertNotRegex(operations, "Log1p|Expm1|Lgamma|Random")

    def test_mean_converts_to_tflite(self):
        _, path, _ = _exported("normal")
        difference = conversion_worker.largest_difference(
            conversion_worker.tflite, str(path), "mean", _data(4)
        )
        self.assertLess(difference, 1e-5)

    @every_variant
    @grids.by_default(0, 2, 8)
    def test_sample_and_decode_equal_those_of_the_model(
        self, variant, batch_size
    ):
        model, _, loaded = _exported(variant)
        found = loaded.sample(batch_size, 8)
        mean = model.sample(batch_size, 8, mean=True)
        self.assertAllClose(found["observations"], model.sample(batch_size, 8))
        self.assertAllClose(found["mean"], mean)
        latents = np.random.default_rng(0).normal(size=(batch_size, M))
        latents = latents.astype(np.float32)
        mean = loaded.decode(latents)["mean"]
        self.assertAllClose(mean, model.decode(latents))

    @parameterized.product(
        variant=sorted(VARIANTS.keys() - DISCRETE - {"quantized"}),
        batch_size=(1, 4),
    )
    def test_encode_gives_mean_and_variance(self, variant, batch_size):
        model, _, loaded = _exported(variant)
        x = _data(batch_size)
        found = loaded.encode(x)
        posterior = model.encode(x)
        self.assertAllClose(found["mean"], posterior.mean)
        variance = np.exp(posterior.log_variance) * np.ones((batch_size, M))
        self.assertAllClose(found["variance"], variance)
        # For Gaussians, the mode that reconstructions decode is the mean.
        mean = loaded.decode(found["mean"])["mean"]
        self.assertAllClose(mean, model.reconstruct(x))

    @parameterized.product(variant=sorted(DISCRETE), batch_size=(1, 4))
    @grids.by_default(0, 3)
    def test_encode_gives_probabilities_of_discrete_latents(
        self, variant, batch_size
    ):
        model, _, loaded = _exported(variant)
        x = _data(batch_size)
        found = loaded.encode(x)
        self.assertCountEqual(found, ["probs"])
        self.assertAllClose(found["probs"], model.encode(x).mean)

    def test_encode_gives_vectors_and_codes_of_quantised_latents(self):
        model, _, loaded = _exported("quantized")
        x = _data(4)
        found = loaded.encode(x)
        self.assertCountEqual(found, ["mean", "codes"])
        self.assertAllClose(found["mean"], model.encode(x).mode)
        self.assertAllEqual(found["codes"], model.encode(x).codes)

    def test_seed_and_number_of_samples_take_effect(self):
        _, _, loaded = _exported("flow")
        x = np.repeat(_data(1), 300, 0)
        one, other, many = (
            loaded.log_likelihood_bound(x, num_samples, seed)["bound"]
            for num_samples, seed in ((1, 0), (1, 1), (30, 0))
        )
        self.assertNotAllClose(one, other)
        # Burda et al., 2016, theorem 1.
        self.assertGreater(np.mean(many), np.mean(one))
        draws = (loaded.sample(4, seed)["mean"] for seed in (0, 1))
        self.assertNotAllClose(*draws)

    def test_empty_batches_are_answered(self):
        _, _, loaded = _exported("flow")
        found = loaded.reconstruct(np.zeros((0, D), np.float32), 3, 0)
        self.assertEqual(found["mean"].shape, (0, D))
        self.assertEqual(loaded.sample(0, 0)["mean"].shape, (0, D))


def _operations(function):
    """Returns the names of a signature's operations, in one line."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node]
    for inner in graph.library.function:
        nodes.extend(inner.node_def)
    return " ".join(sorted({node.op for node in nodes}))


class ContentTest(tf.test.TestCase, parameterized.TestCase):
    """What is in the exported folder."""

    @parameterized.parameters(*VARIANTS)
    @grids.by_default(0, 1, 4)
    def test_every_weight_of_the_parts_is_there_and_no_other(self, variant):
        model, _, loaded = _exported(variant)
        found = [weight.numpy() for weight in loaded.weights]
        parts = (model.encoder, model.decoder, model.prior)
        for variable in _float_variables(*parts):
            matches = [np.array_equal(variable, value) for value in found]
            self.assertIn(True, matches, variable.path)
            found.pop(matches.index(True))
        # What is left is the likelihood's.
        kept = [variable.numpy() for variable in model.likelihood.variables]
        for value in found:
            self.assertTrue(any(np.array_equal(value, one) for one in kept))

    @parameterized.named_parameters(
        (
            "encode",
            {"data": (None, D)},
            {"mean": (None, M), "variance": (None, M)},
        ),
        ("decode", {"latents": (None, M)}, {"mean": (None, D)}),
        ("mean", {"data": (None, D)}, {"mean": (None, D)}),
        (
            "serving_observed",
            {"data": (None, D), "observed": (None, D)},
            {"mean": (None, D), "bound": (None,)},
        ),
        (
            "reconstruct",
            {"data": (None, D), "num_samples": (), "seed": ()},
            {"mean": (None, D), "bound": (None,)},
        ),
        (
            "sample",
            {"num_samples": (), "seed": ()},
            {"observations": (None, D), "mean": (None, D)},
        ),
        (
            "log_likelihood_bound",
            {"data": (None, D), "num_samples": (), "seed": ()},
            {"bound": (None,)},
        ),
        (
            "serving_default",
            {"data": (None, D)},
            {"mean": (None, D), "bound": (None,)},
        ),
    )
    def test_names_and_shapes_are_shown_by(self, inputs, outputs):
        name = self.id().rpartition("_shown_by_")[2]
        for variant in ("normal", "flow"):
            signature = _exported(variant)[2].signatures[name]
            specs = signature.structured_input_signature[1]
            self.assertEqual(_shapes(specs), inputs)
            self.assertEqual(_shapes(signature.structured_outputs), outputs)

    def test_metadata_report_the_parts(self):
        _, path, _ = _exported("vamp")
        metadata = json.loads((path / serving.METADATA_FILE).read_text())
        expected = {
            "model": "VAE",
            "prior": "VampPrior",
            "encoder": {
                "posterior": "GaussianPosterior",
                "has_frozen_part": True,
                "has_trained_part": True,
            },
            "likelihood": "GaussianLikelihood",
            "num_latents": M,
            "num_observed": D,
            "num_samples": serving.DEFAULT_NUM_SAMPLES,
            "event_shape": [3, 2],
            "limits": {
                "rows": 300,
                "num_samples": 99,
                "row_samples": 38_400,
            },
            "support": [None, None],
            "seed": 0,
        }
        self.assertEqual({**metadata, **expected}, metadata)
        self.assertEqual(metadata["versions"]["keras"], keras.__version__)


def _shapes(specs):
    return {name: tuple(spec.shape) for name, spec in specs.items()}


@pytest.mark.usefixtures("kept_kernels")
class BadRequestTest(tf.test.TestCase, parameterized.TestCase):
    """What a server would answer to wrong inputs."""

    @parameterized.named_parameters(
        ("narrow", np.zeros((2, 1), np.float32), r"\[2,1\].*\[\?,6\]"),
        ("infinite", np.full((2, D), np.inf, np.float32), "infinite values"),
        ("outside", np.full((2, D), 255.0, np.float32), r"in \[0, 1\]"),
        ("empty", np.full((2, D), np.nan, np.float32), "without any observed"),
    )
    def test_data_raise(self, data, message):
        signatures = _exported("binary")[2].signatures
        for name in ("serving_default", "encode"):
            with self.assertRaisesRegex(
                tf.errors.InvalidArgumentError, message
            ):
                signatures[name](data=tf.constant(data))

    @parameterized.named_parameters(
        (
            "decode",
            {"latents": np.zeros((2, 3), np.float32)},
            r"\[2,3\].*\[\?,2\]",
        ),
        (
            "log_likelihood_bound",
            {"data": _data(2), "num_samples": 0, "seed": 0},
            "num_samples must be at least 1",
        ),
        (
            "sample",
            {"num_samples": -2, "seed": 0},
            "num_samples must be at least 0, got.*-2",
        ),
    )
    def test_arguments_raise_in(self, inputs, message):
        name = self.id().rpartition("_raise_in_")[2]
        self._assert_refused(name, inputs, message)

    @parameterized.parameters(np.nan, np.inf, -np.inf)
    def test_latents_that_are_not_finite_raise(self, value):
        latents = np.zeros((3, M), np.float32)
        latents[1, 0] = value
        inputs = {"latents": latents}
        self._assert_refused("decode", inputs, "latents must be finite")

    def test_latents_without_a_finite_mean_raise(self):
        model = _new_model("flow")
        for weight in model.decoder.trainable_variables:
            weight.assign(tf.fill(weight.shape, 3e38))
        served = endpoints.endpoints_of(model, LIMITS).signatures()
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError,
            "(?s)latents must have a finite mean, got values from.*1.*to.*1",
        ):
            served["decode"].function(tf.ones([2, M]))

    @parameterized.parameters(
        ("sample", {"num_samples": 100}, "num_samples must be at most 99.*100"),
        (
            "sample",
            {"num_samples": 2_000_000_000},
            "num_samples must be at most 99, got.*2000000000",
        ),
        *(
            (name, {"data": np.zeros((rows, D), np.float32), **inputs}, message)
            for name in ("log_likelihood_bound", "reconstruct")
            for rows, inputs, message in (
                (
                    2,
                    {"num_samples": 2_000_000_000},
                    "num_samples must be at most 99, got.*2000000000",
                ),
                (301, {"num_samples": 1}, "rows of data must be at most 300"),
            )
        ),
        *(
            (name, {"data": np.zeros((301, D), np.float32)}, "at most 300.*301")
            for name in ("encode", "mean", "serving_default")
        ),
        ("decode", {"latents": np.zeros((301, M), np.float32)}, "at most 300"),
    )
    def test_requests_over_a_limit_raise(self, name, inputs, message):
        if "num_samples" in inputs:
            inputs = {**inputs, "seed": 0}
        self._assert_refused(name, inputs, message)

    def test_what_is_no_scalar_raises(self):
        for wrong in ("num_samples", "seed"):
            for name in ("sample", "log_likelihood_bound"):
                inputs = {"num_samples": 2, "seed": 0, wrong: [2]}
                if name != "sample":
                    inputs["data"] = _data(2)
                message = rf"tensor {wrong} \[1\] is not compatible"
                self._assert_refused(name, inputs, message)

    def test_draws_of_all_rows_are_limited(self):
        model, _, _ = _exported("normal")
        limits = serving.Limits(row_samples=256)
        served = endpoints.endpoints_of(model, limits).signatures()
        default, reconstruct = (
            served[name].function for name in ("serving_default", "reconstruct")
        )
        self.assertEqual(default(_data(2))["bound"].shape, [2])
        message = "(?s)rows of data times num_samples must be at most 256.*"
        for call, product in (
            (lambda: default(_data(3)), 384),
            (lambda: reconstruct(_data(3), 100, 0), 300),
        ):
            with self.assertRaisesRegex(
                tf.errors.InvalidArgumentError, f"{message}{product}"
            ):
                call()

    def test_check_of_an_export_stays_within_its_limits(self):
        model, _, _ = _exported("normal")
        limits = serving.Limits(rows=1, num_samples=1, row_samples=128)
        served = endpoints.endpoints_of(model, limits)
        for name, inputs in served.probes().items():
            outputs = served.signatures()[name].function(**inputs)
            self.assertNotEmpty(outputs)

    def test_limits_that_refuse_every_default_bound_raise(self):
        limits = serving.Limits(row_samples=127)
        with self.assertRaisesRegex(
            ValueError, "`limits.row_samples` must be at least 128.*got 127"
        ):
            serving.export_saved_model(
                _exported("normal")[0], "nowhere", limits=limits
            )

    def _assert_refused(self, name, inputs, message):
        signature = _exported("flow")[2].signatures[name]
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            signature(**inputs)


class CheckTest(tf.test.TestCase, parameterized.TestCase):
    """What does not pass for an export, or for a model."""

    def test_other_weights_of_the_prior_do_not_pass_the_check(self):
        _, path, _ = _exported("flow")
        other = _new_model("flow")
        for weight in other.prior.trainable_variables:
            weight.assign_add(0.2 * tf.ones(weight.shape))
        with self.assertRaisesRegex(RuntimeError, "`bound` off by"):
            serving.check_saved_model(path, other)

    @parameterized.parameters("m", keras.Model, None)
    def test_what_is_no_model_raises(self, model):
        with self.assertRaisesRegex(
            TypeError, "`model` must be a TVAE or a VAE, got "
        ):
            serving.export_saved_model(model, "nowhere")


_ELSEWHERE = """
    import sys

    for name in ("gin", "tensorflow_probability", "tf_keras", "tfvae"):
        sys.modules[name] = None  # Importing it is an ImportError.

    import numpy as np
    import tensorflow as tf

    _, data, found, *paths = sys.argv
    three, seven = tf.constant(3), tf.constant(7)
    outputs = {}
    for path in paths:
        signatures = tf.saved_model.load(path).signatures
        outputs[path + "bound"] = signatures["log_likelihood_bound"](
            data=tf.constant(np.load(data)), num_samples=three, seed=seven
        )["bound"]
        outputs[path + "mean"] = signatures["sample"](
            num_samples=three, seed=seven
        )["mean"]
    np.savez(found, **outputs)
"""


class ElsewhereTest(tf.test.TestCase):
    """Exports run where tfvae is not installed."""

    @pytest.mark.slow  # test_serving does so with a TVAE.
    def test_runs_in_python_without_the_library(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        script, x, found = (
            folder / name for name in ("run.py", "x.npy", "found.npz")
        )
        script.write_text(textwrap.dedent(_ELSEWHERE))
        np.save(x, _data(3))
        exports = [_exported(variant)[:2] for variant in ("flow", "vamp")]
        paths = [path for _, path in exports]
        command = [sys.executable, script, x, found, *paths]
        subprocess.run(command, check=True, cwd=folder)
        with np.load(found) as outputs:
            for model, path in exports:
                bound = model.log_likelihood_bound(_data(3), 3, 7)
                self.assertAllClose(outputs[f"{path}bound"], bound)
                mean = model.sample(3, 7, mean=True)
                self.assertAllClose(outputs[f"{path}mean"], mean)


if __name__ == "__main__":
    tf.test.main()
