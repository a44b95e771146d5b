# SPDX-License-Identifier: Apache-2.0
"""Reports of studies as pages: what Markdown says, and nothing that acts."""

from __future__ import annotations

import pathlib

import numpy as np
from absl.testing import absltest

from tests.runs.test_restoration_page import Parsed, panels
from tfvae.data import images
from tfvae.sweeps import report_page

TEXT = """# Report

4 of 9 cells.

## First <b>&

Some *text* of a_b_c <script>alert(1)</script> [x](javascript:alert(1)).

### Tables

| model | score | p |
|:------|:------|:--|
| A     | 1,234.5 (0.2) | < 0.01 |
| `a|b` | -     | 2, 18 |

![samples](sheets/one.png)
![gone](sheets/two.png)
![away](../../away.png)

## Second

* cell: RuntimeError: <i>\x0b
"""


class PageTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        run = pathlib.Path(self.create_tempdir().full_path) / "grid"
        self.folder = run / "report"
        (self.folder / "sheets").mkdir(parents=True)
        picture = np.full((4, 6, 3), 9.0)
        images.write_image(self.folder / "sheets/one.png", picture)
        images.write_image(run.parent / "away.png", picture)

    def test_headings_are_panels_with_their_tables_and_pictures(self):
        parsed = Parsed(report_page.page(TEXT, self.folder, 4, 9))
        self.assertEqual(panels(parsed), ["part-0", "part-1", "part-2"])
        self.assertEqual(parsed.texts["h1"], "grid compared")
        self.assertIn("unfinished 4 of 9 cells", parsed.texts["p"])
        self.assertEqual(parsed.texts["caption"], "Tables")
        cells = parsed.attributes("td")
        self.assertEqual([one["class"] for one in cells], [*"tnt"] * 2)
        values = [one.get("data-value") for one in cells]
        self.assertEqual(values, [None, "1234.5", None, None, "", None])
        self.assertIn("a|b", parsed.texts["code"])
        self.assertEqual(parsed.texts["em"], "text")
        self.assertIn("a_b_c", parsed.texts["p"])
        (one,) = parsed.attributes("img")
        self.assertEqual((one["alt"], one["width"]), ("samples", "6"))
        self.assertIn("../../away.png", parsed.texts["p"])

    def test_texts_stay_texts(self):
        parsed = Parsed(report_page.page(TEXT, self.folder, 4, 9))
        self.assertLen(parsed.attributes("script"), 1)
        for tag in ("a", "b", "i"):
            self.assertEmpty(parsed.attributes(tag))
        self.assertIn("First <b>&", parsed.texts["h2"])
        self.assertIn("RuntimeError: <i>", parsed.texts["li"])

    def test_both_files_are_written(self):
        path = report_page.write(self.folder, TEXT.split("\n"), 9, 9)
        self.assertEqual(path.read_text(encoding="utf-8"), TEXT)
        page = (self.folder / "report.html").read_text(encoding="utf-8")
        self.assertIn("finished</span> 9 of 9 cells", page)


if __name__ == "__main__":
    absltest.main()
