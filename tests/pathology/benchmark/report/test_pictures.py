"""Strips: the same examples, one scale per method, zero white."""

import numpy as np
import pytest

from pathology.benchmark.report.pictures import GAP, OUTLINE, SIDE, Picture, strips
from tests.pathology.benchmark.report.made import pictures

GREY = (222, 222, 222)


def picture(method, name, values, mask=None, unit="none", seed=0):
    image = np.full((8, 8, 3), 200, np.uint8)
    return Picture("s", "d", "net", seed, method, name, image, values, "tumour", mask, unit)


def tile(row, i):
    pixels = np.asarray(row.image)
    return pixels[:, i * (SIDE + GAP) : i * (SIDE + GAP) + SIDE, :3]


def test_every_network_has_a_strip_with_the_same_examples():
    found = list(strips(pictures()))
    assert len(found) == 8
    assert all(len(one.examples) == 4 for one in found)
    assert found[0].rows[0].method == ""
    assert found[0].examples[0].endswith("(tumour)")


def test_strips_come_as_the_study_lists_them():
    values = np.ones((8, 8), np.float32)
    image = np.full((8, 8, 3), 200, np.uint8)
    listed = [("z", "one"), ("z", "a net"), ("a", "one")]
    made = [Picture("s", d, b, 0, "m", "x", image, values, "tumour") for d, b in listed]
    assert [(one.data, one.backbone) for one in strips([*made, *made])] == listed


def test_a_method_has_one_scale_for_all_its_examples():
    weak, strong = np.full((8, 8), 0.5, np.float32), np.full((8, 8), -2, np.float32)
    (strip,) = strips([picture("a", "x", weak, unit="logits"), picture("a", "y", strong)])
    row = strip.rows[1]
    assert row.scale == "\u00b12 logits per pixel"
    light, dark = tile(row, 0).mean(), tile(row, 1).mean()
    assert light > dark + 30
    assert tile(row, 0)[0, 0, 0] > tile(row, 0)[0, 0, 2]  # orange for the class
    assert tile(row, 1)[0, 0, 2] > tile(row, 1)[0, 0, 0]  # blue against it


def test_a_map_without_negatives_says_so_and_zero_is_white():
    values = np.zeros((8, 8), np.float32)
    values[0] = 3
    (strip,) = strips([picture("a", "x", values)])
    assert strip.rows[1].scale == "0 to 3 of no unit"
    assert tuple(tile(strip.rows[1], 0)[-1, -1]) > (245, 245, 245)


def test_what_a_method_lacks_is_grey_and_gaps_show_the_page():
    values = np.ones((8, 8), np.float32)
    (strip,) = strips(
        [picture("a", "x", values), picture("a", "y", values), picture("b", "y", values)]
    )
    assert strip.examples == ["x (tumour)", "y (tumour)"]
    assert tuple(tile(strip.rows[2], 0)[5, 5]) == GREY
    assert np.asarray(strip.rows[2].image)[0, SIDE, 3] == 0


def test_the_mask_is_outlined_not_filled():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    (strip,) = strips([picture("a", "x", np.ones((8, 8), np.float32), mask)])
    shown = tile(strip.rows[0], 0)
    hit = (shown == OUTLINE).all(-1)
    scale = SIDE // 8
    assert hit[2 * scale, 3 * scale]
    assert not hit[4 * scale, 4 * scale]
    assert not hit[scale, scale]


def test_the_first_seed_is_shown():
    values = np.ones((8, 8), np.float32)
    (strip,) = strips([picture("a", "x", values, seed=s) for s in (2, 1)])
    assert strip.seed == 1


def test_no_more_examples_than_asked_for():
    (strip, *_) = strips(pictures(), most=2)
    assert len(strip.examples) == 2
    assert strip.rows[0].image.width == pytest.approx(2 * SIDE + GAP)
