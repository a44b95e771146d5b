# SPDX-License-Identifier: Apache-2.0
"""The choice of queries beside a slow one, which looks at all pairs."""

from __future__ import annotations

import types

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.lso import Plan
from tfvae.lso.choosing import Choice, Chooser, nearest
from tfvae.lso.collection import Collection
from tfvae.lso.reading import Reading


def _distance(one, other, unit):
    """Returns the distance over coordinates that both have."""
    gaps = [
        (a - b) / c
        for a, b, c in zip(one, other, unit, strict=True)
        if not np.isnan(a) and not np.isnan(b)
    ]
    return np.sqrt(sum(gap**2 for gap in gaps) / len(unit))


class NearestTest(parameterized.TestCase):
    @parameterized.product(
        missing=[(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.3, 0.3)],
        shift=[0.0, 1e4],
    )
    def test_it_is_the_least_distance_over_shared_coordinates(
        self, missing, shift
    ):
        rng = np.random.default_rng(0)
        points, others = rng.normal(size=(2, 20, 5)) + shift
        others = others[:7]
        points[rng.random(points.shape) < missing[0]] = np.nan
        others[rng.random(others.shape) < missing[1]] = np.nan
        unit = rng.uniform(0.5, 2.0, 5)
        expected = [
            min(_distance(one, other, unit) for other in others)
            for one in points
        ]
        # Squares of differences of 1e4 in units of 1e-16.
        np.testing.assert_allclose(
            nearest(points, others, unit), expected, atol=1e-6
        )

    def test_without_others_it_is_infinite(self):
        found = nearest(np.zeros((2, 3)), np.zeros((0, 3)), np.ones(3))
        np.testing.assert_array_equal(found, [np.inf, np.inf])


class _Points:
    """Known points whose latents and inputs are one number."""

    def __init__(self, latents, known, pending):
        self.latents = latents
        self._known = known
        self._pending = pending

    def pending(self):
        return [types.SimpleNamespace(input=one) for one in self._pending]

    def written(self, contents):
        return np.array(contents, np.float32)[:, None]

    def points(self):
        return np.array([*self._known, *self._pending], np.float32)[:, None]


class ChooserTest(parameterized.TestCase):
    def test_each_that_is_rejected_counts_once(self):
        latents = np.arange(7, dtype=np.float32)[:, None]
        contents = [None, 1.0, 2.0, None, 4.0, 5.0]
        collection = types.SimpleNamespace(
            points=latents,
            key=Collection.key,
            is_known={Collection.key(4.0)}.__contains__,
        )
        chooser = Chooser(
            Plan(budget=9, min_distance=1e6, skips_known=True),
            collection,
            _Points(latents, [4.0], []),
        )
        found = [Reading(one, one, None) for one in contents]
        found.append(Reading(None, None, "too large", True))
        self.assertEqual(chooser.choose(latents, found, 2, latents, []), [])
        self.assertEqual(
            chooser.rejected,
            {"known": 1, "near": 3, "invalid": 2, "refused": 1},
        )

    @parameterized.product(
        seed=[0, 1, 2, 3],
        least=[0.0, 0.2, 0.5],
        skips=[False, True],
        proposals=[1, 3],
        count=[1, 4],
    )
    def test_it_is_the_greedy_choice_by_all_pairs(
        self, seed, least, skips, proposals, count
    ):
        rng = np.random.default_rng(seed)

        def inputs(n):  # Of few values, so that some are equal.
            return [float(one) for one in rng.integers(-15, 16, n)]

        data, known, pending = rng.normal(size=9), inputs(3), inputs(2)
        latents = rng.normal(size=(12, 1)).astype(np.float32)
        contents = [
            None if rng.random() < 0.2 else one for one in inputs(len(latents))
        ]
        found = [Reading(one, one, None) for one in contents]
        before = [Choice(latents[0], Reading(5.0, 5.0, None), None)]
        taken = {Collection.key(one) for one in known}
        collection = types.SimpleNamespace(
            points=data[:, None] * 4.0,
            key=Collection.key,
            is_known=taken.__contains__,
        )
        plan = Plan(
            budget=9,
            min_distance=least,
            skips_known=skips,
            num_proposals=proposals,
        )
        points = _Points(data[:, None].astype(np.float32), known, pending)
        others = rng.normal(size=(3, 1)).astype(np.float32)
        chooser = Chooser(plan, collection, points)
        choices = chooser.choose(latents, found, count, others, before)

        unit, point_unit = np.std(np.float32(data)), 4.0 * np.std(data)
        known_latents = [*others[:, 0], latents[0, 0]]
        known_inputs = {*known, *pending, 5.0}

        def rank(i):
            if contents[i] is None:
                return 2
            return int(contents[i] in {*known_inputs, *contents[:i]})

        order = range(len(latents))
        if skips or proposals > 1:
            order = sorted(order, key=rank)
        expected = []
        for i in order:
            near = [abs(latents[i, 0] - z) / unit for z in known_latents]
            apart = [abs(latents[i] - latents[k])[0] / unit for k in expected]
            if contents[i] is not None:
                chosen = [contents[k] for k in expected]
                near_points = [
                    abs(contents[i] - one) / point_unit
                    for one in [*known_inputs, *chosen]
                    if one is not None
                ]
                apart += near_points if least else []
            if min([*near, *apart]) < least or (skips and rank(i) == 1):
                continue
            expected.append(i)
            if len(expected) == count:
                break
        self.assertEqual(
            [float(one.latent[0]) for one in choices],
            [float(latents[i, 0]) for i in expected],
        )
        for one, i in zip(choices, expected, strict=True):
            self.assertEqual(one.reading, found[i])
            distance = min(abs(latents[i, 0] - z) for z in known_latents)
            self.assertAlmostEqual(one.distance, distance / unit, places=5)


if __name__ == "__main__":
    absltest.main()
