# SPDX-License-Identifier: Apache-2.0

from . import (
    base,
    expressions,
    grammar,
    molecule_properties,
    molecule_reports,
    molecules,
    parsing,
    shapes,
)

__all__ = [
    "base",
    "expressions",
    "grammar",
    "molecule_properties",
    "molecule_reports",
    "molecules",
    "parsing",
    "shapes",
]
