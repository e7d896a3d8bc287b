"""MHIST."""

import pytest

from pathology.data.open_data.mhist import LABELS, MHIST, TILES
from pathology.errors import ManifestError


def test_the_csv_gives_label_split_and_votes(make, read):
    table = read(make("mhist")).table
    assert table.groupby(["split", "label"]).size().to_dict() == {
        ("train", "SSA"): 1, ("train", "HP"): 2, ("test", "HP"): 1, ("test", "SSA"): 1,
    }  # fmt: skip
    assert table.loc[table["label"] == "SSA", "votes_ssa"].tolist() == ["6", "6"]


def test_published_numbers_agree_with_each_other():
    assert sum(TILES.values()) == sum(LABELS.values()) == 3_152


def test_lost_and_foreign_images(make, read, said):
    folder = make("mhist")
    (folder / "images" / "MHIST_aaa.png").rename(folder / "images" / "MHIST_zzz.png")
    text = said(read(folder))
    assert "found 4 of 5 listed images: MHIST_aaa.png" in text
    assert "images that annotations.csv does not list: images/MHIST_zzz.png" in text
    assert "train: found 2 of 3 tiles" in text


def test_packed_images(make, read, said):
    folder = make("mhist")
    for path in (folder / "images").iterdir():
        path.unlink()
    (folder / "images.zip").write_bytes(b"PK")
    found = read(folder)
    assert "found 0 of 5 listed images; unpack images.zip" in said(found)
    assert list(found.table.columns) == ["path", "label"]


def test_a_csv_of_other_words_or_columns(make, read, said):
    folder = make("mhist")
    path = folder / "annotations.csv"
    text = path.read_text()
    path.write_text(text.replace("6,train", "6,holdout"))
    assert "whose label is not HP or SSA, or whose partition" in said(read(folder))
    path.write_text(text.replace("Partition", "Part"))
    with pytest.raises(ManifestError, match="column 'Partition' is missing"):
        read(folder)
    path.write_text("a,b\n1,2\n")
    assert not MHIST.recognise(folder)
