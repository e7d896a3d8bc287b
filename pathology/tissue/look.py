"""One look at a slide: the tissue on it, and what of it is not fit to use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from pathology.geometry import Mpp, Size
from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.artefacts import ARTEFACTS, artefact_named
from pathology.tissue.finder import PictureFinder, TissueFinder
from pathology.tissue.finders import finder_named
from pathology.tissue.picture import on_grid, take_picture

SURVEY_MPP = 8.0
"""Micrometres per pixel at which a slide is looked at."""

ORDER = ("black", "pen", "edge", "fold", "blur")
"""Artefacts in the order in which they are looked for, each in what the ones before it left."""


@dataclass(frozen=True)
class Survey:
    """What a look at a slide found.

    Args:
        found: fraction of tissue as the finder found it.
        tissue: what is left of it without the artefacts, float32 in [0, 1].
        artefacts: the mask of each artefact, by name, each at its own mpp, float16 or float32; NaN
            where it could not be judged, which takes nothing away.
        slide_id: the slide's name.
        slide_size: width and height in level-0 pixels.
        mpp_source: who said how large a pixel is.
        finder: name of the finder, ``"given"`` where the tissue was given.
    """

    found: SlideMap
    tissue: SlideMap
    artefacts: Mapping[str, SlideMap]
    slide_id: str
    slide_size: Size
    mpp_source: str
    finder: str

    @property
    def slide_mpp(self) -> Mpp:
        """Micrometres per level-0 pixel."""
        return self.found.slide_mpp

    @property
    def unjudged(self) -> tuple[str, ...]:
        """The artefacts that could be judged nowhere, and so took nothing away."""
        masks = self.artefacts.items()
        return tuple(name for name, mask in masks if np.isnan(mask.values).all())

    def shares(self) -> dict[str, float]:
        """How much tissue there is and what share of it each artefact takes.

        Returns:
            ``"found_mm2"`` and ``"tissue_mm2"``, the areas before and after the artefacts were
            taken away; and for each artefact the fraction of the found tissue under it: 0 where
            nothing was found, NaN where it could not be judged anywhere. Artefacts may overlap.
        """
        found, unjudged = self.found.values, self.unjudged
        total = float(found.sum(dtype=np.float64))
        shares = {
            "found_mm2": total * self.found.pixel_area_mm2,
            "tissue_mm2": self.tissue.sum() * self.tissue.pixel_area_mm2,
        }
        for name, mask in self.artefacts.items():
            if name in unjudged:
                shares[name] = float("nan")
            else:
                taken = on_grid(mask, self.found.box, found.shape)
                taken_sum = float(np.multiply(taken, found, out=taken).sum(dtype=np.float64))
                shares[name] = taken_sum / total if total else 0.0
        return shares

    def summary(self) -> dict[str, Any]:
        """All that a QC sheet says about the slide, as plain values for JSON.

        What could not be judged is ``None``.
        """
        shares = self.shares()
        return {
            "slide_id": self.slide_id,
            "size_px": [int(side) for side in self.slide_size],
            "mpp": [float(side) for side in self.slide_mpp],
            "mpp_source": self.mpp_source,
            "finder": self.finder,
            "found_mm2": shares.pop("found_mm2"),
            "tissue_mm2": shares.pop("tissue_mm2"),
            "artefacts": {
                name: None if np.isnan(share) else share for name, share in shares.items()
            },
        }


def survey(
    slide: Slide,
    finder: str | TissueFinder | SlideMap = "colour",
    exclude: Iterable[str] = ARTEFACTS,
) -> Survey:
    """Find the tissue on a slide, and the artefacts on it.

    The slide is read once at 8 um per pixel for the finder and all masks but blur, which reads the
    tissue once more, finer. Memory goes with the area, not with the slide's own resolution: some 35
    bytes a pixel of 8 um and 40 MB besides, 450 MB in all for a scan of 33 x 20 mm.

    Folds and blur are looked for in the tissue that ink, edges and fill left, where these are
    among ``exclude``: ink across a fold would hide it, and ink is smooth as blur is.

    Args:
        slide: the slide.
        finder: name of a finder, see :data:`~pathology.tissue.FINDERS`; or a finder; or the tissue
            itself, as a map of fractions on this slide.
        exclude: names of artefacts to look for and to take away from the tissue, in any order,
            see :data:`~pathology.tissue.ARTEFACTS`.

    Raises:
        SlideOpenError: the file is damaged, or gone.
        ValueError: an unknown name.
    """
    wanted = {name: artefact_named(name) for name in exclude}
    given = finder_named(finder) if isinstance(finder, str) else finder
    picture = take_picture(slide, SURVEY_MPP)
    if isinstance(given, SlideMap):
        found = picture.map(on_grid(given, picture.box, picture.shape))
        name = "given"
    elif isinstance(given, PictureFinder) and given.mpp == picture.mpp:
        found = given.find_in(picture)
        name = finder if isinstance(finder, str) else type(given).__name__
    else:
        found = picture.map(on_grid(given.find(slide), picture.box, picture.shape))
        name = type(given).__name__
    masks: dict[str, SlideMap] = {}
    tissue = found
    for artefact in ORDER:
        if artefact in wanted:
            mask = wanted[artefact].mask(slide, picture, tissue)
            # In place: a temporary here is as large as all the rest of a mask's.
            kept = np.subtract(1, on_grid(mask, picture.box, picture.shape), dtype=np.float32)
            np.multiply(kept.clip(0, 1, out=kept), found.values, out=kept)
            # Where two masks meet the larger one counts, as nobody knows how they overlap.
            tissue = picture.map(np.minimum(tissue.values, kept, out=kept))
            masks[artefact] = mask
    artefacts = {artefact: masks[artefact] for artefact in ARTEFACTS if artefact in masks}
    return Survey(
        found=found,
        tissue=tissue,
        artefacts=MappingProxyType(artefacts),
        slide_id=slide.slide_id,
        slide_size=slide.size,
        mpp_source=slide.mpp_source,
        finder=name,
    )
