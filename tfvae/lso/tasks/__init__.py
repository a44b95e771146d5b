# SPDX-License-Identifier: Apache-2.0
"""Tasks: one module each, with a function of its name that makes it."""

import lazy_loader

# The names are those of __init__.pyi; their modules load on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
