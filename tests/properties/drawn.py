# SPDX-License-Identifier: Apache-2.0
"""Strategies that draw data of any shape, type and scale, and settings.

The number of examples follows from Hypothesis's profile, see conftest.py: a
test of pure functions runs all of them, a slower one a part.
"""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

_NUM_EXAMPLES = hypothesis.settings.default.max_examples
# Of a test that makes layers, models, and files or graphs.
LAYERS = hypothesis.settings(max_examples=_NUM_EXAMPLES // 2)
MODELS = hypothesis.settings(max_examples=_NUM_EXAMPLES // 8)
FILES = hypothesis.settings(max_examples=_NUM_EXAMPLES // 12)

SEEDS = st.integers(0, 2**31 - 1)
# Powers of ten, and of two, which change no mantissa.
SCALES = st.one_of(
    st.just(1.0),
    st.sampled_from([1e-30, 1e-20, 1e20, 1e30]),
    st.integers(-30, 30).map(lambda k: 10.0**k),
)
BINARY_SCALES = st.integers(-90, 90).map(lambda k: 2.0**k)
WEIGHTS = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, 0.5]),
    st.sampled_from([1e-30, 1e-8, 1e8, 1e12]),
)
# The largest data: their squares overflow in float32 by far.
_LARGEST = 1e37
_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64")


def floats(low: float, high: float, **kwargs) -> st.SearchStrategy[float]:
    """Draws float32 numbers, none of them subnormal."""
    return st.floats(
        np.float32(low).item(),
        np.float32(high).item(),
        width=32,
        **{"allow_subnormal": False, **kwargs},
    )


def arrays(shape, low=-4.0, high=4.0) -> st.SearchStrategy[np.ndarray]:
    """Draws float32 arrays of numbers near 1.

    Half of them are of a random generator, as those that Hypothesis draws
    have few distinct entries, which hides many faults.
    """

    def random(seed: int) -> np.ndarray:
        found = np.random.default_rng(seed).uniform(low, high, shape)
        return found.astype(np.float32)

    drawn = hnp.arrays(np.float32, shape, elements=floats(low, high))
    return st.one_of(drawn, SEEDS.map(random))


def masks(shape) -> st.SearchStrategy[np.ndarray]:
    """Draws boolean arrays, most entries False, some columns True."""
    entries = hnp.arrays(np.bool_, shape, fill=st.just(False))
    columns = hnp.arrays(np.bool_, shape[-1:], fill=st.just(False))
    return st.builds(np.logical_or, entries, columns)


@st.composite
def missing(draw, x: np.ndarray) -> np.ndarray:
    """Draws `x` [N, D] with some entries missing, but none of all rows."""
    if not draw(st.booleans()):
        return x
    mask = draw(masks(x.shape))
    mask[mask.all(1), 0] = False
    return np.where(mask, np.nan, x).astype(x.dtype)


@st.composite
def reals(
    draw, num_observed: int, max_rows: int = 6, scale: float | None = None
) -> np.ndarray:
    """Draws real data, float32 `[N, D]`, NaN where missing.

    They have any scale, an offset, constant columns, a row far from the others.
    """
    num_data = draw(st.integers(1, max_rows))
    x = draw(arrays((num_data, num_observed))).astype(np.float64)
    x += draw(st.sampled_from([0.0, 1.0, -1e3, 1e6]))
    constant = draw(hnp.arrays(np.bool_, num_observed, fill=st.just(False)))
    x[:, constant] = x[:1, constant]
    if draw(st.booleans()):
        x[draw(st.integers(0, num_data - 1))] *= 1e6
    x *= draw(SCALES) if scale is None else scale
    x = np.clip(x, -_LARGEST, _LARGEST).astype(np.float32)
    return draw(missing(x))


@st.composite
def unit(draw, num_observed: int, max_rows: int = 6) -> np.ndarray:
    """Draws data on [0, 1], float32 `[N, D]`, NaN where missing."""
    num_data = draw(st.integers(1, max_rows))
    x = draw(arrays((num_data, num_observed), 0.0, 1.0))
    if draw(st.booleans()):
        x = np.round(x)
    return draw(missing(x))


@st.composite
def sequences(
    draw, num_steps: int, num_symbols: int, max_rows: int = 6
) -> np.ndarray:
    """Draws symbols or their probabilities, float32 `[N, T K]`.

    Some steps are missing.
    """
    num_data = draw(st.integers(1, max_rows))
    shape = (num_data, num_steps)
    symbols = draw(
        hnp.arrays(np.int64, shape, elements=st.integers(0, num_symbols - 1))
    )
    x = np.eye(num_symbols, dtype=np.float32)[symbols]
    if draw(st.booleans()):
        x = draw(arrays(x.shape, 0.1, 1.0))
        x /= x.sum(-1, keepdims=True)
    gaps = draw(hnp.arrays(np.bool_, shape, fill=st.just(False)))
    gaps[gaps.all(1), 0] = False
    x[gaps] = np.nan
    return x.reshape(num_data, -1)


@st.composite
def as_users_have_it(draw, x: np.ndarray) -> np.ndarray:
    """Draws the type of data: floats of any size, integers where they fit."""
    dtype = np.dtype(draw(st.sampled_from(_DTYPES)))
    if dtype.kind == "f":
        limit = np.finfo(dtype).max
        return np.clip(x.astype(np.float64), -limit, limit).astype(dtype)
    info = np.iinfo(dtype)
    whole = np.nan_to_num(np.round(x.astype(np.float64)))
    # One more than the largest int64 is what its float64 is rounded to.
    return np.clip(whole, info.min, min(info.max, 2**53)).astype(dtype)


@st.composite
def splits(draw, num_rows: int) -> list[slice]:
    """Draws a division of rows into batches of any sizes."""
    cuts = draw(st.sets(st.integers(1, max(num_rows - 1, 1)), max_size=3))
    ends = sorted({0, num_rows} | {cut for cut in cuts if cut < num_rows})
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]
