# SPDX-License-Identifier: Apache-2.0
"""The page of a restoration in headless Chromium, opened from disk.

To look at its screenshots, name a folder for them:
    SCREENSHOTS=shots python -m pytest -m slow -k in_browser tests/runs
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.runs import test_restoration_page as pages
from tfvae.data import images
from tfvae.runs import restoration_page

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--force-device-scale-factor=1",
)
_DESKTOP, _PHONE = (1280, 900), (360, 740)


def _missing():
    """Returns why pages can not be opened, or None."""
    if importlib.util.find_spec("selenium") is None:
        return "Selenium is not installed."
    if not any(map(shutil.which, _BROWSERS)):
        return f"None of {', '.join(_BROWSERS)} is installed."
    if shutil.which("chromedriver") is None:
        return "chromedriver is not installed."
    return None


@contextlib.contextmanager
def _browser(profile):
    """Opens Chromium with a new profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, _BROWSERS)))
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    service = Service(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


def _requests(driver):
    """Returns what has been requested since the last call."""
    messages = [
        json.loads(entry["message"])["message"]
        for entry in driver.get_log("performance")
    ]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.slow
class BrowserTest(tf.test.TestCase):
    def setUp(self):
        super().setUp()
        reason = _missing()
        if reason is not None:
            self.skipTest(reason)
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        profile = self.folder / "profile"
        self.driver = self.enter_context(_browser(profile))
        self.driver.get("about:blank")  # Not Chromium's own first page.
        self.shots = pathlib.Path(os.environ.get("SCREENSHOTS", self.folder))
        self.shots.mkdir(parents=True, exist_ok=True)

    def _open(self, made, size=_DESKTOP, scheme="light"):
        """Opens a page from disk, in a window of a size and colour scheme."""
        path = self.folder / "report.html"
        text = restoration_page.page(made._replace(rows=pages.ROWS))
        path.write_text(text, encoding="utf-8")
        self._emulate(
            "setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        width, height = size
        self._emulate(
            "setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == _PHONE,
        )
        self._emulate("setTouchEmulationEnabled", enabled=size == _PHONE)
        _requests(self.driver)  # Those of the page before.
        self.driver.get(path.as_uri())
        return path.as_uri()

    def _emulate(self, method, **params):
        self.driver.execute_cdp_cmd(f"Emulation.{method}", params)

    def _shoot(self, name):
        """Writes a screenshot of the whole page."""
        (height,) = self._run("return [document.documentElement.scrollHeight]")
        width = self._run("return innerWidth")
        taken = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot",
            {
                "captureBeyondViewport": True,
                "clip": {
                    **{"x": 0, "y": 0, "scale": 1},
                    **{"width": width, "height": height},
                },
            },
        )
        content = base64.b64decode(taken["data"])
        path = self.shots / f"{name}.png"
        path.write_bytes(content)
        return images.read_image(path).pixels

    def _run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def _find(self, selector):
        return self.driver.find_element("css selector", selector)

    def _divider(self):
        """Returns where the divider is, 0..1, as it is drawn."""
        return self._run(
            "const stage = document.querySelector('.stage');"
            "const box = stage.getBoundingClientRect();"
            "const line = stage.querySelector('.divider');"
            "const at = line.getBoundingClientRect();"
            "return (at.left + at.width / 2 - box.left) / box.width;"
        )

    def _clip(self):
        """Returns how much of the left picture is hidden."""
        return self._run(
            "return getComputedStyle("
            "document.querySelector('.layer.left')).clipPath"
        )

    def _assert_fits(self):
        """Checks that nothing is wider than the window, nor broken."""
        wide, broken = self._run(
            "const root = document.documentElement;"
            "return [root.scrollWidth - root.clientWidth,"
            "  [...document.images].filter((one) => !one.naturalWidth).length]"
        )
        self.assertEqual((wide, broken), (0, 0))

    def _assert_silent(self, address):
        self.assertEmpty(self.driver.get_log("browser"))
        requested = [
            one for one in _requests(self.driver) if not one.startswith("data:")
        ]
        self.assertEqual({*requested}, {address})

    def test_slider_follows_mouse_and_keyboard(self):
        from selenium.webdriver import ActionChains, Keys

        address = self._open(
            pages.example(self.folder, size=(256, 320), name=pages.NASTY)
        )
        self.assertAllClose(self._divider(), 0.5, atol=0.01)
        stage, slider = self._find(".stage"), self._find(".stage input")
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
        self._assert_silent(address)

    def test_views_can_be_chosen_by_keyboard(self):
        from selenium.webdriver import ActionChains, Keys

        address = self._open(pages.example(self.folder, 3, size=(120, 160)))
        tags = [self._find(f".tag.{side}") for side in ("left", "right")]
        self.assertEqual([t.text for t in tags], ["Before", "Restored"])
        ActionChains(self.driver).send_keys(Keys.TAB, Keys.TAB).perform()
        ActionChains(self.driver).send_keys(Keys.ARROW_RIGHT).perform()
        self.assertEqual([t.text for t in tags], ["Restored", "Clean"])
        self.assertEqual(
            [
                self._find(f".layer.{side}").get_attribute("data-view")
                for side in ("left", "right")
            ],
            ["after", "clean"],
        )
        self.assertIn(
            "Restored (left) and Clean (right)",
            self._find(".stage input").get_attribute("aria-label"),
        )
        self._assert_silent(address)

    def test_slider_follows_a_finger(self):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.actions import interaction
        from selenium.webdriver.common.actions.action_builder import (
            ActionBuilder,
        )
        from selenium.webdriver.common.actions.pointer_input import (
            PointerInput,
        )

        self._open(pages.example(self.folder, size=(256, 320)), _PHONE)
        stage = self._find(".stage")
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
            ("desktop_light", grey, _DESKTOP, "light"),
            ("desktop_dark", grey, _DESKTOP, "dark"),
            ("phone_light", grey, _PHONE, "light"),
            ("phone_dark", long_name, _PHONE, "dark"),
        ):
            with self.subTest(name):
                address = self._open(made, size, scheme)
                self._assert_fits()
                shown = self._shoot(name)
                corner = float(shown[-2, 2].mean())
                self.assertBetween(
                    corner, *((0, 60), (200, 255))[scheme == "light"]
                )
                self._assert_silent(address)


if __name__ == "__main__":
    tf.test.main()
