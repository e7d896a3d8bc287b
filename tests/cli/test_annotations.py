"""``pathology annotations``."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from shapely.geometry import shape

from pathology.geometry import Box
from pathology.slides import MemorySlide
from tests.cli.made_slides import write_slide

ASAP = """<ASAP_Annotations><Annotations>{}</Annotations></ASAP_Annotations>"""


def square(x, y, side, group):
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    points = "".join(
        f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(corners)
    )
    return (
        f'<Annotation Name="a" Type="Polygon" PartOfGroup="{group}"><Coordinates>{points}'
        "</Coordinates></Annotation>"
    )


@pytest.fixture
def slide(tmp_path):
    return write_slide(tmp_path / "slide ü.tif", 0)  # 512 px of 2 um


@pytest.fixture
def xml(tmp_path):
    path = tmp_path / "slide.xml"
    drawn = square(100, 100, 200, "_0"), square(150, 150, 50, "_2"), square(200, 200, 200, "_0")
    path.write_text(ASAP.format("".join(drawn)))
    return path


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "regions.json"
    path.write_text(json.dumps({"tumour": {"include": ["_0"], "exclude": ["_2"]}}))
    return path


def test_what_a_file_holds(pathology, xml):
    code, out, _ = pathology("annotations", "--regions", xml)
    assert code == 0
    assert out.splitlines() == [
        f"{xml}: asap, 3 areas", "  '_0': 2, 80000 px2", "  '_2': 1, 2500 px2",
    ]  # fmt: skip


def test_what_classes_cover(pathology, xml, slide, classes):
    code, out, _ = pathology(
        "annotations", "--regions", xml, "--slide", slide, "--classes", classes
    )
    assert code == 0
    union = 2 * 200**2 - 100**2
    assert out.splitlines()[1:] == [
        f"  '_0': 2, {80000 * 4e-6:.4f} mm2",
        f"  '_2': 1, {2500 * 4e-6:.4f} mm2",
        f"  class tumour: {(union - 2500) * 4e-6:.4f} mm2",
        f"  annotated: {union * 4e-6:.4f} mm2",
    ]


@pytest.mark.parametrize("name", ["out.geojson", "out.geojson.gz"])
def test_converted_and_read_again(pathology, xml, slide, tmp_path, name):
    out = tmp_path / name
    code, said, _ = pathology("annotations", "--regions", xml, "--slide", slide, "--out", out)
    assert (code, said.splitlines()[-1]) == (0, f"{out}: 3 areas")
    again = pathology("annotations", "--regions", out)[1]
    assert again.splitlines()[1:] == pathology("annotations", "--regions", xml)[1].splitlines()[1:]


def test_masks(pathology, slide, tmp_path, refused):
    raster = np.zeros((64, 64), np.uint8)
    raster[:32], raster[32:48] = 2, 1
    tifffile.imwrite(tmp_path / "mask.tif", raster, compression="zlib")
    (tmp_path / "mask.json").write_text('{"tumour": 2}')
    arguments = ["annotations", "--regions", tmp_path / "mask.tif"]
    assert "--slide is needed" in refused(*arguments)
    arguments += ["--slide", slide]
    code, out, _ = pathology(*arguments, "--classes", tmp_path / "mask.json")
    assert code == 0
    half = 512 * 256 * 4e-6
    assert out.splitlines()[1:] == [
        f"  2: {half:.4f} mm2",
        f"  1: {half / 2:.4f} mm2",
        f"  class tumour: {half:.4f} mm2",
        f"  annotated: {half * 1.5:.4f} mm2",
    ]
    colours = np.array([[0, 0, 0], [9, 9, 10], [255, 0, 0]], np.uint8)[raster]
    Image.fromarray(colours).save(tmp_path / "mask.png")
    code, out, _ = pathology("annotations", "--regions", tmp_path / "mask.png", "--slide", slide)
    assert [line.split(":")[0] for line in out.splitlines()[1:]] == ["  #ff0000", "  #09090a"]
    line = refused(*arguments, "--out", tmp_path / "out.geojson")
    assert "a mask image has no outlines" in line


def test_tiles_for_qupath(pathology, slide, xml, classes, tmp_path, refused):
    manifest = tmp_path / "slides.csv"
    row = {"slide_id": "s", "path": slide.name, "split": "train", "regions": xml.name}
    pd.DataFrame([row]).to_csv(manifest, index=False)
    made = pathology(
        "tile", "--slides", manifest, "--out", tmp_path / "tiles", "--size-px", 32,
        "--tile-mpp", 2, "--min-tissue", 0.1,
    )  # fmt: skip
    assert made[0] == 0, made
    tiles, out = tmp_path / "tiles" / "s.parquet", tmp_path / "tiles.geojson.gz"
    arguments = ["annotations", "--tiles", tiles, "--out", out]
    code, said, _ = pathology(*arguments, "--slide", slide)
    table = pd.read_parquet(tiles)
    assert (code, said.strip()) == (0, f"{out}: {len(table)} tiles")
    features = json.loads(gzip.decompress(out.read_bytes()))["features"]
    assert len(features) == len(table) > 10
    assert set(table["label"]) == {"", "tumour"}
    for feature, tile in zip(features, table.itertuples(), strict=True):
        assert shape(feature["geometry"]).bounds == (tile.x, tile.y, tile.x + 32, tile.y + 32)
        assert feature["properties"]["measurements"]["tissue"] == pytest.approx(tile.tissue)
        name = feature["properties"].get("classification", {"name": ""})["name"]
        assert name == tile.label
    other = write_slide(tmp_path / "other.tif", 1)
    assert "tiles are of slide" in refused(*arguments, "--slide", other)


def test_coordinates_count_from_the_bounds_in_qupath(pathology, xml, tmp_path, monkeypatch):
    """No format that openslide reads with bounds can be written here, so a slide stands in."""
    made = MemorySlide(np.zeros((512, 512, 3), np.uint8), 2.0, bounds=Box(40, 60, 400, 400))
    monkeypatch.setattr("pathology.slides.open_slide", lambda *_: made)
    out = tmp_path / "out.geojson"
    arguments = ["annotations", "--regions", xml, "--slide", "x.mrxs", "--out", out]

    def left_top():
        first = json.loads(out.read_text())["features"][0]
        return shape(first["geometry"]).bounds[:2]

    assert pathology(*arguments)[0] == 0
    assert left_top() == (60, 40)
    # ... and back: QuPath's own file counts from the bounds, too.
    again = ["annotations", "--regions", out, "--slide", "x.mrxs", "--out", tmp_path / "b.geojson"]
    assert pathology(*again)[0] == 0
    assert (tmp_path / "b.geojson").read_text() == out.read_text()
    assert pathology(*arguments, "--out-origin", "slide")[0] == 0
    assert left_top() == (100, 100)
    assert pathology(*arguments, "--origin", "bounds", "--out-origin", "slide")[0] == 0
    assert left_top() == (140, 160)


def test_a_cohort_is_checked_and_every_fault_listed(pathology, slide, xml, classes, tmp_path):
    (tmp_path / "far.xml").write_text(ASAP.format(square(600, 0, 10, "_0")))
    (tmp_path / "other.xml").write_text(ASAP.format(square(0, 0, 10, "Stroma")))
    files = ["slide.xml", "far.xml", "", "other.xml"]
    rows = [
        {"slide_id": f"s{i}", "path": slide.name, "split": "train", "regions": name}
        for i, name in enumerate(files)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "slides.csv", index=False)
    code, out, _ = pathology("annotations", "--regions", tmp_path / "slides.csv")
    assert code == 3
    assert "1 slides in order, 1 slides without regions" in out
    assert "2 of 4 slides have regions that cannot be used" in out
    assert "s1: " in out
    assert "lies outside of slide" in out
    assert "no class mentions 'Stroma' (1)" in out


def test_refuses(refused, xml, slide, tmp_path, classes):
    both = "one of --regions and --tiles is needed"
    assert both in refused("annotations")
    assert both in refused("annotations", "--regions", xml, "--tiles", "t.parquet")
    out = tmp_path / "out.geojson"
    assert "--slide is needed" in refused("annotations", "--regions", xml, "--out", out)
    assert "--slide is needed" in refused("annotations", "--tiles", "t.parquet", "--out", out)
    assert "--out is needed" in refused("annotations", "--tiles", "t.parquet", "--slide", slide)
    wrong = ["annotations", "--regions", xml, "--slide", slide, "--out", tmp_path / "out.json"]
    assert "must end in .geojson" in refused(*wrong)
    assert "no column `regions`" in refused("annotations", "--regions", manifest(tmp_path, slide))
    gone = refused("annotations", "--regions", tmp_path / "gone.xml")
    assert "No such file" in gone
    classes.write_text('{"tumour": ["Tumor"]}')
    line = refused("annotations", "--regions", xml, "--slide", slide, "--classes", classes)
    assert "no class mentions '_0' (2), '_2' (1)" in line


def manifest(folder, slide):
    row = {"slide_id": "s", "path": slide.name, "split": "train"}
    pd.DataFrame([row]).to_csv(folder / "plain.csv", index=False)
    return folder / "plain.csv"
