# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import pickle

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.lso.tasks.expressions import (
    FitError,
    all_expressions,
    evaluate,
    expression_rows,
    expressions,
    grammar,
    worst_expressions,
)

X = np.linspace(-10.0, 10.0, 1000)
BEST = "1/3+(x)+sin(x*x)"


def _python(text):
    """Values by Python's own rules; for texts of this file alone."""
    names = {"x": X, "sin": np.sin, "exp": np.exp}
    with np.errstate(all="ignore"):
        return np.broadcast_to(eval(text, names), X.shape)


class EvaluationTest(parameterized.TestCase):
    def test_values_equal_those_of_python(self):
        rng = np.random.default_rng(0)
        language = grammar()
        texts = language.read(rng.random((300, 180)) ** 2, 0)
        texts = [text for text in texts if text is not None]
        self.assertGreater(len(set(texts)), 50)
        for text in [*texts, "1+2*x/3*x", "(1+x)*2", " exp( x / 2 ) + 1.5"]:
            np.testing.assert_array_equal(
                evaluate(text, X), _python(text), text
            )

    @parameterized.parameters(
        ("x+", "must have x, a number or a bracket at 2, got the end"),
        ("x+y", "at 2, got 'y' in 'x\\+y'"),
        ("sin(x", "must have an operator or `\\)` at 5"),
        ("x)", "must have an operator or the end at 1, got '\\)'"),
        ("1.2.3", "must have x, a number or a bracket at 0"),
        ("", "at 0, got the end in ''"),
        ("__import__('os')", "at 0, got .__import__"),
    )
    def test_text_that_is_no_expression_is_reported(self, text, message):
        with self.assertRaisesRegex(ValueError, message):
            evaluate(text, X)


class ScoreTest(parameterized.TestCase):
    @parameterized.parameters(
        ("x", 0.4876),
        ("1/3+x", 0.3911),
        ("x+sin(x*x)", 0.1054),
        ("1", 3.5624),
        (BEST, 0.0),
        # The best of published runs.
        ("1/3+(x)+sin(3/1)", 0.394),
        ("1+x+sin(x)+sin(x*x)", 0.653),
        # Infinite, and undefined.
        ("exp(exp(x))", 7.0),
        ("exp(exp(exp(x)))/exp(exp(exp(x)))", 7.0),
    )
    def test_score_is_the_published_one(self, text, published):
        decimals = 3 if round(published, 3) == published else 4
        self.assertAlmostEqual(FitError()(text), published, decimals)

    def test_score_equals_the_formula_for_another_target(self):
        score = FitError("2*x", num_points=5, limit=2.0)
        # Errors of x at -2, ..., 2: 4, 1, 0, 1, 4.
        self.assertAlmostEqual(score("x"), math.log(1.0 + 10.0 / 5.0))
        self.assertEqual(FitError(worst=2.0)("1"), 2.0)

    def test_score_survives_being_sent_to_another_process(self):
        score = pickle.loads(pickle.dumps(FitError()))
        self.assertEqual(score(BEST), 0.0)


class DataTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.whole = all_expressions()

    def test_all_expressions_have_the_published_counts(self):
        steps = self.whole.points.reshape(-1, 15, 12)
        self.assertEqual(
            steps.sum((0, 1)).tolist(),
            [
                *(270_960, 70_960, 48_080, 272_540, 57_620, 57_460, 57_460),
                *(128_940, 126_380, 118_540, 116_140, 174_920),
            ],
        )
        lengths = 15 - steps[..., 11].sum(-1).astype(int)
        self.assertEqual(
            dict(zip(*np.unique(lengths, return_counts=True), strict=True)),
            {8: 624, 10: 3_748, 12: 28_092, 14: 67_536},
        )
        self.assertLen(set(self.whole.inputs), 100_000)

    def test_scores_have_the_published_statistics(self):
        scores = self.whole.scores
        self.assertAlmostEqual(scores.mean(), 4.945, 3)
        self.assertAlmostEqual(scores.std(), 1.650, 3)
        self.assertAlmostEqual(np.median(scores), 4.73639, 5)
        self.assertEqual(np.count_nonzero(scores == 7.0), 26_476)
        self.assertLen(np.unique(scores.round(9)), 6_004)
        self.assertEqual(self.whole.inputs[scores.argmin()], BEST)
        self.assertAlmostEqual(np.sort(scores)[1], 0.0274, 4)

    def test_points_and_scores_are_those_of_the_texts(self):
        chosen = np.random.default_rng(0).choice(100_000, 200)
        chosen = [0, *chosen, 99_999]
        texts = [self.whole.inputs[i] for i in chosen]
        score = FitError()
        np.testing.assert_array_equal(
            grammar().encode(texts), self.whole.points[chosen]
        )
        np.testing.assert_allclose(
            [score(text) for text in texts], self.whole.scores[chosen], 1e-12
        )

    def test_worse_half_has_the_published_statistics(self):
        worst = worst_expressions()
        self.assertLen(worst.scores, 50_111)
        self.assertAlmostEqual(worst.scores.min(), 4.73639, 5)
        self.assertAlmostEqual(worst.scores.mean(), 6.329, 3)
        self.assertAlmostEqual(np.mean(worst.scores == 7.0), 0.528, 3)
        self.assertNotIn(BEST, worst.inputs)
        self.assertLen(worst_expressions(1.0).scores, 100_000)
        rows = expression_rows()
        np.testing.assert_array_equal(rows.train, worst.points)

    def test_share_that_is_none_is_reported(self):
        for share in (0.0, 1.5):
            with self.assertRaisesRegex(ValueError, f"`share` .* got {share}"):
                worst_expressions(share)


class TaskTest(absltest.TestCase):
    def test_run_begins_with_its_own_draw_of_the_worse_half(self):
        task = expressions(num_data=500)
        first, again, other = (task.data(seed) for seed in (1, 1, 2))
        self.assertLen(set(first.inputs), 500)
        self.assertGreaterEqual(first.scores.min(), 4.736)
        self.assertEqual(first.inputs, again.inputs)
        self.assertNotEqual(first.inputs, other.inputs)
        worst = set(worst_expressions().inputs)
        self.assertTrue(worst.issuperset(first.inputs))
        np.testing.assert_array_equal(task.write(first.inputs), first.points)
        scores = [task.objective(text) for text in first.inputs]
        np.testing.assert_allclose(scores, first.scores, 1e-12)

    def test_default_is_the_published_number(self):
        self.assertLen(expressions().data(0).scores, 5000)

    def test_means_are_read_as_texts(self):
        task = expressions()
        texts = ["x", BEST, "exp(sin(x))"]
        rows = task.write(texts)
        self.assertEqual(rows.shape, (3, 180))
        self.assertEqual(task.read(rows, 0), texts)
        # Mixed with every symbol, most attempts still agree.
        blurred = 0.99 * rows + 0.01 / 12
        self.assertEqual(task.read(blurred, 1), texts)
        # Only sums, without an end.
        endless = np.zeros((1, 15, 12))
        endless[..., 0] = 1.0
        self.assertEqual(task.read(endless.reshape(1, 180), 0), [None])

    def test_smaller_is_better_and_0_the_best(self):
        task = expressions()
        self.assertEqual(
            (task.sign, task.invalid_score, task.optimum), (-1.0, 7.0, 0.0)
        )
        self.assertEqual(task.from_json(task.to_json(BEST)), BEST)
        for part in (task.objective, task.read, task.write, task.data):
            pickle.dumps(part)

    def test_wrong_arguments_are_reported(self):
        for arguments in ({"num_data": 0}, {"num_attempts": 0}):
            with self.assertRaisesRegex(
                ValueError, "must be an integer of at least 1"
            ):
                expressions(**arguments)
        with self.assertRaisesRegex(ValueError, "at most the 50111 .* 60000"):
            expressions(60_000).data(0)


if __name__ == "__main__":
    absltest.main()
