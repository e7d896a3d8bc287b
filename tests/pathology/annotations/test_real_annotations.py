"""Files that real tools wrote; areas and counts as the tools say them."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely

from pathology.annotations import Classes, PolygonRegions, read_annotations, read_regions
from tests.pathology.annotations.made import Source

DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[4] / "shared" / "data"))
DATA /= "annotation_formats"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="annotation_formats is not under BCOS_PATHOLOGY_DATA"
)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("dlup/qupath05.geojson", {"I": 2, "UT": 1}),
        ("large_image/sample.geojson", {"": 10}),
        ("qupath/polygon.geojson", {"": 1}),
        ("asap_xml_derived/tumor_001.xml", {"_0": 2}),
        ("asap_xml_derived/tumor_009.xml", {"_0": 6}),
        ("asap_xml_derived/tumor_016.xml", {"_0": 7, "_2": 2}),
        ("asap_xml_derived/tumor_021.xml", {"_0": 16, "_2": 19}),
        ("asap_xml_derived/tumor_047.xml", {"_0": 67}),
        ("asap_xml_derived/tumor_091.xml", {"_0": 6, "_2": 1}),
    ],
)
def test_every_area_is_read(name, counts):
    found = read_annotations(DATA / name)
    assert Counter(one.names[0] for one in found.drawn) == counts
    assert all(one.geometry.is_valid and one.geometry.area > 0 for one in found.drawn)


def test_areas_of_imagescope_are_those_it_wrote_itself():
    """It counts little loops of the outline twice, or negatively: 0.3 %."""
    path = DATA / "histoqc" / "TCGA-EJ-5518-01Z-00-DX1.xml"
    written = [
        float(area) for area in re.findall(r'<Region [^>]*Area="([\d.]+)"', path.read_text())
    ]
    found = read_annotations(path)
    np.testing.assert_allclose([one.geometry.area for one in found.drawn], written, rtol=3e-3)
    assert [one.names for one in found.drawn] == [
        ("CaP", "#00ff00"), ("CaP", "#00ff00"), ("#ff0000",), ("#00ffff",),
    ]  # fmt: skip


def test_camelyon_with_its_exclusions():
    slide = Source(100_000, 220_000, 0.243, bounds=(0, 0, 100_000, 220_000))
    path = DATA / "asap_xml_derived" / "tumor_016.xml"
    mapping = {"tumour": {"include": ["Tumor", "_0", "_1"], "exclude": ["_2"]}}
    regions = read_regions(path, slide, Classes.of(mapping))
    whole = np.array([[0, 0, *slide.size]], float)
    pixels = whole[0, 2] * whole[0, 3]
    drawn = {
        key: [one.geometry for one in read_annotations(path).drawn if one.names[0] == key]
        for key in ("_0", "_2")
    }
    tumour, hole = (shapely.union_all(drawn[key]) for key in ("_0", "_2"))
    assert regions.covered(whole)[0, 0] * pixels == pytest.approx(tumour.difference(hole).area)
    assert regions.annotated(whole)[0] * pixels == pytest.approx(tumour.union(hole).area)
    points = regions.points("tumour", 500, np.random.default_rng(0))
    assert shapely.distance(tumour, shapely.points(points)).max() < 1e-6
    assert not shapely.contains_properly(hole.buffer(-1), shapely.points(points)).any()


def test_a_mask_of_histomicstk():
    folder = DATA / "histomicstk" / "annotations_and_masks"
    path = next(folder.glob("*.png"))
    slide = Source(4542, 4594, 0.25)
    regions = read_regions(path, slide, Classes.of({"tumour": 1, "stroma": 2}))
    whole = np.array([[0, 0, *slide.size]], float)
    pixels = slide.size.width * slide.size.height
    np.testing.assert_allclose(regions.covered(whole)[:, 0] * pixels, [3396902, 5683401])
    assert regions.annotated(whole)[0] * pixels == pytest.approx(pixels - 9678238)


def test_every_area_of_qupath_is_on_its_tiles():
    found = read_annotations(DATA / "qupath" / "polygon.geojson")
    regions = PolygonRegions(found, Classes.of({"all": ["*"]}))
    left, top, right, bottom = found.drawn[0].geometry.bounds
    x, y = np.meshgrid(np.arange(left, right, 64), np.arange(top, bottom, 64))
    boxes = np.stack([x.ravel(), y.ravel(), *np.full((2, x.size), 64)], axis=1)
    assert regions.covered(boxes).sum() * 64**2 == pytest.approx(found.drawn[0].geometry.area)
