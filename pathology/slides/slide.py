"""The Slide protocol, and opening a file as one."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
import openslide
from numpy.typing import NDArray

from pathology.errors import SlideOpenError
from pathology.geometry import Box, Mpp, Size
from pathology.slides.levels import Level
from pathology.slides.openslide import OpenSlideSlide

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@runtime_checkable
class Slide(Protocol):
    """A whole-slide image.

    Locations are ``(x, y)`` in level-0 pixels. A slide is a context manager; it can be pickled,
    read in forked children and in threads.
    """

    @property
    def path(self) -> Path | None:
        """The slide's file, ``None`` in memory."""

    @property
    def slide_id(self) -> str:
        """Name of the slide: its file's name without the last suffix."""

    @property
    def size(self) -> Size:
        """Width and height in level-0 pixels."""

    @property
    def mpp(self) -> Mpp:
        """Micrometres per level-0 pixel."""

    @property
    def mpp_source(self) -> str:
        """Where ``mpp`` is from: openslide, aperio, ome, tiff resolution or given."""

    @property
    def levels(self) -> list[Level]:
        """The stored planes, finest first."""

    @property
    def background(self) -> tuple[int, int, int]:
        """Colour of what was not scanned; white when the file does not say."""

    @property
    def bounds(self) -> Box:
        """The scanned part in level-0 pixels; the whole slide when the file does not say."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata as in the file, under OpenSlide's names."""

    @property
    def associated(self) -> Mapping[str, NDArray[np.uint8]]:
        """Further images in the file (label, macro, thumbnail) as RGB, by name."""

    def read(self, box: Box, mpp: float) -> NDArray[np.uint8]:
        """RGB of the slide under ``box``, ``(height, width, 3)``.

        Sides are :func:`~pathology.geometry.pixel_count` of the box's at ``mpp``; a native request
        on whole pixels returns the stored ones; outside of the slide lies the background.
        """

    def thumbnail(self, max_px: int) -> NDArray[np.uint8]:
        """The whole slide with its longer side at ``max_px`` pixels, or as it is when smaller."""

    def stamp(self) -> str:
        """Fingerprint of the content, to tie results to the slide."""

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Open a whole-slide image with the backend that reads it.

    OpenSlide where it can. tifffile for a TIFF that OpenSlide does not know (strips, unusual
    compression), or of which it would miss planes and pixel size (OME-TIFF).

    Args:
        path: the slide's file.
        mpp: micrometres per level-0 pixel; overrules the file, and is needed when it does not say.

    Raises:
        SlideOpenError: missing, a folder, empty, damaged, or no slide.
        MissingResolutionError: no plausible mpp in the file and none given.
        ValueError: ``mpp`` is not finite or not positive.

    Example:
        >>> with open_slide("case_001.svs") as slide:  # doctest: +SKIP
        ...     pixels = slide.read(Box(0, 0, 448, 448), mpp=2 * slide.mpp.x)
    """
    path = Path(path)
    is_tiff = _first_bytes(path) in TIFF_MAGIC
    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError as error:
        raise SlideOpenError(f"cannot be opened: {error}", path) from error
    # A scanner's file that is damaged is an error; only what OpenSlide takes for a plain TIFF, or
    # for nothing at all, is for somebody else to try.
    if is_tiff and vendor in (None, "generic-tiff") and _is_for_tifffile(path):
        from pathology.slides.tiff import TiffSlide  # imported late: most slides never need it

        return TiffSlide(path, mpp)
    return OpenSlideSlide(path, mpp)


def _is_for_tifffile(path: Path) -> bool:
    """OpenSlide refuses this TIFF, or sees one plane of an OME-TIFF and not its pixel size."""
    try:
        with openslide.OpenSlide(path) as handle:
            description = handle.properties.get("tiff.ImageDescription", "")
            return handle.level_count == 1 and description.rstrip().endswith("OME>")
    except openslide.OpenSlideError:
        return True


def _first_bytes(path: Path) -> bytes:
    """The first four bytes, once the file is known to be one and to have any."""
    if path.is_dir():
        raise SlideOpenError("is a folder, not a slide", path)
    try:
        with path.open("rb") as file:
            first = file.read(4)
    except FileNotFoundError as error:
        raise SlideOpenError("there is no such file", path) from error
    except OSError as error:
        raise SlideOpenError(f"cannot be read: {error.strerror}", path) from error
    if not first:
        raise SlideOpenError("is an empty file", path)
    return first
