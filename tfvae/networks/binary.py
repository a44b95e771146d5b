# SPDX-License-Identifier: Apache-2.0
"""Dense layer that exploits sparse binary inputs."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import tensorflow as tf

from tfvae.ops import sparse

# From this number of inputs on, summing rows beats a matrix product on a CPU,
# if at most one in `sparse.ENTRIES_PER_ROW` is a one.
MIN_SPARSE_INPUTS = 256

_IS_DENSE = contextvars.ContextVar("tfvae_is_dense", default=False)


@contextlib.contextmanager
def plain_products() -> Iterator[None]:
    """Makes every `BinaryDense` traced within it a plain matrix product.

    For graphs that are to be converted: other runtimes have no sparse sums.
    """
    token = _IS_DENSE.set(True)
    try:
        yield
    finally:
        _IS_DENSE.reset(token)


@keras.saving.register_keras_serializable("tfvae")
class BinaryDense(keras.layers.Dense):
    """`keras.layers.Dense` that is faster for sparse binary inputs `[b, H]`.

    It computes the same function for any inputs; layers of at least
    `MIN_SPARSE_INPUTS` inputs sum the kernel rows of the ones where states are
    sparse, see `tfvae.ops.sparse.sum_rows`. In such layers the gradient in the
    inputs exists only with `training=True`.
    """

    def call(
        self, states: tf.Tensor, training: bool | None = None
    ) -> tf.Tensor:
        is_small = self.kernel.shape[0] < MIN_SPARSE_INPUTS
        if is_small or states.shape.rank != 2 or _IS_DENSE.get():
            return super().call(states)
        kernel = tf.convert_to_tensor(self.kernel)
        # Loading a SavedModel with a custom gradient warns, so it is part of
        # training graphs only.
        outputs = sparse.sum_rows(
            states, kernel, with_state_gradient=bool(training)
        )
        if self.use_bias:
            outputs += self.bias
        return outputs if self.activation is None else self.activation(outputs)
