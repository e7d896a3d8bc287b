"""Surveys of real slides: next to nothing is taken where nothing is wrong."""

import os
from pathlib import Path

import numpy as np
import pytest

from pathology.slides import open_slide
from pathology.tissue import ARTEFACTS, FINDERS, survey

DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize(
    ("name", "mpp", "least", "most"),
    [
        # Square millimetres of tissue, checked by eye; all finders agree on these slides.
        ("CMU-1-Small-Region.svs", None, 0.6, 0.75),
        # The bluest haematoxylin at hand, dense glands and muscle; out of focus nowhere.
        ("her2st_C2.tif", 0.69, 7.3, 8.0),
        # Tinted glass, stain on it, and a large blurred speck of dust.
        ("her2st_C3.tif", 0.69, 7.3, 8.0),
    ],
)
def test_clean_slides(name: str, mpp: float | None, least: float, most: float, finder: str) -> None:
    path = DATA / "slides" / name
    if not path.exists():
        pytest.skip(f"slides/{name} is not under BCOS_PATHOLOGY_DATA")
    with open_slide(path, mpp=mpp) as slide:
        shares = survey(slide, finder).shares()
    assert least < shares["found_mm2"] < most
    for artefact in ARTEFACTS:
        assert shares[artefact] < 0.005, artefact


def test_a_real_fold_is_found() -> None:
    path = DATA / "slides" / "camelyon_jpeg.dcm"
    if not path.exists():
        pytest.skip("slides/camelyon_jpeg.dcm is not under BCOS_PATHOLOGY_DATA")
    with open_slide(path, mpp=28.97) as slide:
        looked = survey(slide, exclude=["fold", "blur"])
    fold = looked.artefacts["fold"]
    # The dark bar across the narrow piece of the left section, in level-0 pixels.
    there = fold.box_means(np.array([[402.0, 336.0, 14.0, 8.0]]))
    assert there[0] > 0.12
    assert looked.shares()["fold"] < 0.002
    assert np.isnan(looked.shares()["blur"])
