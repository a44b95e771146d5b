# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import scipy.stats
from absl.testing import absltest, parameterized

from tests import oracles
from tfvae.lso.tasks import grammar

# Lists of lists and words, one of which begins with another.
NESTED = grammar.Grammar(
    [
        ("list", ("[", "items", "]")),
        ("items", ("item", ",", "items")),
        ("items", ("item",)),
        ("item", ("list",)),
        ("item", ("a",)),
        ("item", ("ab",)),
    ],
    num_steps=12,
)
# Sums that begin with themselves.
SUMS = grammar.Grammar(
    [
        ("S", ("S", "+", "T")),
        ("S", ("T",)),
        ("T", ("x",)),
        ("T", ("(", "S", ")")),
    ],
    num_steps=8,
)


def _derivable(language, num_steps):
    """All texts of at most so many productions, by breadth first search."""
    lefts = {left for left, _ in language.productions}
    forms = {((language.productions[0][0],), ())}
    texts = {}
    for _ in range(num_steps):
        following = set()
        for form, used in forms:
            place = next(i for i, one in enumerate(form) if one in lefts)
            for number, (left, right) in enumerate(language.productions):
                if left == form[place]:
                    new = (*form[:place], *right, *form[place + 1 :])
                    if lefts.isdisjoint(new):
                        texts["".join(new)] = (*used, number)
                    else:
                        following.add((new, (*used, number)))
        forms = following
    return texts


class ParsingTest(parameterized.TestCase):
    @parameterized.parameters(NESTED, SUMS)
    def test_parsing_inverts_every_short_derivation(self, language):
        texts = _derivable(language, language.num_steps)
        self.assertGreater(len(texts), 10)
        for text, derivation in texts.items():
            self.assertEqual(language.parse(text), derivation)
            self.assertEqual(language.text(derivation), text)
        self.assertEqual(language.decode(language.encode(texts)), list(texts))

    def test_texts_are_distinguished_from_all_others(self):
        texts = _derivable(SUMS, 8)
        for length in range(1, 6):
            for letters in itertools.product("x+()", repeat=length):
                text = "".join(letters)
                # Of so few letters, none takes more productions than that.
                if text in texts:
                    continue
                with self.assertRaises(ValueError):
                    SUMS.encode([text])

    def test_longest_terminal_is_taken_and_blanks_do_not_count(self):
        self.assertEqual(
            NESTED.text(NESTED.parse(" [ab, a,[ab] ]\n")), "[ab,a,[ab]]"
        )

    def test_part_of_a_text_is_derived_from_its_own_symbol(self):
        self.assertEqual(SUMS.parse("(x)", "T"), (3, 1, 2))

    @parameterized.parameters(
        ("x+*x", r"must consist of '\(' or .* got '\*' at 2 of 'x\+\*x'"),
        ("x + + x", r"must have '\(' or 'x' at 4, got '\+' in 'x \+ \+ x'"),
        ("(x", r"must continue with '\)' or '\+', got the end of '\(x'"),
        ("", r"must continue with '\(' or 'x', got the end of ''"),
        ("xx", r"must have '\+' at 1, got 'x'"),
    )
    def test_text_of_no_derivation_is_reported_with_its_place(
        self, text, message
    ):
        with self.assertRaisesRegex(ValueError, "`text` " + message):
            SUMS.parse(text)

    def test_text_of_too_many_productions_is_reported(self):
        self.assertLen(SUMS.parse("x+x+x+x+x"), 10)
        with self.assertRaisesRegex(ValueError, "at most 8 .* got 10 for"):
            SUMS.encode(["x+x+x+x+x"])


class DerivationTest(parameterized.TestCase):
    def test_rows_are_one_hot_and_padded(self):
        (row,) = SUMS.encode(["x"])
        self.assertEqual(row.dtype, np.float32)
        steps = row.reshape(8, 5)
        self.assertEqual(steps.argmax(-1).tolist(), [1, 2] + 6 * [4])
        self.assertEqual(steps.sum(-1).tolist(), 8 * [1.0])

    def test_groups_and_masks_are_by_left_side(self):
        self.assertEqual(SUMS.groups, [0, 0, 1, 1, 2])
        self.assertEqual(
            SUMS.masks.astype(int).tolist(),
            [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
        )

    @parameterized.parameters(
        ((2,), "must expand S, got production 2, of T"),
        ((1, 4), "must expand T, got production 4, of padding"),
        ((1, 2, 2), "must expand None, got production 2"),
        ((0, 1, 2), "must leave no nonterminal, got T"),
    )
    def test_wrong_derivation_is_reported(self, derivation, message):
        with self.assertRaisesRegex(ValueError, message):
            SUMS.text(derivation)

    @parameterized.parameters(
        ([], "must be distinct, at least one"),
        ([("S", ("x",)), ("S", ("x",))], "must be distinct"),
        ([("S", ())], "none of them empty"),
        ([("S", ("",))], "none of them empty"),
        (
            [("S", ("T",)), ("T", ("S",)), ("T", ("x",))],
            "must have no cycle of unit productions, got one of 'S'",
        ),
    )
    def test_wrong_grammar_is_reported(self, productions, message):
        with self.assertRaisesRegex(ValueError, message):
            grammar.Grammar(productions, 5)
        with self.assertRaisesRegex(ValueError, "`num_steps` .* got 0"):
            grammar.Grammar([("S", ("x",))], 0)


def _slow_sample(language, probabilities, uniforms):
    """Draws one derivation `[T]`, symbol by symbol."""
    lefts = list(dict.fromkeys(left for left, _ in language.productions))
    stack, found = [lefts[0]], []
    for weights, uniform in zip(probabilities, uniforms, strict=True):
        if not stack:
            found.append(language.num_symbols - 1)
            continue
        symbol = stack.pop()
        choices = [
            n
            for n, (left, _) in enumerate(language.productions)
            if left == symbol
        ]
        total = sum(weights[n] for n in choices)
        cumulative = 0.0
        for number in choices:
            cumulative += weights[number]
            if uniform * total < cumulative:
                break
        found.append(number)
        right = language.productions[number][1]
        stack += [one for one in reversed(right) if one in lefts]
    return found, not stack


class SamplingTest(parameterized.TestCase):
    @parameterized.parameters(NESTED, SUMS)
    def test_draws_equal_the_transcription(self, language):
        rng = np.random.default_rng(0)
        shape = (200, language.num_steps)
        probabilities = rng.random((*shape, language.num_symbols)) ** 3
        uniforms = rng.random(shape)
        found, is_whole = language.sample(probabilities, uniforms)
        expected = [
            _slow_sample(language, *one)
            for one in zip(probabilities, uniforms, strict=True)
        ]
        self.assertEqual(found.tolist(), [one for one, _ in expected])
        self.assertEqual(is_whole.tolist(), [whole for _, whole in expected])
        self.assertGreater(min(is_whole.sum(), (~is_whole).sum()), 5)

    def test_texts_have_the_probabilities_of_their_productions(self):
        # S to T with 0.7, T to x with 0.6, whatever the others are.
        row = np.array([0.15, 0.35, 0.24, 0.16, 0.1])
        num_draws = 20000
        texts = SUMS.read(np.tile(row, (num_draws, 8, 1)), seed=1)
        wanted = {
            "x": 0.7 * 0.6,
            "x+x": 0.3 * 0.7 * 0.6**2,
            "(x)": 0.7 * 0.4 * 0.7 * 0.6,
        }
        counts = [texts.count(text) for text in wanted]
        counts.append(num_draws - sum(counts))
        shares = [*wanted.values(), 1.0 - sum(wanted.values())]
        test = scipy.stats.chisquare(counts, np.array(shares) * num_draws)
        self.assertGreater(test.pvalue, oracles.CHI_SQUARE_LEVEL)

    def test_rows_of_texts_are_read_back(self):
        texts = list(_derivable(SUMS, 8))
        for num_attempts in (1, 5):
            self.assertEqual(
                SUMS.read(SUMS.encode(texts), 0, num_attempts), texts
            )

    def test_zero_probabilities_leave_all_that_may_follow_possible(self):
        texts = SUMS.read(np.zeros((400, 40)), seed=0)
        self.assertTrue({"x", "(x)", "x+x", None} <= set(texts))

    def test_most_common_valid_draw_counts_and_the_first_of_several(self):
        for votes, expected in (
            ([3, 5, 5, 3, 1], 3),
            ([-1, -1, -1, 2, 4], 2),
            ([-1, -1], -1),
            ([0, 7, 7], 7),
        ):
            self.assertEqual(grammar._most_common(np.array(votes)), expected)

    def test_draws_of_a_row_do_not_depend_on_how_many_follow(self):
        probabilities = np.random.default_rng(0).random((30, 40))
        whole = SUMS.read(probabilities, 4, 3)
        self.assertEqual(SUMS.read(probabilities[:7], 4, 3), whole[:7])
        self.assertNotEqual(SUMS.read(probabilities, 5, 3), whole)

    def test_attempts_that_never_end_make_none(self):
        # S to S + T always.
        row = np.array([1.0, 0.0, 1.0, 0.0, 0.0])
        self.assertEqual(SUMS.read(np.tile(row, (2, 8, 1)), 0, 5), [None] * 2)

    def test_no_rows_make_no_texts(self):
        self.assertEqual(SUMS.read(np.zeros((0, 40)), 0, 5), [])


if __name__ == "__main__":
    absltest.main()
