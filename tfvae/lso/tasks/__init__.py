# SPDX-License-Identifier: Apache-2.0
"""Tasks: one module each, with a function of its name that makes it."""

from tfvae.lso.tasks import expressions, molecules, shapes

__all__ = ["expressions", "molecules", "shapes"]
