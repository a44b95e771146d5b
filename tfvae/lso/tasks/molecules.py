# SPDX-License-Identifier: Apache-2.0
"""Task: maximise a score of molecules, encoded as SELFIES."""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfvae import typed_gin
from tfvae.data.molecules import MoleculeFile, molecule_file
from tfvae.data.selfies import SelfiesCode, import_chemistry, parse_smiles
from tfvae.lso.tasks.base import ScoredData, Task

# Mean and standard deviation over the molecules of ZINC-250k.
_LOG_P = (2.45777691, 1.43341767)
_DIFFICULTY = (3.05352042, 0.83460587)
_EXCESS = (0.04861121, 0.28746695)
# Rings of up to this many atoms are not penalised.
_LARGEST_FREE_RING = 6
# Score of invalid decodes in the published runs.
_INVALID_SCORE = -4.0


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


@typed_gin.register
def molecules(
    path: str | os.PathLike[str] | None = None,
    *,
    objective: Callable[[str], float] = penalised_log_p,
    num_steps: int | None = None,
    num_symbols: int | None = None,
    num_data: int | None = None,
    keeps_stereo: bool = False,
    leave_out: bool = True,
    smiles_column: str | None = None,
    score_column: str | None = None,
    invalid_score: float | None = _INVALID_SCORE,
    score_label: str = "penalised logP",
    is_sampled: bool = False,
) -> Task:
    """Returns the task of maximising a score of molecules.

    Inputs are canonical SMILES, and points are their one-hot SELFIES. Only new
    molecules are added to the data. Invalid decodes have the score -4, as
    published for the penalised logP.

    Reference: Tripp et al., 2020, "Sample-efficient optimization in the
    latent space of deep generative models via weighted retraining", section
    6.1, there with the junction tree VAE in place of SELFIES.

    Args:
      path: The file of initial molecules, see `molecule_file`; None for the
        9,997 bundled with RDKit.
      objective: From canonical SMILES to a score, larger is better, such as
        `penalised_log_p`, `drug_likeness` or a function of your own.
      num_steps: T, the largest number of tokens in a molecule; None for that
        of the longest one in the file.
      num_symbols: K, the number of tokens that the model is made for; pairs of
        symbols are merged until there are as many. None for no merges.
      num_data: Number of initial molecules, drawn by the run's seed; None for
        all.
      keeps_stereo: Whether molecules keep stereochemistry and isotopes.
      leave_out: Whether lines that cannot be used are left out, rather than
        errors.
      smiles_column: See `molecule_file`.
      score_column: Column of the file with the scores of the initial molecules;
        None to compute them by `objective`.
      invalid_score: Score of invalid decodes, and the worst that a surrogate
        is given; None for the worst of the data.
      score_label: What a score is, with its unit, for the axes of figures.
      is_sampled: Whether the tokens of a decoded molecule are sampled rather
        than the most probable ones.

    Returns:
      The task. The file is read at once; scores are computed at first use and
      cached.

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
        keeps_stereo=keeps_stereo,
        leave_out=leave_out,
        smiles_column=smiles_column,
        score_column=score_column,
    )
    num_found = len(source.sequences)
    if num_data is not None and not 1 <= num_data <= num_found:
        raise ValueError(
            f"`num_data` must be from 1 to {num_found}, the number of "
            f"different molecules of the file, got {num_data!r}"
        )
    return Task(
        "molecules",
        data=functools.partial(_draw_data, source, objective, num_data),
        objective=objective,
        read=functools.partial(_read, source.code, is_sampled),
        write=source.code.write,
        invalid_score=invalid_score,
        keep_duplicates=False,
        to_json=str,
        from_json=str,
        score_label=score_label,
    )


def _draw_data(
    source: MoleculeFile,
    objective: Callable[[str], float],
    num_data: int | None,
    seed: int,
) -> ScoredData:
    """Returns the initial molecules of a run and their scores."""
    smiles = list(source.sequences)
    if num_data is not None:
        chosen = np.random.default_rng(seed).permutation(len(smiles))
        smiles = [smiles[i] for i in np.sort(chosen[:num_data])]
    scores = source.scores
    if scores is None:
        scores = {one: _known_score(objective, one) for one in smiles}
    return ScoredData(
        points=source.code.one_hot([source.sequences[one] for one in smiles]),
        scores=np.array([scores[one] for one in smiles]),
        inputs=smiles,
    )


def _read(
    code: SelfiesCode, is_sampled: bool, outputs: np.ndarray, seed: int
) -> Sequence[str | None]:
    """Decodes decoder means to molecules."""
    return code.read(outputs, seed if is_sampled else None)


@functools.cache
def _known_score(objective: Callable[[str], float], smiles: str) -> float:
    """Returns the score of a molecule of the data, cached for all runs."""
    return objective(smiles)
