# SPDX-License-Identifier: Apache-2.0
"""Folders of studies that nobody has run, for tests of reports."""

from __future__ import annotations

import json

import numpy as np

from tfvae.data import images


def write(folder, frame, factors, *, columns, separate):
    """Writes the folder of a study that has given results.

    Args:
      folder: Of the study.
      frame: A row for each cell: name, repetition, levels, and metrics.
      factors: The names of those columns that are levels.
      columns: See `study`.
      separate: See `study`.
    """
    layout = {
        "factors": {name: list(dict.fromkeys(frame[name])) for name in factors},
        "columns": columns,
        "separate": separate,
    }
    cells = []
    for row in frame.to_dict("records"):
        levels = {name: row.pop(name) for name in factors}
        name, repetition = row.pop("name"), row.pop("repetition")
        cell = folder / "cells" / name
        (cell / "figures").mkdir(parents=True)
        (cell / "result.json").write_text(json.dumps(row))
        if repetition == 0:
            picture = np.full((8, 16, 1), 128.0, np.float32)
            images.write_image(cell / "figures/samples.png", picture)
        cells.append({"name": name, "levels": levels, "repetition": repetition})
    (folder / "study.json").write_text(
        json.dumps({"layout": layout, "cells": cells})
    )


def plain(markdown):
    """Returns Markdown whose tables have one space beside each cell."""
    return "\n".join(" ".join(one.split()) for one in markdown.splitlines())
