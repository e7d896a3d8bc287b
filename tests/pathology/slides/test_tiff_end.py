"""TIFF files that broke off."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from pathology.errors import SlideOpenError
from pathology.slides.tiff_end import check_end
from pathology.slides.tiff_page import open_planes


def write(path: Path, bigtiff: bool, byteorder: str) -> list[int]:
    """Three images; returns where their directories lie."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder) as tif:
        for n in (1, 2, 4):
            tif.write(pixels[::n, ::n].copy(), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path) as tif:
        return [page.offset for page in tif.pages]


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_every_directory_must_be_there(tmp_path: Path, bigtiff: bool, byteorder: str) -> None:
    path = tmp_path / "slide.tif"
    directories = write(path, bigtiff, byteorder)
    check_end(path)
    content = path.read_bytes()
    for number, start in enumerate(directories):
        for keep in (start + 1, start + 30, start + 100):
            path.write_bytes(content[:keep])
            with pytest.raises(SlideOpenError, match=f"cut short: its directory {number} ends"):
                check_end(path)
    for keep in (2, 4, 6):
        path.write_bytes(content[:keep])
        with pytest.raises(SlideOpenError, match="cut short: it ends within its header"):
            check_end(path)


def test_a_chain_that_runs_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    first, second, _ = write(path, False, "<")
    content = bytearray(path.read_bytes())
    entries = int.from_bytes(content[second : second + 2], "little")
    at = second + 2 + 12 * entries
    content[at : at + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    for refuse in (check_end, open_planes):
        with pytest.raises(SlideOpenError, match="lead back to one another"):
            refuse(path)
