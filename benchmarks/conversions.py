# SPDX-License-Identifier: Apache-2.0
"""Benchmark: which signatures TFLite, ONNX and OpenVINO convert, how exactly.

Models of each kind of network, likelihood and encoder are exported, converted
by `conversion_worker` in a Python of its own, and their outputs compared with
TensorFlow's.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from benchmarks.pinned import PinnedProcess
from benchmarks.tables import print_table
from tfvae import likelihoods, networks, priors, serving, typed_gin, vae
from tfvae.runs.run_directory import RunDirectory, versions
from tfvae.tvae import TVAE, Evolution

_WORKER = pathlib.Path(__file__).with_name("conversion_worker.py")
_CONVERTERS = ("TFLite", "ONNX", "OpenVINO")
_IMAGE = (16, 16, 1)
_D, _M = 256, 8
# Decoders of so many latents sum kernel rows of those that are one.
_MANY = 512
_STEPS, _SYMBOLS = 15, 12
# Characters of an error in the table.
_SHOWN = 60


class Case(NamedTuple):
    """A signature to convert.

    Attributes:
      title: What is converted.
      make: Creates the model.
      signature: The name of the signature.
    """

    title: str
    make: Callable[[], vae.VAE | TVAE]
    signature: str


def _fc_encoder(outputs: int) -> keras.Model:
    return networks.fully_connected_encoder(outputs, _D)


def _vae(
    network: Callable[[int], keras.Model] = _fc_encoder,
    decoder: Callable[[int], Any] = networks.FullyConnectedDecoder,
    likelihood: likelihoods.Likelihood | None = None,
    policy: Callable[..., vae.Encoder] = vae.learnable,
    num_observed: int = _D,
) -> vae.VAE:
    """Returns a VAE of random weights and biases."""
    keras.utils.set_random_seed(1)
    likelihood = likelihood or likelihoods.GaussianLikelihood()
    model = vae.VAE(
        policy(network, _M),
        decoder(likelihood.num_outputs(num_observed)),
        priors.StandardNormalPrior(_M),
        likelihood,
    )
    _disturb(model)
    return model


def _image_vae(encoder: Any, decoder: Any, **settings: Any) -> vae.VAE:
    """Returns a VAE of networks for images."""
    return _vae(
        functools.partial(encoder, image_shape=_IMAGE),
        functools.partial(decoder, image_shape=_IMAGE),
        **settings,
    )


def _sequence_vae() -> vae.VAE:
    return _vae(
        lambda outputs: networks.sequence_encoder(outputs, _STEPS, _SYMBOLS),
        lambda outputs: networks.sequence_decoder(outputs, _STEPS, _M, (20,)),
        likelihoods.SequenceLikelihood(_STEPS, _SYMBOLS),
        num_observed=_STEPS * _SYMBOLS,
    )


def _tvae(decoder: Callable[[int], Any], num_latents: int = _M) -> TVAE:
    """Returns a TVAE of random weights and biases."""
    keras.utils.set_random_seed(1)
    model = TVAE(
        decoder(_D),
        num_latents=num_latents,
        num_states=16,
        evolution=Evolution(num_parents=4, num_children=2, num_generations=1),
    )
    _disturb(model)
    return model


def _disturb(model: keras.Model) -> None:
    """Adds noise to the weights: biases of zero would hide mistakes."""
    rng = np.random.default_rng(1)
    for weight in model.trainable_variables:
        weight.assign_add(rng.normal(0.0, 0.1, weight.shape))


def _cases() -> list[Case]:
    """Returns all signatures to convert."""
    strided = (((8, 3, 1), (16, 5, 2)), ((16, 5, 2), (8, 3, 1)))
    strided_encoder = functools.partial(
        networks.strided_conv_encoder, convolutions=strided[0]
    )
    strided_decoder = functools.partial(
        networks.strided_conv_decoder, num_latents=_M, convolutions=strided[1]
    )
    conv = (networks.conv_encoder, networks.upsampling_decoder)
    of_vae: dict[str, Callable[[], vae.VAE]] = {
        "fully connected, Gaussian": _vae,
        "fully connected, diagonal Gaussian": lambda: _vae(
            likelihood=likelihoods.DiagonalGaussianLikelihood()
        ),
        "fully connected, Bernoulli": lambda: _vae(
            likelihood=likelihoods.BernoulliLikelihood()
        ),
        "convolutions, upsampling": functools.partial(_image_vae, *conv),
        "convolutions, ConvDecoder": functools.partial(
            _image_vae, networks.conv_encoder, networks.ConvDecoder
        ),
        "strided, transposed": functools.partial(
            _image_vae, strided_encoder, strided_decoder
        ),
        "sequences (GRU)": _sequence_vae,
        "partly frozen encoder": functools.partial(
            _image_vae, *conv, policy=vae.partially_non_learnable
        ),
        "frozen encoder": functools.partial(
            _image_vae, *conv, policy=vae.non_learnable
        ),
        "random features": functools.partial(
            _vae,
            functools.partial(
                networks.random_features, num_observed=_D, kernel="gaussian"
            ),
            policy=vae.random_kitchen_sinks,
        ),
        "random features of quarters": functools.partial(
            _image_vae,
            networks.random_conv_features,
            networks.upsampling_decoder,
            policy=vae.random_kitchen_sinks,
        ),
        "binary latents": functools.partial(
            _vae,
            policy=functools.partial(
                vae.learnable, posterior=vae.RelaxedBernoulliPosterior()
            ),
        ),
    }
    cases = [
        Case(f"VAE: {title}", make, "mean") for title, make in of_vae.items()
    ]
    of_tvae: dict[str, Callable[[int], Any]] = {
        "fully connected": networks.FullyConnectedDecoder,
        "convolutions": functools.partial(
            networks.ConvDecoder, image_shape=_IMAGE
        ),
    }
    return [
        *cases,
        Case("VAE: fully connected", _vae, "encode"),
        Case("VAE: fully connected", _vae, "decode"),
        *(
            Case(f"TVAE: {title}", functools.partial(_tvae, decoder), "decode")
            for title, decoder in of_tvae.items()
        ),
        Case(
            f"TVAE: fully connected, {_MANY} latents",
            functools.partial(_tvae, networks.FullyConnectedDecoder, _MANY),
            "decode",
        ),
        Case("VAE: fully connected", _vae, "serving_default"),
        Case(
            "TVAE: fully connected",
            functools.partial(_tvae, networks.FullyConnectedDecoder),
            "serving_default",
        ),
    ]


@typed_gin.configurable
def conversions(
    run_dir: str | os.PathLike[str],
    *,
    converter_python: str | None = None,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Converts signatures of exported models, and compares the outputs.

    Args:
      run_dir: Folder for benchmark_conversions.json.
      converter_python: A Python interpreter with TensorFlow, tf2onnx,
        onnxruntime and openvino; None for this one.
      only: Titles of models to convert; all if empty.

    Returns:
      The results, as in the JSON file: for each signature and converter the
      largest difference of an output, or the error.

    Raises:
      ValueError: If `only` has an unknown title.
      RuntimeError: If the process that converts fails.
    """
    run = RunDirectory(run_dir)
    titles = {case.title for case in _cases()}
    unknown = sorted(set(only) - titles)
    if unknown:
        raise ValueError(
            f"`only` must be of {', '.join(sorted(titles))}, got {unknown[0]!r}"
        )
    cases = [case for case in _cases() if not only or case.title in only]
    cores = sorted(os.sched_getaffinity(0))
    argv = [converter_python or sys.executable, str(_WORKER)]
    rows = []
    with run.locked(), tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log.txt"
        with PinnedProcess(argv, cores, log) as worker:
            facts = worker.read("facts")["facts"]
            for case in cases:
                request = _export(case, pathlib.Path(folder))
                results = worker.ask(request, "results")["results"]
                rows.append([case.title, case.signature, results])
                print(f"converted {case.title}, {case.signature}", flush=True)
        result = {
            "rows": rows,
            "converters": facts,
            "versions": versions(),
        }
        path = run.write_json("benchmark_conversions.json", result)
    print_table(
        ["model", "signature", *_CONVERTERS],
        [
            [title, signature, *(_cell(results[c]) for c in _CONVERTERS)]
            for title, signature, results in rows
        ],
    )
    print(f"wrote {path}")
    return result


def _export(case: Case, folder: pathlib.Path) -> dict[str, str]:
    """Exports a model, and returns the request to convert its signature."""
    model = case.make()
    path = folder / "model"
    serving.export_saved_model(model, path)
    rng = np.random.default_rng(1)
    rows = rng.random((5, model.num_observed), np.float32)
    rows[0, ::3] = np.nan
    if case.signature == "decode":
        rows = (rng.random((5, model.num_latents)) < 0.5).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    return {
        "path": str(path),
        "signature": case.signature,
        "rows": str(folder / "rows.npy"),
    }


def _cell(result: float | str) -> str:
    if isinstance(result, str):
        return result.splitlines()[0][:_SHOWN]
    return f"{result:.1e}"
