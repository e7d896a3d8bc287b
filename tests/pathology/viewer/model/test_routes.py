"""Questions over HTTP: who can be asked, errors in one line, and what comes back."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from pathology.viewer.app import make_app
from pathology.viewer.library.library import Library
from pathology.viewer.model import client as client_module
from pathology.viewer.model.client import ModelClient
from pathology.viewer.model.question import Answer, MaskQuestion, Report, TileQuestion

TRIANGLE = [[[[0, 0], [9, 0], [9, 9]]]]


class Scripted:
    """A worker that says what the test has it say."""

    def __init__(self, heard, ended, folder):
        self.heard, self.pid, self.sent = heard, 1, []

    def send(self, job):
        self.sent.append(job)

    def cancel(self, number):
        self.heard(Report(number, cancelled=True))

    def close(self):
        pass


@pytest.fixture(scope="module")
def library(slides_manifest, results_folder):
    library = Library.find(slides_manifest, [results_folder])
    yield library
    library.close()


@pytest.fixture
def model(monkeypatch, runs_folder):
    monkeypatch.setattr(client_module, "WorkerProcess", Scripted)
    return ModelClient([runs_folder / "cnn"])


@pytest.fixture
def client(library, model):
    return TestClient(make_app(library, model))


@pytest.fixture
def entry(library):
    return next(each for each in library.evidence if each.run.name == "cnn")


def test_without_a_run_it_says_how_to_give_one(library, entry):
    client = TestClient(make_app(library))
    told = client.get("/api/model").json()
    assert told["askable"] == []
    assert told["state"] == "no run"
    assert "--run" in told["problem"]
    for answer in (
        client.post(f"/api/evidence/{entry.id}/ask/tile", json={"index": 0}),
        client.post(f"/api/evidence/{entry.id}/ask/mask", json={"polygons": TRIANGLE}),
        client.get("/api/jobs/x"),
        client.delete("/api/jobs/x"),
        client.get("/api/jobs/x/tile.png"),
    ):
        assert answer.status_code == 503
        assert "--run" in answer.json()["error"]


def test_who_can_be_asked(client, library, model):
    told = client.get("/api/model").json()
    askable = [each.id for each in library.evidence if each.run.name == "cnn"]
    assert len(askable) == 3
    assert told["askable"] == askable
    assert (told["state"], told["problem"]) == ("not loaded", None)
    assert told["fills"] == ["background", "grey", "mean"]
    model.check(each.folder for each in library.evidence)


def test_a_question_and_its_answer(client, entry, model):
    asked = client.post(f"/api/evidence/{entry.id}/ask/tile", json={"index": 3, "depth": "pixels"})
    assert asked.status_code == 200
    job = f"/api/jobs/{asked.json()['job']}"
    worker = model._worker
    (sent,) = worker.sent
    assert sent.question == TileQuestion(3, None, "pixels")
    assert (sent.explained.folder, sent.explained.slide) == (entry.folder, entry.slide.path)
    assert client.get(job).json()["state"] == "running"
    worker.heard(Report(sent.number, 1, 4, "encoding all tiles"))
    told = client.get(job).json()
    assert (told["done"], told["total"], told["what"]) == (1, 4, "encoding all tiles")
    parts = {"map/0": b"\0\0\x80\x3f", "weights/0.png": b"\x89PNG"}
    worker.heard(Report(sent.number, answer=Answer({"index": 3}, parts)))
    told = client.get(job).json()
    assert (told["state"], told["result"], told["error"]) == ("done", {"index": 3}, None)
    values = client.get(f"{job}/map/0")
    assert values.content == parts["map/0"]
    assert values.headers["content-type"] == "application/octet-stream"
    assert client.get(f"{job}/weights/0.png").headers["content-type"] == "image/png"
    assert client.get(f"{job}/map/1").status_code == 404


def test_a_region_and_giving_up(client, entry, model):
    body = {"polygons": TRIANGLE, "fill": "grey"}
    asked = client.post(f"/api/evidence/{entry.id}/ask/mask", json=body)
    ring = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0))
    assert model._worker.sent[0].question == MaskQuestion(((ring,),), "grey")
    given_up = client.delete(f"/api/jobs/{asked.json()['job']}")
    assert given_up.json()["state"] == "cancelled"
    assert model.state == "ready"


def test_what_cannot_be_asked(client, library, entry):
    other = next(each for each in library.evidence if each.run.name == "vit")
    for evidence, body, status, said in (
        (entry.id, {"index": -1}, 422, "index must be the number of a tile"),
        (entry.id, [], 422, "a question is an object"),
        ("nobody", {"index": 0}, 404, "no explanation 'nobody'"),
        (f"{entry.id}~{other.id}", {"index": 0}, 422, "a difference of two explanations"),
        (other.id, {"index": 0}, 503, "was made with the weights"),
    ):
        answer = client.post(f"/api/evidence/{evidence}/ask/tile", json=body)
        assert answer.status_code == status
        assert said in answer.json()["error"]
        assert "\n" not in answer.json()["error"]
    broken = client.post(f"/api/evidence/{entry.id}/ask/tile", content=b"{")
    assert broken.status_code == 400
    assert client.get("/api/jobs/nobody").status_code == 404
    assert client.get(f"/api/evidence/{entry.id}/ask/tile").status_code == 405


def test_answers_are_hidden_with_their_slide(slides_manifest, results_folder, model, tmp_path):
    library = Library.find(slides_manifest, [results_folder], readings=tmp_path / "readings.csv")
    client = TestClient(make_app(library, model))
    entry = next(each for each in library.evidence if each.run.name == "cnn")
    ask = f"/api/evidence/{entry.id}/ask/tile"
    assert client.post(ask, json={"index": 0}).status_code == 403
    assert model.state == "not loaded"
    reading = {"call": "tumour", "confidence": 0.5, "note": ""}
    client.post(f"/api/slides/{entry.slide.id}/reading", json=reading)
    job = client.post(ask, json={"index": 0}).json()["job"]
    (sent,) = model._worker.sent
    model._worker.heard(Report(sent.number, answer=Answer({"index": 0}, {"tile.png": b"png"})))
    paths = f"/api/jobs/{job}", f"/api/jobs/{job}/tile.png"
    assert [client.get(path).status_code for path in paths] == [200, 200]
    # The same model behind a reader who has read nothing yet, with the answer there.
    unread = Library.find(slides_manifest, [results_folder], readings=tmp_path / "others.csv")
    client = TestClient(make_app(unread, model))
    assert [client.get(path).status_code for path in paths] == [403, 403]
    assert client.delete(paths[0]).status_code == 403
    library.close()
    unread.close()


def test_other_requests_are_answered_while_a_slide_is_opened(library, model, entry, monkeypatch):
    asked, may_open = threading.Event(), threading.Event()
    found = library.entry

    def slow(evidence):
        asked.set()
        assert may_open.wait(30)
        return found(evidence)

    monkeypatch.setattr(library, "entry", slow)
    with TestClient(make_app(library, model)) as client, ThreadPoolExecutor() as threads:
        ask = f"/api/evidence/{entry.id}/ask/tile"
        answer = threads.submit(client.post, ask, json={"index": 0})
        assert asked.wait(30)
        other = threads.submit(client.get, "/api/model")
        try:
            assert other.result(30).status_code == 200
        finally:
            may_open.set()
        assert answer.result(30).status_code == 200
