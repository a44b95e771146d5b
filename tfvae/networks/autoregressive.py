# SPDX-License-Identifier: Apache-2.0
"""Recurrent decoder of sequences that sees the symbols before each step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts
from tfvae.ops import random


class Beams(NamedTuple):
    """The most probable sequences that a beam search has found."""

    symbols: tf.Tensor
    """int32 `[b, beams, T]`, the most probable first."""
    log_probs: tf.Tensor
    """Their log-probabilities, nats, `[b, beams]`."""


@typed_gin.register
@keras.saving.register_keras_serializable("tfvae")
class AutoregressiveDecoder(keras.layers.Layer):
    """A gated recurrent unit that decodes one symbol after another.

        log p(x | z) = sum_t log p(x_t | x_1, ..., x_{t - 1}, z)

    Symbol 0 ends a sequence: what follows it is 0 with certainty, unless all
    sequences have T symbols. The state at
    the start sees all latents. Each step sees the symbol before it, and all
    latents or, if latents have positions, those of its position. The layer is
    called with latents and a whole sequence (teacher forcing), which gives the
    logits of all steps; it is trained by the negative of `log_prob`. It is no
    decoder of a `VAE`, whose decoders see latents alone.

    Attributes:
      num_steps: T.
      num_symbols: K.
      num_latents: M.
      hidden: Size of the recurrent state.
      has_positions: Whether latents are `[b, T * c]`, ordered by position.
      has_end: Whether symbol 0 ends a sequence.
    """

    def __init__(
        self,
        num_steps: int,
        num_symbols: int,
        num_latents: int,
        hidden: int = 256,
        has_positions: bool = False,
        has_end: bool = True,
        **kwargs: Any,
    ):
        """Creates the layers.

        Args:
          num_steps: T.
          num_symbols: K.
          num_latents: M; a multiple of T if latents have positions.
          hidden: Size of the recurrent state.
          has_positions: Whether latents have positions.
          has_end: Whether symbol 0 ends a sequence; False for one symbol among
            others, in sequences that all have T.
          **kwargs: Keyword arguments of `keras.layers.Layer`.

        Raises:
          ValueError: If a size is not positive, or M no multiple of T.
        """
        super().__init__(**kwargs)
        num_steps, num_symbols, num_latents, hidden = check_counts(
            num_steps=num_steps,
            num_symbols=num_symbols,
            num_latents=num_latents,
            hidden=hidden,
        )
        if has_positions and num_latents % num_steps:
            raise ValueError(
                f"`num_latents` must be a multiple of the {num_steps} steps "
                f"where latents have positions, got {num_latents!r}"
            )
        self.num_steps = num_steps
        self.num_symbols = num_symbols
        self.num_latents = num_latents
        self.hidden = hidden
        self.has_positions = has_positions
        self.has_end = has_end
        dtype = self.dtype_policy
        self._start = keras.layers.Dense(
            hidden, "tanh", name="start", dtype=dtype
        )
        self._cell = keras.layers.GRUCell(hidden, name="cell", dtype=dtype)
        self._logits = keras.layers.Dense(
            num_symbols, name="logits", dtype=dtype
        )
        self._start.build((None, num_latents))
        seen = num_latents // (num_steps if has_positions else 1)
        self._cell.build((None, num_symbols + seen))
        self._logits.build((None, hidden))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_steps": self.num_steps,
            "num_symbols": self.num_symbols,
            "num_latents": self.num_latents,
            "hidden": self.hidden,
            "has_positions": self.has_positions,
            "has_end": self.has_end,
        }

    def compute_output_shape(
        self, input_shape: Sequence[Sequence[int | None]]
    ) -> tuple[int | None, ...]:
        return (input_shape[0][0], self.num_steps * self.num_symbols)

    def _step(
        self,
        latents: tf.Tensor,
        t: int,
        before: tf.Tensor | None,
        state: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the logits of step t, `[b, K]`, and the next state.

        Args:
          latents: `[b, M]`.
          t: The step, from 0.
          before: One-hot symbols of the step before, `[b, K]`; None at first.
          state: `[b, hidden]`.
        """
        seen = latents
        if self.has_positions:
            size = self.num_latents // self.num_steps
            seen = latents[:, t * size : (t + 1) * size]
        if before is None:
            before = tf.zeros([tf.shape(latents)[0], self.num_symbols])
        before = tf.cast(before, seen.dtype)
        outputs, (state,) = self._cell(tf.concat([before, seen], -1), [state])
        return tf.cast(self._logits(outputs), tf.float32), state

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the logits of all steps, given the symbols before each.

        Args:
          inputs: Latents `[b, M]` and one-hot sequences `[b, T * K]`.

        Returns:
          `[b, T * K]` float32.
        """
        latents, x = inputs
        steps = tf.reshape(x, [-1, self.num_steps, self.num_symbols])
        state, before, found = self._start(latents), None, []
        for t in range(self.num_steps):
            logits, state = self._step(latents, t, before, state)
            found.append(logits)
            before = steps[:, t]
        return tf.concat(found, -1)

    def log_prob(self, latents: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Returns log p(x | z), nats, `[b]`.

        Args:
          latents: `[b, M]`.
          x: One-hot sequences `[b, T * K]`, which have symbol 0 in all steps
            after the first that has it, if it ends them.
        """
        shape = [-1, self.num_steps, self.num_symbols]
        logits = tf.reshape(self((latents, x)), shape)
        steps = tf.cast(tf.reshape(x, shape), tf.float32)
        log_probs = tf.reduce_sum(steps * tf.nn.log_softmax(logits), -1)
        if not self.has_end:
            return tf.reduce_sum(log_probs, -1)
        # All but what follows the end.
        has_begun = 1.0 - steps[:, :-1, 0]
        return log_probs[:, 0] + tf.reduce_sum(has_begun * log_probs[:, 1:], -1)

    def adapt(self, frequencies: np.ndarray) -> None:
        """Sets the bias of the logits to frequencies of the symbols, `[K]`.

        Args:
          frequencies: Positive, not necessarily normalised.
        """
        logits = np.log(frequencies)
        self._logits.bias.assign(logits - logits.mean())

    def sample(
        self, latents: tf.Tensor, seed: tf.Tensor, temperature: float = 1.0
    ) -> tf.Tensor:
        """Draws sequences, int32 `[b, T]`.

        Args:
          latents: `[b, M]`.
          seed: int32 `[2]`, see `tfvae.ops.random.make_seed`.
          temperature: What logits are divided by; 1 for p(x | z).
        """
        state, before, found = self._start(latents), None, []
        is_over = tf.zeros(tf.shape(latents)[:1], tf.bool)
        for t in range(self.num_steps):
            logits, state = self._step(latents, t, before, state)
            probs = tf.nn.softmax(logits / temperature)
            symbols = tf.cast(
                random.categorical(random.make_seed(seed, t), probs, 1)[:, 0],
                tf.int32,
            )
            if self.has_end:
                symbols = tf.where(is_over, 0, symbols)
                is_over |= tf.equal(symbols, 0)
            before = tf.one_hot(symbols, self.num_symbols)
            found.append(symbols)
        return tf.stack(found, -1)

    def beam_search(self, latents: tf.Tensor, num_beams: int = 8) -> Beams:
        """Searches for the most probable sequences.

        Args:
          latents: `[b, M]`.
          num_beams: Sequences that are kept in each step; 1 takes the most
            probable symbol of each.

        Returns:
          The sequences. Where there are fewer than `num_beams`, the others
          have a log-probability of -inf.
        """
        num_rows, size = tf.shape(latents)[0], self.num_symbols
        many = tf.repeat(latents, num_beams, 0)  # [b beams, M]
        state, before = self._start(many), None
        # The beams are the same at first: only one of them counts.
        totals = tf.where(tf.range(num_beams) == 0, 0.0, -float("inf"))
        totals = tf.tile(totals[None], [num_rows, 1])
        symbols = tf.zeros([num_rows, num_beams, 0], tf.int32)
        is_over = tf.zeros([num_rows, num_beams], tf.bool)
        stays = tf.where(tf.range(size) == 0, 0.0, -float("inf"))
        for t in range(self.num_steps):
            logits, state = self._step(many, t, before, state)
            log_probs = tf.reshape(
                tf.nn.log_softmax(logits), [num_rows, num_beams, size]
            )
            log_probs = tf.where(is_over[..., None], stays, log_probs)
            every = tf.reshape(
                totals[..., None] + log_probs, [num_rows, num_beams * size]
            )
            totals, chosen = tf.math.top_k(every, num_beams)
            beams, new = chosen // size, chosen % size
            symbols = tf.concat(
                [tf.gather(symbols, beams, batch_dims=1), new[..., None]], -1
            )
            if self.has_end:
                is_over = tf.gather(is_over, beams, batch_dims=1) | (new == 0)
            rows = tf.range(num_rows)[:, None] * num_beams + beams
            state = tf.gather(state, tf.reshape(rows, [-1]))
            before = tf.one_hot(tf.reshape(new, [-1]), size)
        return Beams(symbols, totals)

    def export(
        self, folder: str | os.PathLike[str], num_beams: int = 8
    ) -> None:
        """Writes a SavedModel that decodes without this library.

        Its signatures are `sample`, of `latents` and `seed`, with the output
        `symbols`, and `beam_search`, of `latents`, with the outputs of `Beams`.

        Args:
          folder: The folder to write.
          num_beams: Sequences of the beam search.
        """
        latents = tf.TensorSpec([None, self.num_latents], name="latents")

        @tf.function(
            input_signature=[latents, tf.TensorSpec([2], tf.int32, "seed")]
        )
        def sample(latents: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"symbols": self.sample(latents, seed)}

        @tf.function(input_signature=[latents])
        def beam_search(latents: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.beam_search(latents, num_beams)._asdict()

        module = tf.Module()
        module.held = [weight.value for weight in self.weights]
        module.sample, module.beam_search = sample, beam_search
        tf.saved_model.save(
            module,
            os.fspath(folder),
            signatures={"sample": sample, "beam_search": beam_search},
        )
