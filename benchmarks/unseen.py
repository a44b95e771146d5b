# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: inference of unseen patches, with and without an archive.

Usage:
  PYTHONPATH=. python -m benchmarks.unseen [--num_latents=512] \
      [--archived=0,1024,4096] [--steps=1,3,10,30,100] [--epochs=32]

Trains a TVAE as `tfvae denoise` does on all 8 x 8 patches of one half of the
embedded picture "camera" with noise of standard deviation 25, and infers 2,048
patches of the other half. Prints the mean bound on log p(x), nats, after so
many E-steps, and data points a second, the median of three calls of a batch
each, which alternate between the archives.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import keras
import numpy as np

import tfvae
from benchmarks.tables import print_table
from tfvae.data.images import embedded_image
from tfvae.ops.patches import extract_patches

_STD, _SIDE, _BATCH, _NUM_UNSEEN = 25.0, 8, 512, 2048


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, infers, prints."""
    given = _options(argv)
    archived = [int(one) for one in given.archived.split(",")]
    steps = [int(one) for one in given.steps.split(",")]
    train, unseen = _patches()
    model = _trained(train, given.num_latents, given.epochs)
    models = {number: _with_archive(model, number) for number in archived}
    rows = []
    for count in steps:
        seconds: dict[int, list[float]] = {number: [] for number in archived}
        bounds: dict[int, float] = {}
        for _ in range(4):  # The first traces.
            for number, one in models.items():
                start = time.perf_counter()
                found = [
                    one.infer(
                        unseen[i : i + _BATCH],
                        max_steps=count,
                        tolerance=-np.inf,
                    ).bound.numpy()
                    for i in range(0, len(unseen), _BATCH)
                ]
                seconds[number].append(time.perf_counter() - start)
                bounds[number] = float(np.mean(np.concatenate(found)))
        rows.append(
            [str(count)]
            + [
                f"{bounds[number]:.2f} ("
                f"{len(unseen) / statistics.median(seconds[number][1:]):,.0f})"
                for number in archived
            ]
        )
    print(
        f"bound, nats (points a second); {model.num_latents} latents, "
        f"{model.num_states} states; bound of the training patches "
        f"{_bound(model, train[:: len(train) // _NUM_UNSEEN]):.2f} inferred"
    )
    print_table(
        ["steps", *(f"archive of {number}" for number in archived)], rows
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--num_latents", type=int, default=512)
    parser.add_argument("--archived", default="0,1024,4096")
    parser.add_argument("--steps", default="1,3,10,30,100")
    parser.add_argument("--epochs", type=int, default=32)
    return parser.parse_args(argv)


def _patches() -> tuple[np.ndarray, np.ndarray]:
    picture = embedded_image("camera")[128:384, 100:356]
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, _STD, picture.shape)
    picture = (picture + noise).astype(np.float32)
    halves = picture[:, :128], picture[:, 128:]
    train, unseen = (
        extract_patches(half, (_SIDE, _SIDE)).reshape(-1, _SIDE**2)
        for half in halves
    )
    chosen = rng.permutation(len(unseen))[:_NUM_UNSEEN]
    return train, unseen[chosen]


def _trained(train: np.ndarray, num_latents: int, epochs: int) -> tfvae.TVAE:
    keras.utils.set_random_seed(0)
    model = tfvae.TVAE(
        tfvae.networks.FullyConnectedDecoder(_SIDE**2, (64,)),
        num_latents,
        num_data=len(train),
        num_states=16,
        evolution=tfvae.tvae.Evolution(
            num_parents=2, num_children=2, num_generations=1
        ),
        m_batch_size=128,
    )
    model.adapt(train)
    schedule = tfvae.schedules.TriangularCyclical(
        1e-4, 1e-2, model.gradient_steps(len(train), 2048) * epochs // 2
    )
    model.compile(keras.optimizers.Adam(schedule))
    model.fit(
        train, np.arange(len(train)), batch_size=2048, epochs=epochs, verbose=0
    )
    return model


def _with_archive(model: tfvae.TVAE, number: int) -> tfvae.TVAE:
    """Returns the same model with an archive of so many states."""
    other = tfvae.TVAE.from_config(
        {**model.get_config(), "num_archived": number}
    )
    targets = [one for one in other.weights if one is not other.archive]
    for source, target in zip(model.weights, targets, strict=True):
        target.assign(source)
    if number:
        other.update_archive()
    return other


def _bound(model: tfvae.TVAE, points: np.ndarray) -> float:
    found = [
        model.infer(points[i : i + _BATCH], max_steps=30).bound.numpy()
        for i in range(0, len(points), _BATCH)
    ]
    return float(np.mean(np.concatenate(found)))


if __name__ == "__main__":
    main()
