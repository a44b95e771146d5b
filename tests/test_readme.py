# SPDX-License-Identifier: Apache-2.0
"""Commands, files and programs of README and docs work as shown."""

import contextlib
import functools
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tfvae
from tfvae.runs import config, optimize

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# How many programs of each document the tests below run. A block that none
# runs has `<!-- not run: REASON -->` in the line above.
PROGRAMS = {
    "README.md": 3,
    "docs/command_line.md": 1,
    "docs/keras.md": 1,
    "docs/optimization.md": 2,
    "docs/serving.md": 1,
    "docs/tvae.md": 1,
}


class ReadmeTest(tf.test.TestCase):
    def test_ci_runs_the_test_command_of_readme(self):
        (command,) = re.findall(r"^python3 .* make check.*$", README, re.M)
        ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        self.assertIn(command, ci.splitlines())

    def test_files_that_it_names_exist(self):
        found = set()
        for document in _documents():
            text = document.read_text(encoding="utf-8")
            found.update(
                re.findall(r"\b(?:gin|tools|docs|tests)/[\w/]+\.\w+", text)
            )
            for target in re.findall(r"\]\(([^)#:]+)\)", text):
                self.assertTrue((document.parent / target).exists(), target)
        self.assertGreater(len(found), 15)
        for name in found:
            self.assertTrue((ROOT / name).exists(), name)

    def test_every_block_of_code_runs_or_says_why_not(self):
        programs = {}
        for document in _documents():
            name = document.relative_to(ROOT).as_posix()
            for language, code in _blocks(name):
                with self.subTest(name, code=code):
                    self.assertIn(language, ("bash", "python"))
                    if language == "bash":
                        self.assertEmpty(_unchecked(code))
            if found := len(_programs(name)):
                programs[name] = found
        self.assertEqual(programs, PROGRAMS)

    def test_readme_is_a_front_page(self):
        self.assertLessEqual(len(README.splitlines()), 150)

    def test_program_denoises_and_operator_works(self):
        program = _programs("README.md")[0]
        (operator,) = _programs("docs/tvae.md")
        # A smaller picture, and less of it:.
        program = program.replace("140, 100, 100)", "140, 48, 48)")
        program = program.replace("epochs=10", "epochs=12")
        names = {}
        exec(compile(operator + program, "README.md", "exec"), names)
        score = names["task"].score(names["restored"])
        self.assertGreater(score["psnr"], 22.0)
        # The operator works, survives a file, and is known to gin.
        tfvae, decoder = names["tfvae"], names["decoder"]
        settings = {"num_latents": 256, "num_data": len(names["x"])}
        model = tfvae.TVAE(
            decoder,
            **settings,
            evolution=tfvae.Evolution(variation=names["invert"]),
        )
        path = pathlib.Path(self.get_temp_dir()) / "model.keras"
        model.compile(names["keras"].optimizers.SGD(0.0))
        model.fit(names["x"], names["index"], verbose=0)
        model.save(path)
        loaded = names["keras"].models.load_model(path)
        self.assertIs(loaded.evolution.variation, names["invert"])

    def test_program_trains_a_vae(self):
        program = _programs("README.md")[1].replace("epochs=30", "epochs=1")
        program = program.replace("num_train=1297", "num_train=100, num_test=9")
        names = {}
        exec(compile(program, "README.md", "exec"), names)
        self.assertEqual(names["images"].shape, [64, 1024])

    def test_program_with_gin_of_its_own_knows_all_names(self):
        # In another process: this one has loaded what registers names.
        (program,) = _programs("docs/command_line.md")
        program += """
assert len(bars.train) == 10, bars.train
for name in ("TVAE", "VAE", "corrupted_image", "shapes", "Adam", "Rank"):
    assert gin.get_configurable(name)
"""
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)

    def test_task_of_ones_own_is_optimised_by_its_command(self):
        program = _programs("README.md")[2]
        self.assertLess(len(program.splitlines()), 30)
        folder = pathlib.Path(self.create_tempdir().full_path)
        (folder / "my_task.py").write_text(program, encoding="utf-8")
        config.load(
            ["runs/optimize.gin"],
            [
                f"own_task.path = '{folder / 'my_task.py'}'",
                "optimize.budget = 4",
                "optimize.queries_per_round = 2",
                "SparseGaussianProcess.num_inducing = 20",
                "fit.epochs = 2",
                "train.export = False",
            ],
        )
        result = optimize.optimize(folder / "run")
        self.assertEqual(result["num_queries"], 4)
        self.assertEqual(result["num_failures"], 0)
        self.assertTrue((folder / "run" / "figures" / "top_k.png").exists())

    def test_task_of_vectors_has_data_and_a_score(self):
        names = {}
        exec(_programs("docs/optimization.md")[0], names)
        data = names["task"].data(0)
        self.assertEqual(data.points.shape, (200, 5))
        score = names["task"].objective(data.points[3])
        self.assertAllClose(score, data.scores[3])

    def test_table_of_evaluations_has_what_was_evaluated(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        self.enter_context(contextlib.chdir(folder))
        path = folder / "runs" / "lab" / "evaluations.csv"
        path.parent.mkdir(parents=True)
        path.write_text("number,input,score\n0,'=x,1.5\n1,NA,\n")
        names = {}
        exec(_programs("docs/optimization.md")[1], names)
        self.assertEqual([*names["table"].input], ["=x", "NA"])

    def test_denoising_vae_takes_noisy_and_clean_data(self):
        clean = np.random.default_rng(0).normal(size=(20, 3))
        noisy = clean + 0.1
        network = functools.partial(
            tfvae.fully_connected_encoder, num_observed=3, hidden=(4,)
        )
        model = tfvae.VAE(
            tfvae.learnable(network, num_latents=2),
            tfvae.FullyConnectedDecoder(3, (4,)),
            tfvae.StandardNormalPrior(2),
        )
        model.compile("adam")
        names = {**{"model": model, "noisy": noisy, "clean": clean}}
        names["noisy_test"] = noisy[:5]
        (program,) = _programs("docs/keras.md")
        exec(program.replace("epochs=50", "epochs=1, verbose=0"), names)
        self.assertEqual(names["cleaner"].shape, (5, 3))

    @pytest.mark.slow
    def test_export_is_called_without_tfvae(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        model = tfvae.TVAE(
            tfvae.FullyConnectedDecoder(16, (4,)), 8, 10, num_states=8
        )
        tfvae.export_saved_model(model, folder / "models" / "bars" / "1")
        (program,) = _programs("docs/serving.md")
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertRegex(ended.stdout, r"(?s)^\[\[.*\] \[.*\]")


def _documents():
    """Returns the documents that people read on the site and at the root."""
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def _blocks(document):
    """Returns language and code of each block that is to run."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"([^\n]*)\n```(\S+)\n(.*?)\n?```", text, re.S)
    return [
        (language, code)
        for above, language, code in found
        if not re.fullmatch(r"<!-- not run: .+ -->", above)
        and not language.startswith("{")  # A directive of the site.
    ]


def _programs(document):
    return [
        code for language, code in _blocks(document) if language == "python"
    ]


def _unchecked(code):
    """Returns the lines of a bash block that no test checks.

    What follows `...` is output. test_commands.py checks commands of tfvae.
    """
    commands = re.sub(r"\\\n", "", code.partition("\n...\n")[0]).splitlines()
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    return [
        one
        for one in commands
        if one not in ci
        and not re.match(r"(?:.* && )?(\S+/)?tfvae \w", one)
        and not one.startswith("#")
    ]


if __name__ == "__main__":
    tf.test.main()
