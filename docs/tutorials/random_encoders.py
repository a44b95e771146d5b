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
# # An encoder for nothing
#
# A VAE has two networks, and its encoder is trained only to find the latents of
# a picture. How much of it has to be? Here are four encoders on handwritten
# digits: one that is trained, one whose last layer alone is, one that keeps its
# random weights, and one layer of random features ("random kitchen sinks"). A
# random encoder puts the latents where they happen to fall, which is not where
# a normal prior draws them; a RealNVP prior learns where that is. It takes
# about two minutes.
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
import time

import keras
import matplotlib.pyplot as plt
import numpy as np

import tfvae

EPOCHS = 25
LATENTS = 16
SIZE = 16  # of the digits, pixels

# %% [markdown]
# ## The data
#
# The 1,797 digits of scikit-learn, enlarged from 8 x 8 pixels.

# %%
digits = tfvae.data.resplit_images(
    tfvae.data.sklearn_digits(), num_train=1297, upscale=SIZE // 8
)
x, test = digits.train, digits.test
shape = digits.event_shape
print(f"{len(x)} digits to train on, {len(test)} to test, {x.shape[1]} pixels")

# %% [markdown]
# ## Four encoders, two priors
#
# The same network goes to each of the first three functions, which decide what
# of it is trained. Random features are a network of one layer.

# %%
network = functools.partial(
    tfvae.fully_connected_encoder, num_observed=x.shape[1], hidden=(256, 128)
)
sinks = functools.partial(tfvae.random_features, num_observed=x.shape[1])
ENCODERS = {
    "learned": functools.partial(tfvae.learnable, network),
    "half frozen": functools.partial(tfvae.partially_non_learnable, network),
    "frozen": functools.partial(tfvae.non_learnable, network),
    "kitchen sinks": functools.partial(tfvae.random_kitchen_sinks, sinks),
}
PRIORS = {
    "normal": tfvae.StandardNormalPrior,
    "6 flows": functools.partial(tfvae.RealNVPPrior, num_flows=6),
}


def train(make_encoder, make_prior):
    """Returns a trained model."""
    keras.utils.set_random_seed(0)
    encoder = make_encoder(LATENTS)
    model = tfvae.VAE(
        encoder,
        tfvae.FullyConnectedDecoder(x.shape[1], (128, 256), "leaky_relu"),
        make_prior(LATENTS),
    )
    model.adapt(x)
    model.compile(keras.optimizers.Adam(1e-3))
    inputs = (x, tfvae.frozen_features(encoder, x))
    model.fit(inputs, batch_size=64, epochs=EPOCHS, verbose=0)
    return model


# %% [markdown]
# `frozen_features` computes what the frozen part of an encoder returns, once
# for all epochs. It is None where nothing is frozen, so the lines are the same
# for all encoders.

# %%
models = {
    (encoder, prior): train(ENCODERS[encoder], PRIORS[prior])
    for prior in PRIORS
    for encoder in ENCODERS
}

# %% [markdown]
# ## Bounds
#
# The importance-weighted bound on the log-likelihood of test digits, with 64
# draws for each, and its evidence lower bound (ELBO) in two parts: how well
# digits are reconstructed, and the divergence of the latents from the prior.
# Parameters are those that are trained.

# %%
print("encoder        prior    bound   ELBO  likelihood     KL  parameters")
for (encoder, prior), model in models.items():
    bounds = model.log_likelihood_bound(test, num_samples=64)
    parts = model.evaluate(test, verbose=0, return_dict=True)
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    print(
        f"{encoder:14} {prior:8}{np.mean(bounds):6.0f}"
        f"{parts['bound']:7.0f}{parts['log_likelihood']:12.0f}"
        f"{parts['kl']:7.1f}{count:12,}"
    )

# %% [markdown]
# A frozen encoder has means only, with the tiny variance 1e-6, as published.
# Its entropy is 6.9 nats a latent below that of a standard normal, so
# divergences and bounds start some 100 nats behind with 16 latents. Compare
# frozen encoders with each other: of theirs, bounds say how well prior and
# decoder fit what the encoder happens to do.
#
# ## Samples

# %%
figure = plt.figure(figsize=(9.0, 4.9))
axes = figure.subplots(len(PRIORS), len(ENCODERS))
for row, prior in zip(axes, PRIORS, strict=True):
    for axis, encoder in zip(row, ENCODERS, strict=True):
        samples = models[encoder, prior].sample(36, mean=True)
        tiles = tfvae.plots.tiles(np.asarray(samples), shape, 6, (0.0, 1.0))
        axis.imshow(tiles)
        axis.set_title(f"{encoder}, {prior}", fontsize=9)
        axis.axis("off")
plt.tight_layout()
plt.show()

# %% [markdown]
# The latents of a random encoder do not look normal: their spread is that of
# random projections of the data. Draws from a standard normal miss them, and
# flows learn to hit them. Here are two latents of the frozen encoder, for test
# digits, beside draws of both priors.

# %%
figure = plt.figure(figsize=(9.0, 3.2))
axes = figure.subplots(1, 3, sharex=True, sharey=True)
latents = models["frozen", "normal"].posterior_mode(test)
panels = {"latents of test digits": latents}
for prior in PRIORS:
    draws = models["frozen", prior].sample_prior(len(test)).numpy()
    panels[f"draws, {prior}"] = draws
for axis, (title, points) in zip(axes, panels.items(), strict=True):
    axis.plot(points[:, 0], points[:, 1], ".", ms=3, alpha=0.6)
    axis.set_title(title, fontsize=9)
plt.tight_layout()
plt.show()
for title, points in panels.items():
    print(f"{title:24} standard deviation {points.std(0).mean():.2f}")

# %% [markdown]
# How good are samples, as a number? The Frechet distance compares their
# statistics with those of test digits, in features of a small classifier of the
# digits. Compare it within this table only.

# %%
metrics = tfvae.metrics
classifier = metrics.ClassifierFeatures(digits)
reference = metrics.Reference.of(classifier, test)
print(f"accuracy of the classifier: {classifier.test_accuracy:.2f}")
print("Frechet distance", *(f"{name:>14}" for name in ENCODERS))
for prior in PRIORS:
    row = []
    for encoder in ENCODERS:
        samples = models[encoder, prior].sample(len(test), mean=True)
        found = metrics.sample_distances(np.asarray(samples), reference)
        row.append(f"{found.frechet_distance:14.1f}")
    print(f"{prior:16}", *row)

# %% [markdown]
# ## What is frozen is computed once
#
# Frozen layers take no gradient and no optimizer state, and with
# `frozen_features` no time either. It pays where the frozen part is large, such
# as convolutions: here the processor time of an epoch with a convolutional
# encoder, each the least of two epochs.

# %%
conv = functools.partial(tfvae.conv_encoder, image_shape=shape)
COSTS = {
    "learned": (tfvae.learnable, False),
    "frozen": (tfvae.non_learnable, False),
    "frozen, with its features": (tfvae.non_learnable, True),
}
for name, (policy, is_cached) in COSTS.items():
    encoder = policy(conv, LATENTS)
    decoder = tfvae.FullyConnectedDecoder(x.shape[1], (128, 256))
    model = tfvae.VAE(encoder, decoder, tfvae.StandardNormalPrior(LATENTS))
    model.adapt(x)
    model.compile(keras.optimizers.Adam(1e-3))
    inputs = (x, tfvae.frozen_features(encoder, x)) if is_cached else x
    times = []
    for _ in range(3):  # The first one is spent on making graphs.
        start = time.process_time()
        model.fit(inputs, batch_size=64, verbose=0)
        times.append(time.process_time() - start)
    count = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    print(f"{name:26} {min(times[1:]):.2f} s an epoch, {count:,} parameters")

# %% [markdown]
# ## Where to go on
#
# One run says little of a method: `tfvae study` trains all 24 models of the
# thesis this is from, with repetitions and tests, and the page
# [Random encoders and flow priors](../random_encoders.md) has what came out.
# Its command for these digits takes an hour. The policies and priors are in the
# reference, [VAE](../reference/vae.md) and [priors](../reference/priors.md).
# To fit a flow to a model that is trained already, there is
# `model.with_fitted_prior(tfvae.RealNVPPrior(16), x)`.
