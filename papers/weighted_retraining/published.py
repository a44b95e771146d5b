# SPDX-License-Identifier: Apache-2.0
"""Published results of weighted retraining.

Tripp, Daxberger, Hernandez-Lobato, "Sample-Efficient Optimization in the
Latent Space of Deep Generative Models via Weighted Retraining", NeurIPS 2020:
mean and population standard deviation of top-1, top-10 and top-50 over the
seeds of the files that the authors published (5 for shapes and molecules, 3 for
expressions). For all scores larger is better; those of expressions are
negative. The runs of shapes with a low r are read off the figures. The
baselines of expressions are left out, as their published files are identical.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

QUERIES = (1, 50, 100, 250, 500)
"""Numbers of queries after which there are values of the study of k and r."""
BASELINE_QUERIES = 5000
"""Number of queries after which there are values of the baselines."""

# Setting, K of top-K, then mean and std after each of `QUERIES`.
_SHAPES = """
k_low_r_low 1 498.6 5.2 816.4 69.7 961.0 88.9 1204.0 122.9 1401.6 80.9
k_low_r_low 10 498.6 5.2 787.4 67.2 946.2 85.7 1195.4 121.7 1397.8 81.1
k_low_r_low 50 498.6 5.2 490.2 3.7 827.2 73.2 1137.0 85.5 1367.4 123.0
k_low_r_high 1 500.2 6.6 500.2 6.6 559.8 11.6 706.8 43.2 882.8 27.4
k_low_r_high 10 500.2 6.6 487.2 5.9 549.6 8.1 699.4 44.5 871.8 26.7
k_low_r_high 50 500.2 6.6 468.2 5.2 539.6 9.9 688.4 45.7 854.0 27.5
k_high_r_low 1 498.2 7.3 614.4 46.1 663.0 41.6 753.6 36.2 870.6 58.5
k_inf_r_low 1 463.6 2.7 477.6 8.0 503.2 15.3 567.6 8.2 623.0 8.8
k_inf_r_low 10 463.6 2.7 463.6 5.6 488.6 11.3 553.2 6.6 613.0 8.3
k_inf_r_low 50 463.6 2.7 430.4 6.1 460.8 2.2 532.8 9.5 597.6 4.8
k_low_r_inf 1 501.4 11.1 501.4 11.1 501.4 11.1 501.4 11.1 501.4 11.1
k_low_r_inf 10 501.4 11.1 487.2 8.5 487.2 8.5 487.2 8.5 487.2 8.5
k_low_r_inf 50 501.4 11.1 470.2 7.9 470.2 7.9 470.2 7.9 470.2 7.9
k_inf_r_inf 1 464.2 3.1 464.2 3.1 464.2 3.1 464.2 3.1 464.2 3.1
k_inf_r_inf 10 464.2 3.1 454.8 3.7 454.8 3.7 454.8 3.7 454.8 3.7
k_inf_r_inf 50 464.2 3.1 440.4 6.2 440.4 6.2 440.4 6.2 440.4 6.2
"""
_EXPRESSIONS = """
k_low_r_low 1 -4.988 1.029 -1.112 0.304 -0.586 0.138 -0.480 0.122 -0.480 0.122
k_low_r_low 10 -4.988 1.029 -3.455 0.104 -2.168 0.393 -1.615 0.359 -1.465 0.397
k_low_r_low 50 -4.988 1.029 -7.000 0.000 -6.177 1.164 -4.505 0.539 -3.955 0.323
k_low_r_high 1 -4.988 1.029 -1.112 0.304 -0.873 0.420 -0.681 0.211 -0.681 0.211
k_low_r_high 10 -4.988 1.029 -3.455 0.104 -2.297 0.411 -1.502 0.471 -1.436 0.493
k_low_r_high 50 -4.988 1.029 -7.000 0.000 -5.216 1.268 -3.794 0.191 -3.384 0.479
k_high_r_low 1 -5.684 0.566 -1.769 0.824 -1.690 0.715 -1.303 0.223 -1.287 0.208
k_high_r_low 10 -5.684 0.566 -3.699 0.044 -3.411 0.199 -2.964 0.262 -2.622 0.073
k_high_r_low 50 -5.684 0.566 -6.442 0.709 -4.909 0.196 -4.203 0.151 -3.887 0.109
k_inf_r_low 1 -4.783 0.208 -2.174 1.142 -1.216 0.659 -0.763 0.036 -0.763 0.036
k_inf_r_low 10 -4.783 0.208 -3.723 0.269 -3.435 0.236 -2.813 0.160 -2.370 0.238
k_inf_r_low 50 -4.783 0.208 -6.034 0.718 -5.352 1.173 -4.145 0.381 -3.635 0.343
k_low_r_inf 1 -4.988 1.029 -1.112 0.304 -0.873 0.420 -0.672 0.205 -0.672 0.205
k_low_r_inf 10 -4.988 1.029 -3.455 0.104 -2.297 0.411 -1.876 0.268 -1.809 0.348
k_low_r_inf 50 -4.988 1.029 -7.000 0.000 -5.216 1.268 -4.634 1.241 -3.722 0.960
k_inf_r_inf 1 -4.783 0.208 -2.174 1.142 -1.876 0.960 -1.520 0.535 -1.184 0.283
k_inf_r_inf 10 -4.783 0.208 -3.723 0.269 -3.415 0.259 -2.841 0.199 -2.507 0.172
k_inf_r_inf 50 -4.783 0.208 -6.034 0.718 -4.690 0.519 -3.776 0.100 -3.433 0.184
"""
_MOLECULES = """
k_low_r_low 1 3.831 0.922 5.642 0.465 6.170 0.429 7.202 1.682 19.656 6.000
k_low_r_low 10 3.831 0.922 4.697 0.239 5.080 0.228 6.397 1.314 15.555 4.490
k_low_r_low 50 3.831 0.922 -0.899 1.581 3.952 0.175 5.282 0.631 9.722 1.588
k_low_r_high 1 3.410 3.125 5.966 0.293 6.030 0.376 6.400 0.382 11.143 4.095
k_low_r_high 10 3.410 3.125 4.777 0.261 5.017 0.262 5.899 0.510 9.031 1.730
k_low_r_high 50 3.410 3.125 -2.518 1.534 4.013 0.166 4.986 0.247 7.761 1.069
k_high_r_low 1 3.379 1.625 5.608 0.794 5.824 0.676 6.040 0.582 7.698 2.196
k_high_r_low 10 3.379 1.625 4.409 0.339 4.826 0.218 5.312 0.345 6.432 1.145
k_high_r_low 50 3.379 1.625 -1.533 2.080 3.466 0.164 4.505 0.311 5.579 0.870
k_inf_r_low 1 2.681 2.496 5.928 0.176 5.928 0.176 6.329 0.398 6.926 0.674
k_inf_r_low 10 2.681 2.496 4.275 0.170 4.675 0.152 5.415 0.451 6.341 0.749
k_inf_r_low 50 2.681 2.496 -2.538 0.892 3.265 0.209 4.528 0.239 5.456 0.687
k_low_r_inf 1 4.069 1.465 5.804 0.289 5.899 0.253 6.031 0.490 6.033 0.494
k_low_r_inf 10 4.069 1.465 4.929 0.369 5.203 0.404 5.509 0.671 5.620 0.675
k_low_r_inf 50 4.069 1.465 0.124 0.268 4.019 0.335 4.946 0.666 5.269 0.744
k_inf_r_inf 1 3.951 1.383 5.592 0.159 5.592 0.159 5.713 0.286 5.713 0.286
k_inf_r_inf 10 3.951 1.383 4.354 0.212 4.686 0.189 5.049 0.241 5.259 0.239
k_inf_r_inf 50 3.951 1.383 -2.827 2.537 3.505 0.165 4.446 0.111 4.890 0.212
"""
_SETTINGS = {
    "shapes": _SHAPES,
    "expressions": _EXPRESSIONS,
    "molecules": _MOLECULES,
}
# Method, K of top-K, mean and std at the end of the run. Quantile 0.95, 200
# queries per round; RWR with alpha 1e-3 (shapes) or 1e-1 (molecules).
_BASELINES = {
    "shapes": """
        cem_pi 1 621.0 10.4
        cem_pi 10 584.7 10.5
        cem_pi 50 566.0 5.7
        dbas 1 580.3 5.2
        dbas 10 564.0 8.0
        dbas 50 547.3 7.4
        fb 1 462.3 19.3
        fb 10 424.3 4.2
        fb 50 400.0 0.0
        rwr 1 499.3 20.7
        rwr 10 447.7 19.3
        rwr 50 410.0 11.3""",
    "molecules": """
        cem_pi 1 4.582 0.093
        cem_pi 10 4.295 0.016
        cem_pi 50 3.979 0.057
        dbas 1 4.666 0.128
        dbas 10 4.219 0.042
        dbas 50 3.903 0.022
        fb 1 3.717 0.013
        fb 10 3.175 0.080
        fb 50 2.677 0.040
        rwr 1 3.668 0.226
        rwr 10 3.176 0.032
        rwr 50 2.726 0.029""",
}

TITLES = {
    "k_low_r_low": "k = 1e-3, r low",
    "k_low_r_high": "k = 1e-3, r high",
    "k_high_r_low": "k = 1e-1, r low",
    "k_inf_r_low": "k = inf, r low (only retraining)",
    "k_low_r_inf": "k = 1e-3, r = inf (only weights)",
    "k_inf_r_inf": "k = inf, r = inf (standard)",
    "cem_pi": "CEM-PI",
    "dbas": "DbAS",
    "fb": "FB-VAE",
    "rwr": "RWR",
}
"""Descriptions of the settings, by name."""

_OTHER_NAMES = {
    "weighted_retraining": "k_low_r_low",
    "weighted_retraining_r_high": "k_low_r_high",
    "weighted_retraining_k_high": "k_high_r_low",
    "retrain_only": "k_inf_r_low",
    "weight_only": "k_low_r_inf",
    "lso": "k_inf_r_inf",
    "standard": "k_inf_r_inf",
    "standard_lso": "k_inf_r_inf",
    "cempi": "cem_pi",
    "fb_vae": "fb",
}


class Value(NamedTuple):
    """A published mean and population standard deviation."""

    mean: float
    spread: float


def setting_of(name: str) -> str | None:
    """Returns the published setting that a name refers to, or None."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    plain = _OTHER_NAMES.get(plain, plain)
    return plain if plain in TITLES else None


def find(
    task: str, setting: str, k: int, maximise: bool = True
) -> dict[int, Value]:
    """Returns the published values of a setting.

    Args:
      task: "shapes", "expressions" or "molecules"; there are no values of
        other tasks.
      setting: Name of the setting; see `setting_of`.
      k: K of top-K.
      maximise: Whether larger scores of the caller are better; otherwise the
        signs of the means are changed.

    Returns:
      Values by number of queries, in ascending order; empty if there are none.
    """
    known = _parsed(task).get((setting_of(setting), k), {})
    sign = 1.0 if maximise else -1.0
    return {
        queries: value._replace(mean=sign * value.mean)
        for queries, value in known.items()
    }


@functools.cache
def _parsed(task: str) -> dict[tuple[str | None, int], dict[int, Value]]:
    found = {}
    for texts, queries in (
        (_SETTINGS, QUERIES),
        (_BASELINES, (BASELINE_QUERIES,)),
    ):
        for line in texts.get(task, "").strip().splitlines():
            setting, k, *words = line.split()
            numbers = [float(word) for word in words]
            values = map(Value, numbers[::2], numbers[1::2])
            found[setting, int(k)] = dict(zip(queries, values, strict=True))
    return found  # type: ignore[return-value]
