# SPDX-License-Identifier: Apache-2.0
"""Upper limits on requests, enforced inside exported graphs.

A server runs what it is sent: without limits a request for 2e9 draws keeps it
busy for hours. Each check is an Assert that the work waits for, so a request
over a limit fails at once, in any program that runs the graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from tfvae import typed_gin

# Counts of requests are int32.
_MOST = 2**31 - 1


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class Limits:
    """The largest requests that an exported model answers.

    Rows bound memory, products of rows and repetitions bound time. The
    defaults keep requests to a small network in seconds to minutes; with a
    large network, or small machines, set lower ones.

    Attributes:
      rows: Rows of `data`, `states` or `latents` in a request.
      num_samples: Draws of `sample`, or of a bound.
      max_steps: Evolutionary steps that a request may ask of a TVAE.
      row_samples: Rows times `num_samples`, of a bound.
      row_steps: Rows times steps, of inference by a TVAE.
    """

    rows: int = 10_000
    num_samples: int = 10_000
    max_steps: int = 1_000
    row_samples: int = 2_000_000
    row_steps: int = 2_000_000

    def __post_init__(self) -> None:
        """Checks the values."""
        problems = [
            f"`{name}` must be an integer from 1 to {_MOST}, got {value!r}"
            for name, value in dataclasses.asdict(self).items()
            if isinstance(value, bool)
            or not isinstance(value, int)
            or not 1 <= value <= _MOST
        ]
        if problems:
            raise ValueError("; ".join(problems))


def at_least(name: str, number: tf.Tensor | int, minimum: int) -> tf.Operation:
    """Returns a check that a number of a request is not too small."""
    return tf.debugging.Assert(
        tf.convert_to_tensor(number >= minimum),
        [f"{name} must be at least {minimum}, got", number],
    )


def at_most(name: str, number: tf.Tensor | int, maximum: int) -> tf.Operation:
    """Returns a check that a number of a request is not too large."""
    return tf.debugging.Assert(
        tf.convert_to_tensor(number <= maximum),
        [f"{name} must be at most {maximum}, got", number],
    )


def after(checks: Sequence[tf.Operation], tensor: tf.Tensor) -> tf.Tensor:
    """Returns the tensor, for use by what must wait for checks.

    Args:
      checks: What `tf.debugging.Assert` returned.
      tensor: Any tensor.

    Returns:
      A copy, whose computation raises `tf.errors.InvalidArgumentError` where a
      check fails.
    """
    with tf.control_dependencies(checks):
        return tf.identity(tensor)
