# SPDX-License-Identifier: Apache-2.0
"""Simulates an installed tfvae, without the packages that only clones have."""

from __future__ import annotations

import pathlib
import sys
from unittest import mock

_CLONE = ("benchmarks", "papers")


def hide_clone(test):
    """Makes imports of what an installed tfvae lacks fail.

    Args:
      test: The test, at whose end they can be imported again.
    """
    test.enter_context(mock.patch.dict(sys.modules))
    for name in [*sys.modules]:
        if name.partition(".")[0] in _CLONE:
            del sys.modules[name]
    rest = [
        one
        for one in sys.path
        if not any((pathlib.Path(one) / name).is_dir() for name in _CLONE)
    ]
    test.enter_context(mock.patch.object(sys, "path", rest))
