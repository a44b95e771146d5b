# SPDX-License-Identifier: Apache-2.0
"""HTML pages that open from disk: a frame of tiles and panels, one look.

Everything is embedded, so that a page can be moved and sent. The frame is
page.html, a `string.Template`, with page.css and page.js; a kind of page may
add `<name>.css` and `<name>.js`, which lie beside them. See `charts` for
curves.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.resources
import math
import pathlib
import shlex
import string
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

NAME = "report.html"
"""Name of a page in a run folder."""

_MOST_BYTES = 8 * 2**20
_PNG = b"\x89PNG\r\n\x1a\n"


class Panel(NamedTuple):
    """A part of the page.

    Attributes:
      name: Its identifier, unique on the page.
      title: Its heading.
      body: Its content, HTML.
      is_wide: Whether it takes the whole width.
    """

    name: str
    title: str
    body: str
    is_wide: bool = False


class Head(NamedTuple):
    """What is at the top of a page.

    Attributes:
      title: Title of the window.
      heading: Heading, HTML.
      state: "finished" or "unfinished".
      progress: How far it is, such as "epoch 3 of 20"; HTML.
      command: The command that makes it again, or goes on.
      note: What the command does, HTML.
    """

    title: str
    heading: str
    state: str
    progress: str
    command: str
    note: str


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
      html: What is shown.
      value: What it is sorted by; None for what is shown, "" for nothing.
      is_number: Whether it is a number, aligned to the right.
    """

    html: str
    value: float | str | None = None
    is_number: bool = False


def page(
    head: Head,
    tiles: Iterable[str],
    panels: Iterable[Panel],
    made: str,
    kind: str | None = None,
) -> str:
    """Returns a page as HTML.

    Args:
      head: Its top.
      tiles: The figures at its head, see `tile`.
      panels: Its parts.
      made: By what it has been made, and when.
      kind: Name of its own style and script, such as "restoration_page"; None
        for a page without.
    """
    shown = "\n".join(tiles)
    parts = [f'<dl class="tiles">\n{shown}\n</dl>'] if shown else []
    return frame(
        head.title,
        _header(head),
        "\n".join([*parts, *map(_section, panels)]),
        escape(made),
        kind,
    )


def frame(
    title: str,
    header: str,
    main: str,
    footer: str,
    kind: str | None = None,
    policy: str = "img-src data:",
) -> str:
    """Returns a page of any content.

    Nothing but its own script runs in it, whatever its content.

    Args:
      title: Title of the window.
      header: HTML.
      main: HTML.
      footer: HTML.
      kind: See `page`.
      policy: Part of its Content-Security-Policy.
    """
    script = "\n" + read("page.js") + _optional(f"{kind}.js")
    text = string.Template(read("page.html")).substitute(
        title=escape(title),
        header=header,
        main=main,
        footer=footer,
        policy=f"default-src 'none'; {policy}; style-src 'unsafe-inline'; "
        f"script-src {digest(script)}",
        style=read("page.css") + _optional(f"{kind}.css"),
        script=script,
    )
    # No file holds a lone surrogate.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def digest(script: str) -> str:
    """Returns a script as Content-Security-Policies name it."""
    hashed = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(hashed).decode()}'"


def _header(head: Head) -> str:
    return (
        f"<h1>{head.heading}</h1>\n"
        f'<p class="state"><span class="badge" data-state="{head.state}">'
        f"{head.state}</span> {head.progress}</p>\n"
        '<div class="command">\n<pre class="once"><code>'
        f"{escape(head.command)}</code></pre>\n"
        f'<p class="note">{head.note}</p></div>'
    )


@functools.cache
def read(name: str) -> str:
    """Returns a file of the frame."""
    folder = importlib.resources.files("tfvae.runs")
    return folder.joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _optional(name: str) -> str:
    """Returns a file of a kind of page, "" if it has none."""
    found = importlib.resources.files("tfvae.runs").joinpath(name)
    return found.read_text(encoding="utf-8") if found.is_file() else ""


def _section(panel: Panel) -> str:
    kind = "panel wide" if panel.is_wide else "panel"
    return (
        f'<section class="{kind}" id="{panel.name}" '
        f'aria-labelledby="{panel.name}-title">\n'
        f'<h2 id="{panel.name}-title">{escape(panel.title)}</h2>\n'
        f"{panel.body}\n</section>"
    )


def tile(title: str, value: str, note: str) -> str:
    """Returns a figure at the head of a page."""
    return (
        f"<div><dt>{escape(title)}</dt><dd><strong>{escape(value)}</strong> "
        f"<span>{escape(note)}</span></dd></div>"
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Returns a table of names and values, which are HTML."""
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>'
        for name, value in rows
    )
    return f"<table>{lines}</table>"


def number_cell(value: float | None, digits: int = 6) -> Cell:
    """Returns a number of a table, an empty cell where there is none."""
    if value is None or not math.isfinite(value):
        return Cell("", "", True)
    return Cell(f"{value:.{digits}g}", value, True)


def rows_table(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    label: str,
    kinds: Sequence[str] | None = None,
) -> str:
    """Returns a table that can be sorted, in a box that scrolls by itself.

    Args:
      head: Titles of the columns.
      rows: The cells.
      label: What it is.
      kinds: The kind of each row, where rows can be filtered by it.
    """
    numbers = [bool(rows) and cell.is_number for cell in rows[0]]
    titles = "".join(
        f'<th scope="col"{_class(is_number)}><button type="button">'
        f"{escape(name) or '&nbsp;'}</button></th>"
        for name, is_number in zip(head, numbers, strict=True)
    )
    lines = []
    for i, row in enumerate(rows):
        kind = "" if kinds is None else f' data-kind="{kinds[i]}"'
        lines.append(f"<tr{kind}>{''.join(map(_cell, row))}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="group" '
        f'aria-label="{escape(label)}"><table class="rows sortable">'
        f"<caption>{escape(label)}</caption>"
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _class(is_number: bool) -> str:
    return ' class="n"' if is_number else ' class="t"'


def _cell(one: Cell) -> str:
    value = "" if one.value is None else f' data-value="{one.value}"'
    return f"<td{_class(one.is_number)}{value}>{one.html}</td>"


def picture(path: pathlib.Path, alt: str) -> str | None:
    """Returns a PNG file inside a page; None if there is none, or too large.

    Args:
      path: The file.
      alt: Text for those who do not see it.
    """
    try:
        content = path.read_bytes()
    except OSError:  # It is being replaced.
        return None
    if not content.startswith(_PNG) or len(content) > _MOST_BYTES:
        return None
    width, height = (
        int.from_bytes(content[i : i + 4], "big") for i in (16, 20)
    )
    uri = base64.b64encode(content).decode("ascii")
    return (
        f'<figure><img class="drawing" width="{width}" height="{height}" '
        f'alt="{escape(alt)}" src="data:image/png;base64,{uri}"></figure>'
    )


def configuration(text: str) -> Panel:
    """Returns a panel with the text of a gin file, closed at first."""
    body = (
        "<details><summary>config.gin</summary>"
        f"<pre><code>{escape(text)}</code></pre></details>"
    )
    return Panel("configuration", "Configuration", body, is_wide=True)


def number(value: float | str) -> str:
    """Returns a value of a table."""
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


def duration(seconds: float) -> str:
    """Returns seconds as, for example, "4 min 12 s"."""
    if seconds < 60.0:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def without_folder(text: str) -> str:
    """Returns a command without the folder of its program."""
    program, *arguments = shlex.split(text) or [""]
    name = pathlib.PurePath(program).name
    # As `python -m tfvae.cli.main`.
    name = "tfvae" if program.endswith("tfvae/cli/main.py") else name
    return shlex.join([name, *arguments])
