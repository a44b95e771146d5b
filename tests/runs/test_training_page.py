# SPDX-License-Identifier: Apache-2.0
"""The page of a training run: from its folder, at any time."""

from __future__ import annotations

import datetime
import json
import pathlib

import numpy as np
from absl.testing import absltest

from tests.runs.test_restoration_page import NASTY, Parsed, panels
from tfvae.data import images
from tfvae.runs import training_page

ROWS = [
    {
        "epoch": epoch,
        "bound": -50.0 / epoch,
        "loss": 50.0 / epoch,
        "active": 2.0 + epoch,
        "steady": 1.0,
        "seconds": 2.0,
        **({"test_bound": -60.0 / epoch} if epoch % 2 else {}),
    }
    for epoch in range(1, 6)
]


def outcome(folder, rows=ROWS, epochs=5):
    now = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    return training_page.Outcome(
        folder, rows, epochs, {"generating parameters": -8.0}, now
    )


def fill(folder):
    """Writes what a run has beside its metrics."""
    (folder / "figures").mkdir(parents=True)
    for name in ("samples", "bound"):
        images.write_image(folder / f"figures/{name}.png", np.ones((6, 9, 3)))
    (folder / "figures/broken.png").write_bytes(b"no picture")
    (folder / "config.gin").write_text(f"DATA = '{NASTY}'")
    summary = {"data": NASTY, "epochs": 5, "command": "/usr/bin/tfvae train"}
    (folder / "summary.json").write_text(json.dumps(summary))


class PageTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"
        fill(self.folder)

    def test_page_shows_what_is_in_the_folder(self):
        text = training_page.page(outcome(self.folder))
        parsed = Parsed(text)
        self.assertEqual(
            panels(parsed),
            ["bound", "figure-samples", "active", "epochs"]
            + ["summary", "configuration"],
        )
        self.assertEqual(parsed.texts["h1"], f"run trained on {NASTY}")
        self.assertEqual(parsed.texts["p"].split()[0], "finished")
        self.assertIn("tfvae train", parsed.texts["pre"])
        self.assertIn(f"DATA = '{NASTY}'", parsed.texts["pre"])
        self.assertLen(parsed.attributes("script"), 1)
        for said in ("training data: -10", "test data: -12", "parameters: -8"):
            self.assertIn(said, parsed.texts["ul"])
        ids = [one["id"] for _, one in parsed.elements if "id" in one]
        self.assertCountEqual(ids, set(ids))
        self.assertNotIn("http:", text)

    def test_unfinished_run_has_the_time_left_and_no_summary(self):
        made = outcome(self.folder, ROWS[:3], 10)
        parsed = Parsed(training_page.page(made))
        self.assertStartsWith(parsed.texts["p"], "unfinished epoch 3 of 10, ")
        self.assertIn("3 epochs, 14 s left", parsed.texts["dl"])
        self.assertNotIn("summary", panels(parsed))

    def test_page_of_many_epochs_is_small(self):
        rows = [
            {"epoch": i + 1}
            | {f"metric {k}": (i * k) % 97 / 7.0 for k in range(1, 13)}
            for i in range(20_000)
        ]
        text = training_page.page(outcome(self.folder, rows, 30_000))
        self.assertLess(len(text), 2 * 2**20)
        self.assertIn("500 of 20000 epochs", text)

    def test_writing_takes_a_small_part_of_the_time(self):
        now, written = [0.0], []

        def clock():
            now[0] += 1.0  # Twice for a page, which thus takes a second.
            return now[0]

        writer = training_page.Writer(self.folder, 5, clock=clock)
        path = self.folder / training_page.NAME
        for number in range(1, 201):
            path.unlink(missing_ok=True)
            writer.refresh(ROWS[:2])
            if path.exists():
                written.append(number)
        self.assertEqual(written[0], 1)
        self.assertBetween(len(written), 3, 5)


if __name__ == "__main__":
    absltest.main()
