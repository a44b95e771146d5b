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
# # Optimise a text or a molecule of your own
#
# You have some hundred texts with scores, and a way to score new ones that is
# too expensive to try many: a synthesis, a simulation, a measurement. tfvae
# trains a VAE on the texts, searches its latent space by Bayesian optimisation,
# and trains the VAE again and again on data in which good texts are drawn more
# often (weighted retraining). It takes about a minute.
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
import functools
import tempfile

import keras
import matplotlib.pyplot as plt
import numpy as np

import tfvae
from tfvae import lso

keras.utils.set_random_seed(0)
BUDGET = 40  # queries that may be evaluated
EPOCHS = 200  # of the first training

# %% [markdown]
# ## The task
#
# Our texts are peptides of ten amino acids, and the score is how strongly they
# separate into a side that avoids water and one that seeks it, if they form a
# helix (the hydrophobic moment of Eisenberg et al., 1984, on the scale of Kyte
# and Doolittle, 1982). This score is computed, so that the tutorial runs
# anywhere. Put yours in its place.

# %%
AMINO_ACIDS = "ARNDCQEGHILKMFPSTWYV"
HYDROPATHY = dict(
    zip(
        AMINO_ACIDS,
        [1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5]
        + [3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7, -0.9, -1.3, 4.2],
        strict=True,
    )
)


def moment(peptide):
    """The objective: larger is better."""
    values = [HYDROPATHY[one] for one in peptide]
    turns = np.exp(1j * np.deg2rad(100.0) * np.arange(len(values)))
    return float(abs(values @ turns) / len(values))


# %% [markdown]
# A VAE needs numbers. `write` turns texts into points, here a one among twenty
# for each place, and `read` turns what the decoder returns into texts.


# %%
def write(peptides):
    places = [[AMINO_ACIDS.index(one) for one in text] for text in peptides]
    return np.eye(20)[np.array(places)].reshape(len(peptides), -1)


def read(means, seed):
    places = means.reshape(len(means), -1, 20).argmax(-1)
    return ["".join(AMINO_ACIDS[i] for i in row) for row in places]


# %% [markdown]
# What has been measured so far: 200 random peptides with a score below 1.
# From a file of yours it is
# `lso.read_table("mine.csv", input="peptide", score="moment", write=write)`.

# %%
rng = np.random.default_rng(0)


def random_peptides(count):
    return ["".join(row) for row in rng.choice([*AMINO_ACIDS], (count, 10))]


known = [one for one in random_peptides(1000) if moment(one) < 1.0][:200]
scores = np.array([moment(one) for one in known])
data = lso.ScoredData(write(known), scores, inputs=known)
task = lso.Task(
    "peptides", lambda seed: data, moment, read, write, score_label="moment"
)
best = known[int(scores.argmax())]
print(f"best so far: {best} with {scores.max():.3f}")

# %% [markdown]
# ## The model
#
# A VAE of four latents. Its decoder gives a probability for each letter at each
# place, and training maximises the evidence lower bound
#
# $$\log\, p(x) \geq E_q[\log\, p(x \mid z)] - \mathrm{KL}(q(z \mid x), p(z)).$$

# %%
points = data.points
network = functools.partial(
    tfvae.fully_connected_encoder, num_observed=points.shape[1], hidden=(64,)
)
model = tfvae.VAE(
    tfvae.learnable(network, num_latents=4),
    tfvae.FullyConnectedDecoder(points.shape[1], (64,)),
    tfvae.StandardNormalPrior(4),
    tfvae.BernoulliLikelihood(),
)
model.adapt(points)
model.compile(keras.optimizers.Adam(3e-3))
history = model.fit(points, batch_size=50, epochs=EPOCHS, verbose=0)
bounds = history.history["bound"]
print(f"bound: {bounds[0]:.1f} -> {bounds[-1]:.1f} nats a peptide")

# %% [markdown]
# ## The search
#
# A Gaussian process predicts the scores of latents, expected improvement
# chooses the next ones, and after every ten queries the model is trained on
# data that are weighted by the rank of their scores. Everything is recorded in
# a folder. Give one that stays, and the same lines continue after an
# interruption.

# %%
folder = tempfile.mkdtemp()
optimizer = lso.LatentSpaceOptimizer.of_model(
    folder,
    task,
    model,
    lso.Plan(BUDGET, queries_per_round=10, num_proposals=10, skips_known=True),
    strategy=lso.ExpectedImprovement(),
    surrogate=lso.SparseGaussianProcess(num_inducing=50),
    weighting=lso.Rank(1e-3),
    retraining=lso.Retraining(first_epochs=0, epochs=5),
)
optimizer.run()

entries = optimizer.ledger.entries
found = np.array([entry.score for entry in entries])
for i in np.argsort(-found)[:5]:
    print(f"{entries[i].input}  {found[i]:.3f}  (query {i})")

# %% [markdown]
# Is that better than chance? A comparison has to pay for as many evaluations:
# here the same number of new random peptides.

# %%
random = np.array([moment(one) for one in random_peptides(BUDGET)])
plt.figure(figsize=(6, 3.2))
for label, values in (("tfvae", found), ("random", random)):
    line = np.maximum.accumulate(np.r_[scores.max(), values])
    plt.step(np.arange(len(line)), line, where="post", label=label)
plt.plot(1 + np.arange(len(found)), found, ".", color="C0", alpha=0.5)
plt.xlabel("queries")
plt.ylabel("best moment so far")
plt.legend()
plt.tight_layout()
plt.show()
print(f"best of the search: {found.max():.3f}, of chance: {random.max():.3f}")

# %% [markdown]
# One run of each says little: another seed gives other lines. How to compare
# over seeds, and with other optimisers, is on the page
# [Beside other optimisers](../optimization.md#beside-other-optimisers).
#
# ## Evaluate elsewhere
#
# Where scores come from a laboratory, ask for queries and tell the results, in
# any order, also weeks later:
#
#     for query in optimizer.ask(5):
#         print(query.number, query.input)
#     optimizer.tell(0, 1.7)
#     optimizer.tell(1, failure="the synthesis failed")
#
# ## Molecules
#
# For molecules the task is one call, with a file of SMILES and scores, and a
# function of SMILES (it needs `pip install "tfvae[molecules]"`):
#
#     task = lso.molecules("mine.csv", objective=score, score_column="score")
#
# and the command `tfvae optimize --task=my_task.py` makes and trains the model
# by itself. `examples/molecules.py` optimises drug-likeness near a lead, with
# rules that candidates must keep.
