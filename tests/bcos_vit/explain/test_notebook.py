"""An explanation as a notebook shows it."""

import base64
import io
import re

import numpy as np
import torch
from PIL import Image

from bcos_vit.explain import explain
from bcos_vit.render import diverging, symmetric_limit


def pictures(page):
    codes = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in codes]


def test_every_image_is_shown_with_its_sum(tiny_vit, images):
    explanation = explain(tiny_vit, images, target=1)
    page = explanation._repr_html_()
    shown = pictures(page)
    values = explanation.contributions.numpy()
    limit = symmetric_limit(values)
    for picture, own, logit in zip(shown, values, explanation.logit, strict=True):
        # 4 x 4 places of 37 px each.
        np.testing.assert_array_equal(picture[18::37, 18::37], diverging(own, limit))
        assert f"logit {float(logit):+.4f}" in page
    assert "<script" not in page


def test_of_a_large_batch_the_first_are_shown(tiny_vit):
    page = explain(tiny_vit, torch.rand(9, 6, 4, 4, dtype=torch.float64), target=0)._repr_html_()
    assert len(pictures(page)) == 8
    assert "1 more are not shown" in page


def test_a_single_image_and_its_constants(make_resnet, images):
    page = explain(make_resnet(), images[0], target=2)._repr_html_()
    assert len(pictures(page)) == 1
    for part in ("class 2", "bias", "map", "gap"):
        assert part in page
