# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: what training a VAE jointly with the surrogate changes.

Usage:
  PYTHONPATH=. python -m benchmarks.joint_training --seeds 100 101 102

Optimises expressions in a trust region (TuRBO-1, Thompson sampling), with the
surrogate's loss in that of the VAE (LOL-BO) and without it, by weight. Both
begin with the same model, a small fully connected one. Prints, before the
first training, after that of the first round and after that of the last one,
how well a Gaussian process that is fitted to the latents of some data predicts
the scores of others, which neither it nor the VAE has seen: R^2, and the mean
log-likelihood, nats a point; also the VAE's bound of these, nats a point, and
the best score.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

import tfvae
from benchmarks.tables import print_table
from tfvae import likelihoods
from tfvae.lso import (
    LatentSpaceOptimizer,
    Plan,
    Rank,
    Retraining,
    ScoredData,
    SparseGaussianProcess,
    ThompsonSampling,
    TrustRegion,
    expressions,
)
from tfvae.lso.collapsed_bound import MIN_NOISE

NUM_STEPS, NUM_SYMBOLS, NUM_LATENTS = 15, 12, 10
# What a production expands: a sum, a term, nothing.
GROUPS = (0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2)
NUM_HELD_OUT, NUM_FITTED = 500, 400
RETRAINING = Retraining(first_epochs=5, epochs=5, batch_size=64)
NAMES = ("R2", "log-likelihood", "bound")


def model_of(points: np.ndarray, seed: int, epochs: int) -> tfvae.VAE:
    """Returns a VAE of expressions, trained for some epochs."""
    keras.utils.set_random_seed(seed)
    num_observed = NUM_STEPS * NUM_SYMBOLS
    network = functools.partial(
        tfvae.fully_connected_encoder,
        num_observed=num_observed,
        hidden=(128, 64),
    )
    model = tfvae.VAE(
        tfvae.learnable(network, NUM_LATENTS),
        tfvae.FullyConnectedDecoder(num_observed, (64, 128)),
        tfvae.StandardNormalPrior(NUM_LATENTS),
        likelihoods.SequenceLikelihood(NUM_STEPS, NUM_SYMBOLS, GROUPS),
        objective=tfvae.vae.Elbo(0.48),
        seed=seed,
    )
    model.adapt(points)
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(points, batch_size=64, epochs=epochs, verbose=0)
    return model


def quality(
    model: tfvae.VAE, data: ScoredData, held_out: ScoredData
) -> list[float]:
    """Returns what `NAMES` say, of data that nothing was fitted to."""
    surrogate = SparseGaussianProcess()
    rows = slice(0, NUM_FITTED)
    scores = np.asarray(data.scores)[rows]
    surrogate.fit(model.posterior_mode(data.points[rows]), scores, 0, False)
    mean, std = (
        np.asarray(one)
        for one in surrogate.predict(model.posterior_mode(held_out.points))
    )
    state = surrogate.state()
    noise = MIN_NOISE + np.exp(state["log_noise"])
    variance = std**2 + state["score_spread"] ** 2 * noise
    squares = (np.asarray(held_out.scores) - mean) ** 2
    densities = -0.5 * (np.log(2.0 * np.pi * variance) + squares / variance)
    return [
        float(1.0 - np.mean(squares) / np.var(held_out.scores)),
        float(np.mean(densities)),
        model.bound_terms(held_out.points)["bound"],
    ]


def part(data: ScoredData, rows: slice) -> ScoredData:
    """Returns some of the data."""
    assert data.inputs is not None
    return ScoredData(data.points[rows], data.scores[rows], data.inputs[rows])


def optimized(
    seed: int, weights: Sequence[float], plan: Plan, num_data: int, epochs: int
) -> list[dict[str, Any]]:
    """Runs one seed with each weight; returns what was found."""
    task = expressions(num_data + NUM_HELD_OUT)
    whole = task.data(seed)
    held_out = part(whole, slice(0, NUM_HELD_OUT))
    data = part(whole, slice(NUM_HELD_OUT, None))
    task = dataclasses.replace(task, data=lambda _: data)
    model = model_of(data.points, seed, epochs)
    initial = model.get_weights()
    before = quality(model, data, held_out)
    found = []
    for weight in weights:
        model.set_weights(initial)
        with (
            tempfile.TemporaryDirectory() as folder,
            LatentSpaceOptimizer.of_model(
                folder,
                task,
                model,
                dataclasses.replace(plan, seed=seed),
                strategy=TrustRegion(ThompsonSampling(5)),
                surrogate=SparseGaussianProcess(),
                weighting=Rank(0.1),
                retraining=dataclasses.replace(
                    RETRAINING, surrogate_weight=weight
                ),
            ) as optimizer,
        ):
            optimizer.ask()
            first = quality(model, data, held_out)
            optimizer.run()
            last = quality(model, data, held_out)
            found.append(
                {
                    "seed": seed,
                    "weight": weight,
                    "before": before,
                    "first": first,
                    "last": last,
                    "best": optimizer.best(),
                }
            )
            print(found[-1], flush=True)
    return found


def report(found: Sequence[dict[str, Any]]) -> None:
    """Prints means over seeds by weight, and the best scores of all."""
    rows = []
    for weight in sorted({one["weight"] for one in found}):
        runs = [one for one in found if one["weight"] == weight]
        row = [f"{weight:g}"]
        for i in range(len(NAMES)):
            means = [
                float(np.mean([one[when][i] for one in runs]))
                for when in ("before", "first", "last")
            ]
            row.append(", ".join(f"{one:.2f}" for one in means))
        row.append(", ".join(f"{one['best']:.3f}" for one in runs))
        rows.append(row)
    print_table(["weight", *NAMES, "best score"], rows)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--budget", type=int, default=80)
    parser.add_argument("--num_data", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=50)
    given = parser.parse_args()
    plan = Plan(
        given.budget,
        20,
        num_best=200,
        num_random=200,
        num_proposals=10,
        skips_known=True,
    )
    found = [
        one
        for seed in given.seeds
        for one in optimized(
            seed, given.weights, plan, given.num_data, given.epochs
        )
    ]
    report(found)


if __name__ == "__main__":
    main()
