"""A slide as one small picture, read once, on which finders and masks look for their things."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from pathology.geometry import Box, Mpp, level0_length
from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide

BAND_PX = 2**19  # pixels held as floats at once; four times as many are read
HALO_PX = 6  # rows around a band that the filters look at: 4 sigma of the blur, half a window
WINDOW_PX = 5  # side of the window in which texture is measured

DIMMEST, DIM_RANGE = 90, 10  # grey levels of glass, and their range in 3 x 3 pixels of it

DENSEST = 4.0
"""Optical densities above it are cut: less than 2 % of the light is left, which is noise."""


@dataclass(frozen=True)
class Picture:
    """The scanned part of a slide at a low resolution.

    Three bytes a pixel, and one more for each of the measures that somebody asked for; they are
    computed in bands and kept. Everything with floats is done a band at a time.

    Args:
        pixels: ``(height, width, 3)`` uint8 RGB as scanned.
        box: the level-0 rectangle that all pixels together cover: the slide's bounds, grown to the
            right and down to whole pixels.
        mpp: micrometres per pixel.
        slide_mpp: micrometres per level-0 pixel.
    """

    pixels: NDArray[np.uint8]
    box: Box
    mpp: float
    slide_mpp: Mpp

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        height, width, _ = self.pixels.shape
        return height, width

    @cached_property
    def glass(self) -> NDArray[np.float32]:
        """Colour of bare glass, from every n-th pixel of a large picture."""
        every = max(1, math.ceil(max(self.shape) / 1024))
        return glass_colour(self.pixels[::every, ::every])

    @cached_property
    def colour(self) -> NDArray[np.uint8]:
        """Largest less smallest channel relative to the glass, in grey levels."""
        self._measure()
        return self.__dict__["colour"]

    @cached_property
    def texture(self) -> NDArray[np.uint8]:
        """Standard deviation of green in a small window, in grey levels.

        Green, because both haematoxylin and eosin absorb it.
        """
        self._measure()
        return self.__dict__["texture"]

    @cached_property
    def absorbance(self) -> NDArray[np.uint8]:
        """Mean optical density of the channels over the glass, in hundredths, at most 2.55."""
        self._measure()
        return self.__dict__["absorbance"]

    def relative(self) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        """Bands of the picture divided by the glass and smoothed by one pixel, 0 to 255.

        Noise of three channels looks like colour, and like texture; hence the smoothing.

        Yields:
            The band's rows in the picture, the same rows in the array, and the array, which has up
            to :data:`HALO_PX` further rows above and below.
        """
        height, width = self.shape
        rows = max(1, BAND_PX // width)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(0, top - HALO_PX), min(height, bottom + HALO_PX)
            light = np.minimum(self.pixels[first:last] / self.glass, 1) * np.float32(255)
            smooth = ndimage.gaussian_filter(light, (1, 1, 0), mode="nearest")
            yield slice(top, bottom), slice(top - first, bottom - first), smooth

    def density(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Bands of optical density (natural logarithm) per channel, ``(rows, width, 3)``.

        Yields:
            The band's rows in the picture and the densities of just these rows, 0 to
            :data:`DENSEST`.
        """
        for rows, inner, light in self.relative():
            yield rows, optical_density(light[inner])

    def map(self, values: NDArray[Any]) -> SlideMap:
        """Values on the picture's pixels as a map of float32 fractions."""
        floats = values.astype(np.float32, copy=False)
        return SlideMap(floats, self.box, self.slide_mpp, unit="fraction")

    def mask(self, values: NDArray[np.bool_]) -> SlideMap:
        """A mask on the picture's pixels as a map of 0 and 1, in float16: several are kept."""
        return SlideMap(values.astype(np.float16), self.box, self.slide_mpp, unit="fraction")

    def _measure(self) -> None:
        colour, texture, absorbance = (np.empty(self.shape, np.uint8) for _ in range(3))
        for rows, inner, light in self.relative():
            colour[rows] = np.rint((most(light) - least(light))[inner])
            texture[rows] = np.rint(_deviation(light[..., 1])[inner])
            red, green, blue = np.moveaxis(optical_density(light[inner]), 2, 0)
            mean = (red + green + blue) * np.float32(100 / 3)
            absorbance[rows] = np.rint(np.minimum(mean, 255))
        # What cached_property would store; one pass over the picture fills all three.
        self.__dict__.update(colour=colour, texture=texture, absorbance=absorbance)


def take_picture(slide: Slide, mpp: float) -> Picture:
    """Read all of ``slide.bounds`` once, in bands.

    Raises:
        SlideOpenError: the file is damaged, or gone.
    """
    box = whole_pixels(slide, mpp)
    step = level0_length(1, mpp, slide.mpp.y)
    height = round(box.height / step)
    width = round(box.width / level0_length(1, mpp, slide.mpp.x))
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, 4 * BAND_PX // width)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        pixels[top : top + count] = slide.read(
            Box(box.x, box.y + top * step, box.width, count * step), mpp
        )
    return Picture(pixels, box, mpp, slide.mpp)


def whole_pixels(slide: Slide, mpp: float) -> Box:
    """The slide's bounds, grown to the right and down to whole pixels at ``mpp``."""
    sides = []
    for length, mpp0 in ((slide.bounds.width, slide.mpp.x), (slide.bounds.height, slide.mpp.y)):
        # Rounding must not add a pixel to a length that is whole already.
        pixels = math.ceil(length * mpp0 / mpp - 1e-6)
        sides.append(level0_length(max(1, pixels), mpp, mpp0))
    return Box(slide.bounds.x, slide.bounds.y, *sides)


def glass_colour(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The commonest value of each channel among bright, little coloured pixels.

    Where there are next to none, of a dim scan: among its brightest, if these are grey, smooth, and
    a twentieth of the slide. Else white: a slide full of tissue must not lend its own colour.
    """
    peak = most(pixels)
    colour = peak - least(pixels)
    is_glass = (peak >= 200) & (colour < 40)
    if is_glass.mean() >= 0.01:
        return _commonest(pixels[is_glass])
    brightest = np.percentile(peak, 99)
    is_glass = (peak >= 0.9 * brightest) & (colour < 0.1 * brightest)
    green = pixels[..., 1]
    is_glass &= ndimage.maximum_filter(green, 3) - ndimage.minimum_filter(green, 3) <= DIM_RANGE
    glass = _commonest(pixels[is_glass])
    # What is all of one colour was filled in, and not scanned.
    is_filled = is_glass.any() and (pixels[is_glass] == glass).all(axis=1).mean() > 0.9
    if brightest < DIMMEST or is_glass.mean() < 0.05 or is_filled:
        return np.full(3, 255, np.float32)
    return glass


def _commonest(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of ``(n, 3)`` the commonest value of each channel."""
    channels = [np.bincount(pixels[:, c], minlength=256).argmax() for c in range(3)]
    return np.array(channels, np.float32)


def optical_density(relative: NDArray[np.float32]) -> NDArray[np.float32]:
    """Natural-log density of light relative to the glass, 0 to 255; cut at :data:`DENSEST`."""
    darkest = np.float32(math.exp(-DENSEST))
    density: NDArray[np.float32] = -np.log(np.maximum(relative / np.float32(255), darkest))
    return density


def on_grid(slide_map: SlideMap, box: Box, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The mean of a map under each pixel of another grid, exact in area; zero outside of the map.

    Args:
        slide_map: values to look up; NaN counts as zero.
        box: the level-0 rectangle of the other grid.
        shape: its ``(height, width)``.
    """
    own, values = slide_map.box, slide_map.values
    if own == box and values.shape == shape:
        same = values.astype(np.float32)
        np.copyto(same, 0, where=np.isnan(same))
        return same
    rows = _overlaps(box.y, box.height, shape[0], own.y, own.height, values.shape[0])
    columns = _overlaps(box.x, box.width, shape[1], own.x, own.width, values.shape[1])
    means = np.zeros(shape, np.float32)
    # In bands, so that no copy of all values is held.
    reach = max(1, math.ceil(values.shape[0] * box.height / (shape[0] * own.height)))
    step = max(1, BAND_PX // (reach * values.shape[1]))
    for top in range(0, shape[0], step):
        band = rows[top : top + step]
        if band.nnz:
            first, last = int(band.indices.min()), int(band.indices.max()) + 1
            under = np.nan_to_num(values[first:last].astype(np.float32), copy=False)
            means[top : top + step] = (columns @ (band[:, first:last] @ under).T).T
    return means


def least(pixels: NDArray[Any]) -> NDArray[Any]:
    """Smallest of three channels; several times faster than a minimum along the last axis."""
    return np.minimum(np.minimum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])


def most(pixels: NDArray[Any]) -> NDArray[Any]:
    """Largest of three channels."""
    return np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])


def _overlaps(
    start: float, length: float, count: int, own_start: float, own_length: float, own_count: int
) -> sparse.csr_array:
    """``(count, own_count)``: what share of each new pixel each old one covers, along one side."""
    new = (start + np.arange(count + 1) * (length / count) - own_start) * (own_count / own_length)
    new = np.clip(new, 0, own_count)
    first, last = np.floor(new[:-1]).astype(int), np.ceil(new[1:]).astype(int)
    reach = np.maximum(last - first, 0)
    row = np.repeat(np.arange(count), reach)
    column = np.arange(reach.sum()) - np.repeat(np.cumsum(reach) - reach, reach) + first[row]
    share = np.minimum(column + 1, new[row + 1]) - np.maximum(column, new[row])
    share *= own_length / own_count * count / length
    return sparse.csr_array((share.astype(np.float32), (row, column)), shape=(count, own_count))


def _deviation(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standard deviation in a small window."""
    mean = ndimage.uniform_filter(values, WINDOW_PX, mode="nearest")
    square = ndimage.uniform_filter(values * values, WINDOW_PX, mode="nearest")
    deviation: NDArray[np.float32] = np.sqrt(np.maximum(square - mean * mean, 0))
    return deviation
