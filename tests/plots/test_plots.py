# SPDX-License-Identifier: Apache-2.0
"""Tests of figures: what they show, and that they arrive whole."""

from __future__ import annotations

import os
from unittest import mock

import matplotlib
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from matplotlib.figure import Figure

from tests.plots.drawing import FigureTest
from tfvae import plots
from tfvae.data import images
from tfvae.plots import figures, restoration, sheets


class FileTest(FigureTest):
    def test_global_state_is_left_alone(self):
        before = dict(matplotlib.rcParams)
        self.draw(plots.latent_usage, np.array([0.5, 0.1]))
        self.assertEqual(before, dict(matplotlib.rcParams))

    def test_failure_leaves_the_former_figure_alone(self):
        self.draw(plots.latent_usage, np.array([0.5, 0.1]))
        with open(self.path, "rb") as file:
            before = file.read()
        with mock.patch.object(
            Figure, "savefig", side_effect=OSError("No space left on device")
        ):
            with self.assertRaisesRegex(OSError, "No space left"):
                plots.latent_usage(np.array([0.2, 0.1]), self.path)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertEqual(os.listdir(self.folder), ["figure.png"])

    def test_others_may_read_it_as_files_of_any_kind(self):
        self.draw(plots.latent_usage, np.array([0.5, 0.1]))
        plain = os.path.join(self.folder, "plain")
        with open(plain, "w"):
            pass
        modes = {os.stat(path).st_mode for path in (self.path, plain)}
        self.assertLen(modes, 1)

    @parameterized.parameters("pdf", "svg", "jpg")
    def test_ending_chooses_the_format(self, suffix):
        path = os.path.join(self.folder, f"figure.{suffix}")
        plots.latent_usage(np.array([0.5, 0.1]), path)
        self.assertGreater(os.path.getsize(path), 1000)


class PanelsTest(FigureTest):
    def test_each_panel_has_its_curves_and_one_has_the_legend(self):
        curves = {"one": ([16, 64], [100.0, 50.0]), "two": ([16], [70.0])}
        figure = self.draw(
            plots.panels,
            [
                plots.Panel(
                    curves, "H", "points", True, {"linear": ([16], [1])}
                ),
                plots.Panel(curves, "H", "bytes"),
            ],
        )
        left, right = figure.axes
        self.assertLen(left.lines, 3)
        self.assertLen(right.lines, 2)
        self.assertAllEqual(left.lines[0].get_xydata(), [[16, 100], [64, 50]])
        self.assertEqual((left.get_xscale(), left.get_yscale()), ("log",) * 2)
        self.assertEqual(
            [t.get_text() for t in left.get_xticklabels()], ["16", "64"]
        )
        self.assertEqual(
            (right.get_xscale(), right.get_ylabel()), ("linear", "bytes")
        )
        self.assertIsNotNone(left.get_legend())
        self.assertIsNone(right.get_legend())

    def test_nothing_to_draw_is_reported(self):
        for content in ([], [plots.Panel({}, "x", "y")]):
            with self.assertRaisesRegex(ValueError, "panels with curves, got"):
                plots.panels(content, self.path)


class CurvesTest(FigureTest):
    def test_lines_hold_the_metrics_and_the_legend_the_last_values(self):
        rows = [
            {"epoch": 1, "bound": -3.0, "test_bound": ""},
            {"epoch": 2, "bound": -2.0, "test_bound": -2.5},
            {"epoch": 3, "bound": "-1.25"},
            {"epoch": 4, "bound": float("nan"), "test_bound": None},
        ]
        figure = self.draw(
            plots.curves,
            rows,
            ["bound", "test_bound", "psnr"],
            references={"generator": -1.0},
            title="bars",
        )
        axes = figure.axes[0]
        bound, test_bound, reference = axes.get_lines()
        self.assertAllEqual(bound.get_xydata(), [[1, -3], [2, -2], [3, -1.25]])
        self.assertAllEqual(test_bound.get_xydata(), [[2, -2.5]])
        self.assertAllEqual(reference.get_ydata(), [-1.0, -1.0])
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        self.assertEqual(
            legend, ["training data: -1.25", "test data: -2.5", "generator: -1"]
        )
        self.assertEqual(self.titles(figure), ["bars"])
        self.assertIn("nats", axes.get_ylabel())

    def test_axis_begins_after_a_steep_start_and_says_so(self):
        rows = [{"epoch": 1, "bound": -1e6}]
        rows += [{"epoch": i, "bound": -1.0 / i} for i in range(2, 30)]
        axes = self.draw(plots.curves, rows, ["bound"]).axes[0]
        self.assertGreater(axes.get_ylim()[0], -2.0)
        notes = [text.get_text() for text in axes.texts]
        self.assertIn("the first epochs, from -1e+06 on, lie below", notes)

    def test_axis_holds_everything_otherwise(self):
        rows = [{"epoch": i, "psnr": 20.0 + i} for i in range(1, 30)]
        axes = self.draw(plots.curves, rows, ["psnr"]).axes[0]
        self.assertLess(axes.get_ylim()[0], 21.0)
        self.assertEmpty(axes.texts)

    @parameterized.parameters(1, 2)
    def test_few_epochs_are_enough(self, count):
        rows = [{"epoch": i + 1, "bound": 1.0} for i in range(count)]
        self.draw(plots.curves, rows, ["bound"])

    def test_refuses_rows_without_the_metrics(self):
        for rows in ([], [{"epoch": 1}], [{"psnr": float("nan")}]):
            with self.assertRaisesRegex(ValueError, r"`rows`.*\['psnr'\]"):
                plots.curves(rows, ["psnr"], self.path)


class LatentUsageTest(FigureTest):
    def test_bars_are_sorted(self):
        usage = np.array([0.1, 0.4, 0.2])
        figure = self.draw(plots.latent_usage, usage)
        heights = [bar.get_height() for bar in figure.axes[0].patches]
        self.assertAllClose(heights, [0.4, 0.2, 0.1])
        self.assertEqual(
            self.titles(figure), ["0.70 of 3 latents active on average"]
        )
        self.assertEqual(figure.axes[0].get_yscale(), "linear")

    def test_wide_ranges_are_logarithmic(self):
        figure = self.draw(plots.latent_usage, np.array([0.4, 1e-5, 0.0]))
        self.assertEqual(figure.axes[0].get_yscale(), "log")

    @parameterized.parameters(([[0.1, 0.2]],), ([1.5],), ([float("nan")],))
    def test_refuses(self, usage):
        with self.assertRaisesRegex(ValueError, "`prior_probs` must be"):
            plots.latent_usage(np.array(usage), self.path)


class SheetTest(FigureTest):
    @parameterized.parameters(
        ((16,), (4, 4)),
        ((12,), (2, 2, 3)),
        ((9,), (3, 3, 1)),
        ((10,), (10,)),
        ((8,), (2, 2, 2)),
    )
    def test_data_of_any_shape_is_drawn(self, columns, event_shape):
        points = np.random.default_rng(0).normal(size=(7, *columns))
        self.draw(plots.image_grid, points, event_shape)
        self.draw(plots.feature_sheet, points, event_shape)

    def test_tiles_are_in_reading_order(self):
        points = np.arange(5.0)[:, None].repeat(4, axis=1) / 4
        canvas = sheets._canvas(points, (2, 2, 1), (0.0, 1.0), per_row=3)
        # Zoomed to 24 x 24 pixels with a line of one pixel between.
        self.assertEqual(canvas.shape, (49, 74, 3))
        for number in range(5):
            top, left = 25 * (number // 3), 25 * (number % 3)
            tile = canvas[top : top + 24, left : left + 24]
            self.assertAllEqual(tile, np.full(tile.shape, number / 4))
        self.assertAllEqual(canvas[25:, 50:], np.ones((24, 24, 3)))
        self.assertAllEqual(canvas[0, 24], sheets._SEPARATOR)

    def test_common_scale_ignores_outliers(self):
        points = np.random.default_rng(0).uniform(size=(100, 100))
        points[3, 4], points[5, 6], points[7, 8] = 1e9, -1e9, np.nan
        low, high = sheets._robust_range(points)
        self.assertAllClose([low, high], [0.0, 1.0], atol=0.02)
        self.assertEqual(sheets._robust_range(np.full((2, 2), np.nan)), (0, 1))
        self.assertEqual(sheets._robust_range(np.ones((2, 2))), (0.5, 1.5))

    def test_missing_entries_stand_out(self):
        grey = figures.as_rgb(np.array([[[np.nan], [0.5]]]), (0.0, 1.0))
        self.assertAllClose(grey[0], [figures.MISSING, [0.5] * 3])
        colour = figures.as_rgb(np.array([[[np.nan, 0.5, 2.0]]]), (0.0, 1.0))
        self.assertAllClose(colour[0, 0], [0.0, 0.5, 1.0])

    def test_huge_sheets_are_cut_and_say_so(self):
        figure = self.draw(plots.image_grid, np.eye(2000)[:, :4], (2, 2))
        self.assertIn("(first 1024 of 2000)", self.titles(figure)[0])

    @parameterized.parameters(
        (np.zeros((3, 4)), (5,)), (np.zeros(4), (4,)), (np.zeros((0, 4)), (4,))
    )
    def test_refuses(self, points, event_shape):
        for function in (plots.image_grid, plots.feature_sheet):
            with self.assertRaisesRegex(ValueError, "`event_shape` must have"):
                function(points, event_shape, self.path)


class CaptionedPicturesTest(FigureTest):
    @parameterized.parameters((1, 1, 1), (4, 2, 3), (9, 3, 3))
    def test_captions_are_below_their_pictures(self, count, rows, columns):
        pictures = [np.full((4, 6, 3), i / count) for i in range(count)]
        names = [f"{i}" for i in range(count)]
        figure = self.draw(
            plots.captioned_pictures, pictures, names, title="score"
        )
        self.assertLen(figure.axes, rows * columns)
        shown = [axes for axes in figure.axes if axes.axison]
        self.assertEqual([axes.get_xlabel() for axes in shown], names)
        for axes, one in zip(shown, pictures, strict=True):
            self.assertAllClose(axes.get_images()[0].get_array(), one)


class ReconstructionsTest(FigureTest):
    @parameterized.parameters(1, 5, 12, 30)
    def test_rows_alternate_between_data_and_model(self, count):
        points = np.random.default_rng(0).uniform(size=(count, 12))
        points[0, 0] = np.nan
        figure = self.draw(
            plots.reconstructions, points, points, (2, 2, 3), title="toys"
        )
        labels = [axes.get_ylabel() for axes in figure.axes]
        self.assertEqual(labels, ["data", "model"] * -(-count // 12))

    def test_refuses_different_shapes(self):
        with self.assertRaisesRegex(ValueError, "`estimates` must have"):
            plots.reconstructions(
                np.zeros((2, 4)), np.zeros((3, 4)), (2, 2), self.path
            )


class RestorationPanelTest(FigureTest):
    def test_titles_give_the_psnr(self):
        clean = np.full((64, 80, 1), 100.0)
        figure = self.draw(
            plots.restoration_panel, clean, clean + 51.0, clean + 5.1
        )
        # 20 log10(255 / error)
        self.assertEqual(
            self.titles(figure),
            ["clean", "noisy, 13.98 dB", "restored, 33.98 dB"],
        )
        self.assertLen(figure.axes, 6)

    @parameterized.parameters(1, 3)
    def test_unknown_clean_image_is_left_out(self, channels):
        restored = np.full((20, 30, channels), 100.0)
        corrupted = restored.copy()
        corrupted[:10] = np.nan
        figure = self.draw(plots.restoration_panel, None, corrupted, restored)
        self.assertEqual(self.titles(figure), ["50 % missing", "restored"])
        self.assertLen(figure.axes, 2)  # too small to enlarge

    def test_labels_may_be_given(self):
        image = images.embedded_image("camera", size=(40, 40))
        figure = self.draw(
            plots.restoration_panel, None, image, image, labels=["a", "b"]
        )
        self.assertEqual(self.titles(figure), ["a", "b"])

    def test_enlarged_region_has_the_structure(self):
        image = np.zeros((128, 160, 1))
        image[70:90, 100:120] = np.random.default_rng(0).uniform(
            0, 255, (20, 20, 1)
        )
        top, left, size = restoration.busiest_region(image)
        self.assertEqual(size, 32)
        self.assertBetween(top, 90 - size, 70)
        self.assertBetween(left, 120 - size, 100)

    def test_refuses(self):
        image = np.zeros((9, 9, 1))
        with self.assertRaisesRegex(ValueError, r"one shape.*\(9, 9, 1\)"):
            plots.restoration_panel(None, image, image[:5], self.path)
        with self.assertRaisesRegex(ValueError, "must have one shape"):
            plots.restoration_panel(
                None, image[..., 0], image[..., 0], self.path
            )
        with self.assertRaisesRegex(ValueError, "`labels` must be 2 titles"):
            plots.restoration_panel(
                None, image, image, self.path, labels=["one"]
            )


if __name__ == "__main__":
    tf.test.main()
