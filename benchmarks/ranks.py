# SPDX-License-Identifier: Apache-2.0
"""Points a second of a TVAE on several ranks, and where the time goes.

Usage:
  PYTHONPATH=. python -m benchmarks.ranks [--settings=house,s200]
      [--ranks=1,2,4] [--points=16384] [--epochs=3] [--minutes=0]

Needs mpi4py and mpiexec. Compares ranks of one thread with one process that
has as many threads as there are processors, alternately, for at least
`--minutes` and one round, and prints medians over rounds:

  points/s      data points a second, of the median epoch
  relative      points/s by those of the one process
  E-step ms     a batch, of an E-step alone on this rank's part
  messages ms   a batch, waiting for slower ranks included
  M-step ms     the rest of a batch
  exchanges     a batch; kB: what a rank sends in them

`--settings` are `house`, 8 x 8 patches as `tfvae denoise` trains on them
(H = 512, S = 16), and `s200`, with H = 100 and S = 200. Batches, of all ranks,
are those of one process. More ranks than processors share these.

The projection keeps a rank's part of a batch, b points in n gradient steps, as
it is with one rank. With c seconds a point on one rank,

  points/s = R b / (c b + (n + 1) L(R))
  L(R) = 2 ceil(log2 R) latency + 2 (1 - 1 / R) bytes / bandwidth

where latency and bandwidth are those of `--latency_us` and `--gigabits`: of a
network that was not measured here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.tables import print_table
from tfvae import processes


class Setting(NamedTuple):
    """Sizes of a run."""

    num_latents: int
    num_states: int
    batch_size: int
    m_batch_size: int
    hidden: int


SETTINGS = {
    "house": Setting(512, 16, 2048, 128, 64),
    "s200": Setting(100, 200, 512, 128, 64),
}
"""What is measured, by name."""

_NUM_OBSERVED = 64
_ONE_PROCESS = "one process"
_PROJECTED_RANKS, _PROJECTED_POINTS = 64, 1e8


def latency(
    num_ranks: int, num_bytes: float, latency_s: float, bytes_per_s: float
) -> float:
    """Returns L(R), the seconds of one exchange; see the module.

    Args:
      num_ranks: R.
      num_bytes: What a rank sends.
      latency_s: Seconds of an empty message between two ranks.
      bytes_per_s: Bandwidth of a rank.
    """
    hops = 2 * math.ceil(math.log2(num_ranks))
    return (
        hops * latency_s
        + 2.0 * (1.0 - 1.0 / num_ranks) * num_bytes / bytes_per_s
    )


def projected(
    num_ranks: int,
    setting: Setting,
    point_s: float,
    exchange_s: float,
) -> float:
    """Returns points a second of all ranks together; see the module.

    Args:
      num_ranks: R.
      setting: Sizes; the batch is that of one rank.
      point_s: Seconds a point, on one rank.
      exchange_s: Seconds of an exchange.
    """
    size = setting.batch_size
    exchanges = 1 + math.ceil(size / setting.m_batch_size)
    return num_ranks * size / (point_s * size + exchanges * exchange_s)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measures, prints, and returns the rows of the tables."""
    options = _options(argv)
    if options.worker:
        _work(options)
        return []
    found: list[dict[str, Any]] = []
    for name in options.settings.split(","):
        found += _compare(name, options)
    return found


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", default="house,s200")
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--points", type=int, default=16384)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--latency_us", type=float, default=20.0)
    parser.add_argument("--gigabits", type=float, default=10.0)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _compare(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures all numbers of ranks with one setting."""
    kinds = [_ONE_PROCESS, *options.ranks.split(",")]
    measured: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    end = time.monotonic() + 60.0 * options.minutes
    while not measured[kinds[-1]] or time.monotonic() < end:
        for kind in kinds:
            measured[kind].append(measure(name, kind, options))
    rows = [
        {
            "setting": name,
            "ranks": kind,
            **{
                key: statistics.median(one[key] for one in of_kind)
                for key in of_kind[0]
            },
        }
        for kind, of_kind in measured.items()
    ]
    _print(name, rows, len(measured[kinds[0]]), options)
    return rows


def measure(
    name: str, kind: str, options: argparse.Namespace
) -> dict[str, float]:
    """Runs one number of ranks, and returns what its rank 0 measured."""
    command = [sys.executable, "-m", "benchmarks.ranks", f"--worker={name}"]
    command += [f"--points={options.points}", f"--epochs={options.epochs}"]
    if kind != _ONE_PROCESS:
        mpiexec = pathlib.Path(sys.executable).with_name("mpiexec")
        launcher = str(mpiexec) if mpiexec.exists() else "mpiexec"
        command = [launcher, "-n", kind, *command, "--threads=1"]
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "errors.txt"
        with processes.Process(
            command, log=log, environment={"TF_CPP_MIN_LOG_LEVEL": "3"}
        ) as process:
            process.check_started()
            process.close_input()
            lines = [*process.lines()]
            ended = process.end(None)
        if ended.code:
            raise RuntimeError(
                f"{' '.join(command)} has failed: {log.read_text()}"
            )
    return json.loads(lines[-1])


def _print(
    name: str,
    rows: list[dict[str, Any]],
    num_rounds: int,
    options: argparse.Namespace,
) -> None:
    processors = len(os.sched_getaffinity(0))
    print(
        f"\n{name}: {SETTINGS[name]}, {options.points:,} points, "
        f"{num_rounds} rounds, {processors} processors"
    )
    print_table(
        ["ranks", "points/s", "relative", "E-step ms", "M-step ms"]
        + ["messages ms", "exchanges", "kB"],
        [
            [
                row["ranks"],
                f"{row['per_second']:,.0f}",
                f"{row['per_second'] / rows[0]['per_second']:.2f}",
                *(
                    f"{1e3 * row[key]:.1f}"
                    for key in ("e_step", "m_step", "messages")
                ),
                f"{row['exchanges']:.1f}",
                f"{row['bytes'] / 1e3:,.1f}",
            ]
            for row in rows
        ],
    )
    alone = next((row for row in rows if row["ranks"] == "1"), None)
    several = [row for row in rows if row["exchanges"]]
    if alone is None or not several:
        return
    exchange_s = latency(
        _PROJECTED_RANKS,
        several[0]["bytes"] / several[0]["exchanges"],
        1e-6 * options.latency_us,
        1e9 / 8.0 * options.gigabits,
    )
    rate = projected(
        _PROJECTED_RANKS,
        SETTINGS[name],
        1.0 / alone["per_second"],
        exchange_s,
    )
    print(
        f"projected for {_PROJECTED_RANKS} ranks, {1e6 * exchange_s:.0f} us an "
        f"exchange: {rate:,.0f} points/s, efficiency "
        f"{rate / alone['per_second'] / _PROJECTED_RANKS:.2f}, an epoch of "
        f"{_PROJECTED_POINTS:.0e} points in "
        f"{_PROJECTED_POINTS / rate / 3600.0:.2f} hours"
    )


def _work(options: argparse.Namespace) -> None:
    """Trains as one of the ranks; rank 0 prints what it measured."""
    import keras
    import numpy as np
    import tensorflow as tf

    import tfvae
    from tfvae import networks
    from tfvae import ranks as ranks_lib
    from tfvae.ops import densities

    setting = SETTINGS[options.worker]
    ranks = ranks_lib.of_job()
    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    exchanges: list[tuple[float, int]] = []
    if isinstance(ranks, ranks_lib.MPIRanks):
        all_sum = ranks._all_sum

        def timed(*flats: np.ndarray) -> list[np.ndarray]:
            begin = time.perf_counter()
            totals = all_sum(*flats)
            seconds = time.perf_counter() - begin
            exchanges.append((seconds, sum(one.nbytes for one in flats)))
            return totals

        ranks._all_sum = timed  # type: ignore[method-assign]
    # Smooth patches with noise of standard deviation 25.
    rng = np.random.default_rng(0)
    steps = rng.normal(0.0, 12.0, (options.points, 8, 8))
    x = 120.0 + steps.cumsum(1).cumsum(2).reshape(-1, _NUM_OBSERVED) / 4.0
    x = (x + rng.normal(0.0, 25.0, x.shape)).astype(np.float32)
    mine = x[ranks.rows(len(x))]
    keras.utils.set_random_seed(0)
    model = tfvae.TVAE(
        networks.FullyConnectedDecoder(_NUM_OBSERVED, (setting.hidden,)),
        num_latents=setting.num_latents,
        num_data=len(mine),
        num_states=setting.num_states,
        m_batch_size=setting.m_batch_size,
        evolution=tfvae.tvae.Evolution(
            num_parents=2, num_children=2, num_generations=1
        ),
    )
    model.set_ranks(ranks)
    model.adapt(mine)
    model.compile(keras.optimizers.Adam(1e-3))
    num_batches = math.ceil(len(x) / setting.batch_size)
    batches = model.batches(mine, setting.batch_size)
    model.fit(  # Traces.
        batches, steps_per_epoch=2, epochs=1, shuffle=False, verbose=0
    )
    exchanges.clear()
    ends = [time.perf_counter()]
    model.fit(
        batches,
        steps_per_epoch=num_batches,
        epochs=options.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda *_: ends.append(time.perf_counter())
            )
        ],
    )
    epochs = [last - first for first, last in zip(ends, ends[1:], strict=False)]
    per_batch = 1.0 / (num_batches * options.epochs)
    messages = sum(seconds for seconds, _ in exchanges) * per_batch
    e_step = tf.function(model._e_step)
    part = next(iter(batches))
    arguments = (*densities.split_missing(part[0]), part[1])
    e_step(*arguments)
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        e_step(*arguments)
        times.append(time.perf_counter() - begin)
    of_batch = statistics.median(epochs) / num_batches
    of_e_step = statistics.median(times)
    if ranks.rank == 0:
        print(
            json.dumps(
                {
                    "per_second": len(x) / statistics.median(epochs),
                    "e_step": of_e_step,
                    "m_step": of_batch - of_e_step - messages,
                    "messages": messages,
                    "exchanges": len(exchanges) * per_batch,
                    "bytes": sum(one for _, one in exchanges) * per_batch,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
