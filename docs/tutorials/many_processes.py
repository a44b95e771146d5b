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
# # Train on many processes
#
# When one process is too slow, or the data do not fit into its memory, several
# train together: a TVAE or a VAE on ranks of MPI, each with its part of the
# data, or a VAE in a scope of `tf.distribute`. Here are data in shards, two
# ranks, a run that goes on with another number of ranks, and two replicas. It
# takes about two minutes. Do not expect to see speed on a laptop: two processes
# share its cores.
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
import os
import pathlib
import shutil
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np

import tfvae

keras.utils.set_random_seed(0)
PATCHES = 4000
EPOCHS = 4  # of each part of the run
folder = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## Data in shards
#
# Patches of a photograph, as three files of NumPy arrays. `tfvae shard` writes
# them into a folder of shards: equal files that are read in blocks, so that
# data may exceed the memory. It reads images, tables, TFRecord files and
# TensorFlow Datasets as well.

# %%
patches = tfvae.data.image_patches(
    "camera", patch=(8, 8), num_patches=PATCHES, scale=1 / 255
).train
for i, part in enumerate(np.array_split(patches, 3)):
    np.save(folder / f"part-{i}.npy", part)


def command(*words):
    """Runs a command as a terminal would; returns what it prints."""
    print("$", *words)
    words = [str(word) for word in words]
    launcher = []
    if words[0] == "mpiexec":
        launcher, words = [MPIEXEC, *words[1:3]], words[3:]
    ended = subprocess.run(
        [*launcher, sys.executable, "-m", "tfvae.cli.main", *words[1:]],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    return ended.stdout


flags = ("--input=part-*.npy", "--run_dir=shards", "--rows_per_shard=1000")
print(command("tfvae", "shard", *flags))
for file in sorted((folder / "shards").iterdir()):
    print(f"{file.name}  {file.stat().st_size:,} bytes")

# %% [markdown]
# A row's number is its place in all shards, so that each row keeps its own
# latent states wherever it is read.

# %%
rows = tfvae.data.ShardedRows(folder / "shards")
print(rows.shape, "rows 0 to 2 are those of the array:", end=" ")
print(np.array_equal(rows[:3], patches[:3]))

# %% [markdown]
# ## Two ranks
#
# `mpiexec` starts the same command twice. Each rank reads its rows, makes their
# E-step alone, and all gradients are summed, so that both have the same
# weights. It needs an MPI: `pip install "tfvae[mpi]" mpich`. Where there is
# none, this notebook goes on with one process.

# %%
found = pathlib.Path(sys.executable).with_name("mpiexec")
MPIEXEC = str(found) if found.exists() else shutil.which("mpiexec")
HAS_MPI = MPIEXEC is not None and importlib.util.find_spec("mpi4py") is not None
if not HAS_MPI:
    print('no MPI here: pip install "tfvae[mpi]" mpich; one process instead')


def train(ranks, epochs):
    """Trains until so many epochs are done; prints the last lines."""
    launcher = ("mpiexec", "-n", ranks) if HAS_MPI and ranks > 1 else ()
    printed = command(
        *launcher,
        "tfvae",
        "train",
        "--gin_file=runs/shards.gin",
        "--gin_param=FOLDER='shards'",
        "--run_dir=run",
        f"--gin_param=fit.epochs={epochs}",
        "--gin_param=fit.batch_size=250",
        "--gin_param=TVAE.num_latents=32",
        "--gin_param=TVAE.num_states=16",
        "--gin_param=TVAE.m_batch_size=50",
        "--gin_param=train.export=False",
    )
    lines = printed.splitlines()
    print("\n".join([*lines[:2], "...", *lines[-2:]]))


train(ranks=2, epochs=EPOCHS)

# %% [markdown]
# The states of each rank's rows are in a file of its own. The weights are in
# one file.

# %%
for file in sorted((folder / "run" / "checkpoints").iterdir()):
    print(f"{file.name}  {file.stat().st_size:,} bytes")

# %% [markdown]
# ## Resume with another number
#
# The same command continues a run that was interrupted, and so does one with
# another number of ranks, or none: the states are dealt anew. Here a single
# process takes over from two. A run of the same length would be resumed by the
# same command; ours also gets more epochs to do.

# %%
train(ranks=1, epochs=2 * EPOCHS)

# %%
with open(folder / "run" / "metrics.csv", newline="") as file:
    table = [*csv.DictReader(file)]
bounds = [float(row["bound"]) for row in table]
plt.figure(figsize=(5.5, 3.0))
for part, ranks in enumerate(("2 ranks", "1 process")):
    span = slice(part * EPOCHS, (part + 1) * EPOCHS)
    epochs = 1 + np.arange(len(bounds))[span]
    plt.plot(epochs, bounds[span], "o-", label=ranks)
plt.xlabel("epoch")
plt.ylabel("bound, nats a patch")
plt.legend()
plt.tight_layout()
plt.show()
before, after = bounds[EPOCHS - 1 : EPOCHS + 1]
print(f"bound at the change of processes: {before:.2f} -> {after:.2f}")

# %% [markdown]
# ## tf.distribute, for a VAE
#
# A VAE stores nothing for single data points, so it trains under
# `tf.distribute.MirroredStrategy` like any Keras model: on the GPUs of a
# machine, or here on a processor that is cut into two devices, in a process of
# its own because that is possible at its start only. The loss of a batch is the
# mean over all replicas, so two replicas train as one does, up to the draws of
# latents.

# %%
PROGRAM = """
import contextlib
import functools
import keras
import numpy as np
import tensorflow as tf
import tfvae

cpu = tf.config.list_physical_devices("CPU")[0]
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, halves)
x = np.load("part-0.npy")
for devices in (None, ["/cpu:0", "/cpu:1"]):
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MirroredStrategy(devices) if devices else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        network = functools.partial(
            tfvae.fully_connected_encoder, num_observed=64, hidden=(64,)
        )
        model = tfvae.VAE(
            tfvae.learnable(network, 8),
            tfvae.FullyConnectedDecoder(64, (64,)),
            tfvae.StandardNormalPrior(8),
        )
        model.adapt(x)
        model.compile(keras.optimizers.Adam(3e-3))
    history = model.fit(x, batch_size=128, epochs=5, verbose=0)
    replicas = strategy.num_replicas_in_sync if strategy else 1
    print(replicas, "replicas, bound", round(history.history["bound"][-1], 2))
"""
(folder / "replicas.py").write_text(PROGRAM)
ended = subprocess.run(
    [sys.executable, "replicas.py"],
    cwd=folder,
    env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    capture_output=True,
    text=True,
)
print(ended.stdout or ended.stderr)

# %% [markdown]
# ## Where to go on
#
# The page [Training on several processes and machines](../scaling.md) says what
# is the same on several ranks and what is not, what it costs and when it pays,
# and how data and states beyond memory are kept on disk. On a cluster,
# `mpiexec` is what its batch system has; all ranks need the run folder. Sources
# of data are in the [reference](../reference/data.md).
