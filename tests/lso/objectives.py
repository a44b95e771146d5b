# SPDX-License-Identifier: Apache-2.0
"""Objectives for other processes; none of them imports TensorFlow."""

from __future__ import annotations

import atexit
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
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
