"""What the routes of explanations answer, against the files."""

import json

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from pathology.maps.ome_tiff import read_ome_tiff
from pathology.viewer.app import make_app
from pathology.viewer.library.library import Library
from tests.pathology.viewer.conftest import ODD


@pytest.fixture(scope="module")
def library(slides_folder, results_folder):
    return Library.find(slides_folder, [results_folder])


@pytest.fixture(scope="module")
def client(library):
    return TestClient(make_app(library))


@pytest.fixture(scope="module")
def ids(library):
    """Ids of explanations by run, slide and target."""
    return {(e.run.name, e.slide.name, e.folder.name): e.id for e in library.evidence}


@pytest.fixture(scope="module")
def cnn(ids):
    return ids["cnn", "case_1", "tumour"]


@pytest.fixture(scope="module")
def both(ids, cnn):
    """The difference of two runs, whose tiles differ."""
    return f"{cnn}~{ids['vit', 'case_1', 'tumour']}"


def told(client, path):
    answer = client.get(f"/api/evidence/{path}")
    assert answer.status_code == 200, answer.text
    # NaN and infinities are no JSON, though Python reads them.
    return json.loads(answer.content, parse_constant=pytest.fail)


def test_an_explanation_says_what_its_record_says(client, library, cnn):
    entry, info = library.entry(cnn), told(client, cnn)
    record = json.loads((entry.folder / "explanation.json").read_text())
    for name in ("settings", "provenance", "coefficients", "stains", "places"):
        assert info[name] == record[name]
    assert info["places"] == [32, 32]
    assert info["depth"] == "pixels"
    parts = ("score", "bias", "map_sum", "cut_off", "gap", "is_closed", "undivided", "constants")
    assert {k: info["ledger"][k] for k in parts} == {k: record["ledger"][k] for k in parts}
    assert (info["id"], info["slide"], info["run"]) == (cnn, entry.slide.id, entry.run.id)
    assert info["title"] == "tumour, cnn"
    assert info["tiles"] == len(pd.read_parquet(entry.folder / "tiles.parquet"))
    assert info["tiles_note"] is None


def test_no_path_is_told(client, cnn, both, results_folder, slides_folder):
    for path in (cnn, both):
        text = json.dumps(told(client, path))
        assert str(results_folder) not in text
        assert str(slides_folder) not in text


def test_maps_say_where_they_lie_in_micrometres(client, library, cnn):
    (heatmap, density) = told(client, cnn)["maps"]
    given, _ = read_ome_tiff(library.entry(cnn).folder / "heatmap.ome.tif")
    assert (heatmap["name"], density["name"]) == ("heatmap", "density")
    assert (heatmap["additive"], density["additive"]) == (True, False)
    assert [heatmap["height"], heatmap["width"]] == list(given.values.shape)
    assert heatmap["pixel_um"] == pytest.approx([1.3, 1.3])
    assert heatmap["box_um"] == pytest.approx(
        [0, 0, heatmap["width"] * 1.3, heatmap["height"] * 1.3]
    )
    assert heatmap["levels"] == 1
    assert heatmap["largest"] / 32767 == heatmap["step"]
    assert 0 < heatmap["limit"] <= heatmap["largest"]


def test_layers_of_a_mean_are_offered_and_travel(client, ids):
    vit = ids["vit", "case_1", "tumour"]
    info = told(client, vit)
    names = [each["name"] for each in info["maps"]]
    assert names == ["heatmap", "density", "layers/agreement", "layers/members", "layers/spread"]
    assert info["layers"] is not None
    members = next(each for each in info["maps"] if each["name"] == "layers/members")
    answer = client.get(f"/api/evidence/{vit}/maps/layers/members/0/0/0")
    n = np.frombuffer(answer.content, "<i2")
    assert set(np.rint(n[n != -32768] * members["step"])) <= {0.0, 1.0, 2.0}


def tile_of(client, evidence, name, level, x, y, **headers):
    return client.get(f"/api/evidence/{evidence}/maps/{name}/{level}/{x}/{y}", headers=headers)


def test_tiles_of_a_map_are_its_values(client, library, cnn):
    heatmap = told(client, cnn)["maps"][0]
    given, _ = read_ome_tiff(library.entry(cnn).folder / "heatmap.ome.tif")
    expected = given.values.astype(float) / (1.3 * 1.3 * 1e-6)
    width, height = heatmap["width"], heatmap["height"]
    assert 256 < width <= 512
    answers = [tile_of(client, cnn, "heatmap", 0, x, 0) for x in range(2)]
    for answer in answers:
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "content-encoding" not in answer.headers
    n = np.hstack([np.frombuffer(a.content, "<i2").reshape(256, 256) for a in answers])
    assert (n[:, width:] == -32768).all()
    assert (n[height:] == -32768).all()
    values = np.where(n == -32768, np.nan, n * heatmap["step"])[:height, :width]
    np.testing.assert_allclose(values, expected, atol=heatmap["step"] / 2 * (1 + 1e-6))


def test_a_browser_that_has_a_tile_is_not_sent_it_again(client, cnn, both):
    first = tile_of(client, cnn, "heatmap", 0, 0, 0)
    tag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    again = tile_of(client, cnn, "heatmap", 0, 0, 0, **{"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    tags = {
        tile_of(client, *place).headers["etag"]
        for place in (
            (cnn, "heatmap", 0, 1, 0),
            (cnn, "density", 0, 0, 0),
            (both, "heatmap", 0, 0, 0),
        )
    }
    assert len(tags | {tag}) == 4


@pytest.mark.parametrize(
    "path",
    [
        "maps/heatmap/1/0/0", "maps/heatmap/0/2/0", "maps/heatmap/0/0/1", "maps/heatmap/0/-1/0",
        "maps/heatmap/0/0/x", "maps/nothing/0/0/0", "maps/%2e%2e/explanation/0/0/0",
        "maps/layers%2f..%2fheatmap/0/0/0", f"maps/heatmap/0/0/{'9' * 5000}", "maps/heatmap/0/0/٣",
        "tiles/100000", "tiles/-1", "tiles/x", f"tiles/{'1' * 5000}",
    ],
)  # fmt: skip
def test_what_there_is_not_is_not_found(client, cnn, path):
    answer = client.get(f"/api/evidence/{cnn}/{path}")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}
    assert "\n" not in answer.json()["error"]
    assert len(answer.json()["error"]) < 200


def test_a_place_tells_values_and_tiles(client, library, cnn):
    table = pd.read_parquet(library.entry(cnn).folder / "tiles.parquet")
    given, _ = read_ome_tiff(library.entry(cnn).folder / "heatmap.ome.tif")
    row = table.iloc[len(table) // 2]
    x, y = row.x + row.width / 3, row.y + row.height / 3
    found = told(client, f"{cnn}/at?x={float(x)!r}&y={float(y)!r}")
    down_x, down_y = given.downsample
    value = float(given.values[int(y / down_y), int(x / down_x)])
    # All digits of float32, not those of the tiles that travel.
    assert found["maps"]["heatmap"] == pytest.approx(value / (1.3 * 1.3 * 1e-6), rel=1e-12)
    (tile,) = found["tiles"]
    assert tile["index"] == len(table) // 2
    assert tile == told(client, f"{cnn}/tiles/{tile['index']}")
    assert tile["share"] == row.weight * row.contribution


def test_beside_the_tissue_nothing_is_told(client, cnn):
    for place in ("x=2&y=2", "x=-5&y=1e300"):
        found = told(client, f"{cnn}/at?{place}")
        assert found == {"maps": {"heatmap": None, "density": None}, "tiles": []}


@pytest.mark.parametrize("query", ["", "x=1", "x=1&y=nan", "x=1&y=inf", "x=1&y=two"])
def test_a_place_is_two_numbers(client, cnn, query):
    answer = client.get(f"/api/evidence/{cnn}/at?{query}")
    assert answer.status_code == 422
    assert "must be a number" in answer.json()["error"]


def test_overlapping_tiles_are_all_told(client, library, ids):
    odd = ids["cnn", ODD, "tumour"]
    table = pd.read_parquet(library.entry(odd).folder / "tiles.parquet")
    corners = set(zip(table.x, table.y, strict=True))
    x, y = next((x, y) for x, y in sorted(corners) if {(x - 24, y), (x, y - 24)} <= corners)
    found = told(client, f"{odd}/at?x={x + 2:f}&y={y + 2:f}")
    assert len(found["tiles"]) == 4
    # Each adds its own part, and the map holds them all.
    assert found["maps"]["heatmap"] is not None


def test_outlines_of_the_tiles_in_view(client, library, cnn, monkeypatch):
    table = pd.read_parquet(library.entry(cnn).folder / "tiles.parquet")
    every = told(client, f"{cnn}/outlines?x=0&y=0&width=2000&height=2000")
    assert every["boxes"] == table[["x", "y", "width", "height"]].to_numpy().tolist()
    assert every["truncated"] is False
    one = table.iloc[7]
    view = f"x={one.x + 1:f}&y={one.y + 1:f}&width=2&height=2"
    found = told(client, f"{cnn}/outlines?{view}")
    assert found["boxes"] == [[one.x, one.y, one.width, one.height]]
    monkeypatch.setattr("pathology.viewer.evidence.routes.MOST_BOXES", 5)
    some = told(client, f"{cnn}/outlines?x=0&y=0&width=2000&height=2000")
    assert (some["boxes"], some["truncated"]) == (every["boxes"][:5], True)
    assert client.get(f"/api/evidence/{cnn}/outlines?x=0&y=0&width=0&height=9").status_code == 422


def test_a_difference_says_what_it_is_of(client, ids, cnn, both):
    info, vit = told(client, both), ids["vit", "case_1", "tumour"]
    assert info["id"] == both
    assert info["run"] is None
    assert [part["id"] for part in info["of"]] == [cnn, vit]
    assert [part["run_name"] for part in info["of"]] == ["cnn", "vit"]
    one, other = told(client, cnn), told(client, vit)
    for name in ("score", "bias", "map_sum", "cut_off"):
        assert info["ledger"][name] == one["ledger"][name] - other["ledger"][name]
    assert info["tiles"] is None
    assert "different tiles" in info["tiles_note"]
    assert told(client, f"{both}/at?x=500&y=380")["tiles"] == []
    answer = client.get(f"/api/evidence/{both}/tiles/0")
    assert answer.status_code == 404
    assert "different tiles" in answer.json()["error"]
    outlines = told(client, f"{both}/outlines?x=0&y=0&width=999&height=999")
    assert outlines == {"boxes": [], "truncated": False}


def test_a_difference_at_a_place_is_the_difference_of_what_the_two_say(client, ids, cnn, both):
    vit = ids["vit", "case_1", "tumour"]
    seen = 0
    for x in range(200, 820, 31):
        maps = [told(client, f"{each}/at?x={x}&y=380")["maps"] for each in (cnn, vit, both)]
        one, other, found = (each["heatmap"] for each in maps)
        seen += one is not None and other is not None
        if one is None and other is None:
            assert found is None
        else:
            assert found == pytest.approx((one or 0.0) - (other or 0.0), rel=1e-9, abs=1e-12)
    assert seen > 10


def test_slides_are_not_subtracted(client, ids, cnn):
    answer = client.get(f"/api/evidence/{cnn}~{ids['cnn', ODD, 'tumour']}")
    assert answer.status_code == 422
    assert "a difference is of one slide" in answer.json()["error"]


def test_blind_mode_hides_every_route(slides_folder, results_folder, cnn, both, tmp_path):
    readings = tmp_path / "readings.csv"
    library = Library.find(slides_folder, [results_folder], readings=readings)
    client = TestClient(make_app(library))
    paths = [
        f"{evidence}{rest}"
        for evidence in (cnn, both)
        for rest in (
            "", "/maps/heatmap/0/0/0", "/at?x=1&y=1", "/tiles/0",
            "/outlines?x=0&y=0&width=1&height=1",
        )
    ]  # fmt: skip
    for path in paths:
        answer = client.get(f"/api/evidence/{path}")
        assert answer.status_code == 403, path
        assert set(answer.json()) == {"error"}
    library.readings.commit("case_1", "tumour", 0.5, "")
    assert client.get(f"/api/evidence/{cnn}").status_code == 200


def test_only_reading_is_answered(client, cnn):
    for path in ("", "/maps/heatmap/0/0/0", "/at", "/tiles/0", "/outlines"):
        assert client.post(f"/api/evidence/{cnn}{path}").status_code == 405
