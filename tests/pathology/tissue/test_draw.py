"""The picture of a survey."""

import numpy as np
import pytest

from pathology.maps.slide_map import SlideMap
from pathology.slides import MemorySlide
from pathology.tissue import draw_survey, survey
from pathology.tissue.draw import COLOURS, CONTOUR, OPACITY
from pathology.tissue.look import Survey


def looked_at(slide: MemorySlide, pen: np.ndarray) -> Survey:
    tissue = np.zeros((40, 60), np.float32)
    tissue[10:30, 10:50] = 1
    given = SlideMap(tissue, slide.bounds, slide.mpp)
    looked = survey(slide, given, exclude=())
    return Survey(
        looked.found,
        looked.tissue,
        {"pen": SlideMap(pen, slide.bounds, slide.mpp)},
        "s",
        slide.size,
        "given",
        "given",
    )


def test_the_contour_goes_round_the_tissue_and_artefacts_are_coloured() -> None:
    slide = MemorySlide(np.full((320, 480, 3), 200, np.uint8), 8.0)
    pen = np.zeros((40, 60), np.float32)
    pen[32:, :10] = 1
    picture = draw_survey(slide, looked_at(slide, pen))
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 480
    assert picture.shape[0] > 320  # the legend
    is_line = (picture[:320] == CONTOUR).all(axis=2)
    assert is_line[80:240, 80:82].all()
    assert is_line[238:240, 80:400].all()
    assert not is_line[84:236, 84:396].any()
    assert not is_line[:78].any()
    mixed = np.rint(200 + OPACITY * (np.array(COLOURS["pen"]) - 200))
    np.testing.assert_array_equal(picture[300, 20], mixed)
    np.testing.assert_array_equal(picture[300, 300], (200, 200, 200))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 900), (900, 3)])
def test_any_shape_is_drawn_with_its_legend(height: int, width: int) -> None:
    slide = MemorySlide(np.full((height, width, 3), 240, np.uint8), 8.0)
    picture = draw_survey(slide, survey(slide), 300)
    assert picture.shape[0] > max(1, round(height / 3))
    assert picture.shape[1] >= 240
    assert max(picture.shape) <= 300 + 200


def test_a_picture_needs_a_pixel() -> None:
    slide = MemorySlide(np.full((30, 30, 3), 240, np.uint8), 8.0)
    with pytest.raises(ValueError, match="max_px"):
        draw_survey(slide, survey(slide), 0)
