# SPDX-License-Identifier: Apache-2.0
"""Noise of a picture: what is known of it, and how a model allows for it.

`GaussianNoise` has one level everywhere. `PoissonGaussianNoise` grows with the
signal: counts, such as photons, and read noise. What is not given is estimated.
A value of either class is an argument of `tfvae.corrupted_image`. Its
parameters are in the picture's own units, those of its file; "pixels" are on
0..255, as in `Restoration`.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from tfvae import typed_gin
from tfvae.arguments import check_positive
from tfvae.data.images import WHITE, ValueRange
from tfvae.likelihoods import GaussianLikelihood, Likelihood, PoissonLikelihood
from tfvae.ops import anscombe


class Noise(Protocol):
    """How the values of a picture are made those of a model, and back."""

    @property
    def is_transform(self) -> bool:
        """Whether the model's values are other than scaled pixels."""

    def fitted(self, values: np.ndarray) -> Noise:
        """Returns the noise, with what is not given estimated.

        Args:
          values: `[height, width, channels]` in the picture's units, NaN where
            missing.

        Raises:
          ValueError: If it can not be estimated.
        """

    def to_model(
        self, pixels: np.ndarray, value_range: ValueRange
    ) -> np.ndarray:
        """Returns the values that the model is trained on, before scaling.

        Args:
          pixels: `[...]` on 0..255, NaN where missing.
          value_range: What 0 and 255 stand for.
        """

    def from_model(
        self, values: np.ndarray, value_range: ValueRange
    ) -> np.ndarray:
        """Returns the pixels whose mean values of `to_model` are given.

        Args:
          values: `[...]`, estimates by the model.
          value_range: What 0 and 255 stand for.
        """

    def likelihood(
        self, given: Likelihood, scale: float, value_range: ValueRange
    ) -> Likelihood:
        """Returns the likelihood of `scale` times the values of `to_model`.

        Args:
          given: The one that is configured.
          scale: Factor.
          value_range: What 0 and 255 stand for.

        Raises:
          ValueError: If the one that is configured would not act.
        """

    def std_of_model(self, value_range: ValueRange) -> float:
        """Returns the standard deviation of the noise of `to_model`.

        Args:
          value_range: What 0 and 255 stand for.

        Raises:
          ValueError: If it is not the same everywhere.
        """

    def describe(self) -> str:
        """Says what the noise is, and how it is allowed for, in a line."""


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """White Gaussian noise of a known level.

    Attributes:
      std: Standard deviation, in the units of the picture; it is not learned.
    """

    std: float

    def __post_init__(self) -> None:
        """Validates all fields."""
        check_positive(**{"GaussianNoise.std": self.std})

    @property
    def is_transform(self) -> bool:
        return False

    def fitted(self, values: np.ndarray) -> GaussianNoise:
        return self

    def to_model(
        self, pixels: np.ndarray, value_range: ValueRange
    ) -> np.ndarray:
        return pixels

    def from_model(
        self, values: np.ndarray, value_range: ValueRange
    ) -> np.ndarray:
        return values

    def likelihood(
        self, given: Likelihood, scale: float, value_range: ValueRange
    ) -> Likelihood:
        std = self.std_of_model(value_range)
        return _fixed(given, (scale * std) ** 2)

    def std_of_model(self, value_range: ValueRange) -> float:
        return self.std * WHITE / value_range.width

    def describe(self) -> str:
        return f"noise: Gaussian of standard deviation {self.std:g}, as given"


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class PoissonGaussianNoise:
    """Counts, and Gaussian read noise: its variance grows with the signal.

    A value of the picture is gain * Poisson(rate) + Normal(offset,
    read_noise_std**2). By default the model is trained on a transform of the
    picture, whose noise has a standard deviation of about 1 everywhere, see
    `tfvae.ops.anscombe`.

    Attributes:
      gain: Units of the picture a count; None to estimate it.
      offset: Value of the picture without any signal.
      read_noise_std: Standard deviation of the read noise, in the units of the
        picture; 0 for counts alone, None to estimate it.
      by_likelihood: Whether the model is trained on the counts themselves, with
        a `PoissonLikelihood`. The variance of the read noise is added to them:
        the sum has the mean and variance of counts, where it is not negative.
    """

    gain: float | None = None
    offset: float = 0.0
    read_noise_std: float | None = None
    by_likelihood: bool = False

    def __post_init__(self) -> None:
        """Validates all fields."""
        given = {"gain": self.gain, "read_noise_std": self.read_noise_std}
        known = {k: v for k, v in given.items() if v is not None}
        anscombe.PoissonGaussian(offset=self.offset, **known)

    @property
    def is_transform(self) -> bool:
        return True

    def fitted(self, values: np.ndarray) -> PoissonGaussianNoise:
        found = anscombe.estimate(
            values,
            gain=self.gain,
            offset=self.offset,
            read_noise_std=self.read_noise_std,
        )
        largest = float(np.nanmax(values))
        if not self.offset < largest:
            raise ValueError(
                "`offset` must be less than the largest value of the image, "
                f"{largest:g}, got {self.offset!r}"
            )
        return dataclasses.replace(
            self, gain=found.gain, read_noise_std=found.read_noise_std
        )

    def _parameters(self) -> anscombe.PoissonGaussian:
        if self.gain is None or self.read_noise_std is None:
            raise RuntimeError("fitted(values) must be called first")
        return anscombe.PoissonGaussian(
            self.gain, self.offset, self.read_noise_std
        )

    def to_model(
        self, pixels: np.ndarray, value_range: ValueRange
    ) -> np.ndarray:
        noise, values = self._parameters(), value_range.from_pixels(pixels)
        if self.by_likelihood:
            counts = noise.counts(values) + noise.variance_of_reading
            return np.maximum(counts, 0.0)
        return anscombe.forward(values, noise)

    def from_model(
        self, values: np.ndarray, value_range: ValueRange
    ) -> np.ndarray:
        noise = self._parameters()
        if self.by_likelihood:
            rates = np.maximum(values - noise.variance_of_reading, 0.0)
            return value_range.to_pixels(noise.from_counts(rates))
        return value_range.to_pixels(anscombe.inverse(values, noise))

    def likelihood(
        self, given: Likelihood, scale: float, value_range: ValueRange
    ) -> Likelihood:
        if scale != 1.0:
            raise ValueError(
                "`corrupted_image.scale` must be 1 with PoissonGaussianNoise, "
                f"as counts have no other units, got {scale!r}"
            )
        if not self.by_likelihood:
            return _fixed(given, 1.0)
        if type(given) not in (GaussianLikelihood, PoissonLikelihood):
            raise _other_likelihood("PoissonLikelihood", given)
        return PoissonLikelihood()

    def std_of_model(self, value_range: ValueRange) -> float:
        if self.by_likelihood:
            raise ValueError(
                "`by_likelihood` must be False with --method=subspaces, got "
                "True; --method=tvae has such a likelihood"
            )
        return 1.0

    def describe(self) -> str:
        noise = self._parameters()
        way = "the generalised Anscombe transform"
        if self.by_likelihood:
            way = "a Poisson likelihood"
        return (
            f"noise: Poisson of gain {noise.gain:.4g} with offset "
            f"{noise.offset:.4g} and read noise of standard deviation "
            f"{noise.read_noise_std:.4g}; denoised by {way}"
        )


def _fixed(given: Likelihood, variance: float) -> Likelihood:
    """Returns a Gaussian likelihood of a fixed variance, otherwise as given."""
    if type(given) is not GaussianLikelihood:
        raise _other_likelihood("GaussianLikelihood", given)
    if given.initial_variance is not None or given.is_fixed:
        raise ValueError(
            "`GaussianLikelihood.initial_variance` and `.is_fixed` must not be "
            "bound where `corrupted_image.noise` sets them, got "
            f"{given.initial_variance!r} and {given.is_fixed!r}"
        )
    fixed = {"initial_variance": variance, "is_fixed": True}
    return GaussianLikelihood.from_config({**given.get_config(), **fixed})


def _other_likelihood(needed: str, given: Likelihood) -> ValueError:
    return ValueError(
        f"`experiment.likelihood` must be @{needed} with this "
        f"`corrupted_image.noise`, got {type(given).__name__}"
    )
