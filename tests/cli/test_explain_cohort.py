"""``pathology explain`` over a cohort: killed, repeated, run twice at once, and over bad slides."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pathology.maps.ome_tiff import read_ome_tiff
from pathology.outputs import draft_path
from tests.cli.made_slides import write_slide
from tests.made_run import write_run

NAMES = ["s0", "s1", "s2"]
TILES = ["--size-px", "32", "--tile-mpp", "2.0", "--exclude", "none"]

# Runs the verb; waits in the midst of its first slide, in the second batch that is taken apart, and
# is killed in the midst of its second.
DRIVER = """
import os, pathlib, signal, sys, time
from pathology.cli import main
from pathology.explain.results import write
from pathology.explain.account import Account

write.write_figure = lambda *_: None
place, *words = sys.argv[1:]
place, take, seen = pathlib.Path(place), Account.take, []

def midway(self, *given):
    take(self, *given)
    if all(self is not each for each in seen):
        seen.append(self)
        return
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    (place / "waiting").touch()
    while not (place / "go").exists():
        time.sleep(0.01)

Account.take = midway
sys.exit(main(words))
"""


@pytest.fixture(scope="module", autouse=True)
def without_figures():
    """Figures for papers take most of the time of a slide this small, and hold no numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathology.explain.results.write.write_figure", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Slides, their manifest and tiles, and a run."""
    from pathology.cli import main

    folder = tmp_path_factory.mktemp("made")
    for i, name in enumerate(NAMES):
        write_slide(folder / f"{name}.tif", i, side=256)
    with (folder / "slides.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("slide_id", "path"), *((n, f"{n}.tif") for n in NAMES)])
    slides, tiles = str(folder / "slides.csv"), str(folder / "tiles")
    assert main(["tile", "--slides", slides, "--out", tiles, *TILES]) == 0
    write_run(folder / "run", mpp=2.0)
    return folder


def arguments(made, out, *more):
    words = [
        "explain", "--run", made / "run", "--slides", made / "slides.csv",
        "--tiles", made / "tiles", "--out", out, "--target", "tumour", "--batch-size", "4",
        "--depth", "layer3", "--device", "cpu", *more,
    ]  # fmt: skip
    return [str(word) for word in words]


def only(slide, words):
    """The same for one slide."""
    place = words.index("--slides") + 1
    return [*words[:place], str(slide), *words[place + 1 :]]


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """What a run makes that nothing disturbs."""
    from pathology.cli import main

    out = tmp_path_factory.mktemp("whole")
    assert main(arguments(made, out)) == 0
    return out


@pytest.fixture
def own(made, tmp_path):
    """Slides, tiles and run of a test's own, to be spoilt."""
    return shutil.copytree(made, tmp_path / "own")


@pytest.fixture
def done(whole, tmp_path):
    """What was made of them, likewise."""
    return shutil.copytree(whole, tmp_path / "done")


def start(place, words):
    """A process of its own that adds up in as many threads as this one."""
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(place), *words],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def numbers(out, name):
    """What an explanation says in numbers; not when it was made."""
    folder = out / name / "tumour"
    table = pq.read_table(folder / "tiles.parquet").replace_schema_metadata()
    maps = [read_ome_tiff(folder / f"{each}.ome.tif") for each in ("heatmap", "density")]
    ledger = maps[0][1]["ledger"]
    return table.to_pydict(), [each.values.tobytes() for each, _ in maps], ledger


def same_numbers(one, other, names=NAMES):
    for name in names:
        (table, maps, ledger), (table2, maps2, ledger2) = numbers(one, name), numbers(other, name)
        np.testing.assert_equal(table, table2)  # NaN is NaN
        assert maps == maps2
        assert ledger == ledger2


def drafts(out):
    return [path for path in out.rglob("*") if path.name.endswith(".part")]


def test_two_at_once_come_to_the_same_and_a_killed_one_is_gone_on_with(
    pathology, made, whole, tmp_path
):
    out = tmp_path / "out"
    words = arguments(made, out)
    first = out / "s0" / "tumour" / "explanation.json"
    other = start(tmp_path, words)
    while not (tmp_path / "waiting").exists():
        assert other.poll() is None, other.communicate()
        time.sleep(0.01)
    # Now it is in the midst of the first slide. This one passes it, and leaves its draft alone.
    code, said, _ = pathology(*only(made / "s0.tif", words))
    assert (code, said.count("made before")) == (0, 0)
    same_numbers(out, whole, ["s0"])
    assert drafts(out) == [draft_path(first.parent, other.pid)]

    # It comes second, puts the same in place, goes on to the next slide, and dies.
    (tmp_path / "go").touch()
    _, err = other.communicate(timeout=300)
    assert other.returncode == -signal.SIGKILL, err
    assert not (out / "s1" / "tumour").exists()
    assert drafts(out) == [draft_path(out / "s1" / "tumour", other.pid)]
    same_numbers(out, whole, ["s0"])
    before = first.stat()

    code, said, _ = pathology(*words)
    assert (code, said.count("made before")) == (0, 1)
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert drafts(out) == []
    same_numbers(out, whole)


def test_the_draft_of_a_killed_replacement_goes(pathology, made, done):
    folder = done / "s0" / "tumour"
    made_at = (folder / "explanation.json").stat().st_mtime_ns
    ended = subprocess.Popen(["true"])
    ended.wait()
    draft = draft_path(folder, ended.pid)
    (draft / "stitch").mkdir(parents=True)
    code, said, _ = pathology(*arguments(made, done))
    assert (code, said.count("made before")) == (0, 3)
    assert (folder / "explanation.json").stat().st_mtime_ns == made_at
    assert drafts(done) == []


def test_a_corrupt_slide_is_listed_and_the_others_are_done(pathology, refused, own, whole, done):
    for name in NAMES[1:]:
        shutil.rmtree(done / name)
    bad, words = own / "s1.tif", arguments(own, done)
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 3])
    assert "s1" in refused(*words)
    assert not (done / "s1" / "tumour").exists()
    code, said, _ = pathology(*words, "--keep-going")
    assert code == 3
    assert "1 of 3 slides failed" in said
    with (done / "failures.csv").open(newline="") as file:
        (failure,) = csv.DictReader(file)
    assert failure["slide_id"] == "s1"
    assert failure["path"].endswith("s1.tif")
    assert drafts(done) == []
    assert [(done / name / "tumour").is_dir() for name in NAMES] == [True, False, True]

    # Once the slide is whole again, so is the cohort.
    bad.write_bytes(good)
    code, said, _ = pathology(*words, "--keep-going")
    assert (code, said.count("made before")) == (0, 2)
    assert not (done / "failures.csv").exists()
    same_numbers(done, whole)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--out-mpp", "4"], "out_mpp=8.0, asked for 4.0"),
        (["--depth", "head"], "depth='layer3', asked for 'head'"),
        (["--detail", "0.9"], "detail=1.0, asked for 0.9"),
        (["--pooling", "top3"], "pooling="),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_other_settings_are_refused_for_each_slide(pathology, made, whole, more, named):
    before = {path: path.read_bytes() for path in whole.rglob("s?*/**/*") if path.is_file()}
    assert len(before) > 20
    code, said, _ = pathology(*arguments(made, whole, *more, "--keep-going"))
    assert (code, said.count(named)) == (3, 3)
    assert {path: path.read_bytes() for path in before} == before
    code, said, _ = pathology(*arguments(made, whole))
    assert (code, said.count("made before with the same settings")) == (0, 3)
    assert not (whole / "failures.csv").exists()


def test_another_slide_of_the_same_name_is_refused(pathology, refused, own, done):
    words = arguments(own, done)
    write_slide(own / "s1.tif", 7, side=256)
    # Neither with the tiles of the one before, nor beside what was made of it.
    assert "s1.parquet" in refused(*words)
    tiles = ["tile", "--slides", own / "s1.tif", "--out", own / "tiles", *TILES, "--overwrite"]
    assert pathology(*tiles)[0] == 0
    line = refused(*words)
    assert "made with slide=" in line
    assert "--overwrite" in line


def test_a_slides_folder_that_cannot_be_made_stops_all(refused, made, done):
    for name in NAMES[1:]:
        shutil.rmtree(done / name)
    (done / "s1").write_text("in the way")
    assert "cannot be written" in refused(*arguments(made, done, "--keep-going"))
    assert not (done / "s2").exists()
