"""What a mask of an artefact is."""

from typing import Protocol

from pathology.maps.slide_map import SlideMap
from pathology.slides.slide import Slide
from pathology.tissue.picture import Picture


class Artefact(Protocol):
    """Something on a slide that is not fit to look at, found by rules alone."""

    def mask(self, slide: Slide, picture: Picture, tissue: SlideMap) -> SlideMap:
        """The fraction, in [0, 1], of each part of the slide that the artefact takes.

        Args:
            slide: for those who must look closer than the picture shows.
            picture: the slide at a low resolution.
            tissue: the tissue on it, on the picture's pixels, without what is known to be something
                else.

        Returns:
            A map over ``slide.bounds``, at its own mpp; NaN where the artefact cannot be judged.
        """
