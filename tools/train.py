# SPDX-License-Identifier: Apache-2.0
"""Trains a model on data points: `tfvae train` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("train"))
