"""What a run leaves of itself: records, a journal, numbers and a table, whatever ends it."""

import csv
import json
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

from pathology.cohort import telling as tellings
from pathology.cohort.choice import make_engine
from pathology.cohort.each_slide import each_slide
from pathology.cohort.events import Counted, Ended, Lost, Started
from pathology.cohort.records import Record, Records, now
from pathology.cohort.telling import Telling
from pathology.errors import NoTissueError, OutputError
from pathology.store.folder import FolderStore
from tests.pathology.cohort.made_store import Bucket, Full
from tests.pathology.cohort.trouble import Trouble

STORES = pytest.mark.parametrize("kind", [FolderStore, Bucket])


def rows(*names):
    return [{"slide_id": name, "path": f"/slides/{name}.svs"} for name in names]


def table(folder):
    with (folder / "cohort.csv").open(newline="") as file:
        return {row["slide_id"]: row for row in csv.DictReader(file)}


def states(folder):
    return {name: row["state"] for name, row in table(folder).items()}


def journal(folder, run):
    text = (folder / ".cohort" / "tile" / "runs" / f"{run}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def meters(folder, ending=""):
    text = (folder / ".cohort" / "tile" / f"metrics{ending}.prom").read_text()
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")


def do(telling, index, result="made", worker="n:1", tiles=5):
    telling.told(Started(index, worker))
    if tiles:
        telling.told(Counted(index, worker, tiles, 0.5))
    telling.told(Ended(index, worker, result, 2.0))


@STORES
def test_a_run_leaves_records_journal_numbers_and_table(tmp_path, capsys, kind):
    given = rows("a", "b", "c", "d")
    with Telling(kind(tmp_path), "tile", given, "tiling", staged=False) as telling:
        do(telling, 0)
        telling.told(Started(1, "n:1"))
        telling.told(Lost(1, "n:1", "the process was killed", 1))
        telling.told(Started(1, "n:2", 2))
        telling.told(Ended(1, "n:2", "made at last", 3.0, 2))
        do(telling, 2, NoTissueError("there is no tissue", "/slides/c.svs"))
    assert states(tmp_path) == {"a": "done", "b": "done", "c": "failed", "d": "waiting"}
    told = table(tmp_path)
    assert (told["b"]["tries"], told["b"]["worker"], told["b"]["seconds"]) == ("2", "n:2", "3.0")
    assert told["c"]["error"] == "NoTissueError"
    assert told["c"]["message"] == "/slides/c.svs: there is no tissue"
    lines = journal(tmp_path, telling.run)
    assert [line["event"] for line in lines] == [
        "began", "started", "done", "started", "lost", "started", "done", "started", "failed",
        "ended",
    ]  # fmt: skip
    assert (lines[0]["slides"], lines[0]["run"]) == (4, telling.run)
    assert (lines[2]["tiles"], lines[2]["waited_s"], lines[2]["message"]) == (5, 0.5, "made")
    assert lines[4]["message"] == "the process was killed"
    assert lines[8]["error"] == "NoTissueError"
    assert (lines[-1]["done"], lines[-1]["failed"], lines[-1]["losses"]) == (2, 1, 1)
    assert lines[-1]["error"] == ""
    labels = f'verb="tile",run="{telling.run}"'
    assert meters(tmp_path)[f'bcos_pathology_slides{{{labels},state="failed"}}'] == "1.0"
    assert meters(tmp_path)[f"bcos_pathology_tiles_total{{{labels}}}"] == "10.0"
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "made",
        "/slides/b.svs: the process was killed; it will be tried again",
        "made at last",
        f"{tmp_path}/cohort.csv: 2 done, 1 failed, 1 waiting",
    ]
    (line,) = err.splitlines()
    assert "tiling: 3 of 4 slides (75 %)" in line
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_parts_side_by_side_and_later_runs_know_of_each_other(tmp_path):
    cohort = rows("a", "b", "c", "d")
    store = FolderStore(tmp_path)
    options = {"staged": False, "cohort": cohort}
    with (
        Telling(store, "tile", cohort[::2], "tiling", part="1/2", **options) as one,
        Telling(store, "tile", cohort[1::2], "tiling", part="2/2", **options) as two,
    ):
        do(one, 0)
        do(two, 0, ValueError("broken"))
        do(two, 1)
    assert states(tmp_path) == {"a": "done", "b": "failed", "c": "waiting", "d": "done"}
    assert len(meters(tmp_path, "-1-of-2")) == len(meters(tmp_path, "-2-of-2")) > 0
    # Another run: a was there, b succeeds.
    with Telling(store, "tile", cohort[:2], "tiling", **options) as third:
        assert journal(tmp_path, third.run)[0]["done_before"] == 1
        do(third, 0, "was there", tiles=0)
        do(third, 1)
    assert states(tmp_path) == {"a": "done", "b": "done", "c": "waiting", "d": "done"}
    assert not list((tmp_path / ".cohort" / "tile" / "failed").glob("*"))
    assert len(list((tmp_path / ".cohort" / "tile" / "runs").glob("*.jsonl"))) == 3


def test_records_that_work_wrote_itself_are_left_alone(tmp_path):
    store = FolderStore(tmp_path)
    given = rows("a", "b")
    records = Records(store, "tile")
    records.write(Record("b", "/b", "done", "made", run="earlier", tries=3, finished_at=now()))
    with Telling(store, "tile", given, "tiling") as telling:
        records.write(
            Record("a", "/a", "done", "by work", run=telling.run, work="key", finished_at=now())
        )
        path = tmp_path / ".cohort" / "tile" / "slides" / "a.json"
        before = path.read_bytes()
        telling.told(Started(0, "n:2", 2))
        telling.told(Ended(0, "n:2", "by work", 1.0, 2))
        do(telling, 1, "was there", tiles=0)
    assert path.read_bytes() == before
    told = table(tmp_path)
    # The engine alone knows how often it was tried.
    assert (told["a"]["message"], told["a"]["tries"]) == ("by work", "2")
    assert (told["b"]["run"], told["b"]["tries"]) == ("earlier", "3")


def test_a_damaged_record_is_named_in_the_journal_and_its_slide_waits(tmp_path):
    store = FolderStore(tmp_path)
    store.write(".cohort/tile/slides/a.json", b'{"format": 1, "slide_id"')
    with Telling(store, "tile", rows("a", "b"), "tiling", staged=False) as telling:
        do(telling, 1)
    assert states(tmp_path) == {"a": "waiting", "b": "done"}
    (line,) = [line for line in journal(tmp_path, telling.run) if line["event"] == "damaged"]
    assert line["name"] == ".cohort/tile/slides/a.json"
    assert "is no JSON" in line["message"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), NoTissueError("no tissue")])
def test_a_run_that_is_stopped_leaves_what_it_knows(tmp_path, stop):
    telling = Telling(FolderStore(tmp_path), "tile", rows("a", "b"), "tiling", staged=False)

    def run():
        with telling:
            do(telling, 0)
            telling.told(Started(1, "n:1"))
            raise stop

    with pytest.raises(type(stop)) as caught:
        run()
    assert caught.value is stop
    assert states(tmp_path) == {"a": "done", "b": "waiting"}
    last = journal(tmp_path, telling.run)[-1]
    assert (last["event"], last["error"]) == ("ended", type(stop).__name__)
    labels = f'{{verb="tile",run="{telling.run}"}}'
    assert float(meters(tmp_path)[f"bcos_pathology_run_ended_timestamp_seconds{labels}"]) > 1e9


@pytest.mark.parametrize("what", ["failed/", "cohort.csv", "metrics"])
def test_what_cannot_be_written_stops_the_run_in_one_line(tmp_path, what):
    store = Full(tmp_path)

    def run():
        with Telling(store, "tile", rows("a", "b"), "tiling", staged=False) as telling:
            store.what = what
            do(telling, 0, ValueError("broken"))

    with pytest.raises(OutputError, match="cannot be written: No space left") as caught:
        run()
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("more", [True, False])  # events while it cannot be written
def test_numbers_that_cannot_be_written_stop_the_run_while_it_goes_on(tmp_path, monkeypatch, more):
    monkeypatch.setattr(tellings, "SHOW_S", 0.01)
    monkeypatch.setattr(tellings, "METERS_S", 0.01)
    store = Full(tmp_path)

    def run():
        deadline = time.monotonic() + 60
        with Telling(store, "tile", rows("a", "b"), "tiling", staged=False) as telling:
            store.what = "metrics"
            while time.monotonic() < deadline and (more or telling._trouble is None):
                if more:
                    telling.told(Counted(0, "n:1", 1))
                time.sleep(0.01)

    with pytest.raises(OutputError, match=r"metrics\.prom: cannot be written"):
        run()
    # What could be written was.
    assert states(tmp_path) == {"a": "waiting", "b": "waiting"}
    (path,) = (tmp_path / ".cohort" / "tile" / "runs").iterdir()
    assert json.loads(path.read_text().splitlines()[-1])["error"] == "OutputError"


def test_a_full_disk_does_not_hide_what_stops_a_run(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OutputError("the journal, too")

    store = Full(tmp_path)
    error = OutputError("a.parquet: cannot be written: No space left on device")

    def run():
        with Telling(store, "tile", rows("a", "b"), "tiling", staged=False) as telling:
            telling.told(Started(0, "n:1"))
            store.what = "."
            monkeypatch.setattr(telling._files.journal, "write", refuse)
            telling.told(Ended(0, "n:1", error, 1.0))  # nobody's outcome, and raises no other
            raise error

    with pytest.raises(OutputError) as caught:
        run()
    assert caught.value is error


def test_numbers_are_written_while_no_slide_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(tellings, "SHOW_S", 0.01)
    monkeypatch.setattr(tellings, "METERS_S", 0.01)
    deadline = time.monotonic() + 60
    with Telling(FolderStore(tmp_path), "tile", rows("a", "b"), "tiling") as telling:
        telling.told(Started(0, "n:1"))
        telling.told(Counted(0, "n:1", 7))
        name = f'bcos_pathology_tiles_total{{verb="tile",run="{telling.run}"}}'
        while meters(tmp_path)[name] != "7.0":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_without_a_store_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with Telling(None, "", rows("a", "b"), "tiling") as telling:
        do(telling, 0)
        do(telling, 1)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == "made\nmade\n"


def test_nothing_is_left_running_or_open_where_a_run_cannot_begin(tmp_path):
    store = Full(tmp_path)
    store.what = "metrics"
    before = threading.active_count()
    with pytest.raises(OutputError), Telling(store, "tile", rows("a"), "tiling"):
        pytest.fail("it must not begin")
    assert threading.active_count() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_real_workers_are_told_of(tmp_path, workers):
    names = ["count 3", "refuse", "exit once" if workers else "b", "c"]
    slides = pd.DataFrame({"slide_id": names, "path": [f"/slides/{name}.tif" for name in names]})
    telling = Telling(
        FolderStore(tmp_path / "out"), "tile", slides.to_dict("records"), "tiling", staged=False
    )
    code = each_slide(
        slides,
        Trouble(tmp_path),
        "tiling",
        engine=make_engine(workers=workers),
        keep_going=True,
        telling=telling,
    )
    assert code == 3
    told = table(tmp_path / "out")
    assert [told[name]["state"] for name in names] == ["done", "failed", "done", "done"]
    assert told["refuse"]["error"] == "SlideOpenError"
    assert told[names[2]]["tries"] == ("2" if workers else "1")
    counted = [line for line in journal(tmp_path / "out", telling.run) if line.get("tiles")]
    assert {line.get("slide") for line in counted} == {"count 3", None}


def test_it_needs_no_torch_no_ray_and_no_stores_by_url(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "import pathology.cohort.telling, pathology.cohort.each_slide\n"
        "from pathology.store.store import Store\n"
        "rows = [{'slide_id': 'a', 'path': 'a'}]\n"
        "with pathology.cohort.telling.Telling(Store.at(Path(sys.argv[1])), 'tile', rows, 't'):\n"
        "    pass\n"
        "print({'torch', 'ray', 'fsspec', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
