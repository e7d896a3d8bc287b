"""Tiles with their halo: read around each from the slide, or there in the image file already."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pathology.data.manifest import read_slide_manifest
from pathology.data.modules import TileDataModule
from pathology.data.tiles import ImageTiles, SlideTiles
from pathology.errors import ManifestError
from pathology.slides import open_slide

CLASSES = ["normal", "tumour"]


@pytest.fixture
def slides(cohort):
    return read_slide_manifest(cohort).head(1)


def test_what_lies_around_a_tile_is_read_from_the_slide(slides, cohort_tiles):
    plain = SlideTiles(slides, cohort_tiles, CLASSES)
    dense = SlideTiles(slides, cohort_tiles, CLASSES, halo_px=32)
    assert len(dense) == len(plain)
    np.testing.assert_array_equal(dense.labels, plain.labels)
    side = plain.spec.size_px
    with open_slide(slides["path"][0]) as slide:
        whole = slide.read(slide.bounds, plain.spec.mpp)
        scale = plain.spec.mpp / slide.mpp.x
        background = slide.background
    padded = np.full((whole.shape[0] + 64, whole.shape[1] + 64, 3), background, np.uint8)
    padded[32:-32, 32:-32] = whole
    at_edge = 0
    for i in range(0, len(dense), 7):
        image = dense[i]["image"].permute(1, 2, 0).numpy()
        assert image.shape == (side + 64, side + 64, 3)
        np.testing.assert_array_equal(
            image[32:-32, 32:-32], plain[i]["image"].permute(1, 2, 0).numpy()
        )
        x, y = round(dense.x[i] / scale), round(dense.y[i] / scale)
        np.testing.assert_array_equal(image, padded[y : y + side + 64, x : x + side + 64])
        at_edge += min(x, y) < 32
    assert at_edge or (dense.x / scale).min() >= 32


def test_image_files_bring_their_halo_or_are_refused(tmp_path, rng):
    for name, side in (("with", 48), ("without", 16)):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")

    def table(*names):
        paths = [str(tmp_path / f"{name}.png") for name in names]
        return pd.DataFrame({"path": paths, "label": "normal"})

    tiles = ImageTiles(table("with"), CLASSES, size_px=16, halo_px=16)
    assert tiles[0]["image"].shape == (3, 48, 48)
    wanted = "without.png: 16 px wide, wanted 48 px: a tile of 16 px and 16 px around it"
    with pytest.raises(ManifestError, match=wanted):
        ImageTiles(table("without"), CLASSES, size_px=16, halo_px=16)
    later = ImageTiles(table("with", "without"), CLASSES, size_px=16, halo_px=16)
    with pytest.raises(ManifestError, match=wanted):
        later[1]
    with pytest.raises(ValueError, match="halo of 16 px need size_px"):
        ImageTiles(table("with"), CLASSES, halo_px=16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dense_halo_px": 0, "tiles": "t"}, "dense_halo_px must be at least 1, got 0"),
        ({"dense_halo_px": 32, "shards": "s"}, "packed tiles have no halo, dense_halo_px is 32"),
        ({"dense_halo_px": 32}, "dense_halo_px with image files needs size_px"),
    ],
)
def test_halos_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        TileDataModule("manifest.csv", CLASSES, **options)
