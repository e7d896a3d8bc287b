"""Where the tissue is on a slide, and what on it is not fit to look at."""

from pathology.tissue.artefacts import ARTEFACTS
from pathology.tissue.colour import OtsuTissue
from pathology.tissue.draw import draw_survey
from pathology.tissue.finder import TissueFinder
from pathology.tissue.finders import FINDERS, finder_named
from pathology.tissue.look import Survey, survey
from pathology.tissue.sheet import write_sheet

__all__ = [
    "ARTEFACTS",
    "FINDERS",
    "OtsuTissue",
    "Survey",
    "TissueFinder",
    "draw_survey",
    "finder_named",
    "survey",
    "write_sheet",
]
