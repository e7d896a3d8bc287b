"""GeoJSON for QuPath."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest
import shapely
from shapely.geometry import shape

from pathology.annotations import Annotation, export, read_annotations, write_geojson, write_tiles
from pathology.errors import OutputError
from tests.pathology.annotations.made import Source, annotations, blob

HOLED = blob(300, 300, 200, 50).difference(blob(300, 300, 40, seed=1))
MULTI = shapely.MultiPolygon([shapely.box(0, 0, 5.25, 5), shapely.box(10, 10, 20, 20.125)])


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_areas_come_back_as_they_were(tmp_path, name):
    drawn = annotations(Tumor=[HOLED, MULTI], Stroma=[blob(700, 600, 90)]).drawn
    assert write_geojson(tmp_path / name, drawn) == 3
    again = read_annotations(tmp_path / name)
    assert [one.names for one in again.drawn] == [one.names for one in drawn]
    for found, wanted in zip(again.drawn, drawn, strict=True):
        assert found.geometry.equals_exact(wanted.geometry, 0)
    assert again.notes == {}


def test_what_qupath_finds_in_a_file(tmp_path):
    write_geojson(tmp_path / "a.geojson", annotations(Tumor=MULTI, **{"": HOLED}).drawn)
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    first, second = content["features"]
    assert first["type"] == "Feature"
    assert first["properties"]["objectType"] == "annotation"
    assert first["properties"]["classification"]["name"] == "Tumor"
    assert all(0 <= part <= 255 for part in first["properties"]["classification"]["color"])
    assert "classification" not in second["properties"]
    assert shape(first["geometry"]).equals(MULTI)


def test_coordinates_count_from_the_origin_and_back(tmp_path):
    drawn = annotations(Tumor=[HOLED])
    write_geojson(tmp_path / "a.geojson", drawn.drawn, origin=(50, 60))
    again = read_annotations(tmp_path / "a.geojson")
    assert again.drawn[0].geometry.bounds == pytest.approx(
        np.subtract(HOLED.bounds, (50, 60, 50, 60))
    )
    placed = again.placed(Source(), (50, 60)).drawn[0].geometry
    assert placed.symmetric_difference(HOLED).area < 1e-6


def tiles(count=3):
    boxes = np.array([[100.5 * i, 10, 50.25, 50] for i in range(count)])
    columns = {
        "tissue": np.linspace(0, 1, count).astype(np.float32),
        "label": np.array(["tumour", "", "normal"] * count)[:count],
        "index": np.arange(count),
        "is_good": np.arange(count) > 0,
        "score": np.where(np.arange(count) == 1, np.nan, 0.5),
        "site": np.array(["a"] * count),
    }
    return boxes, columns


@pytest.mark.parametrize("name", ["t.geojson", "t.geojson.gz"])
def test_tiles_with_their_values(tmp_path, name):
    boxes, columns = tiles()
    assert write_tiles(tmp_path / name, boxes, columns, origin=(0.5, 10)) == 3
    data = (tmp_path / name).read_bytes()
    features = json.loads(gzip.decompress(data) if name.endswith("gz") else data)["features"]
    for feature, (x, y, width, height) in zip(features, boxes, strict=True):
        found = shape(feature["geometry"])
        assert found.is_valid
        assert found.bounds == (x - 0.5, y - 10, x - 0.5 + width, y - 10 + height)
        assert feature["properties"]["objectType"] == "tile"
        assert feature["properties"]["metadata"] == {"site": "a"}
    values = [feature["properties"]["measurements"] for feature in features]
    assert values[0] == {"tissue": 0, "index": 0, "is_good": 0, "score": 0.5}
    assert not any(isinstance(v, bool) for each in values for v in each.values())
    assert "score" not in values[1]  # JSON has no NaN
    classes = [feature["properties"].get("classification", {}).get("name") for feature in features]
    assert classes == ["tumour", None, "normal"]


def test_no_tiles(tmp_path):
    write_tiles(tmp_path / "t.geojson", np.empty((0, 4)), {})
    assert json.loads((tmp_path / "t.geojson").read_text())["features"] == []


def test_the_same_tiles_make_the_same_file(tmp_path):
    for name in ("a.geojson.gz", "b.geojson.gz"):
        write_tiles(tmp_path / name, *tiles())
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()


def test_tiles_are_not_all_in_memory_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TILES", 100)
    boxes, columns = tiles(2_000)
    tracemalloc.start()
    write_tiles(tmp_path / "t.geojson", boxes, columns)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / "t.geojson").stat().st_size / 2


def test_a_failing_write_leaves_nothing(tmp_path):
    def drawn():
        yield annotations(Tumor=MULTI).drawn[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_geojson(tmp_path / "a.geojson", drawn())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_geojson(tmp_path / "file" / "a.geojson", [])


def test_further_members_come_first_and_are_passed_over(tmp_path):
    path = tmp_path / "a.geojson"
    features = [{"type": "Feature", "geometry": shapely.geometry.mapping(HOLED), "properties": {}}]
    assert export.write_features(path, features, {"made by": {"x": [1, 'a"b']}}) == 1
    content = json.loads(path.read_text())
    assert list(content) == ["type", "made by", "features"]
    assert content["made by"] == {"x": [1, 'a"b']}
    assert len(read_annotations(path).drawn) == 1
    with pytest.raises(ValueError, match="JSON compliant"):
        export.write_features(path, [], {"x": float("nan")})
    assert json.loads(path.read_text()) == content


def test_an_annotation_with_its_numbers(tmp_path):
    one = Annotation(
        ("Tumor",), HOLED, "", title="north", colour="#c8000a", identity="6f0c1a52-3c0d-5d7e-9a43"
    )
    numbers = {"sum [µlogit]": 12.5, "against [µlogit]": float("nan")}
    feature = export.annotation_feature(one, numbers, {"run": "cnn"}, origin=(5, 6))
    path = tmp_path / "a.geojson"
    export.write_features(path, [feature])
    properties = json.loads(path.read_text())["features"][0]["properties"]
    assert properties == {
        "objectType": "annotation",
        "name": "north",
        "classification": {"name": "Tumor", "color": [200, 0, 10]},
        "measurements": {"sum [µlogit]": 12.5},
        "metadata": {"run": "cnn"},
    }
    again = read_annotations(path).drawn[0]
    assert (again.title, again.colour, again.identity) == (one.title, one.colour, one.identity)
    assert again.geometry.bounds == pytest.approx(np.subtract(HOLED.bounds, (5, 6, 5, 6)))
    without = Annotation(("",), HOLED, "", colour="#c8000a")
    assert export.annotation_feature(without)["properties"] == {
        "objectType": "annotation",
        "color": [200, 0, 10],
    }
