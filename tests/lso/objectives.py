# SPDX-License-Identifier: Apache-2.0
"""Objectives for other processes; none of them imports TensorFlow."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time


def square(x):
    return float(x) ** 2


def process_id(x):
    return os.getpid()


def talk(x):
    print('{"score": 7.0}', flush=True)
    os.write(1, b"\x00\xff\n")
    print("warning", file=sys.stderr, flush=True)
    return float(x)


def misbehave(x):
    """Does what `x` says; a number is squared."""
    actions = {
        "raise": lambda: 1 / 0,
        "exit": lambda: sys.exit("no licence"),
        "leave": lambda: os._exit(3),
        "abort": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "hang": lambda: time.sleep(1000),
        "nan": lambda: float("nan"),
        "close": lambda: os.closerange(3, 100),
    }
    return actions[x]() if isinstance(x, str) else square(x)


class Unusual(BaseException):
    """Is no Exception, and has no text."""

    def __str__(self):
        raise Unusual


class Elusive:
    """A returned object that can not even be looked at."""

    @property
    def __class__(self):
        raise Unusual


def fail(error):
    raise error


def disturb(x):
    """Disturbs its process as `x` says; a number is squared and printed."""
    if not isinstance(x, str):
        print(len(os.listdir(".")), file=sys.stderr)
        return square(x)
    if x == "return":
        return Elusive()
    actions = {
        "raise": lambda: fail(Unusual()),
        "recurse": lambda: disturb(x),
        "memory": lambda: bytearray(2**62),
        "long": lambda: fail(ValueError("x" * 10**7)),
        "escapes": lambda: fail(ValueError("\x1b[31m \udc80\nsecond")),
        "group": lambda: fail(BaseExceptionGroup("several", [Unusual()])),
        "stdin": lambda: os.close(0),
        "stdout": lambda: os.close(1),
        "stderr": lambda: os.close(2),
        "folder": lambda: os.chdir("/proc/self/fd"),
        "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0.05),
    }
    actions[x]()
    return 0.0


def disturb_worker(x):
    """As `disturb`, but to processes that exist to be disturbed."""
    actions = {
        "interrupt": lambda: fail(KeyboardInterrupt()),
        "fork": os.fork,
        "stream": lambda: sys.stderr.close(),
        "thread": lambda: threading.Thread(target=sleep, args=(99,)).start(),
        "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
        "recursion": lambda: sys.setrecursionlimit(60),
        "print": lambda: os.write(1, (b" " * 79 + b"\r") * 10**4),
        "channel": _write_to_pipes,
    }
    if x not in actions:
        return disturb(x)
    actions[x]()
    return 0.0


def _write_to_pipes():
    """Writes to the pipes of this process; one of them has the answers."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                os.write(number, b'{"result": {"score": 7.0}}\n{"no end": ')


def leave_children(path):
    """Leaves a daemon and a child with a session of its own; see `path`."""
    own = subprocess.Popen(["sleep", "99"], start_new_session=True)
    daemon = os.popen("setsid sh -c 'sleep 99 > /dev/null & echo $!'").read()
    pathlib.Path(path).write_text(f"{own.pid} {daemon}")
    return 0.0


def hang_with_children(path):
    leave_children(path)
    sleep(99)


def hang_with_child(path):
    """Writes its process and one that it starts to `path`, and hangs."""
    child = subprocess.Popen(["sleep", "1000"])
    text = f"{os.getpid()} {child.pid}"
    pathlib.Path(path + ".part").write_text(text)
    os.rename(path + ".part", path)
    # This keeps the interpreter to itself, no other thread can run, for ages.
    re.match(r"(a+)+$", "a" * 60 + "b")


def leave_child_with_pipes(path):
    """Ends, but a copy of its process keeps all pipes open."""
    child = os.fork()
    if not child:
        time.sleep(1000)
    pathlib.Path(path).write_text(str(child))
    os._exit(5)


def write_on_leaving(path):
    atexit.register(pathlib.Path(path).touch)
    return 0.0


def answer_slowly(path):
    """Makes the file at `path` once it is evaluated, then answers slowly."""
    if path is None:
        return 3.0
    write = os.write

    def write_slowly(*args):
        pathlib.Path(path).touch()
        time.sleep(0.3)
        return write(*args)

    os.write = write_slowly
    return 7.0


def num_slow_imports(x):
    """Counts libraries that are imported without a need for them."""
    names = ("tensorflow", "keras", "numpy", "gin", "tfvae")
    return float(sum(name in sys.modules for name in names))


def sleep(seconds):
    time.sleep(seconds)
    return seconds


@dataclasses.dataclass(frozen=True)
class Power:
    exponent: int

    def __call__(self, x):
        return float(x) ** self.exponent


def constrained(x):
    """Imports the library, as objectives with constraints do."""
    from tfvae.lso import Score

    score = Score(x, constraints={"size": x - 3.0})
    return score if x < 5.0 else score._replace(value=None)


class Unreadable:
    """Can be pickled, but not read again."""

    def __reduce__(self):
        return (int, ("no number",))


def never(x):
    """Hangs, whatever it is given."""
    sleep(3600.0)
