# SPDX-License-Identifier: Apache-2.0
"""Tables of data points whose rows are computed when they are asked for."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# Rows that `parts` computes at a time, those of `moments.of_columns`.
_ROWS = 2**14


class LazyRows(abc.ABC):
    """Data points `[N, D]` float32, NaN where missing, that take no memory.

    Rows are asked for as those of an array, by `points[index]` or
    `points[start:stop]`, and come as a new array; `np.asarray` computes all of
    them. Whoever makes the object answers for what
    `Observations` checks of arrays: no infinite values, and an observed one in
    every row.

    Attributes:
      shape: N and D.
      dtype: float32.
      ndim: 2.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, num_rows: int, num_columns: int) -> None:
        """Sets the shape."""
        self.shape = (num_rows, num_columns)

    @abc.abstractmethod
    def take(self, index: np.ndarray) -> np.ndarray:
        """Computes rows.

        Args:
          index: Integers `[n]` in 0 .. N - 1, in any order.

        Returns:
          float32 `[n, D]`, contiguous.
        """

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, slice):
            return self.take(np.arange(*key.indices(len(self))))
        index = np.asarray(key)
        if index.dtype == bool:
            if index.shape != self.shape[:1]:
                raise IndexError(
                    f"a mask must have shape {self.shape[:1]!r}, got "
                    f"{index.shape!r}"
                )
            return self.take(np.flatnonzero(index))
        wrong = (index < -len(self)) | (index >= len(self))
        if index.dtype.kind not in "iu" or index.ndim > 1 or wrong.any():
            raise IndexError(
                f"rows must be integers from {-len(self)} to {len(self) - 1}, "
                f"got {key!r}"
            )
        index = np.where(index < 0, index + len(self), index)
        rows = self.take(np.atleast_1d(index))
        return rows if index.ndim else rows[0]

    def __array__(
        self, dtype: Any = None, copy: bool | None = None
    ) -> np.ndarray:
        rows = np.empty(self.shape, np.float32)
        for start, part in self.parts():
            rows[start : start + len(part)] = part
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def parts(self, size: int = _ROWS) -> Iterator[tuple[int, np.ndarray]]:
        """Yields all rows in order, `size` at a time, with the first's number.

        Args:
          size: Rows to compute at a time.
        """
        for start in range(0, len(self), size):
            yield start, self[start : start + size]


class PartOfRows(LazyRows):
    """Rows of another table at equal distances."""

    def __init__(self, table: LazyRows, rows: slice) -> None:
        """Sets the table, and its rows as a slice."""
        self._table = table
        self._rows = range(len(table))[rows]
        super().__init__(len(self._rows), table.shape[1])

    def take(self, index: np.ndarray) -> np.ndarray:
        return self._table.take(index * self._rows.step + self._rows.start)


class JoinedRows(LazyRows):
    """The rows of several tables, one table after the other."""

    def __init__(self, tables: Sequence[LazyRows]) -> None:
        """Sets the tables, all of the same number of columns; at least one."""
        self._tables = tuple(tables)
        self._ends = np.cumsum([len(one) for one in tables])
        super().__init__(int(self._ends[-1]), tables[0].shape[1])

    def take(self, index: np.ndarray) -> np.ndarray:
        table = np.searchsorted(self._ends, index, side="right")
        rows = np.empty((len(index), self.shape[1]), np.float32)
        for number in np.unique(table):
            place = table == number
            start = self._ends[number] - len(self._tables[number])
            rows[place] = self._tables[number].take(index[place] - start)
        return rows
