# SPDX-License-Identifier: Apache-2.0
"""What is known at latents beside a slow account of all that was recorded."""

from __future__ import annotations

import dataclasses
import os
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from tests.lso import fakes, tiny
from tests.lso.fakes import Believing, Walk
from tfvae.lso import Addition, LatentSpaceOptimizer, Plan, Rank
from tfvae.lso.records import Round, Withdrawal

PLAN = Plan(budget=40, queries_per_round=8, num_best=50, seed=5)


class KnownPointsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.enter_context(mock.patch.object(os, "fsync"))

    def _open(self, **kwargs):
        self.space = fakes.Space()
        return LatentSpaceOptimizer(
            self.create_tempdir().full_path,
            tiny.task(read=_rounded, **kwargs),
            self.space,
            fakes.Retrainer(self.space),
            self.plan,
            strategy=Walk(),
            surrogate=Believing(),
            weighting=Rank(0.1),
        )

    @parameterized.product(
        seed=[0, 1, 2], repeats=[1, 2], is_noisy=[False, True]
    )
    def test_it_is_what_the_records_say(self, seed, repeats, is_noisy):
        self.plan = dataclasses.replace(PLAN, repeats=repeats)
        rng = np.random.default_rng(seed)
        with self._open(is_noisy=is_noisy, maximise=seed != 1) as optimizer:
            while optimizer._num_left():
                self._step(optimizer, rng)
                if rng.random() < 0.3 and optimizer.ledger.records.round >= 0:
                    self._check(optimizer, is_noisy or repeats > 1)
            self.assertGreaterEqual(optimizer.ledger.records.round, 4)
            self._check(optimizer, is_noisy or repeats > 1)

    def _step(self, optimizer, rng):
        records = optimizer.ledger.records
        kind, score = rng.random(), float(rng.normal())
        limit = {"size": float(rng.normal())} if rng.random() < 0.5 else None
        if kind < 0.3 or not records.next_number:
            optimizer.ask(int(rng.integers(1, 4)))
        elif kind < 0.8 and records.waiting:
            number = int(rng.choice([*records.waiting]))
            if rng.random() < 0.2:
                optimizer.tell(number, failure="no", constraints=limit)
            else:
                optimizer.tell(number, score, constraints=limit)
        elif kind < 0.85:
            point = [score, 1.0, 2.0, 3.0]
            optimizer.add([Addition(score, None, point, limit)])
        elif records.entries:
            number = int(rng.choice([*records.entries]))
            if kind < 0.93:
                optimizer.withdraw(number)
            else:
                optimizer.amend(number, score, constraints=limit)

    def _check(self, optimizer, is_noisy):
        """Compares all that is known with what the records say."""
        optimizer._prepare()
        points = optimizer._proposer._points
        known = points.known(optimizer._proposer._no_state())
        found = [
            (known.scores[i], known.is_feasible[i], limit, known.queries[i])
            for i, limit in enumerate(
                known.constraints.get(
                    "size", np.full(len(known.scores), np.nan)
                )
            )
        ]
        expected = _expected(optimizer, is_noisy)
        for one, other in zip(
            sorted(zip(found, known.latents.tolist(), strict=True), key=_order),
            sorted(expected, key=_order),
            strict=True,
        ):
            np.testing.assert_allclose(one[0], other[0])
            latent = other[1]
            if len(latent) == tiny.NUM_OBSERVED:  # A point, to be encoded.
                latent = self.space.encode(np.float32(latent)[None], [0])[0]
            np.testing.assert_allclose(one[1], latent, atol=2e-4)


def _rounded(means, seed):
    """Decodes so coarsely that some inputs are found again."""
    return [*np.round(means / 2.0) * 2.0]


def _order(one):
    values, latent = one
    return np.nan_to_num(np.array([values[-1], *values]), nan=9e9).tolist()


def _expected(optimizer, is_noisy):
    """Returns scores, feasibility, constraint and latents or points of all."""
    task, ledger = optimizer.task, optimizer.ledger.records
    data = task.data(PLAN.seed)
    sign, worst = task.sign, (task.sign * data.scores).min()
    begun = max(
        i
        for i, (one, _) in enumerate(ledger.sequence)
        if isinstance(one, Round)
    )
    rows = [
        (float(sign * score), True, np.nan, -1, point)
        for score, point in zip(data.scores, data.points, strict=True)
    ]
    for record, _ in ledger.sequence:
        if isinstance(record, Addition):
            limit = (record.constraints or {}).get("size", np.nan)
            score = max(sign * record.score, worst)
            is_feasible = not limit > 0.0
            point = np.float32(record.point)
            rows.append((score, is_feasible, limit, -1, point))
    for entry in ledger.entries.values():
        limit = (entry.constraints or {}).get("size", np.nan)
        is_feasible = not limit > 0.0
        is_data = _is_data(ledger.sequence, begun, entry.query)
        if entry.score is not None:
            score = sign * entry.score
            if is_noisy and not is_data:
                score = np.mean(
                    [
                        sign * other.score
                        for other in ledger.entries.values()
                        if other.input == entry.input
                        and other.score is not None
                    ]
                )
        elif not is_feasible:
            score = np.nan
        elif _since(ledger.sequence, begun, entry.query):
            score = worst
        else:
            continue  # It failed in an earlier round.
        latent = entry.input
        if entry.round == ledger.round and not is_data:
            latent = entry.latent
        rows.append(
            (float(np.maximum(score, worst)), is_feasible, limit)
            + (entry.query, latent)
        )
    return [(row[:4], [float(one) for one in row[4]]) for row in rows]


def _since(sequence, begun, query):
    """Whether the newest record of a query is of this round."""
    return any(
        getattr(record, "query", None) == query
        for record, _ in sequence[begun:]
    )


def _is_data(sequence, begun, query):
    """Whether a query has been a data point since the round began."""
    had_score = False
    for i, (record, entry) in enumerate(sequence):
        if getattr(record, "query", None) == query:
            has_score = not isinstance(record, Withdrawal)
            has_score = has_score and entry.score is not None
            had_score = has_score and (had_score or i < begun)
    return had_score


if __name__ == "__main__":
    absltest.main()
