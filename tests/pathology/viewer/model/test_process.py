"""The worker as a process: it answers, it dies, it is given up, and it is never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pathology.viewer.model.client import ModelClient
from pathology.viewer.model.question import Explained, MaskQuestion, TileQuestion

PATIENCE_S = 120  # of a machine that does other things as well

VIEWER = """
import json, sys, time
from pathlib import Path
from pathology.viewer.model.client import ModelClient
from pathology.viewer.model.question import Explained, TileQuestion

run, folder, slide = map(Path, sys.argv[1:])
model = ModelClient([run], device="cpu")
record = json.loads((folder / "explanation.json").read_text())
model.ask("e", Explained(folder, slide), record, TileQuestion(0))
try:
    print(model.pid, flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    model.close()
    print("closed", flush=True)
"""


@pytest.fixture(scope="module")
def model(runs_folder):
    model = ModelClient([runs_folder / "vit"], device="cpu")
    yield model
    model.close()


@pytest.fixture(scope="module")
def ask(model, results_folder, slides_folder):
    folder = results_folder / "vit" / "case_1" / "tumour"
    record = json.loads((folder / "explanation.json").read_text())
    explained = Explained(folder, slides_folder / "case_1.tif")
    return lambda question: model.ask("evidence", explained, record, question)


def wait(reached):
    """Until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_running(pid):
    """Whether there is such a process, zombies aside."""
    try:
        told = Path(f"/proc/{pid}/stat").read_bytes()
        return told.rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_questions_after_a_death(model, ask):
    first = ask(TileQuestion(0))
    wait(lambda: first.what == "loading libraries")
    os.kill(model.pid, signal.SIGKILL)
    wait(lambda: first.is_over)
    assert first.state == "failed"
    assert first.error.startswith("the model's process was ended by SIGKILL (perhaps for want of")
    assert "\n" not in first.error
    assert model.state == "not loaded"

    second, third = ask(TileQuestion(0)), ask(TileQuestion(10**6))
    square = ((300.0, 200.0), (520.0, 200.0), (520.0, 420.0), (300.0, 420.0))
    fourth, fifth = ask(MaskQuestion(((square,),))), ask(TileQuestion(1))
    model.cancel(fifth.id)
    wait(lambda: fourth.is_over)
    assert second.state == "done"
    told = second.answer.result["maps"][0]
    values = np.frombuffer(model.part(second.id, told["values"]), "<f4")
    assert values.size == told["width"] * told["height"]
    assert model.part(second.id, "tile.png").startswith(b"\x89PNG")
    assert second.answer.result["seconds"]["loading"] > 0
    assert third.state == "failed"
    assert third.error.startswith("index must be below ")
    assert fourth.state == "done"
    assert fourth.answer.result["tiles"]["run"] > 0
    assert fourth.done == fourth.total >= 1
    assert fifth.state == "cancelled"
    assert model.state == "ready"


@pytest.fixture
def viewer(runs_folder, results_folder, slides_folder):
    """A viewer in a process group of its own, as a terminal has it, and its worker's number."""
    paths = runs_folder / "cnn", results_folder / "cnn" / "case_1" / "tumour"
    process = subprocess.Popen(
        [sys.executable, "-c", VIEWER, *map(str, paths), str(slides_folder / "case_1.tif")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
    )  # fmt: skip
    with process:
        yield process, int(process.stdout.readline())
        process.kill()


needs_proc = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="/proc tells what runs")


@needs_proc
def test_a_viewer_that_is_killed_leaves_no_worker(viewer):
    process, pid = viewer
    assert is_running(pid)
    process.kill()
    process.wait()
    wait(lambda: not is_running(pid))


@needs_proc
def test_ctrl_c_ends_both_without_a_word(viewer):
    process, pid = viewer
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert out == b"closed\n"
    assert err == b""
    assert process.returncode == 0
    assert not is_running(pid)
