# SPDX-License-Identifier: Apache-2.0

from . import (
    base,
    expressions,
    grammar,
    molecule_pictures,
    molecule_properties,
    molecules,
    parsing,
    shapes,
)

__all__ = [
    "base",
    "expressions",
    "grammar",
    "molecule_pictures",
    "molecule_properties",
    "molecules",
    "parsing",
    "shapes",
]
