# SPDX-License-Identifier: Apache-2.0
"""Shows the runs of a folder in a browser: `tfvae board` of this clone."""

import sys

import clone

if __name__ == "__main__":
    sys.exit(clone.run("board"))
