# SPDX-License-Identifier: Apache-2.0
"""Pages from disk in headless Chromium, for tests of reports."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import pathlib
import shutil

import tensorflow as tf

from tfvae.data import images

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
DESKTOP, PHONE = (1280, 900), (360, 740)
LOOKS = [
    (size, scheme) for size in (DESKTOP, PHONE) for scheme in ("light", "dark")
]
"""Windows and colour schemes in which all pages are looked at."""
AXE = pathlib.Path(os.environ.get("AXE", pathlib.Path(__file__).parents[2]))


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


class Case(tf.test.TestCase):
    """A test that opens pages, skipped where there is no browser."""

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

    def open_text(self, text, size=DESKTOP, scheme="light"):
        """Writes a page, and opens it; returns its address.

        Args:
          text: The page.
          size: Width and height of the window in pixels.
          scheme: Its colour scheme, "light" or "dark".
        """
        path = self.folder / "report.html"
        path.write_text(text, encoding="utf-8")
        self.open_address(path.as_uri(), size, scheme)
        return path.as_uri()

    def open_address(self, address, size=DESKTOP, scheme="light"):
        """Opens a page; see `open_text`."""
        self.emulate(
            "setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        width, height = size
        self.emulate(
            "setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        self.emulate("setTouchEmulationEnabled", enabled=size == PHONE)
        _requests(self.driver)  # Those of the page before.
        self.driver.get(address)

    def emulate(self, method, **params):
        self.driver.execute_cdp_cmd(f"Emulation.{method}", params)

    def shoot(self, name):
        """Writes a screenshot of the whole page."""
        (height,) = self.run_script(
            "return [document.documentElement.scrollHeight]"
        )
        width = self.run_script("return innerWidth")
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

    def run_script(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def assert_fits(self):
        """Checks that nothing is wider than the window, nor broken."""
        wide, broken = self.run_script(
            "const root = document.documentElement;"
            "return [root.scrollWidth - root.clientWidth,"
            "  [...document.images].filter((one) => !one.naturalWidth).length]"
        )
        self.assertEqual((wide, broken), (0, 0))

    def assert_silent(self, address):
        self.assertEmpty(self.driver.get_log("browser"))
        requested = [
            one for one in _requests(self.driver) if not one.startswith("data:")
        ]
        self.assertEqual({*requested}, {address})

    def assert_accessible(self):
        """Checks that axe finds nothing wrong, if it is there.

        `npm install --no-save axe-core`, in the root of the repository or in
        the folder that the environment variable AXE names, puts it there.
        """
        script = AXE / "node_modules" / "axe-core" / "axe.min.js"
        if not script.exists():
            self.skipTest(f"axe-core is not installed in {AXE}.")
        # Not as an element of the page, whose policy forbids it.
        self.driver.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": script.read_text("utf-8")}
        )
        found = self.driver.execute_async_script("axe.run().then(arguments[0])")
        self.assertGreater(len(found["passes"]), 20)
        wrong = [
            (one["id"], one["nodes"][0]["html"]) for one in found["violations"]
        ]
        self.assertEmpty(wrong)
