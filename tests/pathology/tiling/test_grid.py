"""TileGrid in memory and on disk."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pathology.errors import ManifestError, OutputError, StampMismatchError
from pathology.geometry import Box
from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide
from pathology.tiling import TileGrid, TileSpec, tile_slide

SPEC = TileSpec(64, 0.5, overlap_px=16)


@pytest.fixture
def slide() -> MemorySlide:
    array = np.random.default_rng(5).integers(0, 256, (500, 700, 3), dtype=np.uint8)
    return MemorySlide(array, 0.2528, "case_001")


@pytest.fixture
def grid(slide: MemorySlide) -> TileGrid:
    tissue = SlideMap(np.ones((1, 1)), Box(0, 0, *slide.size), slide.mpp)
    return tile_slide(slide, SPEC, tissue)


def test_is_a_sequence_of_tiles(grid: TileGrid) -> None:
    side = 64 * 0.5 / 0.2528
    assert grid[0].box == Box(0, 0, side, side)
    assert grid[-1].box == Box(grid.x[-1], grid.y[-1], side, side)
    assert len(list(grid)) == len(grid) == len(grid.boxes())
    np.testing.assert_array_equal(grid.boxes()[3], [grid.x[3], grid.y[3], side, side])
    assert isinstance(grid[2:5], TileGrid)
    assert [tile.box for tile in grid[2:5]] == [grid[i].box for i in (2, 3, 4)]
    with pytest.raises(IndexError):
        grid[len(grid)]


def test_select_takes_all_columns_along(grid: TileGrid) -> None:
    grid = grid.with_columns(label=np.array([f"c{i}" for i in range(len(grid))]))
    chosen = grid.select(np.array([4, 1]))
    assert [tile.extra["label"] for tile in chosen] == ["c4", "c1"]
    assert chosen[0].box == grid[4].box
    assert len(grid.select(grid.x == 0)) == len(set(grid.y))


def test_saves_and_loads(grid: TileGrid, slide: MemorySlide, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "case_001.parquet"
    count = len(grid)
    grid = grid.with_columns(label=np.array(["tumour", ""] * count)[:count], fold=np.arange(count))
    grid.save(path)
    loaded = TileGrid.load(path, spec=SPEC, slide=slide)
    np.testing.assert_array_equal(loaded.boxes(), grid.boxes())
    np.testing.assert_array_equal(loaded.tissue, grid.tissue)
    assert loaded.tissue.dtype == np.float32
    assert loaded.columns["label"].tolist() == grid.columns["label"].tolist()
    assert loaded.columns["fold"].tolist() == list(range(count))
    assert loaded.spec == SPEC
    assert loaded.source == grid.source
    assert loaded[1].extra == {"label": "", "fold": 1}
    assert [file.name for file in path.parent.iterdir()] == ["case_001.parquet"]


def test_an_empty_selection_saves_and_loads(grid: TileGrid, tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    grid.select(np.zeros(len(grid), bool)).save(path)
    assert len(TileGrid.load(path)) == 0
    assert TileGrid.load(path).boxes().shape == (0, 4)


def test_saving_replaces(grid: TileGrid, tmp_path: Path) -> None:
    path = tmp_path / "case.parquet"
    path.write_text("old")
    grid.save(path)
    grid[:2].save(path)
    assert len(TileGrid.load(path)) == 2


def test_refuses_another_spec(grid: TileGrid, tmp_path: Path) -> None:
    path = tmp_path / "case.parquet"
    grid.save(path)
    with pytest.raises(StampMismatchError) as caught:
        TileGrid.load(path, spec=TileSpec(64, 0.25, overlap_px=16))
    assert str(caught.value) == (
        f"{path}: tiles were cut with mpp 0.5, wanted 0.25; "
        "tile the slide anew or ask for that spec"
    )


def test_refuses_another_slide(grid: TileGrid, slide: MemorySlide, tmp_path: Path) -> None:
    path = tmp_path / "case.parquet"
    grid.save(path)
    array = slide.read(Box(0, 0, *slide.size), slide.mpp.x)
    with pytest.raises(StampMismatchError, match=r"mpp .*wanted case_001 with"):
        TileGrid.load(path, slide=MemorySlide(array, 0.25, "case_001"))
    array[0, 0] += 1
    with pytest.raises(StampMismatchError, match="stamp"):
        TileGrid.load(path, slide=MemorySlide(array, 0.2528, "case_001"))


def test_missing_and_damaged_files(grid: TileGrid, tmp_path: Path) -> None:
    path = tmp_path / "case.parquet"
    with pytest.raises(ManifestError, match="cannot be read"):
        TileGrid.load(path)
    with pytest.raises(ManifestError, match="cannot be read"):
        TileGrid.load(tmp_path)
    grid.save(path)
    content = path.read_bytes()
    for damaged in (
        b"",
        b"PAR1",
        content[:200],
        content[:-30],
        np.random.default_rng(0).bytes(999),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ManifestError) as caught:
            TileGrid.load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_other_tables(grid: TileGrid, tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ManifestError, match="not a table of tiles"):
        TileGrid.load(path)
    grid.save(path)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.drop_columns(["tissue"]), path)
    with pytest.raises(ManifestError, match=r"\['tissue'\] are missing"):
        TileGrid.load(path)
    for header, match in (
        (b"{}", "damaged metadata"),
        (b"no json", "damaged metadata"),
        (b'{"format": 99}', "format 99, wanted 1"),
    ):
        pq.write_table(table.replace_schema_metadata({b"pathology.tiles": header}), path)
        with pytest.raises(ManifestError, match=match):
            TileGrid.load(path)


def test_unwritable_folder(grid: TileGrid, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        grid.save(tmp_path / "file" / "case.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        grid.save(tmp_path / "folder.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.parquet"]


def test_refuses_columns_that_do_not_fit(grid: TileGrid) -> None:
    with pytest.raises(ValueError, match="column label"):
        grid.with_columns(label=np.zeros(3))
    with pytest.raises(ValueError, match="may not be named"):
        grid.with_columns(x=np.zeros(len(grid)))
