# SPDX-License-Identifier: Apache-2.0
"""The documentation site builds, is whole, and needs no network."""

from __future__ import annotations

import functools
import html.parser
import importlib.util
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import types
import unittest
import urllib.parse

import pytest
from absl.testing import absltest, parameterized

import tfvae

ROOT = pathlib.Path(__file__).parents[1]
SITE = ROOT / "build" / "docs"
TUTORIALS = ROOT / "docs" / "tutorials"
_FETCHES = ("audio", "iframe", "img", "link", "script", "source", "video")


class _Page(html.parser.HTMLParser):
    """What a page links to, fetches, and can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.fetched = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in _FETCHES:
            self.fetched += [found.get("src"), found.get("href")]


def _reference():
    """Returns the modules and classes that the pages of the reference have."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return set(re.findall(r"^\.\. auto(?:module|class):: (\S+)$", text, re.M))


class ReferenceTest(absltest.TestCase):
    def test_has_every_module_that_tfvae_exports(self):
        stub = (ROOT / "tfvae" / "__init__.pyi").read_text(encoding="utf-8")
        modules = {
            f"tfvae.{name}"
            for name in re.findall(r"^    (\w+) as \w+,$", stub, re.M)
        }
        self.assertGreater(len(modules), 20)
        parts = {f"tfvae.ops.{name}" for name in tfvae.ops.__all__}
        self.assertEmpty((modules - {"tfvae.ops"} | parts) - _reference())


def _cells(program):
    """Returns the cells of a program in the percent format, as in notebooks."""
    text = (TUTORIALS / f"{program}.py").read_text(encoding="utf-8")
    for cell in re.split(r"^# %% *", text, flags=re.MULTILINE)[1:]:
        kind, _, source = cell.partition("\n")
        if kind == "[markdown]":
            yield "markdown", re.sub("^# ?", "", source, flags=re.M).strip()
        else:
            yield "code", source.strip()


class TutorialTest(parameterized.TestCase):
    def test_all_are_in_the_navigation(self):
        names = {path.stem for path in TUTORIALS.glob("*.py")}
        index = (TUTORIALS / "index.md").read_text(encoding="utf-8")
        self.assertNotEmpty(names)
        self.assertEmpty(names - {*index.splitlines()})

    @parameterized.parameters(path.stem for path in TUTORIALS.glob("*.py"))
    def test_notebook_is_what_its_program_has_printed_and_drawn(self, name):
        path = TUTORIALS / f"{name}.ipynb"
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        self.assertEqual(
            [(one["cell_type"], "".join(one["source"])) for one in cells],
            [*_cells(name)],
            "`make tutorials` writes the notebooks anew",
        )
        outputs = [out for one in cells for out in one.get("outputs", ())]
        kinds = {out["output_type"] for out in outputs}
        self.assertContainsSubset({"display_data", "stream"}, kinds)
        self.assertNotIn("error", kinds)
        self.assertLess(path.stat().st_size, 600_000)

    def test_all_run_in_a_slow_test(self):
        tested = {name for name in dir(self) if name.startswith("test_runs_")}
        names = {f"test_runs_{path.stem}" for path in TUTORIALS.glob("*.py")}
        self.assertEqual(tested, names)

    @pytest.mark.slow
    def test_runs_photograph(self):
        printed = _run("photograph", EPOCHS=6)
        noisy, restored = re.findall(r"picture: +([\d.]+) dB", printed)
        self.assertGreater(float(restored), float(noisy) + 4.0)

    @pytest.mark.slow
    def test_runs_text(self):
        printed = _run("text", EPOCHS=100, BUDGET=20)
        known = re.search(r"best so far: \w+ with ([\d.]+)", printed)[1]
        found = re.search(r"best of the search: ([\d.]+)", printed)[1]
        self.assertGreater(float(found), float(known))

    @pytest.mark.slow
    def test_runs_causes(self):
        printed = _run("causes", CYCLES=4, PATCHES=300, EPOCHS=2)
        exact = float(re.search(r"exact: (\S+) nats", printed)[1])
        for bound in re.findall(r"steps: bound (\S+),", printed):
            self.assertGreaterEqual(exact + 1e-3, float(bound))
        gaps = [float(one) for one in re.findall(r"states: gap (\S+)", printed)]
        self.assertLen(gaps, 6)
        for more, fewer in itertools.pairwise(gaps):
            self.assertLess(fewer, more + 1e-5)
        self.assertRegex(printed, r"[1-8] of 8 bars found")

    @pytest.mark.slow
    def test_runs_random_encoders(self):
        printed = _run("random_encoders", EPOCHS=2)
        row = r"^(learned|half frozen|frozen|kitchen sinks) +(normal|6 flows) "
        self.assertLen(re.findall(row, printed, re.M), 8)
        # What is frozen has nothing to train.
        counts = re.findall(r"an epoch, ([\d,]+) parameters", printed)
        learned, frozen, cached = (int(n.replace(",", "")) for n in counts)
        self.assertLess(frozen, learned)
        self.assertEqual(frozen, cached)

    @pytest.mark.slow
    def test_runs_ask_and_tell(self):
        printed = _run("ask_and_tell", BUDGET=8, STEPS=20)
        pending, at_work = re.search(
            r"^pending \[(.*)\], at the coater \[(.*)\]$", printed, re.M
        ).groups()
        self.assertEqual(pending, at_work)
        self.assertNotEmpty(pending)
        order = re.search(r"order of the results: (.*)", printed)[1].split()
        self.assertNotEqual(order, sorted(order))
        self.assertLen(set(order), 8)
        self.assertEqual(printed.count("error: "), 2)

    @pytest.mark.slow
    def test_runs_your_own_parts(self):
        printed = _run("your_own_parts", EPOCHS=4, BUDGET=3)
        self.assertIn("integral of the density: 1.0000", printed)
        self.assertIn("same reconstructions: True", printed)
        drawn, known = re.findall(
            r"(?:prior's draws|distribution): ([\d.]+)", printed
        )
        self.assertAlmostEqual(float(drawn), float(known), delta=0.1)
        self.assertLen(re.findall(r"^best of ", printed, re.M), 2)

    @pytest.mark.slow
    def test_runs_serving(self):
        printed = _run("serving", EPOCHS=2)
        difference = re.search(r"largest difference: (\S+)", printed)[1]
        self.assertLess(float(difference), 1e-4)
        self.assertIn("signatures: decode, encode, ", printed)
        self.assertLen(re.findall(r"^response: ", printed, re.M), 3)
        self.assertIn("versions: ['1', '2']", printed)

    @pytest.mark.slow
    def test_runs_many_processes(self):
        printed = _run("many_processes", PATCHES=600, EPOCHS=1)
        if "no MPI here" not in printed:
            self.assertRegex(printed, r"rows-000001-0-of-2\.npz")
        change = re.search(r"change of processes: (\S+) -> (\S+)", printed)
        self.assertGreater(float(change[2]), float(change[1]))
        self.assertIn("2 replicas, bound", printed)


def _run(name, **settings):
    """Runs a tutorial, with other constants; returns what it prints."""
    program = (TUTORIALS / f"{name}.py").read_text(encoding="utf-8")
    for key, value in settings.items():
        program, count = re.subn(
            rf"^{key} = \d+", f"{key} = {value}", program, flags=re.M
        )
        if count != 1:
            raise AssertionError(f"{name}.py must set {key} once, got {count}")
    ended = subprocess.run(
        [sys.executable, "-"],
        input=program,
        env={
            **os.environ,
            "MPLBACKEND": "Agg",
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise AssertionError(ended.stderr)
    return ended.stdout


@pytest.mark.slow
class SiteTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if importlib.util.find_spec("sphinx") is None:
            reason = "Sphinx is not installed: pip install 'tfvae[docs]'"
            if os.environ.get("CI"):
                raise RuntimeError(reason)
            raise unittest.SkipTest(reason)
        cls.built = subprocess.run(
            ["make", "docs", f"PYTHON={sys.executable}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    @functools.cached_property
    def pages(self):
        return {
            path: _Page(path.read_text(encoding="utf-8"))
            for path in SITE.rglob("*.html")
            if "_static" not in path.parts
        }

    def test_builds_without_warnings(self):
        self.assertEqual(self.built.returncode, 0, self.built.stderr)
        self.assertEmpty(self.built.stderr)

    def test_links_lead_to_pages_and_places_that_exist(self):
        checked = 0
        for path, page in self.pages.items():
            for link in page.links:
                url = urllib.parse.urlsplit(link)
                if url.scheme or link == "#":
                    continue
                name = urllib.parse.unquote(url.path)
                target = (path.parent / name).resolve() if name else path
                where = f"{path.relative_to(SITE)} -> {link}"
                self.assertTrue(target.is_file(), where)
                if url.fragment and target in self.pages:
                    place = urllib.parse.unquote(url.fragment)
                    self.assertIn(place, self.pages[target].anchors, where)
                checked += 1
        self.assertGreater(checked, 1000)

    def test_needs_no_network(self):
        for path, page in self.pages.items():
            for url in filter(None, page.fetched):
                self.assertNotRegex(url, r"^(https?:)?//", path)
        for path in SITE.rglob("*.css"):
            text = path.read_text(encoding="utf-8")
            self.assertNotRegex(text, r"(url\(|@import)\W*(https?:)?//", path)

    def test_lines_of_derivations_link_to_the_reference(self):
        for path in (ROOT / "docs" / "how").glob("*.md"):
            text = path.read_text(encoding="utf-8")
            names = set(re.findall(r"`(tfvae(?:\.\w+)+)`", text))
            links = self.pages[SITE / "how" / f"{path.stem}.html"].links
            found = {urllib.parse.urlsplit(link).fragment for link in links}
            self.assertEmpty(names - found, path.name)

    def test_reference_has_every_public_name(self):
        anchors = set().union(*(one.anchors for one in self.pages.values()))
        last = {str(one).rpartition(".")[2] for one in anchors}
        public = {
            name
            for name in tfvae.__all__
            if not isinstance(getattr(tfvae, name), str | types.ModuleType)
        }
        self.assertEmpty(public - last)
        for package in (tfvae.vae, tfvae.lso, tfvae.data, tfvae.plots):
            classes = {
                name
                for name in package.__all__
                if isinstance(getattr(package, name), type)
            }
            self.assertNotEmpty(classes)
            missing = {f"{package.__name__}.{name}" for name in classes}
            self.assertEmpty(missing - anchors)


if __name__ == "__main__":
    absltest.main()
