"""Labels of tiles from regions, painted and drawn."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import shapely

from pathology.annotations import Annotation, Annotations, Classes, PolygonRegions, RasterRegions
from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide
from pathology.tiling import TileGrid, TileSpec, label_tiles, tile_slide

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


def regions(raster: np.ndarray, classes: dict = CLASSES) -> RasterRegions:
    return RasterRegions(
        SlideMap(raster, Box(0, 0, WIDTH, HEIGHT), Mpp(0.5, 0.5)), Classes.of(classes)
    )


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
    assert labelled(label_tiles(grid, regions(painted()))) == EXPECTED


def test_fractions_are_arguments(grid: TileGrid) -> None:
    loose = label_tiles(grid, regions(painted()), min_fraction=0.6, min_annotated=0.4)
    more = {(200, 0): "tumour", (300, 0): "tumour"}
    assert labelled(loose) == EXPECTED | more
    strict = label_tiles(grid, regions(painted()), min_fraction=1, min_annotated=1)
    kept = {(0, 0), (0, 100), (1500, 1100)}
    assert labelled(strict) == {key: EXPECTED[key] for key in kept}


def test_a_class_may_be_zero(grid: TileGrid) -> None:
    named = labelled(label_tiles(grid, regions(painted(), CLASSES | {"normal": 0})))
    assert named[(1500, 0)] == "normal"
    assert named[(0, 0)] == "tumour"


def test_nan_is_not_annotated(grid: TileGrid) -> None:
    raster = painted().astype(np.float32)
    raster[raster == 0] = np.nan
    assert labelled(label_tiles(grid, regions(raster))) == EXPECTED


def test_a_map_of_a_part_of_the_slide(grid: TileGrid) -> None:
    part = SlideMap(np.full((2, 3), 2), Box(200, 300, 300, 200), Mpp(0.5, 0.5))
    named = labelled(label_tiles(grid, RasterRegions(part, Classes.of(CLASSES))))
    assert set(named) == {(x, y) for x in (200, 300, 400) for y in (300, 400)}


def test_drawn_regions_give_the_labels_of_painted_ones(grid: TileGrid) -> None:
    """Every run of equal pixels, drawn as a rectangle."""
    drawn = []
    for y, row in enumerate(painted()):
        edges = [0, *(np.flatnonzero(np.diff(row)) + 1), len(row)]
        for left, right in itertools.pairwise(edges):
            if row[left]:
                box = shapely.box(4 * left, 4 * y, 4 * right, 4 * y + 4)
                drawn.append(Annotation((f"value {row[left]}",), box, f"row {y}"))
    classes = {"tumour": ["Value 2"], "stroma": ["Value 1"], "else": ["*"]}
    polygons = PolygonRegions(
        Annotations(Path("made.geojson"), "geojson", tuple(drawn)), Classes.of(classes)
    )
    assert labelled(label_tiles(grid, polygons, CLASSES)) == EXPECTED
    boxes, names = grid.boxes(), ["tumour", "stroma"]
    raster = regions(painted())
    np.testing.assert_allclose(
        polygons.covered(boxes, names), raster.covered(boxes, names), atol=1e-7
    )
    np.testing.assert_allclose(polygons.annotated(boxes), raster.annotated(boxes), atol=1e-7)


def test_what_is_covered_is_a_fraction_of_the_tile(grid: TileGrid) -> None:
    boxes = grid.boxes()
    covered = regions(painted()).covered(boxes, ["tumour", "stroma"])
    annotated = regions(painted()).annotated(boxes)
    at = {(x, y): i for i, (x, y) in enumerate(boxes[:, :2])}
    assert covered[:, at[300, 0]] == pytest.approx([0.6, 0.4])
    assert annotated[at[300, 0]] == pytest.approx(1)
    assert annotated[at[200, 0]] == pytest.approx(0.4)


def test_the_first_of_equal_classes_wins(grid: TileGrid) -> None:
    raster = np.zeros((HEIGHT // 4, WIDTH // 4), np.uint8)
    raster[:25, :24:2], raster[:25, 1:24:2] = 1, 2
    for order in (["tumour", "stroma"], ["stroma", "tumour"]):
        named = labelled(label_tiles(grid, regions(raster), order, min_fraction=0.5))
        assert named == {(0, 0): order[0]}


def test_saved_with_the_grid(grid: TileGrid, tmp_path: Path) -> None:
    label_tiles(grid, regions(painted())).save(tmp_path / "tiles.parquet")
    assert labelled(TileGrid.load(tmp_path / "tiles.parquet")) == EXPECTED


def test_the_grid_keeps_how_its_labels_were_chosen(grid: TileGrid, tmp_path: Path) -> None:
    rule = {"min_fraction": 0.6, "min_annotated": 0.4}
    named = label_tiles(grid, regions(painted()), **rule)
    named[1:9].with_columns(fold=np.zeros(8, int)).save(tmp_path / "tiles.parquet")
    assert TileGrid.load(tmp_path / "tiles.parquet").made == {"label": rule}
    # Somebody's own labels are not of that rule.
    assert named.with_columns(label=np.full(len(grid), "tumour")).made == {}


def test_no_tiles(grid: TileGrid) -> None:
    empty = label_tiles(grid[:0], regions(painted()))
    assert list(empty.columns["label"]) == []


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"classes": []}, "must have names"),
        ({"classes": ["gland"]}, "no class is called 'gland'; one of tumour, stroma"),
        ({"min_fraction": 1.5}, "min_fraction must be in"),
        ({"min_annotated": -0.1}, "min_annotated must be in"),
    ],
)
def test_refuses(grid: TileGrid, options: dict, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        label_tiles(grid, regions(painted()), **options)
