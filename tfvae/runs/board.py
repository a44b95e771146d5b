# SPDX-License-Identifier: Apache-2.0
"""The board: a small server that shows the runs of a folder in a browser.

It listens on the loopback interface alone, answers only requests that are
addressed to it by name or number (so that no other site can read it by way of
DNS), reads and never writes. Files are opened folder by folder without
following links, so that none outside the folder is reached.
"""

from __future__ import annotations

import errno
import http
import http.server
import json
import os
import pathlib
import stat
import threading
import time
import urllib.parse
from collections.abc import Sequence
from html import escape
from typing import Any, BinaryIO

from tfvae import __version__
from tfvae.runs import pages
from tfvae.runs.listing import MOST_RUNS, Listing

HOST = "127.0.0.1"

KINDS = {
    ".csv": "text/csv; charset=utf-8",
    ".gin": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".jsonl": "text/plain; charset=utf-8",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
"""Media types of the files that are served, by their endings."""

# Without them `os.open` would follow links, or wait for a pipe.
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A page runs its own script and reaches nothing, not even this server.
_FILE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
_HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_SECONDS_TO_SEND = 15.0
# Several windows are answered from one look at the files.
_SECONDS_BETWEEN_LOOKS = 1.0


class RefusedError(Exception):
    """A request that is not answered."""

    def __init__(self, status: http.HTTPStatus, why: str) -> None:
        """Sets what is answered instead."""
        super().__init__(why)
        self.status = status


def is_addressed(host: str, port: int) -> bool:
    """Whether a Host header names this server.

    Args:
      host: The header.
      port: The port of the server.
    """
    names = {"localhost", HOST}
    if port == 80 and host in names:
        return True
    return host.lower() in {f"{n}:{port}" for n in names}


def parts_of(path: str) -> list[str]:
    """Returns the names of a path below the folder, decoded.

    Args:
      path: Path of a URL, without its query.

    Raises:
      RefusedError: If it could lead elsewhere, or to hidden files.
    """
    text = urllib.parse.unquote(path, errors="surrogateescape")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    for part in parts:
        if part.startswith(".") or "\0" in part or "\\" in part:
            raise RefusedError(http.HTTPStatus.NOT_FOUND, "no such file")
    return parts


def open_folder(root: int, parts: Sequence[str]) -> int:
    """Opens a folder below another one; returns its descriptor.

    Args:
      root: Descriptor of the folder.
      parts: Names of the folders below it, see `parts_of`.

    Raises:
      RefusedError: If there is none, or a link is in its place.
    """
    folder = os.dup(root)
    try:
        for part in parts:
            below = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = below
    except OSError as err:
        os.close(folder)
        raise _refused(err) from err
    return folder


def open_file(root: int, parts: Sequence[str]) -> tuple[BinaryIO, str]:
    """Opens a file below a folder, and returns it with its media type.

    Args:
      root: Descriptor of the folder.
      parts: Names of the folders and of the file, see `parts_of`.

    Raises:
      RefusedError: If there is none, it is no file, or of another kind.
    """
    kind = KINDS.get(pathlib.PurePath(parts[-1]).suffix) if parts else None
    if kind is None:
        raise RefusedError(http.HTTPStatus.NOT_FOUND, "no such file")
    folder = open_folder(root, parts[:-1])
    try:
        descriptor = os.open(parts[-1], _FILE_FLAGS, dir_fd=folder)
    except OSError as err:
        raise _refused(err) from err
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefusedError(http.HTTPStatus.NOT_FOUND, "no such file")
    return os.fdopen(descriptor, "rb"), kind


def _refused(err: OSError) -> RefusedError:
    if err.errno in (errno.EACCES, errno.EPERM):
        return RefusedError(http.HTTPStatus.FORBIDDEN, "it can not be read")
    return RefusedError(http.HTTPStatus.NOT_FOUND, "no such file")


def page(root: pathlib.Path) -> str:
    """Returns the page of the board."""
    name = escape(str(root))
    return pages.frame(
        f"{root.name or root} - runs",
        f'<h1>Runs <span id="where">in {name}</span></h1>\n'
        '<p class="state" id="state" role="status">reading</p>',
        pages.read("board.html"),
        f"tfvae {escape(__version__)}; read only, from this machine alone",
        "board",
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'",
    )


class Server(http.server.ThreadingHTTPServer):
    """The server; see the module."""

    daemon_threads = True
    # Of a busy machine, several windows at once.
    request_queue_size = 64

    def __init__(self, root: str | os.PathLike[str], port: int = 0) -> None:
        """Opens the folder and listens.

        Args:
          root: The folder of the runs.
          port: The port; 0 for any that is free.

        Raises:
          OSError: If the folder or the port can not be opened.
        """
        self.root = pathlib.Path(root).absolute()
        self.folder = os.open(
            self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        self.listing = Listing(self.root)
        self.lock = threading.Lock()
        self.looks: dict[str, tuple[float, bytes]] = {}
        self.page = page(self.root).encode()
        try:
            super().__init__((HOST, port), _Handler)
        except BaseException:
            os.close(self.folder)
            raise

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.server_port}/"

    def server_close(self) -> None:
        """Closes the port and the folder."""
        super().server_close()
        os.close(self.folder)

    def runs(self, inside: str) -> bytes:
        """Returns the runs below the folder as JSON.

        Args:
          inside: Path of a folder below, "" for the whole.

        Raises:
          RefusedError: If there is no such folder.
        """
        parts = parts_of(inside)
        os.close(open_folder(self.folder, parts))
        key = "/".join(parts)
        with self.lock:
            now = time.monotonic()
            known = self.looks.get(key)
            if known and now - known[0] < _SECONDS_BETWEEN_LOOKS:
                return known[1]
            runs = self.listing.runs(self.root.joinpath(*parts))
            content = {
                "in": key,
                "is_cut": len(runs) >= MOST_RUNS,
                "runs": [one._asdict() for one in runs],
            }
            text = json.dumps(content, separators=(",", ":")).encode()
            if len(self.looks) > 64:
                self.looks.clear()
            self.looks[key] = (time.monotonic(), text)
            return text


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers a request."""

    protocol_version = "HTTP/1.1"
    server_version = "tfvae"
    sys_version = ""
    timeout = _SECONDS_TO_SEND
    server: Server

    def do_GET(self) -> None:
        """Answers with a page, the runs, or a file."""
        self._answer()

    do_HEAD = do_GET

    def _refuse_method(self) -> None:
        self.close_connection = True  # Whatever follows is not read.
        self._send_text(
            http.HTTPStatus.METHOD_NOT_ALLOWED,
            "it is read only",
            {"Allow": "GET, HEAD"},
        )

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method

    def _answer(self) -> None:
        try:
            hosts = self.headers.get_all("Host", [])
            port = self.server.server_port
            if len(hosts) != 1 or not is_addressed(hosts[0], port):
                raise RefusedError(
                    http.HTTPStatus.MISDIRECTED_REQUEST,
                    f"it must be addressed as {self.server.url}",
                )
            self._answer_path(urllib.parse.urlsplit(self.path))
        except RefusedError as err:
            self._send_text(err.status, str(err))
        except ValueError:  # A path that is none.
            self._send_text(http.HTTPStatus.BAD_REQUEST, "no such address")
        except (ConnectionError, TimeoutError):  # The window has been closed.
            self.close_connection = True

    def _answer_path(self, url: urllib.parse.SplitResult) -> None:
        if url.path == "/":
            self._send(self.server.page, "text/html; charset=utf-8")
        elif url.path == "/runs.json":
            query = urllib.parse.parse_qs(url.query, errors="surrogateescape")
            # Decoded once by `parse_qs`, and once more by `parts_of`.
            inside = urllib.parse.quote(
                query.get("in", [""])[0], errors="surrogateescape"
            )
            self._send(self.server.runs(inside), "application/json")
        elif url.path.startswith("/files/"):
            parts = parts_of(url.path.removeprefix("/files/"))
            file, kind = open_file(self.server.folder, parts)
            with file:
                self._send_file(file, kind)
        else:
            raise RefusedError(http.HTTPStatus.NOT_FOUND, "no such page")

    def _send(self, content: bytes, kind: str) -> None:
        self._send_head(http.HTTPStatus.OK, kind, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_file(self, file: BinaryIO, kind: str) -> None:
        size = os.fstat(file.fileno()).st_size
        headers = {"Content-Security-Policy": _FILE_POLICY}
        self._send_head(http.HTTPStatus.OK, kind, size, headers)
        if self.command == "HEAD":
            return
        sent = 0
        while sent < size and (part := file.read(min(2**16, size - sent))):
            self.wfile.write(part)
            sent += len(part)
        if sent < size:  # It has become shorter.
            self.close_connection = True

    def _send_text(
        self,
        status: http.HTTPStatus,
        text: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        content = f"{text}\n".encode("utf-8", "backslashreplace")
        kind = "text/plain; charset=utf-8"
        self._send_head(status, kind, len(content), headers)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_head(
        self,
        status: http.HTTPStatus,
        kind: str,
        size: int,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (_HEADERS | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing, for a request every few seconds."""
