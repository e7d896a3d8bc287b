"""Which run made which explanation, told by hashes of files."""

import json
import shutil

import pytest

from pathology.errors import ManifestError, StampMismatchError
from pathology.tasks.checkpoint import load_task
from pathology.viewer.model.weights import check_runs, digest_of, wanted


@pytest.fixture
def run(tmp_path, runs_folder):
    return shutil.copytree(runs_folder / "cnn", tmp_path / "cnn")


def test_the_hash_is_the_one_that_explanations_are_made_with(run, runs_folder, results_folder):
    digest = digest_of(run)
    assert digest == load_task(run)[1]
    assert digest == digest_of(f"{run}:raw") == digest_of(run / "checkpoints" / "best.ckpt")
    assert digest != digest_of(runs_folder / "vit")
    folder = next((results_folder / "cnn" / "case_1").iterdir())
    assert wanted(json.loads((folder / "explanation.json").read_text())) == [digest]


def test_no_run(run):
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(ManifestError, match=r"best.safetensors: no checkpoint .* give --run"):
        digest_of(run)


def test_members_are_wanted_too():
    record = {
        "settings": {
            "checkpoint": "a:raw",
            "layers": {"members": [{"checkpoint": "b"}, {"checkpoint": "c:raw"}]},
        }
    }
    assert wanted(record) == ["a", "b", "c"]
    assert wanted({"settings": {"checkpoint": "a", "layers": None}}) == ["a"]


def test_a_run_that_made_nothing_is_refused(tmp_path):
    folders = []
    for name, digest in (("one", "aaaa"), ("two", "bbbb"), ("none", None)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        if digest is not None:
            text = json.dumps({"settings": {"checkpoint": digest}})
            (folders[-1] / "explanation.json").write_text(text)
    check_runs({"aaaa": "runs/a", "bbbb": "runs/b"}, folders)
    with pytest.raises(
        StampMismatchError, match=r"--run runs/c: has the weights cccc, .*aaaa, bbbb"
    ):
        check_runs({"aaaa": "runs/a", "cccc": "runs/c"}, folders)
