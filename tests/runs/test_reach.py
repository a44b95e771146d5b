# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import inspect
import pathlib
import types
from unittest import mock

import gin
from absl.testing import absltest, parameterized

import benchmarks.epoch_times
import benchmarks.sampling
import benchmarks.training  # noqa: F401 (registers with gin)
from tfvae import typed_gin
from tfvae.runs import (
    config,
    evaluate,  # noqa: F401 (registers with gin, as the next two)
    export,  # noqa: F401
    optimize,  # noqa: F401
    reach,
    train,
)
from tfvae.runs.experiment import experiment, fit
from tfvae.runs.run_directory import RunDirectory
from tfvae.sweeps import study  # noqa: F401 (registers with gin)

_VAE = """
experiment.data = @bars()
experiment.model = @vae
experiment.decoder = @FullyConnectedDecoder
experiment.likelihood = @GaussianLikelihood
bars.num_data = 20
vae.encoder = @learnable
vae.network = @fully_connected_encoder
vae.prior = @RealNVPPrior
vae.num_latents = 2
vae.objective = @Elbo()
fully_connected_encoder.num_observed = 16
learnable.posterior = @GaussianPosterior()
fit.epochs = 1
fit.optimizer = @constant_adam
"""
_TVAE = """
experiment.data = @bars()
experiment.model = @TVAE
experiment.decoder = @FullyConnectedDecoder
TVAE.num_latents = 4
TVAE.num_states = 16
fit.epochs = 1
"""


def _configured():
    """Returns the functions that `typed_gin.configurable` has decorated."""
    return [
        one
        for _, one in gin.config._REGISTRY.items()
        if typed_gin.is_configured(one.wrapped)
        and one.wrapped.__module__.startswith("tfvae.")
    ]


def _called(function, seen):
    """Returns the functions that a function calls, by the names in its code."""
    plain = inspect.unwrap(function)
    if plain in seen or not plain.__module__.startswith("tfvae."):
        return
    seen.add(plain)
    codes = [plain.__code__]
    while codes:
        code = codes.pop()
        codes += [one for one in code.co_consts if inspect.iscode(one)]
        for name in code.co_names:
            found = plain.__globals__.get(name)
            if isinstance(found, types.FunctionType):
                _called(found, seen)


class ReachTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _load(self, text, *params, **kwargs):
        path = self.folder / "one.gin"
        path.write_text(text)
        config.load([path], params, **kwargs)

    @parameterized.parameters(
        (
            _TVAE,
            "TVAE.likelihood = @BernoulliLikelihood()",
            "the run passes `experiment.likelihood`, which acts instead",
        ),
        (_TVAE, "TVAE.seed = 3", "the run passes `experiment.seed`"),
        (_TVAE, "TVAE.num_data = 3", "the number of points of `exp"),
        (_TVAE, "FullyConnectedDecoder.num_outputs = 3", "number of outputs"),
        (_TVAE, "fit.parts = 3", "the run passes one of its own"),
        (_TVAE, "evaluate.run_dir = 'a'", "the run passes one of its own"),
        (_VAE, "RealNVPPrior.num_latents = 3", "passes `vae.num_latents`"),
        (_VAE, "learnable.num_latents = 3", "passes `vae.num_latents`"),
        (_VAE, "fully_connected_encoder.num_outputs = 3", "`vae.encoder` need"),
        (_VAE, "constant_adam.steps_per_epoch = 3", "gradient steps"),
        (_VAE, "vae.seed = 3", "the run passes `experiment.seed`"),
    )
    def test_binding_of_what_the_run_passes_is_refused(
        self, text, binding, why
    ):
        text = text.replace("= @TVAE\n", "= @TVAE\nfit.optimizer = @SGD\n")
        name = binding.partition(" ")[0]
        for file, params in ((text, [binding]), (f"{text}{binding}\n", [])):
            with self.assertRaisesRegex(
                ValueError, f"^`{name}` has no effect: .*{why}"
            ):
                self._load(file, *params)

    @parameterized.parameters(
        (_VAE, "VAE.seed = 3", "the run passes `experiment.seed` instead"),
        (_VAE, "VAE.encoder = @learnable", "passes `vae.encoder` instead"),
        (_VAE, "FusedAdam.learning_rate = 1", "passes `constant_adam.learnin"),
        (_VAE, "FusedAdam.beta_1 = 0.5", "`constant_adam` builds FusedAdam wi"),
        (_TVAE, "Adam.beta_1 = 0.5", "`cyclical_adam` builds Adam without it"),
        (
            _TVAE,
            "cyclical_adam.max_learning_rate = 1.0",
            "bind `fit.optimizer = @cyclical_adam` too",
        ),
        (
            _TVAE,
            "GaussianLikelihood.standardize = False",
            "bind `experiment.likelihood = @GaussianLikelihood` too",
        ),
        (
            _TVAE,
            "Evolution.num_parents = 3",
            r"bind `TVAE.evolution = @Evolution\(\)` too",
        ),
        (
            _VAE.replace("vae.objective = @Elbo()", ""),
            "Elbo.beta = 0.1",
            r"bind `vae.objective = @Elbo\(\)` too",
        ),
        (
            _VAE.replace("learnable.posterior = @GaussianPosterior()", ""),
            "GaussianPosterior.variance = 0.1",
            r"bind `learnable.posterior = @GaussianPosterior\(\)` too",
        ),
    )
    def test_binding_of_what_is_built_without_gin_is_refused(
        self, text, binding, why
    ):
        with self.assertRaisesRegex(ValueError, f"has no effect: .*{why}"):
            self._load(text, binding, function="train")
        self._load(f"{text}{binding}\n")
        run = self.folder / "run"
        with self.assertRaisesRegex(ValueError, f"has no effect: .*{why}"):
            train.train(run)
        self.assertFalse(run.exists())

    def test_default_that_is_referenced_has_its_bindings(self):
        text = _TVAE + "TVAE.evolution = @Evolution()\n"
        self._load(text, "Evolution.num_parents = 3", function="train")

    @parameterized.parameters(
        ("train/fit.epochs = 3", "'train'", "`fit.epochs`"),
        ("foo/RealNVPPrior.num_flows = 7", "'foo'", "`RealNVPPrior.num_flows`"),
    )
    def test_scope_that_nothing_enters_is_refused(self, binding, scope, plain):
        text = _VAE + "cell.reference = @reference/bars\n"
        for file, params in ((text, [binding]), (f"{text}{binding}\n", [])):
            with self.assertRaisesRegex(
                ValueError,
                f"nothing enters the scope {scope} .*: 'reference'.*{plain}",
            ):
                self._load(file, *params)

    def test_scope_that_a_reference_enters_acts(self):
        text = _VAE + "experiment.data = @train/bars()\n"
        self._load(text, "train/bars.num_data = 8", function="train")
        self.assertLen(experiment().observations.train, 8)

    @parameterized.parameters(
        ("EPOCS", "EPOCHS"), ("EPOHCS", "EPOCHS"), ("NUM_LATENT", "NUM_LATENTS")
    )
    def test_misspelt_macro_of_a_file_is_refused(self, name, meant):
        text = f"{meant} = 1\nfit.epochs = %{meant}\n{name} = 5\n"
        with self.assertRaisesRegex(
            ValueError, f"`{name}` has no effect: .*did you mean `{meant}`"
        ):
            self._load(_VAE + text)

    @parameterized.parameters(
        ("R_LOW", "R_HIGH"),
        ("RATE_1", "RATE_2"),
        ("ENCODER_HIDDEN", "DECODER_HIDDEN"),
        ("MODEL", "MODEL_K"),
        ("WIDTH", "EPOCHS"),
    )
    def test_other_macro_of_a_file_may_be_without_use(self, name, used):
        self._load(_VAE + f"{used} = 1\nfit.epochs = %{used}\n{name} = 5\n")
        self.assertEqual(config.reached("train").idle, [name])

    @parameterized.parameters(
        ("train", _TVAE, "`experiment.model`, which takes `@vae`, is @TVAE"),
        (
            "train",
            _VAE.replace("RealNVPPrior", "StandardNormalPrior"),
            "`vae.prior`, which takes it, is @StandardNormalPrior",
        ),
    )
    def test_what_nothing_refers_to_is_refused_on_the_command_line(
        self, function, text, why
    ):
        binding = "RealNVPPrior.num_flows = 7"
        for one in (function, None):
            with self.assertRaisesRegex(
                ValueError,
                "`RealNVPPrior.num_flows` has no effect: nothing in this run "
                f"refers to `@RealNVPPrior`; {why}",
            ):
                self._load(text, binding, function=one)
        self._load(f"{text}{binding}\n", function=function)

    def test_scope_of_another_call_asks_for_nothing(self):
        text = _TVAE.replace("@FullyConnectedDecoder", "@one/ConvDecoder")
        text += "one/ConvDecoder.image_shape = (4, 4, 1)\n"
        text += "TVAE.evolution = @two/Evolution()\n"
        text += "TVAE.num_states = 8\ntwo/Evolution.num_children = 2\n"
        self._load(text, function="train")
        config.check("train")
        self.assertEmpty(config.reached("train").idle)

    def test_macro_of_itself_ends(self):
        self._load(_TVAE + "A = %B\nB = %A\nfit.batch_size = %A\n")
        self.assertEmpty(config.reached("train").idle)

    def test_macro_that_only_reaches_what_is_idle_is_refused(self):
        text = _TVAE + "FLOWS = 2\nRealNVPPrior.num_flows = %FLOWS\n"
        self._load(text, function="train")
        with self.assertRaisesRegex(ValueError, "`FLOWS` has no effect: only"):
            self._load(text, "FLOWS = 3", function="train")

    @parameterized.parameters(
        ("train", "evaluate.num_points = 3"),
        ("evaluate", "fit.epochs = 3"),
        ("export", "train.export = False"),
        ("denoise", "optimize.budget = 3"),
    )
    def test_command_does_not_take_bindings_of_others(self, function, binding):
        other = binding.partition(".")[0]
        with self.assertRaisesRegex(
            ValueError, f"`{function}` does not call `{other}`"
        ):
            self._load(_TVAE, binding, function=function)
        self._load(_TVAE, binding)  # A program may call both.

    def test_functions_of_the_user_are_not_judged(self):
        module = types.ModuleType("users_code")
        text = "import users_code\n" + _TVAE
        with mock.patch.dict("sys.modules", users_code=module):
            for binding in ("RealNVPPrior.num_flows = 7", "own/fit.epochs = 2"):
                self._load(text, binding, function="train")
            with self.assertRaisesRegex(ValueError, "`TVAE.seed` has no eff"):
                self._load(text, "TVAE.seed = 7", function="train")

    def test_argument_that_unknown_code_passes_is_refused(self):
        def own_decoder(num_outputs, hidden=(2,)):
            make = gin.get_configurable("FullyConnectedDecoder")
            return make(num_outputs, hidden=hidden)

        with gin.unlock_config():
            gin.register("own_decoder", module="test_reach")(own_decoder)
        text = _TVAE.replace("@FullyConnectedDecoder", "@own_decoder")
        self._load(text + "FullyConnectedDecoder.hidden = (3,)\n")
        with self.assertRaisesRegex(
            ValueError, "`FullyConnectedDecoder.hidden` has no effect: what c"
        ):
            experiment()

    def test_required_parameters_are_asked_for_before_any_work(self):
        text = _VAE.replace("vae.prior = @RealNVPPrior\n", "")
        self._load(text.replace("fit.epochs = 1\n", ""))
        run = self.folder / "run"
        with self.assertRaisesRegex(
            ValueError, "`vae.prior`, `fit.epochs` must be bound, as in --gin_p"
        ):
            train.train(run)
        self.assertFalse(run.exists())

    @parameterized.parameters(
        ("FullyConnectedDecoder.hidden = 'a'", r"Sequence\[int\], got 'a'"),
        ("FullyConnectedDecoder.hidden = 3", r"Sequence\[int\], got 3"),
        ("RealNVPPrior.num_flows = '7'", "int, got '7'"),
        ("vae.num_latents = [3]", r"int, got \[3\]"),
        ("bars.noise_variance = 'a'", "float, got 'a'"),
        ("learnable.posterior = 'a'", None),  # Its function checks it.
        ("bars.num_data = 1e3", None),
        ("bars.prior_prob = None", None),
        ("RealNVPPrior.hidden = [3, 3]", None),
    )
    def test_value_of_another_type_names_its_binding(self, binding, message):
        if message is None:
            self._load(_VAE, binding, function="train")
            return
        name = binding.partition(" ")[0]
        with self.assertRaisesRegex(
            ValueError, f"^`{name}` must be of type {message}$"
        ):
            self._load(_VAE, binding, function="train")

    # What is declared beside the code.

    def test_declared_calls_are_those_of_the_code(self):
        names = {inspect.unwrap(one.wrapped): one.name for one in _configured()}
        for function, name in names.items():
            seen = set()
            _called(function, seen)
            declared = {names[one] for one in reach._called(function)}
            called = {names[one] for one in seen if one in names}
            if name != "study":  # Its cells run in processes of their own.
                self.assertEqual(declared, called, name)

    def test_declared_arguments_fit_what_takes_them(self):
        for _, one in gin.config._REGISTRY.items():
            uses = typed_gin.uses_of(one.wrapped)
            parameters = inspect.signature(one.wrapped).parameters
            self.assertContainsSubset(
                {*uses.passes, *uses.defaults}, parameters, one.name
            )
            for target, call in uses.builds.items():
                self.assertIsNotNone(call.of(target), (one.name, target))

    @parameterized.parameters(_TVAE, _VAE)
    def test_declared_arguments_are_those_that_gin_sees(self, text):
        self._load(text, "bars.num_data = 20")
        found = config.reached("train")
        self.assertEmpty(found.idle)
        parts = experiment()
        with mock.patch("tfvae.runs.experiment._train"):
            fit(RunDirectory(self.folder), parts, mock.Mock())
        calls = gin.config._OPERATIVE_CONFIG.items()
        self.assertGreater(len(calls), 4)
        for (_, selector), seen in calls:
            used = gin.config._REGISTRY[selector]
            passed = found.passed[selector]
            if passed is None or typed_gin.is_configured(used.wrapped):
                continue
            signature = inspect.signature(used.wrapped).parameters
            named = {
                name
                for name, one in signature.items()
                if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
            }
            with_defaults = {
                name
                for name in named
                if signature[name].default is not inspect.Parameter.empty
            }
            # gin notes all parameters with a value but those that are passed.
            self.assertEqual(
                with_defaults - set(seen), with_defaults & set(passed), selector
            )
            self.assertEmpty(set(seen) & set(passed), selector)


if __name__ == "__main__":
    absltest.main()
