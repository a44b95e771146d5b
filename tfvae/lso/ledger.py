# SPDX-License-Identifier: Apache-2.0
"""Append-only, checksummed log of evaluations; rejects duplicates.

A ledger has one JSON object per line: first a header, which identifies the run,
then an entry for each evaluation. Each line ends with its checksum, and is on
disk before `Ledger.append` returns. A crash can only truncate the last line;
opening the ledger again removes the rest of this line.
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
"""Name of the file in the folder of a run."""

_logger = logging.getLogger(__name__)
_HEADER_START = b'{"header": '
_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_CHECKSUM_LENGTH = len(b', "crc32": "01234567"}')


class Entry(NamedTuple):
    """The record of one evaluation."""

    round: int
    """The round, from 0."""
    query: int
    """Number of the query in the whole run, from 0."""
    latent: list[float]
    """The proposed latents, M numbers."""
    input: Any
    """The evaluated input in its JSON form; None for an invalid decode."""
    score: float | None
    """The score, in the direction of the task; None for a failure."""
    failure: str | None
    """Reason for a missing score, in one line; None if there is a score."""
    seconds: float
    """Duration of the evaluation."""
    seed: int
    """Seed of the conversion of decoder means to the input."""
    time: str
    """Time of recording: ISO 8601, UTC."""


class _Records:
    """The contents of a ledger, validated line by line."""

    def __init__(self, path: pathlib.Path, in_order: bool) -> None:
        self.path = path
        self.in_order = in_order
        self.header: dict[str, Any] | None = None
        self.entries: list[Entry] = []
        """Sorted by number."""
        self._queries: set[int] = set()
        self._round = 0

    def add_line(self, line: bytes, number: int) -> None:
        """Adds a line without its newline; `number` counts from 1."""
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
                f"line {number} of {self.path} is not a valid next entry: "
                f"{error}"
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
        """Adds an entry that has been checked."""
        self._round = entry.round
        self._queries.add(entry.query)
        bisect.insort(self.entries, entry, key=lambda one: one.query)


class Ledger:
    """A ledger that is open for writing, locked by this process.

    Attributes:
      path: The file.
      header: The header, with the new values of extendable keys.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any],
        *,
        extendable: Collection[str] = ("budget",),
        in_order: bool = True,
    ) -> None:
        """Opens the file at `path`, or creates it.

        Args:
          path: The file; its folder must exist.
          header: Identifies the run: its task, seed and settings. A file with
            another header is rejected.
          extendable: The keys of `header` whose numbers may be larger than
            those in the file; a further header is appended to the file in this
            case.
          in_order: Whether entries must be appended in the order of their
            numbers. If not, those of one round may be in any order, as parallel
            evaluations end; but a round must have all its entries before the
            next one begins.

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
        """All entries, sorted by number."""
        return [*self._records.entries]

    def append(self, entry: Entry) -> Entry:
        """Appends an entry; it is on disk when this returns.

        Numbers that are not finite are written as null, and a score that is not
        finite as a failure.

        Returns:
          The entry as it will be read.

        Raises:
          ValueError: If its round or its number is not a valid next one.
          OSError: If it can not be written. If the disk is full, the file is
            unchanged, and the same entry can be appended again.
        """
        content = _content(entry)
        entry = _entry(content)
        self._records.check(entry)
        self._write(content)
        self._records.add(entry)
        # Only now, so that it is not written twice after an interrupt.
        self._is_uncertain = False
        return entry

    def reserve(self, num_bytes: int) -> None:
        """Reserves disk space for entries before their evaluation starts.

        It is used if the disk is full when they are appended.

        Raises:
          OSError: If there is not enough disk space.
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
                    f"not enough disk space to record the next evaluations, "
                    f"which need {num_bytes:,} bytes",
                    str(self.path),
                ) from error

    def close(self) -> None:
        """Unlocks and closes the file."""
        if self._file is not None:
            self._reserve.unlink(missing_ok=True)
            filelock.unlock_descriptor(self._file)
            self._close_file()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _lock(self) -> None:
        # Lock the file itself rather than a separate lock file, which programs
        # that lock the ledger would not notice.
        assert self._file is not None
        if not filelock.lock_descriptor(self._file, blocking=False):
            self._close_file()
            raise RuntimeError(
                f"{self.path} is in use by another process; wait for its end, "
                "or end it"
            )
        _locked.add(self)

    def _close_file(self) -> None:
        assert self._file is not None
        os.close(self._file)
        self._file = None
        _locked.discard(self)

    def _open(self, extendable: Collection[str], in_order: bool) -> None:
        """Reads the file, repairs its last line, and writes the header."""
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
        # A killed program may have written lines that are not on disk yet.
        os.fsync(self._file)
        self._is_uncertain = False
        if old is None or has_grown:
            self._write({"header": self.header})
            self._is_uncertain = False
        if old is None:
            files.sync_folder(self.path.parent)

    def _write(self, content: dict[str, Any]) -> None:
        """Appends a line to the file.

        The caller sets `_is_uncertain` to False once it has noted the line.
        """
        if self._file is None or self._is_uncertain:
            raise RuntimeError(
                f"{self.path} must be opened again before further writing"
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
        """Writes the whole line, or leaves the file unchanged."""
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
    """Closes ledgers in a forked process, which would share their locks."""
    for ledger in [*_locked]:
        ledger._close_file()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)


def read_ledger(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], list[Entry]]:
    """Reads a ledger, which another process may be writing to.

    Returns:
      Its header, and its entries sorted by number.

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
    """Returns the records, their size in bytes, and a truncated last line."""
    records = _Records(path, in_order)
    *lines, last = data.split(b"\n")
    # After a crash, some file systems have zeros in place of the data.
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
    """Returns a line with newline: JSON whose last key is the checksum."""
    body = json.dumps(content, allow_nan=False).encode()
    return body[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(body)


def _verified(line: bytes) -> dict[str, Any] | None:
    """Returns the content of a line, None if its checksum does not match."""
    body = line[:-_CHECKSUM_LENGTH] + b"}"
    checksum = _CHECKSUM.fullmatch(line[-_CHECKSUM_LENGTH:])
    if checksum is None or zlib.crc32(body) != int(checksum[1], 16):
        return None
    return json.loads(body)


def _content(entry: Entry) -> dict[str, Any]:
    """Returns the fields of an entry, in a form that JSON can represent."""
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
    """Returns `value` with lists for arrays, and without NaN and infinity.

    Args:
      value: Any nested structure of values.
      other: Replaces numbers that are not finite; None to replace them by
        None.
    """
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
            f"`header` must be serialisable as JSON, got {header!r}"
        ) from error


def _has_grown(
    path: pathlib.Path,
    old: dict[str, Any],
    new: dict[str, Any],
    extendable: Collection[str],
) -> bool:
    """Returns whether `new` extends `old`; raises if they do not match."""
    differing = [
        key
        for key in sorted({*old, *new})
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]
    wrong = [
        f"`{key}` is {_shown(old, key)} in the file, {_shown(new, key)} here"
        for key in differing
        if key not in extendable or not _grows(old.get(key), new.get(key))
    ]
    if wrong:
        raise ValueError(
            f"`header` must match that of {path}, got other values: "
            f"{'; '.join(wrong)}"
        )
    return bool(differing)


def _shown(header: dict[str, Any], key: str) -> str:
    return repr(header[key]) if key in header else "missing"


def _grows(old: Any, new: Any) -> bool:
    return {type(old), type(new)} <= {int, float} and old < new


def _warn(path: pathlib.Path, rest: bytes) -> None:
    message = "ignoring the last line of %s, which is truncated: %s"
    _logger.warning(message, path, _shortened(rest))


def _shortened(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 400 else text[:400] + "...")
