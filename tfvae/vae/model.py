# SPDX-License-Identifier: Apache-2.0
"""The amortised VAE, a Keras model: encoder, prior, decoder, likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae import inputs, likelihoods, typed_gin
from tfvae.data import batches_with
from tfvae.latent_model import Figure, LatentModel, in_batches
from tfvae.ops import densities, elbo, random
from tfvae.ops.rows import LazyRows
from tfvae.priors import Prior, QuantizedPrior, fit_prior
from tfvae.ranks import mean_gradients
from tfvae.vae import encoders, objectives
from tfvae.vae.posteriors import (
    BernoulliPosterior,
    Distribution,
    RelaxedBernoulliPosterior,
)
from tfvae.vae.quantization import VectorQuantizedPosterior

# The random streams of a model.
_TRAINING, _EVALUATION, _SAMPLING, _FITTING = range(4)
# Metrics of training and evaluation.
_TERMS = (
    "loss",
    "bound",
    "log_likelihood",
    "kl",
    "squared_error",
    "regularization",
)
# Metric of training with a latent loss.
_LATENT_LOSS = "latent_loss"
# Decay per batch of the noise's sufficient statistics: about 20 batches count.
_KEPT = 0.95
# Data points encoded at a time.
_BATCH = 1024
# Tiles between two generated data points, and how many such pairs.
_NUM_BETWEEN = 6
_NUM_INTERPOLATIONS = 8

LatentLoss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From latents `[B, M]` and targets `[B]` to losses of data points `[B]`."""


class _Batch(NamedTuple):
    """A batch of `fit` or `evaluate`.

    Attributes:
      x: float32 `[B, D]`, NaN where missing.
      features: `[B, ...]`, outputs of the encoder's frozen part for x; None
        to compute them.
      targets: float32 `[B, D]`, what the likelihood scores, zeros where
        missing.
      observed: float32 `[B, D]`, of the targets.
      latent_targets: `[B]`, what the latent loss is given; None for none.
      weight: float32 `[B]`; None for ones.
    """

    x: tf.Tensor
    features: tf.Tensor | None
    targets: tf.Tensor
    observed: tf.Tensor
    latent_targets: tf.Tensor | None
    weight: tf.Tensor | None


class _LatentTerm:
    """A latent loss, see `VAE.compile`, and the mean of its values.

    Keras saves neither with the model, as this is no class of its own.
    """

    def __init__(self, function: LatentLoss) -> None:
        """Starts with no values."""
        self.function = function
        self.mean = keras.metrics.Mean(name=_LATENT_LOSS, dtype="float32")


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class VAE(LatentModel):
    """An amortised VAE: x -> q(z | x), z ~ p(z), x ~ p(x | decoder(z)).

    Its parts are arguments that can be combined freely:

        model = tfvae.VAE(
            tfvae.learnable(network, num_latents=16),
            decoder,
            tfvae.RealNVPPrior(16, num_flows=6),
        )
        model.adapt(x)
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(x, batch_size=256, epochs=50)
        bound = model.log_likelihood_bound(x_test, num_samples=128)

    The frozen part of an encoder can be computed once for all epochs:

        features = tfvae.frozen_features(model.encoder, x)
        model.fit((x, features), batch_size=256)

    They are None for an encoder of which nothing is frozen, and `(x, None)` is
    then as good as `x`.

    Data are `[N, D]`, NaN where missing: encoders see zeros there, and the
    likelihood leaves those entries out. As in Keras, `y` is what the model is
    to return: `fit(noisy, clean)` trains a denoising VAE, whose encoder sees
    `x` and whose likelihood scores `y`; without `y` it scores `x`. With `y`,
    the `bound` that is logged is one on log p(y), by a posterior that has not
    seen y. The loss is the objective's: the
    distortion, plus beta times the rate. Beside it (`loss`) and minus its
    second summand (`regularization`), `fit` and `evaluate` log the evidence
    lower bound (`bound`), its parts (`log_likelihood`, `kl`) and the squared
    error summed over the entries of a data point, all of them means over data
    points with one draw of z each. Callbacks that watch the bound need
    `mode="max"`.

    A loss of the latents, given to `compile`, is added to the objective's; `y`
    are its targets then.

    With relaxed binary latents the value that `fit` logs is not a bound, as
    the model's latents are not relaxed; the value of `evaluate` is. With the
    estimator `VIMCO`, the `loss` that `fit` logs is that of several draws, and
    the other metrics are those of one.

    The likelihood's noise is updated in closed form to the optimum for about
    the last 20 batches, which calibrates the decoder (Rybkin, Daniilidis and
    Levine, 2021, "Simple and effective VAE training with calibrated
    decoders"); `calibrate(x)` sets it to the optimum for all data.

    Reference: Kingma and Welling, 2014, "Auto-encoding variational Bayes".

    Attributes:
      encoder: The encoder, q(z | x).
      decoder: The decoder network.
      prior: The prior p(z).
      likelihood: The likelihood p(x | z).
      objective: The training objective.
      num_latents: M.
      num_observed: D.
    """

    def __init__(
        self,
        encoder: encoders.Encoder,
        decoder: keras.layers.Layer,
        prior: Prior,
        likelihood: likelihoods.Likelihood | None = None,
        *,
        objective: objectives.Objective | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        """Creates the model.

        Args:
          encoder: Encoder from data `[b, D]` to q(z | x).
          decoder: Keras layer or model from `[b, M]` to `[b, outputs]`, whose
            outputs are interpreted by the likelihood.
          prior: p(z) of M latents.
          likelihood: Likelihood p(x | z); None for `GaussianLikelihood()`.
          objective: Training objective; None for `Elbo()`.
          seed: Seed of everything random except the parts' initial weights.
          **kwargs: Keyword arguments of `keras.Model`.

        Raises:
          TypeError: If `objective` is not an `Objective`, or the prior is none
            of the posterior's latents.
          ValueError: If the parts do not fit together.
        """
        super().__init__(**kwargs)
        objective = objective or objectives.Elbo()
        if not isinstance(objective, objectives.Objective):
            # Another callable may return summands of other signs.
            raise TypeError(
                "`objective` must be a tfvae.vae.Objective, such as Elbo(), "
                "whose call returns the distortion and the weighted rate, "
                f"which add up to the loss, got {objective!r}"
            )
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        self.likelihood = likelihood or likelihoods.GaussianLikelihood()
        self.objective = objective
        self.seed = seed
        objectives.check_can_estimate(objective, encoder.posterior.estimator)
        if isinstance(
            encoder.posterior, VectorQuantizedPosterior
        ) and not isinstance(prior, QuantizedPrior):
            raise TypeError(
                "`prior` must be a QuantizedPrior, of codes, for an encoder "
                f"with a VectorQuantizedPosterior, got {prior!r}"
            )
        self.num_latents = encoder.num_latents
        self.num_observed = encoder.num_observed
        if prior.num_latents != self.num_latents:
            raise ValueError(
                f"`prior` must have the encoder's {self.num_latents} latents, "
                f"got {prior.num_latents}"
            )
        self._count_and_monitor(_TERMS)
        self.build((None, self.num_observed))

    def build(self, input_shape: Any = None) -> None:
        """Builds the decoder, and connects the prior to the encoder."""
        if not self.decoder.built:
            self.decoder.build((None, self.num_latents))
        outputs = self.decoder.compute_output_shape((None, self.num_latents))
        found = self.likelihood.num_observed(outputs[-1])
        if len(outputs) != 2 or found != self.num_observed:
            raise ValueError(
                "`decoder` must map [b, M] to outputs for the encoder's "
                f"{self.num_observed} observed dimensions, got output shape "
                f"{tuple(outputs)!r}"
            )
        self.prior.connect(
            self.encoder.posterior_of_standardized, self.num_observed
        )
        data = tf.TensorSpec([None, self.num_observed], tf.float32)
        self._mode = tf.function(
            lambda x: self.encoder(x).mode, input_signature=[data]
        )
        self._bound = tf.function(
            self._bound_of_batch,
            input_signature=[
                data,
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ],
        )
        self._track_all_weights()
        self.built = True

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "prior": serialize(self.prior),
            "likelihood": serialize(self.likelihood),
            "objective": serialize(self.objective),
            "seed": self.seed,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> VAE:
        config = dict(config)
        parts = ("encoder", "decoder", "prior", "likelihood", "objective")
        for name in parts:
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects
            )
        return cls(**config)

    def adapt(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Initialises data-dependent parameters; call it before training.

        Data may have any units: the encoder's inputs and the decoder's outputs
        are standardised, see `Encoder` and `StandardizedLikelihood`. Bounds
        and reconstructions stay in the data's units.

        Args:
          x: `[N, D]`, NaN where missing.
          y: `[N, D]`, the clean data of a denoising VAE; None for `x`.

        Raises:
          ValueError: If an array has a wrong shape, infinite values, rows
            without any observed value, or values outside of the likelihood's
            support.
        """
        x = self._checked_rows(x)
        super().adapt(x if y is None else y)
        self.encoder.adapt(x, self.ranks)
        self._adapt_prior_inputs(self.prior, x)
        self.share(self.prior.weights)

    def _adapt_prior_inputs(self, prior: Prior, x: np.ndarray) -> None:
        """Initialises what a prior has in the space of the encoder's inputs."""
        prior.adapt_inputs(_StandardizedRows(self.encoder, x), self.seed)

    def calibrate(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Sets the likelihood's noise to the optimum for data, in closed form.

        Uses one draw of z for each data point, without relaxation of binary
        latents.

        Args:
          x: `[N, D]`, the training data, NaN where missing.
          y: `[N, D]`, the clean data of a denoising VAE; None for `x`.
        """
        x = self._checked_rows(x)
        y = x if y is None else self._checked_rows(y)
        # Discards the statistics left of earlier batches.
        self.likelihood.maximise(tf.constant(True))
        statistics = tf.function(self._statistics_of)
        found = []
        for i in range(0, len(x), _BATCH):
            seed = self._seed_of_rank(_FITTING, i)
            rows = slice(i, i + _BATCH)
            found.append(
                statistics(tf.constant(x[rows]), tf.constant(y[rows]), seed)
            )
        totals = [sum(parts) for parts in zip(*found, strict=True)]
        self.likelihood.accumulate(*self.ranks.all_sum(*totals))
        self.likelihood.maximise(tf.constant(True))

    def _statistics_of(
        self, x: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Returns the sufficient statistics of the noise of a batch."""
        outputs = self.decode_outputs(self.encoder(x).sample(seed))
        return self._statistics(*densities.split_missing(targets), outputs)

    def _statistics(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        outputs: tf.Tensor,
        weight: tf.Tensor | None = None,
        shares: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """As the likelihood's, with the draws of z for each data point.

        Of several draws, outputs are `[K, B, O]` and shares `[K, B]`.
        """
        if weight is not None:
            # Weights of entries: those of the data points, 0 where missing.
            observed *= weight[:, None]
        if shares is None:
            outputs, shares = outputs[None], tf.ones_like(x[:, 0])[None]
        return self.likelihood.statistics(
            x[:, None],
            observed[:, None],
            tf.transpose(outputs, [1, 0, 2]),
            tf.transpose(shares),
        )

    def with_fitted_prior(
        self, prior: Prior, x: np.ndarray, **settings: Any
    ) -> VAE:
        """Fits a prior to the latents of data, after training.

        Ex-post density estimation: train without a prior, `Elbo(beta=0)`, or
        with a simple one, then fit a prior to the aggregate posterior.

        Reference: Ghosh, Sajjadi, Vergari, Black and Schoelkopf, 2020, "From
        variational to deterministic autoencoders", section 4.

        Args:
          prior: The prior to fit.
          x: `[N, D]`, NaN where missing.
          **settings: Keyword arguments of `tfvae.priors.fit_prior`.

        Returns:
          A model with the same encoder, decoder and likelihood, and the prior.

        Raises:
          ValueError: On several ranks, each of which has a part of the data.
        """
        if self.ranks.size > 1:
            raise ValueError(
                "`model` must be in one process for a prior to be fitted to "
                f"all data, got {self.ranks.size} ranks; call "
                "set_ranks(tfvae.ranks.ONE_PROCESS) in one of them"
            )
        fitted = VAE(
            self.encoder,
            self.decoder,
            prior,
            self.likelihood,
            objective=self.objective,
            seed=self.seed,
        )
        x = self._checked_rows(x)
        self._adapt_prior_inputs(prior, x)
        sample = tf.function(
            lambda batch, seed: self.encoder(batch).sample(seed)
        )
        latents = [
            sample(x[i : i + _BATCH], random.make_seed(self.seed, _FITTING, i))
            for i in range(0, len(x), _BATCH)
        ]
        fit_prior(prior, np.concatenate(latents), **settings)
        return fitted

    def batches(
        self,
        x: np.ndarray,
        batch_size: int,
        seed: int = 0,
        start_epoch: int = 0,
        *,
        weights: np.ndarray | None = None,
        path: Any = None,
        block_rows: int | None = None,
    ) -> tf.data.Dataset:
        """Returns an infinite dataset for `fit`, with cached frozen features.

        With weights, which may draw a data point several times an epoch, and
        of data that are read in blocks, they are computed in each step.

        Args:
          x: `[N, D]`, NaN where missing.
          batch_size: B; the last batch of an epoch has the remainder.
          seed: Seed of the order.
          start_epoch: Epoch to begin with.
          weights: `[N]`, how often each data point is drawn; None for once an
            epoch each.
          path: File for features that are too large; see `frozen_features`.
          block_rows: See `LatentModel.batches`.
        """
        features = None
        if block_rows is None:
            block_rows = getattr(x, "block_rows", None)
        if weights is None and block_rows is None:
            features = encoders.frozen_features(self.encoder, x, path=path)
        if features is None:
            return super().batches(
                x,
                batch_size,
                seed,
                start_epoch,
                weights=weights,
                block_rows=block_rows,
            )
        # Keras takes the second of two for targets.
        num_data, seed = self._order_of_ranks(len(x), seed)
        return batches_with(
            x, features, batch_size, seed, start_epoch, num_data
        ).map(lambda points, features: ((points, features),))

    # Training.

    _latent_term: _LatentTerm | None = None

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        term = self._latent_term
        return [*super().metrics, *([] if term is None else [term.mean])]

    def compile(
        self, *args: Any, latent_loss: LatentLoss | None = None, **kwargs: Any
    ) -> None:
        """Configures training: an optimizer, and how steps are run.

        Args:
          *args: The optimizer; see `keras.Model.compile`.
          latent_loss: A loss that training adds to the objective's, a
            differentiable TensorFlow function of latents `[B, M]`, one draw
            from q(z | x) for each data point of a batch, and of targets `[B]`,
            which are the `y` of `fit`: the likelihood scores `x` then. It
            returns `[B]`, nats a data point, which `sample_weight` multiplies.
            Its mean is logged as `latent_loss`, and is part of `loss`.
            `evaluate` leaves it out, and it is not saved with the model. None
            for none.
          **kwargs: Further arguments of `keras.Model.compile`.

        Raises:
          TypeError: If `latent_loss` is not callable.
          ValueError: If a loss or metrics are given, as a model has its own,
            if trainable weights have less than 32 bits, or if there is a latent
            loss and the gradient estimator takes several draws.
        """
        if latent_loss is not None and not callable(latent_loss):
            raise TypeError(
                "`latent_loss` must be a function of latents and targets, or "
                f"None, got {latent_loss!r}"
            )
        estimator = self.encoder.posterior.estimator
        if latent_loss is not None and estimator.num_draws > 1:
            raise ValueError(
                "`latent_loss` must be None where a step takes several draws "
                "of the latents, whose gradients are not those of latents, got "
                f"it with {estimator!r}"
            )
        super().compile(*args, **kwargs)
        self._latent_term = latent_loss and _LatentTerm(latent_loss)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One gradient step on a batch, then a closed-form noise update.

        Args:
          data: `x` `[B, D]`; or `(x, y)` with targets `[B, D]`, or None; or
            `(x, y, weights)` with weights `[B]` of the data points. In place
            of x, `(x, features)` with the outputs of the encoder's frozen part
            for it. With a latent loss y are its targets `[B]`.

        Returns:
          The metrics' running means.
        """
        batch = self._unpack(data)
        step = self._iteration.value
        self._check_one_replica()
        seed = self._seed_of_rank(_TRAINING, step, _replica())
        noise = self.likelihood.monitored()
        with tf.GradientTape() as tape:
            posterior = self.encoder.posterior_of_features(
                self._features(batch), training=True
            )
            latents = self.encoder.posterior.training_sample(
                posterior, seed, step
            )
            outputs = self.decode_outputs(latents, training=True)
            terms = self._terms(
                batch, posterior, latents, outputs, is_training=True
            )
            loss, shares = self._update_metrics(
                terms, batch, step, posterior, latents
            )
            strategy = tf.distribute.get_strategy()
            part = (loss + self._penalties()) / strategy.num_replicas_in_sync
            if self.ranks.size > 1:
                share = tf.cast(tf.shape(batch.x)[0], tf.float32)
                part *= share
            # Optimizers with loss scaling divide the gradients by the scale.
            part = self.optimizer.scale_loss(part)
        variables = self.trainable_variables
        gradients = tape.gradient(part, variables)
        statistics = self._statistics(
            batch.targets, batch.observed, outputs, batch.weight, shares
        )
        if self.ranks.size > 1:
            gradients, statistics = mean_gradients(
                self.ranks, gradients, share, statistics
            )
        self.optimizer.apply(gradients, variables)
        self.likelihood.accumulate(*statistics)
        self.likelihood.maximise(tf.constant(True), _KEPT)
        self._iteration.assign_add(1)
        self._monitor(**noise)
        logs = self._results()
        if self._latent_term is not None:
            logs[_LATENT_LOSS] = self._latent_term.mean.result()
        return logs

    def _check_one_replica(self) -> None:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if self.ranks.size > 1 and replicas > 1:
            raise RuntimeError(
                "`model` must be trained either by several ranks or in several "
                f"replicas of tf.distribute, got {self.ranks.size} ranks and "
                f"{replicas} replicas"
            )
        if isinstance(self.encoder.posterior, VectorQuantizedPosterior) and (
            self.ranks.size > 1 or replicas > 1
        ):
            raise RuntimeError(
                "`model` must be trained in one process and on one device with "
                "a VectorQuantizedPosterior, whose codebook each would update "
                f"by itself, got {self.ranks.size} ranks and {replicas} "
                "replicas"
            )

    def _unpack(self, data: Any) -> _Batch:
        """Returns the parts of what `fit` or `evaluate` passes, validated."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        features = None
        if isinstance(x, (tuple, list)):
            x, features = x
            if features is not None:  # As of an encoder that freezes nothing.
                self._check_features_shape(features.shape)
        x = self._as_batch(x)
        targets, latent_targets = x, None
        if y is not None:
            y = tf.convert_to_tensor(y)
            self._check_target_shape(y.shape)
            if self._latent_term is None:
                targets = self._as_batch(y)
            else:
                latent_targets = y
        if weight is not None:
            weight = inputs.as_weights(weight)
        return _Batch(
            x,
            features,
            *densities.split_missing(targets),
            latent_targets,
            weight,
        )

    def _check_target_shape(self, shape: Any) -> None:
        """Raises a ValueError for labels and the like."""
        if self._latent_term is not None:
            if not tf.TensorShape([None]).is_compatible_with(shape):
                raise ValueError(
                    "`y` must have shape [N], the targets of `latent_loss`, "
                    f"got {tuple(shape)!r}"
                )
            return
        if not tf.TensorShape([None, self.num_observed]).is_compatible_with(
            shape
        ):
            raise ValueError(
                f"`y` must have shape [N, {self.num_observed}]: it is what the "
                "likelihood scores, such as clean data where `x` is noisy, or "
                f"None for `x` itself; got {tuple(shape)!r}. Labels are of no "
                "use to a VAE, and frozen features belong to x: "
                "fit((x, features))"
            )

    def _check_features_shape(self, shape: Any) -> None:
        """Raises a ValueError unless it is that of `frozen_features`."""
        if self.encoder.frozen is None:
            raise ValueError(
                "`x` must be data alone, as no part of the encoder is frozen, "
                f"got a pair with an array of shape {tuple(shape)!r}"
            )
        expected = (None, *self.encoder.feature_shape)
        if not tf.TensorShape(expected).is_compatible_with(shape):
            raise ValueError(
                "`x` must be data, or the pair of data and their "
                f"frozen_features of shape {expected!r}, got features of shape "
                f"{tuple(shape)!r}"
            )

    def _features(self, batch: _Batch) -> tf.Tensor:
        if batch.features is None:
            return self.encoder.features(batch.x)
        return batch.features

    def _points_of(self, x: Any) -> Any:
        return x[0] if isinstance(x, (tuple, list)) and len(x) == 2 else x

    def _default_targets(
        self, points: np.ndarray, is_training: bool
    ) -> np.ndarray | None:
        if self._latent_term is None:
            return points
        # Evaluation has no use for them.
        return None if is_training else np.zeros(len(points), np.float32)

    def _check_targets(
        self, y: Any, points: np.ndarray, is_training: bool
    ) -> None:
        if not inputs.is_array(y):
            raise TypeError(
                f"`y` must be an array where `x` is one, got {type(y).__name__}"
            )
        self._check_target_shape(np.shape(y))
        if len(y) != len(points):
            raise ValueError(
                f"`y` must have the {len(points)} rows of `x`, got {len(y)}"
            )
        if self._latent_term is not None:
            return
        y = self._checked_rows(y)
        if is_training:
            self.likelihood.check_units(y)

    def _terms(
        self,
        batch: _Batch,
        posterior: Distribution,
        latents: tf.Tensor,
        outputs: tf.Tensor,
        is_training: bool = False,
    ) -> objectives.Terms:
        """Returns the terms of the bound for the draws of the latents.

        They are `[K, B]` for draws `[K, B, M]`, `[B]` for one of `[B, M]`.
        """
        x, observed = batch.targets, batch.observed
        if latents.shape.rank == 3:
            x, observed = x[None], observed[None]
        parts = self.prior.log_prob_parts(latents)
        if is_training and self.encoder.posterior.estimator.has_log_ratios:
            kl = posterior.log_prob(latents)
            kl -= parts.base_log_prob + parts.log_det
        else:
            kl = self.prior.kl(posterior, latents, parts)
        # In squared units, which float32 may not hold: neither a missing entry
        # nor a weight of zero may meet infinity.
        mean = tf.where(observed > 0.0, self.likelihood.mean(outputs), x)
        error = densities.squared_error(x, observed, mean)
        return objectives.Terms(
            self.likelihood.log_prob(x, observed, outputs),
            tf.minimum(error, error.dtype.max),
            kl,
            parts.log_det,
        )

    def _update_metrics(
        self,
        terms: objectives.Terms,
        batch: _Batch,
        step: tf.Tensor,
        posterior: Distribution | None = None,
        latents: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Updates the metrics by a batch.

        Posterior and latents are given in training, which has the estimator
        and the latent loss.

        Returns:
          The mean loss, and the shares of the draws; see `Estimate`.
        """
        distortion, rate = self.objective(terms, self.num_latents, step)
        losses, shares = distortion + rate, None
        weight = batch.weight
        if weight is not None:
            if self.ranks.size > 1 and latents is not None:
                objectives.check_can_share(self.objective)
            weighted = self.objective.weighted_loss(distortion, rate, weight)
        if latents is not None:
            estimator = self.encoder.posterior.estimator
            # What is no mean of the draws' losses is weighted as a whole.
            is_mean = weight is not None and not estimator.has_log_ratios
            losses, shares = estimator.estimate(
                posterior, latents, weighted if is_mean else losses
            )
            if weight is not None and not is_mean:
                losses *= weight
        elif weight is not None:
            losses = weighted
        if self._latent_term is not None and latents is not None:
            losses += self._latent_losses(self._latent_term, batch, latents)
        self._monitor(loss=losses)
        self._monitor(
            weight,
            bound=_over_draws(terms.bound),
            log_likelihood=_over_draws(terms.log_likelihood),
            kl=_over_draws(terms.kl),
            squared_error=_over_draws(terms.squared_error),
            regularization=-_over_draws(rate),
        )
        return tf.reduce_mean(losses), shares

    def _latent_losses(
        self, term: _LatentTerm, batch: _Batch, latents: tf.Tensor
    ) -> tf.Tensor:
        """Returns the latent losses times the weights, float32 `[B]`."""
        if batch.latent_targets is None:
            raise ValueError(
                "`y` must be the targets [N] of `latent_loss`, got None"
            )
        losses = term.function(latents, batch.latent_targets)
        losses = tf.ensure_shape(tf.cast(losses, tf.float32), [None])
        term.mean.update_state(losses, batch.weight)
        return losses if batch.weight is None else losses * batch.weight

    # Evaluation.

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Logs the terms of a batch, with one draw of the latents.

        Args:
          data: As of `train_step`.

        Returns:
          The metrics' running means.
        """
        batch = self._unpack(data)
        posterior = self.encoder.posterior_of_features(self._features(batch))
        # Different noise for each batch, the same for each evaluation.
        count = tf.cast(self._means["loss"].count, tf.int32)
        seed = self._seed_of_rank(_EVALUATION, count, _replica())
        latents = posterior.sample(seed)
        outputs = self.decode_outputs(latents)
        terms = self._terms(batch, posterior, latents, outputs)
        self._update_metrics(terms, batch, self._iteration.value)
        return self._results(*_TERMS)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Reconstructs: the mean of p(x | z) at the mode of q(z | x).

        Args:
          x: `[B, D]`, NaN where missing.

        Returns:
          `[B, D]`.
        """
        latents = self.encoder(self._as_batch(x)).mode
        return self.likelihood.mean(self.decode_outputs(latents))

    def log_likelihood_bound(
        self,
        x: np.ndarray | tf.Tensor,
        num_samples: int | tf.Tensor = 128,
        seed: int | tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the importance-weighted bound on log p(x), nats.

        Reference: Burda, Grosse and Salakhutdinov, 2016, "Importance weighted
        autoencoders".

        Args:
          x: One batch `[B, D]`, NaN where missing.
          num_samples: K, draws of z for each data point; the bound increases
            with K, and is the ELBO for K = 1.
          seed: Seed of the draws; None for the model's.

        Returns:
          `[B]`.
        """
        seed = self.seed if seed is None else seed
        inputs.check_count(1, num_samples=num_samples)
        return self._bound(
            self._as_batch(self._checked(x)),
            tf.cast(num_samples, tf.int32),
            random.make_seed(seed, _EVALUATION),
        )

    def _bound_of_batch(
        self, x: tf.Tensor, num_samples: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        posterior = self.encoder(x)
        x, observed = densities.split_missing(x)

        def log_weight(draw: tf.Tensor) -> tf.Tensor:
            latents = posterior.sample(random.make_seed(seed, draw))
            outputs = self.decode_outputs(latents)
            log_joint = self.likelihood.log_prob(x, observed, outputs)
            log_joint += self.prior.log_prob(latents)
            return log_joint - posterior.log_prob(latents)

        return elbo.importance_weighted_bound(
            log_weight, tf.shape(x)[0], num_samples
        )

    def bound_terms(
        self, x: np.ndarray, batch_size: int = 256
    ) -> dict[str, float]:
        return self.evaluate(
            x, batch_size=batch_size, verbose=0, return_dict=True
        )

    # Latents.

    @property
    def has_binary_latents(self) -> bool:
        return isinstance(
            self.encoder.posterior,
            BernoulliPosterior | RelaxedBernoulliPosterior,
        )

    def posterior_mode(
        self, x: np.ndarray, index: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns the modes of q(z | x), `[n, M]`; `index` is not used."""
        return in_batches(self._mode, self._checked_rows(x))

    def encode(self, x: np.ndarray | tf.Tensor) -> Distribution:
        """Returns q(z | x) of one batch, a distribution of `[B, M]`."""
        return self.encoder(self._as_batch(self._checked(x)))

    # Generation.

    def decode(self, latents: np.ndarray | tf.Tensor) -> tf.Tensor:
        latents = tf.convert_to_tensor(latents, tf.float32)
        if latents.shape[-1] != self.num_latents:
            raise ValueError(
                f"`latents` must have shape [..., {self.num_latents}], got "
                f"{tuple(latents.shape)!r}"
            )
        if tf.executing_eagerly() and not tf.reduce_all(
            tf.math.is_finite(latents)
        ):
            raise ValueError("`latents` must be finite, got NaN or infinity")
        return self.likelihood.mean(self.decode_outputs(latents))

    def sample(
        self,
        num_samples: int | tf.Tensor,
        seed: int | tf.Tensor = 0,
        mean: bool = False,
    ) -> tf.Tensor:
        inputs.check_count(num_samples=num_samples)
        seed = random.make_seed(seed, _SAMPLING)
        latents = self.prior.sample(random.make_seed(seed, 0), num_samples)
        outputs = self.decode_outputs(latents)
        if mean:
            return self.likelihood.mean(outputs)
        return self.likelihood.sample(random.make_seed(seed, 1), outputs)

    def figures(self, seed: int = 0) -> dict[str, Figure]:
        """Returns samples, and straight lines between two latents each.

        The latents at the ends are drawn from the prior. Each of the eight
        lines, a row of eight tiles, goes from one generated data point over
        six to another.

        Args:
          seed: Of the draws.
        """
        samples = super().figures(seed)["samples"]
        ends = self.sample_prior(
            2 * _NUM_INTERPOLATIONS, random.make_seed(seed, 0)
        )
        first, last = tf.split(ends[:, None], 2)
        share = tf.linspace(0.0, 1.0, _NUM_BETWEEN + 2)[None, :, None]
        latents = tf.reshape(
            first + share * (last - first), [-1, self.num_latents]
        )
        return {
            "samples": samples._replace(per_row=8),
            "interpolations": Figure(
                self.decode(latents).numpy(),
                "between two samples each",
                per_row=_NUM_BETWEEN + 2,
            ),
        }

    def decode_outputs(
        self, latents: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Returns decoder outputs, `[..., M]` to float32 `[..., O]`."""
        flat = tf.reshape(latents, [-1, self.num_latents])
        outputs = tf.cast(self.decoder(flat, training=training), tf.float32)
        if latents.shape.rank == 2:
            return outputs
        shape = tf.concat([tf.shape(latents)[:-1], [outputs.shape[-1]]], 0)
        return tf.reshape(outputs, shape)


def _over_draws(values: tf.Tensor) -> tf.Tensor:
    """Returns the means over the draws, `[K, B]` or `[B]` to `[B]`."""
    return values if values.shape.rank == 1 else tf.reduce_mean(values, 0)


class _StandardizedRows(LazyRows):
    """Data as the networks see them, but NaN where missing."""

    def __init__(
        self, encoder: encoders.Encoder, x: np.ndarray | LazyRows
    ) -> None:
        """Sets the encoder and the data, `[N, D]`."""
        super().__init__(*x.shape)
        self._encoder = encoder
        self._x = x

    def take(self, index: np.ndarray) -> np.ndarray:
        x = self._x[index]
        rows = np.array(self._encoder.standardize(x))
        rows[np.isnan(x)] = np.nan
        return rows


def _replica() -> int | tf.Tensor:
    """Returns the index of this replica, for different noise in each."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group
