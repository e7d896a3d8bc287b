"""Labels from painted annotations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pathology.errors import ManifestError, SlideOpenError
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide
from pathology.tiling import TileGrid, TileSpec, label, label_tiles, tile_slide

CLASSES = {"tumour": 2, "stroma": 1}
WIDTH, HEIGHT = 1600, 1200


@pytest.fixture
def grid() -> TileGrid:
    slide = MemorySlide(np.full((HEIGHT, WIDTH, 3), 200, np.uint8), 0.5)
    everywhere = SlideMap(np.ones((1, 1)), Box(0, 0, *slide.size), slide.mpp)
    return tile_slide(slide, TileSpec(100, 0.5), everywhere)


def painted() -> np.ndarray:
    """At 1/4 of the slide: a tile is 25 px."""
    raster = np.zeros((HEIGHT // 4, WIDTH // 4), np.uint8)
    raster[:25, :25] = 2  # all tumour
    raster[:25, 25:45] = 2  # 80 % tumour, the rest not annotated
    raster[:25, 50:60] = 2  # 40 % tumour, the rest not annotated
    raster[:25, 75:90] = 2  # 60 % tumour, 40 % stroma
    raster[:25, 90:100] = 1
    raster[:25, 100:119] = 2  # 76 % tumour, 24 % something else
    raster[:25, 119:125] = 7
    raster[:25, 125:150] = 7  # all something else
    raster[25:50, :25] = 1
    raster[275:, 375:] = 1  # the last tile
    return raster


def as_map(raster: np.ndarray) -> SlideMap:
    return SlideMap(raster, Box(0, 0, WIDTH, HEIGHT), Mpp(0.5, 0.5))


EXPECTED = {
    (0, 0): "tumour",
    (100, 0): "tumour",
    (400, 0): "tumour",
    (0, 100): "stroma",
    (1500, 1100): "stroma",
}


def labelled(grid: TileGrid) -> dict[tuple[float, float], str]:
    return {(tile.box.x, tile.box.y): tile.extra["label"] for tile in grid if tile.extra["label"]}


def test_the_class_with_enough_of_the_annotated_area(grid: TileGrid) -> None:
    assert labelled(label_tiles(grid, as_map(painted()), CLASSES)) == EXPECTED


def test_fractions_are_arguments(grid: TileGrid) -> None:
    loose = label_tiles(grid, as_map(painted()), CLASSES, min_fraction=0.6, min_annotated=0.4)
    more = {(200, 0): "tumour", (300, 0): "tumour"}
    assert labelled(loose) == EXPECTED | more
    strict = label_tiles(grid, as_map(painted()), CLASSES, min_fraction=1, min_annotated=1)
    kept = {(0, 0), (0, 100), (1500, 1100)}
    assert labelled(strict) == {key: EXPECTED[key] for key in kept}


def test_a_class_may_be_zero(grid: TileGrid) -> None:
    named = labelled(label_tiles(grid, as_map(painted()), CLASSES | {"normal": 0}))
    assert named[(1500, 0)] == "normal"
    assert named[(0, 0)] == "tumour"


def test_nan_is_not_annotated(grid: TileGrid) -> None:
    raster = painted().astype(np.float32)
    raster[raster == 0] = np.nan
    assert labelled(label_tiles(grid, as_map(raster), CLASSES)) == EXPECTED


def write(path: Path, raster: np.ndarray, **options: Any) -> Path:
    options = {"photometric": "minisblack", "metadata": None, "compression": "zlib"} | options
    tifffile.imwrite(path, raster, **options)
    return path


@pytest.mark.parametrize("enlarge", [1, 2, 4])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 17}, {}])
def test_tiff_of_any_size(
    grid: TileGrid, tmp_path: Path, enlarge: int, layout: dict[str, Any]
) -> None:
    raster = np.kron(painted(), np.ones((enlarge, enlarge), np.uint8))
    path = write(tmp_path / "annotation.tif", raster, **layout)
    assert labelled(label_tiles(grid, path, CLASSES)) == EXPECTED


def test_tiff_pyramid_is_read_at_about_4_um(grid: TileGrid, tmp_path: Path) -> None:
    path = tmp_path / "annotation.tif"
    fine = np.kron(painted(), np.ones((4, 4), np.uint8))
    options = {"tile": (64, 64), "metadata": None, "photometric": "minisblack"}
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.zeros_like(fine), **options)
        tif.write(painted(), subfiletype=1, **options)  # 2 um: the one to be read
        tif.write(np.zeros((75, 100), np.uint8), subfiletype=1, **options)  # 8 um
    assert labelled(label_tiles(grid, path, CLASSES)) == EXPECTED


def test_bands_change_nothing(grid: TileGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = np.random.default_rng(0).integers(0, 3, (12, 16), dtype=np.uint8)
    raster = np.kron(raster, np.ones((20, 23), np.uint8))  # not aligned with the tiles
    whole = label_tiles(grid, as_map(raster), CLASSES, min_fraction=0.5)
    assert len(labelled(whole)) > 20
    monkeypatch.setattr(label, "BAND_PX", 400)
    banded = label_tiles(grid, as_map(raster), CLASSES, min_fraction=0.5)
    assert banded.columns["label"].tolist() == whole.columns["label"].tolist()


def test_a_map_of_a_part_of_the_slide(grid: TileGrid) -> None:
    part = SlideMap(np.full((2, 3), 2), Box(200, 300, 300, 200), Mpp(0.5, 0.5))
    named = labelled(label_tiles(grid, part, CLASSES))
    assert set(named) == {(x, y) for x in (200, 300, 400) for y in (300, 400)}


def test_saved_with_the_grid(grid: TileGrid, tmp_path: Path) -> None:
    label_tiles(grid, as_map(painted()), CLASSES).save(tmp_path / "tiles.parquet")
    assert labelled(TileGrid.load(tmp_path / "tiles.parquet")) == EXPECTED


def test_no_tiles(grid: TileGrid) -> None:
    empty = label_tiles(grid[:0], as_map(painted()), CLASSES)
    assert empty.columns["label"].tolist() == []


def test_refuses_annotations_that_do_not_fit(grid: TileGrid, tmp_path: Path) -> None:
    rgb = np.zeros((300, 400, 3), np.uint8)
    with pytest.raises(ManifestError, match="one channel"):
        label_tiles(grid, write(tmp_path / "rgb.tif", rgb, photometric="rgb"), CLASSES)
    with pytest.raises(ManifestError, match="does not have the shape"):
        label_tiles(grid, write(tmp_path / "wide.tif", rgb[:100, :, 0]), CLASSES)
    with pytest.raises(SlideOpenError, match="annotation"):
        label_tiles(grid, tmp_path / "gone.tif", CLASSES)
    (tmp_path / "rubbish.tif").write_bytes(b"II*\0rubbish")
    with pytest.raises(SlideOpenError, match="annotation"):
        label_tiles(grid, tmp_path / "rubbish.tif", CLASSES)


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        ({}, {}),
        ({"": 1}, {}),
        ({"a": 1, "b": 1}, {}),
        (CLASSES, {"min_fraction": 1.5}),
        (CLASSES, {"min_annotated": -0.1}),
    ],
)
def test_refuses(grid: TileGrid, classes: dict[str, int], options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        label_tiles(grid, as_map(painted()), classes, **options)
