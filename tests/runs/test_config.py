# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import types
from unittest import mock

from absl.testing import absltest, parameterized

from tests import installed
from tfvae.runs import config, experiment  # noqa: F401 (registers `fit`)


class ConfigTest(parameterized.TestCase):
    def _file(self, text, name="one.gin"):
        return self.create_tempfile(name, text).full_path

    def test_text_read_again_gives_the_same_text(self):
        config.load(
            [self._file("EPOCHS = 3\nfit.epochs = %EPOCHS\n")],
            [
                "fit.optimizer = @cyclical_adam",
                "experiment.model = @TVAE",
                "TVAE.evolution = @Evolution()",
            ],
        )
        text = config.text()
        config.load([self._file(text, "two.gin")])
        self.assertEqual(config.text(), text)
        self.assertEqual(config.value("fit.epochs"), 3)

    def test_parameters_override_files_and_later_files_earlier_ones(self):
        first = self._file("fit.epochs = 1\nfit.batch_size = 1\n", "1.gin")
        second = self._file("fit.epochs = 2\nfit.batch_size = 2\n", "2.gin")
        config.load([first, second], ["fit.batch_size = 3"])
        self.assertEqual(config.value("fit.epochs"), 2)
        self.assertEqual(config.value("fit.batch_size"), 3)

    def test_value_of_what_is_not_bound_is_none(self):
        config.load()
        self.assertIsNone(config.value("fit.epochs"))

    def test_files_of_the_project_are_found_from_anywhere(self):
        config.load(["models/fc.gin"])
        self.assertEqual(config.value("TVAE.num_latents"), 64)

    @parameterized.parameters(
        ("fitt.epochs = 1", ValueError, "`fitt` is no function.*mean `fit`"),
        (
            "fit.epoch = 1",
            ValueError,
            "`epoch` is no parameter of `fit`; did you mean `epochs`",
        ),
        (
            "fit.optimizer = @nope",
            ValueError,
            "`fit.optimizer` must refer to what exists, got @nope",
        ),
        (
            "fit.optimizer = nope",
            SyntaxError,
            "`fit.optimizer` must be a Python value, got nope; strings need "
            "quotes: --gin_param=\"fit.optimizer='nope'\"",
        ),
        ("IMAEG = 'a.png'", ValueError, "`IMAEG` must be a macro"),
        ("fit.epochs 3", SyntaxError, "must be name = value.*got 'fit.epochs"),
    )
    def test_mistakes_are_reported(self, param, error, message):
        with self.assertRaisesRegex(error, message):
            config.load([], [param])

    @parameterized.parameters(
        (
            "fit.epochs = %EPOCHS",
            "`fit.epochs` must use a macro that is defined, got %EPOCHS; "
            "--gin_param=EPOCHS=... defines it",
        ),
        (
            "fit.epochs = x/y.npy",
            "`fit.epochs` must be a Python value, got x/y.npy; strings need "
            "quotes: --gin_param=\"fit.epochs='x/y.npy'\"",
        ),
        (
            "fit.epochs = true",
            "`fit.epochs` must be a Python value, such as True, got true",
        ),
        (
            "fit.epochs = [a, 3]",
            "`fit.epochs` must be a Python value or a reference such as @name "
            "or %MACRO, got [a, 3] at 'a'; strings need quotes",
        ),
        (
            "fit.epochs = (4,",
            "`fit.epochs = (4,` must have all brackets and quotes closed, got "
            "its end first",
        ),
        ("fit.epochs", "a binding must be name = value, such as fit.epochs = "),
        (
            "fit.epochs = %gin.REQUIRED",
            "`fit.epochs` must be given, as in --gin_param=fit.epochs=...",
        ),
        (
            "fit.optimizer = @cyclicaladam",
            "`fit.optimizer` must refer to what exists, got @cyclicaladam; did "
            "you mean `@cyclical_adam`?",
        ),
        (
            "TVAE.num_latent = 3",
            "`num_latent` is no parameter of `TVAE`; did you mean `num_latents",
        ),
    )
    def test_mistake_is_reported_in_one_line(self, param, message):
        with self.assertRaises((SyntaxError, ValueError)) as caught:
            config.load([], [param])
        self.assertStartsWith(str(caught.exception), message)
        self.assertNotIn("\n", str(caught.exception))

    @parameterized.parameters(
        ("fit.epochs = ten", "strings need quotes: fit.epochs='ten'"),
        ("fit.epochs = (1,\nfit.batch_size = 3", "closed before the next bind"),
        ("include 'runs/bar.gin'", "got 'runs/bar.gin'; did you mean `runs/b"),
        ("fit.epoch = 1", "`epoch` is no parameter of `fit`; did you mean"),
        ("fit.optimizer = @nope", "`fit.optimizer` must refer to what exists"),
        ("fit.epochs", "must be name = value.*got 'fit.epochs'"),
    )
    def test_mistake_in_a_file_is_reported_with_its_line(self, line, message):
        path = self._file(f"# A comment.\n{line}\n")
        number = 3 if "\n" in line else 2
        with self.assertRaisesRegex(
            (OSError, SyntaxError, ValueError),
            f"^.*one.gin, line {number}: .*{message}[^\n]*$",
        ):
            config.load([path])

    def test_required_macro_need_not_act(self):
        other = ["experiment.data = @bars()"]
        config.load(["data/array_file.gin"], ["DATA = 'a'", *other])
        self.assertEqual(config.value("DATA/macro.value"), "a")

    def test_text_of_a_run_has_what_can_not_act_as_comments(self):
        path = self._file(
            "experiment.model = @TVAE\nTVAE.num_latents = 3\n"
            "RealNVPPrior.num_flows = %FLOWS\nRealNVPPrior.seed = 1\n"
            "FLOWS = 7\nEPOCHS = 2\nfit.epochs = %EPOCHS\n"
        )
        config.load([path])
        text = config.text_of_run()
        self.assertEqual(
            config.bindings(text),
            {
                "EPOCHS": "2",
                "TVAE.num_latents": "3",
                "experiment.model": "@TVAE",
                "fit.epochs": "%EPOCHS",
            },
        )
        self.assertEndsWith(
            text,
            "# Not used by this run:\n# FLOWS = 7\n"
            "# RealNVPPrior.num_flows = %FLOWS\n# RealNVPPrior.seed = 1\n",
        )

    def test_text_of_a_run_has_all_that_code_of_the_user_may_use(self):
        path = self._file("import my_own\nRealNVPPrior.num_flows = 7\n")
        module = types.ModuleType("my_own")
        with mock.patch.dict(sys.modules, my_own=module):
            config.load([path])
            self.assertEqual(config.text_of_run(), config.text())

    def test_bindings_of_a_run_are_not_judged_again(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        (folder / "config.gin").write_text(
            "fit.epochs = 3\nTVAE.seed = 3\nexperiment.model = @TVAE\n"
            "RealNVPPrior.num_flows = 7\n"
        )
        config.load_run(folder, function="evaluate")
        self.assertEmpty(config.unused("evaluate"))
        shared = self._file("evaluate.num_points = 3\nbars.seed = 1\n")
        config.load_run(folder, [shared], function="evaluate")
        self.assertEqual(
            config.unused("evaluate", is_whole=False), ["bars.seed"]
        )
        with self.assertRaisesRegex(ValueError, "`fit.epochs` has no effect"):
            config.load_run(folder, [], ["fit.epochs = 4"], function="evaluate")

    def test_missing_file_is_reported(self):
        with self.assertRaisesRegex(OSError, "file must exist, got 'no.gin'"):
            config.load(["no.gin"])

    def test_missing_value_is_reported_with_an_example(self):
        with self.assertRaisesRegex(
            ValueError, "`IMAGE` must be given, as in --gin_param=\"IMAGE='"
        ):
            config.load(["data/picture.gin"])

    def test_bindings_reads_values_of_several_lines(self):
        config.load([], [f"fit.optimizer = {list(range(60))}"])
        self.assertIn("\n    ", config.text())
        self.assertEqual(
            config.bindings(config.text()),
            {"fit.optimizer": str(list(range(60)))},
        )

    def test_bindings_are_read_without_knowing_their_names(self):
        text = (
            "import no.such.module\n"
            "SIZE = 3\n"
            "# one.comment = 1\n"
            "a/no.such.thing = {'b': @c/d(), 'e': (@f, %SIZE)}\n"
            "g.h = 'i # \\'j\\' %k'\n"
        )
        config.load([], ["fit.epochs = 4"])
        self.assertEqual(
            config.bindings(text),
            {
                "SIZE": "3",
                "a/no.such.thing": "{'b': @c/d(), 'e': (@f, %SIZE)}",
                "g.h": repr("i # 'j' %k"),
            },
        )
        self.assertEqual(config.value("fit.epochs"), 4)
        with self.assertRaisesRegex(SyntaxError, "expected ':' or '='"):
            config.bindings("fit.epochs 3")

    def test_percent_sign_in_a_text_is_no_macro(self):
        with self.assertRaisesRegex(ValueError, "`B` must be a macro"):
            config.load([], ["fit.optimizer = 'a%B'", "B = 3"])

    @parameterized.parameters("papers", "benchmarks")
    def test_what_only_a_clone_has_is_reported(self, package):
        installed.hide_clone(self)
        path = self._file(f"import {package}.any\n")
        with self.assertRaisesRegex(
            ImportError, f"`{package}` is not part of the installed package"
        ):
            config.load([path])
        with self.assertRaisesRegex(ModuleNotFoundError, "'no_such_module'"):
            config.load([self._file("import no_such_module", "2.gin")])

    def test_run_without_config_is_reported(self):
        with self.assertRaisesRegex(FileNotFoundError, "without config.gin"):
            config.load_run(self.create_tempdir().full_path)

    def test_run_is_loaded_and_overridden(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        (folder / "config.gin").write_text("fit.epochs = 3\n")
        config.load_run(folder, [], ["fit.batch_size = 8"])
        self.assertEqual(config.value("fit.epochs"), 3)
        self.assertEqual(config.value("fit.batch_size"), 8)

    def test_packaged_files_include_packaged_files(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        (folder / "models").mkdir()
        (folder / "models" / "fc.gin").write_text(
            "FullyConnectedDecoder.hidden = (3,)\n"
        )
        (folder / "own.gin").write_text("include 'models/fc.gin'\n")
        with contextlib.chdir(folder):
            config.load(["runs/denoise.gin"], ["IMAGE = 'camera'"])
            packaged = config.value("FullyConnectedDecoder.hidden")
            config.load(["own.gin"])
            own = config.value("FullyConnectedDecoder.hidden")
        self.assertNotEqual(packaged, (3,))
        self.assertEqual(own, (3,))

    def test_missing_modules_of_a_clone_are_named(self):
        with self.assertRaisesRegex(ImportError, "`papers` is not part of"):
            with config.explaining_imports():
                raise ModuleNotFoundError("no", name="papers.random_encoders")

    def test_run_is_loaded_whatever_kind_has_configured_it(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        text = (
            "denoise.export = False\n"
            "experiment.data = @scored_data()\n"
            "optimize.task = @own_task()\n"
            "own_task.path = 'mine.py'\n"
            "scored_data.task = @own_task()\n"
        )
        (folder / "config.gin").write_text(text)
        # A process that has not imported these functions yet.
        script = (
            "import sys; from tfvae.runs import config; config.load();"
            "config.load_run(sys.argv[1]); print(config.value('own_task.path'))"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.stdout, "mine.py\n", ended.stderr)


if __name__ == "__main__":
    absltest.main()
