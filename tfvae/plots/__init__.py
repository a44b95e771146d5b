# SPDX-License-Identifier: Apache-2.0
"""Matplotlib figures of runs, from NumPy arrays to files.

Every function with a path atomically writes one file, whose suffix chooses the
format. Figures are created without pyplot, so matplotlib's global state is
untouched. `embedding` has what HTML pages embed.
"""

from __future__ import annotations

from tfvae.plots.figures import PathLike, as_rgb
from tfvae.plots.lines import (
    Panel,
    curves,
    latent_usage,
    panels,
)
from tfvae.plots.optimization import (
    Band,
    Progress,
    Weighted,
    progress,
    sample_scores,
    top_k_curves,
    weights,
)
from tfvae.plots.planes import manifold
from tfvae.plots.restoration import (
    busiest_region,
    comparison,
    restoration_panel,
)
from tfvae.plots.sheets import (
    captioned_pictures,
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
    "Progress",
    "Weighted",
    "as_rgb",
    "busiest_region",
    "captioned_pictures",
    "comparison",
    "curves",
    "feature_sheet",
    "image_grid",
    "latent_usage",
    "manifold",
    "panels",
    "progress",
    "reconstructions",
    "restoration_panel",
    "sample_scores",
    "sheet_of_pictures",
    "tiles",
    "top_k_curves",
    "weights",
]
