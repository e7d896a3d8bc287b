"""Stain normalisation of tiles as they are read, by the profile of their slide."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pathology.slides.colour import ColourSpace
from pathology.stain import StainFolder
from pathology.tiling import GridSource


class TileStains:
    """Makes tiles look like the target of a folder that ``pathology stain`` wrote.

    Args:
        folder: target and profiles.
        slide_ids: name of each slide in the manifest.
        sources: the slides, in the same order.
        colour: the pixels that tiles show.

    Raises:
        ManifestError: no target, or no profile of a slide.
        StampMismatchError: a profile of another slide, of another colour, or by another method.
    """

    def __init__(
        self,
        folder: str | Path,
        slide_ids: Sequence[str],
        sources: Sequence[GridSource],
        colour: ColourSpace,
    ) -> None:
        stains = StainFolder(folder)
        self.normaliser = stains.normaliser()
        self.profiles = [
            stains.profile(slide_id, source.stamp, colour)
            for slide_id, source in zip(slide_ids, sources, strict=True)
        ]

    def __call__(self, image: Tensor, slide: int) -> Tensor:
        """A uint8 ``(3, height, width)`` tile of slide number ``slide``, normalised."""
        normalised: Tensor = self.normaliser(image[None], [self.profiles[slide]])[0]
        return normalised
