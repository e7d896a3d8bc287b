"""Any file to the regions of a slide."""

import gzip
import json

import numpy as np
import pytest

from pathology.annotations import Classes, read, read_annotations, read_regions
from pathology.annotations.read import annotations_of, origin_of
from pathology.errors import AnnotationError
from tests.pathology.annotations.made import Source

MRXS = Source(1000, 800, bounds=(300, 200, 400, 500))
WHOLE = Source(1000, 800, bounds=(0, 0, 1000, 800))
BOXES = np.array([[x, y, 100, 100] for y in range(0, 800, 100) for x in range(0, 1000, 100)], float)


def geojson(tmp_path, x=100, y=0, name="Tumor"):
    ring = [[x, y], [x + 100, y], [x + 100, y + 100], [x, y + 100], [x, y]]
    properties = {"classification": {"name": name}}
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps([feature]))
    return path


def xml(tmp_path, x=100, y=0):
    points = [(x, y), (x + 100, y), (x + 100, y + 100), (x, y + 100)]
    coordinates = "".join(f'<Coordinate X="{x}" Y="{y}"/>' for x, y in points)
    path = tmp_path / "a.xml"
    path.write_text(
        f'<ASAP_Annotations><Annotations><Annotation PartOfGroup="tumor">{coordinates}'
        "</Annotation></Annotations></ASAP_Annotations>"
    )
    return path


def where(path, source, **options):
    """The corner of the box that is covered."""
    regions = read_regions(path, source, Classes.of({"tumour": ["Tumor"], **options}))
    covered = regions.covered(BOXES)[0]
    np.testing.assert_array_equal(covered, regions.annotated(BOXES))
    assert sorted(covered)[-2:] == [0, 1]
    return tuple(BOXES[covered.argmax(), :2])


def test_qupath_counts_from_the_bounds_and_asap_from_the_slide(tmp_path):
    assert where(geojson(tmp_path), MRXS) == (400, 200)
    assert where(xml(tmp_path), MRXS) == (100, 0)
    assert where(geojson(tmp_path), WHOLE) == (100, 0)


def test_the_mapping_may_say_otherwise(tmp_path):
    assert where(geojson(tmp_path), MRXS, origin="slide") == (100, 0)
    assert where(xml(tmp_path), MRXS, origin="bounds") == (400, 200)


def test_bounds_must_be_known_where_they_count(tmp_path):
    assert where(xml(tmp_path), Source()) == (100, 0)
    assert where(geojson(tmp_path), Source(), origin="slide") == (100, 0)
    with pytest.raises(TypeError, match="need the open slide"):
        read_regions(geojson(tmp_path), Source(), Classes.of({"a": ["Tumor"]}))
    assert origin_of(MRXS, "auto") == (300, 200)


def test_the_offset_counts_for_what_lies_outside(tmp_path):
    with pytest.raises(AnnotationError, match=r"feature 0 lies outside of slide case.* by 100 px"):
        where(geojson(tmp_path, x=800), MRXS)
    assert where(geojson(tmp_path, x=800), MRXS, origin="slide") == (800, 0)


def test_names_without_a_class(tmp_path):
    with pytest.raises(AnnotationError, match=r"a.geojson: no class mentions 'Stroma' \(1\)"):
        where(geojson(tmp_path, name="Stroma"), WHOLE)


def test_other_files(tmp_path):
    for name in ("a.csv", "a", "a.svs", "a.geojson.zip"):
        with pytest.raises(AnnotationError, match="not a file of annotations; known are"):
            read_regions(tmp_path / name, WHOLE, Classes.of({"a": 1}))


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b" \n"])
def test_content_is_told_apart_without_a_name(tmp_path, before):
    for path, kind in ((geojson(tmp_path), "geojson"), (xml(tmp_path), "asap")):
        found = annotations_of(before + path.read_bytes(), "sent")
        assert found.format == kind
        wanted = read_annotations(path).drawn[0]
        assert found.drawn[0].geometry.equals(wanted.geometry)
        assert found.drawn[0].names == wanted.names


def test_content_in_utf_16_and_compressed(tmp_path):
    text = xml(tmp_path).read_text()
    assert len(annotations_of(text.encode("utf-16"), "sent").drawn) == 1
    packed = gzip.compress(geojson(tmp_path).read_bytes())
    assert len(annotations_of(packed, "sent").drawn) == 1


def test_content_that_is_none_names_who_sent_it(monkeypatch):
    for data in (b"", b"{", b"<a/>", b"\x1f\x8bxx", b"\xff\xfe", b"[1]", b"\x89PNG"):
        with pytest.raises(AnnotationError, match=r"^sent: "):
            annotations_of(data, "sent")
    monkeypatch.setattr(read, "MOST_BYTES", 1000)
    with pytest.raises(AnnotationError, match="when unpacked"):
        annotations_of(gzip.compress(b" " * 1001), "sent")
    # Packed twice, the inner one would grow without a limit.
    twice = gzip.compress(gzip.compress(b" " * 10_000 + b"[]"))
    with pytest.raises(AnnotationError, match=r"^sent: no JSON"):
        annotations_of(twice, "sent")
