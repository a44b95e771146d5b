# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import itertools
import pathlib

import numpy as np
import pandas as pd
from absl.testing import absltest, parameterized

from papers.random_encoders import findings, published, report, verdicts
from tests.sweeps import finished
from tfvae.sweeps import anova, results

_LAYERS = ("fc", "conv")
_PRIORS = ("normal", "flow2", "flow6")
_WITHIN = ["layer", "prior", "encoder"]
_METRICS = (
    *("test_loss", "test_regularization", "test_squared_error"),
    *("frechet_distance", "seconds_per_epoch", "published_count"),
)


def _as_published(repetitions=5, noise=1.0, seed=0, objective="thesis"):
    """Returns results drawn from the published means and deviations."""
    rng = np.random.default_rng(seed)
    rows = []
    for repetition, *levels in itertools.product(
        range(repetitions), _LAYERS, _PRIORS, published.ENCODERS
    ):
        row = dict(zip(_WITHIN, levels, strict=True))
        for metric in _METRICS:
            value = published.find("mnist", metric, row)
            row[metric] = value.mean + noise * value.std * rng.normal()
        gap = 12.03 if row["layer"] == "fc" else 1.26
        for name in ("loss", "squared_error"):
            row[f"gap_{name}"] = gap + noise * rng.normal()
        name = "-".join([*levels, objective, str(repetition)])
        rows.append(
            {
                "name": name,
                "objective": objective,
                "repetition": repetition,
                **row,
            }
        )
    return pd.DataFrame(rows)


class PublishedTest(parameterized.TestCase):
    @parameterized.parameters("mnist", "svhn")
    def test_loss_is_error_less_regularization(self, name):
        # Up to rounding to two digits of three numbers.
        for levels in self._models(name):
            loss, regularization, error = (
                published.find(name, metric, levels).mean
                for metric in _METRICS[:3]
            )
            self.assertAlmostEqual(loss, error - regularization, delta=0.0101)

    @parameterized.parameters(("mnist", 24), ("svhn", 4))
    def test_every_model_has_every_metric(self, name, count):
        self.assertLen([*self._models(name)], count)

    def test_objective_of_its_own_is_compared_with_that_one_only(self):
        model = {"layer": "fc", "prior": "normal", "encoder": "L"}
        for objective, expected in (("thesis", (9.84, 0.05)), ("elbo", None)):
            levels = {**model, "objective": objective}
            found = published.find("mnist", "test_loss", levels)
            self.assertEqual(found, expected)
            found = published.find("mnist", "frechet_distance", levels)
            self.assertEqual(found, (92.39, 2.87))

    def test_nothing_is_found_where_nothing_was_published(self):
        self.assertIsNone(published.find("mnist", "test_loss", {}))
        self.assertIsNone(published.find("mnist", "kernel_distance", {}))

    def _models(self, name):
        for levels in itertools.product(_LAYERS, _PRIORS, published.ENCODERS):
            model = dict(zip(_WITHIN, levels, strict=True))
            found = {published.find(name, one, model) for one in _METRICS}
            if found != {None}:
                self.assertNotIn(None, found)
                yield model


class AnovaTest(parameterized.TestCase):
    @parameterized.parameters(
        # As the thesis reports them: F(3, 110), F(3, 96) and F(3, 113).
        ("test_loss", 110, 4),
        ("test_squared_error", 96, 7),
        ("seconds_per_epoch", 113, 3),
    )
    def test_degrees_of_freedom_are_the_published_ones(
        self, name, residual_df, num_terms
    ):
        design = report.DESIGNS.get(name, anova.FULL)
        found = anova.anova(_as_published(), name, _WITHIN, design)
        self.assertEqual(found.residual_df, residual_df)
        self.assertLen(found.terms, num_terms)
        encoder = next(one for one in found.terms if one.name == "encoder")
        self.assertEqual(encoder.df, 3)
        self.assertLess(encoder.p, 1e-4)

    def test_published_f_of_the_encoder_comes_out(self):
        # F(3, 96) = 809.61: as large for data of these means and deviations.
        found = anova.anova(_as_published(50), "test_squared_error", _WITHIN)
        encoder = next(one for one in found.terms if one.name == "encoder")
        self.assertBetween(encoder.f / 10.0, 0.7 * 809.61, 1.3 * 809.61)

    def test_what_can_not_be_analysed_says_why(self):
        frame = _as_published(1)
        error = "test_squared_error"
        found = anova.anova(frame, error, _WITHIN)
        self.assertEqual((found.terms, found.note), ([], "needs repetitions"))
        same = _as_published(2).assign(value=3.0)
        self.assertIn("the same", anova.anova(same, "value", _WITHIN).note)
        one = same[same["encoder"] == "L"]
        self.assertIn("nothing", anova.anova(one, "value", ["encoder"]).note)
        exact = _as_published(2, noise=0.0)
        self.assertIn("not differ", anova.anova(exact, error, _WITHIN).note)

    def test_missing_models_leave_main_effects(self):
        frame = _as_published(2)
        frame = frame[(frame["encoder"] != "NL") | (frame["layer"] != "fc")]
        error = "test_squared_error"
        found = anova.anova(frame, error, _WITHIN)
        self.assertLen(found.terms, 3)
        self.assertIn("main effects only", found.note)


class VerdictsTest(parameterized.TestCase):
    def _decisions(self, frame, factors=_WITHIN, name="mnist"):
        return {
            one.finding: one.decision
            for one in verdicts.verdicts(name, frame, factors)
        }

    def test_published_findings_are_confirmed_by_published_results(self):
        found = self._decisions(_as_published(noise=0.1))
        for finding, decision in found.items():
            with self.subTest(finding):
                self.assertEqual(decision, "confirmed")

    def test_opposite_results_refute(self):
        frame = _as_published(noise=0.1)
        for metric in _METRICS:
            frame[metric] = 1000.0 - frame[metric]
        for name in ("loss", "squared_error"):
            frame[f"gap_{name}"] *= -1.0
        found = self._decisions(frame)
        unchanged = "The prior does not change the reconstruction error"
        self.assertEqual(found.pop(unchanged), "confirmed")
        equal = next(one for one in found if one.startswith("PNL's Fr"))
        self.assertEqual(found.pop(equal), "confirmed")
        self.assertEqual(set(found.values()), {"refuted"})

    def test_noise_decides_nothing(self):
        frame = _as_published()
        rng = np.random.default_rng(1)
        for metric in (*_METRICS, "gap_loss", "gap_squared_error"):
            frame[metric] = 10.0 + 5.0 * rng.normal(size=len(frame))
        self.assertEqual(set(self._decisions(frame).values()), {"undecided"})

    def test_one_repetition_is_not_enough_but_has_its_numbers(self):
        for one in verdicts.verdicts("mnist", _as_published(1), _WITHIN):
            self.assertEqual(one.decision, "undecided (needs repetitions)")
            self.assertNotEmpty(one.numbers)

    def test_svhn_findings_need_no_other_factor(self):
        frame = _as_published(noise=0.1)
        frame = results.where(frame, {"layer": "conv", "prior": "flow6"})
        rng = np.random.default_rng(0)
        for metric, i in itertools.product(_METRICS, range(len(frame))):
            levels = frame.iloc[i].to_dict()
            value = published.find("svhn", metric, levels)
            place = frame.index[i], metric
            frame.loc[place] = value.mean + 0.1 * value.std * rng.normal()
        found = self._decisions(frame, name="svhn")
        self.assertEqual(set(found.values()), {"confirmed"})
        self.assertLen(found, 7)

    def test_findings_on_what_is_not_there_are_reported(self):
        frame = _as_published()[["repetition", "encoder", "test_loss"]]
        found = self._decisions(frame, ["encoder"])
        loss = found.pop("Negative ELBO: L < PNL < RKS < NL")
        self.assertNotEqual(loss, findings.ABSENT)
        self.assertEqual(set(found.values()), {findings.ABSENT})

    @parameterized.parameters(
        (1.0, 0.01, "confirmed"),
        (1.05, 0.01, "confirmed"),
        (1.3, 0.01, "refuted"),
        (0.7, 0.01, "refuted"),
        (1.0, 0.3, "undecided"),
        # Other than the same for sure, but by no more than the margin.
        (1.098, 0.003, "undecided"),
    )
    def test_equality_is_equivalence_within_the_margin(
        self, ratio, noise, decision
    ):
        rng = np.random.default_rng(0)
        frame = pd.DataFrame(
            [
                {
                    "repetition": r,
                    "encoder": encoder,
                    "value": mean * (1.0 + noise * rng.normal()),
                }
                for r in range(5)
                for encoder, mean in (("L", 40.0), ("PNL", 40.0 * ratio))
            ]
        )
        one = findings.Equal("", "value", "encoder", ("L", "PNL"), {}, 0.1)
        self.assertEqual(one.judge(frame, ["encoder"]).decision, decision)

    @parameterized.parameters(
        (0.84, "confirmed"), (0.99, "refuted"), (0.6, "refuted")
    )
    def test_saving_is_about_what_was_published(self, ratio, decision):
        frame = pd.DataFrame(
            [
                {"repetition": r, "encoder": encoder, "value": value + 0.01 * r}
                for r in range(5)
                for encoder, value in (("L", 2.0), ("PNL", 2.0 * ratio))
            ]
        )
        one = findings.Saving("", "value", "encoder", ("L", "PNL"), {}, 0.16)
        self.assertEqual(one.judge(frame, ["encoder"]).decision, decision)


class ReportTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _study(self, frames):
        """Writes the folder of a study that has these results."""
        frame = pd.concat(frames)
        for gap in ("loss", "squared_error"):
            difference = frame.pop(f"gap_{gap}")
            frame[f"train_{gap}"] = frame[f"test_{gap}"] - difference
        finished.write(
            self.folder,
            frame,
            (*_WITHIN, "objective"),
            columns="encoder",
            separate=["objective"],
        )

    def _write(self, write=report.mnist):
        return finished.plain(write(self.folder).read_text())

    def _csv(self, name):
        with (self.folder / "report" / name).open(newline="") as file:
            return list(csv.DictReader(file))

    def test_means_stand_beside_the_published_ones(self):
        self._study([_as_published(2, objective="elbo"), _as_published(2)])
        text = self._write()
        self.assertIn("96 of 96 cells", text)
        rows = self._csv("tables/thesis_test_loss.csv")
        self.assertLen(rows, 24)
        frame = results.where(
            _as_published(2),
            {"layer": "conv", "prior": "flow6", "encoder": "NL"},
        )["test_loss"]
        (row,) = (
            row
            for row in rows
            if (row["layer"], row["prior"], row["encoder"])
            == ("conv", "flow6", "NL")
        )
        self.assertAlmostEqual(float(row["mean"]), frame.mean())
        self.assertAlmostEqual(float(row["std"]), frame.std(ddof=1))
        self.assertEqual(row["published_mean"], "-10.74")
        self.assertEqual(row["published_std"], "4.92")
        cell = f"| {frame.mean():.2f} ({frame.std():.2f}) | -10.74 (4.92) |"
        self.assertIn(cell, text)
        (row, *_) = self._csv("tables/elbo_test_loss.csv")
        self.assertEqual(row["published_mean"], "")

    def test_everything_is_in_the_report(self):
        self._study([_as_published(2, objective="elbo"), _as_published(2)])
        text = self._write()
        for table in ("5.1", "5.2", "5.3", "5.4", "5.5", "5.6"):
            self.assertEqual(text.count(f"(table {table})"), 2)
        for objective in ("elbo", "thesis"):
            self.assertIn(f"](sheets/{objective}_samples.png)", text)
            sheet = self.folder / f"report/sheets/{objective}_samples.png"
            self.assertGreater(sheet.stat().st_size, 0)
        self.assertRegex(text, r"elbo in \d+ of 16, thesis in \d+ of 16 models")
        self.assertIn("| layer * prior * encoder |", text)
        self.assertLen(self._csv("verdicts.csv"), 24)
        self.assertIn("| 521 | 521 |", text)

    def test_report_of_nothing_says_so(self):
        self._study([_as_published(1)])
        for path in self.folder.glob("cells/*/result.json"):
            path.unlink()
        self.assertIn("0 of 24 cells are finished", self._write())
        self.assertEmpty(self._csv("verdicts.csv"))

    def test_metrics_are_rows_where_only_columns_vary(self):
        frame = _as_published(2)
        frame = results.where(frame, {"layer": "conv", "prior": "flow6"})
        self._study([frame])
        text = self._write(report.svhn)
        self.assertRegex(text, r"\| Fréchet distance \| [\d.]+ \([\d.]+\) \|")
        self.assertIn("| 59.15 (1.77) |", text)
        self.assertIn("L, PNL, RKS < NL", text)


if __name__ == "__main__":
    absltest.main()
