"""Maps whose levels keep the sum, made by hand; and what lies in a polygon, pixel by pixel."""

import numpy as np
import shapely

from pathology.geometry import Box, Mpp

MPP = Mpp(0.5, 0.41)


class MadeMap:
    """A map in memory.

    Args:
        values: ``(height, width)`` of the finest level.
        pixel: width and height of its pixels, in level-0 pixels.
        corner: level-0 location of the first one.
    """

    def __init__(self, values, pixel=(1.0, 1.0), corner=(0.0, 0.0)):
        height, width = values.shape
        self.box = Box(*corner, pixel[0] * width, pixel[1] * height)
        self.slide_mpp = MPP
        self.values = [values.astype(np.float32)]
        total, some = np.nan_to_num(self.values[0].astype(np.float64)), np.isfinite(values)
        while max(total.shape) > 16:
            total, some = four(total, np.add), four(some, np.logical_or)
            self.values.append(np.where(some, total, np.nan).astype(np.float32))
        self.shapes = [level.shape for level in self.values]
        self.pixels_read = 0

    def read(self, level, top, left, height, width):
        rows, columns = self.shapes[level]
        assert 0 <= top < top + height <= rows
        assert 0 <= left < left + width <= columns
        self.pixels_read += height * width
        return self.values[level][top : top + height, left : left + width].copy()


class EvenMap:
    """1 in every pixel of a map as large as one likes, of which nothing is held."""

    def __init__(self, side):
        self.box, self.slide_mpp, self.shapes = Box(0, 0, side, side), MPP, [(side, side)]
        while side > 512:
            side = -(-side // 2)
            self.shapes.append((side, side))
        self.pixels_read = 0

    def read(self, level, top, left, height, width):
        self.pixels_read += height * width
        return np.full((height, width), 4.0**level, np.float32)


def four(values, add):
    """2 x 2 pixels as one."""
    height, width = values.shape
    values = np.pad(values, ((0, height % 2), (0, width % 2)))
    rows = add(values[0::2], values[1::2])
    return add(rows[:, 0::2], rows[:, 1::2])


def by_pixel(made, polygon, slide):
    """Each pixel's share of ``polygon`` by shapely, ``(height, width)``: of its area on the slide;
    and the area itself, in level-0 pixels."""
    height, width = made.shapes[0]
    x = made.box.x + made.box.width / width * np.arange(width + 1)
    y = made.box.y + made.box.height / height * np.arange(height + 1)
    left, top = np.meshgrid(x[:-1], y[:-1])
    right, bottom = np.meshgrid(np.minimum(x[1:], slide.right), np.minimum(y[1:], slide.bottom))
    pixels = shapely.box(left, top, right, bottom)
    full = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    shapely.prepare(polygon)
    areas = np.where(shapely.contains_properly(polygon, pixels), full, 0.0)
    cut = (areas == 0) & (full > 0) & shapely.intersects(polygon, pixels)
    areas[cut] = shapely.area(shapely.intersection(pixels[cut], polygon))
    return areas / np.maximum(full, 1e-300), areas
