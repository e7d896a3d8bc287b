import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pathology.errors import OutputError
from pathology.explain.ledger import Ledger, Undivided
from pathology.explain.results.report import (
    Report,
    ReportTile,
    carriers,
    render_report,
    write_report,
)
from pathology.geometry import Box, Mpp, Size
from pathology.maps.slide_map import SlideMap


@pytest.fixture
def report():
    rng = np.random.default_rng(0)

    def tile(x, sign):
        return ReportTile(
            image=rng.integers(0, 256, (32, 32, 3), dtype=np.uint8),
            contributions=sign * rng.random((32, 32)) * 1e-3,
            box=Box(x, 40.0, 100.0, 100.0),
            logit=sign * 3.0,
            weights_picture=rng.integers(0, 256, (32, 32, 4), dtype=np.uint8),
        )

    values = np.full((25, 32), np.nan)
    values[5:20, 5:25] = rng.standard_normal((15, 20)) * 0.01
    return Report(
        slide_id="case 1",
        target="tumour",
        slide_size=Size(1000.0, 800.0),
        slide_mpp=Mpp(0.25, 0.5),
        thumbnail=rng.integers(0, 256, (80, 100, 3), dtype=np.uint8),
        slide_map=SlideMap(values, Box(0, 0, 1024.0, 800.0), Mpp(0.25, 0.5), "logit"),
        ledger=Ledger(2.0, -1.0, 2.75, 0.125, 1e-4, {"position code": 0.125}),
        tile_contributions=np.array([0.5, 0.3, 0.1, 0.1, -0.2]),
        tiles_for=[tile(10.0, 1), tile(200.0, 1)],
        tiles_against=[tile(400.0, -1)],
        provenance={"Model": "bcos_vit_small", "Date": "2026-11-21"},
    )


class Page(HTMLParser):
    """Tags with attributes, and the text of the page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def picture(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_nothing_is_fetched_from_anywhere(report, tmp_path):
    html = write_report(tmp_path / "report.html", report).read_text(encoding="utf-8")
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert not page.all("link")
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:image/", "#")) or (
                attributes.get(name, "data:") == "data:"
            )
        assert not any(name == "style" or name.startswith("on") for name in attributes)


def test_policy_names_exactly_this_style_and_script(report):
    html = render_report(report)
    policy = Page(html).all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_words_from_outside_are_escaped(report):
    evil = '"><script>alert(1)</script>'
    html = render_report(
        replace(
            report,
            slide_id=evil,
            target=evil,
            provenance={evil: evil},
            ledger=replace(report.ledger, constants={evil: 0.125}),
        )
    )
    assert "<script>alert" not in html
    assert len(Page(html).all("script")) == 1


def test_ledger_is_ticked_only_when_it_closes(report):
    closed = Page(render_report(report)).text
    assert "✓ The ledger closes" in closed
    assert "position code +0.125000" in closed
    assert "together +2.000000 score of the model +2.000000" in closed
    open_ledger = Page(
        render_report(replace(report, ledger=replace(report.ledger, cut_off=0.0)))
    ).text
    assert "✓" not in open_ledger
    assert "The parts do not add up to the score." in open_ledger


def test_says_how_concentrated_the_evidence_is(report):
    text = Page(render_report(report)).text
    assert "2 tiles carry 80 % of the evidence for (+1.000 logits on 4 of 5 tiles)" in text
    assert (
        "1 tile carries 80 % of the evidence against (\u22120.200 logits on 1 of 5 tiles)" in text
    )


def test_map_is_placed_by_its_own_box_in_micrometres(report):
    page = Page(render_report(report))
    heat = next(image for image in page.all("image") if image.get("id") == "heat")
    assert (float(heat["width"]), float(heat["height"])) == (256.0, 400.0)
    assert "0 0 250.0 400.0" in [svg["viewbox"] for svg in page.all("svg")]
    # Pixels as they are, unsmoothed; clear where nothing was measured.
    pixels = picture(heat["href"])
    assert pixels.shape == (25, 32, 4)
    assert not pixels[0, 0, 3]


def test_tiles_show_logit_share_and_place(report):
    page = Page(render_report(report))
    first = report.tiles_for[0]
    assert f"F1 {first.contribution:+.4f} logits" in page.text
    assert f"{100 * first.contribution / 1.0:.1f} % of all evidence for" in page.text
    assert "own logit +3.00; at (10, 40) px of level 0, (2, 20) µm" in page.text
    assert "A1 \u2212" in page.text
    tiles = [image for image in page.all("img") if "A1" in image["alt"]]
    assert len(tiles) == 3


def test_everything_has_words_for_who_cannot_see(report):
    page = Page(render_report(report))
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg.get("aria-label") for svg in page.all("svg"))
    labels = {label["for"] for label in page.all("label")}
    assert labels == {control["id"] for control in page.all("input")}
    assert page.all("html")[0]["lang"] == "en"


def test_says_what_a_map_is_not(report):
    text = Page(render_report(report)).text
    assert "Research use; a map shows what the model used, not what is true." in text
    assert "beyond the colours" in text


def test_a_depth_is_not_passed_off_as_pixels(report):
    html = render_report(replace(report, depth="layer3"))
    assert "feature maps at depth\n  <em>layer3</em>" in html
    assert "A place there has seen its surroundings" in html
    assert "contributions of its places at layer3" in html
    assert "weighted sum of its pixels" not in html
    assert "at depth" not in render_report(report)


def test_a_bare_report_still_renders(report):
    bare = replace(
        report,
        tiles_for=(),
        tiles_against=(),
        tile_contributions=np.zeros(0),
        provenance={},
        slide_map=replace(report.slide_map, values=np.full((2, 2), np.nan)),
    )
    assert "The tiles that argue most" not in Page(render_report(bare)).text


@pytest.mark.parametrize(
    ("amounts", "share", "count"),
    [
        ([0.5, 0.3, 0.1, 0.1, -5.0], 0.8, 2),
        ([0.5, 0.3, 0.1, 0.1], 0.81, 3),
        ([0.1] * 10, 1.0, 10),
        ([-1.0, 0.0], 0.8, 0),
        ([], 0.8, 0),
    ],
)
def test_carriers_are_the_fewest(amounts, share, count):
    assert carriers(np.array(amounts, dtype=float), share) == count


def test_a_folder_in_the_way_is_one_line(report, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written") as error:
        write_report(tmp_path / "file" / "report.html", report)
    assert "\n" not in str(error.value)


def test_tiles_that_were_not_taken_apart_are_told(report):
    assert "not taken apart" not in Page(render_report(report)).text
    ledger = replace(report.ledger, undivided=Undivided(7, -0.25, 0.5))
    text = Page(render_report(replace(report, ledger=ledger))).text
    assert "\u22120.250000 logits are of 7 tiles that were not taken apart (0.500000 with" in text


def test_layers_are_shown_where_they_lie_with_what_they_are(report):
    assert "members and nulls" not in Page(render_report(report)).text
    like = report.slide_map
    spread = np.where(np.isnan(like.values), np.nan, 0.0)
    spread[10, 10] = 1.0
    layers = {
        "spread": replace(like, values=spread),
        "null_z": replace(like, values=np.sign(like.values), unit="normal score"),
        "members": replace(like, unit="members"),  # is not a picture of anything
    }
    page = Page(render_report(replace(report, layers=layers)))
    assert "standard deviation in logits per mm²" in page.text
    assert "as normal scores" in page.text
    # A pixel is 8 by 16 um: one logit on it are 7812.5 per mm2, and its grey is the darkest.
    assert "Colours go from 0 to 7900." in page.text
    pictures = [tag for tag in page.all("image") if tag["width"] == "256.0"]
    map_and_heat, shown = pictures[:2], pictures[2:]
    assert len(map_and_heat) == len(shown) == 2
    grey, signed = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(tag["href"].partition(",")[2]))))
        for tag in shown
    )
    assert grey[10, 10, :3].max() < 25
    assert grey[11, 11, :3].min() == 245
    np.testing.assert_array_equal(grey[..., 3] == 0, np.isnan(like.values))
    above, below = signed[like.values > 0], signed[like.values < 0]
    assert (above[:, 0] > above[:, 2]).all()
    assert (below[:, 0] < below[:, 2]).all()
