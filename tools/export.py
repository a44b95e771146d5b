# SPDX-License-Identifier: Apache-2.0
"""Exports a run for TensorFlow Serving: `tfvae export` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("export"))
