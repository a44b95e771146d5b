# SPDX-License-Identifier: Apache-2.0
"""Known and estimated noise of pictures, and the likelihoods it needs."""

from __future__ import annotations

import dataclasses
import functools
import math

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from absl.testing import parameterized

import tfvae
from tfvae import likelihoods
from tfvae.data import images
from tfvae.noise import GaussianNoise, PoissonGaussianNoise
from tfvae.ops import anscombe, residuals


@functools.cache
def _clean(size=64):
    picture = images.embedded_image("camera", size=(size, size))
    return picture.astype(np.float64) / images.WHITE


def _counted(peak=20.0, gain=2.0, offset=10.0, read_noise_std=3.0, num=None):
    """A picture of counts and read noise, or `num`, and the clean one."""
    rng = np.random.default_rng(0)
    rates = peak * _clean()
    shape = rates.shape if num is None else (num, *rates.shape)
    read = rng.normal(offset, read_noise_std, shape)
    return gain * rng.poisson(rates, shape) + read, gain * rates + offset


PIXELS = images.ValueRange(0.0, images.WHITE)
NOISE = {
    "transform": PoissonGaussianNoise(2.0, 10.0, 3.0),
    "likelihood": PoissonGaussianNoise(2.0, 10.0, 3.0, by_likelihood=True),
    "gaussian": GaussianNoise(7.0),
}


class RestorationTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(*NOISE)
    def test_estimates_of_the_mean_are_merged_to_the_clean_picture(self, name):
        # What a perfect model would say of each patch: the mean of its values,
        # of which those of 1,000 pictures are an estimate.
        x, clean = _counted(num=1000)
        noise, clean = NOISE[name], clean[:16, :16]
        values = noise.to_model(x[:, :16, :16], PIXELS).mean(0)
        patches = tfvae.Restoration(values, patch=(4, 4)).observations()
        task = tfvae.Restoration(clean, patch=(4, 4), noise=noise)
        found = task.merge(patches.train)
        # The standard deviation of x is at most 10, and that of a mean 0.32.
        self.assertAllClose(found, clean, rtol=0.0, atol=1.6)
        self.assertLess(np.abs(np.mean(found - clean)), 0.1)

    def test_model_sees_the_transform_of_unit_noise(self):
        x, clean = _counted(peak=200.0)
        task = tfvae.Restoration(x, patch=(4, 4), noise=NOISE["transform"])
        found = task.observations()
        noise = anscombe.PoissonGaussian(2.0, 10.0, 3.0)
        expected = tfvae.Restoration(anscombe.forward(x, noise), patch=(4, 4))
        self.assertAllClose(found.train, expected.observations().train)
        of_clean = anscombe.forward(clean, noise)
        error = np.float64(task._to_model(task.image)) - of_clean
        # The standard error of a standard deviation of 4096 values is 0.011.
        self.assertAllClose(error.std(), 1.0, atol=0.05)
        self.assertAllClose(
            found.value_range, anscombe.forward(np.array([0.0, 255.0]), noise)
        )

    def test_missing_entries_are_filled_in(self):
        x, _ = _counted()
        x[10:13, 20:22] = np.nan
        for noise in NOISE.values():
            task = tfvae.Restoration(x, patch=(4, 4), noise=noise)
            train = task.observations().train
            self.assertEqual(
                np.isnan(train).any(), np.isnan(task.image).any(), noise
            )
            merged = task.merge(np.full_like(train, 5.0))
            self.assertTrue(np.isfinite(merged).all())

    def test_what_is_not_given_is_estimated_and_printed(self):
        x, _ = _counted(peak=60.0, read_noise_std=10.0)
        task = tfvae.corrupted_image(x, noise=PoissonGaussianNoise(offset=10.0))
        # Of 64 blocks only.
        self.assertBetween(task.noise.gain, 1.4, 2.8)
        self.assertBetween(task.noise.read_noise_std, 5.0, 15.0)
        self.assertRegex(
            task.noise.describe(),
            r"Poisson of gain [\d.]+ with offset 10 and read noise of standard "
            r"deviation [\d.]+; denoised by the generalised Anscombe transform",
        )

    def test_missing_entries_do_not_change_what_is_estimated_much(self):
        x, _ = _counted(peak=60.0, read_noise_std=10.0)
        whole = tfvae.corrupted_image(x, noise=PoissonGaussianNoise()).noise
        x[20:24, 30:34] = np.nan
        task = tfvae.corrupted_image(x, noise=PoissonGaussianNoise())
        self.assertAllClose(task.noise.gain, whole.gain, rtol=0.1)
        self.assertIn("noise: Poisson of gain", task.describe())

    def test_unfitted_noise_says_so(self):
        with self.assertRaisesRegex(RuntimeError, r"fitted\(values\) must be"):
            PoissonGaussianNoise().to_model(np.ones((4, 4, 1)), PIXELS)

    @parameterized.parameters(
        (lambda: GaussianNoise(0.0), "`GaussianNoise.std` must be positive"),
        (lambda: GaussianNoise(math.nan), "`GaussianNoise.std` must be .* nan"),
        (lambda: PoissonGaussianNoise(gain=-1.0), "`gain` must be .* got -1"),
        (
            lambda: PoissonGaussianNoise(read_noise_std=-1.0),
            "`read_noise_std` must be",
        ),
    )
    def test_wrong_noise_is_refused(self, make, message):
        with self.assertRaisesRegex(ValueError, message):
            make()


class UnitsTest(tf.test.TestCase, parameterized.TestCase):
    """One picture in several units, with the noise in each of them."""

    COUNTED = PoissonGaussianNoise(gain=4.0, offset=900.0, read_noise_std=8.0)

    def _counted(self):
        """Integers from about 900 to 5000: counts, and read noise."""
        rng = np.random.default_rng(0)
        counts = rng.poisson(1000.0 * _clean())
        read = rng.normal(900.0, 8.0, counts.shape)
        return np.rint(4.0 * counts + read)

    def _in_units(self, dtype, factor, shift, **settings):
        """The picture in other units, and the noise as it is in these."""
        values = np.rint(factor * self._counted() + shift)
        noise = PoissonGaussianNoise(
            factor * 4.0, factor * 900.0 + shift, factor * 8.0
        )
        noise = dataclasses.replace(noise, **settings)
        return tfvae.corrupted_image(
            values.astype(dtype), noise=noise, patch=(4, 4)
        )

    @parameterized.product(
        units=(
            (np.uint16, 2.0, 0.0),
            (np.int16, 1.0, -1900.0),
            (np.float32, 4.0, -5000.0),
            (np.float64, 1e6, 3.0),
        ),
        by_likelihood=(False, True),
    )
    def test_model_and_result_do_not_depend_on_units(
        self, units, by_likelihood
    ):
        dtype, factor, shift = units
        one = self._in_units(np.uint16, 1.0, 0.0, by_likelihood=by_likelihood)
        other = self._in_units(*units, by_likelihood=by_likelihood)
        x = one.observations().train
        self.assertAllClose(other.observations().train, x, rtol=1e-4, atol=0.01)
        estimates = x.mean() + 0.9 * (x - x.mean())  # Within the range.
        expected = one.value_range.from_pixels(one.merge(estimates))
        merged = other.value_range.from_pixels(other.merge(estimates))
        self.assertAllClose((merged - shift) / factor, expected, rtol=1e-4)
        found = other.picture(other.restore(estimates)).values
        self.assertDTypeEqual(found, dtype)
        # Integers are rounded.
        self.assertAllClose((found - shift) / factor, expected, atol=1.0)

    @parameterized.parameters(
        (np.uint16, 2.0, 0.0), (np.int16, 1.0, -1900.0), (np.float32, 4.0, -1e4)
    )
    def test_estimated_noise_is_in_units_of_the_picture(self, *units):
        _, factor, shift = units
        unknown = {"gain": None, "read_noise_std": None}
        one = self._in_units(np.uint16, 1.0, 0.0, **unknown).noise
        other = self._in_units(*units, **unknown).noise
        self.assertAllClose(other.gain, factor * one.gain, rtol=1e-3)
        self.assertAllClose(
            other.read_noise_std, factor * one.read_noise_std, rtol=1e-2, atol=1
        )

    def test_known_level_is_in_units_of_the_picture(self):
        given = likelihoods.GaussianLikelihood()
        x = self._counted()
        for dtype, values, std in (
            (np.uint16, x, 41.0),
            (np.int16, x - 3000.0, 41.0),
            (np.float32, 100.0 * x, 4100.0),
        ):
            task = tfvae.corrupted_image(
                values.astype(dtype), noise=GaussianNoise(std), scale=0.5
            )
            variance = task.likelihood(given).variance
            found, _ = task.in_units(math.sqrt(variance))
            self.assertAllClose(found, std)
            self.assertIn(f"deviation {std:g}, as given", task.describe())

    def test_noise_is_part_of_what_a_run_folder_belongs_to(self):
        x = self._counted()
        found = {
            tfvae.corrupted_image(x, noise=noise).fingerprint()
            for noise in (
                None,
                self.COUNTED,
                dataclasses.replace(self.COUNTED, gain=3.0),
                GaussianNoise(3.0),
                GaussianNoise(4.0),
            )
        }
        self.assertLen(found, 5)

    def test_offset_above_all_values_is_refused(self):
        with self.assertRaisesRegex(
            ValueError, "`offset` must be less than the largest .* got 9000.0"
        ):
            tfvae.corrupted_image(
                self._counted(), noise=PoissonGaussianNoise(2.0, 9000.0, 3.0)
            )


class LikelihoodTest(tf.test.TestCase, parameterized.TestCase):
    def test_level_is_fixed_in_the_units_of_the_model(self):
        x, _ = _counted()
        task = tfvae.Restoration(x, scale=0.1, noise=GaussianNoise(7.0))
        given = likelihoods.GaussianLikelihood(standardize=False)
        found = task.likelihood(given)
        self.assertIsInstance(found, likelihoods.GaussianLikelihood)
        self.assertAllClose(found.variance, 0.7**2)
        self.assertTrue(found.is_fixed)
        self.assertFalse(found.standardize)

    def test_likelihood_is_the_given_one_where_nothing_is_known(self):
        given = likelihoods.DiagonalGaussianLikelihood()
        found = tfvae.Restoration(_counted()[0]).likelihood(given)
        self.assertIs(found, given)

    def test_transform_has_a_variance_of_1_and_counts_a_poisson_likelihood(
        self,
    ):
        given = likelihoods.GaussianLikelihood()
        x, _ = _counted()
        task = tfvae.Restoration(x, noise=NOISE["transform"])
        self.assertAllClose(task.likelihood(given).variance, 1.0)
        task = tfvae.Restoration(x, noise=NOISE["likelihood"])
        found = task.likelihood(given)
        self.assertIsInstance(found, likelihoods.PoissonLikelihood)
        self.assertAllGreaterEqual(task.observations().train, 0.0)

    @parameterized.parameters(
        (
            NOISE["gaussian"],
            likelihoods.DiagonalGaussianLikelihood,
            "`experiment.likelihood` must be @GaussianLikelihood .* got Diag",
        ),
        (
            NOISE["likelihood"],
            likelihoods.BernoulliLikelihood,
            "`experiment.likelihood` must be @PoissonLikelihood .* got Bern",
        ),
        (
            NOISE["gaussian"],
            lambda: likelihoods.GaussianLikelihood(3.0),
            "`GaussianLikelihood.initial_variance` .* must not be bound .*3.0",
        ),
    )
    def test_likelihood_that_would_not_act_is_refused(self, noise, make, error):
        task = tfvae.Restoration(_counted()[0], noise=noise)
        with self.assertRaisesRegex(ValueError, error):
            task.likelihood(make())

    def test_counts_have_no_other_scale(self):
        for name in ("transform", "likelihood"):
            task = tfvae.Restoration(
                _counted()[0], scale=0.5, noise=NOISE[name]
            )
            with self.assertRaisesRegex(
                ValueError, "`corrupted_image.scale` must be 1 .* got 0.5"
            ):
                task.likelihood(likelihoods.GaussianLikelihood())


def _estimates(task, num_latents=32):
    """The estimates of all patches by a small model trained on them."""
    keras.utils.set_random_seed(0)
    train = task.observations().train
    index = np.arange(len(train))
    model = tfvae.TVAE(
        tfvae.FullyConnectedDecoder(train.shape[1], (32,)),
        num_latents=num_latents,
        num_data=len(train),
        likelihood=task.likelihood(likelihoods.GaussianLikelihood()),
        num_states=8,
        evolution=tfvae.Evolution(num_parents=2, num_children=2),
    )
    model.adapt(train)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(train, index, batch_size=100, epochs=8, verbose=0)
    return model.stored_reconstruction(train, index)


@pytest.mark.slow
class DenoisedTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters("transform", "likelihood")
    def test_counts_are_denoised(self, name):
        x, clean = _counted(peak=8.0)
        x, clean = x[:32, :32], clean[:32, :32]
        task = tfvae.Restoration(x, clean, (6, 6), noise=NOISE[name])
        found = task.merge(_estimates(task))
        before = np.mean((x - clean) ** 2)
        self.assertLess(np.mean((found - clean) ** 2), 0.4 * before)

    @parameterized.parameters(("camera", 25.0), ("coins", 5.0))
    def test_models_tell_white_noise_from_correlated(self, name, std):
        clean = images.convert_channels(images.embedded_image(name), 1)
        clean = clean[100:196, 100:196]
        white = np.random.default_rng(0).standard_normal(clean.shape)
        blurred = scipy.ndimage.gaussian_filter(white, (0.7, 0.7, 0))
        blurred /= blurred.std()
        for noise, is_white in ((white, True), (blurred, False)):
            task = tfvae.Restoration(clean + std * noise, stride=2)
            restored = task.restore(_estimates(task, num_latents=128))
            found = residuals.autocorrelation(task.image, restored)
            self.assertEqual(found.is_white, is_white, found)


if __name__ == "__main__":
    tf.test.main()
