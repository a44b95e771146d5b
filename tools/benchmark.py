# SPDX-License-Identifier: Apache-2.0
"""Measures speed, quality and memory: `tfvae benchmark` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("benchmark"))
