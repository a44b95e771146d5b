# SPDX-License-Identifier: Apache-2.0
"""Imports point downward, and some libraries stay behind one module."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).parents[1]

# A component is a module or a package directly below tfvae. It imports
# components of lower levels and itself, nothing else of tfvae.
LEVELS = {
    "files": 0,
    "inputs": 0,
    "ops": 0,
    "processes": 0,
    "resources": 0,
    "settings": 0,
    "data": 1,
    "likelihoods": 1,
    "networks": 1,
    "optimizers": 1,
    "plots": 1,
    "priors": 1,
    "schedules": 1,
    "latent_model": 2,
    "metrics": 2,
    "tvae": 3,
    "vae": 3,
    "callbacks": 4,
    "checkpoints": 4,
    "restoration": 4,
    "serving": 4,
    "lso": 5,
    "runs": 6,
    "sweeps": 7,
}

# What is fenced -> the path prefixes below the root that may use it.
FENCED_IMPORTS = {
    "absl.flags": ("tools/",),
    "fcntl": (),
    "matplotlib": ("tfvae/plots/",),
    "multiprocessing": (),
    "rdkit": ("tfvae/lso/tasks/molecules.py", "tfvae/data/selfies.py"),
    "sklearn": (
        "tfvae/data/digits.py",
        "tfvae/lso/gaussian_fit.py",
        "tfvae/lso/surrogates.py",
    ),
    "subprocess": ("tfvae/processes.py",),
    "tensorflow_datasets": ("tfvae/data/tfds.py",),
    "tensorflow_probability": (
        "tfvae/priors/",
        "tfvae/lso/collapsed_bound.py",
        "tfvae/lso/improvement.py",
    ),
}
FENCED_CALLS = {
    "gin.clear_config": ("tfvae/runs/config.py",),
    "gin.configurable": ("tfvae/runs/", "tfvae/sweeps/", "benchmarks/"),
    "gin.finalize": ("tfvae/runs/config.py",),
    "gin.parse_config": ("tfvae/runs/config.py",),
    "gin.parse_config_file": ("tfvae/runs/config.py",),
    "gin.parse_config_files_and_bindings": ("tfvae/runs/config.py",),
    "gin.query_parameter": ("tfvae/runs/config.py",),
    "gin.unlock_config": ("tfvae/runs/config.py",),
}


def _sources() -> list[pathlib.Path]:
    return sorted(
        path
        for folder in ("benchmarks", "papers", "tfvae", "tools")
        for path in (ROOT / folder).rglob("*.py")
    )


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


def _component(path: pathlib.Path) -> str:
    return path.relative_to(ROOT / "tfvae").parts[0].removesuffix(".py")


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
        components = {
            _component(path)
            for path in _sources()
            if path.is_relative_to(ROOT / "tfvae")
        }
        self.assertEmpty(components - set(LEVELS) - {"__init__"})

    def test_imports_point_downward(self):
        for path in _sources():
            if not path.is_relative_to(ROOT / "tfvae"):
                continue
            component = _component(path)
            if component == "__init__":
                continue
            with self.subTest(str(path.relative_to(ROOT))):
                imported = list(_imported(ast.parse(path.read_text())))
                self.assertEmpty(_upward_imports(component, imported))

    @parameterized.parameters(
        ("ops", ["tfvae.tvae.model.TVAE"], False),
        ("networks", ["tfvae.priors.base"], False),
        ("networks", ["tfvae.ops.bits", "tfvae.networks.conv", "numpy"], True),
        ("tvae", ["tfvae.unheard_of"], False),
        ("runs", ["tfvae.serving.export_saved_model"], True),
    )
    def test_rule_tells_right_from_wrong(self, component, imported, allowed):
        self.assertEqual(not _upward_imports(component, imported), allowed)

    @parameterized.parameters(*FENCED_IMPORTS.items())
    def test_library_is_imported_in_its_place_only(self, fence, allowed):
        for path in _sources():
            name = path.relative_to(ROOT).as_posix()
            imported = _imported(ast.parse(path.read_text()))
            if any(_within(one, fence) for one in imported):
                self.assertStartsWith(name, allowed)

    @parameterized.parameters(*FENCED_CALLS.items())
    def test_gin_state_is_touched_in_its_place_only(self, fence, allowed):
        for path in _sources():
            name = path.relative_to(ROOT).as_posix()
            if fence in _attributes(ast.parse(path.read_text())):
                self.assertStartsWith(name, allowed)


if __name__ == "__main__":
    absltest.main()
