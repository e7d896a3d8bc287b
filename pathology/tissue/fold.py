"""Tissue that lies over itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.finder import check_numbers
from pathology.tissue.picture import Picture, on_grid
from pathology.tissue.pieces import EIGHT, closed, grown, label_areas, widened, wider

SMOOTHING_PX = 1.5  # standard deviation; nuclei and fibres are not to show
GAP_PX = 2  # gaps narrower than twice this, as glands' lumina, do not cut a fold
AROUND_UM = 600.0  # side of the window that is a place's surroundings
COARSE = 4  # the surroundings are looked at in pixels this much larger
LEAST_DENSITY = 0.15  # of the surroundings; paler ones make any ratio
BESIDE_PX = (2, 7)  # how far from a fold the tissue beside it is looked at
DENSE_BESIDE = 0.8  # share of it that must absorb light: a fold lies within tissue
# Share of it that may be denser than its surroundings by half as much: a band has two sides, the
# rim of a large dense area one.
ONE_SIDED = 0.3
WINDING = 2.0  # a fold is at most so much longer than its ends are apart; networks are more


@dataclass(frozen=True, slots=True)
class Folds:
    """Long, narrow bands within tissue that are denser than their surroundings in every colour.

    Where tissue lies over itself light passes it twice or more, so its optical density is a
    multiple of that around it, in red, green and blue alike. A band of nuclei is denser in red but
    hardly in blue, one of muscle or collagen the other way round.

    Args:
        width_um: widest fold, in micrometres.
        length_um: shortest fold, in micrometres; and at least three times as long as wide.
        sure: how many times as dense as its surroundings a part of each fold is, in the colour in
            which it is least.
        likely: how many times as dense the rest of it is.

    Raises:
        ValueError: a number is negative or not finite.
    """

    width_um: float = 200.0
    length_um: float = 300.0
    sure: float = 1.6
    likely: float = 1.45

    def __post_init__(self) -> None:
        check_numbers(self)

    def mask(self, slide: Slide, picture: Picture, tissue: SlideMap) -> SlideMap:
        """The folds, on the picture's pixels."""
        is_tissue = tissue.values >= 0.5
        # Lumina and gaps would make all of airy tissue look pale.
        is_dense = picture.absorbance > 100 * LEAST_DENSITY
        times = _times_denser(picture, is_tissue & is_dense)
        likely = closed((times >= 100 * self.likely) & is_tissue, GAP_PX)
        is_denser = times >= 50 * (1 + self.likely)
        mask = grown(times >= 100 * self.sure, likely)
        bands = self._bands(mask, is_dense, is_denser, picture.mpp)
        return picture.mask(widened(bands, 1) & is_tissue)

    def _bands(
        self,
        mask: NDArray[np.bool_],
        is_dense: NDArray[np.bool_],
        is_denser: NDArray[np.bool_],
        mpp: float,
    ) -> NDArray[np.bool_]:
        """The pieces that have the shape of a fold and lie within tissue."""
        pieces, count = ndimage.label(mask, EIGHT)
        areas = label_areas(pieces, count)
        keep = np.zeros(count + 1, bool)
        for piece, (rows, columns) in enumerate(ndimage.find_objects(pieces), start=1):
            apart = mpp * np.hypot(rows.stop - rows.start, columns.stop - columns.start)
            if apart < self.length_um:
                continue
            # What no width and length would let pass is left before distances are measured: the
            # networks that reach over all of the tissue.
            if mpp**2 * areas[piece] > self.width_um * WINDING * apart:
                continue
            place = wider(rows, BESIDE_PX[1]), wider(columns, BESIDE_PX[1])
            body = pieces[place] == piece
            # A band's area is its width times its length.
            wide = mpp * (2 * ndimage.distance_transform_edt(np.pad(body, 1)).max() - 1)
            length = mpp**2 * body.sum() / wide
            away = ndimage.distance_transform_edt(~body)
            beside = (away > BESIDE_PX[0]) & (away <= BESIDE_PX[1])
            keep[piece] = (
                wide <= self.width_um
                and self.length_um <= length <= WINDING * apart
                and length >= 3 * wide
                and is_dense[place][beside].mean() >= DENSE_BESIDE
                and is_denser[place][beside].mean() <= ONE_SIDED
            )
        kept: NDArray[np.bool_] = keep[pieces]
        return kept


def _times_denser(picture: Picture, is_stained: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Density over that of the tissue around, in hundredths, of the channel where it is least.

    Channels in which tissue around absorbs next to nothing do not count as denser than they are.
    """
    density = np.empty((*picture.shape, 3), np.uint8)
    for rows, band in picture.density():
        density[rows] = np.rint(np.minimum(100 * band, 255))
    least = np.full(picture.shape, 255, np.uint8)
    weight = SlideMap(is_stained, picture.box, picture.slide_mpp)
    height, width = picture.shape
    shape = -(-height // COARSE), -(-width // COARSE)
    window = max(3, round(AROUND_UM / (COARSE * picture.mpp)))
    share = ndimage.uniform_filter(on_grid(weight, picture.box, shape), window, mode="constant")
    for channel in range(3):
        values = density[..., channel]
        masked = SlideMap(values * is_stained, picture.box, picture.slide_mpp)
        around = ndimage.uniform_filter(
            on_grid(masked, picture.box, shape), window, mode="constant"
        )
        around = np.maximum(around / np.maximum(share, 1e-6), 100 * LEAST_DENSITY)
        smooth = ndimage.gaussian_filter(values, SMOOTHING_PX, mode="nearest")
        near_y = np.arange(height) * shape[0] // height
        near_x = np.arange(width) * shape[1] // width
        for top in range(0, height, 256):
            part = slice(top, top + 256)
            ratio = np.float32(100) * smooth[part] / around[near_y[part]][:, near_x]
            np.minimum(least[part], np.minimum(ratio, 255).astype(np.uint8), out=least[part])
    return least
