# SPDX-License-Identifier: Apache-2.0
"""Worker process of `epoch_times`: trains one epoch of a model on request.

`python -m benchmarks.epoch_worker '{"config": ..., "programs": [...]}'`
builds all programs, prints a JSON line with "facts", and then, for each line of
standard input, trains one epoch of the program with this name.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfvae.sweeps.study  # noqa: F401 (registers with gin)
from tfvae.data import batches_with, indexed_batches
from tfvae.latent_model import LatentModel
from tfvae.networks.counting import num_parameters
from tfvae.ops import densities
from tfvae.optimizers import FusedAdam
from tfvae.runs import config
from tfvae.runs.experiment import experiment

_LEARNING_RATE = 1e-3


def main(argv: Sequence[str]) -> int:
    """Runs the worker and returns its exit code."""
    try:
        settings = json.loads(argv[0])
        programs, facts = {}, {}
        for one in settings["programs"]:
            model, epoch = program(settings, one)
            programs[one["name"]] = epoch
            facts[one["name"]] = {
                "trainable_parameters": num_parameters(
                    model.trainable_variables
                )
            }
        _print_json({"facts": facts})
        for line in sys.stdin:
            _print_json(programs[line.strip()]())
        return 0
    except Exception as err:
        print("error:", " ".join(str(err).split()), file=sys.stderr)
        return 2


def program(
    settings: Mapping[str, Any], one: Mapping[str, Any]
) -> tuple[keras.Model, Callable[[], dict[str, float]]]:
    """Builds a program.

    Args:
      settings: "config" (a gin file), "batch_size" and "steps_per_execution".
      one: "bindings" and "files" of gin; "form": "plain" to compute the
        features of frozen layers in every step, "cached" to compute them once,
        or "given" to train only decoder and prior, on given latents.

    Returns:
      Its model, and a function that trains an epoch and returns its "seconds"
      and "loss".
    """
    config.load([settings["config"], *one["files"]], one["bindings"])
    parts = experiment()
    x, model = parts.observations.train, parts.model
    batch_size = settings["batch_size"]
    trained: keras.Model = model
    if one["form"] == "cached":
        batches = model.batches(x, batch_size)
    elif one["form"] == "given":
        trained = WithoutEncoder(model)
        latents = np.random.default_rng(0).standard_normal(
            (len(x), model.num_latents), np.float32
        )
        batches = batches_with(x, latents, batch_size)
    else:
        batches = indexed_batches(x, batch_size).map(lambda data, index: data)
    steps = math.ceil(len(x) / batch_size)
    trained.compile(
        FusedAdam(_LEARNING_RATE),
        steps_per_execution=math.gcd(steps, settings["steps_per_execution"]),
    )
    return trained, _epoch(trained, batches, steps)


def _epoch(
    model: keras.Model, batches: tf.data.Dataset, steps: int
) -> Callable[[], dict[str, float]]:
    def epoch() -> dict[str, float]:
        clock = _Clock()
        history = model.fit(
            batches,
            steps_per_epoch=steps,
            epochs=1,
            shuffle=False,  # The batches are already shuffled.
            verbose=0,
            callbacks=[clock],
        )
        loss = float(history.history["loss"][-1])
        return {"seconds": clock.seconds, "loss": loss}

    return epoch


class _Clock(keras.callbacks.Callback):
    """Times the epoch only, without the overhead of the call of `fit`."""

    seconds = math.nan

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds = time.perf_counter() - self._started


class WithoutEncoder(keras.Model):
    """Decoder, likelihood and prior of a VAE, trained on given latents.

    With any encoder, an epoch of the VAE takes at least this time.
    """

    def __init__(self, model: LatentModel) -> None:
        """Shares the parts of a VAE.

        Args:
          model: The VAE.
        """
        super().__init__()
        self.decoder = model.decoder
        self.likelihood = model.likelihood
        self.prior = model.prior
        self._loss = keras.metrics.Mean(name="loss")
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._loss]

    def train_step(
        self, data: tuple[tf.Tensor, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """One gradient step on data `[B, D]` and their latents `[B, M]`."""
        points, latents = data
        x, observed = densities.split_missing(points)
        with tf.GradientTape() as tape:
            outputs = self.decoder(latents, training=True)
            log_joint = self.likelihood.log_prob(x, observed, outputs)
            log_joint += self.prior.log_prob(latents)
            loss = -tf.reduce_mean(log_joint)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self._loss.update_state(loss)
        return {"loss": self._loss.result()}


def _print_json(row: Mapping[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
