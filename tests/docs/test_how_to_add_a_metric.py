"""The page on metrics: its numbers are those it shows."""

import numpy as np
import pytest

from tests.docs.pages import DOCS, run_page

PAGE = "how-to/add_a_metric.md"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield run_page(PAGE, tmp_path_factory.mktemp("page"), patch).names


def test_net_benefit_is_as_shown_and_as_defined(names):
    assert f"print(estimate)  # {names['estimate']}\n" in (DOCS / PAGE).read_text()
    table = names["table"]
    treated = table["probability_tumour"] >= 0.2
    positive = table["label"] == "tumour"
    by_hand = (treated & positive).mean() - (treated & ~positive).mean() * 0.25
    assert names["estimate"].value == pytest.approx(by_hand, abs=1e-12)


def test_a_draw_is_a_copy_of_patients(names):
    """A weight of two is the example twice."""
    probability, positive = np.array([0.9, 0.3, 0.1]), np.array([True, False, True])
    weighted = names["net_benefit"](probability, positive, 0.25)(np.array([[2.0, 1.0, 0.0]]))
    copied = names["net_benefit"](probability[[0, 0, 1]], positive[[0, 0, 1]], 0.25)(
        np.ones((1, 3))
    )
    assert weighted["net benefit"] == pytest.approx(copied["net benefit"])


def test_the_rim_is_told_from_the_middle(names):
    maps = np.zeros((2, 64, 64))
    maps[0, 0] = -1  # all of it on the rim
    maps[1, 30:34, 30:34] = 1
    assert names["rim_excess"](maps) == pytest.approx([64**2 / (64**2 - 48**2), 0])
