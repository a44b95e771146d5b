# SPDX-License-Identifier: Apache-2.0
"""Task: fit a function by an arithmetic expression (symbolic regression)."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.data import Observations
from tfvae.lso.tasks.base import ScoredData, Task
from tfvae.lso.tasks.grammar import Grammar
from tfvae.lso.tasks.parsing import Derivation

# Processes that evaluate the objective do without TensorFlow.
if TYPE_CHECKING:
    from tfvae.lso.weighting import Weighting

NUM_STEPS = 15
TARGET = "1/3+x+sin(x*x)"
WORST_SCORE = 7.0

_PRODUCTIONS = (
    ("S", ("S", "+", "T")),
    ("S", ("S", "*", "T")),
    ("S", ("S", "/", "T")),
    ("S", ("T",)),
    ("T", ("(", "S", ")")),
    ("T", ("sin(", "S", ")")),
    ("T", ("exp(", "S", ")")),
    ("T", ("x",)),
    ("T", ("1",)),
    ("T", ("2",)),
    ("T", ("3",)),
)
_LEAVES = ("x", "1", "2", "3")
_BRACKETS = ("(", "sin(", "exp(")
_TOKEN = re.compile(r"\s*(sin\(|exp\(|[0-9.]+|[x+*/()])")
_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "(": np.asarray,
    "sin(": np.sin,
    "exp(": np.exp,
}


@functools.cache
def grammar() -> Grammar:
    """Returns the published grammar: 11 productions and padding, 15 steps."""
    return Grammar(_PRODUCTIONS, NUM_STEPS)


# Values of expressions.


def evaluate(text: str, x: np.ndarray) -> np.ndarray:
    """Evaluates an expression, float64 of the shape of x.

    Products bind stronger than sums, and operators are left-associative, as
    usual; the grammar itself has no such precedence. Overflow gives infinity,
    and undefined values are NaN.

    Raises:
      ValueError: If the text is not an expression.
    """
    x = np.asarray(x, np.float64)
    reader = _Reader(text, x)
    with np.errstate(all="ignore"):
        values = reader.sum()
    reader.end()
    return np.broadcast_to(values, x.shape)


class _Reader:
    """Recursive-descent parser and evaluator of expressions."""

    def __init__(self, text: str, x: np.ndarray):
        self._text = text
        self._x = x
        self._place = 0

    def _next(self) -> str:
        """Returns the next token without consuming it, empty at the end."""
        found = _TOKEN.match(self._text, self._place)
        return found.group(1) if found else ""

    def _take(self) -> str:
        found = _TOKEN.match(self._text, self._place)
        if found is None:
            raise self._error("another symbol")
        self._place = found.end()
        return found.group(1)

    def _error(self, wanted: str) -> ValueError:
        rest = self._text[self._place :]
        return ValueError(
            f"`text` must have {wanted} at {self._place}, got "
            f"{repr(rest) if rest else 'the end'} in {self._text!r}"
        )

    def end(self) -> None:
        """Raises a ValueError if something is left."""
        if self._text[self._place :].strip():
            raise self._error("an operator or the end")

    def sum(self) -> np.ndarray:
        values = self._product()
        while self._next() == "+":
            self._take()
            values = values + self._product()
        return values

    def _product(self) -> np.ndarray:
        values = self._factor()
        while self._next() in ("*", "/"):
            if self._take() == "*":
                values = values * self._factor()
            else:
                values = values / self._factor()
        return values

    def _factor(self) -> np.ndarray:
        token = self._next()
        if token in _FUNCTIONS:
            self._take()
            values = self.sum()
            if self._next() != ")":
                raise self._error("an operator or `)`")
            self._take()
            return _FUNCTIONS[token](values)
        if token == "x":
            self._take()
            return self._x
        try:
            values = np.asarray(token, np.float64)
        except ValueError:
            raise self._error("x, a number or a bracket") from None
        self._take()
        return values


@dataclasses.dataclass(frozen=True)
class FitError:
    """Error of an expression against a target: min(worst, ln(1 + MSE)).

    The mean squared error is over evenly spaced points of [-limit, limit].
    Expressions that are undefined at one of them have the score `worst`.

    Attributes:
      target: The expression to fit.
      num_points: Number of points.
      limit: Largest point.
      worst: The largest, worst score.
    """

    target: str = TARGET
    num_points: int = 1000
    limit: float = 10.0
    worst: float = WORST_SCORE

    def __call__(self, text: str) -> float:
        """Returns the score of an expression; 0 is the best."""
        points, wanted = _wanted(self)
        return float(self.of_errors(evaluate(text, points) - wanted))

    def of_errors(self, errors: np.ndarray) -> np.ndarray:
        """Returns the scores of errors `[..., points]`, `[...]`."""
        with np.errstate(all="ignore"):
            scores = np.log1p(np.mean(np.square(errors), axis=-1))
        return np.where(scores < self.worst, scores, self.worst)


@functools.lru_cache(maxsize=8)
def _wanted(error: FitError) -> tuple[np.ndarray, np.ndarray]:
    """Returns the points and the target's values there."""
    points = np.linspace(-error.limit, error.limit, error.num_points)
    return points, evaluate(error.target, points)


# Data.


# The published data are this many sums, the first ones.
_NUM_ALL = 100_000


class _Parts(NamedTuple):
    """Expressions that are the terms of sums, and their values."""

    texts: list[str]
    derivations: list[Derivation]
    values: np.ndarray
    """`[parts, points]`."""


def _data_parts(x: np.ndarray) -> list[_Parts]:
    """Returns the possible terms of the data, see `all_expressions`."""
    pairs = [a + o + b for o in "+*/" for a in _LEAVES for b in _LEAVES]
    small = [b + leaf + ")" for b in _BRACKETS for leaf in _LEAVES]
    small += _LEAVES
    large = small + [b + pair + ")" for b in _BRACKETS for pair in pairs]
    return [
        _Parts(
            texts,
            [grammar().parse(text, symbol) for text in texts],
            np.stack([evaluate(text, x) for text in texts]),
        )
        for texts, symbol in ((pairs, "S"), (small, "T"), (large, "T"))
    ]


@functools.lru_cache(maxsize=2)
def all_expressions(error: FitError = FitError()) -> ScoredData:
    """Returns the 100,000 published expressions and their scores.

    They are the first 100,000 sums a + b + c of two leaves with an operator
    (a), a leaf with brackets or without (b), and one of those or two leaves
    with an operator, in brackets (c). Nothing is random; the last are those
    of 1/3 + (x). They reproduce every published figure, but their order may
    differ from the published one.

    Args:
      error: The score.

    Returns:
      Points `[100000, 180]`, scores, and texts. Do not modify them, as all
      callers share them.
    """
    points, wanted = _wanted(error)
    firsts, seconds, thirds = _data_parts(points)
    # `S + T + T`, of which `S` is expanded first.
    head = (0, 0)
    texts: list[str] = []
    derivations: list[Derivation] = []
    scores: list[np.ndarray] = []
    for first, rules, of_first in zip(*firsts, strict=True):
        for second, more_rules, of_second in zip(*seconds, strict=True):
            num = min(_NUM_ALL - len(texts), len(thirds.texts))
            begin = head + rules + more_rules
            texts += [f"{first}+{second}+{one}" for one in thirds.texts[:num]]
            derivations += [begin + one for one in thirds.derivations[:num]]
            sums = of_first + of_second + thirds.values[:num]
            scores.append(error.of_errors(sums - wanted))
    rows = grammar().one_hot(derivations)
    return ScoredData(rows, np.concatenate(scores), texts)


def worst_expressions(
    share: float = 0.5, error: FitError = FitError()
) -> ScoredData:
    """Returns the expressions whose score is no better than a quantile.

    Args:
      share: Fraction of all expressions that is kept, up to ties.
      error: The score.

    Raises:
      ValueError: If `share` is not in (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"`share` must be in (0, 1], got {share!r}")
    whole = all_expressions(error)
    limit = np.quantile(whole.scores, 1.0 - share)
    return _rows(whole, np.flatnonzero(whole.scores >= limit))


def _rows(data: ScoredData, index: np.ndarray) -> ScoredData:
    """Returns some of the data points."""
    texts = data.inputs or ()
    return ScoredData(
        data.points[index], data.scores[index], [texts[i] for i in index]
    )


@typed_gin.register
def expression_rows(
    share: float = 0.5, weighting: Weighting | None = None
) -> Observations:
    """Data source of the worst expressions, to pretrain a model on.

    Args:
      share: Fraction of all 100,000 expressions that is kept.
      weighting: Sampling weights by score; None for each once per epoch.
    """
    data = worst_expressions(share)
    return Observations(
        name="expressions",
        train=data.points,
        weights=None if weighting is None else weighting(-data.scores),
    )


# The task.


@typed_gin.register
def expressions(
    num_data: int = 5000, share: float = 0.5, num_attempts: int = 5
) -> Task:
    """Returns the task of fitting 1 / 3 + x + sin(x * x) by an expression.

    An input is a text such as `"x+sin(2*x)"`. The score is ln(1 + MSE) on
    [-10, 10], at most 7, to be minimised. The better half of all expressions,
    including that of score 0, is withheld; the initial data are a sample of the
    others. Decoder means are probabilities of productions: texts are sampled
    from them, and the most frequent one is taken.

    Reference: Tripp, Daxberger and Hernandez-Lobato, 2020, "Sample-efficient
    optimization in the latent space of deep generative models via weighted
    retraining".

    Args:
      num_data: Number of initial expressions, drawn by the run's seed.
      share: Fraction of all 100,000 expressions, the worst, to draw from.
      num_attempts: Texts sampled for each decoder mean.

    Raises:
      ValueError: If a number is not positive, or `share` is not in (0, 1].
    """
    check_counts(num_data=num_data, num_attempts=num_attempts)
    return Task(
        name="expressions",
        data=functools.partial(_some_of_worst, num_data, share),
        objective=FitError(),
        read=functools.partial(_read, num_attempts),
        write=_write,
        maximise=False,
        invalid_score=WORST_SCORE,
        optimum=0.0,
        to_json=str,
        from_json=str,
        score_label="score of the expression",
    )


def _some_of_worst(num_data: int, share: float, seed: int) -> ScoredData:
    """Returns data points, drawn without replacement, in a random order."""
    worst = worst_expressions(share)
    if num_data > len(worst.scores):
        raise ValueError(
            f"`num_data` must be at most the {len(worst.scores)} expressions "
            f"that are not withheld, got {num_data!r}"
        )
    rng = np.random.default_rng(seed)
    index = rng.choice(len(worst.scores), num_data, replace=False)
    return _rows(worst, index)


def _read(
    num_attempts: int, outputs: np.ndarray, seed: int
) -> list[str | None]:
    return grammar().read(outputs, seed, num_attempts)


def _write(texts: Sequence[str]) -> np.ndarray:
    return grammar().encode(texts)
