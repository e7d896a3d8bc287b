"""``pathology benchmark --config``: a whole study, killed and gone on with."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pathology.benchmark.study.rows import COLUMNS

STUDY = """
name: smoke
title: A whole study, small
data:
  tissue: {kind: synthetic, tiles: {train: 8, val: 4, test: 4}, size_px: 32, mpp: 2.0}
backbones:
  - {model: bcos_resnet18, twin: true, training: {epochs: 1, lr: 1.0e-3, batch: 8}}
methods: [bcos, random, oracle]
metrics: [{localisation: {repeats: 20}}, {grid: {mosaics: 2}}, ledger]
examples: {test: 4, validation: 2}
pictures: 1
"""


def cells(out):
    """Bytes and time of the files of finished cells of methods."""
    done = [record.parent for record in out.glob("cells/methods/*/*/cell.json")]
    files = [file for cell in done for file in sorted(cell.iterdir())]
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def kill_at_first_cell(arguments, out):
    """Starts the verb and kills it, not gently, once a cell of a method is there."""
    words = [sys.executable, "-m", "pathology.cli", *map(str, arguments)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while not list(out.glob("cells/methods/*/*/cell.json")):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_a_study_that_is_killed_goes_on(pathology, refused, tmp_path):
    config, out = tmp_path / "smoke.yaml", tmp_path / "out"
    config.write_text(STUDY)
    same = ("benchmark", "--config", config, "--out", out, "--device", "cpu")
    kill_at_first_cell(same, out)
    before = cells(out)
    assert before
    assert not (out / "results.parquet").exists()

    code, text, err = pathology(*same)
    assert code == 0, err
    assert "1 refused" in text
    after = cells(out)
    assert {file: after[file] for file in before} == before
    assert len(after) > len(before)
    assert not list(out.rglob("*.part"))

    table = pd.read_parquet(out / "results.parquet")
    assert list(table) == list(COLUMNS)
    assert set(table["backbone"]) == {"bcos_resnet18", "resnet18"}
    assert set(table["method"]) == {"", "bcos", "random", "oracle"}
    assert set(table["pair"]) == {"resnet18"}
    oracle = table[(table["method"] == "oracle") & (table["metric"] == "epg")]
    assert (oracle["value"] == 1).all()
    [told] = table[table["group"] == "refused"].itertuples()
    assert (told.method, told.backbone) == ("bcos", "resnet18")
    assert "bcos is for B-cos networks" in told.note
    assert (table.loc[table["value"].isna(), "note"] != "").all()
    with (out / "failures.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["refused"]
    commands = (out / "commands.txt").read_text().splitlines()
    assert commands[0].startswith("pathology benchmark --config ")
    assert sum(line.startswith("pathology train ") for line in commands) == 2
    page = (out / "report.html").read_text()
    assert "A whole study, small" in page

    # Nothing is left to do, and the table is the same to the byte.
    first = (out / "results.parquet").read_bytes()
    code, text, err = pathology(*same)
    assert code == 0, err
    assert " done now" not in text
    assert cells(out) == after
    assert (out / "results.parquet").read_bytes() == first
    code, text, err = pathology(*same, "--only-report")
    assert code == 0, err
    assert (out / "results.parquet").read_bytes() == first

    # A cell that cannot be computed is told in a line, and the rest is there all the same.
    config.write_text(STUDY.replace("ledger]", "{folds: {folds: 9}}]"))
    code, text, err = pathology(*same)
    assert code == 1
    assert "9 folds need as many patients" in text
    table = pd.read_parquet(out / "results.parquet")
    assert set(table[table["group"] == "failed"]["metric"]) == {"runs"}
    assert "localisation" in set(table["group"])
    assert "two studies are called 'smoke'" in refused(*same[:3], config, *same[3:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("random", "randm"), "no attribution method is called 'randm'; did you mean random"),
        (("ledger]", "ledgr]"), "metrics: there is no group 'ledgr'; did you mean ledger?"),
        (("bcos_resnet18", "bcos_resnet81"), "bcos_resnet81"),
    ],
)
def test_a_study_that_cannot_be_is_refused(change, message, refused, tmp_path):
    config = tmp_path / "smoke.yaml"
    config.write_text(STUDY.replace(*change))
    line = refused("benchmark", "--config", config, "--out", tmp_path / "out")
    assert str(config) in line
    assert message in line
    assert not Path(tmp_path / "out").exists()


def test_options_are_checked_before_anything_is_made(refused, tmp_path):
    config = tmp_path / "smoke.yaml"
    config.write_text(STUDY)
    same = ("benchmark", "--config", config, "--out", tmp_path / "out")
    assert "--jobs must be at least 1, got 0" in refused(*same, "--jobs", "0")
    assert "--device tpu cannot be used" in refused(*same, "--device", "tpu")
    assert "cannot be read" in refused("benchmark", "--config", "none.yaml", "--out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_help_tells_of_studies_and_kinds(pathology):
    code, text, _ = pathology("benchmark", "--help")
    assert code == 0
    assert "--config STUDY.yaml" in text
    assert "speed" in text
