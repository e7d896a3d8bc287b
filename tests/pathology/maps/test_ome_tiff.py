import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from pathology.errors import OutputError, PathologyError
from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import read_ome_tiff, write_ome_tiff
from pathology.maps.slide_map import SlideMap

OME = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"


@pytest.fixture
def slide_map():
    """Odd sides on every level, a third of it uncovered, one stretch of it in blocks."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((211, 333)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[100:180, 20:150] = np.nan
    return SlideMap(values, Box(0.0, 0.0, 333 * 31.6, 211 * 20.0), Mpp(0.25, 0.4), "logit")


def halved(values, weights):
    """2 x 2 sums of numerator and weight, pixel by pixel."""
    height, width = values.shape
    shape = math.ceil(height / 2), math.ceil(width / 2)
    total, weight = np.zeros(shape), np.zeros(shape)
    for i in range(height):
        for j in range(width):
            if weights[i, j] > 0 and np.isfinite(values[i, j]):
                total[i // 2, j // 2] += values[i, j]
                weight[i // 2, j // 2] += weights[i, j]
    return total, weight


def test_every_level_has_the_same_sum(slide_map, tmp_path):
    path = write_ome_tiff(slide_map, tmp_path / "map.ome.tiff", tile_px=32)
    with tifffile.TiffFile(path) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    shapes = [(211, 333), (106, 167), (53, 84), (27, 42), (14, 21)]
    assert [level.shape for level in levels] == shapes
    np.testing.assert_array_equal(levels[0], slide_map.values)
    for level in levels:
        assert np.nansum(level, dtype=float) == pytest.approx(slide_map.sum(), abs=1e-4)


def test_reduced_pixels_are_sums_of_what_is_covered(slide_map, tmp_path):
    path = write_ome_tiff(slide_map, tmp_path / "map.ome.tiff", tile_px=32)
    total, weight = halved(slide_map.values, np.ones(slide_map.values.shape))
    level, _ = read_ome_tiff(path, level=1)
    np.testing.assert_allclose(level.values, np.where(weight > 0, total, np.nan), rtol=1e-6)


@pytest.mark.parametrize("weighted", [True, False])
def test_mean_levels_reduce_numerator_and_weight_apart(slide_map, weighted, tmp_path):
    rng = np.random.default_rng(1)
    weights = rng.random(slide_map.values.shape) * (rng.random(slide_map.values.shape) > 0.2)
    weights = weights if weighted else np.ones(slide_map.values.shape)
    path = write_ome_tiff(
        slide_map,
        tmp_path / "map.ome.tiff",
        "mean",
        weights=weights if weighted else None,
        tile_px=32,
    )
    covered = np.where(np.isfinite(slide_map.values), weights, 0)
    total, weight = halved(slide_map.values * weights, covered)
    total, weight = halved(total, weight)
    expected = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
    level, _ = read_ome_tiff(path, level=2)
    np.testing.assert_allclose(level.values, expected, rtol=1e-5, atol=1e-7)


def test_tags_are_those_that_viewers_read(slide_map, tmp_path):
    path = write_ome_tiff(slide_map, tmp_path / "map.ome.tiff", tile_px=64)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert not tiff.is_bigtiff
        # Reduced levels hang below the one plane and not beside it.
        assert len(tiff.pages) == 1
        pages = [level.pages[0] for level in tiff.series[0].levels]
        assert len(pages) == 4
        assert len(tiff.pages[0].pages) == 3
        for k, page in enumerate(pages):
            assert page.dtype == np.float32
            assert page.tile == (64, 64)
            assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert page.predictor == tifffile.PREDICTOR.NONE
            assert page.tags["NewSubfileType"].value == (1 if k else 0)
            assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
            for axis, mpp in zip("XY", slide_map.mpp, strict=True):
                numerator, denominator = page.tags[f"{axis}Resolution"].value
                assert numerator / denominator == pytest.approx(1e4 / (mpp * 2**k), rel=1e-6)


def test_large_maps_become_bigtiff(slide_map, tmp_path, monkeypatch):
    monkeypatch.setattr("pathology.maps.ome_tiff.CLASSIC_TIFF_BYTES", 1000)
    path = write_ome_tiff(slide_map, tmp_path / "map.ome.tiff", tile_px=64)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        assert len(tiff.series[0].levels) == 4
    assert read_ome_tiff(path, level=3)[0].sum() == pytest.approx(slide_map.sum(), abs=1e-4)


def test_ome_xml_says_how_large_a_pixel_is(slide_map, tmp_path):
    moved = replace(slide_map, box=replace(slide_map.box, x=100.0, y=50.0))
    path = write_ome_tiff(moved, tmp_path / "map.ome.tiff", metadata={"slide": "a < b"})
    with tifffile.TiffFile(path) as tiff:
        root = ElementTree.fromstring(tiff.ome_metadata)
    pixels = root.find(f"{OME}Image/{OME}Pixels")
    assert float(pixels.get("PhysicalSizeX")) == pytest.approx(31.6 * 0.25)
    assert float(pixels.get("PhysicalSizeY")) == pytest.approx(20.0 * 0.4)
    assert pixels.get("PhysicalSizeXUnit") == pixels.get("PhysicalSizeYUnit") == "µm"
    assert (pixels.get("SizeX"), pixels.get("SizeY"), pixels.get("Type")) == ("333", "211", "float")
    description = root.findtext(f"{OME}Image/{OME}Description")
    assert "logit; NaN where nothing was measured" in description
    assert "sums of 2 x 2" in description
    assert "31.6 x 20 pixels of the slide's finest level" in description
    plane = pixels.find(f"{OME}Plane")
    # Micrometres from the slide's own corner, each axis by its own mpp.
    assert float(plane.get("PositionX")) == pytest.approx(100.0 * 0.25)
    assert float(plane.get("PositionY")) == pytest.approx(50.0 * 0.4)
    comment = root.findtext(f"{OME}StructuredAnnotations/{OME}CommentAnnotation/{OME}Value")
    assert json.loads(comment)["metadata"] == {"slide": "a < b"}


def test_comes_back_with_placement_and_metadata(slide_map, tmp_path):
    metadata = {"slide": "case 1", "ledger": {"score": 1.5}}
    path = write_ome_tiff(slide_map, tmp_path / "map.ome.tiff", metadata=metadata, tile_px=32)
    back, found = read_ome_tiff(path)
    np.testing.assert_array_equal(back.values, slide_map.values)
    assert (back.box, back.slide_mpp, back.unit) == (slide_map.box, slide_map.slide_mpp, "logit")
    assert found == metadata
    coarse, _ = read_ome_tiff(path, level=1)
    assert coarse.downsample == pytest.approx((63.2, 40.0))
    with pytest.raises(ValueError, match="levels 0 to 4"):
        read_ome_tiff(path, level=5)


def test_a_map_on_disk_gives_the_same_file(slide_map, tmp_path):
    raw = tmp_path / "values.f32"
    # Rows before the map, so that the offset counts.
    raw.write_bytes(b"\x00" * 128 + slide_map.values.tobytes())
    values = np.memmap(raw, np.float32, mode="r", offset=128, shape=slide_map.values.shape)
    on_disk = SlideMap(values, slide_map.box, slide_map.slide_mpp, "logit")
    sliced = SlideMap(values[3:, 5:], Box(0, 0, 10, 10), slide_map.slide_mpp, "logit")

    write_ome_tiff(slide_map, tmp_path / "a.tiff", tile_px=32)
    write_ome_tiff(on_disk, tmp_path / "b.tiff", tile_px=32)
    write_ome_tiff(sliced, tmp_path / "c.tiff", tile_px=32)

    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()
    np.testing.assert_array_equal(
        read_ome_tiff(tmp_path / "c.tiff")[0].values, slide_map.values[3:, 5:]
    )


def test_a_small_map_is_one_level(tmp_path):
    one = SlideMap(np.array([[1.0, np.nan]]), Box(0, 0, 2, 1), Mpp(1, 1))
    path = write_ome_tiff(one, tmp_path / "map.tiff")
    back, metadata = read_ome_tiff(path)
    np.testing.assert_array_equal(back.values, [[1.0, np.nan]])
    assert metadata == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "max"}, "levels"),
        ({"tile_px": 100}, "multiple of 16"),
        ({"metadata": {"score": math.nan}}, "JSON"),
        ({"metadata": {"score": object()}}, "JSON"),
        ({"weights": np.ones((211, 333))}, "weights go with"),
        ({"levels": "mean", "weights": np.ones((2, 2))}, "weights go with"),
    ],
)
def test_bad_arguments_are_refused_and_leave_nothing(slide_map, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_ome_tiff(slide_map, tmp_path / "map.tiff", **options)
    assert not list(tmp_path.iterdir())


def test_an_unfinished_file_is_removed(slide_map, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathology.maps.pyramid.Level.tiles", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_ome_tiff(slide_map, tmp_path / "map.tiff")
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be_is_one_line(slide_map, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written") as error:
        write_ome_tiff(slide_map, tmp_path / "file" / "map.tiff")
    assert "\n" not in str(error.value)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.tiff").write_text("no image")
    tifffile.imwrite(tmp_path / "plain.tiff", np.zeros((4, 4), np.uint8))
    with pytest.raises(PathologyError, match="cannot read"):
        read_ome_tiff(tmp_path / "text.tiff")
    with pytest.raises(PathologyError, match="without this library"):
        read_ome_tiff(tmp_path / "plain.tiff")
    with pytest.raises(PathologyError, match="cannot read"):
        read_ome_tiff(tmp_path / "missing.tiff")


@pytest.mark.parametrize("where", ["pixels", "record", "end"])
def test_a_damaged_file_is_one_line(slide_map, tmp_path, where):
    path = write_ome_tiff(slide_map, tmp_path / "map.ome.tiff", tile_px=16)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        pixels = tiff.pages[0].dataoffsets[1]
    if where == "end":
        data = data[:pixels]
    else:
        at = pixels if where == "pixels" else data.index(b'{"slide_map"')
        data[at : at + 8] = bytes(8) if where == "pixels" else b"<Value/>"
    path.write_bytes(data)
    with pytest.raises(PathologyError, match=r"map\.ome\.tiff: cannot read it") as error:
        read_ome_tiff(path)
    assert "\n" not in str(error.value)
