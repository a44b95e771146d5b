# SPDX-License-Identifier: Apache-2.0
r"""Trains the learnable VAEs of the epoch benchmark in PyTorch.

Layers, objective and optimizer are those of the tfvae models. It is written for
speed: the data are a tensor in memory, an epoch draws a permutation and indexes
the tensor for each batch. PyTorch is not a dependency of tfvae; install it in a
separate environment:

  python3 -m venv torch_env && torch_env/bin/pip install numpy torch==2.13.0
  torch_env/bin/python benchmarks/torch_vae.py --layer=conv --epochs=5

Prints a JSON line with the settings, then one per epoch with its seconds, data
points per second and mean loss. With --epochs=0 it trains an epoch for each
line "epoch" of standard input, and waits in between, so that it can be measured
alternately with other programs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

IMAGE_SIZE = 32
NUM_LATENTS = 16
_SLOPE = 0.2  # Negative slope of leaky_relu, the default of Keras.
_FLOWS = {"normal": 0, "flow2": 2, "flow6": 6}
_FLOW_HIDDEN = {"fc": 64, "conv": 128}


def main(argv: Sequence[str] | None = None) -> int:
    """Trains as the flags specify and returns an exit code."""
    flags = _flags(argv)
    # OMP_WAIT_POLICY is left to the user: waiting threads of OpenMP spin for a
    # while, which saves time on an idle machine, but takes ten times as long on
    # a busy one; PASSIVE avoids that.
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError:
        print(
            "error: torch is not installed for this Python; "
            "pip install numpy torch==2.13.0",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(flags.threads)
    torch.manual_seed(flags.seed)
    points = _points(torch, flags)
    model = TorchVAE(torch, flags.layer, flags.prior)
    epoch = epochs_of(torch, model, points, flags)
    _print_json({"facts": _facts(torch, model, points, flags)})
    for number in _numbers(flags.epochs):
        started = time.perf_counter()
        loss = epoch()
        seconds = time.perf_counter() - started
        _print_json(
            {
                "epoch": number,
                "seconds": seconds,
                "per_second": len(points) / seconds,
                "loss": loss,
            }
        )
    return 0


class TorchVAE:
    """A VAE with learnable encoder, decoder and prior.

    Attributes:
      networks: All layers, a ModuleDict of "encoder" and "decoder" and the
        lists "scales" and "shifts" of the couplings.
    """

    def __init__(self, torch: Any, layer: str, prior: str) -> None:
        """Builds the layers.

        Args:
          torch: The module `torch`.
          layer: "fc" or "conv".
          prior: "normal", "flow2" or "flow6".
        """
        nn = torch.nn
        self._torch = torch
        encoder, decoder = {"fc": _fc, "conv": _conv}[layer](nn)
        couplings = [
            _coupling_net(nn, _FLOW_HIDDEN[layer])
            for _ in range(2 * _FLOWS[prior])
        ]
        self.networks = nn.ModuleDict(
            {
                "encoder": encoder,
                "decoder": decoder,
                "scales": nn.ModuleList(couplings[::2]),
                "shifts": nn.ModuleList(couplings[1::2]),
            }
        )
        for parameter in self.networks.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)

    def loss(self, points: Any) -> Any:
        """Returns squared error plus KL, a mean over data points.

        Args:
          points: `[B, 1, 32, 32]`.
        """
        torch = self._torch
        # Channels hold means, then log-variances.
        outputs = self.networks["encoder"](points)
        mean, log_variance = outputs.chunk(2, dim=1)
        noise = torch.randn_like(mean)
        latents = mean + torch.exp(0.5 * log_variance) * noise
        squared = (self.networks["decoder"](latents) - points).square().sum()
        variance = log_variance.exp()
        if not len(self.networks["scales"]):
            kl = 0.5 * (mean.square() + variance - 1.0 - log_variance).sum()
        else:
            # E_q log q in closed form, E_q log p from the sample; the
            # constants log(2 pi) cancel.
            base, log_det = self._base(latents.flatten(1))
            kl = 0.5 * (base.square().sum() - (1.0 + log_variance).sum())
            kl = kl - log_det
        return (squared + kl) / len(points)

    def _base(self, latents: Any) -> tuple[Any, Any]:
        """Maps latents to the flow's base; also returns the sum of log|det|."""
        first, second = latents.chunk(2, dim=1)
        log_det = 0.0
        for scale_net, shift_net in zip(
            self.networks["scales"], self.networks["shifts"], strict=True
        ):
            scale = scale_net(first)
            second = second * scale.exp() + shift_net(first)
            log_det = log_det + scale.sum()
            first, second = second, first
        return self._torch.cat([first, second], dim=1), log_det


def epochs_of(
    torch: Any, model: TorchVAE, points: Any, flags: argparse.Namespace
) -> Callable[[], float]:
    """Returns a function that trains an epoch and returns its mean loss."""
    if flags.channels_last:
        points = points.to(memory_format=torch.channels_last)
        model.networks.to(memory_format=torch.channels_last)
    # The fastest of PyTorch's implementations of Adam on a CPU.
    adam = torch.optim.Adam(
        model.networks.parameters(), lr=flags.learning_rate, fused=True
    )
    loss_of = model.loss
    if flags.compile:
        # Compiles once for each of the two batch sizes; code for dynamic sizes
        # would be slower.
        loss_of = torch.compile(loss_of, dynamic=False)

    def epoch() -> float:
        total = torch.zeros(())
        order = torch.randperm(len(points))
        for index in order.split(flags.batch_size):
            adam.zero_grad(set_to_none=True)
            loss = loss_of(points[index])
            loss.backward()
            adam.step()
            total += loss.detach()
        return total.item() / math.ceil(len(points) / flags.batch_size)

    return epoch


def _fc(nn: Any) -> tuple[Any, Any]:
    """Returns encoder and decoder of fully connected layers."""
    pixels = IMAGE_SIZE**2
    encoder = _mlp(nn, [pixels, 256, 128, 64, 2 * NUM_LATENTS])
    decoder = _mlp(nn, [NUM_LATENTS, 128, 256, 512, 1024, pixels])
    image = (1, IMAGE_SIZE, IMAGE_SIZE)
    return (
        nn.Sequential(nn.Flatten(), *encoder),
        nn.Sequential(*decoder, nn.Unflatten(1, image)),
    )


def _mlp(nn: Any, sizes: Sequence[int]) -> list[Any]:
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(_SLOPE)]
    return layers[:-1]


def _conv(nn: Any) -> tuple[Any, Any]:
    """Returns encoder and decoder of convolutional layers."""
    channels = NUM_LATENTS // 4  # of a 2 x 2 grid
    encoder: list[Any] = []
    for inputs, outputs in ((1, 4), (4, 8), (8, 16)):
        encoder += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.MaxPool2d(2),
        ]
    encoder.append(nn.Conv2d(16, 2 * channels, 3))
    decoder: list[Any] = []
    for inputs, outputs in ((channels, 64), (64, 32), (32, 16), (16, 8)):
        decoder += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Upsample(scale_factor=2),
        ]
    decoder.append(nn.Conv2d(8, 1, 3, padding=1))
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def _coupling_net(nn: Any, hidden: int) -> Any:
    half = NUM_LATENTS // 2
    return nn.Sequential(
        nn.Linear(half, hidden),
        nn.LeakyReLU(_SLOPE),
        nn.Linear(hidden, hidden),
        nn.LeakyReLU(_SLOPE),
        nn.Linear(hidden, half),
        nn.Tanh(),
    )


def _points(torch: Any, flags: argparse.Namespace) -> Any:
    """Returns the data, `[N, 1, 32, 32]`."""
    if flags.data:
        numpy = importlib.import_module("numpy")
        found = torch.from_numpy(numpy.load(flags.data)).float()
    else:
        found = torch.rand(flags.num_points, IMAGE_SIZE**2)
    return found.reshape(len(found), 1, IMAGE_SIZE, IMAGE_SIZE)


def _facts(
    torch: Any, model: TorchVAE, points: Any, flags: argparse.Namespace
) -> dict[str, Any]:
    sizes = (parameter.numel() for parameter in model.networks.parameters())
    return {
        "torch": torch.__version__,
        "layer": flags.layer,
        "prior": flags.prior,
        "num_data": len(points),
        "batch_size": flags.batch_size,
        "trainable_parameters": sum(sizes),
        "compile": flags.compile,
        "channels_last": flags.channels_last,
        "threads": torch.get_num_threads(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
    }


def _numbers(epochs: int) -> Iterator[int]:
    """Yields the number of each requested epoch."""
    if epochs:
        yield from range(1, epochs + 1)
        return
    number = 0
    for line in sys.stdin:
        if line.strip() == "epoch":
            number += 1
            yield number


def _print_json(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def _flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--layer", choices=["fc", "conv"], default="fc")
    parser.add_argument("--prior", choices=[*_FLOWS], default="normal")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels_last", action="store_true")
    parser.add_argument("--data", help="[N, 1024] as .npy; random if absent")
    parser.add_argument("--num_points", type=int, default=25_000)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
