# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized
from tensorflow.core.protobuf import saved_model_pb2

from tests import grids, served
from tfvae import likelihoods, serving
from tfvae.cli import export
from tfvae.networks import ConvDecoder, FullyConnectedDecoder
from tfvae.serving import endpoints
from tfvae.tvae import TVAE, Evolution

D, H, S = 9, 10, 12
UNSEEN = {"data": (-1, D), "max_steps": (), "seed": ()}
LIMITS = serving.Limits(rows=40, num_samples=50, max_steps=30, row_steps=320)


def _new_model(likelihood, decoder=FullyConnectedDecoder, **kwargs):
    settings = {
        "num_latents": H,
        "num_states": S,
        "evolution": Evolution(
            num_parents=3, num_children=2, num_generations=1
        ),
        "inference_steps": 8,
        "seed": 5,
        **kwargs,
    }
    likelihood = likelihood()
    outputs = likelihood.num_outputs(D)
    model = TVAE(decoder(outputs), likelihood=likelihood, **settings)
    rng = np.random.default_rng(1)
    model.prior_probs.assign(rng.uniform(0.1, 0.6, model.num_latents))
    for weight in model.trainable_variables:
        weight.assign(rng.normal(size=weight.shape))
    return model


def _conv(num_outputs):
    return ConvDecoder(num_outputs, (3, 3, 1), filters=(4,), dense_filters=4)


_gaussian = functools.partial(_new_model, likelihoods.GaussianLikelihood)
# Its graph is small: the model for tests that are not about evolution.
_exhaustive = functools.partial(_gaussian, num_latents=4, num_states=2**4)
VARIANTS = {
    "gaussian": _gaussian,
    "diagonal": functools.partial(
        _new_model, likelihoods.DiagonalGaussianLikelihood
    ),
    "bernoulli": functools.partial(
        _new_model, likelihoods.BernoulliLikelihood, _conv
    ),
    "exhaustive": _exhaustive,
}


# The others' exports skip the check, which takes as long as the rest; their
# outputs are compared below.
CHECKED = "gaussian"


@functools.cache
def _exported(variant):
    """A model, the path of its export and the export loaded."""
    model = VARIANTS[variant]()
    folder = tempfile.mkdtemp(dir=os.environ.get("TEST_TMPDIR"))
    path = pathlib.Path(folder) / "models" / "1"
    check = serving.check_saved_model if variant == CHECKED else mock.Mock()
    with mock.patch.object(serving, "check_saved_model", check):
        serving.export_saved_model(
            model, path, event_shape=(3, 3), limits=LIMITS
        )
    return model, path, tf.saved_model.load(path)


def _data(batch_size, missing=True):
    x = np.random.default_rng(batch_size).random((batch_size, D), np.float32)
    if missing:
        x[0, :2] = np.nan
        x[-1, 4:] = np.nan
    return x


def _files(path):
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def every_variant(test):
    """Runs a test for all variants, by default for two of them."""
    cases = parameterized.product(variant=list(VARIANTS), batch_size=[1, 7])
    return cases(grids.by_default(0, 1, 6, 7)(test))


@pytest.mark.usefixtures("kept_kernels")
class SignaturesTest(tf.test.TestCase, parameterized.TestCase):
    """What an export returns is what the model in memory does."""

    @every_variant
    def test_encode_equals_infer(self, variant, batch_size):
        model, _, loaded = _exported(variant)
        x = _data(batch_size)
        expected = model.infer(x, seed=3, max_steps=4)
        found = loaded.encode(x, 4, 3)
        for name, value in expected._asdict().items():
            self.assertAllEqual(found[name], value)
        bits = np.unpackbits(
            found["packed"].numpy(), axis=-1, bitorder="little"
        )
        self.assertAllEqual(found["states"], bits[..., : model.num_latents])

    @every_variant
    def test_reconstruct_equals_posterior_mean(self, variant, batch_size):
        model, _, loaded = _exported(variant)
        x = _data(batch_size)
        expected = model.infer(x, seed=3, max_steps=4)
        found = loaded.reconstruct(x, 4, 3)
        self.assertAllEqual(found["mean"], model.posterior_mean(expected))
        self.assertAllEqual(found["bound"], expected.bound)
        bound = loaded.log_likelihood_bound(x, 4, 3)["bound"]
        self.assertAllEqual(bound, expected.bound)

    @every_variant
    def test_default_equals_reconstruct_of_the_model(self, variant, batch_size):
        model, _, loaded = _exported(variant)
        x = _data(batch_size)
        found = loaded.serving_default(x)
        self.assertAllEqual(found["mean"], model.reconstruct(x))
        self.assertAllEqual(found["bound"], model.log_likelihood_bound(x))

    @every_variant
    def test_decode_and_sample_equal_the_model(self, variant, batch_size):
        model, _, loaded = _exported(variant)
        # Op by op, outside of a graph, rounding is another.
        sample = tf.function(model.sample)
        found = loaded.sample(batch_size, 8)
        self.assertAllEqual(found["observations"], sample(batch_size, 8))
        self.assertAllEqual(found["mean"], sample(batch_size, 8, mean=True))
        states = loaded.encode(_data(batch_size), 2, 0)["states"][:, 0]
        mean = model.decode(states)
        self.assertAllEqual(loaded.decode(states)["mean"], mean)

    def test_values_where_observed_is_0_are_ignored(self):
        _, _, loaded = _exported("exhaustive")
        served.assert_unobserved_is_ignored(self, loaded, _data(7))

    def test_bound_of_all_states_is_the_log_likelihood(self):
        model, _, loaded = _exported("exhaustive")
        bound = loaded.log_likelihood_bound(_data(3), 1, 0)["bound"]
        self.assertAllClose(bound, model.log_likelihood(_data(3)))

    def test_seed_and_steps_take_effect(self):
        _, _, loaded = _exported("gaussian")
        one, other = (loaded.encode(_data(3), 1, seed) for seed in (0, 1))
        self.assertNotAllEqual(one["packed"], other["packed"])
        longer = loaded.encode(_data(3), 9, 0)
        self.assertEqual(one["num_steps"], 1)
        self.assertBetween(longer["num_steps"].numpy(), 2, 9)
        self.assertAllGreaterEqual(longer["bound"] - one["bound"], 0.0)

    def test_empty_batches_are_answered(self):
        _, _, loaded = _exported("gaussian")
        found = loaded.reconstruct(np.zeros((0, D), np.float32), 3, 0)
        self.assertEqual(found["mean"].shape, (0, D))
        self.assertEqual(loaded.sample(0, 0)["mean"].shape, (0, D))

    @pytest.mark.slow  # Others show parts of it.
    @pytest.mark.slow  # Two exports.
    def test_reloaded_keras_file_exports_the_same(self):
        model, _, _ = _exported("gaussian")
        folder = pathlib.Path(self.create_tempdir().full_path)
        model.save(folder / "model.keras")
        reloaded = keras.models.load_model(folder / "model.keras")
        with mock.patch.object(serving, "check_saved_model"):
            serving.export_saved_model(reloaded, folder / "1")
        loaded = tf.saved_model.load(folder / "1")
        found = loaded.encode(_data(3), 4, 3)
        expected = model.infer(_data(3), seed=3, max_steps=4)
        self.assertAllEqual(found["packed"], expected.packed)
        self.assertAllEqual(found["bound"], expected.bound)


class ContentTest(tf.test.TestCase, parameterized.TestCase):
    """What is in the exported folder."""

    @parameterized.named_parameters(
        (
            "encode",
            UNSEEN,
            {
                "packed": (-1, S, 2),
                "states": (-1, S, H),
                "weights": (-1, S),
                "bound": (-1,),
                "num_steps": (),
            },
        ),
        ("decode", {"states": (-1, H)}, {"mean": (-1, D)}),
        ("reconstruct", UNSEEN, {"mean": (-1, D), "bound": (-1,)}),
        (
            "sample",
            {"num_samples": (), "seed": ()},
            {"observations": (-1, D), "mean": (-1, D)},
        ),
        ("log_likelihood_bound", UNSEEN, {"bound": (-1,)}),
        (
            "serving_default",
            {"data": (-1, D)},
            {"mean": (-1, D), "bound": (-1,)},
        ),
        (
            "serving_observed",
            {"data": (-1, D), "observed": (-1, D)},
            {"mean": (-1, D), "bound": (-1,)},
        ),
    )
    def test_names_and_shapes_are_shown_by(self, inputs, outputs):
        name = self.id().rpartition("_shown_by_")[2]
        signature = _signature(_exported("gaussian")[1], name)
        self.assertEqual(_shapes(signature.inputs), inputs)
        self.assertEqual(_shapes(signature.outputs), outputs)

    @pytest.mark.slow  # Others show parts of it.
    @mock.patch.object(serving, "check_saved_model")
    @pytest.mark.slow  # An export.
    def test_size_does_not_depend_on_the_number_of_data_points(self, _):
        num_data = 5_000
        folder = pathlib.Path(self.create_tempdir().full_path)
        model = _gaussian(num_data=num_data)
        with mock.patch.object(serving, "check_saved_model"):
            serving.export_saved_model(model, folder / "1")
        small = sum(map(len, _files(_exported("gaussian")[1]).values()))
        large = sum(map(len, _files(folder / "1").values()))
        # Names of variables, at most: the states take 360,000 bytes.
        self.assertLess(abs(large - small), 1000)

    def test_metadata_report_sizes_likelihood_and_event_shape(self):
        _, path, _ = _exported("bernoulli")
        metadata = json.loads((path / serving.METADATA_FILE).read_text())
        self.assertEqual(metadata["num_latents"], H)
        self.assertEqual(metadata["num_observed"], D)
        self.assertEqual(metadata["num_states"], S)
        self.assertEqual(metadata["event_shape"], [3, 3])
        self.assertEqual(metadata["likelihood"], "BernoulliLikelihood")
        self.assertEqual(metadata["support"], [0.0, 1.0])
        self.assertEqual(
            metadata["limits"],
            {"rows": 40, "num_samples": 50, "max_steps": 30, "row_steps": 320},
        )
        self.assertEqual(metadata["versions"]["tensorflow"], tf.__version__)

    def test_folder_is_readable_by_others(self):
        _, path, _ = _exported("gaussian")
        umask = os.umask(0)
        os.umask(umask)
        self.assertEqual(path.stat().st_mode & 0o777, 0o777 & ~umask)


def _signature(path, name):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].signature_def[name]


def _shapes(tensors):
    return {
        name: tuple(size.size for size in tensor.tensor_shape.dim)
        for name, tensor in tensors.items()
    }


@pytest.mark.usefixtures("kept_kernels")
class BadRequestTest(tf.test.TestCase, parameterized.TestCase):
    """What a server would answer to wrong inputs."""

    def _call(self, name, variant="gaussian", **inputs):
        signature = _exported(variant)[2].signatures[name]
        return signature(**{k: tf.constant(v) for k, v in inputs.items()})

    @parameterized.named_parameters(
        ("narrow", np.zeros((2, 1), np.float32), r"\[2,1\].*\[\?,9\]"),
        ("wide", np.zeros((2, 10), np.float32), r"\[2,10\].*\[\?,9\]"),
        ("flat", np.zeros(9, np.float32), r"\[9\].*\[\?,9\]"),
        ("infinite", np.full((2, 9), np.inf, np.float32), "infinite values"),
        ("empty", np.full((2, 9), np.nan, np.float32), "without any observed"),
    )
    def test_data_raise(self, data, message):
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            self._call("serving_default", data=data)
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            self._call("encode", data=data, max_steps=1, seed=0)

    def test_data_outside_of_the_support_raise(self):
        data = tf.constant(np.full((2, D), 255.0, np.float32))
        signature = _exported("bernoulli")[2].signatures["serving_default"]
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, r"must be in \[0, 1\]"
        ):
            signature(data=data)

    def test_states_of_wrong_width_raise(self):
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, r"\[2,9\].*\[\?,10\]"
        ):
            self._call("decode", states=np.zeros((2, 9), np.float32))

    @parameterized.parameters(0.5, 2.0, -1.0, np.nan)
    def test_states_that_are_not_binary_raise(self, value):
        states = np.zeros((3, H), np.float32)
        states[1, 2] = value
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, "states must be zeros and ones"
        ):
            self._call("decode", states=states)

    @parameterized.parameters(
        (-2, "num_samples must be at least 0, got.*-2"),
        (51, "num_samples must be at most 50, got.*51"),
        (2_000_000_000, "num_samples must be at most 50, got.*2000000000"),
    )
    def test_number_of_samples_out_of_range_raises(self, number, message):
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            self._call("sample", num_samples=number, seed=0)

    @parameterized.product(
        name=["encode", "reconstruct", "log_likelihood_bound"],
        case=[
            (2, -1, "max_steps must be at least 0, got.*-1"),
            (2, 31, "max_steps must be at most 30, got.*31"),
            (2, 2_000_000_000, "max_steps must be at most 30, got.*2000000000"),
            (20, 17, "rows of data times steps must be at most 320.*340"),
            (41, 1, "rows of data must be at most 40, got.*41"),
        ],
    )
    def test_steps_or_rows_out_of_range_raise(self, name, case):
        rows, steps, message = case
        inputs = {"data": _data(rows), "max_steps": steps, "seed": 0}
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            self._call(name, "exhaustive", **inputs)

    @parameterized.parameters("num_samples", "seed")
    def test_what_is_no_scalar_raises(self, wrong):
        inputs = {"num_samples": 2, "seed": 0, wrong: [1]}
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, rf"tensor {wrong} \[1\] is not"
        ):
            self._call("sample", "exhaustive", **inputs)

    @parameterized.parameters(
        ("serving_default", ["data"], D),
        ("serving_observed", ["data", "observed"], D),
        ("decode", ["states"], 4),
    )
    def test_too_many_rows_raise(self, name, inputs, width):
        rows = dict.fromkeys(inputs, np.ones((41, width), np.float32))
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError, "must be at most 40, got.*41"
        ):
            self._call(name, "exhaustive", **rows)

    @parameterized.parameters(
        (np.full((2, D), 0.5), "observed must be zeros and ones"),
        (np.full((2, D), np.nan), "observed must be zeros and ones"),
        (np.ones((1, D)), "must have as many rows as data, got.*1.*2"),
        (np.ones((2, 1)), r"\[2,1\].*\[\?,9\]"),
        (np.zeros((2, D)), "without any observed"),
    )
    def test_observed_raises(self, observed, message):
        observed = observed.astype(np.float32)
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
            self._call(
                "serving_observed",
                "exhaustive",
                data=_data(2),
                observed=observed,
            )


class LimitsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(0, -1, 2.5, True, 2**31, "7", None)
    def test_what_is_no_positive_int32_raises(self, value):
        with self.assertRaisesRegex(
            ValueError, "`rows` must be an integer from 1 to 2147483647, got"
        ):
            serving.Limits(rows=value)

    def test_command_takes_every_limit(self):
        fields = (field.name for field in dataclasses.fields(serving.Limits))
        self.assertEqual(export._LIMITS, tuple(fields))

    def test_limits_that_refuse_the_model_itself_raise(self):
        model, _, _ = _exported("gaussian")
        with self.assertRaisesRegex(
            ValueError, "`limits.row_steps` must be at least .* = 8, got 7"
        ):
            serving.export_saved_model(
                model, "nowhere", limits=serving.Limits(row_steps=7)
            )

    def test_limits_of_another_kind_of_model_raise(self):
        model, _, _ = _exported("gaussian")
        with self.assertRaisesRegex(
            ValueError, "`limits.row_samples` must not be set.*TVAE.*got 500"
        ):
            serving.check_limits(model, serving.Limits(row_samples=500))

    def test_limits_spare_the_steps_of_the_model(self):
        model = _exhaustive(inference_steps=9)
        limits = serving.Limits(max_steps=2, row_steps=27)
        signatures = endpoints.endpoints_of(model, limits).signatures()
        reconstruct = signatures[serving.DEFAULT_SIGNATURE].function
        self.assertEqual(reconstruct(_data(3))["bound"].shape, [3])
        with self.assertRaisesRegex(
            tf.errors.InvalidArgumentError,
            "rows of data times steps must be at most 27, got.*36",
        ):
            reconstruct(_data(4))

    def test_check_of_an_export_stays_within_its_limits(self):
        model, _, _ = _exported("exhaustive")
        limits = serving.Limits(1, 1, 1, row_steps=model.inference_steps)
        served = endpoints.endpoints_of(model, limits)
        for name, inputs in served.probes().items():
            outputs = served.signatures()[name].function(**inputs)
            self.assertNotEmpty(outputs)


class ExportTest(tf.test.TestCase, parameterized.TestCase):
    """How a folder comes to be."""

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.path = self.folder / "1"
        self.model, self.exported, _ = _exported("exhaustive")
        self.other_model = _exhaustive()
        self.other_model.prior_probs.assign(np.full(4, 0.25))

    def _bound(self):
        loaded = tf.saved_model.load(self.path)
        return loaded.log_likelihood_bound(_data(3), 2, 0)["bound"]

    def test_replaces_a_saved_model(self):
        shutil.copytree(self.exported, self.path)
        before = self._bound()
        leftover = self.folder / ".1.partial"
        leftover.mkdir()
        (leftover / "saved_model.pb").write_bytes(b"of a killed export")
        serving.export_saved_model(self.other_model, self.path)
        self.assertNotAllEqual(before, self._bound())
        metadata = json.loads((self.path / serving.METADATA_FILE).read_text())
        default = dataclasses.asdict(serving.Limits())
        self.assertLessEqual(metadata["limits"].items(), default.items())
        self.assertEqual(os.listdir(self.folder), ["1"])

    @mock.patch.object(serving, "check_saved_model")
    def test_follows_a_link_to_the_folder(self, _):
        shutil.copytree(self.exported, self.folder / "2")
        self.path.symlink_to("2")
        serving.export_saved_model(self.other_model, self.path)
        self.assertEqual(os.readlink(self.path), "2")
        self.assertCountEqual(os.listdir(self.folder), ["1", "2"])

    @parameterized.named_parameters(
        ("file", [], "the file"),
        ("other_folder", ["1/notes.txt"], "with notes.txt in it"),
        ("folder_of_versions", ["1/2/saved_model.pb"], "with 2 in it"),
        (
            "saved_model_with_more",
            ["1/saved_model.pb", "1/notes.txt"],
            "with notes.txt in it",
        ),
        ("broken_saved_model", ["1/variables/x"], "with variables in it"),
    )
    def test_refuses_to_replace(self, files, message):
        for name in files:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text("precious")
        if not files:
            self.path.write_text("precious")
        before = _files(self.folder)
        with self.assertRaisesRegex(FileExistsError, message):
            serving.export_saved_model(self.model, self.path)
        self.assertEqual(_files(self.folder), before)

    @parameterized.named_parameters(
        ("model", {"model": "m"}, TypeError, "`model` must be a TVAE"),
        (
            "event_shape",
            {"event_shape": (3, 4)},
            ValueError,
            r"`event_shape` must have 9 entries.*\(3, 4\)",
        ),
    )
    def test_wrong_argument_raises(self, arguments, error, message):
        arguments = {"model": self.model, "path": self.path, **arguments}
        with self.assertRaisesRegex(error, message):
            serving.export_saved_model(**arguments)

    def test_diverged_model_raises(self):
        weight = self.other_model.trainable_variables[0]
        weight.assign(np.full(weight.shape, np.nan))
        with self.assertRaisesRegex(ValueError, "must have finite weights"):
            serving.export_saved_model(self.other_model, self.path)
        self.assertEmpty(os.listdir(self.folder))

    @parameterized.named_parameters(
        (
            "full_disk",
            "shutil.disk_usage",
            {"return_value": mock.Mock(free=1000)},
            OSError,
            "not enough disk space: .* bytes, but only 1,000 are free",
        ),
        (
            "disk_that_fills_up",
            "tensorflow.saved_model.save",
            {"side_effect": tf.errors.ResourceExhaustedError(None, None, "S")},
            OSError,
            "cannot write .*: S",
        ),
        (
            "failing_rename",
            "pathlib.Path.rename",
            {"side_effect": OSError(errno.EIO, "input/output error")},
            OSError,
            "input/output",
        ),
        (
            "failing_check",
            "tfvae.serving.check_saved_model",
            {"side_effect": RuntimeError("off by 1")},
            RuntimeError,
            "off by 1",
        ),
    )
    def test_old_export_survives(self, patched, behaviour, error, message):
        shutil.copytree(self.exported, self.path)
        before = _files(self.folder)
        with (
            mock.patch.object(serving, "check_saved_model"),
            mock.patch(patched, **behaviour),
            self.assertRaisesRegex(error, message),
        ):
            serving.export_saved_model(self.other_model, self.path)
        self.assertEqual(_files(self.folder), before)

    def test_export_comes_back_where_the_new_one_cannot_be_renamed(self):
        shutil.copytree(self.exported, self.path)
        before = _files(self.folder)
        rename = pathlib.Path.rename

        def fail_for_new(path, target):
            if path.name == ".1.partial":
                raise OSError(errno.EIO, "input/output error")
            return rename(path, target)

        with (
            mock.patch.object(serving, "check_saved_model"),
            mock.patch.object(pathlib.Path, "rename", fail_for_new),
            self.assertRaisesRegex(OSError, "input/output"),
        ):
            serving.export_saved_model(self.other_model, self.path)
        self.assertEqual(_files(self.folder), before)


@pytest.mark.usefixtures("kept_kernels")
class CheckTest(tf.test.TestCase):
    """An export that is not the model does not pass for it."""

    def setUp(self):
        super().setUp()
        self.model, self.exported, _ = _exported("exhaustive")
        self.path = pathlib.Path(self.create_tempdir().full_path) / "1"
        shutil.copytree(self.exported, self.path)

    def test_export_of_the_model_passes(self):
        serving.check_saved_model(self.path, self.model)

    def test_other_weights_raise(self):
        changed = _exhaustive()
        changed.trainable_variables[0].assign_add(
            np.full(changed.trainable_variables[0].shape, 0.1)
        )
        with self.assertRaisesRegex(RuntimeError, "`mean` off by"):
            serving.check_saved_model(self.path, changed)

    def test_other_sizes_raise(self):
        other = _exhaustive(num_states=15)
        with self.assertRaisesRegex(
            RuntimeError, r"`packed` of uint8 \(2, 16, 1\), not .*\(2, 15, 1\)"
        ):
            serving.check_saved_model(self.path, other)

    def test_damaged_weights_raise(self):
        (weights,) = self.path.glob("variables/*.data-*")
        weights.write_bytes(weights.read_bytes()[:-100])
        with self.assertRaisesRegex(RuntimeError, "must load and run"):
            serving.check_saved_model(self.path, self.model)

    def test_other_saved_model_raises(self):
        module = tf.Module()
        module.f = tf.function(lambda x: x, [tf.TensorSpec([])])
        tf.saved_model.save(module, self.path, module.f)
        with self.assertRaisesRegex(RuntimeError, "must load and run"):
            serving.check_saved_model(self.path, self.model)


_ELSEWHERE = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            blocked = ("gin", "tensorflow_probability", "tf_keras", "tfvae")
            if name.partition(".")[0] in blocked:
                raise ImportError(f"{name} is not installed here")

    sys.meta_path.insert(0, Blocker())
    try:
        import tfvae
    except ImportError:
        pass
    else:
        raise SystemExit("tfvae can be imported")

    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(sys.argv[1])
    inputs = {
        "data": tf.constant(np.load(sys.argv[2])),
        "max_steps": tf.constant(4),
        "seed": tf.constant(3),
    }
    outputs = loaded.signatures["encode"](**inputs)
    outputs["mean"] = loaded.signatures["reconstruct"](**inputs)["mean"]
    np.savez(sys.argv[3], **{k: v.numpy() for k, v in outputs.items()})
"""

# Reads floats, feeds them as `data` with max_steps 4 and seed 3 and prints what
# comes back; then the same with a wrong width. The loader is TensorFlow
# Serving's.
_CLIENT_IN_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tensorflow/c/c_api.h"

static void check(TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  printf("%s\n", TF_Message(status));
  exit(TF_GetCode(status));
}

static TF_Tensor* scalar(int value) {
  TF_Tensor* tensor = TF_AllocateTensor(TF_INT32, NULL, 0, sizeof value);
  memcpy(TF_TensorData(tensor), &value, sizeof value);
  return tensor;
}

int main(int argc, char** argv) {
  int64_t shape[2] = {atoi(argv[2]), atoi(argv[3])};
  int64_t size = shape[0] * shape[1];
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(
      options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(status);
  TF_Tensor* data = TF_AllocateTensor(TF_FLOAT, shape, 2, size * 4);
  float* values = TF_TensorData(data);
  for (int64_t i = 0; i < size; ++i) scanf("%f", values + i);
  TF_Output inputs[3];
  const char* names[] = {
      "reconstruct_data", "reconstruct_max_steps", "reconstruct_seed"};
  for (int i = 0; i < 3; ++i) {
    inputs[i].oper = TF_GraphOperationByName(graph, names[i]);
    inputs[i].index = 0;
  }
  TF_Tensor* fed[] = {data, scalar(4), scalar(3)};
  TF_Output output = {TF_GraphOperationByName(graph, argv[4]), atoi(argv[5])};
  for (int run = 0; run < 2; ++run) {
    TF_Tensor* mean;
    TF_SessionRun(session, NULL, inputs, fed, 3, &output, &mean, 1, NULL, 0,
                  NULL, status);
    check(status);
    for (int64_t i = 0; i < size; ++i)
      printf("%.9g\n", ((float*)TF_TensorData(mean))[i]);
    shape[0] = size;
    shape[1] = 1;
    TF_TensorBitcastFrom(data, TF_FLOAT, data, shape, 2, status);
    check(status);
  }
  return 0;
}
"""


class ElsewhereTest(tf.test.TestCase):
    """Exports run where tfvae is not installed."""

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.model, self.exported, _ = _exported("gaussian")

    @pytest.mark.slow
    def test_runs_in_python_without_the_library(self):
        script, x, found = (
            self.folder / name for name in ("run.py", "x.npy", "found.npz")
        )
        script.write_text(textwrap.dedent(_ELSEWHERE))
        np.save(x, _data(3))
        command = [sys.executable, script, self.exported, x, found]
        subprocess.run(command, check=True, cwd=self.folder)
        inference = self.model.infer(_data(3), seed=3, max_steps=4)
        with np.load(found) as outputs:
            for name, value in inference._asdict().items():
                self.assertAllEqual(outputs[name], value)
            mean = self.model.posterior_mean(inference)
            self.assertAllEqual(outputs["mean"], mean)

    @pytest.mark.slow
    @unittest.skipIf(shutil.which("gcc") is None, "needs a C compiler")
    def test_runs_in_c_without_python(self):
        signature = _signature(self.exported, "reconstruct")
        x = _data(3)
        command = [self._compile_client(), self.exported, *map(str, x.shape)]
        found = subprocess.run(
            [*command, *signature.outputs["mean"].name.split(":")],
            input=" ".join(map(str, x.ravel())),
            capture_output=True,
            text=True,
        )
        lines = found.stdout.splitlines()
        mean = np.array(lines[: x.size], np.float32).reshape(x.shape)
        inference = self.model.infer(x, seed=3, max_steps=4)
        self.assertAllEqual(mean, self.model.posterior_mean(inference))
        self.assertEqual(found.returncode, 3)  # INVALID_ARGUMENT
        self.assertRegex(lines[x.size], r"\[27,1\] .* shape \[\?,9\]")

    def _compile_client(self):
        source, client = self.folder / "client.c", self.folder / "client"
        source.write_text(_CLIENT_IN_C)
        library = tf.sysconfig.get_lib()
        command = ["gcc", source, "-o", client, f"-L{library}"]
        command += [f"-I{tf.sysconfig.get_include()}", f"-Wl,-rpath,{library}"]
        command += [
            "-l:libtensorflow_cc.so.2",
            "-l:libtensorflow_framework.so.2",
        ]
        subprocess.run(command, check=True)
        return client


if __name__ == "__main__":
    tf.test.main()
