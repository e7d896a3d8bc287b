"""Slides of JPEG tiles as scanners write them, made small."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from pathology.slides.resample import mean_blocks

MPP = 0.25
TABLES = (0xDB, 0xC4)  # quantisation, Huffman
APPLICATION = range(0xE0, 0xF0)


def tissue(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with grain: every tile is another, and chroma changes within it."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(90, 256, (height // 12 + 2, width // 12 + 2, 3)).astype(float)
    fine = np.kron(coarse, np.ones((12, 12, 1)))[:height, :width]
    return (fine + rng.normal(0, 8, fine.shape)).clip(0, 255).astype(np.uint8)


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes of each segment between start and scan; the rest as marker 0."""
    at = 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        yield jpeg[at + 1], jpeg[at:end]
        at = end
    yield 0, jpeg[at:]


def abbreviated(jpeg: bytes) -> tuple[bytes, bytes]:
    """A JPEG without tables and colours, and its tables, as TIFF keeps both."""
    parts = list(segments(jpeg))
    tables = b"".join(part for marker, part in parts if marker in TABLES)
    kept = (part for marker, part in parts if marker not in TABLES and marker not in APPLICATION)
    return b"\xff\xd8" + b"".join(kept), b"\xff\xd8" + tables + b"\xff\xd9"


def write_slide(
    path: Path,
    array: np.ndarray,
    *,
    downs: Sequence[int] = (1, 4),
    side: int = 256,
    colours: str = "YCbCr",
    subsampling: str = "420",
    shared: bool = True,
    aperio: bool = True,
    bigtiff: bool = False,
    photometric: str | None = None,
) -> Path:
    """Write a pyramid of JPEG tiles.

    Args:
        path: the file.
        array: level 0.
        downs: the levels' downsamples; planes are cut, as scanners do.
        side: of the tiles.
        colours: what the JPEG holds, "RGB" or "YCbCr".
        subsampling: of the chroma, "420", "422" or "444".
        shared: tables are kept once for a page, and tiles say nothing of their colours.
        aperio: with Aperio's description; else a plain TIFF.
        bigtiff: with 64-bit offsets.
        photometric: what the page says that its tiles hold, where that is not the truth.
    """
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tif:
        for level, down in enumerate(downs):
            plane = mean_blocks(array, down)
            height, width = plane.shape[:2]
            padded = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)), "edge")
            jpegs = [
                imagecodecs.jpeg8_encode(
                    np.ascontiguousarray(padded[y : y + side, x : x + side]),
                    level=85,
                    colorspace="rgb",
                    outcolorspace=colours.lower(),
                    subsampling=subsampling if colours == "YCbCr" else None,
                )
                for y in range(0, height, side)
                for x in range(0, width, side)
            ]
            options: dict[str, Any] = {}
            if shared:
                tables = abbreviated(jpegs[0])[1]
                jpegs = [abbreviated(jpeg)[0] for jpeg in jpegs]
                options["extratags"] = [(347, 7, len(tables), tables, True)]
            if aperio and level == 0:
                options["description"] = f"Aperio Image Library v12\r\n|AppMag = 40|MPP = {MPP}"
            if not aperio:
                density = 1e4 / MPP / down
                options |= {"resolution": (density, density), "resolutionunit": "CENTIMETER"}
            if colours == "YCbCr" and photometric is None:
                options["subsampling"] = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[subsampling]
            tif.write(
                iter(jpegs),
                shape=plane.shape,
                dtype=np.uint8,
                tile=(side, side),
                photometric=photometric or colours.lower(),
                compression="jpeg",
                # tifffile would say YCbCr of RGB pixels, which it encodes so unless told.
                compressionargs={"outcolorspace": photometric or colours.lower()},
                subfiletype=int(level > 0 and not aperio),
                metadata=None,
                software=False,
                **options,
            )
    return path


def stored_tile(path: Path, index: int, level: int = 0) -> tuple[int, int]:
    """Offset and length of a tile in the file."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[level]
        return page.dataoffsets[index], page.databytecounts[index]


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def leave_out(path: Path, index: int, level: int = 0) -> None:
    """Make a tile one that was never written: no bytes."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        page = tif.pages[level]
        for name in ("TileOffsets", "TileByteCounts"):
            values = list(page.tags[name].value)
            values[index] = 0
            page.tags[name].overwrite(values)
