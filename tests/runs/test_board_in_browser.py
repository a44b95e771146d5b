# SPDX-License-Identifier: Apache-2.0
"""The board in headless Chromium, with a run that trains beside it.

To look at its screenshots, name a folder for them:
    SCREENSHOTS=shots python -m pytest -m slow -k in_browser tests/runs
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from absl.testing import absltest
from PIL import Image

from tests.runs import browser, optimizations
from tests.runs.browser import LOOKS
from tests.runs.test_listing import train

ROOT = pathlib.Path(__file__).parents[2]
NASTY = "<b>&x'%23"
_SECONDS = 120.0


def fill(root):
    """Writes runs of all kinds and states."""
    summary = {"epochs": 3, "test_bound": -2.5, "training_seconds": 754.0}
    files = {"summary.json": json.dumps(summary), "report.html": "<p>page</p>"}
    train(root / "bars/seed 1", 3, 3, **files)
    train(root / "bars/seed 2", 9, 5)
    train(root / f"wrong {NASTY}", **{"error.log": f"ValueError: {NASTY}"})
    optimizations.write(root / "lab", [1.0, 3.0, None], [[0.1]] * 3)
    for name in ("a", "b", "c"):
        train(root / "grid/cells" / name)
    (root / "grid/cells/a/result.json").write_text("{}")
    cells = {"cells": [{"name": name} for name in "abc"]}
    (root / "grid/study.json").write_text(json.dumps(cells))
    (root / "bars/seed 1/figures").mkdir()
    for name in ("bound", "samples"):
        picture = np.random.default_rng(0).integers(0, 255, (60, 90, 3))
        Image.fromarray(picture.astype(np.uint8)).save(
            root / f"bars/seed 1/figures/{name}.png"
        )


@pytest.mark.slow
class BrowserTest(browser.Case):
    def setUp(self):
        super().setUp()
        self.root = self.folder / "runs"
        self.root.mkdir()
        self.board = subprocess.Popen(
            [sys.executable, "tools/board.py", self.root],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.board.stdout.close)
        self.addCleanup(self.board.wait, 20)
        self.addCleanup(self.board.send_signal, signal.SIGINT)
        line = self.board.stdout.readline()
        self.url = re.search(r"http://\S+/", line)[0]

    def until(self, script, *arguments):
        """Waits until a script returns something; returns it."""
        ends = time.monotonic() + _SECONDS
        while not (found := self.run_script(script, *arguments)):
            if time.monotonic() > ends:
                raise AssertionError(f"never: {script}")
            time.sleep(0.1)
        return found

    def open(self, path="", *look):
        self.open_address(self.url + path, *look)
        self.until(
            "return document.querySelector('#state').dataset.state === 'live'"
        )

    def names(self):
        """Returns the names of the rows that are shown."""
        return self.run_script(
            "return [...document.querySelectorAll('#runs tbody tr')]"
            ".map((row) => row.cells[0].firstChild.textContent)"
        )

    def assert_no_errors(self):
        self.assertEmpty(self.driver.get_log("browser"))

    def test_rows_are_sorted_and_filtered_by_keyboard(self):
        from selenium.webdriver import ActionChains, Keys

        fill(self.root)
        self.open()
        every = ["bars/seed 1", "bars/seed 2", "grid", "lab", f"wrong {NASTY}"]
        self.assertCountEqual(self.names(), every)
        head = self.find("button[data-key=path]")
        self.run_script("arguments[0].focus()", head)
        for order, expected in (
            ("ascending", every),
            ("descending", every[::-1]),
        ):
            ActionChains(self.driver).send_keys(Keys.ENTER).perform()
            self.assertEqual(
                head.find_element("xpath", "..").get_attribute("aria-sort"),
                order,
            )
            self.assertEqual(self.names(), expected)
        self.find("button[data-key=share]").click()
        self.assertEqual(self.names()[0], "grid")
        find = self.find("#find")
        find.send_keys("SEED")
        self.assertLen(self.names(), 2)
        self.assertEqual(self.find("#count").text, "2 of 5 shown")
        find.clear()
        find.send_keys("zzz")
        self.assertEqual(self.find("#none").text, "No run is like this.")
        find.clear()
        find.send_keys("x", Keys.BACKSPACE)
        self.run_script("document.querySelector('#shown').focus()")
        ActionChains(self.driver).send_keys("fail").perform()
        self.assertEqual(self.names(), [f"wrong {NASTY}"])
        self.assert_no_errors()

    def test_links_lead_to_pages_figures_and_cells(self):
        fill(self.root)
        self.open()
        button = self.find("[aria-label^='figures of bars/seed 1']")
        button.click()
        sizes = self.until(
            "const all = [...document.querySelectorAll('.pictures img')];"
            "return all.length && all.every((one) => one.naturalWidth)"
            " && all.map((one) => one.naturalWidth)"
        )
        self.assertEqual(sizes, [90, 90])
        self.shoot("board_figures")
        self.driver.find_element("link text", "bars/seed 1").click()
        self.assertEqual(self.find("p").text, "page")
        self.open()
        self.driver.find_element("link text", "cells").click()
        self.until("return document.querySelectorAll('#runs tbody tr').length")
        names = ["cells/a", "cells/b", "cells/c", "this folder"]
        self.assertCountEqual(self.names(), names)
        self.driver.find_element("link text", "all runs").click()
        self.until("return document.querySelectorAll('#runs tbody tr').length")
        self.assertLen(self.names(), 5)
        self.assert_no_errors()

    def test_page_fits_and_is_accessible(self):
        fill(self.root)
        for size, scheme in LOOKS:
            with self.subTest(scheme, size=size):
                self.open("", size, scheme)
                self.assert_fits()
                shown = self.shoot(f"board_{size[0]}_{scheme}")
                self.assertEqual(shown[-2, 2].mean() > 128, scheme == "light")
                self.assert_no_errors()
                self.assert_accessible()

    def test_empty_folder_and_a_board_that_has_ended_are_said(self):
        self.open()
        self.assertIn("no run in this folder yet", self.find("#none").text)
        self.board.send_signal(signal.SIGINT)
        self.assertEqual(self.board.wait(20), 0)
        self.until(
            "return document.querySelector('#state').dataset.state === 'lost'"
        )
        self.assertIn("has it been stopped?", self.find("#state").text)

    def test_thousands_of_runs_are_shown_in_pages(self):
        train(self.root / "0000")
        for number in range(1, 3000):
            shutil.copytree(self.root / "0000", self.root / f"{number:04d}")
        started = time.monotonic()
        self.open()
        print(f"3000 runs: {time.monotonic() - started:.1f} s until shown")
        self.find("button[data-key=path]").click()
        self.assertLen(self.names(), 100)
        self.find("#after").click()
        self.assertEqual(self.names()[0], "0100")
        self.assertEqual(self.find("#place").text, "page 2 of 30")
        self.find("#find").send_keys("299")
        self.assertLen(self.names(), 13)
        self.assert_no_errors()

    def test_run_that_trains_is_seen_to_move(self):
        with open(self.folder / "log", "w") as log:
            trained = subprocess.Popen(
                [sys.executable, "tools/train.py", "--gin_file=runs/bars.gin"]
                + ["--gin_param=fit.epochs=100000", "--run_dir"]
                + [self.root / "one"],
                cwd=ROOT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                stdout=log,
                stderr=log,
            )
        self.addCleanup(trained.wait)
        self.addCleanup(trained.kill)
        self.open()
        seen = []
        for _ in range(3):
            seen.append(
                self.until(
                    "const row = document.querySelector('#runs tbody tr');"
                    "const done = row && row.querySelector('progress');"
                    "return done && done.value > arguments[0]"
                    " && [done.value, row.querySelector('.badge').textContent]",
                    seen[-1][0] if seen else 0,
                )
            )
        print(f"epochs seen: {seen}")
        self.assertEqual({state for _, state in seen}, {"running"})
        self.shoot("board_live")
        self.open_address(f"{self.url}files/one/report.html")
        before = self.find(".state").text
        self.assertRegex(before, r"^unfinished epoch \d+ of 100000, ")
        trained.kill()
        trained.wait()
        self.open()
        self.until(
            "return document.querySelector('#runs .badge').textContent"
            " === 'interrupted'"
        )
        self.assert_no_errors()


if __name__ == "__main__":
    absltest.main()
