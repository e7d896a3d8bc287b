"""Slides before and after stain normalisation, on one HTML page to look at.

The page holds its pictures, style and script-free text, and asks nobody for anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pathology.outputs import complete_file
from pathology.pages import image_uri, page_template
from pathology.stain.profile import StainProfile
from pathology.stain.vectors import angle

TEMPLATE = Path(__file__).with_name("templates") / "sheet.html.j2"
SIDE_PX = 160
"""Tiles are shown no larger than this."""


@dataclass(frozen=True)
class SheetSlide:
    """One slide of the page.

    Args:
        slide_id: its name.
        profile: its colours.
        before: some of its tiles, uint8 ``(n, height, width, 3)``; none are shown when empty.
        after: the same tiles, normalised.
    """

    slide_id: str
    profile: StainProfile
    before: Sequence[NDArray[np.uint8]] = ()
    after: Sequence[NDArray[np.uint8]] = ()


def write_sheet(
    target: StainProfile,
    slides: Sequence[SheetSlide],
    path: str | Path,
    augmented: Mapping[str, Sequence[NDArray[np.uint8]]] | None = None,
) -> Path:
    """Write the page: target, slides in the order given, and what augmentation makes of a tile.

    Args:
        target: what slides are made to look like.
        slides: those with tiles are shown before and after, all are listed.
        path: file to write; an existing one is replaced.
        augmented: variants of one tile by the augmentation's name.

    Returns:
        ``path``.

    Raises:
        OutputError: the file cannot be written.
    """
    html = page_template(TEMPLATE).render(
        target=_colours(target),
        settings=_settings(slides),
        slides=[
            {
                "slide_id": slide.slide_id,
                **_colours(slide.profile),
                "before": [_jpeg(tile) for tile in slide.before],
                "after": [_jpeg(tile) for tile in slide.after],
            }
            for slide in slides
        ],
        augmented={name: [_jpeg(t) for t in tiles] for name, tiles in (augmented or {}).items()},
    )
    path = Path(path)
    with complete_file(path) as draft:
        draft.write_text(html, encoding="utf-8")
    return path


def distance(profile: StainProfile, target: StainProfile) -> float:
    """How far a slide's colours lie from the target's, to sort by; both of one method.

    The length of the difference of stain vectors times amounts, in optical density; of means and
    deviations in CIELAB for Reinhard's method.
    """
    if profile.method == "reinhard":
        ours, theirs = ((p.means or (), p.deviations or ()) for p in (profile, target))
        return float(np.linalg.norm(np.array(ours) - np.array(theirs)))
    return float(np.linalg.norm(profile.matrix - target.matrix))


def _colours(profile: StainProfile) -> dict[str, Any]:
    """Swatches and numbers of a profile, by what they are of."""
    if profile.method == "reinhard":
        from skimage.color import lab2rgb  # slow to import

        means, deviations = np.array(profile.means), np.array(profile.deviations)
        colour = 255 * lab2rgb(means)
        parts = {
            "mean colour": (colour, f"L* a* b* {_digits(means, 1)} ± {_digits(deviations, 1)}")
        }
        apart = None
    else:
        parts = {
            name: (
                np.array(profile.white) * 10.0**-row,
                f"{_digits(row / np.linalg.norm(row))}, amount {np.linalg.norm(row):.2f}",
            )
            for name, row in zip(("haematoxylin", "eosin"), profile.matrix, strict=True)
        }
        apart = angle(profile.matrix)
    return {
        "name": profile.name,
        "method": profile.method,
        "parts": {name: {"fill": _hex(c), "numbers": n} for name, (c, n) in parts.items()},
        "white": _hex(np.array(profile.white)),
        "white_numbers": _digits(profile.white, 0),
        "angle": apart,
        "pixels": profile.source.pixels if profile.source else None,
    }


def _settings(slides: Sequence[SheetSlide]) -> dict[str, Any]:
    """How the slides' profiles were fitted, by name."""
    settings = next((slide.profile.settings for slide in slides if slide.profile.settings), None)
    return {name: getattr(settings, name) for name in settings.__slots__} if settings else {}


def _digits(numbers: Any, places: int = 3) -> str:
    return " ".join(f"{number:.{places}f}" for number in numbers)


def _hex(colour: NDArray[np.float64]) -> str:
    red, green, blue = np.rint(np.clip(colour, 0, 255)).astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE_PX, SIDE_PX))
    return image_uri(image, "jpeg", quality=85)
