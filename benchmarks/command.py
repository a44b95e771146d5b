# SPDX-License-Identifier: Apache-2.0
r"""Benchmarks of speed, quality and memory, in comparison with other programs.

Usage:
  tfvae benchmark --gin_file=quickstart.gin \
      --run_dir=runs/benchmark
  tfvae benchmark --gin_file=benchmarks/house25.gin \
      --gin_param="IMAGE='house.png'" --run_dir=runs/benchmark \
      --compare="other=python other.py house.png"
  tfvae benchmark --mode=scaling --gin_file=quickstart.gin \
      --gin_param="benchmark.latents=(16, 64)" --run_dir=runs/benchmark
  tfvae benchmark --mode=epochs --run_dir=runs/epochs \
      --gin_param="epoch_times.torch_python='torch_env/bin/python'"
  tfvae benchmark --mode=sampling --run_dir=runs/sampling \
      --gin_param="sampling.torch_python='torch_env/bin/python'"
  tfvae benchmark --mode=serving --run_dir=runs/serving \
      --gin_param="serving_load.kserve_python='kserve_env/bin/python'"
  tfvae benchmark --mode=conversions --run_dir=runs/conversions \
      --gin_param="conversions.converter_python='convert_env/bin/python'"

--mode=speed    data points per second and bound of each EM epoch, memory
--mode=quality  seconds until a bound is reached, and until a PSNR is reached
                with benchmark.num_points=None and a clean image
--mode=scaling  data points per second and bytes for numbers of latents and
                states, and the exponents of their growth
--mode=profile  time of a training step by operation, and its fraction of the
                roofline
--mode=epochs   seconds per epoch of VAEs with learnable, partly random and
                random encoders, with and without cached features, and of the
                learnable one in PyTorch; parameters are those of epoch_times
--mode=sampling weighted batches per second, and the time to change all weights,
                in comparison with PyTorch; parameters are those of sampling
--mode=serving  requests per second, latencies and memory of a model that KServe
                serves, and its answers to malformed requests; parameters are
                those of serving_load
--mode=conversions
                what TFLite, ONNX and OpenVINO convert, and the differences from
                TensorFlow's outputs; parameters are those of conversions

In the modes speed and quality, tfvae, the reference implementation of the tests
and the programs of --compare are run alternately, each in a separate process.
A program of --compare must print one JSON line per epoch with "per_second",
and with "bound" and "seconds" if known. The first epoch, which compiles, does
not count for speed. The results are printed as a table, and written with
figures to benchmark_<mode>.json in the run folder. Further parameters, as in
--gin_param=benchmark.epochs=5, are num_points, epochs, repeats, latents and
states. Mode epochs alternates after each epoch, and also writes a Markdown
table.
"""

from __future__ import annotations

from collections.abc import Callable

from absl import flags

from tfvae.cli import console

_MODES = [
    *("speed", "quality", "scaling", "profile"),
    *("epochs", "sampling", "serving", "conversions"),
]
# Of their own models and data.
_WITHOUT_FILE = ("epochs", "sampling", "serving", "conversions")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this subcommand."""
    flags.DEFINE_enum(
        "mode",
        None,
        _MODES,
        "What to measure (speed unless set).",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "compare",
        None,
        "Program to compare with, as name=command. Repeatable.",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "plain",
        None,
        "Also run the reference implementation (true unless set).",
        flag_values=values,
    )


def check(values: flags.FlagValues) -> None:
    """Raises a ValueError if there is nothing to measure."""
    if values.mode not in _WITHOUT_FILE:
        console.check_gin_file(values)


def main(values: flags.FlagValues) -> None:
    """Runs the subcommand."""
    from benchmarks import conversions, epoch_times, sampling, serving_load
    from benchmarks.training import benchmark
    from tfvae.runs import config

    if values.mode == "epochs":
        files = [epoch_times.GIN_FILE, *values.gin_file]
        overrides = console.bindings(values)
        config.load(files, [*epoch_times.BINDINGS, *overrides])
        epoch_times.epoch_times(values.run_dir, overrides)
        return
    by_mode: dict[str, Callable[[str], object]] = {
        "sampling": sampling.sampling,
        "serving": serving_load.serving_load,
        "conversions": conversions.conversions,
    }
    if values.mode in by_mode:
        config.load(values.gin_file, console.bindings(values))
        by_mode[values.mode](values.run_dir)
        return
    names = ("mode", "compare", "plain")
    bindings = console.bindings(values, {k: f"benchmark.{k}" for k in names})
    config.load(values.gin_file, bindings)
    benchmark(values.run_dir)
