"""A method that stands twice keeps its role; a label cannot hide one."""

import pytest

from bcos_vit.attribution import METHODS
from pathology.benchmark.study.config import read_study
from pathology.benchmark.study.roles import CONTROLS, OURS, check_label, is_control, is_ours, role


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("bcos", "bcos"), ("bcos_contrastive", "bcos_contrastive"), ("bcos_2", "bcos"),
        ("random_7", "random"), ("centre_wide", "centre"), ("contribution", "contribution"),
        ("randomised", ""), ("ledger_mean", ""), ("lrp", ""), ("", ""),
    ],
)  # fmt: skip
def test_the_role_is_in_the_name(label, expected):
    assert role(label) == expected


def test_every_method_has_one_role_or_none():
    assert {n for n in METHODS if is_control(n)} == set(CONTROLS)
    assert {n for n in METHODS if is_ours(n)} == set(OURS) - {"contribution"}


def test_a_label_says_what_its_method_is():
    check_label("random_7", "random")
    check_label("ledger_mean", "ledger")
    with pytest.raises(ValueError, match="begins with random, what it is a kind of"):
        check_label("noise", "random")
    with pytest.raises(ValueError, match="reads as a kind of bcos, but this is rise"):
        check_label("bcos_rise", "rise")


def test_a_study_with_a_control_in_disguise_is_refused():
    words = {
        "data": {"plain": {"kind": "synthetic", "size_px": 32}},
        "backbones": ["bcos_resnet18"],
        "methods": [{"name": "random", "as": "noise"}],
    }
    with pytest.raises(ValueError, match=r"methods\.noise: as: begins with random"):
        read_study(words)
