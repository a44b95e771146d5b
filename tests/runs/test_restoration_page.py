# SPDX-License-Identifier: Apache-2.0
"""The page of a restoration: valid, self-contained, and it shows what is."""

from __future__ import annotations

import base64
import datetime
import html.parser
import io
import pathlib
import re
import shlex

import numpy as np
import PIL.Image
import tensorflow as tf
from absl.testing import parameterized

import tfvae
from tfvae.data import images
from tfvae.data.formats import Image
from tfvae.runs import restoration_page
from tfvae.runs.restoration_page import Outcome
from tfvae.runs.run_directory import RunDirectory

NASTY = """<b>&"x'$y</b><script>alert(1)</script>"""
ROWS = [
    {"epoch": "1", "bound": "-89", "noise_std": "30", "psnr": ""},
    {"epoch": "2", "bound": "-88", "noise_std": "25", "psnr": "20"},
    {"epoch": "3", "bound": "-87", "noise_std": "20", "psnr": "25.5"},
]
_VOID = {"br", "hr", "img", "input", "link", "meta"}


class Parsed(html.parser.HTMLParser):
    """A page: elements with attributes, texts by enclosing element."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        for tag in {*self._open}:
            self.texts[tag] = self.texts.get(tag, "") + data

    def attributes(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def outcome(folder, image, restored, clean=None, **settings):
    """Returns what a page is about, without any training."""
    restoration = tfvae.Restoration(
        image, clean, (4, 4), name=settings.pop("name", "photo"), **settings
    )
    summary = {
        "epochs": 3,
        "bound": -87.0,
        "noise_std": restoration.in_units(20.0)[0],
        "training_seconds": 252.4,
        "command": shlex.join(
            ["/usr/bin/tfvae", "denoise", f"--image={NASTY}.png"]
        ),
        "versions": {"tfvae": tfvae.__version__, "tensorflow": "2"},
    }
    if clean is not None:
        summary |= {"psnr": 25.5, "ssim": 0.75, "corrupted_psnr": 20.0}
    ended = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    return Outcome(
        pathlib.Path(folder), restoration, restored, ROWS[:1], summary, ended
    )


def example(folder, channels=1, size=(40, 48), **settings):
    """Returns the outcome of a photograph whose noise has been halved."""
    rng = np.random.default_rng(0)
    clean = images.embedded_image("camera", size=size)
    clean = np.repeat(clean, channels, axis=2)
    noise = rng.normal(0.0, 20.0, clean.shape).astype(np.float32)
    return outcome(
        folder, clean + noise, clean + 0.5 * noise, clean, **settings
    )


def panels(parsed):
    return [one["id"] for one in parsed.attributes("section")]


def decoded(uri):
    content = base64.b64decode(uri.partition(",")[2])
    return np.asarray(PIL.Image.open(io.BytesIO(content)))


class PageTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def _page(self, made):
        text = restoration_page.page(made)
        return text, Parsed(text)

    def test_page_has_all_panels_of_a_complete_run(self):
        np.save(self.folder / "uncertainty.npy", 12.5 * np.eye(8))
        made = example(self.folder, value_range=images.ValueRange(0.0, 65535.0))
        _, parsed = self._page(made._replace(rows=ROWS))
        self.assertEqual(
            panels(parsed),
            ["comparison", "detail", "residual", "uncertainty", "psnr"]
            + ["bound", "noise-std", "picture", "summary"],
        )
        # The noise is in the picture's units.
        drawings = [one["aria-label"] for one in parsed.attributes("svg")]
        self.assertEqual(
            drawings,
            [
                "PSNR over epochs, at the end 25.5",
                "Bound over epochs, at the end -87",
                "Noise over epochs, at the end 5140",
            ],
        )
        self.assertEqual(parsed.texts["title"], "photo, restored")
        for said in ("standard deviation, 7.84 % of the range", "4 min 12 s"):
            self.assertIn(said, parsed.texts["dl"])
        self.assertIn("before: 20.00 dB", parsed.texts["dl"])
        self.assertIn("40 x 48 pixels, grey, uint8", parsed.texts["ul"])
        self.assertIn("-87", parsed.texts["table"])
        self.assertIn("white 12.5 and more.", parsed.texts["figcaption"])
        self.assertIn(tfvae.__version__, parsed.texts["footer"])
        self.assertIn("2026-01-02 03:04 UTC", parsed.texts["footer"])

    def test_page_needs_no_other_file(self):
        text, parsed = self._page(example(self.folder, 3)._replace(rows=ROWS))
        code = re.sub(r"base64,[\w+/=]+", "", text)
        self.assertEmpty(re.findall(r"https?:|//\w|@import|srcset", code))
        for _, attributes in parsed.elements:
            for name in ("src", "href", "data", "action", "poster"):
                value = attributes.get(name, "data:")
                self.assertTrue(value.startswith(("data:", "#")), value)
        policies = [
            one["content"]
            for one in parsed.attributes("meta")
            if one.get("http-equiv") == "Content-Security-Policy"
        ]
        self.assertStartsWith(policies[0], "default-src 'none'; img-src data:;")

    def test_identifiers_are_unique_and_pictures_described(self):
        _, parsed = self._page(example(self.folder)._replace(rows=ROWS))
        ids = [a["id"] for _, a in parsed.elements if "id" in a]
        self.assertCountEqual(ids, set(ids))
        for one in parsed.attributes("img"):
            self.assertNotEmpty(one["alt"])
        for one in parsed.attributes("svg"):
            self.assertNotEmpty(one["aria-label"])

    def test_names_and_commands_are_text(self):
        text, parsed = self._page(example(self.folder, name=NASTY))
        self.assertEqual(parsed.texts["h1"], f"{NASTY} restored")
        self.assertEqual(parsed.texts["title"], f"{NASTY}, restored")
        self.assertEqual(
            shlex.split(parsed.texts["pre"]),
            ["tfvae", "denoise", f"--image={NASTY}.png"],
        )
        self.assertEmpty(parsed.attributes("b"))
        self.assertLen(re.findall("<script>", text), 1)
        alts = [one["alt"] for one in parsed.attributes("img")]
        self.assertIn(f"Before: {NASTY}", alts)

    def test_without_clean_picture_there_are_neither_scores_nor_choice(self):
        made = example(self.folder)
        made = outcome(self.folder, made.restoration.image, made.restored)
        _, parsed = self._page(made)
        self.assertEqual(
            panels(parsed),
            ["comparison", "detail", "residual", "picture"] + ["summary"],
        )
        self.assertNotIn("PSNR", parsed.texts["dl"])
        views = [a.get("data-view") for a in parsed.attributes("img")]
        self.assertEqual(views[:3], ["before", "after", None])
        self.assertEmpty(parsed.attributes("fieldset"))

    def test_pictures_are_drawn_as_the_figures_draw_them(self):
        made = example(self.folder)
        _, parsed = self._page(made)
        before, after, clean = parsed.attributes("img")[:3]
        for one, picture in (
            (before, made.restoration.image),
            (after, made.restored),
            (clean, made.restoration.clean),
        ):
            expected = np.rint(np.clip(picture[..., 0], 0.0, 255.0))
            self.assertAllEqual(decoded(one["src"]), expected)
            self.assertEqual((one["width"], one["height"]), ("48", "40"))

    def test_residual_is_around_mid_grey_on_the_scale_it_states(self):
        made = example(self.folder)
        image = made.restoration.image.copy()
        image[3, 5] = np.nan
        # On -1000..3080: 16 units for each of 0..255.
        made = outcome(
            self.folder,
            image,
            made.restored,
            value_range=images.ValueRange(-1000.0, 3080.0),
            source=Image(np.zeros((40, 48, 1), np.float32)),
        )
        text, parsed = self._page(made)
        (limit,) = re.findall(r"white \+([\d.]+), in the picture", text)
        (one,) = [
            one
            for one in parsed.attributes("img")
            if one["alt"].startswith("Residual")
        ]
        drawn = decoded(one["src"]).astype(float)
        residual = 16.0 * (image - made.restored)[..., 0]
        residual[3, 5] = 0.0
        self.assertEqual(drawn[3, 5], 128.0)
        expected = np.clip(127.5 * (1.0 + residual / float(limit)), 0.0, 255.0)
        self.assertAllClose(drawn, expected, atol=0.6)
        self.assertIn("320 standard", " ".join(parsed.texts["dl"].split()))

    def test_residual_of_kept_values_is_left_out(self):
        image = np.rint(images.embedded_image("camera", size=(20, 20)))
        restored = image.copy()
        image[4:6, 4:6] = np.nan
        made = outcome(self.folder, image, restored, keep_observed=True)
        _, parsed = self._page(made)
        self.assertNotIn("residual", panels(parsed))
        self.assertIn("1 % of the values", " ".join(parsed.texts["dl"].split()))
        self.assertIn("Missing values are blue", parsed.texts["section"])

    @parameterized.parameters((2, "first"), (5, "first 3"))
    def test_channels_that_are_not_seen_are_said(self, channels, which):
        _, parsed = self._page(example(self.folder, channels))
        self.assertIn(
            f"Of {channels} channels the {which} can be seen.",
            parsed.texts["section"],
        )

    @parameterized.parameters(
        (np.uint16, (0.0, 65535.0)), (np.float32, (-1319.0, 5132.0))
    )
    def test_picture_in_other_units_is_shown_from_black_to_white(
        self, dtype, ends
    ):
        made = example(
            self.folder,
            value_range=images.ValueRange(*ends),
            source=Image(
                np.linspace(*ends, 40 * 48).astype(dtype).reshape(40, 48, 1)
            ),
        )
        _, parsed = self._page(made)
        shown = decoded(parsed.attributes("img")[1]["src"])
        expected = np.rint(np.clip(made.restored[..., 0], 0.0, 255.0))
        self.assertAllEqual(shown, expected)
        self.assertIn(f"{ends[0]:.7g} to {ends[1]:.7g}", parsed.texts["main"])

    def test_page_of_one_of_several_has_its_own_noise_and_scores(self):
        made = example(self.folder)
        run = RunDirectory(self.folder)
        summary = {"epochs": 3, "noise_std": 77.0, "psnr": 31.0, "ssim": 0.5}
        run.write_json("summary.json", summary)
        path = restoration_page.write(
            run,
            made.restoration,
            made.restored,
            ROWS,
            scores={"noise_std": 12.75},
        )
        text = path.read_text(encoding="utf-8")
        self.assertIn("standard deviation, 5 % of the range", text)
        self.assertNotIn("77", Parsed(text).texts["strong"])
        self.assertNotIn("31.00 dB", text)

    def test_reduced_picture_is_said_and_its_detail_is_exact(self):
        rng = np.random.default_rng(0)
        image = rng.uniform(0.0, 255.0, (1300, 130, 1)).astype(np.float32)
        made = outcome(self.folder, image, image[::-1].copy(), stride=4)
        _, parsed = self._page(made)
        self.assertIn(
            "Scaled down from 130 × 1300 to 128 × 1280 pixels",
            parsed.texts["section"],
        )
        first, _, detail, *_ = parsed.attributes("img")
        self.assertEqual((first["width"], first["height"]), ("128", "1280"))
        ((left, top),) = re.findall(
            r"column (\d+) and row (\d+)", parsed.texts["section"]
        )
        left, top = int(left), int(top)
        crop = image[top : top + 32, left : left + 32, 0]
        self.assertAllEqual(decoded(detail["src"]), np.rint(crop))


if __name__ == "__main__":
    tf.test.main()
