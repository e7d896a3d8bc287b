"""The list of slides, their pictures and readings, over HTTP."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from pathology.geometry import Box
from pathology.viewer.app import make_app
from pathology.viewer.library.library import Library
from pathology.viewer.slides import routes as slide_routes
from tests.pathology.viewer.made_library import write_record, write_slide

HTML = "<img src=x onerror=alert(1)>"


@pytest.fixture
def slides(tmp_path):
    write_slide(tmp_path / "slides" / "a.tif")
    write_slide(tmp_path / "slides" / f"{HTML}.tif", 1)
    (tmp_path / "slides" / "broken.tif").write_text("no slide")
    return tmp_path / "slides"


@pytest.fixture
def results(tmp_path):
    write_record(tmp_path / "out" / "cnn" / "a" / "tumour", "a", score=3.25)
    write_record(tmp_path / "out" / "cnn" / "a" / "predicted", "a", "normal", -1.0)
    write_record(tmp_path / "out" / "cnn" / HTML / "tumour", HTML)
    return tmp_path / "out"


@pytest.fixture
def library(slides, results):
    return Library.find(slides, [results])


@pytest.fixture
def client(library):
    return TestClient(make_app(library))


@pytest.fixture
def slide(library):
    return next(slide for slide in library.slides if slide.name == "a")


def pixels_of(answer):
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)


# --- the list


def test_the_list(client, library, slide):
    told = client.get("/api/library").json()
    assert told["blind"] is False
    assert [each["name"] for each in told["slides"]] == [HTML, "a", "broken"]
    assert told["runs"] == [{"id": library.runs[0].id, "name": "cnn"}]
    a = told["slides"][1]
    assert (a["size"], a["mpp"], a["size_um"], a["problem"]) == (None, None, None, None)
    by_target = {each["target"]: each for each in told["evidence"] if each["slide"] == slide.id}
    assert set(a["evidence"]) == {each["id"] for each in by_target.values()}
    assert by_target["tumour"]["score"] == 3.25
    assert by_target["tumour"]["gap"] == 0.0
    assert by_target["tumour"]["is_closed"] is True
    assert by_target["tumour"]["undivided"] is None
    assert by_target["normal"]["score"] == -1.0  # of the folder "predicted"


def test_a_size_is_listed_once_it_is_known(client, slide):
    client.get(f"/api/slides/{slide.id}")
    a = client.get("/api/library").json()["slides"][1]
    assert (a["size"], a["mpp"], a["size_um"]) == ([600, 410], [0.5, 0.5], [300.0, 205.0])


def test_html_in_names_is_only_ever_text(client):
    for path in ("/api/library", f"/api/slides/{HTML}", f"/static/{HTML}", f"/{HTML}"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/json"
        json.loads(answer.content)


def test_a_damaged_record_is_listed_as_such(client, results):
    (results / "cnn" / "a" / "tumour" / "explanation.json").write_text("{")
    found = client.get("/api/library").json()["evidence"]
    (damaged,) = [each for each in found if each["problem"]]
    assert damaged["target"] == "tumour"
    assert damaged["score"] is None


@pytest.mark.parametrize(
    "settings", [None, [], {"slide": 5}, {"slide_mpp": "x"}, {"slide_mpp": [1]}]
)
def test_damaged_settings_spoil_one_line_of_the_list(client, results, slide, settings):
    client.get(f"/api/slides/{slide.id}")  # open, so that the two are compared
    path = results / "cnn" / "a" / "tumour" / "explanation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": settings}))
    found = client.get("/api/library").json()["evidence"]
    (damaged,) = [each for each in found if each["problem"]]
    assert "damaged" in damaged["problem"]
    answer = client.get(f"/api/evidence/{damaged['id']}")
    assert (answer.status_code, "damaged" in answer.json()["error"]) == (500, True)


def test_numbers_that_json_lacks_are_null(client, results):
    path = results / "cnn" / "a" / "tumour" / "explanation.json"
    path.write_text(path.read_text().replace("3.25", "NaN"))
    found = client.get("/api/library").json()["evidence"]
    (entry,) = [each for each in found if each["score"] is None]
    assert entry["is_closed"] is False


# --- slides


def test_a_slide(client, slide):
    told = client.get(f"/api/slides/{slide.id}").json()
    assert told["name"] == "a"
    assert told["size"] == [600, 410]
    assert told["mpp_source"] != "given"
    assert told["levels"] == 3
    assert told["tile_px"] == 256
    assert told["bounds"] == [0, 0, 600, 410]
    assert told["background"] == "#ffffff"


def test_tiles(client, library, slide):
    opened = library.open(slide.id)
    shown = pixels_of(client.get(f"/api/slides/{slide.id}/tiles/0/1/1.jpg"))
    assert shown.shape == (410 - 256, 256, 3)
    wanted = opened.read(Box(256, 256, 256, 154), 0.5).astype(int)
    assert np.abs(shown - wanted).mean() < 2  # of JPEG
    assert pixels_of(client.get(f"/api/slides/{slide.id}/thumbnail.jpg")).shape == (175, 256, 3)
    region = client.get(f"/api/slides/{slide.id}/region.jpg?x=0&y=0&width=300&height=100&px=150")
    assert pixels_of(region).shape == (50, 150, 3)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tiles/3/0/0.jpg", 404),
        ("tiles/0/3/0.jpg", 404),
        ("tiles/99999999999999999999/0/0.jpg", 404),
        ("tiles/0/-1/0.jpg", 404),
        ("tiles/0/0/0.png", 404),
        ("tiles/0/0/../../thumbnail.jpg", 404),
        ("region.jpg", 422),
        ("region.jpg?x=0&y=0&width=10&height=nan", 422),
        ("region.jpg?x=0&y=0&width=10&height=0", 422),
        ("region.jpg?x=0&y=0&width=10&height=1e400", 422),
        ("region.jpg?x=0&y=0&width=10&height=10&px=513", 422),
        ("region.jpg?x=0&y=0&width=10&height=10&px=0", 422),
        ("region.jpg?x=600&y=0&width=10&height=10", 422),
        ("region.jpg?x=0&y=0&width=1e-308&height=10", 422),
        ("region.jpg?x=0&y=0&width=1e5&height=1e5", 422),
        ("region.jpg?x=-1e300&y=-1e300&width=2e300&height=2e300", 422),
    ],
)
def test_what_is_out_of_bounds(client, slide, path, status):
    answer = client.get(f"/api/slides/{slide.id}/{path}")
    assert answer.status_code == status
    assert answer.json()["error"]


def test_browsers_ask_whether_it_is_the_same(client, slide):
    address = f"/api/slides/{slide.id}/tiles/0/0/0.jpg"
    first = client.get(address)
    tag = first.headers["etag"]
    assert first.headers["cache-control"].startswith("private")
    again = client.get(address, headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == tag
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get(address.replace("0/0.jpg", "1/0.jpg")).headers["etag"] != tag


def test_another_slide_of_the_name_is_another(client, slides, slide):
    address = f"/api/slides/{slide.id}/tiles/0/0/0.jpg"
    before = client.get(address)
    write_slide(slides / "a.tif", 7)
    for path in (address, f"/api/slides/{slide.id}"):
        answer = client.get(path)  # of a page that knows the former one's size
        assert answer.status_code == 409
        assert "reload the page" in answer.json()["error"]
    client.get("/api/library")
    after = client.get(address, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]
    assert np.abs(pixels_of(after) - pixels_of(before)).mean() > 10


def test_explained_again_is_refused_until_the_page_begins_anew(client, results, slide):
    def entry():
        found = client.get("/api/library").json()["evidence"]
        return next(e for e in found if (e["slide"], e["target"]) == (slide.id, "tumour"))

    before = entry()
    shutil.rmtree(results / "cnn" / "a" / "tumour")
    write_record(results / "cnn" / "a" / "tumour", "a", score=4.5)
    answer = client.get(f"/api/evidence/{before['id']}/at?x=1&y=1")
    assert answer.status_code == 409
    assert "explained again meanwhile" in answer.json()["error"]
    assert (before["score"], entry()["score"]) == (3.25, 4.5)


def test_a_tile_is_made_once(client, slide, monkeypatch):
    made = []
    real = slide_routes.tile_jpeg
    monkeypatch.setattr(
        slide_routes, "tile_jpeg", lambda *names: made.append(names) or real(*names)
    )
    address = f"/api/slides/{slide.id}/tiles/0/0/0.jpg"
    one, other = client.get(address), client.get(address)
    assert one.content == other.content
    assert len(made) == 1


def test_a_broken_slide_is_listed_with_its_problem(client, library, slides):
    broken = next(slide for slide in library.slides if slide.name == "broken")
    for path in ("", "/thumbnail.jpg", "/tiles/0/0/0.jpg"):
        answer = client.get(f"/api/slides/{broken.id}{path}")
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("slide broken: is no slide format")
        assert str(slides) not in answer.text
    listed = client.get("/api/library").json()["slides"][2]
    assert listed["problem"].startswith("is no slide format")


def test_damage_under_a_tile_is_no_white_tile(client, slides, slide):
    path = slides / "a.tif"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 2000 : middle + 2000] = bytes(4000)
    path.write_bytes(data)
    answers = [
        client.get(f"/api/slides/{slide.id}/tiles/0/{x}/{y}.jpg")
        for x in range(3)
        for y in range(2)
    ]
    failed = [answer for answer in answers if answer.status_code != 200]
    assert failed
    for answer in failed:
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("a.tif: cannot be read")
        assert "level 0" in answer.json()["error"]
        assert str(slides) not in answer.text


def test_unknown_slides(client):
    for path in ("/api/slides/nothing", "/api/slides/%2e%2e%2f%2e%2e%2fetc%2fpasswd"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "root" not in answer.text


# --- readings


@pytest.fixture
def blind(slides, results, tmp_path):
    library = Library.find(slides, [results], readings=tmp_path / "readings.csv")
    return TestClient(make_app(library))


def test_what_is_hidden_is_not_told(blind, slide):
    told = blind.get("/api/library").json()
    assert told["blind"] is True
    assert all(each["hidden"] for each in told["evidence"])
    assert all(each["score"] is each["gap"] is None for each in told["evidence"])
    # A folder "predicted" tells that a class was chosen, and its target would tell which.
    targets = {each["target"] for each in told["evidence"] if each["slide"] == slide.id}
    assert targets == {"tumour", "predicted"}
    for each in told["evidence"]:
        for path in ("", "/at?x=1&y=1", "/maps/heatmap/0/0/0", "/tiles/0", "/outlines"):
            answer = blind.get(f"/api/evidence/{each['id']}{path}")
            assert answer.status_code == 403
            assert "hidden" in answer.json()["error"]
        for path in ("regions", "gallery", "export", "ask/tile"):
            answer = blind.post(f"/api/evidence/{each['id']}/{path}", json={})
            assert answer.status_code in (403, 404, 405, 422, 503)
            assert "3.25" not in answer.text


def test_labels_may_be_the_truth(tmp_path, slides, results):
    (tmp_path / "slides.csv").write_text("slide_id,path,label\na,slides/a.tif,tumour\n")
    library = Library.find(tmp_path / "slides.csv", [results], readings=tmp_path / "readings.csv")
    client = TestClient(make_app(library))
    assert client.get("/api/library").json()["slides"][0]["labels"] == {}
    client.post(f"/api/slides/{library.slides[0].id}/reading", json={"call": "tumour"})
    assert client.get("/api/library").json()["slides"][0]["labels"] == {"label": "tumour"}


def test_a_reading_shows_the_slide_and_no_other(blind, slide, tmp_path):
    body = {"call": "tumour", "confidence": 80, "note": "left"}
    answer = blind.post(f"/api/slides/{slide.id}/reading", json=body)
    assert answer.status_code == 200
    told = blind.get("/api/library").json()
    for each in told["evidence"]:
        is_read = each["slide"] == slide.id
        assert each["hidden"] is not is_read
        assert (each["score"] is not None) is is_read
    assert [each["committed"] for each in told["slides"]] == [False, True, False]
    assert "a,tumour,80,left" in (tmp_path / "readings.csv").read_text()


@pytest.mark.parametrize(
    "body",
    [{}, {"call": ""}, {"call": 3}, {"call": "x", "confidence": "high"}, [], "x",
     {"call": "x", "confidence": True}, {"call": "x", "confidence": 200}, {"call": "x", "note": 1}],
)  # fmt: skip
def test_what_is_no_reading(blind, slide, body):
    answer = blind.post(f"/api/slides/{slide.id}/reading", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert all(each["hidden"] for each in blind.get("/api/library").json()["evidence"])


def test_no_readings_without_blind_mode(client, slide):
    answer = client.post(f"/api/slides/{slide.id}/reading", json={"call": "tumour"})
    assert answer.status_code == 422
    assert "--blind" in answer.json()["error"]
