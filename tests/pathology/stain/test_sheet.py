"""The page of tiles before and after."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pathology.stain import StainSettings, fit_image, reference_profile
from pathology.stain.sheet import SheetSlide, distance, write_sheet


class Page(HTMLParser):
    """Collects images and whatever would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.images, self.fetched, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                (self.images if value.startswith("data:image/jpeg") else self.fetched).append(value)


@pytest.fixture
def tiles(rng):
    return [rng.integers(0, 255, (300, 300, 3), dtype=np.uint8) for _ in range(4)]


def test_the_page_shows_slides_before_and_after_and_fetches_nothing(make_tissue, tiles, tmp_path):
    target = reference_profile("macenko")
    profile = fit_image(make_tissue(5000)[0])
    slides = [
        SheetSlide("<case> 1", profile, tiles[:2], tiles[2:]),
        SheetSlide("case 2", profile),
    ]
    path = write_sheet(target, slides, tmp_path / "s.html", {"turns": tiles[:1]})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert "script" not in page.tags
    assert "&lt;case&gt; 1" in text
    assert "of which 1 are shown with tiles" in text
    assert "published reference" in text
    assert text.count("° apart") == 3
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(i.split(",")[1])))) for i in page.images
    ]
    assert [image.shape for image in images] == [(160, 160, 3)] * 5
    # In order: before, after, augmented.
    means = [image.mean() for image in images]
    expected = [tile.mean() for tile in (*tiles, tiles[0])]
    np.testing.assert_allclose(means, expected, atol=1.5)


def test_swatches_are_the_stains_on_glass(make_tissue, tmp_path):
    target = reference_profile("macenko")
    text = write_sheet(target, [], tmp_path / "s.html").read_text(encoding="utf-8")
    light = 240 * np.exp(-1.9705 * np.array([0.5626, 0.7201, 0.4062]))
    fills = re.findall(r'fill="#([0-9a-f]{6})"', text)
    seen = [int(fills[0][i : i + 2], 16) for i in (0, 2, 4)]
    np.testing.assert_allclose(seen, light, atol=0.6)
    assert fills[2] == "f0f0f0"


def test_reinhards_page_has_mean_colours(make_tissue, tmp_path):
    target = fit_image(make_tissue(5000)[0], StainSettings("reinhard"), name="atlas.png")
    slides = [SheetSlide("a", target)]
    text = write_sheet(target, slides, tmp_path / "s.html").read_text(encoding="utf-8")
    assert "Target: atlas.png" in text
    assert text.count("mean colour L* a* b*") == 2
    assert "glass as well" in text


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_a_slide_of_other_colours_lies_farther_away(make_tissue, method):
    settings = StainSettings(method)
    target, near = (fit_image(make_tissue(5000)[0], settings) for _ in range(2))
    far = fit_image(make_tissue(5000, strength=0.04)[0], settings)
    assert distance(target, target) == 0
    assert distance(near, target) < distance(far, target)
