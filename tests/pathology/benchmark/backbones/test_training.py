"""Training in a process of its own; the process is a stand-in, the verb is tested elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pathology.benchmark.backbones import Backbone, command, train, training
from pathology.benchmark.backbones.training import training_cost
from pathology.benchmark.tile_sets import TileSet
from pathology.errors import TrainingError

BACKBONE = Backbone("small", "resnet18", training={"epochs": 2})

STAND_IN = """
import sys, time
from pathlib import Path

words = sys.argv[1:]
out = Path(words[words.index("--out") + 1])
(out / "logs").mkdir(exist_ok=True)
if (out / "finished").exists():
    sys.exit("pathology train: holds another run" if (out / "strict").exists() else 0)
with (out / "logs" / "metrics.csv").open("w") as log:
    log.write("epoch,step,val_balanced_accuracy\\n")
    for epoch in range(2):
        log.write(f"{epoch},{epoch},0.{epoch + 5}\\n")
        log.flush()
        time.sleep(0.05)
if (out / "fail").exists():
    print("pathology train: no such colour")
    sys.exit(2)
block = bytearray(100 * 2**20)
for i in range(0, len(block), 4096):
    block[i] = 1
time.sleep(0.3)
print("trained")
(out / "finished").write_text("")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(training, "PROGRAM", (sys.executable, str(script)))
    monkeypatch.setattr(training, "PACE_S", 0.02)


def test_words_say_all_that_is_trained(spots: TileSet, tmp_path: Path) -> None:
    words = command(BACKBONE, spots, 3, tmp_path, {"batch": 8, "epochs": 9})
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == "train"
    assert pairs["--out"] == str(tmp_path)
    assert pairs["--seed_everything"] == "3"
    assert pairs["--data.manifest"] == str(spots.folder / "manifest.csv")
    assert json.loads(pairs["--data.classes"]) == ["plain", "spot"]
    assert pairs["--trainer.max_epochs"] == "2"  # its own
    assert pairs["--trainer.check_val_every_n_epoch"] == "2"  # the last one: nothing is chosen
    assert pairs["--data.batch_size"] == "8"


def test_a_training_is_told_about_and_measured(
    spots: TileSet, tmp_path: Path, stand_in: None
) -> None:
    told: list[str] = []
    run = train(BACKBONE, spots, 0, tmp_path / "run", progress=told.append)
    assert run == tmp_path / "run"
    assert told[-1] == "epoch 2, balanced accuracy of validation 0.600"
    assert (run / "study.log").read_text() == "trained\n"
    cost = training_cost(run)
    assert cost is not None
    assert cost.is_whole
    assert cost.seconds > 0.1  # two pauses
    assert cost.cpu_seconds > 0
    # The block and the interpreter, which is far less than this process holds.
    assert 100 < cost.peak_mib < 200


def test_a_finished_one_is_left(spots: TileSet, tmp_path: Path, stand_in: None) -> None:
    train(BACKBONE, spots, 0, tmp_path / "run")
    before = (tmp_path / "run" / "study_cost.json").read_bytes()
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    train(BACKBONE, spots, 0, moved)
    assert (moved / "study.log").read_text() == "trained\n"
    assert (moved / "study_cost.json").read_bytes() == before


def test_another_one_is_refused_by_the_verb(spots: TileSet, tmp_path: Path, stand_in: None) -> None:
    run = train(BACKBONE, spots, 0, tmp_path / "run")
    before = (run / "study_cost.json").read_bytes()
    (run / "strict").touch()
    with pytest.raises(TrainingError, match="pathology train: holds another run"):
        train(BACKBONE, spots, 1, run)
    assert (run / "study_cost.json").read_bytes() == before


def test_what_fails_says_why_and_goes_on(spots: TileSet, tmp_path: Path, stand_in: None) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "fail").touch()
    with pytest.raises(
        TrainingError, match=r"training small failed \(exit 2\): pathology train: no such colour"
    ):
        train(BACKBONE, spots, 0, run)
    (run / "fail").unlink()
    train(BACKBONE, spots, 0, run)
    cost = training_cost(run)
    assert cost is not None
    assert cost.is_whole
    sessions = json.loads((run / "study_cost.json").read_text())["sessions"]
    assert [each["exit"] for each in sessions] == [2, 0]
    assert cost.seconds == pytest.approx(sum(each["seconds"] for each in sessions))


def test_a_session_that_was_killed_is_missed(
    spots: TileSet, tmp_path: Path, stand_in: None
) -> None:
    run = train(BACKBONE, spots, 0, tmp_path / "run")
    record = json.loads((run / "study_cost.json").read_text())
    peak = record["sessions"][0]["peak_mib"]
    # One that was killed, and one that was over before anybody looked.
    short = {"words": record["sessions"][0]["words"], "seconds": 1.0, "cpu_seconds": 1.0}
    record["sessions"] = [{"words": short["words"]}, short, *record["sessions"]]
    (run / "study_cost.json").write_text(json.dumps(record))
    cost = training_cost(run)
    assert cost is not None
    assert not cost.is_whole
    assert cost.peak_mib == peak
    assert training_cost(tmp_path) is None


def test_nothing_is_left_running(
    spots: TileSet, tmp_path: Path, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    popen = subprocess.Popen

    def noted(*args: object, **options: object) -> object:
        started.append(popen(*args, **options))  # type: ignore[call-overload]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(BACKBONE, spots, 0, tmp_path / "run", progress=stop)
    assert started[0].poll() is not None
