# SPDX-License-Identifier: Apache-2.0
"""Tests of the bars against enumeration and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae.data import generated


def _means(state, correlated):
    """What a state draws, spelled out bar by bar."""
    side = len(state) // 2
    active = list(state)
    if correlated:
        # Both suppressions act through relu(1 - 2) = 0.
        active[1] = state[1] and not state[0]
        active[0] = state[0] and not state[-1]
    image = np.zeros((side, side))
    for bar, on in enumerate(active):
        if on and bar < side:
            image[bar, :] += 1.0
        elif on:
            image[:, bar - side] += 1.0
    return image.reshape(-1)


def _log_likelihood(points, num_latents, prior_prob, variance, correlated):
    """Mean log p(x) by plain summation, state by state."""
    likelihoods = np.zeros(len(points))
    for state in itertools.product((0, 1), repeat=num_latents):
        prior = prior_prob ** sum(state) * (1 - prior_prob) ** (
            num_latents - sum(state)
        )
        error = points - _means(state, correlated)
        density = np.exp(-(error**2) / (2 * variance)) / math.sqrt(
            2 * math.pi * variance
        )
        likelihoods += prior * density.prod(axis=1)
    return np.log(likelihoods).mean()


class BarsTest(tf.test.TestCase, parameterized.TestCase):
    def test_features_are_rows_then_columns(self):
        features = generated.bar_features(6).reshape(6, 3, 3)
        self.assertAllEqual(features.sum(axis=(1, 2)), np.full(6, 3.0))
        self.assertAllEqual(features[1], [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
        self.assertAllEqual(features[5], [[0, 0, 1], [0, 0, 1], [0, 0, 1]])

    @parameterized.parameters(
        (4, False, 0.3, None), (6, True, 0.05, 0.4), (8, True, 0.01, None)
    )
    def test_log_likelihood_equals_plain_enumeration(
        self, num_latents, correlated, variance, prior_prob
    ):
        data = generated.bars(
            num_data=20,
            num_latents=num_latents,
            correlated=correlated,
            noise_variance=variance,
            prior_prob=prior_prob,
        )
        expected = _log_likelihood(
            data.train.astype(np.float64),
            num_latents,
            prior_prob or 2 / num_latents,
            variance,
            correlated,
        )
        self.assertAllClose(data.log_likelihood, expected, rtol=1e-10)

    def test_log_likelihood_does_not_depend_on_chunking(self):
        whole = generated.bars(num_data=10).log_likelihood
        original = generated._STATES_PER_CHUNK
        self.addCleanup(setattr, generated, "_STATES_PER_CHUNK", original)
        generated._STATES_PER_CHUNK = 7
        chunked = generated.bars(num_data=10).log_likelihood
        self.assertAllClose(whole, chunked, rtol=1e-12)

    def test_published_setting(self):
        data = generated.bars()
        self.assertEqual(data.train.shape, (500, 16))
        self.assertEqual(data.event_shape, (4, 4))
        self.assertAllEqual(data.features, generated.bar_features(8))
        # Two bars of four pixels on average: the mean pixel is 1/2. Its
        # standard error over 500 images: an image's mean has variance
        # 8 (1/4)(3/4) (4/16)^2 = 0.094, so 0.0137; five of them.
        self.assertAllClose(data.train.mean(), 0.5, atol=0.07)

    @parameterized.parameters(False, True)
    def test_moments_match_the_generator(self, correlated):
        num_data, variance = 20_000, 0.25
        data = generated.bars(
            num_data, correlated=correlated, noise_variance=variance
        )
        states = list(itertools.product((0, 1), repeat=8))
        prior = np.array(
            [0.25 ** sum(s) * 0.75 ** (8 - sum(s)) for s in states]
        )
        means = np.stack([_means(s, correlated) for s in states])
        mean = prior @ means
        second = prior @ means**2
        self.assertAllClose(prior.sum(), 1.0)
        # Five standard errors of a sample mean.
        tolerance = 5 * np.sqrt((second - mean**2 + variance) / num_data)
        error = np.abs(data.train.mean(axis=0) - mean)
        self.assertTrue((error < tolerance).all())
        self.assertAllClose(
            data.train.var(axis=0), second - mean**2 + variance, rtol=0.06
        )

    def test_correlation_suppresses_bars(self):
        noise_free = {"noise_variance": 1e-8, "num_data": 4000, "seed": 3}
        plain = generated.bars(**noise_free).train.reshape(-1, 4, 4)
        correlated = generated.bars(correlated=True, **noise_free).train
        correlated = correlated.reshape(-1, 4, 4)
        states = np.random.default_rng(3).random((4000, 8)) < 0.25
        changed = np.abs(plain - correlated).max(axis=(1, 2)) > 0.5
        suppressed = states[:, 0] & (states[:, 1] | states[:, 7])
        self.assertAllEqual(changed, suppressed)
        self.assertGreater(changed.sum(), 100)

    def test_seed_decides_the_data(self):
        first, again, other = (generated.bars(9, seed=s) for s in (1, 1, 2))
        self.assertAllEqual(first.train, again.train)
        self.assertNotAllEqual(first.train, other.train)

    def test_test_points_are_drawn_from_the_same_generator(self):
        data = generated.bars(30, num_test=20_000, noise_variance=0.01)
        self.assertEqual(data.test.shape, (20_000, 16))
        # As above, five standard errors of the mean pixel: sqrt(.094 / 2e4).
        self.assertAllClose(data.test.mean(), 0.5, atol=0.011)
        self.assertAllEqual(data.train, generated.bars(30).train)

    def test_log_likelihood_is_left_out_beyond_enumeration(self):
        data = generated.bars(3, num_latents=22)
        self.assertIsNone(data.log_likelihood)
        self.assertEqual(data.event_shape, (11, 11))

    @parameterized.named_parameters(
        ("odd", {"num_latents": 7}, r"`num_latents` must be even.*7"),
        ("few", {"num_latents": 2}, r"`num_latents` must be even.*2"),
        ("no_data", {"num_data": 0}, r"`num_data` must be at least 1"),
        ("negative_test", {"num_test": -1}, r"`num_test` at least 0"),
        ("noise", {"noise_variance": 0.0}, r"`noise_variance` must be pos"),
        ("prior", {"prior_prob": 1.0}, r"`prior_prob` must be in"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            generated.bars(**arguments)


if __name__ == "__main__":
    tf.test.main()
