# SPDX-License-Identifier: Apache-2.0
"""Imports point downward, and some libraries stay behind one module."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
from collections.abc import Iterator, Mapping

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).parents[1]

# A component is a module or a package directly below tfvae. It imports
# components of lower levels and itself, nothing else of tfvae.
LEVELS = {
    "arguments": 0,
    "files": 0,
    "inputs": 0,
    "locations": 0,
    "__version__": 0,
    "ops": 0,
    "processes": 0,
    "ranks": 0,
    "registration": 0,
    "resources": 0,
    "settings": 0,
    "typed_gin": 0,
    "data": 1,
    "likelihoods": 1,
    "networks": 1,
    "optimizers": 1,
    "plots": 1,
    "schedules": 1,
    "latent_model": 2,
    "local_subspaces": 2,
    "metrics": 2,
    "noise": 2,
    "priors": 2,
    "tvae": 3,
    "vae": 3,
    "callbacks": 4,
    "checkpoints": 4,
    "restoration": 4,
    "serving": 4,
    "joint_restoration": 5,
    "lso": 5,
    "runs": 6,
    "sweeps": 7,
    "cli": 8,
}

# What is fenced -> the path prefixes below the root that may use it.
FENCED_IMPORTS = {
    "absl.flags": ("tfvae/cli/", "benchmarks/command.py"),
    "fcntl": (),
    "markdown": ("tfvae/sweeps/report_page.py",),
    "matplotlib": ("tfvae/plots/",),
    "multiprocessing": (),
    "mpi4py": ("tfvae/ranks.py",),
    "pandas": ("tfvae/sweeps/", "papers/"),
    "rdkit": ("tfvae/lso/tasks/molecules.py", "tfvae/data/selfies.py"),
    "ray": ("tfvae/lso/ray_pool.py",),
    "sklearn": (
        "benchmarks/dictionary.py",
        "tfvae/data/digits.py",
        "tfvae/lso/gaussian_fit.py",
        "tfvae/lso/surrogates.py",
    ),
    "statsmodels": ("tfvae/sweeps/",),
    "submitit": ("tfvae/sweeps/slurm.py",),
    "subprocess": ("tfvae/processes.py",),
    "tabulate": ("tfvae/sweeps/tables.py", "benchmarks/tables.py"),
    "tensorflow_datasets": ("tfvae/data/tfds.py",),
    "tensorflow_probability": (
        "tfvae/priors/",
        "tfvae/lso/collapsed_bound.py",
        "tfvae/lso/entropy.py",
        "tfvae/lso/improvement.py",
    ),
}
FENCED_CALLS = {
    "gin.clear_config": ("tfvae/runs/config.py",),
    "gin.configurable": ("tfvae/typed_gin.py",),
    "gin.finalize": ("tfvae/runs/config.py",),
    "gin.parse_config": ("tfvae/runs/config.py",),
    "gin.parse_config_file": ("tfvae/runs/config.py",),
    "gin.parse_config_files_and_bindings": ("tfvae/runs/config.py",),
    "gin.query_parameter": ("tfvae/runs/config.py",),
    # Without types, mypy would take what they decorate for `Any`.
    "gin.register": ("tfvae/typed_gin.py", "tfvae/settings.py"),
    "gin.unlock_config": ("tfvae/runs/config.py",),
    "typed_gin.configurable": ("tfvae/runs/", "tfvae/sweeps/", "benchmarks/"),
}


# Packages of a clone -> those of them that each may import.
PACKAGES = {
    "tfvae": {"tfvae"},
    "papers": {"papers", "tfvae"},
    "benchmarks": {"benchmarks", "papers", "tfvae"},
}
# Papers, by their authors, venues, settings and numbers of tables. Docstrings
# of algorithms cite them; what runs, compares or draws anything does not.
PAPERS = re.compile(
    r"\b(thesis|ijzer|tripp|daxberger|neurips|ecml|cem_pi|k_low|k_high|k_inf"
    r"|tables? \d+\.\d+)",
    re.IGNORECASE,
)
WITHOUT_PAPERS = (
    "callbacks",
    "checkpoints",
    "files",
    "inputs",
    "joint_restoration",
    "metrics",
    "plots",
    "resources",
    "restoration",
    "runs",
    "serving",
    "settings",
    "sweeps",
)
TASKS = {"shapes", "expressions", "molecules"}
# Where text that is the name of a task may be: tasks, what exports them, and
# data that happen to have the same name.
NAMES_TASKS = ("tfvae/lso/tasks/", "tfvae/lso/__init__.py", "tfvae/data/")


@functools.cache
def _sources() -> Mapping[str, ast.AST]:
    """Returns the parsed source of each file by its path below the root."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for folder in ("tfvae", "tools", "benchmarks", "papers")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def _sources_of(folder: str) -> Mapping[str, ast.AST]:
    """Returns those of `_sources` that are in a folder."""
    return {
        name: tree
        for name, tree in _sources().items()
        if name.startswith(f"{folder}/")
    }


def _imported(tree: ast.AST) -> Iterator[str]:
    """Yields the dotted name of everything that `tree` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def _attributes(tree: ast.AST) -> Iterator[str]:
    """Yields `module.name` of every attribute that `tree` looks up."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def _texts(tree: ast.AST) -> Iterator[str]:
    """Yields every text that `tree` has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _component(name: str) -> str:
    return name.split("/")[1].removesuffix(".py")


def _upward_imports(component: str, imported: list[str]) -> list[str]:
    """Returns those of `imported` that `component` may not import."""
    wrong = []
    for name in imported:
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package != "tfvae" or target == component:
            continue
        if target not in LEVELS or LEVELS[target] >= LEVELS[component]:
            wrong.append(name)
    return wrong


def _within(name: str, fence: str) -> bool:
    return name == fence or name.startswith(fence + ".")


class LayeringTest(parameterized.TestCase):
    def test_every_component_has_a_level(self):
        components = {_component(name) for name in _sources_of("tfvae")}
        self.assertEmpty(components - set(LEVELS) - {"__init__"})
        self.assertEmpty(set(WITHOUT_PAPERS) - components)

    def test_imports_point_downward(self):
        for name, tree in _sources_of("tfvae").items():
            component = _component(name)
            if component == "__init__":
                continue
            with self.subTest(name):
                imported = list(_imported(tree))
                self.assertEmpty(_upward_imports(component, imported))

    @parameterized.parameters(*PACKAGES.items())
    def test_packages_of_a_clone_import_downward(self, package, allowed):
        sources = _sources_of(package)
        self.assertNotEmpty(sources)
        for name, tree in sources.items():
            with self.subTest(name):
                found = {one.partition(".")[0] for one in _imported(tree)}
                self.assertEmpty(found & set(PACKAGES) - allowed)

    def test_what_runs_and_compares_knows_no_paper(self):
        for name in _sources_of("tfvae"):
            if _component(name) in WITHOUT_PAPERS:
                with self.subTest(name):
                    self.assertNotRegex((ROOT / name).read_text(), PAPERS)

    def test_names_of_tasks_are_known_to_tasks_only(self):
        for name, tree in _sources_of("tfvae").items():
            if not name.startswith(NAMES_TASKS):
                with self.subTest(name):
                    self.assertEmpty(TASKS & set(_texts(tree)))

    @parameterized.parameters(
        ("ops", ["tfvae.tvae.model.TVAE"], False),
        ("networks", ["tfvae.priors.base"], False),
        ("networks", ["tfvae.ops.bits", "tfvae.networks.conv", "numpy"], True),
        ("tvae", ["tfvae.unheard_of"], False),
        ("runs", ["tfvae.serving.export_saved_model"], True),
    )
    def test_rule_separates_right_from_wrong(
        self, component, imported, allowed
    ):
        self.assertEqual(not _upward_imports(component, imported), allowed)

    @parameterized.parameters(*FENCED_IMPORTS.items())
    def test_library_is_imported_in_its_place_only(self, fence, allowed):
        for name, tree in _sources().items():
            if any(_within(one, fence) for one in _imported(tree)):
                self.assertStartsWith(name, allowed)

    @parameterized.parameters(*FENCED_CALLS.items())
    def test_gin_state_is_touched_in_its_place_only(self, fence, allowed):
        for name, tree in _sources().items():
            if fence in _attributes(tree):
                self.assertStartsWith(name, allowed)


if __name__ == "__main__":
    absltest.main()
