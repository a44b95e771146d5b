# SPDX-License-Identifier: Apache-2.0
"""What every test shares: a quiet TensorFlow and an empty gin."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gin  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def clear_gin() -> Iterator[None]:
    """Leaves no binding of one test to the next one."""
    gin.clear_config()
    yield
    gin.clear_config()
