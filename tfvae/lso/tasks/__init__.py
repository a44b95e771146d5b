# SPDX-License-Identifier: Apache-2.0
"""Tasks: one file each."""

from tfvae.lso.tasks.expressions import expressions
from tfvae.lso.tasks.molecules import molecules, penalised_log_p
from tfvae.lso.tasks.shapes import area, shapes

__all__ = ["area", "expressions", "molecules", "penalised_log_p", "shapes"]
