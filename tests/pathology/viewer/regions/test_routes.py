"""What the routes of regions, tiles and annotations answer, against the files."""

import gzip
import json
import math
import re

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
from starlette.testclient import TestClient

from pathology.annotations import read_annotations
from pathology.geometry import Box
from pathology.maps.ome_tiff import read_ome_tiff
from pathology.viewer.app import make_app
from pathology.viewer.library.library import Library
from pathology.viewer.regions.regions import rings_of
from tests.pathology.viewer.conftest import MPP, ODD, SIZES
from tests.pathology.viewer.regions.made_sums import MadeMap, by_pixel

LASSO = [[150.3, 100.7], [800.2, 130.1], [700.5, 600.9], [420.0, 300.5], [200.1, 650.0]]
HOLE = [[300, 200], [360, 200], [360, 230], [300, 230]]
PENTAGRAM = [[500, 100], [618, 462], [310, 238], [690, 238], [382, 462]]
BOW = [[200, 200], [600, 500], [600, 200], [200, 500]]


@pytest.fixture(scope="module")
def client(library):
    return TestClient(make_app(library))


@pytest.fixture(scope="module")
def entries(library):
    """Explanations by run, slide and target."""
    return {(e.run.name, e.slide.name, e.folder.name): e for e in library.evidence}


@pytest.fixture(scope="module")
def cnn(entries):
    return entries["cnn", "case_1", "tumour"]


def posted(client, path, body, status=200):
    answer = client.post(f"/api/{path}", content=json.dumps(body) if body is not None else b"")
    assert answer.status_code == status, answer.text
    return json.loads(answer.content, parse_constant=pytest.fail)


def summed(client, evidence, *regions):
    """What is told of regions, each of lists of rings."""
    body = {"regions": [{"id": f"r{i}", "polygons": each} for i, each in enumerate(regions)]}
    return posted(client, f"evidence/{evidence}/regions", body)["regions"]


def parts_of(entry, region):
    """What each pixel of an explanation's map adds to a region, ``(height, width)``."""
    stored, _ = read_ome_tiff(entry.folder / "heatmap.ome.tif")
    made = MadeMap(stored.values, stored.downsample)
    slide = Box(0, 0, *SIZES[entry.slide.name])
    return np.nan_to_num(stored.values.astype(np.float64)) * by_pixel(made, region, slide)[0]


@pytest.mark.parametrize(
    ("run", "target"), [("cnn", "tumour"), ("cnn", "tumour_minus_normal"), ("vit", "tumour")]
)
def test_regions_hold_what_their_pixels_hold(client, entries, run, target):
    entry = entries[run, "case_1", target]
    record = json.loads((entry.folder / "explanation.json").read_text())
    tiles = pd.read_parquet(entry.folder / "tiles.parquet")
    holed, bow, beyond = [[LASSO, HOLE]], [[BOW]], [[[[-900, -900], [400, -900], [400, 9000]]]]
    answers = summed(client, entry.id, holed, bow, beyond)
    assert [answer["id"] for answer in answers] == ["r0", "r1", "r2"]
    mpp_x, mpp_y = MPP["case_1"]
    for answer, drawn in zip(answers, (holed, bow, beyond), strict=True):
        region = shapely.union_all([shapely.Polygon(r[0], r[1:]) for r in answer["polygons"]])
        assert region.is_valid
        if drawn is holed:
            assert region.equals(shapely.Polygon(LASSO, [HOLE]))
        parts = parts_of(entry, region)
        assert answer["sum"] == pytest.approx(parts.sum(), abs=1e-11)
        assert answer["for"] == pytest.approx(parts[parts > 0].sum(), abs=1e-11)
        assert answer["against"] == pytest.approx(parts[parts < 0].sum(), abs=1e-11)
        assert answer["area_mm2"] == pytest.approx(region.area * mpp_x * mpp_y * 1e-6)
        assert 0 < answer["covered_mm2"] <= answer["area_mm2"] * (1 + 1e-12)
        assert answer["density"] == pytest.approx(answer["sum"] / answer["area_mm2"])
        assert answer["share"] == pytest.approx(answer["sum"] / record["ledger"]["map_sum"])
        assert answer["at_um"] == pytest.approx(1.3, rel=0.05)
        centres = tiles[["x", "y"]].to_numpy() + tiles[["width", "height"]].to_numpy() / 2
        assert answer["tiles"] == shapely.contains_xy(region, centres).sum()
        boxes = shapely.box(tiles.x, tiles.y, tiles.x + tiles.width, tiles.y + tiles.height)
        whole = tiles.gap.isna() & (tiles.weight > 0) & (run == "cnn")
        assert answer["undivided"] == (whole & shapely.intersects(boxes, region)).sum()
        ledger = dict(answer["ledger"])
        names = ["bias", *record["ledger"]["constants"], "inside", "outside", "cut off"]
        assert [name for name, _ in answer["ledger"]] == names
        assert ledger["inside"] == answer["sum"]
        assert ledger["outside"] == record["ledger"]["map_sum"] - answer["sum"]
        assert answer["score"] == record["ledger"]["score"]
        assert answer["total"] == pytest.approx(math.fsum(ledger.values()))
        assert answer["gap"] == pytest.approx(record["ledger"]["gap"], abs=1e-12)


def test_the_whole_slide_is_the_whole_map(client, entries):
    for entry in entries.values():
        width, height = SIZES[entry.slide.name]
        (answer,) = summed(client, entry.id, [[[[0, 0], [width, 0], [width, height], [0, height]]]])
        ledger = json.loads((entry.folder / "explanation.json").read_text())["ledger"]
        assert answer["sum"] == pytest.approx(ledger["map_sum"], abs=1e-11)
        assert dict(answer["ledger"])["outside"] == pytest.approx(0, abs=1e-11)


def test_a_difference_is_what_the_two_differ_by(client, entries):
    first, second = (entries[run, "case_1", "tumour"] for run in ("cnn", "vit"))
    both = f"{first.id}~{second.id}"
    (answer,) = summed(client, both, [[LASSO]])
    (one,), (other,) = summed(client, first.id, [[LASSO]]), summed(client, second.id, [[LASSO]])
    for name in ("sum", "score", "total"):
        assert answer[name] == pytest.approx(one[name] - other[name], abs=1e-11)
    region = shapely.Polygon(LASSO)
    parts = parts_of(first, region) - parts_of(second, region)
    assert answer["for"] == pytest.approx(parts[parts > 0].sum(), abs=1e-11)
    assert answer["against"] == pytest.approx(parts[parts < 0].sum(), abs=1e-11)
    # Their tiles differ, so nothing is said of them but where the map is no finer than they are.
    assert answer["tiles"] is None
    assert (answer["undivided"], other["undivided"]) == (one["undivided"], 0)
    assert one["undivided"] > 0
    told = posted(client, f"evidence/{both}/gallery", {"order": "for", "n": 3}, 422)
    assert "do not subtract" in told["error"]
    targets = [entries["cnn", "case_1", name].id for name in ("tumour", "tumour_minus_normal")]
    (answer,) = summed(client, "~".join(targets), [[LASSO]])
    assert answer["tiles"] == one["tiles"]
    told = posted(client, f"evidence/{'~'.join(targets)}/gallery", {"order": "against", "n": 2})
    assert [tile["share"] < 0 for tile in told["tiles"]] == [True, True]
    told = posted(client, f"evidence/{'~'.join(targets)}/gallery", {"order": "cancelling"}, 422)
    assert "not of differences" in told["error"]


@pytest.mark.parametrize("order", ["for", "against", "cancelling"])
@pytest.mark.parametrize("inside", [None, [[LASSO, HOLE]]])
def test_galleries_are_the_table_sorted(client, cnn, order, inside):
    tiles = pd.read_parquet(cnn.folder / "tiles.parquet")
    tiles["share"] = (tiles.weight * tiles.contribution).fillna(0.0)
    tiles["strength"] = {
        "for": tiles.share.clip(lower=0),
        "against": -tiles.share.clip(upper=0),
        "cancelling": tiles.weight * np.minimum(tiles.positive, -tiles.negative),
    }[order]
    if inside is not None:
        centres = tiles[["x", "y"]].to_numpy() + tiles[["width", "height"]].to_numpy() / 2
        tiles = tiles[shapely.contains_xy(shapely.Polygon(LASSO, [HOLE]), centres)]
    body = {"order": order, "n": 4, "inside": inside}
    told = posted(client, f"evidence/{cnn.id}/gallery", body)
    wanted = tiles[tiles.strength > 0].sort_values("strength", ascending=False, kind="stable")
    assert len(wanted) > 4
    assert [tile["index"] for tile in told["tiles"]] == wanted.index[:4].tolist()
    for tile, (_, row) in zip(told["tiles"], wanted.iterrows(), strict=False):
        assert [tile[name] for name in ("x", "y", "width", "height", "share")] == pytest.approx(
            row[["x", "y", "width", "height", "share"]].tolist()
        )
    assert told["statement"]["of"] == len(tiles)
    assert told["statement"]["share"] == 0.8
    carried = wanted.strength.cumsum() / wanted.strength.sum()
    assert told["statement"]["tiles"] == (carried < 0.8).sum() + 1
    assert told["curve"]["counts"] == list(range(len(wanted) + 1))
    np.testing.assert_allclose(told["curve"]["shares"][1:], carried)
    assert told["unknown"] == tiles.strength.isna().sum()
    assert told["evidence"] == pytest.approx(tiles.strength.sum())


@pytest.mark.parametrize("odd", [False, True])
def test_what_qupath_gets_comes_back(client, entries, tmp_path, odd):
    entry = entries["cnn", ODD if odd else "case_1", "tumour"]
    lasso = (np.array(LASSO) * (0.4 if odd else 1.0)).tolist()
    uuid = "0b5c9f8e-3a51-4a1e-9c47-8d3f0a9f2b11"
    regions = [
        {"id": uuid, "name": "<b>north</b>", "classes": ["Tumor: Positive", "Tumor"],
         "polygons": [[lasso, (np.array(HOLE) * (0.4 if odd else 1.0)).tolist()]]},
        {"id": "r1", "name": "bow", "polygons": [[BOW]] if not odd else [[lasso[:3]]],
         "colour": "#102030"},
    ]  # fmt: skip
    answer = client.post(f"/api/evidence/{entry.id}/export", json={"regions": regions})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/geo+json"
    name = answer.headers["content-disposition"]
    assert re.fullmatch(r'attachment; filename="[A-Za-z0-9_.-]+_tumour_regions\.geojson"', name)
    path = tmp_path / "regions.geojson"
    path.write_bytes(answer.content)
    answers = summed(client, entry.id, *(region["polygons"] for region in regions))

    drawn = read_annotations(path).drawn
    assert [one.title for one in drawn] == ["<b>north</b>", "bow"]
    assert [one.names for one in drawn] == [("Tumor: Positive", "Tumor"), ("bow",)]
    assert drawn[0].identity == uuid
    assert drawn[1].colour == "#102030"
    for one, wanted in zip(drawn, answers, strict=True):
        assert rings_of(one.geometry) == wanted["polygons"]

    content = json.loads(answer.content)
    assert (
        content["bcos_pathology"]["ledger"]
        == json.loads((entry.folder / "explanation.json").read_text())["ledger"]
    )
    frame = geopandas.read_file(path)
    assert frame["name"].tolist() == ["<b>north</b>", "bow"]
    for i, (feature, wanted) in enumerate(zip(content["features"], answers, strict=True)):
        assert frame.geometry[i].equals(shapely.geometry.shape(feature["geometry"]))
        assert feature["properties"]["objectType"] == "annotation"
        found = feature["properties"]["measurements"]
        assert found["tumour: share [µlogit]"] == pytest.approx(wanted["sum"] * 1e6, rel=1e-8)
        assert found["tumour: share for [µlogit]"] == pytest.approx(wanted["for"] * 1e6, rel=1e-8)
        assert found["tumour: density [mlogit/mm²]"] == pytest.approx(wanted["density"] * 1e3)
        assert found["tumour: part of the map [%]"] == pytest.approx(wanted["share"] * 1e2)
        assert found["tumour: tiles"] == wanted["tiles"]
        metadata = feature["properties"]["metadata"]
        settings = entry.explanation.settings
        assert metadata["slide stamp"] == settings["slide"]
        assert metadata["checkpoint"] == settings["checkpoint"]
        assert (metadata["run"], metadata["target"]) == ("cnn", "tumour")
    assert len({feature["id"] for feature in content["features"]}) == 2


def test_what_qupath_gets_counts_from_the_bounds(client, library, cnn, monkeypatch):
    monkeypatch.setattr(library.open(cnn.slide.id), "bounds", Box(100, 50, 800, 700))
    body = {"regions": [{"id": "a", "name": "a", "polygons": [[LASSO]]}]}
    answer = client.post(f"/api/evidence/{cnn.id}/export", json=body)
    content = answer.json()
    ring = content["features"][0]["geometry"]["coordinates"][0]
    np.testing.assert_allclose(ring[:-1], np.subtract(LASSO, (100, 50)))
    assert content["bcos_pathology"]["regions"]["origin"] == [100, 50]
    (region,) = sent(client, cnn, answer.content)["regions"]
    np.testing.assert_allclose(region["polygons"][0][0][:-1], LASSO)


def sent(client, entry, data, status=200):
    answer = client.post(f"/api/slides/{entry.slide.id}/annotations", content=data)
    assert answer.status_code == status, answer.text
    return answer.json()


def feature(ring, **properties):
    return {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }


def asap(points):
    text = "".join(f'<Coordinate X="{x}" Y="{y}"/>' for x, y in points)
    return (
        '<ASAP_Annotations><Annotations><Annotation Name="a" PartOfGroup="t" Color="#F4FA58">'
        f"{text}</Annotation></Annotations></ASAP_Annotations>"
    ).encode()


def test_annotations_of_qupath(client, cnn):
    square = [[10, 20], [200, 20], [200, 150], [10, 150], [10, 20]]
    over = [[900, 700], [1100, 700], [1100, 760], [900, 760], [900, 700]]
    content = [
        feature(square, name="north", classification={"name": "Tumor", "color": [200, 0, 10]}),
        feature(over, classification={"names": ["Tumor", "Positive"]}),
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 4]}},
    ]
    for data in (json.dumps(content).encode(), gzip.compress(json.dumps(content).encode())):
        told = sent(client, cnn, data)
        first, second = told["regions"]
        assert (first["name"], first["classes"], first["colour"]) == ("north", ["Tumor"], "#c8000a")
        assert first["polygons"] == [[square]]
        assert (second["name"], second["classes"]) == (
            "Tumor: Positive",
            ["Tumor: Positive", "Tumor"],
        )
        assert second["colour"] is None
        assert shapely.Polygon(second["polygons"][0][0]).equals(shapely.box(900, 700, 1003, 760))
        assert first["id"] != second["id"]  # QuPath once called all of them the same
        assert told["notes"] == ["points and lines, left out: 1", "cut at the slide's edge: 1"]


def test_annotations_of_asap_and_their_sum(client, cnn):
    (region,) = sent(client, cnn, asap(LASSO))["regions"]
    assert (region["name"], region["classes"], region["colour"]) == ("a", ["t"], "#f4fa58")
    (answer,) = summed(client, cnn.id, region["polygons"])
    wanted = parts_of(cnn, shapely.Polygon(LASSO)).sum()
    assert answer["sum"] == pytest.approx(wanted, abs=1e-11)


def test_annotations_count_from_the_bounds_in_qupath(slides_folder, monkeypatch):
    library = Library.find(slides_folder / "case_1.tif", [])
    entry = library.slides[0]
    opened = library.open(entry.id)
    monkeypatch.setattr(opened, "bounds", Box(100, 50, 800, 700))
    client = TestClient(make_app(library))
    ring = [[1, 2], [30, 2], [30, 40], [1, 2]]
    answer = client.post(f"/api/slides/{entry.id}/annotations", json=[feature(ring)])
    (region,) = answer.json()["regions"]
    assert region["polygons"] == [[[[x + 100, y + 50] for x, y in ring]]]
    answer = client.post(f"/api/slides/{entry.id}/annotations", content=asap(ring[:3]))
    assert answer.json()["regions"][0]["polygons"] == [[ring]]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file: no JSON"),
        (b"\x89PNG\r\n", "the file: no JSON"),
        (b"{}", "the file: no GeoJSON"),
        (b"<svg/>", "neither of ASAP nor of ImageScope"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><Annotations/>', "defines an entity"),
        (json.dumps([feature([[9e3, 0], [9e3, 9], [8e3, 9], [9e3, 0]])]).encode(), "lies outside"),
        (json.dumps([feature(PENTAGRAM)]).encode(), "so that its inside is not clear"),
        (json.dumps([feature([[0, 0], [9, 0], [9, 9], [0, 0]])] * 1001).encode(), "1,001 areas"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_annotations(client, cnn, data, words):
    told = sent(client, cnn, data, 422)
    assert words in told["error"]
    assert "\n" not in told["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("evidence/none/regions", {"regions": []}, 404, "no explanation"),
        ("evidence/none/gallery", {}, 404, "no explanation"),
        ("evidence/none/export", {"regions": []}, 404, "no explanation"),
        ("slides/none/annotations", {}, 404, "no slide"),
        ("evidence/{}/regions", None, 400, ""),
        ("evidence/{}/regions", {"regions": 3}, 422, "regions are sent as"),
        ("evidence/{}/regions", {"regions": [{"name": "n", "polygons": [[[[0, 0]] * 3]]}]}, 422,
         "region 'n' has no area"),
        ("evidence/{}/export", {"regions": [{"id": "a"}]}, 422, "region 0: polygons"),
        ("evidence/{}/gallery", [], 422, "tiles are asked for as"),
        ("evidence/{}/gallery", {"order": "best"}, 422, "order must be one of"),
        ("evidence/{}/gallery", {"n": 2.5}, 422, "n must be a whole number"),
        ("evidence/{}/gallery", {"n": 10**9}, 422, "n must be from 0 to 500"),
        ("evidence/{}/gallery", {"inside": [[[[0, 0], [1, 1]]]]}, 422, "at least three"),
    ],
)  # fmt: skip
def test_bad_requests(client, cnn, path, body, status, words):
    told = posted(client, path.format(cnn.id), body, status)
    assert words in told["error"]
    assert "\n" not in told["error"]


def test_only_posts_are_answered(client, cnn):
    for name in ("regions", "gallery", "export"):
        assert client.get(f"/api/evidence/{cnn.id}/{name}").status_code == 405


def test_blind_mode_hides_sums_too(slides_folder, results_folder, tmp_path):
    library = Library.find(slides_folder, [results_folder], readings=tmp_path / "readings.csv")
    client = TestClient(make_app(library))
    evidence = library.evidence[0].id
    for name in ("regions", "gallery", "export"):
        told = posted(client, f"evidence/{evidence}/{name}", {"regions": []}, 403)
        assert "hidden" in told["error"]
