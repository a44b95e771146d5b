# SPDX-License-Identifier: Apache-2.0
"""A VAE of the peptides of `text_from_csv.py`, built and trained with Keras.

`with_optuna.py` and `with_botorch.py` search its latent space. The command
`tfvae optimize` makes one by itself.
"""

import functools

import keras

import tfvae
from examples.text_from_csv import task


def trained(epochs: int = 200) -> tfvae.VAE:
    """Returns a VAE of 4 latents, the same one whenever it is called."""
    keras.utils.set_random_seed(0)
    points = task.data(0).points  # [200, 200]
    network = functools.partial(
        tfvae.fully_connected_encoder,
        num_observed=points.shape[1],
        hidden=(64,),
    )
    model = tfvae.VAE(
        tfvae.learnable(network, num_latents=4),
        tfvae.FullyConnectedDecoder(points.shape[1], (64,)),
        tfvae.StandardNormalPrior(4),
        tfvae.BernoulliLikelihood(),
    )
    model.adapt(points)
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(points, batch_size=50, epochs=epochs, verbose=0)
    return model
