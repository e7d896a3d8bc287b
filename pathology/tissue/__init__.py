"""Where the tissue is on a slide, and what on it is not fit to look at."""

from pathology.tissue.otsu import OtsuTissue, TissueFinder

__all__ = ["OtsuTissue", "TissueFinder"]
