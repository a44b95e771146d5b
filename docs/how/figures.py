# SPDX-License-Identifier: Apache-2.0
"""Draws the figures of the pages on how the methods work, with the library.

  python docs/how/figures.py

The pictures stand beside this file. It takes some 45 s of processor time.
"""

from __future__ import annotations

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import keras  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tfvae  # noqa: E402
from tfvae import local_subspaces  # noqa: E402
from tfvae.data import bars, sklearn_digits  # noqa: E402
from tfvae.lso import weighting  # noqa: E402
from tfvae.priors import fit_prior  # noqa: E402

FOLDER = pathlib.Path(__file__).parent


def tvae() -> None:
    """Bounds over E-steps, and the log-likelihood by enumeration."""
    keras.utils.set_random_seed(0)
    x = bars(num_data=500).train
    decoder = tfvae.FullyConnectedDecoder(num_outputs=16, hidden=(8,))
    model = tfvae.TVAE(
        decoder, num_latents=8, num_data=len(x), num_states=32, m_batch_size=32
    )
    model.adapt(x)
    model.compile(keras.optimizers.Adam(0.02))
    model.fit(x, np.arange(len(x)), batch_size=250, epochs=40, verbose=0)
    exact = float(np.mean(model.log_likelihood(x)))
    steps = (1, 2, 3, 5, 8, 12, 20, 32, 50)
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    for num_states in (4, 16, 64):
        of_size = tfvae.TVAE(
            decoder,
            num_latents=8,
            num_data=1,
            num_states=num_states,
            evolution=tfvae.Evolution(
                shared=False, num_parents=2, num_children=2
            ),
        )
        of_size.adapt(x)
        of_size(x[:1])
        for to, of in (
            (of_size.prior, model.prior),
            (of_size.likelihood, model.likelihood),
        ):
            to.set_weights(of.get_weights())
        bounds = [
            np.mean(of_size.infer(x, 0, max_steps=num, tolerance=0.0).bound)
            for num in steps
        ]
        axes.semilogx(steps, bounds, "o-", ms=3, label=f"S = {num_states}")
    axes.axhline(exact, color="black", lw=1, label="log p(x), all 256 states")
    axes.set_xticks(steps, steps, minor=False)
    axes.minorticks_off()
    axes.set(xlabel="E-steps", ylabel="bound, nats a data point")
    axes.legend(frameon=False)
    _save(figure, "tvae")


def random_encoders() -> None:
    """Latents of a random encoder, and the densities of two priors."""
    keras.utils.set_random_seed(0)
    x = sklearn_digits().train
    network = functools.partial(
        tfvae.random_features,
        num_observed=x.shape[1],
        kernel="gaussian",
        scale=2.5,
        seed=1,
    )
    encoder = tfvae.random_kitchen_sinks(network, num_latents=2)
    encoder.adapt(x)
    latents = encoder(x).mean.numpy()
    flow = tfvae.RealNVPPrior(2, num_flows=6)
    fit_prior(flow, latents, epochs=300, patience=300)
    normal = tfvae.StandardNormalPrior(2)
    side = np.linspace(-1.6, 1.6, 161, dtype=np.float32)
    grid = np.stack(np.meshgrid(side, side), -1)
    figure, both = plt.subplots(1, 2, figsize=(7.2, 3.6), sharey=True)
    for axes, name, prior in zip(
        both, ("normal prior", "six flows"), (normal, flow), strict=True
    ):
        log_density = prior.log_prob(tf.constant(grid)).numpy()
        axes.contourf(
            side,
            side,
            log_density,
            np.arange(-8, 4),
            cmap="Blues",
            extend="min",
        )
        axes.plot(*latents.T, ".", ms=1.5, color="darkorange", alpha=0.7)
        mean = float(np.mean(prior.log_prob(tf.constant(latents))))
        axes.set(title=f"{name}: {mean:.2f} nats", aspect="equal")
        axes.set(xlabel="$z_1$")
    both[0].set(ylabel="$z_2$")
    _save(figure, "random_encoders")


def weighted_retraining() -> None:
    """Share of the draws that goes to the best data points."""
    num = 100_000
    scores = -np.arange(num, dtype=float)
    share = np.arange(1, num + 1) / num
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    for k in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, np.inf):
        weights = weighting.normalize(weighting.rank_weights(scores, k))
        axes.semilogx(share, np.cumsum(weights), label=f"k = {k:g}")
    axes.set(
        xlabel="the best share of the data",
        ylabel="share of the draws",
        xlim=(1e-4, 1.0),
    )
    axes.legend(frameon=False)
    _save(figure, "weighted_retraining")


def subspaces() -> None:
    """Singular values of one group of patches, and how they are shrunk."""
    side, num_patches, noise_std = 7, 70, 25.0
    crop = (100, 200, 64, 64)
    task = tfvae.corrupted_image("camera", crop=crop, noise_std=noise_std)
    clean, noisy = (_as_patches(one, side) for one in (task.clean, task.image))
    reference = noisy[len(noisy) // 2]
    near = np.argsort(np.square(noisy - reference).sum(1))[:num_patches]
    values = {
        name: np.linalg.svd(
            patches[near] - patches[near].mean(0), compute_uv=False
        )
        for name, patches in (("without noise", clean), ("noisy", noisy))
    }
    values["shrunk"] = local_subspaces.shrunk_values(
        tf.constant(values["noisy"][None], tf.float32),
        tf.constant([noise_std**2], tf.float32),
        num_patches,
        local_subspaces.LocalSubspaces().weight,
    ).numpy()[0]
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    for name, one in values.items():
        axes.plot(np.arange(1, 21), one[:20], "o-", ms=3, label=name)
    axes.set(xlabel="direction", ylabel="singular value, grey levels")
    axes.set(xticks=range(1, 21, 2))
    axes.legend(frameon=False)
    _save(figure, "local_subspaces")


def _as_patches(image: np.ndarray, side: int) -> np.ndarray:
    picture = np.reshape(image, (*np.shape(image)[:2], 1)).astype(np.float32)
    patches = local_subspaces.cut_patches(tf.constant(picture), side)
    return patches.numpy().reshape(-1, side * side)


def _save(figure: plt.Figure, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.png", dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    for draw in (tvae, random_encoders, weighted_retraining, subspaces):
        draw()
