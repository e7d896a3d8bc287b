"""Tiles of real slides against OpenSlide's own pixels."""

import io
import os
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from pathology.slides import open_slide
from pathology.viewer.slides.tiles import SlidePyramid, tile_jpeg

DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[5] / "shared" / "data"))


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_tiles_are_what_openslide_shows(level):
    path = DATA / "slides" / "CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip("slides/CMU-1-Small-Region.svs is not under BCOS_PATHOLOGY_DATA")
    side, down = 256, 2**level
    with open_slide(path) as slide, openslide.OpenSlide(path) as handle:
        width, height = SlidePyramid.of(slide).size(level)
        for x, y in [(0, 0), (width // side, height // side), (width // side // 2, 0)]:
            encoded = tile_jpeg(slide, level, x, y)
            shown = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(float)
            across, below = min(side, width - x * side), min(side, height - y * side)
            assert shown.shape == (below, across, 3)
            # Whole blocks alone: the last pixel may reach over the edge.
            columns = min(across, (2220 - x * side * down) // down)
            rows = min(below, (2967 - y * side * down) // down)
            corner, size = (x * side * down, y * side * down), (columns * down, rows * down)
            pixels = np.asarray(handle.read_region(corner, 0, size).convert("RGB")).astype(float)
            wanted = pixels.reshape(rows, down, columns, down, 3).mean((1, 3))
            apart = np.abs(shown[:rows, :columns] - wanted)
            # JPEG of quality 90 moves stained tissue by 2 grey levels, with chroma at half by 4.
            assert apart.mean() < 3
            # Nor is it shifted: a pixel to the side is far worse than where it should be.
            if columns > 100 and rows > 100:
                luma = shown[:rows, :columns].mean(2), wanted.mean(2)
                here = np.abs(luma[0][:, 1:] - luma[1][:, 1:]).mean()
                beside = np.abs(luma[0][:, 1:] - luma[1][:, :-1]).mean()
                assert here < 0.6 * beside or beside < 1  # plain glass says nothing
