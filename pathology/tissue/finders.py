"""The tissue finders by name."""

from pathology.tissue.colour import OtsuTissue
from pathology.tissue.combined import CombinedTissue
from pathology.tissue.density import DensityTissue
from pathology.tissue.finder import PictureFinder

FINDERS: dict[str, type[PictureFinder]] = {
    "colour": OtsuTissue,
    "density": DensityTissue,
    "combined": CombinedTissue,
}
"""Names of tissue finders; each is called without arguments for its defaults."""


def finder_named(name: str) -> PictureFinder:
    """The finder of that name, with its defaults.

    Raises:
        ValueError: there is none.
    """
    if name not in FINDERS:
        raise ValueError(f"no tissue finder is called {name!r}; there are {', '.join(FINDERS)}")
    return FINDERS[name]()
