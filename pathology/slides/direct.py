"""OpenSlide's levels as what they are in the file, JPEG tiles, wherever that gives its pixels.

OpenSlide spends most of a read on blending tiles as floating-point RGBA and opens the file anew for
every tile. Decoding the tiles without it is several times as quick. Whether that is the same image
is not taken for granted: levels are matched to the file's pages, and tiles all over each level are
compared with what OpenSlide shows before one is used. Any doubt leaves a level to OpenSlide.

Where the downsample is not whole, OpenSlide can show a plane at fractions of its pixels only, and
interpolates; there the comparison is of tiles interpolated, and a direct read is the better one.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openslide
import tifffile
from numpy.typing import NDArray

from pathology.slides.jpeg_tiles import jpeg_tiles
from pathology.slides.kept_file import KeptFile
from pathology.slides.resample import resample
from pathology.slides.tile_plane import TilePlane

# Makers whose levels are plain pages. Others overlap, skip or shift tiles (Ventana, Leica, MIRAX),
# pad their levels (Philips), or have no such tiles (Hamamatsu).
VENDORS = ("aperio", "generic-tiff")
# OpenSlide interpolates in fixed point; on real slides it was one grey level from ours at most.
INTERPOLATED = 2

Verdicts = tuple[str | None, ...]
# By the file and its time of change: what was compared once is not compared at every opening.
_verdicts: dict[tuple[str, int, int, int], Verdicts] = {}


def direct_planes(
    path: Path, vendor: str | None, sizes: Sequence[tuple[int, int]]
) -> tuple[list[TilePlane | None], Verdicts]:
    """The levels of a slide that can be read without OpenSlide, and what speaks against the others.

    Args:
        path: the slide's file.
        vendor: who made it, in OpenSlide's words.
        sizes: width and height of OpenSlide's levels.

    Raises:
        OSError: the file is gone.
        openslide.OpenSlideError: OpenSlide cannot open it.
    """
    planes, verdicts = _found(path, vendor, sizes)
    if not any(planes):
        return planes, verdicts
    state = path.stat()
    key = str(path), state.st_ino, state.st_size, state.st_mtime_ns
    if key not in _verdicts:
        _verdicts[key] = _compared(path, planes, verdicts)
    verdicts = _verdicts[key]
    chosen = zip(planes, verdicts, strict=True)
    return [plane if verdict is None else None for plane, verdict in chosen], verdicts


def _found(
    path: Path, vendor: str | None, sizes: Sequence[tuple[int, int]]
) -> tuple[list[TilePlane | None], Verdicts]:
    """The pages that seem to be the levels; nothing is compared yet."""
    if vendor not in VENDORS:
        return [None] * len(sizes), (f"not known to keep plain pages: {vendor}",) * len(sizes)
    try:
        with tifffile.TiffFile(path) as tif:
            pages = [page for page in tif.pages if isinstance(page, tifffile.TiffPage)]
            file = KeptFile(path)
            found = [_plane(file, pages, size, tif.filehandle.size) for size in sizes]
            if vendor == "aperio":
                found = _below_gaps(found)
    except OSError:
        raise
    except Exception as error:  # a header that OpenSlide reads and tifffile does not
        return [None] * len(sizes), (f"cannot be read as TIFF: {error}",) * len(sizes)
    return (
        [plane if isinstance(plane, TilePlane) else None for plane in found],
        tuple(plane if isinstance(plane, str) else None for plane in found),
    )


def _plane(
    file: KeptFile, pages: Sequence[tifffile.TiffPage], size: tuple[int, int], file_bytes: int
) -> TilePlane | str:
    """The one page of JPEG tiles that has the level's size, or why there is none."""
    fit = [page for page in pages if page.is_tiled and (page.imagewidth, page.imagelength) == size]
    if len(fit) != 1:
        return f"{len(fit)} tiled pages of its size"
    page = fit[0]
    jpeg = jpeg_tiles(page)
    if jpeg is None or jpeg.colours == "Gray":
        return f"no JPEG in colours: {getattr(page.compression, 'name', page.compression)}"
    offsets, counts = np.asarray(page.dataoffsets), np.asarray(page.databytecounts)
    if len(offsets) != -(-size[0] // page.tilewidth) * -(-size[1] // page.tilelength):
        return "another number of tiles than its size asks for"
    if (offsets + counts > file_bytes).any():
        return "cut short"
    return TilePlane(
        file,
        size,
        (page.tilewidth, page.tilelength),
        page.samplesperpixel,
        np.uint8,
        offsets,
        counts,
        lambda data, _: jpeg.decode(data),
        jpeg,
    )


def _below_gaps(found: Sequence[TilePlane | str]) -> list[TilePlane | str]:
    """Without the levels under which Aperio left tiles out.

    There OpenSlide shows nothing in coarser levels either: their tiles hold what was made of the
    gap.
    """
    kept: list[TilePlane | str] = []
    has_gaps = False
    for plane in found:
        kept.append("tiles of a finer level are left out" if has_gaps else plane)
        has_gaps = has_gaps or (isinstance(plane, TilePlane) and plane.has_gaps)
    return kept


def _compared(path: Path, planes: Sequence[TilePlane | None], found: Verdicts) -> Verdicts:
    """What speaks against each plane, now that tiles of it are compared."""
    verdicts = []
    handle = openslide.OpenSlide(path)
    for level, (plane, verdict) in enumerate(zip(planes, found, strict=True)):
        if plane is not None:
            try:
                verdict = _difference(handle, level, plane)
            except openslide.OpenSlideError as error:
                verdict = f"OpenSlide finds damage that decoding does not: {error}"
                handle = openslide.OpenSlide(path)  # an error stays with its handle
        verdicts.append(verdict)
    return tuple(verdicts)


def _difference(handle: openslide.OpenSlide, level: int, plane: TilePlane) -> str | None:
    """What tells a plane from OpenSlide's level; ``None`` where tiles all over it are the same."""
    down, compared = handle.level_downsamples[level], 0
    for x, y, width, height in _samples(plane):
        try:
            direct = plane.read(x, y, width, height)
        except (OSError, ValueError):
            continue  # damaged or left out: OpenSlide will be asked for these
        corner = round(x * down), round(y * down)
        region = handle.read_region(corner, level, (width, height))
        shown = np.asarray(region.convert("RGB"))
        off_x, off_y = corner[0] / down - x, corner[1] / down - y
        tolerance = 0
        if off_x or off_y:
            direct, tolerance = shifted(direct, off_x, off_y), INTERPOLATED
            # Around the rim OpenSlide mixes in the neighbours.
            direct, shown = direct[2:-2, 2:-2], shown[2:-2, 2:-2]
        apart = int(np.abs(direct.astype(int) - shown).max(initial=0))
        if apart > tolerance:
            return f"differs from OpenSlide by {apart} grey levels in its tile at ({x}, {y})"
        compared += 1
    return None if compared else "none of the tiles that were tried could be compared"


def shifted(pixels: NDArray[np.uint8], x: float, y: float) -> NDArray[np.uint8]:
    """What lies ``(x, y)``, less than a pixel, from where ``pixels`` start, in as many pixels."""
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), "edge")
    return resample(padded, (1 + x, 1 + y, 1 + x + width, 1 + y + height), width, height)


def _samples(plane: TilePlane) -> list[tuple[int, int, int, int]]:
    """Both ends of a plane, its middle and a tile at its right edge, as far as they lie on it."""
    columns, rows = -(-plane.width // plane.sides[0]), -(-plane.height // plane.sides[1])
    places = ((0, 0), (1, 1), (0.5, 0.5), (1, 0.3))
    tiles = dict.fromkeys((round(u * (columns - 1)), round(v * (rows - 1))) for u, v in places)
    return [
        (
            column * plane.sides[0],
            row * plane.sides[1],
            min(plane.sides[0], plane.width - column * plane.sides[0]),
            min(plane.sides[1], plane.height - row * plane.sides[1]),
        )
        for column, row in tiles
    ]
