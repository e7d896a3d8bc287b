"""Slides, tables and results by URL: what is done stands in a record, written last."""

import hashlib
import json
import pickle
import shutil
import tempfile
from collections import namedtuple
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from pathology.cohort import staging
from pathology.cohort.records import Record, record_name
from pathology.cohort.staging import Input, Staged
from pathology.errors import NoTissueError, OutputError, SlideError, StampMismatchError
from pathology.outputs import complete_file, draft_path
from pathology.store.store import Store
from tests.made_stores import DENIED, XML

LOADED = []


@dataclass(frozen=True)
class Shout:
    """Writes a slide's text in capitals, with what its table and its regions say."""

    out: Path
    tiles: Path
    end: str = "!"
    overwrite: bool = False
    made: str = ""

    @cached_property
    def loaded(self) -> str:
        LOADED.append(self)
        return "loaded"

    def __call__(self, row):
        assert self.loaded
        text = Path(row["path"]).read_text()
        table = self.tiles / f"{row['slide_id']}.parquet"
        if not table.is_file():
            raise FileNotFoundError(f"{table}: run `pathology tile` first")
        if row["regions"]:
            text += Path(row["regions"]).read_text()
        result, picture = (self.out / f"{row['slide_id']}{end}" for end in (".txt", ".png"))
        text = text.upper() + table.read_text() + self.end
        if result.exists() and not result.read_text().endswith(self.end) and not self.overwrite:
            raise StampMismatchError(f"{result}: made with another end")
        with complete_file(picture) as draft:
            draft.write_text(f"{self.made} picture of {text}")
        if "nothing" in text.lower():
            result.unlink(missing_ok=True)
            raise NoTissueError("no tissue", row["path"])
        if result.exists() and result.read_text() == text:
            return f"{result}: made before by itself"
        with complete_file(result) as draft:
            draft.write_text(self.made + text)
        return f"{result}: of {row['path']}"


@pytest.fixture(autouse=True)
def own_scratch(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    yield tmp_path / "scratch"
    assert list((tmp_path / "scratch").iterdir()) == []


class Cohort:
    """Slides, tables and results in one place: a folder's or a store's."""

    def __init__(self, place):
        self.place = place
        self.slides, self.tiles, self.out = (
            Store.at(f"{place}/{name}") for name in ("slides", "tiles", "out")
        )
        self.slides.write("s1.svs", b"one")
        self.slides.write("s1.geojson", b" region")
        self.tiles.write("s1.parquet", b" 4 tiles")

    @property
    def row(self):
        regions = self.slides.where("s1.geojson")
        return {"slide_id": "s1", "path": self.slides.where("s1.svs"), "regions": regions}

    def staged(self, end="!", overwrite=False, made="", **more):
        work = Shout(Path(self.out.place), Path(self.tiles.place), end, overwrite, made)
        return Staged(
            work, self.out, "shout", (".png", ".txt"), end,
            {"tiles": Input(self.tiles)}, ("regions",), **more,
        )  # fmt: skip

    def record(self):
        return Record.from_json(self.out.read(record_name("shout", "s1")))


@pytest.fixture(params=["folder", "s3"])
def cohort(request, tmp_path):
    if request.param == "folder":
        return Cohort(tmp_path / "cohort")
    made = request.getfixturevalue("use")(request.getfixturevalue("s3"))
    return Cohort(f"{made.url}/{tmp_path.name}")


@pytest.fixture
def far(s3, use, tmp_path):
    return Cohort(f"{use(s3).url}/{tmp_path.name}")


def test_results_are_those_of_the_work_with_a_record(cohort):
    line = cohort.staged()(cohort.row)
    assert line == f"{cohort.out.where('s1.txt')}: of {cohort.slides.where('s1.svs')}"
    assert cohort.out.read("s1.txt") == b"ONE REGION 4 tiles!"
    assert cohort.out.names() == [record_name("shout", "s1"), "s1.png", "s1.txt"]
    record = cohort.record()
    assert (record.slide_id, record.state, record.message) == ("s1", "done", line)
    assert record.path == cohort.slides.where("s1.svs")
    assert record.files["s1.txt"].bytes == len(b"ONE REGION 4 tiles!")
    assert list(record.files) == ["s1.png", "s1.txt"]


def test_a_slide_that_is_done_is_not_read_again(cohort, s3):
    cohort.staged()(cohort.row)
    s3.asked.clear()
    LOADED.clear()
    again = pickle.loads(pickle.dumps(cohort.staged()))
    assert "made before with the same settings" in again(cohort.row)
    assert LOADED == []
    assert not [path for method, path in s3.asked if method == "GET" and path.endswith(".svs")]
    assert cohort.record().message.endswith("s1.svs")  # the first run's


@pytest.mark.parametrize("what", ["s1.svs", "s1.geojson", "s1.parquet"])
def test_what_it_is_made_of_may_change(cohort, what):
    cohort.staged()(cohort.row)
    store = cohort.tiles if what.endswith(".parquet") else cohort.slides
    store.write(what, store.read(what)[::-1])
    assert "of " in cohort.staged()(cohort.row)
    assert cohort.out.read("s1.txt") != b"ONE REGION 4 tiles!"
    assert "made before" in cohort.staged()(cohort.row)


def test_other_settings_are_the_works_to_refuse(cohort):
    cohort.staged()(cohort.row)
    with pytest.raises(StampMismatchError) as error:
        cohort.staged("?")(cohort.row)
    assert str(error.value) == f"{cohort.out.where('s1.txt')}: made with another end"
    assert cohort.out.read("s1.txt") == b"ONE REGION 4 tiles!"
    assert "made before with the same settings" in cohort.staged()(cohort.row)
    cohort.staged("?", overwrite=True)(cohort.row)
    assert cohort.out.read("s1.txt") == b"ONE REGION 4 tiles?"
    assert cohort.record().files["s1.txt"].bytes == 19


def test_asked_to_it_makes_all_again(cohort):
    cohort.staged()(cohort.row)
    assert "made before by itself" in cohort.staged(again=True)(cohort.row)


@pytest.mark.parametrize("change", [None, b"half!", b"TWO REGION 4 tiles!"])
def test_a_record_whose_files_are_not_there_says_nothing(cohort, change):
    """They are gone, short, or others of the same size."""
    cohort.staged()(cohort.row)
    if change is None:
        cohort.out.remove("s1.txt")
    else:
        cohort.out.write("s1.txt", change)
    cohort.staged()(cohort.row)
    assert cohort.out.read("s1.txt") == b"ONE REGION 4 tiles!"


def test_a_damaged_record_says_nothing(cohort):
    cohort.staged()(cohort.row)
    cohort.out.write(record_name("shout", "s1"), b"{")
    cohort.staged()(cohort.row)
    assert cohort.record().state == "done"


def while_sent(s3, name, what):
    """Do ``what`` once, when the file is about to be written."""
    done = []

    def meanwhile(asked):
        if asked["REQUEST_METHOD"] == "PUT" and asked["PATH_INFO"].endswith(name) and not done:
            done.append(True)
            return what()

    s3.trouble.append(meanwhile)


def test_two_that_send_the_same_slide_mix_nothing(far, s3, monkeypatch):
    monkeypatch.setattr(staging, "WAITS_S", (0.0, 0.0))
    while_sent(s3, "s1.txt", lambda: far.staged(made="fast", run="other")(far.row) and None)
    assert "of " in far.staged(made="slow", run="slow")(far.row)
    assert far.record().run == "slow"
    assert far.out.read("s1.png").startswith(b"slow")
    assert far.out.read("s1.txt").startswith(b"slow")
    assert "made before" in far.staged()(far.row)


@pytest.mark.parametrize("gone", [False, True])
def test_a_record_is_of_the_files_that_another_run_has_replaced(tmp_path, monkeypatch, gone):
    """On a disk that runs share, while it looks at them."""
    monkeypatch.setattr(staging, "WAITS_S", (0.0, 0.0))
    cohort, look = Cohort(tmp_path / "cohort"), staging._digest_of

    def digest_of(file, seen):
        monkeypatch.setattr(staging, "_digest_of", look)
        content = file.read_bytes()
        if gone:
            file.unlink()
        try:
            return look(file, seen)
        finally:
            file.write_bytes(content[::-1])

    monkeypatch.setattr(staging, "_digest_of", digest_of)
    cohort.staged()(cohort.row)
    for name, file in cohort.record().files.items():
        assert file.sha256 == hashlib.sha256(cohort.out.read(name)).hexdigest()
    assert list(cohort.record().files) == ["s1.png", "s1.txt"]
    assert "made before" in cohort.staged()(cohort.row)


def test_they_do_not_contend_for_ever(far, s3, monkeypatch):
    monkeypatch.setattr(staging, "WAITS_S", (0.0, 0.0))

    def meanwhile(asked):
        if asked["REQUEST_METHOD"] == "PUT" and asked["PATH_INFO"].endswith("s1.json"):
            Store.at(far.out.place).write("s1.png", b"another's")

    s3.trouble.append(meanwhile)
    with pytest.raises(OutputError, match=r"s1\.json: others keep writing the same slide"):
        far.staged()(far.row)


def test_a_mixture_of_two_runs_is_found_and_made_anew(far, s3):
    """One was killed while it sent what the other was sending, too."""
    while_sent(s3, "s1.txt", lambda: far.staged(made="fast", run="other")(far.row) and None)

    sent = []

    def die(asked):
        if asked["REQUEST_METHOD"] == "PUT" and asked["PATH_INFO"].endswith("s1.json"):
            sent.append(True)
            return ("403 Forbidden", XML, DENIED) if len(sent) == 2 else None

    s3.trouble.append(die)
    with pytest.raises(OutputError):
        far.staged(made="slow", run="slow")(far.row)
    s3.trouble.clear()
    assert far.record().run == "other"
    assert far.out.read("s1.png").startswith(b"fast")
    assert far.out.read("s1.txt").startswith(b"slow")
    far.staged(made="thir")(far.row)
    assert far.out.read("s1.png").startswith(b"thir")
    assert far.out.read("s1.txt").startswith(b"thir")


def test_what_was_found_out_is_kept_of_a_slide_that_fails(cohort):
    cohort.staged()(cohort.row)
    cohort.slides.write("s1.svs", b"nothing")
    with pytest.raises(NoTissueError, match="no tissue") as error:
        cohort.staged()(cohort.row)
    assert str(error.value).startswith(cohort.slides.where("s1.svs"))
    assert cohort.out.names() == ["s1.png"]  # neither the old result nor its record
    assert b"NOTHING" in cohort.out.read("s1.png")


def test_a_table_that_is_not_there_is_named_where_it_should_be(cohort):
    cohort.tiles.remove("s1.parquet")
    with pytest.raises(FileNotFoundError) as error:
        cohort.staged()(cohort.row)
    assert str(error.value) == f"{cohort.tiles.where('s1.parquet')}: run `pathology tile` first"


def test_the_record_comes_last(far, s3):
    def fail(asked):
        if asked["REQUEST_METHOD"] == "PUT" and asked["PATH_INFO"].endswith("s1.txt"):
            return "403 Forbidden", XML, DENIED

    s3.trouble.append(fail)
    with pytest.raises(OutputError, match="may not be written"):
        far.staged()(far.row)
    assert far.out.names() == ["s1.png"]
    s3.trouble.clear()
    s3.asked.clear()
    far.staged()(far.row)
    sent = [path.rpartition("/")[2] for method, path in s3.asked if method == "PUT"]
    assert sent == ["s1.png", "s1.txt", "s1.json"]


def test_the_record_goes_before_what_it_tells_of_is_replaced(far, s3):
    far.staged()(far.row)

    def fail(asked):
        if asked["REQUEST_METHOD"] == "PUT":
            return "403 Forbidden", XML, DENIED

    s3.trouble.append(fail)
    with pytest.raises(OutputError):
        far.staged("?", overwrite=True)(far.row)
    s3.trouble.clear()
    assert far.out.names() == ["s1.png", "s1.txt"]
    assert "of " in far.staged("?")(far.row)  # made anew, without a look at what is nobody's
    assert far.out.read("s1.txt") == b"ONE REGION 4 tiles?"


def test_a_slide_that_another_worker_has_done_meanwhile_is_not_sent_again(far, s3):
    other, slow = far.staged(run="other"), far.staged(run="slow")
    done = []

    def be_quicker(asked):
        fetching = asked["PATH_INFO"].endswith("s1.parquet") and asked["REQUEST_METHOD"] == "GET"
        if fetching and not done:
            done.append(True)
            other(far.row)

    s3.trouble.append(be_quicker)
    assert "made meanwhile by" in slow(far.row)
    assert far.record().run == "other"


def test_what_is_loaded_stays_loaded(far):
    staged = far.staged()
    assert staged.work.loaded
    LOADED.clear()
    for name in ("s1", "s2", "s3"):
        far.tiles.write(f"{name}.parquet", b"")
        staged(far.row | {"slide_id": name})
    assert LOADED == []


def test_all_of_a_slides_folder_are_its_results(far, tmp_path):
    @dataclass(frozen=True)
    class Folders:
        out: Path
        target: str = "a"

        def __call__(self, row):
            with complete_file(self.out / "s1" / self.target / "map.bin") as draft:
                draft.write_text(self.target)
            draft_path(self.out / "s1" / "half").touch()
            return "done"

    for target in ("a", "b"):
        staged = Staged(Folders(Path("/nowhere"), target), far.out, "folders", ("/",), target)
        staged(far.row)
    assert [name for name in far.out.names() if name[0] != "."] == ["s1/a/map.bin", "s1/b/map.bin"]
    record = json.loads(far.out.read(record_name("folders", "s1")))
    assert list(record["files"]) == ["s1/a/map.bin", "s1/b/map.bin"]


def test_a_slide_that_is_not_there(cohort):
    cohort.slides.remove("s1.svs")
    with pytest.raises((SlideError, FileNotFoundError), match=r"slides/s1\.svs"):
        cohort.staged()(cohort.row)


def test_no_room_for_a_slide_is_told_before_it_is_fetched(far, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 8, 1))
    with pytest.raises(SlideError, match=r"needs 0\.00 GiB in .*scratch.* set TMPDIR"):
        far.staged()(far.row)


def test_what_killed_workers_left_is_removed(far, own_scratch):
    left = draft_path(own_scratch / "bcos-pathology-7", 999_999_999)
    (left / "out").mkdir(parents=True)
    far.staged()(far.row)
    assert not left.exists()
