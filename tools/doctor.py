# SPDX-License-Identifier: Apache-2.0
"""Says what is installed and whether it works: `tfvae doctor` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("doctor"))
