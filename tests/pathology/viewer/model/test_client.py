"""The queue of questions, with a worker that says what the test has it say."""

from pathlib import Path

import pytest

from pathology.viewer.model import client as client_module
from pathology.viewer.model.client import ModelClient, UnavailableError, UnknownJobError
from pathology.viewer.model.question import Answer, Explained, Report, TileQuestion
from pathology.viewer.model.weights import digest_of

EXPLAINED = Explained(Path("explained"), Path("slide.tif"))


class Scripted:
    """A worker that notes what it is sent."""

    made: list["Scripted"]

    def __init__(self, heard, ended, folder):
        self.heard, self.ended, self.folder = heard, ended, folder
        self.sent, self.cancelled, self.closed = [], [], False
        self.pid = 1
        self.made.append(self)

    def send(self, job):
        self.sent.append(job)

    def cancel(self, number):
        self.cancelled.append(number)

    def close(self):
        self.closed = True

    def say(self, **words):
        self.heard(Report(self.sent[-1].number, **words))


@pytest.fixture
def workers(monkeypatch):
    """Those that were started, in order."""
    monkeypatch.setattr(Scripted, "made", [], raising=False)
    monkeypatch.setattr(client_module, "WorkerProcess", Scripted)
    return Scripted.made


@pytest.fixture
def model(workers, runs_folder):
    return ModelClient([runs_folder / "cnn"])


@pytest.fixture
def ask(model, runs_folder):
    record = {"settings": {"checkpoint": digest_of(runs_folder / "cnn")}}
    return lambda index: model.ask("evidence", EXPLAINED, record, TileQuestion(index))


def test_nothing_is_started_before_the_first_question(model, workers, ask, monkeypatch, tmp_path):
    assert model.state == "not loaded"
    assert not workers
    folder = Path.cwd()
    monkeypatch.chdir(tmp_path)
    ask(0)
    assert [worker.folder for worker in workers] == [folder]
    assert model.state == "working"


def test_one_after_another(model, workers, ask):
    first, second, third = ask(1), ask(2), ask(3)
    (worker,) = workers
    assert [job.question.index for job in worker.sent] == [1]
    assert (first.state, second.state, third.state) == ("running", "queued", "queued")
    worker.say(done=2, total=5, what="encoding")
    told = model.job(first.id).to_dict()
    assert (told["done"], told["total"], told["what"]) == (2, 5, "encoding")
    worker.say(answer=Answer({"found": 1}, {"map/0": b"1234"}))
    assert first.state == "done"
    assert model.job(first.id).to_dict()["result"] == {"found": 1}
    assert model.part(first.id, "map/0") == b"1234"
    assert second.state == "running"
    worker.say(error="no such tile")
    assert (second.state, second.error) == ("failed", "no such tile")
    assert [job.question.index for job in worker.sent] == [1, 2, 3]
    with pytest.raises(UnknownJobError, match="no answer 'map/1'"):
        model.part(first.id, "map/1")
    with pytest.raises(UnknownJobError, match="no question 'x'"):
        model.job("x")


def test_the_same_question_is_the_same_job_until_it_has_failed(model, workers, ask):
    first = ask(1)
    assert ask(1) is first
    workers[0].say(answer=Answer({}, {}))
    assert ask(1) is first
    second = ask(2)
    workers[0].say(error="no")
    assert ask(2) is not second


def test_cancelling(model, workers, ask):
    first, second, third = ask(1), ask(2), ask(3)
    (worker,) = workers
    assert model.cancel(second.id).state == "cancelled"
    assert model.cancel(first.id).state == "cancelled"
    assert worker.cancelled == [first.job.number]
    # It is between two batches for a while; the next question waits until it has given up.
    assert third.state == "queued"
    worker.say(done=1, total=2, what="encoding")
    assert first.state == "cancelled"
    worker.say(cancelled=True)
    assert third.state == "running"
    assert [job.question.index for job in worker.sent] == [1, 3]
    worker.say(answer=Answer({}, {}))
    assert model.cancel(third.id).state == "done"


def test_a_question_of_two_pages_goes_on_until_both_have_given_it_up(model, workers, ask):
    for index in (1, 2):  # running, and waiting
        ask(index)
    for index in (1, 2):
        job = ask(index)
        assert not model.cancel(job.id).is_over
        assert model.cancel(job.id).state == "cancelled"
    assert len(workers[0].cancelled) == 1


def test_no_process_to_ask(model, ask, monkeypatch):
    def refuse(*arguments):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(client_module, "WorkerProcess", refuse)
    job = ask(1)
    assert job.state == "failed"
    assert job.error == "the model's process cannot be started: Cannot allocate memory"
    assert model.state == "not loaded"


def test_an_answer_that_comes_after_cancelling_is_left(model, workers, ask):
    first = ask(1)
    model.cancel(first.id)
    workers[0].say(answer=Answer({}, {}))
    assert first.state == "cancelled"
    assert first.answer is None
    assert model.state == "ready"


def test_a_worker_that_dies_fails_its_job_and_the_next_has_a_new_one(model, workers, ask):
    first, second = ask(1), ask(2)
    workers[0].ended("the model's process was ended by SIGKILL")
    assert first.state == "failed"
    assert first.error.startswith("the model's process was ended by SIGKILL; ask again")
    assert len(workers) == 2
    assert second.state == "running"
    assert workers[1].sent[0].question.index == 2
    assert ask(1) is not first


def test_only_so_many_bytes_of_answers_are_kept(model, workers, ask, monkeypatch):
    monkeypatch.setattr(client_module, "ANSWER_BYTES", 1000)
    jobs = []
    for index in range(4):
        jobs.append(ask(index))
        workers[0].say(answer=Answer({}, {"map/0": bytes(400)}))
    assert [job.answer is not None for job in jobs] == [False, False, True, True]
    with pytest.raises(UnknownJobError):
        model.part(jobs[0].id, "map/0")
    assert model.job(jobs[0].id).error == "the answer is no longer kept; ask again"
    assert ask(0) is not jobs[0]
    workers[0].say(answer=Answer({}, {"map/0": bytes(5000)}))
    assert [job.answer is not None for job in jobs] == [False] * 4


def test_jobs_that_are_over_are_forgotten(model, workers, ask, monkeypatch):
    monkeypatch.setattr(client_module, "MOST_KNOWN", 3)
    jobs = []
    for index in range(5):
        jobs.append(ask(index))
        workers[0].say(answer=Answer({}, {}))
    with pytest.raises(UnknownJobError):
        model.job(jobs[0].id)
    assert model.job(jobs[-1].id) is jobs[-1]


def test_the_queue_has_an_end(model, ask, monkeypatch):
    monkeypatch.setattr(client_module, "MOST_WAITING", 2)
    for index in range(3):
        ask(index)
    with pytest.raises(UnavailableError, match="2 questions are waiting"):
        ask(3)


def test_closing(model, workers, ask):
    first, second = ask(1), ask(2)
    model.close()
    assert workers[0].closed
    assert (first.state, second.state) == ("cancelled", "cancelled")
    workers[0].ended("the model's process ended with code 0")
    assert len(workers) == 1
    with pytest.raises(UnavailableError, match="closing"):
        ask(3)


def test_an_explanation_of_another_run_says_of_which(model):
    record = {"settings": {"checkpoint": "0123456789abcdef"}}
    assert model.missing(record) == ["0123456789abcdef"]
    with pytest.raises(UnavailableError, match=r"made with the weights 0123456789abcdef.*cnn"):
        model.ask("evidence", EXPLAINED, record, TileQuestion(0))


def test_no_runs():
    with pytest.raises(ValueError, match="runs must name one"):
        ModelClient([])
