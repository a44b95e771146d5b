# SPDX-License-Identifier: Apache-2.0
"""A report of a study as files: Markdown, and the same as a page.

The page is made of the Markdown text, whose parts become its panels, so that
what sections add to a report is on the page, too.
"""

from __future__ import annotations

import datetime
import pathlib
import re
import shlex
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from html import escape

import markdown

from tfvae import __version__
from tfvae.runs import pages
from tfvae.runs.pages import Cell, Head, Panel
from tfvae.sweeps import folders

REPORT = "report.md"

# Texts of reports are not trusted: neither HTML nor links are made of them.
_LEFT_OUT = (
    "html",
    "link",
    "reference",
    "short_reference",
    "image_reference",
    "short_image_ref",
    "autolink",
    "automail",
    "entity",
)
# What no XML has.
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def write(
    folder: pathlib.Path, parts: Sequence[str], done: int, total: int
) -> pathlib.Path:
    """Writes report.md and report.html, and prints their place.

    Args:
      folder: The folder of the report, with its figures.
      parts: The Markdown text, in parts.
      done: Finished cells.
      total: All cells.

    Returns:
      Path of the Markdown file.
    """
    text = "\n".join(parts)
    target = folder / REPORT
    folders.write_text(target, text)
    folders.write_text(folder / pages.NAME, page(text, folder, done, total))
    print(f"report of {done} of {total} cells: {target}", flush=True)
    return target


def page(text: str, folder: pathlib.Path, done: int, total: int) -> str:
    """Returns the page as HTML; see `write`.

    Args:
      text: The Markdown text.
      folder: The folder of the report, with its figures.
      done: Finished cells.
      total: All cells.
    """
    elements = [*_elements(text)]
    name = folder.absolute().parent.name
    written = f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    return pages.page(
        Head(
            f"{name}, compared",
            f"{escape(name)} <span>compared</span>",
            "finished" if done >= total else "unfinished",
            f"{done} of {total} cells, {written}",
            pages.without_folder(shlex.join(sys.argv)),
            "The settings of all cells are in base.gin of the run folder, "
            "those of one in config.gin of its own.",
        ),
        [],
        _panels(elements, folder),
        f"tfvae {__version__}; {written}",
        "report_page",
    )


def _elements(text: str) -> Iterator[ET.Element]:
    """Yields what is in a Markdown text."""
    converter = markdown.Markdown(extensions=["tables"])
    converter.preprocessors.deregister("html_block")
    for name in _LEFT_OUT:
        converter.inlinePatterns.deregister(name)
    html = converter.convert(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))
    yield from ET.fromstring(f"<div>{html}</div>")


def _panels(
    elements: Iterable[ET.Element], folder: pathlib.Path
) -> list[Panel]:
    """Returns a panel for what follows each heading of the second level."""
    found: list[tuple[str, list[str]]] = [("About", [])]
    label = "About"
    for one in elements:
        if one.tag == "h1":
            continue
        if one.tag in ("h2", "h3", "h4"):
            label = "".join(one.itertext())
        if one.tag == "h2":
            found.append((label, []))
        elif one.tag == "table":
            found[-1][1].append(_table(one, label))
        else:
            found[-1][1].append(_html(one, folder))
    return [
        Panel(f"part-{number}", title, "\n".join(body), is_wide=True)
        for number, (title, body) in enumerate(found)
        if body
    ]


def _table(one: ET.Element, label: str) -> str:
    head, *rows = (list(row) for row in one.iter("tr"))
    cells = [[_cell(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    # A column of which any cell is no number is sorted as text.
    for column in range(len(head)):
        of_column = [row[column] for row in cells]
        if any(cell.value is None for cell in of_column):
            for row in cells:
                row[column] = Cell(row[column].html)
    return pages.rows_table(
        ["".join(cell.itertext()) for cell in head], cells, label
    )


def _cell(one: ET.Element) -> Cell:
    text = "".join(one.itertext()).strip()
    if text in ("", "-"):
        return Cell(_inner(one), "", True)
    found = _NUMBER.match(text)
    if found is None or text[found.end() :].lstrip()[:1] not in "(±n":
        return Cell(_inner(one))
    number = found[0].replace(",", "").replace("−", "-")
    return Cell(_inner(one), float(number), True)


def _inner(one: ET.Element) -> str:
    inside = [ET.tostring(child, encoding="unicode") for child in one]
    return escape(one.text or "") + "".join(inside)


def _html(one: ET.Element, folder: pathlib.Path) -> str:
    """Returns an element as HTML, with its pictures inside."""
    images = [*one.iter("img")]
    if not images:
        return ET.tostring(one, encoding="unicode").strip()
    shown = []
    for image in images:
        alt, source = image.get("alt", ""), image.get("src", "")
        path = folder / source
        is_inside = path.resolve().is_relative_to(folder.resolve())
        picture = pages.picture(path, alt) if is_inside else None
        shown.append(picture or f'<p class="note">{escape(source)}</p>')
    return "\n".join(shown)
