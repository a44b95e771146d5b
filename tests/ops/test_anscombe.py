# SPDX-License-Identifier: Apache-2.0
"""The transform against Monte Carlo and the published closed form."""

from __future__ import annotations

import functools
import math

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.data import images
from tfvae.ops import anscombe
from tfvae.ops.anscombe import PoissonGaussian

NUM_DRAWS = 200_000


def _draws(rate, noise, shape=NUM_DRAWS, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rate, shape)
    read = rng.normal(noise.offset, noise.read_noise_std, counts.shape)
    return noise.gain * counts + read


def _closed_form(values, variance):
    """The inverse as approximated by Makitalo and Foi, 2013, in counts."""
    root = math.sqrt(1.5)
    counts = values**2 / 4.0 + root / (4.0 * values) - 11.0 / (8.0 * values**2)
    return counts + 5.0 * root / (8.0 * values**3) - 1.0 / 8.0 - variance


class TransformTest(parameterized.TestCase):
    @parameterized.product(
        rate=[0.0, 0.1, 0.7, 3.0, 25.0, 120.0],
        noise=[
            PoissonGaussian(),
            PoissonGaussian(0.5, 10.0, 0.2),
            PoissonGaussian(30.0, -200.0, 50.0),
        ],
    )
    def test_inverse_of_the_mean_transform_is_the_mean(self, rate, noise):
        x = _draws(rate, noise)
        values = anscombe.forward(x, noise)
        found = anscombe.inverse(values.mean(), noise)
        # Four standard errors, through the slope values / 2 of the inverse.
        slope = noise.gain * max(values.mean(), 1.0) / 2.0
        error = 4.0 * slope * values.std() / math.sqrt(NUM_DRAWS)
        expected = noise.gain * rate + noise.offset
        self.assertAlmostEqual(found, expected, delta=error + 1e-3 * noise.gain)
        if 3.0 <= rate:  # The other inverse is biased, by a quarter.
            biased = anscombe.algebraic_inverse(values.mean(), noise)
            bias = (biased - expected) / noise.gain
            self.assertBetween(bias, -0.3, -0.15)

    @parameterized.parameters(0.0, 0.5, 5.0)
    def test_noise_of_the_transform_has_a_standard_deviation_of_1(self, std):
        noise = PoissonGaussian(2.0, 7.0, 2.0 * std)
        for rate in (4.0, 30.0, 1e3, 1e6):
            values = anscombe.forward(_draws(rate, noise), noise)
            # The first-order theory is off by up to 4 % at a rate of 4.
            self.assertAlmostEqual(values.std(), 1.0, delta=0.05)

    @parameterized.parameters(0.0, 0.3, 2.0, 20.0)
    def test_inverse_is_close_to_the_published_closed_form(self, std):
        noise = PoissonGaussian(read_noise_std=std)
        rates = np.array([0.1, 1.0, 5.0, 40.0, 99.0, 101.0, 1e4])
        # Within the 0.05 counts that the closed form errs by, at rates of 0.
        values = 2.0 * np.sqrt(rates + std**2 + 0.375)
        values = values[values > anscombe.forward(noise.offset, noise)]
        found = anscombe.inverse(values, noise)
        closed = np.maximum(_closed_form(values, std**2), 0.0)
        np.testing.assert_allclose(found, closed, rtol=0.0, atol=0.05)

    def test_inverse_of_no_signal_and_less_is_the_offset(self):
        noise = PoissonGaussian(3.0, 100.0, 4.0)
        x = _draws(0.0, noise)
        values = anscombe.forward(x, noise).mean() - np.array([0.05, 1.0])
        np.testing.assert_array_equal(
            anscombe.inverse(values, noise), [100.0, 100.0]
        )

    def test_inverse_is_continuous_and_increases(self):
        for std in (0.0, 0.4, 10.0):
            noise = PoissonGaussian(read_noise_std=std)
            least = float(anscombe.forward(0.3, noise))
            values = np.linspace(least, math.hypot(25.0, 2.0 * std), 20_000)
            found = anscombe.inverse(values, noise)
            steps = np.diff(found)
            self.assertGreaterEqual(steps.min(), 0.0)
            # The slope is at most about values / 2.
            largest = values[-1] / 2.0 * np.diff(values)[0]
            self.assertLess(steps.max(), 1.5 * largest + 1e-3)

    def test_algebraic_inverse_undoes_the_transform(self):
        noise = PoissonGaussian(2.0, 10.0, 3.0)
        x = np.array([10.0, 11.5, 250.0, 1e6, np.nan])
        values = anscombe.forward(x, noise)
        np.testing.assert_allclose(
            anscombe.algebraic_inverse(values, noise), x, rtol=1e-12
        )

    def test_missing_entries_stay_and_far_ones_are_0(self):
        noise = PoissonGaussian(1.0, 0.0, 0.5)
        values = anscombe.forward(np.array([np.nan, -50.0]), noise)
        np.testing.assert_array_equal(values, [np.nan, 0.0])
        np.testing.assert_array_equal(
            anscombe.inverse(values, noise), [np.nan, 0.0]
        )

    @parameterized.parameters(
        ({"gain": 0.0}, "`gain` must be positive and finite, got 0.0"),
        ({"gain": math.nan}, "`gain` must be positive and finite, got nan"),
        ({"offset": math.inf}, "`offset` must be finite, got inf"),
        ({"read_noise_std": -1.0}, "`read_noise_std` must be .* got -1.0"),
    )
    def test_wrong_noise_is_refused(self, fields, message):
        with self.assertRaisesRegex(ValueError, message):
            PoissonGaussian(**fields)


@functools.cache
def _camera():
    """A photograph with smooth and textured regions, on 0 .. 1."""
    return images.embedded_image("camera").astype(np.float64) / 255.0


class EstimateTest(parameterized.TestCase):
    @parameterized.product(
        peak=[1.0, 4.0, 30.0],
        noise=[PoissonGaussian(), PoissonGaussian(30.0, 200.0, 15.0)],
    )
    def test_photograph_has_its_noise_estimated(self, peak, noise):
        rates = peak * _camera()
        x = _draws(rates, noise, rates.shape)
        found = anscombe.estimate(x, offset=noise.offset)
        self.assertAlmostEqual(found.gain / noise.gain, 1.0, delta=0.1)
        levels = [
            math.sqrt(n.gain * (x.mean() - n.offset) + n.read_noise_std**2)
            for n in (found, noise)
        ]
        self.assertAlmostEqual(levels[0] / levels[1], 1.0, delta=0.02)

    @parameterized.parameters(0.0, 128.0)
    def test_flat_parts_that_were_added_are_left_out(self, value):
        noise = PoissonGaussian(2.0, 0.0, 6.0)
        rates = 127.0 * _camera()
        x = np.maximum(np.round(_draws(rates, noise, rates.shape)), 0.0)
        expected = anscombe.estimate(x[40:])
        x[:40] = value
        found = anscombe.estimate(x)
        self.assertAlmostEqual(found.gain, expected.gain, delta=0.05)
        self.assertAlmostEqual(
            found.read_noise_std, expected.read_noise_std, delta=0.2
        )

    def test_noise_of_smooth_pictures_is_found_on_average(self):
        noise = PoissonGaussian(4.0, 100.0, 25.0)
        rates = np.tile(np.linspace(0.0, 80.0, 256)[:, None, None], (1, 256, 1))
        pictures = [_draws(rates, noise, rates.shape, s) for s in range(6)]
        for spoilt in (False, True):
            found = []
            for x in pictures:
                if spoilt:
                    x[40:90, 10:200] = np.nan
                    x = np.minimum(x, 380.0)  # Clipped: less noise is left.
                found.append(anscombe.estimate(x, offset=100.0))
            gain = np.mean([one.gain for one in found])
            std = np.mean([one.read_noise_std for one in found])
            # Biweights of squares are 3 % low; the standard error is 2 %.
            self.assertAlmostEqual(gain, 0.97 * 4.0, delta=0.05 * 4.0)
            self.assertAlmostEqual(std, 25.0, delta=0.6)

    def test_what_is_given_stays(self):
        noise = PoissonGaussian(4.0, 100.0, 25.0)
        rates = 50.0 * _camera()
        x = _draws(rates, noise, rates.shape)
        found = anscombe.estimate(x, gain=4.0, offset=100.0)
        self.assertEqual((found.gain, found.offset), (4.0, 100.0))
        self.assertAlmostEqual(found.read_noise_std, 25.0, delta=1.5)
        found = anscombe.estimate(x, read_noise_std=25.0, offset=100.0)
        self.assertEqual((found.read_noise_std, found.offset), (25.0, 100.0))
        self.assertAlmostEqual(found.gain, 4.0, delta=0.25)
        found = anscombe.estimate(
            x[:4, :4], gain=4.0, read_noise_std=25.0, offset=100.0
        )
        self.assertEqual(found, noise)

    def test_noise_that_does_not_grow_is_refused(self):
        x = 200.0 * _camera() + np.random.default_rng(0).normal(
            0.0, 20.0, (512, 512, 1)
        )
        with self.assertRaisesRegex(
            ValueError, "`gain` must be given, or .* noise that grows .* got"
        ):
            anscombe.estimate(x[:160, :160])

    def test_small_picture_is_refused(self):
        x = np.random.default_rng(0).poisson(5.0, (40, 40, 1))
        with self.assertRaisesRegex(
            ValueError, "`image` must have at least 32 blocks .* got 16"
        ):
            anscombe.estimate(x.astype(np.float32))
        with self.assertRaisesRegex(ValueError, "at least 32 blocks .* got 0"):
            anscombe.estimate(np.ones((1, 5, 1)))


if __name__ == "__main__":
    absltest.main()
