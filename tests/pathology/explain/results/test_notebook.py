"""What a notebook shows of an explanation: its picture and its ledger, escaped and small."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pathology.explain.ledger import Ledger, Undivided
from pathology.explain.results.shown import Shown
from pathology.explain.results.view import SlideView
from pathology.geometry import Box, Mpp, Size
from pathology.maps.pyramid import shrink
from pathology.maps.slide_map import SlideMap

LEDGER = Ledger(-1.25, -2.0, 0.5, 0.25, 1e-4, {"position <code>": 0.0})


class Made(Shown):
    """An explanation of these parts."""

    def __init__(self, slide_id, ledger, slide_map, view):
        self.slide_id, self.target, self.ledger = slide_id, f"{slide_id} for", ledger
        self.slide_map, self.view, self.record = slide_map, view, {}
        self.tiles = pd.DataFrame()

    def overview(self, max_side):
        return shrink(self.slide_map, max_side)


class Tags(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.attributes = set(), "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def made(slide_id="case", ledger=LEDGER, side=700, view=True):
    """A noisy map on a noisy slide: no picture is harder to keep small."""
    rng = np.random.default_rng(0)
    box, mpp = Box(0, 0, 7000.0, 7000.0), Mpp(0.25, 0.25)
    slide_map = SlideMap(rng.normal(size=(side, side)), box, mpp, "logit")
    thumbnail = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Made(
        slide_id,
        ledger,
        slide_map,
        SlideView(Size(7000.0, 7000.0), mpp, thumbnail) if view else None,
    )


def picture(page):
    [code] = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return Image.open(io.BytesIO(base64.b64decode(code)))


def test_the_page_tells_target_score_and_ledger():
    seen = Tags(made()._repr_html_())
    for told in (
        "case for",
        "score \u22121.250 logits",
        "\u22122.000000",
        "+0.500000",
        "+0.250000",
    ):
        assert told in seen.text
    assert "gap (tolerance 1.0e-04)" in seen.text
    assert "The ledger closes" in seen.text
    assert seen.tags <= {"div", "p", "strong", "img", "table", "tr", "th", "td"}


@pytest.mark.parametrize(
    "name", ['<img src=x onerror="alert(1)">', '"><script>1</script>', "a&b 病"]
)
def test_names_are_escaped(name):
    seen = Tags(made(name, side=8)._repr_html_())
    assert name in seen.text
    assert "script" not in seen.tags
    assert not [value for key, value in seen.attributes if key == "onerror"]
    assert next(value for key, value in seen.attributes if key == "alt").startswith(name)


def test_it_stays_small_and_sharp():
    page = made()._repr_html_()
    assert len(page) < 400_000
    assert picture(page).width > 800  # shown 600 wide


def test_the_map_is_shown_without_a_slide_too():
    shown = picture(made(view=False, side=8)._repr_html_())
    assert np.ptp(np.asarray(shown)) > 100


def test_a_ledger_that_does_not_close_is_told_in_words():
    assert "NOT close" in made(ledger=replace(LEDGER, map_sum=0.7), side=8)._repr_html_()


def test_a_ledger_by_itself_and_what_is_undivided():
    ledger = replace(LEDGER, undivided=Undivided(12, -0.125, 0.5))
    seen = Tags(ledger._repr_html_())
    assert "12 tiles are undivided" in seen.text
    assert "\u22120.125000 of the map, 0.500000 without signs" in seen.text
    assert "position <code>" in seen.text
    assert "img" not in seen.tags
