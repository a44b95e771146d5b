# SPDX-License-Identifier: Apache-2.0
"""The page of an optimisation in headless Chromium, opened from disk.

To look at its screenshots, name a folder for them:
    SCREENSHOTS=shots python -m pytest -m slow -k in_browser tests/runs
"""

from __future__ import annotations

import datetime

import numpy as np
import pytest
import tensorflow as tf

from tests.lso import tiny
from tests.runs import browser
from tests.runs.browser import DESKTOP, LOOKS, PHONE
from tfvae.lso.ledger import Ledger
from tfvae.lso.records import Measurement, Proposal, Query, Round
from tfvae.lso.round_table import RoundTable
from tfvae.runs import (
    optimization_page,
    optimization_results,
    optimization_state,
)

_NASTY = "<b>&\"'</b>"


def _fill(folder, make, count=40):
    """Writes a run with failures, constraints and pending queries."""
    rng = np.random.default_rng(0)
    header = {
        "task": f"peptides {_NASTY}",
        "maximise": True,
        "budget": 60,
        "queries_per_round": 10,
        "score_label": "yield / %",
        "best_in_data": 41.5,
        "optimum": 100.0,
        "seed": 0,
        "surrogate": "SparseGaussianProcess(num_inducing=500, steps=60)",
    }
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    folder.mkdir()
    with Ledger(folder / "ledger.jsonl", header) as ledger:
        for number in range(count):
            if number % 10 == 0:
                ledger.append(Round(number // 10))
            one = make(number)
            query = Query(number, number // 10, [0.0], one, 0)
            ledger.append(Proposal([query]))
            if number >= count - 3:
                continue
            time = start + datetime.timedelta(minutes=7 * number)
            score = 40.0 + 0.6 * number + 6.0 * rng.normal()
            failure = None
            if number % 9 == 4:
                score, failure = None, f"RuntimeError: {_NASTY} pump stopped"
            constraints = {"pressure": float(rng.normal() - 1.0)}
            ledger.append(
                Measurement(
                    number,
                    score,
                    failure,
                    constraints if failure is None else None,
                    410.0,
                    time.isoformat(),
                )
            )
    table = RoundTable(folder / "rounds.csv")
    table._spent |= {"retrain": 340.0, "fit": 95.0, "evaluate": 15170.0}
    table.update(0)


def _text(number):
    letters = "ACDEFGHIKLMNPQRSTVWY"
    return "".join(letters[(number * k) % 20] for k in range(1, 14)) + (
        _NASTY if number == 30 else ""
    )


def _picture(number):
    return [[float(number) / 40.0]]


@pytest.mark.slow
class BrowserTest(browser.Case):
    def _open(
        self, make, size=DESKTOP, scheme="light", *, count=40, name="lab"
    ):
        run_dir = self.folder / name
        if not run_dir.exists():
            _fill(run_dir, make, count)
        state = optimization_state.read(run_dir)
        if make is _picture:
            task = tiny.task(from_json=np.array, to_picture=_drawn)
            optimization_results.update_pictures(state, task)
        return self.open_text(optimization_page.page(state), size, scheme)

    def _shown(self):
        """Returns the first cells of the rows that are shown."""
        return self.run_script(
            "return [...document.querySelectorAll('#queries tbody tr')]"
            ".filter((row) => row.offsetParent !== null)"
            ".map((row) => row.cells[0].textContent)"
        )

    def test_queries_can_be_sorted_and_filtered_by_keyboard(self):
        from selenium.webdriver import ActionChains, Keys

        address = self._open(_text)
        self.assertLen(self._shown(), 37)
        score = self.find("#queries th:nth-child(3) button")
        self.run_script("arguments[0].focus()", score)
        scores = []
        for order in ("ascending", "descending"):
            ActionChains(self.driver).send_keys(Keys.ENTER).perform()
            head = self.find("#queries th:nth-child(3)")
            self.assertEqual(head.get_attribute("aria-sort"), order)
            found = self.run_script(
                "return [...document.querySelectorAll('#queries tbody tr')]"
                ".map((row) => row.cells[2].dataset.value)"
            )
            # Failures are last in both orders.
            self.assertEqual({*found[-4:]}, {""})
            scores.append([float(one) for one in found[:-4]])
        self.assertEqual(scores[0], sorted(scores[0]))
        self.assertEqual(scores[1], scores[0][::-1])
        find = self.find("#find")
        find.send_keys("PUMP")
        self.assertLen(self._shown(), 4)
        self.assertEqual(self.find("#count").text, "4 of 37 shown")
        find.clear()
        find.send_keys("x", Keys.BACKSPACE)
        self.assertLen(self._shown(), 37)
        self.run_script("document.querySelector('#show').focus()")
        ActionChains(self.driver).send_keys("f").perform()
        self.assertLen(self._shown(), 4)
        self.assert_silent(address)

    def test_page_fits_and_follows_the_colour_scheme(self):
        for name, make, size, scheme in (
            *(
                (f"texts_{size[0]}_{scheme}", _text, size, scheme)
                for size, scheme in LOOKS
            ),
            ("pictures_desktop_light", _picture, DESKTOP, "light"),
            ("pictures_phone_light", _picture, PHONE, "light"),
        ):
            with self.subTest(name):
                kind = name.partition("_")[0]
                address = self._open(make, size, scheme, name=kind)
                self.assert_fits()
                shown = self.shoot(f"optimization_{name}")
                corner = float(shown[-2, 2].mean())
                self.assertBetween(
                    corner, *((0, 60), (200, 255))[scheme == "light"]
                )
                self.assert_silent(address)
                self.assert_accessible()

    def test_page_of_thousands_of_queries_opens(self):
        address = self._open(_text, count=3000)
        self.assertLen(self._shown(), 2997)
        self.shoot("optimization_thousands")
        self.assert_silent(address)


def _drawn(one):
    """Returns a picture of a square whose side is the input."""
    ticks = np.linspace(0.0, 1.0, 16)
    return ((ticks[:, None] < one[0][0]) & (ticks < one[0][0])).astype(float)


if __name__ == "__main__":
    tf.test.main()
