"""What the worker says of a question: how far it is, what it found, or one line."""

import pytest

from pathology.viewer.model.question import Explained, Job, MaskQuestion, Means, TileQuestion
from pathology.viewer.model.weights import digest_of
from pathology.viewer.model.worker.loop import Worker

EVERYWHERE = (((-1.0, -1.0), (2000.0, -1.0), (2000.0, 2000.0), (-1.0, 2000.0)),)


class Inbox:
    """Where a job is given up after so many looks."""

    def __init__(self, looks=None):
        self.looks = looks

    def is_cancelled(self, number):
        if self.looks is None:
            return False
        self.looks -= 1
        return self.looks < 0


@pytest.fixture
def job(results_folder, slides_folder, runs_folder):
    explained = Explained(
        results_folder / "vit" / "case_1" / "tumour", slides_folder / "case_1.tif"
    )
    run = runs_folder / "vit"
    means = Means({digest_of(run): str(run)}, device="cpu")
    return lambda question: Job(7, explained, question, means)


def reports(job, looks=None):
    said = []
    Worker(Inbox(looks), said.append).do(job)
    assert all(report.number == 7 for report in said)
    assert [report.is_last for report in said] == [False] * (len(said) - 1) + [True]
    return said


def test_it_says_how_far_it_is(job):
    *progress, last = reports(job(MaskQuestion((EVERYWHERE,))))
    assert last.answer.result["tiles"]["run"] == last.answer.result["tiles"]["all"]
    assert set(last.answer.result["seconds"]) == {"loading", "answering"}
    assert [report.what for report in progress[:2]] == ["loading libraries", "loading the run"]
    counts = [(report.done, report.total) for report in progress[2:]]
    total = counts[0][1]
    assert total > 1
    assert counts == [(done, total) for done in range(total + 1)] * 2  # of two members


def test_it_gives_up_between_batches(job):
    # Twice while loading, and before the first batch.
    *progress, last = reports(job(MaskQuestion((EVERYWHERE,))), looks=3)
    assert last.cancelled
    assert progress[-1].done == 1
    assert reports(job(MaskQuestion((EVERYWHERE,))), looks=0)[-1].cancelled


def test_an_error_of_ours_is_its_line(job, capsys):
    (*_, last) = reports(job(TileQuestion(0, depth="stem")))
    assert last.error == "depth must be one of pixels, got 'stem'"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")],
)
def test_too_little_memory_is_no_fault(job, capsys, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("pathology.viewer.model.worker.ask_tile.ask_tile", fail)
    (*_, last) = reports(job(TileQuestion(0)))
    assert last.error == "there is too little memory for this on this machine"
    assert capsys.readouterr().err == ""


def test_a_fault_is_a_line_and_the_rest_goes_to_the_log(job, capsys, monkeypatch):
    def fail(*arguments):
        raise KeyError("two\nlines")

    monkeypatch.setattr("pathology.viewer.model.worker.ask_tile.ask_tile", fail)
    (*_, last) = reports(job(TileQuestion(0)))
    assert last.error == r"a fault of the viewer, KeyError: 'two\nlines'"
    assert "Traceback" in capsys.readouterr().err
