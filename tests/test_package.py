# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import pathlib
import pickle
import re
import subprocess
import sys

from absl.testing import absltest, parameterized

import tfvae

ROOT = pathlib.Path(__file__).parents[1]


def _files(folder: pathlib.Path, pattern: str = "**/*") -> set[str]:
    """Returns the files of a folder, without what Python has compiled."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


class PackageTest(parameterized.TestCase):
    def test_every_public_name_is_there(self):
        for name in tfvae.__all__:
            self.assertTrue(hasattr(tfvae, name), name)

    def test_names_are_visible_and_can_be_pickled(self):
        self.assertContainsSubset(tfvae.__all__, dir(tfvae))
        self.assertIn("__version__", tfvae.__all__)
        for name in ("TVAE", "VAE", "RealNVPPrior", "Observations"):
            self.assertIn(name, dir(tfvae))
            found = getattr(tfvae, name)
            self.assertIs(pickle.loads(pickle.dumps(found)), found)
        with self.assertRaisesRegex(AttributeError, "nothing_like_this"):
            _ = tfvae.nothing_like_this

    def test_packages_list_all_that_their_stubs_import(self):
        # `attach_stub` goes by the imports, type checkers by `__all__`.
        for path in ROOT.glob("tfvae/**/__init__.pyi"):
            tree = ast.parse(path.read_text())
            imported = {
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
                if alias.asname is None
            }
            (listed,) = (
                ast.literal_eval(node.value)
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign)
            )
            self.assertCountEqual(set(listed) - {"__version__"}, imported)

    @parameterized.parameters("ops", "data", "lso", "lso/tasks")
    def test_lazy_packages_list_all_their_modules(self, package):
        # Otherwise `tfvae.ops.bits` would depend on what was imported before.
        folder = ROOT / "tfvae" / package
        tree = ast.parse((folder / "__init__.pyi").read_text())
        listed = {
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        modules = {path.stem for path in folder.glob("[a-z]*.py")}
        modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
        self.assertNotEmpty(modules)
        self.assertEmpty(modules - listed)

    def test_modules_are_found_before_anything_imports_them(self):
        script = (
            "import types, tfvae\n"
            "assert tfvae.ops.bits.packed_size(9) == 2\n"
            "assert tfvae.ops.frechet.__name__ == 'tfvae.ops.frechet'\n"
            "assert tfvae.data.images.Image is tfvae.data.Image\n"
            "assert tfvae.lso.tasks.grammar and tfvae.lso.strategies\n"
            "assert tfvae.inputs and tfvae.settings and tfvae.latent_model\n"
            # The functions of modules of the same name.
            "assert callable(tfvae.data.squares) and callable(tfvae.lso.shapes)"
            "\nassert isinstance(tfvae.lso.tasks.shapes, types.ModuleType)\n"
            "tfvae.TVAE, tfvae.VAE, tfvae.corrupted_image\n"
            # What none of these needs.
            "import sys\n"
            "for name in ('tensorflow_probability', 'tf_keras'):\n"
            "    assert name not in sys.modules, name\n"
            "assert 'tensorflow_datasets' not in sys.modules\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)

    @parameterized.parameters(
        ("import tfvae", ("tensorflow", "keras", "gin", "matplotlib")),
        ("import tfvae.lso.tasks.shapes", ("tensorflow", "keras", "scipy")),
        ("import tfvae.lso.tasks.expressions", ("tensorflow", "keras")),
        ("import tfvae.data; tfvae.data.bars", ("tensorflow", "keras")),
        (
            "import tfvae.runs.config",
            ("tensorflow_probability", "tf_keras", "tensorflow_datasets")
            + ("statsmodels", "rdkit"),
        ),
    )
    def test_import_loads_no_more_than_it_needs(self, statement, without):
        script = f"import sys\n{statement}\n"
        script += f"sys.exit([n for n in {without} if n in sys.modules] or 0)"
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)

    def test_installation_has_every_file_of_the_package(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        ended = subprocess.run(
            [sys.executable, "setup.py", "--quiet", "build_py"]
            + [f"--build-lib={folder}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        built = _files(folder)
        for name in ("page", "board"):
            for ending in ("html", "css", "js"):
                self.assertIn(f"tfvae/runs/{name}.{ending}", built)
        self.assertIn("tfvae/gin/quickstart.gin", built)
        self.assertEmpty(_files(ROOT, "tfvae/**/*") - built)

    def test_packaging_reads_the_same_version(self):
        # setup.py reads the version from the source: it can not import it.
        text = pathlib.Path(tfvae.__file__).read_text()
        found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
        self.assertEqual(found.group(1), tfvae.__version__)

    def test_every_source_file_names_the_licence(self):
        folders = ("tfvae", "tools", "tests", "benchmarks", "papers")
        for folder in (*folders, "examples"):
            for path in (ROOT / folder).rglob("*.py"):
                self.assertStartsWith(
                    path.read_text(), "# SPDX-License-Identifier: Apache-2.0\n"
                )


if __name__ == "__main__":
    absltest.main()
