# SPDX-License-Identifier: Apache-2.0
"""Strategies that maximise an acquisition function over continuous latents.

An acquisition function is a small object, `Acquisition`; its maximisation, the
box, constraints and the choice of a batch are the same for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_counts
from tfvae.lso import search
from tfvae.lso.candidates import batch_of, best_points, box_candidates
from tfvae.lso.gaussian_fit import root_of
from tfvae.lso.improvement import log_improvement_at
from tfvae.lso.search import Box
from tfvae.lso.strategies import (
    Context,
    LogFeasibility,
    check_quantile,
    fitted,
    incumbent_of,
    seeds_of,
)
from tfvae.lso.surrogates import Surrogate

# Smallest population of differential evolution.
_POPULATION = 20


class Acquisition(NamedTuple):
    """An acquisition function, as maximised for one query.

    Attributes:
      function: `(surrogate, latents [q, M], *parameters) -> [q]` float64, the
        log of a positive function, which constraints multiply. It is called
        with tensors and differentiated if the surrogate has gradients, and with
        arrays otherwise. A function of a module, as each new one is traced.
      parameters: What else it depends on, nested arrays and None.
    """

    function: Callable[..., tf.Tensor]
    parameters: tuple[Any, ...] = ()


class Given(NamedTuple):
    """Points where f counts as known: pending ones, or the best so far.

    Attributes:
      points: float64 `[k, M]`.
      root: L of L L^T = covariance of f at the points, `[k, k]`.
    """

    points: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, surrogate: Surrogate, points: np.ndarray) -> Given | None:
        """Returns points with their covariance; None for no points."""
        if not len(points):
            return None
        points = np.asarray(points, np.float64)
        covariance = np.asarray(surrogate.covariance(points, points))
        variance = float(np.diag(covariance).mean())
        return cls(points, root_of(covariance, variance or 1.0))


class Conditional(NamedTuple):
    """Distribution of f at q points, conditional on f at `Given` points.

    Attributes:
      mean: Mean before f is known there, `[q]`.
      std: Standard deviation once f is known there, `[q]`.
      slopes: `[k, q]`; with f = mean + L e there, the mean of f here is
        `mean` + e^T `slopes`. None without such points.
    """

    mean: tf.Tensor
    std: tf.Tensor
    slopes: tf.Tensor | None


def conditional(
    surrogate: Surrogate, latents: Any, given: Given | None
) -> Conditional:
    """Returns the distribution of f at latents `[q, M]` given other points."""
    mean, std = (tf.cast(one, tf.float64) for one in surrogate.predict(latents))
    if given is None:
        return Conditional(mean, std, None)
    cross = surrogate.covariance(given.points, latents)
    slopes = tf.linalg.triangular_solve(
        tf.cast(given.root, tf.float64), tf.cast(cross, tf.float64)
    )
    variance = tf.square(std)
    left = variance - tf.reduce_sum(tf.square(slopes), 0)
    # Smaller ones are rounding errors, and zero has no gradient.
    left = tf.maximum(left, 1e-8 * variance + 1e-200)
    return Conditional(mean, tf.sqrt(left), slopes)


def none_feasible(surrogate: Surrogate, latents: Any) -> tf.Tensor:
    """Returns zeros `[q]`: constraints alone count, as no point meets them."""
    del surrogate
    return tf.zeros(tf.shape(latents)[0], tf.float64)


def improvement_over(incumbent: Any | None) -> Acquisition:
    """Returns expected improvement over a score.

    Args:
      incumbent: The score; None to maximise feasibility alone.
    """
    if incumbent is None:
        return Acquisition(none_feasible)
    return Acquisition(log_improvement_at, (incumbent,))


def constrained_values(
    acquisition: Acquisition,
    surrogate: Surrogate,
    log_feasibility: LogFeasibility | None,
    latents: Any,
) -> tf.Tensor:
    """Returns the log of an acquisition function under constraints, `[q]`.

    The function is multiplied by the probability that the constraints hold
    (Gardner et al., 2014, "Bayesian optimization with inequality constraints";
    Gelbart et al., 2014, "Bayesian optimization with unknown constraints").
    """
    function, parameters = acquisition
    values = function(surrogate, latents, *parameters)
    if log_feasibility is not None:
        values += tf.cast(log_feasibility(latents), tf.float64)
    return values


@tf.function(reduce_retracing=True)
def _values_and_gradients(
    function: Callable[..., tf.Tensor],
    surrogate: Surrogate,
    log_feasibility: LogFeasibility | None,
    latents: tf.Tensor,
    parameters: tuple[Any, ...],
) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(latents)
        values = constrained_values(
            Acquisition(function, parameters),
            surrogate,
            log_feasibility,
            latents,
        )
    return values, tape.gradient(values, latents)


@dataclasses.dataclass(frozen=True)
class AcquisitionStrategy:
    """Base class of strategies that query maxima of an acquisition function.

    The function is maximised by multi-start L-BFGS-B in the bounding box of the
    data, or by differential evolution for surrogates without gradients. Each
    start is the best of as many of the screened candidates: draws from the
    prior, uniform points of the box, and points near or between the best ones.
    Without these, and in differential evolution, half of the starts are draws
    from the prior, half are among the best points.

    Of a batch the first `num_searches` points are maxima, each given those
    before it. The others are chosen greedily among many candidates by the joint
    expected improvement of the batch, estimated from joint draws of the
    surrogate (Wilson et al., 2018, "Maximizing acquisition functions for
    Bayesian optimization").

    A subclass is a frozen dataclass that implements `acquisition`.

    Attributes:
      incumbent_quantile: Quantile of the scores that serves as the incumbent;
        None for the best score. The published value is 0.9, as higher ones left
        no gradients, which the logarithm does not need; its improvement does
        not vanish where a good score is known already, so that queries repeat
        it.
      num_starts: Number of starts of the search.
      num_screened: Candidates for starts; 0 to search from draws and best
        points as they are, as published.
      batch_size: Queries between two fits of the surrogate.
      best_share: Fraction of the points that count as the best.
      box_quantile: See `Box.of`.
      box_margin: See `Box.of`.
      shares_bound: See `Box.of`.
      stops_early: Whether to search from one start after another, in random
        order, and to stop once a search has converged. This is the published
        way; it makes a start from the prior, and so exploration, as likely as
        one from the best points.
      max_iterations: Iterations of each L-BFGS-B search, or generations of
        differential evolution.
      num_draws: Joint draws of the surrogate for choosing a batch.
      num_candidates: Candidates for a batch besides the maxima found.
    """

    incumbent_quantile: float | None = dataclasses.field(
        default=None, kw_only=True
    )
    num_starts: int = dataclasses.field(default=5, kw_only=True)
    num_screened: int = dataclasses.field(default=500, kw_only=True)
    batch_size: int = dataclasses.field(default=1, kw_only=True)
    best_share: float = dataclasses.field(default=0.2, kw_only=True)
    box_quantile: float = dataclasses.field(default=0.999, kw_only=True)
    box_margin: float = dataclasses.field(default=1.1, kw_only=True)
    shares_bound: bool = dataclasses.field(default=True, kw_only=True)
    stops_early: bool = dataclasses.field(default=False, kw_only=True)
    max_iterations: int = dataclasses.field(default=100, kw_only=True)
    num_draws: int = dataclasses.field(default=256, kw_only=True)
    num_candidates: int = dataclasses.field(default=500, kw_only=True)
    uses_data = True
    uses_surrogate = True

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_quantile(self.incumbent_quantile)
        check_counts(num_starts=self.num_starts, batch_size=self.batch_size)
        if self.num_screened and self.num_screened < self.num_starts:
            raise ValueError(
                "`num_screened` must be 0 or at least num_starts = "
                f"{self.num_starts!r}, got {self.num_screened!r}"
            )

    def num_at_a_time(self, num_left: int) -> int:
        return min(self.batch_size, num_left)

    def num_searches(self, num_queries: int) -> int:
        """Returns how many points of a batch are searched for."""
        return min(self.batch_size, num_queries)

    def acquisition(
        self,
        context: Context,
        incumbent: float,
        chosen: np.ndarray,
        seed: int,
    ) -> Acquisition:
        """Returns the acquisition function.

        Args:
          context: Its surrogate is fitted.
          incumbent: The score to improve on.
          chosen: float32 `[k, M]`, the points of the batch that have been
            chosen already.
          seed: Seed of its draws, the same for all points of a batch.
        """
        raise NotImplementedError

    def box(self, latents: np.ndarray) -> Box:
        """Returns the bounding box of queries."""
        return Box.of(
            latents, self.box_quantile, self.box_margin, self.shares_bound
        )

    def starts(self, context: Context, count: int, seed: int) -> np.ndarray:
        """Returns starts of the search in the box, float32 `[count, M]`."""
        best = best_points(context, self.best_share)
        rng = np.random.default_rng(seed)
        num_best = min(count // 2, len(best))
        chosen = rng.choice(len(best), num_best, replace=False)
        if context.box is not None:
            drawn = context.box.sample(rng, count - num_best)
            starts = np.concatenate([drawn, best[chosen]])
            return context.box.clip(starts)
        drawn = context.space.sample_prior(
            int(rng.integers(2**31)), count - num_best
        )
        starts = np.concatenate([drawn, best[chosen]])
        return self.box(context.latents).clip(starts)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        fitted(context)
        if context.space.is_binary:
            raise ValueError(
                f"`{type(self).__name__}` must have a model with continuous "
                "latents, got binary ones; use EvolutionaryExpectedImprovement"
            )
        start_seed, search_seed, batch_seed = seeds_of(seed, 3)
        incumbent = incumbent_of(context, self.incumbent_quantile)
        chosen = np.zeros((0, context.space.num_latents), np.float32)
        found = [chosen]
        for _ in range(self.num_searches(num_queries)):
            acquisition = Acquisition(none_feasible)
            if incumbent is not None:
                acquisition = self.acquisition(
                    context, incumbent, chosen, batch_seed
                )
            maxima = self._search(context, acquisition, start_seed, search_seed)
            found.append(maxima.points)
            if np.any(np.all(chosen == maxima.best, 1)):
                break  # There is no other maximum.
            chosen = np.concatenate([chosen, maxima.best])
        if len(chosen) == num_queries:
            return chosen
        return self._batch(
            context,
            incumbent,
            chosen,
            np.concatenate(found),
            num_queries,
            batch_seed,
        )

    def _search(
        self,
        context: Context,
        acquisition: Acquisition,
        start_seed: int,
        search_seed: int,
    ) -> search.Maxima:
        surrogate, constraint = fitted(context), context.log_feasibility
        box = context.box or self.box(context.latents)
        if not surrogate.has_gradients:
            count = max(self.num_starts, _POPULATION)
            starts = self.starts(context, count, start_seed)
            return search.differential_evolution(
                lambda points: constrained_values(
                    acquisition, surrogate, constraint, points
                ).numpy(),
                starts,
                box,
                search_seed,
                self.max_iterations,
            )
        parameters = tf.nest.map_structure(
            lambda one: one if one is None else tf.constant(one, tf.float64),
            acquisition.parameters,
        )

        def function(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            values, gradients = _values_and_gradients(
                acquisition.function,
                surrogate,
                constraint,
                tf.constant(points),
                parameters,
            )
            return values.numpy(), gradients.numpy()

        if self.num_screened:
            starts = self._screened(context, function, box, start_seed)
        else:
            starts = self.starts(context, self.num_starts, start_seed)
        if self.stops_early:
            order = np.random.default_rng(search_seed).permutation(len(starts))
            return search.sequential_lbfgs(
                function, starts[order], box, self.max_iterations
            )
        return search.multi_start_lbfgs(
            function, starts, box, self.max_iterations
        )

    def _screened(
        self,
        context: Context,
        function: search.ValuesAndGradients,
        box: Box,
        seed: int,
    ) -> np.ndarray:
        """Returns the best candidate of each of as many groups as starts."""
        best = best_points(context, self.best_share)
        candidates = box_candidates(
            context, box, best, self.num_screened, seed, 0.5
        )
        values, _ = function(candidates.astype(np.float64))
        order = np.random.default_rng(seed).permutation(len(candidates))
        groups = np.array_split(order, self.num_starts)
        # A value that is not finite is none.
        values = np.where(np.isfinite(values), values, -np.inf)
        return candidates[[one[np.argmax(values[one])] for one in groups]]

    def _batch(
        self,
        context: Context,
        incumbent: float | None,
        chosen: np.ndarray,
        found: np.ndarray,
        num_queries: int,
        seed: int,
    ) -> np.ndarray:
        """Fills up a batch that begins with `chosen`; `found` are maxima."""
        candidate_seed, draw_seed = seeds_of(seed, 2)
        box = context.box or self.box(context.latents)
        count = max(self.num_candidates, 2 * num_queries)
        near = box_candidates(context, box, found, count, candidate_seed, 1 / 3)
        candidates = np.concatenate([chosen, found, near])
        # The chosen ones come first, here and among the distinct candidates.
        candidates = candidates[search.distinct_rows(candidates)]
        return batch_of(
            context,
            candidates,
            incumbent,
            len(chosen),
            num_queries,
            self.num_draws,
            draw_seed,
        )
