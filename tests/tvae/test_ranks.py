# SPDX-License-Identifier: Apache-2.0
"""Several ranks train a TVAE as one process does."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import absltest, parameterized

from tests import rank_threads
from tests.tvae import tiny
from tfvae import checkpoints, tvae
from tfvae.ops import bits, densities, random
from tfvae.ops.rows import LazyRows
from tfvae.ranks import MPIRanks
from tfvae.tvae import evolution as evolution_lib
from tfvae.tvae.model import _TRAINING


class _OneProcess(tvae.TVAE):
    """All data in one process, with the E-steps that the ranks make.

    The reference implementation: each rank's part of a batch evolves by the
    seed of the rank; all else is what one process does.
    """

    parts: list[np.ndarray]  # Positions in the batch, by rank.

    def _e_step(
        self, x: tf.Tensor, observed: tf.Tensor, index: tf.Tensor
    ) -> Any:
        order = np.argsort(np.concatenate(self.parts))
        found = []
        for rank, part in enumerate(self.parts):
            if not len(part):
                continue
            rows = tf.gather(x, part), tf.gather(observed, part)
            candidates = (
                self._joint.shared(*rows)
                if self.evolution.shared
                else evolution_lib.OwnCandidates(self._joint.own(*rows))
            )
            evolved, _ = evolution_lib.e_step(
                random.make_seed(
                    self.seed, _TRAINING, self._iteration.value, rank
                ),
                self.states.gather(tf.gather(index, part)).packed,
                candidates,
                self.evolution,
                self.prior.expected_ones(),
                self.num_latents,
            )
            found.append(evolved)
        evolved = tf.nest.map_structure(
            lambda *one: tf.gather(tf.concat(one, 0), order), *found
        )
        self.states.scatter(index, evolved)
        return evolved


class _Trained(NamedTuple):
    first: np.ndarray
    states: np.ndarray
    parameters: list[np.ndarray]
    logs: dict[str, float]


class _Case(NamedTuple):
    """How some ranks train.

    Attributes:
      settings: Of the model.
      rows: The rows of the data that each rank has.
      batches: For each step and rank, the indices of its data points.
      explores: Whether each step is an epoch of exploration.
    """

    settings: dict[str, Any]
    rows: tuple[range, ...]
    batches: tuple[tuple[list[int], ...], ...]
    explores: bool = False


_OWN = tvae.Evolution(num_parents=3, num_generations=1, shared=False)
_SHARED = tvae.Evolution(num_parents=3, num_generations=1)
# Batches of unequal parts, one of them empty, one with a point drawn twice.
_UNEVEN = _Case(
    {"evolution": _OWN},
    (range(0, 8), range(8, 11)),
    (([0, 5, 2], [2]), ([1, 3, 4, 6], []), ([7, 7, 0], [0, 1]), ([5], [2, 0])),
)
_CASES = {
    "gaussian": _UNEVEN,
    "bernoulli": _UNEVEN,
    "diagonal": _UNEVEN,
    "poisson": _UNEVEN,
    "exploration": _UNEVEN._replace(
        settings={
            "evolution": _OWN,
            "exploration": tvae.Exploration(period=1, until=4),
        },
        explores=True,
    ),
    "shared": _UNEVEN._replace(settings={"evolution": _SHARED}),
    # The 8 points of the first rank have 56 bytes of states, the other 21.
    "disk": _UNEVEN._replace(
        settings={"evolution": _OWN, "states_in_memory": 40}
    ),
    "four": _Case(
        {"evolution": _OWN, "m_batch_size": 8},
        (range(0, 2), range(2, 5), range(5, 8), range(8, 11)),
        (
            ([0, 1], [0, 1, 2], [0, 1, 2], [0, 1, 2]),
            ([], [2], [0, 2], [1]),
            ([1, 1], [0, 2], [1], []),
        ),
    ),
    "m_batches": _Case(
        {"evolution": _SHARED, "m_batch_size": 4, "num_m_states": 5},
        (range(0, 11, 2), range(1, 11, 2)),
        (([0, 1, 2, 3, 4], [4, 3, 2, 1, 0]), ([5, 1], [2, 3]), ([0, 5], [])),
    ),
}


def _make(kind: type, name: str, settings: dict, num_data: int) -> Any:
    likelihood = name if name in tiny.LIKELIHOODS else "gaussian"
    made = tiny.make(likelihood, num_data=num_data, **settings)
    model = kind.from_config(made.get_config())
    for one, other in zip(
        model._weights_but_states(), made._weights_but_states(), strict=True
    ):
        one.assign(other)
    model.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    return model


class _LazyPoints(LazyRows):
    """Data points that are read when they are asked for."""

    def __init__(self, points: np.ndarray) -> None:
        super().__init__(*points.shape)
        self._points = points

    def take(self, index: np.ndarray) -> np.ndarray:
        return self._points[index]


def _weights(rows: np.ndarray) -> np.ndarray:
    return 0.5 + rows.astype(np.float32) / 11


def _step(model: Any, rows: np.ndarray, index: np.ndarray) -> None:
    x = tiny.data()[rows]
    model.train_step((x, index.astype(np.int32), _weights(rows)))


def _end_epoch(model: Any, case: _Case) -> None:
    if case.explores:
        epoch = int(model.iteration) - 1
        explore = tvae.Explore()
        explore.set_model(model)
        logs = model._get_metrics_result_or_logs(model.get_metrics_result())
        explore.on_epoch_end(epoch, logs)
        explore.on_epoch_begin(epoch + 1)


def _trained(model: Any, first: np.ndarray) -> _Trained:
    logs = model._get_metrics_result_or_logs(model._results())
    return _Trained(
        first,
        np.array(model.states.packed),
        [one.numpy() for one in model._weights_but_states()],
        {name: float(value) for name, value in logs.items()},
    )


def train_rank(name: str, ranks: MPIRanks, in_graph: bool = False) -> _Trained:
    """Trains a case as one of its ranks."""
    case = _CASES[name]
    rows = np.array(case.rows[ranks.rank])
    model = _make(tvae.TVAE, name, case.settings, len(rows))
    model.set_ranks(ranks)
    first = np.array(model.states.packed)
    if in_graph:
        model.train_step = tf.function(
            model.train_step,
            input_signature=[
                (
                    tf.TensorSpec([None, tiny.NUM_OBSERVED]),
                    tf.TensorSpec([None], tf.int32),
                    tf.TensorSpec([None]),
                )
            ],
        )
    for batch in case.batches:
        index = np.array(batch[ranks.rank], int)
        _step(model, rows[index], index)
        _end_epoch(model, case)
    return _trained(model, first)


def _by_one(name: str, of_ranks: list[_Trained]) -> _Trained:
    """Trains from the ranks' first states, in the order of their steps."""
    case = _CASES[name]
    settings = {**case.settings, "states_in_memory": None}
    model = _make(_OneProcess, name, settings, 11)
    every = np.concatenate(case.rows)
    order = np.argsort(every)
    firsts = [one.first for one in of_ranks]
    model.states.packed.assign(np.concatenate(firsts)[order])
    size = case.settings.get("m_batch_size", 1000) // len(case.rows)
    for batch in case.batches:
        parts = [
            np.array(rows)[np.array(part, int)]
            for rows, part in zip(case.rows, batch, strict=True)
        ]
        steps = range(0, max(map(len, parts)), size)
        rows = np.concatenate(
            [part[i : i + size] for i in steps for part in parts]
        )
        distinct = list(dict.fromkeys(rows.tolist()))
        model.parts = [
            np.array([distinct.index(row) for row in dict.fromkeys(part)], int)
            for part in parts
        ]
        _step(model, rows, rows)
        _end_epoch(model, case)
    return _trained(model, np.concatenate(firsts)[order])


@functools.cache
def _models() -> list[tvae.TVAE]:
    """Models of three ranks, which tests share."""
    return [tiny.make(), tiny.make(), tiny.make()]


class RanksTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        "gaussian", "bernoulli", "diagonal", "poisson", "shared", "four"
    )
    @pytest.mark.slow  # Has a faster twin.
    def test_ranks_train_as_one_process_does(self, name):
        self._assert_trains_as_one_process(name)

    def test_ranks_explore_as_one_process_does(self):
        self._assert_trains_as_one_process("exploration")

    def test_ranks_with_states_on_disk_train_as_one_process_does(self):
        self._assert_trains_as_one_process("disk")

    def test_ranks_make_the_m_steps_of_one_process(self):
        self._assert_trains_as_one_process("m_batches")

    def _assert_trains_as_one_process(self, name):
        size = len(_CASES[name].rows)
        train = functools.partial(train_rank, name)
        self.assert_is_of_one_process(name, rank_threads.run(size, train))

    def assert_is_of_one_process(self, name, ranks):
        one = _by_one(name, ranks)
        order = np.argsort(np.concatenate(_CASES[name].rows))
        states = np.concatenate([rank.states for rank in ranks])[order]
        self.assertAllEqual(states, one.states)
        self.assertNotAllEqual(states, one.first)
        for rank in ranks:
            for found, expected in zip(
                rank.parameters, one.parameters, strict=True
            ):
                self.assertAllClose(found, expected, rtol=1e-5, atol=1e-6)
            for log in ("bound", "loss", "active", "effective_states"):
                self.assertAllClose(rank.logs[log], one.logs[log], rtol=1e-5)
        # Not only about: the same on all ranks.
        for found, expected in zip(
            ranks[0].parameters, ranks[1].parameters, strict=True
        ):
            self.assertAllEqual(found, expected)

    @parameterized.parameters((None, 1), (4, 1 + 2))
    def test_a_gradient_step_is_one_exchange(self, m_batch_size, expected):
        def step(ranks: MPIRanks) -> int:
            model = _make(
                tvae.TVAE, "gaussian", {"m_batch_size": m_batch_size}, 8
            )
            model.set_ranks(ranks)
            exchanges = []
            all_sum = ranks._all_sum
            with mock.patch.object(
                ranks,
                "_all_sum",
                lambda *flats: exchanges.append(flats) or all_sum(*flats),
            ):
                # 4 points and 1: as many steps as 4 need, by 2 each.
                index = np.arange(1 + 3 * ranks.rank)
                _step(model, index, index)
            return len(exchanges)

        self.assertEqual(rank_threads.run(2, step), [expected] * 2)

    def test_best_states_migrate_between_ranks(self):
        evolution = tvae.Evolution(
            num_parents=1, num_children=1, num_generations=1, num_migrants=2
        )
        sizes = (3, 8)
        models = [
            tiny.make(num_data=size, num_states=2, evolution=evolution)
            for size in sizes
        ]
        # A child has one bit more or less: the second rank finds no state of
        # more than two ones, which the prior prefers by far.
        starts = (
            [[1.0, 1, 1, 1], [1, 1, 1, 0]],
            [[0.0, 0, 0, 0], [0, 0, 0, 1]],
        )

        def evolved(ranks: MPIRanks) -> np.ndarray:
            model = models[ranks.rank]
            model.set_ranks(ranks)
            model.prior_probs.assign(np.full(4, 1.0 - 1e-5))
            start = tf.constant([starts[ranks.rank]] * sizes[ranks.rank])
            model.states.packed.assign(bits.pack(start))
            x = tiny.data()[: sizes[ranks.rank]]
            index = np.arange(len(x), dtype=np.int32)
            model._e_step(*densities.split_missing(x), index)
            best = model.states.packed.numpy()[:, 0]
            return bits.unpack(tf.constant(best), 4).numpy()

        _, found = rank_threads.run(2, evolved)
        self.assertAllEqual(found, np.ones((8, 4)))

    def test_migrants_are_few_best_states_and_zeros(self):
        packed = np.arange(1, 13, dtype=np.uint8).reshape(3, 2, 2)
        found = evolution_lib.best_states(tf.constant(packed), 4)
        self.assertAllEqual(found, [[1, 2], [5, 6], [9, 10], [0, 0]])
        found = evolution_lib.best_states(tf.constant(packed), 2)
        self.assertAllEqual(found, [[1, 2], [5, 6]])

    def test_ranks_start_from_rank_0_with_states_of_their_own(self):
        def start(ranks: MPIRanks) -> tuple[np.ndarray, np.ndarray]:
            model = _models()[ranks.rank]
            model.prior_probs.assign(model.prior_probs / (ranks.rank + 1))
            alone = checkpoints.checkpoint_bytes(model)
            model.set_ranks(ranks)
            # A checkpoint has the rows of both.
            rows = sum(one.numpy().nbytes for one in model.row_variables())
            self.assertEqual(checkpoints.checkpoint_bytes(model), alone + rows)
            return model.prior_probs.numpy(), model.states.packed.numpy()

        first, second = rank_threads.run(2, start)
        self.assertAllEqual(first[0], second[0])
        self.assertNotAllEqual(first[1], second[1])

    @parameterized.parameters("gaussian", "diagonal", "poisson")
    def test_adapt_sees_the_data_of_all_ranks(self, name):
        def adapted(ranks: MPIRanks) -> list[np.ndarray]:
            likelihood = tiny.LIKELIHOODS[name]()
            likelihood.ranks = ranks
            likelihood.adapt(tiny.data()[ranks.rows(11)])
            return [one.numpy() for one in likelihood.variables]

        alone = tiny.LIKELIHOODS[name]()
        alone.adapt(tiny.data())
        for found in rank_threads.run(3, adapted):
            self.assertAllClose(found, alone.variables, rtol=1e-6)

    @parameterized.parameters(np.asarray, _LazyPoints)
    def test_weighted_draws_are_those_of_all_data(self, points_of):
        weights = np.array([1, 2, 0, 4, 5, 0, 3, 1, 0, 2, 6], np.float32)
        num_steps, size = 300, 8

        def drawn(ranks: MPIRanks) -> Any:
            model = _models()[ranks.rank]
            model.set_ranks(ranks)
            # Of the three ranks, the last has no point that is ever drawn.
            rows = (np.array([0, 1, 3, 4]), np.array([6, 7, 9, 10]), [2, 5, 8])
            mine = np.array(rows[ranks.rank])
            found = []
            for start in (0, 2):
                batches = model.batches(
                    points_of(tiny.data()[mine]),
                    size,
                    start_epoch=start,
                    weights=weights[mine],
                ).take(num_steps)
                found.append([mine[index] for _, index in batches])
                for (x, index), _ in zip(batches, range(3), strict=False):
                    self.assertAllEqual(x, tiny.data()[mine][index])
            return found

        of_ranks = rank_threads.run(3, drawn)
        counts = np.zeros(11)
        sizes = []
        for parts in zip(*(found for found, _ in of_ranks), strict=True):
            np.add.at(counts, np.concatenate(parts), 1)
            sizes.append([len(part) for part in parts])
        # No draw of a batch is lost, and no two ranks make the same one.
        self.assertAllEqual(np.sum(sizes, 1), np.full(num_steps, size))
        self.assertGreater(len({tuple(one) for one in sizes}), 5)
        self.assertAllEqual(counts[weights == 0], [0, 0, 0])
        expected = num_steps * size * weights / weights.sum()
        known = expected > 0
        # The 0.999 quantile of chi-square with 7 degrees of freedom.
        deviations = np.square(counts - expected)[known] / expected[known]
        self.assertLess(deviations.sum(), 24.3)
        # The third epoch begins after two of ceil(11 / 8) batches.
        for first, later in of_ranks:
            for one, other in zip(first[4:9], later[:5], strict=True):
                self.assertAllEqual(one, other)

    @parameterized.parameters(
        ([[0, 0], [0, 0], [0, 0]], "`weights` must have a positive sum"),
        ([[1, -1], [1, 2], [1, 0]], "`weights` .* negative"),
    )
    def test_weights_that_draw_nothing_are_refused(self, weights, message):
        def batches(ranks: MPIRanks) -> None:
            model = _models()[ranks.rank]
            model.set_ranks(ranks)
            own = np.array(weights[ranks.rank], np.float32)
            model.batches(tiny.data()[:2], 4, weights=own)

        with self.assertRaisesRegex(ValueError, message):
            rank_threads.run(3, batches)

    def test_unequal_numbers_of_steps_are_refused(self):
        def fit(ranks: MPIRanks) -> None:
            model = _models()[ranks.rank]
            model.set_ranks(ranks)
            model.compile("sgd")
            x = tiny.data()[: 4 + ranks.rank]
            model.fit(x, np.arange(len(x)), batch_size=4)

        with self.assertRaisesRegex(ValueError, r"`x` must .* got \[1, 2\]"):
            rank_threads.run(2, fit)

    def test_what_works_in_one_process_only_is_refused(self):
        decoder = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3),
                keras.layers.BatchNormalization(name="norm"),
            ]
        )

        model = tiny.make(decoder=decoder, num_data=1)
        with self.assertRaisesRegex(ValueError, "must not normalize .* 'norm'"):
            rank_threads.run(2, model.set_ranks)


if __name__ == "__main__":
    absltest.main()
