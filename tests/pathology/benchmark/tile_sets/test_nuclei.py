"""Tiles with and without nuclei."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pathology.benchmark.tile_sets import make_maker, make_tile_set
from pathology.errors import ManifestError

SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}


def data(folder: Path, looks: int = 8) -> dict[str, Any]:
    """Two images of 64 x 48 px of each look, half of whose tiles of 16 px have nuclei."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(2 * looks):
        labels = np.zeros((48, 64), np.uint16)
        for number, x in enumerate(range(0, 32, 16)):
            for y in range(0, 48, 16):
                labels[y + 4 : y + 12, x + 4 : x + 12] = 1000 + number
        labels[0, 40] = 5  # a tile with a trace
        pixels = np.full((48, 64, 3), 30 * (i // 2) + 20, np.int64)
        pixels[labels > 0] -= 15
        pixels += rng.integers(0, 3, pixels.shape)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"im{i:02d}.png")
        Image.fromarray(labels).save(folder / "labels" / f"im{i:02d}.png")
    return {"kind": "nuclei", "path": str(folder), "size_px": 16, "shares": SHARES, "alike": 5.0}


def test_tiles_are_cut_out_with_their_nuclei(tmp_path: Path) -> None:
    settings = data(tmp_path / "cells")
    made = make_tile_set(settings, tmp_path / "set")
    for split in ("train", "val", "test"):
        examples = made.split(split)
        share = examples.masks["evidence"].mean((1, 2))
        # 8 x 8 of 16 x 16; and a pixel is less than the hundredth that no nuclei may have.
        np.testing.assert_array_equal(share[examples.labels == 1], 0.25)
        assert (share[examples.labels == 0] <= 0.01).all()
        assert (examples.labels == 1).sum() == (examples.labels == 0).sum() > 0
    test = made.split("test")
    name, x, y = test.names[0].rsplit("_", 2)
    whole = np.asarray(Image.open(tmp_path / "cells" / "images" / f"{name}.png"))
    np.testing.assert_array_equal(test.images[0], whole[int(y) :, int(x) :][:16, :16])


def test_images_of_one_look_are_of_one_split(tmp_path: Path) -> None:
    made = make_tile_set(data(tmp_path / "cells"), tmp_path / "set")
    images = made.table["path"].str.extract(r"im(\d+)_")[0].astype(int)
    splits = made.table["split"].groupby(images // 2).nunique()
    assert len(splits) == 8
    assert (splits == 1).all()
    assert made.table["patient_id"].nunique() == 8


def test_what_is_between_the_shares_is_left_out(tmp_path: Path) -> None:
    maker = make_maker(data(tmp_path / "cells") | {"most_none": 0.001})
    kept = {tile.name for tile in maker.make()}
    assert "im00_32_0" not in kept  # the trace
    none_full = make_maker(data(tmp_path / "more") | {"least_nuclei": 0.1, "most_nuclei": 0.2})
    assert list(none_full.make()) == []


def test_numbers_are_bounded(tmp_path: Path) -> None:
    settings = data(tmp_path / "cells") | {"tiles": {"train": 6, "test": 4}}
    counts = make_tile_set(settings, tmp_path / "set").table["split"].value_counts()
    assert (counts["train"], counts["test"]) == (6, 4)
    assert counts["val"] > 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"least_nuclei": 0.001}, "must rise from 0 to 1"),
        ({"shares": {"train": 1.0}}, "shares must be positive, of train, val and test"),
        ({"tiles": {"training": 3}}, "got 'training'"),
        ({"alike": 0.0}, "alike positive"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_maker({"kind": "nuclei", "path": "there"} | change)


def test_missing_and_misfitting_files_are_named(tmp_path: Path) -> None:
    settings = data(tmp_path / "cells", looks=2)
    Image.new("L", (10, 10)).save(tmp_path / "cells" / "labels" / "im01.png")
    with pytest.raises(ManifestError, match=r"im01.png: of shape \(10, 10\), its image"):
        list(make_maker(settings).make())
    (tmp_path / "cells" / "labels" / "im01.png").unlink()
    with pytest.raises(ManifestError, match=r"no file in labels is called like images/im01.png"):
        list(make_maker(settings).make())
    with pytest.raises(ManifestError, match="wanted folders images and labels"):
        list(make_maker(settings | {"path": str(tmp_path)}).make())


def test_real_nuclei(tmp_path: Path) -> None:
    data_folder = os.environ.get("BCOS_PATHOLOGY_DATA", "../shared/data")
    path = Path(data_folder) / "dsb2018_brightfield"
    if not path.is_dir():
        pytest.skip(f"{path} is not there; set BCOS_PATHOLOGY_DATA")
    made = make_tile_set({"kind": "nuclei", "path": str(path)}, tmp_path / "set")
    counts = made.table.groupby(["split", "label"]).size()
    assert counts.sum() > 500
    assert (counts.xs("none", level=1) == counts.xs("nuclei", level=1)).all()
    assert (made.table.groupby("patient_id")["split"].nunique() == 1).all()
    test = made.split("test")
    # Nuclei are what is dark: an independent look at whether masks lie on their images.
    dark = 255 - test.images.mean(-1)
    inside = dark[test.masks["evidence"]].mean()
    outside = dark[~test.masks["evidence"] & (test.labels == 1)[:, None, None]].mean()
    assert inside > outside + 30
