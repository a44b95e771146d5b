# SPDX-License-Identifier: Apache-2.0
"""Known and estimated noise of pictures, and the likelihoods it needs."""

from __future__ import annotations

import functools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

import tfvae
from tfvae import likelihoods
from tfvae.data import images
from tfvae.noise import GaussianNoise, PoissonGaussianNoise
from tfvae.ops import anscombe


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
        values = noise.to_model(x[:, :16, :16]).mean(0)
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

    def test_unfitted_noise_says_so(self):
        with self.assertRaisesRegex(RuntimeError, r"fitted\(image\) must be"):
            PoissonGaussianNoise().to_model(np.ones((4, 4, 1)))

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


@pytest.mark.slow
class DenoisedTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters("transform", "likelihood")
    def test_counts_are_denoised(self, name):
        keras.utils.set_random_seed(0)
        x, clean = _counted(peak=8.0)
        x, clean = x[:32, :32], clean[:32, :32]
        task = tfvae.Restoration(x, clean, (6, 6), noise=NOISE[name])
        train = task.observations().train
        index = np.arange(len(train))
        model = tfvae.TVAE(
            tfvae.FullyConnectedDecoder(train.shape[1], (32,)),
            num_latents=32,
            num_data=len(train),
            likelihood=task.likelihood(likelihoods.GaussianLikelihood()),
            num_states=8,
            evolution=tfvae.Evolution(num_parents=2, num_children=2),
        )
        model.adapt(train)
        model.compile(keras.optimizers.Adam(0.01))
        model.fit(train, index, batch_size=100, epochs=8, verbose=0)
        found = task.merge(model.stored_reconstruction(train, index))
        before = np.mean((x - clean) ** 2)
        self.assertLess(np.mean((found - clean) ** 2), 0.4 * before)


if __name__ == "__main__":
    tf.test.main()
