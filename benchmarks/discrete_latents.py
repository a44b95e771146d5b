# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: TVAE and the conventional ways to train discrete latents.

Usage:
  PYTHONPATH=. python -m benchmarks.discrete_latents --run_dir=runs/discrete \
      --mnist=mnist/data --pictures house.png --steps=3000 --seeds 0 1 2
  PYTHONPATH=. python -m benchmarks.discrete_latents --run_dir=runs/published \
      --mnist=mnist/data --published=VIMCO --steps=1000000

Every method has a decoder with one hidden layer, the data, the gradient steps
of 32 data points, the optimizer (Adam) and codes of 12 bits: 12 binary latents,
or 6 variables of 4 categories. The amortised ones have an encoder with two
hidden layers beside it. Of ten checkpoints that with the best log-likelihood of
held-out data is evaluated. As all 4,096 codes can be enumerated, log p(x) of
test data is exact for each method; beside it stands the method's own bound: of
TVAE that of its search, of the others that of 100 draws, of VQ-VAEs
log p(x | z) + log p(code). Seconds are of training alone.

Each result is appended to results.jsonl in the run folder; what is there is not
run again. MNIST is binarised once, by a draw with the intensities as
probabilities; without a path to its IDX files, or pictures, their rows are left
out.

--published trains a model of 200 binary latents on MNIST instead, as published
with DisARM (200 hidden units twice, batches of 50, Adam with 1e-4), and appends
the 100-draw bound of test data to published.jsonl ten times. Other than there,
data are binarised once and not for each batch, the prior is trained by Adam,
and the decoder does not begin with biases of the data's mean.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

import tfvae
from benchmarks.tables import cell, print_table
from tfvae import data, likelihoods, networks, priors, vae
from tfvae.ops import densities
from tfvae.tvae.joint import Joint

NUM_BITS, NUM_VARIABLES, NUM_CATEGORIES, CODE_SIZE = 12, 6, 4, 2
BATCH_SIZE, NUM_CHECKPOINTS, NUM_HELD_OUT, NUM_TEST = 32, 10, 200, 500
LEARNING_RATE = 2e-3
HIDDEN, ENCODER_HIDDEN = (32,), (64, 64)
NUM_DRAWS = 100
# Data points whose log p(x, z) with all codes are in memory at a time.
_ROWS = 100


class Split(NamedTuple):
    """Data points to train on, to choose the checkpoint by, and to test."""

    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    is_binary: bool


def _split(x: np.ndarray, num_train: int, is_binary: bool) -> Split:
    order = np.random.default_rng(0).permutation(len(x))
    first, last = NUM_TEST, NUM_TEST + NUM_HELD_OUT
    rows = order[last : last + num_train]
    if len(rows) < num_train:
        raise ValueError(
            f"`num_train` must leave {last} of {len(x)} data points, got "
            f"{num_train}"
        )
    return Split(x[rows], x[order[first:last]], x[order[:first]], is_binary)


def digits(num_train: int) -> Split:
    """The 8 x 8 digits of scikit-learn, ones where at least half is ink."""
    x = (data.sklearn_digits().train >= 0.5).astype(np.float32)
    return _split(x, num_train, True)


def mnist(folder: str, num_train: int) -> Split:
    """MNIST, binarised once."""
    x = data.idx_images(folder, num_test=0).train
    draws = np.random.default_rng(1).random(x.shape, np.float32)
    return _split((draws < x).astype(np.float32), num_train, True)


def bars(num_train: int) -> Split:
    """Superpositions of 12 bars with Gaussian noise."""
    x = data.bars(num_train + NUM_HELD_OUT + NUM_TEST, NUM_BITS).train
    return _split(x, num_train, False)


def patches(pictures: Sequence[str], num_train: int) -> Split:
    """Patches of 8 x 8 pixels of pictures, on [0, 1]."""
    found = data.image_patches(list(pictures), patch=(8, 8), scale=1.0 / 255.0)
    return _split(found.train, num_train, False)


def sources(args: argparse.Namespace) -> dict[tuple[str, int], Any]:
    """Returns functions of the data sets, by name and size."""
    found: dict[tuple[str, int], Any] = {}
    of_name: dict[str, Callable[[int], Split]] = {"digits": digits}
    if args.mnist:
        of_name["MNIST"] = functools.partial(mnist, args.mnist)
    else:
        print("no rows of MNIST: --mnist names no folder")
    of_name["bars"] = bars
    if args.pictures:
        of_name["patches"] = functools.partial(patches, args.pictures)
    else:
        print("no rows of patches: --pictures names no file")
    for size in args.sizes:
        for name, source in of_name.items():
            if name not in args.data:
                continue
            size = min(size, 1000) if name == "digits" else size
            found[name, size] = functools.partial(source, size)
    return found


# Models.


def _vae(
    split: Split,
    seed: int,
    steps: int,
    make: Callable[[int], tuple[Any, priors.Prior]],
) -> tfvae.VAE:
    num_observed = split.train.shape[1]
    posterior, prior = make(steps)
    network = functools.partial(
        networks.fully_connected_encoder,
        num_observed=num_observed,
        hidden=ENCODER_HIDDEN,
    )
    return tfvae.VAE(
        vae.learnable(network, prior.num_latents, posterior=posterior),
        networks.FullyConnectedDecoder(num_observed, HIDDEN),
        prior,
        _likelihood(split),
        seed=seed,
    )


def _tvae(split: Split, seed: int, steps: int) -> tfvae.TVAE:
    num_data, num_observed = split.train.shape
    return tfvae.TVAE(
        networks.FullyConnectedDecoder(num_observed, HIDDEN),
        NUM_BITS,
        num_data,
        _likelihood(split),
        num_states=32,
        m_batch_size=BATCH_SIZE,
        seed=seed,
    )


def _likelihood(split: Split) -> likelihoods.Likelihood:
    if split.is_binary:
        return likelihoods.BernoulliLikelihood()
    return likelihoods.GaussianLikelihood()


def _binary(estimator: Any, steps: int) -> tuple[Any, priors.Prior]:
    return (
        vae.BernoulliPosterior(estimator),
        priors.IndependentBernoulliPrior(NUM_BITS),
    )


def _relaxed(steps: int) -> tuple[Any, priors.Prior]:
    return (
        vae.RelaxedBernoulliPosterior(annealing_steps=max(1, steps // 2)),
        priors.IndependentBernoulliPrior(NUM_BITS),
    )


def _categorical(steps: int) -> tuple[Any, priors.Prior]:
    posterior = vae.RelaxedCategoricalPosterior(
        annealing_steps=max(1, steps // 2), num_variables=NUM_VARIABLES
    )
    size = NUM_VARIABLES * NUM_CATEGORIES
    return posterior, priors.IndependentCategoricalPrior(size, NUM_VARIABLES)


def _quantized(steps: int) -> tuple[Any, priors.Prior]:
    return vae.VectorQuantizedPosterior(NUM_CATEGORIES, CODE_SIZE), _of_codes()


def _of_codes(hidden: int | None = None) -> priors.Prior:
    size = NUM_VARIABLES * CODE_SIZE
    return priors.QuantizedPrior(size, NUM_VARIABLES, NUM_CATEGORIES, hidden)


METHODS: dict[str, Callable[[Split, int, int], Any]] = {
    "TVAE": _tvae,
    "relaxed Bernoulli": functools.partial(_vae, make=_relaxed),
    "straight-through": functools.partial(
        _vae, make=functools.partial(_binary, vae.StraightThrough())
    ),
    "DisARM": functools.partial(
        _vae, make=functools.partial(_binary, vae.DisARM())
    ),
    "VIMCO": functools.partial(
        _vae, make=functools.partial(_binary, vae.VIMCO())
    ),
    "Gumbel-softmax": functools.partial(_vae, make=_categorical),
    "VQ-VAE": functools.partial(_vae, make=_quantized),
}


# Evaluation.


def all_codes(model: Any) -> np.ndarray:
    """Returns all latents that the model may have, `[4096, M]`."""
    if model.has_binary_latents:
        values = np.arange(2**NUM_BITS)[:, None] >> np.arange(NUM_BITS) & 1
        return values.astype(np.float32)
    each = np.eye(NUM_CATEGORIES, dtype=np.float32)
    if isinstance(model.prior, priors.QuantizedPrior):
        each = model.prior.codebook().numpy()
    grid = np.meshgrid(*[np.arange(NUM_CATEGORIES)] * NUM_VARIABLES)
    index = np.stack(grid, -1).reshape(-1, NUM_VARIABLES)
    return each[index].reshape(len(index), -1)


def exact(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from data to log p(x), `[n]`, nats, exact."""
    joint = Joint(model.prior, model.decoder, model.likelihood)

    @tf.function(reduce_retracing=True)
    def evaluate(x: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        pairs = joint.log_prob_pairs(*densities.split_missing(x), codes)
        return tf.reduce_logsumexp(pairs, 1)

    def log_likelihoods(x: np.ndarray) -> np.ndarray:
        # Those of now: the codebook of a VQ-VAE is trained.
        codes = tf.constant(all_codes(model))
        rows = range(0, len(x), _ROWS)
        parts = [evaluate(tf.constant(x[i : i + _ROWS]), codes) for i in rows]
        return np.concatenate(parts)

    return log_likelihoods


def own_bounds(model: Any, x: np.ndarray) -> np.ndarray:
    """Returns the bounds on log p(x) that the method itself gives, `[n]`."""
    parts = range(0, len(x), _ROWS)
    found = [
        model.log_likelihood_bound(x[i : i + _ROWS], NUM_DRAWS) for i in parts
    ]
    return np.concatenate(found)


def run(
    split: Split, method: str, seed: int, steps: int
) -> dict[str, dict[str, Any]]:
    """Trains a model, and returns the measures of its best checkpoint.

    They are by method: a VQ-VAE has a second prior, which is fitted to it.
    """
    keras.utils.set_random_seed(seed)
    model = METHODS[method](split, seed, steps)
    model.adapt(split.train)
    model.compile(keras.optimizers.Adam(LEARNING_RATE))
    num_data = len(split.train)
    epochs = math.ceil(steps * BATCH_SIZE / num_data / NUM_CHECKPOINTS)
    log_likelihoods = exact(model)
    is_tvae = isinstance(model, tfvae.TVAE)
    kwargs: dict[str, Any] = {"batch_size": BATCH_SIZE}
    if is_tvae:
        kwargs = {"y": np.arange(num_data), "batch_size": 8 * BATCH_SIZE}
    seconds, best, weights, place = 0.0, -math.inf, None, 0
    for checkpoint in range(NUM_CHECKPOINTS):
        start = time.perf_counter()
        model.fit(split.train, epochs=epochs, verbose=0, **kwargs)
        seconds += time.perf_counter() - start
        if not (is_tvae or split.is_binary):
            # Relaxed latents have another noise than discrete ones.
            model.calibrate(split.train)
        reached = float(np.mean(log_likelihoods(split.held_out)))
        if reached > best:
            best, place = reached, checkpoint + 1
            weights = model.get_weights()
    model.set_weights(weights)
    shared = {"checkpoint": place, "epochs": epochs * NUM_CHECKPOINTS}
    found_of = {
        method: {**_measures(model, split, log_likelihoods), "seconds": seconds}
    }
    if method == "VQ-VAE":
        start = time.perf_counter()
        fitted = model.with_fitted_prior(_of_codes(32), split.train)
        seconds += time.perf_counter() - start
        measures = _measures(fitted, split, exact(fitted))
        measures["seconds"] = seconds
        found_of["VQ-VAE, autoregressive prior"] = measures
    return {name: {**one, **shared} for name, one in found_of.items()}


def _measures(
    model: Any,
    split: Split,
    log_likelihoods: Callable[[np.ndarray], np.ndarray],
) -> dict[str, float]:
    test = log_likelihoods(split.test)
    return {
        "log_likelihood": float(np.mean(test)),
        "standard_error": float(np.std(test) / math.sqrt(len(test))),
        "bound": float(np.mean(own_bounds(model, split.test))),
        "train": float(np.mean(log_likelihoods(split.train[:NUM_TEST]))),
    }


def published(
    folder: str, method: str, steps: int, path: pathlib.Path, seed: int = 0
) -> None:
    """Trains the published model of 200 latents on MNIST."""
    keras.utils.set_random_seed(seed)
    split = mnist(folder, 50000)
    estimators: dict[str, Any] = {
        "VIMCO": vae.VIMCO(),
        "DisARM": vae.DisARM(),
    }
    network = functools.partial(
        networks.fully_connected_encoder,
        num_observed=split.train.shape[1],
        hidden=(200, 200),
    )
    posterior = vae.BernoulliPosterior(estimators[method])
    model = tfvae.VAE(
        vae.learnable(network, 200, posterior=posterior),
        networks.FullyConnectedDecoder(split.train.shape[1], (200, 200)),
        priors.IndependentBernoulliPrior(200),
        likelihoods.BernoulliLikelihood(),
        seed=seed,
    )
    model.adapt(split.train)
    model.compile(keras.optimizers.Adam(1e-4))
    part = max(1, steps // NUM_CHECKPOINTS)
    start = time.perf_counter()

    def measure(epoch: int, logs: Any) -> None:
        row = {
            "method": method,
            "steps": (epoch + 1) * part,
            "bound": float(np.mean(own_bounds(model, split.test))),
            "seconds": time.perf_counter() - start,
        }
        _append(path, row)
        print(row, flush=True)

    model.fit(
        model.batches(split.train, 50, seed),
        steps_per_epoch=part,
        epochs=NUM_CHECKPOINTS,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=measure)],
    )


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _read(path: pathlib.Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = path.read_text().splitlines() if path.exists() else []
    return {_key(row): row for row in map(json.loads, rows)}


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("data", "size", "method", "seed", "steps")
    return tuple(row[name] for name in names)


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Prints means over seeds, a row for each data set, size and method."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_key(row)[:3], []).append(row)
    lines = []
    for (name, size, method), group in groups.items():
        mean = functools.partial(_mean, group)
        lines.append(
            [
                f"{name} {size:,}",
                method,
                cell(mean("log_likelihood"), ".2f"),
                cell(mean("standard_error"), ".2f"),
                cell(mean("bound"), ".2f"),
                cell(mean("train"), ".2f"),
                cell(mean("seconds"), ".0f"),
                str(len(group)),
            ]
        )
    head = ["data", "method", "log p(x)", "s.e.", "bound", "train", "s", "runs"]
    print_table(head, lines)


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def main() -> None:
    """Runs what is not there, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--mnist", help="folder of MNIST's IDX files")
    parser.add_argument("--pictures", nargs="*", help="files to cut patches of")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 20000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    names = ["digits", "MNIST", "bars", "patches"]
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--published", choices=["VIMCO", "DisARM"])
    args = parser.parse_args()
    folder = pathlib.Path(args.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if args.published:
        if not args.mnist:
            parser.error("--published needs --mnist")
        path = folder / "published.jsonl"
        published(args.mnist, args.published, args.steps, path)
        return
    path = folder / "results.jsonl"
    found = _read(path)
    for seed in args.seeds:
        for (name, size), source in sources(args).items():
            for method in args.methods:
                row = {
                    "data": name,
                    "size": size,
                    "method": method,
                    "seed": seed,
                    "steps": args.steps,
                }
                if _key(row) in found:
                    continue
                results = run(source(), method, seed, args.steps)
                for each, measures in results.items():
                    full = {**row, "method": each, **measures}
                    _append(path, full)
                    found[_key(full)] = full
                    print(full, flush=True)
    table(list(found.values()))


if __name__ == "__main__":
    main()
