# SPDX-License-Identifier: Apache-2.0
"""Drawings of molecules, and figures of sets of them."""

from __future__ import annotations

import functools
import io
import logging
from collections.abc import Sequence

import numpy as np
import PIL.Image

from tfvae.data.selfies import import_chemistry, parse_smiles
from tfvae.lso.tasks.molecule_properties import mean_similarity

_MODULE = "rdkit.Chem.Draw.rdMolDraw2D"
_WIDTH, _HEIGHT = 360, 260
_MARGIN = 0.05

_logger = logging.getLogger(__name__)


def can_draw() -> bool:
    """Whether RDKit can draw, which takes libraries that a system may lack."""
    try:
        import_chemistry(_MODULE).MolDraw2DCairo(1, 1)
    except (AttributeError, ImportError) as error:
        cause = error.__cause__ or error
        _logger.warning("there will be no pictures of molecules: %s", cause)
        return False
    return True


def drawn(smiles: str) -> np.ndarray:
    """Returns the structural formula of a molecule on white.

    Args:
      smiles: The molecule.

    Returns:
      float16 `[260, 360, 3]` on [0, 1].

    Raises:
      ValueError: If `smiles` is not a single molecule.
    """
    drawing = import_chemistry(_MODULE)
    canvas = drawing.MolDraw2DCairo(_WIDTH, _HEIGHT)
    options = canvas.drawOptions()
    options.padding = _MARGIN
    options.flagCloseContactsDist = -1  # No marks of overlapping atoms.
    drawing.PrepareAndDrawMolecule(canvas, parse_smiles(smiles))
    canvas.FinishDrawing()
    with PIL.Image.open(io.BytesIO(canvas.GetDrawingText())) as image:
        values = np.asarray(image.convert("RGB"), np.float32)
    return (values / 255.0).astype(np.float16)


def summary(molecules: Sequence[str]) -> dict[str, float]:
    """Returns figures of a set of molecules.

    Args:
      molecules: Their canonical SMILES.

    Returns:
      "internal diversity", the mean of 1 - Tanimoto similarity over all pairs
      (see `Similarity`; left out for fewer than two), and "scaffolds", the
      number of distinct Bemis-Murcko scaffolds, of which molecules without
      rings have none.

    Raises:
      ValueError: If one of them is not a single molecule.
    """
    found: dict[str, float] = {}
    if len(molecules) > 1:
        found["internal diversity"] = 1.0 - mean_similarity(molecules)
    scaffolds = {_scaffold(one) for one in molecules} - {""}
    found["scaffolds"] = len(scaffolds)
    return found


@functools.lru_cache(maxsize=2**14)
def _scaffold(smiles: str) -> str:
    """Returns the Bemis-Murcko scaffold as SMILES, empty without rings."""
    scaffolds = import_chemistry("rdkit.Chem.Scaffolds.MurckoScaffold")
    return scaffolds.MurckoScaffoldSmiles(mol=parse_smiles(smiles))
