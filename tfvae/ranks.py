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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

# What the launchers of MPI set: MPICH's and Intel's, PMIx (also SLURM's), Open
# MPI's.
_LAUNCHED = ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE")
_SECONDS_TO_READ = 0.5


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
          *values: Tensors of one dtype and of static shapes that are the same
            on all ranks; they are sent as one message.
        """

    def gather(self, value: Any) -> list[Any]:
        """Returns the objects that the ranks pass, by rank."""

    def broadcast(self, value: Any) -> Any:
        """Returns the object that rank 0 passes."""

    def barrier(self) -> None:
        """Returns once all ranks have called it."""

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

        flat = tf.concat([tf.reshape(value, [-1]) for value in values], 0)
        # Stateful: in a graph, it is executed once and in order.
        total = tf.numpy_function(
            self._all_sum, [flat], flat.dtype, stateful=True
        )
        total = tf.ensure_shape(total, flat.shape)
        sizes = [value.shape.num_elements() for value in values]
        return tuple(
            tf.reshape(part, value.shape)
            for part, value in zip(tf.split(total, sizes), values, strict=True)
        )

    def _all_sum(self, flat: np.ndarray) -> np.ndarray:
        total = np.empty_like(flat)
        self._comm.Allreduce(np.ascontiguousarray(flat), total)
        return total

    def gather(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def broadcast(self, value: Any) -> Any:
        return self._comm.bcast(value)

    def barrier(self) -> None:
        self._comm.Barrier()

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
