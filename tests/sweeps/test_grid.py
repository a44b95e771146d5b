# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from absl.testing import absltest, parameterized

from tfvae.sweeps import grid

_FACTORS = {
    "layer": {"fc": ["fc.gin"], "conv": ["conv.gin", "a.b = 1"]},
    "prior": {"normal": [], "flow2": ["p.flows = 2"], "flow6": ["q.gin"]},
}


class CellsTest(parameterized.TestCase):
    def test_whole_repetitions_come_one_after_the_other(self):
        found = grid.cells(_FACTORS, 2, seed=7)
        self.assertEqual(
            [cell.name for cell in found[:7]],
            [
                *("fc-normal-0", "fc-flow2-0", "fc-flow6-0"),
                *("conv-normal-0", "conv-flow2-0", "conv-flow6-0"),
                "fc-normal-1",
            ],
        )
        self.assertLen(found, 12)
        self.assertEqual({cell.seed for cell in found[:6]}, {7})
        self.assertEqual({cell.seed for cell in found[6:]}, {8})

    def test_excluded_combinations_are_left_out(self):
        rules = [{"layer": "fc", "prior": "flow6"}, {"prior": "normal"}]
        found = grid.cells(_FACTORS, 1, exclude=rules)
        self.assertEqual(
            [cell.name for cell in found],
            ["fc-flow2-0", "conv-flow2-0", "conv-flow6-0"],
        )

    def test_files_come_apart_from_bindings(self):
        levels = {"layer": "conv", "prior": "flow6"}
        self.assertEqual(
            grid.files_and_bindings(_FACTORS, levels),
            (["conv.gin", "q.gin"], ["a.b = 1"]),
        )

    @parameterized.parameters(
        ({}, 1, (), TypeError, "`study.factors` must be a dict.*got {}"),
        ({"a": {}}, 1, (), TypeError, "dictionary of levels for 'a'"),
        ({"a-b": {"c": []}}, 1, (), ValueError, "names like `encoder`"),
        ({"a": {"b-c": []}}, 1, (), ValueError, "letters, digits.*'b-c'"),
        ({"a": {"b": "c.gin"}}, 1, (), TypeError, "a list.*got 'c.gin'"),
        (_FACTORS, 0, (), ValueError, "repetitions.*at least 1, got 0"),
        (_FACTORS, 1, ({"layer": "x"},), ValueError, "got 'layer': 'x'"),
        (_FACTORS, 1, ({},), ValueError, "must leave at least one"),
    )
    def test_what_makes_no_grid_is_refused(
        self, factors, repetitions, exclude, error, message
    ):
        with self.assertRaisesRegex(error, message):
            grid.cells(factors, repetitions, exclude=exclude)


if __name__ == "__main__":
    absltest.main()
