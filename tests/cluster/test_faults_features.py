"""`pathology features` on a cluster whose worker, which holds a model, is killed."""

import os
import sys

import pytest

pytest.importorskip("ray")

from pathology.cli import main
from pathology.cohort.records import Record, record_name
from tests.made_cohort import results_in

# Each process counts its batches; `kill.4` kills the first that comes to its fourth.
STUMBLING = """
import os, signal
from pathlib import Path
from pathology.data.encoders import timm_encoder

FAULTS = Path({faults!r})
SMALL = {{"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}}
batch = 0

def encoder():
    made = timm_encoder("vit_tiny_patch16_224", seed=3, arguments=SMALL)
    made.module.register_forward_pre_hook(stumble)
    with (FAULTS / "loaded").open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    return made

def stumble(*_):
    global batch
    batch += 1
    kill = FAULTS / f"kill.{{batch}}"
    if kill.exists():
        kill.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
"""
MODEL = ["--encoder", "stumbling:encoder", "--device", "cpu", "--batch-size", "8"]


@pytest.fixture
def features(slides, tmp_path, monkeypatch, capsys):
    """Runs the verb; returns exit code and what it said."""
    (tmp_path / "stumbling.py").write_text(STUMBLING.format(faults=str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    tables = ["--tiles", str(slides.folder.parent / "clean"), "--readers", "1"]

    def run(out, *more):
        words = ["features", "--slides", str(slides.folder), *tables, "--out", str(out)]
        code = main([*words, *MODEL, *more])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    yield run
    sys.modules.pop("stumbling", None)


def test_a_worker_that_is_killed_in_the_middle_of_a_slide(features, slides, cluster, tmp_path):
    clean, out = tmp_path / "clean", tmp_path / "out"
    assert features(clean)[0] == 0
    wanted = results_in(clean)
    (tmp_path / "loaded").unlink()
    (tmp_path / "kill.4").touch()  # of two or three for each slide
    ray = ["--engine", "ray", "--address", cluster.address, "--workers", "1"]
    code, said = features(out, *ray)
    assert code == 0, said
    assert "it will be tried again" in said
    assert results_in(out) == wanted
    for name in slides.names:
        record = Record.from_json((out / record_name("features", name)).read_bytes())
        assert (record.slide_id, list(record.files)) == (name, [f"{name}.h5"])
    loaded = (tmp_path / "loaded").read_text().split()
    workers = [process for process in loaded if process != str(os.getpid())]
    assert len(workers) == len(set(workers)) == 2  # by each once
    code, said = features(out)  # the same, on this machine
    assert code == 0, said
    assert said.count("made before") == len(slides.names)
    print("survived: a worker of `features` killed in the middle of a slide")
