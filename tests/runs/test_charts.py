# SPDX-License-Identifier: Apache-2.0
"""Charts of pages: what is drawn, and the same as a table."""

from __future__ import annotations

import re

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.runs import charts
from tfvae.runs.charts import Series


def chart(values, kind="line", **settings):
    settings = {
        "x_label": "epoch",
        "y_label": "nats",
        "description": 'rising <&"',
    } | settings
    places = np.arange(1, len(values) + 1)
    series = [Series("a<b", np.asarray(values, float), kind)]
    return charts.chart("one", places, series, **settings)


def points(text, kind="curve"):
    """Returns the points of a path in fractions of the chart."""
    (path,) = re.findall(
        rf'class="{kind}[^"]*" style="[^"]*" d="([^"]*)"', text
    )
    found = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)
    return np.array(found, float) / (1000.0, 400.0)


def tick_value(text, kind, share):
    """Returns the value that the ticks of an axis give a place."""
    side = {"x": "left", "y": "top"}[kind]
    found = re.findall(
        rf'tick {kind}" style="{side}:([-\d.]+)%">([^<]*)<', text
    )
    places = [float(place) / 100.0 for place, _ in found]
    values = [float(v.replace("\N{MINUS SIGN}", "-")) for _, v in found]
    slope, start = np.polyfit(places, values, 1)
    return start + slope * share


class ChartTest(parameterized.TestCase):
    @parameterized.parameters(1.0, 1e-6, 1e7, -3e3)
    def test_points_are_where_the_ticks_say(self, scale):
        values = scale * np.array([1.0, 1.5, 1.25, 2.0])
        text = chart(values)
        drawn = points(text)
        self.assertLen(drawn, 4)
        for number, (x, y) in enumerate(drawn):
            self.assertAlmostEqual(tick_value(text, "x", x), number + 1, 1)
            found = tick_value(text, "y", y)
            self.assertLess(abs(found - values[number]), 0.02 * abs(scale))

    def test_table_has_the_values_at_their_places(self):
        text = chart([1.0, np.nan, 2.5])
        rows = re.findall(r'<tr data-at="([\d.]+)">(.*?)</tr>', text)
        cells = [re.sub("<[^>]*>", "|", row).strip("|") for _, row in rows]
        self.assertEqual(cells, ["1||1", "2", "3||2.5"])
        places = [float(at) for at, _ in rows]
        np.testing.assert_allclose(
            [places[0], places[2]], points(text)[:, 0], atol=1e-3
        )

    def test_texts_are_escaped(self):
        text = chart([1.0, 2.0], references={"<i>": 1.5})
        self.assertIn("a&lt;b: 2", text)
        self.assertIn("rising &lt;&amp;&quot;", text)
        self.assertNotIn("<i>", text)

    @parameterized.parameters(
        ([-9e9, -400.0, *range(20)], "2 values outside the range, from -9e+09"),
        ([*range(20), 19.0], None),
    )
    def test_range_is_that_of_most(self, values, note):
        text = chart(values)
        self.assertEqual("outside the range" in text, note is not None)
        self.assertIn(note or "<figure", text)
        shown = points(text)[:, 1]
        self.assertGreater(np.ptp(shown[(shown >= 0) & (shown <= 1)]), 0.8)

    def test_dots_far_away_do_not_determine_the_range(self):
        text = chart([*range(100), 1e6], "dots")
        self.assertIn("One value outside the range, 1e+06", text)
        self.assertLen(points(text, "dots"), 101)

    @parameterized.parameters(
        ([1.0],), ([0.0, 0.0],), ([1e299, -1e299],), ([1e-300, 2e-300],)
    )
    def test_any_values_are_drawn(self, values):
        self.assertNotIn("nan", chart(values).lower())

    def test_long_curves_are_short_pages(self):
        text = chart(np.arange(100_000.0))
        self.assertLess(len(text), 100_000)
        self.assertLen(points(text), charts.MOST_POINTS)
        self.assertIn("100000", text)

    def test_steps_hold_their_values(self):
        path = re.search('"curve".* d="([^"]*)"', chart([1, 2, 2], "steps"))
        self.assertRegex(path[1], r"^M[\d.]+ [\d.]+(H[\d.]+V[\d.]+){2}$")

    def test_columns_leave_out_what_is_no_number(self):
        rows = [
            {"epoch": "1", "a": ""},
            {"epoch": "2", "a": "x"},
            {"epoch": "3", "a": "nan"},
            {"epoch": "4", "a": "-1.5"},
            {"a": 7},
        ]
        epochs, values = charts.column(rows, "a")
        self.assertEqual(
            (epochs.tolist(), values.tolist()), ([4, 5], [-1.5, 7])
        )
        self.assertIsNone(charts.column(rows, "b"))


if __name__ == "__main__":
    absltest.main()
