# SPDX-License-Identifier: Apache-2.0
"""Surrogates: regression of scores on latents with predictive uncertainty.

The sparse Gaussian process is that of Titsias (2009, "Variational learning of
inducing variables in sparse Gaussian processes"), which Tripp et al. (2020,
"Sample-efficient optimization in the latent space of deep generative models
via weighted retraining") use. Its prior on lengthscales is that of Hvarfner et
al. (2024, "Vanilla Bayesian optimization performs great in high dimensions").
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.lso import collapsed_bound
from tfvae.lso.collapsed_bound import Parameters
from tfvae.lso.gaussian_fit import (
    STANDARDISATIONS,
    Adam,
    Data,
    Fit,
    Prior,
    Scale,
    converge,
    held_variables,
    inducing_of,
    loss_and_gradients,
    root_of,
    standardised,
    with_jitter,
)


class Surrogate(Protocol):
    """Protocol of surrogates; larger scores are better.

    Attributes:
      has_gradients: Whether `predict` is a differentiable TensorFlow function
        that may be called in a `tf.function`, whose trace stays valid for
        later fits. Otherwise it takes and returns NumPy arrays.
    """

    has_gradients: bool

    def fit(
        self, latents: np.ndarray, scores: np.ndarray, seed: int, warm: bool
    ) -> None:
        """Fits the surrogate to latents and their scores.

        Args:
          latents: `[n, M]`.
          scores: `[n]`; any finite numbers.
          seed: Seed of everything random; a warm fit does not use it.
          warm: Whether to continue from the last fit (a warm start), as when
            points have been added since, rather than to start afresh.
        """

    def predict(self, latents: Any) -> tuple[Any, Any]:
        """Returns predictive mean and standard deviation of f, `[q]` each.

        f is the noise-free score, in the units of the scores.
        """

    def covariance(self, first: Any, second: Any) -> Any:
        """Returns covariances of f, `[p, M]` and `[q, M]` to `[p, q]`.

        A function of the same kind as `predict`.
        """

    def lengthscales(self) -> np.ndarray | None:
        """Returns how far f is correlated along each latent, `[M]`.

        In units of the latents; None if there is nothing of that kind.
        """

    def sample(
        self, latents: np.ndarray, num_samples: int, seed: int
    ) -> np.ndarray:
        """Draws f jointly at all `latents`: `[num_samples, q]`."""

    def state(self) -> dict[str, np.ndarray]:
        """Returns all state that a later warm fit depends on."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restores a state that `state` returned, for a warm fit."""


# Larger scores count as this, as their squares may overflow.
LARGEST_SCORE = 1e30


# The sparse Gaussian process.


# Variables that predictions read, and their ranks.
_HELD = {
    "log_lengthscales": 1,
    "log_variance": 0,
    "log_noise": 0,
    "inducing": 2,
    "centre": 1,
    "spread": 1,
    "score_centre": 0,
    "score_spread": 0,
    "weights": 1,
    "shrinkage": 2,
}


# Noise variances that a fit starts from, as shares of that of the scores.
_NOISES = (0.01, 0.3)


@typed_gin.register
@dataclasses.dataclass(eq=False)
class SparseGaussianProcess:
    """Sparse Gaussian process with an ARD squared exponential kernel.

    A cold fit standardises the data and starts from typical parameters, a warm
    fit from those of the last fit, with inducing points at new data points too
    as long as there is room. Both maximise the bound on the marginal likelihood
    times a log-normal prior on lengthscales, without which few points in many
    dimensions have them anywhere between 0 and infinity.

    As long as all data points are inducing points the process is exact and they
    do not move. Mean, kernel and noise are then optimised by L-BFGS until they
    have converged, in a cold fit from two noise variances, as small data can
    often be explained by little noise or by much. Otherwise a cold fit
    initialises the inducing points by k-means, and optimises first the kernel
    and noise parameters, then all parameters, by Adam; a warm fit takes a few
    more steps in all parameters. Both kinds then condition exactly on all
    points. All computations are in float64, which solving from second moments
    requires, see `collapsed_bound`.

    Attributes:
      num_inducing: Largest number of inducing points; with no more distinct
        data points than that, all of them are inducing points.
      standardise: Whether latents and scores are standardised: "each" for
        latents coordinate by coordinate, "all" for one mean and standard
        deviation of all coordinates together, "none" for neither latents nor
        scores. The statistics are kept from one cold fit to the next, but for
        the mean of scores, which exact fits learn.
      num_exact_steps: Largest number of L-BFGS iterations from one start, while
        all data points are inducing points; 0 for the steps of Adam there too.
      num_kernel_steps: Largest number of Adam steps in the kernel and noise
        parameters in a cold fit.
      num_steps: Largest number of steps in all parameters after these.
      num_warm_steps: Steps in all parameters in a warm fit.
      kernel_rate: Learning rate of the steps in the kernel and the noise.
      rate: Learning rate of the steps in all parameters.
      tolerance: Steps of a cold fit end when ten of them lower the loss per
        point by less than this fraction of it, or of 1 where it is smaller.
      lengthscale: Mode of the prior on lengthscales, and typical initial
        lengthscale, in standardised units; None for 0.71 sqrt(M), as distances
        grow with the number of latents M.
      lengthscale_std: Standard deviation of the logarithm of lengthscales in
        the prior; None for no prior.
      num_inits: Initialisations that k-means chooses from.
    """

    num_inducing: int = 500
    standardise: str = "each"
    num_kernel_steps: int = 30
    num_steps: int = 30
    num_warm_steps: int = 1
    kernel_rate: float = 0.1
    rate: float = 0.03
    tolerance: float = 1e-3
    lengthscale: float | None = None
    lengthscale_std: float | None = 1.73
    num_inits: int = 1
    num_exact_steps: int = 50
    has_gradients = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        if self.standardise not in STANDARDISATIONS:
            raise ValueError(
                f"`standardise` must be one of {STANDARDISATIONS}, got "
                f"{self.standardise!r}"
            )
        check_counts(num_inducing=self.num_inducing)
        for name in ("lengthscale", "lengthscale_std"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < np.inf:
                raise ValueError(
                    f"`{name}` must be positive and finite, or None, got "
                    f"{value!r}"
                )
        self._last: Fit | None = None
        self._can_predict = False
        self._held = held_variables(_HELD)

    def fit(
        self, latents: np.ndarray, scores: np.ndarray, seed: int, warm: bool
    ) -> None:
        latents, scores = checked(latents, scores)
        if warm:
            if self._last is None:
                raise ValueError(
                    "`warm` must be False for the first fit, got True"
                )
            fit = self._last
            data = standardised(fit.scale, latents, scores)
            fit.add_inducing(data, self.num_inducing)
            is_exact = fit.is_exact(data)
            if is_exact and self.num_exact_steps:
                _, data = converge(
                    fit, data, self._prior(fit), self.num_exact_steps
                )
            else:
                self._descend(
                    fit,
                    data,
                    self.num_warm_steps,
                    self.rate,
                    False,
                    not is_exact,
                )
        else:
            scale = Scale.of(latents, scores, self.standardise)
            data = standardised(scale, latents, scores)
            fit, data = self._fit_cold(data, scale, seed)
        posterior = with_jitter(collapsed_bound.posterior, fit, data)
        self._last = fit
        for values in (fit.parameters, fit.scale, posterior):
            for name, value in values._asdict().items():
                self._held[name].assign(value)
        self._can_predict = True

    def _fit_cold(
        self, data: Data, scale: Scale, seed: int
    ) -> tuple[Fit, Data]:
        points, scores = (one.numpy() for one in data)
        rng = np.random.default_rng(seed)
        num_latents = points.shape[1]
        variance = max(scores.var(), collapsed_bound.MIN_NOISE)
        typical = np.log(self._lengthscale(num_latents))
        parameters = Parameters(
            typical + 0.1 * rng.standard_normal(num_latents),
            np.array(np.log(variance)),
            np.array(np.log(_NOISES[0] * variance)),
            inducing_of(points, self.num_inducing, self.num_inits, rng),
        )
        fit = Fit(parameters, scale, Adam(parameters))
        is_exact = fit.is_exact(data)
        if is_exact and self.num_exact_steps:
            return self._fit_exactly(fit, data, variance)
        rate = self.kernel_rate
        self._descend(fit, data, self.num_kernel_steps, rate, True, False)
        fit.adam = Adam(parameters)
        self._descend(fit, data, self.num_steps, self.rate, True, not is_exact)
        return fit, data

    def _fit_exactly(
        self, fit: Fit, data: Data, variance: float
    ) -> tuple[Fit, Data]:
        """Returns the better of the fits from two noise variances."""
        fits = []
        for share in _NOISES:
            log_noise = np.array(np.log(share * variance))
            start = fit.parameters._replace(log_noise=log_noise)
            one = dataclasses.replace(fit, parameters=start)
            loss, centred = converge(
                one, data, self._prior(fit), self.num_exact_steps
            )
            fits.append((loss, one, centred))
        return min(fits, key=lambda one: one[0])[1:]

    def _lengthscale(self, num_latents: int) -> float:
        if self.lengthscale is None:
            return 0.71 * num_latents**0.5
        return self.lengthscale

    def _prior(self, fit: Fit) -> Prior:
        num_latents = len(fit.parameters.log_lengthscales)
        typical = float(np.log(self._lengthscale(num_latents)))
        return Prior(typical, self.lengthscale_std)

    def _descend(
        self,
        fit: Fit,
        data: Data,
        num_steps: int,
        rate: float,
        ends_early: bool,
        moves_inducing: bool,
    ) -> None:
        losses: list[float] = []
        for i in range(num_steps):
            loss, gradients, _ = loss_and_gradients(fit, data, self._prior(fit))
            if not moves_inducing:
                still = np.zeros_like(gradients.inducing)
                gradients = gradients._replace(inducing=still)
            fit.parameters = fit.adam.step(fit.parameters, gradients, rate)
            losses.append(loss)
            if ends_early and i >= 10:
                gain = losses[-11] - losses[-1]
                if gain < self.tolerance * max(1.0, abs(losses[-1])):
                    return

    def _cross(self, latents: Any) -> tuple[Any, tf.Tensor, tf.Tensor]:
        """Returns the kernel, standardised latents, and k(z, u), `[q, m]`."""
        if not self._can_predict:
            raise ValueError(
                "`SparseGaussianProcess` must be fitted before it predicts"
            )
        held = self._held
        points = tf.cast(latents, tf.float64)
        points = (points - held["centre"]) / held["spread"]
        kernel = collapsed_bound.kernel_of(
            Parameters(*(held[name] for name in Parameters._fields))
        )
        return kernel, points, kernel.matrix(points, held["inducing"])

    def _mean(self, cross: tf.Tensor) -> tf.Tensor:
        mean = tf.linalg.matvec(cross, self._held["weights"])
        return self._held["score_centre"] + self._held["score_spread"] * mean

    def predict(self, latents: Any) -> tuple[tf.Tensor, tf.Tensor]:
        _, _, cross = self._cross(latents)
        held = self._held
        shrunk = tf.matmul(cross, held["shrinkage"])
        prior = tf.exp(held["log_variance"])
        variance = prior - tf.reduce_sum(shrunk * cross, -1)
        # Smaller variances are rounding errors, and have no gradient.
        variance = tf.maximum(variance, 1e-8 * prior)
        return self._mean(cross), held["score_spread"] * tf.sqrt(variance)

    def _covariance(self, first: Any, second: Any) -> tf.Tensor:
        """Returns covariances of f in standardised units, `[p, q]`."""
        kernel, first, first_cross = self._cross(first)
        _, second, second_cross = self._cross(second)
        return kernel.matrix(first, second) - tf.matmul(
            tf.matmul(first_cross, self._held["shrinkage"]),
            second_cross,
            transpose_b=True,
        )

    def covariance(self, first: Any, second: Any) -> tf.Tensor:
        scale = tf.square(self._held["score_spread"])
        return scale * self._covariance(first, second)

    def lengthscales(self) -> np.ndarray:
        held = self._held
        return (held["spread"] * tf.exp(held["log_lengthscales"])).numpy()

    def sample(
        self, latents: np.ndarray, num_samples: int, seed: int
    ) -> np.ndarray:
        _, _, cross = self._cross(latents)
        held = self._held
        covariance = self._covariance(latents, latents)
        root = root_of(covariance.numpy(), np.exp(held["log_variance"].numpy()))
        rng = np.random.default_rng(seed)
        draws = rng.standard_normal((num_samples, len(root))) @ root.T
        spread = held["score_spread"].numpy()
        return self._mean(cross).numpy() + spread * draws

    def state(self) -> dict[str, np.ndarray]:
        return {} if self._last is None else self._last.to_arrays()

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._can_predict = False
        self._last = Fit.from_arrays(state) if state else None


def checked(
    latents: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a surrogate is fitted to, float64, of bounded scores.

    Raises:
      ValueError: If shapes do not match, or a value is not finite.
    """
    latents = np.asarray(latents, np.float64)
    scores = np.asarray(scores, np.float64)
    if latents.ndim != 2 or 0 in latents.shape:
        raise ValueError(
            "`latents` must have shape [points, latents], neither of them "
            f"zero, got shape {latents.shape!r}"
        )
    if scores.shape != latents.shape[:1]:
        raise ValueError(
            f"`scores` must have shape {latents.shape[:1]!r}, one for each of "
            f"`latents`, got shape {scores.shape!r}"
        )
    for name, values in (("latents", latents), ("scores", scores)):
        if not np.all(np.isfinite(values)):
            wrong = values[~np.isfinite(values)]
            raise ValueError(f"`{name}` must be finite, got {wrong[0]}")
    return latents, np.clip(scores, -LARGEST_SCORE, LARGEST_SCORE)


# The ensemble of regression trees.


@typed_gin.register
@dataclasses.dataclass(eq=False)
class EnsembleRegressor:
    """Ensemble of randomised regression trees (extra trees, random forest).

    Each tree counts as a draw of f; predictive mean and standard deviation are
    those over the trees. A warm fit grows all trees anew, with the seed of the
    last cold fit.

    Attributes:
      num_trees: Number of trees.
      extremely_random: Whether splits are drawn at random (Geurts et al.,
        2006, "Extremely randomized trees") rather than optimised on bootstrap
        samples, as in a random forest.
      min_leaf: Smallest number of points in a leaf.
    """

    num_trees: int = 100
    extremely_random: bool = True
    min_leaf: int = 1
    has_gradients = False

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_counts(num_trees=self.num_trees, min_leaf=self.min_leaf)
        self._seed: int | None = None
        self._forest: Any = None

    def fit(
        self, latents: np.ndarray, scores: np.ndarray, seed: int, warm: bool
    ) -> None:
        from sklearn import ensemble

        latents, scores = checked(latents, scores)
        if warm and self._seed is None:
            raise ValueError("`warm` must be False at first, got True")
        if not warm:
            self._seed = int(np.random.default_rng(seed).integers(2**31))
        kind = (
            ensemble.ExtraTreesRegressor
            if self.extremely_random
            else ensemble.RandomForestRegressor
        )
        self._forest = kind(
            self.num_trees,
            min_samples_leaf=self.min_leaf,
            random_state=self._seed,
        ).fit(latents, scores)

    def _draws(self, latents: Any) -> np.ndarray:
        """Returns the predictions of all trees, `[num_trees, q]`."""
        if self._forest is None:
            raise ValueError(
                "`EnsembleRegressor` must be fitted before it predicts"
            )
        latents = np.asarray(latents, np.float32)
        return np.stack(
            [tree.predict(latents) for tree in self._forest.estimators_]
        )

    def predict(self, latents: Any) -> tuple[np.ndarray, np.ndarray]:
        draws = self._draws(latents)
        return draws.mean(0), draws.std(0)

    def lengthscales(self) -> None:
        return None

    def covariance(self, first: Any, second: Any) -> np.ndarray:
        first, second = self._draws(first), self._draws(second)
        first, second = first - first.mean(0), second - second.mean(0)
        return first.T @ second / len(first)

    def sample(
        self, latents: np.ndarray, num_samples: int, seed: int
    ) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return self._draws(latents)[
            rng.integers(self.num_trees, size=num_samples)
        ]

    def state(self) -> dict[str, np.ndarray]:
        return {} if self._seed is None else {"seed": np.array(self._seed)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._forest = None
        self._seed = int(state["seed"]) if state else None
