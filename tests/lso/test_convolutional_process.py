# SPDX-License-Identifier: Apache-2.0
"""Tests of the convolutional Gaussian process against the exact one."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tfvae.lso import linear_regression
from tfvae.lso.convolutional_process import ConvolutionalProcess

T, C = 5, 2


def _score(latents):
    """A sum of the same function of all windows of two positions."""
    z = np.asarray(latents, np.float64).reshape(len(latents), T, C)
    return np.sum(np.sin(z[:, :-1, 0]) * np.cos(z[:, 1:, 1]), -1) + 3.0


def _data(count=40, seed=0):
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(count, T * C)).astype(np.float32)
    return latents, _score(latents)


def _small(**settings):
    defaults = {"num_features": 40, "num_iterations": 0}
    return ConvolutionalProcess(T, **(defaults | settings))


def _kernel(surrogate, first, second):
    """The exact kernel, window by window."""
    state = surrogate.state()
    total = np.zeros((len(first), len(second)))
    a, b = (
        ((one.reshape(-1, T, C) - state["centre"]) / state["spread"])
        for one in (first, second)
    )
    for i, width in enumerate(surrogate.widths):
        log_lengthscale, log_variance = state["logs"][2 * i : 2 * i + 2]
        num_windows = T - width + 1
        for s in range(num_windows):
            for t in range(num_windows):
                u = a[:, s : s + width].reshape(len(a), -1)
                v = b[:, t : t + width].reshape(len(b), -1)
                squares = np.sum((u[:, None] - v[None]) ** 2, -1)
                squares /= width * C * np.exp(2.0 * log_lengthscale)
                total += np.exp(log_variance - 0.5 * squares) / num_windows
    return total


def _conditioned(surrogate, kernel, scores, num_data):
    """Mean and covariance given the first points of a kernel matrix."""
    state = surrogate.state()
    spread = state["score_spread"]
    y = (scores - state["score_centre"]) / spread
    noise = np.exp(state["logs"][-1])
    known = kernel[:num_data, :num_data] + noise * np.eye(num_data)
    cross = kernel[num_data:, :num_data]
    mean = cross @ np.linalg.solve(known, y)
    covariance = kernel[num_data:, num_data:] - cross @ np.linalg.solve(
        known, cross.T
    )
    return state["score_centre"] + spread * mean, spread**2 * covariance


def _features(surrogate, latents):
    return surrogate._features(tf.constant(latents)).numpy()


class ConvolutionalProcessTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(((1,),), ((3,),), ((1, 2, 5),))
    def test_inner_products_of_features_are_the_exact_kernel(self, widths):
        latents, scores = _data(12)
        fitted = _small(widths=widths)
        fitted.fit(latents, scores, 0, False)
        # No fit: its time grows with the third power of the features.
        surrogate = _small(widths=widths, num_features=20_000)
        surrogate.restore(fitted.state())
        surrogate._hold(C)
        features = _features(surrogate, latents)
        kernel = _kernel(surrogate, latents, latents)
        # A feature's products are in [-2 T, 2 T], their error is a mean of
        # 20,000: five standard errors.
        self.assertAllClose(
            features @ features.T, kernel, atol=5.0 * 2.0 * T / 20_000**0.5
        )

    def test_is_the_exact_process_of_its_features(self):
        latents, scores = _data()
        queries = _data(9, 1)[0]
        surrogate = _small()
        surrogate.fit(latents, scores, 0, False)
        features = _features(surrogate, np.concatenate([latents, queries]))
        mean, covariance = _conditioned(
            surrogate, features @ features.T, scores, len(latents)
        )
        found = surrogate.predict(queries)
        self.assertAllClose(found[0], mean, rtol=1e-7)
        self.assertAllClose(found[1] ** 2, np.diag(covariance), rtol=1e-5)
        draws = surrogate.sample(queries, 20_000, 3)
        std = np.sqrt(np.diag(covariance))
        self.assertAllLess(
            np.abs(draws.mean(0) - mean) / std, 5.0 / np.sqrt(20_000)
        )
        self.assertAllClose(
            np.corrcoef(draws.T), covariance / np.outer(std, std), atol=0.05
        )

    def test_many_features_give_the_exact_process(self):
        latents, scores = _data(30)
        queries = _data(9, 1)[0]
        surrogate = _small(num_features=500)
        surrogate.fit(latents, scores, 0, False)
        kernel = _kernel(surrogate, *[np.concatenate([latents, queries])] * 2)
        mean, covariance = _conditioned(surrogate, kernel, scores, 30)
        found = surrogate.predict(queries)
        self.assertAllClose(found[0], mean, atol=0.1 * scores.std())
        self.assertAllClose(found[1], np.sqrt(np.diag(covariance)), rtol=0.1)

    def test_covariance_goes_with_deviations_and_draws(self):
        latents, scores = _data()
        surrogate = _small()
        surrogate.fit(latents, scores, seed=1, warm=False)
        points = latents[:6] + 0.5
        _, std = surrogate.predict(points)
        covariance = surrogate.covariance(points, points).numpy()
        self.assertAllClose(np.sqrt(np.diag(covariance)), std, rtol=1e-6)
        draws = surrogate.sample(points, 20_000, seed=2)
        self.assertAllClose(
            np.cov(draws.T), covariance, atol=0.1 * covariance.max()
        )
        other = surrogate.covariance(points[:2], points[3:]).numpy()
        self.assertAllClose(other, covariance[:2, 3:])

    def test_shifted_latents_have_the_same_score(self):
        # Windows of one position: any order of the positions.
        latents, scores = _data()
        surrogate = _small(widths=(1,))
        surrogate.fit(latents, scores, 0, False)
        order = np.random.default_rng(0).permutation(T)
        moved = latents.reshape(-1, T, C)[:, order].reshape(-1, T * C)
        self.assertAllClose(
            surrogate.predict(latents)[0], surrogate.predict(moved)[0]
        )

    def test_tuning_raises_the_evidence(self):
        latents, scores = _data(80)
        losses = []
        for count in (0, 1, 4):
            surrogate = _small(num_iterations=count)
            surrogate.fit(latents, scores, 0, False)
            state = surrogate.state()
            y = (scores - state["score_centre"]) / state["score_spread"]
            losses.append(
                -linear_regression.log_evidence(
                    _features(surrogate, latents), y, np.exp(state["logs"][-1])
                ).numpy()
            )
        self.assertGreater(losses[0], losses[1])
        self.assertGreater(losses[1], losses[2])

    @pytest.mark.slow  # A second or two.
    def test_learns_what_windows_contribute(self):
        surrogate = _small(widths=(2,), num_features=200, num_iterations=15)
        surrogate.fit(*_data(300), 0, False)
        latents, scores = _data(200, 1)
        mean, std = surrogate.predict(latents)
        error = scores - mean
        self.assertLess(np.var(error), 0.1 * np.var(scores))
        self.assertGreater(np.mean(np.abs(error) < 3.0 * std), 0.9)

    def test_prediction_has_gradients(self):
        surrogate = _small()
        surrogate.fit(*_data(), 0, False)
        queries = tf.constant(_data(2, 1)[0], tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(queries)
            total = tf.add_n(surrogate.predict(queries))
        gradient = tape.gradient(total, queries)
        for i in range(T * C):
            # Differences of fourth order, as steps have to be long in float32.
            step = 0.03 * np.eye(T * C)[i]
            further, near = (
                sum(surrogate.predict(queries + count * step))
                - sum(surrogate.predict(queries - count * step))
                for count in (2, 1)
            )
            self.assertAllClose(
                gradient[:, i],
                (8.0 * near - further) / (12 * 0.03),
                rtol=1e-4,
                atol=1e-5,
            )

    def test_restored_warm_fit_gives_the_same_numbers(self):
        latents, scores = _data()
        surrogate, other = _small(num_iterations=1), _small()
        surrogate.fit(latents[:30], scores[:30], 3, False)
        surrogate.fit(latents[:31], scores[:31], 4, True)
        other.restore({k: v.copy() for k, v in surrogate.state().items()})
        for one in (surrogate, other):
            one.fit(latents, scores, 5, True)
        for a, b in zip(
            surrogate.predict(latents), other.predict(latents), strict=True
        ):
            self.assertAllEqual(a, b)

    def test_cold_fit_depends_on_seed_and_data_alone(self):
        latents, scores = _data()
        first, second, third = _small(), _small(), _small()
        second.fit(latents[:20], 2.0 * scores[:20], 9, False)
        first.fit(latents, scores, 3, False)
        second.fit(latents, scores, 3, False)
        third.fit(latents, scores, 4, False)
        self.assertAllEqual(
            first.predict(latents)[0], second.predict(latents)[0]
        )
        self.assertNotAllClose(
            first.predict(latents)[0], third.predict(latents)[0]
        )

    def test_traces_of_callers_serve_later_fits(self):
        latents, scores = _data()
        surrogate = _small()
        surrogate.fit(latents, scores, 0, False)
        predict = tf.function(surrogate.predict)
        predict(tf.constant(latents))
        surrogate.fit(latents[:10], -scores[:10], 1, False)
        self.assertAllClose(
            predict(tf.constant(latents))[0], surrogate.predict(latents)[0]
        )

    @parameterized.named_parameters(
        ("constant_scores", lambda x, y: (x, 0.0 * y + 3.0)),
        ("constant_latents", lambda x, y: (0.0 * x + 1e6, y)),
        ("duplicates", lambda x, y: (np.tile(x, (3, 1)), np.tile(y, 3))),
        ("one_point", lambda x, y: (x[:1], y[:1])),
        ("huge_scores", lambda x, y: (x, 1e12 * y)),
    )
    def test_gives_finite_predictions_of(self, change):
        latents, scores = change(*_data(15))
        surrogate = _small()
        surrogate.fit(latents, scores, 0, False)
        surrogate.fit(latents, scores, 0, True)
        mean, std = surrogate.predict(latents)
        self.assertAllInRange(mean, -1e14, 1e14)
        self.assertAllInRange(std, 0.0, 1e14)
        self.assertAllInRange(surrogate.sample(latents, 2, 0), -1e15, 1e15)

    def test_largest_scores_are_bounded(self):
        latents, scores = _data(15)
        found = []
        for largest in (1e30, 1e200):  # The square of which overflows.
            scores[3] = largest
            surrogate = _small()
            surrogate.fit(latents, scores, 0, False)
            found.append(surrogate.predict(latents)[0])
        self.assertAllEqual(*found)

    def test_says_what_is_wrong(self):
        with self.assertRaisesRegex(ValueError, "`widths` must .* 5.*got .6,"):
            _small(widths=(6,))
        with self.assertRaisesRegex(ValueError, "`num_features` must be an"):
            _small(num_features=0)
        with self.assertRaisesRegex(ValueError, "must be fitted"):
            _small().predict(np.zeros([1, 10]))
        latents, scores = _data()
        with self.assertRaisesRegex(ValueError, "`warm` must be False"):
            _small().fit(latents, scores, 0, True)
        with self.assertRaisesRegex(ValueError, "multiple of `num_positions`"):
            _small().fit(latents[:, :9], scores, 0, False)
        with self.assertRaisesRegex(ValueError, "`scores` must have shape"):
            _small().fit(latents, scores[1:], 0, False)
        scores[3] = np.nan
        with self.assertRaisesRegex(ValueError, "`scores` must be finite"):
            _small().fit(latents, scores, 0, False)


if __name__ == "__main__":
    tf.test.main()
