# SPDX-License-Identifier: Apache-2.0
"""Runs a grid of models and reports on it: `tfvae study` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("study"))
