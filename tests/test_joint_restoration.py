# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

import tfvae
from tfvae.ops import patches


def _picture(shape=(12, 14), seed=0, dtype=np.uint8):
    values = np.random.default_rng(seed).uniform(0, 255, shape)
    return np.rint(values).astype(dtype)


class JointRestorationTest(tf.test.TestCase, parameterized.TestCase):
    def _joint(self, **settings):
        """Of three images of other sizes, dtypes and missing values."""
        holes = np.zeros((9, 9), np.uint8)
        holes[2:7, 2:7] = 1  # One 5 x 5 patch sees nothing.
        return tfvae.corrupted_images(
            [
                {"image": _picture(), "noise_std": 10.0} | settings,
                {"image": _picture((9, 9), 1), "mask": holes} | settings,
                {"image": _picture((8, 9), 2, np.float32) * 30.0} | settings,
            ],
            each=lambda **one: tfvae.corrupted_image(patch=5, **one),
        )

    def test_data_points_are_those_of_all_images_in_their_order(self):
        joint = self._joint()
        self.assertEqual(joint.num_patches, (8 * 10, 5 * 5 - 1, 4 * 5))
        data = joint.observations()
        self.assertEqual(data.event_shape, (5, 5, 1))
        rows = list(joint.rows())
        self.assertEqual(rows[1], slice(80, 104))
        for one, where in zip(joint.restorations, rows, strict=True):
            self.assertAllEqual(data.train[where], one.observations().train)
        self.assertEqual(rows[-1].stop, data.num_data)

    def test_estimates_are_asked_for_and_merged_image_by_image(self):
        joint = self._joint()
        clean = [one.source.values for one in joint.restorations]
        asked = []

        def estimate(rows):
            one = joint.restorations[len(asked)]
            asked.append(rows)
            pixels = one.value_range.to_pixels(one.source.values)
            found = patches.extract_patches(pixels, (5, 5))
            seen = ~np.isnan(patches.extract_patches(one.image, (5, 5))).all(
                axis=1
            )
            return found[seen]

        restored = joint.restore(estimate)
        self.assertEqual(asked, list(joint.rows()))
        for one, image, values in zip(
            joint.restorations, restored, clean, strict=True
        ):
            found = one.picture(image).values
            self.assertDTypeEqual(found, values.dtype)
            self.assertAllClose(found, values, rtol=1e-5)
        # Only the first has a clean image: noise was added to it.
        scores = joint.score(restored)
        self.assertEqual(scores, joint.restorations[0].score(restored[0]))
        worse = [image + 20.0 for image in restored]
        self.assertLess(joint.score(worse)["psnr"], 30.0)

    def test_score_is_the_mean(self):
        joint = tfvae.corrupted_images(
            [
                {"image": _picture(seed=i), "noise_std": 10.0 * (i + 1)}
                for i in range(2)
            ]
        )
        images = [one.image for one in joint.restorations]
        each = [one.score(one.image) for one in joint.restorations]
        self.assertAllClose(
            joint.score(images)["psnr"], (each[0]["psnr"] + each[1]["psnr"]) / 2
        )
        self.assertEqual(
            tfvae.corrupted_images([{"image": _picture()}]).score(images[:1]),
            {},
        )

    def test_noise_is_in_units_that_all_images_have(self):
        same = tfvae.corrupted_images(
            [{"image": _picture(seed=i).astype(np.uint16) * 16} for i in (0, 1)]
        )
        self.assertAllClose(same.in_units(25.5), (409.5, 0.1))
        self.assertAllClose(self._joint().in_units(25.5), (25.5, 0.1))

    @parameterized.parameters(
        (
            {"image": _picture((9, 9, 3))},
            "number of channels to share.*1 of.*3",
        ),
        ({"image": _picture((9, 9)), "patch": 4}, r"patch.*\(8, 8\).*\(4, 4\)"),
        ({"image": _picture((9, 9)), "scale": 0.1}, "scale to share.*0.1 of"),
    )
    def test_patches_of_other_shapes_or_scales_are_refused(self, two, message):
        with self.assertRaisesRegex(ValueError, f"have the same {message}"):
            tfvae.corrupted_images([{"image": _picture((9, 9))}, two])

    def test_known_noise_is_that_of_all_images(self):
        noise = tfvae.GaussianNoise(12.0)
        images = [{"image": _picture(seed=i), "noise": noise} for i in (0, 1)]
        found = tfvae.corrupted_images(images).likelihood(
            tfvae.GaussianLikelihood()
        )
        self.assertTrue(found.is_fixed)
        self.assertAllClose(found.initial_variance, 144.0)
        wider = {**images[1], "value_range": (0.0, 510.0)}
        with self.assertRaisesRegex(ValueError, "`noise` must be the same"):
            tfvae.corrupted_images([images[0], wider]).likelihood(
                tfvae.GaussianLikelihood()
            )

    def test_counts_of_all_images_are_transformed(self):
        noise = tfvae.PoissonGaussianNoise(gain=2.0, read_noise_std=1.0)
        joint = tfvae.corrupted_images(
            [{"image": _picture(seed=i), "noise": noise} for i in (0, 1)]
        )
        self.assertTrue(joint.is_transformed)
        found = joint.likelihood(tfvae.GaussianLikelihood())
        self.assertEqual(found.initial_variance, 1.0)
        counts = dataclasses.replace(noise, by_likelihood=True)
        joint_of_counts = tfvae.corrupted_images(
            [{"image": _picture(seed=i), "noise": counts} for i in (0, 1)]
        )
        self.assertIsInstance(
            joint_of_counts.likelihood(tfvae.GaussianLikelihood()),
            tfvae.PoissonLikelihood,
        )
        estimates = joint.observations().train
        for one, image in zip(
            joint.restorations,
            joint.restore(lambda rows: estimates[rows]),
            strict=True,
        ):
            # The unbiased inverse of one value differs from the algebraic one.
            self.assertAllClose(image, one.image, atol=3.0)

    def test_no_image_is_refused(self):
        with self.assertRaisesRegex(ValueError, "at least one, got none"):
            tfvae.JointRestoration(())

    def test_fingerprint_is_of_all_images_in_their_order(self):
        one, two = ({"image": _picture(seed=i)} for i in range(2))
        other = {"image": _picture(seed=1) ^ 1}
        found = {
            tfvae.corrupted_images(each).fingerprint()
            for each in ([one, two], [two, one], [one], [one, other])
        }
        self.assertLen(found, 4)

    def test_description_has_a_line_of_each_image(self):
        lines = self._joint().describe().splitlines()
        self.assertEqual(lines[0], "3 images with one model of all patches")
        self.assertLen([one for one in lines if one.startswith("image:")], 3)


if __name__ == "__main__":
    tf.test.main()
