# SPDX-License-Identifier: Apache-2.0
"""Gaussian process on counts, such as those of the parts of a molecule.

Its kernel is the Tanimoto or min-max kernel of Ralaivola et al. (2005, "Graph
kernels for chemical informatics", section 4) and a linear one,

    k(x, y) = v sum_i min(x_i, y_i) / sum_i max(x_i, y_i) + w z(x)^T z(y)

where z are the counts in units of their standard deviations, divided by the
square root of their number, without those that no data point has.

Regression is on features whose inner products approximate the kernel: with
inducing points u they are phi(x) = k(x, u) R^{-T}, R R^T = k(u, u) (the
deterministic training conditional of Quinonero-Candela and Rasmussen, 2005, "A
unifying view of sparse approximate Gaussian process regression", section 5).
What they lack of the kernel is added to predictive covariances. As long as all
data points are inducing points the process is exact.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.lso import linear_regression, search
from tfvae.lso.gaussian_fit import root_of
from tfvae.lso.surrogates import checked

# Initial logarithms of v, w and of the variance of the noise, and bounds, in
# units of the variance of the scores.
_INITIAL = (0.0, -2.0, -2.0)
_BOUNDS = ((-10.0, 4.0), (-10.0, 4.0), (float(np.log(1e-4)), 1.0))
# Smallest standard deviation of a count: rare ones are not to dominate.
_MIN_SPREAD = 0.05
# Points whose unary codes are in memory at a time.
_ROWS = 1024


class _Scale(NamedTuple):
    """What is kept from a cold fit to the warm ones."""

    centre: np.ndarray
    """Means of the counts, `[F]`."""
    spread: np.ndarray
    """Their standard deviations, 0 for those that are left out, `[F]`."""
    score_centre: np.ndarray
    score_spread: np.ndarray


class _Posterior(NamedTuple):
    """What predictions read."""

    inducing: np.ndarray
    """Inducing points, `[m, F]`."""
    root: np.ndarray
    """R, `[m, m]`."""
    mean: np.ndarray
    """Mean of the weights of the features, `[m]`."""
    weights_root: np.ndarray
    """Root of the covariance of these weights, `[m, m]`."""


@typed_gin.register
@dataclasses.dataclass(eq=False)
class TanimotoProcess:
    """Gaussian process with a Tanimoto kernel and a linear one.

    For counts, as features of inputs are in an `InputSurrogate`. A cold fit
    maximises the marginal likelihood of some of the points in the variances of
    the two kernels and of the noise; a warm fit keeps them. Both then choose
    inducing points and condition on all points, in float64.

    Attributes:
      num_inducing: Largest number of inducing points: half of them are the
        best data points, the others are drawn at random.
      num_tuned: Number of points, drawn at random, whose marginal likelihood is
        maximised.
      num_iterations: Largest number of iterations of L-BFGS; 0 to keep the
        initial values.
    """

    num_inducing: int = 2000
    num_tuned: int = 1000
    num_iterations: int = 30
    has_gradients = False

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_counts(num_inducing=self.num_inducing, num_tuned=self.num_tuned)
        self._seed: int | None = None
        self._logs = np.array(_INITIAL)
        self._scale: _Scale | None = None
        self._posterior: _Posterior | None = None

    def fit(
        self, latents: np.ndarray, scores: np.ndarray, seed: int, warm: bool
    ) -> None:
        """Fits the process to counts; see `Surrogate.fit`."""
        counts, scores = checked(latents, scores)
        wrong = (counts < 0.0) | (counts != np.round(counts))
        if wrong.any():
            raise ValueError(
                "`latents` must be counts, whole numbers that are not "
                f"negative, for `TanimotoProcess`, got {counts[wrong][0]:g}; "
                "it is a surrogate for `InputSurrogate`"
            )
        if warm and self._scale is None:
            raise ValueError("`warm` must be False for the first fit, got True")
        if not warm:
            self._seed = int(np.random.default_rng(seed).integers(2**31))
            self._logs = np.array(_INITIAL)
            self._scale = _scale_of(counts, scores)
        assert self._scale is not None
        scores = (scores - self._scale.score_centre) / self._scale.score_spread
        rng = np.random.default_rng(self._seed)
        if not warm and self.num_iterations:
            chosen = rng.permutation(len(counts))[: self.num_tuned]
            self._logs = self._tuned(counts[chosen], scores[chosen])
        chosen = chosen_rows(scores, self.num_inducing, rng)
        inducing = np.unique(counts[chosen], axis=0)
        variance = float(np.exp(self._logs[:2]).sum())
        root = root_of(self._kernel(inducing, inducing), variance)
        features = _whitened(root, self._kernel(counts, inducing))
        mean, weights_root = linear_regression.posterior(
            tf.constant(features),
            tf.constant(scores),
            tf.constant(np.exp(self._logs[2])),
        )
        self._posterior = _Posterior(
            inducing, root, mean.numpy(), weights_root.numpy()
        )

    def _tuned(self, counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Returns logs that maximise the marginal likelihood, `[3]`."""
        kernels = [
            tf.constant(tanimoto(counts, counts)),
            tf.constant(self._linear(counts, counts)),
        ]
        values = tf.constant(scores)

        def function(logs: np.ndarray) -> tuple[float, np.ndarray]:
            loss, gradient = _loss_and_gradient(
                *kernels, values, tf.constant(logs)
            )
            return float(loss) / len(scores), gradient.numpy() / len(scores)

        with search.one_blas_thread():
            return scipy.optimize.minimize(
                function,
                self._logs,
                jac=True,
                method="L-BFGS-B",
                bounds=_BOUNDS,
                options={"maxiter": self.num_iterations},
            ).x

    def _standardised(self, counts: np.ndarray) -> np.ndarray:
        """Returns z, `[n, F']`, without the counts that are left out."""
        assert self._scale is not None
        kept = self._scale.spread > 0.0
        centred = counts[:, kept] - self._scale.centre[kept]
        size = np.sqrt(max(int(kept.sum()), 1))
        return centred / (self._scale.spread[kept] * size)

    def _linear(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return self._standardised(first) @ self._standardised(second).T

    def _kernel(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        tanimoto_variance, linear_variance = np.exp(self._logs[:2])
        return tanimoto_variance * tanimoto(
            first, second
        ) + linear_variance * self._linear(first, second)

    def _features(self, latents: Any) -> tuple[_Posterior, np.ndarray]:
        if self._posterior is None:
            raise ValueError(
                "`TanimotoProcess` must be fitted before it predicts"
            )
        counts = np.asarray(latents, np.float64)
        cross = self._kernel(counts, self._posterior.inducing)
        return self._posterior, _whitened(self._posterior.root, cross)

    def predict(self, latents: Any) -> tuple[np.ndarray, np.ndarray]:
        held, features = self._features(latents)
        known = np.sum(np.square(features @ held.weights_root), -1)
        counts = np.asarray(latents, np.float64)
        squares = np.sum(np.square(self._standardised(counts)), -1)
        variances = np.exp(self._logs[:2])
        prior = variances[0] + variances[1] * squares
        lacking = np.maximum(prior - np.sum(np.square(features), -1), 0.0)
        assert self._scale is not None
        spread = self._scale.score_spread
        std = np.sqrt(np.maximum(known + lacking, 1e-10))
        return (
            self._scale.score_centre + spread * (features @ held.mean),
            spread * std,
        )

    def covariance(self, first: Any, second: Any) -> np.ndarray:
        held, one = self._features(first)
        _, other = self._features(second)
        lacking = self._kernel(
            np.asarray(first, np.float64), np.asarray(second, np.float64)
        )
        lacking -= one @ other.T
        known = (one @ held.weights_root) @ (other @ held.weights_root).T
        assert self._scale is not None
        return np.square(self._scale.score_spread) * (known + lacking)

    def lengthscales(self) -> None:
        """Returns None: counts are no latents."""
        return None

    def sample(
        self, latents: np.ndarray, num_samples: int, seed: int
    ) -> np.ndarray:
        mean, _ = self.predict(latents)
        covariance = self.covariance(latents, latents)
        assert self._scale is not None
        # Rounding errors are those of the prior covariance.
        variance = np.square(self._scale.score_spread) * np.exp(self._logs[:2])
        root = root_of(covariance, float(variance.sum()))
        rng = np.random.default_rng(seed)
        return mean + rng.standard_normal((num_samples, len(root))) @ root.T

    def state(self) -> dict[str, np.ndarray]:
        if self._scale is None:
            return {}
        arrays = {**self._scale._asdict(), "logs": self._logs}
        arrays["seed"] = np.array(self._seed)
        return {name: np.array(value) for name, value in arrays.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._posterior = None
        self._scale, self._seed = None, None
        if state:
            self._scale = _Scale(*(state[name] for name in _Scale._fields))
            self._seed, self._logs = int(state["seed"]), state["logs"]


def tanimoto(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns sum_i min(x_i, y_i) / sum_i max(x_i, y_i), 1 for two zeros.

    The minima are inner products of unary codes: of 3 that is 1, 1, 1, 0, ...

    Args:
      first: Whole numbers, none of them negative, `[p, F]`.
      second: `[q, F]`.

    Returns:
      float64 `[p, q]`.
    """
    most = second.max(0, initial=0.0).astype(np.int64)
    columns = np.repeat(np.arange(second.shape[1]), most)
    levels = np.arange(len(columns)) - np.repeat(np.cumsum(most) - most, most)

    def unary(counts: np.ndarray) -> np.ndarray:
        return (counts[:, columns] > levels).astype(np.float64)

    other = np.ascontiguousarray(unary(second).T)
    minima = [
        # Few parts of many are in one of the inputs.
        scipy.sparse.csr_array(unary(first[i : i + _ROWS])) @ other
        for i in range(0, len(first), _ROWS)
    ]
    found = np.concatenate([np.zeros((0, len(second))), *minima])
    totals = first.sum(1)[:, None] + second.sum(1)[None]
    is_any = totals > 0.0
    return np.where(is_any, found, 1.0) / np.where(is_any, totals - found, 1.0)


def chosen_rows(
    scores: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Chooses points, half of them the best, the others at random.

    Returns:
      int64 index, all points if there are at most `count`.
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) <= count:
        return order
    best = order[: count // 2]
    others = rng.permutation(order[count // 2 :])
    return np.concatenate([best, others[: count - len(best)]])


def _whitened(root: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Returns k(x, u) R^{-T}, `[n, m]`."""
    return scipy.linalg.solve_triangular(root, cross.T, lower=True).T


def _scale_of(counts: np.ndarray, scores: np.ndarray) -> _Scale:
    spread = counts.std(0)
    score_spread = scores.std()
    is_constant = score_spread <= 1e-9 * np.abs(scores).max()
    return _Scale(
        counts.mean(0),
        np.where(spread > 0.0, np.maximum(spread, _MIN_SPREAD), 0.0),
        np.array(scores.mean()),
        np.array(1.0 if is_constant else score_spread),
    )


@tf.function(reduce_retracing=True)
def _loss_and_gradient(
    tanimoto_kernel: tf.Tensor,
    linear_kernel: tf.Tensor,
    scores: tf.Tensor,
    logs: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(logs)
        variances = tf.exp(logs)
        loss = -linear_regression.log_normal(
            variances[0] * tanimoto_kernel + variances[1] * linear_kernel,
            scores,
            variances[2],
        )
    return loss, tape.gradient(loss, logs)
