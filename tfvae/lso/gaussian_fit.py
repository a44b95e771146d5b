# SPDX-License-Identifier: Apache-2.0
"""Fits of a sparse Gaussian process: state, prior, Adam, L-BFGS, jitter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import tensorflow as tf

from tfvae.lso import collapsed_bound, search
from tfvae.lso.collapsed_bound import MAX_JITTER, MIN_JITTER, Parameters

STANDARDISATIONS = ("each", "all", "none")

Data = tuple[tf.Tensor, tf.Tensor]
"""Standardised latents `[n, M]` and scores `[n]`, float64."""


class Adam:
    """Adam (Kingma and Ba, 2015) whose state consists of NumPy arrays.

    Attributes:
      count: Number of steps so far.
      first: First moments of the gradients.
      second: Second moments of the gradients.
    """

    def __init__(self, parameters: Parameters):
        """Initialises all moments to zero."""
        self.count = 0
        self.first = Parameters(*(np.zeros_like(p) for p in parameters))
        self.second = Parameters(*(np.zeros_like(p) for p in parameters))

    def step(
        self, parameters: Parameters, gradients: Parameters, rate: float
    ) -> Parameters:
        self.count += 1
        self.first = _decay(self.first, gradients, 0.9)
        squares = Parameters(*(np.square(g) for g in gradients))
        self.second = _decay(self.second, squares, 0.999)
        first_share = 1.0 - 0.9**self.count
        second_share = 1.0 - 0.999**self.count
        return Parameters(
            *(
                value
                - rate * m / first_share / (np.sqrt(v / second_share) + 1e-8)
                for value, m, v in zip(
                    parameters, self.first, self.second, strict=True
                )
            )
        )


def _decay(old: Parameters, new: Parameters, kept: float) -> Parameters:
    return Parameters(
        *(kept * o + (1 - kept) * n for o, n in zip(old, new, strict=True))
    )


class Scale(NamedTuple):
    """Standardisation of latents and scores, set in a cold fit.

    Attributes:
      centre: Offset of the latents, `[M]`.
      spread: Scale of the latents, `[M]`, positive.
      score_centre: Offset of the scores, scalar.
      score_spread: Scale of the scores, scalar, positive.
    """

    centre: np.ndarray
    spread: np.ndarray
    score_centre: np.ndarray
    score_spread: np.ndarray

    @classmethod
    def of(
        cls, latents: np.ndarray, scores: np.ndarray, standardise: str
    ) -> Scale:
        num_latents = latents.shape[1]
        if standardise == "none":
            zero, one = np.zeros(num_latents), np.ones(num_latents)
            return cls(zero, one, np.array(0.0), np.array(1.0))
        axis = 0 if standardise == "each" else None
        return cls(
            np.broadcast_to(latents.mean(axis), num_latents).copy(),
            np.broadcast_to(_spread(latents, axis), num_latents).copy(),
            np.array(scores.mean()),
            np.array(_spread(scores)),
        )


def _spread(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Returns standard deviations; 1 where values are nearly constant."""
    spread = values.std(axis)
    size = np.abs(values).max(axis)
    return np.where(spread > 1e-9 * size, spread, 1.0)


@dataclasses.dataclass
class Fit:
    """State that a warm fit continues from.

    Attributes:
      parameters: Parameters of the sparse Gaussian process, for standardised
        data.
      scale: Standardisation of the data.
      adam: State of the optimizer.
      jitter: Smallest jitter that has sufficed so far, as a fraction of the
        kernel variance.
    """

    parameters: Parameters
    scale: Scale
    adam: Adam
    jitter: float = MIN_JITTER

    def is_exact(self, data: Data) -> bool:
        """Returns whether all data points are inducing points."""
        inducing = {row.tobytes() for row in self.parameters.inducing}
        return all(row.tobytes() in inducing for row in data[0].numpy())

    def add_inducing(self, data: Data, limit: int) -> None:
        """Adds inducing points at new data points, the last ones.

        Otherwise a point far from all inducing points would be forgotten: the
        uncertainty there would remain, and queries would return to it.
        """
        inducing = self.parameters.inducing
        room = limit - len(inducing)
        if room <= 0:
            return
        known = {row.tobytes() for row in inducing}
        new = {row.tobytes(): row for row in data[0].numpy()}
        rows = [row for key, row in new.items() if key not in known][-room:]
        if not rows:
            return
        self.parameters = self.parameters._replace(
            inducing=np.concatenate([inducing, rows])
        )
        adam = self.adam
        adam.first, adam.second = (
            moments._replace(
                inducing=np.concatenate([moments.inducing, np.zeros_like(rows)])
            )
            for moments in (adam.first, adam.second)
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns copies of all arrays, by name."""
        arrays = {**self.parameters._asdict(), **self.scale._asdict()}
        for kind in ("first", "second"):
            moments = getattr(self.adam, kind)._asdict()
            arrays.update({f"{kind}/{k}": v for k, v in moments.items()})
        arrays["count"] = self.adam.count
        arrays["jitter"] = self.jitter
        return {name: np.array(value) for name, value in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Fit:
        names = Parameters._fields
        parameters = Parameters(*(np.array(arrays[k]) for k in names))
        adam = Adam(parameters)
        adam.count = int(arrays["count"])
        for kind in ("first", "second"):
            moments = (np.array(arrays[f"{kind}/{k}"]) for k in names)
            setattr(adam, kind, Parameters(*moments))
        scale = Scale(*(np.array(arrays[k]) for k in Scale._fields))
        return cls(parameters, scale, adam, float(arrays["jitter"]))


def standardised(scale: Scale, latents: np.ndarray, scores: np.ndarray) -> Data:
    """Returns data in standardised units."""
    return (
        tf.constant((latents - scale.centre) / scale.spread),
        tf.constant((scores - scale.score_centre) / scale.score_spread),
    )


def with_jitter(function: Any, fit: Fit, data: Data) -> Any:
    """Calls `function`, raising the jitter until its result is finite."""
    while True:
        try:
            result = function(fit.parameters, *data, np.array(fit.jitter))
            if np.all(np.isfinite(result[0])):
                return result
            error: Exception = FloatingPointError(
                "a sparse Gaussian process must have finite parameters, got "
                f"{fit.parameters!r}"
            )
        except tf.errors.InvalidArgumentError as caught:
            # Raised by TensorFlow for matrices that are not positive definite.
            error = caught
        if fit.jitter >= MAX_JITTER:
            raise error
        fit.jitter *= 10.0


class Prior(NamedTuple):
    """Log-normal prior on lengthscales in standardised units.

    Attributes:
      log_mode: Logarithm of the lengthscale whose density is largest.
      std: Standard deviation of the logarithm; None for no prior.
    """

    log_mode: float
    std: float | None

    def penalty(self, log_lengthscales: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns minus the log density up to a constant, and its gradient.

        The density is that of lengthscales, not of their logarithms: with
        s = `std` its mode is exp(mu - s^2), and
        log l + (log l - mu)^2 / (2 s^2)
        = (log l - `log_mode`)^2 / (2 s^2) + constant.
        """
        if self.std is None:
            return 0.0, np.zeros_like(log_lengthscales)
        away = (log_lengthscales - self.log_mode) / self.std
        return 0.5 * float(np.sum(np.square(away))), away / self.std


def loss_and_gradients(
    fit: Fit, data: Data, prior: Prior
) -> tuple[float, Parameters, np.ndarray]:
    """Returns -(bound + log prior) / n, and gradients, NumPy arrays.

    These are the one in the parameters, and the one in the scores, `[n]`.
    """
    loss, tensors, of_scores = with_jitter(
        collapsed_bound.loss_and_gradients, fit, data
    )
    gradients = Parameters(*(one.numpy() for one in tensors))
    penalty, slope = prior.penalty(fit.parameters.log_lengthscales)
    count = len(data[1])
    slope = gradients.log_lengthscales + slope / count
    loss = float(loss) + penalty / count
    gradients = gradients._replace(log_lengthscales=slope)
    return loss, gradients, of_scores.numpy()


# Bounds of the logarithms of lengthscales, and of variance and noise as shares
# of the variance of the scores.
_BOUNDS = ((-4.0, 8.0), (-7.0, 7.0), (-16.0, 3.0))


def converge(
    fit: Fit, data: Data, prior: Prior, max_iterations: int
) -> tuple[float, Data]:
    """Optimises mean, kernel and noise by L-BFGS-B; inducing points stay.

    The mean is that of the process. That of the scores, which the data have
    been centred at, is far above it once most queries are near a maximum, and
    all that has not been seen would then seem to be good.

    Args:
      fit: Its parameters and its centre of the scores are the start, and are
        replaced.
      data: The data in standardised units.
      prior: Prior on lengthscales.
      max_iterations: Largest number of iterations.

    Returns:
      The loss that was reached, see `loss_and_gradients`, and the data with
      scores about the mean.
    """
    latents, scores = data
    num_latents, count = latents.shape[1], len(scores)
    unit = np.log(max(np.var(scores), collapsed_bound.MIN_NOISE))
    bounds = np.repeat(_BOUNDS, [num_latents, 1, 1], axis=0)
    bounds[num_latents:] += unit
    extremes = [np.min(scores), np.max(scores)]
    low, high = np.concatenate([bounds, [extremes]]).T

    def parameters_of(values: np.ndarray) -> Parameters:
        return fit.parameters._replace(
            log_lengthscales=values[:num_latents],
            log_variance=np.array(values[-3]),
            log_noise=np.array(values[-2]),
        )

    def total(values: np.ndarray) -> tuple[float, np.ndarray]:
        # A jitter that one of the trial steps needs is not kept.
        trial = dataclasses.replace(fit, parameters=parameters_of(values))
        loss, gradients, of_scores = loss_and_gradients(
            trial, (latents, scores - values[-1]), prior
        )
        slopes = np.append(_kernel_and_noise(gradients), -np.sum(of_scores))
        return count * loss, count * slopes

    start = np.append(_kernel_and_noise(fit.parameters), 0.0)
    with search.one_blas_thread():
        found = scipy.optimize.minimize(
            total,
            np.clip(start, low, high),
            jac=True,
            method="L-BFGS-B",
            bounds=scipy.optimize.Bounds(low, high),
            options={"maxiter": max_iterations, "ftol": 1e-6, "gtol": 1e-3},
        )
    fit.parameters = parameters_of(found.x)
    scale, mean = fit.scale, found.x[-1]
    centre = scale.score_centre + scale.score_spread * mean
    fit.scale = scale._replace(score_centre=np.array(centre))
    return float(found.fun) / count, (latents, scores - mean)


def _kernel_and_noise(one: Parameters) -> np.ndarray:
    return np.append(one.log_lengthscales, [one.log_variance, one.log_noise])


def inducing_of(
    points: np.ndarray, count: int, num_inits: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns k-means centres, or all distinct points if at most `count`."""
    distinct = np.unique(points, axis=0)
    if len(distinct) <= count:
        return distinct
    from sklearn import cluster

    means = cluster.MiniBatchKMeans(
        n_clusters=count,
        batch_size=min(10_000, len(points)),
        n_init=num_inits,
        random_state=int(rng.integers(2**31)),
    )
    return means.fit(points).cluster_centers_.astype(np.float64)


def root_of(covariance: np.ndarray, variance: float) -> np.ndarray:
    """Returns R of R R^T = covariance, up to the jitter that is needed."""
    identity = np.eye(len(covariance))
    jitter = MIN_JITTER
    while True:
        try:
            return np.linalg.cholesky(covariance + jitter * variance * identity)
        except np.linalg.LinAlgError:
            if jitter >= MAX_JITTER:
                raise
            jitter *= 10.0


def held_variables(ranks: Mapping[str, int]) -> dict[str, tf.Variable]:
    """Returns what predictions read: float64 of any size, empty at first.

    Variables, as tensors would become constants in the traces of callers.

    Args:
      ranks: Their ranks, by name.
    """
    return {
        name: tf.Variable(
            tf.zeros([0] * rank, tf.float64),
            shape=[None] * rank,
            trainable=False,
        )
        for name, rank in ranks.items()
    }
