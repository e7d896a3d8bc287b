"""Small slides."""

from pathlib import Path

import numpy as np
import tifffile


def write_slide(path: Path, seed: int, mpp: float | None = 2.0, side: int = 512) -> Path:
    """A plain pyramid-less TIFF with a block of coloured, textured tissue on bright glass."""
    rng = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 240, np.uint8)
    tissue = rng.integers(60, 220, (side // 16, side // 16, 3), np.uint8)
    tissue[..., 1] //= 2
    left = side // 8 + 8 * (seed % 5)
    pixels[side // 4 : side // 4 * 3, left : left + side // 2] = tissue.repeat(8, 0).repeat(8, 1)
    options = {}
    if mpp is not None:
        options = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", compression="zlib", **options
    )
    return path


def write_slides(folder: Path, count: int) -> list[Path]:
    return [write_slide(folder / f"slide {i:03d} ü.tif", i) for i in range(count)]
