# SPDX-License-Identifier: Apache-2.0
"""Self-test of an installation: tiny models train, are saved and exported.

Run as a program, in a process of its own, it prints one JSON object for each
step as soon as it is done, and ends after the first that fails:

    {"step": ..., "seconds": ..., "detail": ..., "error": null}

`error` is a text if the step failed. The first step imports TensorFlow and has
the further key `gpus`, the names of the GPUs that it sees.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

_NUM_DATA, _NUM_OBSERVED, _EPOCHS = 200, 16, 6


def _import_tensorflow() -> dict[str, Any]:
    import keras
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    gpus = [
        tf.config.experimental.get_device_details(one).get(
            "device_name", one.name
        )
        for one in found
    ]
    what = f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    return {"detail": f"{what}, {len(gpus)} GPUs", "gpus": gpus}


def _tvae() -> keras.Model:
    """Returns a TVAE of 8 latents, which is not trained."""
    from tfvae.networks import FullyConnectedDecoder
    from tfvae.tvae import TVAE

    return TVAE(
        FullyConnectedDecoder(_NUM_OBSERVED, (16,)),
        num_latents=8,
        num_data=_NUM_DATA,
        num_states=8,
        m_batch_size=50,
        inference_steps=5,
    )


def _vae() -> keras.Model:
    """Returns a VAE of 4 latents, which is not trained."""
    from tfvae.networks import FullyConnectedDecoder, fully_connected_encoder
    from tfvae.priors import StandardNormalPrior
    from tfvae.vae import VAE, learnable

    network = functools.partial(
        fully_connected_encoder, num_observed=_NUM_OBSERVED, hidden=(16,)
    )
    return VAE(
        learnable(network, num_latents=4),
        FullyConnectedDecoder(_NUM_OBSERVED, (16,)),
        StandardNormalPrior(4),
    )


def _train(model: keras.Model, *inputs: Any) -> dict[str, Any]:
    """Trains a model, and checks that its bound rises."""
    import keras

    model.adapt(inputs[0])
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(*inputs, batch_size=100, epochs=_EPOCHS, verbose=0)
    return {"detail": risen(history.history["bound"])}


def risen(bounds: Sequence[float]) -> str:
    """Returns first and last of the bounds of epochs, as a text.

    Args:
      bounds: Nats a data point.

    Raises:
      RuntimeError: If the last is not finite, or not above the first.
    """
    text = f"bound {bounds[0]:.2f} -> {bounds[-1]:.2f} nats"
    if not math.isfinite(bounds[-1]) or not bounds[-1] > bounds[0]:
        raise RuntimeError(f"the bound must rise in training, got {text}")
    return text


def _save(model: keras.Model, x: Any, folder: pathlib.Path) -> dict[str, Any]:
    """Checks that a model that is saved and loaded does the same."""
    import keras
    import numpy as np

    path = folder / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    found = [one.predict(x, verbose=0) for one in (model, loaded)]
    error = np.max(np.abs(found[0] - found[1]))
    if not error < 1e-4:
        raise RuntimeError(
            "a model that is loaded must return what was saved, got a "
            f"difference of {error:.3g}"
        )
    return {"detail": f"{path.stat().st_size / 1e3:.0f} kB"}


def _export(model: keras.Model, folder: pathlib.Path) -> dict[str, Any]:
    """Exports a model, which also loads and compares what was written."""
    from tfvae.serving import export_saved_model

    export_saved_model(model, folder / "exported")
    return {"detail": "the SavedModel returns what the model does"}


def run_steps(
    steps: Mapping[str, Callable[[], dict[str, Any]]],
    report: Callable[[dict[str, Any]], None],
) -> bool:
    """Runs steps in order, until one fails.

    Args:
      steps: Function of each step by its name; it returns `detail`, a text,
        and further facts, and raises any exception if it fails.
      report: Called after each step with the object of the module's docstring.

    Returns:
      Whether all have succeeded.
    """
    for name, step in steps.items():
        start = time.perf_counter()
        facts: dict[str, Any] = {"detail": "", "error": None}
        try:
            facts |= step()
        except Exception as err:
            facts["error"] = f"{type(err).__name__}: {err}"
        facts["seconds"] = time.perf_counter() - start
        report({"step": name, **facts})
        if facts["error"] is not None:
            return False
    return True


def main() -> None:
    """Runs the self-test, and prints what it finds."""
    models: dict[str, Any] = {}

    def train_tvae() -> dict[str, Any]:
        import keras
        import numpy as np

        from tfvae.data import bars

        keras.utils.set_random_seed(0)
        models["x"] = bars(_NUM_DATA).train
        models["tvae"] = _tvae()
        return _train(models["tvae"], models["x"], np.arange(_NUM_DATA))

    def train_vae() -> dict[str, Any]:
        models["vae"] = _vae()
        return _train(models["vae"], models["x"])

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run_steps(
            {
                "import TensorFlow": _import_tensorflow,
                "train a TVAE": train_tvae,
                "train a VAE": train_vae,
                "save and load": lambda: _save(
                    models["vae"], models["x"], folder
                ),
                "export": lambda: _export(models["vae"], folder),
            },
            lambda facts: print(json.dumps(facts), flush=True),
        )


if __name__ == "__main__":
    main()
