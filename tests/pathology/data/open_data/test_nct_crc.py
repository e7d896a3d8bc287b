"""NCT-CRC-HE-100K and CRC-VAL-HE-7K."""

import shutil

from pathology.data.open_data import nct_crc
from tests.pathology.data.open_data.trees import make_nct_crc


def test_folders_are_labels_and_parts_are_the_official_split(make, read):
    table = read(make("nct-crc-he")).table
    assert table.groupby("split").size().to_dict() == {"train": 18, "test": 9}
    assert set(table["label"]) == set(nct_crc.CLASSES)
    assert table["label"].tolist() == [path.split("/")[-2] for path in table["path"]]
    assert "patient_id" not in table


def test_one_part_alone_is_fine_and_said(make, read):
    folder = make("nct-crc-he")
    part = read(folder / "CRC-VAL-HE-7K")
    assert part.problems == []
    assert set(part.table["split"]) == {"test"}
    assert any("NCT-CRC-HE-100K is not here" in note for note in part.notes)
    assert any("no patient ids" in note for note in part.notes)


def test_lost_tiles_are_counted(make, read, said):
    folder = make("nct-crc-he")
    next((folder / "CRC-VAL-HE-7K" / "TUM").iterdir()).unlink()
    assert "test: found 8 of 9 tiles" in said(read(folder))


def test_the_published_number_is_asked_for(tmp_path, read, said):
    found = read(make_nct_crc(tmp_path / "crc"))
    assert "train: found 18 of 100,000 tiles" in said(found)
    assert "test: found 9 of 7,180 tiles" in said(found)


def test_more_tiles_than_published_are_not_just_missing_ones(make, read):
    folder = make("nct-crc-he")
    source = next((folder / "CRC-VAL-HE-7K" / "TUM").iterdir())
    shutil.copy(source, source.with_name("TUM-COPY.tif"))
    problems = read(folder).problems
    assert [(p.what, p.absent) for p in problems] == [("test: found 10 of 9 tiles", False)]


def test_a_renamed_class_is_missing(make, read, said):
    folder = make("nct-crc-he")
    (folder / "NCT-CRC-HE-100K" / "TUM").rename(folder / "NCT-CRC-HE-100K" / "tumour")
    assert "NCT-CRC-HE-100K: class folder TUM is missing" in said(read(folder))


def test_the_case_of_folders_does_not_matter(make, read):
    folder = make("nct-crc-he")
    (folder / "NCT-CRC-HE-100K").rename(folder / "nct-crc-he-100k")
    (folder / "nct-crc-he-100k" / "TUM").rename(folder / "nct-crc-he-100k" / "tum")
    found = read(folder)
    assert found.problems == []
    assert "TUM" in set(found.table["label"])


def test_a_tile_in_the_wrong_class_is_named(make, read, said):
    folder = make("nct-crc-he") / "NCT-CRC-HE-100K"
    next((folder / "TUM").iterdir()).rename(folder / "ADI" / "TUM-AAAFLCLZ.tif")
    assert "files in ADI that are named after another class: ADI/TUM-AAAFLCLZ.tif" in said(
        read(folder)
    )


def test_normalised_and_plain_tiles_are_not_mixed(make, read, tmp_path):
    folder = make("nct-crc-he")
    make_nct_crc(folder, "NCT-CRC-HE-100K-NONORM")
    plain = read(folder, "nct-crc-he-nonorm").table
    both = read(folder, "nct-crc-he").table
    assert plain["path"].str.contains("NONORM").sum() == 18
    assert both["path"].str.contains("NONORM").sum() == 0


def test_archives_that_were_kept_have_a_checksum(make, read):
    folder = make("nct-crc-he")
    (folder / "CRC-VAL-HE-7K.zip").write_bytes(b"x")
    assert read(folder).checksums == {
        folder / "CRC-VAL-HE-7K.zip": "2fd1651b4f94ebd818ebf90ad2b6ce06"
    }
