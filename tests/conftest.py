# SPDX-License-Identifier: Apache-2.0
"""What every test shares: quiet logs, a temporary folder, an empty gin."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a process for each core: more threads would wait for each other.
    for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(_name, "1")
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import gin  # noqa: E402
import hypothesis  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402
from absl.testing import absltest  # noqa: E402, F401 (defines --test_tmpdir)

from tests import grids  # noqa: E402

# Property tests draw the same examples in each run, or with
# --hypothesis-profile=thorough twenty times as many, others in each run.
hypothesis.settings.register_profile(
    "quick",
    max_examples=24,
    deadline=None,
    derandomize=True,
    print_blob=True,
    phases=[phase for phase in hypothesis.Phase if phase.name != "explain"],
)
hypothesis.settings.register_profile(
    "thorough",
    hypothesis.settings.get_profile("quick"),
    max_examples=480,
    derandomize=False,
)
hypothesis.settings.load_profile("quick")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks cases that a grid leaves to `make slow`."""
    if grids.is_slow(getattr(item, "obj", None), item.name):
        item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="session")
def temporary_folder() -> Iterator[None]:
    """Lets `create_tempdir` of the tests write to a folder that goes away."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["pytest"])
    with tempfile.TemporaryDirectory() as folder:
        flags.FLAGS.test_tmpdir = folder
        yield


@pytest.fixture(autouse=True, scope="session")
def heeded_interrupts() -> None:
    """Lets interrupts arrive, which a shell's background jobs ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def frozen_leftovers() -> None:
    """Spares collections of garbage what modules before have left for good.

    That is TensorFlow, all test modules, and the models that tests share.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clear_gin() -> Iterator[None]:
    """Leaves no binding of one test to the next one."""
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture
def kept_kernels(request: pytest.FixtureRequest) -> None:
    """Lets the tests of a class share graphs that are optimised already.

    `tf.test.TestCase` sets TensorFlow's seed before each test, and with that
    throws away what has become of graphs: half a second for one with an
    E-step. For tests that draw nothing from that seed.
    """
    request.instance._set_default_seed = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out `test_session`, a helper that tf.test.TestCase inherits."""
    items[:] = [item for item in items if item.name != "test_session"]
