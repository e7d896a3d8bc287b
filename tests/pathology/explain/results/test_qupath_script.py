"""The script that puts a heatmap in its place in QuPath. QuPath itself is not run here."""

import json
import re

import numpy as np
import pytest
import tifffile

from bcos_vit.render import heat
from pathology.errors import OutputError
from pathology.explain.results.qupath_script import (
    MAX_PIXELS,
    groovy_string,
    placed_levels,
    write_qupath_script,
)
from pathology.explain.stitching.stitch import Stitcher
from pathology.geometry import Box, Mpp, Size
from pathology.maps.ome_tiff import write_ome_tiff
from pathology.maps.slide_map import SlideMap
from pathology.slides.memory import MemorySlide

MPP = 0.2528
BOUNDS = Box(137, 59, 900, 700)
SLIDE = MemorySlide(np.full((1000, 1200, 3), 200, np.uint8), MPP, "a slide", bounds=BOUNDS)
NUMBER = re.compile(r"-?\d+")


def whole_map(out_mpp, size=SLIDE.size, unit="logit"):
    """An empty map over a slide of this size, as the stitcher lays it out."""
    d = out_mpp / MPP
    width, height = (int(np.ceil(side / d)) for side in size)
    box = Box(0, 0, width * d, height * d)
    return SlideMap(np.zeros((height, width), np.float32), box, Mpp(MPP, MPP), unit)


def script(path, slide_map=None, **changed):
    told = {"target": "tumour", "limit": 25.0, **changed}
    write_qupath_script(path, SLIDE, slide_map or whole_map(8.0), **told)
    return path.read_text(encoding="ascii")


def literal(text, name):
    (found,) = re.findall(rf"^final \S+ {name} = (.*)$", text, re.MULTILINE)
    return found


def levels(text):
    lines = re.findall(r"^    \[pixels: (.*), scale: (\S+)d\],$", text, re.MULTILINE)
    return [(np.reshape([int(n) for n in NUMBER.findall(row)], -1), float(s)) for row, s in lines]


@pytest.mark.parametrize(("width", "height"), [(300, 200), (513, 7), (1999, 1537)])
@pytest.mark.parametrize(("unit", "kind"), [("logit", "sum"), ("logit/mm2", "mean")])
def test_levels_are_those_of_the_file(tmp_path, width, height, unit, kind):
    values = np.ones((height, width), np.float32)
    area_mm2 = (8e-3) ** 2
    if unit == "logit/mm2":
        values /= area_mm2
    slide_map = SlideMap(values, Box(0, 0, width * 32.0, height * 32.0), Mpp(0.25, 0.25), unit)
    write_ome_tiff(slide_map, tmp_path / "m.ome.tif", levels=kind)
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tiff:
        stored = [page.asarray(maxworkers=1) for page in tiff.series[0].levels]
    placed = placed_levels(slide_map)
    assert [level.size for level in placed] == [image.shape[::-1] for image in stored]
    for level, image in zip(placed, stored, strict=True):
        # Of one logit a pixel, on every level; partly covered pixels at the edge hold less.
        assert image[0, 0] * level.scale == pytest.approx(1 / area_mm2, rel=1e-6)
        assert level.box.width / level.size[0] == pytest.approx(
            32.0 * 2 ** placed.index(level), rel=1e-12
        )


@pytest.mark.parametrize("out_mpp", [0.5, 1.0, 3.7, 8.0])
def test_every_pixel_is_drawn_within_half_a_level_0_pixel_of_its_place(tmp_path, out_mpp):
    slide_map = whole_map(out_mpp, Size(4001.0, 3003.0))
    text = script(tmp_path / "h.groovy", slide_map)
    assert NUMBER.findall(literal(text, "CROPPED")) == ["900", "700"]
    assert NUMBER.findall(literal(text, "WHOLE")) == ["1200", "1000"]
    found, d = levels(text), out_mpp / MPP
    placed = placed_levels(slide_map)
    assert len(found) == len(placed)
    for k, (numbers, _) in enumerate(found):
        (n, m), pixel = numbers[:2], d * 2**k
        box = placed[k].box  # before it is rounded
        assert (
            np.abs(np.array([box.x, box.y, box.right - n * pixel, box.bottom - m * pixel])).max()
            < 0.01
        )
        for region, corner in ((numbers[2:6], (BOUNDS.x, BOUNDS.y)), (numbers[6:10], (0, 0))):
            x, y, width, height = region
            for count, start, side, begin in ((n, x, width, corner[0]), (m, y, height, corner[1])):
                drawn = start + np.arange(count + 1) * side / count
                wanted = np.arange(count + 1) * pixel - begin
                error = np.abs(drawn - wanted).max()
                assert error <= 0.5 + 1e-6
                assert error < pixel / 2


def test_a_dot_is_drawn_where_it_is(tmp_path):
    # Tiles of 31.64 level-0 px of 2 x 2 cells, pixels of 11.87; one cell says all.
    side, out_mpp = 16 * 0.5 / MPP, 3.0
    for at in ((137.0, 59.0), (421.3, 333.7), (1000.9, 702.2)):
        stitcher = Stitcher(SLIDE.size, SLIDE.mpp, out_mpp, Size(side, side), tmp_path / str(at))
        stitcher.add(Box(*at, side, side), np.array([[0.0, 0.0], [0.0, 1.0]]), 1.0)
        slide_map = stitcher.finish().additive
        numbers, _ = levels(script(tmp_path / "h.groovy", slide_map))[0]
        (n, m), (x, y, width, height) = numbers[:2], numbers[2:6]
        values = np.nan_to_num(np.asarray(slide_map.values, np.float64))
        rows, columns = np.mgrid[:m, :n] + 0.5
        # The centre of mass as QuPath draws it, on the cropped slide.
        drawn = [
            x + (columns * values).sum() / values.sum() * width / n,
            y + (rows * values).sum() / values.sum() * height / m,
        ]
        cell = np.array(at) + 0.75 * side - (BOUNDS.x, BOUNDS.y)
        # Half a pixel of the map by the raster, half one of level 0 by whole numbers.
        assert np.abs(drawn - cell).max() < 0.5 * out_mpp / MPP
        # A map pixel that the cell covers is wholly inside what is drawn over it.
        assert x + width >= BOUNDS.width
        assert y + height >= BOUNDS.height


def test_what_stands_in_the_script(tmp_path):
    record = {"slide_id": "s", "ledger": {"score": 1.25}, "path": "C:\\users */ é"}
    text = script(tmp_path / "h.groovy", metadata=record, limit=0.1)
    assert literal(text, "LIMIT") == "0.1d"
    assert literal(text, "MAX_PIXELS") == f"{MAX_PIXELS}L"
    assert literal(text, "SLIDE") == '"a slide"'
    assert literal(text, "RASTER") == '"heatmap.ome.tif"'
    assert literal(text, "TILES") == '"tiles.geojson.gz"'
    assert json.loads(text.splitlines()[-1].removeprefix("// ")) == record
    assert script(tmp_path / "i.groovy", metadata=record, limit=0.1) == text


def test_the_slide_is_known_by_the_name_of_its_file(tmp_path):
    slide = MemorySlide(np.zeros((64, 64, 3), np.uint8), MPP, "id")
    slide.path = tmp_path / "case 1.svs"
    write_qupath_script(
        tmp_path / "h.groovy", slide, whole_map(8.0), target="t", limit=1.0, raster="d.tif"
    )
    text = (tmp_path / "h.groovy").read_text()
    assert literal(text, "SLIDE") == '"case 1.svs"'
    assert literal(text, "RASTER") == '"d.tif"'


def test_colours_are_those_of_the_overlay(tmp_path):
    digits = "".join(re.findall(r"^    \+ '([0-9a-f]+)'$", script(tmp_path / "h.groovy"), re.M))
    shades = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, 4)
    steps = len(shades) // 2
    assert len(shades) == 2 * steps + 1
    wanted = heat(np.arange(-steps, steps + 1) / steps, 1.0)
    assert (shades[:, [1, 2, 3, 0]] == wanted).all()
    # Nothing at zero, and either side as strong as the other.
    assert shades[steps, 0] == 0
    assert (shades[:, 0] == shades[::-1, 0]).all()


@pytest.mark.parametrize(
    "name",
    [
        "tumour",
        'a"b',
        "a'b",
        "a\\b",
        "$x ${1/0}",
        "Gr\u00f6\u00dfe \u00b5 \U0001f52c",
        "a\nb",
        "*/ //",
    ],
)
def test_any_name_is_a_literal_that_means_just_it(tmp_path, name):
    word = groovy_string(name)
    assert word.isascii()
    # No dollar is left that would begin an expression, no newline that would end the line.
    assert not re.search(r"(?<!\\)\$", word)
    assert json.loads(word.replace("\\$", "$")) == name
    text = script(tmp_path / "h.groovy", target=name)
    assert literal(text, "TARGET") == word
    # Names stand nowhere else.
    assert text.replace(word, '"tumour"') == script(tmp_path / "i.groovy")


def test_what_cannot_be_shown_is_said(tmp_path):
    with pytest.raises(ValueError, match='"logit" or "logit/mm2", got \'fraction\''):
        script(tmp_path / "h.groovy", whole_map(8.0, unit="fraction"))
    for limit in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="limit must be positive"):
            script(tmp_path / "h.groovy", limit=limit)
    with pytest.raises(ValueError, match="JSON compliant"):
        script(tmp_path / "h.groovy", metadata={"gap": float("nan")})
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        script(tmp_path / "file" / "h.groovy")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
