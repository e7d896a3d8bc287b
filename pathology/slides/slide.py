"""The Slide protocol, and opening a file as one."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, get_args, runtime_checkable

import numpy as np
import openslide
from numpy.typing import NDArray

from pathology.errors import SlideOpenError
from pathology.geometry import Box, Mpp, Size
from pathology.slides.colour import ColourSpace
from pathology.slides.levels import Level
from pathology.slides.openslide import OpenSlideSlide
from pathology.slides.tiff_end import check_end

Backend = Literal["auto", "openslide", "tifffile", "cucim"]

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What people take for slides, by how it begins, and what to do about it.
OTHER_FILES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"PK\3\4": "a ZIP archive; unpack it first",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of git-lfs; fetch the file itself",
    b"<": "a web page or XML; was the download refused?",
}


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
    def colour(self) -> ColourSpace:
        """``"stored"``: pixels as in the file; ``"srgb"``: converted by its ICC profile."""

    @property
    def properties(self) -> Mapping[str, str]:
        """Metadata as in the file, under OpenSlide's names."""

    @property
    def associated(self) -> Mapping[str, NDArray[np.uint8]]:
        """Further images in the file (label, macro, thumbnail) as RGB, by name; as stored."""

    def read(self, box: Box, mpp: float) -> NDArray[np.uint8]:
        """RGB of the slide under ``box``, ``(height, width, 3)``.

        Sides are :func:`~pathology.geometry.pixel_count` of the box's at ``mpp``; a native request
        on whole pixels returns the stored ones; outside of the slide lies the background.
        """

    def encoded(self, box: Box, mpp: float) -> bytes | None:
        """The JPEG file whose pixels are ``read(box, mpp)``, as it is stored.

        ``None`` unless ``box`` is exactly one stored JPEG tile at its own mpp, and ``colour`` is
        "stored".
        """

    def render(self, box: Box, width: int, height: int) -> NDArray[np.uint8]:
        """The slide under ``box`` as exactly ``width x height`` pixels, which need not be square.

        :meth:`read` and :meth:`thumbnail` are this with the sides worked out.
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


def open_slide(
    path: str | Path,
    mpp: float | tuple[float, float] | None = None,
    *,
    colour: ColourSpace = "stored",
    backend: Backend = "auto",
) -> Slide:
    """Open a whole-slide image with the backend that reads it.

    ``"auto"`` is OpenSlide where it can, with stored tiles decoded directly where that gives the
    same pixels faster; tifffile for a TIFF that OpenSlide does not know (strips, unusual
    compression) or of which it would miss planes and pixel size (OME-TIFF); and cuCIM where it is
    installed and faster than both, see :mod:`pathology.slides.cucim`. The other names force one
    library: ``"openslide"`` leaves all decoding to OpenSlide. Whatever the backend, the pixels are
    the same, but on planes that do not shrink by a whole number: OpenSlide interpolates between
    their pixels, which blurs them a little, where all others give the stored ones.

    Of a DICOM slide any of its files opens all that lie in the same folder; of MIRAX it is the
    ``.mrxs`` file beside the folder.

    Args:
        path: the slide's file.
        mpp: micrometres per level-0 pixel, one number or ``(x, y)``; overrules the file, and is
            needed when it does not say.
        colour: ``"srgb"`` converts what is read, after resampling, by the ICC profile in the file,
            with the intent it names; the background around the slide stays as it is.
        backend: which library reads.

    Raises:
        SlideOpenError: missing, a folder, empty, damaged, no slide, or of other pixels than 8-bit
            colours; no colour profile to convert by; or nothing that ``backend`` can read.
        MissingResolutionError: no plausible mpp in the file and none given.
        ValueError: ``mpp`` is no size of a pixel, ``colour`` or ``backend`` is unknown.

    Example:
        >>> with open_slide("case_001.svs") as slide:  # doctest: +SKIP
        ...     pixels = slide.read(Box(0, 0, 448, 448), mpp=2 * slide.mpp.x)
    """
    _one_of("colour", colour, get_args(ColourSpace))
    _one_of("backend", backend, get_args(Backend))
    path = Path(path)
    first = _first_bytes(path)
    vendor = _vendor(path)
    if first.startswith(TIFF_MAGIC):
        if vendor != "hamamatsu":  # whose NDPI has longer offsets than a TIFF of its number
            check_end(path)
        # A scanner's file that is damaged is an error; only what OpenSlide takes for a plain TIFF,
        # or for nothing at all, is for somebody else to try.
        if vendor == "generic-tiff":
            from pathology.slides.tiff import check_file

            check_file(path)
        plain = vendor in (None, "generic-tiff")
        if backend == "tifffile" or (backend == "auto" and plain and _is_for_tifffile(path)):
            from pathology.slides.tiff import TiffSlide  # imported late: most slides never need it

            return TiffSlide(path, mpp, colour)
    elif backend == "tifffile":
        raise SlideOpenError("is no TIFF, so tifffile cannot read it; leave backend out", path)
    if vendor is None:
        hint = "; leave backend out" if first.startswith(TIFF_MAGIC) else _likeness(first)
        raise SlideOpenError(f"is no slide format that OpenSlide knows{hint}", path)
    if backend == "cucim" or (backend == "auto" and _is_for_cucim(path, first)):
        from pathology.slides.cucim import CucimSlide

        try:
            return CucimSlide(path, mpp, colour)
        except SlideOpenError:
            if backend == "cucim":
                raise
    return OpenSlideSlide(path, mpp, colour, direct=backend == "auto")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _vendor(path: Path) -> str | None:
    """Which of its formats OpenSlide takes a file for; ``None`` for none."""
    try:
        vendor: str | None = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError as error:
        raise SlideOpenError(f"cannot be opened: {error}", path) from error
    return vendor


def _is_for_tifffile(path: Path) -> bool:
    """OpenSlide refuses this TIFF, or sees one plane of an OME-TIFF and not its pixel size."""
    try:
        with openslide.OpenSlide(path) as handle:
            description = handle.properties.get("tiff.ImageDescription", "")
            return handle.level_count == 1 and description.rstrip().endswith("OME>")
    except openslide.OpenSlideError:
        return True


def _is_for_cucim(path: Path, first: bytes) -> bool:
    """An uncompressed TIFF, and cuCIM is at hand."""
    if not first.startswith(TIFF_MAGIC) or importlib.util.find_spec("cucim") is None:
        return False
    from pathology.slides.cucim import NONE, obstacle

    return obstacle(path, NONE) is None


def _first_bytes(path: Path) -> bytes:
    """The first bytes, once the file is known to be one and to have any."""
    try:
        with path.open("rb") as file:
            first = file.read(132)
    except FileNotFoundError as error:
        raise SlideOpenError("there is no such file", path) from error
    except IsADirectoryError as error:
        raise SlideOpenError(f"is a folder, not a slide{_inside(path)}", path) from error
    except OSError as error:
        raise SlideOpenError(f"cannot be read: {error.strerror}", path) from error
    if not first:
        raise SlideOpenError("is an empty file", path)
    return first


def _inside(folder: Path) -> str:
    """Which file to name instead of a folder that holds one slide's parts."""
    mirax = folder.with_name(f"{folder.name}.mrxs")
    dicom = sorted(folder.glob("*.dcm"))
    if mirax.is_file():
        return f"; name the file beside it, {mirax.name}"
    return f"; name one of its files, for example {dicom[0].name}" if dicom else ""


def _likeness(first: bytes) -> str:
    for start, kind in OTHER_FILES.items():
        if first.startswith(start):
            return f"; it begins like {kind}"
    if first[128:] == b"DICM":
        return "; it is DICOM, but no intact whole-slide image"
    return "; it is text" if first.isascii() and first.decode().isprintable() else ""
