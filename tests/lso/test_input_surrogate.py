# SPDX-License-Identifier: Apache-2.0
"""Tests of surrogates of what latents decode to."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.lso import fakes, tiny
from tfvae import lso
from tfvae.lso.feasibility import fresh
from tfvae.lso.input_surrogate import DecodedFeatures

TEXTS = ["aab", "b", "", None]


def _task(features):
    return lso.Task(
        "texts",
        data=lambda seed: None,
        objective=len,
        to_json=str,
        from_json=str,
        features=features,
    )


def _letters(texts):
    return np.array([[t.count("a"), t.count("b")] for t in texts], np.uint8)


class _Decoder:
    """Decodes a latent to one of the texts, and counts what it decodes."""

    def __init__(self):
        self.num = 0

    def __call__(self, latents):
        self.num += len(latents)
        return [TEXTS[int(one)] for one in latents[:, 0]]


def _latents(*places):
    return np.array(places, np.float32)[:, None]


class DecodedFeaturesTest(tf.test.TestCase):
    def test_has_a_feature_for_what_is_no_input(self):
        found = DecodedFeatures(_task(_letters), _Decoder())
        self.assertAllEqual(
            found(_latents(0, 3, 2)), [[2, 1, 0], [0, 0, 1], [0, 0, 0]]
        )
        self.assertEqual(found(_latents(0)).dtype, np.uint8)
        self.assertAllEqual(found(_latents(3)), [[0, 0, 1]])

    def test_decodes_each_latent_once_until_it_forgets(self):
        decoder = _Decoder()
        found = DecodedFeatures(_task(_letters), decoder)
        found(_latents(0, 1, 0, 3))
        found(_latents(1, 0, 3))
        self.assertEqual(decoder.num, 3)
        found.forget()
        found(_latents(1))
        self.assertEqual(decoder.num, 4)

    def test_wrong_features_are_refused(self):
        def wrong(value):
            return DecodedFeatures(_task(value), _Decoder())

        with self.assertRaisesRegex(ValueError, "`features` of task texts mus"):
            wrong(None)
        for value, message in (
            (lambda texts: [1.0], r"\[2, features\], got float64 \(1,\)"),
            (lambda texts: [["x"]] * 2, "an array of numbers"),
            (lambda texts: [[np.nan]] * 2, "finite numbers"),
            (lambda texts: 1 / 0, "fails: ZeroDivisionError"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                wrong(value)(_latents(0, 1))
        with self.assertRaisesRegex(ValueError, "none of 1 latents decodes"):
            wrong(_letters)(_latents(3))
        with self.assertRaisesRegex(TypeError, "`features` must be a function"):
            _task("letters")


class InputSurrogateTest(tf.test.TestCase):
    def test_is_the_surrogate_of_the_features(self):
        features = DecodedFeatures(_task(_letters), _Decoder())
        surrogate = lso.InputSurrogate(lso.TanimotoProcess(), features)
        other = lso.TanimotoProcess()
        latents, scores = _latents(0, 1, 2, 3), np.array([3.0, 1.0, 0.0, -1.0])
        surrogate.fit(latents, scores, 0, False)
        other.fit(features(latents), scores, 0, False)
        for one, same in zip(
            surrogate.predict(latents),
            other.predict(features(latents)),
            strict=True,
        ):
            self.assertAllEqual(one, same)
        self.assertAllEqual(
            surrogate.covariance(latents, latents),
            other.covariance(features(latents), features(latents)),
        )
        self.assertAllEqual(
            surrogate.sample(latents, 3, 0),
            other.sample(features(latents), 3, 0),
        )
        self.assertAllEqual(surrogate.state()["logs"], other.state()["logs"])
        again = fresh(surrogate)
        again.restore(surrogate.state())
        again.fit(latents, scores, 1, True)
        self.assertAllEqual(
            again.predict(latents)[0], surrogate.predict(latents)[0]
        )

    def test_needs_features(self):
        with self.assertRaisesRegex(ValueError, "`features` must be given"):
            lso.InputSurrogate(lso.TanimotoProcess()).predict(_latents(0))

    def test_an_optimiser_gives_it_the_features_of_the_task(self):
        task = tiny.task(
            features=lambda inputs: np.rint(np.square(np.stack(inputs)))
        )
        space = fakes.Space()
        folder = self.create_tempdir().full_path
        with lso.LatentSpaceOptimizer(
            folder,
            task,
            space,
            fakes.Retrainer(space),
            lso.Plan(budget=6, queries_per_round=3),
            strategy=lso.ThompsonSampling(batch_size=2),
            surrogate=lso.InputSurrogate(lso.TanimotoProcess()),
            weighting=lso.Unweighted(),
        ) as optimizer:
            optimizer.run()
            self.assertEqual(optimizer.num_done, 6)
            # Means of a surrogate of its own for all that has a score.
            self.assertNotEmpty(optimizer.predicted())


if __name__ == "__main__":
    tf.test.main()
