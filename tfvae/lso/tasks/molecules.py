# SPDX-License-Identifier: Apache-2.0
"""Molecules that mix with fat, are easy to make and have no large rings."""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import gin
import numpy as np

from tfvae.data.molecules import MoleculeFile, molecule_file
from tfvae.data.selfies import SelfiesCode, import_chemistry, parse_smiles
from tfvae.lso.tasks.base import ScoredData, Task

# Mean and standard deviation over the molecules of ZINC-250k.
_LOG_P = (2.45777691, 1.43341767)
_DIFFICULTY = (3.05352042, 0.83460587)
_EXCESS = (0.04861121, 0.28746695)
# Rings of up to this many atoms are not penalised.
_LARGEST_FREE_RING = 6
# What the published runs count an invalid decode as.
_INVALID_SCORE = -4.0


def penalised_log_p(smiles: str) -> float:
    """Returns the penalised logP of a molecule, the larger the better.

    It is the logarithm of the octanol-water partition coefficient (Wildman
    and Crippen, 1999), less how difficult the molecule is to synthesise (Ertl
    and Schuffenhauer, 2009), less by how many atoms the largest ring of a
    cycle basis exceeds six; each in standard deviations from its mean over
    ZINC-250k. There is no largest value: long chains of rings have any.

    Reference: Jin et al., 2018, "Junction tree variational autoencoder",
    section 3.2. In bridged ring systems, of which a molecule has more than
    one cycle basis, the last term is that of the basis networkx finds.

    Args:
      smiles: The molecule, without its stereochemistry to be compared with
        published values.

    Raises:
      ImportError: If RDKit is missing.
      ValueError: If the text is no single molecule.
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
    """Loads the scorer that RDKit ships outside its packages, once."""
    config = import_chemistry("rdkit.RDConfig")
    path = pathlib.Path(config.RDContribDir, "SA_Score", "sascorer.py")
    if not path.exists():
        raise FileNotFoundError(
            f"RDKit's scorer of synthetic accessibility must be at {path}; "
            "the packages of some distributions leave it out, that of PyPI "
            'does not: pip install -e ".[molecules]"'
        )
    spec = importlib.util.spec_from_file_location("tfvae_sascorer", path)
    assert spec is not None and spec.loader is not None
    scorer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scorer)
    return scorer


@gin.register
def molecules(
    path: str | os.PathLike[str] | None = None,
    *,
    num_steps: int | None = None,
    num_symbols: int | None = None,
    num_data: int | None = None,
    leave_out: bool = False,
    is_sampled: bool = False,
) -> Task:
    """The molecules of a file, and their penalised logP to maximise.

    A molecule is its canonical SMILES without stereochemistry, and a point is
    the one-hot SELFIES of it. New ones are added to the data, those that are
    there already are not. What decodes to nothing counts as -4, as published.

    Reference: Tripp et al., 2020, "Sample-efficient optimization in the
    latent space of deep generative models via weighted retraining", section
    6.1, there with the junction tree VAE in place of SELFIES.

    Args:
      path: The file, a molecule in SMILES at the beginning of each line; None
        for 9,997 that come with RDKit, see `molecule_file`.
      num_steps: T, at most how many symbols a molecule has; None for as many
        as the longest one of the file has.
      num_symbols: K, the number of symbols that the model is made for, if it
        is to be compared with the file's.
      num_data: How many molecules a run begins with, drawn by its seed; None
        for all.
      leave_out: Whether lines without a readable molecule, and molecules
        that are too long, are left out in place of an error.
      is_sampled: Whether the symbols of a decoded molecule are drawn, in
        place of the likeliest ones.

    Returns:
      The task. Its file is read at once, its scores when they are asked for,
      and then kept.

    Raises:
      FileNotFoundError: If there is no such file.
      ImportError: If RDKit or the package `selfies` is missing.
      ValueError: If the file cannot be used, or has fewer molecules than
        `num_data`.
    """
    source = molecule_file(
        path,
        num_steps=num_steps,
        num_symbols=num_symbols,
        leave_out=leave_out,
    )
    num_found = len(source.sequences)
    if num_data is not None and not 1 <= num_data <= num_found:
        raise ValueError(
            f"`num_data` must be from 1 to {num_found}, the number of "
            f"different molecules of the file, got {num_data!r}"
        )
    return Task(
        "molecules",
        data=functools.partial(_draw_data, source, num_data),
        objective=penalised_log_p,
        read=functools.partial(_read, source.code, is_sampled),
        write=source.code.write,
        invalid_score=_INVALID_SCORE,
        keep_duplicates=False,
        to_json=str,
        from_json=str,
        score_label="penalised logP",
    )


def _draw_data(
    source: MoleculeFile, num_data: int | None, seed: int
) -> ScoredData:
    """Returns the molecules that a run begins with."""
    smiles = list(source.sequences)
    if num_data is not None:
        chosen = np.random.default_rng(seed).permutation(len(smiles))
        smiles = [smiles[i] for i in np.sort(chosen[:num_data])]
    return ScoredData(
        points=source.code.one_hot([source.sequences[one] for one in smiles]),
        scores=np.array([_known_score(one) for one in smiles]),
        inputs=smiles,
    )


def _read(
    code: SelfiesCode, is_sampled: bool, outputs: np.ndarray, seed: int
) -> Sequence[str | None]:
    """Returns the molecules that decoder means stand for."""
    return code.read(outputs, seed if is_sampled else None)


@functools.cache
def _known_score(smiles: str) -> float:
    """Returns a score of the data, computed once for all runs."""
    return penalised_log_p(smiles)
