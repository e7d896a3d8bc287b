"""Any CSV table of image files."""

import pytest

from pathology.data.open_data.csv_table import Columns, csv_table
from pathology.data.open_data.sets import recognise
from pathology.errors import ManifestError
from tests.pathology.data.open_data.trees import picture, table


def columns(folder, **names):
    return csv_table(Columns(**names)).read(folder)


def test_columns_are_known_by_their_names(make, read):
    folder = make("csv")
    found = read(folder)
    assert found.problems == []
    assert list(found.table.columns) == ["path", "label", "patient_id", "age", "split"]
    assert found.table["split"].tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    assert found.table["path"].tolist() == [str(folder / "pictures" / f"{i}.png") for i in range(6)]
    assert found.classes == ("benign", "malignant")


def test_the_table_itself_may_be_given(make, read):
    folder = make("csv")
    assert len(read(folder / "list.csv").table) == 6


def test_blanks_do_not_make_one_label_or_patient_two(tmp_path, said):
    for i in range(3):
        picture(tmp_path / f"{i}.png", (8, 8))
    rows = [("0.png", "a ", "p1", "train"), ("1.png", " a", "p1 ", "test")]
    table(tmp_path / "list.csv", [("file ", "label", "patient", "split"), *rows])
    found = columns(tmp_path)
    assert found.classes == ("a",)
    assert "patients in more than one split" in said(found)


def test_tables_that_would_be_read_wrong_are_refused(tmp_path):
    picture(tmp_path / "0.png", (8, 8))
    path = tmp_path / "list.csv"
    path.write_text("file;label\n0.png;a\n")
    with pytest.raises(ManifestError, match="separated by semicolons"):
        recognise(path)
    path.write_text("file,label,label\n0.png,a,b\n")
    with pytest.raises(ManifestError, match="two columns are called 'label'"):
        recognise(path)
    path.write_text("where,label\n0.png,a\n")
    with pytest.raises(ManifestError, match=r"got where, label; say which does with --path-column"):
        recognise(path)


def test_names_without_suffix_and_columns_that_are_said(tmp_path):
    for i in range(3):
        picture(tmp_path / "images" / f"{i}.png", (8, 8))
        picture(tmp_path / "labels" / f"{i}.png", (8, 8))
    rows = [(0, "a", 1), (1, "b", 2), (2, "a", 1)]
    table(tmp_path / "manifest.csv", [("id", "stain", "label_id"), *rows])
    with pytest.raises(ManifestError, match="which column is the label"):
        columns(tmp_path)
    found = columns(tmp_path, label="stain")
    assert found.table["label"].tolist() == ["a", "b", "a"]
    # One place for all, rather than the image of one row and the mask of another.
    assert found.table["path"].str.contains("/images/").all()
    with pytest.raises(ManifestError, match="no column 'colour'; got id, stain"):
        columns(tmp_path, label="colour")


def test_a_chosen_column_takes_the_name_of_one_that_is_there(tmp_path):
    picture(tmp_path / "0.png", (8, 8))
    head = ("file", "label", "path", "grade", "patient_id", "case", "age")
    table(tmp_path / "m.csv", [head, ("0.png", "x", "y", "g", "1", "2", "40")])
    found = columns(tmp_path, path="file", label="grade", patient="case")
    assert found.table.to_dict("records") == [
        {"path": str(tmp_path / "0.png"), "label": "g", "patient_id": "2", "age": "40"}
    ]


def test_damage(make, read, said):
    folder = make("csv")
    (folder / "pictures" / "0.png").unlink()
    path = folder / "list.csv"
    text = path.read_text()
    path.write_text(
        text.replace("1.png,malignant", "1.png,")
        .replace("Validation", "holdout", 1)
        .replace("p5", "p3")
        + "4.png,benign,test,p4,44\n"
    )
    wrong = said(read(folder))
    assert "found 6 of 7 files that list.csv lists: 0.png" in wrong
    assert "rows without Diagnosis: row 3" in wrong
    assert "whose Subset is none of train, val and test: row 4 ('holdout')" in wrong
    assert "files that are listed twice" in wrong
    assert "patients in more than one split (leakage): p3" in wrong


def test_folds_are_kept_as_they_are(tmp_path):
    for i in range(2):
        picture(tmp_path / f"{i}.png", (8, 8))
    table(tmp_path / "m.csv", [("file", "label", "fold"), ("0.png", "x", "1"), ("1.png", "y", "2")])
    found = columns(tmp_path)
    assert "split" not in found.table
    assert found.table["fold"].tolist() == ["1", "2"]
    assert found.problems == []


def test_rows_of_arrays(tmp_path):
    import numpy as np

    np.savez(tmp_path / "a.npz", tiles=np.zeros((2, 8, 8, 3), np.uint8))
    rows = [("a.npz#tiles", 0, "x"), ("a.npz#tiles", 1, "y")]
    table(tmp_path / "m.csv", [("path", "index", "label"), *rows])
    found = columns(tmp_path)
    assert found.problems == []
    assert found.table["path"].tolist() == [f"{tmp_path}/a.npz#tiles"] * 2


@pytest.mark.parametrize("text", ["", "path,label\n", "a,b\n1,2\n", "path,label\n1,2,3\n"])
def test_tables_that_are_none(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    one = csv_table(Columns())
    # What is not recognised is refused when it is insisted on.
    with pytest.raises(ManifestError):
        recognise(tmp_path, "csv")[0].read(tmp_path)
    assert bool(one.recognise(tmp_path)) == (text == "path,label\n")


def test_two_tables_and_no_well_known_name(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("path,label\n")
    assert not csv_table(Columns()).recognise(tmp_path)
