# SPDX-License-Identifier: Apache-2.0
"""The page of a restoration in headless Chromium, opened from disk.

To look at its screenshots, name a folder for them:
    SCREENSHOTS=shots python -m pytest -m slow -k in_browser tests/runs
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.runs import browser
from tests.runs import test_restoration_page as pages
from tests.runs.browser import DESKTOP, PHONE
from tfvae.runs import restoration_page


@pytest.mark.slow
class BrowserTest(browser.Case):
    def _open(self, made, size=DESKTOP, scheme="light"):
        """Opens a page from disk, in a window of a size and colour scheme."""
        text = restoration_page.page(made._replace(rows=pages.ROWS))
        return self.open_text(text, size, scheme)

    def _divider(self):
        """Returns where the divider is, 0..1, as it is drawn."""
        return self.run_script(
            "const stage = document.querySelector('.stage');"
            "const box = stage.getBoundingClientRect();"
            "const line = stage.querySelector('.divider');"
            "const at = line.getBoundingClientRect();"
            "return (at.left + at.width / 2 - box.left) / box.width;"
        )

    def _clip(self):
        """Returns how much of the left picture is hidden."""
        return self.run_script(
            "return getComputedStyle("
            "document.querySelector('.layer.left')).clipPath"
        )

    def test_slider_follows_mouse_and_keyboard(self):
        from selenium.webdriver import ActionChains, Keys

        address = self._open(
            pages.example(self.folder, size=(256, 320), name=pages.NASTY)
        )
        self.assertAllClose(self._divider(), 0.5, atol=0.01)
        stage, slider = self.find(".stage"), self.find(".stage input")
        # The keyboard alone reaches it.
        ActionChains(self.driver).send_keys(Keys.TAB).perform()
        self.assertEqual(self.driver.switch_to.active_element, slider)
        ring = stage.value_of_css_property("outline-style")
        self.assertEqual(ring, "solid")
        width = stage.size["width"]
        ActionChains(self.driver).move_to_element(
            stage
        ).click_and_hold().move_by_offset(width // 4, 30).release().perform()
        self.assertAllClose(self._divider(), 0.75, atol=0.01)
        self.assertRegex(self._clip(), r"inset\(0px calc\(25%|inset\(0px 25%")
        ActionChains(self.driver).move_by_offset(-50, 0).perform()
        self.assertAllClose(self._divider(), 0.75, atol=0.01)  # Let go.
        for keys, place in (
            (Keys.ARROW_LEFT, 0.74),
            (Keys.HOME, 0.0),
            (Keys.END, 1.0),
        ):
            ActionChains(self.driver).send_keys(keys).perform()
            self.assertAllClose(self._divider(), place, atol=0.011)
        self.assert_silent(address)

    def test_views_can_be_chosen_by_keyboard(self):
        from selenium.webdriver import ActionChains, Keys

        address = self._open(pages.example(self.folder, 3, size=(120, 160)))
        tags = [self.find(f".tag.{side}") for side in ("left", "right")]
        self.assertEqual([t.text for t in tags], ["Before", "Restored"])
        ActionChains(self.driver).send_keys(Keys.TAB, Keys.TAB).perform()
        ActionChains(self.driver).send_keys(Keys.ARROW_RIGHT).perform()
        self.assertEqual([t.text for t in tags], ["Restored", "Clean"])
        self.assertEqual(
            [
                self.find(f".layer.{side}").get_attribute("data-view")
                for side in ("left", "right")
            ],
            ["after", "clean"],
        )
        self.assertIn(
            "Restored (left) and Clean (right)",
            self.find(".stage input").get_attribute("aria-label"),
        )
        self.assert_silent(address)

    def test_slider_follows_a_finger(self):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions import interaction
        from selenium.webdriver.common.actions.action_builder import (
            ActionBuilder,
        )
        from selenium.webdriver.common.actions.pointer_input import (
            PointerInput,
        )

        self._open(pages.example(self.folder, size=(256, 320)), PHONE)
        stage = self.find(".stage")
        finger = PointerInput(interaction.POINTER_TOUCH, "finger")
        actions = ActionBuilder(self.driver, mouse=finger)
        touch = ActionChains(self.driver)
        touch.w3c_actions = actions
        width = stage.size["width"]
        actions.pointer_action.move_to(stage, 0, 0).pointer_down()
        for _ in range(4):
            actions.pointer_action.move_by(-width // 16, 0)
        actions.pointer_action.pointer_up()
        touch.perform()
        self.assertAllClose(self._divider(), 0.25, atol=0.03)

    def test_page_fits_and_follows_the_colour_scheme(self):
        np.save(
            self.folder / "uncertainty.npy",
            np.random.default_rng(0).uniform(0.0, 20.0, (64, 80)),
        )
        grey = pages.example(self.folder, size=(384, 512))
        long_name = pages.example(self.folder, 3, name="scan_" * 30)
        for name, made, size, scheme in (
            ("desktop_light", grey, DESKTOP, "light"),
            ("desktop_dark", grey, DESKTOP, "dark"),
            ("phone_light", grey, PHONE, "light"),
            ("phone_dark", long_name, PHONE, "dark"),
        ):
            with self.subTest(name):
                address = self._open(made, size, scheme)
                self.assert_fits()
                shown = self.shoot(name)
                corner = float(shown[-2, 2].mean())
                self.assertBetween(
                    corner, *((0, 60), (200, 255))[scheme == "light"]
                )
                self.assert_silent(address)
                self.assert_accessible()


if __name__ == "__main__":
    tf.test.main()
