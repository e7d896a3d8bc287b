"""TCGA slides by GDC manifest."""

import shutil

import pytest

from pathology.data.open_data.check import check_files
from pathology.errors import ManifestError
from tests.pathology.data.open_data.trees import BARCODES, UUIDS, make_tcga


def test_barcodes_tell_patient_site_sample_and_kind(make, read):
    table = read(make("tcga")).table.set_index("slide_id")
    assert table.loc[BARCODES, "patient_id"].tolist() == [
        "TCGA-A2-A0YE", "TCGA-A2-A0YE", "TCGA-EJ-5518", "TCGA-EJ-7791",
    ]  # fmt: skip
    assert table.loc[BARCODES, "site"].tolist() == ["A2", "A2", "EJ", "EJ"]
    assert table.loc[BARCODES, "sample"].tolist() == ["tumour", "tumour", "normal", "tumour"]
    assert table.loc[BARCODES, "preservation"].tolist() == ["FFPE", "frozen", "frozen", "FFPE"]
    assert table.loc[BARCODES, "file_id"].tolist() == UUIDS
    assert table.loc[BARCODES, "label"].tolist() == ["TCGA-BRCA"] * 2 + ["TCGA-PRAD"] * 2


def test_normal_tissue_under_the_label_of_a_cancer_is_said(make, read):
    assert any("1 slides are not of tumour" in note for note in read(make("tcga")).notes)


def test_without_a_sample_sheet_there_are_no_labels(tmp_path, read):
    found = read(make_tcga(tmp_path / "tcga", sheet=False))
    assert "label" not in found.table
    assert any("--labels" in note for note in found.notes)
    assert any("2 slides are FFPE and 2 frozen" in note for note in found.notes)
    assert any("1 patients have more than one slide" in note for note in found.notes)


def test_what_the_manifest_lists_and_the_folder_lacks(make, read, said):
    folder = make("tcga")
    lost = folder / UUIDS[0] / f"{BARCODES[0]}.svs"
    lost.rename(lost.with_name(lost.name + ".partial"))
    shutil.rmtree(folder / UUIDS[1])
    text = said(read(folder))
    assert "found 2 of 4 files of the manifest" in text
    assert f"{UUIDS[0]}/{BARCODES[0]}.svs (.partial)" in text


def test_a_truncated_slide_is_noticed_by_size_and_checksum(make, read, said):
    folder = make("tcga")
    path = folder / UUIDS[0] / f"{BARCODES[0]}.svs"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "files of another size than the manifest says" in said(read(folder))
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = read(folder)
    assert found.problems == []
    (problem,) = check_files(found, "slides", "none", checksums=True)
    assert problem.what == "files whose checksum is not the published one"
    assert path.name in problem.files[0]


@pytest.mark.parametrize("place", ["above", "below"])
def test_the_manifest_may_lie_elsewhere(make, read, said, tmp_path, place):
    folder = make("tcga")
    manifest = folder / "gdc_manifest.2026-01-01.txt"
    if place == "above":
        manifest.rename(folder.parent / "gdc_manifest.txt")
        folder = folder.parent
    else:
        (folder / "notes").mkdir()
        manifest.rename(folder / "notes" / manifest.name)
    found = read(folder)
    assert found.problems == []
    assert len(found.checksums) == 4
    next(folder.rglob(f"{BARCODES[2]}.svs")).unlink()
    assert "found 3 of 4 files of the manifest" in said(read(folder))


def test_slides_without_any_manifest(make, read):
    folder = make("tcga")
    (folder / "gdc_manifest.2026-01-01.txt").unlink()
    found = read(folder)
    assert found.problems == []
    assert any("no gdc_manifest" in note for note in found.notes)


def test_a_manifest_with_nothing_downloaded_yet(make, read, said):
    folder = make("tcga")
    for uuid in UUIDS:
        shutil.rmtree(folder / uuid)
    assert "found 0 of 4 files of the manifest" in said(read(folder))


def test_a_sheet_that_does_not_list_a_slide(make, read, said):
    folder = make("tcga")
    sheet = folder / "gdc_sample_sheet.2026-01-01.tsv"
    lines = sheet.read_text().splitlines()
    sheet.write_text("\n".join(lines[:-1]) + "\n")
    assert f"slides that the sample sheet does not list: {BARCODES[3]}" in said(read(folder))
    sheet.write_text("File ID\tProject\n")
    with pytest.raises(ManifestError, match="column 'Project ID' is missing"):
        read(folder)
