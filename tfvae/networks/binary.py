# SPDX-License-Identifier: Apache-2.0
"""The layer that a decoder of binary latents begins with."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfvae.ops import sparse

# From so many inputs on, summing rows beats a matrix product on a CPU, if at
# most one in `sparse.ENTRIES_PER_ROW` is a one.
MIN_SPARSE_INPUTS = 256


@keras.saving.register_keras_serializable("tfvae")
class BinaryDense(keras.layers.Dense):
    """A dense layer whose inputs `[b, H]` are often zeros and few ones.

    The same function as `keras.layers.Dense`, of any inputs; wide layers sum
    the rows of their kernel that a state asks for, where states have few ones.
    The inputs of wide layers have a gradient only with `training=True`.
    """

    def call(
        self, states: tf.Tensor, training: bool | None = None
    ) -> tf.Tensor:
        if self.kernel.shape[0] < MIN_SPARSE_INPUTS or states.shape.rank != 2:
            return super().call(states)
        kernel = tf.convert_to_tensor(self.kernel)
        # Loading a SavedModel without that gradient warns: it is in training
        # graphs only.
        outputs = sparse.sum_rows(
            states, kernel, with_state_gradient=bool(training)
        )
        if self.use_bias:
            outputs += self.bias
        return outputs if self.activation is None else self.activation(outputs)
