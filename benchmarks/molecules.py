# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: optimisation of molecules beside random search and evolution.

Usage:
  python -m benchmarks.molecules --run_dir=runs/molecules \
      --smiles=zinc_valid.txt --unseen=zinc_test.txt
  python -m benchmarks.molecules --run_dir=runs/molecules \
      --smiles=zinc_valid.txt --methods tfvae --model=runs/molecules_model
  python -m benchmarks.molecules --check=1000 --smiles=zinc_valid.txt

The best score of --budget new molecules, from the same start: all methods know
the scores of all molecules of --smiles, and no score of any other. Objectives:

  qed       the quantitative estimate of drug-likeness
  logp38    penalised logP of molecules of at most 38 heavy atoms

Methods; molecules of more heavy atoms cost none of them anything:

  unseen    random molecules of --unseen that are not in --smiles: what more of
            the data's distribution has
  mutants   random mutations of random molecules of --smiles
  genetic   a genetic algorithm over SELFIES: mutations of the best ten, half of
            them of the start of one and the end of another, in generations of
            25; the best of twelve such settings on seeds 101 to 104
  tfvae     weighted retraining, papers/neurips2020_weighted_retraining/
            molecules.gin, for qed with mixins/surrogate_inputs.gin; 5 to 20
            minutes a run on a core

A mutation replaces, inserts or deletes one SELFIES symbol, by those of the
file, in a random spelling of the molecule (Nigam et al., 2021, "Beyond
generative models: superfast traversal, optimization, novelty, exploration and
discovery (STONED) algorithm for molecules using SELFIES").

Finished runs are in runs.jsonl of the folder, and are not repeated; runs of
tfvae go on where they were. Prints the median and quartiles of the best score
over the seeds, and the best of each seed. --check compares the penalised logP
of so many molecules with what RDKit's own functions make of them.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.optimizers import Runs
from benchmarks.tables import print_table
from tfvae.data.molecules import MoleculeFile, molecule_file
from tfvae.data.selfies import (
    canonical_smiles,
    import_chemistry,
    parse_smiles,
    split_symbols,
)
from tfvae.lso.tasks.molecule_properties import (
    Bounded,
    drug_likeness,
    heavy_atoms,
    penalised_log_p,
)

_PAPER = "papers/neurips2020_weighted_retraining"
_MAX_ATOMS = 38
# Molecules that live on, new ones of a generation, and the share of those that
# have two parents.
_POPULATION, _GENERATION, _JOINED_SHARE = 10, 25, 0.5
# Mutations that are tried for each new molecule.
_MAX_TRIES = 1000


class Objective(NamedTuple):
    """What is maximised, and its configuration."""

    score: Callable[[str], float]
    rules: tuple[Callable[[str], float], ...]
    mixins: tuple[str, ...]

    def allows(self, smiles: str) -> bool:
        """Whether a molecule keeps the rules."""
        return all(rule(smiles) <= 0.0 for rule in self.rules)


OBJECTIVES = {
    "qed": Objective(
        drug_likeness,
        (),
        (
            "mixins/objective_drug_likeness.gin",
            "mixins/surrogate_inputs.gin",
        ),
    ),
    "logp38": Objective(
        penalised_log_p,
        (Bounded(heavy_atoms, at_most=_MAX_ATOMS),),
        ("mixins/constraint_size.gin",),
    ),
}


class Start(NamedTuple):
    """What all methods know."""

    objective: Objective
    known: Mapping[str, float]
    """Scores of the initial molecules, those that break a rule left out."""
    symbols: tuple[str, ...]
    """SELFIES symbols of the initial molecules."""
    unseen: Sequence[str]
    """Molecules of the same distribution that are none of them."""


Found = dict[str, float]
"""Scores of new molecules, in the order of their evaluation."""


def unseen(start: Start, budget: int, rng: np.random.Generator) -> Found:
    """Evaluates random molecules of the same distribution."""
    allowed = [one for one in start.unseen if start.objective.allows(one)]
    if len(allowed) < budget:
        raise ValueError(
            f"`--unseen` must have at least {budget} allowed molecules that "
            f"are not in `--smiles`, got {len(allowed)}"
        )
    chosen = rng.permutation(len(allowed))[:budget]
    return {allowed[i]: start.objective.score(allowed[i]) for i in chosen}


def mutants(start: Start, budget: int, rng: np.random.Generator) -> Found:
    """Evaluates random mutations of random initial molecules."""
    found: Found = {}
    parents = [*start.known]
    for child in _children(start, parents, budget, 0.0, {}, rng):
        found[child] = start.objective.score(child)
    return found


def genetic(start: Start, budget: int, rng: np.random.Generator) -> Found:
    """Evaluates mutations of the best molecules so far."""
    found: Found = {}
    scores = dict(start.known)
    while len(found) < budget:
        ranked = sorted(scores, key=lambda one: -scores[one])
        count = min(_GENERATION, budget - len(found))
        parents = ranked[:_POPULATION]
        new = _children(start, parents, count, _JOINED_SHARE, found, rng)
        if not new:
            break
        for child in new:
            found[child] = scores[child] = start.objective.score(child)
    return found


METHODS = {"unseen": unseen, "mutants": mutants, "genetic": genetic}


def _children(
    start: Start,
    parents: Sequence[str],
    count: int,
    joined_share: float,
    found: Mapping[str, float],
    rng: np.random.Generator,
) -> list[str]:
    """Returns new allowed molecules, fewer where none are to be had."""
    children: dict[str, None] = {}
    for _ in range(_MAX_TRIES * count):
        one, other = rng.integers(len(parents), size=2)
        symbols = spelling(parents[one], rng)
        if rng.random() < joined_share:
            symbols = joined(symbols, spelling(parents[other], rng), rng)
        child = molecule_of(mutated(symbols, start.symbols, rng))
        is_new = child not in start.known and child not in found
        if child and is_new and start.objective.allows(child):
            children[child] = None
            if len(children) == count:
                break
    return [*children]


def spelling(smiles: str, rng: np.random.Generator) -> list[str]:
    """Returns the SELFIES symbols of a molecule, its atoms in random order."""
    to_random = import_chemistry("rdkit.Chem").MolToRandomSmilesVect
    seed = int(rng.integers(1, 2**31))
    try:
        (text,) = to_random(parse_smiles(smiles), 1, randomSeed=seed)
        return [*split_symbols(text)]
    except ValueError:  # SELFIES has no symbols for this spelling.
        return [*split_symbols(smiles)]


def mutated(
    symbols: Sequence[str], alphabet: Sequence[str], rng: np.random.Generator
) -> list[str]:
    """Replaces, inserts or deletes one symbol; the last one is not deleted."""
    symbols, place = [*symbols], int(rng.integers(len(symbols)))
    new = alphabet[int(rng.integers(len(alphabet)))]
    match rng.integers(3):
        case 0:
            symbols[place] = new
        case 1:
            symbols.insert(place + int(rng.integers(2)), new)
        case _ if len(symbols) > 1:
            del symbols[place]
    return symbols


def joined(
    first: Sequence[str], second: Sequence[str], rng: np.random.Generator
) -> list[str]:
    """Returns the start of one sequence and the end of another one."""
    end, begin = int(rng.integers(len(first))), int(rng.integers(len(second)))
    return [*first[: end + 1], *second[begin:]]


def molecule_of(symbols: Sequence[str]) -> str | None:
    """Returns canonical SMILES; None where RDKit accepts no molecule."""
    try:
        return canonical_smiles(
            import_chemistry("selfies").decoder("".join(symbols))
        )
    except ValueError:
        return None


def optimised(
    objective: Objective, folder: pathlib.Path, given: argparse.Namespace
) -> Callable[[int], Found]:
    """Returns what runs or resumes tfvae with a seed."""
    from tfvae.lso import read_ledger
    from tfvae.runs import config, optimize, train

    smiles = None if given.smiles is None else str(given.smiles)
    bound = f"SMILES = {smiles!r}"
    model = given.model or given.run_dir / "model"
    if given.model is None:
        file = f"{_PAPER}/molecules_model.gin"
        config.load([file], [bound], function="train")
        train.train(model)

    def run(seed: int) -> Found:
        params = [
            bound,
            f"MODEL = {str(model)!r}",
            f"optimize.budget = {given.budget}",
            "optimize.num_samples = 0",
        ]
        files = [f"{_PAPER}/molecules.gin", *objective.mixins]
        path = folder / f"seed{seed}"
        optimize.load(files, params, seed=seed, run_dir=path)
        optimize.optimize(path)
        entries = read_ledger(path / "ledger.jsonl").entries
        return {
            one.input: one.score for one in entries if one.score is not None
        }

    return run


def run(given: argparse.Namespace, runs: Runs) -> None:
    """Makes the runs that are not finished."""
    source = molecule_file(given.smiles)
    smiles, unseen_smiles = [*source.sequences], _unseen(given.unseen, source)
    for name in given.objectives:
        objective = OBJECTIVES[name]
        known: dict[str, float] = {}
        for method in given.methods:
            for seed in given.seeds:
                asked = _asked(given, name, method, seed)
                if runs.of(**asked):
                    continue
                known = known or {
                    one: objective.score(one)
                    for one in smiles
                    if objective.allows(one)
                }
                begun = time.perf_counter()
                if method == "tfvae":
                    folder = given.run_dir / name
                    found = optimised(objective, folder, given)(seed)
                else:
                    symbols = source.code.symbols[1:]
                    start = Start(objective, known, symbols, unseen_smiles)
                    rng = np.random.default_rng(seed)
                    found = METHODS[method](start, given.budget, rng)
                best = max(found, key=lambda one: found[one])
                runs.add(
                    {
                        **asked,
                        "best": found[best],
                        "smiles": best,
                        "num_queries": len(found),
                        "best_of_start": max(known.values()),
                        "seconds": time.perf_counter() - begun,
                    }
                )


def _unseen(path: pathlib.Path | None, source: MoleculeFile) -> Sequence[str]:
    """Returns the molecules of a file that another one does not have."""
    if path is None:
        return ()
    known = source.sequences
    return [one for one in molecule_file(path).sequences if one not in known]


def _asked(
    given: argparse.Namespace, objective: str, method: str, seed: int
) -> dict[str, Any]:
    """Returns what identifies a run; the files by their contents."""
    files = [given.smiles, *([given.unseen] if method == "unseen" else [])]
    digest = hashlib.blake2b(digest_size=8)
    for path in filter(None, files):
        digest.update(path.read_bytes())
    return {
        "objective": objective,
        "method": method,
        "seed": seed,
        "budget": given.budget,
        "files": digest.hexdigest(),
    }


def report(given: argparse.Namespace, runs: Runs) -> None:
    """Prints the best scores of finished runs."""
    rows = []
    for name in given.objectives:
        for method in given.methods:
            found = [
                row
                for seed in given.seeds
                for row in runs.of(**_asked(given, name, method, seed))
            ]
            if not found:
                continue
            best = [row["best"] for row in found]
            low, median, high = np.quantile(best, [0.25, 0.5, 0.75])
            rows.append(
                [
                    f"{name}, {method}",
                    f"{found[0]['best_of_start']:.4f}",
                    f"{median:.4f}",
                    f"{low:.4f} to {high:.4f}",
                    ", ".join(f"{one:.4f}" for one in best),
                    f"{np.mean([row['seconds'] for row in found]):.0f}",
                ]
            )
    head = [f"best of {given.budget}", "start", "median", "quartiles"]
    print_table([*head, "seeds", "s a run"], rows)


def check(path: pathlib.Path | None, count: int) -> None:
    """Prints the largest difference of scores from RDKit's own functions."""
    config = import_chemistry("rdkit.RDConfig")
    place = pathlib.Path(config.RDContribDir, "SA_Score", "sascorer.py")
    spec = importlib.util.spec_from_file_location("sascorer", place)
    assert spec is not None and spec.loader is not None
    scorer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scorer)
    log_p = import_chemistry("rdkit.Chem.Crippen").MolLogP
    adjacency = import_chemistry("rdkit.Chem").GetAdjacencyMatrix
    networkx = import_chemistry("networkx")
    every = [*molecule_file(path).sequences]
    differences, num_larger = [], 0
    for smiles in every[:: max(1, len(every) // count)][:count]:
        molecule = parse_smiles(smiles)
        cycles = networkx.cycle_basis(networkx.Graph(adjacency(molecule)))
        rings = molecule.GetRingInfo().AtomRings()
        longest = max(map(len, cycles), default=0)
        num_larger += max(longest, 6) > max([6, *map(len, rings)])
        expected = (
            (log_p(molecule) - 2.45777691) / 1.43341767
            - (scorer.calculateScore(molecule) - 3.05352042) / 0.83460587
            - (max(longest - 6, 0) - 0.04861121) / 0.28746695
        )
        differences.append(abs(penalised_log_p(smiles) - expected))
    print(
        f"{len(differences)} molecules: the largest difference from RDKit's "
        f"functions and networkx's cycle basis is {max(differences):.2g}; "
        f"{num_larger} have a larger ring there than RDKit's smallest rings"
    )


def check_files(
    parser: argparse.ArgumentParser, given: argparse.Namespace
) -> None:
    """Ends the program unless the files of molecules exist."""
    for name in ("smiles", "unseen"):
        path = getattr(given, name)
        if path is not None and not path.is_file():
            parser.error(
                f"`--{name}` must be a file of molecules, one SMILES a line or "
                f"with a column `smiles`, got {str(path)!r}, which does not "
                "exist"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run_dir", type=pathlib.Path)
    parser.add_argument(
        "--smiles",
        type=pathlib.Path,
        help="file of the initial molecules; without it the 9,997 of RDKit",
    )
    parser.add_argument("--unseen", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--check", type=int, metavar="MOLECULES")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(1, 6))
    parser.add_argument("--budget", type=int, default=500)
    methods = [*METHODS, "tfvae"]
    parser.add_argument(
        "--methods", nargs="+", choices=methods, default=[*METHODS]
    )
    parser.add_argument(
        "--objectives", nargs="+", choices=[*OBJECTIVES], default=[*OBJECTIVES]
    )
    given = parser.parse_args(argv)
    check_files(parser, given)
    if given.check is not None:
        check(given.smiles, given.check)
        return
    if given.run_dir is None:
        parser.error("`--run_dir` must be given, or `--check`")
    if "unseen" in given.methods and given.unseen is None:
        print("left out: unseen (no --unseen)")
        given.methods = [one for one in given.methods if one != "unseen"]
    given.run_dir.mkdir(parents=True, exist_ok=True)
    runs = Runs(given.run_dir / "runs.jsonl")
    run(given, runs)
    report(given, runs)


if __name__ == "__main__":
    main()
