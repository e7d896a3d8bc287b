"""`pathology tile` that is killed and begun again, or begun twice, on a cluster."""

import os
import signal

import pytest

pytest.importorskip("ray")

from tests.cluster.accidents import wait_until_gone, waiting
from tests.cluster.faulty_tiles import checked_records, end, error_line


def stamps(folder):
    """What is written changes, though it were the same bytes."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.is_file()
    }


def test_a_run_that_is_killed_and_begun_again(tiles):
    tiles.fault("s2.wait", "s3.wait")  # two workers, with half of a table written each
    process = tiles.start("--keep-going")
    workers = waiting(tiles.faults, 2)
    os.kill(process.pid, signal.SIGKILL)
    assert end(process)[0] == -signal.SIGKILL
    # Nobody is left who would write beside the next run.
    wait_until_gone(workers)
    assert checked_records(tiles.folder, tiles.slides) == ["s0", "s1"]
    assert {path.stem for path in tiles.folder.glob("*.parquet")} == {"s0", "s1"}
    assert len(list(tiles.folder.glob(".*.part"))) == 2
    done = [name for slide in ("s0", "s1") for name in tiles.slides.made_of(slide)]
    before = stamps(tiles.folder)
    code, said = tiles.run("--keep-going")
    assert code == 0, said
    after = stamps(tiles.folder)
    assert {name: after[name] for name in done} == {name: before[name] for name in done}
    assert said.count("made before") == 2
    assert tiles.begun() == {"s0": 1, "s1": 1, "s2": 2, "s3": 2, "s4": 1, "s5": 1}
    tiles.check()
    print("survived: a run killed with two of six slides done, which were not done again")


def test_runs_into_one_folder_at_once(tiles):
    """Two of the same share it; one with other settings is refused."""
    tiles.fault("s0.always-wait")
    runs = [tiles.start(workers=1) for _ in range(2)]
    waiting(tiles.faults, 2)  # both are in the middle of the same slide
    code, said = tiles.run("--min-tissue", "0.7")
    assert code == 2, said
    assert "min_tissue 0.5, wanted 0.7" in error_line(said)
    assert list(tiles.folder.glob("*.parquet")) == []
    tiles.fault("go")
    for code, said in [end(run) for run in runs]:
        assert code == 0, said
    tiles.check()
    print("survived: two runs of the same into one folder, and one with other settings")
