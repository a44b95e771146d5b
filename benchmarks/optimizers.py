# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: Bayesian optimisation, compared with BoTorch and Optuna.

Usage:
  PYTHONPATH=. python -m benchmarks.optimizers --run_dir=runs/optimizers \
      --peer_python=peers/bin/python

Maximises test functions by `LatentSpaceOptimizer` in the latent space of an
identity model, which is not trained: its latents are the inputs, scaled to a
standard deviation of 1. All methods begin with the same points, which count for
the budget. Prints the simple regret, without noise, of the point that a method
recommends: median and quartiles over the seeds. Ours, and BoTorch, recommend
the best evaluated point, of noisy scores by the posterior mean; Optuna that of
the best score. Finished runs are in runs.jsonl of the folder, and are not
repeated. Other optimizers run in processes of `--peer_python`, see
`optimizers_peer`; without it they are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.objectives import PROBLEMS, Problem
from benchmarks.queries import IdentityModel
from benchmarks.tables import print_table
from tfvae import processes
from tfvae.lso import (
    ExpectedImprovement,
    LatentSpaceOptimizer,
    MaxValueEntropySearch,
    Plan,
    QLogExpectedImprovement,
    ScoredData,
    SparseGaussianProcess,
    Task,
    ThompsonSampling,
    TrustRegion,
    Unweighted,
    UpperConfidenceBound,
)
from tfvae.lso.search import Box
from tfvae.lso.strategies import Context, Strategy

OURS: dict[str, Strategy] = {
    "EI (default)": ExpectedImprovement(),
    "q-log-EI": QLogExpectedImprovement(),
    "UCB": UpperConfidenceBound(),
    "MES": MaxValueEntropySearch(),
    "TuRBO": TrustRegion(ThompsonSampling()),
}
PEERS = ("BoTorch", "Optuna, TPE", "Optuna, GP")
_PEER = pathlib.Path(__file__).with_name("optimizers_peer.py")
# Of uniform latents whose standard deviation is 1.
_BOUND = 3.0**0.5


class UnitCube:
    """A latent space that is the unit cube, scaled."""

    is_binary = False

    def __init__(self, num_dimensions: int) -> None:
        """Has no weights."""
        self.num_latents = num_dimensions

    def encode(
        self, points: np.ndarray, rows: np.ndarray | None = None
    ) -> np.ndarray:
        return (_BOUND * (2.0 * np.asarray(points) - 1.0)).astype(np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        points = 0.5 * (np.asarray(latents, np.float64) / _BOUND + 1.0)
        return np.clip(points, 0.0, 1.0).astype(np.float32)

    def sample_prior(self, seed: int, count: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return self.encode(rng.random((count, self.num_latents)))


@dataclasses.dataclass
class KnownBounds:
    """A strategy whose queries stay in the cube, and that knows of noise.

    Attributes:
      strategy: The strategy.
      num_dimensions: Of the cube.
      is_noisy: Whether scores are noisy.
    """

    strategy: Strategy
    num_dimensions: int
    is_noisy: bool
    uses_data = True
    uses_surrogate = True

    def num_at_a_time(self, num_left: int) -> int:
        return self.strategy.num_at_a_time(num_left)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        high = np.full(self.num_dimensions, _BOUND, np.float32)
        context = context._replace(box=Box(-high, high), is_noisy=self.is_noisy)
        return self.strategy.propose(context, num_queries, seed)


def ours(
    strategy: Strategy, problem: Problem, seed: int, budget: int, count: int
) -> dict[str, float]:
    """Runs one of our strategies; returns regret and seconds a query."""
    initial = problem.initial(seed, count)
    scores = np.array([problem.evaluate(x, seed) for x in initial])
    task = Task(
        "benchmark",
        data=lambda _: ScoredData(initial, scores),
        objective=lambda x: problem.evaluate(x, seed),
    )
    space: Any = UnitCube(problem.num_dimensions)
    surrogate = SparseGaussianProcess()
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with LatentSpaceOptimizer(
            folder,
            task,
            space,
            IdentityModel(problem.num_dimensions),  # There is nothing to train.
            Plan(budget - count, min(10, budget - count), seed=seed),
            strategy=KnownBounds(
                strategy, problem.num_dimensions, problem.noise_std > 0.0
            ),
            weighting=Unweighted(),
            surrogate=surrogate,
        ) as optimizer:
            optimizer.run()
            entries = optimizer.ledger.entries
        seconds = time.perf_counter() - begun
    found = [np.asarray(one.input, np.float32) for one in entries]
    points = np.concatenate([initial, found])
    merits = np.array([*scores, *(one.score for one in entries)], np.float64)
    if problem.noise_std:
        latents = space.encode(points)
        surrogate.fit(latents, merits, seed, False)
        merits = np.asarray(surrogate.predict(latents)[0])
    return {
        "regret": problem.regret(points[np.argmax(merits)]),
        "seconds": seconds / (budget - count),
    }


class Runs:
    """Finished runs, in a file."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads the file, if there is one."""
        self._path = path
        self._rows = []
        if path.exists():
            *lines, rest = path.read_text().split("\n")
            self._rows = [json.loads(one) for one in lines]
            if rest:  # A kill has cut the last line.
                path.write_text("".join(f"{one}\n" for one in lines))

    def of(self, **asked: Any) -> list[dict[str, Any]]:
        """Returns the runs that were asked for by these values."""
        return [
            row
            for row in self._rows
            if all(row[name] == value for name, value in asked.items())
        ]

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def run_ours(runs: Runs, asked: Sequence[dict[str, Any]]) -> None:
    """Makes the runs of our methods that are not finished."""
    for one in asked:
        if one["method"] in OURS and not runs.of(**one):
            problem = PROBLEMS[one["problem"]]
            found = ours(
                OURS[one["method"]],
                problem,
                one["seed"],
                one["budget"],
                one["num_initial"],
            )
            runs.add({**one, **found})


def run_peers(
    runs: Runs, asked: Sequence[dict[str, Any]], peer_python: str
) -> None:
    """Makes the runs of other methods, in a process of theirs."""
    root = str(_PEER.parents[1])
    with processes.Process(
        [peer_python, str(_PEER)], environment={"PYTHONPATH": root}
    ) as process:
        for one in asked:
            if one["method"] not in PEERS or runs.of(**one):
                continue
            try:
                process.send(one)
                found = process.receive() or {}
            except processes.EndedError:
                print(f"left out: {one['method']} (its process has ended)")
                return
            if "error" in found:
                print(f"left out: {one['method']} ({found['error']})")
            else:
                runs.add({**one, **found})


def report(runs: Runs, methods: Sequence[str], asked: dict[str, Any]) -> None:
    """Prints median and quartiles of the regret, and seconds a query."""
    seeds = asked.pop("seeds")
    rows = []
    for method in methods:
        cells, seconds = [], []
        for problem in PROBLEMS:
            found = [
                row
                for row in runs.of(method=method, problem=problem, **asked)
                if row["seed"] in seeds
            ]
            if len(found) < len(seeds):
                cells.append("-")
                continue
            low, median, high = np.quantile(
                [row["regret"] for row in found], [0.25, 0.5, 0.75]
            )
            cells.append(f"{median:.4f} ({low:.4f} to {high:.4f})")
            seconds.append(np.mean([row["seconds"] for row in found]))
        cells.append(f"{np.mean(seconds):.2f}" if seconds else "-")
        rows.append([method, *cells])
    print_table(["simple regret", *PROBLEMS, "s a query"], rows)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run_dir", type=pathlib.Path, required=True)
    parser.add_argument("--peer_python", help="interpreter with the others")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(10))
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--num_initial", type=int, default=10)
    parser.add_argument("--methods", nargs="+", default=[*OURS, *PEERS])
    parser.add_argument("--problems", nargs="+", default=[*PROBLEMS])
    given = parser.parse_args()
    given.run_dir.mkdir(parents=True, exist_ok=True)
    runs = Runs(given.run_dir / "runs.jsonl")
    sizes = {"budget": given.budget, "num_initial": given.num_initial}
    asked = [
        {"method": method, "problem": problem, "seed": seed, **sizes}
        for seed in given.seeds
        for problem in given.problems
        for method in given.methods
    ]
    run_ours(runs, asked)
    if given.peer_python:
        run_peers(runs, asked, given.peer_python)
    elif set(given.methods) & set(PEERS):
        print("left out: BoTorch and Optuna (no --peer_python)")
    report(runs, given.methods, {"seeds": list(given.seeds), **sizes})


if __name__ == "__main__":
    main()
