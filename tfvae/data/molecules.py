# SPDX-License-Identifier: Apache-2.0
"""Files of molecules, a text in SMILES at the beginning of each line."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

import gin

from tfvae.data.selfies import (
    PADDING,
    SelfiesCode,
    canonical_smiles,
    import_chemistry,
    split_symbols,
)
from tfvae.data.source import Observations

_SHIPPED = ("Pains", "test_data", "wehi_mols.csv")

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class MoleculeFile:
    """The molecules of a file, without repetition, in its order.

    Attributes:
      sequences: From canonical SMILES to SELFIES symbols.
      code: What writes and reads such molecules.
      num_left_out: How many lines were no molecule, or one too long.
    """

    sequences: Mapping[str, tuple[str, ...]]
    code: SelfiesCode
    num_left_out: int = 0


def molecule_file(
    path: str | os.PathLike[str] | None = None,
    *,
    num_steps: int | None = None,
    num_symbols: int | None = None,
    leave_out: bool = False,
) -> MoleculeFile:
    """Reads a file with a molecule in SMILES at the beginning of each line.

    More columns may follow, after a comma or white space, and be quoted;
    empty lines do not count. Stereochemistry is dropped. Without a path it is
    the set that comes with RDKit: 9,997 compounds of a screening library,
    `Data/Pains/test_data/wehi_mols.csv` (Saubern, Guha and Baell, 2011, "KNIME
    workflow to assess PAINS filters in SMARTS format"), part of RDKit's
    distribution and under its BSD-3-Clause licence. They take 55 steps of 32
    symbols.

    Args:
      path: The file, or None.
      num_steps: T, at most how many symbols a molecule has; None for as many
        as the longest one of the file has. More than that leave room for
        longer ones to be found.
      num_symbols: K, with the padding; only compared with what the molecules
        take, for a model has to be made for this number. None for any.
      leave_out: Whether lines without a readable molecule, and molecules
        that are too long, are left out and counted in place of an error. It
        is so for RDKit's set, where it concerns three salts.

    Returns:
      The molecules.

    Raises:
      FileNotFoundError: If there is no such file.
      ImportError: If RDKit or the package `selfies` is missing.
      ValueError: If a line cannot be used, or nothing is left, or K is
        another number.
    """
    leave_out = leave_out or path is None
    path = _shipped_path() if path is None else pathlib.Path(path)
    sequences: dict[str, tuple[str, ...]] = {}
    too_long: dict[int, int] = {}
    num_left_out = 0
    for number, text in _lines(path):
        try:
            smiles = canonical_smiles(text)
            sequence = sequences.get(smiles) or split_symbols(smiles)
        except ValueError as error:
            if not leave_out:
                raise ValueError(
                    f"{path}, line {number}: {error}; `leave_out` = True "
                    "does without such lines"
                ) from error
            num_left_out += 1
            continue
        if num_steps is not None and len(sequence) > num_steps:
            too_long[number] = len(sequence)
        else:
            sequences[smiles] = sequence
    if too_long and not leave_out:
        line, length = next(iter(too_long.items()))
        raise ValueError(
            f"`num_steps` must be at least {max(too_long.values())} for all "
            f"molecules of {path}, got {num_steps}, and line {line} takes "
            f"{length}; `leave_out` = True does without such lines"
        )
    num_left_out += len(too_long)
    if num_left_out:
        _logger.info("Left out %d lines of %s.", num_left_out, path)
    code = _code_of(sequences.values(), path, num_steps, num_symbols)
    return MoleculeFile(sequences, code, num_left_out)


def _code_of(
    sequences: Iterable[tuple[str, ...]],
    path: pathlib.Path,
    num_steps: int | None,
    num_symbols: int | None,
) -> SelfiesCode:
    """Returns a code that can say the sequences of a file."""
    sequences = list(sequences)
    if not sequences:
        raise ValueError(f"{path} must have a molecule that can be used")
    symbols = sorted({symbol for one in sequences for symbol in one})
    if num_symbols not in (None, len(symbols) + 1):
        raise ValueError(
            f"`num_symbols` must be {len(symbols) + 1}, as the molecules of "
            f"{path} have {len(symbols)} symbols and there is the padding, "
            f"got {num_symbols!r}"
        )
    longest = max(map(len, sequences))
    return SelfiesCode((PADDING, *symbols), num_steps or longest)


def _shipped_path() -> pathlib.Path:
    """Returns where the set of molecules that comes with RDKit is."""
    config = import_chemistry("rdkit.RDConfig")
    path = pathlib.Path(config.RDDataDir).joinpath(*_SHIPPED)
    if not path.exists():
        raise FileNotFoundError(
            f"This RDKit has no molecules in {path}; give a file of yours."
        )
    return path


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields the number and the first column of each line with text."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                first = re.split(r"[\s,]", line.strip(), maxsplit=1)[0]
                yield number, first.strip("\"'")


@gin.register
def molecule_sequences(
    path: str | os.PathLike[str] | None = None,
    *,
    num_steps: int | None = None,
    num_symbols: int | None = None,
    leave_out: bool = False,
) -> Observations:
    """The molecules of a file as one-hot SELFIES, all to train on.

    Args:
        path: See `molecule_file`, as for all others.
        num_steps: T.
        num_symbols: K.
        leave_out: Whether lines that cannot be used are left out.

    Returns:
        The molecules, of shape `(T, K)` on [0, 1].
    """
    molecules = molecule_file(
        path,
        num_steps=num_steps,
        num_symbols=num_symbols,
        leave_out=leave_out,
    )
    code = molecules.code
    return Observations(
        name="molecules",
        train=code.one_hot(list(molecules.sequences.values())),
        event_shape=(code.num_steps, code.num_symbols),
        value_range=(0.0, 1.0),
    )
