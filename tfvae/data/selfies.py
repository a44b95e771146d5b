# SPDX-License-Identifier: Apache-2.0
"""Molecules as sequences of SELFIES symbols, one-hot.

Every sequence of symbols stands for a molecule, so that every decoder output
is valid (Krenn et al., 2020, "Self-referencing embedded strings (SELFIES): a
100% robust molecular string representation"). RDKit and the package `selfies`
are imported only when they are used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

PADDING = "[nop]"
"""The symbol that ends a sequence and pads it to T steps."""

# Atoms whose hydrogens are explicit in SMILES but implicit in SELFIES.
_SPELT_OUT = re.compile(r"\[(B|C|N|O|P|S|F|Cl|Br|I)H\d?\]")


def import_chemistry(name: str) -> Any:
    """Imports a module of the optional libraries for molecules.

    Raises:
      ImportError: If it is missing; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Molecules need {name}, which is not installed; "
            "pip install 'tfvae[molecules]'"
        ) from error


def parse_smiles(smiles: str) -> Any:
    """Parses SMILES to an RDKit molecule, without RDKit's log messages.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If `smiles` is not a single molecule.
    """
    chem = import_chemistry("rdkit.Chem")
    block_logs = import_chemistry("rdkit.rdBase").BlockLogs
    molecule = None
    if isinstance(smiles, str) and "." not in smiles:
        with block_logs():
            molecule = chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise ValueError(
            f"`smiles` must be one molecule in SMILES, got {smiles!r}"
        )
    return molecule


def canonical_smiles(smiles: str) -> str:
    """Returns canonical SMILES without stereochemistry.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If `smiles` is not a single molecule.
    """
    to_smiles = import_chemistry("rdkit.Chem").MolToSmiles
    once = to_smiles(parse_smiles(smiles), isomericSmiles=False)
    if once == smiles:
        return smiles
    # Without its isotopes a molecule may be parsed differently.
    return to_smiles(parse_smiles(once), isomericSmiles=False)


def split_symbols(smiles: str) -> tuple[str, ...]:
    """Converts SMILES to SELFIES symbols.

    Raises:
      ImportError: If the package `selfies` is missing.
      ValueError: If SELFIES has no symbols for the molecule.
    """
    selfies = import_chemistry("selfies")
    try:
        return tuple(selfies.split_selfies(selfies.encoder(smiles)))
    except selfies.EncoderError as error:
        raise ValueError(
            "`smiles` must be a molecule that SELFIES can encode, got "
            f"{smiles!r}"
        ) from error


@dataclasses.dataclass(frozen=True)
class SelfiesCode:
    """Encodes molecules as one-hot SELFIES `[n, T * K]`, and decodes them.

    A data point is T one-hot vectors, one per step, over K symbols.

    Attributes:
      symbols: The K symbols; `PADDING` is the first.
      num_steps: T.
    """

    symbols: tuple[str, ...]
    num_steps: int

    def __post_init__(self) -> None:
        """Checks the values."""
        symbols = tuple(self.symbols)
        if len(set(symbols)) < len(symbols) or symbols[:1] != (PADDING,):
            raise ValueError(
                f"`symbols` must be distinct and begin with {PADDING!r}, got "
                f"{symbols!r}"
            )
        if self.num_steps < 1:
            raise ValueError(
                f"`num_steps` must be at least 1, got {self.num_steps!r}"
            )
        object.__setattr__(self, "symbols", symbols)

    @property
    def num_symbols(self) -> int:
        """Number of symbols, K."""
        return len(self.symbols)

    def can_encode(self, sequence: Sequence[str]) -> bool:
        """Returns whether a sequence has at most T symbols, all known."""
        return len(sequence) <= self.num_steps and set(sequence) <= set(
            self.symbols
        )

    def one_hot(self, sequences: Sequence[Sequence[str]]) -> np.ndarray:
        """Encodes sequences of symbols, float32 `[n, T * K]`."""
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        shape = (len(sequences), self.num_steps, self.num_symbols)
        points = np.zeros(shape, np.float32)
        for point, sequence in zip(points, sequences, strict=True):
            chosen = [index[symbol] for symbol in sequence]
            chosen += [0] * (self.num_steps - len(chosen))
            point[np.arange(self.num_steps), chosen] = 1.0
        return points.reshape(len(sequences), -1)

    def write(self, molecules: Sequence[str]) -> np.ndarray:
        """Encodes molecules given as SMILES, float32 `[n, T * K]`.

        Raises:
          ValueError: If one of them cannot be encoded in T of the K symbols,
            which never happens for molecules that `read` returned.
        """
        return self.one_hot([self._sequence(one) for one in molecules])

    def read(
        self, outputs: np.ndarray, seed: int | None = None
    ) -> list[str | None]:
        """Decodes decoder outputs to canonical SMILES.

        Args:
          outputs: `[n, T * K]`, the probabilities of the symbols, or any
            increasing function of them where `seed` is None.
          seed: Seed of independent draws of the symbols of all steps; None
            for the most probable symbol of each step.

        Returns:
          n molecules. None where there is none: where the first symbol is the
          padding, and for the few molecules that `write` cannot encode (with
          atoms that only RDKit's form of the molecule spells out, mostly of
          implausible valences).

        Raises:
          ValueError: If the shape is wrong or values are not finite.
        """
        outputs = np.asarray(outputs)
        width = self.num_steps * self.num_symbols
        if outputs.ndim != 2 or outputs.shape[1] != width:
            raise ValueError(
                f"`outputs` must have shape [n, {width}], that is "
                f"{self.num_steps} steps of {self.num_symbols} symbols, got "
                f"{outputs.shape!r}"
            )
        if not np.isfinite(outputs).all():
            raise ValueError("`outputs` must be finite")
        steps = outputs.reshape(-1, self.num_steps, self.num_symbols)
        chosen = steps.argmax(-1) if seed is None else _draw(steps, seed)
        return [self._molecule(one) for one in chosen]

    def _molecule(self, chosen: np.ndarray) -> str | None:
        """Returns the molecule of T symbol indices, or None."""
        length = int(np.argmin(np.append(chosen, 0) != 0))
        text = "".join(self.symbols[i] for i in chosen[:length])
        try:
            smiles = canonical_smiles(_smiles(text))
            self._sequence(smiles)
        except ValueError:
            return None
        return smiles

    def _sequence(self, smiles: str) -> tuple[str, ...]:
        """Returns a sequence that decodes to the molecule again."""
        molecule = canonical_smiles(smiles)
        for text in _spellings(molecule):
            with contextlib.suppress(ValueError):
                sequence = split_symbols(text)
                if self.can_encode(sequence) and molecule == canonical_smiles(
                    _smiles("".join(sequence))
                ):
                    return sequence
        raise ValueError(
            f"`molecules` must be encodable in {self.num_steps} steps of the "
            f"{self.num_symbols} symbols, got {smiles!r}"
        )


def _draw(steps: np.ndarray, seed: int) -> np.ndarray:
    """Draws symbol indices `[n, T]` from probabilities `[n, T, K]`."""
    if np.any(steps < 0.0) or np.any(steps.sum(-1) <= 0.0):
        raise ValueError(
            "`outputs` must be probabilities where `seed` is given, got "
            f"values from {steps.min():g}"
        )
    cumulative = np.cumsum(steps, -1, dtype=np.float64)
    drawn = np.random.default_rng(seed).random((*steps.shape[:2], 1))
    # Strictly above, so that a symbol of probability 0 is never drawn.
    return np.argmax(cumulative > drawn * cumulative[..., -1:], -1)


def _smiles(text: str) -> str:
    """Converts a SELFIES string to SMILES."""
    return import_chemistry("selfies").decoder(text)


def _spellings(smiles: str) -> Iterator[str]:
    """Yields SMILES strings of one molecule, the canonical one first."""
    chem = import_chemistry("rdkit.Chem")
    molecule = parse_smiles(smiles)
    yield smiles
    yield _SPELT_OUT.sub(r"\1", smiles)
    for atom in range(molecule.GetNumAtoms()):
        text = chem.MolToSmiles(
            molecule, isomericSmiles=False, rootedAtAtom=atom
        )
        yield _SPELT_OUT.sub(r"\1", text)
