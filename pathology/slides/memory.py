"""A slide made of an array: for tests, documentation and demonstrations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pathology.geometry import Box
from pathology.slides.colour import ColourSpace
from pathology.slides.reader import Colour, PyramidSlide
from pathology.slides.resample import mean_blocks
from pathology.slides.resolution import given_mpp
from pathology.slides.stamp import END_BYTES, stamp_bytes


class MemorySlide(PyramidSlide):
    """An RGB array read like any other slide.

    Args:
        array: ``(height, width, 3)`` uint8, level 0. Not copied.
        mpp: micrometres per level-0 pixel, one number or ``(x, y)``.
        slide_id: name of the slide.
        levels: downsample of every plane, whole numbers, beginning with 1; made by averaging.
        background: colour outside of the array.
        bounds: the scanned part in level-0 pixels; the whole array when omitted.
        colour: ``"srgb"`` to convert by ``profile``.
        profile: ICC profile of the array's colours.

    Raises:
        SlideOpenError: there is no profile to convert by.
        TypeError: ``array`` is not uint8.
        ValueError: ``array`` is not RGB, or ``levels`` or ``mpp`` are not as above.
    """

    def __init__(
        self,
        array: NDArray[np.uint8],
        mpp: float | tuple[float, float],
        slide_id: str = "memory",
        levels: Sequence[int] = (1,),
        background: Colour = (255, 255, 255),
        bounds: Box | None = None,
        colour: ColourSpace = "stored",
        profile: bytes | None = None,
    ) -> None:
        if array.dtype != np.uint8:
            raise TypeError(f"array must be uint8, got {array.dtype}")
        if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
            raise ValueError(f"array must be (height, width, 3) and not empty, got {array.shape}")
        shortest = min(array.shape[:2])
        if not levels or levels[0] != 1 or any(not 1 <= level <= shortest for level in levels):
            raise ValueError(f"levels must begin with 1 and stay within {shortest}, got {levels}")
        self._planes = [array if n == 1 else mean_blocks(array, n) for n in levels]
        super().__init__(
            path=None,
            slide_id=slide_id,
            planes=[(plane.shape[1], plane.shape[0]) for plane in self._planes],
            mpp=given_mpp(mpp),
            mpp_source="given",
            background=background,
            bounds=bounds,
            colour=colour,
            profile=profile,
        )

    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        return self._planes[level][y : y + height, x : x + width].copy()

    def stamp(self) -> str:
        """Fingerprint of the array by its shape and both ends, as of a file."""
        flat = self._planes[0].reshape(-1)
        shape = repr(self._planes[0].shape).encode()
        return stamp_bytes(
            flat.size, shape + flat[:END_BYTES].tobytes(), flat[-END_BYTES:].tobytes()
        )
