# SPDX-License-Identifier: Apache-2.0
"""The page of a training run in headless Chromium, opened from disk.

To look at its screenshots, name a folder for them:
    SCREENSHOTS=shots python -m pytest -m slow -k in_browser tests/runs
"""

from __future__ import annotations

import pytest
from absl.testing import absltest

from tests.runs import browser
from tests.runs.browser import LOOKS
from tests.runs.test_training_page import fill, outcome
from tfvae.runs import training_page


@pytest.mark.slow
class BrowserTest(browser.Case):
    def _open(self, *look):
        run = self.folder / "run"
        if not run.exists():
            fill(run)
        return self.open_text(training_page.page(outcome(run)), *look)

    def test_curves_are_read_by_mouse_and_keyboard(self):
        from selenium.webdriver import ActionChains, Keys

        address = self._open()
        area = self.find("#bound-chart .area")
        reading = self.find("#bound-chart .reading")
        self.assertEqual(reading.text, "")
        ActionChains(self.driver).move_to_element(area).perform()
        expected = "epoch 3\ntraining data: -16.6667\ntest data: -20"
        self.assertEqual(reading.text, expected)
        ActionChains(self.driver).move_to_element(self.find("h1")).perform()
        self.assertEqual(reading.text, "")
        self.run_script("arguments[0].focus()", area)
        for keys, first in (
            (Keys.END, "epoch 5"),
            (Keys.ARROW_RIGHT, "epoch 5"),
            (Keys.ARROW_LEFT, "epoch 4\ntraining data: -12.5"),
            (Keys.HOME, "epoch 1"),
        ):
            ActionChains(self.driver).send_keys(keys).perform()
            self.assertStartsWith(reading.text, first)
        ActionChains(self.driver).send_keys(Keys.ESCAPE).perform()
        self.assertEqual(reading.text, "")
        self.find("#bound summary").click()
        self.assertTrue(self.find("#bound table").is_displayed())
        self.assert_silent(address)

    def test_epochs_are_sorted_by_keyboard(self):
        from selenium.webdriver import ActionChains, Keys

        address = self._open()
        button = self.find("#epochs th:nth-child(2) button")
        self.run_script("arguments[0].focus()", button)
        ActionChains(self.driver).send_keys(Keys.ENTER, Keys.ENTER).perform()
        head = self.find("#epochs th:nth-child(2)")
        self.assertEqual(head.get_attribute("aria-sort"), "descending")
        found = self.run_script(
            "return [...document.querySelectorAll('#epochs tbody tr')]"
            ".map((row) => row.cells[0].textContent).join()"
        )
        self.assertEqual(found, "5,4,3,2,1")
        self.assert_silent(address)

    def test_page_fits_and_is_accessible(self):
        for size, scheme in LOOKS:
            with self.subTest(scheme, size=size):
                address = self._open(size, scheme)
                self.assert_fits()
                shown = self.shoot(f"training_{size[0]}_{scheme}")
                self.assertEqual(shown[-2, 2].mean() > 128, scheme == "light")
                self.assert_silent(address)
                self.assert_accessible()


if __name__ == "__main__":
    absltest.main()
