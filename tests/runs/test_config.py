# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import pathlib

from absl.testing import absltest, parameterized

from tfvae.runs import config, experiment  # noqa: F401 (registers `fit`)


class ConfigTest(parameterized.TestCase):
    def _file(self, text, name="one.gin"):
        return self.create_tempfile(name, text).full_path

    def test_text_read_again_gives_the_same_text(self):
        config.load(
            [self._file("EPOCHS = 3\nfit.epochs = %EPOCHS\n")],
            ["fit.optimizer = @cyclical_adam", "TVAE.evolution = @Evolution()"],
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
        ("fitt.epochs = 1", ValueError, "No configurable matching 'fitt'"),
        ("fit.epoch = 1", ValueError, "doesn't have a parameter named 'epoch'"),
        ("fit.optimizer = @nope", ValueError, "matching reference '@nope'"),
        ("fit.optimizer = nope", SyntaxError, "text needs quotes of its own"),
        ("IMAEG = 'a.png'", ValueError, "`IMAEG` must be a macro"),
        ("fit.epochs 3", SyntaxError, "expected ':' or '='"),
    )
    def test_mistakes_are_told(self, param, error, message):
        with self.assertRaisesRegex(error, message):
            config.load([], [param])

    def test_missing_file_is_told(self):
        with self.assertRaisesRegex(OSError, "Unable to open file: no.gin"):
            config.load(["no.gin"])

    def test_missing_value_is_told_with_an_example(self):
        with self.assertRaisesRegex(
            ValueError, "`IMAGE` must be given, as in --gin_param=\"IMAGE='"
        ):
            config.load(["data/picture.gin"])

    def test_differences_name_both_values(self):
        saved = "fit.batch_size = 32\nfit.epochs = 3\nTVAE.num_states = 5\n"
        current = "fit.batch_size = 64\nfit.epochs = 5\n"
        self.assertEqual(
            config.differences(saved, current),
            [
                "TVAE.num_states was 5, is now not set",
                "fit.batch_size was 32, is now 64",
            ],
        )

    def test_epochs_may_differ_through_a_macro(self):
        saved = "EPOCHS = 3\nfit.epochs = %EPOCHS\n"
        current = "EPOCHS = 4\nfit.epochs = %EPOCHS\n"
        self.assertEmpty(config.differences(saved, current))

    @parameterized.parameters(
        ("'a.py'", "'./a.py'", True),
        ("'a.py'", '"b/../a.py"', True),
        (f"'{os.path.abspath('a.py')}'", "'a.py'", True),
        ("'a.py'", "'b.py'", False),
        ("'a.py'", "%FILE", False),
        ("'a.py'", None, False),
    )
    def test_paths_are_compared_as_a_whole(self, before, after, are_same):
        for name in ("own_task.path", "optimize.warm_start"):
            saved = f"{name} = {before}\n"
            current = "" if after is None else f"{name} = {after}\n"
            found = config.differences(saved, current)
            self.assertLen(found, 0 if are_same else 1)
        other = config.differences(f"a.b = {before}\n", f"a.b = {after}\n")
        self.assertLen(other, 1)

    def test_bindings_reads_values_of_several_lines(self):
        config.load([], [f"fit.optimizer = {list(range(60))}"])
        self.assertIn("\n    ", config.text())
        self.assertEqual(
            config.bindings(config.text()),
            {"fit.optimizer": str(list(range(60)))},
        )

    def test_run_without_config_is_told(self):
        with self.assertRaisesRegex(FileNotFoundError, "without config.gin"):
            config.load_run(self.create_tempdir().full_path)

    def test_run_is_loaded_and_overridden(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        (folder / "config.gin").write_text("fit.epochs = 3\n")
        config.load_run(folder, [], ["fit.batch_size = 8"])
        self.assertEqual(config.value("fit.epochs"), 3)
        self.assertEqual(config.value("fit.batch_size"), 8)


if __name__ == "__main__":
    absltest.main()
