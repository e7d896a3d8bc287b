"""OME-Zarr against the OME-TIFF of the same map; other readers are in the contract tests."""

import json
import math

import numpy as np
import pytest
import zarr

from pathology.errors import OutputError, PathologyError
from pathology.geometry import Box, Mpp
from pathology.maps.ome_tiff import read_ome_tiff, write_ome_tiff
from pathology.maps.ome_zarr import read_ome_zarr, write_ome_zarr
from pathology.maps.slide_map import SlideMap


@pytest.fixture
def slide_map():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((75, 130)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:40, :64] = np.nan  # whole chunks of nothing
    return SlideMap(values, Box(100.0, 50.0, 130 * 31.6, 75 * 20.0), Mpp(0.25, 0.4), "logit/mm2")


@pytest.mark.parametrize("levels", ["sum", "mean", "weighted"])
def test_levels_are_those_of_the_tiff(slide_map, levels, tmp_path):
    weights = np.random.default_rng(1).random(slide_map.values.shape)
    given = {
        "levels": "sum" if levels == "sum" else "mean",
        "weights": weights if levels == "weighted" else None,
    }
    tiff = write_ome_tiff(slide_map, tmp_path / "map.ome.tif", tile_px=16, **given)
    folder = write_ome_zarr(slide_map, tmp_path / "map.ome.zarr", chunk_px=16, **given)
    for k in range(5):
        a, b = read_ome_tiff(tiff, k)[0], read_ome_zarr(folder, k)[0]
        np.testing.assert_array_equal(a.values, b.values)
        assert (a.box, a.slide_mpp, a.unit) == (b.box, b.slide_mpp, b.unit)
    with pytest.raises(ValueError, match="levels 0 to 4"):
        read_ome_zarr(folder, 5)


def test_metadata_comes_back_and_attributes_are_plain_json(slide_map, tmp_path):
    metadata = {"slide": "a < b", "ledger": {"score": 1.5, "constants": []}}
    folder = write_ome_zarr(slide_map, tmp_path / "map.ome.zarr", metadata=metadata)
    assert read_ome_zarr(folder)[1] == metadata

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for file in (".zattrs", "0/.zarray"):
        json.loads((folder / file).read_text(), parse_constant=refuse)


def test_every_chunk_is_written(slide_map, tmp_path):
    """Readers differ in what they take a missing chunk for."""
    folder = write_ome_zarr(slide_map, tmp_path / "map.ome.zarr", chunk_px=32)
    assert len(list((folder / "0" / "0").glob("*/*"))) == math.ceil(75 / 32) * math.ceil(130 / 32)


def test_a_map_on_disk_and_an_existing_folder(slide_map, tmp_path):
    raw = tmp_path / "values.f32"
    raw.write_bytes(slide_map.values.tobytes())
    values = np.memmap(raw, np.float32, mode="r", shape=slide_map.values.shape)
    on_disk = SlideMap(values, slide_map.box, slide_map.slide_mpp, "logit")
    target = tmp_path / "map.ome.zarr"
    target.mkdir()
    (target / "left over").write_text("of something else")
    write_ome_zarr(on_disk, target)
    np.testing.assert_array_equal(read_ome_zarr(target)[0].values, slide_map.values)
    assert not (target / "left over").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": "max"}, "levels"),
        ({"chunk_px": 0}, "chunk_px"),
        ({"metadata": {"score": math.nan}}, "JSON"),
        ({"weights": np.ones((75, 130))}, "weights go with"),
    ],
)
def test_bad_arguments_are_refused_and_leave_nothing(slide_map, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_ome_zarr(slide_map, tmp_path / "map.zarr", **options)
    assert not list(tmp_path.iterdir())


def test_an_unfinished_folder_is_removed(slide_map, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathology.maps.ome_zarr.value_range", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_ome_zarr(slide_map, tmp_path / "map.zarr")
    assert not list(tmp_path.iterdir())


def test_other_folders_are_refused(slide_map, tmp_path):
    (tmp_path / "file.zarr").write_text("no folder")
    zarr.open_group(tmp_path / "plain.zarr", mode="w", zarr_format=2)
    with pytest.raises(PathologyError, match="without this library"):
        read_ome_zarr(tmp_path / "plain.zarr")
    for name in ("file.zarr", "missing.zarr"):
        with pytest.raises(PathologyError, match="cannot read") as error:
            read_ome_zarr(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_damaged_chunk_is_one_line(slide_map, tmp_path):
    folder = write_ome_zarr(slide_map, tmp_path / "map.ome.zarr", chunk_px=32)
    chunk = folder / "0" / "0" / "1" / "2"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(PathologyError, match="level 0 is damaged") as error:
        read_ome_zarr(folder)
    assert "\n" not in str(error.value)


def test_a_lost_chunk_is_not_zeros(slide_map, tmp_path):
    path = write_ome_zarr(slide_map, tmp_path / "map.ome.zarr", chunk_px=16)
    (path / "1" / "0" / "2" / "1").unlink()
    read_ome_zarr(path)
    with pytest.raises(PathologyError, match="level 1 is damaged: 1 of its chunks are lost"):
        read_ome_zarr(path, 1)
