# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Parts of your own
#
# A model is composed of parts, and each part has an interface of a few
# functions. Here are a likelihood, a prior, an encoder, an evolutionary
# operator and a task that tfvae does not have, each in about ten lines, and
# each at work. They are saved with the model, as Keras saves layers. It takes
# about a minute.
#
# The first cell installs tfvae where it is missing, as on Colab: upload its
# wheel (`tfvae-*.whl`) there first.

# %%
import glob
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("tfvae") is None:
    (wheel,) = glob.glob("tfvae-*.whl")
    command = [sys.executable, "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(command, check=True)

# %%
import functools
import math
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tfvae
from tfvae import lso
from tfvae.ops import bits, random

keras.utils.set_random_seed(0)
EPOCHS = 40
BUDGET = 20  # queries of the optimisation


def show(rows):
    """Shows data points `[n, 64]` in a row for each title."""
    figure = plt.figure(figsize=(7.2, 1.15 * len(rows)))
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axis, (title, points) in zip(axes, rows.items(), strict=True):
        tiles = tfvae.plots.tiles(
            np.asarray(points), (8, 8, 1), len(points), (0.0, 1.0)
        )
        axis.imshow(tiles)
        axis.set_title(title, loc="left", fontsize=9)
        axis.axis("off")
    plt.tight_layout()
    plt.show()


# %% [markdown]
# ## The data
#
# Handwritten digits of 8 x 8 pixels, in which one pixel of ten has been
# replaced by a random value.

# %%
digits = tfvae.data.resplit_images(tfvae.data.sklearn_digits(), num_train=1297)
rng = np.random.default_rng(0)


def with_wrong_pixels(clean):
    is_wrong = rng.random(clean.shape) < 0.1
    values = rng.random(clean.shape)
    return np.where(is_wrong, values, clean).astype(np.float32)


x, test = with_wrong_pixels(digits.train), with_wrong_pixels(digits.test)
show({"clean": digits.test[:16], "as measured": test[:16]})

# %% [markdown]
# ## A likelihood
#
# A Gaussian likelihood pays the square of a deviation, so a wrong pixel pulls a
# great deal. The Laplace distribution pays its absolute value. A likelihood
# says what decoder outputs mean: the log-density of data `x`, of which
# `observed` is 1 where there is a value, the mean, and draws. The number and
# the shape of the outputs are those of the data unless `num_outputs` says
# otherwise.


# %%
@keras.saving.register_keras_serializable("mine")
class LaplaceLikelihood(tfvae.likelihoods.Likelihood):
    """p(x | z) = exp(-|x - output| / b) / (2 b), with b = 0.1."""

    def log_prob(self, x, observed, outputs):
        log_probs = -tf.abs(x - outputs) / 0.1 - math.log(0.2)
        return tf.reduce_sum(observed * log_probs, -1)

    def mean(self, outputs):
        return outputs

    def sample(self, seed, outputs):
        u = random.uniform(seed, tf.shape(outputs)) - 0.5 + 2.0**-24
        size = tf.math.log1p(-2.0 * tf.abs(u))
        return outputs - 0.1 * tf.sign(u) * size


# %% [markdown]
# ## A prior
#
# The logistic distribution has heavier tails than the normal one. A prior has
# `log_prob` and `sample`; the divergence of the posterior from it is estimated
# by one draw, unless it has a `kl` of its own.


# %%
@keras.saving.register_keras_serializable("mine")
class LogisticPrior(tfvae.priors.Prior):
    """p(z) of independent logistic latents with scale 1."""

    def log_prob(self, latents):
        return tf.reduce_sum(-latents - 2.0 * tf.nn.softplus(-latents), -1)

    def sample(self, seed, num_samples):
        u = random.uniform(seed, [num_samples, self.num_latents])
        u = tf.clip_by_value(u, 1e-6, 1.0 - 1e-6)
        return tf.math.log(u) - tf.math.log1p(-u)


# %% [markdown]
# ## An encoder
#
# An encoder policy is a function from a network factory and the number of
# latents to an `Encoder`: what is frozen, what is trained, and the posterior.
# This one looks at the principal components of the data, which are computed and
# not learned, and trains the network behind them.


# %%
def of_components(network, num_latents, *, data, num_components=24):
    """Returns an encoder of principal components."""
    mean = data.mean(0)
    axes = np.linalg.svd(data - mean, full_matrices=False)[2][:num_components].T
    projection = keras.layers.Dense(num_components)
    frozen = keras.Sequential(
        [keras.layers.Input((data.shape[1],)), projection]
    )
    projection.set_weights([axes, -mean @ axes])
    posterior = tfvae.GaussianPosterior()
    trained = network(posterior.num_outputs(num_latents))
    return tfvae.Encoder(frozen, trained, posterior)


# %% [markdown]
# ## The three together
#
# A VAE of our parts, beside one of the library's own with the same networks.

# %%
mine = tfvae.VAE(
    of_components(
        functools.partial(
            tfvae.fully_connected_encoder, num_observed=24, hidden=(128,)
        ),
        10,
        data=x,
    ),
    tfvae.FullyConnectedDecoder(64, (128,), "leaky_relu"),
    LogisticPrior(10),
    LaplaceLikelihood(),
)
theirs = tfvae.VAE(
    tfvae.learnable(
        functools.partial(
            tfvae.fully_connected_encoder, num_observed=64, hidden=(128,)
        ),
        10,
    ),
    tfvae.FullyConnectedDecoder(64, (128,), "leaky_relu"),
    tfvae.StandardNormalPrior(10),
    tfvae.GaussianLikelihood(),
)
restored = {}
for name, model in (("own parts", mine), ("library's", theirs)):
    model.adapt(x)
    model.compile(keras.optimizers.Adam(2e-3))
    inputs = (x, tfvae.frozen_features(model.encoder, x))
    model.fit(inputs, batch_size=64, epochs=EPOCHS, verbose=0)
    bound = model.evaluate(test, verbose=0, return_dict=True)["bound"]
    restored[name] = model.predict(test, verbose=0)
    error = np.sqrt(np.mean((restored[name] - digits.test) ** 2))
    print(f"{name}: bound {bound:.1f} nats, error {error:.4f} to clean digits")
show(
    {
        "as measured": test[:16],
        "reconstructed, own parts": restored["own parts"][:16],
        "reconstructed, the library's": restored["library's"][:16],
        "samples of own parts": mine.sample(16, mean=True),
    }
)

# %% [markdown]
# Bounds are bounds on the density of the data as measured, wrong pixels
# included; they compare only where densities are normalised. So let numbers
# check a density of your own. Does it integrate to 1, and are draws from it?
# The mean of |x - output| has to be b, which is 0.1.

# %%
grid = tf.reshape(tf.linspace(-3.0, 3.0, 60_001), [-1, 1])
likelihood, one = LaplaceLikelihood(), tf.ones_like(grid)
density = tf.exp(likelihood.log_prob(grid, one, 0.0 * grid))
print(f"integral of the density: {float(tf.reduce_sum(density)) * 1e-4:.4f}")
draws = likelihood.sample(tf.constant([1, 2]), 0.0 * grid)
print(f"mean |x - output| of draws: {float(tf.reduce_mean(abs(draws))):.4f}")
logistic = LogisticPrior(1)
draws = logistic.sample(tf.constant([1, 2]), 60_000)
print(f"variance of the prior's draws: {np.var(draws):.2f}")
print(f"that of a logistic distribution: {math.pi**2 / 3:.2f}")

# %% [markdown]
# ## Saved and loaded
#
# `register_keras_serializable` lets Keras find the classes again, in a program
# that has defined them. Without it `load_model` takes `custom_objects`.

# %%
path = f"{tempfile.mkdtemp()}/mine.keras"
mine.save(path)
loaded = keras.models.load_model(path)
same = np.allclose(loaded.predict(test, verbose=0), restored["own parts"])
print(f"{type(loaded.likelihood).__name__}, {type(loaded.prior).__name__}")
print(f"same reconstructions: {same}")

# %% [markdown]
# ## An operator
#
# A TVAE breeds latent states: from parents to children, as bits, eight a byte.
# Flips of one bit change how many latents are active. This operator moves the
# value of one latent to another one, which flips need two steps for. It is a
# function; `Crossover(mutation=...)` uses it beside crossover.


# %%
@keras.saving.register_keras_serializable("mine")
def exchange(seed, parents, num_children, expected_ones, num_latents):
    """Exchanges the values of two random latents in each child."""
    states = bits.unpack(parents, num_latents)  # [B, P, H]
    states = tf.repeat(states, num_children, axis=1)
    pairs = random.distinct_integers(seed, tf.shape(states)[:2], num_latents, 2)
    first, second = tf.unstack(tf.one_hot(pairs, num_latents), axis=2)
    change = tf.reduce_sum(states * (second - first), -1, keepdims=True)
    return bits.pack(states + change * (first - second))


# %%
data = tfvae.data.bars(num_data=500, num_latents=12)
index = np.arange(500)
bounds = {}
for name, variation in (
    ("flips", tfvae.RandFlip()),
    ("crossover, then exchange", tfvae.Crossover(mutation=exchange)),
):
    keras.utils.set_random_seed(0)
    tvae = tfvae.TVAE(
        tfvae.FullyConnectedDecoder(36, (12,)),
        num_latents=12,
        num_data=500,
        num_states=32,
        evolution=tfvae.Evolution(
            variation=variation, num_parents=4, num_children=3
        ),
        m_batch_size=25,
    )
    tvae.adapt(data.train)
    tvae.compile(keras.optimizers.Adam(1e-2))
    history = tvae.fit(
        data.train, index, batch_size=100, epochs=EPOCHS, verbose=0
    )
    bounds[name] = history.history["bound"]
    print(f"{name}: bound {bounds[name][-1]:.2f} nats")

plt.figure(figsize=(5.5, 2.8))
for name, values in bounds.items():
    plt.plot(1 + np.arange(EPOCHS), values, label=name)
plt.xlabel("epoch")
plt.ylabel("bound, nats a picture")
plt.legend()
plt.tight_layout()
plt.show()

# %% [markdown]
# One run each says little of which operator is better; that takes seeds.
#
# A likelihood of your own works in a TVAE, too. As ours does not say how to
# score all states of a batch by one matrix product (`features`), each data
# point keeps to its own states, `Evolution(shared=False)`; the error of the
# other setting says so.

# %%
tvae = tfvae.TVAE(
    tfvae.FullyConnectedDecoder(64, (64,)),
    num_latents=32,
    num_data=len(x),
    num_states=16,
    likelihood=LaplaceLikelihood(),
    evolution=tfvae.Evolution(shared=False),
)
tvae.adapt(x)
tvae.compile(keras.optimizers.Adam(2e-3))
history = tvae.fit(
    x, np.arange(len(x)), batch_size=64, epochs=EPOCHS // 4, verbose=0
)
first, last = history.history["bound"][0], history.history["bound"][-1]
print(f"Laplace TVAE: bound {first:.1f} -> {last:.1f} nats")

# %% [markdown]
# ## A task
#
# Something to optimise in the latent space of a model: data with scores, the
# objective, and how decoder outputs become inputs. Ours looks for the digit
# that is most like its mirror image, and has ink at all.


# %%
def symmetry(picture):
    """Returns the correlation with the mirror image, less missing ink."""
    image = picture.reshape(8, 8)
    likeness = np.corrcoef(image.ravel(), image[:, ::-1].ravel())[0, 1]
    return float(likeness - max(0.0, 0.25 - image.mean()))


def data_of(seed):
    points = digits.train
    scores = np.array([symmetry(one) for one in points])
    worst = np.argsort(scores)[:800]  # Better ones are to be found.
    return lso.ScoredData(points[worst], scores[worst])


def read(means, seed):
    return list(np.clip(means, 0.0, 1.0))


task = lso.Task("symmetry", data_of, symmetry, read)

# %%
optimizer = lso.LatentSpaceOptimizer.of_model(
    tempfile.mkdtemp(),
    task,
    mine,
    lso.Plan(BUDGET, queries_per_round=10, num_best=200, num_random=200),
    strategy=lso.ExpectedImprovement(),
    surrogate=lso.SparseGaussianProcess(num_inducing=100),
    weighting=lso.Rank(1e-3),
)
optimizer.run()
entries = optimizer.ledger.entries
known = task.data(0)
best = max(entries, key=lambda entry: entry.score)
print(f"best of the data: {known.scores.max():.3f}")
print(f"best of {BUDGET} queries: {best.score:.3f}")
order = np.argsort([-entry.score for entry in entries])[:8]
top = np.argsort(-known.scores)[:8]
show(
    {
        "best data": known.points[top],
        "best queries": [entries[i].input for i in order],
    }
)

# %% [markdown]
# ## On the command line
#
# With `@gin.register` above it, and `import my_parts` in a gin file, a part is
# a setting of `tfvae train` and the other commands; [TVAE](../tvae.md) shows it
# for an operator. [Contributing](../contributing.md#how-to-add-a) lists all
# interfaces, also those of objectives, data sources, strategies, surrogates and
# weightings. Their reference: [likelihoods](../reference/likelihoods.md),
# [priors](../reference/priors.md), [encoders](../reference/vae.md),
# [operators](../reference/tvae.md), [tasks](../reference/lso.md).
