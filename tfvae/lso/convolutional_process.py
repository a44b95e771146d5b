# SPDX-License-Identifier: Apache-2.0
"""Gaussian process with a convolutional kernel, by random Fourier features.

A score is a sum over windows of adjacent positions, each of which contributes
the same function of its latents, wherever it is:

    f(z) = sum_w sum_t g_w(z_t, ..., z_{t + w - 1}),    g_w ~ GP(0, v_w k_w)

    cov(f(z), f(z')) = sum_w v_w / T_w sum_t sum_t' k_w(window_t, window'_t')

with a squared exponential k_w and T_w windows of width w. So f is a Gaussian
process whose kernel does not change with a shift (van der Wilk, Rasmussen and
Hensman, 2017, "Convolutional Gaussian processes", section 3). Each k_w is the
inner product of m random features (Rahimi and Recht, 2007, "Random features for
large-scale kernel machines"), and their sum over windows is the feature of a
data point: regression is linear in F = m x (number of widths) features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.lso import linear_regression
from tfvae.lso.gaussian_fit import held_variables
from tfvae.lso.surrogates import checked

# Smallest variance of the noise, in units of the variance of the scores.
_MIN_NOISE = 1e-4
# Bounds of the logarithms of lengthscales (in units of the square root of a
# window's size), of variances and of that of the noise.
_LOG_LENGTHSCALE = (-2.5, 2.5)
_LOG_VARIANCE = (-10.0, 6.0)
_LOG_NOISE = (float(np.log(_MIN_NOISE)), 1.0)


class _Scale(NamedTuple):
    """Standardisation: of channels, whatever the position, and of scores."""

    centre: np.ndarray
    """`[c]`."""
    spread: np.ndarray
    """`[c]`."""
    score_centre: np.ndarray
    score_spread: np.ndarray


@typed_gin.register
@dataclasses.dataclass(eq=False)
class ConvolutionalProcess:
    """Gaussian process for latents with positions, see this module.

    A cold fit standardises the data, draws the features, and maximises the
    marginal likelihood of some of the points in the lengthscale and the
    variance of each width, and in the variance of the noise. A warm fit keeps
    all of these. Both then condition on all points, which takes a time linear
    in their number. Features are computed in float32, where cosines take a
    tenth of the time, all else in float64.

    Attributes:
      num_positions: T. Latents are `[n, T * c]`, ordered by position, as those
        of `residual_sequence_encoder`.
      widths: Widths of the windows, positions, each at most T.
      num_features: Random features of each width, m.
      num_tuned: Number of points, drawn at random, whose marginal likelihood is
        maximised.
      num_iterations: Largest number of iterations of L-BFGS; 0 to keep the
        initial values.
    """

    num_positions: int
    widths: Sequence[int] = (1, 3)
    num_features: int = 512
    num_tuned: int = 500
    num_iterations: int = 15
    has_gradients = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_counts(
            num_positions=self.num_positions,
            num_features=self.num_features,
            num_tuned=self.num_tuned,
        )
        self.widths = tuple(self.widths)
        if not self.widths or not all(
            1 <= width <= self.num_positions for width in self.widths
        ):
            raise ValueError(
                "`widths` must be from 1 to `num_positions`, "
                f"{self.num_positions}, at least one, got {self.widths!r}"
            )
        self._seed: int | None = None
        self._logs = np.zeros(0)
        self._scale: _Scale | None = None
        self._can_predict = False
        ranks = {"weights": 1, "root": 2, "logs": 1}
        ranks |= dict.fromkeys(_Scale._fields[:2], 1)
        ranks |= dict.fromkeys(_Scale._fields[2:], 0)
        for i in range(len(self.widths)):
            ranks |= {f"frequencies_{i}": 2, f"phases_{i}": 1}
        self._held = held_variables(ranks)

    def fit(
        self, latents: np.ndarray, scores: np.ndarray, seed: int, warm: bool
    ) -> None:
        latents, scores = checked(latents, scores)
        if latents.shape[1] % self.num_positions:
            raise ValueError(
                "`latents` must have shape [points, latents], the latter a "
                f"multiple of `num_positions`, {self.num_positions}, got "
                f"shape {latents.shape!r}"
            )
        if warm and self._scale is None:
            raise ValueError("`warm` must be False for the first fit, got True")
        if not warm:
            self._seed = int(np.random.default_rng(seed).integers(2**31))
            self._scale = self._scale_of(latents, scores)
            self._logs = np.array([0.0, -1.0] * len(self.widths) + [-1.0])
        assert self._scale is not None
        self._hold(latents.shape[1] // self.num_positions)
        scores = (scores - self._scale.score_centre) / self._scale.score_spread
        if not warm and self.num_iterations:
            self._logs = self._tuned(latents, scores)
            self._held["logs"].assign(self._logs)
        weights, root = linear_regression.posterior(
            self._features(tf.constant(latents)),
            tf.constant(scores),
            tf.exp(self._held["logs"][-1]),
        )
        self._held["weights"].assign(weights)
        self._held["root"].assign(root)
        self._can_predict = True

    def _scale_of(self, latents: np.ndarray, scores: np.ndarray) -> _Scale:
        channels = latents.shape[1] // self.num_positions
        of_channels = latents.reshape(-1, channels)
        return _Scale(
            of_channels.mean(0),
            _spread(of_channels),
            np.array(scores.mean()),
            np.array(_spread(scores)),
        )

    def _hold(self, channels: int) -> None:
        """Assigns the variables that do not depend on the data of a fit."""
        assert self._scale is not None
        for name, value in self._scale._asdict().items():
            self._held[name].assign(value)
        self._held["logs"].assign(self._logs)
        rng = np.random.default_rng(self._seed)
        for i, width in enumerate(self.widths):
            shape = (width * channels, self.num_features)
            # A lengthscale of 1 is the typical distance of windows.
            frequencies = rng.standard_normal(shape) / np.sqrt(shape[0])
            phases = rng.uniform(0.0, 2.0 * np.pi, self.num_features)
            self._held[f"frequencies_{i}"].assign(frequencies)
            self._held[f"phases_{i}"].assign(phases)

    def _features(self, latents: tf.Tensor) -> tf.Tensor:
        """Returns the features of all widths, `[q, F]`."""
        held = {
            name: tf.cast(value, tf.float32)
            for name, value in self._held.items()
            if name not in ("weights", "root")
        }
        logs = held["logs"]
        # The number of channels, also where it is not known statically.
        sizes = [-1, self.num_positions, tf.size(held["centre"])]
        positions = tf.reshape(tf.cast(latents, tf.float32), sizes)
        positions = (positions - held["centre"]) / held["spread"]
        features = [
            window_features(
                positions,
                width,
                held[f"frequencies_{i}"] * tf.exp(-logs[2 * i]),
                held[f"phases_{i}"],
            )
            * tf.exp(0.5 * logs[2 * i + 1])
            for i, width in enumerate(self.widths)
        ]
        return tf.cast(tf.concat(features, -1), tf.float64)

    def _tuned(self, latents: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Maximises the marginal likelihood of some points.

        Returns:
          For each width the logarithms of its lengthscale and its variance;
          that of the noise comes last. `[2 * widths + 1]`.
        """
        rng = np.random.default_rng(self._seed)
        chosen = rng.permutation(len(latents))[: self.num_tuned]
        points, values = tf.constant(latents[chosen]), scores[chosen]

        def function(logs: np.ndarray) -> tuple[float, np.ndarray]:
            self._held["logs"].assign(logs)
            loss, gradient = self._loss_and_gradient(
                points, tf.constant(values)
            )
            return float(loss) / len(values), gradient.numpy() / len(values)

        bounds = [_LOG_LENGTHSCALE, _LOG_VARIANCE] * len(self.widths)
        return scipy.optimize.minimize(
            function,
            self._logs,
            jac=True,
            method="L-BFGS-B",
            bounds=[*bounds, _LOG_NOISE],
            options={"maxiter": self.num_iterations},
        ).x

    @tf.function(reduce_retracing=True)
    def _loss_and_gradient(
        self, latents: tf.Tensor, scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logs = self._held["logs"]
        with tf.GradientTape() as tape:
            tape.watch(logs)
            features = self._features(latents)
            loss = -linear_regression.log_evidence(
                features, scores, tf.exp(logs[-1])
            )
        return loss, tape.gradient(loss, logs)

    def _fitted_features(self, latents: Any) -> tf.Tensor:
        if not self._can_predict:
            raise ValueError(
                "`ConvolutionalProcess` must be fitted before it predicts"
            )
        return self._features(latents)

    def predict(self, latents: Any) -> tuple[tf.Tensor, tf.Tensor]:
        held, features = self._held, self._fitted_features(latents)
        mean = tf.linalg.matvec(features, held["weights"])
        variance = tf.reduce_sum(
            tf.square(tf.matmul(features, held["root"])), -1
        )
        # Smaller ones are rounding errors, and have no gradient.
        std = tf.sqrt(tf.maximum(variance, 1e-10))
        return (
            held["score_centre"] + held["score_spread"] * mean,
            held["score_spread"] * std,
        )

    def covariance(self, first: Any, second: Any) -> tf.Tensor:
        root = self._held["root"]
        one, other = (
            tf.matmul(self._fitted_features(latents), root)
            for latents in (first, second)
        )
        scale = tf.square(self._held["score_spread"])
        return scale * tf.matmul(one, other, transpose_b=True)

    def lengthscales(self) -> None:
        """Returns None: a window may be at any position."""
        return None

    def sample(
        self, latents: np.ndarray, num_samples: int, seed: int
    ) -> np.ndarray:
        features, held = self._fitted_features(latents), self._held
        root = held["root"].numpy()
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((num_samples, len(root)))
        draws = held["weights"].numpy() + noise @ root.T
        values = draws @ features.numpy().T
        return held["score_centre"].numpy() + (
            held["score_spread"].numpy() * values
        )

    def state(self) -> dict[str, np.ndarray]:
        if self._scale is None:
            return {}
        arrays = {**self._scale._asdict(), "logs": self._logs}
        arrays["seed"] = np.array(self._seed)
        return {name: np.array(value) for name, value in arrays.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._can_predict = False
        self._scale, self._seed = None, None
        if state:
            self._scale = _Scale(*(state[name] for name in _Scale._fields))
            self._seed, self._logs = int(state["seed"]), state["logs"]


def window_features(
    positions: tf.Tensor,
    width: int,
    frequencies: tf.Tensor,
    phases: tf.Tensor,
) -> tf.Tensor:
    """Returns sums of random Fourier features over windows.

    Inner products of two points' features are, on average over frequencies and
    phases, sum_tt' exp(-|u_t - u'_t'|^2 / 2) / T_w, for windows u whose
    frequencies are standard normal.

    Args:
      positions: `[q, T, c]`.
      width: Positions of a window, w.
      frequencies: `[w c, m]`.
      phases: `[m]`, uniform on [0, 2 pi].

    Returns:
      `[q, m]`.
    """
    num_positions = positions.shape[1]
    num_windows = num_positions - width + 1
    sizes = [width, -1, tf.shape(frequencies)[1]]
    kernel = tf.reshape(frequencies, sizes)  # [w, c, m]
    total = tf.zeros([], positions.dtype)
    # One window at a time, so that memory does not grow with their number.
    for start in range(num_windows):
        angles = phases
        for i in range(width):
            angles = angles + tf.matmul(positions[:, start + i], kernel[i])
        total = total + tf.cos(angles)
    size = tf.cast(tf.shape(frequencies)[1] * num_windows, positions.dtype)
    return tf.sqrt(2.0 / size) * total


def _spread(values: np.ndarray) -> np.ndarray:
    """Returns standard deviations of columns; 1 where nearly constant."""
    spread = values.std(0)
    size = np.abs(values).max(0)
    return np.where(spread > 1e-9 * size, spread, 1.0)
