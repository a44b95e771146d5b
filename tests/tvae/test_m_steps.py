# SPDX-License-Identifier: Apache-2.0
"""Tests of the M-step: how many states it uses, and its mini-batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from tests import oracles
from tests.tvae import tiny
from tfvae.tvae import prior

ALL_STATES = 2**tiny.NUM_LATENTS


def _trained(optimizer=None, batch_size=tiny.NUM_DATA, epochs=1, **settings):
    """Trains; without an optimizer the decoder stays as it is."""
    model = tiny.make(**settings)
    # The claims are about values; test_plain trains in batches with graphs.
    model.compile(optimizer or keras.optimizers.SGD(0.0), run_eagerly=True)
    model.fit(
        tiny.data(),
        tiny.INDEX,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    )
    return model


class MiniBatchTest(tf.test.TestCase, parameterized.TestCase):
    def _assert_same(self, model, expected, **tolerance):
        for found, other in zip(
            model.variables, expected.variables, strict=True
        ):
            self.assertAllClose(found, other, msg=found.path, **tolerance)

    @parameterized.parameters(tiny.NUM_STATES, ALL_STATES)
    @pytest.mark.slow  # Trains twice.
    def test_one_batch_that_holds_all_is_no_batching(self, num_states):
        models = [
            _trained(
                keras.optimizers.Adam(0.01),
                batch_size=4,
                epochs=2,
                num_states=num_states,
                m_batch_size=m_batch_size,
            )
            for m_batch_size in (None, 4, 100)
        ]
        for model in models[1:]:
            self._assert_same(model, models[0], rtol=1e-5, atol=1e-6)

    @parameterized.parameters(
        ("gaussian", tiny.NUM_STATES, None, 4),
        ("gaussian", tiny.NUM_STATES, 3, 5),
        ("gaussian", ALL_STATES, None, 4),
        ("bernoulli", tiny.NUM_STATES, None, 10),
    )
    def test_steps_are_those_of_a_loop_over_mini_batches(
        self, kind, num_states, num_m_states, size
    ):
        rate, x = 0.3, tiny.data()
        model = tiny.make(
            kind,
            num_states=num_states,
            num_m_states=num_m_states,
            m_batch_size=size,
        )
        model.compile(keras.optimizers.SGD(rate))
        slow = tiny.Parameters(model)
        model.train_step((x, tiny.INDEX))
        if model.is_exhaustive:
            states = oracles.enumerate_states(tiny.NUM_LATENTS)
            states = np.repeat(states[None], tiny.NUM_DATA, 0)
        else:
            states = tiny.stored_states(model)[:, :num_m_states]
        ones = np.zeros(tiny.NUM_LATENTS)
        error, entries = 0.0, 0
        # 11 data points: the last batch is a smaller one.
        for start in range(0, tiny.NUM_DATA, size):
            part = slice(start, start + size)
            q = slow.posterior(x[part], states[part])
            ones += (q[..., None] * states[part]).sum((0, 1))
            outputs = oracles.perceptron(slow.weights, states[part])
            means = slow.offset + slow.scale * outputs
            squares = np.nansum((x[part][:, None] - means) ** 2, -1)
            error += (q * squares).sum()
            entries += np.isfinite(x[part]).sum()
            slow.weights = self._stepped(slow, x[part], states[part], rate)
        for found, expected in zip(
            model.decoder.get_weights(), slow.weights, strict=True
        ):
            self.assertAllClose(found, expected, rtol=1e-3, atol=1e-5)
        prior_probs = np.clip(
            ones / tiny.NUM_DATA, prior.PRIOR_MARGIN, 1.0 - prior.PRIOR_MARGIN
        )
        self.assertAllClose(model.prior_probs, prior_probs, rtol=1e-4)
        if kind == "gaussian":
            variance = model.likelihood.variance
            self.assertAllClose(variance, error / entries, rtol=1e-4)
        self.assertEqual(int(model.optimizer.iterations), -(-11 // size))

    def _stepped(self, parameters, x, states, rate):
        """Returns the weights after a step up the bound's numeric gradient."""
        weights, steps = parameters.weights, []
        for i, weight in enumerate(weights):

            def bound(value, i=i):
                parameters.weights = [*weights[:i], value, *weights[i + 1 :]]
                return parameters.bounds(x, states).mean()

            steps.append(rate * oracles.numeric_gradient(bound, weight))
        return [w + step for w, step in zip(weights, steps, strict=True)]

    @parameterized.parameters(tiny.NUM_STATES, ALL_STATES)
    def test_closed_form_updates_do_not_depend_on_mini_batches(
        self, num_states
    ):
        expected = _trained(num_states=num_states)
        for m_batch_size in (1, 3, 4):
            model = _trained(num_states=num_states, m_batch_size=m_batch_size)
            self.assertAllClose(
                model.prior_probs, expected.prior_probs, rtol=1e-5
            )
            self.assertAllClose(
                model.likelihood.variance,
                expected.likelihood.variance,
                rtol=1e-5,
            )
            self.assertEqual(int(model.prior.visits), 0)

    def test_logs_do_not_depend_on_mini_batches(self):
        logs = [
            _trained(m_batch_size=size, num_m_states=2).history.history
            for size in (None, 4)
        ]
        for name, values in logs[0].items():
            self.assertAllClose(logs[1][name], values, rtol=1e-5, msg=name)


class DroppedMassTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(0.3, 0.2, 0.1)
    def test_step_is_that_of_the_fixed_number_of_states(self, max_mass):
        model = tiny.make(max_dropped_mass=max_mass)
        parameters = tiny.Parameters(model)
        model.compile(keras.optimizers.SGD(0.3))
        logs = model.train_step((tiny.data(), tiny.INDEX))
        # On the states that the E-step left.
        states = tiny.stored_states(model)
        values = parameters.log_joints(tiny.data(), states)
        num_kept = oracles.num_kept(values, max_mass)
        self.assertBetween(num_kept, 2, tiny.NUM_STATES - 1)
        self.assertLessEqual(float(logs["dropped_mass"]), max_mass)

        fixed = tiny.make(num_m_states=num_kept)
        fixed.compile(keras.optimizers.SGD(0.3))
        expected = fixed.train_step((tiny.data(), tiny.INDEX))
        for name, value in expected.items():
            self.assertAllClose(logs[name], value, rtol=1e-6, msg=name)
        for found, other in zip(model.variables, fixed.variables, strict=True):
            self.assertAllClose(
                found, other, rtol=1e-5, atol=1e-6, msg=found.path
            )

    def test_number_of_states_is_a_limit_still(self):
        model = tiny.make(num_m_states=2, max_dropped_mass=0.0)
        fixed = tiny.make(num_m_states=2)
        for one in (model, fixed):
            one.compile(keras.optimizers.SGD(0.3))
            one.train_step((tiny.data(), tiny.INDEX))
        for found, other in zip(model.variables, fixed.variables, strict=True):
            self.assertAllEqual(found, other)


if __name__ == "__main__":
    tf.test.main()
