# SPDX-License-Identifier: Apache-2.0
"""Makes the gallery: pictures and figures of runs of the library.

  python docs/gallery/make.py

`make gallery` does the same. Each entry is a run of `tfvae`; its picture is
stored beside this file, its figures in gallery.json, and index.md is written
anew. What is made is not made again, unless its command has changed: delete a
picture to make it anew. Runs are resumed after an interrupt. Entries whose
extra is not installed are left out and named.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import json
import operator
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import PIL.Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
_MAX_SIDE = 1000  # Of a stored picture, in pixels.
_PROGRAMS = {
    "denoise": "tools/denoise.py",
    "optimize": "tools/optimize.py",
    "study": "tools/reproduce.py",
    "train": "tools/train.py",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A picture of the gallery, and the run that makes it.

    Attributes:
      name: Of its files.
      title: Above it.
      text: What is seen, Markdown.
      alt: What the picture shows, for those who do not see it.
      command: Arguments of `tfvae`, without `--run_dir`.
      picture: Pattern of the picture's path in the run folder; the first one.
      figures: Label of a figure -> its key in the summary, with dots between
        the keys of objects within objects; after the name of another file of
        the run and a colon, its key there.
      summary: The file of the run that has its figures.
      quick: Further arguments that make the run take seconds.
      needs: Module that must be installed.
      extra: The extra of tfvae that has it.
    """

    name: str
    title: str
    text: str
    alt: str
    command: tuple[str, ...]
    picture: str
    figures: Mapping[str, str]
    summary: str = "summary.json"
    quick: tuple[str, ...] = ()
    needs: str = "tfvae"
    extra: str = ""

    def shown(self) -> str:
        """Returns the command as a person types it."""
        words = ["tfvae", *self.command, f"--run_dir=runs/gallery/{self.name}"]
        for i, word in enumerate(words):
            if shlex.quote(word) != word:
                flag, _, value = word.partition("=")
                words[i] = f'{flag}="{value}"'
        return " ".join(words)

    def argv(self, runs: pathlib.Path, is_quick: bool) -> list[str]:
        """Returns the process's arguments."""
        name, *rest = self.command
        further = self.quick if is_quick else ()
        run_dir = f"--run_dir={runs / self.name}"
        return [sys.executable, _PROGRAMS[name], *rest, *further, run_dir]


_PICTURE = {
    "PSNR before, dB": "corrupted_psnr",
    "PSNR after, dB": "psnr",
    "SSIM before": "corrupted_ssim",
    "SSIM after": "ssim",
}
_TINY_PICTURE = ("--gin_param=corrupted_image.crop=(50, 140, 40, 40)",)

ENTRIES = (
    Entry(
        "camera",
        "Noise removed from a photograph",
        "Noise of standard deviation 25 was added to a photograph that comes "
        "with scikit-image. It is restored by [local subspaces]"
        "(../how/local_subspaces.md), which find the level of the noise.",
        "a photograph: clean, noisy and restored, and a detail of each",
        (
            "denoise",
            "--image=camera",
            "--add_noise_std=25",
            "--quality=fast",
        ),
        "figures/restoration.png",
        {**_PICTURE, "noise found": "noise_std"},
        quick=("--method=subspaces", *_TINY_PICTURE),
    ),
    Entry(
        "astronaut",
        "Missing pixels filled in",
        "Half of the values of a colour picture are missing, at random, and "
        "the others stay as they are.",
        "a face: complete, with half of the values missing, and filled in",
        (
            "denoise",
            "--image=astronaut",
            "--missing=0.5",
            "--method=subspaces",
            "--gin_param=corrupted_image.crop=(20, 150, 150, 150)",
        ),
        "figures/restoration.png",
        {"PSNR after, dB": "psnr", "SSIM after": "ssim"},
        quick=(
            *_TINY_PICTURE,
            "--gin_param=LocalSubspaces.num_rounds=2",
        ),
    ),
    Entry(
        "quickstart",
        "Noise removed by a TVAE",
        "A [TVAE](../how/tvae.md), a VAE with binary latents and no encoder, "
        "is trained on the patches of the noisy picture alone.",
        "a photograph: clean, noisy and restored, and a detail of each",
        ("denoise", "--gin_file=quickstart.gin"),
        "figures/restoration.png",
        {**_PICTURE, "noise found": "noise_std"},
        quick=(*_TINY_PICTURE, "--gin_param=fit.epochs=2"),
    ),
    Entry(
        "bars",
        "The causes of pictures",
        "Pictures of 4 x 4 pixels are superpositions of eight bars, four rows "
        "and four columns, and noise. A TVAE that is given the pictures alone "
        "finds the bars: the mean of each of its latents is one of them.",
        "eight pictures of 4 x 4 pixels, one for each latent",
        ("train", "--gin_file=runs/bars.gin"),
        "figures/features.png",
        {
            "bars found": "features_found",
            "of": "features",
            "bound, nats": "bound",
            "log-likelihood under the generator, nats": (
                "generator_log_likelihood"
            ),
        },
        quick=("--gin_param=fit.epochs=2",),
    ),
    Entry(
        "digits",
        "Digits that do not exist",
        "Samples of a VAE whose encoder is not trained: its convolutions stay "
        "as they were drawn, and a [flow prior](../how/random_encoders.md) "
        "learns where they put 1,000 of the digits that come with "
        "scikit-learn.",
        "64 handwritten digits, drawn by the model",
        (
            "train",
            "--gin_file=runs/digits.gin",
            "--gin_file=mixins/encoder_non_learnable.gin",
        ),
        "figures/samples.png",
        {
            "bound on training data, nats": "bound",
            "on validation data": "validation_bound",
        },
        quick=("--gin_param=fit.epochs=1",),
    ),
    Entry(
        "encoders",
        "Samples of 24 models",
        "Four encoders (L learnable, PNL partially and NL not learnable, RKS "
        "random kitchen sinks), two kinds of layers (fully connected and "
        "convolutions) and three priors (normal, two and six flows), trained "
        "on digits for ten epochs. Convolutions that are not trained, with a "
        "normal prior, give no digits; PNL needs more epochs. Longer runs, and "
        "distances of samples from data: "
        "[random encoders](../random_encoders.md).",
        "a table of samples of digits, a cell for each of 24 models",
        (
            "study",
            "--gin_file=papers/thesis2021_random_encoders/digits.gin",
            "--gin_param=fit.epochs=10",
            "--gin_param=study.repetitions=1",
            "--gin_param=study.exclude=[{'objective': 'thesis'}]",
        ),
        "report/sheets/*samples*.png",
        {
            f"Frechet distance, {label}": (
                f"cells/{cell}-elbo-0/result.json:frechet_distance"
            )
            for label, cell in {
                "conv, L, normal prior": "conv-normal-L",
                "conv, L, six flows": "conv-flow6-L",
                "conv, NL, normal prior": "conv-normal-NL",
                "conv, NL, six flows": "conv-flow6-NL",
            }.items()
        },
        quick=("--smoke",),
        needs="statsmodels",
        extra="studies",
    ),
    Entry(
        "molecules",
        "Molecules found by latent space optimisation",
        "The most drug-like of the molecules that "
        "[weighted retraining](../how/weighted_retraining.md) tried, with "
        "their scores (QED, at most 1), beginning with 200 molecules that "
        "score less than 0.8. All resemble a lead compound and have an amide; "
        "whether they can be made is no part of the score.",
        "nine molecules as structural formulas, with their scores",
        ("optimize", "--task=examples/molecules.py", "--budget=40"),
        "figures/best.png",
        {"best score": "best.score", "queries": "num_queries"},
        summary="result.json",
        # Of a model that is hardly trained all molecules are refused.
        quick=("--budget=3",),
        needs="rdkit",
        extra="molecules",
    ),
)


def made(entry: Entry, record: Mapping[str, Any], folder: pathlib.Path) -> bool:
    """Returns whether an entry is made, by its present command."""
    one = record.get(entry.name, {})
    return one.get("command") == entry.shown() and _path(entry, folder).exists()


def make(
    entry: Entry, folder: pathlib.Path, runs: pathlib.Path, is_quick: bool
) -> dict[str, Any]:
    """Runs an entry, and stores its picture.

    Returns:
      Its command and figures.

    Raises:
      RuntimeError: If the run fails or leaves no picture.
      KeyError: If its summary lacks a figure.
    """
    ended = subprocess.run(entry.argv(runs, is_quick), cwd=ROOT)
    if ended.returncode:
        raise RuntimeError(f"ended with status {ended.returncode}")
    run_dir = runs / entry.name
    found = sorted(run_dir.glob(entry.picture))
    if not found:
        raise RuntimeError(f"{run_dir / entry.picture} is missing")
    with PIL.Image.open(found[0]) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_MAX_SIDE, _MAX_SIDE), PIL.Image.Resampling.LANCZOS)
    small.save(_path(entry, folder), quality=85, method=6)
    figures = {
        label: _figure(run_dir, entry.summary, key)
        for label, key in entry.figures.items()
    }
    return {
        "command": entry.shown(),
        "figures": figures,
    }


def _figure(run_dir: pathlib.Path, summary: str, key: str) -> float:
    file, colon, rest = key.partition(":")
    path = run_dir / (file if colon else summary)
    found = json.loads(path.read_text(encoding="utf-8"))
    keys = (rest if colon else key).split(".")
    return functools.reduce(operator.getitem, keys, found)


def page(record: Mapping[str, Any]) -> str:
    """Returns index.md, of the entries that are made."""
    parts = [
        "# Gallery",
        "Pictures of runs, each with the command that made it and the figures "
        "that the run has in its summary. `make gallery` makes what is "
        "missing; it takes minutes on two cores.",
    ]
    for entry in ENTRIES:
        if entry.name not in record:
            continue
        parts += [
            f"## {entry.title}",
            entry.text,
            f"![{entry.alt}]({entry.name}.webp)",
        ]
        figures = record[entry.name]["figures"]
        if figures:
            parts.append(
                "; ".join(f"{k}: **{_text(v)}**" for k, v in figures.items())
                + "."
            )
        parts.append(f"```bash\n{entry.shown()}\n```")
    return "\n\n".join(parts) + "\n"


def _text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _path(entry: Entry, folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{entry.name}.webp"


def main(argv: Sequence[str] | None = None) -> int:
    """Makes what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("names", nargs="*", help=f"Of {', '.join(names)}.")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(__file__).resolve().parent,
        help="Folder of pictures, gallery.json and index.md.",
    )
    parser.add_argument(
        "--runs",
        type=pathlib.Path,
        default=ROOT / "runs" / "gallery",
        help="Folder of the runs.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="Make tiny runs, to check that all work; needs --output and "
        "--runs.",
    )
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(names):
        parser.error(f"names must be of {names}, got {sorted(unknown)}")
    if args.quick and args.output == parser.get_default("output"):
        parser.error("--quick needs an --output and --runs of its own")
    folder, runs = args.output.resolve(), args.runs.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "gallery.json"
    record = json.loads(file.read_text("utf-8")) if file.exists() else {}
    failed = 0
    for entry in ENTRIES:
        if args.names and entry.name not in args.names:
            continue
        if made(entry, record, folder):
            print(f"{entry.name}: is made")
            continue
        if importlib.util.find_spec(entry.needs) is None:
            print(
                f"{entry.name}: left out; pip install 'tfvae[{entry.extra}]'",
                file=sys.stderr,
            )
            continue
        print(f"{entry.name}: {entry.shown()}", flush=True)
        try:
            record[entry.name] = make(entry, folder, runs, args.quick)
        except (RuntimeError, OSError, KeyError) as err:
            print(f"error: {entry.name}: {err!r}", file=sys.stderr)
            failed += 1
            continue
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (folder / "index.md").write_text(page(record), encoding="utf-8")
    (folder / "index.md").write_text(page(record), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
