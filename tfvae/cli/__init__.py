# SPDX-License-Identifier: Apache-2.0
"""The command `tfvae`: flags, help and error messages of its subcommands."""
