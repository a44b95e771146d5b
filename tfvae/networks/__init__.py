# SPDX-License-Identifier: Apache-2.0
"""Decoder networks; any Keras layer of the same shapes does as well."""

from tfvae.networks.conv import ConvDecoder
from tfvae.networks.fc import FullyConnectedDecoder

__all__ = ["ConvDecoder", "FullyConnectedDecoder"]
