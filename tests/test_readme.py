# SPDX-License-Identifier: Apache-2.0
"""Commands, files and programs of README and docs work as shown."""

import pathlib
import re
import subprocess
import sys

import tensorflow as tf

from tfvae.runs import config, optimize

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


class ReadmeTest(tf.test.TestCase):
    def test_ci_runs_the_test_command_of_readme(self):
        (command,) = re.findall(r"^python3 .* make check.*$", README, re.M)
        ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        self.assertIn(command, ci.splitlines())

    def test_files_that_it_names_exist(self):
        documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
        found = set()
        for document in documents:
            text = document.read_text(encoding="utf-8")
            found.update(
                re.findall(r"\b(?:gin|tools|docs|tests)/[\w/]+\.\w+", text)
            )
            for target in re.findall(r"\]\(([^)#:]+)\)", text):
                self.assertTrue((document.parent / target).exists(), target)
        self.assertGreater(len(found), 15)
        for name in found:
            self.assertTrue((ROOT / name).exists(), name)

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


def _programs(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.S)


if __name__ == "__main__":
    tf.test.main()
