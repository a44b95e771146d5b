# SPDX-License-Identifier: Apache-2.0
"""Makes mistakes, and prints what tfvae says of each as a table.

Usage:
    PYTHONPATH=. python tests/wrong_inputs.py
"""

import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
import PIL.Image
import tifffile

import tfvae
from tests.lso import objectives, tiny
from tfvae import lso
from tfvae.data import WeightedBatches, images

ROOT = pathlib.Path(__file__).parents[1]


def _model(**settings):
    decoder = tfvae.FullyConnectedDecoder(4, hidden=(8,))
    settings = {"num_latents": 3, "num_states": 4} | settings
    model = tfvae.TVAE(decoder, **settings)
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def _evolution(**settings):
    return tfvae.Evolution(**{"num_parents": 2, "num_children": 2} | settings)


X = np.ones((6, 4), np.float32)
_FOLDER = pathlib.Path(tempfile.mkdtemp())


def _optimise(objective=tiny.objective, evaluator=None, **kwargs):
    """Runs a small optimisation, and returns what became of its queries."""
    settings = {
        "plan": lso.Plan(budget=2),
        "strategy": lso.PriorSampling(),
        "folder": tempfile.mkdtemp(),
    } | kwargs
    task = tiny.task(objective=objective)
    plan, folder = settings.pop("plan"), settings.pop("folder")
    with lso.LatentSpaceOptimizer.of_model(
        folder, task, tiny.model(), plan, **settings
    ) as optimizer:
        optimizer.run(evaluator)
        failures = {str(one.failure) for one in optimizer.ledger.entries}
    return "recorded: " + "; ".join(sorted(failures))


def _raises(point):
    raise RuntimeError("no sample left")


def _cut_ledger(place):
    """Goes on with a ledger of which bytes are missing, at its end or not."""
    folder = pathlib.Path(tempfile.mkdtemp())
    _optimise(folder=folder, plan=lso.Plan(budget=1))
    path = folder / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30] if place == "end" else whole[9:])
    return _optimise(folder=folder, plan=lso.Plan(budget=1))


def _other_ledger():
    _optimise(folder=_FOLDER)
    return _optimise(folder=_FOLDER, weighting=lso.Rank(0.5))


_PICTURE = np.arange(400.0).reshape(20, 20)


def _tiff(array, **settings):
    """Restores a TIFF file."""
    path = _FOLDER / "wrong.tif"
    tifffile.imwrite(path, array, **settings)
    tfvae.corrupted_image(path)


def _file(name, content):
    """Restores a file of these bytes."""
    (_FOLDER / name).write_bytes(content)
    tfvae.corrupted_image(_FOLDER / name)


def _mask_file(name, array, **settings):
    """In-paints by a mask that Pillow writes."""
    PIL.Image.fromarray(array).save(_FOLDER / name)
    tfvae.corrupted_image(_PICTURE, mask=_FOLDER / name, **settings)


def _two_masks():
    """A mask with transparent parts and several colours."""
    array = np.full((20, 20, 4), 255, np.uint8)
    array[0, 0], array[1, 1, :3] = 0, 7
    return array


IN_PYTHON = {
    "picture of RGBA without a file": lambda: tfvae.corrupted_image(
        np.zeros((20, 20, 4))
    ),
    "picture with channels first": lambda: tfvae.corrupted_image(
        np.zeros((3, 20, 20))
    ),
    "picture of complex numbers": lambda: tfvae.corrupted_image(1j * _PICTURE),
    "picture all missing": lambda: tfvae.corrupted_image(np.nan * _PICTURE),
    "range upside down": lambda: tfvae.corrupted_image(
        _PICTURE, value_range=(1, 0)
    ),
    "clean picture of other units": lambda: tfvae.corrupted_image(
        _PICTURE.astype(np.uint16), clean=_PICTURE.astype(np.uint8)
    ),
    "white-is-zero of floats": lambda: _tiff(
        _PICTURE, photometric="miniswhite"
    ),
    "CMYK of 16 bits": lambda: _tiff(
        np.zeros((20, 20, 4), np.uint16), photometric="separated"
    ),
    "CIELAB": lambda: _tiff(
        np.zeros((20, 20, 3), np.uint8), photometric="cielab"
    ),
    "raw sensor data": lambda: _tiff(
        np.zeros((20, 20), np.uint16), photometric="cfa"
    ),
    "two alpha channels": lambda: _tiff(
        np.zeros((20, 20, 5), np.uint8),
        photometric="rgb",
        extrasamples=["unassalpha", "unassalpha"],
    ),
    "OpenEXR that is damaged": lambda: _file(
        "wrong.exr", b"\x76\x2f\x31\x01" + bytes(60)
    ),
    "stack without a page": lambda: _tiff(np.zeros((5, 20, 20), np.uint8)),
    "page that is not there": lambda: tfvae.corrupted_image(
        np.zeros((5, 20, 20)), page=5
    ),
    "array of two readings": lambda: tfvae.corrupted_image(
        np.zeros((4, 20, 20)), page=0
    ),
    "axes that do not fit": lambda: tfvae.corrupted_image(
        np.zeros((4, 20, 20)), axes="TZYX"
    ),
    "mask of fewer pages": lambda: tfvae.corrupted_image(
        np.zeros((9, 20, 20)), page=0, mask=np.ones((8, 20, 20))
    ),
    "one model of grey and RGB": lambda: tfvae.corrupted_images(
        [{"image": _PICTURE}, {"image": np.zeros((20, 20, 3))}]
    ),
    "PPM of 16 bits": lambda: _file("wrong.ppm", b"P6 1 1 65535\n" + bytes(6)),
    "mask that is JPEG": lambda: _mask_file(
        "wrong.jpg", np.zeros((20, 20), np.uint8)
    ),
    "mask that says two things": lambda: _mask_file("two.png", _two_masks()),
    "mask with all missing": lambda: tfvae.corrupted_image(
        _PICTURE, mask=1.0 + _PICTURE
    ),
    "mask that is inverted": lambda: tfvae.corrupted_image(
        _PICTURE, mask=_PICTURE > 5
    ),
    "transparency of an opaque picture": lambda: tfvae.corrupted_image(
        _PICTURE, mask="alpha"
    ),
    "mask settings without mask": lambda: tfvae.corrupted_image(
        _PICTURE, mask_grow=2
    ),
    "hole out of reach": lambda: tfvae.corrupted_image(
        _PICTURE, mask=_PICTURE // 20 // 9 == 1, patch=4
    ),
    "S > 2^H": lambda: _model(num_states=9),
    "children > H": lambda: _model(evolution=_evolution(num_children=4)),
    "parents > S": lambda: _model(evolution=_evolution(num_parents=5)),
    "M > S": lambda: _model(num_m_states=5),
    "wrong rank": lambda: _model().infer(X[0]),
    "wrong dtype": lambda: _model().infer(X.astype(str)),
    "infinite values": lambda: _model().infer(np.where(X > 0, np.inf, X)),
    "a row all missing": lambda: _model().infer(np.full_like(X, np.nan)),
    "data beyond [0, 1]": lambda: _model(
        likelihood=tfvae.BernoulliLikelihood()
    ).adapt(3 * X),
    "fit without num_data": lambda: _model().fit(X, np.arange(6), verbose=0),
    "fit without index": lambda: _model(num_data=6).fit(X, verbose=0),
    "too many latents to enumerate": lambda: _model(
        num_latents=21
    ).log_likelihood(X),
    "a class for an operator": lambda: tfvae.Evolution(parents=tfvae.Elite),
    "scores of data NaN": lambda: lso.ScoredData(X, [np.nan] * 6),
    "scores of data complex": lambda: lso.ScoredData(X, [1j] * 6),
    "data infinite": lambda: lso.ScoredData(X * np.inf, [0.0] * 6),
    "no data": lambda: lso.ScoredData(X[:0], []),
    "budget below one round": lambda: lso.Plan(5, queries_per_round=9),
    "a class for a strategy": lambda: lso.Mixture([lso.OracleGrid], [1.0]),
    "shares that are text": lambda: lso.Mixture([lso.OracleGrid()], "1.0"),
    "negative weights": lambda: WeightedBatches(X, -np.ones(6), 2),
    "weights all zero": lambda: WeightedBatches(X, np.zeros(6), 2),
    "infinite weights": lambda: WeightedBatches(X, np.full(6, np.inf), 2),
    "score NaN": lambda: _optimise(lambda point: np.nan),
    "score infinite": lambda: _optimise(lambda point: -np.inf),
    "score of a wrong type": lambda: _optimise(lambda point: "good"),
    "objective raises": lambda: _optimise(_raises),
    "objective hangs": lambda: _optimise(
        objectives.never, lso.ProcessPool(timeout_seconds=0.5)
    ),
    "another run's ledger": _other_ledger,
    "ledger cut at its end": lambda: _cut_ledger("end"),
    "ledger damaged elsewhere": lambda: _cut_ledger("start"),
}

_BARS = "train.py --gin_file=gin/runs/bars.gin --run_dir={run} "
_SHAPES = (
    "optimize.py --run_dir={run} "
    "--gin_file=papers/neurips2020_weighted_retraining/shapes.gin "
)
_OWN = "optimize.py --run_dir={run} --task={folder}/"
_TUPLE = """
from tfvae.lso import Task
task = Task("pair", data=lambda seed: ([[1.0]], [1.0]), objective=sum)
"""
_TEXTS = """
import numpy as np
from tfvae.lso import ScoredData, Task
def write(texts):
    return np.array([[text.index("C"), len(text)] for text in texts], float)
def read(means, seed):
    return ["O" * round(max(one[0], 0.0)) + "C" for one in means]
def data(seed):
    texts = ["C", "OC"]
    return ScoredData(write(texts), [0.0, 1.0], texts)
task = Task("texts", data, len, read, write)
"""
ON_THE_COMMAND_LINE = {
    "unknown flag": _BARS + "--epochs=3",
    "unknown gin parameter": _BARS + "--gin_param=fit.epoch=3",
    "unknown gin name": _BARS + "--gin_param=fitt.epochs=3",
    "no gin file": "train.py --gin_file=no.gin --run_dir={run}",
    "S > 2^H": _BARS + "--gin_param=TVAE.num_states=300",
    "another configuration": _BARS + "--gin_param=bars.num_data=99",
    "required value": "train.py --gin_file=gin/runs/tfds.gin --run_dir={run}",
    "data that need the network": "train.py --gin_file=gin/runs/tfds.gin "
    "--run_dir={run} --gin_param=DATA='svhn_cropped' "
    "--gin_param=tfds_images.data_dir='{folder}'",
    "unreadable picture": "denoise.py --image={folder}/broken.png "
    "--run_dir={run}",
    "mask of another size": "denoise.py --image={folder}/one.png "
    "--mask={folder}/two.png --run_dir={run}",
    "output that is the picture": "denoise.py --image={folder}/one.png "
    "--output={folder}/one.png --run_dir={run}",
    "output in a place that can not be written": "denoise.py "
    "--image={folder}/one.png --output=/proc/out.png --run_dir={run}",
    "output without the depth": "denoise.py --image={folder}/deep.tif "
    "--output={folder}/out.jpg --run_dir={run}",
    "JPEG of in-painting": "denoise.py --image={folder}/one.png "
    "--mask={folder}/spot.png --output={folder}/out.jpg --run_dir={run}",
    "range of one value": "denoise.py --image={folder}/one.png "
    "--value_range=255 --run_dir={run}",
    "standard deviations as PNG": "denoise.py --image={folder}/one.png "
    "--output_std={folder}/std.png --run_dir={run}",
    "factor of no size": "denoise.py --image={folder}/one.png "
    "--std_factor=0 --run_dir={run}",
    "stride over the patch": "denoise.py --image={folder}/one.png "
    "--stride=9 --run_dir={run}",
    "patch of no size": "denoise.py --image={folder}/one.png --patch=0 "
    "--run_dir={run}",
    "gain of Gaussian noise": "denoise.py --image={folder}/one.png "
    "--gain=2 --run_dir={run}",
    "too small to estimate its noise": "denoise.py --image={folder}/one.png "
    "--noise=poisson --run_dir={run}",
    "strength above 1": "denoise.py --image={folder}/one.png --strength=2 "
    "--run_dir={run}",
    "strength without denoising": "denoise.py --image={folder}/one.png "
    "--mask={folder}/spot.png --strength=0.5 --run_dir={run}",
    "pages of a picture": "denoise.py --image={folder}/one.png --pages=2 "
    "--run_dir={run}",
    "pages that are no numbers": "denoise.py --image={folder}/stack.tif "
    "--pages=first --run_dir={run}",
    "page beyond the last": "denoise.py --image={folder}/stack.tif --pages=0-3 "
    "--run_dir={run}",
    "output that holds no pages": "denoise.py --image={folder}/stack.tif "
    "--output={folder}/out.jpg --run_dir={run}",
    "axes that no stack has": "denoise.py --image={folder}/stack.tif "
    "--axes=AYX --run_dir={run}",
    "one file for two outputs": "denoise.py --image={folder}/one.png "
    "--output={folder}/out.tif --output_std={folder}/out.tif --run_dir={run}",
    "folder over itself": "denoise.py --image={folder} --output={folder} "
    "--run_dir={run}",
    "folder without pictures": "denoise.py --image={folder}/other "
    "--run_dir={run}",
    "no run": "evaluate.py --run_dir={folder}",
    "a class for an object": _SHAPES
    + "--gin_param=optimize.strategy=@OracleGrid",
    "a score that nobody asked for": _SHAPES + "--tell=0=1.5",
    "task that is no Python file": _OWN + "task.txt",
    "task that ends Python": _OWN + "exit.py",
    "task whose data are a tuple": _OWN + "tuple.py",
    "task that writes points of another size": _OWN + "sizes.py",
    "measurements with semicolons": _OWN
    + "texts.py --add={folder}/semicolons.csv",
    "measurement of another input": _OWN + "texts.py --add={folder}/other.csv",
    "new run without a task": "optimize.py --run_dir={run} --budget=9",
    "a score with an underscore": "optimize.py --run_dir={run} --tell=0=1_0",
    "no disk space": _BARS.replace("{run}", "{full}/run"),
}


def _python_message(mistake) -> str:
    try:
        answer = mistake()
        if isinstance(answer, str):
            return answer
    except Exception as err:
        return f"{type(err).__name__}: {err}".strip().partition("\n")[0]
    return "NO ERROR"


def _command_message(command: str, **folders) -> str:
    argv = command.format(**folders).split()
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tools" / argv[0]), *argv[1:]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    answer = ended.stderr.strip() or "NO ERROR"
    return f"{answer} (exit code {ended.returncode})"


def main() -> None:
    """Prints the tables."""
    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "broken.png").write_bytes(b"no picture")
    images.write_image(folder / "one.png", np.zeros((20, 20, 1)))
    images.write_image(folder / "two.png", np.zeros((20, 21, 1)))
    spot = np.zeros((20, 20, 1))
    spot[3:5, 3:5] = images.WHITE
    images.write_image(folder / "spot.png", spot)
    images.write_image(folder / "deep.tif", spot, bits=16)
    tifffile.imwrite(
        folder / "stack.tif",
        np.zeros((3, 20, 20), np.uint8),
        photometric="minisblack",
    )
    (folder / "task.txt").write_text(_TUPLE)
    (folder / "tuple.py").write_text(_TUPLE)
    (folder / "texts.py").write_text(_TEXTS)
    narrower = "read, lambda texts: write(texts)[:, :1])"
    narrower = _TEXTS.replace("read, write)", narrower)
    (folder / "sizes.py").write_text(narrower)
    (folder / "semicolons.csv").write_text("input;score\nOOC;2,5\n")
    (folder / "other.csv").write_text("input,score\nOOC,2\nOO,1\n")
    (folder / "exit.py").write_text("raise SystemExit('no licence')")
    # A run of another configuration, stopped before its first epoch ended.
    (folder / "other").mkdir()
    full = folder / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)]
    has_full = subprocess.run(mount, capture_output=True).returncode == 0
    run = folder / "run"
    first = (_BARS + "--gin_param=fit.epochs=1").format(run=run).split()
    subprocess.run(
        [sys.executable, str(ROOT / "tools" / first[0]), *first[1:]],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print("| in Python | message |\n|---|---|")
    for name, mistake in IN_PYTHON.items():
        print(f"| {name} | {_python_message(mistake)} |", flush=True)
    print("\n| on the command line | message |\n|---|---|")
    for name, command in ON_THE_COMMAND_LINE.items():
        if "{full}" in command and not has_full:
            print(f"| {name} | not tried: needs the right to mount |")
            continue
        own = run if name == "another configuration" else folder / "new"
        answer = _command_message(command, run=own, folder=folder, full=full)
        print(f"| {name} | {answer} |".replace(str(folder), "..."), flush=True)
    if has_full:
        subprocess.run(["umount", str(full)], check=True)


if __name__ == "__main__":
    main()
