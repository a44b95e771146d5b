# SPDX-License-Identifier: Apache-2.0
"""Layout of the folder of a study, and its JSON and text files.

A study has study.json (its cells, and the layout of its report), base.gin (the
configuration that its cells share), cells/<name>/ and report/. A cell has
config.gin (its whole configuration), log.txt (its output), result.json once it
is finished, error.txt if it failed, and the files of its training.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfvae import files
from tfvae.runs import kinds

STUDY = kinds.STUDY
BASE = "base.gin"
CELLS = "cells"
REPORT = "report"

CONFIG = kinds.CONFIG
LOG = "log.txt"
RESULT = "result.json"
ERROR = "error.txt"
FIGURES = "figures"


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file atomically."""
    with files.replacing(path) as file:
        file.write(text)


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, default=float) + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns the content of a JSON file, None if missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def read_study(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the content of study.json.

    Args:
      run_dir: Folder of the study.

    Raises:
      FileNotFoundError: If there is no study.
      ValueError: If an earlier version wrote it in an older format.
    """
    path = pathlib.Path(run_dir)
    content = read_json(path / STUDY)
    if content is None:
        raise FileNotFoundError(
            f"`run_dir` must be the folder of a study, got {path} without "
            f"{STUDY}."
        )
    layout = content.get("layout", {})
    if layout.pop("published", None) is not None:
        raise ValueError(outdated(path, "its layout has `published`"))
    return content


def outdated(run_dir: pathlib.Path, why: str) -> str:
    """Returns an error message for a study.json of an earlier version.

    Args:
      run_dir: Folder of the study.
      why: What is wrong with the file.
    """
    return (
        f"`run_dir` must have a {STUDY} of this version, got {run_dir}: {why}; "
        "to rewrite it, run the study again with its gin file and without "
        "--report_only (finished cells are kept, not run again)."
    )


def read_errors(
    run_dir: pathlib.Path, cells: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Returns the last line of the error of each cell that failed, by name.

    Args:
      run_dir: Folder of the study.
      cells: As study.json has them.
    """
    found = {}
    for cell in cells:
        folder = run_dir / CELLS / cell["name"]
        if (folder / ERROR).exists() and read_json(folder / RESULT) is None:
            text = (folder / ERROR).read_text(encoding="utf-8")
            found[cell["name"]] = text.strip().rpartition("\n")[2]
    return found


def file_stem(*parts: str) -> str:
    """Returns a file name stem of the non-empty texts."""
    return re.sub(r"\W+", "_", "_".join(filter(None, parts)))
