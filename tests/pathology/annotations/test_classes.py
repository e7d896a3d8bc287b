"""Which annotations make which class."""

import json

import pytest

from pathology.annotations import Classes, read_classes
from pathology.annotations.classes import Class, colour_value
from pathology.errors import AnnotationError

FULL = {
    "tumour": {"include": ["Tumor", "_0", 2], "exclude": ["_2"]},
    "normal": ["Normal", 1, "#00ff00"],
    "stroma": "Stroma",
    "ignore": ["ROI"],
    "origin": "slide",
}


def test_what_a_file_says(tmp_path):
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(FULL))
    classes = read_classes(path)
    assert list(classes) == ["tumour", "normal", "stroma"]
    assert classes["tumour"] == Class(("Tumor", "_0", 2), ("_2",))
    assert classes["stroma"] == Class(("Stroma",))
    assert classes.ignore == ("ROI",)
    assert classes.origin == "slide"
    assert classes.has_colours


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_windows(tmp_path, encoding):
    path = tmp_path / "regions.json"
    path.write_text('{"Tumorgew\u00e4chs": 1}', encoding)
    assert list(read_classes(path)) == ["Tumorgew\u00e4chs"]


def test_indices_as_they_were_written_before():
    classes = Classes.of({"normal": 1, "tumour": 2})
    assert classes["tumour"] == Class((2,))
    assert not classes.has_colours


def test_names_are_compared_without_case_and_spaces():
    classes = Classes.of(FULL)
    assert classes.mentioned([" TUMOR "]) == "tumor"
    assert classes.mentioned(["roi"]) == "roi"
    assert classes.mentioned(["_2"]) == "_2"


def test_the_most_specific_name_that_is_mentioned_counts():
    assert Classes.of({"a": ["Tumor: Positive"], "b": ["Tumor"]}).mentioned(
        ["Tumor: Positive", "Tumor"]
    ) == ("tumor: positive")
    assert Classes.of({"b": ["Tumor"]}).mentioned(["Tumor: Positive", "Tumor"]) == "tumor"


def test_the_rest():
    assert Classes.of({"a": ["A"]}).mentioned(["B"]) is None
    assert Classes.of({"a": ["A"], "other": ["*"]}).mentioned(["B"]) == "*"
    assert Classes.of({"a": ["A"], "other": ["*"]}).mentioned(["a"]) == "a"
    assert Classes.of({"a": [""]}).mentioned([""]) == ""


def test_one_annotation_may_be_cut_out_of_a_class_and_be_another():
    classes = Classes.of({"tumour": {"include": ["m"], "exclude": ["normal"]}, "n": ["normal"]})
    assert classes["tumour"].exclude == ("normal",)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({}, "must have names"),
        ({"ignore": ["a"]}, "must have names"),
        ({"": 1}, "must have names"),
        ({"a": []}, "'a' must include"),
        ({"a": 1, "b": 1}, "of one class, got 'a' and 'b'"),
        ({"a": ["Tumor"], "b": ["tumor "]}, "of one class, got 'a' and 'b'"),
        ({"a": ["x"], "ignore": ["x"]}, "of one class, got 'a' and 'ignore'"),
        ({"a": {"include": ["x"], "exclude": ["X"]}}, "must not be cut out"),
        ({"a": {"include": ["x"], "exclude": ["y"]}, "ignore": ["y"]}, "must not be cut out"),
        ({"a": {"exclude": ["y"]}}, "must have include"),
        ({"a": {"include": ["x"], "without": ["y"]}}, "must have include"),
        ({"a": 1.5}, "names or whole numbers, got 1.5"),
        ({"a": True}, "names or whole numbers, got True"),
        ({"a": None}, "names or whole numbers, got None"),
        ({"a": 1, "origin": "centre"}, "origin must be one of"),
    ],
)
def test_refuses(tmp_path, values, what):
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(values))
    with pytest.raises(AnnotationError, match=what) as error:
        read_classes(path)
    assert str(path) in str(error.value)
    with pytest.raises(ValueError, match=what):
        Classes.of(values)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1, 2]", b'"tumour"', b"\xff\xfe", b'{"a":1,"a":2}']
)
def test_refuses_what_is_no_mapping(tmp_path, content):
    path = tmp_path / "regions.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match="no mapping of regions to classes"):
        read_classes(path)


def test_refuses_a_file_that_is_not_there(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read: No such file"):
        read_classes(tmp_path / "regions.json")


def test_colours():
    assert colour_value("#01Ff10") == 0x01FF10
    assert [colour_value(key) for key in ("#01ff1", "01ff10", "#01ff1g", 3)] == [None] * 4
