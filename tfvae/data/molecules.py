# SPDX-License-Identifier: Apache-2.0
"""Data source of molecules from files of SMILES strings, one per line."""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import logging
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfvae import typed_gin
from tfvae.data.byte_pairs import learn_merges
from tfvae.data.selfies import (
    PADDING,
    MoleculeError,
    SelfiesCode,
    canonical_smiles,
    exact_symbols,
    import_chemistry,
)
from tfvae.data.source import Observations

_SHIPPED = ("Pains", "test_data", "wehi_mols.csv")
# Delimiters of the files in which fields may be quoted, by their suffix.
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SMILES_COLUMNS = ("smiles", "canonical_smiles")

_logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """A line of a file that was left out, and why."""

    line: int
    """Its number, from 1."""
    text: str
    """What was to be a molecule."""
    reason: str
    """In a few words, which other lines may share."""


@dataclasses.dataclass(frozen=True)
class MoleculeFile:
    """The distinct molecules of a file, in its order.

    Attributes:
      sequences: Maps canonical SMILES to SELFIES symbols.
      code: Encodes and decodes such molecules.
      refusals: The lines that were left out.
      longest: Number of tokens of the longest molecule, also of those left out
        for their length.
      scores: Maps canonical SMILES to the score of its first line; None where
        no column of scores was asked for.
      lines: Maps canonical SMILES to the number of their first line.
    """

    sequences: Mapping[str, tuple[str, ...]]
    code: SelfiesCode
    refusals: tuple[Refusal, ...] = ()
    longest: int = 0
    scores: Mapping[str, float] | None = None
    lines: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def num_left_out(self) -> int:
        """Number of lines that were left out."""
        return len(self.refusals)

    def summary(self) -> dict[str, int]:
        """Returns the number of lines left out for each reason."""
        return dict(collections.Counter(one.reason for one in self.refusals))


class _Row(NamedTuple):
    line: int
    smiles: str
    score: str | None


def molecule_file(
    path: str | os.PathLike[str] | None = None,
    *,
    num_steps: int | None = None,
    num_symbols: int | None = None,
    keeps_stereo: bool = False,
    leave_out: bool = True,
    smiles_column: str | None = None,
    score_column: str | None = None,
    code: SelfiesCode | None = None,
) -> MoleculeFile:
    """Reads a file of SMILES strings.

    In `.csv` and `.tsv` files fields may be quoted; in all others they are
    separated by white space or commas. If the first line names a column
    "smiles", in any case, this column is read, otherwise the first one of all
    lines. Empty lines are ignored. The default is the set bundled with RDKit:
    9,997 compounds of a screening library, `Data/Pains/test_data/wehi_mols.csv`
    (Saubern, Guha and Baell, 2011, "KNIME workflow to assess PAINS filters in
    SMARTS format"), part of RDKit's distribution and under its BSD-3-Clause
    licence. They take 55 steps of 32 symbols.

    Lines that cannot be used are left out, each with a recorded reason, and
    their number is logged: without a readable molecule, with several components
    (salts), molecules that SELFIES cannot express or does not decode as it
    encoded them, molecules that are too long or have symbols that `code` lacks,
    and lines without a score. Charges, radicals and rings of any size are
    kept where SELFIES is exact. Isotopes go with stereochemistry.

    Args:
      path: The file; None for RDKit's set.
      num_steps: T, the largest number of tokens in a molecule; None for that
        of the longest one in the file. A larger T allows an optimisation to
        find longer ones.
      num_symbols: K, the number of tokens with the padding. Where the molecules
        have fewer symbols, frequent pairs are merged until there are as many,
        see `SelfiesCode`; None for no merges.
      keeps_stereo: Whether stereochemistry and isotopes are kept, rather than
        removed.
      leave_out: Whether lines that cannot be used are left out. Otherwise
        they are errors, except in RDKit's set, which has three salts.
      smiles_column: Name of the column of SMILES in the first line; None for
        the rule above.
      score_column: Name of a column of scores, which are then read; None for
        none.
      code: The code of other molecules, to read more of them, such as held-out
        ones; then the arguments that define a code must be left out.

    Returns:
      The molecules.

    Raises:
      FileNotFoundError: If there is no such file.
      ImportError: If RDKit or the package `selfies` is missing.
      ValueError: If nothing is left, K is out of range, a column is missing, a
        code is given and defined at once, or a line cannot be used where lines
        are not left out.
    """
    if code is not None and (num_steps, num_symbols, keeps_stereo) != (
        None,
        None,
        False,
    ):
        raise ValueError(
            "`code` must be None where `num_steps`, `num_symbols` or "
            f"`keeps_stereo` is given, got {num_steps!r}, {num_symbols!r} and "
            f"{keeps_stereo!r}"
        )
    leave_out = leave_out or path is None
    file = _shipped_path() if path is None else pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"`path` must be a file of SMILES strings, got {str(file)!r}, "
            "which does not exist; None stands for RDKit's molecules"
        )
    stat = file.stat()
    found = _read(
        file,
        (stat.st_mtime_ns, stat.st_size),
        num_steps,
        num_symbols,
        keeps_stereo,
        smiles_column,
        score_column,
        code,
    )
    if found.refusals and not leave_out:
        line, text, reason = found.refusals[0]
        raise ValueError(
            f"{file}, line {line}: {text!r} cannot be used ({reason}), and "
            f"{found.num_left_out - 1} more; the longest molecule takes "
            f"`num_steps` of {found.longest}; pass `leave_out=True` to skip "
            "such lines"
        )
    if not found.sequences:
        raise ValueError(
            f"`path` must contain at least one usable molecule, got {file} "
            f"({_listed(found.summary())})"
        )
    return found


# Data and task of a run read the same file, which may take a minute.
@functools.lru_cache(maxsize=4)
def _read(
    path: pathlib.Path,
    version: tuple[int, int],
    num_steps: int | None,
    num_symbols: int | None,
    keeps_stereo: bool,
    smiles_column: str | None,
    score_column: str | None,
    code: SelfiesCode | None,
) -> MoleculeFile:
    """Reads a file in its present version, and logs what is left out."""
    del version  # Only for the cache.
    stereo = keeps_stereo if code is None else code.keeps_stereo
    lines: dict[str, _Row] = {}
    sequences: dict[str, tuple[str, ...]] = {}
    scores: dict[str, float] = {}
    refusals: list[Refusal] = []
    for row in _rows(path, smiles_column, score_column):
        try:
            smiles = canonical_smiles(row.smiles, stereo)
            if smiles in sequences:
                continue
            score = math.nan if row.score is None else _number(row.score)
            sequences[smiles] = exact_symbols(smiles, stereo)
            lines[smiles], scores[smiles] = row, score
        except MoleculeError as error:
            refusals.append(Refusal(row.line, row.smiles, error.reason))
    if code is None:
        code = _code_of(
            sequences.values(), path, num_steps, num_symbols, stereo
        )
    longest, known = 0, set(code.symbols)
    for smiles, sequence in list(sequences.items()):
        reason = None
        if not known.issuperset(sequence):
            reason = "symbols that the code lacks"
        else:
            length = len(code.tokens_of(sequence))
            longest = max(longest, length)
            if length > code.num_steps:
                reason = f"longer than {code.num_steps} steps"
        if reason is not None:
            row = lines[smiles]
            refusals.append(Refusal(row.line, row.smiles, reason))
            del sequences[smiles], scores[smiles]
    found = MoleculeFile(
        sequences,
        code,
        tuple(sorted(refusals)),
        longest,
        None if score_column is None else scores,
        {one: lines[one].line for one in sequences},
    )
    if refusals:
        _logger.warning(
            "Left out %d lines of %s: %s.",
            len(refusals),
            path,
            _listed(found.summary()),
        )
    return found


def _listed(summary: Mapping[str, int]) -> str:
    """Returns reasons and their numbers in one line."""
    items = sorted(summary.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{count} {reason}" for reason, count in items) or "empty"


def _number(text: str) -> float:
    """Returns a finite number, or raises a `MoleculeError`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MoleculeError(
            "no score", f"a score must be a finite number, got {text!r}"
        )
    return value


def _code_of(
    sequences: Iterable[tuple[str, ...]],
    path: pathlib.Path,
    num_steps: int | None,
    num_symbols: int | None,
    keeps_stereo: bool,
) -> SelfiesCode:
    """Returns a code of all symbols of a file."""
    sequences = list(sequences)
    symbols = sorted({symbol for one in sequences for symbol in one})
    smallest = len(symbols) + 1
    num_merges = 0 if num_symbols is None else num_symbols - smallest
    merges = learn_merges(sequences, num_merges)
    if sequences and len(merges) != num_merges:
        bound = f"at least {smallest}"
        if num_merges > 0:
            bound = f"from {smallest} to {smallest + len(merges)}"
        raise ValueError(
            f"`num_symbols` must be {bound} (the {len(symbols)} symbols of the "
            f"molecules of {path}, the padding, and merges of pairs that occur "
            f"twice), got {num_symbols!r}"
        )
    code = SelfiesCode(
        (PADDING, *symbols), num_steps or 1, merges, keeps_stereo
    )
    if num_steps is not None:
        return code
    longest = max((len(code.tokens_of(one)) for one in sequences), default=1)
    return dataclasses.replace(code, num_steps=longest)


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


def _rows(
    path: pathlib.Path, smiles_column: str | None, score_column: str | None
) -> Iterator[_Row]:
    """Yields the rows of a file, without the line of names."""
    smiles_place, score_place, is_first = 0, None, True
    for number, fields in _fields(path):
        if is_first:
            is_first = False
            names = [one.lower() for one in fields]
            wanted = [one for one in _SMILES_COLUMNS if one in names]
            if smiles_column is not None or score_column is not None or wanted:
                name = smiles_column or (wanted[0] if wanted else fields[0])
                smiles_place = _place(path, "smiles_column", name, names)
                if score_column is not None:
                    score_place = _place(
                        path, "score_column", score_column, names
                    )
                continue
        smiles = fields[smiles_place] if smiles_place < len(fields) else ""
        score = None
        if score_place is not None:
            score = fields[score_place] if score_place < len(fields) else ""
        yield _Row(number, smiles, score)


def _place(
    path: pathlib.Path, argument: str, name: str, names: Sequence[str]
) -> int:
    if name.lower() not in names:
        raise ValueError(
            f"`{argument}` must be one of the columns of the first line of "
            f"{path}, {', '.join(names)}, got {name!r}"
        )
    return names.index(name.lower())


def _fields(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the number and the fields of each line with text."""
    delimiter = _DELIMITERS.get(path.suffix.lower())
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        if delimiter is None:
            for number, line in enumerate(file, 1):
                fields = re.split(r"[\s,]+", line.strip())
                if line.strip():
                    yield number, [one.strip("\"'") for one in fields]
            return
        reader = csv.reader(file, delimiter=delimiter)
        number = 1  # Of the first line of a row, which may go over several.
        for row in reader:
            if any(one.strip() for one in row):
                yield number, [one.strip() for one in row]
            number = reader.line_num + 1


@typed_gin.register
def molecule_sequences(
    path: str | os.PathLike[str] | None = None,
    *,
    num_steps: int | None = None,
    num_symbols: int | None = None,
    keeps_stereo: bool = False,
    leave_out: bool = True,
) -> Observations:
    """The molecules of a file as one-hot SELFIES, all of them training data.

    Args:
      path: See `molecule_file`, as for the other arguments.
      num_steps: T.
      num_symbols: K.
      keeps_stereo: Whether stereochemistry and isotopes are kept.
      leave_out: Whether unusable lines are skipped.

    Returns:
      The molecules, of shape `(T, K)` on [0, 1].
    """
    molecules = molecule_file(
        path,
        num_steps=num_steps,
        num_symbols=num_symbols,
        keeps_stereo=keeps_stereo,
        leave_out=leave_out,
    )
    code = molecules.code
    return Observations(
        name="molecules",
        train=code.one_hot(list(molecules.sequences.values())).astype(
            np.float32
        ),
        event_shape=(code.num_steps, code.num_symbols),
        value_range=(0.0, 1.0),
    )
