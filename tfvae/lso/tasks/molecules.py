# SPDX-License-Identifier: Apache-2.0
"""Task: maximise a score of molecules, encoded as SELFIES."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence

import numpy as np

from tfvae import typed_gin
from tfvae.data.molecules import MoleculeFile, molecule_file
from tfvae.data.selfies import SelfiesCode, canonical_smiles
from tfvae.lso.evaluation_worker import Result, Score, evaluate_one
from tfvae.lso.tasks.base import LeftOut, ScoredData, Task
from tfvae.lso.tasks.molecule_properties import (
    broken_rule,
    environment_counts,
    penalised_log_p,
)
from tfvae.lso.tasks.molecule_reports import can_draw, drawn, summary

# Score of invalid decodes in the published runs.
_INVALID_SCORE = -4.0

Objective = Callable[[str], float | Score]
"""From canonical SMILES to a score."""

_logger = logging.getLogger(__name__)


@typed_gin.register
def molecules(
    path: str | os.PathLike[str] | None = None,
    *,
    objective: Objective = penalised_log_p,
    constraints: Sequence[Callable[[str], float]] = (),
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
        `penalised_log_p`, `drug_likeness` or a function of your own. A
        constraint that only an evaluation reveals belongs to its `Score`.
      constraints: Rules that are known for every molecule, such as `Bounded`,
        or functions of your own from canonical SMILES to a number that must be
        at most 0. No molecule that breaks one is a query. Initial molecules
        that do are data of the model and the surrogate, and are scored, but
        none of them is the best; at least one must break none.
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
      cached. Molecules without one, as the objective fails, are left out.

    Raises:
      FileNotFoundError: If there is no such file.
      ImportError: If RDKit or the package `selfies` is missing.
      TypeError: If a constraint is no function.
      ValueError: If the file cannot be used, or has fewer molecules than
        `num_data`.
    """
    constraints = _checked(constraints)
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
        # What others add may be spelt in another way.
        from_json=functools.partial(
            canonical_smiles, keeps_stereo=source.code.keeps_stereo
        ),
        score_label=score_label,
        to_picture=drawn if can_draw() else None,
        summarize=summary,
        features=environment_counts,
        refuse=functools.partial(broken_rule, constraints)
        if constraints
        else None,
    )


def _checked(
    constraints: Sequence[Callable[[str], float]],
) -> tuple[Callable[[str], float], ...]:
    """Returns the constraints if they are functions."""
    is_list = isinstance(constraints, list | tuple)
    for one in constraints if is_list else [None]:
        if not callable(one) or isinstance(one, type):
            raise TypeError(
                "`constraints` must be a list of functions of SMILES, such as "
                "[Bounded(heavy_atoms, at_most=38)] or, in gin, [@Bounded()], "
                f"got {constraints!r}"
            )
    return tuple(constraints)


def _draw_data(
    source: MoleculeFile,
    objective: Objective,
    num_data: int | None,
    seed: int,
) -> ScoredData:
    """Returns the initial molecules of a run and their scores."""
    smiles = list(source.sequences)
    if num_data is not None:
        chosen = np.random.default_rng(seed).permutation(len(smiles))
        smiles = [smiles[i] for i in np.sort(chosen[:num_data])]
    scored = {one: _known_result(source, objective, one) for one in smiles}
    failed = [one for one in smiles if scored[one].score is None]
    left_out = [LeftOut(*one) for one in source.refusals]
    left_out += [
        LeftOut(source.lines[one], one, f"no score: {scored[one].failure}")
        for one in failed
    ]
    if failed:
        first = f"{failed[0]}: {scored[failed[0]].failure}"
        if len(failed) == len(smiles):
            raise ValueError(
                "`objective` must score at least one of the molecules, got "
                f"{len(failed):,} without a score, the first {first}"
            )
        message = "Left out %d molecules without a score, the first %s."
        _logger.warning(message, len(failed), first)
    smiles = [one for one in smiles if scored[one].score is not None]
    constraints = [scored[one].constraints or {} for one in smiles]
    names = sorted({name for one in constraints for name in one})
    return ScoredData(
        points=source.code.one_hot([source.sequences[one] for one in smiles]),
        scores=np.array([scored[one].score for one in smiles], np.float64),
        inputs=smiles,
        constraints={
            name: np.array([one.get(name, np.nan) for one in constraints])
            for name in names
        },
        left_out=sorted(left_out),
    )


def _read(
    code: SelfiesCode, is_sampled: bool, outputs: np.ndarray, seed: int
) -> Sequence[str | None]:
    """Decodes decoder means to molecules."""
    return code.read(outputs, seed if is_sampled else None)


def _known_result(
    source: MoleculeFile, objective: Objective, smiles: str
) -> Result:
    """Returns the score of a molecule, that of the file if there is one."""
    if source.scores is not None:
        return Result(source.scores[smiles], None, 0.0)
    return _evaluated(objective, smiles)


@functools.cache
def _evaluated(objective: Objective, smiles: str) -> Result:
    """Evaluates a molecule of the data, once for all runs of a process."""
    return evaluate_one(objective, smiles)
