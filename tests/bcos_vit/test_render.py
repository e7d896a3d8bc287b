import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from bcos_vit.render import (
    PALETTE,
    UNCOVERED,
    colour_explanation,
    diverging,
    heat,
    overlay,
    symmetric_limit,
)


def lightness(rgb):
    """CIE L* of sRGB."""
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def test_both_signs_are_equally_light():
    light = lightness(PALETTE[:-1].astype(float))
    assert np.abs(light - light[::-1]).max() < 0.6  # 8-bit rounding
    positive = light[len(light) // 2 :]
    assert np.all(np.diff(positive) < 0.2)
    assert positive[0] > 97
    assert positive[-1] < 37


def test_signs_stay_apart_without_red_or_green_cones():
    """Machado et al. 2009, severity 1: the matrices act on linear RGB."""
    protan = np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    )
    deutan = np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    )
    linear = (diverging([-0.5, 0.5], 1.0) / 255.0) ** 2.2
    for matrix in (protan, deutan):
        negative, positive = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        assert negative[2] > positive[2] + 0.4
        assert positive[0] > negative[0] + 0.1


def test_zero_is_white_nan_is_grey_and_the_rest_is_clipped():
    colours = diverging([[0.0, np.nan, 5.0, 1.0, -5.0, -np.inf]], 1.0)
    assert colours.shape == (1, 6, 3)
    zero, nan, beyond, limit, below, infinite = colours[0]
    assert zero.min() >= 247
    assert tuple(nan) == UNCOVERED
    np.testing.assert_array_equal(beyond, limit)
    np.testing.assert_array_equal(below, infinite)
    assert limit[0] > limit[2]
    assert below[2] > below[0]


def test_limit_is_symmetric_and_never_zero():
    values = np.array([-4.0, 1.0, np.nan, 2.0])
    assert symmetric_limit(values, 1.0) == 4.0
    assert symmetric_limit(-values, 0.5) == symmetric_limit(values, 0.5) == 2.0
    assert symmetric_limit(np.zeros(5)) == 1.0
    assert symmetric_limit([np.nan]) == 1.0
    mostly_zero = np.zeros(10_000)
    mostly_zero[0] = -3.0
    assert symmetric_limit(mostly_zero) == 3.0


def test_opacity_grows_with_size_and_uncovered_is_clear():
    layer = heat([0.0, np.nan, 0.25, -0.25, 1.0, 9.0], 1.0, opacity=0.8)
    assert layer[:, 3].tolist() == [0, 0, 102, 102, 204, 204]


@pytest.mark.parametrize("kind", ["uint8", "float", "six", "pillow"])
def test_overlay_takes_any_image_and_leaves_it_where_nothing_is_said(kind):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    share = rgb / 255.0
    image = {
        "uint8": rgb,
        "float": share,
        "six": np.concatenate([share, 1 - share], axis=2).transpose(2, 0, 1),
        "pillow": Image.fromarray(rgb),
    }[kind]
    values = np.zeros((8, 10))
    values[2, 3], values[4, 4] = 2.0, np.nan
    picture = np.asarray(overlay(values, image, limit=1.0, opacity=1.0))
    np.testing.assert_array_equal(picture[2, 3], diverging(2.0, 1.0))
    changed = (picture != rgb).any(axis=2)
    changed[2, 3] = False
    assert not changed.any()
    assert values[2, 3] == 2.0


def test_colour_explanation_follows_its_steps():
    rng = np.random.default_rng(0)
    weights, contributions = rng.standard_normal((6, 9, 7)), rng.standard_normal((9, 7))
    picture = colour_explanation(weights, contributions, smooth=3, limit=1.5)

    expected = np.zeros((9, 7, 4))
    length = np.sqrt((weights**2).sum(axis=0)) * (contributions >= 0)
    for i in range(9):
        for j in range(7):
            w = np.maximum(weights[:, i, j], 0)
            for c in range(3):
                pair = w[c] + w[c + 3]
                expected[i, j, c] = w[c] / pair if pair > 0 else 0
            window = length[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            expected[i, j, 3] = min(window.sum() / 9 / 1.5, 1)
    np.testing.assert_allclose(picture, expected * 255, atol=0.51)


def test_colour_explanation_of_a_batch_is_one_by_one():
    rng = np.random.default_rng(0)
    weights, contributions = rng.standard_normal((2, 6, 20, 20)), rng.standard_normal((2, 20, 20))
    pictures = colour_explanation(weights, contributions)
    np.testing.assert_array_equal(pictures[1], colour_explanation(weights[1], contributions[1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diverging([1.0], 0.0), "limit"),
        (lambda: diverging([1.0], np.nan), "limit"),
        (lambda: symmetric_limit([1.0], 0.0), "quantile"),
        (lambda: heat([1.0], 1.0, opacity=1.5), "opacity"),
        (lambda: overlay(np.zeros((2, 2)), np.zeros((3, 3, 3))), "resize"),
        (lambda: overlay(np.zeros((2, 2)), np.zeros((2, 2))), "an image is"),
        (lambda: colour_explanation(np.zeros((3, 2, 2)), np.zeros((2, 2))), "weights are"),
        (lambda: colour_explanation(np.zeros((6, 2, 2)), np.zeros((2, 2)), smooth=4), "smooth"),
        (lambda: colour_explanation(np.zeros((6, 2, 2)), np.zeros((2, 2)), limit=0.0), "limit"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_needs_no_torch():
    code = "import sys, bcos_vit.render; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
