"""The frame around the panes: header, colours, choices, keys, links, messages, who can use it."""

import base64
from collections import Counter
from typing import Any

import numpy as np
import pytest

APP = "document.body.viewer"
READY = "() => document.body.viewer?.library != null && document.querySelector('.list-page tr')"
SHOWN = """() => {
  const { panes, store } = document.body.viewer;
  const wanted = store.get().panes.filter((pane) => pane.evidence !== null);
  const made = panes.list().filter((pane) => pane.state().evidence !== null);
  return store.get().view !== null && made.length === wanted.length && made.every((pane) => pane.evidence !== null);
}"""  # noqa: E501


@pytest.fixture
def ids(library):
    """Ids of explanations of case_1 by run and target, and of the slide."""
    [slide] = [slide.id for slide in library.slides if slide.name == "case_1"]
    found = {
        (entry.run.name, entry.target): entry.id
        for entry in library.evidence
        if entry.slide.id == slide
    }
    return slide, found


@pytest.fixture
def opened(page, served, ids):
    """The page with case_1 open."""
    page.goto(served.url)
    page.wait_for_function(READY)
    page.evaluate(f"(id) => {APP}.openSlide(id)", ids[0])
    page.wait_for_function(SHOWN)
    return page


def state(page) -> dict[str, Any]:
    return page.evaluate(f"{APP}.store.get()")


def test_opens_with_the_runs_beside_each_other(opened, ids):
    _, found = ids
    shown = [pane["evidence"] for pane in state(opened)["panes"]]
    assert shown == [None, found["cnn", "tumour"], found["vit", "tumour"]]
    assert opened.title().startswith("case_1")


def test_panes_show_what_is_chosen(opened, ids):
    _, found = ids
    cnn, vit, contrast = (
        found[key] for key in [("cnn", "tumour"), ("vit", "tumour"), ("cnn", "tumour - normal")]
    )
    opened.get_by_role("button", name="Difference").click()
    last = state(opened)["panes"][-1]
    assert (last["evidence"], last["mode"]) == (f"{cnn}~{vit}", "heat")
    assert len(state(opened)["panes"]) == 4
    assert opened.get_by_role("button", name="Difference").is_disabled()
    opened.locator(".layouts [data-count='2']").click()
    opened.locator(".layouts [data-count='4']").click()
    assert {contrast, f"{cnn}~{vit}"} & {pane["evidence"] for pane in state(opened)["panes"]}
    opened.locator(".layouts [data-count='2']").click()
    bars = opened.locator(".pane-bar")
    assert bars.count() == 2
    choose = bars.nth(1).locator("select.what")
    values = choose.locator("option").evaluate_all("(all) => all.map((one) => one.value)")
    assert {"", cnn, vit, contrast, f"{cnn}~{vit}", f"{vit}~{cnn}", f"{contrast}~{cnn}"} <= {
        *values
    }
    assert f"{contrast}~{vit}" not in values, "runs and targets differ at once"
    # Short, the target first; a map that only the other had is the one that is shown.
    texts = dict(zip(values, choose.locator("option").all_text_contents(), strict=True))
    assert texts[cnn] == "tumour · cnn"
    assert texts[f"{cnn}~{vit}"] == "tumour · cnn \u2212 vit"
    assert texts[f"{contrast}~{cnn}"] == "tumour - normal \u2212 tumour · cnn"
    choose.select_option(f"{cnn}~{vit}")
    assert state(opened)["panes"][1]["evidence"] == f"{cnn}~{vit}"
    assert state(opened)["active"] == 1
    opened.wait_for_function(SHOWN)
    bars.nth(1).locator("[data-mode=heat]").click()
    assert state(opened)["panes"][1]["mode"] == "heat"
    bars.nth(1).locator("[data-mode=overlay]").click()
    bars.nth(1).locator("input[type=range]").fill("35")
    assert state(opened)["panes"][1]["opacity"] == 0.35
    choose.select_option(vit)
    opened.wait_for_function(SHOWN)
    layers = (
        bars.nth(1).locator("select.map option").evaluate_all("(all) => all.map((o) => o.value)")
    )
    assert "density" in layers
    assert any(layer.startswith("layers/") for layer in layers)
    bars.nth(1).locator("select.map").select_option("density")
    assert state(opened)["panes"][1]["map"] == "density"
    # A map that the next explanation lacks: what is drawn is what the bars speak of.
    [layer] = [layer for layer in layers if layer.startswith("layers/")][:1]
    bars.nth(1).locator("select.map").select_option(layer)
    choose.select_option(f"{contrast}~{cnn}")
    opened.wait_for_function(SHOWN)
    drawn = opened.evaluate(f"{APP}.panes.list()[1].heat.map().name")
    assert bars.nth(1).locator("select.map").input_value() == drawn
    field = opened.locator(".colour-bar input.limit")
    field.fill("123")
    field.press("Enter")
    assert state(opened)["colour"]["limits"][drawn] == 123
    choose.select_option("")
    assert state(opened)["panes"][1]["mode"] == "slide"
    bars.nth(1).get_by_role("button", name="Close pane 2").click()
    assert len(state(opened)["panes"]) == 1
    opened.wait_for_function("() => document.activeElement.getAttribute('role') === 'application'")
    # Another slide in a pane, found by name.
    opened.keyboard.press("n")
    bars.nth(1).locator("select.what").select_option("another")
    opened.locator("dialog.other-slide input").fill("ONERROR")
    opened.keyboard.press("Enter")
    other = state(opened)["panes"][1]
    assert other["slide"] != state(opened)["slide"]
    assert opened.locator("img[onerror]").count() == 0
    bars.nth(1).locator("select.what").select_option("back")
    assert state(opened)["panes"][1]["slide"] == state(opened)["slide"]


def test_keys_do_what_buttons_do(opened, ids):
    _, found = ids
    seen = []

    def press(key: str, *names: str) -> list[Any]:
        opened.keyboard.press(key)
        now = state(opened)
        values = []
        for name in names:
            value: Any = now
            for part in name.split("."):
                value = value[int(part)] if part.isdigit() else value[part]
            values.append(value)
        seen.append((key, values))
        return values

    assert press("x", "layout") == ["curtain"]
    assert press("x", "layout") == ["grid"]
    every = state(opened)["panes"]
    opened.evaluate(f"(panes) => {APP}.store.set({{ panes, active: 0 }})", every[1:2])
    assert press("x", "layout", "panes") == ["curtain", every[1:2]], "heat and its own slide"
    opened.wait_for_function("() => document.querySelectorAll('.pane[data-side=left]').length")
    opened.evaluate(f"(panes) => {APP}.store.set({{ panes, layout: 'grid' }})", every)
    count = len(state(opened)["panes"])
    opened.keyboard.press("n")
    assert len(state(opened)["panes"]) == count + 1
    opened.keyboard.press("Shift+N")
    assert len(state(opened)["panes"]) == count
    opened.evaluate(f"{APP}.store.set({{ active: 1 }})")
    assert press(".", "active") == [2 % count]
    assert press(",", "active") == [1]
    opened.evaluate(f"{APP}.store.set({{ active: 1 }})")
    assert press("a", "panes.1.mode") == ["slide"]
    assert press("a", "panes.1.mode") == ["heat"]
    assert press("o", "panes.1.mode", "panes.1.opacity") == ["overlay", 0.7]
    assert press("Shift+O", "panes.1.opacity") == [0.6]
    before = state(opened)["panes"][1]["evidence"]
    assert press("e", "panes.1.evidence") != [before]
    assert press("Shift+E", "panes.1.evidence") == [before]
    opened.wait_for_function(SHOWN)
    assert press("k", "panes.1.map") != ["heatmap"]
    opened.evaluate(
        f"""() => {{
          const {{ store }} = {APP};
          store.set({{ panes: store.get().panes.map((pane) => ({{ ...pane, map: "heatmap" }})) }});
        }}"""
    )
    assert press("s", "colour.sign") == ["for"]
    assert press("s", "colour.sign") == ["against"]
    assert press("p", "colour.palette") == ["purple-green"]
    assert press("i", "colour.smooth") == [True]
    assert press("g", "colour.grid") == [True]
    limit = opened.evaluate(f"{APP}.library.limits.heatmap")
    [lower] = press("c", "colour.limits.heatmap")
    assert lower < limit
    assert press("Shift+C", "colour.limits.heatmap") == [limit], (
        "limits of libraries are of 1, 2, 5"
    )
    assert press("h", "colour.threshold") == [pytest.approx(0.05 * limit)]
    assert press("Shift+H", "colour.threshold") == [0]
    assert press("q", "panel") == [None]
    assert press("q", "panel") == ["ledger"]
    # The targets: every pane keeps its run where it has that target.
    targets = opened.locator(".colour-bar [aria-label='Target of all panes'] button")
    names = targets.all_inner_texts()
    assert sorted(names) == ["tumour", "tumour - normal"]
    cnn = {name: found["cnn", name] for name in names}
    opened.evaluate(
        f"""([cnn, vit]) => {{
          const {{ store }} = {APP};
          const [first] = store.get().panes;
          const pane = (evidence) => ({{ ...first, evidence, mode: "overlay" }});
          store.set({{ panes: [pane(cnn), pane(vit)], active: 0 }});
        }}""",
        [cnn["tumour"], found["vit", "tumour"]],
    )
    assert press(
        str(names.index("tumour - normal") + 1), "panes.0.evidence", "panes.1.evidence"
    ) == [
        cnn["tumour - normal"],
        found["vit", "tumour"],
    ]
    # After a choice with the mouse, keys are the slide's.
    opened.locator(".colour-bar label", has_text="Tiles").click()
    opened.wait_for_function("() => document.activeElement.getAttribute('role') === 'application'")
    assert press("x", "layout") == ["curtain"]
    # In a field, keys are letters.
    field = opened.locator(".colour-bar input.limit")
    field.focus()
    opened.keyboard.type("n")
    assert len(state(opened)["panes"]) == 2


def test_every_key_is_in_the_help_and_stands_for_one_thing(opened):
    commands = opened.evaluate(
        f"{APP}.commands.list().map(({{ id, keys, label, page }}) => ({{ id, keys, label, page }}))"
    )
    for page in ("slide", "list"):
        keys = Counter(
            key for one in commands if one["page"] in (page, "any") for key in one["keys"]
        )
        assert [key for key, count in keys.items() if count > 1] == []
    assert all(one["label"] for one in commands)
    opened.keyboard.press("?")
    dialog = opened.locator("dialog.help")
    assert dialog.is_visible()
    lines = dialog.locator("dd").all_inner_texts()
    wanted = [one["label"] for one in commands if one["keys"] and one["page"] != "list"]
    assert sorted(lines) == sorted(wanted)
    opened.keyboard.press("n")
    assert len(state(opened)["panes"]) == 3, "behind a dialog no key does anything"
    opened.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_the_limit_is_fitted_to_what_is_seen(opened, ids, served):
    """One pixel in a hundred is beyond it, by the server's own numbers."""
    _, found = ids
    opened.evaluate(
        f"""(evidence) => {{
          const {{ store }} = {APP};
          const pane = {{ ...store.get().panes[0], evidence, mode: "overlay", map: "heatmap" }};
          store.set({{ panes: [pane], active: 0, view: null }});
        }}""",
        found["cnn", "tumour"],
    )
    opened.wait_for_function(SHOWN)
    # A view in which one map pixel is a screen pixel: the whole of level 0.
    info = opened.evaluate(f"{APP}.transport.json('api/evidence/{found['cnn', 'tumour']}')")
    [told] = [one for one in info["maps"] if one["name"] == "heatmap"]
    x, y, width, height = told["box_um"]
    step = told["pixel_um"][0] if isinstance(told["pixel_um"], list) else told["pixel_um"]
    view = {"x": x + width / 2, "y": y + height / 2, "scale": step, "rotation": 0}
    opened.evaluate(f"(view) => {APP}.store.set({{ view }})", view)
    field = opened.locator(".colour-bar input.limit")
    field.fill("1e6")
    field.press("Enter")
    opened.locator(".pane-stage").focus()
    opened.keyboard.press("f")
    opened.wait_for_function(f"() => {APP}.store.get().colour.limits.heatmap !== 1e6")
    limit = state(opened)["colour"]["limits"]["heatmap"]

    seen = opened.evaluate(
        f"""() => {{
          const [pane] = {APP}.panes.list();
          const {{ width, height }} = pane.size;
          return [pane.toSlide(0, 0), pane.toSlide(width, height)];
        }}"""
    )
    columns, rows = -(-told["width"] // 256), -(-told["height"] // 256)
    steps = np.full((rows * 256, columns * 256), -32768, np.int16)
    for row, column in np.ndindex(rows, columns):
        path = f"api/evidence/{info['id']}/maps/heatmap/0/{column}/{row}"
        packed = opened.evaluate(
            f"""async (path) => {{
              const bytes = new Uint8Array(await {APP}.transport.bytes(path));
              return btoa(Array.from(bytes, (one) => String.fromCharCode(one)).join(""));
            }}""",
            path,
        )
        tile = np.frombuffer(base64.b64decode(packed), "<i2").reshape(256, 256)
        steps[row * 256 :, column * 256 :][:256, :256] = tile
    inside = steps != -32768
    left, right = ((corner["x_um"] - x) / step for corner in seen)
    top, bottom = ((corner["y_um"] - y) / step for corner in seen)
    at_y, at_x = np.indices(steps.shape)
    inside &= (at_x > left - 1) & (at_x < right) & (at_y > top - 1) & (at_y < bottom)
    sizes = np.sort(np.abs(steps[inside].astype(np.float64)) * told["step"])
    exceeded = sizes[-1 - len(sizes) // 100]
    assert 0.99 * exceeded <= limit <= 1.12 * exceeded, "rounded up to two digits"
    # Of the level that is drawn, in a view where that is not the nearest.
    opened.evaluate(f"(view) => {APP}.store.set({{ view }})", {**view, "scale": 1.3 * step})
    opened.wait_for_function("() => document.querySelector('.pane-stage').dataset.heat === 'whole'")
    field.fill("1e6")
    field.press("Enter")
    opened.locator(".pane-stage").focus()
    opened.keyboard.press("f")
    opened.wait_for_function(f"() => {APP}.store.get().colour.limits.heatmap !== 1e6")
    opened.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    beyond = opened.evaluate(
        f"() => {{ const s = {APP}.panes.list()[0].survey(); return s.clipped / s.pixels; }}"
    )
    assert 0.003 < beyond <= 0.0101
    opened.keyboard.press("d")
    assert state(opened)["colour"]["limits"]["heatmap"] == opened.evaluate(
        f"{APP}.library.limits.heatmap"
    )
    for text, wanted in [("0,5", 0.5), ("-3", 0.5), ("x", 0.5), ("7e-3", 0.007)]:
        field.fill(text)
        field.press("Enter")
        assert state(opened)["colour"]["limits"]["heatmap"] == wanted, text


def test_the_address_is_the_view(opened, served, ids):
    slide, _ = ids
    opened.wait_for_function("() => location.hash.includes('view=')")
    opened.keyboard.press("s")
    opened.wait_for_function("() => location.hash.includes('sign=for')")
    address = opened.url
    assert "token" not in address
    opened.keyboard.press("u")
    assert state(opened)["page"] == "list"
    assert "#" not in opened.url
    opened.go_back()
    opened.wait_for_function(f"() => {APP}.store.get().page === 'slide'")
    assert opened.url == address
    assert state(opened)["colour"]["sign"] == "for"
    opened.go_forward()
    opened.wait_for_function(f"() => {APP}.store.get().page === 'list'")
    # Opened afresh, and with a part that makes no sense.
    opened.goto("about:blank")
    opened.goto(f"{address}&view=nonsense")
    opened.wait_for_function(SHOWN)
    assert state(opened)["slide"] == slide
    assert "view=nonsense" in opened.locator(".notice").inner_text()


def test_failures_are_told_and_the_page_goes_on(opened, complaints, ids):
    _, found = ids
    say = opened.locator(".notices")
    path = f"api/evidence/{found['cnn', 'tumour']}/tiles/999999999"
    opened.evaluate(f"(path) => {APP}.transport.json(path).catch({APP}.fail)", path)
    say.locator(".notice").wait_for()
    line = say.inner_text()
    assert "999999999" in line or "tile" in line
    say.get_by_role("button", name="Dismiss").click()
    assert say.locator(".notice").count() == 0
    assert any("404" in one for one in complaints)

    opened.route("**/api/**", lambda route: route.abort())
    opened.evaluate(f"(path) => {APP}.transport.json(path).catch({APP}.fail)", path)
    say.get_by_text("The server does not answer").wait_for()
    assert say.locator(".notice").count() == 1
    opened.keyboard.press("s")
    assert state(opened)["colour"]["sign"] == "for", "the page still works"
    opened.unroute("**/api/**")
    say.get_by_role("button", name="Try again").click()
    say.get_by_text("The server answers again").wait_for()
    assert all("404" in one or "ERR_FAILED" in one for one in complaints), complaints
    complaints.clear()


NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, dialog, [role=group], [role=toolbar], [role=application]")]
  .filter((one) => !(one.ariaLabel || one.labels?.length || one.textContent.trim() || one.getAttribute("aria-labelledby") || one.placeholder))
  .map((one) => one.outerHTML.slice(0, 160))"""  # noqa: E501

# Text under 12 px, or of less contrast than WCAG 2 asks for, where its ground is a plain colour.
UNREADABLE = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [lr, lg, lb] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * lr + 0.7152 * lg + 0.0722 * lb;
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const isField = ["INPUT", "SELECT", "TEXTAREA"].includes(one.tagName);
    if (!(own || isField) || !one.checkVisibility({ visibilityProperty: true, opacityProperty: true }) || one.closest(".unseen, noscript, option, :disabled")) continue;
    const style = getComputedStyle(one);
    let ground = null;
    for (let up = one; up !== null && ground === null; up = up.parentElement) {
      const colour = channels(getComputedStyle(up).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.8) ground = colour;
    }
    const [a, b] = [light(channels(style.color)), light(ground ?? [255, 255, 255])];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    if (size < 12 || ratio < 4.5) found.push(`${size}px ${ratio.toFixed(2)}: ${one.outerHTML.slice(0, 100)}`);
  }
  return found;
}"""  # noqa: E501


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_is_named_and_readable_in_both_themes(opened, theme):
    opened.emulate_media(color_scheme=theme)
    is_dark = "parseInt(getComputedStyle(document.body).backgroundColor.slice(4)) < 128"
    assert opened.evaluate(is_dark) == (theme == "dark")
    assert opened.evaluate(NAMELESS) == []
    opened.locator("button[aria-pressed=true]").first.hover()
    assert opened.evaluate(UNREADABLE) == []
    opened.keyboard.press("?")
    assert opened.evaluate(UNREADABLE) == []
    opened.keyboard.press("Escape")
    opened.keyboard.press("u")
    assert opened.evaluate(NAMELESS) == []
    assert opened.evaluate(UNREADABLE) == []
    # By hand, whatever the system has.
    other = {"light": "dark", "dark": "light"}[theme]
    while state(opened)["theme"] != other:
        opened.keyboard.press("Shift+D")
    assert opened.evaluate(is_dark) == (other == "dark")
    opened.reload()
    opened.wait_for_function(READY)
    assert state(opened)["theme"] == other, "it is remembered"


@pytest.mark.parametrize("size", [(1366, 768), (3840, 2160)])
def test_fits_a_laptop_and_a_large_screen(opened, size):
    """Nothing sticks out, slides have most of the screen, and panes are of one size."""
    opened.set_viewport_size({"width": size[0], "height": size[1]})
    opened.evaluate(f"() => {APP}.store.set({{ panel: 'ledger' }})")
    overflowing = opened.evaluate(
        """() => [document.scrollingElement, ...document.querySelectorAll(".bar, .bar-line, .colour-bar, .pane-bar, .body")]
          .filter((one) => one.scrollWidth > one.clientWidth + 1 || one.getBoundingClientRect().right > innerWidth + 1)
          .map((one) => one.outerHTML.slice(0, 80))"""  # noqa: E501
    )
    assert overflowing == []
    parts = opened.evaluate(
        """() => {
          const stage = document.querySelector(".stage").getBoundingClientRect();
          return [stage.width / innerWidth, stage.height / innerHeight,
                  parseFloat(getComputedStyle(document.body).fontSize)];
        }"""
    )
    assert parts[0] > 0.6, "most of the screen is the slide's"
    assert parts[1] > 0.8
    assert parts[2] >= (20 if size[0] > 3000 else 13)
    heads = opened.evaluate(
        "() => document.body.viewer.panes.list().map((pane) => [pane.size.width, pane.size.height])"
    )
    for sizes in zip(*heads, strict=True):
        assert max(sizes) - min(sizes) <= 1, "slides are level"


def test_a_cell_leaves_the_address_alone(page, served, ids):
    """``options.link`` not set, in an element of its own: as in a notebook."""
    page.goto(served.url)
    page.wait_for_function(READY)
    before = page.url
    page.evaluate(
        """async (id) => {
          document.body.viewer.destroy();
          const [{ start }, { fetchTransport }] = await Promise.all([import("/static/main.js"), import("/static/base/transport.js")]);
          const root = document.createElement("div");
          root.style.height = "500px";
          const field = document.createElement("input");
          document.body.append(field, root);
          globalThis.field = field;
          const app = await start(root, { transport: fetchTransport(), OpenSeadragon });
          app.openSlide(id);
        }""",  # noqa: E501
        ids[0],
    )
    cell = "document.querySelector('div.viewer')"
    page.wait_for_function(f"() => {cell}.viewer.store.get().view !== null")
    page.evaluate(f"{cell}.viewer.store.set({{ theme: 'dark' }})")
    page.locator("input").first.focus()
    page.keyboard.press("x")
    assert page.evaluate(f"{cell}.viewer.store.get().layout") == "grid", "keys outside are not ours"
    page.evaluate(f"{cell}.focus()")
    page.keyboard.press("x")
    assert page.evaluate(f"{cell}.viewer.store.get().layout") == "curtain"
    page.wait_for_timeout(400)
    assert page.url == before
    page.evaluate(f"{cell}.viewer.destroy()")
    assert (
        page.evaluate("document.querySelectorAll('body > div:not([class=\"\"]) > *').length") == 0
    )
