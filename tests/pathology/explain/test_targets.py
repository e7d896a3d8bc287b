"""What is explained, by name."""

import pytest

from pathology.explain.targets import parse_target

CLASSES = ["normal", "tumour", "low - grade", "a/b"]


@pytest.mark.parametrize(
    ("text", "coefficients", "place", "folder"),
    [
        ("tumour", (0, 1, 0, 0), 1, "tumour"),
        ("tumour - normal", (-1, 1, 0, 0), None, "tumour_minus_normal"),
        ("tumour - mean", (-0.25, 0.75, -0.25, -0.25), None, "tumour_minus_mean"),
        ("low - grade", (0, 0, 1, 0), 2, "low_minus_grade"),
        ("low - grade - normal", (-1, 0, 1, 0), None, "low_minus_grade_minus_normal"),
        ("normal - low - grade", (1, 0, -1, 0), None, "normal_minus_low_minus_grade"),
        ("a/b", (0, 0, 0, 1), 3, "a_b"),
    ],
)
def test_classes_and_differences(text, coefficients, place, folder):
    target = parse_target(text, CLASSES)
    assert target.coefficients == coefficients
    assert target.place == place
    assert target.folder == folder


@pytest.mark.parametrize(
    ("name", "folder"),
    [("..", "_.."), (".hidden", "_.hidden"), ("", "_"), (r"a\b", "a_b")],
)
def test_no_class_is_explained_into_a_folder_above_or_a_hidden_one(name, folder):
    assert parse_target(name, [name]).folder == folder


def test_a_single_class_has_no_others_to_be_held_against():
    with pytest.raises(ValueError, match="target 'risk - mean' is nothing: risk is the only class"):
        parse_target("risk - mean", ["risk"])


def test_a_class_called_mean_is_a_class():
    assert parse_target("a - mean", ["a", "mean", "c"]).coefficients == (1, -1, 0)


@pytest.mark.parametrize(
    "text", ["stroma", "tumor", "tumour - tumour", "tumour - stroma", "mean", "mean - tumour", ""]
)
def test_what_is_no_target_is_refused_by_name(text):
    with pytest.raises(ValueError, match=f"target must be one of normal, .*; got '{text}'"):
        parse_target(text, CLASSES)


def test_a_misspelt_class_is_named():
    with pytest.raises(ValueError, match="did you mean 'tumour'"):
        parse_target("tumor", CLASSES)
