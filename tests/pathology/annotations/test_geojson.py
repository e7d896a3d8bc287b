"""GeoJSON as QuPath writes it, in the forms of its versions."""

import gzip
import json

import pytest

from pathology.annotations import read_annotations
from pathology.errors import AnnotationError

RING = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}


def feature(geometry=POLYGON, **properties):
    return {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": geometry,
        "properties": properties,
    }


def ring_of(x):
    return {"type": "Polygon", "coordinates": [[[0, 0], [x, 1], [1, 1], [0, 0]]]}


def read(tmp_path, content, name="a.geojson"):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return read_annotations(path)


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ({"type": "FeatureCollection", "features": [feature(), feature()]}, 2),
        ({"type": "FeatureCollection", "features": []}, 0),
        ([feature(), feature(), feature()], 3),
        (feature(), 1),
        (POLYGON, 1),
        ({"type": "Feature", "geometry": POLYGON, "properties": None}, 1),
        ({"type": "Feature", "geometry": POLYGON}, 1),
    ],
)
@pytest.mark.parametrize("name", ["a.geojson", "a.json", "A.GEOJSON"])
def test_what_may_stand_at_the_top(tmp_path, content, count, name):
    found = read(tmp_path, content, name)
    assert found.format == "geojson"
    assert [one.geometry.area for one in found.drawn] == [100] * count


@pytest.mark.parametrize("name", ["a.geojson.gz", "a.json.gz", "a.geojson"])
def test_compressed(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(json.dumps([feature()]).encode()))
    assert len(read_annotations(tmp_path / name).drawn) == 1


@pytest.mark.parametrize(
    ("properties", "names"),
    [
        ({"classification": {"name": "Tumor", "color": [200, 0, 0]}}, ("Tumor",)),  # 0.4 and later
        ({"classification": {"name": "Tumor", "colorRGB": -3670016}}, ("Tumor",)),  # 0.2
        ({"classification": {"names": ["Tumor", "Positive"]}}, ("Tumor: Positive", "Tumor")),  # 0.4
        ({"classification": {"name": "Tumor: Positive"}}, ("Tumor: Positive", "Tumor")),
        ({"classification": "Tumor"}, ("Tumor",)),
        ({"classification": {"name": "Tumor"}, "name": "mine"}, ("Tumor",)),
        ({"name": "mine"}, ("mine",)),
        ({"name": None, "classification": None}, ("",)),
        ({}, ("",)),
    ],
)
def test_names(tmp_path, properties, names):
    assert read(tmp_path, [feature(**properties)]).drawn[0].names == names


def test_geometries(tmp_path):
    hole = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
    moved = [[x + 20, y] for x, y in RING]
    holed = {"type": "Polygon", "coordinates": [RING, hole]}
    multi = {"type": "MultiPolygon", "coordinates": [[RING, hole], [moved]]}
    deep = {"type": "Polygon", "coordinates": [[[x, y, 7.5] for x, y in RING]]}
    point = {"type": "Point", "coordinates": [1, 2]}
    line = {"type": "LineString", "coordinates": RING[:2]}
    both = {"type": "GeometryCollection", "geometries": [multi, line, POLYGON]}
    found = read(tmp_path, [feature(g) for g in (holed, multi, deep, point, line, both)])
    assert [one.geometry.area for one in found.drawn] == [96, 196, 100, 200]
    assert [one.where for one in found.drawn] == [
        "feature 0",
        "feature 1",
        "feature 2",
        "feature 5",
    ]
    assert found.notes == {"points and lines, left out": 3}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"version": "2.0", "item": {}, "annotations": []}, "no GeoJSON: .* with version"),
        ({"type": "FeatureCollection"}, "no GeoJSON"),
        ({"type": "Topology", "features": []}, "no GeoJSON"),
        ("text", "no GeoJSON"),
        ([feature(), 3], "feature 1 is no object"),
        ([feature(), feature(None)], "feature 1 has no geometry, got type None"),
        ([feature({"type": "Polygon"})], "feature 0 has no geometry"),
        ([feature({"type": "Circle", "coordinates": [1]})], "no geometry, got type 'Circle'"),
        ([feature({"type": "Polygon", "coordinates": [1, 2]})], "feature 0 has no list of x, y"),
        ([feature({"type": "MultiPolygon", "coordinates": [RING]})], "no list of x, y"),
        ([feature({"type": "MultiPolygon", "coordinates": [5]})], "no list of x, y"),
        ([feature(ring_of(10**400))], "no list of x, y"),
        ([feature(ring_of(float("nan")))], "feature 0: point 1 is"),
        ([feature() | {"properties": [1]}], "feature 0: properties must be an object"),
        ([feature() | {"properties": "x"}], "feature 0: properties must be an object"),
        ([feature() | {"properties": {"classification": 5}}], "feature 0: classification must"),
        ([feature() | {"properties": {"classification": {"names": 5}}}], "classification must"),
        ([feature() | {"properties": {"classification": {"name": {"a": 1}}}}], "classification"),
    ],
)  # fmt: skip
def test_refuses(tmp_path, content, what):
    with pytest.raises(AnnotationError, match=what) as error:
        read(tmp_path, content)
    assert str(tmp_path / "a.geojson") in str(error.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "no JSON"),
        (b'{"type": "FeatureCollection", "features": [', "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (gzip.compress(b"[" + b" " * 1000 + b"]", mtime=0)[:-12], "cannot be read"),
        (b"\x1f\x8brubbish", "cannot be read"),
        (gzip.compress(b"[]", mtime=0)[:10] + b"\xff" * 9, "cannot be read"),
    ],
)
def test_refuses_damaged_files(tmp_path, content, what):
    path = tmp_path / "a geo-j\u00f6son.geojson"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=what):
        read_annotations(path)


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(AnnotationError, match="No such file"):
        read_annotations(tmp_path / "a.geojson")
    (tmp_path / "folder.geojson").mkdir()
    with pytest.raises(AnnotationError, match="Is a directory"):
        read_annotations(tmp_path / "folder.geojson")


@pytest.mark.parametrize(
    ("properties", "title", "colour"),
    [
        ({}, "", ""),
        ({"name": "north", "classification": {"color": [200, 0, 10]}}, "north", "#c8000a"),
        ({"color": [1, 2, 255, 128], "classification": {"color": [9, 9, 9]}}, "", "#0102ff"),
        ({"name": 3, "color": [1, 2]}, "", ""),
        ({"name": None, "color": [1, 2, 256], "classification": {"color": "red"}}, "", ""),
        ({"color": [True, 2.5, 3]}, "", ""),
    ],
)  # fmt: skip
def test_what_one_is_called_and_drawn_in(tmp_path, properties, title, colour):
    one = read(tmp_path, [feature(**properties)]).drawn[0]
    assert (one.title, one.colour, one.identity) == (title, colour, "PathAnnotationObject")
