# SPDX-License-Identifier: Apache-2.0
"""Vector quantisation: the posterior of a VQ-VAE, with its codebook."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.ops import random
from tfvae.ops.distributions import Quantized, by_variable
from tfvae.vae.estimators import Estimate, Pathwise


class Codebook(NamedTuple):
    """Vectors of codes, and the moving averages that they are made of.

    Attributes:
      vectors: `[C, d]`, sums over counts.
      counts: `[C]`, encoder outputs of a batch with each code.
      sums: `[C, d]`, sums of these outputs.
    """

    vectors: tf.Tensor
    counts: tf.Tensor
    sums: tf.Tensor


def updated(
    codebook: Codebook,
    vectors: tf.Tensor,
    codes: tf.Tensor,
    decay: float,
    revive_below: float,
    seed: tf.Tensor,
) -> Codebook:
    """Moves vectors to the mean of the encoder outputs that have their code.

    A code whose moving count is below a fraction of an equal share becomes an
    output of the batch, drawn at random, with an equal share.

    Args:
      codebook: The codebook before.
      vectors: `[n, d]`, encoder outputs of a batch.
      codes: One-hot `[n, C]`, their codes.
      decay: What the averages keep in a step.
      revive_below: The fraction, positive.
      seed: `[2]` int32.
    """
    rest = 1.0 - decay
    counts = decay * codebook.counts + rest * tf.reduce_sum(codes, 0)
    sums = tf.matmul(codes, vectors, transpose_a=True)
    sums = decay * codebook.sums + rest * sums
    num_vectors, num_codes = tf.shape(vectors)[0], codes.shape[-1]
    share = tf.cast(num_vectors, tf.float32) / num_codes
    is_dead = counts < revive_below * share
    draws = random.uniform(seed, [num_codes])
    rows = tf.cast(draws * tf.cast(num_vectors, tf.float32), tf.int32)
    drawn = tf.gather(vectors, tf.minimum(rows, num_vectors - 1))
    counts = tf.where(is_dead, share, counts)
    sums = tf.where(is_dead[:, None], share * drawn, sums)
    return Codebook(sums / counts[:, None], counts, sums)


class _Committed(Pathwise):
    """Adds the commitment loss of a `Quantized` posterior."""

    # log q is 0 at the only draw. The weight of a data point then applies to
    # its whole loss, with the commitment.
    has_log_ratios = True

    def __init__(self, weight: float) -> None:
        """Sets the weight of the loss."""
        self._weight = weight

    def estimate(
        self, distribution: Quantized, latents: tf.Tensor, losses: tf.Tensor
    ) -> Estimate:
        error = tf.math.squared_difference(
            distribution.outputs, tf.stop_gradient(distribution.mode)
        )
        commitment = tf.reduce_sum(error, -1)
        return Estimate(losses + self._weight * commitment, None)


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class VectorQuantizedPosterior(keras.layers.Layer):
    """Posterior of a VQ-VAE: all mass on the codes nearest to the outputs.

    Latents are G vectors of size d, one after another, M = G d: the outputs z
    of the encoder, each replaced by the nearest vector e of a codebook. In
    training the gradient in e is passed on to z, and the loss has a commitment
    term beside the objective's,

        weight * |z - e|**2

    summed over latents. The codebook has no gradient: its vectors are the
    moving averages of the outputs that have their code, and a code that is
    hardly used is replaced by an output of the batch. So is each code in the
    first step.

    The prior is a `QuantizedPrior`. As q(e | x) is 1 for one e, the bound is

        log p(x) >= log p(x | e) + log p(e)

    one term of the sum over all codes, which more draws do not tighten.

    Reference: van den Oord, Vinyals and Kavukcuoglu, 2017, "Neural discrete
    representation learning", equation 3 and appendix A.1; replaced codes:
    Dhariwal et al., 2020, "Jukebox: a generative model for music", section 3.1.

    Attributes:
      num_codes: C.
      code_size: d.
      commitment: Weight of the commitment term.
      decay: What the averages keep in a step.
      revive_below: Fraction of an equal share of the codes below which a code
        is replaced.
      codebook: float32 weight `[C, d]`, without gradient.
    """

    def __init__(
        self,
        num_codes: int,
        code_size: int,
        commitment: float = 0.25,
        decay: float = 0.99,
        revive_below: float = 0.05,
        **kwargs: Any,
    ):
        """Creates the codebook.

        Args:
          num_codes: C, at least 2.
          code_size: d, a divisor of the number of latents.
          commitment: Weight of the commitment term.
          decay: What the averages keep in a step, in [0, 1).
          revive_below: Fraction of an equal share below which a code is
            replaced, between 0 and 1.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If a value is out of range.
        """
        kwargs.pop("dtype", None)
        super().__init__(**kwargs, dtype="float32")
        check_counts(2, num_codes=num_codes)
        check_counts(code_size=code_size)
        if not 0.0 <= commitment < math.inf:
            raise ValueError(
                "`commitment` must be finite and not negative, got "
                f"{commitment!r}"
            )
        if not 0.0 <= decay < 1.0:
            raise ValueError(
                f"`decay` must be at least 0 and below 1, got {decay!r}"
            )
        if not 0.0 < revive_below < 1.0:
            raise ValueError(
                f"`revive_below` must be between 0 and 1, got {revive_below!r}"
            )
        self.num_codes = num_codes
        self.code_size = code_size
        self.commitment = commitment
        self.decay = decay
        self.revive_below = revive_below
        self.estimator = _Committed(commitment)
        self.codebook = self._add("codebook", (num_codes, code_size))
        self.codebook.assign(
            random.normal(random.make_seed(0), self.codebook.shape)
        )
        self._counts = self._add("counts", (num_codes,))
        self._sums = self._add("sums", (num_codes, code_size))
        self.built = True

    def _add(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        return self.add_weight(
            shape=shape,
            initializer="zeros",
            trainable=False,
            autocast=False,
            name=name,
        )

    def num_outputs(self, num_latents: int) -> int:
        if num_latents % self.code_size:
            raise ValueError(
                "`code_size` must divide the number of latents, "
                f"{num_latents}, got {self.code_size!r}"
            )
        return num_latents

    def num_latents(self, num_outputs: int) -> int:
        return self.num_outputs(num_outputs)

    def distribution(self, outputs: tf.Tensor) -> Quantized:
        # A copy: a step changes the codebook after it has been looked up.
        return Quantized(outputs, tf.identity(self.codebook.value))

    def training_sample(
        self, distribution: Quantized, seed: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        """Returns the quantised outputs, and updates the codebook."""
        outputs = distribution.outputs
        vectors = tf.reshape(tf.stop_gradient(outputs), [-1, self.code_size])
        codes = by_variable(
            distribution.codes, outputs.shape[-1] // self.code_size
        )
        before = Codebook(
            self.codebook.value, self._counts.value, self._sums.value
        )
        after = updated(
            before,
            vectors,
            tf.reshape(codes, [-1, self.num_codes]),
            self.decay,
            self.revive_below,
            seed,
        )
        self.codebook.assign(after.vectors)
        self._counts.assign(after.counts)
        self._sums.assign(after.sums)
        return outputs + tf.stop_gradient(distribution.mode - outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "code_size": self.code_size,
            "commitment": self.commitment,
            "decay": self.decay,
            "revive_below": self.revive_below,
        }
