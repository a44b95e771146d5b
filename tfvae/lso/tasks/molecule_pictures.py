# SPDX-License-Identifier: Apache-2.0
"""Drawings of molecules, by RDKit."""

from __future__ import annotations

import io
import logging

import numpy as np
import PIL.Image

from tfvae.data.selfies import import_chemistry, parse_smiles

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
    canvas.drawOptions().padding = _MARGIN
    drawing.PrepareAndDrawMolecule(canvas, parse_smiles(smiles))
    canvas.FinishDrawing()
    with PIL.Image.open(io.BytesIO(canvas.GetDrawingText())) as image:
        values = np.asarray(image.convert("RGB"), np.float32)
    return (values / 255.0).astype(np.float16)
