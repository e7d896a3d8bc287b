"""What a request may ask."""

import math

import pytest

from pathology.viewer.model.question import MOST_POINTS, MaskQuestion, TileQuestion

SQUARE = [[0, 0], [4, 0], [4, 4.5]]


def test_questions_of_requests():
    assert TileQuestion.of({"index": 3}) == TileQuestion(3)
    asked = TileQuestion.of({"index": 0, "targets": ["a - b"], "depth": "head"})
    assert asked == TileQuestion(0, ("a - b",), "head")
    mask = MaskQuestion.of({"polygons": [[SQUARE], [SQUARE, SQUARE]], "fill": "grey"})
    ring = ((0.0, 0.0), (4.0, 0.0), (4.0, 4.5))
    assert mask == MaskQuestion(((ring,), (ring, ring)), "grey")
    assert MaskQuestion.of({"polygons": [[SQUARE]]}).fill == "background"
    assert hash(mask) != hash(MaskQuestion.of({"polygons": [[SQUARE]]}))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "a question is an object"),
        ({"index": 1, "command": "x"}, "a question is an object with depth, index, targets"),
        ({}, "index must be the number of a tile, got None"),
        ({"index": -1}, "got -1"),
        ({"index": True}, "got True"),
        ({"index": 1.0}, "got 1.0"),
        ({"index": 1, "targets": "tumour"}, "targets must be a list of names"),
        ({"index": 1, "targets": [1]}, "targets must be a list of names"),
        ({"index": 1, "depth": 3}, "depth must be the name of a depth"),
    ],
)
def test_no_question_about_a_tile(body, said):
    with pytest.raises(ValueError, match=said):
        TileQuestion.of(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "polygons must be a list"),
        ({"polygons": []}, "polygons must be a list"),
        ({"polygons": [[]]}, "a polygon is a list of rings"),
        ({"polygons": [SQUARE]}, "a ring is a list|a point is"),
        ({"polygons": [[SQUARE[:2]]]}, "at least 3 points"),
        ({"polygons": [[[*SQUARE, [1, 2, 3]]]]}, r"a point is \[x, y\]"),
        ({"polygons": [[[*SQUARE, [1, "2"]]]]}, r"a point is \[x, y\]"),
        ({"polygons": [[[*SQUARE, [1, math.nan]]]]}, r"a point is \[x, y\]"),
        ({"polygons": [[[*SQUARE, [1, -math.inf]]]]}, r"a point is \[x, y\]"),
        ({"polygons": [[[*SQUARE, [True, 1]]]]}, r"a point is \[x, y\]"),
        ({"polygons": [[SQUARE * MOST_POINTS]]}, "may have 50,000 corners"),
        ({"polygons": [[SQUARE]], "fill": "red"}, "fill must be one of background, grey, mean"),
        ({"polygons": [[SQUARE]], "fill": ["grey"]}, "fill must be one of"),
    ],
)
def test_no_question_about_a_region(body, said):
    with pytest.raises(ValueError, match=said):
        MaskQuestion.of(body)
