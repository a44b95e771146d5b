# SPDX-License-Identifier: Apache-2.0
r"""Optimises a score of one's own over molecules that resemble a lead.

  tfvae optimize --task=examples/molecules.py --run_dir=runs/analogues \
      --budget=40

The score is a function of canonical SMILES. Here it is the drug-likeness (QED),
in place of a program that takes minutes; it may call that as

  subprocess.run(["dock", smiles], check=True, capture_output=True, text=True)

and raise an error where there is no score. `--evaluator=pool --workers=2`
evaluates it in two processes at a time. No molecule is tried whose similarity
to the lead is less than 0.35, that has more than 30 heavy atoms, or no amide.
molecules.csv has the 200 molecules that are most similar to the lead, of those
that come with RDKit and score less than 0.8, so that there is something to
find, and their scores; this file wrote them:

  python examples/molecules.py
"""

import csv
import pathlib

from tfvae.data.molecules import molecule_file
from tfvae.lso import molecules
from tfvae.lso.tasks.molecule_properties import (
    Bounded,
    Matches,
    Similarity,
    drug_likeness,
    heavy_atoms,
)

CSV = pathlib.Path(__file__).with_name("molecules.csv")
LEAD = Similarity("COc1ccc(C(=O)NCCCCc2ccccc2)cc1")


def score(smiles: str) -> float:
    """The objective; larger is better."""
    return drug_likeness(smiles)


task = molecules(
    CSV,
    objective=score,
    score_column="score",
    invalid_score=0.0,
    score_label="QED",
    constraints=[
        Bounded(LEAD, at_least=0.35),
        Bounded(heavy_atoms, at_most=30),
        Bounded(Matches("C(=O)N"), at_least=1),
    ],
)

if __name__ == "__main__":
    worse = [one for one in molecule_file().sequences if score(one) < 0.8]
    nearest = sorted(worse, key=LEAD, reverse=True)[:200]
    with CSV.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["smiles", "score"])
        writer.writerows([one, f"{score(one):.4f}"] for one in nearest)
