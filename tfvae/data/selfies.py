# SPDX-License-Identifier: Apache-2.0
"""Molecules as sequences of SELFIES symbols and merges of them, one-hot.

Every sequence of symbols stands for a molecule, so that every decoder output
is valid (Krenn et al., 2020, "Self-referencing embedded strings (SELFIES): a
100% robust molecular string representation"). RDKit and the package `selfies`
are imported only when they are used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfvae.arguments import check_counts
from tfvae.data.byte_pairs import Pair, merged

PADDING = "[nop]"
"""The symbol that ends a sequence and pads it to T steps."""

# Atoms at which the spelling of a molecule may begin, beside the canonical one:
# of one that is far too long, all of them would be tried.
_MAX_BEGINNINGS = 8

# Atoms whose hydrogens are explicit in SMILES but implicit in SELFIES.
_SPELT_OUT = re.compile(r"\[(B|C|N|O|P|S|F|Cl|Br|I)H\d?\]")


class MoleculeError(ValueError):
    """A molecule that cannot be used.

    Attributes:
      reason: Why, in a few words that other molecules may share.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Stores the reason beside the message."""
        super().__init__(message)
        self.reason = reason


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
      MoleculeError: If `smiles` is not a single molecule; a `ValueError`.
    """
    chem = import_chemistry("rdkit.Chem")
    block_logs = import_chemistry("rdkit.rdBase").BlockLogs
    molecule, reason = None, "no molecule"
    if isinstance(smiles, str) and "." in smiles:
        reason = "several components, such as a salt"
    elif isinstance(smiles, str):
        with block_logs():
            molecule = chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise MoleculeError(
            reason,
            f"`smiles` must be one molecule in SMILES, got {smiles!r}",
        )
    return molecule


def canonical_smiles(smiles: str, keeps_stereo: bool = False) -> str:
    """Returns canonical SMILES.

    Args:
      smiles: The molecule.
      keeps_stereo: Whether to keep stereochemistry and isotopes, which are
        removed otherwise.

    Raises:
      ImportError: If RDKit is missing.
      MoleculeError: If `smiles` is not a single molecule.
    """
    import_chemistry("rdkit.Chem")  # Even if what follows is remembered.
    once = _respelt(smiles, keeps_stereo)
    # Without its isotopes a molecule may be parsed differently.
    return once if once == smiles else _respelt(once, keeps_stereo)


# A search comes to the same molecules again and again.
@functools.lru_cache(maxsize=2**16)
def _respelt(smiles: str, keeps_stereo: bool) -> str:
    """Returns the SMILES that RDKit makes of what it parses."""
    to_smiles = import_chemistry("rdkit.Chem").MolToSmiles
    return to_smiles(parse_smiles(smiles), isomericSmiles=keeps_stereo)


def split_symbols(smiles: str) -> tuple[str, ...]:
    """Converts SMILES to SELFIES symbols.

    Raises:
      ImportError: If the package `selfies` is missing.
      MoleculeError: If SELFIES has no symbols for the molecule.
    """
    selfies = import_chemistry("selfies")
    try:
        return tuple(selfies.split_selfies(selfies.encoder(smiles)))
    except selfies.EncoderError as error:
        raise MoleculeError(
            "not in the language of SELFIES",
            "`smiles` must be a molecule that SELFIES can encode, got "
            f"{smiles!r}",
        ) from error


def exact_symbols(smiles: str, keeps_stereo: bool = False) -> tuple[str, ...]:
    """Converts canonical SMILES to symbols that decode to it again.

    Args:
      smiles: As `canonical_smiles` returns it.
      keeps_stereo: See `canonical_smiles`.

    Raises:
      ImportError: If RDKit or the package `selfies` is missing.
      MoleculeError: If SELFIES has no symbols for the molecule, or none that
        decode to it.
    """
    symbols = split_symbols(smiles)
    decoded = _smiles("".join(symbols))
    if decoded != smiles and smiles != canonical_smiles(decoded, keeps_stereo):
        raise MoleculeError(
            "changed by SELFIES",
            "`smiles` must be a molecule that SELFIES decodes as it encoded "
            f"it, got {smiles!r}, of which it makes {decoded!r}",
        )
    return symbols


@dataclasses.dataclass(frozen=True)
class SelfiesCode:
    """Encodes molecules as one-hot SELFIES `[n, T * K]`, and decodes them.

    A data point is T one-hot vectors, one per step, over K tokens: the
    symbols, and merges of symbols that often follow each other. Merges shorten
    sequences, and are exact: any molecule that the symbols can spell is decoded
    as it was encoded. `dataclasses.asdict` makes what JSON can hold, and
    `SelfiesCode(**...)` of that the same code.

    Attributes:
      symbols: The symbols; `PADDING` is the first.
      num_steps: T.
      merges: Pairs of tokens that are merged, in the order in which they are
        applied; see `tfvae.data.byte_pairs`.
      keeps_stereo: Whether molecules have stereochemistry and isotopes.
    """

    symbols: tuple[str, ...]
    num_steps: int
    merges: tuple[Pair, ...] = ()
    keeps_stereo: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        symbols = tuple(self.symbols)
        if len(set(symbols)) < len(symbols) or symbols[:1] != (PADDING,):
            raise ValueError(
                f"`symbols` must be distinct and begin with {PADDING!r}, got "
                f"{symbols!r}"
            )
        check_counts(num_steps=self.num_steps)
        known = set(symbols[1:])
        for pair in self.merges:
            if len(pair) != 2 or not known.issuperset(pair):
                raise ValueError(
                    "`merges` must be pairs of symbols, or of what earlier "
                    f"merges make, got {pair!r}"
                )
            if "".join(pair) in known:
                raise ValueError(
                    f"`merges` must make a new token each, got {pair!r}"
                )
            known.add("".join(pair))
        object.__setattr__(self, "symbols", symbols)
        object.__setattr__(
            self,
            "merges",
            tuple((first, second) for first, second in self.merges),
        )

    @functools.cached_property
    def tokens(self) -> tuple[str, ...]:
        """The K tokens: the symbols, and what the merges make."""
        return (*self.symbols, *map("".join, self.merges))

    @property
    def num_symbols(self) -> int:
        """Number of tokens, K."""
        return len(self.tokens)

    @functools.cached_property
    def _index(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    @functools.cached_property
    def _ranks(self) -> dict[Pair, int]:
        return {pair: i for i, pair in enumerate(self.merges)}

    def tokens_of(self, sequence: Sequence[str]) -> tuple[str, ...]:
        """Returns the tokens of a sequence of symbols, also of unknown ones."""
        return self._cached.tokens(tuple(sequence))

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_cached"}

    @functools.cached_property
    def _cached(self) -> _Cached:
        """What is slow, remembered: a search comes to it again and again."""
        remember = functools.lru_cache(maxsize=2**17)
        return _Cached(
            remember(lambda sequence: merged(sequence, self._ranks)),
            remember(functools.partial(_sequence, self)),
            remember(functools.partial(_molecule, self)),
        )

    def can_encode(self, sequence: Sequence[str]) -> bool:
        """Returns whether all symbols are known, and at most T tokens."""
        return (
            self._index.keys() >= set(sequence)
            and len(self.tokens_of(sequence)) <= self.num_steps
        )

    def one_hot(self, sequences: Sequence[Sequence[str]]) -> np.ndarray:
        """Encodes sequences of symbols, uint8 `[n, T * K]`."""
        shape = (len(sequences), self.num_steps, self.num_symbols)
        points = np.zeros(shape, np.uint8)
        for point, sequence in zip(points, sequences, strict=True):
            chosen = [self._index[token] for token in self.tokens_of(sequence)]
            chosen += [0] * (self.num_steps - len(chosen))
            point[np.arange(self.num_steps), chosen] = 1
        return points.reshape(len(sequences), -1)

    def write(self, molecules: Sequence[str]) -> np.ndarray:
        """Encodes molecules given as SMILES, uint8 `[n, T * K]`.

        Raises:
          ValueError: If one of them cannot be encoded in T of the K tokens,
            which never happens for molecules that `read` returned.
        """
        sequences = []
        for one in molecules:
            sequence = self._cached.sequence(one)
            if sequence is None:
                raise ValueError(
                    f"`molecules` must be encodable in {self.num_steps} steps "
                    f"of the {self.num_symbols} symbols, got {one!r}"
                )
            sequences.append(sequence)
        return self.one_hot(sequences)

    def read(
        self, outputs: np.ndarray, seed: int | None = None
    ) -> list[str | None]:
        """Decodes decoder outputs to canonical SMILES.

        Args:
          outputs: `[n, T * K]`, the probabilities of the tokens, or any
            increasing function of them where `seed` is None.
          seed: Seed of independent draws of the tokens of all steps; None
            for the most probable token of each step.

        Returns:
          n molecules. None where there is none: where the first token is the
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
        return [self._cached.molecule(self._text(one)) for one in chosen]

    def _text(self, chosen: np.ndarray) -> str:
        """Returns the SELFIES string of T token indices."""
        length = int(np.argmin(np.append(chosen, 0) != 0))
        return "".join(self.tokens[i] for i in chosen[:length])


class _Cached(NamedTuple):
    """Functions of a code that remember what they returned."""

    tokens: Callable[[tuple[str, ...]], tuple[str, ...]]
    sequence: Callable[[str], tuple[str, ...] | None]
    molecule: Callable[[str], str | None]


def _molecule(code: SelfiesCode, text: str) -> str | None:
    """Returns the molecule of a SELFIES string, or None, see `read`."""
    try:
        smiles = canonical_smiles(_smiles(text), code.keeps_stereo)
    except ValueError:
        return None
    return smiles if code._cached.sequence(smiles) is not None else None


def _sequence(code: SelfiesCode, smiles: str) -> tuple[str, ...] | None:
    """Returns symbols that decode to the molecule again, None without any.

    Raises:
      MoleculeError: If `smiles` is not a single molecule.
    """
    molecule = canonical_smiles(smiles, code.keeps_stereo)
    for text in _spellings(molecule, code.keeps_stereo):
        with contextlib.suppress(ValueError):
            sequence = split_symbols(text)
            if code.can_encode(sequence) and molecule == canonical_smiles(
                _smiles("".join(sequence)), code.keeps_stereo
            ):
                return sequence
    return None


def _draw(steps: np.ndarray, seed: int) -> np.ndarray:
    """Draws token indices `[n, T]` from probabilities `[n, T, K]`."""
    if np.any(steps < 0.0) or np.any(steps.sum(-1) <= 0.0):
        raise ValueError(
            "`outputs` must be probabilities where `seed` is given, got "
            f"values from {steps.min():g}"
        )
    cumulative = np.cumsum(steps, -1, dtype=np.float64)
    drawn = np.random.default_rng(seed).random((*steps.shape[:2], 1))
    # Strictly above, so that a token of probability 0 is never drawn.
    return np.argmax(cumulative > drawn * cumulative[..., -1:], -1)


def _smiles(text: str) -> str:
    """Converts a SELFIES string to SMILES."""
    return import_chemistry("selfies").decoder(text)


def _spellings(smiles: str, keeps_stereo: bool) -> Iterator[str]:
    """Yields SMILES strings of one molecule, the canonical one first."""
    yield smiles
    yield _SPELT_OUT.sub(r"\1", smiles)
    chem = import_chemistry("rdkit.Chem")
    molecule = parse_smiles(smiles)
    count = molecule.GetNumAtoms()
    for atom in range(0, count, -(-count // _MAX_BEGINNINGS)):
        text = chem.MolToSmiles(
            molecule, isomericSmiles=keeps_stereo, rootedAtAtom=atom
        )
        yield _SPELT_OUT.sub(r"\1", text)
