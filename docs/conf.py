# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration of the documentation site; `make docs` builds it.

Pages are the Markdown files of this folder. README, CONTRIBUTING and CHANGELOG
stay at the root, where they are read too: pages here include them. Docstrings
are Markdown where they have code, and plain text elsewhere.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import re
import sys
from collections.abc import Mapping
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.util import inspect

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))  # This clone, whatever else is installed.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfvae  # noqa: E402

project = "tfvae"
author = "The tfvae developers"
copyright = author
version = release = tfvae.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["tutorials/*.py"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
root_doc = "index"

# Formulas stand between dollars. Anchors of headings are GitHub's, so that
# links work in both places.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
# Notebooks are rendered as `make tutorials` has left them.
nb_execution_mode = "off"
nb_merge_streams = True
nb_output_stderr = "remove"

autodoc_class_signature = "mixed"
autodoc_default_options = {
    "members": True,
    "special-members": "__call__",
    "show-inheritance": True,
}
# What Keras documents of methods that are overridden here is Keras's.
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False

html_theme = "pydata_sphinx_theme"
html_title = f"tfvae {version}"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
# Summaries would have to be fetched, which browsers refuse pages from disk.
html_show_search_summary = False
html_show_sphinx = False
html_math_renderer = "mathml"
html_theme_options: dict[str, Any] = {
    "logo": {"text": html_title},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_nav_level": 2,
}
_switcher = os.environ.get("DOCS_SWITCHER")
if _switcher:
    # Address of the list of versions, where several are published.
    html_theme_options["switcher"] = {
        "json_url": _switcher,
        "version_match": version,
    }
    html_theme_options["check_switcher"] = False
    html_theme_options["navbar_end"] = ["version-switcher", "theme-switcher"]

# Documents at the root, and the pages that have them.
_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md#glossary": "glossary.md",
    "CONTRIBUTING.md": "contributing.md",
}


def _relink(text: str, to_root: str) -> str:
    """Returns Markdown whose links to documents at the root lead to pages.

    Args:
      text: The Markdown.
      to_root: What stands before the names of files at the root.
    """
    for name, page in _PAGES.items():
        text = text.replace(f"]({to_root}{name}", f"]({page}")
    return text


_FULL_NAME = re.compile(r"(?<!`)`(tfvae(?:\.\w+)+)`(?!`)")


def _relink_page(app: Any, docname: str, source: list[str]) -> None:
    """Makes links to the root those of pages, and full names links."""
    if "/" not in docname:
        source[0] = _relink(source[0], "../")
    source[0] = _FULL_NAME.sub(r"{py:obj}`\1`", source[0])


def _relink_included(
    app: Any, path: pathlib.Path, docname: str, source: list[str]
) -> None:
    """Makes links of a file at the root those of a page of this folder."""
    text = source[0].replace("](docs/", "](")
    source[0] = text.replace("](CITATION.cff", "](../CITATION.cff")
    source[0] = _relink(source[0], "")


_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
_SECTION = re.compile(r"(Args|Attributes|Example|Raises|Returns|Yields):\n")
# What reStructuredText would read as markup, but for bullets; "M." after the
# name of an argument would be an item of a numbered list.
_MARKUP = re.compile(r"\\|\||(?<!^)\*|^\*(?! )|(?<=\w)_(?!\w)|(?<=: \w)\.")


def _escaped(text: str) -> str:
    """Returns plain text as reStructuredText, line by line."""
    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(indent + _MARKUP.sub(r"\\\g<0>", line.lstrip()))
    return "\n".join(lines)


def _code(text: str) -> str:
    """Returns a code span as reStructuredText; names become links."""
    text = re.sub(r"\s*\n\s*", " ", text)
    if _NAME.fullmatch(text):
        return f":py:obj:`{text}`"
    return f"``{text}``"


def _prose(text: str) -> str:
    """Returns a paragraph of a docstring as reStructuredText."""
    done, at = "", 0
    for match in _CODE.finditer(text):
        done += _escaped(text[at : match.start()])
        if done and done[-1].isalnum():
            done += "\\ "
        done += _code(match[2])
        at = match.end()
        if text[at : at + 1].isalnum():
            done += "\\ "
    return done + _escaped(text[at:])


def _as_rst(
    app: Any,
    what: str,
    name: str,
    obj: object,
    options: Mapping[str, Any],
    lines: list[str],
) -> None:
    """Turns a docstring of the library into reStructuredText."""
    paragraphs = "\n".join(lines).split("\n\n")
    in_sections = False
    for i, text in enumerate(paragraphs):
        in_sections = in_sections or bool(_SECTION.match(text))
        is_code = all(one.startswith("    ") for one in text.split("\n"))
        if is_code and not in_sections:
            paragraphs[i] = f".. code-block:: python\n\n{text}"
        elif not text.lstrip().startswith(">>>"):
            paragraphs[i] = _prose(text)
    lines[:] = "\n\n".join(paragraphs).split("\n")


def _skips(
    app: Any, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Skips the fields of named tuples, which their class documents."""
    doc = getattr(obj, "__doc__", None) or ""
    return True if doc.startswith("Alias for field number") else None


def _signature(
    app: Any,
    what: str,
    name: str,
    obj: Any,
    options: object,
    signature: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """Shows what layers and models take: Keras's `__new__` hides it."""
    if what == "class" and signature == "(*args, **kwargs)":
        found = inspect.signature(obj.__init__, bound_method=True)
        signature = inspect.stringify_signature(
            found, unqualified_typehints=True, show_return_annotation=False
        )
    return signature, returned


def _bases(
    app: Any, name: str, obj: object, options: object, bases: list[type]
) -> None:
    """Leaves out what all classes are."""
    bases[:] = [base for base in bases if base is not object]


def _inline_mathml(writer: Any, node: nodes.math) -> None:
    """Writes a formula as MathML, which browsers render by themselves."""
    writer.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block_mathml(writer: Any, node: nodes.math_block) -> None:
    text = latex2mathml.tex2mathml(node.astext(), as_block=True)
    # It can be scrolled, so the keyboard has to reach it.
    writer.body.append(f'<div class="formula" tabindex="0">{text}</div>')
    raise nodes.SkipNode


def _import_tensorflow() -> None:
    """Imports it without what it says of the processor, which is no warning."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        importlib.import_module("tensorflow")
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def setup(app: Any) -> None:
    """Connects what is above to Sphinx."""
    _import_tensorflow()
    app.add_html_math_renderer(
        "mathml", (_inline_mathml, None), (_block_mathml, None)
    )
    app.connect("source-read", _relink_page)
    app.connect("include-read", _relink_included)
    # Before napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", _as_rst, priority=400)
    app.connect("autodoc-process-bases", _bases)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skips)
