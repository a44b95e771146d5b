# SPDX-License-Identifier: Apache-2.0
"""Denoising by local subspaces: patches that look alike differ in few ways.

A picture is covered by groups of similar patches, one group around each of a
grid of reference patches. Within a group of m patches

    y_n = mu + W z_n + e_n,    z_n ~ N(0, I),    e_n ~ N(0, s^2 I)

as in probabilistic principal component analysis, with as many columns of W as
stand out from the noise: a discrete latent, the group, and continuous ones that
are integrated out. The singular values l_i of the centred group are shrunk as
by the weighted nuclear norm whose weights are inversely proportional to the
shrunk values (Gu et al., 2014, "Weighted nuclear norm minimization with
application to image denoising", equations 9 to 13):

    d_i = (l_i + sqrt(l_i^2 - 4 c sqrt(m) s^2)) / 2,    0 where that is not real

Each pixel becomes the mean of all estimates of it, by groups of several patch
sizes. This is repeated: a part of what was removed is added to the estimate
again, and the noise that this has at each reference takes the place of s^2.

Missing values are filled in likewise, from the values nearest to them, under s
that falls from shrinking to shrinking; observed ones are set to what they are
after each, as in plug-and-play restoration (Venkatakrishnan, Bouman and
Wohlberg, 2013, "Plug-and-play priors for model based reconstruction"). What is
shrunk goes beyond the last estimate in the direction of the last change, within
a round, which is as momentum in an optimisation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import scipy.ndimage
import tensorflow as tf

from tfvae import typed_gin
from tfvae.arguments import check_counts, check_positive

# Rows of references whose patches are in memory at a time, and references of a
# row that are compared with others at a time.
_BAND_ROWS = 16
_TILE = 32
# Groups that are shrunk at a time.
_GROUPS = 512
# Times that the groups of a round are shrunk.
_SHRINKS = 2
# Rounds that fill in, shrinkings in each, s in the first and the last of all,
# on 0..255, and what changes are multiplied by when they are added once more.
_NUM_FILLING, _FILLING_SHRINKS = {"best": 10, "fast": 4}, 4
_FIRST_STD, _LAST_STD, _MOMENTUM = 40.0, 3.0, 0.5
# Side of patches for filling in; several sizes together are no better.
_FILLING_SIDE = 6
# Share of the observed values that are hidden to see how well they are filled
# in, and the distance, in pixels, over which such errors are averaged.
_HIDDEN_SHARE, _HIDDEN_DISTANCE = 0.05, 8.0
# By how much the groups of later rounds are smaller.
_FEWER = 10


class _Fitting(NamedTuple):
    """What is good for a level of noise."""

    noise_std: float
    """On 0..255, from which it is."""
    num_rounds: int
    best: tuple[int, ...]
    """Sides of patches."""
    fast: tuple[int, ...]


_FITTING = (
    _Fitting(0.0, 4, (5, 6, 7), (6,)),
    _Fitting(20.0, 4, (5, 6, 7, 8), (6,)),
    _Fitting(35.0, 6, (6, 7, 8, 9), (7,)),
)
Quality = Literal["best", "fast"]


class Estimate(NamedTuple):
    """A picture as estimated after a round."""

    mean: np.ndarray
    """float32 `[height, width, channels]`."""
    variance: np.ndarray
    """Variance about the mean, likewise: that within groups, and between the
    estimates of a pixel by different groups."""


@typed_gin.register
@dataclasses.dataclass(frozen=True)
class LocalSubspaces:
    """Denoises a picture by groups of similar patches; see this module.

    All lengths are in pixels.

    Attributes:
      quality: "best" to average the estimates of several sizes of patches,
        "fast" for one size, in a fifth of the time; where values are missing,
        "best" for more rounds.
      patches: Sides of the square patches; None for those of `quality` that fit
        the noise, and for 6 where values are missing.
      step: Distance of neighbouring references.
      radius: Largest distance of the patches of a group to their reference.
      num_rounds: Times that groups are found; None for a number that fits the
        noise.
      feedback: Share of what was removed that is added again before groups are
        shrunk.
      noise_factor: What the standard deviation of the noise that is left after
        the first time is multiplied by, since some of the signal is lost, too.
      weight: c.
    """

    quality: Quality = "best"
    patches: Sequence[int] | None = None
    step: int = 4
    radius: int = 30
    num_rounds: int | None = None
    feedback: float = 0.1
    noise_factor: float = 0.56
    weight: float = 2.0 * math.sqrt(2.0)

    def __post_init__(self) -> None:
        """Checks the settings."""
        if self.quality not in get_args(Quality):
            raise ValueError(
                f"`quality` must be one of {get_args(Quality)}, got "
                f"{self.quality!r}"
            )
        check_counts(step=self.step, radius=self.radius)
        if self.num_rounds is not None:
            check_counts(num_rounds=self.num_rounds)
        check_positive(noise_factor=self.noise_factor, weight=self.weight)
        if not 0.0 <= self.feedback < 1.0:
            raise ValueError(
                f"`feedback` must be in [0, 1), got {self.feedback!r}"
            )
        if self.patches is not None:
            check_counts(minimum=2, patches=tuple(self.patches))
            if not self.patches:
                raise ValueError("`patches` must be sides or None, got none")
        if self.patches and self.step > min(self.patches):
            raise ValueError(
                "`step` must be at most the smallest of `patches`, "
                f"{min(self.patches)}, got {self.step!r}"
            )

    def sides(self, noise_std: float, shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the sides of patches for a level of noise.

        Args:
          noise_std: Standard deviation of the noise, on 0..255.
          shape: Height and width of the picture, which no patch exceeds.
        """
        sides = self.patches
        if sides is None:
            sides = getattr(_fitting(noise_std), self.quality)
        return tuple(min(side, *shape[:2]) for side in sides)

    def count_rounds(self, noise_std: float) -> int:
        """Returns the number of rounds for a level of noise, see `sides`."""
        return self.num_rounds or _fitting(noise_std).num_rounds

    def rounds(
        self,
        image: np.ndarray,
        noise_std: float,
        start: np.ndarray | None = None,
        num_done: int = 0,
        on_step: Callable[[], object] | None = None,
    ) -> Iterator[Estimate]:
        """Denoises a picture; yields an estimate after each round.

        Args:
          image: `[height, width, channels]`, complete, on a scale of 0..255 or
            any other on which `noise_std` is the level of the noise; only the
            default `patches` depend on it.
          noise_std: Standard deviation of white noise.
          start: The mean after `num_done` rounds, to resume.
          num_done: Number of rounds that are done.
          on_step: Called `num_steps` times a round.
        """
        image = _checked(image, noise_std)
        sides = self.sides(noise_std, image.shape)
        mean = image if start is None else np.asarray(start, np.float32)
        for number in range(num_done, self.count_rounds(noise_std)):
            covers = [
                _Cover(image.shape, side, self, _group_size(side, number))
                for side in sides
            ]
            for repeat in range(_SHRINKS):
                mean = mean + np.float32(self.feedback) * (image - mean)
                is_first = number == repeat == 0
                found = []
                for cover in covers:
                    found.append(cover.shrunk(mean, image, noise_std, is_first))
                    if on_step is not None:
                        on_step()
                estimate = _averaged(found)
                mean = estimate.mean
            yield estimate

    def num_steps(self, noise_std: float, shape: Sequence[int]) -> int:
        """Returns how often `on_step` is called in a round."""
        return _SHRINKS * len(self.sides(noise_std, shape))

    def filling_rounds(
        self,
        image: np.ndarray,
        start: np.ndarray | None = None,
        num_done: int = 0,
        on_round: Callable[[], object] | None = None,
    ) -> Iterator[np.ndarray]:
        """Fills in missing values; yields the whole picture after each round.

        Args:
          image: `[height, width, channels]` on 0..255, without noise; NaN where
            missing.
          start: What was yielded after `num_done` rounds, to resume.
          num_done: Number of rounds that are done.
          on_round: Called after each round.
        """
        image = _checked(image, 1.0, may_miss=True)
        is_missing = np.isnan(image)
        given = self.patches or (_FILLING_SIDE,)
        sides = [min(side, *image.shape[:2]) for side in given]
        mean = _nearest_known(image) if start is None else start
        num_rounds = self.count_filling_rounds()
        stds = np.geomspace(
            _FIRST_STD, _LAST_STD, _FILLING_SHRINKS * num_rounds
        )
        for number in range(num_done, num_rounds):
            covers = [
                _Cover(image.shape, side, self, _group_size(side, 0))
                for side in sides
            ]
            last = mean
            part = slice(
                _FILLING_SHRINKS * number, _FILLING_SHRINKS * (number + 1)
            )
            for std in stds[part]:
                ahead = mean + np.float32(_MOMENTUM) * (mean - last)
                found = [
                    cover.shrunk(ahead, ahead, float(std), True)
                    for cover in covers
                ]
                last = mean
                mean = np.where(is_missing, _averaged(found).mean, image)
            if on_round is not None:
                on_round()
            yield mean

    def count_filling_rounds(self) -> int:
        """Returns the number of rounds of `filling_rounds`."""
        return self.num_rounds or _NUM_FILLING[self.quality]

    def filling_variance(
        self,
        image: np.ndarray,
        on_round: Callable[[], object] | None = None,
    ) -> np.ndarray:
        """Returns the variance of filled in values, found by hiding others.

        A twentieth of the observed values of each channel, drawn at random, and
        at least one, is filled in as well, and the squared errors are averaged
        around each pixel. Of values that are missing at random it is the mean
        squared error; those deep in a hole have larger ones.

        Args:
          image: As that of `filling_rounds`.
          on_round: Called after each round.

        Returns:
          float32 `[height, width, channels]`, 0 where observed.
        """
        image = _checked(image, 1.0, may_miss=True)
        check_fillable(image)
        is_missing = np.isnan(image)
        is_hidden = _hidden(is_missing)
        hidden = np.where(is_hidden, np.float32(np.nan), image)
        *_, filled = self.filling_rounds(hidden, on_round=on_round)
        errors = np.where(is_hidden, np.square(filled - image), 0.0)
        mean = errors.sum() / np.count_nonzero(is_hidden)
        around = [
            scipy.ndimage.gaussian_filter(
                one.astype(np.float32),
                (_HIDDEN_DISTANCE, _HIDDEN_DISTANCE, 0.0),
                mode="constant",
            )
            for one in (errors, is_hidden)
        ]
        # Where few values are hidden, the mean of all counts as some of them.
        prior = np.float32(0.1 * _HIDDEN_SHARE)
        local = (around[0] + prior * mean) / (around[1] + prior)
        return np.where(is_missing, local, 0.0).astype(np.float32)

    def denoised(self, image: np.ndarray, noise_std: float) -> Estimate:
        """Returns the estimate after all rounds; see `rounds`."""
        *_, last = self.rounds(image, noise_std)
        return last


def _fitting(noise_std: float) -> _Fitting:
    return [one for one in _FITTING if noise_std >= one.noise_std][-1]


def _checked(
    image: np.ndarray, noise_std: float, may_miss: bool = False
) -> np.ndarray:
    image = np.asarray(image, np.float32)
    if image.ndim != 3 or 0 in image.shape or min(image.shape[:2]) < 2:
        raise ValueError(
            "`image` must have shape [height, width, channels], at least 2 x 2 "
            f"pixels, got {image.shape!r}"
        )
    if may_miss:
        if np.isnan(image).all((0, 1)).any() or np.isinf(image).any():
            raise ValueError(
                "`image` must be finite or missing in every entry, and observed"
                " somewhere in every channel"
            )
    elif not np.isfinite(image).all():
        raise ValueError(
            "`image` must be complete and finite, got "
            f"{np.count_nonzero(~np.isfinite(image))} other values"
        )
    check_positive(noise_std=noise_std)
    return image


def check_fillable(image: np.ndarray) -> None:
    """Raises a ValueError if too little is observed to judge a filling by.

    Args:
      image: `[height, width, channels]`, NaN where missing.
    """
    counts = np.count_nonzero(~np.isnan(image), (0, 1))
    if counts.min() < 2:
        raise ValueError(
            "`image` must have at least 2 observed values in every channel, "
            f"got {counts.min()} in channel {counts.argmin()}"
        )


def _hidden(is_missing: np.ndarray) -> np.ndarray:
    """Returns which observed values are hidden, but never all of a channel."""
    # A seed that is unlikely to have drawn what is missing.
    draws = np.random.default_rng(0x5EED).random(is_missing.shape)
    draws[is_missing] = np.inf
    least = draws.min((0, 1))
    most = np.where(is_missing, 0.0, draws).max((0, 1))
    share = np.maximum(_HIDDEN_SHARE, np.nextafter(least, 1.0))
    return (draws < share) & (draws < most)


def _nearest_known(image: np.ndarray) -> np.ndarray:
    """Returns an image whose missing values are those of the nearest pixels."""
    filled = image.copy()
    for i in range(image.shape[2]):
        rows, columns = scipy.ndimage.distance_transform_edt(
            np.isnan(image[..., i]),
            return_distances=False,
            return_indices=True,
        )
        filled[..., i] = image[rows, columns, i]
    return filled


def _group_size(side: int, number: int) -> int:
    """Returns m, the patches of a group, in a round."""
    return max(10 * (side + 1) - _FEWER * number, 2 * side * side // 3, 2)


def _averaged(found: Sequence[Estimate]) -> Estimate:
    """Returns mean and variance of a mixture of estimates."""
    means = np.stack([one.mean for one in found])
    mean = means.mean(0)
    within = np.mean([one.variance for one in found], 0)
    return Estimate(mean, within + np.square(means - mean).mean(0))


class _Band(NamedTuple):
    """References of some rows, and the groups around them.

    Rows and columns are those of patches, by their first pixel.
    """

    first: int
    """First row of the patches that belong to the groups."""
    last: int
    """Row after the last of them."""
    references: np.ndarray
    """Places of the references in these rows, as y * w + x, `[R]`."""
    starts: np.ndarray
    """First row and column of the window of each, `[R, 2]`."""


class _Cover:
    """Groups of patches of one size that cover a picture."""

    def __init__(
        self,
        shape: tuple[int, ...],
        side: int,
        settings: LocalSubspaces,
        num_similar: int,
    ) -> None:
        self._side = side
        self._settings = settings
        height, width = (size - side + 1 for size in shape[:2])
        self._window = min(2 * settings.radius + 1, height, width)
        self._num_similar = min(num_similar, self._window**2)
        # Patches of a tiny picture are smaller, and are to cover it.
        step = min(settings.step, side)
        self._bands = _bands(height, width, step, self._window)
        self._width = width
        self._places: list[np.ndarray] | None = None

    def shrunk(
        self,
        mean: np.ndarray,
        image: np.ndarray,
        noise_std: float,
        is_first: bool,
    ) -> Estimate:
        """Estimates all pixels; the first call finds the groups.

        Args:
          mean: What groups are made of, `[height, width, channels]`.
          image: The noisy picture.
          noise_std: Its noise.
          is_first: Whether `mean` has all of that noise.
        """
        side, channels = self._side, image.shape[2]
        shape = image.shape
        totals = np.zeros((*shape[:2], 2 * channels + 2), np.float32)
        places = self._places
        found = []
        for i, band in enumerate(self._bands):
            rows = slice(band.first, band.last + side - 1)
            part = tf.constant(mean[rows])
            patches = cut_patches(part, side)
            if places is None:
                found.append(
                    similar_patches(
                        patches, band, self._window, self._num_similar
                    )
                )
            groups = found[i] if places is None else places[i]
            if is_first:
                noise = np.full(len(groups), noise_std**2, np.float32)
            else:
                noise = self._noise_left(band, part, image[rows], noise_std)
            sums = _group_sums(
                patches, groups, noise, noise_std, self._settings.weight
            )
            totals[rows] += overlapped(*sums, patches.shape[:2], side, channels)
        if places is None:
            self._places = found
        count = totals[..., -1:]
        means = totals[..., :channels] / count
        squares = totals[..., channels : 2 * channels] / count
        between = np.maximum(squares - np.square(means), 0.0)
        return Estimate(means, between + totals[..., -2:-1] / count)

    def _noise_left(
        self, band: _Band, part: tf.Tensor, image: np.ndarray, noise_std: float
    ) -> np.ndarray:
        """Returns the variance of the noise that references still have, `[R]`.

        It is what the patches of the noisy picture lack of their noise, Gu et
        al., section 4.2.
        """
        removed = tf.reduce_mean(tf.square(image - part), -1)
        side = self._side
        removed = tf.nn.avg_pool2d(removed[None, ..., None], side, 1, "VALID")
        removed = tf.gather(tf.reshape(removed, [-1]), band.references)
        factor = self._settings.noise_factor**2
        return (factor * tf.abs(noise_std**2 - removed)).numpy()


def _bands(height: int, width: int, step: int, window: int) -> list[_Band]:
    """Returns the references of all patches `[height, width]`, in bands."""
    rows, columns = _grid(height, step), _grid(width, step)
    row_starts, starts = (
        np.clip(places - window // 2, 0, size - window)
        for places, size in ((rows, height), (columns, width))
    )
    found = []
    for i in range(0, len(rows), _BAND_ROWS):
        part = slice(i, i + _BAND_ROWS)
        first = int(row_starts[part][0])
        references = (rows[part, None] - first) * width + columns
        corners = np.stack(
            np.meshgrid(row_starts[part] - first, starts, indexing="ij"), -1
        )
        found.append(
            _Band(
                first,
                int(row_starts[part][-1]) + window,
                references.reshape(-1).astype(np.int32),
                corners.reshape(-1, 2).astype(np.int32),
            )
        )
    return found


def _grid(size: int, step: int) -> np.ndarray:
    """Returns every `step`-th place of an axis, and the last one."""
    places = np.arange(0, size, step)
    return places if places[-1] == size - 1 else np.append(places, size - 1)


def cut_patches(image: tf.Tensor, side: int) -> tf.Tensor:
    """Returns all patches `[h, w, D]` of a picture `[height, width, C]`."""
    sizes = [1, side, side, 1]
    ones = [1, 1, 1, 1]
    return tf.image.extract_patches(image[None], sizes, ones, ones, "VALID")[0]


def similar_patches(
    patches: tf.Tensor, band: _Band, window: int, num_similar: int
) -> np.ndarray:
    """Finds the patches that are nearest to each reference of a band.

    Args:
      patches: The patches of the band, `[h, w, D]`.
      band: Its references.
      window: Side of the windows around them, in patches.
      num_similar: m; a reference is one of them.

    Returns:
      Places of the patches as y * w + x, int32 `[R, m]`, in any order.
    """
    width = patches.shape[1]
    norms = tf.reduce_sum(tf.square(patches), -1)
    found = []
    in_row = np.flatnonzero(np.diff(band.references // width)) + 1
    for row in np.split(np.arange(len(band.references)), in_row):
        top = int(band.starts[row[0], 0])
        for i in range(0, len(row), _TILE):
            tile = row[i : i + _TILE]
            left = band.starts[tile, 1]
            ours = band.references[tile]
            columns = slice(int(left[0]), int(left[-1]) + window)
            places = _nearest(
                patches[top : top + window, columns],
                norms[top : top + window, columns],
                tf.gather(
                    tf.reshape(patches, [-1, patches.shape[2]]),
                    ours,
                ),
                tf.constant(left - left[0]),
                tf.constant(
                    (ours // width - top) * window + ours % width - left
                ),
                window,
                num_similar,
            ).numpy()
            rows, others = places // window, places % window
            found.append((rows + top) * width + others + left[:, None])
    return np.concatenate(found)


@tf.function(reduce_retracing=True)
def _nearest(
    patches: tf.Tensor,
    norms: tf.Tensor,
    references: tf.Tensor,
    left: tf.Tensor,
    own: tf.Tensor,
    window: int,
    num_similar: int,
) -> tf.Tensor:
    """Returns which patches of its window are nearest to each reference.

    Args:
      patches: `[window, v, D]`, of all windows of a row.
      norms: Squared norms of the patches, `[window, v]`.
      references: `[t, D]`.
      left: First column of the window of each, `[t]`.
      own: Places of the references in their windows, `[t]`. They are always
        found, so that every pixel has an estimate where many patches are equal.
      window: Side of the windows.
      num_similar: m.

    Returns:
      Places in the windows, int32 `[t, m]`.
    """
    flat = tf.reshape(patches, [-1, tf.shape(patches)[2]])
    products = tf.matmul(references, flat, transpose_b=True)
    closeness = 2.0 * products - tf.reshape(norms, [1, -1])
    closeness = tf.reshape(closeness, [-1, window, tf.shape(norms)[1]])
    columns = left[:, None] + tf.range(window)
    closeness = tf.gather(closeness, columns, axis=2, batch_dims=1)
    closeness = tf.reshape(closeness, [-1, window * window])
    closeness = tf.tensor_scatter_nd_update(
        closeness,
        tf.stack([tf.range(tf.size(own)), own], -1),
        tf.fill([tf.size(own)], math.inf),
    )
    return tf.math.top_k(closeness, num_similar, sorted=False).indices


def shrunk_values(
    values: tf.Tensor, noise: tf.Tensor, num_patches: int, weight: float
) -> tf.Tensor:
    """Returns shrunk singular values, d of the module.

    Args:
      values: l, `[g, r]`.
      noise: s^2 of each group, `[g]`.
      num_patches: m.
      weight: c.
    """
    penalty = 4.0 * weight * math.sqrt(num_patches) * noise[:, None]
    excess = tf.square(values) - penalty
    root = tf.sqrt(tf.maximum(excess, 0.0))
    return tf.where(excess > 0.0, 0.5 * (values + root), 0.0)


def shrunk_groups(
    groups: tf.Tensor, noise: tf.Tensor, weight: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Estimates the patches of groups.

    Args:
      groups: `[g, m, D]`.
      noise: s^2 of each group, `[g]`.
      weight: c.

    Returns:
      The estimates `[g, m, D]`, and the mean posterior variance of their
      entries in units of the noise, `[g]`: sum_i (d_i / l_i) / D + 1 / m.
    """
    num_patches, dim = groups.shape[1], groups.shape[2]
    mean = tf.reduce_mean(groups, 1, keepdims=True)
    centred = groups - mean
    # Singular vectors of the shorter side.
    is_tall = dim <= num_patches
    moments = tf.matmul(
        centred, centred, transpose_a=is_tall, transpose_b=not is_tall
    )
    squares, axes = tf.linalg.eigh(moments)
    values = tf.sqrt(tf.maximum(squares, 0.0))
    kept = shrunk_values(values, noise, num_patches, weight)
    share = tf.math.divide_no_nan(kept, values)
    scaled = axes * share[:, None]
    if is_tall:
        near = tf.matmul(tf.matmul(centred, scaled), axes, transpose_b=True)
    else:
        near = tf.matmul(scaled, tf.matmul(axes, centred, transpose_a=True))
    left = tf.reduce_sum(share, -1) / dim + 1.0 / num_patches
    return near + mean, left


def _group_sums(
    patches: tf.Tensor,
    groups: np.ndarray,
    noise: np.ndarray,
    noise_std: float,
    weight: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sums the estimates of each patch over the groups that it is in.

    Returns:
      For all patches the sums of estimates and of their squares, `[n, 2 D]`,
      and of variances and ones, `[n, 2]`.
    """
    dim = patches.shape[2]
    flat = tf.reshape(patches, [-1, dim])
    sums = tf.zeros([flat.shape[0], 2 * dim])
    counts = tf.zeros([flat.shape[0], 2])
    for i in range(0, len(groups), _GROUPS):
        part = slice(i, i + _GROUPS)
        sums, counts = _added(
            flat,
            tf.constant(groups[part]),
            tf.constant(noise[part]),
            tf.constant(noise_std**2, tf.float32),
            sums,
            counts,
            weight,
            groups.shape[1],
            dim,
        )
    return sums[:, :dim], sums[:, dim:], counts


@tf.function(reduce_retracing=True)
def _added(
    patches: tf.Tensor,
    groups: tf.Tensor,
    noise: tf.Tensor,
    variance: tf.Tensor,
    sums: tf.Tensor,
    counts: tf.Tensor,
    weight: float,
    num_patches: int,
    dim: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Adds the estimates of some groups; see `_group_sums`."""
    members = tf.ensure_shape(
        tf.gather(patches, groups), [None, num_patches, dim]
    )
    estimates, left = shrunk_groups(members, noise, weight)
    estimates = tf.reshape(estimates, [-1, dim])
    left = tf.repeat(variance * left, num_patches)
    rows = tf.concat([estimates, tf.square(estimates)], -1)
    ones = tf.stack([left, tf.ones_like(left)], -1)
    places = tf.reshape(groups, [-1])
    return tuple(
        total + tf.math.unsorted_segment_sum(more, places, tf.shape(patches)[0])
        for total, more in ((sums, rows), (counts, ones))
    )


def overlapped(
    sums: tf.Tensor,
    squares: tf.Tensor,
    counts: tf.Tensor,
    grid: Sequence[int],
    side: int,
    channels: int,
) -> np.ndarray:
    """Adds patches up where they overlap.

    Args:
      sums: `[h w, D]`.
      squares: Likewise.
      counts: `[h w, 2]`, the same for all pixels of a patch.
      grid: h and w.
      side: Pixels along the sides of a patch.
      channels: C.

    Returns:
      Totals of each pixel, `[h + side - 1, w + side - 1, 2 C + 2]`.
    """
    h, w = grid
    shape = [h, w, side, side, channels]
    parts = np.reshape(sums, shape), np.reshape(squares, shape)
    ones = np.reshape(counts, [h, w, 2])
    total = np.zeros((h + side - 1, w + side - 1, 2 * channels + 2), np.float32)
    for i in range(side):
        for j in range(side):
            place = total[i : i + h, j : j + w]
            for k, part in enumerate(parts):
                place[..., k * channels : (k + 1) * channels] += part[
                    :, :, i, j
                ]
            place[..., -2:] += ones
    return total
