# SPDX-License-Identifier: Apache-2.0
"""Denoises and in-paints a picture: `tfvae denoise` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("denoise"))
