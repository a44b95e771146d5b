# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: the cost of a query at the start, middle and end of a long run.

Usage:
  python -m benchmarks.queries --budget=10000
  python -m benchmarks.queries --budget=10000 --case=model --per_round=100
  python -m benchmarks.queries --budget=4000 --case=identity --per_round=0

--case=identity  the latents are the data points and nothing is trained, so that
                 only the loop and the surrogate take time
--case=model     a VAE of 8 latents, which is retrained in each round

The objective takes no time. Each case runs in this process, one after the
other. A table has the milliseconds of a query, of the processor by part, so
that other programs matter less, and of the wall clock in all:

  fit         of the surrogate
  propose     the rest of `LatentSpaceOptimizer.ask`
  record      lines of the ledger, each synced to the disk
  follow      update of the data by what was recorded
  tell        the rest of `LatentSpaceOptimizer.tell`
  retrain     of the model in each round, and encoding of the data by it

The memory is that of the process, once it has collected garbage.
"""

from __future__ import annotations

import argparse
import functools
import gc
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks.tables import print_table
from tfvae import lso

NUM_DIMENSIONS, NUM_DATA = 8, 1000
PARTS = ("fit", "propose", "record", "follow", "tell", "retrain")


def objective(point: np.ndarray) -> float:
    """Returns minus the squared distance of a point `[8]` to all ones."""
    return -float(np.sum((np.asarray(point, np.float64) - 1.0) ** 2))


def data(seed: int) -> lso.ScoredData:
    """Returns 1,000 standard normal points."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(NUM_DATA, NUM_DIMENSIONS)).astype(np.float32)
    return lso.ScoredData(points, np.array([objective(one) for one in points]))


class IdentityModel:
    """A latent space whose latents are the data points, and its retrainer."""

    is_binary, capacity = False, None

    def __init__(self, num_dimensions: int) -> None:
        """Has no weights."""
        self.num_latents = self.num_observed = num_dimensions
        self.settings = {"model": f"IdentityModel({num_dimensions})"}

    def encode(
        self, points: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        return np.asarray(points, np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return np.asarray(latents, np.float32)

    def sample_prior(self, seed: int, count: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.normal(size=(count, self.num_latents)).astype(np.float32)

    def retrain(
        self,
        points: np.ndarray,
        weights: np.ndarray,
        num_data: int,
        is_first: bool,
        scores: np.ndarray,
        rows: np.ndarray,
    ) -> float | None:
        return None

    def save(self, folder: pathlib.Path, now: int) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "round").write_text(str(now))

    def restore(self, folder: pathlib.Path) -> int | None:
        path = folder / "round"
        return int(path.read_text()) if path.exists() else None


def _model() -> Any:
    """Returns a small VAE, built and trained for two epochs."""
    import keras

    import tfvae

    keras.utils.set_random_seed(0)
    points = data(0).points
    network = functools.partial(
        tfvae.fully_connected_encoder,
        num_observed=NUM_DIMENSIONS,
        hidden=(32,),
    )
    model = tfvae.VAE(
        tfvae.learnable(network, NUM_DIMENSIONS),
        tfvae.FullyConnectedDecoder(NUM_DIMENSIONS, (32,)),
        tfvae.StandardNormalPrior(NUM_DIMENSIONS),
        tfvae.GaussianLikelihood(),
    )
    model.adapt(points)
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(points, batch_size=64, epochs=2, verbose=0)
    return model


class Clock:
    """Processor seconds of this process, by part."""

    def __init__(self) -> None:
        """Starts with none."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._within: list[str] = []

    def measure(self, owner: Any, name: str, part: str) -> None:
        """Makes the time of a method count for a part, and for no other."""
        call: Callable[..., Any] = getattr(owner, name)

        def measured(*args: Any) -> Any:
            start = time.process_time()
            self._within.append(part)
            try:
                return call(*args)
            finally:
                seconds = time.process_time() - start
                self.seconds[self._within.pop()] += seconds
                if self._within:
                    self.seconds[self._within[-1]] -= seconds

        setattr(owner, name, measured)


def opened(
    case: str,
    folder: pathlib.Path,
    plan: lso.Plan,
    num_inducing: int,
    clock: Clock,
) -> lso.LatentSpaceOptimizer:
    """Returns the optimizer of a case, "identity" or "model", with a clock."""
    if case == "model":
        model = _model()
        space: Any = lso.latent_space.latent_space(model)
        retrainer: Any = lso.retraining.ModelRetrainer(
            model, lso.Retraining(), seed=0
        )
    else:
        space = retrainer = IdentityModel(NUM_DIMENSIONS)
    surrogate = lso.SparseGaussianProcess(num_inducing=num_inducing)
    optimizer = lso.LatentSpaceOptimizer(
        folder,
        lso.Task("distance", data=data, objective=objective),
        space,
        retrainer,
        plan,
        strategy=lso.ThompsonSampling(num_candidates=100),
        surrogate=surrogate,
        weighting=lso.Rank(1e-3),
    )
    for owner, name, part in (
        (surrogate, "fit", "fit"),
        (space, "encode", "retrain"),
        (retrainer, "retrain", "retrain"),
        (retrainer, "save", "retrain"),
        (optimizer.ledger, "append", "record"),
        (optimizer.collection, "follow", "follow"),
        (optimizer, "ask", "propose"),
        (optimizer, "tell", "tell"),
    ):
        clock.measure(owner, name, part)
    return optimizer


class Window(NamedTuple):
    """The cost of some successive queries."""

    first: int
    """Number of the first one."""
    milliseconds: dict[str, float]
    """Of the processor for one of them, by part."""
    elapsed: float
    """Milliseconds of wall-clock time for one of them."""
    memory: float
    """Resident set size of the process after them, MiB."""


def windows(
    optimizer: lso.LatentSpaceOptimizer, clock: Clock, size: int, places: int
) -> Iterator[Window]:
    """Makes all queries, and yields the cost of some.

    Args:
      optimizer: Of a new run.
      clock: Of the optimizer.
      size: Queries of a window.
      places: Number of windows, evenly spread over the run: the first follows
        as many queries, which are not measured, the last ends with the run.
    """
    budget = optimizer.plan.budget
    if budget < size * (places + 1):
        raise ValueError(
            f"`budget` must be at least {size * (places + 1)}, got {budget}"
        )
    ends = np.linspace(2 * size, budget, places).astype(int).tolist()
    before, started = clock.seconds, time.perf_counter()
    for number in range(budget):
        if number + size in ends:
            before, started = {**clock.seconds}, time.perf_counter()
        queries = optimizer.ask(1)
        if not queries:
            raise RuntimeError(f"nothing new was to be had after {number}")
        optimizer.tell(number, objective(queries[0].input))
        if number + 1 in ends:
            spent = {
                part: 1e3 * (clock.seconds[part] - before[part]) / size
                for part in PARTS
            }
            elapsed = 1e3 * (time.perf_counter() - started) / size
            gc.collect()
            memory = psutil.Process().memory_info().rss / 2**20
            yield Window(number + 1 - size, spent, elapsed, memory)


def measure(case: str, plan: lso.Plan, size: int, num_inducing: int) -> None:
    """Runs a case, and prints its table."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        rows, clock = [], Clock()
        with opened(case, folder, plan, num_inducing, clock) as optimizer:
            for one in windows(optimizer, clock, size, 5):
                parts = [one.milliseconds[part] for part in PARTS]
                but_fit = sum(parts) - one.milliseconds["fit"]
                numbers = [*parts, but_fit, one.elapsed]
                texts = [f"{number:.2f}" for number in numbers]
                rows.append([f"{one.first:,}", *texts, f"{one.memory:.0f}"])
        start = time.process_time()
        opened(case, folder, plan, num_inducing, Clock()).close()
        seconds = time.process_time() - start
        length = (folder / "ledger.jsonl").stat().st_size
    rounds = plan.queries_per_round or "all"
    print(f"\n{case}, {rounds} queries a round: milliseconds a query")
    head = ["first query", *PARTS, "all but fit", "wall clock", "MiB"]
    print_table(head, rows)
    print(
        f"ledger {length / 2**20:.1f} MiB, {length / plan.budget:.0f} bytes a "
        f"query; opened again in {seconds:.1f} s",
        flush=True,
    )


def main() -> None:
    """Runs the cases of the arguments."""
    parser = argparse.ArgumentParser("benchmarks.queries")
    add = parser.add_argument
    add("--budget", type=int, default=10_000, help="number of queries")
    add("--per_round", type=int, default=100, help="queries a round, 0 for all")
    add("--window", type=int, default=200, help="queries of a row, a mean")
    add("--num_inducing", type=int, default=50, help="of the surrogate")
    add("--case", choices=["identity", "model"], help="omit it for both")
    values = parser.parse_args()
    plan = lso.Plan(
        values.budget,
        values.per_round or None,
        num_best=300,
        num_random=700,
        skips_known=True,
        min_distance=1e-3,
    )
    for case in [values.case] if values.case else ["identity", "model"]:
        measure(case, plan, values.window, values.num_inducing)


if __name__ == "__main__":
    main()
