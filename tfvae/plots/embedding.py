# SPDX-License-Identifier: Apache-2.0
"""Pictures and figures as text, for HTML pages that need no other file.

Pictures become data URIs, scaled down past a stated size; figures of matplotlib
become SVG elements in the colours of the page.
"""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

import matplotlib
import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from tfvae.plots.figures import COLOURS, GREY

MAX_SIDE = 1280
"""Longest side of an embedded picture in pixels."""
MAX_EXACT = 2**20
"""Values, of all channels, up to which an embedded picture is exact."""
JPEG_QUALITY = 90

_MID_GREY = 0.5
_SVG = "{http://www.w3.org/2000/svg}"
# What matplotlib draws -> properties of the page that shows it.
_PAGE_COLOURS = {
    "#000000": "currentColor",
    GREY: "currentColor",
    "#dddddd": "var(--line)",
    COLOURS[0].lower(): "var(--curve)",
}


class Embedded(NamedTuple):
    """A picture as a data URI, with 8 bits per channel."""

    uri: str
    width: int
    height: int
    is_reduced: bool
    """Whether it is smaller than the original."""
    is_lossy: bool
    """Whether it is JPEG."""


def embedded(picture: np.ndarray) -> Embedded:
    """Encodes a picture as a data URI.

    Sides beyond `MAX_SIDE` are scaled down, averaging pixels, in the same
    proportion. PNG up to `MAX_EXACT` values, JPEG beyond.

    Args:
      picture: `[height, width, 1 or 3]` on 0..1, without NaN; values are
        clipped.
    """
    if picture.shape[-1] == 3 and (picture == picture[..., :1]).all():
        picture = picture[..., :1]
    values = np.rint(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8)
    if values.shape[-1] == 1:
        image = PIL.Image.fromarray(values[..., 0])
    else:
        image = PIL.Image.fromarray(values)
    longest = max(image.size)
    if longest > MAX_SIDE:
        width, height = (
            max(1, round(side * MAX_SIDE / longest)) for side in image.size
        )
        image = image.resize((width, height), PIL.Image.Resampling.BOX)
    is_lossy = image.width * image.height * values.shape[-1] > MAX_EXACT
    buffer = io.BytesIO()
    if is_lossy:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(buffer, "PNG")
    kind = "jpeg" if is_lossy else "png"
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Embedded(
        f"data:image/{kind};base64,{content}",
        image.width,
        image.height,
        longest > MAX_SIDE,
        is_lossy,
    )


def signed_limit(values: np.ndarray, share: float = 0.999) -> float:
    """Returns the magnitude below which a share of the values is.

    Args:
      values: Any shape; NaN is left out.
      share: The share, from 0 to 1.

    Returns:
      The magnitude, 0 if all values are 0 or there are none.
    """
    magnitudes = np.abs(values[np.isfinite(values)])
    if not magnitudes.size:
        return 0.0
    # Of mostly zeros it would be zero, too.
    return float(np.quantile(magnitudes, share)) or float(magnitudes.max())


def signed(values: np.ndarray, limit: float) -> np.ndarray:
    """Returns signed values on 0..1, where 0 is mid-grey.

    Args:
      values: Any shape; NaN is drawn as 0.
      limit: The magnitude that is drawn black or white, positive.

    Returns:
      The same shape, float64.
    """
    shown = np.nan_to_num(values.astype(np.float64) / limit)
    return np.clip(_MID_GREY * (1.0 + shown), 0.0, 1.0)


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Returns a figure as an SVG element for HTML, in the page's colours.

    Black and grey become `currentColor`, lines of the grid the custom property
    `--line`, and the first colour of curves `--curve`. Texts are texts.

    Args:
      figure: The figure, whose texts and axes are black.
      name: Prefix of all identifiers, unique on the page.
      description: Text for those who do not see the figure.
    """
    buffer = io.BytesIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.04,
            metadata={"Date": None},
        )
    root = ET.fromstring(buffer.getvalue())
    return _html_element(root, name, description)


def _html_element(root: ET.Element, name: str, description: str) -> str:
    """Converts an SVG document to an element without namespaces."""
    for parent in [*root.iter()]:
        for child in [*parent]:
            if child.tag == f"{_SVG}style" or child.tag == f"{_SVG}metadata":
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for key, value in [*element.attrib.items()]:
            del element.attrib[key]
            element.set(key.rpartition("}")[2], _local(value, key, name))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", description)
    return ET.tostring(root, encoding="unicode")


def _local(value: str, key: str, name: str) -> str:
    """Returns an attribute with the page's colours and unique identifiers."""
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"^#", f"#{name}-", value) if "href" in key else value
    value = value.replace("url(#", f"url(#{name}-")
    for drawn, shown in _PAGE_COLOURS.items():
        value = value.replace(drawn, shown)
    return value
