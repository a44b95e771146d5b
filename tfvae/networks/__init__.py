# SPDX-License-Identifier: Apache-2.0
"""Encoder and decoder networks; any Keras network of the same shapes works."""

from tfvae.networks.conv import ConvDecoder, conv_encoder
from tfvae.networks.fc import FullyConnectedDecoder, fully_connected_encoder
from tfvae.networks.random import (
    RandomConvFeatures,
    RandomFeatures,
    random_conv_features,
    random_features,
)
from tfvae.networks.sequences import (
    residual_sequence_decoder,
    residual_sequence_encoder,
    sequence_decoder,
    sequence_encoder,
)
from tfvae.networks.strided import strided_conv_decoder, strided_conv_encoder
from tfvae.networks.upsampling import UpsampledConv2D, upsampling_decoder

__all__ = [
    "ConvDecoder",
    "FullyConnectedDecoder",
    "RandomConvFeatures",
    "RandomFeatures",
    "UpsampledConv2D",
    "conv_encoder",
    "fully_connected_encoder",
    "random_conv_features",
    "random_features",
    "residual_sequence_decoder",
    "residual_sequence_encoder",
    "sequence_decoder",
    "sequence_encoder",
    "strided_conv_decoder",
    "strided_conv_encoder",
    "upsampling_decoder",
]
