"""A slide map as OME-Zarr: a folder of chunks that napari, Viv and QuPath open as a pyramid.

Version 0.4 of the format on Zarr 2, compressed by zlib: what Java readers, and so QuPath, know. The
axes are channel (one), y and x. Levels hold what :mod:`pathology.maps.pyramid` says.

Physical coordinates are micrometres from the *centre* of the slide's first pixel, as those of an
image of the slide that has a scale and no translation; a pixel's coordinate is that of its centre.
So at level k, with a pixel of ``m = 2**k * mpp`` and the map beginning at level-0 pixel ``b``::

    coordinate of pixel i = m i + b s + (m - s) / 2        s: micrometres per level-0 pixel
"""

import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pathology.errors import PathologyError
from pathology.maps.description import describe, described, sentence
from pathology.maps.extras import imported
from pathology.maps.pyramid import Level, Levels, check_levels, reduced_levels
from pathology.maps.slide_map import SlideMap
from pathology.maps.value_range import value_range
from pathology.outputs import complete_folder

VERSION = "0.4"
RECORD = "bcos_pathology"
ZLIB_LEVEL = 1


def write_ome_zarr(
    slide_map: SlideMap,
    path: str | Path,
    levels: Levels = "sum",
    metadata: Mapping[str, Any] | None = None,
    *,
    weights: NDArray[Any] | None = None,
    chunk_px: int = 512,
) -> Path:
    """Write a slide map as a float32 OME-Zarr pyramid, a strip of chunks at a time.

    The folder appears under its name when it is complete. Reduced levels are prepared in a
    temporary folder beside it.

    Args:
        slide_map: the map; its values may lie on disk.
        path: folder to write, by custom ``*.ome.zarr``; an existing one is replaced.
        levels: ``"sum"`` for additive maps, ``"mean"`` for densities and other intensive ones.
        metadata: anything JSON holds (ledger, slide, stamp); kept in the group's attributes under
            ``bcos_pathology``, next to the map's own placement. NaN and infinity are refused.
        weights: ``(height, width)`` W for ``levels="mean"``; every covered pixel weighs the same
            when omitted.
        chunk_px: side of a stored chunk.

    Returns:
        ``path``.

    Raises:
        MissingExtraError: zarr is not installed.
        OutputError: the folder cannot be written.
        ValueError: unknown ``levels``, weights of another shape or with sums, a chunk side that is
            not positive, or metadata that JSON cannot hold.

    Source:
        OME-NGFF 0.4, https://ngff.openmicroscopy.org/0.4.
    """
    zarr, numcodecs = imported("zarr", "zarr"), imported("numcodecs", "zarr")
    path = Path(path)
    check_levels(slide_map, levels, weights)
    if chunk_px <= 0:
        raise ValueError(f"chunk_px must be positive, got {chunk_px}")
    record = describe(slide_map, levels, metadata or {})
    with (
        complete_folder(path) as draft,
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".pyramid-") as scratch,
    ):
        base = Level(slide_map.values, weights, levels)
        pyramid = reduced_levels(base, Path(scratch), chunk_px)
        group = zarr.open_group(draft, mode="w", zarr_format=2)
        for k, level in enumerate(pyramid):
            array = group.create_array(
                str(k),
                shape=(1, *level.shape),
                chunks=(1, chunk_px, chunk_px),
                dtype="<f4",
                compressors=numcodecs.Zlib(ZLIB_LEVEL),
                # Not every reader takes NaN for a fill value, so chunks are written even where
                # there is nothing but NaN.
                fill_value=0.0,
                config={"write_empty_chunks": True},
                chunk_key_encoding={"name": "v2", "separator": "/"},
            )
            for top, bottom in level.strips(chunk_px):
                array[0, top:bottom] = level.rows(top, bottom).astype(np.float32)
        group.attrs.update(
            {
                "multiscales": [_multiscale(slide_map, levels, len(pyramid))],
                "omero": _rendering(slide_map, base),
                RECORD: record,
            }
        )
    return path


def read_ome_zarr(path: str | Path, level: int = 0) -> tuple[SlideMap, dict[str, Any]]:
    """Read what :func:`write_ome_zarr` wrote.

    Args:
        path: the folder.
        level: pyramid level, 0 the finest.

    Returns:
        The map in memory and the metadata given at writing.

    Raises:
        MissingExtraError: zarr is not installed.
        PathologyError: not a readable OME-Zarr, or not one of ours.
        ValueError: no such level.
    """
    zarr = imported("zarr", "zarr")
    try:
        group = zarr.open_group(Path(path), mode="r", zarr_format=2)
        record = group.attrs.get(RECORD)
        scales = group.attrs["multiscales"][0]["datasets"] if record else []
        arrays = [group[scale["path"]] for scale in scales]
    except (OSError, KeyError, ValueError) as error:
        raise PathologyError(f"{path}: cannot read it as an OME-Zarr: {error}") from error
    if not record:
        raise PathologyError(f"{path}: a Zarr group, but without this library's slide map entry")
    if not 0 <= level < len(arrays):
        raise ValueError(f"{path} has levels 0 to {len(arrays) - 1}, got {level}")
    try:
        # Readers take a chunk that is not there for zeros; all were written.
        if lost := arrays[level].nchunks - arrays[level].nchunks_initialized:
            raise PathologyError(f"{path}: level {level} is damaged: {lost} of its chunks are lost")
        values = np.asarray(arrays[level][0])
    except (OSError, ValueError, RuntimeError, zlib.error) as error:
        raise PathologyError(f"{path}: level {level} is damaged: {error}") from error
    return described(values, record, level)


def _multiscale(slide_map: SlideMap, levels: Levels, count: int) -> dict[str, Any]:
    """The pyramid's axes, and where each level lies in micrometres."""
    (slide_x, slide_y), box = slide_map.slide_mpp, slide_map.box
    datasets = []
    for k in range(count):
        x, y = (float(mpp * 2**k) for mpp in slide_map.mpp)
        left, top = box.x * slide_x + (x - slide_x) / 2, box.y * slide_y + (y - slide_y) / 2
        transformations = [
            {"type": "scale", "scale": [1.0, y, x]},
            {"type": "translation", "translation": [0.0, float(top), float(left)]},
        ]
        datasets.append({"path": str(k), "coordinateTransformations": transformations})
    return {
        "version": VERSION,
        "name": _name(slide_map),
        "axes": [
            {"name": "c", "type": "channel"},
            {"name": "y", "type": "space", "unit": "micrometer"},
            {"name": "x", "type": "space", "unit": "micrometer"},
        ],
        "datasets": datasets,
        "type": levels,
        "metadata": {"description": sentence(slide_map, levels)},
    }


def _rendering(slide_map: SlideMap, base: Level) -> dict[str, Any]:
    """How to show the finest level: a window with zero in its middle."""
    limit, largest = (reach or 1.0 for reach in value_range(base))
    return {
        "version": VERSION,
        "name": _name(slide_map),
        "channels": [
            {
                "label": _name(slide_map),
                "color": "FFFFFF",
                "active": True,
                "inverted": False,
                "family": "linear",
                "coefficient": 1.0,
                "window": {"min": -largest, "max": largest, "start": -limit, "end": limit},
            }
        ],
        "rdefs": {"model": "greyscale", "defaultT": 0, "defaultZ": 0},
    }


def _name(slide_map: SlideMap) -> str:
    return f"map [{slide_map.unit}]" if slide_map.unit else "map"
