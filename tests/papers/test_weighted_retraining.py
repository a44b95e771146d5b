# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib

import numpy as np
from absl.testing import absltest, parameterized

from papers.weighted_retraining import published, report
from tests.runs import optimizations

_TABLE = {  # Of the contract: final top-1 after 500 queries.
    "k_low_r_low": ((1401.6, 80.9), (-0.480, 0.122), (19.66, 6.00)),
    "k_low_r_high": ((882.8, 27.4), (-0.681, 0.211), (11.14, 4.10)),
    "k_inf_r_low": ((623.0, 8.8), (-0.763, 0.036), (6.93, 0.67)),
    "k_low_r_inf": ((501.4, 11.1), (-0.672, 0.205), (6.03, 0.49)),
    "k_inf_r_inf": ((464.2, 3.1), (-1.184, 0.283), (5.71, 0.29)),
}
_TASKS = ("shapes", "expressions", "molecules")


class PublishedTest(parameterized.TestCase):
    @parameterized.parameters(*_TABLE)
    def test_ends_are_those_of_the_paper(self, setting):
        for task, expected in zip(_TASKS, _TABLE[setting], strict=True):
            found = published.find(task, setting, 1)
            np.testing.assert_allclose(found[500], expected, atol=0.0051)

    def test_best_baselines_are_those_of_the_paper(self):
        self.assertEqual(
            published.find("shapes", "cem_pi", 1), {5000: (621.0, 10.4)}
        )
        found = published.find("molecules", "dbas", 1)
        np.testing.assert_allclose(found[5000], (4.67, 0.13), atol=0.0051)
        self.assertEmpty(published.find("expressions", "cem_pi", 1))

    def test_top_k_is_in_order(self):
        # A larger K is no better, and more queries are no worse for K = 1.
        for task in _TASKS:
            for setting in published.TITLES:
                ends = [
                    list(published.find(task, setting, k).values())[-1].mean
                    for k in (1, 10, 50)
                    if published.find(task, setting, k)
                ]
                self.assertEqual(ends, sorted(ends, reverse=True))
                curve = published.find(task, setting, 1).values()
                means = [value.mean for value in curve]
                self.assertEqual(means, sorted(means))

    def test_minimised_scores_have_the_other_sign(self):
        found = published.find("expressions", "k_low_r_low", 1, maximise=False)
        self.assertEqual(found[500], (0.480, 0.122))

    @parameterized.parameters(
        ("k_low_r_low", "k_low_r_low"),
        ("weighted_retraining", "k_low_r_low"),
        ("Retrain.only", "k_inf_r_low"),
        ("CEM_PI", "cem_pi"),
        ("something", None),
    )
    def test_settings_are_known_by_other_names(self, name, setting):
        self.assertEqual(published.setting_of(name), setting)


class ReportTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        folder = pathlib.Path(self.create_tempdir().full_path)
        self.study = optimizations.Study(folder)

    def _write(self):
        return self.study.report(report.write)

    def test_means_stand_beside_the_published_ones(self):
        self.study.add("k_low_r_low", [-0.5, -0.3])
        self.study.add("k_inf_r_inf", [-1.5, -1.1])
        text = self.study.report(report.write, draws=True)
        # After 3 queries, what was published after 1.
        self.assertIn(
            "| k_low_r_low | 2 | 3 | -0.4 ± 0.1 | -4.988 ± 1.03 (q = 1) | ",
            text,
        )
        self.assertIn("| (k_low_r_high) | 0 | 0 | - | -4.988 ± 1.03", text)
        self.assertIn("4 of 4 cells are finished", text)
        self.assertIn("circles with bars are published", text)
        self.assertIn("k_inf_r_inf: k = inf, r = inf (standard).", text)
        self.assertIn("](figures/expressions_top_k.png)", text)
        self.assertIn("| -0.3 | `x` |", text)

    def test_other_comparisons_have_nothing_published_beside_them(self):
        self.study.add("binary", [-0.5])
        self.study.add("continuous", [-0.7])
        text = self._write()
        self.assertNotIn("(k_low_r_high)", text)
        self.assertIn("| binary | 1 | 3 | -0.5 ± 0 | - | -7 ± 0 | - |", text)

    def test_order_of_pairs_is_judged(self):
        # Published after one query: -4.988, -4.783 and -5.684, with spreads
        # of 1.029, 0.208 and 0.566.
        self.study.add("k_low_r_low", [-3.0, -3.0])
        self.study.add("k_inf_r_low", [-2.0, -2.0])
        self.study.add("k_high_r_low", [-1.0, -1.0])
        one = self.study.comparison()
        table = report.order_table(one)
        decided = dict(zip(table["pair"], table["order"], strict=True))
        self.assertEqual(
            decided,
            {
                "k_low_r_low less k_inf_r_low": report.WITHIN,
                "k_low_r_low less k_high_r_low": report.WITHIN,
                "k_inf_r_low less k_high_r_low": report.DIFFERS,
            },
        )

    def test_what_was_published_after_more_queries_is_not_compared(self):
        self.study.add("cem_pi", [5.0], task="molecules")
        self.study.add("dbas", [4.0], task="molecules")
        one = self.study.comparison()
        self.assertEmpty(report.order_table(one))
        row = report.final_table(one).iloc[0]
        self.assertEqual(row.iloc[4], "4.582 ± 0.093 (q = 5000)")


if __name__ == "__main__":
    absltest.main()
