# SPDX-License-Identifier: Apache-2.0
"""Command-line interface: the command `tfvae` and its subcommands."""
