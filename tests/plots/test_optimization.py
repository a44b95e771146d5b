# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests.plots.drawing import FigureTest
from tfvae import plots
from tfvae.plots import optimization, planes


def _band(start, end, count=100, published=()):
    mean = np.linspace(start, end, count)
    return plots.Band(mean, np.full(count, 0.5), published)


def _progress(scores, **curves):
    scores = np.array(scores, np.float64)
    return plots.Progress(
        scores,
        {name.replace("_", "-"): np.array(one) for name, one in curves.items()},
        np.arange(len(scores)) != 1,
    )


class ProgressTest(FigureTest):
    def test_queries_without_a_score_are_marks_on_the_axis(self):
        nan = np.nan
        figure = self.draw(
            plots.progress,
            _progress([3.0, 5.0, nan, 4.0], top_1=[3.0, 3.0, 3.0, 4.0]),
            y_label="yield / $",
            references={"best of the data": 2.0},
        )
        (axes,) = figure.axes
        lines = {line.get_label(): line for line in axes.lines}
        self.assertAllEqual(lines["no score"].get_xdata(), [3])
        (height,) = lines["no score"].get_ydata()
        self.assertBetween(height, 0.0, 0.05)
        place = lines["no score"].get_transform().transform((3, 0.5))
        self.assertAllClose(
            place, axes.get_xaxis_transform().transform((3, 0.5))
        )
        self.assertAllEqual(lines["top-1"].get_ydata(), [3, 3, 3, 4])
        dots = {one.get_label(): one for one in axes.collections}
        self.assertAllEqual(dots["query"].get_offsets(), [[1, 3], [4, 4]])
        self.assertAllEqual(
            dots["violates a constraint"].get_offsets(), [[2, 5]]
        )

    def test_outlier_does_not_stretch_the_axis(self):
        scores = [*np.linspace(1.0, 2.0, 60), -1e9]
        figure = self.draw(
            plots.progress,
            _progress(scores, top_1=np.maximum.accumulate(scores)),
            y_label="score",
        )
        self.assertGreater(figure.axes[0].get_ylim()[0], 0.0)

    def test_nothing_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`content` must have queries"):
            plots.progress(_progress([]), "a.png", y_label="score")


class TopKCurvesTest(FigureTest):
    def test_panels_have_curves_bands_and_published_points(self):
        bands = {"a": _band(1, 5, published=[(50, 3, 0.2)]), "b": _band(0, 4)}
        figure = self.draw(
            plots.top_k_curves,
            {"top-1": bands, "top-10": {"a": _band(0, 4)}},
            y_label="area / pixels",
            references={"best of the data": 2.0},
        )
        self.assertEqual(self.titles(figure), ["top-1", "top-10"])
        first = figure.axes[0]
        self.assertEqual(first.get_ylabel(), "area / pixels")
        self.assertEqual(first.get_xlabel(), "queries")
        lines = {line.get_label(): line for line in first.lines}
        self.assertAllEqual(lines["a"].get_xdata(), np.arange(1, 101))
        self.assertAllEqual(lines["a"].get_ydata(), bands["a"].mean)
        self.assertAllEqual(lines["best of the data"].get_ydata(), [2.0, 2.0])
        self.assertLen(first.collections, 4)  # Two bands, two error bars.
        (legend,) = figure.legends
        shown = {text.get_text() for text in legend.get_texts()}
        self.assertEqual(shown, {"a", "b", "best of the data", "published"})

    def test_first_twentieth_does_not_stretch_the_axis(self):
        band = plots.Band(np.r_[np.full(5, -1e6), np.ones(95)], np.zeros(100))
        figure = self.draw(
            plots.top_k_curves, {"top-1": {"a": band}}, y_label="score"
        )
        self.assertGreater(figure.axes[0].get_ylim()[0], 0.0)

    def test_many_curves_look_different(self):
        looks = [optimization._look(number) for number in range(20)]
        self.assertLen(set(looks), 20)

    @parameterized.parameters({}, {"top-1": {}})
    def test_refuses_nothing(self, **content):
        with self.assertRaisesRegex(ValueError, "`content` must be panels"):
            plots.top_k_curves(content, self.path, y_label="score")


class WeightsTest(FigureTest):
    def test_best_of_the_data_have_their_share_of_the_weight(self):
        scores = np.array([1.0, 2.0, 3.0, 4.0])
        data = plots.Weighted(scores, np.array([1.0, 2.0, 3.0, 4.0]))
        figure = self.draw(plots.weights, {"rank": data}, x_label="score")
        (line,) = figure.axes[1].lines
        self.assertAllClose(line.get_xdata(), [25.0, 50.0, 75.0, 100.0])
        self.assertAllClose(line.get_ydata(), [40.0, 70.0, 90.0, 100.0])
        self.assertEqual(figure.axes[1].get_xscale(), "log")

    def test_smallest_are_the_best_of_what_is_minimised(self):
        data = plots.Weighted(np.array([1.0, 2.0]), np.array([3.0, 1.0]))
        figure = self.draw(
            plots.weights, {"rank": data}, x_label="score", maximise=False
        )
        (line,) = figure.axes[1].lines
        self.assertAllClose(line.get_ydata(), [75.0, 100.0])

    def test_bars_are_shares_with_and_without_weights(self):
        data = plots.Weighted(np.array([0.0, 1.0]), np.array([1.0, 3.0]))
        figure = self.draw(plots.weights, {"rank": data}, x_label="score")
        bars = [patch.get_height() for patch in figure.axes[0].patches[:40]]
        # The worst 0.5 % are left out: of two values, the worse one.
        self.assertAllClose(bars[-1], 50.0)
        self.assertAllClose(sum(bars), 50.0)
        step = figure.axes[0].patches[40].get_xy()
        self.assertAllClose(step[:, 1].max(), 75.0)

    @parameterized.parameters(([-1.0, 2.0],), ([0.0, 0.0],), ([1.0],))
    def test_refuses(self, weights):
        data = plots.Weighted(np.ones(2), np.array(weights))
        with self.assertRaisesRegex(ValueError, "as many weights as scores"):
            plots.weights({"rank": data}, self.path, x_label="score")
        with self.assertRaisesRegex(ValueError, "`content` must have weights"):
            plots.weights({}, self.path, x_label="score")


class SampleScoresTest(FigureTest):
    @parameterized.parameters(1, 2, 4)
    def test_every_setting_has_a_panel(self, count):
        rng = np.random.default_rng(0)
        panel = {"first round": rng.normal(size=50), "last round": np.ones(50)}
        content = {f"setting {number}": panel for number in range(count)}
        figure = self.draw(plots.sample_scores, content, x_label="score")
        shown = [axes for axes in figure.axes if axes.get_visible()]
        self.assertLen(shown, count)
        self.assertEqual(self.titles(figure), list(content))
        for axes in shown[-min(count, 3) :]:
            self.assertEqual(axes.get_xlabel(), "score")

    def test_median_is_that_of_the_finite_scores(self):
        scores = np.array([1.0, 2.0, 9.0, np.nan])
        figure = self.draw(
            plots.sample_scores, {"a": {"first": scores}}, x_label="score"
        )
        (line,) = figure.axes[0].lines
        self.assertAllEqual(line.get_xdata(), [2.0, 2.0])

    def test_refuses_nothing(self):
        with self.assertRaisesRegex(ValueError, "`content` must be panels"):
            plots.sample_scores({}, self.path, x_label="score")


class ManifoldTest(FigureTest):
    def _draw(self, images, scores, **options):
        return self.draw(
            plots.manifold,
            images,
            bound=3.0,
            labels=[f"round {number}" for number in range(len(images))],
            scores=scores,
            score_label="area / pixels",
            **options,
        )

    def test_latents_grow_to_the_right_and_upwards(self):
        # Only what the largest first and the smallest second latent decode
        # to is not black.
        images = np.zeros((1, 3, 3, 4, 4))
        images[0, 2, 0] = 1.0
        figure = self._draw(images, images.sum((-1, -2)))
        (picture,) = figure.axes[0].get_images()
        shown = picture.get_array()[..., 1] > planes._LINE
        rows, columns = np.nonzero(shown)
        self.assertAllEqual(np.unique(rows), np.arange(10, 14))
        self.assertAllEqual(np.unique(columns), np.arange(10, 14))
        # The middles of the outer tiles are at the bound.
        self.assertAllClose(picture.get_extent(), [-4.5, 4.5, -4.5, 4.5])

    @parameterized.parameters((True, 1, 0), (False, 0, 1))
    def test_best_is_green_and_worst_red(self, maximise, larger, smaller):
        images = np.ones((1, 2, 2, 2, 2))
        scores = np.array([[[0.0, 0.0], [1.0, 1.0]]])  # Worse to the left.
        figure = self._draw(images, scores, maximise=maximise)
        array = figure.axes[0].get_images()[0].get_array()
        left, right = array[0, 0], array[0, 3]
        self.assertEqual(int(np.argmax(right)), larger)
        self.assertEqual(int(np.argmax(left)), smaller)

    def test_all_times_share_a_scale(self):
        images = np.ones((3, 2, 2, 2, 2))
        scores = np.arange(12.0).reshape(3, 2, 2)
        figure = self._draw(images, scores)
        self.assertEqual(self.titles(figure), ["round 0", "round 1", "round 2"])
        bar = figure.axes[-1]
        self.assertEqual(bar.get_ylabel(), "area / pixels")
        self.assertAllClose(bar.get_ylim(), [0.0, 11.0])

    def test_same_scores_everywhere_are_drawn(self):
        self._draw(np.ones((1, 2, 2, 2, 2)), np.full((1, 2, 2), np.nan))

    @parameterized.parameters(
        ((1, 2, 3, 4, 4), (1, 2, 3)), ((1, 2, 2, 4, 4), (1, 2, 3))
    )
    def test_refuses(self, images, scores):
        with self.assertRaisesRegex(ValueError, "must have shapes"):
            plots.manifold(
                np.zeros(images),
                self.path,
                bound=3.0,
                labels=["a"],
                scores=np.zeros(scores),
                score_label="",
            )


if __name__ == "__main__":
    tf.test.main()
