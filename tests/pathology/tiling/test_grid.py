"""TileGrid in memory and on disk."""

import gc
from dataclasses import replace
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

SPEC = TileSpec(64, 0.5, overlap_px=16, tissue="given", exclude=())


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
        TileGrid.load(path, spec=replace(SPEC, mpp=0.25))
    assert str(caught.value) == (
        f"{path}: tiles were cut with mpp 0.5, wanted 0.25; ask for that spec, or tile the slide"
        " anew (pathology tile --overwrite)"
    )
    with pytest.raises(StampMismatchError, match="tissue given, wanted density; exclude nothing"):
        TileGrid.load(path, spec=replace(SPEC, tissue="density", exclude=("pen", "fold")))


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


@pytest.mark.parametrize("name", ["label", "x", "tissue"])
def test_a_tile_without_a_value_is_refused(name: str, grid: TileGrid, tmp_path: Path) -> None:
    path = tmp_path / "case.parquet"
    grid.with_columns(label=np.full(len(grid), "tumour")).save(path)
    table = pq.read_table(path)
    column = table.column(name)
    values = pa.array([None, *column.to_pylist()[1:]], column.type)
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, values), path)
    with pytest.raises(ManifestError, match=f"column {name} has no value for some tiles"):
        TileGrid.load(path)


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
        (b'{"format": 1}', "format 1, wanted 2; tile the slide anew"),
        (b'{"format": 99}', "format 99, wanted 2"),
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
    with pytest.raises(ValueError, match="one value per tile"):
        grid.with_columns(label=np.zeros((len(grid), 2)))
    with pytest.raises(ValueError, match="numbers or text, got None"):
        grid.with_columns(label=np.array(["a"] * (len(grid) - 1) + [None], object))


def test_text_is_what_was_put_in(grid: TileGrid, tmp_path: Path) -> None:
    words = ["Tumour", "", "größer", "a much longer name", "tumour"]
    labels = [words[i % 5] for i in range(len(grid))]
    for column in (np.array(labels), np.array(labels, object), labels):
        labelled = grid.with_columns(label=column)
        assert labelled.columns["label"].tolist() == labels
        assert [tile.extra["label"] for tile in labelled] == labels
        assert labelled[3:9].columns["label"].tolist() == labels[3:9]
        assert labelled.with_columns(fold=np.arange(len(grid)))[7].extra == {
            "label": labels[7],
            "fold": 7,
        }
        # What is in the file does not depend on how the column came.
        labelled.save(tmp_path / "one.parquet")
        TileGrid.load(tmp_path / "one.parquet").save(tmp_path / "two.parquet")
        one, two = ((tmp_path / name).read_bytes() for name in ("one.parquet", "two.parquet"))
        assert one == two
    assert pq.read_table(tmp_path / "one.parquet")["label"].type == pa.string()
    assert pq.read_table(tmp_path / "one.parquet")["label"].to_pylist() == labels
    empty = grid.with_columns(label=np.array(labels))[:0]
    empty.save(tmp_path / "none.parquet")
    assert TileGrid.load(tmp_path / "none.parquet").columns["label"].tolist() == []


def test_a_thousand_classes_fit(grid: TileGrid) -> None:
    names = [f"class {i}" for i in range(len(grid))]
    many = TileGrid(
        SPEC, grid.source, *(np.tile(c, 20) for c in (grid.x, grid.y, grid.tissue)),
        {"label": [f"{name} {i}" for i in range(20) for name in names]},
    )  # fmt: skip
    assert len(set(many.columns["label"])) == len(many) > 256
    assert many[-1].extra["label"] == f"{names[-1]} 19"


def test_a_million_tiles_take_less_than_24_bytes_each(tmp_path: Path) -> None:
    # 224 px at 0.5 um on a slide of 450 000 x 450 000 px: made, labelled, saved and loaded.
    side = 1001 * 448
    slide = MemorySlide(np.broadcast_to(np.uint8(200), (side, side, 3)), 0.25, "large")
    tissue = SlideMap(np.ones((1, 1)), Box(0, 0, side, side), slide.mpp)
    grid = tile_slide(slide, TileSpec(overlap_px=0, mpp=0.5), tissue)
    assert len(grid) == 1001**2
    assert grid.nbytes <= 20 * len(grid)
    names = np.array(["tumour", "stroma", "necrosis", "normal", ""])
    grid = grid.with_columns(label=names[np.arange(len(grid)) % 5])
    assert grid.nbytes < 21.001 * len(grid)
    path = tmp_path / "large.parquet"
    grid.save(path)
    before = pa.total_allocated_bytes()
    loaded = TileGrid.load(path)
    assert loaded.nbytes == grid.nbytes
    # What Arrow holds for the arrays that lie in its memory, and what else numpy holds.
    gc.collect()
    held = pa.total_allocated_bytes() - before
    assert held + loaded.columns.stored("label").codes.nbytes < 24 * len(grid)
    assert path.stat().st_size < 24 * len(grid)
    np.testing.assert_array_equal(loaded.x, grid.x)
    assert loaded[123_456] == grid[123_456]
