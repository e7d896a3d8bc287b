"""Tiled TIFF slides whose pixels cuCIM reads: uncompressed ones by default, where it is installed.

CPU milliseconds for 224 px, row by row over a 4096 px slide of 256 px tiles (cuCIM 26.10,
OpenSlide 4.0.1, one core; JPEG tiles decoded directly, as OpenSlideSlide does, take 0.3 to 0.5):

============  =====  =========  ==========================================================
compression   cuCIM  OpenSlide  damaged tile through cuCIM
============  =====  =========  ==========================================================
none          0.10   1.04       cannot be told by any reader
Deflate       0.99   1.31       an error; with a predictor the process dies, damaged or not
JPEG 2000     4.5    2.3        an error
LZW           1.7    1.3        **noise instead of pixels, and no error**
JPEG          0.6    1.1        **noise instead of pixels, and no error**
============  =====  =========  ==========================================================

cuCIM keeps no decoded tile, so what crosses a border is decoded again. Hence it is taken by itself
for uncompressed tiles only; Deflate and JPEG 2000 on request (it writes warnings about Deflate to
stderr); JPEG and LZW never, for noise must not pass for tissue.

``import cucim`` after ``import torch`` can hang: cuCIM then finds the cuFile library that came with
torch and starts its driver, which on a machine without a GPU never returns. So here it is imported
before torch or not at all; a program that wants both imports ``cucim.clara`` first.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.errors import SlideOpenError
from pathology.slides.colour import ColourSpace
from pathology.slides.openslide import OpenSlideSlide

NONE = (1,)
READ = (*NONE, 8, 32946, 33005)  # and Deflate by both its numbers, and Aperio's JPEG 2000 in RGB
CHECK_PX = 64


class CucimSlide(OpenSlideSlide):
    """A tiled TIFF that OpenSlide opens and describes, and cuCIM reads.

    Every plane is compared with OpenSlide's pixels in its middle and at its end when opened. Planes
    between whose pixels OpenSlide interpolates, because they do not shrink by a whole number, are
    left to it, so the pixels are always those that OpenSlide gives. They are also left to it in a
    process that got the slide by unpickling after it had imported torch.

    Args:
        path: the slide's file.
        mpp: micrometres per level-0 pixel, instead of what the file says.
        colour: ``"srgb"`` to convert by the file's colour profile.

    Raises:
        SlideOpenError: cuCIM is not installed, came after torch, or does not read this file right;
            or what :class:`~pathology.slides.openslide.OpenSlideSlide` raises.
        MissingResolutionError: the file has no plausible mpp and none is given.
        ValueError: ``mpp`` is no size of a pixel.
    """

    def __init__(
        self,
        path: Path,
        mpp: float | tuple[float, float] | None = None,
        colour: ColourSpace = "stored",
    ) -> None:
        super().__init__(path, mpp, colour, direct=False)
        self._image: tuple[int, Any] | None = None
        self._cucim_levels: frozenset[int] = frozenset()
        reason = obstacle(path, READ)
        if reason is None:
            whole = (i for i, down in enumerate(self._downsamples) if down == round(down))
            self._cucim_levels = frozenset(whole)
            reason = self._difference()
        if reason is not None:
            raise SlideOpenError(f"cannot be read by cuCIM: {reason}; leave backend out", path)

    def close(self) -> None:
        """Let go of the file; reading afterwards is an error. Closing twice is not."""
        super().close()
        self._image = None

    def _cucim(self) -> Any:
        """The image of this process; ``None`` where it must not be loaded."""
        opened = self._image
        if opened is not None and opened[0] == os.getpid():
            return opened[1]
        if not loadable():
            return None
        image = importlib.import_module("cucim.clara").CuImage(str(self._file))
        self._image = os.getpid(), image
        return image

    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        image = self._cucim() if level in self._cucim_levels else None
        if image is None:
            return super()._read_level(level, x, y, width, height)
        down = round(self._downsamples[level])
        try:
            region = image.read_region((x * down, y * down), (width, height), level)
            return np.array(region, np.uint8)
        except (RuntimeError, ValueError) as error:
            message = " ".join(str(error).split())
            where = f"level {level} at ({x * down}, {y * down}), {width} x {height} px"
            raise SlideOpenError(f"cannot be read: {where}: {message}", self._file) from error

    def _difference(self) -> str | None:
        """Why cuCIM's pixels are not OpenSlide's, found where both are asked for the same."""
        try:
            sizes = self._cucim().resolutions["level_dimensions"]
        except (RuntimeError, ValueError) as error:
            return " ".join(str(error).split())
        if list(sizes) != [(plane.width, plane.height) for plane in self.levels]:
            return "it sees other planes than OpenSlide"
        for level in self._cucim_levels:
            plane = self.levels[level]
            width, height = min(CHECK_PX, plane.width), min(CHECK_PX, plane.height)
            end = plane.width - width, plane.height - height
            for x, y in ((end[0] // 2, end[1] // 2), end):
                got = self._read_level(level, x, y, width, height)
                wanted = super()._read_level(level, x, y, width, height)
                if got.shape != wanted.shape or (got != wanted).any():
                    return f"its pixels of level {level} are not OpenSlide's"
        return None

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_image": None}


def loadable() -> bool:
    """Whether cuCIM can be imported here without harm."""
    return "cucim.clara" in sys.modules or ("torch" not in sys.modules and installed())


def installed() -> bool:
    """Whether cuCIM is there at all; cheap, imports nothing."""
    return importlib.util.find_spec("cucim") is not None


def obstacle(path: Path, compressions: tuple[int, ...]) -> str | None:
    """Why cuCIM should not read this file; ``None`` where it may.

    Args:
        path: a TIFF file.
        compressions: which are welcome, by their TIFF numbers.
    """
    if not installed():
        return "it is not installed (pip install cucim-cu12, or cucim-cu13)"
    if not loadable():
        return "torch was imported before it, which can hang; import cucim.clara first"
    try:
        with tifffile.TiffFile(path) as tif:
            all_pages: list[Any] = list(tif.pages)
            pages = [page for page in all_pages if page.is_tiled]
            if not pages or not all(_fits(page, compressions) for page in pages):
                return "its planes are not all of intact 8-bit RGB tiles in a compression it is for"
            return None
    except Exception as error:  # a damaged header raises about anything, from KeyError to struct's
        return f"it is no intact TIFF ({error})"


def _fits(page: Any, compressions: tuple[int, ...]) -> bool:
    length = page.parent.filehandle.size
    return (
        page.compression in compressions
        and page.predictor == 1
        and page.dtype == np.uint8
        and page.samplesperpixel == 3
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and page.photometric == tifffile.PHOTOMETRIC.RGB
        and min(page.databytecounts) > 0
        and max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))) <= length
    )
