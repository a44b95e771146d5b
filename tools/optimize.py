# SPDX-License-Identifier: Apache-2.0
"""Optimises a black box in a latent space: `tfvae optimize` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("optimize"))
