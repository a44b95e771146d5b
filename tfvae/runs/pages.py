# SPDX-License-Identifier: Apache-2.0
"""HTML pages that open from disk: a frame of tiles and panels, one look.

Everything is embedded, so that a page can be moved and sent. The frame is
page.html, a `string.Template`; a kind of page adds `<name>.css` and
`<name>.js`, which lie beside it.
"""

from __future__ import annotations

import importlib.resources
import pathlib
import shlex
import string
from collections.abc import Iterable
from html import escape
from typing import NamedTuple

NAME = "report.html"
"""Name of a page in a run folder."""


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


def page(
    kind: str,
    title: str,
    heading: str,
    tiles: Iterable[str],
    panels: Iterable[Panel],
    made: str,
) -> str:
    """Returns a page as HTML.

    Args:
      kind: Name of its style and script, such as "restoration_page".
      title: Title of the window.
      heading: Heading, HTML.
      tiles: The figures at its head, see `tile`.
      panels: Its parts.
      made: By what it has been made, and when.
    """
    frame = string.Template(_read("page.html"))
    text = frame.substitute(
        title=escape(title),
        heading=heading,
        tiles="\n".join(tiles),
        panels="\n".join(map(_section, panels)),
        made=escape(made),
        style=_read(f"{kind}.css"),
        script=_read(f"{kind}.js"),
    )
    # No file holds a lone surrogate.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _read(name: str) -> str:
    folder = importlib.resources.files("tfvae.runs")
    return folder.joinpath(name).read_text(encoding="utf-8")


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


def command(text: str, note: str) -> str:
    """Returns a command, and a note about it, which is HTML."""
    return f'<pre><code>{escape(text)}</code></pre>\n<p class="note">{note}</p>'


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Returns a table of names and values, which are HTML."""
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>'
        for name, value in rows
    )
    return f"<table>{lines}</table>"


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
