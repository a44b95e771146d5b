# SPDX-License-Identifier: Apache-2.0
"""Bounds and seconds per epoch under mixed precision, against float32.

Usage:
  PYTHONPATH=. python -m benchmarks.precision [--epochs=20]

Trains a convolutional VAE of 32 x 32 digits and a TVAE of 8 x 8 digits once
under each dtype policy, from the same initial weights, one epoch of each after
the other. Seconds are medians over the epochs but the first, which compiles;
ratios are to float32. CPUs have no fast 16-bit arithmetic: expect gains on GPUs
only.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import keras
import numpy as np

import tfvae
from benchmarks.tables import print_table
from tfvae import data, networks
from tfvae.latent_model import LatentModel

_POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
_SHAPE = (32, 32, 1)
_NUM_LATENTS = 16


def _conv_vae(num_data: int) -> LatentModel:
    """Returns a VAE of 32 x 32 images; `num_data` has no effect."""
    network = functools.partial(networks.conv_encoder, image_shape=_SHAPE)
    return tfvae.VAE(
        tfvae.learnable(network, _NUM_LATENTS),
        networks.ConvDecoder(np.prod(_SHAPE).item(), _SHAPE),
        tfvae.RealNVPPrior(_NUM_LATENTS),
    )


def _tvae(num_data: int) -> LatentModel:
    """Returns a TVAE of 8 x 8 images."""
    return tfvae.TVAE(
        tfvae.FullyConnectedDecoder(64, (256, 256)),
        num_latents=64,
        num_data=num_data,
        num_states=16,
        m_batch_size=128,
    )


def _trainings(
    make: Callable[[int], LatentModel], x: np.ndarray, batch_size: int
) -> dict[str, Callable[[], tuple[float, float]]]:
    """Returns, by policy, functions that train one epoch more.

    They return its seconds and the bound that it logs, nats.
    """
    initial = make(len(x)).get_weights()

    def training(policy: str) -> Callable[[], tuple[float, float]]:
        keras.config.set_dtype_policy(policy)
        model = make(len(x))
        model.set_weights(initial)
        model.adapt(x)
        model.compile(keras.optimizers.Adam(1e-3))
        steps = -(-len(x) // batch_size)

        def epoch() -> tuple[float, float]:
            keras.config.set_dtype_policy(policy)
            done = int(model.iteration) // steps
            batches = model.batches(x, batch_size, start_epoch=done)
            start = time.perf_counter()
            history = model.fit(
                batches, steps_per_epoch=steps, shuffle=False, verbose=0
            )
            seconds = time.perf_counter() - start
            return seconds, history.history["bound"][0]

        return epoch

    found = {policy: training(policy) for policy in _POLICIES}
    keras.config.set_dtype_policy("float32")
    return found


def main() -> None:
    """Trains, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--epochs", type=int, default=20, help="epochs, at least 2"
    )
    epochs = parser.parse_args().epochs
    if epochs < 2:
        parser.error("--epochs must be at least 2")
    rows = []
    for name, make, size, batch_size in (
        ("conv VAE, 32 x 32 digits", _conv_vae, (32, 32), 128),
        ("TVAE, 8 x 8 digits", _tvae, (8, 8), 512),
    ):
        x = data.sklearn_digits(size=size).train
        trainings = _trainings(make, x, batch_size)
        found = {
            policy: np.array([[*epoch()]])
            for policy, epoch in trainings.items()
        }
        for _ in range(epochs - 1):
            for policy, epoch in trainings.items():
                found[policy] = np.append(found[policy], [epoch()], 0)
        usual = np.median(found["float32"][1:, 0])
        for policy, values in found.items():
            seconds = np.median(values[1:, 0])
            rows.append(
                [
                    name,
                    policy,
                    f"{values[0, 1]:.2f}",
                    f"{values[-1, 1]:.2f}",
                    f"{seconds:.3f}",
                    f"{seconds / usual:.2f}",
                ]
            )
    head = ["model", "policy", "bound 1", f"bound {epochs}", "s/epoch", "ratio"]
    print_table(head, rows)


if __name__ == "__main__":
    main()
