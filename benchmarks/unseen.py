# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: inference of unseen patches, with and without an archive.

Usage:
  PYTHONPATH=. python -m benchmarks.unseen [--num_latents=512] \
      [--archived=0,1024,4096] [--steps=1,3,10,30,100] [--epochs=32] \
      [--unseen=2048]

Trains a TVAE as `tfvae denoise` does on all 8 x 8 patches of one half of the
embedded picture "camera" with noise of standard deviation 25, and infers 2,048
patches of the other half, in this process and by exported SavedModels. Prints
the mean bound on log p(x), nats, after so many E-steps, and data points a
second in process and exported, the medians of three calls of a batch each,
which alternate between all of them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

import tfvae
from benchmarks.tables import print_table
from tfvae.data.images import embedded_image
from tfvae.ops.patches import extract_patches

_STD, _SIDE, _BATCH = 25.0, 8, 512

Bound = Callable[[np.ndarray, int], np.ndarray]
"""From a batch and a number of steps to the bounds of its data points."""


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, infers, prints."""
    given = _options(argv)
    archived = [int(one) for one in given.archived.split(",")]
    steps = [int(one) for one in given.steps.split(",")]
    train, unseen = _patches(given.unseen)
    model = _trained(train, given.num_latents, given.epochs)
    bounds_of: dict[tuple[int, bool], Bound] = {}
    for number in archived:
        other = _with_archive(model, number)
        bounds_of[number, False] = _in_process(other)
        bounds_of[number, True] = _exported(other)
    rows = []
    for count in steps:
        seconds: dict[tuple[int, bool], list[float]] = {
            key: [] for key in bounds_of
        }
        bounds: dict[tuple[int, bool], float] = {}
        for _ in range(4):  # The first traces.
            for key, bounds_after in bounds_of.items():
                start = time.perf_counter()
                found = [
                    bounds_after(unseen[i : i + _BATCH], count)
                    for i in range(0, len(unseen), _BATCH)
                ]
                seconds[key].append(time.perf_counter() - start)
                bounds[key] = float(np.mean(np.concatenate(found)))
        rate = {
            key: len(unseen) / statistics.median(some[1:])
            for key, some in seconds.items()
        }
        for number in archived:
            np.testing.assert_allclose(
                bounds[number, True], bounds[number, False], rtol=0.01
            )
        rows.append(
            [str(count)]
            + [
                f"{bounds[number, False]:.2f} ({rate[number, False]:,.0f}, "
                f"{rate[number, True]:,.0f})"
                for number in archived
            ]
        )
    print(
        "bound, nats (points a second in process, exported); "
        f"{model.num_latents} latents, "
        f"{model.num_states} states; bound of the training patches "
        f"{_bound(model, train[:: len(train) // given.unseen]):.2f} inferred"
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
    parser.add_argument("--unseen", type=int, default=2048)
    return parser.parse_args(argv)


def _patches(num_unseen: int) -> tuple[np.ndarray, np.ndarray]:
    picture = embedded_image("camera")[128:384, 100:356]
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, _STD, picture.shape)
    picture = (picture + noise).astype(np.float32)
    halves = picture[:, :128], picture[:, 128:]
    train, unseen = (
        extract_patches(half, (_SIDE, _SIDE)).reshape(-1, _SIDE**2)
        for half in halves
    )
    chosen = rng.permutation(len(unseen))[:num_unseen]
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


def _in_process(model: tfvae.TVAE) -> Bound:
    def bounds_after(points: np.ndarray, count: int) -> np.ndarray:
        return model.infer(
            points, max_steps=count, tolerance=-np.inf
        ).bound.numpy()

    return bounds_after


def _exported(model: tfvae.TVAE) -> Bound:
    """Returns the bounds by the SavedModel, which searches without end, too."""
    endless = tfvae.TVAE.from_config(
        {**model.get_config(), "num_data": 0, "inference_tolerance": -np.inf}
    )
    of_model = {one.path: one for one in model.weights}
    for one in endless.weights:
        one.assign(of_model[one.path])
    with tempfile.TemporaryDirectory() as folder:
        tfvae.serving.export_saved_model(endless, folder)
        loaded = tf.saved_model.load(folder)

    def bounds_after(points: np.ndarray, count: int) -> np.ndarray:
        return loaded.log_likelihood_bound(points, count, model.seed)[
            "bound"
        ].numpy()

    return bounds_after


def _bound(model: tfvae.TVAE, points: np.ndarray) -> float:
    found = [
        model.infer(points[i : i + _BATCH], max_steps=30).bound.numpy()
        for i in range(0, len(points), _BATCH)
    ]
    return float(np.mean(np.concatenate(found)))


if __name__ == "__main__":
    main()
