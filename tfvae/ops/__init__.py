# SPDX-License-Identifier: Apache-2.0
"""Pure functions of tensors and arrays: densities, bounds, random draws."""

import lazy_loader

# The names are those of __init__.pyi; their modules load on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
