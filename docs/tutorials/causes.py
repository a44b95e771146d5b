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
# # Find the causes
#
# A picture is often made of parts that are there or not. A TVAE has binary
# latents, one for each part, and finds the parts from pictures alone. First
# parts that we know, bars, so that everything can be checked: what each latent
# means, what the posterior of a picture says, and how tight the bound is. Then
# patches of photographs, whose parts nobody knows. It takes about two minutes.
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
import keras
import matplotlib.pyplot as plt
import numpy as np

import tfvae
from tfvae.ops import bits

keras.utils.set_random_seed(0)
CYCLES = 6  # of the learning rate, on bars
PATCHES = 3000
EPOCHS = 16  # on patches


def show(points, shape, per_row, limits, title):
    """Shows data points `[n, D]` as tiles."""
    picture = tfvae.plots.tiles(np.asarray(points), shape, per_row, limits)
    width = min(0.75 * per_row, 7.0)
    plt.figure(figsize=(width, 0.3 + width * len(picture) / picture.shape[1]))
    plt.imshow(picture)
    plt.title(title, fontsize=10, loc="left")
    plt.axis("off")
    plt.tight_layout()
    plt.show()


# %% [markdown]
# ## Bars
#
# Each picture of 4 x 4 pixels has some of 8 bars, each with probability 1/4.
# Where bars cross, they add up, and noise of standard deviation 0.3 is on top.

# %%
data = tfvae.data.bars(num_data=500, noise_variance=0.09)
x = data.train
show(x[:16], (4, 4), 8, (0.0, 2.0), "data")

# %% [markdown]
# ## Training
#
# The model knows neither the bars nor how many a picture has. Its decoder is a
# network with 8 hidden units, and for each picture it keeps the 32 best of all
# $2^8 = 256$ states that it has met. Gradient ascent ends in a local optimum
# now and then, in which two latents share a bar, say. `Exploration` therefore
# begins again and again with the best parameters, half of each redrawn, and the
# learning rate goes up and down with it.

# %%
PERIOD = 20  # epochs of a cycle
BATCH = 32

index = np.arange(len(x))
model = tfvae.TVAE(
    tfvae.FullyConnectedDecoder(num_outputs=16, hidden=(8,)),
    num_latents=8,
    num_data=len(x),
    num_states=32,
    likelihood=tfvae.GaussianLikelihood(initial_variance=0.1),
    exploration=tfvae.Exploration(PERIOD, until=PERIOD * (CYCLES - 2)),
)
model.adapt(x)
rate = tfvae.TriangularCyclical(1e-4, 0.05, PERIOD // 2 * len(x) // BATCH)
model.compile(keras.optimizers.Adam(rate), steps_per_execution=16)
history = model.fit(
    x,
    index,
    batch_size=BATCH,
    epochs=PERIOD * CYCLES,
    callbacks=[tfvae.Explore()],
    verbose=0,
)

plt.figure(figsize=(6, 2.8))
plt.plot(1 + np.arange(PERIOD * CYCLES), history.history["bound"])
plt.axhline(data.log_likelihood, color="k", ls="--", label="the data's truth")
plt.ylim(-25, None)
plt.xlabel("epoch")
plt.ylabel("bound, nats a picture")
plt.legend()
plt.tight_layout()
plt.show()

# %% [markdown]
# The dashed line is the log-likelihood of the model that drew the data. A
# trained model may get a little above it, because it is fitted to these data.
#
# ## What a latent means
#
# Two ways to see it. The mean picture where one latent alone is active, $E[x
# \mid s = e_h]$, is `singleton_means`; less that of no active latent, it is
# what the latent adds. The last weights of the decoder have a picture for each
# hidden unit, which the latents share; they mean less, as the same pictures
# come about by many weights.

# %%
order = np.argsort(-model.prior_probs.numpy())
empty = model.decode(np.zeros((1, 8), np.float32)).numpy()
alone = model.singleton_means().numpy()[order]
show(alone, (4, 4), 8, (0.0, 1.5), "each latent alone")
show(alone - empty, (4, 4), 8, (-1.0, 1.0), "what it adds to no bar")
kernel = model.decoder.layers[-1].kernel.numpy()  # [hidden units, pixels]
kernel = kernel * float(model.likelihood.scale)
show(kernel, (4, 4), 8, (-1.5, 1.5), "last weights of the decoder")

# %% [markdown]
# For bars one can say which latent is which: the bar that is most like what it
# adds. `pi` is the probability that the latent is active, 0.25 in truth; a
# latent with the correlation 1 is a bar.

# %%
likeness = np.corrcoef(alone - empty, data.features)[:8, 8:]
names = [f"row {i}" for i in range(4)] + [f"column {i}" for i in range(4)]
for latent, row in zip(order, likeness, strict=True):
    bar = int(row.argmax())
    pi = float(model.prior_probs[int(latent)])
    print(
        f"latent {latent}: pi {pi:.2f}, {names[bar]:8} (correlation "
        f"{row[bar]:.3f})"
    )
found = {int(row.argmax()) for row in likeness if row.max() > 0.9}
print(f"{len(found)} of 8 bars found")

# %% [markdown]
# Which latents are active on average is a count that needs no truth: the mean
# over pictures of how many latents are on, under their posteriors.

# %%
print(f"active latents: {history.history['active'][-1]:.2f} a picture")

# %% [markdown]
# ## The posterior of one picture
#
# For an unseen picture, `infer` evolves states anew. The truncated posterior
# has a weight for each of the 32, the joint probabilities $p(x, s)$ divided by
# their sum. We take away the upper row of a picture: `NaN` marks what was not
# seen. Columns still show below, but whether the bar of that row was there,
# nothing says. So the states come in pairs, with and without this bar, and
# their weights are in about the ratio of the prior, 1 to 3.

# %%
unseen = tfvae.data.bars(num_data=200, noise_variance=0.09, seed=1).train
picture = unseen[(unseen.sum(1) > 10.0).argmax()].copy()
picture.reshape(4, 4)[0] = np.nan
posterior = model.infer(picture[None])
weights = posterior.weights.numpy()[0]
states = bits.unpack(posterior.packed[0], 8).numpy()
for state, weight in zip(states[:4], weights[:4], strict=True):
    bars = [
        names[int(likeness[np.flatnonzero(order == h)[0]].argmax())]
        for h in np.flatnonzero(state)
    ]
    print(f"{weight:.3f}  {', '.join(bars) or 'no bar'}")

means = model.decode(states[:4]).numpy()
mean = model.posterior_mean(posterior).numpy()
row = np.concatenate([picture[None], means, mean])
show(
    row,
    (4, 4),
    6,
    (0.0, 2.0),
    "seen, the four best states, and the posterior's mean",
)

# %% [markdown]
# ## How tight is the bound?
#
# The bound is $\log \sum_{s \in K} p(x, s)$ over the 32 states $K$ of a
# picture. With 8 latents one can sum over all 256 states, which is the exact
# log-likelihood, $\log p(x)$. The bound is never above it, and what it lacks is
# $-\log$ of the posterior mass of the states that were left out. The search for
# states ends when an evolutionary step gains little on average, so that it may
# leave a few pictures behind; more steps find their states, too.

# %%
exact = model.log_likelihood(unseen).numpy()
print(f"log p(x), exact: {exact.mean():.4f} nats a picture")
figure = plt.figure(figsize=(6.4, 3.2))
axes = figure.subplots(1, 2, sharex=True, sharey=True)
searches = {
    "as set in the model": model.infer(unseen),
    "100 steps": model.infer(unseen, max_steps=100, tolerance=0.0),
}
for axis, (name, found) in zip(axes, searches.items(), strict=True):
    bound = found.bound.numpy()
    gap = exact - bound
    print(
        f"{name}, {found.num_steps} steps: bound {bound.mean():.4f}, gap "
        f"{gap.mean():.1e} on average, {gap.max():.1e} at most"
    )
    axis.plot(exact, bound, ".", alpha=0.5)
    axis.axline((exact.mean(), exact.mean()), slope=1, color="k", lw=0.8)
    axis.set_title(name, fontsize=9)
    axis.set_xlabel("log p(x) by enumeration, nats")
axes[0].set_ylabel("bound, nats")
plt.tight_layout()
plt.show()

# %% [markdown]
# How many states are enough? `infer` has the best states first, so sums over
# the first of them are the bounds of fewer.

# %%
log_weights = np.log(np.maximum(found.weights.numpy(), 1e-38))
for count in (1, 2, 4, 8, 16, 32):
    kept = bound + np.logaddexp.reduce(log_weights[:, :count], axis=1)
    print(f"{count:2} states: gap {np.mean(exact - kept):.1e} nats a picture")

# %% [markdown]
# ## Patches of photographs
#
# Now parts that nobody knows: patches of 8 x 8 pixels of photographs, whitened,
# so that all directions have the same variance. The data points share their
# candidates: a large batch searches better, and the decoder takes a gradient
# step for every `m_batch_size` of it.

# %%
data = tfvae.data.image_patches(
    ["camera", "brick", "gravel", "grass", "coins"],
    patch=(8, 8),
    num_patches=PATCHES,
    brightest_fraction=0.02,
    whiten=True,
)
x = data.train
index = np.arange(len(x))
contrast = 2.0 * float(x.std())
show(x[:24], (8, 8, 1), 12, (-contrast, contrast), "data")

decoder = tfvae.FullyConnectedDecoder(num_outputs=64, hidden=(64,))
model = tfvae.TVAE(
    decoder, num_latents=64, num_data=len(x), num_states=16, m_batch_size=32
)
model.adapt(x)
model.compile(keras.optimizers.Adam(3e-3))
history = model.fit(x, index, batch_size=1024, epochs=EPOCHS, verbose=0)
bounds = history.history["bound"]
print(f"bound: {bounds[0]:.2f} -> {bounds[-1]:.2f} nats a patch")
print(f"active latents: {history.history['active'][-1]:.2f} a patch")

# %% [markdown]
# What each latent adds, the most frequent first. Some are edges and lines of an
# orientation and a place, as in the visual cortex; others are flat.

# %%
order = np.argsort(-model.prior_probs.numpy())
empty = model.decode(np.zeros((1, 64), np.float32)).numpy()
added = model.singleton_means().numpy()[order] - empty
limit = float(np.quantile(np.abs(added), 0.98))
show(added, (8, 8, 1), 16, (-limit, limit), "what each latent adds")

plt.figure(figsize=(5, 2.2))
plt.bar(np.arange(64), model.prior_probs.numpy()[order])
plt.xlabel("latent, the most frequent first")
plt.ylabel("pi")
plt.tight_layout()
plt.show()

# %% [markdown]
# And what makes up one patch: the latents of its best state, each alone, then
# their joint mean beside the patch. They need not add up, as the decoder is a
# network.

# %%
modes = model.posterior_mode(x[:500], index[:500])
strength = np.linalg.norm(x[:500], axis=1)
patch = int(np.argmax(strength * (modes.sum(1) == 4)))
active = np.flatnonzero(modes[patch])
parts = model.singleton_means().numpy()[active] - empty
joint = model.decode(modes[patch : patch + 1]).numpy()
print(f"patch {patch} has the latents {active.tolist()}")
show(
    np.concatenate([parts, joint, x[patch : patch + 1]]),
    (8, 8, 1),
    len(parts) + 2,
    (-contrast, contrast),
    "the active latents, their joint mean, the patch",
)

# %% [markdown]
# With 64 latents nothing can be enumerated, and the bound is all there is: it
# is a bound whatever the states are, and more of them or more E-steps raise it.
#
# ## Where to go on
#
# `tfvae train --gin_file=papers/ecml2022_tvae/bars.gin --run_dir=runs/bars`
# does the first half with the published settings, and
# `papers/ecml2022_tvae/natural_patches.gin` is the second one in the size of
# the paper, 100,000 patches and 300 latents. How it works is on the page
# [TVAE](../tvae.md), the arguments are in the
# [reference](../reference/tvae.md).
