# SPDX-License-Identifier: Apache-2.0
"""Append-only, checksummed log of evaluations; rejects duplicates.

It has one JSON object a line: first a header, which says of what run it is,
then an entry for each evaluation. Each line ends with a checksum of itself,
and is on the disk before `Ledger.append` returns. A crash can only cut the
last line; opening the ledger again drops what is left of it.
"""

from __future__ import annotations

import bisect
import errno
import json
import logging
import math
import os
import pathlib
import re
import weakref
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import filelock

from tfvae import files

LEDGER = "ledger.jsonl"
"""The file, in the folder of a run."""

_logger = logging.getLogger(__name__)
_HEADER_START = b'{"header": '
_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_CHECKSUM_LENGTH = len(b', "crc32": "01234567"}')


class Entry(NamedTuple):
    """What is recorded of one evaluation."""

    round: int
    query: int
    """Its number in the whole run, from 0."""
    latent: list[float]
    input: Any
    """What was evaluated, as JSON has it; None for an invalid decode."""
    score: float | None
    """In the direction of the task; None for a failure."""
    failure: str | None
    """Why there is no score, in one line."""
    seconds: float
    seed: int
    time: str
    """When it was recorded: ISO 8601, UTC."""


class _Records:
    """What the lines of a ledger say, checked line by line."""

    def __init__(self, path: pathlib.Path, in_order: bool) -> None:
        self.path = path
        self.in_order = in_order
        self.header: dict[str, Any] | None = None
        self.entries: list[Entry] = []
        """By their numbers."""
        self._queries: set[int] = set()
        self._round = 0

    def add_line(self, line: bytes, number: int) -> None:
        """Takes a line, without its end; `number` counts from 1."""
        content = _verified(line)
        if content is None:
            raise ValueError(
                f"line {number} of {self.path} is damaged: its checksum does "
                f"not match {_shortened(line)}"
            )
        if "header" in content:
            self.header = content["header"]
            return
        if self.header is None:
            raise ValueError(f"line 1 of {self.path} must be a header")
        try:
            entry = _entry(content)
            self.check(entry)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"line {number} of {self.path} is no entry that can follow "
                f"those before it: {error}"
            ) from error
        self.add(entry)

    def check(self, entry: Entry) -> None:
        """Raises ValueError if `entry` can not be the next one."""
        for field in ("round", "query"):
            value = getattr(entry, field)
            if type(value) is not int or value < 0:
                raise ValueError(
                    f"`{field}` must be an integer of at least 0, got {value!r}"
                )
        query, num_entries = entry.query, len(self.entries)
        if query in self._queries:
            raise ValueError(f"`query` must be a new number, got {query} again")
        if entry.round < self._round:
            raise ValueError(
                f"`round` must be at least {self._round}, that of the entry "
                f"before, got {entry.round}"
            )
        has_gap = bool(self.entries) and self.entries[-1].query >= num_entries
        if (self.in_order and query != num_entries) or (
            entry.round > self._round and has_gap
        ):
            first_missing = min({*range(num_entries + 1)} - self._queries)
            raise ValueError(
                f"`query` must be {first_missing}, the first number without "
                f"an entry, got {query} in round {entry.round}"
            )

    def add(self, entry: Entry) -> None:
        """Takes an entry that has been checked."""
        self._round = entry.round
        self._queries.add(entry.query)
        bisect.insort(self.entries, entry, key=lambda one: one.query)


class Ledger:
    """A ledger that is open for writing, by this process only.

    Attributes:
      path: The file.
      header: What the header says, with the values that grew.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        extendable: Collection[str] = ("budget",),
        in_order: bool = True,
    ) -> None:
        """Opens the file at `path`, or makes it.

        Args:
          path: The file; its folder must exist.
          header: What the run is: its task, seed, settings. The file of
            another run is refused.
          extendable: The keys of `header` whose numbers may be larger than
            those on file; the file then gets a second header.
          in_order: Whether each entry must have the number after the last.
            If not, those of one round may come in any order, as evaluations
            at the same time end. A round still must have all its entries
            before another begins.

        Raises:
          RuntimeError: If another process has it open.
          ValueError: If the file is damaged elsewhere than at its end, or has
            another header.
        """
        self.path = pathlib.Path(path)
        self.header = _plain_header(header)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file: int | None = os.open(self.path, flags, 0o644)
        self._reserve = self.path.with_name(self.path.name + ".reserve")
        self._lock()
        try:
            self._open(extendable, in_order)
        except BaseException:
            self.close()
            raise

    @property
    def entries(self) -> list[Entry]:
        """All entries, by their numbers."""
        return [*self._records.entries]

    def append(self, entry: Entry) -> Entry:
        """Writes an entry; when this returns, it is on the disk.

        Numbers that are not finite become null in the file, and a score that
        is not finite a failure.

        Returns:
          The entry as it will be read.

        Raises:
          ValueError: If its number is not one that may come next.
          OSError: If it can not be written. If the disk is full, the file
            stays as it was, and the same entry can be appended again.
        """
        content = _content(entry)
        entry = _entry(content)
        self._records.check(entry)
        self._write(content)
        self._records.add(entry)
        # Only now: an interrupt before must not let it be written twice.
        self._is_uncertain = False
        return entry

    def reserve(self, num_bytes: int) -> None:
        """Holds room on the disk for entries whose evaluation is to begin.

        Should the disk fill up meanwhile, they are written in this room.

        Raises:
          OSError: If there is not so much.
        """
        with self._reserve.open("wb") as file:
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, num_bytes)
                else:  # macOS
                    file.write(bytes(num_bytes))
                    file.flush()
            except OSError as error:
                self._reserve.unlink()
                raise OSError(
                    error.errno,
                    f"there must be {num_bytes:,} bytes of room for the next "
                    "evaluations, before they are made",
                    str(self.path),
                ) from error

    def close(self) -> None:
        """Lets others open it."""
        if self._file is not None:
            self._reserve.unlink(missing_ok=True)
            filelock.unlock_descriptor(self._file)
            self._close_file()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _lock(self) -> None:
        # Of the file itself: it is there anyway, and a lock file beside it
        # would not be seen by programs that lock this one.
        assert self._file is not None
        if not filelock.lock_descriptor(self._file, blocking=False):
            self._close_file()
            raise RuntimeError(
                f"{self.path} must be open once only, and another process "
                "writes it now; wait for its end, or end it"
            )
        _locked.add(self)

    def _close_file(self) -> None:
        assert self._file is not None
        os.close(self._file)
        self._file = None
        _locked.discard(self)

    def _open(self, extendable: Collection[str], in_order: bool) -> None:
        """Reads the file, and leaves it with whole lines and our header."""
        assert self._file is not None
        data = self.path.read_bytes()
        self._records, self._size, rest = _parse(self.path, data, in_order)
        old = self._records.header
        has_grown = old is not None and _has_grown(
            self.path, old, self.header, extendable
        )
        if rest:
            _warn(self.path, rest)
            os.ftruncate(self._file, self._size)
        elif data and not data.endswith(b"\n"):
            os.write(self._file, b"\n")
            self._size += 1
        # A program that was killed may have left lines in memory only.
        os.fsync(self._file)
        self._is_uncertain = False
        if old is None or has_grown:
            self._write({"header": self.header})
            self._is_uncertain = False
        if old is None:
            files.sync_folder(self.path.parent)

    def _write(self, content: dict[str, Any]) -> None:
        """Writes a line; the file is uncertain until that is taken note of."""
        if self._file is None or self._is_uncertain:
            raise RuntimeError(
                f"{self.path} must be opened again before more is written"
            )
        line = _line(content)
        try:
            self._write_line(line)
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if self._is_uncertain or not is_full or not self._reserve.exists():
                raise
            self._reserve.unlink()
            self._write_line(line)
        os.fsync(self._file)
        self._size += len(line)

    def _write_line(self, line: bytes) -> None:
        """Writes all of a line, or leaves the file as it was."""
        assert self._file is not None
        self._is_uncertain = True
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, "No space left", str(self.path))
        except OSError:
            os.ftruncate(self._file, self._size)
            self._is_uncertain = False
            raise


_locked: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _close_in_fork() -> None:
    """Keeps a forked process from holding the locks of its parent."""
    for ledger in [*_locked]:
        ledger._close_file()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)


def read_ledger(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], list[Entry]]:
    """Reads a ledger without writing to it; another process may meanwhile.

    Returns:
      Its header, and its entries by their numbers.

    Raises:
      ValueError: If it is damaged elsewhere than at its end, or has no header.
    """
    path = pathlib.Path(path)
    records, _, rest = _parse(path, path.read_bytes(), in_order=False)
    if rest:
        _warn(path, rest)
    if records.header is None:
        raise ValueError(f"{path} must have a header, got an empty file")
    return records.header, records.entries


def _parse(
    path: pathlib.Path, data: bytes, in_order: bool
) -> tuple[_Records, int, bytes]:
    """Returns the records, how many bytes they take, and the cut rest."""
    records = _Records(path, in_order)
    *lines, last = data.split(b"\n")
    # Some file systems put zeros where a crash came before the data.
    if not last and lines and b"\0" in lines[-1]:
        last = lines.pop() + b"\n"
    for number, line in enumerate(lines, 1):
        records.add_line(line, number)
    size = sum(map(len, lines)) + len(lines)
    if not last:
        return records, size, b""
    if _verified(last) is not None:
        records.add_line(last, len(lines) + 1)
        return records, len(data), b""
    start = last.split(b"\0")[0][: len(_HEADER_START)]
    if not lines and not _HEADER_START.startswith(start):
        raise ValueError(f"{path} must be a ledger, got {_shortened(last)}")
    return records, size, last


def _line(content: dict[str, Any]) -> bytes:
    """Returns a line, its end too: JSON whose last key is a checksum."""
    body = json.dumps(content, allow_nan=False).encode()
    return body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def _verified(line: bytes) -> dict[str, Any] | None:
    """Returns what a line says, None if its checksum does not match."""
    body = line[:-_CHECKSUM_LENGTH] + b"}"
    checksum = _CHECKSUM.fullmatch(line[-_CHECKSUM_LENGTH:])
    if checksum is None or zlib.crc32(body) != int(checksum[1], 16):
        return None
    return json.loads(body)


def _content(entry: Entry) -> dict[str, Any]:
    """Returns what JSON can hold of an entry."""
    score, failure = entry.score, entry.failure
    content = {key: _plain(value) for key, value in entry._asdict().items()}
    if score is not None and content["score"] is None:
        content["failure"] = failure or f"the score must be finite, got {score}"
    return content


def _entry(content: dict[str, Any]) -> Entry:
    entry = Entry(**content)
    seconds = math.nan if entry.seconds is None else entry.seconds
    latent = [math.nan if value is None else value for value in entry.latent]
    return entry._replace(latent=latent, seconds=seconds)


def _plain(value: Any, other: Callable[[float], Any] | None = None) -> Any:
    """Returns `value` with lists for arrays, and no NaN or infinity."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        is_kept = math.isfinite(value)
        return value if is_kept else other(value) if other else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one, other) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, other) for one in value]
    return value


def _plain_header(header: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(_plain(header, str), allow_nan=False))
    except TypeError as error:
        raise TypeError(
            f"`header` must have values that JSON can hold, got {header!r}"
        ) from error


def _has_grown(
    path: pathlib.Path,
    old: dict[str, Any],
    new: dict[str, Any],
    extendable: Collection[str],
) -> bool:
    """Returns whether `new` extends `old`; raises if it is another."""
    differing = [
        key
        for key in sorted({*old, *new})
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]
    wrong = [
        f"`{key}` is {_shown(old, key)} there, {_shown(new, key)} here"
        for key in differing
        if key not in extendable or not _grows(old.get(key), new.get(key))
    ]
    if wrong:
        raise ValueError(
            f"`header` must be that of {path}, got another: {'; '.join(wrong)}"
        )
    return bool(differing)


def _shown(header: dict[str, Any], key: str) -> str:
    return repr(header[key]) if key in header else "missing"


def _grows(old: Any, new: Any) -> bool:
    return {type(old), type(new)} <= {int, float} and old < new


def _warn(path: pathlib.Path, rest: bytes) -> None:
    message = "The last line of %s was cut, and is not read: %s"
    _logger.warning(message, path, _shortened(rest))


def _shortened(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 400 else text[:400] + "...")
