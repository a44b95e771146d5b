# SPDX-License-Identifier: Apache-2.0
"""Every configuration of the project builds a run that trains."""

from __future__ import annotations

import functools
import pathlib
import struct
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import grids
from tfvae import lso, networks, vae
from tfvae.data import images, shard_writing, write_shards
from tfvae.runs import config, optimize
from tfvae.runs.denoise import denoise
from tfvae.runs.experiment import experiment
from tfvae.runs.train import train
from tfvae.sweeps import grid, study

GIN = pathlib.Path(__file__).parents[1] / "gin"
PAPER = "papers/ecml2022_tvae"
FILES = sorted(path.relative_to(GIN).as_posix() for path in GIN.rglob("*.gin"))

# What the command line chooses; a run that needs an image.
SUBSPACES = "runs/denoise_subspaces.gin"
# What other files include or a user adds; they are no runs of their own.
FRAGMENTS = [
    name
    for name in FILES
    if name.startswith(("data/", "mixins/", "models/"))
    or name.split("/")[-1].startswith("base.")
    or name.split("/")[-1].startswith("base_")
    or name in ("runs/train.gin", "runs/denoise.gin", SUBSPACES)
]
OPTIMA = "papers/neurips2020_weighted_retraining"
# What tools/optimize.py takes, and what is for after such files only.
OPTIMIZED = [
    *(f"{OPTIMA}/{one}.gin" for one in ("shapes", "expressions", "molecules")),
    "runs/optimize.gin",
]
SETTINGS = [
    name
    for name in FILES
    if name.startswith((f"{OPTIMA}/settings/", f"{OPTIMA}/settings.gin"))
]
# What tools/reproduce.py takes, and what only such files name.
STUDIED = [
    name
    for name in FILES
    if name.startswith(("papers/thesis2021_random_encoders/", "studies/"))
    or name.endswith("_study.gin")
]
PARTS_OF_STUDIES = ("base.gin", "factors.gin", "fc.gin", "conv.gin")
STUDIES = [n for n in STUDIED if n.split("/")[-1] not in PARTS_OF_STUDIES]
RUNS = [
    name
    for name in FILES
    if name not in {*FRAGMENTS, *STUDIED, *OPTIMIZED, *SETTINGS}
]

# The published table: decoder sizes (latents first), S, P, C, G, smallest and
# largest learning rate, half cycle in epochs, batch size, epochs.
PUBLISHED = {
    "bars": ((8, 8), 64, 3, 2, 1, 1e-4, 0.05, 10, 32, 400),
    "bars_correlated": ((8, 8), 64, 3, 2, 1, 1e-4, 0.05, 10, 32, 400),
    "house_noise15": ((64, 64), 200, 10, 9, 4, 1e-4, 0.01, 10, 32, 500),
    "house_noise25": ((64, 64), 200, 10, 9, 4, 1e-4, 0.01, 10, 32, 500),
    "house_noise50": ((512, 512), 64, 5, 4, 1, 1e-4, 0.05, 10, 32, 500),
    "barbara_noise25": (
        (50, 500, 500),
        *(100, 5, 4, 1, 1e-4, 1e-3, 80, 512, 500),
    ),
    "house_missing50": ((512, 512), 64, 5, 4, 1, 1e-4, 0.01, 20, 32, 500),
    "castle_missing50": (
        (512, 512),
        *(32, 5, 4, 1, 1e-4, 1.25e-3, 20, 32, 500),
    ),
    "castle_missing80": ((512, 512), 64, 5, 4, 1, 1e-4, 1e-3, 20, 32, 500),
    "natural_patches": ((300, 300), 100, 8, 7, 2, 1e-4, 1e-3, 5, 32, 100),
    "cifar10": ((32, 512), 20, 15, 10, 1, 4e-4, 9e-3, 80, 128, 500),
}
# Patch or corruption of the rows that have any.
PICTURES = {
    "house_noise15": {"noise_std": 15.0, "patch": (8, 8)},
    "house_noise25": {"noise_std": 25.0, "patch": (8, 8)},
    "house_noise50": {"noise_std": 50.0, "patch": (12, 12)},
    "barbara_noise25": {"noise_std": 25.0, "patch": (8, 8), "scale": 1 / 255},
    "house_missing50": {"missing_fraction": 0.5, "patch": (12, 12)},
    "castle_missing50": {"missing_fraction": 0.5, "patch": (5, 5)},
    "castle_missing80": {"missing_fraction": 0.8, "patch": (12, 12)},
}
REQUIRED = [
    "IMAGE = 'camera'",
    "IMAGES = ['camera']",
    "IMAGE_SHAPE = (28, 28, 1)",
    "DATA = 'a'",
    "FOLDER = 'a'",
]
# Rows of a table, which differ in numbers: one of them stands for all.
ROWS = [
    name
    for name in RUNS
    if name.startswith(PAPER) and name != f"{PAPER}/house_noise25.gin"
]
# Others that take long, each with a sibling that trains by default.
SLOW_TO_TRAIN = [
    f"{OPTIMA}/{name}.gin"
    for name in (
        "expressions_model_k_high",
        "expressions_model_k_low",
        "molecules_model",
        "shapes_model",
    )
] + [
    "benchmarks/house25.gin",
    "benchmarks/house50.gin",
    "runs/array_file.gin",
    "runs/fashion_mnist.gin",
    "runs/image_files.gin",
    "runs/inpaint.gin",
    "runs/natural_patches.gin",
    "runs/shards.gin",
]
OWN_TASK = """
import numpy as np
from tfvae.lso import ScoredData, Task
points = np.random.default_rng(0).normal(size=(30, 4))
scores = points.sum(-1)
task = Task("own", lambda seed: ScoredData(points, scores), objective=np.sum)
"""


def _load(name, *params):
    """Loads a file, giving those of the required values that it uses."""
    text = "\n".join((GIN / one).read_text() for one in _included(GIN / name))
    given = [*text.splitlines(), *params]
    needed = [
        one
        for one in REQUIRED
        if f"{one.split()[0]} = %gin.REQUIRED" in given
        and not any(
            line.startswith(one.split()[0] + " = ") and "%" not in line
            for line in given
        )
    ]
    config.load([name], [*needed, *params])


def _resolved(name):
    """Returns a value that may be a macro's."""
    value = config.value(name)
    if str(value).startswith("%"):
        return config.value(f"{str(value)[1:]}/macro.value")
    return value


def _included(path):
    """Returns the names of a gin file and all that it includes."""
    found = [path.relative_to(GIN).as_posix()]
    for line in path.read_text().splitlines():
        if line.startswith("include "):
            found += _included(GIN / line.split("'")[1])
    return found


class GinFilesTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    @parameterized.parameters(*(set(FILES) - set(SETTINGS)))
    def test_names_and_values_are_known(self, name):
        _load(name)

    @parameterized.product(task=OPTIMIZED[:3], setting=SETTINGS)
    def test_setting_can_be_planned_and_tried(self, task, setting):
        whole = [task, f"{OPTIMA}/settings.gin"]
        config.load(whole)
        smoke = config.value("study.smoke_bindings")
        for bindings in ([], smoke):
            config.load([*whole, setting], bindings)
            plan = lso.Plan(
                budget=config.value("optimize.budget"),
                queries_per_round=_resolved("optimize.queries_per_round"),
            )
            self.assertGreater(plan.num_rounds, 0)

    @parameterized.product(
        task=OPTIMIZED[:3],
        setting=[
            name
            for name in SETTINGS
            if f"{OPTIMA}/settings/baseline.gin" in _included(GIN / name)
        ],
    )
    def test_baseline_queries_whatever_it_draws(self, task, setting):
        config.load([task, setting])
        self.assertEqual(config.value("optimize.num_proposals"), 1)

    @parameterized.parameters(
        f"{OPTIMA}/expressions.gin", "studies/binary_optimization.gin"
    )
    def test_measured_optimisation_keeps_its_fit_of_the_surrogate(self, name):
        config.load([name])
        for setting, value in (
            ("lengthscale", 1.0),
            ("lengthscale_std", None),
            ("num_exact_steps", 0),
        ):
            found = config.value(f"SparseGaussianProcess.{setting}")
            self.assertEqual(found, value)

    @parameterized.parameters(
        ("constraint_size", ["MAX_ATOMS = 13"], [None, 1, None, None, 1]),
        ("constraint_lead", [], [None, None, 0, 0, 2]),
        ("objective_drug_likeness", [], [None] * 5),
    )
    def test_mixin_of_molecules_sets_rules_or_objective(
        self, name, bindings, broken
    ):
        path = self.folder / "some.smi"
        path.write_text(
            "CC(=O)Oc1ccccc1C(=O)O\nCC(=O)Oc1ccccc1C(=O)OC\nCCO\nNCC\n"
            "CC(=O)Oc1ccc([N+](=O)[O-])cc1C(=O)O\n"
        )
        config.load(
            [f"{OPTIMA}/molecules.gin", f"mixins/{name}.gin"],
            [f"SMILES = '{path}'", "molecules.num_symbols = None", *bindings],
        )
        task = config.evaluated("optimize.task")
        data = task.data(0)
        rules = {
            "constraint_size": ["", "heavy atoms must be at most 13"],
            "constraint_lead": [
                "similarity to CC(=O)Oc1ccccc1C(=O)O must be at least 0.4",
                "matches of c1ccccc1 must be at least 1",
                "matches of [N+](=O)[O-] must be at most 0",
            ],
        }.get(name)
        expected = [None if i is None else rules[i] for i in broken]
        self.assertEqual([*data.refusals] or [None] * 5, expected)
        if rules is None:
            self.assertEqual(task.score_label, "QED")
            self.assertBetween(data.scores.max(), 0.3, 1.0)

    @parameterized.parameters(
        *(name for name in FILES if name.startswith("mixins/posterior_"))
    )
    @grids.by_default(0, 3)
    def test_mixin_of_a_posterior_builds_a_model_with_its_prior(self, name):
        config.load(["runs/digits.gin", name])
        network = functools.partial(
            networks.fully_connected_encoder, num_observed=6, hidden=(4,)
        )
        posterior = config.evaluated("learnable.posterior")
        model = vae.VAE(
            vae.learnable(network, 16, posterior=posterior),
            networks.FullyConnectedDecoder(6, (4,)),
            config.evaluated("vae.prior")(16),
        )
        x = np.random.default_rng(0).random((5, 6), np.float32)
        self.assertAllInRange(model.log_likelihood_bound(x, 2), -1e4, 0.0)

    def test_optimisation_runs(self):
        self._assert_optimises("runs/optimize.gin", [])

    @pytest.mark.slow  # Ten seconds for a decoder of images of 64 x 64.
    def test_optimisation_of_shapes_runs(self):
        self._assert_optimises(
            OPTIMIZED[0], ["squares.max_size = 2", "squares.copies = 1"]
        )

    def _assert_optimises(self, name, tiny):
        task = self.folder / "my_task.py"
        task.write_text(OWN_TASK)
        if name == "runs/optimize.gin":
            tiny = [
                f"own_task.path = '{task}'",
                "SparseGaussianProcess.num_inducing = 5",
            ]
        config.load(
            [name],
            [
                *tiny,
                "fit.epochs = 1",
                "train.export = False",
                "optimize.budget = 2",
                "optimize.queries_per_round = 2",
                "optimize.num_samples = 0",
            ],
        )
        result = optimize.optimize(self.folder / "run")
        self.assertEqual(result["num_queries"], 2)
        again = optimize.optimize(self.folder / "run")
        self.assertEqual(again["top"], result["top"])

    def test_surrogate_of_inputs_has_one_of_counts(self):
        config.load([OPTIMIZED[2], "mixins/surrogate_inputs.gin"])
        found = config.evaluated("optimize.surrogate")
        self.assertIsInstance(found.surrogate, lso.TanimotoProcess)
        self.assertEqual(config.evaluated("optimize.strategy").max_window, 3)

    def test_joint_training_is_in_a_trust_region(self):
        config.load(["runs/optimize.gin", "mixins/joint_training.gin"])
        self.assertEqual(
            config.evaluated("optimize.strategy"),
            lso.TrustRegion(lso.ThompsonSampling()),
        )
        retraining = config.evaluated("optimize.retraining")
        self.assertEqual(retraining.surrogate_weight, 1.0)
        self.assertEqual(retraining.batch_size, 64)

    @parameterized.parameters(*FRAGMENTS)
    def test_fragment_is_used_or_says_one_thing(self, name):
        is_included = any(name in _included(GIN / other)[1:] for other in FILES)
        is_choice = name.startswith("mixins/") or name == SUBSPACES
        self.assertTrue(is_included or is_choice)

    @parameterized.parameters(
        *(name for name in FILES if name == "quickstart.gin"),
        *(name for name in RUNS if name.startswith("runs/")),
    )
    def test_run_ends_at_a_low_learning_rate(self, name):
        _load(name)
        half_cycle = config.value("cyclical_adam.half_cycle_epochs")
        self.assertEqual(config.value("fit.epochs") % (2 * half_cycle), 0)

    @parameterized.parameters(
        *(name for name in RUNS if name.startswith(PAPER))
    )
    def test_row_of_the_paper_is_short(self, name):
        lines = (GIN / name).read_text().splitlines()
        bindings = [one for one in lines if " = " in one and one[0] != "#"]
        self.assertLessEqual(len(bindings), 10)

    def test_table_of_the_paper_is_complete(self):
        rows = {
            pathlib.Path(name).stem for name in RUNS if name.startswith(PAPER)
        }
        self.assertEqual(rows, set(PUBLISHED))

    @parameterized.parameters(*PUBLISHED)
    def test_row_of_the_paper_has_the_published_values(self, row):
        _load(f"{PAPER}/{row}.gin")
        latents = config.value("TVAE.num_latents")
        found = (
            (latents, *config.value("FullyConnectedDecoder.hidden")),
            config.value("TVAE.num_states"),
            config.value("Evolution.num_parents"),
            config.value("Evolution.num_children"),
            config.value("Evolution.num_generations"),
            config.value("cyclical_adam.min_learning_rate"),
            config.value("cyclical_adam.max_learning_rate"),
            config.value("cyclical_adam.half_cycle_epochs"),
            config.value("fit.batch_size"),
            config.value("fit.epochs"),
        )
        self.assertEqual(found, PUBLISHED[row])
        bindings = config.bindings(config.text())
        self.assertEqual(bindings["Evolution.parents"], "@Fitness()")
        self.assertEqual(bindings["Evolution.variation"], "@RandFlip()")
        for name, value in PICTURES.get(row, {}).items():
            self.assertEqual(config.value(f"corrupted_image.{name}"), value)

    @parameterized.parameters(*STUDIES)
    @grids.by_default(0, 3)
    def test_every_cell_of_a_study_has_a_configuration(self, name):
        _load(name)
        factors = config.value("study.factors")
        base = self.folder / "base.gin"
        base.write_text(study._without_study(config.text()))
        texts = {
            one.name: self._cell_text(base, factors, one.levels)
            for one in grid.cells(
                factors, 1, exclude=config.value("study.exclude") or ()
            )
        }
        self.assertLen(set(texts.values()), len(texts))

    @parameterized.parameters(*STUDIES)
    def test_what_runs_cells_and_reports_is_there(self, name):
        _load(name)
        for argument in ("cell", "report"):
            function = config.value(f"study.{argument}")
            if function is not None:
                self.assertTrue(callable(study._function(argument, function)))
                is_ours = function.startswith("tfvae.")
                self.assertTrue(is_ours or name.startswith("papers/"))

    def _cell_text(self, base, factors, levels):
        files, bindings = grid.files_and_bindings(factors, levels)
        config.read([base, *files], bindings)
        return config.text()

    def _tiny_data(self, name):
        """Returns bindings that give a run little of its kind of data."""
        rng = np.random.default_rng(0)
        text = "".join((GIN / one).read_text() for one in _included(GIN / name))
        path = self.folder / "data.npy"
        if "@corrupted_image()" in text:
            channels = 3 if "castle" in name else 1
            np.save(path, rng.uniform(0, 255, (14, 14, channels)))
            return [f"IMAGE = '{path}'", "corrupted_image.crop = None"]
        if "@image_patches()" in text:
            np.save(path, rng.uniform(0, 255, (20, 20, 1)))
            return [f"IMAGES = ['{path}']", "image_patches.num_patches = 20"]
        if "@resplit_images()" in text:
            return [
                "resplit_images.num_train = 20",
                "resplit_images.num_validation = 0",
                "resplit_images.num_test = 4",
            ]
        if "@bars()" in text:
            return ["bars.num_data = 20", "bars.num_test = 0"]
        if "@squares()" in text:
            return ["squares.max_size = 1", "squares.copies = 1"]
        if "@expression_rows()" in text:
            return ["experiment.max_points = 20"]
        if "@molecule_sequences()" in text:
            smiles = self.folder / "molecules.smi"
            smiles.write_text("CCO\nCCN\nCO\n")
            return [f"SMILES = '{smiles}'", "NUM_SYMBOLS = 4"]
        if "@image_files()" in text:
            for i in range(4):
                picture = rng.uniform(0, 255, (9, 9, 3))
                images.write_image(self.folder / f"{i}.png", picture)
            return [f"DATA = '{self.folder}'", "image_files.size = (6, 6)"]
        if "@idx_images()" in text:
            pixels = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)
            header = struct.pack(">4I", 2051, 5, 28, 28)
            file = self.folder / "train-images-idx3-ubyte"
            file.write_bytes(header + pixels.tobytes())
            return [f"DATA = '{self.folder}'"]
        width = 3072 if "cifar10" in name else 12
        np.save(path, rng.uniform(0, 1, (10, width)).astype(np.float32))
        if "@array_file()" in text:
            return [f"DATA = '{path}'"]
        if "@shard_files()" in text:
            source = shard_writing.Arrays([np.load(path)])
            write_shards(self.folder / "shards", source)
            return [f"FOLDER = '{self.folder}/shards'"]
        # A TensorFlow Datasets name: as nothing of it may be there, an array.
        return [
            "experiment.data = @array_file()",
            f"array_file.path = '{path}'",
        ]

    @parameterized.parameters(
        *(name for name in RUNS if name not in (*ROWS, *SLOW_TO_TRAIN))
    )
    @grids.by_default(5)
    def test_run_trains(self, name):
        self._assert_trains(name)

    @parameterized.parameters(*ROWS, *SLOW_TO_TRAIN)
    @pytest.mark.slow  # A minute for all of them.
    def test_other_run_trains(self, name):
        self._assert_trains(name)

    @parameterized.parameters(*ROWS, *SLOW_TO_TRAIN)
    def test_other_run_builds_a_model_of_its_data(self, name):
        _load(name, *self._tiny_data(name))
        parts = experiment()
        x = parts.observations.train
        if parts.model.needs_index:
            self.assertEqual(parts.model.capacity, len(x))
        self.assertEqual(parts.model.num_observed, x.shape[1])

    def _assert_trains(self, name):
        params = self._tiny_data(name)
        _load(
            name,
            *params,
            "fit.epochs = 1",
            "train.export = False",
            "denoise.export = False",
        )
        is_picture = "@corrupted_image()" in config.text()
        with (
            mock.patch("tfvae.runs.summaries.draw"),
            mock.patch("tfvae.runs.summaries.draw_model"),
            mock.patch("tfvae.runs.summaries.read_figures", return_value={}),
            mock.patch("tfvae.runs.summaries.mean_bound", return_value=0.0),
            mock.patch("tfvae.plots.restoration_panel"),
        ):
            summary = (denoise if is_picture else train)(self.folder / "run")
        self.assertTrue(np.isfinite(summary["bound"]))


if __name__ == "__main__":
    tf.test.main()
