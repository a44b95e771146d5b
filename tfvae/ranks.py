# SPDX-License-Identifier: Apache-2.0
"""The processes (ranks) that train one model together, each on its own rows.

A model is trained by several ranks where each holds the same parameters and
its own part of the data. What is summed over data points in training, such as
gradients, is then summed over the ranks by `Ranks.all_sum`; all else stays in
the process. `ONE_PROCESS` is the default everywhere and does nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# What the launchers of MPI set: MPICH's and Intel's, PMIx (also SLURM's), Open
# MPI's.
_LAUNCHED = ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE")
# Likewise, the number of processes of the job, and of this one.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
_RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
# Beginnings of the names of all that they set for a process of the job.
_OF_LAUNCHERS = ("PMI_", "PMIX_", "OMPI_", "HYDI_", "MPI_LOCAL")
_SECONDS_TO_READ = 0.5
_SECONDS_TO_SLEEP = 0.01


class Ranks(Protocol):
    """Protocol of the processes that train one model.

    Every method but `rows` is collective: all ranks have to call it, in the
    same order, or those that do wait for ever.

    Attributes:
      rank: The number of this process, from 0.
      size: R, the number of processes.
    """

    rank: int
    size: int

    def all_sum(self, *values: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the sums over ranks, the same on all, in graphs too.

        Args:
          *values: Tensors of static shapes, which are the same on all ranks
            as are the dtypes. They are exchanged at once: those of one dtype
            as one message, and the messages of all dtypes together.
        """

    def gather(self, value: Any) -> list[Any]:
        """Returns the objects that the ranks pass, by rank."""

    def broadcast(self, value: Any) -> Any:
        """Returns the object that rank 0 passes."""

    def barrier(self) -> None:
        """Returns once all ranks have called it."""

    def wait(self) -> None:
        """As `barrier`, but leaves the processor to others until then."""

    def rows(self, num_data: int) -> slice:
        """Returns the rows of N data points that this rank owns.

        Row n belongs to rank n % R, so that ranks differ by at most one row.
        """


class OneProcess:
    """A process that trains alone: sums are what they were."""

    rank = 0
    size = 1

    def all_sum(self, *values: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return values

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Any) -> Any:
        return value

    def barrier(self) -> None:
        pass

    def wait(self) -> None:
        pass

    def rows(self, num_data: int) -> slice:
        return slice(0, num_data, 1)

    def share_devices(self) -> None:
        pass


ONE_PROCESS = OneProcess()


class MPIRanks:
    """The processes that `mpiexec` or `srun` has started.

    It needs mpi4py: pip install "tfvae[mpi]". Without an MPI of the system,
    that of the package `mpich` is used.
    """

    def __init__(self, communicator: Any = None) -> None:
        """Joins the other processes.

        Args:
          communicator: An `mpi4py.MPI.Comm`; None for all processes.

        Raises:
          ImportError: If mpi4py or an MPI library is missing.
        """
        self._comm = _of_all() if communicator is None else communicator
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()

    def all_sum(self, *values: tf.Tensor) -> tuple[tf.Tensor, ...]:
        import tensorflow as tf

        if not values:
            return ()
        values = tuple(tf.convert_to_tensor(value) for value in values)
        places: dict[tf.DType, list[int]] = {}
        for place, value in enumerate(values):
            places.setdefault(value.dtype, []).append(place)
        flats = [
            tf.concat([tf.reshape(values[place], [-1]) for place in group], 0)
            for group in places.values()
        ]
        # Stateful: in a graph, it is executed once and in order.
        totals = tf.numpy_function(
            self._all_sum, flats, [flat.dtype for flat in flats], stateful=True
        )
        totals = tf.nest.flatten(totals)  # Of one alone it is no list.
        sums: dict[int, tf.Tensor] = {}
        for group, flat, total in zip(
            places.values(), flats, totals, strict=True
        ):
            sizes = [values[place].shape.num_elements() for place in group]
            parts = tf.split(tf.ensure_shape(total, flat.shape), sizes)
            sums.update(zip(group, parts, strict=True))
        return tuple(
            tf.reshape(sums[place], value.shape)
            for place, value in enumerate(values)
        )

    def _all_sum(self, *flats: np.ndarray) -> list[np.ndarray]:
        # Not one message of the widest dtype: float32 gradients as float64
        # have twice the bytes, and messages in flight share the latency.
        flats = tuple(map(np.ascontiguousarray, flats))
        totals = [np.empty_like(flat) for flat in flats]
        requests = [
            self._comm.Iallreduce(flat, total)
            for flat, total in zip(flats, totals, strict=True)
        ]
        for request in requests:
            request.Wait()
        return totals

    def gather(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def broadcast(self, value: Any) -> Any:
        return self._comm.bcast(value)

    def barrier(self) -> None:
        self._comm.Barrier()

    def wait(self) -> None:
        request = self._comm.Ibarrier()
        while not request.Test():
            time.sleep(_SECONDS_TO_SLEEP)

    def rows(self, num_data: int) -> slice:
        return slice(self.rank, num_data, self.size)

    def share_devices(self) -> None:
        """Shares GPUs and processors among the ranks of one machine.

        Each rank sees one GPU, if there are any, and computes with its part of
        the processors, unless the launcher has dealt those already. Call it
        before TensorFlow computes anything.
        """
        import tensorflow as tf

        here = self._comm.Split_type(_shared_memory())
        mine = frozenset(os.sched_getaffinity(0))
        sharing = here.allgather(mine).count(mine)
        tf.config.threading.set_intra_op_parallelism_threads(
            max(1, len(mine) // sharing)
        )
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            own = gpus[here.Get_rank() % len(gpus)]
            tf.config.set_visible_devices(own, "GPU")


def _of_all() -> Any:
    """Returns MPI's communicator of all processes."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as err:
        raise ImportError(
            "training on several processes needs mpi4py and an MPI library; "
            'run: pip install "tfvae[mpi]" (and mpich, if the system has no '
            f"MPI), got: {err}"
        ) from err
    return MPI.COMM_WORLD


def _shared_memory() -> int:
    """Returns MPI's constant for processes of one machine."""
    from mpi4py import MPI

    return MPI.COMM_TYPE_SHARED


Job = OneProcess | MPIRanks


def mean_gradients(
    ranks: Ranks,
    gradients: Sequence[tf.Tensor | None],
    share: tf.Tensor,
    sums: Sequence[tf.Tensor] = (),
) -> tuple[list[tf.Tensor | None], tuple[tf.Tensor, ...]]:
    """Returns gradients of the mean over all ranks, and further sums.

    They are exchanged at once.

    Args:
      ranks: The processes.
      gradients: Those of this rank's mean times `share`; None where the loss
        does not depend on a variable.
      share: Scalar float32, what this rank's mean counts, such as its number
        of data points.
      sums: What else is to be summed over the ranks.
    """
    known = [one for one in gradients if one is not None]
    whole, *totals = ranks.all_sum(share, *known, *sums)
    means = iter([one / whole for one in totals[: len(known)]])
    return (
        [None if one is None else next(means) for one in gradients],
        tuple(totals[len(known) :]),
    )


def end_job(code: int) -> None:
    """Ends all processes of the job at once if it has several.

    Args:
      code: The exit code.
    """
    if "mpi4py.MPI" not in sys.modules:
        return
    from mpi4py import MPI

    if MPI.COMM_WORLD.size > 1:
        print(
            f"rank {MPI.COMM_WORLD.rank} of {MPI.COMM_WORLD.size} has failed "
            "and ends the job",
            file=sys.stderr,
            flush=True,
        )
        # What the launcher has not read until then is lost.
        time.sleep(_SECONDS_TO_READ)
        MPI.COMM_WORLD.Abort(code)


def launched(
    environment: Mapping[str, str] = os.environ,
) -> tuple[int, int]:
    """Returns the number of processes of the job, and this one's number.

    Unlike `of_job` it joins nothing, and needs no mpi4py.

    Args:
      environment: The environment variables.

    Returns:
      (1, 0) without a launcher of MPI.
    """
    sizes = [environment[name] for name in _SIZES if name in environment]
    ranks = [environment[name] for name in _RANKS if name in environment]
    if "PMIX_RANK" in environment:  # SLURM's, which has no variable for both.
        sizes.append(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if not sizes or not ranks:
        return 1, 0
    return int(sizes[0]), int(ranks[0])


def hide_launcher() -> None:
    """Lets what this process starts from now on be no part of the job.

    A program that joins MPI would fail there, such as one that an objective
    starts. Call it once this process has joined.
    """
    for name in [*os.environ]:
        if name.startswith(_OF_LAUNCHERS):
            del os.environ[name]


def of_job(
    environment: Mapping[str, str] = os.environ,
) -> Job:
    """Returns the ranks of the job that this process has been started in.

    Args:
      environment: The environment variables, by which a launcher of MPI is
        recognised.

    Returns:
      `ONE_PROCESS` without a launcher, or for a job of one process.

    Raises:
      ImportError: If there is a launcher, but mpi4py is missing.
    """
    if not any(name in environment for name in _LAUNCHED):
        return ONE_PROCESS
    ranks = MPIRanks()
    return ranks if ranks.size > 1 else ONE_PROCESS
