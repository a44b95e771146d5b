# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import pathlib
import re
import subprocess
import sys
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import tfvae
from tfvae.cli import console
from tfvae.cli import denoise as denoise_cli
from tfvae.cli import main as cli
from tfvae.data import images, stacks
from tfvae.ranks import ONE_PROCESS

# A process has one subcommand; here gin must know all names before the first.
from tfvae.runs import config, denoise, evaluate, export, optimize, train  # noqa: F401
from tfvae.sweeps import study  # noqa: F401

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ROOT / "tools"
_BARS = "--gin_file=runs/bars.gin"
_SHAPES = (
    "--gin_file=papers/neurips2020_weighted_retraining/shapes.gin",
    "--run_dir=new",
)
_SMALL = [
    "--gin_param=TVAE.num_latents=4",
    "--gin_param=TVAE.num_states=4",
    "--gin_param=TVAE.num_m_states=4",
    "--gin_param=Evolution.num_parents=2",
    "--gin_param=Evolution.num_children=2",
    "--gin_param=fit.epochs=1",
]


def _call(*argv):
    """Runs `tfvae` in this process; returns exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        # It would silence this process for good.
        mock.patch("tfvae.cli.console.quiet", contextlib.nullcontext),
    ):
        code = cli.main(argv)
    return code, out.getvalue(), err.getvalue()


class MainTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    @parameterized.parameters(*cli.COMMANDS)
    def test_help_has_an_example_and_our_flags_only(self, name):
        code, out, _ = _call(name, "--help")
        self.assertEqual(code, 0)
        self.assertIn(f"\n  tfvae {name} --", out)
        for flag in ("--gin_file", "--gin_param", "--run_dir", "--seed"):
            self.assertIn(f"\n  {flag}\n", out)
        for foreign in ("--logtostderr", "--tfds_", "--only_check_args"):
            self.assertNotIn(foreign, out)
        self.assertLess(max(map(len, out.splitlines())), 81)

    @parameterized.parameters((np.nan, "tvae"), (1.0, "subspaces"))
    def test_picture_that_decides_the_method_is_read_once(self, value, method):
        picture = np.ones((30, 30), np.float32)
        picture[3, 4] = value
        path = self.folder / "picture.npy"
        np.save(path, picture)
        with (
            mock.patch.object(
                denoise,
                "denoise",
                lambda *_: config.evaluated("experiment.data"),
            ),
            mock.patch.object(
                stacks, "open_stack", wraps=stacks.open_stack
            ) as opened,
        ):
            code, out, err = _call(
                "denoise", f"--image={path}", f"--run_dir={self.folder / 'run'}"
            )
        self.assertEqual((code, err), (0, ""))
        self.assertIn(f"method: {method}", out)
        # The first time, its pages are counted.
        self.assertEqual(opened.call_count, 2)

    @parameterized.parameters(
        ([], 1, "subspaces"),
        (["--add_noise_std=25", "--noise=poisson"], 1, "subspaces"),
        (["--quality=fast"], 1, "subspaces"),
        (["--epochs=3"], 1, "tvae"),
        (["--seed=0"], 1, "tvae"),
        (["--gin_param=corrupted_image.crop=(0, 0, 9, 9)"], 1, "tvae"),
        (["--mask=alpha"], 1, "subspaces"),
        (["--missing=0.5"], 1, "subspaces"),
        (["--missing=0.5", "--add_noise_std=25"], 1, "tvae"),
        (["--mask=m.png", "--denoise"], 1, "tvae"),
        ([], 2, "tvae"),
        (["--method=subspaces", "--gin_file=x.gin"], 1, "subspaces"),
        (["--method=tvae"], 1, "tvae"),
    )
    def test_method_of_denoising_fits_the_picture_and_the_flags(
        self, argv, num_ranks, expected
    ):
        values = console.common_flags()
        denoise_cli.define(values)
        values(["tfvae", f"--run_dir={self.folder}", *argv])
        self.assertEqual(denoise_cli._method(values, num_ranks)[0], expected)
        # A run goes on as it was started.
        for text, method in (
            ("denoise.method = @LocalSubspaces()", "subspaces"),
            ("fit.epochs = 3", "tvae"),
        ):
            (self.folder / "config.gin").write_text(text)
            is_free = "--method" not in " ".join(argv)
            self.assertEqual(
                denoise_cli._method(values, num_ranks)[0],
                method if is_free else expected,
            )

    @parameterized.parameters(
        (["--quality=fast", "--method=tvae"], "`--quality` must be given with"),
        (["--joint", "--method=subspaces"], "`--joint` must be given with"),
        (["--stride=2", "--quality=fast"], "`--stride` must be given with"),
        (["--seed=0", "--method=subspaces"], "`--seed` must be given with"),
        (["--method=bm3d"], "--method=bm3d"),
    )
    def test_wrong_method_of_denoising_is_refused(self, argv, message):
        code, _, err = _call("denoise", "--image=camera", "--run_dir=x", *argv)
        self.assertEqual(code, 2)
        self.assertIn(message, err)

    @parameterized.parameters([], ["--help"], ["-h"], ["help"])
    def test_help_names_all_subcommands(self, *argv):
        code, out, _ = _call(*argv)
        self.assertEqual(code, 0)
        for name in (*cli.COMMANDS, *cli.OTHERS):
            self.assertIn(f"\n  {name} ", out)

    def test_version_is_that_of_the_package(self):
        code, out, _ = _call("--version")
        self.assertEqual((code, out), (0, f"tfvae {tfvae.__version__}\n"))

    def test_wrong_subcommand_suggests_one(self):
        code, _, err = _call("trian", "--run_dir=new")
        self.assertEqual(code, 2)
        self.assertRegex(err, "^error: .*got 'trian'; did you mean 'train'")

    def test_list_has_each_gin_file_with_its_first_line(self):
        code, out, _ = _call("list")
        self.assertEqual(code, 0)
        names = [line.split()[0] for line in out.splitlines()]
        gin = ROOT / "gin"
        self.assertEqual(
            names,
            sorted(p.relative_to(gin).as_posix() for p in gin.rglob("*.gin")),
        )
        self.assertRegex(out, "runs/bars.gin +Standard bars")

    def test_list_takes_words(self):
        _, out, _ = _call("list", "mixins", "prior")
        for line in out.splitlines():
            self.assertStartsWith(line, "mixins/prior_")
        code, out, err = _call("list", "zzz")
        self.assertEqual((code, out), (2, ""))
        self.assertRegex(err, "^error: no gin file has 'zzz' in its path")

    def test_benchmark_needs_a_clone(self):
        with mock.patch.dict(sys.modules, {"benchmarks.command": None}):
            code, _, err = _call("benchmark", "--help")
        self.assertEqual(code, 2)
        self.assertRegex(err, "^error: tfvae benchmark .* needs a clone")

    @parameterized.parameters(*(p.stem for p in TOOLS.glob("*.py")))
    def test_tool_is_short(self, name):
        lines = (TOOLS / f"{name}.py").read_text().splitlines()
        self.assertLessEqual(len(lines), 32)

    def test_tools_are_the_subcommands(self):
        for path in sorted(TOOLS.glob("*.py")):
            if path.stem == "clone":
                continue
            (name,) = re.findall(r'clone\.run\("(\w+)"\)', path.read_text())
            self.assertIn(name, {**cli.COMMANDS, **cli.OTHERS})

    @parameterized.parameters(
        ("--help", 0),
        ("--version", 0),
        ("list", 0),
        ("doctor --help", 0),
        ("doctor --nope", 2),
        ("train --help", 0),
        ("denoise --nope=1", 2),
        ("train", 2),
        ("train --run_dir=x", 2),
        ("evaluate", 2),
        ("optimize --run_dir=x", 2),
        ("study --run_dir=x --gin_file=no.gin", 2),
        ("benchmark --mode=spede", 2),
    )
    def test_answer_does_not_wait_for_tensorflow(self, argv, expected):
        modules = [name for name in sys.modules if "." not in name]
        without = dict.fromkeys(
            one for one in modules if one in ("tensorflow", "keras")
        )
        with mock.patch.dict(sys.modules, without):  # Their import fails.
            code, _, err = _call(*argv.split())
        self.assertEqual(code, expected, err)

    def test_tools_run_the_code_of_their_clone(self):
        ended = subprocess.run(
            [sys.executable, "-S", TOOLS / "train.py", "--help"],
            cwd=self.folder,
            env={"PATH": ""},
            capture_output=True,
            text=True,
        )
        # Without site-packages nothing is installed.
        self.assertEqual(ended.returncode, 2)
        self.assertEqual(
            ended.stderr,
            "error: lazy_loader is not installed; run: pip install -e "
            f"{ROOT}\n",
        )

    def test_missing_tensorflow_is_reported_in_one_line(self):
        script = (
            "import sys\n"
            "sys.modules['tensorflow'] = None\n"
            "from tfvae.cli.main import main\n"
            f"sys.exit(main(['train', {_BARS!r}, '--run_dir=x']))\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode, 2)
        self.assertEqual(
            ended.stderr,
            "error: tensorflow is not installed; run: pip install tfvae\n",
        )

    def test_missing_package_of_a_configuration_is_reported_in_one_line(self):
        # Here, where TensorFlow is there already: that alone takes seconds.
        with mock.patch.dict(sys.modules, {"gin": None}):
            del sys.modules["tfvae.runs.config"]
            code, _, err = _call("train", _BARS, "--run_dir=x")
        self.assertEqual(code, 2)
        self.assertEqual(
            err, "error: gin is not installed; run: pip install tfvae\n"
        )

    def test_gin_file_imports_a_module_of_the_current_folder(self):
        (self.folder / "my_ops.py").write_text(
            "import gin\n@gin.register\ndef my_rate(): return 1.0\n"
        )
        (self.folder / "my.gin").write_text(
            "import my_ops\ninclude 'runs/bars.gin'\n"
            "cyclical_adam.max_learning_rate = @my_rate()\n"
        )
        with (
            contextlib.chdir(self.folder),
            mock.patch.object(sys, "path", [*sys.path]),
            mock.patch("tfvae.runs.train.train") as called,
        ):
            code, _, err = _call(
                "train",
                f"--gin_file={self.folder / 'my.gin'}",
                f"--run_dir={self.folder}",
            )
        self.assertEqual(code, 0, err)
        called.assert_called_once()

    def _assert_told(self, name, argv, message):
        with contextlib.chdir(self.folder):
            code, _, err = _call(name, *argv)
        self.assertEqual(code, 2, err)
        self.assertLen(err.splitlines(), 1)
        self.assertRegex(err, f"^error: .*{message}")
        self.assertNotIn("Traceback", err)

    @parameterized.parameters(
        ("train", ["--nope=1"], "Unknown command line flag 'nope'"),
        ("train", ["nope"], "unexpected argument 'nope'"),
        ("train", ["--seed=x"], "--seed=x: it must be a decimal integer"),
        ("train", ["--seed=1_0"], "must be a decimal integer"),
        ("train", ["--seed=+1"], "must be a decimal integer"),
        ("train", ["--seed= 1"], "must be a decimal integer"),
        ("train", ["--seed=٣"], "must be a decimal integer"),
        ("denoise", ["--gain=1_0"], "--gain=1_0: it must be a number"),
        ("denoise", ["--gain= 1"], "--gain= 1: it must be a number"),
        ("denoise", ["--image=x", "--pages=٣"], "`--pages` must be numbers"),
        ("denoise", ["--image=x", "--patch=²"], "`--patch` must be one or two"),
        ("study", ["--workers=1_0"], "must be a decimal integer"),
        ("train", [_BARS], "`--run_dir` must be given"),
        ("train", [_BARS, f"--run_dir={__file__}"], "a folder, got the file"),
        ("train", ["--gin_file=no.gin"], "existing file, got 'no.gin'"),
        (
            "train",
            ["--gin_file=gin/mixins/exact.gin"],
            "existing file, got .*; did you mean --gin_file=mixins/exact.gin",
        ),
        ("train", ["--seed=-1"], "flag --seed=-1"),
        ("train", [], "`--gin_file` must be given, such as"),
        ("train", [_BARS, "--gin_param=fitt.epochs=1"], "`fitt` is no"),
        ("train", [_BARS, "--gin_param=fit.epoch=1"], "`epoch` is no"),
        ("train", [_BARS, "--gin_param=fit.epochs=x"], "strings need quotes"),
        ("train", ["--gin_file=data/array_file.gin"], "`DATA` must be given"),
        ("evaluate", ["--run_dir=/nowhere"], "`run_dir` must be the folder"),
        ("export", ["--run_dir=/nowhere"], "`run_dir` must be the folder"),
        ("export", ["--limit=rows"], "`--limit` must be as in.*got 'rows'"),
        ("export", ["--limit=rows=007"], "`--limit` must be.*got 'rows=007'"),
        ("export", ["--limit=row=7"], "of rows, num_samples.*got 'row=7'"),
        ("shard", [], "`--input` must be given, as in --input=points.npy"),
        ("shard", ["--input=/none"], "`inputs` must be files.*got '/none'"),
        ("shard", ["--input=x", "--patch=0"], "flag --patch=0"),
        ("shard", ["--input=x", "--dtype=int8"], "one of <float32|float16"),
        ("shard", ["--input=x", "--shape=3,0"], "`--shape` must be.*'3,0'"),
        ("shard", ["--tfds=mnist"], "`shard.tfds` must be a name and a split"),
        ("shard", [f"--input={__file__}", "--key=x"], "`shard.key` must be"),
        ("shard", ["--input=x", "--seed=1"], "experiment.seed"),
        ("benchmark", ["--mode=spede"], "value should be one of <speed"),
        ("benchmark", [_BARS], "`--run_dir` must be given"),
        ("denoise", [], "`--image` must be given"),
        ("denoise", ["--gin_file=runs/denoise.gin"], "`IMAGE` must be given"),
    )
    def test_wrong_call_is_reported_in_one_line(self, name, argv, message):
        if "`--run_dir`" not in message:
            argv = ["--run_dir=/nowhere", *argv]
        self._assert_told(name, argv, message)

    @parameterized.parameters(
        (
            [*_SHAPES, "--gin_param=optimize.strategy=@OracleGrid"],
            "`optimize.strategy` must be an object.*got the class OracleGrid",
        ),
        (
            [*_SHAPES, "--gin_param=optimize.task=@shapes"],
            "`optimize.task` must be an object.*got the function shapes",
        ),
        ([*_SHAPES, "--tell=0=1.5"], "has printed, got query 0 but no run"),
        (["--task=no.txt", "--run_dir=new"], "`task` must be a Python file"),
    )
    def test_optimisation_is_refused_before_it_begins(self, argv, message):
        self._assert_told("optimize", argv, message)
        self.assertEmpty([*self.folder.iterdir()])

    def test_folder_of_a_run_is_the_one_of_the_command(self):
        with (
            contextlib.chdir(self.folder),
            mock.patch("tfvae.runs.optimize.optimize") as called,
        ):
            code, _, err = _call("optimize", *_SHAPES)
        self.assertEqual(code, 0, err)
        called.assert_called_once_with(
            str(self.folder / "new"), optimize.Requests(), ONE_PROCESS
        )

    @parameterized.parameters(
        ("TVAE.num_states=17", r"`num_states` must be .*got 17"),
        ("Evolution.num_children=5", "`num_children` must be .*got 5"),
        ("Evolution.num_parents=9", "`num_parents` must be .*got 9"),
        ("bars.num_latents=7", "`num_latents` must be even.*got 7"),
        ("cyclical_adam.max_learning_rate=-1.0", "`max_learning_rate`"),
        ("Evolution.parents=3", "`parents` must be.*got 3"),
    )
    def test_wrong_value_is_reported_in_one_line(self, param, message):
        argv = [
            "--gin_file=runs/bars.gin",
            *_SMALL,
            f"--gin_param={param}",
            f"--run_dir={self.folder / 'run'}",
        ]
        self._assert_told("train", argv, message)

    @parameterized.parameters(
        (["--image=no.png"], "no.png"),
        (["--image={folder}/broken.png"], "`--image` must be a readable image"),
        (["--image={folder}/one.png", "--noise_std=-1"], "`--add_noise_std`"),
        (["--image={folder}/one.png", "--noise_std=nan"], "`--add_noise_std`"),
        (["--image=camera", "--known_noise_std=0"], "`--known_noise_std` m"),
        (["--image=camera", "--gain=2"], "`--gain` must be given with --noise"),
        (
            ["--image=camera", "--noise=poisson", "--known_noise_std=2"],
            "`--known_noise_std` must not be given with --noise=poisson, whose",
        ),
        (
            ["--image=camera", "--noise=poisson", "--read_noise_std=2"],
            "`--noise` must be poisson-gaussian with --read_noise_std",
        ),
        (["--image=camera", "--noise=poison"], "value should be one of"),
        (
            ["--image={folder}/one.png", "--noise=poisson"],
            "`--image` must have at least 32 blocks",
        ),
        (["--image={folder}/one.png", "--missing=1.5"], "`--missing` must"),
        (
            [
                "--image=camera",
                "--mask={folder}/one.png",
                "--mask_grow=-1",
            ],
            "`--mask_grow` must",
        ),
        (["--image=camera", "--std_factor=0"], "`--std_factor` must be"),
        (["--image={folder}/one.png", "--mask={folder}/two.png"], "mask"),
        (["--image={folder}/one.png", "--clean={folder}/two.png"], "clean"),
        (["--image={folder}/one.png", "--output=a.xyz"], "output"),
        (["--image={folder}/one.png", "--value_range=1"], "`--value_range`"),
        (["--image=camera", "--strength=2"], "`--strength` must be from 0 t"),
        (
            ["--image=camera", "--missing=0.5", "--strength=0.5"],
            "`--strength` must be 1 where observed values stay",
        ),
        (["--image={folder}/one.png", "--patch=0"], "`--patch` must be"),
        (["--image={folder}/one.png", "--patch=3,a"], "`--patch` must be"),
        (
            ["--image={folder}/one.png", "--mask_grow=1"],
            "`--mask` must be given",
        ),
        (["--image={folder}/one.png", "--value_range=a,b"], "`--value_range`"),
        (["--image={folder}/one.png", "--pages=1-a"], "`--pages` must be numb"),
        (["--image={folder}/one.png", "--pages=4-2"], "got '4-2'"),
        (["--image={folder}/one.png", "--pages=1"], "`--pages` needs a folder"),
        (["--image={folder}/one.png", "--joint"], "`--joint` needs a folder"),
        (["--image=gone.tif", "--joint"], "got gone.tif, which is no file"),
        (["--image={folder}/one.png", "--axes=YX"], "for an array or TIFF"),
        (
            ["--image={folder}/one.png", "--value_range=2,1"],
            "`--value_range` m",
        ),
        (["--image={folder}/one.png", "--stride=9"], "`--stride` must not"),
        (["--image=camera", "--clean={folder}/broken.png"], "`--clean` must"),
        (["--image=camera", "--mask={folder}/broken.png"], "`--mask` must"),
        (["--image=camera", "--clean=gone.png"], "`--clean` must be an image"),
    )
    def test_wrong_picture_is_reported_in_one_line(self, argv, message):
        (self.folder / "broken.png").write_bytes(b"no picture")
        images.write_image(self.folder / "one.png", np.zeros((20, 20, 1)))
        images.write_image(self.folder / "two.png", np.zeros((20, 21, 1)))
        argv = [one.format(folder=self.folder) for one in argv]
        self._assert_told(
            "denoise",
            [*argv, *_SMALL, f"--run_dir={self.folder / 'run'}"],
            message,
        )

    @parameterized.named_parameters(
        (
            "mixin_and_image",
            ["--gin_file=mixins/parents_elite.gin", "--image=camera"],
            ("Evolution.parents", "@Elite()"),
        ),
        (
            "image_as_a_parameter",
            ["--gin_param=IMAGE='camera'"],
            ("fit.epochs", "32"),
        ),
        (
            "known_noise",
            ["--image=camera", "--known_noise_std=12"],
            ("GaussianNoise.std", "12.0"),
        ),
        (
            "noise_to_add_by_its_old_name",
            ["--image=camera", "--noise_std=12"],
            ("corrupted_image.noise_std", "12.0"),
        ),
        (
            "counts",
            ["--image=camera", "--noise=poisson", "--gain=2"],
            ("PoissonGaussianNoise.read_noise_std", "0.0"),
        ),
        (
            "counts_and_read_noise",
            ["--image=camera", "--noise=poisson-gaussian"],
            ("corrupted_image.noise", "@PoissonGaussianNoise()"),
        ),
        (
            "strength",
            ["--image=camera", "--strength=0.7"],
            ("corrupted_image.strength", "0.7"),
        ),
        (
            "counts_by_likelihood",
            ["--image=camera", "--noise=poisson", "--poisson_likelihood"],
            ("PoissonGaussianNoise.by_likelihood", "True"),
        ),
        (
            "file_with_data",
            ["--gin_file=quickstart.gin"],
            ("fit.epochs", "12"),
        ),
        (
            "epochs_are_one_cycle",
            ["--image=camera", "--epochs=5"],
            ("cyclical_adam.half_cycle_epochs", "2.5"),
        ),
        (
            "range_of_values",
            ["--image=camera", "--value_range=-1000,3000"],
            ("corrupted_image.value_range", "(-1000.0, 3000.0)"),
        ),
        (
            "patch",
            ["--image=camera", "--patch=12"],
            ("corrupted_image.patch", "(12, 12)"),
        ),
        (
            "oblong_patch",
            ["--image=camera", "--patch=4,12"],
            ("corrupted_image.patch", "(4, 12)"),
        ),
        (
            "observed_values",
            ["--image=camera", "--mask=m.png", "--denoise"],
            ("corrupted_image.keep_observed", "False"),
        ),
        (
            "observed_values_unless_not",
            ["--image=camera", "--nodenoise"],
            ("corrupted_image.keep_observed", "True"),
        ),
        (
            "cycle_of_ones_own",
            [
                *("--image=camera", "--epochs=8"),
                "--gin_param=cyclical_adam.half_cycle_epochs=2",
            ],
            ("cyclical_adam.half_cycle_epochs", "2"),
        ),
    )
    def test_denoise_completes_what_is_given(self, argv, expected):
        with mock.patch("tfvae.runs.denoise.denoise"):
            code, _, err = _call("denoise", *argv, f"--run_dir={self.folder}")
        self.assertEqual(code, 0, err)
        found = config.bindings(config.text())
        self.assertEqual(found["experiment.data"], "@corrupted_image()")
        self.assertEqual(found[expected[0]], expected[1])

    def test_denoise_names_the_flag_of_what_may_be_raised(self):
        text = "`run_dir` must be empty. Only `fit.epochs` may be raised."
        with mock.patch(
            "tfvae.runs.denoise.denoise", side_effect=ValueError(text)
        ):
            _, _, err = _call("denoise", "--image=camera", "--run_dir=new")
        self.assertIn("`--run_dir` must be empty. Only `--epochs` may be", err)

    def test_denoise_passes_pages_and_folders_on(self):
        stack = self.folder / "stack.npy"
        np.save(stack, np.zeros((6, 9, 9)))
        run = f"--run_dir={self.folder / 'run'}"
        with mock.patch("tfvae.runs.denoise_many.denoise_many") as called:
            for image, *flags in (
                (stack, "--pages=0-2,5,1", "--joint"),
                (stack, "--axes=ZYX", "--channels=alone"),
                (self.folder,),
            ):
                code, _, err = _call("denoise", f"--image={image}", *flags, run)
                self.assertEqual(code, 0, err)
        found = [dict(call.kwargs) for call in called.mock_calls]
        explained = [one.pop("explain")("`output` must be") for one in found]
        self.assertEqual(explained, 3 * ["`--output` must be"])
        self.assertEqual(found[0], {"pages": [0, 1, 2, 5], "joint": True})
        self.assertEqual(found[1], {"pages": None, "joint": False})
        self.assertEqual(found[2], {"pages": None, "joint": False})
        params = called.mock_calls[1].args[1].gin_params
        self.assertIn("corrupted_image.axes = 'ZYX'", params)
        self.assertIn("corrupted_image.channels = 'alone'", params)

    def test_benchmark_takes_its_flags(self):
        with mock.patch("benchmarks.training.benchmark") as called:
            code, _, err = _call(
                *("benchmark", _BARS, "--mode=quality", "--noplain"),
                *("--compare=a=run 'it' --epochs=3", "--compare=b=other"),
                f"--run_dir={self.folder}",
            )
        self.assertEqual(code, 0, err)
        called.assert_called_once_with(str(self.folder))
        self.assertEqual(config.value("benchmark.mode"), "quality")
        self.assertIs(config.value("benchmark.plain"), False)
        self.assertEqual(
            config.value("benchmark.compare"),
            ["a=run 'it' --epochs=3", "b=other"],
        )

    def test_benchmark_of_epochs_has_a_configuration_of_its_own(self):
        param = "epoch_times.rounds=2"
        with mock.patch("benchmarks.epoch_times.epoch_times") as called:
            code, _, err = _call(
                *("benchmark", "--mode=epochs", "--seed=3"),
                *(f"--gin_param={param}", f"--run_dir={self.folder}"),
            )
        self.assertEqual(code, 0, err)
        overrides = [param, "experiment.seed = 3"]
        called.assert_called_once_with(str(self.folder), overrides)
        self.assertEqual(config.value("epoch_times.rounds"), 2)
        self.assertIn("encoder", config.value("study.factors"))

    def test_benchmark_refuses_a_command_without_a_name(self):
        self._assert_told(
            "benchmark",
            [_BARS, "--compare=run it", f"--run_dir={self.folder}"],
            "`compare` must be name=command",
        )

    def test_more_epochs_of_a_picture_keep_its_cycle(self):
        (self.folder / "checkpoints").mkdir()
        (self.folder / "checkpoints" / "checkpoint-000004.npz").touch()
        (self.folder / "config.gin").write_text(
            "cyclical_adam.half_cycle_epochs = 2\n"
        )
        self.assertEqual(
            denoise.schedule_bindings(self.folder, 8),
            ["cyclical_adam.half_cycle_epochs = 2"],
        )

    def test_run_can_be_trained_evaluated_and_repeated(self):
        run_dir = f"--run_dir={self.folder / 'run'}"
        shared = self.folder / "shared.gin"
        shared.write_text(
            "include 'runs/bars.gin'\nRealNVPPrior.num_flows = 7\n"
            "WIDTH = 3\nevaluate.num_points = 3\n"
        )
        argv = [f"--gin_file={shared}", *_SMALL, run_dir, "--seed=3"]
        argv += ["--gin_param=bars.num_test=4"]
        with mock.patch("tfvae.runs.summaries.draw"):
            code, out, err = _call(
                "train", *argv, "--gin_param=train.export=False"
            )
        self.assertEqual(code, 0, err)
        self.assertIn("500 data points of 16 dimensions", out)
        self.assertRegex(err, r"epoch 1/1  bound -[\d.]+")
        self.assertRegex(out, "seed +3\n")
        self.assertIn("done: ", out)
        self.assertEndsWith(
            out,
            "\nnot used by this run: RealNVPPrior.num_flows, WIDTH, "
            "evaluate.num_points\n",
        )
        text = (self.folder / "run" / "config.gin").read_text()
        self.assertIn("\n# RealNVPPrior.num_flows = 7\n", text)
        self.assertIn("\nevaluate.num_points = 3\n", text)
        code, out, err = _call("evaluate", run_dir)
        self.assertEqual(code, 0, err)
        self.assertRegex(out, r"log_likelihood +-[\d.]+")
        self.assertRegex(out, r"points +3\n")
        self.assertNotIn("not used", out)
        # Another value of what has no effect is no other configuration.
        shared.write_text(shared.read_text().replace("= 7", "= 8"))
        again = [*argv, "--gin_param=train.export=False"]
        code, out, err = _call("train", *again)
        self.assertEqual(code, 0, err)
        self.assertIn("already finished", out)
        self._assert_told(
            "train",
            [*again, "--seed=4"],
            "experiment.seed was 3, is now 4",
        )

    @parameterized.parameters(
        (["--gin_param=TVAE.likelihood=@BernoulliLikelihood()"], "passes `exp"),
        (
            ["--gin_param=train/fit.epochs=3"],
            "nothing enters the scope 'train'",
        ),
        (["--gin_param=EPOCS=3"], "`EPOCS` must be a macro"),
        (["--gin_param=RealNVPPrior.num_flows=7"], "`experiment.model`, which"),
        (["--gin_param=denoise.export=False"], "`train` does not call `denois"),
        (["--gin_param=fit.epochs"], "must be name = value"),
        (["--gin_param=fit.epochs=%EPOCHS"], "must use a macro that is define"),
        (["--gin_param=FullyConnectedDecoder.hidden=(4,"], "brackets"),
        (["--gin_param=Adam.learning_rate=1"], "passes `cyclical_adam.min_le"),
    )
    def test_binding_without_effect_is_refused_before_any_work(
        self, argv, message
    ):
        self._assert_told("train", [_BARS, "--run_dir=new", *argv], message)
        self.assertEmpty([*self.folder.iterdir()])

    def test_error_of_ours_leaves_a_traceback_in_the_run_folder(self):
        with mock.patch(
            "tfvae.runs.train.experiment", side_effect=KeyError("lost")
        ):
            code, _, err = _call(
                "train", "--gin_file=runs/bars.gin", f"--run_dir={self.folder}"
            )
        self.assertEqual(code, 1)
        self.assertRegex(err, "^error: KeyError.*the traceback is in")
        log = (self.folder / "error.log").read_text()
        self.assertIn("Traceback", log)

    def test_folder_called_like_one_of_ours_is_no_hindrance(self):
        (self.folder / "runs").mkdir()
        (self.folder / "runs/sub").mkdir()
        with (
            contextlib.chdir(self.folder),
            mock.patch.object(sys, "path", ["", *sys.path]),
        ):
            self._assert_told(
                "denoise", ["--image=no.png"], "`--run_dir` must be given"
            )

    def test_interrupt_reports_how_to_go_on(self):
        with mock.patch(
            "tfvae.runs.train.experiment", side_effect=KeyboardInterrupt
        ):
            code, _, err = _call(
                "train", "--gin_file=runs/bars.gin", f"--run_dir={self.folder}"
            )
        self.assertEqual(code, 130)
        self.assertIn("the same command resumes", err)


if __name__ == "__main__":
    tf.test.main()
