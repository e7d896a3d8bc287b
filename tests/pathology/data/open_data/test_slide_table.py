"""Any CSV table of slides."""

import pytest

from pathology.data.open_data.slide_table import SLIDE_TABLE
from pathology.errors import AnnotationError
from tests.pathology.data.open_data.trees import table


def test_a_table_is_checked_as_it_is(make, read):
    folder = make("slides")
    found = read(folder / "slides.csv")
    assert found.problems == []
    assert found.classes == ("a", "b")
    assert found.table["path"].tolist() == [str(folder / "files" / f"{i}.tif") for i in range(4)]
    assert found.table["regions"].tolist() == [str(folder / "drawn" / "0.xml"), "", "", ""]


def test_damage(make, read, said):
    folder = make("slides")
    (folder / "files" / "1.tif").unlink()
    (folder / "drawn" / "0.xml").rename(folder / "drawn" / "1.xml")
    path = folder / "slides.csv"
    path.write_text(path.read_text().replace("p1,a,test", "p0,a,test").replace("b,test", "b,hold"))
    found = read(folder)
    text = said(found)
    assert "found 3 of 4 files of column path" in text
    assert "found 3 of 4 files of column regions" in text
    assert "slides whose split is none of train, val, test: s3" in text
    assert "patients in more than one split (leakage): p0" in text
    assert found.table["slide_id"].tolist() == ["s0", "s2", "s3"]


def test_regions_need_their_classes(make, read, said):
    folder = make("slides")
    assert read(folder).regions(None) == {"tumour": ["Tumor"]}
    (folder / "regions.json").unlink()
    found = read(folder)
    assert "regions.json is missing" in said(found)
    assert found.regions(None) == {}
    (folder / "regions.json").write_text("[1]")
    with pytest.raises(AnnotationError, match="no mapping of regions"):
        read(folder).regions(None)


def test_tiles_that_name_their_slide_are_no_slides(tmp_path):
    rows = [("s1", "a.png", "x"), ("s1", "b.png", "y")]
    table(tmp_path / "m.csv", [("slide_id", "path", "label"), *rows])
    assert not SLIDE_TABLE.recognise(tmp_path)
    table(tmp_path / "m.csv", [("slide_id", "path", "index"), ("s1", "a.h5", 0)])
    assert not SLIDE_TABLE.recognise(tmp_path)
