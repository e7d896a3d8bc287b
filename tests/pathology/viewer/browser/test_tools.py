"""Ledger, lasso and annotations in a real browser, against NumPy and the files."""

import json
import math
import re
from urllib.parse import urlsplit

import numpy as np
import pytest
import shapely

from tests.pathology.viewer.browser.tool_page import (
    MPP,
    SIZE,
    Viewer,
    brute_sum,
    geometry_of,
    group_sum,
    number,
    record_of,
)  # fmt: skip


def test_the_slides_ledger_is_that_of_the_file(viewer):
    entry = viewer.entry()
    ledger = record_of(entry)["ledger"]
    viewer.open(entry)
    for row, value in (
        ("bias", ledger["bias"]), ("map", ledger["map_sum"]), ("cut off", ledger["cut_off"]),
        ("score", ledger["score"]),
    ):  # fmt: skip
        # Four digits of the largest, or at least one of any.
        assert number(viewer.cell(row, 1)) == pytest.approx(value, rel=0.05, abs=5e-4)
    assert viewer.cell("gap", 1).endswith("closed")
    note = viewer.page.locator(".ledger-tables .tool-note").inner_text()
    assert f"{ledger['undivided']['tiles']} tiles" in note

    viewer.cell("inside", 2)
    copied = {line[0]: line[1:] for line in viewer.copied("ledger.copy")}
    told = {
        name: float(values[0])
        for name, values in copied.items()
        if name in ("bias", "map", "score", "cut off")
    }
    assert told == {
        "bias": ledger["bias"], "map": ledger["map_sum"], "score": ledger["score"],
        "cut off": ledger["cut_off"],
    }  # fmt: skip
    # All of the slide is in view.
    assert float(copied["inside"][1]) == pytest.approx(ledger["map_sum"], rel=1e-6)
    assert float(copied["area, mm²"][1]) == pytest.approx(
        SIZE[0] * MPP[0] * SIZE[1] * MPP[1] * 1e-6
    )


def test_two_explanations_stand_beside_each_other(viewer):
    entries = [viewer.entry("cnn"), viewer.entry("vit")]
    viewer.open(*entries)
    for column, entry in enumerate(entries, 1):
        shown = number(viewer.cell("score", column))
        assert shown == pytest.approx(record_of(entry)["ledger"]["score"], rel=1e-3, abs=5e-4)
    heads = viewer.page.locator(".ledger-tables table").first.locator("thead th").all_inner_texts()
    assert heads == ["cnn", "vit"]


def test_lasso_sum_is_numpys(viewer):
    entry = viewer.entry()
    viewer.open(entry)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    drawn = [
        (500 + 200 * math.cos(a), 380 + (150 + 40 * math.sin(3 * a)) * math.sin(a)) for a in angle
    ]
    (region,) = viewer.draw(drawn)
    geometry = geometry_of(region["polygons"])
    # As far as the mouse goes in whole pixels of the screen, which are 0.8 um and more here.
    scale = viewer.ask("app => app.store.get().view.scale")
    assert shapely.hausdorff_distance(geometry, shapely.Polygon(drawn)) < 4 * scale / min(MPP)

    wanted = brute_sum(entry, geometry)
    viewer.cell("inside", 3)
    copied = {line[0]: line[1:] for line in viewer.copied("ledger.copy")}
    # Values are float32, as coarser levels are: 6e-8 of their sum without signs.
    assert float(copied["inside"][2]) == pytest.approx(wanted, abs=1e-6)
    assert float(copied["total"][2]) == pytest.approx(record_of(entry)["ledger"]["score"], abs=1e-6)
    area = geometry.area * MPP[0] * MPP[1] * 1e-6
    assert float(copied["area, mm²"][2]) == pytest.approx(area, rel=1e-9)
    assert float(copied["logits/mm²"][2]) == pytest.approx(wanted / area, rel=1e-5)
    # It is drawn where it is, in the pane's pixels.
    left, top, right, bottom = geometry.bounds
    corners = np.array(viewer.screen([(left, top), (right, bottom)]))
    box = viewer.page.locator(".pane-svg .tool-selected").first.bounding_box()
    seen = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
    # A bounding box has its line's width around it.
    np.testing.assert_allclose(seen, corners.ravel(), atol=3.0)


def test_the_first_press_on_a_pane_that_is_not_the_active_one_draws(viewer):
    viewer.open(viewer.entry("cnn"), viewer.entry("vit"))
    (region,) = viewer.draw([(300, 250), (600, 250), (600, 500), (300, 500)], pane=1)
    assert viewer.ask("app => app.store.get().active") == 1
    assert shapely.Polygon(region["polygons"][0][0]).area == pytest.approx(300 * 250, rel=0.05)
    # It is drawn in both panes.
    assert viewer.page.locator(".pane-svg .tool-selected").count() == 2

    viewer.ask("app => app.panes.camera.go({...app.panes.camera.get(), scale: 4})")
    viewer.page.wait_for_timeout(50)
    viewer.draw([(-90, -90), (-10, -90), (-10, -10)])
    viewer.page.get_by_text("That lies outside the slide").wait_for()
    assert viewer.ask("app => app.store.get().regions.length") == 1


def test_lasso_by_touch(viewer):
    viewer.open(viewer.entry())
    viewer.ask("app => app.store.set({tool: 'lasso'})")
    before = viewer.ask("app => app.store.get().view")
    touch = viewer.page.context.new_cdp_session(viewer.page)
    corners = [(300, 250), (600, 250), (600, 500), (300, 500)]
    for kind, place in zip(("Start", "Move", "Move", "Move"), viewer.screen(corners), strict=True):
        points = [{"x": place[0], "y": place[1]}]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    (region,) = viewer.settled()
    assert shapely.Polygon(region["polygons"][0][0]).area == pytest.approx(300 * 250, rel=0.05)
    assert viewer.ask("app => app.store.get().view") == before  # the slide was not dragged


def test_a_line_that_crosses_itself_is_filled(viewer):
    entry = viewer.entry()
    viewer.open(entry, panel="regions")
    (region,) = viewer.draw([(300, 250), (600, 500), (600, 250), (300, 500)])
    geometry = geometry_of(region["polygons"])
    assert len(region["polygons"]) == 2
    # Two triangles over a box of 300 x 250 px, as drawn in pixels of the screen.
    assert geometry.area == pytest.approx(300 * 250 / 2, rel=0.05)
    shown = viewer.until("app => document.querySelector('.region-row .ledger-number')?.textContent")
    assert number(shown) == pytest.approx(brute_sum(entry, geometry), abs=1e-4, rel=1e-3)


def test_lasso_by_keys_alone(viewer):
    entry = viewer.entry()
    viewer.open(entry)
    keys = viewer.page.keyboard
    centre = "app => { const {x, y} = app.panes.camera.get(); return [x / 0.5, y / 0.41]; }"
    keys.press("+")
    keys.press("l")
    corners = []
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", None):
        viewer.page.wait_for_timeout(50)
        corners.append(viewer.ask(centre))
        keys.press("Enter")
        if key:
            keys.press(key)
    assert "Point 4" in viewer.page.locator('[role="status"][aria-live]').first.text_content()
    keys.press("Backspace")
    keys.press("Enter")
    keys.press("Shift+Enter")
    (region,) = viewer.settled()
    # Points have two decimals, and the crosshair is at a whole or half pixel of the screen.
    assert (
        shapely.hausdorff_distance(geometry_of(region["polygons"]), shapely.Polygon(corners)) < 2.0
    )
    told = viewer.until(
        "app => /logits, .* of the map/.test(document.querySelector('[aria-live]').textContent)"
    )
    spoken = viewer.page.locator("[aria-live]").first.text_content()
    assert number(spoken.split(": ")[1]) == pytest.approx(
        brute_sum(entry, geometry_of(region["polygons"])), abs=1e-4
    )
    assert told
    keys.press("F2")
    viewer.page.keyboard.type("Gland <b>3</b>")
    keys.press("Enter")
    assert viewer.ask("app => app.store.get().regions[0].name") == "Gland <b>3</b>"
    assert viewer.page.locator(".tools b").count() == 0


def test_no_number_stands_beside_another_region_or_view(viewer, page):
    viewer.open(viewer.entry())
    viewer.draw([(300, 250), (600, 250), (600, 500), (300, 500)])
    viewer.cell("inside", 3)
    held, is_holding = [], True
    page.route(
        re.compile(r"/api/evidence/.*/regions$"),
        lambda route: held.append(route) if is_holding else route.continue_(),
    )
    before = viewer.cell("inside", 2)
    viewer.page.keyboard.press("Escape")
    viewer.ask(
        "app => app.panes.camera.go({...app.panes.camera.get(), scale: 0.2, x: 200, y: 150})"
    )
    pending = "app => document.querySelector('tr[data-row=inside] td.is-pending')?.textContent"
    assert viewer.until(pending) == before  # still there, but grey
    assert page.locator("tr[data-row=inside] td").nth(2).get_attribute("aria-busy") is None
    viewer.ask("app => app.commands.run('region.view')")
    waiting = "app => document.querySelector('tr[data-row=inside] .ledger-waiting')?.textContent"
    assert viewer.until(waiting) == "…"
    while len(held) < 2:
        page.wait_for_timeout(20)
    is_holding = False
    for route in held:
        route.continue_()
    viewer.settled()
    view, region = viewer.cell("inside", 2), viewer.cell("inside", 3)
    assert view == region != before
    assert page.locator(".is-pending, .ledger-waiting").count() == 0


def test_regions_stay_until_they_are_deleted_and_come_back(viewer, page):
    entry = viewer.entry()
    viewer.open(entry)
    viewer.draw([(300, 250), (600, 250), (600, 500)])
    page.reload()
    viewer.until("app => app.panes && app.library")
    page.goto(urlsplit(page.url)._replace(fragment="").geturl())
    viewer.until("app => app.panes && app.library")
    viewer.open(entry)
    names = "app => app.store.get().regions.map((one) => one.name)"
    assert viewer.ask(names) == ["Region 1"]
    viewer.ask("app => { app.openList(); app.openSlide(app.store.get().slide); }")
    assert viewer.ask(names) == ["Region 1"]
    viewer.ask("app => app.commands.run('region.view')")
    viewer.ask("app => app.commands.run('region.next')")
    page.keyboard.press("Delete")
    assert viewer.ask(names) == ["Region 2"]
    page.keyboard.press("Control+z")
    assert viewer.ask(names) == ["Region 1", "Region 2"]  # where it was


def test_tabs_do_not_undo_each_others_regions(viewer, page, served):
    entry = viewer.entry()
    viewer.open(entry)
    viewer.draw([(300, 250), (600, 250), (600, 500)])
    tab = page.context.new_page()
    other = Viewer(tab, served)
    other.open(entry)
    other.ask("app => app.commands.run('region.view')")
    names = "app => app.store.get().regions.map((one) => one.name).join()"
    viewer.until(f"app => ({names})(app) === 'Region 1,Region 2'")
    viewer.ask("app => app.commands.run('region.view')")
    other.until(f"app => ({names})(app) === 'Region 1,Region 2,Region 3'")


def test_what_could_not_be_summed_is_asked_again(viewer, page, complaints):
    entry, sums = viewer.entry(), re.compile(r"/api/evidence/.*/regions$")
    page.route(sums, lambda route: route.fulfill(status=500, json={"error": "no room"}))
    viewer.open(entry)
    told = page.locator(".ledger-tables .tool-problem")
    told.wait_for()
    assert told.inner_text() == "View: no room"
    page.unroute(sums)
    page.get_by_role("button", name="Try again").click()
    assert number(viewer.cell("inside", 2)) == pytest.approx(
        record_of(entry)["ledger"]["map_sum"], abs=5e-4
    )
    assert told.count() == 0
    assert not page.get_by_role("button", name="Try again").is_visible()
    complaints[:] = [each for each in complaints if "500" not in each]


def test_export_and_import_give_the_same_regions(viewer, page, tmp_path):
    entry = viewer.entry()
    viewer.open(entry, panel="regions")
    viewer.draw([(300, 250), (600, 250), (600, 500)])
    viewer.ask("app => app.store.set({tool: 'pan'})")
    viewer.ask("app => app.commands.run('region.view')")
    before = viewer.settled()
    assert len(before) == 2
    with page.expect_download() as caught:
        viewer.ask("app => app.commands.run('region.export')")
    path = tmp_path / caught.value.suggested_filename
    caught.value.save_as(path)
    features = json.loads(path.read_text())["features"]
    assert [each["properties"]["name"] for each in features] == ["Region 1", "Region 2"]
    for feature, region in zip(features, before, strict=True):
        wanted = geometry_of(region["polygons"])
        # QuPath's precision.
        assert (
            shapely.hausdorff_distance(shapely.geometry.shape(feature["geometry"]), wanted) < 0.02
        )
    viewer.ask("app => app.commands.run('region.clear')")
    page.locator("input[type=file]").set_input_files(path)
    after = viewer.until("app => app.store.get().regions.length === 2 && app.store.get().regions")
    for one, other in zip(before, after, strict=True):
        assert (one["id"], one["name"]) == (other["id"], other["name"])
        assert (
            shapely.hausdorff_distance(geometry_of(one["polygons"]), geometry_of(other["polygons"]))
            < 0.02
        )
    together = viewer.until(group_sum("all together"))
    union = shapely.union_all([geometry_of(one["polygons"]) for one in after])
    assert number(together) == pytest.approx(brute_sum(entry, union), rel=2e-3, abs=1e-4)


def test_dropped_annotations_have_sums_for_each_class(viewer, page, complaints):
    entry = viewer.entry()
    viewer.open(entry, panel="regions")
    boxes = [shapely.box(300, 250, 450, 400), shapely.box(400, 350, 600, 500)]
    features = [
        {
            "type": "Feature", "geometry": shapely.geometry.mapping(box),
            "properties": {
                "objectType": "annotation",
                "name": f"<i>{i}</i>",
                "classification": {"name": "Tumour"},
            },
        }
        for i, box in enumerate(boxes)
    ]  # fmt: skip
    text = json.dumps({"type": "FeatureCollection", "features": features})
    page.evaluate(
        """text => {
            const data = new DataTransfer();
            data.items.add(new File([text], 'mine.geojson'));
            const how = {dataTransfer: data, bubbles: true, cancelable: true};
            document.body.dispatchEvent(new DragEvent('drop', how));
        }""",
        text,
    )
    viewer.until("app => app.store.get().regions.length === 2")
    shown = viewer.until(group_sum("class Tumour"))
    assert number(shown) == pytest.approx(
        brute_sum(entry, shapely.union_all(boxes)), rel=2e-3, abs=1e-4
    )
    assert page.locator(".tools i").count() == 0

    page.locator("input[type=file]").set_input_files(
        {"name": "none.geojson", "mimeType": "application/json", "buffer": b"{not json"}
    )
    line = page.locator(".notice-text").filter(has_text="none.geojson: ")
    line.wait_for()
    refused = [each for each in complaints if "422" in each]
    assert len(refused) == 1
    complaints.remove(refused[0])
