# SPDX-License-Identifier: Apache-2.0
"""The data of a run beside what its records say, worked out the slow way."""

from __future__ import annotations

import numpy as np
from absl.testing import absltest, parameterized

from tests.lso import tiny
from tests.lso.fakes import Better
from tfvae.lso import FB, ScoredData, header, reading
from tfvae.lso.collection import Collection
from tfvae.lso.plan import Plan
from tfvae.lso.records import (
    Addition,
    Amendment,
    Measurement,
    Proposal,
    Query,
    Records,
    Round,
    Withdrawal,
)


def _input(value):
    return None if value is None else [value] * tiny.NUM_OBSERVED


def _inputs():
    return [_input(float(i)) for i in range(tiny.NUM_DATA)]


def _made(weighting=None, constraints=None, **kwargs):
    """Returns a collection, and a function that has it follow a record."""
    data = tiny.data()
    data = ScoredData(data.points, data.scores, _inputs(), constraints or {})
    task = reading.resolved(tiny.task(**kwargs), data)
    collection, records = Collection(task, data), Records()

    def follow(*wanted):
        for record in wanted:
            records.check(record)
            before = len(records.sequence)
            records.add(record)
            for one, entry in records.sequence[before:]:
                collection.follow(one, entry, weighting or Better())

    return collection, follow


def _proposed(*values):
    """Returns queries whose inputs have these numbers, None for no input."""
    return Proposal(
        [
            Query(i, 0, [0.0, 0.0], _input(value), 0)
            for i, value in enumerate(values)
        ]
    )


def _of_bytes(points):
    """Returns the collection of data of bytes, and its function to follow."""
    data = ScoredData(points, np.arange(float(len(points))))
    task = reading.resolved(tiny.task(), data)
    collection, records = Collection(task, data), Records()

    def follow(record):
        records.check(record)
        records.add(record)
        (item,) = records.sequence[-1:]
        collection.follow(*item, Better())

    return collection, follow


class BytePointsTest(parameterized.TestCase):
    """Points of uint8, a quarter of the memory."""

    @parameterized.parameters(
        (2.0, np.uint8),
        (255.0, np.uint8),
        (256.0, np.float32),
        (-1.0, np.float32),
        (0.5, np.float32),
        (np.nan, np.float32),
    )
    def test_stay_bytes_as_long_as_they_can(self, value, dtype):
        points = np.eye(tiny.NUM_OBSERVED, dtype=np.uint8)
        collection, follow = _of_bytes(points)
        point = [1.0, *[value] * (tiny.NUM_OBSERVED - 1)]
        follow(Addition(3.0, point=point))
        follow(Round(0))
        self.assertEqual(collection.points.dtype, dtype)
        np.testing.assert_array_equal(collection.points, [*points, point])

    def test_have_the_checksum_of_the_same_floats(self):
        points = np.eye(tiny.NUM_OBSERVED, dtype=np.uint8)
        found = [
            header.header(tiny.task(), _of_bytes(one)[0], Plan(budget=1))
            for one in (points, points.astype(np.float32))
        ]
        self.assertEqual(*found)


class CollectionTest(parameterized.TestCase):
    @parameterized.parameters(True, False)
    def test_a_query_that_is_evaluated_again_has_its_row_again(self, keeps):
        collection, follow = _made(keep_duplicates=keeps)
        follow(_proposed(50.0, 51.0), Round(0))
        follow(Measurement(0, -1.0), Measurement(1, -2.0), Round(1))
        follow(Withdrawal(0), Amendment(1, None, "spilt"))
        self.assertEqual(collection.num_kept, tiny.NUM_DATA)
        self.assertFalse(collection.is_kept[-2:].any())
        follow(Measurement(0, -3.0), Amendment(1, -4.0))
        self.assertEqual(collection.num_kept, tiny.NUM_DATA)
        follow(Round(2))
        self.assertLen(collection.points, tiny.NUM_DATA + 2)
        self.assertTrue(collection.is_kept.all())
        np.testing.assert_array_equal(collection.scores[-2:], [-3.0, -4.0])
        np.testing.assert_array_equal(collection.queries[-2:], [0, 1])
        np.testing.assert_array_equal(collection.points[-2:, 0], [50.0, 51.0])
        follow(Amendment(0, -5.0))
        self.assertEqual(collection.scores[-2], -5.0)

    def test_inputs_that_the_data_have_are_added_once(self):
        collection, follow = _made(keep_duplicates=False)
        follow(_proposed(50.0, 50.0, 3.0), Round(0))
        follow(*(Measurement(i, -1.0) for i in range(3)))
        follow(Addition(-1.0, input=_input(50.0)), Round(1))
        np.testing.assert_array_equal(
            collection.points[tiny.NUM_DATA :, 0], [50.0]
        )

    def test_an_amendment_replaces_the_constraints_of_a_data_point(self):
        collection, follow = _made()
        follow(_proposed(50.0), Round(0))
        follow(Measurement(0, -1.0, constraints={"a": 1.0, "b": 2.0}))
        follow(Round(1))
        self.assertFalse(collection.is_feasible[-1])
        follow(Amendment(0, -1.0, constraints={"b": -1.0}))
        self.assertTrue(collection.is_feasible[-1])
        self.assertTrue(np.isnan(collection.constraints["a"][-1]))
        follow(Amendment(0, -1.0))
        self.assertTrue(np.isnan(collection.constraints["b"][-1]))

    def test_what_only_violates_a_constraint_stays_fresh(self):
        collection, follow = _made()
        follow(_proposed(50.0, 51.0, 52.0, None), Round(0))
        follow(
            Measurement(0, None, "too large", {"size": 1.0}),
            Measurement(1, None, "too large", {"size": -1.0}),
            Measurement(2, None, "spilt"),
            Measurement(3, None, "no input"),
        )
        self.assertLen(collection.fresh, 4)
        follow(Round(1))
        self.assertEqual([*collection.fresh], [0])
        self.assertLen(collection.points, tiny.NUM_DATA)

    def test_dropped_points_may_come_back(self):
        """A buffer drops its oldest, withdrawn ones are gone already."""
        collection, follow = _made(FB(0.0))
        follow(_proposed(50.0, 51.0, 52.0), Round(0))
        follow(*(Measurement(i, -1.0 - i) for i in range(3)), Round(1))
        self.assertEqual(collection.num_kept, tiny.NUM_DATA)
        follow(Withdrawal(1), Measurement(1, -7.0), Round(2))
        self.assertEqual(collection.num_kept, tiny.NUM_DATA - 1)
        self.assertLen(collection.points, tiny.NUM_DATA + 3)
        np.testing.assert_array_equal(collection.scores[-3:], [-1, -7, -3])
        np.testing.assert_array_equal(
            np.flatnonzero(~collection.is_kept), np.arange(4)
        )

    @parameterized.parameters(0, 1, 2)
    def test_known_results_are_means_over_all_that_stand(self, seed):
        violated = np.where(np.arange(tiny.NUM_DATA) % 2, 1.0, np.nan)
        collection, follow = _made(constraints={"odd": violated})
        rng = np.random.default_rng(seed)
        values = [float(one) for one in rng.integers(0, 4, 12)]
        follow(_proposed(*values), Round(0))
        standing = {
            ("data", i): (one[0], collection.scores[i], violated[i])
            for i, one in enumerate(_inputs())
        }
        for _ in range(40):
            number = int(rng.integers(12))
            score, limit = (float(one) for one in rng.normal(size=2))
            if number not in standing:
                made = Measurement
            elif rng.random() < 0.5:
                follow(Withdrawal(number))
                del standing[number]
                continue
            else:
                made = Amendment
            if rng.random() < 0.3:
                follow(made(number, None, "spilt"))
                standing[number] = (values[number], np.nan, np.nan)
            else:
                follow(made(number, score, None, {"odd": limit}))
                standing[number] = (values[number], score, limit)
        for value in {*values}:
            key = collection.key(_input(value))
            found = [one[1:] for one in standing.values() if one[0] == value]
            self.assertEqual(collection.is_known(key), bool(found))
            scores, limits = np.array(found).reshape(-1, 2).T
            known = collection.known_result(key)
            if np.isnan(scores).all() and np.isnan(limits).all():
                self.assertIsNone(known)
                continue
            self.assertAlmostEqual(known.score, np.nanmean(scores))
            if np.isnan(limits).all():
                self.assertIsNone(known.constraints)
            else:
                self.assertAlmostEqual(
                    known.constraints["odd"], np.nanmean(limits)
                )

    def test_keys_are_short_and_those_of_equal_inputs(self):
        key = Collection.key
        picture = np.zeros((64, 64)).tolist()
        self.assertLess(len(key(picture)), 100)
        self.assertEqual(key({"a": 1, "b": 2}), key({"b": 2, "a": 1}))
        self.assertEqual(key({"x": [-0.0, 1]}), key({"x": [0.0, 1.0]}))
        for one, other in (("1", 1), (True, 1), (0.5, 0), (None, 0), ([], {})):
            self.assertNotEqual(key(one), key(other))


if __name__ == "__main__":
    absltest.main()
