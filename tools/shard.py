# SPDX-License-Identifier: Apache-2.0
"""Writes data points as shards: `tfvae shard` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("shard"))
