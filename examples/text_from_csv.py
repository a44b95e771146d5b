# SPDX-License-Identifier: Apache-2.0
r"""Optimises a text, starting from the measurements in a CSV file.

  tfvae optimize --task=examples/text_from_csv.py --run_dir=runs/peptides \
      --budget=30

A peptide of ten amino acids is to have a large hydrophobic moment as a helix
(Eisenberg et al., 1984, "The hydrophobic moment detects periodicity in protein
hydrophobicity"), on the scale of Kyte and Doolittle (1982, "A simple method for
displaying the hydropathic character of a protein"). The moment is computed, not
measured. Those in peptides.csv are of 200 random peptides whose moment is less
than 1, so that there is something to find, and this file wrote them there:

  python examples/text_from_csv.py
"""

import csv
import pathlib
from collections.abc import Sequence

import numpy as np

from tfvae.lso import Task, read_table

CSV = pathlib.Path(__file__).with_name("peptides.csv")
AMINO_ACIDS = "ARNDCQEGHILKMFPSTWYV"
HYDROPATHY = (
    *(1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5),
    *(3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2),
)


def moment(peptide: str) -> float:
    """The objective; yours may take a day, or be told with --ask and --tell."""
    values = [HYDROPATHY[AMINO_ACIDS.index(one)] for one in peptide]
    turns = np.exp(1j * np.deg2rad(100.0) * np.arange(len(values)))
    return float(abs(values @ turns) / len(values))


def write(peptides: Sequence[str]) -> np.ndarray:
    """Encodes n peptides as points [n, 200]: a one of 20 for each place."""
    places = [[AMINO_ACIDS.index(one) for one in text] for text in peptides]
    return np.eye(20)[np.array(places)].reshape(len(peptides), -1)


def read(means: np.ndarray, seed: int) -> list[str]:
    """Decodes n points to peptides: the largest of 20 at each place."""
    places = means.reshape(len(means), -1, 20).argmax(-1)
    return ["".join(AMINO_ACIDS[i] for i in row) for row in places]


data = read_table(CSV, input="peptide", score="moment", write=write)
task = Task("peptides", data, moment, read, write, score_label="moment")

if __name__ == "__main__":
    draws = read(np.random.default_rng(0).random((1000, 200)), 0)
    weak = [one for one in draws if moment(one) < 1.0][:200]
    with CSV.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["peptide", "moment"])
        rows.writerows([one, f"{moment(one):.4f}"] for one in weak)
