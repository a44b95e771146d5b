# SPDX-License-Identifier: Apache-2.0
"""Data source of molecules from files of SMILES strings, one per line."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

from tfvae import typed_gin
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
    """The distinct molecules of a file, in its order.

    Attributes:
      sequences: Maps canonical SMILES to SELFIES symbols.
      code: Encodes and decodes such molecules.
      num_left_out: Number of lines without a readable molecule, or with one
        that is too long.
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
    """Reads a file of SMILES strings, one at the beginning of each line.

    Fields may be quoted, and more columns may follow after a comma or white
    space; empty lines are ignored. Stereochemistry is removed. The default is
    the set bundled with RDKit: 9,997 compounds of a screening library,
    `Data/Pains/test_data/wehi_mols.csv` (Saubern, Guha and Baell, 2011, "KNIME
    workflow to assess PAINS filters in SMARTS format"), part of RDKit's
    distribution and under its BSD-3-Clause licence. They take 55 steps of 32
    symbols.

    Args:
      path: The file; None for RDKit's set.
      num_steps: T, the largest number of symbols in a molecule; None for that
        of the longest one in the file. A larger T allows an optimisation to
        find longer ones.
      num_symbols: K, with the padding symbol; only compared with the file's
        number, as the model is built for K. None for any.
      leave_out: Whether to skip and count lines without a readable molecule,
        and molecules that are too long, instead of raising an error. RDKit's
        set is always read so, which skips three salts.

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
                    f"{path}, line {number}: {error}; pass `leave_out=True` "
                    "to skip such lines"
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
            f"molecules of {path}, got {num_steps} (line {line} takes "
            f"{length}); pass `leave_out=True` to skip such lines"
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
    """Returns a code that can encode all sequences of a file."""
    sequences = list(sequences)
    if not sequences:
        raise ValueError(
            f"`path` must contain at least one usable molecule, got {path}"
        )
    symbols = sorted({symbol for one in sequences for symbol in one})
    if num_symbols not in (None, len(symbols) + 1):
        raise ValueError(
            f"`num_symbols` must be {len(symbols) + 1} (the {len(symbols)} "
            f"symbols of the molecules of {path}, and the padding), got "
            f"{num_symbols!r}"
        )
    longest = max(map(len, sequences))
    return SelfiesCode((PADDING, *symbols), num_steps or longest)


def _shipped_path() -> pathlib.Path:
    """Returns the path of the molecules bundled with RDKit."""
    config = import_chemistry("rdkit.RDConfig")
    path = pathlib.Path(config.RDDataDir).joinpath(*_SHIPPED)
    if not path.exists():
        raise FileNotFoundError(
            "`path` must be a file where RDKit has no molecules of its own, "
            f"got None, and there is no {path}"
        )
    return path


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields the number and the first column of each line with text."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                first = re.split(r"[\s,]", line.strip(), maxsplit=1)[0]
                yield number, first.strip("\"'")


@typed_gin.register
def molecule_sequences(
    path: str | os.PathLike[str] | None = None,
    *,
    num_steps: int | None = None,
    num_symbols: int | None = None,
    leave_out: bool = False,
) -> Observations:
    """The molecules of a file as one-hot SELFIES, all of them training data.

    Args:
      path: See `molecule_file`, as for the other arguments.
      num_steps: T.
      num_symbols: K.
      leave_out: Whether unusable lines are skipped.

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
