"""Figures in a real browser, as Pillow reads them; and numbers as people do."""

import json
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.pathology.viewer.browser.tool_page import (
    CASE,
    brute_sum,
    geometry_of,
    record_of,
)  # fmt: skip


def test_figure_says_what_it_is_of(viewer, page, tmp_path):
    entries = [viewer.entry("cnn"), viewer.entry("vit")]
    viewer.open(*entries)
    (region,) = viewer.draw([(300, 250), (600, 250), (600, 500)])
    viewer.ask("app => app.store.set({tool: 'pan'})")
    with page.expect_download() as caught:
        page.keyboard.press("Shift+S")
    path = tmp_path / caught.value.suggested_filename
    caught.value.save_as(path)
    assert path.name.startswith(CASE)
    with Image.open(path) as picture:
        picture.load()
        texts = dict(picture.text)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    record = json.loads(texts["bcos_pathology"])
    for told, entry in zip(record["explanations"], entries, strict=True):
        stored = record_of(entry)
        assert told["ledger"].items() >= stored["ledger"].items()
        assert told["settings"] == stored["settings"]
        assert told["provenance"] == stored["provenance"]
        wanted = brute_sum(entry, geometry_of(region["polygons"]))
        assert record["regions"][0]["sums"][entry.id]["sum"] == pytest.approx(wanted, abs=1e-6)
    assert f"Slide {CASE}." in texts["Description"]
    assert "logits/mm²" in texts["Description"]
    assert texts["Software"].startswith("bcos-pathology")
    assert record["address"].startswith(urlsplit(page.url)._replace(query="", fragment="").geturl())
    assert "token" not in texts["bcos_pathology"]

    # Twice the screen's pixels: what is at a place of the pane is there, behind margin and title.
    panes = page.locator(".pane-stage").first.bounding_box()
    ((x, y),) = viewer.screen([(345, 275)])  # in the fixture's dark blue mark
    left, top = (round(2 * (n + m)) for n, m in ((x - panes["x"], 20), (y - panes["y"], 46)))
    red, _, blue = pixels[top, left]
    assert blue - red > 40
    outline = np.abs(pixels - (0xC2, 0x18, 0x5B)).sum(-1) < 30
    assert outline.sum() > 500


def test_caption_says_what_is_where(viewer, page):
    entry = viewer.entry("cnn")
    viewer.open(entry)

    def caption(**patch):
        viewer.ask("(app, patch) => app.store.set(patch)", patch)
        viewer.until(
            """app => app.panes.list().length === app.store.get().panes.length &&
                app.panes.list().every((pane) => pane.slide && pane.size.width > 0)"""
        )
        with page.expect_download() as caught:
            page.keyboard.press("Shift+S")
        with Image.open(caught.value.path()) as picture:
            return picture.text["Description"]

    told = caption(layout="curtain", curtain=0.4)
    assert "Left and right of the line: the slide; " in told
    assert "60 % over the slide" in told
    assert "scale" not in told
    (pane,) = viewer.ask("app => app.store.get().panes")
    two = [pane, {**pane, "map": "density", "mode": "heat"}]
    told = caption(layout="grid", panes=two)
    assert "each kind of map on a scale of its own" in told
    labels = viewer.ask("app => app.panes.list()[0].evidence.maps.map((map) => map.label)")
    assert f"({labels[0]}, 60 % over the slide)" in told
    assert f"({labels[1]})" in told


def test_png_texts_are_right_for_any_text(module_page, tmp_path):
    texts = {
        "Title": "µm² „Ünï“ 😀",
        "Comment": "",
        "bcos_pathology": json.dumps({"a": "\u0000\n"}),
    }
    path = tmp_path / "a.png"
    made = module_page.evaluate(
        """async texts => {
            const {withTexts} = await import('/static/tools/png_text.js');
            const canvas = new OffscreenCanvas(3, 2);
            canvas.getContext('2d').fillRect(0, 0, 3, 2);
            const blob = await canvas.convertToBlob({type: 'image/png'});
            const made = withTexts(await blob.arrayBuffer(), texts);
            return [...new Uint8Array(await made.arrayBuffer())];
        }""",
        texts,
    )
    path.write_bytes(bytes(made))
    with Image.open(path) as picture:  # Pillow refuses a wrong checksum
        picture.load()
        assert picture.text == texts
        assert picture.size == (3, 2)
    refused = module_page.evaluate(
        """async () => {
            const {withTexts} = await import('/static/tools/png_text.js');
            try {
                withTexts(new ArrayBuffer(9), {});
            } catch (error) {
                return error.message;
            }
        }"""
    )
    assert "PNG" in refused


def test_numbers_never_read_as_zero_unless_they_are(module_page):
    told = module_page.evaluate(
        """async () => {
            const {logits, percent, plain, decimalsFor} = await import('/static/base/numbers.js');
            return [logits(0.00001, 3), logits(-3, 3), logits(0, 3), logits(null), logits(NaN),
                percent(1e-6), percent(-0.00038), percent(0), percent(0.1234),
                plain(1234.5, 5), plain(0.000123, 2), plain(0), decimalsFor([1234, 1]),
                decimalsFor([0.001]), logits(1e-17, 3)];
        }"""
    )
    assert told == [
        "+1.0e\u22125", "\u22123.000", "0.000", "", "not finite", "1.0e\u22124 %",
        "\u22120.038 %", "0.0 %", "12.3 %", "1,234.5", "0.00012", "0", 3, 6, "0.000",
    ]  # fmt: skip
