"""A folder and stores by URL are alike to whoever uses them."""

import multiprocessing
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pathology.errors import MissingExtraError, OutputError
from pathology.store.store import Seen, Store, is_url


def test_what_is_written_is_read(store, tmp_path):
    assert store.names() == []
    assert store.seen("a/b.json") is None
    assert store.write("a/b.json", b"12345")
    assert store.read("a/b.json") == b"12345"
    assert store.seen("a/b.json").bytes == 5
    assert not store.exists("a")  # a folder is no file
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    store.put(tmp_path / "file", "a/c ü#?.bin")
    store.get("a/c ü#?.bin", tmp_path / "here" / "copy")
    assert (tmp_path / "here" / "copy").read_bytes() == b"x" * 100_000
    store.remove("a/b.json")
    store.remove("a/b.json")
    assert store.names() == ["a/c ü#?.bin"]


def test_what_is_not_there_is_said(store, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        store.read("a.json")
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        store.get("a.json", tmp_path / "copy")
    assert list(tmp_path.glob("*copy*")) == []
    store.write("b.json", b"1")
    assert store.read_all(["a.json", "b.json"]) == {"b.json": b"1"}


def test_names_are_those_that_begin_so(store):
    for name in ("s1.json", "s10.json", "s1/a/b", "s1/c", ".cohort/tile/slides/s1.json"):
        store.write(name, b"")
    assert store.names("s1/") == ["s1/a/b", "s1/c"]
    assert store.names("s1") == ["s1.json", "s1/a/b", "s1/c", "s10.json"]
    assert store.names(deep=False) == ["s1.json", "s10.json"]
    assert store.names("s1/", deep=False) == ["s1/c"]
    assert store.names(".cohort/tile/slides/") == [".cohort/tile/slides/s1.json"]
    assert store.names("none/") == []


def test_a_file_has_another_tag_when_it_is_written_anew(store):
    store.write("a", b"1234")
    before = store.seen("a")
    assert store.seen("a") == before
    assert isinstance(before, Seen)
    assert before.tag
    store.write("a", b"4321")
    assert store.seen("a") != before


def test_one_of_many_writes_what_is_not_there(store):
    def write(number):
        return store.write("tile.yaml", str(number).encode(), only_if_absent=True)

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(8)))
    assert sum(written) == 1
    assert store.read("tile.yaml") == str(written.index(True)).encode()
    assert store.names() == ["tile.yaml"]
    assert store.write("tile.yaml", b"9")  # without the condition


def test_what_another_has_written_is_seen_at_once(store):
    """Nothing that a store has said is remembered."""
    other = pickle.loads(pickle.dumps(store))
    assert store.names() == store.names("a/") == []
    assert store.seen("a/b") is None
    other.write("a/b", b"1")
    assert store.names() == store.names("a/") == store.names("a/", deep=False) == ["a/b"]
    other.write("a/b", b"12")
    assert (store.seen("a/b").bytes, store.read("a/b")) == (2, b"12")
    other.remove("a/b")
    assert (store.names(), store.exists("a/b")) == ([], False)


def _write_there(store):
    store.write("theirs", store.read("mine"))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_may_use_it(store):
    store.write("mine", b"1")
    process = multiprocessing.get_context("fork").Process(target=_write_there, args=(store,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert store.read("theirs") == b"1"


def test_a_spawned_process_finds_it_by_its_environment(s3, use, tmp_path):
    store = Store.at(f"{use(s3).url}/{tmp_path.name}")
    store.write("mine", b"1")
    process = multiprocessing.get_context("spawn").Process(target=_write_there, args=(store,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert store.read("theirs") == b"1"


def test_writing_is_tried(store):
    store.check_writable()
    assert store.names() == []


@pytest.mark.parametrize(
    ("place", "is_local", "name"),
    [
        ("results", True, "results"),
        ("/data/results/", True, "/data/results"),
        (Path("results"), True, "results"),
        ("C:\\results", True, "C:\\results"),
        ("file:///data/a%20b/", True, "/data/a b"),
        ("s3://bucket", False, "s3://bucket"),
        ("s3://bucket/cohort/", False, "s3://bucket/cohort"),
        ("gs://bucket/a/b//", False, "gs://bucket/a/b"),
    ],
)
def test_places(place, is_local, name):
    store = Store.at(place)
    assert (store.is_local, store.place, is_url(place)) == (is_local, name, not is_local)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("memory://results", "gone with it"),
        ("nothing://results", "no kind of store"),
        ("s3://", "names no bucket"),
        ("file://server/results", "on another machine"),
        ("zip::s3://bucket/a.zip", "within a URL"),
        (Path("s3://bucket/results"), "as text"),
    ],
)
def test_places_that_are_none(place, said):
    with pytest.raises(ValueError, match=said) as error:
        Store.at(place)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("url", "extra"), [("s3://b/c", "s3"), ("gs://b/c", "gcs")])
def test_a_missing_package_is_said(monkeypatch, url, extra):
    def not_there(_):
        raise ImportError("Install it to access it")

    monkeypatch.setattr(sys.modules["fsspec.registry"], "get_filesystem_class", not_there)
    with pytest.raises(MissingExtraError, match=rf'pip install "bcos-pathology\[{extra}\]"'):
        Store.at(url)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    store = Store.at(tmp_path / "file")
    assert (store.names(), store.seen("a"), store.exists("a")) == ([], None, False)
    for write in (
        store.check_writable,
        lambda: store.write("a", b""),
        lambda: store.write("a", b"", only_if_absent=True),
        lambda: store.put(tmp_path / "file", "a"),
    ):
        with pytest.raises(OutputError, match="cannot be written"):
            write()


def test_drafts_in_a_folder_are_not_there_yet(tmp_path):
    (tmp_path / ".a.json.node7.1.part").touch()
    (tmp_path / ".s1.node7.1.part").mkdir()
    (tmp_path / ".s1.node7.1.part" / "b").touch()
    assert Store.at(tmp_path).names() == []
