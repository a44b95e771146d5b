# SPDX-License-Identifier: Apache-2.0
"""A latent space, its retrainer, a surrogate and a strategy without models.

All are linear and deterministic, and what one round or fit leaves behind
matters to all later queries: a run that is not resumed exactly goes elsewhere.
"""

from __future__ import annotations

import numpy as np

from tests.lso import tiny
from tfvae import lso


class Space:
    """Latents that a fixed matrix, and a shift that is trained, decode."""

    num_latents, is_binary = tiny.NUM_LATENTS, False

    def __init__(self):
        rng = np.random.default_rng(0)
        shape = (self.num_latents, tiny.NUM_OBSERVED)
        self._matrix = rng.normal(size=shape)
        self.shift = np.zeros(tiny.NUM_OBSERVED)

    def encode(self, points, rows=None):
        latents = (points - self.shift) @ np.linalg.pinv(self._matrix)
        if rows is None:
            # As rounding errors of networks depend on the size of a batch.
            latents += 1e-4 * len(points)
        return latents.astype(np.float32)

    def decode(self, latents):
        means = np.asarray(latents, np.float64) @ self._matrix + self.shift
        return means.astype(np.float32)

    def sample_prior(self, seed, count):
        rng = np.random.default_rng(seed)
        return rng.normal(size=(count, self.num_latents)).astype(np.float32)


class Retrainer:
    """Moves the shift of a space toward the weighted mean of the data."""

    num_observed, capacity = tiny.NUM_OBSERVED, None
    settings = {"model": "Space", "retraining": "halfway"}

    def __init__(self, space):
        self._space = space
        self.calls = []
        self.scores = []

    def retrain(self, points, weights, num_data, is_first, scores, rows):
        self.calls.append((len(points), num_data, is_first))
        self.scores.append((points, scores, rows))
        self._space.shift = 0.5 * (self._space.shift + weights @ points)
        return float(np.sum(self._space.shift**2))

    def save(self, folder, now):
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{now:03d}.npy", self._space.shift)

    def restore(self, folder):
        found = sorted(folder.glob("*.npy"))
        if not found:
            return None
        self._space.shift = np.load(found[-1])
        return int(found[-1].stem)


class Walk:
    """A strategy that goes a step from the best point, one at a time."""

    uses_data = True
    uses_surrogate = True

    def __repr__(self):
        return "Walk()"

    def num_at_a_time(self, num_left):
        return 1

    def propose(self, context, num_queries, seed):
        rng = np.random.default_rng(seed)
        best = context.latents[np.argmax(context.scores)]
        scale = context.surrogate.scale
        step = rng.normal(size=(num_queries, len(best)), scale=scale)
        return (best + step).astype(np.float32)


class Count:
    """A surrogate that only counts: its state matters to every proposal."""

    has_gradients = False

    def __init__(self):
        self.scale = 0.0
        self.fits = []

    def __repr__(self):
        return "Count()"

    def fit(self, latents, scores, seed, warm):
        self.fits.append((len(latents), warm))
        self.scale = 1.01 * self.scale + 0.1 if warm else 0.1
        self.scale += 1e-3 * float(np.mean(scores)) ** 2

    def state(self):
        return {"scale": np.array(self.scale)}

    def restore(self, state):
        self.scale = float(state["scale"])


class Believing(Count):
    """A surrogate whose mean is the mean of the scores that it knows."""

    def fit(self, latents, scores, seed, warm):
        super().fit(latents, scores, seed, warm)
        self.known = (np.array(latents), np.array(scores))

    def predict(self, latents):
        mean = float(np.mean(self.known[1]))
        return np.full(len(latents), mean), np.ones(len(latents))


def sequence(entries):
    """Returns what has to be equal in a run that was interrupted."""
    return [
        (one.round, one.query, one.latent, one.input, one.score, one.seed)
        for one in entries
    ]


class Better:
    """Weights that grow with the score; needs no TensorFlow."""

    def __repr__(self):
        return "Better()"

    def __call__(self, scores):
        weights = np.exp(scores - np.max(scores))
        return weights / weights.sum()

    def retain(self, num_kept, scores):
        return np.arange(len(scores)), 0


def opened(folder, plan, **values):
    """Returns an optimizer of these parts, or of others where given."""
    space = Space()
    parts = {
        "task": tiny.task(),
        "space": space,
        "retrainer": Retrainer(space),
        "plan": plan,
        "strategy": Walk(),
        "surrogate": Believing(),
        "weighting": Better(),
    }
    return lso.LatentSpaceOptimizer(folder, **parts | values)
