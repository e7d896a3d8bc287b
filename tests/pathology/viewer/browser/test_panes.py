"""Panes in a real browser, over slides and maps that are made up here and known in every pixel.

Both are painted from one list of rectangles in micrometres: black on the slide, +V in the map. So
what is seen of one must lie on the other, and on what the page says of places.
"""

import base64
import functools
import io
import json
import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

TILE = 256
NODATA = -32768
STEP = 0.001
V = 3.0
ORIGIN, PIXEL, SHAPE = (13.3, 7.9), (1.7, 1.3), (440, 600)
"""Of the map: its corner and its pixels in um, rows and columns; it reaches over the slide."""
SLIDES = {
    "s1": {"size": (2000, 1500), "mpp": (0.5, 0.4)},
    "s2": {"size": (900, 700), "mpp": (1.0, 1.0)},
}
BLOCKS = [(80, 64, 16, 24), (320, 120, 8, 8), (240, 256, 32, 16), (480, 320, 24, 16)]
"""Marks as (column, row, columns, rows) of the map: multiples of 8, so that levels keep them."""


def um(block):
    column, row, columns, rows = block
    left, top = ORIGIN[0] + column * PIXEL[0], ORIGIN[1] + row * PIXEL[1]
    return left, top, left + columns * PIXEL[0], top + rows * PIXEL[1]


def counts():
    """The map at level 0 in steps: marks, a ramp of both signs below them, and a gap."""
    values = np.zeros(SHAPE)
    for column, row, columns, rows in BLOCKS:
        values[row : row + rows, column : column + columns] = V
    values[360:392, 80:240] = np.linspace(-2, 2, 20).repeat(8)
    stored = np.rint(values / STEP).astype(np.int16)
    stored[8:40, 400:560] = NODATA
    return stored


def levels_of(stored):
    """Means of 2 x 2; what is not full of numbers has the mean of those that are there."""
    levels = [stored]
    while max(levels[-1].shape) > TILE:
        last = levels[-1].astype(float)
        last[last == NODATA] = np.nan
        last = np.pad(last, [(0, n % 2) for n in last.shape], constant_values=np.nan)
        blocks = last.reshape(last.shape[0] // 2, 2, last.shape[1] // 2, 2)
        there = np.isfinite(blocks).sum((1, 3))
        sums = np.nansum(blocks, (1, 3))
        mean = np.where(there > 0, sums / np.maximum(there, 1), NODATA)
        levels.append(np.rint(mean).astype(np.int16))
    return levels


LEVELS = levels_of(counts())


def share(index, pixel, low, high):
    """How much of pixels lies between two places."""
    return np.clip((high - index * pixel) / pixel, 0, 1) - np.clip(
        (low - index * pixel) / pixel, 0, 1
    )


@functools.cache
def slide_tile(slide, level, x, y):
    made = SLIDES[slide]
    pixel = min(made["mpp"]) * 2**level
    size = [n * mpp for n, mpp in zip(made["size"], made["mpp"], strict=True)]
    width, height = (int(np.ceil(round(side / pixel, 6))) for side in size)
    w, h = min(TILE, width - x * TILE), min(TILE, height - y * TILE)
    assert w > 0
    assert h > 0
    pixels = np.ones((h, w))
    for block in BLOCKS:
        left, top, right, bottom = um(block)
        across = share(x * TILE + np.arange(w), pixel, left, right)
        down = share(y * TILE + np.arange(h), pixel, top, bottom)
        pixels -= np.outer(down, across)
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@functools.cache
def heat_tile(level, x, y):
    values = LEVELS[level][y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
    tile = np.full((TILE, TILE), NODATA, "<i2")
    tile[: values.shape[0], : values.shape[1]] = values
    return tile.tobytes()


def slide_info(slide):
    size, mpp = SLIDES[slide]["size"], SLIDES[slide]["mpp"]
    size_um = [n * m for n, m in zip(size, mpp, strict=True)]
    longest = max(size_um) / min(mpp)
    levels = 1 + int(np.ceil(np.log2(longest / TILE)))
    told = {"id": slide, "name": f"slide {slide}", "size": size, "mpp": mpp, "size_um": size_um}
    return told | {"levels": levels, "tile_px": TILE, "background": "#ffffff"}


def evidence_info():
    box = [*ORIGIN, SHAPE[1] * PIXEL[0], SHAPE[0] * PIXEL[1]]
    one = {"name": "heatmap", "label": "evidence", "unit": "logits/mm²", "signed": True}
    one |= {"width": SHAPE[1], "height": SHAPE[0], "levels": len(LEVELS), "tile_px": TILE}
    one |= {"box_um": box, "pixel_um": PIXEL, "step": STEP, "largest": V, "limit": V}
    told = {"id": "e1", "slide": "s1", "target": "tumour", "title": "tumour", "maps": [one]}
    return told | {"tiles": 38, "tiles_note": None}


def at(x, y):
    """What the server says of a location in level-0 pixels."""
    column = int(np.floor((x * 0.5 - ORIGIN[0]) / PIXEL[0]))
    row = int(np.floor((y * 0.4 - ORIGIN[1]) / PIXEL[1]))
    inside = 0 <= column < SHAPE[1] and 0 <= row < SHAPE[0]
    n = LEVELS[0][row, column] if inside else NODATA
    return {"maps": {"heatmap": None if n == NODATA else n * STEP}, "tiles": [{"index": 37}]}


LIBRARY = {
    "runs": [{"id": "r1", "name": "cnn"}],
    "slides": [{"id": name, "name": f"slide {name}"} for name in SLIDES],
    "evidence": [{"id": "e1", "run": "r1", "slide": "s1", "target": "tumour"}],
    "limits": {"heatmap": V},
}
START = """async ({library, state}) => {
  const load = (name) => import(`/static/${name}.js`);
  const {createStore, INITIAL} = await load("base/store");
  const {createCommands} = await load("base/commands");
  const {fetchTransport} = await load("base/transport");
  const {createPanes} = await load("panes/panes");
  const root = document.body;
  root.classList.add("viewer");
  const home = document.createElement("main");
  home.style.cssText = "position: absolute; inset: 0";
  root.append(home);
  const app = {root, OpenSeadragon, library, said: [], failures: []};
  app.store = createStore({...INITIAL, page: "slide", slide: "s1", ...state});
  app.transport = fetchTransport();
  app.announce = (text) => app.said.push(text);
  app.fail = (error) => app.failures.push(String(error));
  app.notify = app.fail;
  app.commands = createCommands(app);
  root.viewer = app;
  home.append(createPanes(app).element);
  window.app = app;
}"""


WRITTEN = ".scale-bar, .mini-map, .readout, .pane-cross"


class Panes:
    """The page under test."""

    def __init__(self, page) -> None:
        self.page = page
        self.asked: list[str] = []
        page.set_viewport_size({"width": 900, "height": 560})
        page.route("http://viewer.localhost/api/**", self._answer)
        page.add_style_tag(url="/static/panes/panes.css")
        page.add_style_tag(content="body {margin: 0; --stage: #dcdcdc; --panel: #fff}")
        page.add_style_tag(content=f"{WRITTEN} {{opacity: 0 !important}}")
        page.add_script_tag(url="/static/openseadragon/openseadragon.min.js")

    def _answer(self, route) -> None:
        parts = urlsplit(route.request.url)
        path = parts.path.removeprefix("/api/")
        self.asked.append(path)
        if found := re.fullmatch(r"slides/(s\d)/tiles/(\d+)/(\d+)/(\d+)\.jpg", path):
            level, x, y = (int(n) for n in found.groups()[1:])
            route.fulfill(body=slide_tile(found[1], level, x, y), content_type="image/png")
        elif found := re.fullmatch(r"slides/(s\d)/thumbnail\.jpg", path):
            level = slide_info(found[1])["levels"] - 1
            route.fulfill(body=slide_tile(found[1], level, 0, 0), content_type="image/png")
        elif found := re.fullmatch(r"slides/(s\d)", path):
            route.fulfill(json=slide_info(found[1]))
        elif found := re.fullmatch(r"evidence/e1/maps/heatmap/(\d+)/(\d+)/(\d+)", path):
            tile = heat_tile(*(int(n) for n in found.groups()))
            route.fulfill(body=tile, content_type="application/octet-stream")
        elif path == "evidence/e1":
            route.fulfill(json=evidence_info())
        elif path == "evidence/e1/at":
            query = parse_qs(parts.query)
            route.fulfill(json=at(float(query["x"][0]), float(query["y"][0])))
        elif path == "evidence/e1/outlines":
            route.fulfill(json={"boxes": [[100, 100, 400, 500]], "truncated": False})
        else:
            route.fulfill(status=404, json={"error": path})

    def start(self, *panes, **state) -> None:
        colour = {"limits": {"heatmap": V}, "threshold": 0, "sign": "both", "smooth": False}
        colour |= {"palette": "blue-brown", "grid": False}
        state = {"panes": list(panes), "colour": colour} | state
        self.page.evaluate(START, {"library": LIBRARY, "state": state})
        self.settle()

    def set(self, **patch) -> None:
        self.page.evaluate("(patch) => app.store.set(patch)", patch)

    def colour(self, **patch) -> None:
        js = "(patch) => app.store.set({colour: {...app.store.get().colour, ...patch}})"
        self.page.evaluate(js, patch)

    def view(self, x, y, scale, rotation=0) -> None:
        self.set(view={"x": x, "y": y, "scale": scale, "rotation": rotation})
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is on its way any more and what came is drawn."""
        self.page.wait_for_function(
            """() => app.panes.camera.get() !== null && app.panes.list().every((pane) =>
              pane.slide && (pane.state().evidence === null || pane.evidence)
              && pane.stage.dataset.heat !== "loading"
              && (pane.state().mode === "heat" || pane.osd.world.getItemAt(0)?.getFullyLoaded()))"""
        )
        frames = (
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        self.page.evaluate(frames)

    def shot(self, index=0) -> np.ndarray:
        """What is seen of a pane, (h, w, 3), without what is written over it."""
        data = self.page.locator(".pane-stage").nth(index).screenshot()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def places(self, points, index=0) -> np.ndarray:
        js = """([points, index]) => points.map(([x, y]) => {
          const at = app.panes.list()[index].toScreen(x, y); return [at.x, at.y]; })"""
        return np.array(self.page.evaluate(js, [points, index]))

    def pixel(self, x_um, y_um, index=0) -> tuple[int, ...]:
        """The colour that is seen at a place."""
        x, y = self.places([[x_um, y_um]], index)[0]
        return tuple(self.shot(index)[int(y), int(x)])


def pane(mode="slide", slide="s1", opacity=1.0):
    evidence = None if mode == "slide" else "e1"
    shown = {"slide": slide, "evidence": evidence, "map": "heatmap"}
    return shown | {"mode": mode, "opacity": opacity}


@pytest.fixture
def panes(module_page) -> Panes:
    return Panes(module_page)


def middle(block):
    left, top, right, bottom = um(block)
    return (left + right) / 2, (top + bottom) / 2


def cell(column, row):
    return ORIGIN[0] + (column + 0.5) * PIXEL[0], ORIGIN[1] + (row + 0.5) * PIXEL[1]


VIEWS = [(2.6, 0), (0.83, 0), (0.21, 0), (0.83, 30), (0.3, 301), (1.1, 90)]


def test_heat_lies_on_the_slide_within_a_pixel_of_the_screen(panes):
    panes.start(pane("slide"), pane("heat"))
    for scale, rotation in VIEWS:
        block = BLOCKS[2] if scale > 2 else BLOCKS[0]
        x, y = middle(block)
        panes.view(x + 3.3 * scale, y - 7.7 * scale, scale, rotation)
        on_slide = panes.shot(0).max(2) < 128
        # Full brown is darker in blue than anything else that is there.
        in_heat = panes.shot(1)[..., 2] < 110
        for index, seen in enumerate((on_slide, in_heat)):
            depth = depths(panes, block, index, seen.shape)
            assert (depth > 1).sum() > 50
            assert seen[depth > 1].all(), (scale, rotation, index)
            assert not seen[(depth < -1) & (depth > -4)].any(), (scale, rotation, index)


def depths(panes, block, index, shape):
    """How far pixels lie inside a block, in pixels of the screen; less than 0 outside of it."""
    left, top, right, bottom = um(block)
    origin, across, down = panes.places([[left, top], [right, top], [left, bottom]], index)
    rows, columns = np.indices(shape)
    points = np.stack([columns + 0.5, rows + 0.5], -1) - origin
    inside = []
    for side in (across - origin, down - origin):
        length = np.linalg.norm(side)
        along = points @ side / length
        inside += [along, length - along]
    return np.min(inside, 0)


STATES = """() => app.panes.list().map((pane) => {
  const {viewport} = pane.osd;
  const centre = viewport.getCenter(true);
  const scale = 1 / (viewport.getZoom(true) * pane.size.width);
  return [centre.x, centre.y, scale, viewport.getRotation(true)];
})"""


def test_four_panes_of_other_sizes_and_slides_stay_together(panes):
    panes.start(pane("slide"), pane("heat"), pane("overlay"), pane("slide", "s2"))
    ragged = ".panes {grid-template: 1.3fr 1fr / 1fr 2.2fr !important}"
    panes.page.add_style_tag(content=ragged)
    sizes = "() => app.panes.list().map(({size}) => `${size.width} ${size.height}`)"
    panes.page.wait_for_function(f"() => new Set(({sizes})()).size === 4")
    stages = panes.page.locator(".pane-stage")
    mouse = panes.page.mouse

    def agree():
        panes.settle()
        camera = panes.page.evaluate("() => app.panes.camera.get()")
        expected = [camera[key] for key in ("x", "y", "scale", "rotation")]
        for state in panes.page.evaluate(STATES):
            assert state[:2] == expected[:2]
            assert state[3] == expected[3]
            # 1 / (1 / (width * scale) * width) rounds three times.
            assert state[2] == pytest.approx(expected[2], rel=1e-15)
        return np.array(expected)

    before = agree()
    for index, (dx, dy) in enumerate([(57, 31), (-40, 22), (13, -64), (-9, 5)]):
        box = stages.nth(index).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + dx / 2, y + dy / 2)
        mouse.move(x + dx, y + dy)
        mouse.up()
        after = agree()
        # One pixel of any pane is the same way: the slide went with the mouse.
        moved = [-dx * before[2], -dy * before[2]]
        np.testing.assert_allclose(after[:2] - before[:2], moved, atol=1e-9)
        before = after

    box = stages.nth(2).bounding_box()
    spot = (box["x"] + 50.0, box["y"] + 40.0)
    mouse.move(*spot)
    inside = "([x, y]) => app.panes.list()[2].toSlide(x, y)"
    under = panes.page.evaluate(inside, [50, 40])
    for _ in range(5):
        mouse.wheel(0, -120)
    panes.page.wait_for_function(f"() => app.panes.camera.get().scale < {before[2] / 3}")
    zoomed = agree()
    assert zoomed[2] < before[2]
    again = panes.page.evaluate(inside, [50, 40])
    # The place under the cursor stays there, to a thousandth of a pixel.
    assert again["x_um"] == pytest.approx(under["x_um"], abs=1e-3 * zoomed[2])
    assert again["y_um"] == pytest.approx(under["y_um"], abs=1e-3 * zoomed[2])

    for key in ("ArrowRight", "ArrowDown", "+", "r", "Alt+r", "Shift+ArrowLeft"):
        last = agree()
        stages.nth(1).press(key)
        assert (agree() != last).any(), key
    turned = agree()
    assert turned[3] == 105

    panes.page.set_viewport_size({"width": 800, "height": 500})
    panes.page.wait_for_function("() => app.panes.list()[1].size.width < 580")
    np.testing.assert_array_equal(agree(), turned)
    panes.page.wait_for_function("() => app.store.get().view === app.panes.camera.get()")


def test_two_fingers_zoom_about_their_middle(panes):
    panes.start(pane("slide"), pane("heat"))
    panes.view(400, 300, 1.0)
    box = panes.page.locator(".pane-stage").first.bounding_box()
    session = panes.page.context.new_cdp_session(panes.page)

    def touch(kind, *points):
        told = [{"x": box["x"] + x, "y": box["y"] + y, "id": n} for n, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": told})

    inside = "([x, y]) => app.panes.list()[0].toSlide(x, y)"
    before = panes.page.evaluate(inside, [150, 100])
    touch("touchStart", (100, 100), (200, 100))
    touch("touchMove", (75, 110), (225, 110))
    touch("touchMove", (60, 130), (260, 130))
    touch("touchEnd")
    panes.page.wait_for_function("() => app.panes.camera.get().scale < 0.51")
    assert panes.page.evaluate("() => app.panes.camera.get().scale") == pytest.approx(0.5)
    after = panes.page.evaluate(inside, [160, 130])
    assert after["x_um"] == pytest.approx(before["x_um"], abs=1e-9)
    assert after["y_um"] == pytest.approx(before["y_um"], abs=1e-9)


def test_another_slide_is_shown_whole(panes):
    panes.start(pane("slide"))
    panes.view(100, 100, 0.2, 0)
    panes.set(panes=[pane("slide", "s2")], slide="s2", view=None)
    panes.page.wait_for_function("() => app.panes.list()[0].slide?.id === 's2'")
    panes.settle()
    view = panes.page.evaluate("() => app.panes.camera.get()")
    size = panes.page.evaluate("() => app.panes.list()[0].size")
    assert (view["x"], view["y"]) == (450, 350)
    fits = max(900 / size["width"], 700 / size["height"])
    assert fits < view["scale"] < 1.1 * fits
    # It stays whole beside others, until someone moves.
    panes.set(panes=[pane("slide", "s2")] * 4)
    panes.settle()
    smaller, size = panes.page.evaluate("() => [app.panes.camera.get(), app.panes.list()[0].size]")
    fits = max(900 / size["width"], 700 / size["height"])
    assert fits < smaller["scale"] < 1.1 * fits
    assert smaller["scale"] > 1.2 * view["scale"]
    panes.view(400, 300, 0.7)
    panes.set(panes=[pane("slide", "s2")])
    panes.settle()
    assert panes.page.evaluate("() => app.panes.camera.get().scale") == 0.7
    # A screen of another density, without a change of size.
    panes.set(panes=[pane("heat")], slide="s1")
    panes.settle()
    screen = {"width": 0, "height": 0, "deviceScaleFactor": 1.5, "mobile": False}
    session = panes.page.context.new_cdp_session(panes.page)
    session.send("Emulation.setDeviceMetricsOverride", screen)
    panes.page.wait_for_function(
        """() => { const canvas = document.querySelector(".pane-heat");
          return canvas.width === Math.round(1.5 * canvas.clientWidth); }"""
    )


def test_panes_of_one_slide_ask_for_each_tile_once(panes):
    panes.start(pane("slide"), pane("slide"), pane("overlay"))
    panes.view(300, 300, 0.7)
    tiles = [path for path in panes.asked if "/tiles/" in path or "/maps/" in path]
    assert len(tiles) > 4
    assert len(tiles) == len(set(tiles))


def lightness(rgb):
    linear = np.asarray(rgb) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126729, 0.7151522, 0.0721750]
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_colours_follow_limit_threshold_sign_and_palette_without_a_request(panes):
    panes.start(pane("heat"))
    panes.view(*cell(160, 376), 0.7)
    ramp = np.linspace(-2, 2, 20)
    places = [cell(80 + 8 * i + 4, 376) for i in range(20)]
    spots = panes.places(places).astype(int)
    zero = panes.pixel(*cell(160, 340))
    assert max(zero) - min(zero) <= 2
    asked = len(panes.asked)

    def seen():
        panes.page.evaluate("() => new Promise(requestAnimationFrame)")
        shot = panes.shot()
        return np.array([shot[y, x] for x, y in spots])

    full = seen()
    # Symmetric: v is as light as -v, and lightness falls with size.
    light = lightness(full)
    np.testing.assert_allclose(light, light[::-1], atol=1)
    assert (np.diff(light[:10]) > 0).all()
    assert (full[0] != full[-1]).any()

    panes.colour(limits={"heatmap": 1})
    strong = seen()
    beyond = np.abs(ramp) > 1
    assert len(np.unique(strong[beyond & (ramp > 0)], axis=0)) == 1
    assert lightness(strong[beyond]).max() < lightness(strong[~beyond]).min() - 8
    panes.page.wait_for_function("() => /% clipped/.test(document.body.innerText)")

    panes.colour(limits={"heatmap": V}, threshold=0.8)
    weak = np.abs(ramp) < 0.8
    hidden = seen()
    assert (hidden[weak] == zero).all()
    np.testing.assert_array_equal(hidden[~weak], full[~weak])

    panes.colour(threshold=0, sign="for")
    only = seen()
    assert (only[ramp < 0] == zero).all()
    np.testing.assert_array_equal(only[ramp > 0], full[ramp > 0])
    panes.colour(sign="against")
    np.testing.assert_array_equal(seen()[ramp < 0], full[ramp < 0])

    panes.colour(sign="both", palette="purple-green")
    other = seen()
    np.testing.assert_allclose(lightness(other), light, atol=1)
    assert other[-1][1] > other[-1][0]  # green for
    assert other[0][1] < other[0][0]  # purple against
    assert len(panes.asked) == asked

    panes.colour(smooth=True)
    panes.page.wait_for_function("() => document.body.innerText.includes('interpolated')")
    assert len(np.unique(panes.shot().reshape(-1, 3), axis=0)) > 200
    assert len(panes.asked) == asked


LEGEND = """() => {
  const bar = document.querySelector(".legend-bar");
  const {width, height} = bar;
  return Array.from(bar.getContext("2d").getImageData(0, height / 2, width, 1).data);
}"""


@pytest.mark.parametrize("opacity", [1.0, 0.4])
def test_the_legend_has_the_colours_that_are_seen_over_white(panes, opacity):
    """Those of a heatmap, and of an overlay at its opacity: the ramp lies over a white slide."""
    panes.start(pane("overlay", opacity=opacity))
    panes.colour(limits={"heatmap": 2})
    panes.view(*cell(160, 376), 0.7)
    values = np.linspace(-2, 2, 20)[1:-1]
    bar = np.reshape(panes.page.evaluate(LEGEND), (-1, 4))
    inner = bar[8:-8]  # between the ends, which stand for what is clipped
    at = np.round((values / 2 + 1) / 2 * (len(inner) - 1)).astype(int)
    seen = np.array([panes.pixel(*cell(80 + 8 * (i + 1) + 4, 376)) for i in range(18)])
    # A pixel of the bar is 0.026 wide.
    np.testing.assert_allclose(inner[at, :3], seen, atol=8)
    assert np.ptp(seen, 0).max() > 30


TABLE = """async ([overlay, palette]) => {
  const {lookup} = await import("/static/panes/colours.js");
  const look = {limit: 1, threshold: 0, sign: "both", palette, signed: true, overlay};
  const table = lookup({...look, step: 1 / 200});
  return [...table.slice(32768 - 210, 32768 + 211)]
    .map((c) => [c & 255, (c >>> 8) & 255, (c >>> 16) & 255, c >>> 24]);
}"""
# Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(linear):
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = linear @ np.transpose(to_xyz) / [0.95047, 1, 1.08883]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


@pytest.mark.parametrize("palette", ["blue-brown", "purple-green"])
@pytest.mark.parametrize("overlay", [False, True])
def test_palettes_are_symmetric_and_told_apart_by_everyone(module_page, palette, overlay):
    table = np.array(module_page.evaluate(TABLE, [overlay, palette]))
    down, up = table[:210][::-1], table[211:]
    assert (down[:, 3] == up[:, 3]).all()
    np.testing.assert_allclose(lightness(down[:, :3]), lightness(up[:, :3]), atol=1)
    assert (np.diff(lightness(up[:200, :3])) <= 0.5).all()
    assert table[210, 3] == (0 if overlay else 255)
    assert (up[199:, 3] == 255).all()
    srgb = np.stack([down[100:200, :3], up[100:200, :3]]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    for name, matrix in BLINDNESS.items():
        seen = lab(np.clip(linear @ np.array(matrix).T, 0, 1))
        apart = np.linalg.norm(seen[0] - seen[1], axis=-1)
        # Ten times what is just told apart, from half of the limit on.
        assert apart.min() > 23, name


def test_what_was_not_placed_is_hatched_and_what_is_beyond_the_slide_is_plain(panes):
    panes.start(pane("heat"))
    panes.view(*cell(480, 24), 0.7)

    def around(x, y, size=14):
        (column, row), shot = panes.places([[x, y]])[0].astype(int), panes.shot()
        return shot[row - size : row + size, column - size : column + size].reshape(-1, 3)

    def spread(pixels):
        return int(np.ptp(pixels, axis=0).max())

    assert spread(around(*cell(480, 24))) > 40
    assert spread(around(*cell(480, 24 + 40))) == 0  # zero is no gap
    assert spread(around(480, -15)) == 0
    panes.set(panes=[pane("overlay")])
    panes.settle()
    light = spread(around(*cell(480, 24)))
    assert 15 < light < 80
    assert spread(around(*cell(480, 24 + 40))) == 0


def test_a_coarser_level_stands_in_until_the_finer_comes(panes):
    x, y = middle(BLOCKS[1])
    panes.start(pane("heat"), view={"x": x, "y": y, "scale": 2.8, "rotation": 0})
    held = []
    panes.page.route(re.compile("maps/heatmap/0/"), lambda route: held.append(route))
    panes.set(view={"x": x, "y": y, "scale": 0.5, "rotation": 0})
    panes.page.wait_for_function("() => app.panes.list()[0].stage.dataset.heat === 'loading'")
    panes.page.wait_for_timeout(100)
    assert held
    coarse = panes.pixel(x, y)
    for route in list(held):
        route.fallback()
    panes.settle()
    assert panes.pixel(x, y) == coarse
    assert coarse[2] < 110


def test_a_curtain_parts_two_panes_of_one_place(panes):
    panes.start(pane("slide"), pane("heat"), layout="curtain", curtain=0.5)
    x, y = middle(BLOCKS[2])
    panes.view(x, y, 0.1)
    black, brown = (0, 0, 0), panes.pixel(x + 5, y)
    assert brown[0] > brown[2] + 40
    assert panes.pixel(x - 5, y) == black
    line = panes.page.get_by_role("separator")
    assert line.get_attribute("aria-valuenow") == "50"
    for _ in range(3):
        line.press("Shift+ArrowRight")
    assert line.get_attribute("aria-valuenow") == "80"
    assert panes.pixel(x + 5, y) == black
    line.press("Home")
    assert panes.pixel(x - 5, y) == brown
    box = line.bounding_box()
    panes.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    panes.page.mouse.down()
    panes.page.mouse.move(450, box["y"] + 20)
    panes.page.mouse.up()
    assert panes.page.evaluate("() => app.store.get().curtain") == pytest.approx(0.5, abs=0.01)
    # Over a single pane, the curtain shows its slide alone on the left.
    panes.set(panes=[pane("heat")])
    panes.settle()
    panes.page.wait_for_function("() => document.querySelectorAll('.pane').length === 2")
    panes.page.wait_for_timeout(300)
    # What is drawn over the picture, and the pointer, are the pane's on both sides.
    assert panes.pixel(x + 5, y) == brown
    assert panes.pixel(x - 5, y) == black
    js = "([x, y]) => app.panes.list()[0].stage.contains(document.elementFromPoint(x, y))"
    assert panes.page.evaluate(js, [200, 300])
    assert panes.page.evaluate(js, [700, 300])


def test_the_value_under_the_cursor_and_at_the_centre(panes):
    panes.start(pane("slide"), pane("heat"))
    x, y = middle(BLOCKS[2])
    panes.view(x, y, 0.8)
    stage = panes.page.locator(".pane-stage").first
    box = stage.bounding_box()
    panes.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    # The pane beside it tells its value at the same place.
    value = panes.page.locator(".readout-value").nth(1)
    assert value.inner_text() == "+3.00 ± 0.0005 logits/mm²"
    panes.page.get_by_text("stored +3.0000 · tile 37").wait_for()
    place = panes.page.locator(".readout-place").nth(1).inner_text()
    pixels = re.search(r"px (\d+), (\d+)", place)
    assert abs(int(pixels[1]) - x / 0.5) <= 2
    assert abs(int(pixels[2]) - y / 0.4) <= 3
    panes.view(*cell(480, 24), 0.8)
    panes.page.locator(".pane-stage").nth(1).press("v")
    panes.page.wait_for_function("() => app.said.length > 0")
    assert panes.page.evaluate("() => app.said[0]").startswith("nothing placed here, ")
    assert stage.get_attribute("role") == "application"
    assert "slide s1" in stage.get_attribute("aria-label")


CAPTURE = """async ([width, height]) => {
  const canvas = new OffscreenCanvas(width, height);
  await app.panes.list()[0].capture(canvas.getContext("2d"), width, height);
  const reader = new FileReader();
  reader.readAsDataURL(await canvas.convertToBlob());
  await new Promise((done) => (reader.onload = done));
  return reader.result;
}"""


@pytest.mark.parametrize("mode", ["slide", "heat"])
def test_a_figure_shows_what_the_pane_shows(panes, mode):
    panes.start(pane(mode))
    block = BLOCKS[0]
    x, y = middle(block)
    panes.view(x + 40, y, 0.9, 25)
    width, height = panes.page.evaluate("() => Object.values(app.panes.list()[0].size)")
    factor = 1.5
    size = [round(width * factor), round(height * factor)]
    data = base64.b64decode(panes.page.evaluate(CAPTURE, size).split(",")[1])
    drawn = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    marked = drawn.max(2) < 128 if mode == "slide" else drawn[..., 2] < 110
    left, top, right, bottom = um(block)
    corners = panes.places([[left, top], [right, top], [right, bottom], [left, bottom]]) * factor
    low, high = np.floor(corners.min(0) - 5).astype(int), np.ceil(corners.max(0) + 5).astype(int)
    rows, columns = np.nonzero(marked[low[1] : high[1], low[0] : high[0]])
    points = np.stack([columns + low[0] + 0.5, rows + low[1] + 0.5], 1)
    np.testing.assert_allclose(points.mean(0), corners.mean(0), atol=0.7)
    area = np.prod(np.subtract(um(block)[2:], um(block)[:2])) * (factor / 0.9) ** 2
    assert len(points) == pytest.approx(area, rel=0.03)


def test_a_figure_of_a_pane_under_a_curtain_has_the_slide_on_its_left(panes):
    panes.start(pane("heat"), layout="curtain", curtain=0.25)
    panes.view(*middle(BLOCKS[2]), 0.02)
    data = panes.page.evaluate(CAPTURE, [400, 200])
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGB"))
    width, height = panes.page.evaluate("() => Object.values(app.panes.list()[0].size)")
    cut = 200 - 0.25 * width / max(width / 400, height / 200)
    assert (drawn[100, : int(cut)] == 0).all()
    brown = drawn[100, int(cut) + 1 :]
    assert (brown == brown[0]).all()
    assert brown[0, 0] > 100


CLIPPED = """async ([view, limit, sign]) => {
  const {createHeatLayer} = await import("/static/panes/heat_layer.js");
  const layer = createHeatLayer(window.heats);
  layer.setMap(window.map);
  const look = {limit, threshold: 0, sign, palette: "blue-brown"};
  layer.setLook({...look, signed: true, overlay: false, smooth: false});
  const ctx = new OffscreenCanvas(500, 400).getContext("2d");
  const until = performance.now() + 5000;
  while (!layer.draw(ctx, view, 500, 400, 1, [1000, 600]) && performance.now() < until)
    await new Promise((done) => setTimeout(done, 20));
  return layer.survey(view, 500, 400);
}"""


@pytest.mark.parametrize(("scale", "rotation", "level"), [(0.8, 0, 0), (1.3, 37, 0), (3.0, 200, 2)])
def test_the_clipped_share_counts_the_pixels_of_the_view(panes, scale, rotation, level):
    panes.page.evaluate(
        """async (info) => {
          const [{createHeatSource, heatMap}, {fetchTransport}] = await Promise.all(
            ["panes/heat_source", "base/transport"].map((name) => import(`/static/${name}.js`)));
          window.heats = createHeatSource({transport: fetchTransport()});
          window.map = heatMap("e1", info.maps[0]);
        }""",
        evidence_info(),
    )
    view = {"x": 300.5, "y": 470.25, "scale": scale, "rotation": rotation}
    found = panes.page.evaluate(CLIPPED, [view, 1.0, "both"])
    values = LEVELS[level]
    pixel = np.array(PIXEL) * 2**level
    rows, columns = np.indices(values.shape)
    x = ORIGIN[0] + (columns + 0.5) * pixel[0] - view["x"]
    y = ORIGIN[1] + (rows + 0.5) * pixel[1] - view["y"]
    turn = np.radians(rotation)
    across = (np.cos(turn) * x - np.sin(turn) * y) / scale
    down = (np.sin(turn) * x + np.cos(turn) * y) / scale
    inside = (np.abs(across) < 250) & (np.abs(down) < 200) & (values != NODATA)
    over = values[inside] * STEP
    assert inside.sum() > 1000
    assert found["pixels"] == inside.sum()
    assert found["clipped"] == (np.abs(over) > 1 + 1e-9).sum()
    assert found["clipped"] > 0
    only = panes.page.evaluate(CLIPPED, [view, 1.0, "for"])
    assert only["clipped"] == (over > 1 + 1e-9).sum()


def test_tiles_that_nobody_wants_any_more_are_given_up(module_page):
    told = module_page.evaluate(
        """async () => {
          const {createHeatSource} = await import("/static/panes/heat_source.js");
          const asked = [];
          const waiting = [];
          const bytes = (path, {signal}) => new Promise((resolve, reject) => {
            asked.push(path);
            signal.addEventListener("abort", () => {
              asked.push(`gave up ${path}`);
              reject(new DOMException("", "AbortError"));
            });
            waiting.push(() => resolve(new ArrayBuffer(131072)));
          });
          const fail = (error) => asked.push(String(error));
          const heats = createHeatSource({transport: {bytes}, fail});
          const [map, one, other] = [{path: "m"}, {}, {}];
          heats.want(one, [...Array(8).keys()].map((x) => [map, 0, x, 0]));
          heats.want(other, [[map, 0, 1, 0]]);
          const first = [...asked];
          heats.want(one, [[map, 3, 0, 0]]);
          for (const answer of waiting) answer();
          await new Promise((done) => setTimeout(done, 50));
          return {first, then: asked.slice(first.length), kept: heats.get(map, 0, 1, 0) !== null,
            here: heats.get(map, 3, 0, 0) !== null, gone: heats.get(map, 0, 2, 0) === null};
        }"""
    )
    assert told["first"] == [f"m/0/{x}/0" for x in range(6)]
    assert told["then"] == [f"gave up m/0/{x}/0" for x in (0, 2, 3, 4, 5)] + ["m/3/0/0"]
    assert told["kept"]
    assert told["here"]
    assert told["gone"]


def test_an_explanation_without_tiles_says_so_where_they_would_be_outlined(panes):
    without = evidence_info() | {"tiles": None, "tiles_note": "tiles of two grids"}
    panes.page.route("**/api/evidence/e1", lambda route: route.fulfill(json=without))
    panes.start(pane("heat"))
    note = panes.page.get_by_text("tiles of two grids")
    assert not note.is_visible()
    panes.colour(grid=True)
    note.wait_for()
    assert "evidence/e1/outlines" not in panes.asked


def test_what_cannot_be_shown_is_said_in_its_pane(panes, complaints):
    panes.start(pane("slide"))
    hidden = {"error": "hidden until a reading is committed"}
    panes.page.route("**/api/evidence/e1", lambda route: route.fulfill(status=403, json=hidden))
    panes.set(panes=[pane("overlay")])
    panes.page.get_by_text("hidden until a reading is committed").wait_for()
    complaints[:] = [line for line in complaints if "403" not in line]
    # After the reading the library is read again, and with it what could not be had.
    panes.page.unroute("**/api/evidence/e1")
    panes.set(library=json.loads(json.dumps(LIBRARY)))
    panes.settle()
    assert panes.page.locator(".pane-message").is_hidden()


def test_tiles_come_when_the_server_does(panes, complaints):
    panes.start(pane("overlay"), view={"x": 300, "y": 300, "scale": 2.5, "rotation": 0})
    lost = re.compile("/(tiles|maps)/")
    panes.page.route(lost, lambda route: route.abort())
    panes.set(view={"x": 300, "y": 300, "scale": 0.5, "rotation": 0})
    panes.page.wait_for_function("() => app.panes.list()[0].stage.dataset.heat === 'loading'")
    panes.page.wait_for_timeout(300)
    assert not any("tiles/0/" in path or "heatmap/0/" in path for path in panes.asked)
    panes.page.unroute(lost)
    with panes.page.expect_response(re.compile("slides/s1/tiles/0/")):
        panes.settle()
    assert any("heatmap/0/" in path for path in panes.asked)
    allowed = ("net::ERR_FAILED", "failed to load")
    complaints[:] = [line for line in complaints if not any(text in line for text in allowed)]


def test_lengths_of_the_scale_bar_are_round(module_page):
    told = module_page.evaluate(
        """async () => {
          const {roundLength, shownLength} = await import("/static/panes/scale_bar.js");
          return [140, 100, 99.9, 0.7, 5000, 2e4].map(roundLength)
            .map((length) => [length, shownLength(length)]);
        }"""
    )
    expected = ["100 µm", "100 µm", "50 µm", "500 nm", "5 mm", "20 mm"]
    assert [text for _, text in told] == expected
    assert all(
        length <= um for (length, _), um in zip(told, [140, 100, 99.9, 0.7, 5000, 2e4], strict=True)
    )


def test_outlines_of_tiles_are_where_the_tiles_are(panes):
    panes.start(pane("overlay"))
    panes.view(200, 150, 0.5, 20)
    panes.colour(grid=True)
    panes.page.wait_for_function(
        "() => document.querySelector('.pane-outlines path').getAttribute('d')"
    )
    panes.page.wait_for_timeout(100)
    js = "() => document.querySelector('.pane-outlines path').getBoundingClientRect().toJSON()"
    box = panes.page.evaluate(js)
    stage = panes.page.locator(".pane-stage").bounding_box()
    corners = panes.places([[50, 40], [250, 40], [250, 240], [50, 240]])
    assert box["x"] - stage["x"] == pytest.approx(corners[:, 0].min(), abs=1)
    assert box["y"] - stage["y"] == pytest.approx(corners[:, 1].min(), abs=1)
    assert box["width"] == pytest.approx(np.ptp(corners[:, 0]), abs=2)
