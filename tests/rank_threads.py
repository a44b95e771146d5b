# SPDX-License-Identifier: Apache-2.0
"""Ranks that are threads of one process, by a communicator of their own."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tfvae.ranks import MPIRanks


class _Done:
    """A request of MPI that is complete."""

    def Wait(self) -> None:
        pass

    def Test(self) -> bool:
        return True


class _Communicator:
    """What `MPIRanks` uses of `mpi4py.MPI.Comm`."""

    def __init__(self, rank: int, slots: list, barrier: threading.Barrier):
        self._rank, self._slots, self._barrier = rank, slots, barrier

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return len(self._slots)

    def Barrier(self) -> None:
        self._barrier.wait()

    def Ibarrier(self) -> _Done:
        self._barrier.wait()
        return _Done()

    def allgather(self, value: Any) -> list[Any]:
        self._slots[self._rank] = value
        self._barrier.wait()
        found = list(self._slots)
        self._barrier.wait()
        return found

    def bcast(self, value: Any) -> Any:
        return self.allgather(value)[0]

    def Iallreduce(self, value: np.ndarray, total: np.ndarray) -> _Done:
        total[...] = sum(self.allgather(value.copy()))
        return _Done()


def run(size: int, function: Callable[[MPIRanks], Any]) -> list[Any]:
    """Calls a function on each of some ranks; returns what they return.

    TensorFlow has to run eagerly in them: a graph that waits for another may
    hold the only thread that this other needs.
    """
    slots: list[Any] = [None] * size
    barrier = threading.Barrier(size, timeout=60.0)

    def call(rank: int) -> Any:
        try:
            return function(MPIRanks(_Communicator(rank, slots, barrier)))
        except BaseException:
            barrier.abort()
            raise

    with concurrent.futures.ThreadPoolExecutor(size) as pool:
        calls = [pool.submit(call, rank) for rank in range(size)]
    errors = [one.exception() for one in calls]
    for error in errors:
        if error and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [one.result() for one in calls]
