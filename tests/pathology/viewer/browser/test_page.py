"""The whole of ``pathology view`` in a browser, against numbers that NumPy has from the files.

What the page says and draws is compared with the maps on disk; how it is built is left to it, so
most of what is done here is done by keys, and most of what is read is the page's own state.
"""

import base64
import io
import json
import re
import time

import numpy as np
import pytest
import shapely
from PIL import Image

from pathology.explain.results.stored import load_explanation
from pathology.viewer.library.library import Library
from tests.pathology.viewer.browser.tool_page import areas_inside
from tests.pathology.viewer.conftest import MPP, ODD, SIZES

SETTLED = """() => {
  const app = document.body.viewer;
  const panes = app?.panes?.list() ?? [];
  return panes.length > 0 && app.store.get().view !== null && panes.every((pane) =>
    pane.slide !== null && pane.stage.dataset.heat !== "loading"
    && (pane.state().evidence === null || pane.evidence !== null)
    && (pane.state().mode === "slide" || pane.stage.dataset.heat === "whole")
    && (pane.state().mode === "heat" || (pane.osd.world.getItemAt(0)?.getFullyLoaded() ?? false)));
}"""
FRAME = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"


def until(page, asked, arg=None, seconds=15) -> None:
    """Wait until the page says so; Playwright's own way needs ``eval``, which is forbidden here."""
    end = time.monotonic() + seconds
    while not page.evaluate(asked, arg):
        assert time.monotonic() < end, f"not within {seconds} s: {asked}"
        page.wait_for_timeout(20)


def settle(page) -> None:
    """Wait until all that is to be seen is there, and drawn."""
    until(page, SETTLED)
    page.evaluate(FRAME)


def opened(page, served):
    """The page with its list; ids of slides, and of explanations by run, slide and target."""
    page.goto(served.url)
    until(page, "Boolean(document.body.viewer?.panes)")
    return ids(page)


def state(page, *names):
    """Values of the store."""
    found = page.evaluate("(names) => names.map((n) => document.body.viewer.store.get()[n])", names)
    return found[0] if len(names) == 1 else found


def put(page, /, **values) -> None:
    """Set values of the store, ``colour`` by its parts."""
    page.evaluate(
        """({colour, ...rest}) => {
          const {store} = document.body.viewer;
          store.set({...rest, ...(colour && {colour: {...store.get().colour, ...colour}})});
        }""",
        values,
    )


def ids(page) -> tuple[dict[str, str], dict[tuple[str, str, str], str]]:
    """Ids of the slides by name, and of explanations by run, slide and target."""
    told = page.evaluate("document.body.viewer.library")
    slides = {each["name"]: each["id"] for each in told["slides"]}
    names = {each["id"]: each["name"] for each in told["slides"]}
    runs = {each["id"]: each["name"] for each in told["runs"]}
    return slides, {
        (runs[each["run"]], names[each["slide"]], each["target"]): each["id"]
        for each in told["evidence"]
    }


def pane_of(slide, evidence=None, mode="slide", **more):
    return {
        "slide": slide, "evidence": evidence, "map": "heatmap", "mode": mode, "opacity": 0.6,
    } | more  # fmt: skip


def view_at(x, y, scale, rotation=0):
    return {"x": x, "y": y, "scale": scale, "rotation": rotation}


def canvas(page, pane: int, what: str) -> np.ndarray:
    """Pixels of a pane's slide or heat, as its canvas holds them, ``(height, width, 4)``."""
    data = page.evaluate(
        """async ([index, what]) => {
          const pane = document.body.viewer.panes.list()[index];
          const heat = pane.stage.querySelector(".pane-heat");
          const canvas = what === "heat" ? heat : pane.osd.drawer.canvas;
          const blob = await new Promise((go) => canvas.toBlob(go));
          const bytes = new Uint8Array(await blob.arrayBuffer());
          let text = "";
          for (const byte of bytes) text += String.fromCharCode(byte);
          return btoa(text);
        }""",
        [pane, what],
    )
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGBA"))


def test_the_list_leads_to_a_slide(page, served, complaints):
    said = []
    page.on("dialog", lambda dialog: said.append(dialog.message))
    answer = page.goto(served.url)
    assert page.url == f"{served.origin}/"  # without the token
    page.get_by_text("case_1", exact=True).first.wait_for()

    # Names and labels of slides are text, whatever is in them.
    assert page.get_by_text(ODD, exact=True).count() == 1
    assert page.get_by_text("<b>normal</b>", exact=True).count() >= 1
    assert page.locator("img[onerror], td b").count() == 0
    loaded = "[...document.querySelectorAll('.thumbnail img')].filter((i) => i.naturalWidth).length"
    until(page, f"{loaded} === 2")
    for folder in served.library.evidence:
        score = load_explanation(folder.folder).ledger.score
        shown = f"{abs(score):.2f}"
        assert page.get_by_text(re.compile(f"[+\u2212]{re.escape(shown)}")).count() >= 1

    # By keys alone: find a slide, open it, and look at the keys.
    page.keyboard.press("/")
    page.keyboard.type("case")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    settle(page)
    slides, _ = ids(page)
    assert state(page, "page", "slide") == ["slide", slides["case_1"]]
    modes = [each["mode"] for each in state(page, "panes")]
    assert modes[0] == "slide"  # the slide, and what is said of it
    assert set(modes[1:]) == {"overlay"}
    page.keyboard.press("?")
    keys = page.locator("dialog.help kbd").count()
    assert keys > 40
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    # The slides before and after are those of the list as it is.
    page.keyboard.press("u")
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    until(page, "document.body.viewer.store.get().page === 'slide'")
    first = state(page, "slide")
    page.keyboard.press("]")
    (other,) = set(slides.values()) - {first}
    until(page, "(id) => document.body.viewer.store.get().slide === id", other)
    settle(page)
    page.keyboard.press("u")
    assert state(page, "page") == "list"
    assert said == []

    # The policy holds: no script of a page's own making, nothing from elsewhere.
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not complaints
    hacked = page.evaluate("""async () => {
      const script = document.createElement("script");
      script.textContent = "window.isHacked = true";
      document.body.append(script);
      const fetched = await fetch("https://example.org/").then(() => true, () => false);
      return [window.isHacked === true, fetched];
    }""")
    assert hacked == [False, False]
    assert all("Content Security Policy" in each or "example.org" in each for each in complaints)
    complaints.clear()


def beginning(red: np.ndarray, wanted: float, scale: float) -> float:
    """Where the mark begins along a line of the screen, in pixels: half of the way down."""
    outside, inside = int(wanted - 1.3 / scale), int(wanted + 4 / scale)
    half = (red[outside] + red[inside]) / 2
    assert red[outside] > red[inside] + 40
    last = outside + int(np.flatnonzero(red[outside : inside + 1] > half)[-1])
    return last + 0.5 + (red[last] - half) / (red[last] - red[last + 1])


@pytest.mark.parametrize("name", list(SIZES))
def test_slide_and_heat_lie_where_they_are(page, served, name):
    """Edges in the slide's and in the heat's pixels, against where files say they are."""
    slides, evidence = opened(page, served)
    entry = evidence["cnn", name, "tumour"]
    put(page, page="slide", slide=slides[name], panel=None,
        panes=[pane_of(slides[name]), pane_of(slides[name], entry, "heat")])  # fmt: skip
    settle(page)
    (width_px, height_px), mpp = SIZES[name], MPP[name]
    mark = (width_px // 3 * mpp[0], height_px // 3 * mpp[1])
    explanation = load_explanation(served.library.entry(entry).folder)
    heat = explanation.contributions
    assert heat.slide_mpp == pytest.approx(mpp)
    pixel = (
        heat.box.width * mpp[0] / heat.values.shape[1],
        heat.box.height * mpp[1] / heat.values.shape[0],
    )
    covered = ~np.isnan(heat.values)
    row = covered.shape[0] // 2
    column = int(np.flatnonzero(covered[row])[0])
    below = int(np.flatnonzero(covered[:, covered.shape[1] // 2])[0])
    for scale in (1.5, 0.6, 0.2):
        # The mark's corner is the one place where the slide turns dark blue.
        put(page, view=view_at(*(at + 8 for at in mark), scale))
        settle(page)
        seen = canvas(page, 0, "slide")[..., 0].astype(float)
        high, wide = seen.shape
        wanted = [side / 2 - 8 / scale for side in (wide, high)]
        inside = [int(at + 4 / scale) for at in wanted]
        found = [
            beginning(seen[inside[1]], wanted[0], scale),
            beginning(seen[:, inside[0]], wanted[1], scale),
        ]
        assert found == pytest.approx(wanted, abs=1), scale

        # Nothing was placed left of the first tile: there, the heat is hatched in grey.
        left = (column * pixel[0], (row + 0.5) * pixel[1])
        put(page, view=view_at(*left, scale))
        settle(page)
        assert edge(canvas(page, 1, "heat"), 1) == pytest.approx(wide / 2, abs=1), scale
        top = ((covered.shape[1] // 2 + 0.5) * pixel[0], below * pixel[1])
        put(page, view=view_at(*top, scale))
        settle(page)
        assert edge(canvas(page, 1, "heat"), 0) == pytest.approx(high / 2, abs=1), scale


def edge(heat: np.ndarray, axis: int) -> float:
    """Where, along the middle line, the hatching of what has no numbers ends."""
    middle = heat.shape[1 - axis] // 2
    line = heat[middle] if axis == 1 else heat[:, middle]
    red, green, blue, opaque = line.astype(int).T
    grey = (abs(red - green) < 4) & (abs(green - blue) < 4) & (red < 225) | (opaque < 255)
    return float(np.flatnonzero(grey)[-1] + 1) if grey[-1] == 0 else float(np.argmax(~grey))


def test_panes_show_one_place_in_micrometres(page, served):
    slides, evidence = opened(page, served)
    put(page, page="slide", slide=slides["case_1"], panes=[
        pane_of(slides["case_1"]),
        pane_of(slides["case_1"], evidence["vit", "case_1", "tumour"], "overlay"),
        pane_of(slides[ODD], evidence["cnn", ODD, "tumour"], "overlay"),
    ])  # fmt: skip
    settle(page)
    places = """() => document.body.viewer.panes.list().map((pane) => {
      const centre = pane.osd.viewport.getCenter(true);
      const {width, height} = pane.size;
      return [centre.x, centre.y, 1 / (pane.osd.viewport.getZoom(true) * width),
              ...Object.values(pane.toSlide(width / 2, height / 2))];
    })"""
    box = page.locator(".pane-stage").nth(1).bounding_box()
    # Browsers tell of the wheel at whole pixels.
    at = {"x": int(box["x"] + 0.3 * box["width"]), "y": int(box["y"] + 0.4 * box["height"])}
    under = "([x, y]) => Object.values(document.body.viewer.panes.list()[1].toSlide(x, y))"
    local = [at["x"] - box["x"], at["y"] - box["y"]]
    before = page.evaluate(under, local)
    for number in range(12):
        page.mouse.move(**at)
        page.mouse.wheel(0, -200 if number < 8 else 150)
        page.evaluate(FRAME)
        found = np.array(page.evaluate(places))
        # What OpenSeadragon shows of each slide, whatever its pixels are.
        assert np.ptp(found, axis=0).max() < 1e-9
        assert found[0, :2] == pytest.approx(found[0, 3:], abs=1e-9)
    # What is under the pointer stays there.
    assert page.evaluate(under, local) == pytest.approx(before, abs=1e-6)
    page.mouse.down()
    page.mouse.move(at["x"] + 60, at["y"] + 30, steps=6)
    found = np.array(page.evaluate(places))
    assert np.ptp(found, axis=0).max() < 1e-9
    scale = found[0, 2]
    moved = np.array(page.evaluate(under, [local[0] + 60, local[1] + 30]))
    assert moved == pytest.approx(before, abs=1.5 * scale)  # the slide goes with the hand
    page.mouse.up()
    page.wait_for_timeout(200)
    settled = state(page, "view")
    assert [settled["x"], settled["y"]] == pytest.approx(found[0, :2], abs=1e-9)


def test_colours_act_at_once_and_are_the_numbers(page, served):
    slides, evidence = opened(page, served)
    entry = evidence["cnn", "case_1", "tumour"]
    put(page, page="slide", slide=slides["case_1"], panel=None,
        panes=[pane_of(slides["case_1"], entry, "heat")])  # fmt: skip
    settle(page)
    heat = load_explanation(served.library.entry(entry).folder).contributions
    high, wide = heat.values.shape
    pixel = [heat.box.width * 0.5 / wide, heat.box.height * 0.41 / high]
    # logits per mm2, as the legend has it
    values = heat.values[~np.isnan(heat.values)] / (pixel[0] * pixel[1] / 1e6)
    middle = [wide * pixel[0] / 2, high * pixel[1] / 2]
    put(page, view=view_at(*middle, max(pixel) / 1.5))  # all of the map is in view
    settle(page)
    limit = np.quantile(abs(values), 0.9)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for threshold, sign in [
        (np.quantile(abs(values), 0.5), "both"),
        (np.quantile(abs(values), 0.9), "both"),
        (np.quantile(abs(values), 0.7), "for"),
        (np.quantile(abs(values), 0.7), "against"),
    ]:
        # What is shown is all beyond the limit then, and has its dark colours.
        limits = {"heatmap": float(threshold) * (1 - 1e-6)}
        put(page, colour={"threshold": float(threshold), "sign": sign, "limits": limits})
        page.evaluate(FRAME)
        seen = canvas(page, 0, "heat")[..., :3].astype(int)
        brown = float(((seen[..., 0] - seen[..., 2]) > 25).mean())
        blue = float(((seen[..., 2] - seen[..., 0]) > 25).mean())
        wanted = shown_shares(
            heat.values, pixel, threshold, middle, state(page, "view"), seen.shape
        )
        assert brown == pytest.approx(wanted[0] if sign != "against" else 0, abs=0.01)
        assert blue == pytest.approx(wanted[1] if sign != "for" else 0, abs=0.01)
        assert sum(wanted) > 0.01
    assert [each for each in asked if not each.endswith("icon.svg")] == []
    # The legend tells the unit, the limit, and how much of what is in view lies beyond it.
    put(page, colour={"threshold": 0, "sign": "both", "limits": {"heatmap": float(limit)}})
    share = "parseFloat(document.querySelector('.legend-share').textContent)"
    until(page, f"Math.abs({share} - 10) < 0.5")
    assert "logits/mm²" in page.locator(".legend").inner_text()


def shown_shares(sums, pixel, threshold, middle, view, shape):
    """Shares of a canvas where evidence for and against is at least ``threshold``, by NumPy."""
    high, wide = shape[:2]
    xs = view["x"] + (np.arange(wide) + 0.5 - wide / 2) * view["scale"]
    ys = view["y"] + (np.arange(high) + 0.5 - high / 2) * view["scale"]
    columns, rows = np.floor(xs / pixel[0]).astype(int), np.floor(ys / pixel[1]).astype(int)
    fits = [(c >= 0) & (c < n) for c, n in ((columns, sums.shape[1]), (rows, sums.shape[0]))]
    seen = np.zeros((high, wide))
    density = np.nan_to_num(sums) / (pixel[0] * pixel[1] / 1e6)
    seen[np.ix_(fits[1], fits[0])] = density[np.ix_(rows[fits[1]], columns[fits[0]])]
    return float((seen >= threshold).mean()), float((seen <= -threshold).mean())


def exact_sum(explanation, polygons) -> float:
    """The map's sum in polygons of level-0 pixels: every map pixel by its area inside."""
    heat = explanation.contributions
    values = np.nan_to_num(heat.values.astype(np.float64))
    size = heat.box.width / values.shape[1], heat.box.height / values.shape[0]
    area = shapely.unary_union([shapely.Polygon(rings[0], rings[1:]) for rings in polygons])
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    x, y = x * size[0] + heat.box.x, y * size[1] + heat.box.y
    boxes = shapely.box(x, y, x + size[0], y + size[1])
    return float((values * areas_inside(boxes, area)).sum() / (size[0] * size[1]))


def test_a_link_brings_back_the_view_and_a_figure_tells_all(page, served):
    slides, evidence = opened(page, served)
    pair = [evidence[run, "case_1", "tumour"] for run in ("cnn", "vit")]
    put(page, page="slide", slide=slides["case_1"], panel="gallery",
        panes=[pane_of(slides["case_1"], "~".join(pair), "heat"),
               pane_of(slides["case_1"], pair[1], "overlay", opacity=0.4)],
        active=1, colour={"threshold": 0.25, "sign": "for", "palette": "purple-green"})  # fmt: skip
    settle(page)
    put(page, view=view_at(200, 150, 0.5, 90))
    settle(page)
    until(page, "location.hash.includes('view=200,150,0.5,90')")
    kept = ["page", "slide", "panes", "view", "colour", "panel", "active"]
    before, address = state(page, *kept), page.url
    assert "token" not in address

    with page.expect_download() as saved:
        page.keyboard.press("Shift+S")
    with Image.open(saved.value.path()) as image:
        texts, pixels = dict(image.text), np.asarray(image.convert("RGB"))
    assert saved.value.suggested_filename.endswith(".png")
    record = json.loads(texts["bcos_pathology"])
    assert "case_1" in texts["Title"]
    assert record["view"]["rotation"] == 90
    told = {each["id"]: each for each in record["explanations"]}
    own = load_explanation(served.library.entry(pair[1]).folder)
    assert told[pair[1]]["ledger"]["score"] == own.ledger.score
    assert told[pair[1]]["provenance"]["checkpoint"] == own.provenance["checkpoint"]
    assert pixels.shape[1] > 1200
    assert len(np.unique(pixels[::7, ::7].reshape(-1, 3), axis=0)) > 500

    other = page.context.new_page()
    other.goto(address)
    settle(other)
    assert state(other, *kept) == before
    other.close()


def test_values_are_read_out_and_strong_tiles_are_near(page, served):
    slides, evidence = opened(page, served)
    entry = evidence["cnn", "case_1", "tumour"]
    put(page, page="slide", slide=slides["case_1"], panel="gallery",
        panes=[pane_of(slides["case_1"], entry, "overlay")])  # fmt: skip
    settle(page)
    explanation = load_explanation(served.library.entry(entry).folder)
    tiles = explanation.tiles
    share = (tiles["weight"] * tiles["contribution"]).to_numpy()
    page.locator(".gallery-tile").first.wait_for()
    shown = page.locator(".gallery-tile").evaluate_all(
        "(all) => all.map((each) => +each.dataset.index)"
    )
    assert shown[:5] == np.argsort(-share, kind="stable")[:5].tolist()
    page.keyboard.press(">")
    assert state(page, "tile") == {"evidence": entry, "index": shown[0]}
    page.wait_for_timeout(250)
    best = tiles.iloc[shown[0]]
    centre = ((best["x"] + best["width"] / 2) * 0.5, (best["y"] + best["height"] / 2) * 0.41)
    view = state(page, "view")
    assert (view["x"], view["y"]) == pytest.approx(centre, abs=0.5)

    # The value at the centre, as a screen reader hears it.
    with page.expect_response(lambda answer: "/at?" in answer.url) as asked:
        page.keyboard.press("v")
    value = asked.value.json()["maps"]["heatmap"]
    heat = explanation.contributions
    high, wide = heat.values.shape
    pixel = heat.box.width * 0.5 / wide, heat.box.height * 0.41 / high
    wanted = heat.values[int(view["y"] / pixel[1]), int(view["x"] / pixel[0])]
    assert value == pytest.approx(wanted / (pixel[0] * pixel[1] / 1e6), rel=1e-6)
    live = page.locator("[aria-live]").all_inner_texts()
    digits = re.sub("[^0-9]", "", f"{abs(value):.6g}").lstrip("0")[:2]
    assert any(digits in re.sub("[^0-9]", "", text) for text in live), live
    labels = page.locator(".pane-stage").evaluate_all("(all) => all.map((e) => e.ariaLabel)")
    assert all("case_1" in label for label in labels)
    unnamed = page.evaluate("""() => [...document.querySelectorAll("button, input, select, canvas")]
      .filter((each) => each.checkVisibility() && !each.closest("[aria-hidden=true]"))
      .filter((each) => !(each.ariaLabel || each.textContent.trim() || each.title))
      .filter((each) => !each.labels?.length)
      .map((each) => each.outerHTML.slice(0, 120))""")
    assert unnamed == []


def test_what_a_run_says_is_hidden_until_the_reader_has_spoken(
    page, serve_viewer, slides_manifest, results_folder, tmp_path, complaints
):
    readings = tmp_path / "readings.csv"
    library = Library.find(slides_manifest, [results_folder], readings=readings)
    page.goto(serve_viewer(library).url)
    page.get_by_text("case_1", exact=True).first.wait_for()
    slides, _ = ids(page)
    hidden = library.evidence_of(library.slide(slides["case_1"]))[0].id
    page.evaluate("(id) => document.body.viewer.openSlide(id)", slides["case_1"])
    until(page, "document.body.viewer.store.get().view !== null")
    assert [each["evidence"] for each in state(page, "panes")] == [None]
    status = page.evaluate("(id) => fetch(`api/evidence/${id}`).then(({status}) => status)", hidden)
    assert status == 403
    assert complaints.pop().startswith("console error: Failed to load resource")
    page.locator(".blind input").first.fill("tumour, I think")
    page.locator(".blind form button[type=submit], .blind form button").last.click()
    until(page, "document.body.viewer.store.get().panes.some((p) => p.evidence)")
    settle(page)
    assert "tumour, I think" in readings.read_text(encoding="utf-8")
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == "Close", "the form that had the focus is gone"
    assert page.evaluate("(id) => fetch(`api/evidence/${id}`).then((a) => a.status)", hidden) == 200
    library.close()


def answer_to(page, key: str, seconds: float = 120) -> dict:
    """What the job found that a key has the page start."""
    with page.expect_response(lambda answer: "/ask/" in answer.url) as asked:
        page.keyboard.press(key)
    job = asked.value.json()["job"]
    end = time.monotonic() + seconds
    while True:
        told = page.evaluate("(id) => fetch(`api/jobs/${id}`).then((answer) => answer.json())", job)
        if told["state"] not in ("queued", "running"):
            assert told["state"] == "done", told
            return told
        assert time.monotonic() < end, told
        page.wait_for_timeout(50)


def test_the_model_itself_is_asked(page, serve_viewer, library, runs_folder):
    """A process of its own with the run that made the explanation: tile and region."""
    from pathology.viewer.model.client import ModelClient

    model = ModelClient([runs_folder / "cnn"], "cpu")
    try:
        slides, evidence = opened(page, serve_viewer(library, model))
        entry = evidence["cnn", ODD, "tumour"]
        explanation = load_explanation(library.entry(entry).folder)
        put(page, page="slide", slide=slides[ODD], panel="model",
            panes=[pane_of(slides[ODD], entry, "overlay")])  # fmt: skip
        settle(page)
        index = 70
        put(page, tile={"evidence": entry, "index": index})
        ready = "document.body.viewer.commands.list().find(({id}) => id === 'model.tile').enabled()"
        until(page, ready)
        told = answer_to(page, "Shift+P")
        result, row = told["result"], explanation.tiles.iloc[index]
        assert not result["check"]["differs"], result["check"]
        assert result["check"]["stored"]["contribution"] == row["contribution"]
        one = next(each for each in result["maps"] if each["target"] == "tumour")
        part = f"{told['id']}/{one['values']}"
        values = np.array(page.evaluate(
            """(part) => fetch(`api/jobs/${part}`).then((answer) => answer.arrayBuffer())
                 .then((bytes) => [...new Float32Array(bytes)])""", part))  # fmt: skip
        area = np.prod(one["pixel_um"]) / 1e6
        # logits per mm2 of the slide's score; float32 forward and backward, in another batch
        wanted = row["weight"] * row["contribution"]
        assert values.sum() * area == pytest.approx(wanted, abs=1e-4 * row["weight"])
        until(page, "document.querySelectorAll('.tools canvas, .tools img').length > 0")

        # Without a region: what its sum says, and what the model says of the slide painted over.
        x, y, w, h = (float(row[name]) for name in ("x", "y", "width", "height"))
        ring = [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
        region = {
            "id": "r",
            "name": "there",
            "kind": "lasso",
            "polygons": [[ring]],
            "slide": slides[ODD],
        }
        put(page, regions=[region], selected="r")
        result = answer_to(page, "Shift+K")["result"]
        score = explanation.ledger.score
        assert result["score"]["recomputed"] == pytest.approx(score, abs=1e-4)
        assert result["tiles"]["run"] >= 1
        # The region holds the tile, and of the tiles that overlap it what lies inside.
        inside = exact_sum(explanation, [[ring]])
        assert result["subtraction"]["predicted"] == pytest.approx(score - inside, abs=1e-4)
        gap = result["real"] - result["subtraction"]["predicted"]
        assert result["gaps"]["subtraction"] == pytest.approx(gap, abs=1e-9)
        page.locator(".mask-table").wait_for()
    finally:
        model.close()
