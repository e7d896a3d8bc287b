"""Colours as a scanner's ICC profile means them, in sRGB."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from pathology.errors import SlideOpenError

ColourSpace = Literal["stored", "srgb"]

BAND_PX = 2**22  # pixels converted at once: Pillow holds two copies of them, four bytes each


class SrgbConversion:
    """Pixels of one ICC profile turned into sRGB, by Little CMS and the profile's own intent.

    Calls may run in threads. A copy made by pickling builds its transform anew.

    Args:
        profile: the ICC profile as it stands in the file; ``None`` where there is none.
        path: the slide's file, for the message.

    Raises:
        SlideOpenError: no profile, a damaged one, or one of other colours than RGB.
    """

    def __init__(self, profile: bytes | None, path: Path | None) -> None:
        if profile is None:
            raise SlideOpenError(
                "holds no colour profile to convert to sRGB by; open it with colour='stored'", path
            )
        try:
            self._transform = _transform(profile)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            raise SlideOpenError(
                f"its colour profile cannot be used ({error}); open it with colour='stored'", path
            ) from error
        self._profile = profile

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``(height, width, 3)`` in sRGB, a new array."""
        out = np.empty_like(pixels)
        rows = max(1, BAND_PX // pixels.shape[1])
        for top in range(0, len(pixels), rows):
            band = Image.fromarray(pixels[top : top + rows])
            ImageCms.applyTransform(band, self._transform, inPlace=True)
            out[top : top + rows] = np.asarray(band)
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {"_profile": self._profile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._profile = state["_profile"]
        self._transform = _transform(self._profile)


def _transform(profile: bytes) -> ImageCms.ImageCmsTransform:
    stored = ImageCms.getOpenProfile(io.BytesIO(profile))
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(stored))
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(stored, srgb, "RGB", "RGB", intent)
