"""Every data set is recognised, and only as itself, complete or not."""

import shutil

import pytest

from pathology.data.open_data.check import check_files
from pathology.data.open_data.sets import PUBLIC, all_sets, recognise
from pathology.errors import ManifestError
from tests.pathology.data.open_data.trees import TREES, made_once, make_bach, make_mhist


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_once(tmp_path_factory)


def test_every_set_has_a_tree():
    assert sorted(TREES) == sorted(one.name for one in all_sets())


@pytest.mark.parametrize("name", TREES)
def test_a_set_is_recognised_as_itself(made, name):
    found, evidence = recognise(made(name))
    assert found.name == name
    assert evidence


ONE_FILE_OR_TWO_PARTS = ("csv", "folder", "slides", "medmnist", "nct-crc-he", "nct-crc-he-nonorm")


@pytest.mark.parametrize("name", [n for n in TREES if n not in ONE_FILE_OR_TWO_PARTS])
def test_a_set_is_recognised_from_the_folder_above(made, name, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / made(name).name).symlink_to(made(name), target_is_directory=True)
    found, _ = recognise(tmp_path / "data")
    assert found.name == name
    above, itself = (found.read(folder).table for folder in (tmp_path / "data", made(name)))
    assert len(above) == len(itself)


@pytest.mark.parametrize("name", TREES)
def test_a_complete_set_is_fine(made, small, name):
    small(name)
    found, _ = recognise(made(name))
    read = found.read(made(name))
    assert read.problems == []
    assert check_files(read, found.kind, "all", checksums=name == "tcga") == []
    assert len(read.table)
    assert read.table["path"].notna().all()
    if "label" in read.table:
        assert set(read.table["label"]) <= {*read.classes, ""}
    if found.kind == "slides":
        assert read.table["slide_id"].is_unique
    if "split" in read.table:
        assert set(read.table["split"]) <= {"train", "val", "test"}


@pytest.mark.parametrize("name", [n for n in TREES if n not in ("tcga", "csv", "folder", "slides")])
def test_a_part_of_a_set_is_said_to_be_one(made, name):
    """The small copies lack nearly everything that the real sets hold."""
    found, _ = recognise(made(name))
    problems = found.read(made(name)).problems
    assert problems
    assert all(problem.absent for problem in problems)
    assert any("found" in problem.what or "lists" in problem.what for problem in problems)


@pytest.mark.parametrize("name", TREES)
def test_paths_come_in_the_same_order_wherever_the_files_lie(made, name):
    found, _ = recognise(made(name))
    first, second = (found.read(made(name)).table for _ in range(2))
    assert first.equals(second)


def test_nothing_is_recognised_in_other_folders(tmp_path):
    with pytest.raises(ManifestError, match="no such folder"):
        recognise(tmp_path / "none")
    with pytest.raises(ManifestError, match="no data set is recognised"):
        recognise(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ManifestError, match="`pathology data list`"):
        recognise(tmp_path)


def test_two_sets_in_one_folder_must_be_told_apart(tmp_path):
    make_bach(tmp_path / "ICIAR2018_BACH_Challenge")
    make_mhist(tmp_path / "mhist")
    with pytest.raises(ManifestError, match="holds bach and mhist; say which with --name"):
        recognise(tmp_path)
    assert recognise(tmp_path, "mhist")[0].name == "mhist"
    with pytest.raises(ManifestError, match="does not look like PANDA"):
        recognise(tmp_path, "panda")
    with pytest.raises(ValueError, match="no set is called 'imagenet'; one of nct-crc-he"):
        recognise(tmp_path, "imagenet")


@pytest.mark.parametrize("one", PUBLIC, ids=lambda one: one.name)
def test_every_public_set_says_what_it_may_be_used_for(one):
    assert one.licence is not None
    assert one.licence.cite
    assert one.source.startswith("https://")
    assert one.split
    assert bool(one.proposal) == (one.propose is not None)


@pytest.mark.parametrize("name", [n for n in TREES if n not in ("medmnist", "csv", "slides")])
def test_a_set_survives_hidden_files_of_other_systems(made, small, name, tmp_path):
    small(name)
    copy = tmp_path / made(name).name
    shutil.copytree(made(name), copy)
    for folder in [copy, *(p for p in copy.rglob("*") if p.is_dir())]:
        (folder / ".DS_Store").write_bytes(b"\0")
        (folder / "._junk.tif").write_bytes(b"\0")
        (folder / "._junk.png").write_bytes(b"\0")
    (copy / "__MACOSX").mkdir()
    found, _ = recognise(copy)
    assert found.name == name
    assert found.read(copy).problems == []
