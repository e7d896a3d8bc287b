"""Synthetic H&E slides of any size with exact ground truth of regions and nuclei."""

from pathology.synthetic.cohort import make_cohort
from pathology.synthetic.slide import Rendering, render
from pathology.synthetic.spec import SyntheticSlideSpec
from pathology.synthetic.write import SlideFiles, write_slide

__all__ = [
    "Rendering",
    "SlideFiles",
    "SyntheticSlideSpec",
    "make_cohort",
    "render",
    "write_slide",
]
