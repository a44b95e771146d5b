# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

from absl.testing import absltest

from benchmarks import evaluators
from tfvae.lso.evaluation import InProcess, ProcessPool, Result


class EvaluatorsTest(absltest.TestCase):
    def test_row_has_failures_survivors_and_what_others_returned(self):
        with ProcessPool(2, 0.7) as pool:
            row = evaluators.bad_row("pool", pool, range(8))
        self.assertRegex(
            row,
            r"^\| pool \| ValueError: no such molecule; \d+\.\d s "
            r"\| process ended by SIGKILL; \d+\.\d s "
            r"\| no answer after 0.7 seconds; \d+\.\d s \| 0 \| 5 of 5 \|$",
        )

    def test_inputs_may_be_left_out(self):
        row = evaluators.bad_row("here", InProcess(), [0, 4])
        self.assertRegex(
            row, r"molecule; .* \| \(left out\) \| \(left out\) \| 0 \| 1 of 1"
        )

    def test_wrong_scores_and_survivors_are_counted(self):
        def evaluator(objective, inputs, done):
            objective._path.write_text(f"{os.getpid()} 99999999")
            for i, _ in enumerate(inputs):
                done(i, Result(1.0, None, 0.1))

        row = evaluators.bad_row("wrong", evaluator, range(8))
        self.assertEndsWith(row, "| 1 | 1 of 5 |")

    def test_efficiency_is_a_fraction_of_the_ideal(self):
        row = evaluators.throughput_row("none", lambda *_: None, 2)
        self.assertLen(row.split("|"), 6)
        rate, efficiency = row.split("|")[3].split()
        ideal = float(rate) / 2.0
        self.assertAlmostEqual(
            float(efficiency.strip("(%)")) / 100.0 / ideal, 1.0, delta=0.01
        )


if __name__ == "__main__":
    absltest.main()
