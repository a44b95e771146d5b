# SPDX-License-Identifier: Apache-2.0
"""Child processes that exchange JSON lines with their parent and end with it.

`Process` starts a program, the child. In a child that is part of the library,
`Requests` receives the messages of its parent. Between parent and child is a
supervisor, which is this file run as a script: a small process that pins the
child to processors, kills it and all its descendants when the parent exits or
is killed, and measures its peak memory.

On Linux all descendants are found, those in sessions of their own and daemons,
too: orphans become children of the supervisor. Elsewhere, or if the supervisor
itself is killed, only those of the child's process group are.

This is the only module that starts processes. It imports the standard library
only, so that a program which loads it by its path loads nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import queue
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

# Environment variable: number of the file descriptor that a child prints to,
# as its standard output carries messages.
_PRINT_TO = "TFVAE_PRINT_TO"
# Environment variable: process ID of the supervisor, if orphans go to it.
_SUPERVISOR = "TFVAE_SUPERVISOR"
_KILL = b"k"
_CHUNK_BYTES = 2**16
# Key of messages: what an answer has in common with its request.
_REQUEST = "request"
# Option of prctl of Linux: orphaned descendants become own children.
_SET_CHILD_SUBREAPER = 36
# Seconds that killed processes have to end. They need milliseconds, unless a
# device holds them, or they belong to another user.
_END_SECONDS = 10.0
# How long what a child has started may take to lose it.
_SETTLE_SECONDS = 0.1
_POLL_SECONDS = 0.002


class EndedError(Exception):
    """The child has exited, or has closed its output."""


class Ended(NamedTuple):
    """How a child ended."""

    code: int
    """Its exit code; the negative signal number if a signal ended it."""
    peak_memory_mb: float
    """Peak resident memory of it, or of a process it waited for, MB."""

    @property
    def how(self) -> str:
        """For example "ended with exit code 1" or "ended by SIGSEGV"."""
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        names = {one.value: one.name for one in signal.Signals}
        return f"ended by {names.get(-self.code, f'signal {-self.code}')}"


class Process:
    """A child process in a session of its own.

    Its standard input and output carry lines, most of them messages: one JSON
    object each. Keyboard interrupts do not reach it. Used as a context manager,
    it is killed on exit.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: pathlib.Path | None = None,
        environment: Mapping[str, str] | None = None,
        cores: Sequence[int] | None = None,
        grace_seconds: float = 0.0,
    ) -> None:
        """Starts the child.

        Args:
          argv: Its command.
          log: File that its standard error is appended to; None for the
            standard error of this process.
          environment: Environment variables to set in addition to those of
            this process.
          cores: Processors that it is pinned to; None for those of this
            process.
          grace_seconds: How long it may continue after this process has exited
            or was killed, which closes its standard input.
        """
        self._control, theirs = socket.socketpair()
        self._status = b""
        self._is_status_whole = False
        self._buffer = bytearray()
        self._is_output_whole = False
        self._ended: Ended | None = None
        variables = {**os.environ, **(environment or {})}
        inherited = [theirs.fileno()]
        with contextlib.ExitStack() as stack:
            stack.enter_context(theirs)
            stderr = None
            if log is not None:
                stderr = stack.enter_context(log.open("ab"))
            else:
                with contextlib.suppress(OSError):  # It may be closed.
                    shown = os.dup(1)
                    stack.callback(os.close, shown)
                    inherited.append(shown)
                    variables[_PRINT_TO] = str(shown)
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", __file__),
                    *(str(theirs.fileno()), repr(grace_seconds)),
                    ",".join(map(str, cores or ())),
                    *argv,
                ],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=variables,
                pass_fds=inherited,
                start_new_session=True,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def check_started(self) -> None:
        """Raises an OSError if the child could not be started."""
        while b"\n" not in self._status and not self._is_status_whole:
            self._read_status()
        first = self._status.partition(b"\n")[0]
        started = json.loads(first or '{"error": [3, "has been killed"]}')
        if "error" in started:
            raise OSError(*started["error"])
        self._pid = started["pid"]

    @property
    def pid(self) -> int:
        """Process ID of the child, and of its process group."""
        self.check_started()
        return self._pid

    @property
    def has_ended(self) -> bool:
        """Whether the child and all processes that it started have ended."""
        while not self._is_status_whole and _readable([self._control], 0.0):
            self._read_status()
        return self._is_status_whole

    def send(self, message: Mapping[str, Any]) -> None:
        """Writes a message; if the child has ended, `receive` raises."""
        self.write_line(json.dumps(message))

    def request(self, message: Mapping[str, Any]) -> str:
        """Sends a message; returns the number that its answers have."""
        # Random, as a program may print anything where it should not.
        number = os.urandom(8).hex()
        self.send({**message, _REQUEST: number})
        return number

    def write_line(self, line: str) -> None:
        """Writes a line to its standard input; see `send`."""
        left = memoryview(f"{line}\n".encode())
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            while left:
                left = left[self._popen.stdin.write(left) :]

    def receive(
        self, timeout: float | None = None, number: str | None = None
    ) -> dict[str, Any] | None:
        """Returns the next JSON object of its output; skips other lines.

        Args:
          timeout: Seconds to wait for it; None to wait without limit.
          number: That of a request, to skip what does not answer it.

        Returns:
          The message, or None after a timeout.

        Raises:
          EndedError: If the output has ended.
        """
        deadline = _deadline(timeout)
        while (line := self.read_line(_left(deadline))) is not None:
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict) and number in (
                    None,
                    message.pop(_REQUEST, None),
                ):
                    return message
        return None

    def read_line(self, timeout: float | None = None) -> str | None:
        """Returns the next line of its output; see `receive`."""
        deadline = _deadline(timeout)
        while True:
            size = self._buffer.find(b"\n") + 1
            if not size and self._is_output_whole:
                size = len(self._buffer)  # The last line may have no newline.
                if not size:
                    raise EndedError
            if size:
                line = self._buffer[:size].decode(errors="replace")
                del self._buffer[:size]
                return line.rstrip("\r\n")
            if not self._read_more(_left(deadline)):
                return None

    def lines(self) -> Iterator[str]:
        """Yields the lines of its output until it is closed."""
        with contextlib.suppress(EndedError):
            while (line := self.read_line()) is not None:
                yield line

    def close_input(self) -> None:
        """Closes its standard input, which asks it to exit."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def end(self, timeout: float | None = 0.0) -> Ended:
        """Ends the child and all processes that it started.

        Args:
          timeout: Seconds to wait for it to exit by itself, after its standard
            input has been closed, before it is killed; 0 to kill it at once;
            None to wait without limit.

        Returns:
          How it ended.
        """
        if self._ended is None:
            try:
                if timeout != 0.0:
                    self.close_input()
                deadline = _deadline(timeout)
                while not self._is_status_whole:
                    if not _readable([self._control], _left(deadline)):
                        break
                    self._read_status()
            finally:
                self._ended = self._kill()
        return self._ended

    def _kill(self) -> Ended:
        with contextlib.suppress(OSError):  # The supervisor may have ended.
            self._control.send(_KILL)
        code = self._popen.wait()
        self.close_input()
        lines = self._status.splitlines() if self.has_ended else []
        last: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        self._is_status_whole = self._is_output_whole = True
        if "code" not in last:
            # The supervisor was killed before it could kill the child.
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
        assert self._popen.stdout is not None
        self._popen.stdout.close()
        self._control.close()
        return Ended(last.get("code", code), last.get("peak_memory_mb", 0.0))

    def _files(self) -> list[Any]:
        """Returns the files that become readable on output or exit."""
        files: list[Any] = []
        if not self._is_output_whole:
            files.append(self._popen.stdout)
        if not self._is_status_whole:
            files.append(self._control)
        return files

    def _has_news(self) -> bool:
        """Whether `read_line` would return or raise without waiting."""
        has_ended = self._is_output_whole or self._is_status_whole
        return has_ended or b"\n" in self._buffer

    def _read_status(self) -> None:
        with interrupts_held():
            try:
                data = self._control.recv(_CHUNK_BYTES)
            except ConnectionResetError:
                data = b""  # It ended without reading what was sent.
            self._status += data
        self._is_status_whole = not data

    def _read_more(self, timeout: float | None) -> bool:
        """Waits for output or the end; returns False after a timeout."""
        if self._is_status_whole:
            timeout = 0.0
        ready = _readable(self._files(), timeout)
        if self._popen.stdout in ready:
            assert self._popen.stdout is not None
            with interrupts_held():  # So that no data that was read is lost.
                data = os.read(self._popen.stdout.fileno(), _CHUNK_BYTES)
                self._buffer += data
            self._is_output_whole = not data
        elif self._control in ready:
            self._read_status()
        elif self._is_status_whole:
            # All that it wrote has been read, even if another process still
            # holds its output open.
            self._is_output_whole = True
        else:
            return False
        return True


def wait(
    processes: Iterable[Process], timeout: float | None = None
) -> list[Process]:
    """Waits until children have written a whole line or have ended.

    Args:
      processes: The children to wait for.
      timeout: Seconds to wait; None to wait without limit.

    Returns:
      Those whose `read_line` returns, or raises `EndedError`, immediately;
      none after a timeout.
    """
    processes = [*processes]
    deadline = _deadline(timeout)
    while not (found := [one for one in processes if one._has_news()]):
        owners = {file: one for one in processes for file in one._files()}
        ready = _readable(owners, _left(deadline))
        if not ready:
            break
        for process in {owners[file] for file in ready}:
            while not process._has_news() and process._read_more(0.0):
                pass
    return found


def last_line(log: pathlib.Path) -> str:
    """Returns the last non-empty line of an error log, the error message."""
    text = log.read_text(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "no message"


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Delays keyboard interrupts until the end of the block.

    Has no effect in other threads than the main one, which receive none.
    """
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if is_main else None
    if before is None:
        yield
        return
    try:
        signal.signal(signal.SIGINT, note)
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


# The other end of the messages, in the child.

_finishing = threading.RLock()


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Keeps this process alive to the end of the block if its parent exits.

    For writing the results of finished work. Has an effect only in a process
    with `Requests`, and within the grace period that its parent set.
    """
    with _finishing:
        yield


class Requests:
    """Iterator over the messages of the parent, in the child process.

    The iteration ends when the parent closes the standard input of the child,
    exits or is killed. If a request has not been answered then, this process
    exits at once, or at the end of a block of `finishing`.
    """

    def __init__(self) -> None:
        """Takes over standard input and output for messages.

        Further prints go to the standard output of the parent or, if the parent
        set a log, to standard error. Standard input is empty from now on.
        """
        self._input = os.fdopen(os.dup(0), "rb")
        self._output = os.dup(1)
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        print_to = int(os.environ.pop(_PRINT_TO, "2"))
        os.dup2(print_to, 1)
        if print_to != 2:
            os.close(print_to)
        self._pid = os.getpid()
        self._supervisor = int(os.environ.pop(_SUPERVISOR, "0"))
        self._num_open = 0
        self._queue: queue.SimpleQueue[dict[str, Any] | None]
        self._queue = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (message := self._queue.get()) is not None:
            yield message

    def send(
        self,
        message: Mapping[str, Any],
        request: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes a message that does not complete the answer to a request.

        Args:
          message: The message.
          request: The request that it belongs to, if any.
        """
        self._leave_if_copied()
        if request is not None:
            message = {**message, _REQUEST: request.get(_REQUEST)}
        # After what something else may have written without a newline.
        left = b"\n" + json.dumps(message).encode() + b"\n"
        with finishing():
            try:
                while left:
                    left = left[os.write(self._output, left) :]
            except OSError:
                # The parent has gone: end in the way that it would have used.
                signal.raise_signal(signal.SIGKILL)

    def answer(
        self, message: Mapping[str, Any], request: Mapping[str, Any]
    ) -> None:
        """Writes the answer to a request; each request needs exactly one."""
        self._leave_if_copied()
        with finishing():
            self.send(message, request)
            self._num_open -= 1

    @contextlib.contextmanager
    def leftovers_ended(self) -> Iterator[None]:
        """Ends what is started within the block and meant to outlive it.

        These are processes with sessions of their own, and orphans such as
        daemons. Other children, such as those of a pool, stay, and so do
        processes that were there before. Has an effect only on Linux.
        """
        before = {(pid, started) for pid, started, _ in self._relatives()}
        try:
            yield
        finally:
            self._leave_if_copied()
            start = time.monotonic()
            while new := [
                (pid, kind)
                for pid, started, kind in self._relatives()
                if (pid, started) not in before and kind != "child"
            ]:
                left = [pid for pid, kind in new if kind == "detached"]
                for pid in left:
                    _kill(pid)
                # A shell that ends makes orphans of those that it started.
                seconds = _END_SECONDS if left else _SETTLE_SECONDS
                if time.monotonic() > start + seconds:
                    break
                time.sleep(_POLL_SECONDS)

    def _relatives(self) -> Iterator[tuple[int, str, str]]:
        """Yields the other running processes below the supervisor.

        Of each its ID, the time of its start, as IDs are used again, and what
        it is: "detached", an orphan or in another session; a "child" of this
        process; or a "descendant", of one that may yet leave it behind.
        """
        if os.getppid() != self._supervisor:
            return  # It has been killed.
        session = os.getsid(0)
        for pid in _descendants(self._supervisor):
            fields = _fields(pid)
            if pid == os.getpid() or not fields or fields[0] in ("Z", "X"):
                continue
            parent = int(fields[1])
            kind = "child" if parent == os.getpid() else "descendant"
            if parent == self._supervisor or int(fields[3]) != session:
                kind = "detached"
            yield pid, fields[19], kind

    def _leave_if_copied(self) -> None:
        """Ends a copy of this process that was made by a fork."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _read(self) -> None:
        for line in self._input:
            with finishing():
                self._num_open += 1
            self._queue.put(json.loads(line))
        with finishing():
            if self._num_open:
                os._exit(0)
        self._queue.put(None)


def _fields(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the state on, or none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()
    except OSError:
        return []  # It has ended.


def _descendants(pid: int) -> list[int]:
    """Returns the IDs of the descendants of a process; none but on Linux."""
    found: list[int] = []
    threads: list[str] = []
    with contextlib.suppress(OSError):  # It has ended.
        threads = os.listdir(f"/proc/{pid}/task")
    for thread in threads:
        path = f"/proc/{pid}/task/{thread}/children"
        with contextlib.suppress(OSError), open(path, "rb") as file:
            found += map(int, file.read().split())
    return [*found, *(below for one in found for below in _descendants(one))]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _readable(files: Iterable[Any], timeout: float | None) -> list[Any]:
    """Waits until some of `files` are readable; returns these."""
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(timeout)]


def _supervise(control: int, grace: str, cores: str, *argv: str) -> None:
    """Runs a program, and kills it when the peer of `control` closes."""
    if cores:
        os.sched_setaffinity(0, [int(one) for one in cores.split(",")])
    _adopt_orphans()
    connection = socket.socket(fileno=control)
    connection.set_inheritable(False)

    def report(content: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # The parent may have exited.
            connection.sendall(json.dumps(content).encode() + b"\n")

    inherited = [int(os.environ[_PRINT_TO])] if _PRINT_TO in os.environ else []
    try:
        program = subprocess.Popen(
            argv, pass_fds=inherited, start_new_session=True
        )
    except OSError as error:
        print(error, file=sys.stderr, flush=True)
        report({"error": [error.errno, error.strerror, error.filename]})
        report({"code": 127})
        return
    # Only the program may keep its pipes open.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    has_ended = threading.Event()

    def kill_with_parent() -> None:
        if connection.recv(1) != _KILL:
            has_ended.wait(float(grace))
        if not has_ended.is_set():
            _kill_group(program.pid)

    threading.Thread(target=kill_with_parent, daemon=True).start()
    report({"pid": program.pid})
    ended = 0
    while ended != program.pid:  # Else it is an orphan.
        ended, status, usage = os.wait4(-1, 0)
    has_ended.set()
    _end_descendants(program.pid)
    unit = 1 if sys.platform == "darwin" else 2**10
    report(
        {
            "code": os.waitstatus_to_exitcode(status),
            "peak_memory_mb": usage.ru_maxrss * unit / 2**20,
        }
    )


def _adopt_orphans() -> None:
    """Makes orphaned descendants children of this process; only on Linux."""
    os.environ.pop(_SUPERVISOR, None)  # That of an ancestor.
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
            os.environ[_SUPERVISOR] = str(os.getpid())


def _end_descendants(group: int) -> None:
    """Kills a process group and all descendants, and waits for their end."""
    _kill_group(group)
    end = time.monotonic() + _END_SECONDS
    # Orphans become children, so that without a child there is no descendant.
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < end:
            for pid in _descendants(os.getpid()):
                _kill(pid)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(_POLL_SECONDS)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _supervise(int(sys.argv[1]), *sys.argv[2:])
    os._exit(0)
