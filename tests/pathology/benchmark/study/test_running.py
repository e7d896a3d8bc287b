"""What goes wrong stays where it is, and two runs do not meet in one folder."""

import csv
import errno
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml

from bcos_vit.errors import UnsupportedMethodError
from pathology.benchmark.study.cells import BlockedError
from pathology.benchmark.study.config import read_study
from pathology.benchmark.study.gathering import read_failures
from pathology.benchmark.study.place import Place
from pathology.benchmark.study.plan import trainings, units
from pathology.benchmark.study.runner import Step, outcome
from pathology.benchmark.study.running import run_studies
from pathology.benchmark.study.tile_sets import TileSets
from pathology.errors import OutputError, PathologyError
from pathology.outputs import complete_folder
from tests.pathology.benchmark.study.made_subject import made_set

ABSENT = """
name: absent
data:
  gone: {kind: folder, path: nowhere/at/all, classes: [a, b], size_px: 32}
backbones: [{model: bcos_resnet18, twin: true}]
methods: [bcos, random]
metrics: [localisation, cost]
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_data_that_is_not_there_fails_once_and_the_rest_waits(tmp_path, capsys, jobs):
    config, out = tmp_path / "absent.yaml", tmp_path / "out"
    config.write_text(ABSENT)
    assert run_studies([config], out, device="cpu", jobs=jobs) == 1
    text = capsys.readouterr().out
    assert text.count("failed: gone (data): ") == 1
    assert "1 failed" in text
    assert "waiting for what failed" in text
    with (out / "failures.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["state"], row["kind"], row["what"]) == ("failed", "data", "gone")
    assert "nowhere" in row["message"]
    table = pd.read_parquet(out / "results.parquet")
    assert table[["data", "group", "note"]].to_numpy().tolist() == [
        ["gone", "failed", row["message"]]
    ]
    assert (out / "report.html").is_file()
    [told] = read_failures(out)
    assert (told.state, told.message) == ("failed", row["message"])


def test_every_end_of_a_step_is_told_in_a_line(tmp_path):
    place = Place(read_study({"slides": {"encoder": "x"}}, "mine"), tmp_path)

    def end_of(error):
        def do(tell):
            if isinstance(error, Exception):
                raise error
            return error

        made = outcome(place, Step("grid", "it", do), print)
        return made.state, made.message

    assert end_of(True) == ("done", "")
    assert end_of(False) == ("found", "")
    assert end_of(BlockedError("training x")) == ("blocked", "needs training x")
    assert end_of(UnsupportedMethodError("no\nlayer")) == ("refused", "no layer")
    assert end_of(PathologyError("bad")) == ("failed", "bad")
    assert end_of(ValueError("x must be 1")) == ("failed", "x must be 1")
    assert end_of(KeyError("x")) == ("failed", "KeyError: 'x'")
    assert end_of(MemoryError()) == ("failed", "MemoryError")


def test_two_runs_do_not_meet_in_a_folder(tmp_path):
    config, out = tmp_path / "absent.yaml", tmp_path / "out"
    config.write_text(ABSENT)
    out.mkdir()
    code = (
        "import sys; from pathlib import Path; from pathology.outputs import alone_in\n"
        "with alone_in(Path(sys.argv[1]), 'busy'): print('in', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(OutputError, match="another process is running studies in it"):
            run_studies([config], out, device="cpu")
        other.stdin.close()
    assert not (out / "results.parquet").exists()


def test_there_is_no_page_of_nothing(tmp_path):
    config, out = tmp_path / "absent.yaml", tmp_path / "out"
    config.write_text(ABSENT)
    with pytest.raises(ValueError, match=r"nothing of absent is done there yet; leave out --only"):
        run_studies([config], out, device="cpu", only_report=True)
    assert not out.exists()


def test_a_network_that_cannot_be_made_is_told_first(tmp_path):
    config, out = tmp_path / "absent.yaml", tmp_path / "out"
    config.write_text(ABSENT.replace("twin: true", "model_args: {depht: 3}"))
    with pytest.raises(ValueError, match=r"absent: backbone bcos_resnet18 cannot be made: .*depht"):
        run_studies([config], out, device="cpu")
    assert not out.exists()


def test_networks_are_trained_on_the_device_of_the_study(tmp_path, monkeypatch):
    study = read_study(yaml.safe_load(ABSENT))
    monkeypatch.setattr(TileSets, "get", lambda self, data: made_set())

    def words(device):
        place = Place(study, tmp_path, device)
        return " ".join(place.networks.command(next(trainings(study))))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert "--trainer.accelerator" not in words("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "--trainer.accelerator cpu" in words("cpu")
    assert "--trainer.devices [1]" in words("cuda:1")
    assert "--trainer.accelerator" not in words("cuda")


def test_a_full_disk_ends_a_study_and_no_other_failure_does(tmp_path):
    place = Place(read_study({"slides": {"encoder": "x"}}, "mine"), tmp_path)

    def fails(code):
        def do(tell):
            with complete_folder(tmp_path / "cell"):
                raise OSError(code, os.strerror(code))

        return Step("grid", "it", do)

    with pytest.raises(OutputError, match="cell: cannot be written: No space left on device"):
        outcome(place, fails(errno.ENOSPC), print)
    assert outcome(place, fails(errno.EIO), print).state == "failed"
    assert not list(tmp_path.iterdir())


def test_groups_are_measured_where_they_say_something():
    study = read_study(
        {
            "data": {
                "plain": {"kind": "synthetic"},
                "pen": {"kind": "synthetic", "confounder": "pen"},
            },
            "backbones": ["bcos_resnet18"],
            "methods": ["bcos"],
            "metrics": ["localisation", "confounder", "ledger", "idsds", "cost"],
            "seeds": [3, 4],
            "pictures": 1,
        }
    )
    assert [t.name for t in trainings(study)] == [
        "plain-bcos_resnet18-s3", "plain-bcos_resnet18-s4",
        "pen-bcos_resnet18-s3", "pen-bcos_resnet18-s4",
        "plain-bcos_resnet18-s3-deleted4", "plain-bcos_resnet18-s4-deleted4",
    ]  # fmt: skip
    of_maps = {unit.training.name: unit for unit in units(study, False)}
    assert of_maps["plain-bcos_resnet18-s3"].groups == ("localisation", "idsds", "ledger")
    assert of_maps["pen-bcos_resnet18-s4"].groups == ("confounder", "ledger")
    # Of the first seed alone.
    assert [unit.pictures for unit in of_maps.values()] == [True, False, True, False]
    assert all(unit.groups == ("cost",) for unit in units(study, True))
