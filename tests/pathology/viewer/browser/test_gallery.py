"""Galleries and single tiles in a real browser, against the table of tiles."""

import numpy as np
import pandas as pd
import pytest
import shapely

from tests.pathology.viewer.browser.tool_page import MPP, geometry_of, number


def test_gallery_is_in_the_tables_order_and_goes_there(viewer, page):
    entry = viewer.entry()
    viewer.open(entry, panel="gallery")
    tiles = pd.read_parquet(entry.folder / "tiles.parquet")
    share = (tiles["weight"] * tiles["contribution"]).to_numpy()
    indices = """app => {
        const faces = [...document.querySelectorAll('.gallery-tile')];
        const isBusy = document.querySelector('.gallery').getAttribute('aria-busy') === 'true';
        return faces.length && !isBusy ? faces.map((face) => Number(face.dataset.index)) : null;
    }"""
    order = np.argsort(-share, kind="stable")
    assert viewer.until(indices) == order[: len(viewer.ask(indices))].tolist()
    for_it = np.sort(share[share > 0])[::-1]
    few = int(np.searchsorted(np.cumsum(for_it), 0.8 * for_it.sum())) + 1
    caption = page.locator(".curve-figure figcaption").inner_text()
    assert caption.startswith(f"{few:,} of {len(share):,} tiles")

    page.locator(".gallery-tile").nth(2).click()
    chosen = tiles.iloc[order[2]]
    centre = viewer.ask("app => { const {x, y} = app.panes.camera.get(); return [x, y]; }")
    wanted = [(chosen.x + chosen.width / 2) * MPP[0], (chosen.y + chosen.height / 2) * MPP[1]]
    np.testing.assert_allclose(centre, wanted, atol=1e-6)
    assert viewer.ask("app => app.store.get().tile.index") == order[2]
    page.keyboard.press(">")
    assert viewer.ask("app => app.store.get().tile.index") == order[3]
    assert viewer.ask("app => app.store.get().panel") == "gallery"

    viewer.ask("app => app.commands.run('zoom-whole')")
    (region,) = viewer.draw([(300, 250), (600, 250), (600, 500), (300, 500)])
    viewer.ask("app => app.store.set({panel: 'gallery'})")
    page.get_by_label("Only tiles inside").select_option(region["id"])
    centres = shapely.points(tiles.x + tiles.width / 2, tiles.y + tiles.height / 2)
    inside = [
        i
        for i in order
        if shapely.contains(geometry_of(region["polygons"]), centres[i]) and share[i] > 0
    ]
    assert viewer.until(indices) == inside[:12]


def test_a_tile_is_told_as_the_table_has_it(viewer, page):
    entry = viewer.entry()
    viewer.open(entry)
    tiles = pd.read_parquet(entry.folder / "tiles.parquet")
    row = tiles.iloc[40]
    page.keyboard.press("t")
    ((x, y),) = viewer.screen([(row.x + row.width / 2, row.y + row.height / 2)])
    page.mouse.click(x, y)
    viewer.until("app => app.store.get().tile?.index === 40")
    table = page.locator(".tool-tile-table")
    table.wait_for()
    told = dict(
        zip(
            table.locator("th").all_inner_texts(),
            table.locator("td").all_inner_texts(),
            strict=True,
        )
    )
    assert number(told["contribution"]) == pytest.approx(row.contribution, rel=2e-3, abs=1e-3)
    assert number(told["= the tile's own logit"]) == pytest.approx(
        row.logit_tumour, rel=2e-3, abs=1e-3
    )
    assert number(told["adds to the slide: weight \u00d7 contribution"]) == pytest.approx(
        row.weight * row.contribution, rel=2e-3
    )
    assert number(viewer.cell("inside", 3)) == pytest.approx(
        row.weight * row.contribution, abs=6e-4
    )
    corners = np.array(
        viewer.screen([(row.x, row.y), (row.x + row.width, row.y + row.height)])
    ).ravel()
    box = page.locator(".tool-tile-outline").first.bounding_box()
    seen = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
    np.testing.assert_allclose(seen, corners, atol=2.0)  # with the width of its line
    picture = page.locator(".tool-tile img")
    viewer.until("app => document.querySelector('.tool-tile img').naturalWidth > 0")
    assert picture.get_attribute("alt") == "Tile 40 of the slide"
