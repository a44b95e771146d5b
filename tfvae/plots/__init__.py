# SPDX-License-Identifier: Apache-2.0
"""Matplotlib figures of runs, from NumPy arrays to files.

Every function atomically writes one file, whose suffix chooses the format.
Figures are created without pyplot, so matplotlib's global state is untouched.
"""

from __future__ import annotations

from tfvae.plots.figures import PathLike
from tfvae.plots.lines import Panel, curves, latent_usage, panels
from tfvae.plots.optimization import (
    Band,
    Weighted,
    sample_scores,
    top_k_curves,
    weights,
)
from tfvae.plots.planes import manifold
from tfvae.plots.restoration import restoration_panel
from tfvae.plots.sheets import (
    feature_sheet,
    image_grid,
    reconstructions,
    sheet_of_pictures,
    tiles,
)

__all__ = [
    "Band",
    "Panel",
    "PathLike",
    "Weighted",
    "curves",
    "feature_sheet",
    "image_grid",
    "latent_usage",
    "manifold",
    "panels",
    "reconstructions",
    "restoration_panel",
    "sample_scores",
    "sheet_of_pictures",
    "tiles",
    "top_k_curves",
    "weights",
]
