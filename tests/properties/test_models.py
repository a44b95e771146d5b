# SPDX-License-Identifier: Apache-2.0
"""Properties of both models, drawn with their data, settings and weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.properties import cases, drawn
from tfvae import inputs, serving

EVERY_PRIOR = tuple(cases.PRIORS)[:-1]
EITHER = st.one_of(cases.vaes(), cases.tvaes())
# One draw of what a test must not find, at most, in a thousand runs of it.
RARE = 18.0


def weights(num_rows, optimizer):
    """Draws weights of rows, as large as the optimizer allows."""
    largest = 2.0 if optimizer == "sgd" else inputs.MAX_WEIGHT
    few = drawn.WEIGHTS.filter(lambda weight: weight <= largest)
    return st.lists(few, min_size=num_rows, max_size=num_rows).map(np.float32)


@st.composite
def weighted_cases(draw):
    """Draws a model with data of any type, and weights of its rows or None."""
    case = draw(st.one_of(cases.vaes(real_priors=EVERY_PRIOR), cases.tvaes()))
    x = draw(drawn.as_users_have_it(case.x))
    if case.likelihood == "sequence":
        x = case.x
    elif case.likelihood == "bernoulli" and x.dtype.kind != "f":
        x = np.clip(x, 0, 1)
    some = weights(len(x), case.optimizer)
    return case._replace(x=x), draw(st.one_of(st.none(), some))


def trained_weights(model):
    """Returns what training changes, but for counts and states."""
    return [
        *(variable.numpy() for variable in model.trainable_variables),
        *(weight.numpy() for weight in model.likelihood.weights),
    ]


# Models: fifteen seconds for what the tests of their parts are samples of.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:the columns of .x. are much"),
]


class EagerTest(tf.test.TestCase):
    """Runs without graphs."""

    def setUp(self):
        super().setUp()
        self.enterContext(cases.eagerly())

    def assertFinite(self, values):
        self.assertTrue(np.isfinite(values).all(), values)

    def assertSameSteps(self, before, one, other):
        """Compares moves of weights, to rounding of the weights themselves."""
        for start, a, b in zip(before, one, other, strict=True):
            step = np.float64(b) - start
            scale = np.abs(step).max() if np.size(b) else 0.0
            # Gradients that cancel leave their own rounding.
            size = np.abs(start).max() if np.size(b) else 0.0
            rounding = 1e-8 + 1e-5 * size
            error = np.float64(a) - start - step
            self.assertAllClose(
                error, np.zeros_like(error), atol=1e-3 * scale + rounding
            )


class NoNaNTest(EagerTest):
    def check_training(self, model, case, x, sample_weight):
        for step in range(2):
            logs = model.train_on_batch(
                x, case.y, sample_weight, return_dict=True
            )
            for name, value in logs.items():
                self.assertFalse(np.isnan(value), (step, name, logs))
            for name in ("loss", "bound"):
                self.assertFinite(logs[name])
        logs = model.test_on_batch(x, None, sample_weight, return_dict=True)
        for name, value in logs.items():
            self.assertFalse(np.isnan(value), (name, logs))
        for weight in model.weights:
            self.assertFalse(np.isnan(weight).any(), weight.path)

    def check_use(self, model, x):
        self.assertFinite(model.predict_on_batch(x))
        self.assertFinite(model.log_likelihood_bound(x, 2))
        for part in model.infer_points(x):
            self.assertFinite(part)
        self.assertFinite(model.posterior_mode(x))
        self.assertFinite(model.sample(3))
        self.assertFinite(model.sample(3, mean=True))
        self.assertFinite(model.decode(model.sample_prior(3)))
        model.calibrate(x)
        self.assertFinite(model.log_likelihood_bound(x, 2))

    @drawn.MODELS
    @given(weighted_cases())
    # Overflowed where an entry is missing: infinity times zero.
    @example((cases.VAECase(np.float32([[1e30, np.nan]])), None))
    @example((cases.VAECase(np.float32([[1e30], [0.0]])), np.float32([0, 1])))
    # The variance was 1e-8 of the squared scale, and steps 1e8 too far.
    @example((cases.VAECase(np.float32([[0.0]]), optimizer="sgd"), None))
    # Pseudo-inputs were NaN where a column has no value.
    @example((cases.VAECase(np.float32([[np.nan, 0.0]]), prior="vamp"), None))
    def test_no_nan_comes_of_finite_data(self, weighted_case):
        case, sample_weight = weighted_case
        x, model = case.x, case.make()
        self.check_training(model, case, x, sample_weight)
        self.check_use(model, x)
        if model.needs_index:
            self.assertFinite(model.stored_reconstruction(x, case.y))
        else:
            for parameter in model.encode(x):
                self.assertFinite(parameter)

    @drawn.FILES
    @given(st.one_of(cases.vaes(), cases.tvaes(exhaustive=True)), st.data())
    def test_keras_methods_give_no_nan(self, case, data):
        # With pipelines of tf.data, and the models' own functions as graphs.
        tf.config.run_functions_eagerly(False)
        model, size = case.make(), data.draw(st.integers(1, 7))
        logs = model.fit(
            case.x, case.y, batch_size=size, epochs=2, verbose=0
        ).history
        self.assertFinite(logs["bound"])
        self.assertFinite(logs["loss"])
        logs = model.evaluate(
            case.x, batch_size=size, verbose=0, return_dict=True
        )
        self.assertFinite(logs["bound"])
        whole = model.predict(case.x, batch_size=size, verbose=0)
        self.assertFinite(whole)
        self.assertAllClose(
            model.predict(case.x, verbose=0), whole, rtol=1e-4, atol=1e-37
        )

    @drawn.MODELS
    @given(EITHER, st.data())
    def test_numbers_of_any_type_are_the_same_data(self, case, data):
        x = data.draw(drawn.as_users_have_it(case.x))
        if case.likelihood in ("bernoulli", "sequence"):
            x = case.x.astype(np.float64)
        one = case._replace(x=x).make()
        other = case._replace(x=x.astype(np.float32)).make()
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            self.assertAllEqual(a, b)
        self.assertAllEqual(
            one.predict_on_batch(x),
            other.predict_on_batch(x.astype(np.float32)),
        )

    @drawn.FILES
    @given(EITHER)
    def test_booleans_are_refused(self, case):
        model = case.make()
        x = np.zeros(case.x.shape, bool)
        for method in (
            model.adapt,
            model.predict_on_batch,
            model.test_on_batch,
            model.log_likelihood_bound,
            lambda x: model.train_on_batch(x, case.y),
        ):
            with self.assertRaisesRegex(TypeError, "`x` must be numbers"):
                method(x)


class RowsTest(EagerTest):
    def outputs(self, model, x):
        if model.needs_index:
            found = model.infer(x)
            return [found.bound, model.posterior_mean(found), found.weights]
        return [
            model.predict_on_batch(x),
            *np.broadcast_arrays(*model.encode(x)),
        ]

    def outputs_of(self, model, x):
        if not model.needs_index:
            return self.outputs(model, x)[
                : 1 if model.has_binary_latents else 2
            ]
        return self.outputs(model, x)

    @drawn.MODELS
    @given(st.one_of(cases.vaes(), cases.tvaes(exhaustive=True)), st.data())
    def test_rows_do_not_depend_on_each_other(self, case, data):
        model = case.make()
        whole = self.outputs_of(model, case.x)
        order = np.array(data.draw(st.permutations(range(len(case.x)))))
        permuted = self.outputs_of(model, case.x[order])
        parts = [
            self.outputs_of(model, case.x[rows])
            for rows in data.draw(drawn.splits(len(case.x)))
        ]
        for place, expected in enumerate(whole):
            expected = np.asarray(expected)
            scale = np.abs(expected).max() or 1.0
            for found in (
                np.asarray(permuted[place])[np.argsort(order)],
                np.concatenate([part[place] for part in parts]),
            ):
                self.assertAllClose(
                    found / scale, expected / scale, rtol=1e-4, atol=1e-5
                )

    @drawn.MODELS
    @given(cases.tvaes(), st.data())
    def test_stored_states_are_distinct_and_belong_to_rows(self, case, data):
        model = case.make()
        model.train_on_batch(case.x, case.y)
        whole = model.stored_reconstruction(case.x, case.y)
        order = np.array(data.draw(st.permutations(range(len(case.x)))))
        found = model.stored_reconstruction(case.x[order], order)
        scale = np.abs(whole).max() or 1.0
        self.assertAllClose(found / scale, whole[order] / scale, rtol=1e-4)
        if model.states is not None:
            for row in model.states.packed.numpy():
                self.assertLen({bytes(s) for s in row}, case.num_states)
            log_joints = model.states.log_joints.numpy()
            self.assertTrue(np.all(np.diff(log_joints) <= 0.0))
            self.assertFinite(log_joints)

    @drawn.MODELS
    @given(
        st.one_of(cases.vaes(encoders=("mean",)), cases.tvaes(exhaustive=True)),
        st.data(),
    )
    def test_training_does_not_depend_on_the_order_of_a_batch(self, case, data):
        # Without draws, and with one M-step of all data points.
        case = case._replace(optimizer="sgd")
        if isinstance(case, cases.TVAECase):
            case = case._replace(settings={})
        order = np.array(data.draw(st.permutations(range(len(case.x)))))
        one, other = case.make(), case.make()
        before = trained_weights(one)
        one.train_on_batch(case.x, case.y)
        y = None if case.y is None else case.y[order]
        other.train_on_batch(case.x[order], y)
        self.assertSameSteps(
            before, trained_weights(other), trained_weights(one)
        )


class WeightsTest(EagerTest):
    @drawn.MODELS
    @given(
        st.one_of(
            cases.vaes(encoders=("mean",), scale=1.0),
            cases.tvaes(exhaustive=True, scale=1.0),
        ),
        st.data(),
    )
    def test_weights_are_numbers_of_rows(self, case, data):
        if isinstance(case, cases.TVAECase):
            case = case._replace(settings={})
        counts = np.array(
            data.draw(
                st.lists(
                    st.integers(0, 3),
                    min_size=len(case.x),
                    max_size=len(case.x),
                )
            )
        )
        assume(counts.any())
        rows = np.repeat(np.arange(len(case.x)), counts)
        models = case.make(), case.make()
        for model, size in zip(models, (len(case.x), len(rows)), strict=True):
            # The loss is a mean over rows: as many times the learning rate.
            model.compile(keras.optimizers.SGD(1e-2 * size), run_eagerly=True)
            if model.needs_index:
                model.prior.visits.assign(len(case.x))  # Ends a pass.
        if models[0].needs_index:
            bounds = [
                models[0].test_on_batch(
                    case.x, None, np.float32(counts), return_dict=True
                ),
                models[1].test_on_batch(case.x[rows], return_dict=True),
            ]
            self.assertAllClose(
                bounds[0]["bound"], bounds[1]["bound"], rtol=1e-5
            )
        if case[2] == "mean" and case.objective == "warm_up":
            # Weights of the rate alone are something else.
            return
        y = None if case.y is None else case.y[rows]
        before = trained_weights(models[0])
        models[0].train_on_batch(case.x, case.y, np.float32(counts))
        models[1].train_on_batch(case.x[rows], y)
        self.assertSameSteps(
            before, trained_weights(models[0]), trained_weights(models[1])
        )
        if models[0].needs_index:
            self.assertAllClose(
                models[0].prior_probs, models[1].prior_probs, atol=1e-4
            )


class UnitsTest(EagerTest):
    @drawn.MODELS
    @given(
        st.one_of(
            cases.vaes(cases.REAL, scale=1.0),
            cases.tvaes(cases.REAL, scale=1.0),
        ),
        drawn.BINARY_SCALES,
    )
    def test_bounds_shift_with_the_units_of_data(self, case, scale):
        # To multiples of 2**-10, which no scale takes out of float32, and off
        # the unit scale, at which encoders see data as they are.
        x = np.round(case.x * 2.0**10) / 2.0**10
        x = (x + 100.0).astype(np.float32)
        scale = scale if not 2.0**-14 < scale < 1.0 else 1.0 / scale
        scaled = (x * scale).astype(np.float32)
        expected = self.bounds(case._replace(x=x))
        found = self.bounds(case._replace(x=scaled))
        shift = (~np.isnan(x)).sum(1) * np.log(scale)
        self.assertAllClose(found + shift, expected, rtol=1e-4, atol=1e-2)

    def bounds(self, case):
        model = case.make()
        for _ in range(2):
            model.train_on_batch(case.x, case.y)
        return np.float64(model.log_likelihood_bound(case.x, 2))


class BoundsTest(EagerTest):
    @drawn.MODELS
    @given(cases.tvaes())
    def test_truncated_bound_is_at_most_the_likelihood(self, case):
        model = case.make()
        model.train_on_batch(case.x, case.y)
        bound = np.float64(model.log_likelihood_bound(case.x))
        exact = np.float64(model.log_likelihood(case.x))
        # The sum over all states is of inner products, which cancel.
        error = 1e-3 + 1e-4 * np.abs(exact)
        assume(np.all(np.abs(exact) < 1e4))
        self.assertTrue(np.all(bound <= exact + error), (bound, exact))
        if case.num_states == 2**case.num_latents:
            self.assertAllClose(bound, exact, rtol=1e-3, atol=1e-2)

    @drawn.MODELS
    @given(cases.vaes(encoders=("binary",)), st.integers(1, 20), drawn.SEEDS)
    def test_importance_bound_is_at_most_the_likelihood(
        self, case, num_samples, seed
    ):
        model = case.make()
        model.train_on_batch(case.x)
        bound = np.float64(
            model.log_likelihood_bound(case.x, num_samples, seed)
        )
        every = tf.constant([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        missing = np.isnan(case.x)
        x = tf.constant(np.where(missing, 0.0, case.x)[:, None], tf.float32)
        observed = tf.constant(~missing[:, None], tf.float32)
        log_joints = model.likelihood.log_prob(
            x, observed, model.decode_outputs(every)
        ) + model.prior.log_prob(every)
        exact = np.float64(tf.reduce_logsumexp(log_joints, -1))
        # An unbiased estimate of p(x) exceeds it e**t times, at most once in
        # e**t draws (Markov's inequality).
        self.assertTrue(np.all(bound <= exact + RARE + 1e-4 * np.abs(exact)))


class FilesTest(EagerTest):
    @drawn.FILES
    @given(st.one_of(cases.vaes(real_priors=EVERY_PRIOR), cases.tvaes()))
    def test_saving_changes_nothing(self, case):
        model = case.make()
        model.train_on_batch(case.x, case.y)
        folder = self.create_tempdir().full_path
        model.save(f"{folder}/model.keras")
        model.save_weights(f"{folder}/model.weights.h5")
        loaded = keras.saving.load_model(f"{folder}/model.keras")
        fresh = case._replace(seed=case.seed + 1).make()
        fresh.optimizer.build(fresh.trainable_variables)
        fresh.load_weights(f"{folder}/model.weights.h5")
        for other in (loaded, fresh):
            for a, b in zip(model.weights, other.weights, strict=True):
                self.assertAllEqual(a, b)
            other.seed = model.seed
            self.assertAllEqual(
                other.log_likelihood_bound(case.x, 2),
                model.log_likelihood_bound(case.x, 2),
            )
            self.assertAllEqual(
                other.predict_on_batch(case.x), model.predict_on_batch(case.x)
            )
        # And training goes on as if nothing had been saved.
        loaded.run_eagerly = True
        for one in (model, loaded):
            one.train_on_batch(case.x, case.y)
        for a, b in zip(model.weights, loaded.weights, strict=True):
            self.assertAllEqual(a, b)

    @pytest.mark.slow
    @drawn.FILES
    @given(st.one_of(cases.vaes(), cases.tvaes(exhaustive=True)))
    def test_exports_return_what_the_model_does(self, case):
        tf.config.run_functions_eagerly(False)
        model = case.make()
        folder = f"{self.create_tempdir().full_path}/1"
        serving.export_saved_model(model, folder)
        loaded = tf.saved_model.load(folder).signatures["serving_default"]
        found = loaded(data=tf.constant(case.x))
        reconstruct = model.infer_points(case.x)
        for name, expected in zip(("bound", "mean"), reconstruct, strict=True):
            self.assertFinite(found[name])
            scale = np.abs(expected).max() or 1.0
            self.assertAllClose(
                found[name] / scale, expected / scale, rtol=1e-4, atol=1e-5
            )


class FittedPriorTest(EagerTest):
    @drawn.FILES
    @given(
        cases.vaes(encoders=("gaussian", "frozen")),
        st.sampled_from(EVERY_PRIOR[1:]),
    )
    def test_fitted_prior_is_finite_and_leaves_the_model_as_it_was(
        self, case, name
    ):
        case = case._replace(x=np.concatenate([case.x] * 4))
        model = case.make()
        before = model.get_weights()
        fitted = model.with_fitted_prior(
            cases.PRIORS[name](2), case.x, epochs=1, batch_size=8
        )
        self.assertFinite(fitted.log_likelihood_bound(case.x, 2))
        self.assertFinite(fitted.sample(3))
        for a, b in zip(before, model.get_weights(), strict=True):
            self.assertAllEqual(a, b)
        self.assertAllEqual(
            fitted.predict_on_batch(case.x), model.predict_on_batch(case.x)
        )


if __name__ == "__main__":
    tf.test.main()
