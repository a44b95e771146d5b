# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: training on data and with states that exceed the memory.

Usage:
  python -m benchmarks.beyond_memory --case=states --gigabytes=2 --folder=/tmp
  python -m benchmarks.beyond_memory --case=states --gigabytes=40 \
      --points=20000000 --folder=/scratch
  python -m benchmarks.beyond_memory --case=data --folder=/scratch \
      --rows=100000,1000000,10000000,50000000
  python -m benchmarks.beyond_memory --case=weights --rows=1000000,100000000

--case=states   a TVAE with H = 64 and S = 64 whose states are in a file of so
                many gigabytes, visited in blocks, for a part of an epoch; first
                states are those of 16,384 data points, repeated, as drawing
                them does not depend on the disk. Data are computed, and take
                no room
--case=data     a VAE, and reading alone, on shards of so many data points of
                64 dimensions, written first, for a part of an epoch each
--case=costs    the expected beside the measured speed of small TVAEs of several
                sizes, in alternation, by wall-clock and by processor time:
                on busy cores, and one thread (--one_thread), the latter counts
--case=weights  tables for so many weights: seconds, bytes, draws a second, in
                two levels, and in one up to 10 million

The expected speed is that of `tfvae.tvae.costs`, which `tfvae train` prints.
--shared lets the data points of a batch share their states.

Points are counted after the first steps, which compile. The peak is that of the
process until then (which includes pages of a mapped file of states that the
system may take back), so that cases are best run one at a time; "own" is what
it holds then without pages of files (on Linux). Files go to a folder of their
own in --folder and are removed at the end, but not after a kill.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import keras
import numpy as np
import psutil
import tensorflow as tf

from benchmarks.tables import print_table
from tfvae import data, networks, priors, tvae, vae
from tfvae.data.blocks import block_batches
from tfvae.data.shard_writing import Part, write_shards
from tfvae.data.weighted import alias_table, packed_table
from tfvae.data.weighted_rows import TwoLevelTable
from tfvae.latent_model import LatentModel
from tfvae.ops.rows import LazyRows
from tfvae.resources import check_disk_space, peak_memory
from tfvae.tvae import costs, states

NUM_OBSERVED, NUM_LATENTS, NUM_STATES = 64, 64, 64


class Setting(NamedTuple):
    """Sizes of a TVAE whose speed is compared with the expected one."""

    num_observed: int
    num_latents: int
    num_states: int
    batch_size: int
    hidden: tuple[int, ...]
    is_shared: bool = False
    is_on_disk: bool = False
    m_batch_size: int | None = None


SETTINGS = {
    "small": Setting(16, 8, 32, 32, (8,)),
    "medium": Setting(64, 64, 64, 256, (64,), m_batch_size=128),
    "medium, disk": Setting(64, 64, 64, 256, (64,), False, True, 128),
    "shared": Setting(64, 64, 16, 256, (64,), True, m_batch_size=128),
    "many states": Setting(64, 64, 200, 128, (64,), m_batch_size=128),
    "wide": Setting(64, 256, 16, 128, (512,)),
    "large": Setting(784, 128, 32, 64, (500,)),
}
# Data points that are drawn; others repeat them.
_DRAWN = 2**14
_WARM_UP_STEPS = 5
_STEPS_BEFORE = 40
# Of small batches more, as a call of `fit` takes time by itself.
_COMPARED_STEPS, _COMPARED_POINTS = 12, 6400
_MOST_IN_ONE_LEVEL = 10_000_000
_GROUP_ROWS = 2**20


class ComputedRows(LazyRows):
    """Rows of a small table, over and over, in blocks as shards have them."""

    block_rows = 2048

    def __init__(self, num_rows: int) -> None:
        """Draws the table, of low rank with noise."""
        super().__init__(num_rows, NUM_OBSERVED)
        self._table = _table(0)

    def take(self, index: np.ndarray) -> np.ndarray:
        return self._table[index % len(self._table)]


class Generated:
    """Data points that are drawn as they are written, as an input."""

    name = "generated"

    def __init__(self, num_rows: int) -> None:
        """Sets N."""
        self.num_rows: int | None = num_rows
        self._count = num_rows

    def identity(self) -> Any:
        return self.num_rows

    def where(self, item: int) -> str:
        return "generated data"

    def parts(self, item: int, offset: int) -> Iterator[Part]:
        table = _table(0)
        for start in range(offset, self._count, len(table)):
            rng = np.random.default_rng(start)
            values = table + rng.standard_normal(NUM_OBSERVED, np.float32)
            yield Part(0, start, values[: self._count - start])


def _table(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(8, NUM_OBSERVED))
    points = rng.normal(size=(_DRAWN, 8)) @ weights
    return (points + 0.1 * rng.normal(size=points.shape)).astype(np.float32)


def new_tvae(
    num_data: int, folder: str, in_memory: int | None, is_shared: bool
) -> Any:
    """Returns a compiled TVAE with repeated first states."""

    def repeated(store: Any, seed: tf.Tensor) -> None:
        few = min(_DRAWN, num_data)
        drawn = states.StateStore(few, NUM_STATES, NUM_LATENTS)
        drawn.initialize(seed)
        packed = drawn.packed.numpy()
        for start in range(0, num_data, few):
            count = min(few, num_data - start)
            store.packed[start : start + count] = packed[:count]

    with mock.patch.object(states.DiskStateStore, "initialize", repeated):
        model = tvae.TVAE(
            networks.FullyConnectedDecoder(NUM_OBSERVED, (NUM_LATENTS,)),
            NUM_LATENTS,
            num_data=num_data,
            num_states=NUM_STATES,
            evolution=tvae.Evolution(shared=is_shared),
            num_m_states=16,
            m_batch_size=128,
            states_in_memory=in_memory,
            states_folder=folder,
        )
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def new_vae() -> LatentModel:
    """Returns a compiled VAE."""

    def network(num_outputs: int) -> keras.Model:
        return networks.fully_connected_encoder(
            num_outputs, NUM_OBSERVED, hidden=(256,)
        )

    model = vae.VAE(
        vae.learnable(network, 32),
        networks.FullyConnectedDecoder(NUM_OBSERVED, (256,)),
        priors.StandardNormalPrior(32),
    )
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def trained_rate(
    model: LatentModel, rows: Any, batch_size: int, num_points: int
) -> float:
    """Trains on part of an epoch; returns points a second."""
    batches = model.batches(rows, batch_size)
    settings: dict[str, Any] = {"verbose": 0, "shuffle": False}
    model.fit(batches, steps_per_epoch=_WARM_UP_STEPS, **settings)
    steps = max(1, min(num_points, len(rows)) // batch_size)
    start = time.perf_counter()
    model.fit(batches, steps_per_epoch=steps, **settings)
    return steps * batch_size / (time.perf_counter() - start)


def read_rate(rows: LazyRows, batch_size: int, num_points: int) -> float:
    """Reads part of an epoch in batches; returns points a second."""
    batches = block_batches(rows, rows.block_rows or 1, batch_size)
    steps = max(1, min(num_points, len(rows)) // batch_size)
    start = time.perf_counter()
    for _ in batches.take(steps):
        pass
    return steps * batch_size / (time.perf_counter() - start)


def memory() -> list[str]:
    """Returns the peak and what the process has allocated itself, MB."""
    now = psutil.Process().memory_info()
    own = now.rss - getattr(now, "shared", 0)  # Of files: on Linux only.
    return [f"{peak_memory() / 1e6:,.0f}", f"{own / 1e6:,.0f}"]


def measure_states(
    gigabytes: float,
    folder: str,
    batch_size: int,
    num_points: int,
    is_shared: bool,
) -> None:
    """Prints points a second with states in a file, and by the formula."""
    per_point = states.state_bytes(1, NUM_STATES, NUM_LATENTS)
    table = []
    for is_on_disk in (True, False):
        num_data = int(gigabytes * 1e9 / per_point)
        if not is_on_disk:  # As the other, of as much as is visited.
            num_data = min(num_data, _DRAWN)
        start = time.perf_counter()
        model = new_tvae(num_data, folder, 0 if is_on_disk else None, is_shared)
        rows = ComputedRows(num_data)
        model.adapt(rows.take(np.arange(_DRAWN)))
        made = time.perf_counter() - start
        before = psutil.Process().io_counters()
        rate = trained_rate(model, rows, batch_size, num_points)
        after = psutil.Process().io_counters()
        found = model.training_costs(batch_size)
        assert found.points_per_second is not None
        table.append(
            [
                "disk" if is_on_disk else "memory",
                f"{num_data:,}",
                f"{(found.disk or found.memory) / 1e9:.2f}",
                f"{made:,.0f}",
                f"{rate:,.0f}",
                f"{(after.read_bytes - before.read_bytes) / 1e9:.2f}",
                f"{(after.write_bytes - before.write_bytes) / 1e9:.2f}",
                f"{found.points_per_second:,.0f}",
                *memory(),
            ]
        )
        del model
    print_table(
        [
            *("states in", "points", "GB", "made s", "points/s", "read GB"),
            *("written GB", "expected/s", "peak MB", "own MB"),
        ],
        table,
    )


def _compared(setting: Setting, folder: str) -> tuple[Any, tf.data.Dataset]:
    """Returns a trained TVAE of a setting, and batches of its data."""
    num_data = 4 * setting.batch_size
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, setting.num_observed))
    points = rng.normal(size=(num_data, 8)) @ weights
    x = (points + 0.1 * rng.normal(size=points.shape)).astype(np.float32)
    model = tvae.TVAE(
        networks.FullyConnectedDecoder(setting.num_observed, setting.hidden),
        setting.num_latents,
        num_data=num_data,
        num_states=setting.num_states,
        evolution=tvae.Evolution(
            num_parents=4, num_children=4, shared=setting.is_shared
        ),
        num_m_states=min(setting.num_states, 16),
        m_batch_size=setting.m_batch_size,
        states_in_memory=0 if setting.is_on_disk else None,
        states_folder=folder,
    )
    model.adapt(x)
    model.compile(keras.optimizers.Adam(1e-2))
    batches = model.batches(x, setting.batch_size)
    model.fit(batches, steps_per_epoch=_STEPS_BEFORE, verbose=0, shuffle=False)
    return model, batches


def measure_costs(folder: str, rounds: int) -> None:
    """Prints expected and measured speeds, medians of rounds."""
    clocks = time.perf_counter, time.process_time
    table = []
    for name, setting in SETTINGS.items():
        model, batches = _compared(setting, folder)
        size = setting.batch_size
        steps = max(_COMPARED_STEPS, _COMPARED_POINTS // size)
        found: list[list[float]] = []
        distinct = 0.0
        for _ in range(rounds):
            rates = [costs.matrix_rate(clock) for clock in clocks]
            work = costs.work_of(model, size)
            assert work is not None
            distinct = work.distinct
            row = [costs.expected_speed(work, size, one) for one in rates]
            starts = [clock() for clock in clocks]
            model.fit(
                batches,
                steps_per_epoch=steps,
                verbose=0,
                shuffle=False,
            )
            points = steps * size
            row += [
                points / (clock() - start)
                for clock, start in zip(clocks, starts, strict=True)
            ]
            found.append([*row, row[2] / row[0], row[3] / row[1]])
        wall, own, by_wall, by_own, ratio, own_ratio = np.median(found, 0)
        speeds = [f"{one:,.0f}" for one in (wall, by_wall, own, by_own)]
        table.append(
            [
                name,
                f"{distinct:.2f}",
                *speeds[:2],
                f"{ratio:.2f}",
                *speeds[2:],
                f"{own_ratio:.2f}",
            ]
        )
        print(*table[-1], sep="  ", flush=True)
        del model
    print_table(
        [
            *("setting", "distinct", "expected/s", "measured/s", "ratio"),
            *("expected/s of processor", "measured", "ratio"),
        ],
        table,
    )


def measure_data(
    sizes: Sequence[int], folder: str, batch_size: int, num_points: int
) -> None:
    """Prints points a second on shards of several sizes."""
    table = []
    for num_rows in sizes:
        target = pathlib.Path(folder) / f"shards-{num_rows}"
        start = time.perf_counter()
        write_shards(target, Generated(num_rows))
        written = time.perf_counter() - start
        rows = data.ShardedRows(target)
        read = read_rate(rows, batch_size, num_points)
        model = new_vae()
        model.adapt(data.sample_rows(rows, 100_000))
        rate = trained_rate(model, rows, batch_size, num_points)
        table.append(
            [
                f"{num_rows:,}",
                f"{num_rows / written:,.0f}",
                f"{read:,.0f}",
                f"{rate:,.0f}",
                *memory(),
            ]
        )
        for path in target.iterdir():
            path.unlink()
    print_table(
        [
            *("points", "written/s", "read/s", "VAE points/s"),
            *("peak MB", "own MB"),
        ],
        table,
    )


def measure_weights(sizes: Sequence[int]) -> None:
    """Prints what tables of weights take."""
    table = []
    for num_rows in sizes:
        weights = np.random.default_rng(0).random(num_rows)
        numbers = np.random.default_rng(1).random((2**20, 2))
        groups = [
            min(_GROUP_ROWS, num_rows - start)
            for start in range(0, num_rows, _GROUP_ROWS)
        ]
        before = peak_memory()
        start = time.perf_counter()
        two_levels = TwoLevelTable(weights, groups)
        built = time.perf_counter() - start
        held = two_levels.rows.nbytes + two_levels.groups.nbytes
        grown = peak_memory() - before
        start = time.perf_counter()
        two_levels.draw(numbers)
        draws = len(numbers) / (time.perf_counter() - start)
        row = [
            f"{num_rows:,}",
            "two levels",
            f"{built:.2f}",
            f"{held / 1e6:,.0f}",
        ]
        table.append([*row, f"{grown / 1e6:,.0f}", f"{draws:,.0f}"])
        del two_levels
        if num_rows > _MOST_IN_ONE_LEVEL:
            continue
        before = peak_memory()
        start = time.perf_counter()
        flat = packed_table(alias_table(weights))
        built = time.perf_counter() - start
        grown = peak_memory() - before
        row = [f"{num_rows:,}", "one level", f"{built:.2f}"]
        row += [f"{flat.nbytes / 1e6:,.0f}", f"{grown / 1e6:,.0f}", ""]
        table.append(row)
    print_table(
        [
            *("weights", "table", "built s", "held MB", "peak grows MB"),
            "draws/s",
        ],
        table,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a case by the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--case",
        choices=["states", "data", "costs", "weights"],
        required=True,
    )
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rows", default="100000,1000000")
    parser.add_argument("--batch_size", type=int, default=2048)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--one_thread", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    given = parser.parse_args(argv)
    sizes = [int(one) for one in given.rows.split(",")]
    if given.one_thread:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if given.case == "weights":
        measure_weights(sizes)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.case == "costs":
            measure_costs(folder, given.rounds)
        elif given.case == "states":
            measure_states(
                given.gigabytes,
                folder,
                given.batch_size,
                given.points,
                given.shared,
            )
        else:
            check_disk_space(
                folder, 4 * NUM_OBSERVED * max(sizes), "writing shards"
            )
            measure_data(sizes, folder, given.batch_size, given.points)


if __name__ == "__main__":
    main()
