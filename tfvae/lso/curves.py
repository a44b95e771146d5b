# SPDX-License-Identifier: Apache-2.0
"""Top-K optimisation curves: the K-th best score after each query.

By the published definition, top-1 after q queries is the best score. For larger
K, repeated queries of the same input count once, and top-K is the K-th best
score of distinct inputs, or the worst of them while there are fewer than K. So
top-50 after 50 queries is the worst of 50. Initial data do not count.
"""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Sequence

import numpy as np

from tfvae.arguments import check_counts


def top_k(
    scores: np.ndarray,
    keys: Sequence[Hashable],
    k: int,
    budget: int | None = None,
) -> np.ndarray:
    """Returns the K-th best score after each query.

    Args:
      scores: `[n]`, larger is better, in the order of the queries.
      keys: Hashable keys that identify the n inputs. Invalid decodes all have
        the same key, such as None.
      k: K.
      budget: Length of the curve: after the end of a run its last value is
        repeated. By default n.

    Returns:
      `[budget]` float64; entry q - 1 is that after q queries.

    Raises:
      ValueError: If the arguments do not fit together.
    """
    scores = np.asarray(scores, np.float64)
    budget = len(scores) if budget is None else budget
    _check(scores, keys, k, budget)
    curve = np.empty(budget)
    best: list[float] = []  # Of distinct inputs, the worst of them first.
    seen: set[Hashable] = set()
    for query, (score, key) in enumerate(zip(scores, keys, strict=True)):
        if k == 1 or key not in seen:
            seen.add(key)
            bisect.insort(best, float(score))
            if len(best) > k:
                del best[0]
        curve[query] = best[0]
    curve[len(scores) :] = best[0]
    return curve


def _check(
    scores: np.ndarray, keys: Sequence[Hashable], k: int, budget: int
) -> None:
    if scores.ndim != 1 or not scores.size or np.isnan(scores).any():
        raise ValueError(
            "`scores` must be a vector of at least one number, none of them "
            f"NaN, got shape {scores.shape!r} with "
            f"{np.isnan(scores).sum()} NaN"
        )
    if len(keys) != len(scores):
        raise ValueError(
            f"`keys` must have the length {len(scores)} of `scores`, got "
            f"{len(keys)}"
        )
    check_counts(k=k)
    if budget < len(scores):
        raise ValueError(
            f"`budget` must be at least {len(scores)}, the number of scores, "
            f"got {budget!r}"
        )


def mean_and_spread(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and population standard deviation over runs.

    Args:
      curves: `[runs, queries]`.

    Returns:
      Two vectors `[queries]`; the spread of a single run is zero.

    Raises:
      ValueError: If there is no run.
    """
    curves = np.asarray(curves, np.float64)
    if curves.ndim != 2 or 0 in curves.shape:
        raise ValueError(
            "`curves` must have shape [runs, queries], neither of them zero, "
            f"got {curves.shape!r}"
        )
    return curves.mean(axis=0), curves.std(axis=0)
