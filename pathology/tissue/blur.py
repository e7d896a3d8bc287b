"""Tissue out of focus."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathology.geometry import Box, level0_length
from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.finder import check_numbers
from pathology.tissue.picture import Picture, on_grid

CELL_PX = 32  # side of a cell of the map, in pixels read
BLOCK_CELLS = 32  # side of what is read at once, in cells: 1024 px
SCALES = (1, 4)  # sides of the pixels between which detail is measured, in pixels read
LEAST_DETAIL = 40.0  # squared grey levels at the coarse scale; below is glass, mucus or haze
FEWEST_GLASS = 20  # cells without which the noise is not known, and taken for none


@dataclass(frozen=True, slots=True)
class Blur:
    """Tissue whose finest detail is missing.

    In cells of 64 um, the mean squared Laplacian between pixels of 2 um over that between pixels of
    8 um. Sharp tissue has 0.16 and more, whatever its contrast; behind a Gaussian blur of 1.5 um
    standard deviation 0.08 is left, of 3 um 0.02. What noise adds, measured on the glass, is taken
    off. Cells with hardly any detail even at 8 um are not called blurred.

    Only blocks of 2 mm with tissue in them are read, and at 2 um: one pixel for 64 of a scan at
    0.25 um. A blur of less than 1.5 um, three pixels of a scan at 0.5 um, does not show there.

    Args:
        mpp: micrometres per pixel at which the tissue is read. A slide that is coarser cannot be
            judged, and its map is NaN.
        sharpness: cells below it are blurred.

    Raises:
        ValueError: ``mpp`` is not positive, ``sharpness`` negative, or one not finite.
    """

    mpp: float = 2.0
    sharpness: float = 0.1

    def __post_init__(self) -> None:
        check_numbers(self)

    def mask(self, slide: Slide, picture: Picture, tissue: SlideMap) -> SlideMap:
        """1 in blurred cells, 0 in others; NaN all over where the slide is too coarse.

        Raises:
            SlideOpenError: the file is damaged, or gone.
        """
        step_x = level0_length(CELL_PX, self.mpp, slide.mpp.x)
        step_y = level0_length(CELL_PX, self.mpp, slide.mpp.y)
        rows = int(np.ceil(picture.box.height / step_y - 1e-6))
        columns = int(np.ceil(picture.box.width / step_x - 1e-6))
        box = Box(picture.box.x, picture.box.y, columns * step_x, rows * step_y)
        if max(slide.mpp) > self.mpp:
            nothing = np.full((rows, columns), np.nan, np.float32)
            return SlideMap(nothing, box, slide.mpp, unit="fraction")
        share = on_grid(tissue, box, (rows, columns))
        fine, coarse = self._detail(slide, box, share > 0)
        is_glass = (share == 0) & (coarse < LEAST_DETAIL)
        noise = np.median(fine[is_glass]) if is_glass.sum() >= FEWEST_GLASS else 0.0
        is_blurred = fine - noise < self.sharpness * coarse
        is_blurred &= (coarse >= LEAST_DETAIL) & (share > 0)
        # One cell alone is chance.
        near = ndimage.uniform_filter(is_blurred.astype(np.float32), 3, mode="constant")
        around = ndimage.uniform_filter((share > 0).astype(np.float32), 3, mode="constant")
        is_blurred = (share > 0) & (near > 0.5 * around)
        return SlideMap(is_blurred.astype(np.float32), box, slide.mpp, unit="fraction")

    def _detail(
        self, slide: Slide, box: Box, wanted: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Detail of every cell at both scales; infinite where nothing was read."""
        rows, columns = wanted.shape
        fine, coarse = (np.full(wanted.shape, np.inf, np.float32) for _ in SCALES)
        halo = SCALES[-1]
        step_x, step_y = box.width / (columns * CELL_PX), box.height / (rows * CELL_PX)
        for top in range(0, rows, BLOCK_CELLS):
            for left in range(0, columns, BLOCK_CELLS):
                block = (slice(top, top + BLOCK_CELLS), slice(left, left + BLOCK_CELLS))
                if not wanted[block].any():
                    continue
                height, width = (side * CELL_PX + 2 * halo for side in wanted[block].shape)
                where = Box(
                    box.x + (left * CELL_PX - halo) * step_x,
                    box.y + (top * CELL_PX - halo) * step_y,
                    width * step_x,
                    height * step_y,
                )
                green = slide.read(where, self.mpp)[..., 1].astype(np.float32)
                for detail, scale in zip((fine, coarse), SCALES, strict=True):
                    detail[block] = _squared_laplacian(green, scale, halo)
        return fine, coarse


def _squared_laplacian(green: NDArray[np.float32], scale: int, halo: int) -> NDArray[np.float32]:
    """Mean per cell, between pixels of ``scale`` times the side; the halo is cut off."""
    shrunk = _block_means(green, scale)
    edge = halo // scale
    laplacian = ndimage.laplace(shrunk, mode="nearest")[edge:-edge, edge:-edge]
    return _block_means(laplacian * laplacian, CELL_PX // scale)


def _block_means(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    height, width = (length // side for length in values.shape)
    means: NDArray[np.float32] = values.reshape(height, side, width, side).mean(axis=(1, 3))
    return means
