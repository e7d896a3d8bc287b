"""A slide with its tissue outlined and its artefacts in colour, to look at."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pathology.geometry import pixel_count
from pathology.slides.slide import Slide
from pathology.tissue.look import Survey
from pathology.tissue.picture import on_grid

CONTOUR = (0, 158, 115)
"""Colour of the outline of the tissue that is left."""

COLOURS = {
    "pen": (0, 114, 178),
    "fold": (213, 94, 0),
    "blur": (240, 228, 66),
    "edge": (204, 121, 167),
    "black": (86, 180, 233),
}
"""Colours of the artefacts; Okabe and Ito's, which colour-blind eyes tell apart."""

OPACITY = 0.55
LINE_PX = 22  # height of a line of the legend


def draw_survey(slide: Slide, survey: Survey, max_px: int = 1024) -> NDArray[np.uint8]:
    """The scanned part of a slide with what a survey found, and a legend below.

    Args:
        slide: the slide that was surveyed.
        survey: what was found.
        max_px: longer side of the slide in the picture, in pixels; less where the slide is smaller.

    Returns:
        ``(height, width, 3)`` uint8.

    Raises:
        SlideOpenError: the file is damaged, or gone.
        ValueError: ``max_px`` is below 1.
    """
    if max_px < 1:
        raise ValueError(f"max_px must be at least 1, got {max_px}")
    box, mpp0 = survey.found.box, slide.mpp
    sides_um = (box.width * mpp0.x, box.height * mpp0.y)
    mpp = max(*mpp0, max(sides_um) / max_px)
    pixels = slide.read(box, mpp).astype(np.float32)
    shape = (pixel_count(box.height, mpp0.y, mpp), pixel_count(box.width, mpp0.x, mpp))
    for name, mask in survey.artefacts.items():
        covered = on_grid(mask, box, shape)[..., None] * OPACITY
        pixels += covered * (np.array(COLOURS[name], np.float32) - pixels)
    tissue = on_grid(survey.tissue, box, shape) >= 0.5
    # Two pixels wide, inside of the tissue; tissue at the picture's edge is outlined there too.
    pixels[tissue & ~ndimage.binary_erosion(tissue, iterations=2)] = CONTOUR
    picture = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    legend = _legend(survey, max(shape[1], 240))
    spare = ((0, 0), (0, legend.shape[1] - shape[1]), (0, 0))
    return np.concatenate([np.pad(picture, spare, constant_values=255), legend])


def _legend(survey: Survey, width: int) -> NDArray[np.uint8]:
    """Colours, names and amounts, in as many lines as the width needs."""
    shares = survey.shares()
    entries = [(CONTOUR, f"tissue {shares['tissue_mm2']:.3g} mm2")]
    for name in survey.artefacts:
        share = shares[name]
        amount = "not judged" if np.isnan(share) else f"{100 * share:.1f} %"
        entries.append((COLOURS[name], f"{name} {amount}"))
    font = ImageFont.load_default(size=13)
    x, line, placed = 6, 0, []
    for colour, text in entries:
        length = 20 + round(font.getlength(text)) + 14
        if x + length > width and x > 6:
            x, line = 6, line + 1
        placed.append((x, line * LINE_PX, colour, text))
        x += length
    image = Image.new("RGB", (width, (line + 1) * LINE_PX), "white")
    draw = ImageDraw.Draw(image)
    for left, top, colour, text in placed:
        draw.rectangle((left, top + 5, left + 12, top + 17), fill=colour)
        draw.text((left + 18, top + 3), text, fill=(27, 36, 48), font=font)
    return np.asarray(image)
