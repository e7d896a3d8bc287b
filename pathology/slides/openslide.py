"""Slides read through OpenSlide: Aperio, Hamamatsu, MIRAX, Leica, Philips, DICOM, tiled TIFF."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pathology.errors import SlideOpenError
from pathology.geometry import Box
from pathology.outputs import SOFTWARE
from pathology.slides.colour import ColourSpace
from pathology.slides.direct import Verdicts, direct_planes, shifted
from pathology.slides.reader import Colour, PyramidSlide
from pathology.slides.resolution import find_mpp
from pathology.slides.stamp import stamp_file
from pathology.slides.tile_plane import TilePlane

# Handles that a forked child inherited. Freeing one there may wait for ever on a lock that another
# thread of the parent held at that moment, so they are kept and never touched.
_inherited: list[openslide.OpenSlide] = []
# Of the process that asked for it: a lock in it may be held when a child is forked.
_shared_cache: tuple[int, openslide.OpenSlideCache] | None = None


def share_cache(most_bytes: int) -> None:
    """Slides that this process opens from now on share one cache of what OpenSlide decoded.

    Otherwise each keeps one of its own, of 32 MiB: half a gigabyte for a process that has sixteen
    open. The first call decides.

    Args:
        most_bytes: what the cache holds at most.
    """
    global _shared_cache
    if _shared_cache is None or _shared_cache[0] != os.getpid():
        _shared_cache = os.getpid(), openslide.OpenSlideCache(most_bytes)


class OpenSlideSlide(PyramidSlide):
    """A file that OpenSlide reads.

    The handle is opened when first needed, again in every forked child and after unpickling, and
    reads may run in many threads. A handle that has met an error answers nothing but that error
    ever after; it is dropped, so the next read starts afresh.

    Levels that are JPEG tiles are decoded without OpenSlide where that is proven to give the same
    pixels, see :mod:`pathology.slides.direct`; several times as quick. Tiles that are damaged or
    left out are OpenSlide's to judge, as is everything else. :attr:`decoders` says which it is.

    Args:
        path: the slide's file.
        mpp: micrometres per level-0 pixel, instead of what the file says.
        colour: ``"srgb"`` to convert by the file's colour profile.
        direct: JPEG tiles may be decoded without OpenSlide.

    Raises:
        SlideOpenError: OpenSlide cannot read the file, or it has no profile to convert by.
        MissingResolutionError: the file has no plausible mpp and none is given.
        ValueError: ``mpp`` is no size of a pixel.
    """

    def __init__(
        self,
        path: Path,
        mpp: float | tuple[float, float] | None = None,
        colour: ColourSpace = "stored",
        direct: bool = True,
    ) -> None:
        handle = _open(path)
        properties = dict(handle.properties)
        found, source = find_mpp(properties, mpp, path)
        # Scanners cut the last incomplete pixel of a plane; whoever writes a plain TIFF scales.
        # Measured on such a TIFF, halved four times: ratio of the sides 2.0 grey levels off level
        # 0, whole factor 3.2.
        vendor = properties.get(openslide.PROPERTY_NAME_VENDOR)
        super().__init__(
            path=path,
            slide_id=path.stem,
            planes=handle.level_dimensions,
            tiles=[_tile(properties, level) for level in range(len(handle.level_dimensions))],
            mpp=found,
            mpp_source=source,
            whole_factors=vendor != "generic-tiff" or properties.get("tiff.Software") == SOFTWARE,
            background=_background(properties),
            bounds=_bounds(properties, handle.dimensions),
            properties=properties,
            colour=colour,
            profile=_profile(handle, path) if colour == "srgb" else None,
        )
        self._file = path.absolute()  # wherever the process goes, and its children
        self._downsamples = handle.level_downsamples
        self._names = tuple(handle.associated_images)
        self._direct: tuple[list[TilePlane | None], Verdicts] | None = None
        if not direct:
            count = len(self.levels)
            self._direct = [None] * count, ("not to be read directly",) * count
        self._opened: tuple[int, openslide.OpenSlide] | None = (os.getpid(), handle)

    @property
    def decoders(self) -> list[str]:
        """What decodes each level: ``"jpeg tiles"``, or ``"openslide"`` and why not the other."""
        _, verdicts = self._find_direct()
        return ["jpeg tiles" if why is None else f"openslide ({why})" for why in verdicts]

    @property
    def associated(self) -> Mapping[str, NDArray[np.uint8]]:
        """Further images in the file (label, macro, thumbnail) by name; read when looked up."""
        return _Associated(self, self._names)

    def stamp(self) -> str:
        """Fingerprint of the file: its size, first and last 64 KiB."""
        return stamp_file(self._file)

    def close(self) -> None:
        """Let go of the file; reading afterwards is an error. Closing twice is not."""
        # The handle is freed with its last reference: a thread may be reading with it right now.
        super().close()
        self._opened = None
        for plane in self._direct[0] if self._direct else []:
            if plane is not None:
                plane.close()

    def _handle(self) -> openslide.OpenSlide:
        """The handle of this process. Two threads may open one each; the later one stays."""
        opened = self._opened
        if opened is not None and opened[0] == os.getpid():
            return opened[1]
        if opened is not None:
            _inherited.append(opened[1])
        handle = _open(self._file)
        self._opened = os.getpid(), handle
        return handle

    def _find_direct(self) -> tuple[list[TilePlane | None], Verdicts]:
        """The levels that are read without OpenSlide, found and proven when first needed."""
        if self._direct is None:
            sizes = [level[:2] for level in self.levels]
            vendor = self._properties.get(openslide.PROPERTY_NAME_VENDOR)
            try:
                self._direct = direct_planes(self._file, vendor, sizes)
            except (OSError, openslide.OpenSlideError) as error:
                raise SlideOpenError(f"cannot be read: {error}", self._file) from error
        return self._direct

    def _origin(self, level: int, x: int, y: int) -> tuple[float, float]:
        return (x, y) if self._find_direct()[0][level] else self._shown(level, x, y)

    def _shown(self, level: int, x: int, y: int) -> tuple[float, float]:
        """Where OpenSlide starts: on a whole level-0 pixel, maybe between two of the plane."""
        down = self._downsamples[level]
        return round(x * down) / down, round(y * down) / down

    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        plane = self._find_direct()[0][level]
        if plane is None:
            return self._read_openslide(level, x, y, width, height)
        try:
            return plane.read(x, y, width, height)
        except (OSError, ValueError):  # damaged or left out
            pixels = self._read_openslide(level, x, y, width, height)
            start_x, start_y = self._shown(level, x, y)
            whole = (start_x, start_y) == (x, y)
            return pixels if whole else shifted(pixels, x - start_x, y - start_y)

    def _read_openslide(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        down = self._downsamples[level]
        corner = round(x * down), round(y * down)
        handle = self._handle()
        try:
            return _on_background(
                handle.read_region(corner, level, (width, height)), self.background
            )
        except openslide.OpenSlideError as error:
            self._opened = None
            where = f"level {level} at ({corner[0]}, {corner[1]}), {width} x {height} px"
            raise SlideOpenError(f"cannot be read: {where}: {error}", self._file) from error

    def _encoded_tile(self, level: int, column: int, row: int) -> bytes | None:
        plane = self._find_direct()[0][level]
        try:
            return None if plane is None else plane.encoded(column, row)
        except (OSError, ValueError):
            return None  # reading it says what is wrong

    def _read_associated(self, name: str) -> NDArray[np.uint8]:
        handle = self._handle()
        try:
            return _on_background(handle.associated_images[name], self.background)
        except openslide.OpenSlideError as error:
            self._opened = None
            raise SlideOpenError(f"its {name} image cannot be read: {error}", self._file) from error

    def __getstate__(self) -> dict[str, Any]:
        is_direct = self._direct is None or any(self._direct[0])
        return self.__dict__ | {"_opened": None} | ({"_direct": None} if is_direct else {})


class _Associated(Mapping[str, NDArray[np.uint8]]):
    """Images by name, decoded at each look-up: a macro image is rarely wanted, and not small."""

    def __init__(self, slide: OpenSlideSlide, names: tuple[str, ...]) -> None:
        self._slide = slide
        self._names = names

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        if name not in self._names:
            raise KeyError(name)
        return self._slide._read_associated(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _open(path: Path) -> openslide.OpenSlide:
    try:
        handle = openslide.OpenSlide(path.absolute())  # it opens the file again and again
        if _shared_cache is not None and _shared_cache[0] == os.getpid():
            handle.set_cache(_shared_cache[1])
        return handle
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise SlideOpenError("is no slide format that OpenSlide knows", path) from error
    except openslide.OpenSlideError as error:
        raise SlideOpenError(f"cannot be opened: {error}", path) from error


def _profile(handle: openslide.OpenSlide, path: Path) -> bytes | None:
    try:
        profile = handle.color_profile
    except (openslide.OpenSlideError, ImageCms.PyCMSError, OSError) as error:
        raise SlideOpenError(f"its colour profile cannot be used: {error}", path) from error
    return None if profile is None else profile.tobytes()


def _on_background(image: Image.Image, background: Colour) -> NDArray[np.uint8]:
    """RGBA put on the background's colour; most regions are opaque and only lose their alpha."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
        canvas = Image.new("RGB", image.size, background)
        canvas.paste(image, mask=image)
        return np.asarray(canvas)
    return np.asarray(image.convert("RGB"))


def _tile(properties: Mapping[str, str], level: int) -> tuple[int, int] | None:
    """Width and height of a level's tiles, where the file has any."""
    try:
        width, height = (
            int(properties[f"openslide.level[{level}].tile-{side}"]) for side in ("width", "height")
        )
    except (KeyError, ValueError):
        return None
    return width, height


def _background(properties: Mapping[str, str]) -> Colour:
    colour = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
    try:
        red, green, blue = bytes.fromhex(colour)
    except ValueError:
        return 255, 255, 255
    return red, green, blue


def _bounds(properties: Mapping[str, str], size: tuple[int, int]) -> Box | None:
    """The scanned part of the slide, as far as it lies on it."""
    names = [
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    ]
    try:
        return Box(*(float(properties[name]) for name in names)).intersection(Box(0, 0, *size))
    except (KeyError, ValueError):
        return None
