# SPDX-License-Identifier: Apache-2.0
r"""Benchmark: reconstruction of unseen molecules, and draws of the prior.

Usage:
  tfvae train --run_dir=runs/molecules_model --gin_file=\
      papers/neurips2020_weighted_retraining/molecules_model.gin \
      --gin_param="SMILES='zinc_valid.txt'"
  python -m benchmarks.molecule_models runs/molecules_model \
      --smiles=zinc_valid.txt --unseen=zinc_test.txt

For the SavedModel of each run folder, in percent:

  exact     molecules of --unseen, not in --smiles, all of whose tokens are the
            most probable ones after encoding and decoding
  same      of which the same molecule is decoded
  decoded   of which some molecule is decoded
  prior     draws of the prior that decode to a molecule
  encoded   draws that decode to a molecule which T tokens can spell
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from benchmarks.molecules import check_files
from benchmarks.tables import print_table
from tfvae.data.molecules import molecule_file
from tfvae.data.selfies import (
    PADDING,
    SelfiesCode,
    canonical_smiles,
    import_chemistry,
)

# Molecules that a signature is called with.
_BATCH = 250


def measured(folder: pathlib.Path, given: argparse.Namespace) -> list[str]:
    """Returns the row of a run folder."""
    path = folder / "saved_model"
    extra = json.loads((path / "assets.extra/tfvae.json").read_text())
    num_steps, num_symbols = extra["event_shape"]
    known = molecule_file(
        given.smiles, num_steps=num_steps, num_symbols=num_symbols
    )
    code = known.code
    others = molecule_file(given.unseen, code=code).sequences
    names = [one for one in others if one not in known.sequences]
    names = names[: given.molecules]
    points = code.one_hot([others[one] for one in names]).astype(np.float32)
    signatures = tf.saved_model.load(str(path)).signatures
    means = np.concatenate(
        [
            signatures["serving_default"](
                data=tf.constant(points[i : i + _BATCH])
            )["mean"]
            for i in range(0, len(points), _BATCH)
        ]
    )
    shape = (len(points), num_steps, num_symbols)
    tokens, right = (x.reshape(shape).argmax(-1) for x in (means, points))
    found = code.read(means)
    draws = signatures["sample"](
        num_samples=tf.constant(given.draws), seed=tf.constant(given.seed)
    )["mean"].numpy()
    summary = json.loads((folder / "summary.json").read_text())
    shares = [
        np.all(tokens == right, -1),
        [one == name for one, name in zip(found, names, strict=True)],
        [one is not None for one in found],
        [_is_molecule(code, one) for one in draws.reshape(-1, *shape[1:])],
        [one is not None for one in code.read(draws)],
    ]
    return [
        f"{folder}",
        f"{num_steps}",
        f"{len(names)}",
        *(f"{100.0 * np.mean(one):.1f}" for one in shares),
        f"{summary['training_seconds']:.0f}",
    ]


def _is_molecule(code: SelfiesCode, probs: np.ndarray) -> bool:
    """Whether the most probable tokens decode to a molecule of any length."""
    text = "".join(code.tokens[i] for i in probs.argmax(-1))
    smiles = import_chemistry("selfies").decoder(text.partition(PADDING)[0])
    try:
        return bool(canonical_smiles(smiles))
    except ValueError:
        return False


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dirs", type=pathlib.Path, nargs="+")
    parser.add_argument(
        "--smiles",
        type=pathlib.Path,
        help="file of the training; without it the 9,997 of RDKit",
    )
    parser.add_argument("--unseen", type=pathlib.Path, required=True)
    parser.add_argument("--molecules", type=int, default=1500)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    check_files(parser, given)
    head = ["run", "T", "unseen", "exact", "same", "decoded"]
    print_table(
        [*head, "prior", "encoded", "s of training"],
        [measured(one, given) for one in given.run_dirs],
    )


if __name__ == "__main__":
    main()
