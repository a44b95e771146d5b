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
# # Clean up a photograph of your own
#
# You have one noisy picture, and no clean ones to learn from. A TVAE learns
# what is regular about the picture from its own small patches, and so tells
# structure from noise. At the end you have the cleaned picture, a map of how
# certain each pixel is, and two checks of whether to believe it. It takes
# about a minute.
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
import keras
import matplotlib.pyplot as plt
import numpy as np

import tfvae

keras.utils.set_random_seed(0)

# %% [markdown]
# ## The picture
#
# To see how well it works we begin with a clean picture, which comes with
# scikit-image, and add noise. For a photograph of your own, which is noisy
# already, set `PHOTO = "mine.jpg"`, `CROP = None` and `ADDED_NOISE = 0.0`; what
# compares with the clean picture is then left out.

# %%
PHOTO = "camera"
CROP = (50, 140, 100, 100)  # top, left, height, width; None for all of it
ADDED_NOISE = 25.0  # standard deviation, in grey levels of 0 to 255
EPOCHS = 12

task = tfvae.corrupted_image(PHOTO, crop=CROP, noise_std=ADDED_NOISE)
print(task.describe())


def show(pictures, **settings):
    """Shows pictures [height, width, channels] on 0..255, by their titles."""
    figure = plt.figure(figsize=(3.3 * len(pictures), 3.6))
    axes = figure.subplots(1, len(pictures), squeeze=False)[0]
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        grey = picture.shape[2] == 1
        shown = picture[..., 0] if grey else np.clip(picture / 255.0, 0, 1)
        limits = {"cmap": "gray", "vmin": 0, "vmax": 255} if grey else {}
        axis.imshow(shown, **{**limits, **settings})
        axis.set_title(title)
        axis.axis("off")
    plt.tight_layout()
    plt.show()


# %% [markdown]
# ## Training
#
# The data points are all patches of 8 x 8 pixels. A TVAE has no encoder: it
# keeps 16 binary latent states for each patch and improves them by an
# evolutionary algorithm, and `index` says whose states to use. Training raises
# the bound, a lower bound on the log-likelihood of a patch.

# %%
x = task.observations().train
index = np.arange(len(x))

decoder = tfvae.FullyConnectedDecoder(num_outputs=x.shape[1], hidden=(128,))
model = tfvae.TVAE(
    decoder, num_latents=256, num_data=len(x), num_states=16, m_batch_size=64
)
model.adapt(x)
model.compile(keras.optimizers.Adam(5e-3))
history = model.fit(x, index, batch_size=1024, epochs=EPOCHS, verbose=0)

plt.figure(figsize=(5, 2.6))
plt.plot(1 + np.arange(EPOCHS), history.history["bound"])
plt.xlabel("epoch")
plt.ylabel("bound, nats a patch")
plt.tight_layout()
plt.show()

# %% [markdown]
# ## The cleaned picture
#
# Each pixel is in up to 64 patches; the restored value is the mean of what
# they say.

# %%
moments = list(model.stored_moments(x, index))
restored, std = task.merge_moments(moments)
pictures = {"noisy": task.image, "restored": restored}
if task.clean is not None:
    pictures = {"clean": task.clean, **pictures}
    print(
        "PSNR of the noisy picture:    {psnr:.2f} dB".format(
            **task.corrupted_score()
        )
    )
    print(
        "PSNR of the restored picture: {psnr:.2f} dB".format(
            **task.score(restored)
        )
    )
show(pictures)

# %% [markdown]
# ## How far to trust it: what was taken away
#
# The first check needs no clean picture. The difference of the noisy and the
# restored picture is what the model takes for noise. It should look like noise:
# where you recognise the picture in it, detail was lost. Its standard deviation
# should be near that of the noise.

# %%
removed = task.image - restored
print(f"standard deviation of what was taken away: {np.nanstd(removed):.1f}")
show(
    {"restored": restored, "taken away, plus grey": 128.0 + removed},
)

# %% [markdown]
# ## How far to trust it: the standard deviation of each pixel
#
# The posterior over latent states gives each pixel a standard deviation
# $\sigma$. It is large at edges, where several explanations fit, and small in
# smooth regions. Compare it with the error in the hair: what the noise hides
# entirely is left out of the restored picture, and the map hardly says so. It
# is the uncertainty of what the model can explain, not of what it has no
# latents for.

# %%
pictures = {"standard deviation": std.mean(axis=2, keepdims=True)}
if task.clean is not None:
    error = np.abs(restored - task.clean)
    pictures["absolute error"] = error.mean(axis=2, keepdims=True)
white = float(np.percentile(std, 99))
show(pictures, vmin=0.0, vmax=white)
print(f"white is {white:.1f} grey levels or more")

# %% [markdown]
# With a clean picture one can count. Were errors normal and $\sigma$ right,
# $|x - \hat{x}| \leq \sigma$ would hold for 68 % of all pixels, and
# $|x - \hat{x}| \leq 2 \sigma$ for 95 %.

# %%
if task.clean is not None:
    error = np.abs(restored - task.clean)
    for factor in (1, 2):
        share = np.mean(error <= factor * std)
        print(f"within {factor} standard deviations: {100 * share:.1f} %")

# %% [markdown]
# Over many pictures the standard deviations are right on average, but not for
# each picture, and errors are larger than normal ones now and then; see the
# table in [Pictures in, pictures out](../pictures.md#uncertainty). So take two
# standard deviations for some 90 %, do not measure anything smaller than the
# map says, and look at what was taken away.
#
# ## The same by one command
#
#     tfvae denoise --image=mine.jpg --run_dir=runs/mine --output=restored.png
#
# trains longer on the whole picture, and writes a page with all of the above.
# Scratches are filled in with `--mask=scratches.png`. To write what this
# notebook has restored, in the picture's own units:
#
#     tfvae.data.write_values("restored.png", task.picture(restored))
