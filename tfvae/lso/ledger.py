# SPDX-License-Identifier: Apache-2.0
"""Append-only, checksummed log of a run; rejects what can not be next.

A ledger has one JSON object per line: first a header, which identifies the run,
then a record for all that happens, see `tfvae.lso.records`. Nothing is ever
changed: a wrong result is amended by a further record. Each line ends with its
checksum, and is on disk before `Ledger.append` returns. A crash can only
truncate the last line; opening the ledger again removes the rest of this line.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import pathlib
import re
import weakref
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import filelock

from tfvae import files
from tfvae.lso.records import (
    Addition,
    Entry,
    Query,
    Record,
    Records,
    from_content,
    plain,
    to_content,
)

LEDGER = "ledger.jsonl"
"""Name of the file in the folder of a run."""

_logger = logging.getLogger(__name__)
_HEADER_START = b'{"header": '
_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}')
_CHECKSUM_LENGTH = len(b', "crc32": "01234567"}')


class Ledger:
    """A ledger that is open for writing, locked by this process.

    Attributes:
      path: The file.
      records: All records, and the state that they lead to.
      changed: The values in the file and the new ones of keys of the header
        that have changed by its opening, by key.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any] | None = None,
        *,
        changeable: Collection[str] = ("budget", "min_distance"),
        check: Callable[[Records], None] | None = None,
    ) -> None:
        """Opens the file at `path`, or creates it.

        Args:
          path: The file; its folder must exist.
          header: Identifies the run: its task, seed and settings. A file with
            another header is rejected. None for that of the file, which must
            have one.
          changeable: The keys of `header` whose values may differ from those in
            the file; a further header is appended to the file in this case.
          check: Called with the records before anything is written; what it
            raises leaves the file as it is.

        Raises:
          RuntimeError: If another process has it open.
          ValueError: If the file is damaged elsewhere than at its end, has
            another header, or is of an earlier version.
        """
        self.path = pathlib.Path(path)
        self._given = None if header is None else _plain_header(header)
        self.changed: dict[str, tuple[Any, Any]] = {}
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file: int | None = os.open(self.path, flags, 0o644)
        self._reserve = self.path.with_name(self.path.name + ".reserve")
        self._lock()
        try:
            self._open(changeable, check)
        except BaseException:
            self.close()
            raise

    @property
    def entries(self) -> list[Entry]:
        """The queries with results, sorted by number."""
        return _sorted(self.records)

    @property
    def waiting(self) -> list[Query]:
        """The queries that lack results, in the order of their proposal."""
        return [*self.records.waiting.values()]

    def append(self, record: Record) -> Record:
        """Appends a record; it is on disk when this returns.

        Numbers that are not finite are written as null, and a score that is not
        finite as a failure.

        Returns:
          The record as it will be read.

        Raises:
          ValueError: If it is not a valid next one.
          OSError: If it can not be written. If the disk is full, the file is
            unchanged, and the same record can be appended again.
        """
        content = to_content(record)
        record = from_content(content)
        self.records.check(record)
        self._write(content)
        self.records.add(record)
        # Only now, so that it is not written twice after an interrupt.
        self._is_uncertain = False
        return record

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

    @property
    def header(self) -> dict[str, Any]:
        """The header, with the newest values of changeable keys."""
        assert self.records.header is not None
        return self.records.header

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

    def _open(
        self,
        changeable: Collection[str],
        check: Callable[[Records], None] | None,
    ) -> None:
        """Reads the file, repairs its last line, and writes the header."""
        assert self._file is not None
        data = self.path.read_bytes()
        self.records, self._size, rest = _parse(self.path, data)
        if self.records.is_legacy:
            raise ValueError(
                f"{self.path} is of an earlier version of tfvae, whose runs "
                "can be read but not continued; start a new run"
            )
        old = self.records.header
        if old is None and self._given is None:
            raise ValueError(f"{self.path} must have a header, got none")
        if old is not None and self._given is not None:
            self.changed = _changes(self.path, old, self._given, changeable)
        if check is not None:
            check(self.records)
        if rest:
            _warn(self.path, rest)
            os.ftruncate(self._file, self._size)
        elif data and not data.endswith(b"\n"):
            os.write(self._file, b"\n")
            self._size += 1
        # A killed program may have written lines that are not on disk yet.
        os.fsync(self._file)
        self._is_uncertain = False
        if old is None or self.changed:
            content = {"header": self._given}
            self._write(content)
            self.records.add_content(content)
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


class Contents(NamedTuple):
    """What a ledger contains."""

    header: dict[str, Any]
    entries: list[Entry]
    """The queries with results, sorted by number."""
    waiting: list[Query]
    """The queries that lack results."""
    additions: list[Addition]
    """The measurements that were added."""


def read_ledger(path: str | os.PathLike[str]) -> Contents:
    """Reads a ledger, which another process may be writing to.

    Raises:
      ValueError: If it is damaged elsewhere than at its end, or has no header.
    """
    path = pathlib.Path(path)
    records, _, rest = _parse(path, path.read_bytes())
    if rest:
        _warn(path, rest)
    if records.header is None:
        raise ValueError(f"{path} must have a header, got an empty file")
    return Contents(
        records.header,
        _sorted(records),
        [*records.waiting.values()],
        records.additions,
    )


def read_header(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Reads the newest header of a ledger alone; None if it has none yet."""
    header = None
    with pathlib.Path(path).open("rb") as file:
        for line in file:
            if line.startswith(_HEADER_START):
                # Damaged lines are for those who read all of it.
                content = _verified(line.rstrip(b"\n"))
                header = header if content is None else content["header"]
    return header


def _sorted(records: Records) -> list[Entry]:
    return [records.entries[number] for number in sorted(records.entries)]


def _parse(path: pathlib.Path, data: bytes) -> tuple[Records, int, bytes]:
    """Returns the records, their size in bytes, and a truncated last line."""
    records = Records()
    *lines, last = data.split(b"\n")
    # After a crash, some file systems have zeros in place of the data.
    if not last and lines and b"\0" in lines[-1]:
        last = lines.pop() + b"\n"
    for number, line in enumerate(lines, 1):
        _add_line(records, path, line, number)
    size = sum(map(len, lines)) + len(lines)
    if not last:
        return records, size, b""
    if _verified(last) is not None:
        _add_line(records, path, last, len(lines) + 1)
        return records, len(data), b""
    start = last.split(b"\0")[0][: len(_HEADER_START)]
    if not lines and not _HEADER_START.startswith(start):
        raise ValueError(f"{path} must be a ledger, got {_shortened(last)}")
    return records, size, last


def _add_line(
    records: Records, path: pathlib.Path, line: bytes, number: int
) -> None:
    """Adds a line without its newline; `number` counts from 1."""
    content = _verified(line)
    if content is None:
        raise ValueError(
            f"line {number} of {path} is damaged: its checksum does not match "
            f"{_shortened(line)}"
        )
    try:
        records.add_content(content)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"line {number} of {path} is not a valid next record: {error}"
        ) from error


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


def _plain_header(header: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(plain(header, str), allow_nan=False))
    except TypeError as error:
        raise TypeError(
            f"`header` must be serialisable as JSON, got {header!r}"
        ) from error


def _changes(
    path: pathlib.Path,
    old: dict[str, Any],
    new: dict[str, Any],
    changeable: Collection[str],
) -> dict[str, tuple[Any, Any]]:
    """Returns old and new values by key; raises if headers do not match."""
    differing = [
        key
        for key in sorted({*old, *new})
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]
    wrong = [
        f"`{key}` is {_shown(old, key)} in the file, {_shown(new, key)} here"
        for key in differing
        if key not in changeable
    ]
    if wrong:
        raise ValueError(
            f"`header` must match that of {path}, got other values: "
            f"{'; '.join(wrong)}"
        )
    return {key: (old.get(key), new.get(key)) for key in differing}


def _shown(header: dict[str, Any], key: str) -> str:
    return repr(header[key]) if key in header else "missing"


def _warn(path: pathlib.Path, rest: bytes) -> None:
    message = "ignoring the last line of %s, which is truncated: %s"
    _logger.warning(message, path, _shortened(rest))


def _shortened(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 400 else text[:400] + "...")
