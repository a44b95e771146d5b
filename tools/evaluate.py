# SPDX-License-Identifier: Apache-2.0
"""Evaluates a run on held-out data: `tfvae evaluate` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("evaluate"))
