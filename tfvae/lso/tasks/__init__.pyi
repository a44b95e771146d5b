# SPDX-License-Identifier: Apache-2.0

from . import expressions, molecules, shapes

__all__ = ["expressions", "molecules", "shapes"]
