"""`pathology tile` on a cluster: workers that die or lack memory, and a slide that is corrupt."""

import csv

import pytest

pytest.importorskip("ray")

from tests.cluster.faulty_tiles import FaultyTiles, Slides, checked_records, journal, records


@pytest.fixture
def tiles(slides, cluster, tmp_path):
    """A copy of the slides, as one is to be damaged."""
    copy = tmp_path / "slides"
    copy.mkdir()
    for path in slides.folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return FaultyTiles(Slides(copy, slides.wanted), tmp_path, cluster.address)


def messages(path):
    with path.open(newline="") as file:
        return {row["slide_id"]: row["message"] for row in csv.DictReader(file)}


def test_slides_that_fail_and_workers_that_die_leave_the_others_alone(tiles):
    corrupt = tiles.slides.folder / "s3.tif"
    whole = corrupt.read_bytes()
    corrupt.write_bytes(whole[: len(whole) // 2])
    # Signal 9 is what the system sends to whoever takes too much memory.
    tiles.fault("s0.kill", "s1.always-kill", "s2.memory")
    code, said = tiles.run("--keep-going")
    assert code == 3, said
    assert "Traceback" not in said
    out = tiles.folder
    failed = messages(out / "failures.csv")
    assert list(failed) == ["s1", "s2", "s3"]
    assert failed["s1"].startswith(f"{tiles.slides.folder / 's1.tif'}: tried 2 times")
    assert "memory" in failed["s1"]
    assert failed["s2"].startswith("MemoryError")
    assert failed["s3"].startswith(f"{corrupt}: ")
    # The same is told for each slide, and in the table of all.
    kept = records(out, "failed")
    assert {name: record.message for name, record in kept.items()} == failed
    assert [kept[name].tries for name in failed] == [2, 1, 1]
    with (out / "cohort.csv").open(newline="") as file:
        states = {row["slide_id"]: row["state"] for row in csv.DictReader(file)}
    assert states == dict.fromkeys(("s0", "s4", "s5"), "done") | dict.fromkeys(failed, "failed")
    lost = [event["slide"] for event in journal(out) if event["event"] == "lost"]
    assert sorted(lost) == ["s0", "s1"]
    assert tiles.begun() == {"s0": 2, "s1": 2, "s2": 1, "s3": 1, "s4": 1, "s5": 1}
    # Those that are done are whole; there is no table of others, whole or half.
    assert checked_records(out, tiles.slides) == ["s0", "s4", "s5"]
    assert {path.stem for path in out.glob("*.parquet")} == {"s0", "s4", "s5"}
    assert list(out.glob(".*.part")) == []
    print(
        "survived: a worker killed in the middle of a slide, two at another, a slide for which"
        " there was no memory, and one that was corrupt; three of six slides were done"
    )
    corrupt.write_bytes(whole)
    (tiles.faults / "s1.always-kill").unlink()
    code, said = tiles.run(workers=0)
    assert code == 0, said
    assert said.count("made before with the same settings") == 3
    assert tiles.begun() == {"s0": 2, "s1": 3, "s2": 2, "s3": 2, "s4": 1, "s5": 1}
    tiles.check()
    print("survived: all of that; the next run did those three, and no other")
