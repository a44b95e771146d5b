# SPDX-License-Identifier: Apache-2.0
"""Where the files of a study and of its cells are.

A study has study.json (its cells, and how its report is laid out), base.gin
(what its cells share), cells/<name>/ and report/. A cell has config.gin
(replayable), log.txt (what it printed), result.json once it is finished,
error.txt if it failed, and what the training left there.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tfvae import files

STUDY = "study.json"
BASE = "base.gin"
CELLS = "cells"
REPORT = "report"

CONFIG = "config.gin"
LOG = "log.txt"
RESULT = "result.json"
ERROR = "error.txt"
FIGURES = "figures"


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    with files.replacing(path) as file:
        file.write(text)


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, default=float) + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns what a JSON file holds, None where there is no whole one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
