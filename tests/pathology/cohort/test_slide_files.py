"""Slides by URL come with all that they are made of."""

import pytest

from pathology.cohort.slide_files import fetch_slide, seen_file
from pathology.errors import SlideOpenError
from pathology.store.store import Store


@pytest.fixture
def slides(s3, use, tmp_path):
    return Store.at(f"{use(s3).url}/{tmp_path.name}")


def fetched(slides, name, folder):
    folder.mkdir()
    path = fetch_slide(slides.where(name), folder)
    assert path == folder / name
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.*"))


def test_a_slide_is_fetched_alone(slides, tmp_path):
    for name in ("a.svs", "b.svs", "a.json"):
        slides.write(name, name.encode())
    assert fetched(slides, "a.svs", tmp_path / "here") == ["a.svs"]
    assert (tmp_path / "here" / "a.svs").read_bytes() == b"a.svs"


def test_mirax_comes_with_its_folder(slides, tmp_path):
    slides.write("a.mrxs", b"")
    with pytest.raises(SlideOpenError, match="the folder a, which is part of it"):
        fetch_slide(slides.where("a.mrxs"), tmp_path)
    for name in ("a/Index.dat", "a/Slidedat.ini", "ab/Index.dat"):
        slides.write(name, b"")
    assert fetched(slides, "a.mrxs", tmp_path / "here") == [
        "a.mrxs", "a/Index.dat", "a/Slidedat.ini",
    ]  # fmt: skip


def test_dicom_comes_with_all_beside_it(slides, tmp_path):
    for name in ("1.dcm", "2.DCM", "a.json", "other/3.dcm"):
        slides.write(name, b"")
    assert fetched(slides, "1.dcm", tmp_path / "here") == ["1.dcm", "2.DCM"]


@pytest.mark.parametrize("name", ["a.vms", "a.VMU"])
def test_formats_that_only_name_their_parts_inside_are_refused(slides, tmp_path, name):
    slides.write(name, b"")
    with pytest.raises(SlideOpenError, match="several files that only it knows"):
        fetch_slide(slides.where(name), tmp_path)


def test_a_slide_that_is_not_there(slides, tmp_path):
    assert seen_file(slides.where("a.svs")) is None
    with pytest.raises(SlideOpenError, match=r"a\.svs: there is no such file"):
        fetch_slide(slides.where("a.svs"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_is_not_there_is_the_slides_trouble(slides, tmp_path):
    with pytest.raises(SlideOpenError, match=r"s3://elsewhere/a\.svs"):
        fetch_slide("s3://elsewhere/a.svs", tmp_path)
