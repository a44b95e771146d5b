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
# # Serve a model, and call it
#
# A trained model becomes a SavedModel: a folder that TensorFlow runs without
# tfvae and without Keras, in Python or in TensorFlow Serving. Here we export a
# TVAE and a VAE, call them from a program that imports TensorFlow alone, and
# write the requests that a server takes. It takes about a minute.
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
import json
import pathlib
import re
import tempfile
import textwrap

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import tfvae

keras.utils.set_random_seed(0)
EPOCHS = 30
folder = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## Two models
#
# Both learn handwritten digits of 8 x 8 pixels.

# %%
digits = tfvae.data.resplit_images(tfvae.data.sklearn_digits(), num_train=1297)
x, test = digits.train, digits.test

tvae = tfvae.TVAE(
    tfvae.FullyConnectedDecoder(64, (64,)),
    num_latents=32,
    num_data=len(x),
    num_states=32,
    m_batch_size=32,
    num_archived=256,
)
tvae.adapt(x)
tvae.compile(keras.optimizers.Adam(3e-3))
tvae.fit(
    x,
    np.arange(len(x)),
    batch_size=256,
    epochs=EPOCHS,
    callbacks=[tfvae.UpdateArchive()],
    verbose=0,
)

network = functools.partial(
    tfvae.fully_connected_encoder, num_observed=64, hidden=(128,)
)
vae = tfvae.VAE(
    tfvae.learnable(network, num_latents=10),
    tfvae.FullyConnectedDecoder(64, (128,)),
    tfvae.StandardNormalPrior(10),
)
vae.adapt(x)
vae.compile(keras.optimizers.Adam(3e-3))
history = vae.fit(x, batch_size=64, epochs=EPOCHS, verbose=0)
bounds = history.history["bound"]
print(f"bound of the VAE: {bounds[0]:.1f} -> {bounds[-1]:.1f} nats a digit")

# %% [markdown]
# ## Export
#
# A server expects a folder for each model and in it one for each version, by
# its number. The export is loaded and compared with the model before it takes
# its place. Limits are part of it: they refuse requests that ask for too much.

# %%
for name, model in (("digits_tvae", tvae), ("digits_vae", vae)):
    tfvae.export_saved_model(
        model,
        folder / name / "1",
        event_shape=digits.event_shape,
        limits=tfvae.serving.Limits(rows=500, num_samples=1000),
    )
files = [p for p in (folder / "digits_tvae").rglob("*") if p.is_file()]
for file in sorted(files):
    print(f"{file.relative_to(folder)}  {file.stat().st_size:,} bytes")

# %% [markdown]
# `assets.extra/tfvae.json` says what the model is, for clients that have to
# know its sizes.

# %%
facts = folder / "digits_tvae" / "1" / "assets.extra" / "tfvae.json"
print(facts.read_text())

# %% [markdown]
# ## Load it without tfvae
#
# This is another program, which has the folder, NumPy and TensorFlow; tfvae and
# Keras are hidden from it, and their import would fail. The lower half of some
# digits is taken away, `NaN`, and the model fills it in.

# %%
probe = test[:12].copy()
probe.reshape(-1, 8, 8)[:, 4:] = np.nan
np.save(folder / "probe.npy", probe)

PROGRAM = """
    import sys

    for package in ("tfvae", "keras"):
        sys.modules[package] = None  # As where it is not installed.

    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(sys.argv[1])
    x = np.load("probe.npy")
    found = model.reconstruct(x, max_steps=50, seed=0)
    np.save("filled.npy", found["mean"].numpy())
    print("signatures:", ", ".join(sorted(model.signatures)))
    print("bounds:", np.round(found["bound"].numpy(), 1))
    states = model.encode(x, max_steps=50, seed=0)
    print("states", states["states"].shape, "weights", states["weights"].shape)
    print("samples", model.sample(num_samples=5, seed=1)["mean"].shape)
"""
(folder / "client.py").write_text(textwrap.dedent(PROGRAM))
ended = subprocess.run(
    [sys.executable, "client.py", "digits_tvae/1"],
    cwd=folder,
    capture_output=True,
    text=True,
)
print(ended.stdout or ended.stderr)

# %%
filled = np.load(folder / "filled.npy")
figure = plt.figure(figsize=(7.2, 2.6))
rows = {"sent": probe, "filled in": filled, "what was there": test[:12]}
axes = figure.subplots(len(rows), 1)
for axis, (title, points) in zip(axes, rows.items(), strict=True):
    axis.imshow(tfvae.plots.tiles(points, (8, 8, 1), 12, (0.0, 1.0)))
    axis.set_title(title, loc="left", fontsize=9)
    axis.axis("off")
plt.tight_layout()
plt.show()

# %% [markdown]
# The same seed gives the same answer as the model in Python; the differences
# are rounding.

# %%
inference = tvae.infer(probe, seed=0, max_steps=50)
mean = tvae.posterior_mean(inference).numpy()
print(f"largest difference: {np.abs(mean - filled).max():.1e}")

# %% [markdown]
# ## What a server is sent
#
# TensorFlow Serving takes the folder as it is,
#
#     tensorflow_model_server --rest_api_port=8501 \
#         --model_name=digits_vae --model_base_path=$PWD/digits_vae
#
# and requests in JSON at `http://localhost:8501/v1/models/digits_vae:predict`.
# No server runs here. But such a request names a signature and its inputs, and
# nothing more, so we write requests as a client does, and answer them by the
# SavedModel in the way that the server would.

# %%
served = tf.saved_model.load(str(folder / "digits_vae" / "1"))


def answer(body):
    """Answers a request as TensorFlow Serving does, rows or columns."""
    request = json.loads(body)
    name = request.get("signature_name", "serving_default")
    signature = served.signatures[name]
    specs = signature.structured_input_signature[1]
    inputs = request.get("inputs")
    if inputs is None:  # By row: each instance has all inputs, or is the input.
        rows = request["instances"]
        if not isinstance(rows[0], dict):
            rows = [{"data": row} for row in rows]
        inputs = {key: [row[key] for row in rows] for key in rows[0]}
    outputs = signature(
        **{
            key: tf.constant(value, specs[key].dtype)
            for key, value in inputs.items()
        }
    )
    found = {key: value.numpy().tolist() for key, value in outputs.items()}
    if "inputs" in request:
        return json.dumps({"outputs": found})
    keys, columns = zip(*found.items(), strict=True)
    predictions = [
        dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)
    ]
    return json.dumps({"predictions": predictions})


def show(body):
    """Prints the beginnings of a request and of its answer."""
    print("request: ", textwrap.shorten(body, 150))
    print("response:", textwrap.shorten(answer(body), 150))


# %% [markdown]
# By row, for signatures whose inputs have a value for each data point. Strict
# JSON has no `NaN`, so `serving_observed` takes a mask beside the data: 1 where
# they are observed, 0 where they are missing, whatever they are there.

# %%
observed = 1 - np.isnan(probe[:2]).astype(int)
data = np.nan_to_num(probe[:2]).round(3)
rows = [
    {"data": a.tolist(), "observed": b.tolist()}
    for a, b in zip(data, observed, strict=True)
]
body = json.dumps({"signature_name": "serving_observed", "instances": rows})
show(body)

# %% [markdown]
# By column, for signatures with a scalar input, such as the number of samples.

# %%
show(
    json.dumps(
        {"signature_name": "sample", "inputs": {"num_samples": 3, "seed": 7}}
    )
)
latents = np.zeros((1, 10)).tolist()
show(json.dumps({"signature_name": "decode", "inputs": {"latents": latents}}))

# %% [markdown]
# Sent to a server, it is
#
#     import urllib.request
#     url = "http://localhost:8501/v1/models/digits_vae:predict"
#     with urllib.request.urlopen(url, body.encode()) as response:
#         predictions = json.load(response)["predictions"]
#
# ## What is refused
#
# Requests over a limit, and data that the model cannot take, are refused with
# the reason before any work; a server answers with status 400.

# %%
BAD = {
    "too many samples": ("sample", {"num_samples": 5000, "seed": 0}),
    "infinite data": ("mean", {"data": np.full((1, 64), np.inf)}),
    "latents that are not finite": ("decode", {"latents": [[np.inf] * 10]}),
}
for what, (name, inputs) in BAD.items():
    specs = served.signatures[name].structured_input_signature[1]
    tensors = {k: tf.constant(v, specs[k].dtype) for k, v in inputs.items()}
    try:
        served.signatures[name](**tensors)
    except tf.errors.InvalidArgumentError as error:
        reason = re.search(r"assertion failed: (.*)", error.message)[1]
        print(f"{what}: {textwrap.shorten(reason, 110)}")

# %% [markdown]
# ## A new version
#
# Trained further, the model is exported as version 2. The folder appears at
# once when it is complete, so that a server that watches the model's folder
# changes over and never sees half of it.

# %%
vae.fit(x, batch_size=64, epochs=2, verbose=0)
tfvae.export_saved_model(vae, folder / "digits_vae" / "2")
print("versions:", sorted(p.name for p in (folder / "digits_vae").iterdir()))

# %% [markdown]
# ## Where to go on
#
# A run of `tfvae train` has a SavedModel in its folder already, and `tfvae
# export --run_dir=runs/mine --output=models/mine/1` makes one of any run. All
# signatures, gRPC, KServe, and conversion to TFLite, ONNX and OpenVINO are on
# the page [Serving a model](../serving.md); functions are in the
# [reference](../reference/serving.md).
