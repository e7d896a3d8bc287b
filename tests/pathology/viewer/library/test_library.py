"""Finding slides and explanations: ids, names, links that lead elsewhere, blind mode."""

import errno
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from pathology.errors import ManifestError, PathologyError, SlideError, StampMismatchError
from pathology.slides import open_slide
from pathology.viewer.library.library import HiddenError, Library, UnknownIdError
from tests.pathology.viewer.made_library import write_record, write_slide

ID = re.compile(r"[0-9a-f]{12}")
HTML = "<b onclick=alert(1)> &amp; ü'"


@pytest.fixture
def slides(tmp_path):
    for seed, name in enumerate(("a", "b", HTML)):
        write_slide(tmp_path / "slides" / f"{name}.tif", seed)
    return tmp_path / "slides"


@pytest.fixture
def results(tmp_path):
    for run in ("cnn", "vit"):
        for name in ("a", "b"):
            write_record(tmp_path / "explained" / run / name / "tumour", name)
    write_record(tmp_path / "explained" / "cnn" / "a" / "normal", "a", "normal", -1.0)
    write_record(tmp_path / "explained" / "cnn" / "elsewhere" / "tumour", "elsewhere")
    return tmp_path / "explained"


def test_what_is_found(slides, results):
    library = Library.find(slides, [results])
    assert [slide.name for slide in library.slides] == [HTML, "a", "b"]
    assert [run.name for run in library.runs] == ["cnn", "vit"]
    found = [(each.run.name, each.slide.name, each.target) for each in library.evidence]
    assert found == [
        ("cnn", "a", "normal"), ("cnn", "a", "tumour"), ("cnn", "b", "tumour"),
        ("vit", "a", "tumour"), ("vit", "b", "tumour"),
    ]  # fmt: skip
    assert [folder.parent.name for folder in library.unmatched] == ["elsewhere"]
    a = next(slide for slide in library.slides if slide.name == "a")
    assert [each.target for each in library.evidence_of(a)] == ["normal", "tumour", "tumour"]
    for each in library.evidence:
        assert library.entry(each.id) is each
        assert each.explanation.ledger.is_closed


def test_ids_are_opaque_and_stay(slides, results):
    first, again = (Library.find(slides, [results]) for _ in range(2))

    def ids(library):
        every = [*library.slides, *library.runs, *library.evidence]
        return [each.id for each in every]

    assert ids(first) == ids(again)
    assert len(set(ids(first))) == len(ids(first))
    assert all(ID.fullmatch(each) for each in ids(first))


@pytest.mark.parametrize("inner", ["", "cnn", "cnn/a", "cnn/a/tumour"])
def test_a_folder_at_any_depth(slides, results, inner):
    library = Library.find(slides, [results / inner])
    assert [run.name for run in library.runs] == (["cnn", "vit"] if not inner else ["cnn"])
    whole = Library.find(slides, [results])
    assert {each.id for each in library.evidence} <= {each.id for each in whole.evidence}


def test_one_twice_is_one(slides, results):
    once, twice = Library.find(slides, [results]), Library.find(slides, [results / "vit", results])
    assert {each.id for each in once.evidence} == {each.id for each in twice.evidence}
    assert len(once.evidence) == len(twice.evidence)


def test_runs_of_one_name_are_told_apart(slides, results, tmp_path):
    shutil.copytree(results / "cnn", tmp_path / "later" / "cnn")
    library = Library.find(slides, [results, tmp_path / "later"])
    assert [run.name for run in library.runs] == ["explained/cnn", "vit", "later/cnn"]


def test_folders_without_explanations_are_refused(slides, tmp_path):
    with pytest.raises(PathologyError, match="no such folder"):
        Library.find(slides, [tmp_path / "nowhere"])
    with pytest.raises(PathologyError, match="no explanation in it"):
        Library.find(slides, [slides])
    with pytest.raises(ManifestError, match="no such file or folder"):
        Library.find(tmp_path / "nowhere", [slides])


def test_a_folder_that_cannot_be_read(slides, results, monkeypatch):
    real = os.scandir

    def refuses(folder):
        if Path(folder).name == "vit":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(PathologyError, match="vit: cannot be read: Permission denied"):
        Library.find(slides, [results])


def test_unknown_ids(slides, results):
    library = Library.find(slides, [results])
    for ask in (library.slide, library.entry, library.open):
        with pytest.raises(UnknownIdError):
            ask("../../../etc/passwd")


# --- slides that cannot be shown are listed


def test_a_manifest_with_labels_and_missing_files(slides, results, tmp_path):
    manifest = tmp_path / "slides.csv"
    manifest.write_text(
        "slide_id,path,label,site,mpp\na,slides/a.tif,tumour,,\nb,slides/gone.tif,normal,x,0.25\n"
    )
    library = Library.find(manifest, [results], mpp=1.0)
    a, b = library.slides
    assert a.labels == {"label": "tumour"}
    assert b.labels == {"label": "normal", "site": "x"}
    assert (a.mpp, b.mpp) == (1.0, 0.25)
    assert library.open(a.id).mpp == (1.0, 1.0)
    with pytest.raises(SlideError, match="no such file"):
        library.open(b.id)
    assert b.problem == "there is no such file"


def test_a_broken_slide_says_so_and_may_be_mended(slides, results):
    path = slides / "a.tif"
    path.write_text("nothing")
    library = Library.find(slides, [results])
    a = next(slide for slide in library.slides if slide.name == "a")
    assert a.problem is None  # not opened yet
    with pytest.raises(SlideError, match="slide a: is no slide format") as error:
        library.open(a.id)
    assert str(slides) not in str(error.value)
    assert a.problem.startswith("is no slide format")
    write_slide(path)
    assert library.open(a.id).size == (600, 410)
    assert a.problem is None


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_that_lead_out_of_the_folder(slides, results, tmp_path):
    outside = write_slide(tmp_path / "secret" / "x.tif")
    (slides / "out.tif").symlink_to(outside)
    (slides / "away").symlink_to(tmp_path / "secret")
    (slides / "inside.tif").symlink_to(slides / "a.tif")
    library = Library.find(slides, [results], recursive=True)
    by_name = {slide.name: slide for slide in library.slides}
    assert "x" not in by_name  # folders behind links are not walked
    out = by_name["out"]
    assert "slides.csv" in out.problem
    for _ in range(2):
        with pytest.raises(SlideError, match="leads out of the folder"):
            library.open(out.id)
        assert "slides.csv" in out.problem
    assert library.open(by_name["inside"].id).size == (600, 410)
    # Nor one that was put there later.
    (slides / "b.tif").unlink()
    (slides / "b.tif").symlink_to(outside)
    with pytest.raises(SlideError, match="leads out of the folder"):
        library.open(by_name["b"].id)
    # The folder itself may be a link, and a manifest may name anything.
    (tmp_path / "link").symlink_to(slides)
    linked = Library.find(tmp_path / "link", [results])
    assert next(slide for slide in linked.slides if slide.name == "a").problem is None
    (tmp_path / "slides.csv").write_text("slide_id,path\nout,slides/out.tif\n")
    listed = Library.find(tmp_path / "slides.csv", [results])
    assert listed.open(listed.slides[0].id).size == (600, 410)


# --- open slides


def test_a_slide_is_opened_once(slides, results):
    library = Library.find(slides, [results])
    slide = library.slides[0]
    assert library.opened(slide) is None
    opened = library.open(slide.id)
    assert library.open(slide.id) is opened
    assert library.opened(slide) is opened
    assert library.stamp(opened) == opened.stamp()
    library.close()
    assert library.opened(slide) is None


# --- evidence of another slide


@pytest.fixture
def explained(slides, tmp_path):
    """Evidence of slide a as it is, and of it with other pixels."""
    with open_slide(slides / "a.tif") as slide:
        stamp, mpp = slide.stamp(), list(slide.mpp)
    write_record(tmp_path / "made" / "run" / "a" / "same", "a", slide=stamp, slide_mpp=mpp)
    write_record(tmp_path / "made" / "run" / "a" / "mpp", "a", slide=stamp, slide_mpp=[0.5, 0.25])
    return tmp_path / "made"


def test_evidence_of_this_slide(slides, explained):
    library = Library.find(slides, [explained])
    other, same = library.evidence
    assert library.mismatch(same) is None  # not open yet
    assert library.entry(same.id) is same
    assert library.mismatch(same) is None
    with pytest.raises(StampMismatchError, match=r"0\.5 x 0\.25 µm, and shown with 0\.5 x 0\.5 µm"):
        library.entry(other.id)
    assert "--mpp" in library.mismatch(other)


def test_evidence_of_a_former_scan(slides, explained):
    library = Library.find(slides, [explained])
    _, same = library.evidence
    assert library.entry(same.id) is same
    write_slide(slides / "a.tif", 9)
    with pytest.raises(StampMismatchError, match="replaced meanwhile; reload"):
        library.entry(same.id)
    library.refresh()
    with pytest.raises(StampMismatchError, match="another file of the name a"):
        library.entry(same.id)
    write_slide(slides / "a.tif", 1)
    (slides / "a.tif").write_text("gone")
    library.refresh()
    assert library.entry(same.id) is same  # there is no picture that it could be taken for


# --- blind mode


def test_hidden_until_read(slides, results, tmp_path):
    path = tmp_path / "readings.csv"
    library = Library.find(slides, [results], readings=path)
    entry = next(each for each in library.evidence if each.slide.name == "a")
    assert library.is_hidden(entry.slide)
    with pytest.raises(HiddenError, match="hidden until"):
        library.entry(entry.id)
    library.readings.commit("a", "tumour", 70)
    assert library.entry(entry.id) is entry
    assert library.reading(entry.slide).call == "tumour"
    hidden = [each for each in library.evidence if each.slide.name == "b"]
    assert all(library.is_hidden(each.slide) for each in hidden)
    again = Library.find(slides, [results], readings=path)
    assert not again.is_hidden(entry.slide)


def test_nothing_is_hidden_otherwise(slides, results):
    library = Library.find(slides, [results])
    assert not any(library.is_hidden(slide) for slide in library.slides)
    assert library.reading(library.slides[0]) is None
