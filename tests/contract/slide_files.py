"""One made-up slide in every container, for ``test_slides.py`` and for processes of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.slides import MemorySlide
from pathology.slides.resample import mean_blocks

MPP = 0.25
DOWNSAMPLES = (1, 2, 4)
APERIO = "Aperio Image Library v11.2.1 \r\n768x512 (128x128) JPEG/RGB Q=90|AppMag = 40|MPP = 0.25"


def made_up_array() -> NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (32, 48, 3)).astype(np.float64)
    fine = np.kron(coarse, np.ones((16, 16, 1))) + rng.normal(0, 12, (512, 768, 3))
    return fine.clip(0, 255).astype(np.uint8)


class StoredPlanes(MemorySlide):
    """A slide in memory whose coarse planes are given rather than made by averaging."""

    def __init__(self, planes: list[NDArray[np.uint8]], mpp: float | tuple[float, float]) -> None:
        super().__init__(planes[0], mpp, levels=DOWNSAMPLES)
        self._planes = planes


def write(container: str, path: Path, array: NDArray[np.uint8] | None = None) -> None:
    """A slide, the made-up one when omitted, in one of the containers ``tiles``, ``bare``,
    ``strips``, ``bigtiff`` (in strips), ``ome``, ``jpeg``, ``aperio``; the last two are lossy."""
    array = made_up_array() if array is None else array
    planes = [mean_blocks(array, n) for n in DOWNSAMPLES]
    options: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "tile": (128, 128)}
    if container in ("strips", "bigtiff"):
        options = {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 48}
    elif container == "bare":
        options |= {"compression": None}
    elif container in ("jpeg", "aperio"):
        options |= {"photometric": "ycbcr", "compression": "jpeg", "compressionargs": {"level": 90}}
    with tifffile.TiffWriter(path, bigtiff=container == "bigtiff") as tif:
        if container == "ome":
            metadata = {"axes": "YXS", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP}
            tif.write(planes[0], subifds=len(planes) - 1, metadata=metadata, **options)
            for plane in planes[1:]:
                tif.write(plane, subfiletype=1, **options)
        elif container == "aperio":
            tif.write(planes[0], description=APERIO, metadata=None, **options)
            thumbnail = {"photometric": "rgb", "rowsperstrip": 16, "metadata": None}
            tif.write(planes[-1], description=APERIO.split("|")[0], **thumbnail)
            for plane in planes[1:]:
                tif.write(plane, metadata=None, description=APERIO.split("|")[0], **options)
        else:
            for n, plane in zip(DOWNSAMPLES, planes, strict=True):
                # 40 000 pixels per centimetre are 0.25 um each.
                density = {"resolution": (1e4 / MPP / n,) * 2, "resolutionunit": "CENTIMETER"}
                kind = int(n > 1)
                tif.write(plane, subfiletype=kind, metadata=None, **density, **options)


def in_memory(container: str, path: Path, mpp: float | tuple[float, float] = MPP) -> MemorySlide:
    """What a container holds, decoded as a whole by tifffile and imagecodecs where it is lossy."""
    if container in ("jpeg", "aperio"):
        with tifffile.TiffFile(path) as tif:
            return StoredPlanes([page.asarray() for page in tif.pages if page.is_tiled], mpp)
    return MemorySlide(made_up_array(), mpp, levels=DOWNSAMPLES)
