# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Ask and tell beside an instrument
#
# The evaluations of your optimisation take place elsewhere: in a laboratory, on
# a machine that takes hours, now and then without success. tfvae proposes what
# to try next (ask), and you report results when they are there (tell), in any
# order. Here the instrument is simulated, with delays and failures. We talk to
# it first by the command line, then in Python. It takes about two minutes.
#
# The first cell installs tfvae where it is missing, as on Colab: upload its
# wheel (`tfvae-*.whl`) there first.

# %%
import glob
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("tfvae") is None:
    (wheel,) = glob.glob("tfvae-*.whl")
    command = [sys.executable, "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(command, check=True)

# %%
import csv
import heapq
import json
import pathlib
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np

import tfvae
from tfvae import lso

keras.utils.set_random_seed(0)
BUDGET = 20  # films, in Python
STEPS = 3000  # gradient steps of the model, in Python
folder = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## The instrument
#
# A coater makes films from four settings; the score is their conductivity.
# Several films are under way at once, each takes one to eight hours, and a film
# that is baked too hot for too long cracks. Time is simulated, so nothing here
# has to wait.

# %%
RANGES = {  # least, most and step of each setting
    "temperature": (20.0, 120.0, 1.0),  # degrees C
    "speed": (500.0, 4000.0, 50.0),  # turns a minute
    "minutes": (1.0, 30.0, 0.5),
    "percent": (1.0, 20.0, 0.25),  # of the solution
}
LOW, HIGH, STEP = np.transpose([*RANGES.values()])


def conductivity(settings):
    """Returns S/cm, or None where the film cracks."""
    unit = (np.array([*settings.values()]) - LOW) / (HIGH - LOW)
    if unit[0] * unit[2] > 0.37:
        return None
    distance = (unit - [0.7, 0.35, 0.55, 0.6]) / [0.25, 0.3, 0.3, 0.2]
    return round(float(90.0 * np.exp(-0.5 * distance @ distance)), 2)


class Instrument:
    """Makes films, several at a time, which are ready in another order."""

    def __init__(self):
        self.hour, self.at_work = 0.0, []
        self.rng = np.random.default_rng(0)

    def submit(self, number, settings):
        end = self.hour + self.rng.uniform(1.0, 8.0)
        heapq.heappush(self.at_work, (end, number, settings))

    def next_result(self):
        """Returns the number and the conductivity of the next film."""
        self.hour, number, settings = heapq.heappop(self.at_work)
        return number, conductivity(settings)


# %% [markdown]
# What has been measured before: 60 films, all of them made cold and short.

# %%
rng = np.random.default_rng(0)
with open(folder / "measured.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow([*RANGES, "score"])
    for unit in rng.random((60, 4)) * [0.6, 1.0, 0.6, 1.0]:
        values = np.round((LOW + unit * (HIGH - LOW)) / STEP) * STEP
        score = conductivity(dict(zip(RANGES, values, strict=True)))
        table.writerow([*values, score])
print((folder / "measured.csv").read_text()[:120])

# %% [markdown]
# ## The task
#
# A Python file says what the data are, and how settings become numbers for the
# model and back: here in units of their ranges, and rounded to steps that the
# coater can be set to. The objective is somewhere else, so it only says so.

# %%
TASK = f"""
import csv, pathlib
import numpy as np
from tfvae.lso import ScoredData, Task

RANGES = {RANGES}
LOW, HIGH, STEP = np.transpose([*RANGES.values()])


def write(inputs):
    values = np.array([[x[name] for name in RANGES] for x in inputs])
    return (values - LOW) / (HIGH - LOW)


def read(means, seed):
    values = LOW + np.clip(means, 0.0, 1.0) * (HIGH - LOW)
    rows = (np.round(values / STEP) * STEP).tolist()
    return [dict(zip(RANGES, row)) for row in rows]


def data(seed):
    path = pathlib.Path(__file__).with_name("measured.csv")
    with path.open(newline="") as file:
        rows = [{{k: float(v) for k, v in row.items()}}
                for row in csv.DictReader(file)]
    scores = np.array([row.pop("score") for row in rows])
    return ScoredData(write(rows), scores, rows)


def elsewhere(settings):
    raise RuntimeError("films are made by the coater: --ask and --tell")


task = Task("films", data, elsewhere, read, write,
            score_label="conductivity, S/cm")
"""
(folder / "films.py").write_text(TASK)


def optimize(*flags):
    """Runs `tfvae optimize`, as a terminal would; returns its output."""
    print("$ tfvae optimize", *flags)
    ended = subprocess.run(
        [sys.executable, "-m", "tfvae.cli.main", "optimize", *flags],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    return ended.stdout or ended.stderr


# %% [markdown]
# ## By the command line
#
# The first command trains a model on the measured films, and asks for four new
# ones. Each is a line of JSON on standard output; what else there is to say is
# on standard error. Four settings need no more than four latents, and 60 films
# are one batch an epoch, so the model takes many epochs.

# %%
coater = Instrument()
lines = optimize(
    "--task=films.py",
    "--run_dir=lab",
    "--ask=4",
    "--gin_param=NUM_LATENTS=4",
    "--gin_param=fit.epochs=200",
)
print(lines)
for query in map(json.loads, lines.splitlines()):
    coater.submit(query["query"], query["input"])

# %% [markdown]
# The coater works on all of them. Two are ready, and not in the order in which
# they were asked for. Telling needs neither the task nor TensorFlow: it takes
# a second.


# %%
def told(number, score):
    """Returns the flag that tells a result."""
    result = "failed:the film cracked" if score is None else score
    return f"--tell={number}={result}"


results = [coater.next_result() for _ in range(2)]
print(optimize("--run_dir=lab", *(told(*one) for one in results)))

# %% [markdown]
# Where is the run? `--status` says it at any time, also to a colleague who
# reads the folder while somebody else asks and tells.

# %%
print(optimize("--run_dir=lab", "--status"))

# %% [markdown]
# There is room for another film. `--ask=1` proposes it while two are pending:
# what is pending counts as measured with the score that the surrogate predicts,
# so that nothing is proposed twice. `--ask` alone prints all that are pending,
# for example after the terminal was closed.

# %%
line = optimize("--run_dir=lab", "--ask=1")
print(line)
query = json.loads(line)
coater.submit(query["query"], query["input"])

# %% [markdown]
# Somebody reads the wrong display, and tells what is not so. `--amend` replaces
# a result, `--withdraw` removes it, so that the film is pending again. The
# ledger keeps what was said before. What cannot be is refused before anything
# is recorded: here a second result of a film, and a film that nobody asked for.

# %%
number, score = coater.next_result()
print(optimize("--run_dir=lab", f"--tell={number}=9000"))
right = "failed:the film cracked" if score is None else score
print(optimize("--run_dir=lab", f"--amend={number}={right}"))
print(optimize("--run_dir=lab", f"--withdraw={number}"))
print(optimize("--run_dir=lab", told(number, score)))
print(optimize("--run_dir=lab", f"--tell={number}=1.0"))
print(optimize("--run_dir=lab", "--tell=77=1.0"))

# %% [markdown]
# `lab/evaluations.csv` is the table for a spreadsheet, `lab/report.html` the
# page, and `lab/ledger.jsonl` has all that was said, in order.

# %%
for line in (folder / "lab" / "ledger.jsonl").read_text().splitlines():
    kind, said = next(iter(json.loads(line).items()))
    if kind == "proposed":
        print(kind, [query["number"] for query in said])
    elif kind != "header":
        parts = [said.get(key) for key in ("query", "score", "failure")]
        print(kind, *(one for one in parts if one is not None))

# %% [markdown]
# ## In Python
#
# A program that drives the instrument itself asks and tells by methods. We
# train the model here, and save it, so that another process can open the run.
# The noise is fixed, at a standard deviation of a twentieth of each range, so
# that no setting is taken for noise.

# %%
sys.path.insert(0, str(folder))
from films import task  # noqa: E402

points = task.data(0).points
encoder = tfvae.learnable(
    lambda outputs: tfvae.fully_connected_encoder(outputs, 4, (32,)), 4
)
model = tfvae.VAE(
    encoder,
    tfvae.FullyConnectedDecoder(4, (32,)),
    tfvae.StandardNormalPrior(4),
    tfvae.GaussianLikelihood(0.05**2, is_fixed=True),
)
model.adapt(points)
model.compile(keras.optimizers.Adam(3e-3))
batches = model.batches(points, 30)
model.fit(batches, steps_per_epoch=STEPS, shuffle=False, verbose=0)
model.save(folder / "model.keras")


def opened():
    """Begins the run, or resumes it, as any process can."""
    return lso.LatentSpaceOptimizer.of_model(
        folder / "python",
        task,
        keras.models.load_model(folder / "model.keras"),
        lso.Plan(
            BUDGET,
            queries_per_round=10,
            num_proposals=10,
            skips_known=True,
            min_distance=0.1,
        ),
        strategy=lso.ExpectedImprovement(),
        surrogate=lso.SparseGaussianProcess(),
        weighting=lso.Rank(1e-3),
        retraining=lso.Retraining(first_epochs=0, epochs=5, batch_size=30),
    )


# %% [markdown]
# The coater has room for three films. Whenever one is ready, we tell its result
# and ask for the next one. The budget counts films, cracked ones included.

# %%
coater = Instrument()
history = []


def work(optimizer, until):
    """Keeps the coater busy until so many films are ready."""
    while optimizer.num_done < until:
        room = 3 - len(coater.at_work)
        for query in optimizer.ask(room) if room else ():
            settings = optimizer.task.from_json(query.input)
            coater.submit(query.number, settings)
        number, score = coater.next_result()
        failure = "the film cracked" if score is None else None
        optimizer.tell(number, score, failure=failure)
        history.append((coater.hour, number, score))


with opened() as optimizer:
    work(optimizer, until=BUDGET // 2)
    print(f"best so far: {optimizer.best()} S/cm")

# %% [markdown]
# The program ends here, or is killed, while two films are still being made.
# Nothing is lost: opened again, the run knows what is pending, and `tell`
# takes the results as if nothing had happened.

# %%
with opened() as optimizer:
    pending = [query.number for query in optimizer.ask()]
    at_work = sorted(number for _, number, _ in coater.at_work)
    print(f"pending {pending}, at the coater {at_work}")
    work(optimizer, until=BUDGET)
    entries = optimizer.ledger.entries
    print(f"best: {optimizer.best()} S/cm")
    # A result that was wrong is amended in Python as well, also at the end.
    last = entries[-1]
    wrong = optimizer.amend(last.query, failure="the sample was mislabelled")
    print(f"query {wrong.query}: {wrong.failure}")
    optimizer.amend(last.query, last.score, failure=last.failure)

# %% [markdown]
# ## What came of it
#
# Films in the order in which they were ready, with the number of each query:
# they differ, which is why results have numbers.

# %%
before = max(task.data(0).scores)
hours, numbers, scores = zip(*history, strict=True)
values = np.array([np.nan if s is None else s for s in scores])
best = np.fmax.accumulate(np.r_[before, values])
plt.figure(figsize=(6.4, 3.2))
plt.step(np.r_[0.0, hours], best, where="post", label="best so far")
plt.plot(hours, values, ".", color="C0", alpha=0.6, label="films")
cracked = np.array(hours)[np.isnan(values)]
plt.plot(cracked, 0.0 * cracked, "x", color="C3", label="cracked")
plt.xlabel("hours")
plt.ylabel("conductivity, S/cm")
plt.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.tight_layout()
plt.show()

print("order of the results:", *numbers)
print(f"{len(cracked)} of {BUDGET} films cracked")
print(f"best before: {before} S/cm, best film: {np.nanmax(values)} S/cm")
winner = max((e for e in entries if e.score), key=lambda e: e.score)
print(winner.input)

# %% [markdown]
# ## Where to go on
#
# - Measurements that no query asked for are added by `--add=more.csv`, or
#   `optimizer.add`.
# - Where measurements are noisy, constraints have to hold, or settings must not
#   be combined, the page
#   [Optimising something of your own](../optimization.md) has what to do.
# - The methods are in the [reference](../reference/lso.md).
