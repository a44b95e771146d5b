# SPDX-License-Identifier: Apache-2.0
"""Variational autoencoders in TensorFlow."""

__version__ = "0.1.0"
