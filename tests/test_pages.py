# SPDX-License-Identifier: Apache-2.0
"""Pages of the documentation say what is there, and are a click or two away."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import pkgutil
import re
import sys

import pytest
from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
GALLERY = DOCS / "gallery"
HOW = sorted(path for path in (DOCS / "how").glob("*.md"))
_NAME = re.compile(r"`(tfvae(?:\.\w+)+)`")
_LINK = re.compile(r"\]\(([^)#\s]+\.(?:md|ipynb))(?:#[^)]*)?\)")


def _text(path):
    return path.read_text(encoding="utf-8")


def _make():
    """Returns the program that makes the gallery, as a module."""
    spec = importlib.util.spec_from_file_location("make", GALLERY / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    spec.loader.exec_module(module)
    return module


def _links(page):
    """Returns the pages that a page links to, in order."""
    found = [page.parent / name for name in _LINK.findall(_text(page))]
    return [path.resolve() for path in found]


def _clicks(start):
    """Returns the least number of clicks to each page from one."""
    clicks, pages = {start: 0}, [start]
    for page in pages:
        for target in _links(page) if page.suffix == ".md" else ():
            if target not in clicks:
                clicks[target] = clicks[page] + 1
                pages.append(target)
    return clicks


class NamesTest(parameterized.TestCase):
    @parameterized.parameters(
        *(path.name for path in HOW if path.stem != "index")
    )
    def test_each_line_of_a_derivation_has_functions_that_exist(self, page):
        text = _text(DOCS / "how" / page)
        _, found, table = text.partition("## Line by line\n")
        self.assertTrue(found)
        rows = re.findall(r"^\| (?!line \||---)(.+) \| (.+) \|$", table, re.M)
        self.assertGreater(len(rows), 8)
        for line, functions in rows:
            with self.subTest(line):
                self.assertNotEmpty(_NAME.findall(functions))

    @parameterized.parameters(
        *(path.relative_to(DOCS).as_posix() for path in HOW), "code_map.md"
    )
    def test_names_exist(self, page):
        for name in _NAME.findall(_text(DOCS / page)):
            pkgutil.resolve_name(name)

    def test_code_map_names_files_that_exist(self):
        text = _text(DOCS / "code_map.md")
        rows = re.findall(r"^\| (?!to change|---).+\|$", text, re.M)
        self.assertGreaterEqual(len(rows), 20)
        for name in re.findall(r"`((?:docs|papers|tests)/[\w/.]*)`", text):
            self.assertTrue((ROOT / name).exists(), name)


class TasksTest(absltest.TestCase):
    def test_answers_are_two_clicks_from_the_readme(self):
        page = DOCS / "tasks.md"
        table, found, _ = _text(page).partition("## The result is wrong")
        self.assertTrue(found)
        rows = re.findall(r"^\| (?!I want)(.+?) \| (.+?) \| .+\|$", table, re.M)
        self.assertLen(rows, 10)
        clicks = _clicks(ROOT / "README.md")
        for task, answer in rows:
            with self.subTest(task):
                pages = [page.parent / name for name in _LINK.findall(answer)]
                for one in pages or [page]:
                    self.assertTrue(one.exists(), one)
                    self.assertLessEqual(clicks[one.resolve()], 2)


class GalleryTest(absltest.TestCase):
    def test_is_what_its_program_has_made(self):
        make = _make()
        record = json.loads(_text(GALLERY / "gallery.json"))
        self.assertEqual(_text(GALLERY / "index.md"), make.page(record))
        for entry in make.ENTRIES:
            with self.subTest(entry.name):
                self.assertTrue(
                    make.made(entry, record, GALLERY),
                    "`make gallery` makes what is missing",
                )
        sizes = [path.stat().st_size for path in GALLERY.glob("*.webp")]
        self.assertLess(sum(sizes), 1_000_000)

    def test_makes_nothing_again(self):
        with pytest.MonkeyPatch.context() as patch:
            make = _make()
            patch.setattr(make, "make", lambda *_: self.fail("made again"))
            before = _text(GALLERY / "index.md")
            self.assertEqual(make.main([]), 0)
        self.assertEqual(_text(GALLERY / "index.md"), before)

    @pytest.mark.slow
    def test_quick_runs_make_all_entries(self):
        make = _make()
        folder = pathlib.Path(self.create_tempdir().full_path)
        argv = ["--quick", f"--output={folder / 'made'}", f"--runs={folder}"]
        self.assertEqual(make.main(argv), 0)
        record = json.loads(_text(folder / "made" / "gallery.json"))
        self.assertEqual([*record], [entry.name for entry in make.ENTRIES])
        for entry in make.ENTRIES:
            self.assertLen(record[entry.name]["figures"], len(entry.figures))


if __name__ == "__main__":
    absltest.main()
