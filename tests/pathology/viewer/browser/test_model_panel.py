"""Asking the model in a real browser: answers are made up here, as the server would give them."""

import io
import re
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.pathology.viewer.browser.tool_page import CASE, Viewer, geometry_of, number

INDEX, BOX = 40, ("x", "y", "width", "height")


class MadeUpModel:
    """Answers of a model, as the server gives them, for one tile and one region."""

    def __init__(self, page, evidence, box):
        self.deleted, self.asked, self.held = [], [], []
        self.is_slow, self.is_held = False, False
        rng = np.random.default_rng(0)
        self.values = rng.normal(0, 40, (8, 8)).astype("<f4")
        own = {
            "number": 2.5, "contribution": 4.5, "positive": 6.0, "negative": -1.5, "bias": -2.0,
            "constants": {}, "gap": 1e-7, "tolerance": 1e-4,
        }  # fmt: skip
        each = {
            "values": "map/0", "unit": "logits/mm²", "pixel_um": [2, 2], "largest": 100.0,
            "weight": 0.01, "counts": True, "sum": 0.045, "positive": 0.06, "negative": -0.015,
            "own": own, "picture": None,
        }  # fmt: skip
        self.tile = {
            "index": INDEX, "box": box, "depth": "pixels", "explained_depth": "pixels",
            "depths": ["pixels"],
            "places": [8, 8], "tile": "tile.png", "normalised": None,
            "maps": [{**each, "target": "tumour"}, {**each, "target": "normal", "values": "map/1"}],
            "check": {
                "stored": {"contribution": 4.5}, "recomputed": {"contribution": 4.7},
                "differences": {"contribution": 0.2}, "tolerance": 1e-4, "differs": True,
                "line": "recomputed, contribution is 4.7; stored is 4.5",
            },
            "notes": ["a note"],
        }  # fmt: skip
        self.mask = {
            "target": "tumour",
            "score": {"stored": 1.0, "recomputed": 1.0, "tolerance": 1e-4, "differs": False},
            "subtraction": {"inside": 0.25, "predicted": 0.75},
            "linear": {"change": -0.5, "predicted": 0.5},
            "real": 0.6, "change": -0.4, "gaps": {"subtraction": -0.15, "linear": 0.1},
            "rounding": 1e-4, "fill": {"name": "grey", "colour": "#808080"},
            "tiles": {"run": 7, "all": 100}, "area_mm2": 0.01, "painted_mm2": 0.01,
            "depth": "pixels", "notes": [],
        }  # fmt: skip
        self.evidence = evidence
        file = io.BytesIO()
        Image.new("RGB", (8, 8), "grey").save(file, "PNG")
        self.picture = file.getvalue()
        page.route(re.compile(r"/api/(model|jobs/|evidence/[^/]*/ask/)"), self.answer)

    def answer(self, route):
        request, path = route.request, urlsplit(route.request.url).path
        if path.endswith("/api/model"):
            fills = ["background", "grey", "mean"]
            return route.fulfill(
                json={"askable": [self.evidence], "state": "ready", "problem": None, "fills": fills}
            )
        if "/ask/" in path:
            kind = path.rpartition("/")[2]
            if self.is_held:
                self.held.append(route)
                return None
            self.asked.append((kind, request.post_data_json))
            return route.fulfill(json={"job": kind})
        if request.method == "DELETE":
            self.deleted.append(path)
            return route.fulfill(json={"state": "cancelled"})
        if "/map/" in path:
            sign = -1 if path.endswith("/1") else 1
            return route.fulfill(
                body=(sign * self.values).tobytes(), content_type="application/octet-stream"
            )
        if path.endswith("tile.png"):
            return route.fulfill(body=self.picture, content_type="image/png")
        result = self.tile if path.endswith("tile") else self.mask
        state = {
            "state": "done",
            "done": 1,
            "total": 1,
            "what": "",
            "error": None,
            "result": result,
        }
        if self.is_slow:
            state |= {
                "state": "running",
                "done": 3,
                "total": 9,
                "what": "explaining",
                "result": None,
            }
        return route.fulfill(json=state)


@pytest.fixture
def asked(page, served):
    """A viewer with a made-up model, and a tile that is selected."""
    entry = next(
        each
        for each in served.library.evidence
        if each.run.name == "cnn" and each.slide.name == CASE and each.target == "tumour"
    )
    row = pd.read_parquet(entry.folder / "tiles.parquet").iloc[INDEX]
    model = MadeUpModel(page, entry.id, [float(row[name]) for name in BOX])
    viewer = Viewer(page, served)
    viewer.open(entry, panel="model")
    viewer.ask("(app, evidence) => app.store.set({tile: {evidence, index: 40}})", entry.id)
    return viewer, model


def test_a_tiles_pixels_lie_over_it_in_the_maps_colours(asked, page):
    viewer, model = asked
    viewer.until("app => !document.querySelector('[data-panel=model]').hidden")
    viewer.ask("app => app.commands.run('tile.fly')")
    page.keyboard.press("Shift+P")
    page.locator(".tool-pictures canvas").wait_for()
    assert model.asked == [("tile", {"index": INDEX})]
    assert "stored is 4.5" in page.locator(".tool-problem").first.inner_text()
    left, top, width, height = model.tile["box"]
    corners = np.array(viewer.screen([(left, top), (left + width, top + height)])).ravel()
    box = page.locator(".tool-heat").last.bounding_box()
    seen = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
    np.testing.assert_allclose(seen, corners, atol=0.5)

    # The picture's colours are those of the scale that all maps have.
    wrong = viewer.ask(
        """async (app, values) => {
            const {colouring} = await import('/static/panes/colours.js');
            const {colour} = app.store.get();
            const paint = colouring({...colour, limit: colour.limits.heatmap, signed: true});
            const canvas = document.querySelector('.tool-pictures canvas');
            const {data} = canvas.getContext('2d').getImageData(0, 0, 8, 8);
            const pixels = new Uint32Array(data.buffer);
            return values.filter((value, i) => paint(value) >>> 0 !== pixels[i]).length;
        }""",
        model.values.astype(float).ravel().tolist(),
    )
    assert wrong == 0
    page.get_by_label("Explained for").select_option(label="normal")
    flipped = page.locator(".tool-pictures canvas").get_attribute("aria-label")
    assert "normal" in flipped
    page.locator(".tool-panel").get_by_role("button", name="Let go").click()
    assert page.locator(".tool-heat, .tool-pictures").count() == 0


def test_a_tile_that_the_score_does_not_count_adds_nothing(asked, page):
    _, model = asked
    for each in model.tile["maps"]:
        each["counts"] = False
    model.tile["check"] |= {"stored": {}, "recomputed": {}, "differences": {}, "differs": False}
    page.keyboard.press("Shift+P")
    page.locator(".tool-pictures canvas").wait_for()
    tile = page.get_by_label("The tile, explained again")
    assert tile.get_by_role("rowheader", name="would add, if it counted").count() == 1
    assert "adds to the slide" not in tile.inner_text()
    assert "No number of this tile is stored" in page.locator(".model-fine").inner_text()


def test_a_question_is_followed_and_given_up(asked, page):
    viewer, model = asked
    model.is_slow = True
    page.keyboard.press("Shift+P")
    progress = page.locator(".tool-progress")
    progress.get_by_text("explaining 3 of 9").wait_for()
    assert progress.locator("progress").get_attribute("value") == "3"
    progress.get_by_role("button", name="Give up").click()
    viewer.until("app => !document.querySelector('.tool-progress')")
    assert model.deleted == ["/api/jobs/tile"]


def test_a_question_given_up_before_the_server_took_it_is_taken_back(asked, page):
    _, model = asked
    model.is_held = True
    page.keyboard.press("Shift+P")
    page.locator(".tool-progress").get_by_role("button", name="Give up").click()
    assert model.deleted == []
    (held,) = model.held
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        held.fulfill(json={"job": "late"})
    assert model.deleted == ["/api/jobs/late"]
    assert page.locator(".tool-progress").count() == 0


def test_what_is_painted_over_is_foretold_and_computed(asked, page):
    viewer, model = asked
    (region,) = viewer.draw([(300, 250), (600, 250), (600, 500)])
    page.get_by_label("Paint with").select_option("grey")
    page.keyboard.press("Shift+K")
    table = page.locator(".mask-table")
    table.wait_for()
    ((kind, body),) = model.asked
    assert (kind, body["fill"]) == ("mask", "grey")
    assert geometry_of(body["polygons"]).equals(geometry_of(region["polygons"]))
    rows = {
        row: [
            number(text) if text else None
            for text in table.locator(f"tr[data-row={row}] td").all_inner_texts()
        ]
        for row in ("before", "subtraction", "linear", "real")
    }
    assert rows == {
        "before": [1.0, None, None],
        "subtraction": [0.75, -0.25, -0.15],
        "linear": [0.5, -0.5, 0.1],
        "real": [0.6, -0.4, None],
    }
    # Of another region it is no longer told as if it were of that.
    viewer.ask("app => app.commands.run('region.view')")
    viewer.until("app => document.querySelector('.mask-table').closest('.is-pending')")


def test_without_a_model_the_panel_says_how_to_have_one(viewer, page):
    viewer.open(viewer.entry(), panel="model")
    page.get_by_text("start the viewer with --run").wait_for()
    assert page.get_by_role("button", name="Explain this tile").is_disabled()
