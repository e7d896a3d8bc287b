"""TIFF files that OpenSlide refuses or sees one plane of: striped, OME with sub-images, zstd."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pathology.errors import SlideOpenError
from pathology.outputs import SOFTWARE
from pathology.slides.colour import ColourSpace
from pathology.slides.reader import PyramidSlide
from pathology.slides.resolution import find_mpp
from pathology.slides.stamp import stamp_file
from pathology.slides.tiff_page import check_stack, open_planes

UNITS = {2: "inch", 3: "centimeter"}
COLOURS = tuple(
    getattr(tifffile.PHOTOMETRIC, name) for name in ("MINISWHITE", "MINISBLACK", "RGB", "YCBCR")
)
OME_MICROMETRES = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3}


class TiffSlide(PyramidSlide):
    """An 8-bit RGB, RGBA or grey TIFF, tiled or in strips, with or without further planes.

    Args:
        path: the slide's file.
        mpp: micrometres per level-0 pixel, instead of what the file says.
        colour: ``"srgb"`` to convert by the file's colour profile.

    Raises:
        SlideOpenError: no TIFF, cut short, pixels of another kind, or no profile to convert by.
        MissingResolutionError: the file has no plausible mpp and none is given.
        ValueError: ``mpp`` is no size of a pixel.
    """

    def __init__(
        self,
        path: Path,
        mpp: float | tuple[float, float] | None = None,
        colour: ColourSpace = "stored",
    ) -> None:
        self._file = path.absolute()  # wherever the process goes, and its children
        self._planes, ome = open_planes(path, white=True)
        for plane in self._planes:
            _check_pixels(plane.page, path)
        aperio = _aperio(self._planes[0].page.description)
        first = self._planes[0]
        properties = _resolution(first.page) | _ome(ome, first.width, first.height) | aperio
        found, source = find_mpp(properties, mpp, path)
        super().__init__(
            path=path,
            slide_id=path.stem,
            planes=[(plane.width, plane.height) for plane in self._planes],
            tiles=[plane.sides if plane.page.is_tiled else None for plane in self._planes],
            mpp=found,
            mpp_source=source,
            # A scanner's, or our own; see OpenSlideSlide.
            whole_factors=bool(aperio) or first.page.software == SOFTWARE,
            properties=properties,
            colour=colour,
            profile=self._planes[0].profile,
        )

    def stamp(self) -> str:
        """Fingerprint of the file: its size, first and last 64 KiB."""
        return stamp_file(self._file)

    def close(self) -> None:
        """Let go of the file; reading afterwards is an error. Closing twice is not."""
        super().close()
        for plane in self._planes:
            plane.close()

    def _encoded_tile(self, level: int, column: int, row: int) -> bytes | None:
        try:
            return self._planes[level].encoded(column, row)
        except (OSError, ValueError):
            return None  # reading it says what is wrong

    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        plane = self._planes[level]
        pixels = plane.read(x, y, width, height)
        if pixels.shape[2] == 4:
            return _on_white(pixels, plane.page.extrasamples)
        if plane.page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = 255 - pixels
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_planes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._planes, _ = open_planes(self._file, white=True)


def _on_white(pixels: NDArray[Any], extra: tuple[int, ...]) -> NDArray[np.uint8]:
    """RGBA on white. Alpha of no stated kind counts as multiplied in already, as in libtiff."""
    colours, alpha = pixels[..., :3], pixels[..., 3:].astype(np.uint16)
    if extra[:1] != (tifffile.EXTRASAMPLE.UNASSALPHA,):
        return np.minimum(colours + (255 - alpha), 255).astype(np.uint8)
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def check_file(path: Path) -> None:
    """Refuse a TIFF whose pixels are no 8-bit colours or grey.

    OpenSlide reads nearly all of them: 16-bit samples by their upper half, inks by a rule of thumb,
    a fifth channel not at all, of several grey images the first. Those are other numbers than the
    file's, so they are refused here.

    Raises:
        SlideOpenError: pixels of another kind, or no TIFF.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            _check_pixels(tif.pages.first, path)
            if tif.pages.first.samplesperpixel == 1:
                check_stack(tif.series[0])
    except SlideOpenError:
        raise
    except Exception as error:  # a damaged header raises about anything, from KeyError to struct's
        raise SlideOpenError(f"cannot be read as TIFF: {error}", path) from error


def _check_pixels(page: tifffile.TiffPage, path: Path) -> None:
    if page.dtype != np.uint8 or page.samplesperpixel not in (1, 3, 4):
        got = f"{page.samplesperpixel} x {page.dtype}"
        raise SlideOpenError(
            f"needs 8-bit grey, RGB or RGBA pixels, got {got}; convert the file first", path
        )
    if page.photometric not in COLOURS:
        kind = str(getattr(page.photometric, "name", page.photometric)).lower()
        raise SlideOpenError(
            f"needs colours in grey or RGB, got {kind}; convert the file first", path
        )


def _resolution(page: tifffile.TiffPage) -> dict[str, str]:
    """The resolution tags under OpenSlide's names."""
    unit = page.tags.get("ResolutionUnit")
    # An absent unit is inch by the TIFF standard.
    properties = {"tiff.ResolutionUnit": UNITS.get(unit.value if unit else 2, "none")}
    for axis in ("XResolution", "YResolution"):
        tag = page.tags.get(axis)
        # A fraction by the standard; some software writes one number, whole or real.
        if tag is not None and isinstance(tag.value, tuple) and 1 <= len(tag.value) <= 2:
            above, below = (*tag.value, 1)[:2]
            if below:
                properties[f"tiff.{axis}"] = repr(above / below)
    return properties


def _aperio(description: str) -> dict[str, str]:
    """What an Aperio slide says of itself, under OpenSlide's names; nothing for other files."""
    if not description.startswith("Aperio"):
        return {}
    pairs = (part.split("=", 1) for part in description.split("|")[1:] if "=" in part)
    return {f"aperio.{key.strip()}": value.strip() for key, value in pairs}


def _ome(xml: str | None, width: int, height: int) -> dict[str, str]:
    """Physical size of a pixel in an OME header, in micrometres; nothing where it cannot be read.

    A header may describe several images; that of ``width x height`` pixels is meant.
    """
    try:
        every = ElementTree.fromstring(xml or "").iterfind(".//{*}Pixels")
    except ElementTree.ParseError:
        return {}
    sides = str(width), str(height)
    pixels = next((one for one in every if (one.get("SizeX"), one.get("SizeY")) == sides), None)
    properties: dict[str, str] = {}
    if pixels is None:
        return properties
    for axis in "XY":
        unit = OME_MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            size = float(pixels.get(f"PhysicalSize{axis}", "").replace(",", "."))
        except ValueError:
            continue
        if unit is not None:
            properties[f"ome.mpp-{axis.lower()}"] = repr(size * unit)
    return properties
