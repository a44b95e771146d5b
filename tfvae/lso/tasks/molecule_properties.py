# SPDX-License-Identifier: Apache-2.0
"""Properties of molecules: scores to maximise, and bounds that must hold.

All are functions of canonical SMILES. They import RDKit when they are called.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
import numbers
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfvae import typed_gin
from tfvae.data.selfies import MoleculeError, import_chemistry, parse_smiles

# Mean and standard deviation over the molecules of ZINC-250k.
_LOG_P = (2.45777691, 1.43341767)
_DIFFICULTY = (3.05352042, 0.83460587)
_EXCESS = (0.04861121, 0.28746695)
# Rings of up to this many atoms are not penalised.
_LARGEST_FREE_RING = 6
# Molecules that are compared with others at a time.
_ROWS = 512


@typed_gin.register
def penalised_log_p(smiles: str) -> float:
    """Returns the penalised logP of a molecule; larger is better.

    It is the octanol-water partition coefficient logP (Wildman and Crippen,
    1999), minus the synthetic accessibility score (Ertl and Schuffenhauer,
    2009), minus the number of atoms by which the largest ring of a cycle basis
    exceeds six; each term is standardised by its mean and standard deviation
    over ZINC-250k. It is unbounded: long chains of rings reach any value.

    Reference: Jin et al., 2018, "Junction tree variational autoencoder",
    section 3.2. In bridged ring systems, which have more than one cycle basis,
    the last term is that of the basis networkx finds.

    Args:
      smiles: The molecule, without stereochemistry if it is to be compared
        with published values.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If `smiles` is not a single molecule.
    """
    molecule = parse_smiles(smiles)
    log_p = import_chemistry("rdkit.Chem.Crippen").MolLogP(molecule)
    difficulty = _difficulty_scorer().calculateScore(molecule)
    excess = max(0, _longest_cycle(molecule) - _LARGEST_FREE_RING)
    return (
        (log_p - _LOG_P[0]) / _LOG_P[1]
        - (difficulty - _DIFFICULTY[0]) / _DIFFICULTY[1]
        - (excess - _EXCESS[0]) / _EXCESS[1]
    )


def _longest_cycle(molecule: Any) -> int:
    """Returns the length of the longest ring of a cycle basis, or 0."""
    networkx = import_chemistry("networkx")
    adjacency = import_chemistry("rdkit.Chem").GetAdjacencyMatrix(molecule)
    graph = networkx.Graph(adjacency)
    return max(map(len, networkx.cycle_basis(graph)), default=0)


@functools.cache
def _difficulty_scorer() -> Any:
    """Loads RDKit's synthetic accessibility scorer, a contributed module."""
    config = import_chemistry("rdkit.RDConfig")
    path = pathlib.Path(config.RDContribDir, "SA_Score", "sascorer.py")
    if not path.exists():
        raise FileNotFoundError(
            f"RDKit's scorer of synthetic accessibility must be at {path}; "
            "the packages of some distributions leave it out, that of PyPI "
            "does not: pip install 'tfvae[molecules]'"
        )
    spec = importlib.util.spec_from_file_location("tfvae_sascorer", path)
    assert spec is not None and spec.loader is not None
    scorer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scorer)
    return scorer


@typed_gin.register
def drug_likeness(smiles: str) -> float:
    """Returns the quantitative estimate of drug-likeness (QED), in [0, 1].

    Reference: Bickerton et al., 2012, "Quantifying the chemical beauty of
    drugs".

    Args:
      smiles: The molecule.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If `smiles` is not a single molecule.
    """
    return import_chemistry("rdkit.Chem.QED").qed(parse_smiles(smiles))


# Further properties, mostly for bounds.

# Bounds of one molecule are looked at one after the other.
_parsed = functools.lru_cache(maxsize=256)(parse_smiles)


@typed_gin.register
def heavy_atoms(smiles: str) -> int:
    """Returns the number of atoms other than hydrogen.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If `smiles` is not a single molecule.
    """
    return _parsed(smiles).GetNumHeavyAtoms()


@typed_gin.register
def molecular_weight(smiles: str) -> float:
    """Returns the average molecular weight, in daltons.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If `smiles` is not a single molecule.
    """
    return import_chemistry("rdkit.Chem.Descriptors").MolWt(_parsed(smiles))


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class Similarity:
    """Tanimoto similarity to a molecule, in [0, 1].

    It compares Morgan fingerprints of radius 2 in 2,048 bits.

    Attributes:
      lead: The molecule, SMILES.
    """

    lead: str

    def __post_init__(self) -> None:
        """Reads the lead, so that a wrong one is refused at once."""
        try:
            _parsed(self.lead)
        except MoleculeError as error:
            raise ValueError(
                f"`lead` must be one molecule in SMILES, got {self.lead!r}"
            ) from error

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return f"similarity to {self.lead}"

    def __call__(self, smiles: str) -> float:
        similarity = import_chemistry("rdkit.DataStructs").TanimotoSimilarity
        return similarity(_fingerprint(smiles), _fingerprint(self.lead))


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class Matches:
    """Number of matches of a substructure.

    Attributes:
      smarts: The substructure, SMARTS.
    """

    smarts: str

    def __post_init__(self) -> None:
        """Reads the pattern, so that a wrong one is refused at once."""
        _pattern(self.smarts)

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return f"matches of {self.smarts}"

    def __call__(self, smiles: str) -> int:
        pattern = _pattern(self.smarts)
        return len(_parsed(smiles).GetSubstructMatches(pattern))


@functools.cache
def _pattern(smarts: str) -> Any:
    """Returns RDKit's form of a substructure."""
    from_smarts = import_chemistry("rdkit.Chem").MolFromSmarts
    with import_chemistry("rdkit.rdBase").BlockLogs():
        pattern = from_smarts(smarts) if isinstance(smarts, str) else None
    if pattern is None or not pattern.GetNumAtoms():
        raise ValueError(
            f"`smarts` must be a substructure in SMARTS, got {smarts!r}"
        )
    return pattern


def mean_similarity(molecules: Sequence[str]) -> float:
    """Returns the mean Tanimoto similarity over all pairs of molecules.

    Args:
      molecules: Their SMILES, at least two.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If one of them is not a single molecule.
    """
    bits = np.stack([_bits(one) for one in molecules]).astype(np.float32)
    counts, total = bits.sum(-1), 0.0
    # Some rows at a time, as thousands of molecules have millions of pairs.
    for i in range(0, len(bits), _ROWS):
        rows = slice(i, i + _ROWS)
        common = bits[rows] @ bits[: i + _ROWS].T
        either = counts[rows, None] + counts[: i + _ROWS] - common
        # Each with those before it.
        total += np.tril(common / either, i - 1).sum(dtype=np.float64)
    return float(total) / (len(bits) * (len(bits) - 1) / 2)


# About 300 bytes each.
@functools.lru_cache(maxsize=2**14)
def _fingerprint(smiles: str) -> Any:
    return _fingerprints().GetFingerprint(_parsed(smiles))


def _bits(smiles: str) -> np.ndarray:
    """Returns a fingerprint as an array, uint8 `[2048]`."""
    values = np.zeros(0, np.uint8)
    data_structs = import_chemistry("rdkit.DataStructs")
    data_structs.ConvertToNumpyArray(_fingerprint(smiles), values)
    return values


def environment_counts(molecules: Sequence[str]) -> np.ndarray:
    """Returns how often molecules have each environment of an atom.

    An environment is an atom, alone or with its neighbours: those of Morgan
    fingerprints of radius 1 (Rogers and Hahn, 2010, "Extended-connectivity
    fingerprints").

    Args:
      molecules: Their SMILES.

    Returns:
      uint8 `[n, 1024]`, environments folded by hashing; 255 stands for more,
      too.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If one of them is not a single molecule.
    """
    counts = [
        _environments().GetCountFingerprintAsNumPy(_parsed(one))
        for one in molecules
    ]
    return np.minimum(np.stack(counts), 255).astype(np.uint8)


@functools.cache
def _environments() -> Any:
    generators = import_chemistry("rdkit.Chem.rdFingerprintGenerator")
    return generators.GetMorganGenerator(radius=1, fpSize=1024)


@functools.cache
def _fingerprints() -> Any:
    generators = import_chemistry("rdkit.Chem.rdFingerprintGenerator")
    return generators.GetMorganGenerator(radius=2, fpSize=2048)


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class Bounded:
    """A rule for molecules: a property is within bounds.

    At most 38 heavy atoms, and similar to a lead but another molecule:

        Bounded(heavy_atoms, at_most=38)
        Bounded(Similarity("CC(=O)Oc1ccccc1C(=O)O"), at_least=0.4, at_most=0.9)

    A substructure to keep has at least one match, one to avoid at most none:

        Bounded(Matches("C(=O)[OH]"), at_least=1)
        Bounded(Matches("[N+](=O)[O-]"), at_most=0)

    Attributes:
      quantity: The property: from canonical SMILES to a number.
      at_least: Its lower bound; None for none.
      at_most: Its upper bound; None for none.
    """

    quantity: Callable[[str], float]
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        """Checks the bounds."""
        if not callable(self.quantity) or isinstance(self.quantity, type):
            raise TypeError(
                "`quantity` must be a function of SMILES, such as heavy_atoms "
                f"or Similarity(lead), got {self.quantity!r}"
            )
        low, high = self.at_least, self.at_most
        known = [one for one in (low, high) if one is not None]
        if not known or not all(map(_is_finite, known)):
            raise ValueError(
                "`at_least` or `at_most` must be a finite number, got "
                f"{low!r} and {high!r}"
            )
        if len(known) == 2 and known[0] > known[1]:
            raise ValueError(
                f"`at_least` must be no more than `at_most`, got {low!r} and "
                f"{high!r}"
            )

    @property
    def rule(self) -> str:
        """What must hold, in a few words."""
        name = getattr(self.quantity, "label", None) or getattr(
            self.quantity, "__name__", type(self.quantity).__name__
        ).replace("_", " ")
        bounds = [
            f"at {word} {bound:g}"
            for word, bound in (
                ("least", self.at_least),
                ("most", self.at_most),
            )
            if bound is not None
        ]
        return f"{name} must be {' and '.join(bounds)}"

    def __call__(self, smiles: str) -> float:
        """Returns how far out of bounds a molecule is: it holds up to 0."""
        value = float(self.quantity(smiles))
        excesses = []
        if self.at_least is not None:
            excesses.append(self.at_least - value)
        if self.at_most is not None:
            excesses.append(value - self.at_most)
        return max(excesses)


def _is_finite(bound: Any) -> bool:
    return isinstance(bound, numbers.Real) and math.isfinite(bound)


def broken_rule(
    rules: Sequence[Callable[[str], float]], smiles: str
) -> str | None:
    """Returns the first of several rules that a molecule breaks, in words.

    Args:
      rules: Functions of SMILES whose values must be at most 0, such as
        `Bounded`. They are named by their `rule`, or else `__name__`.
      smiles: The molecule.

    Returns:
      None if it breaks none.
    """
    for rule in rules:
        if not rule(smiles) <= 0.0:  # NaN breaks it too.
            name = getattr(rule, "__name__", type(rule).__name__)
            return getattr(rule, "rule", f"{name} must be at most 0")
    return None
