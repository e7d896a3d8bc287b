"""Munich AML morphology."""

import shutil

from pathology.data.open_data.munich_aml import CELLS


def test_cells_are_labelled_by_folder(make, read):
    found = read(make("munich-aml"))
    assert found.table.groupby("label").size().to_dict() == dict.fromkeys(CELLS, 2)
    assert any("no patient ids" in note for note in found.notes)
    assert "split" not in found.table


def test_the_published_numbers_sum_to_the_published_total():
    assert sum(CELLS.values()) == 18_365


def test_damage(make, read, said):
    folder = make("munich-aml")
    shutil.rmtree(folder / "BAS")
    (folder / "EBO" / "EBO_0001.tiff").rename(folder / "EOS" / "EBO_0001.tiff")
    text = said(read(folder))
    assert "class folder BAS is missing" in text
    assert "files in EOS that are named after another class: EOS/EBO_0001.tiff" in text
    assert "EBO: found 1 of 2 cells" in text
