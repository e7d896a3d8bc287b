"""show(): the app's own answers over a widget's channel, and nothing left when it is closed."""

import asyncio
import gc
import json
import threading
import weakref
import zlib
from typing import Any

import comm
import numpy as np
import pytest
from starlette.testclient import TestClient

from pathology.api import explain_slide, load_run, open_slide, show
from pathology.errors import (
    ManifestError,
    MissingExtraError,
    PathologyError,
    SlideOpenError,
    StampMismatchError,
)
from pathology.explain.results.stored import load_explanation
from pathology.maps import extras
from pathology.slides import MemorySlide
from pathology.tiling import TileSpec, tile_slide
from pathology.viewer.app import make_app
from pathology.viewer.notebook.widget import Viewer, page_sources
from tests.pathology.viewer.channel import Channel, tell
from tests.pathology.viewer.conftest import ODD, pixels_of


@pytest.fixture(autouse=True)
def channels(monkeypatch):
    monkeypatch.setattr(comm, "create_comm", Channel)
    yield
    Viewer.close_all()


@pytest.fixture
def shown(slides_folder, results_folder) -> Viewer:
    return show(slides_folder / "case_1.tif", [results_folder / run for run in ("cnn", "vit")])


def asked(widget: Viewer, path: str, **more: Any) -> tuple[int, str, bytes]:
    """What a page without a loop around it is answered."""
    tell(widget, {"ask": "v-1", "method": "GET", "path": path, **more})
    answer = widget.comm.sent.pop()
    assert answer["ask"] == "v-1"
    body = zlib.decompress(answer["body"]) if answer["packed"] else answer["body"]
    return answer["status"], answer["kind"], body


def told(widget: Viewer, path: str, **more: Any) -> Any:
    status, kind, body = asked(widget, path, **more)
    assert (status, kind) == (200, "application/json"), body
    return json.loads(body)


def test_a_folder_shows_what_is_of_the_slide(shown):
    library = told(shown, "api/library")
    assert [slide["name"] for slide in library["slides"]] == ["case_1"]
    assert {run["name"] for run in library["runs"]} == {"cnn", "vit"}
    runs = {run["id"]: run["name"] for run in library["runs"]}
    found = sorted((runs[each["run"]], each["target"]) for each in library["evidence"])
    assert found == [("cnn", "tumour"), ("cnn", "tumour - normal"), ("vit", "tumour")]
    assert repr(shown) == ("Viewer(slide 'case_1'; cnn: tumour, cnn: tumour - normal, vit: tumour)")


def test_answers_are_the_app_s_own(shown):
    """Byte for byte what a browser gets of the same routes."""
    library = told(shown, "api/library")
    slide = library["slides"][0]["id"]
    evidence = [each["id"] for each in library["evidence"]]
    paths = [
        "api/library", f"api/slides/{slide}", f"api/slides/{slide}/thumbnail.jpg",
        f"api/slides/{slide}/tiles/0/1/1.jpg",
        f"api/slides/{slide}/region.jpg?x=100&y=80&width=300&height=200&px=128",
        *(f"api/evidence/{each}" for each in [*evidence, "~".join(evidence[:2])]),
        f"api/evidence/{evidence[0]}/maps/heatmap/0/1/0",
        f"api/evidence/{evidence[-1]}/maps/layers%2Fspread/0/0/0",
        f"api/evidence/{evidence[0]}/at?x=400&y=300", f"api/evidence/{evidence[0]}/tiles/3",
    ]  # fmt: skip
    with TestClient(make_app(shown._library), base_url="http://localhost") as client:
        for path in paths:
            wanted = client.get(path)
            status, kind, body = asked(shown, path)
            assert (status, kind) == (wanted.status_code, wanted.headers["content-type"]), path
            assert status == 200, body
            assert body == wanted.content, path


def test_what_is_sent_travels_as_text_or_as_a_buffer(shown):
    library = told(shown, "api/library")
    ring = [[100, 100], [500, 100], [500, 400], [100, 400], [100, 100]]
    question = {"regions": [{"id": "r", "polygons": [[ring]]}]}
    path = f"api/evidence/{library['evidence'][0]['id']}/regions"
    (region,) = told(shown, path, method="POST", body=json.dumps(question))["regions"]
    assert region["sum"] != 0
    feature = {"type": "Feature", "properties": {"name": "ü"},
               "geometry": {"type": "Polygon", "coordinates": [ring]}}  # fmt: skip
    tell(
        shown,
        {"ask": "v-2", "method": "POST",
         "path": f"api/slides/{library['slides'][0]['id']}/annotations"},
        json.dumps({"type": "FeatureCollection", "features": [feature]}).encode(),
    )  # fmt: skip
    answer = shown.comm.sent.pop()
    body = zlib.decompress(answer["body"]) if answer["packed"] else answer["body"]
    assert answer["status"] == 200, body
    assert [each["name"] for each in json.loads(body)["regions"]] == ["ü"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("api/slides/0123456789ab", 404),
        ("api/slides/..%2F..%2Fetc%2Fpasswd", 404),
        ("static/../../../pyproject.toml", 404),
        ("//example.org/api/library", 404),
        ("api/evidence/000000000001/maps/..%2Fexplanation.json/0/0/0", 404),
        ("api/evidence/000000000001/at?x=here&y=0", 400),
    ],
)
def test_what_there_is_not_is_told_in_one_line(shown, path, status):
    found, kind, body = asked(shown, path)
    assert 400 <= found < 500
    assert found == status or status == 400
    assert kind == "application/json"
    line = json.loads(body)["error"]
    assert line
    assert "\n" not in line


def test_a_fault_is_answered_and_logged(shown, monkeypatch, caplog):
    def broken(*_: Any) -> None:
        raise AssertionError("nobody expected this")

    monkeypatch.setattr(type(shown._library), "open", broken)
    slide = told(shown, "api/library")["slides"][0]["id"]
    status, _, body = asked(shown, f"api/slides/{slide}/tiles/0/0/0.jpg")
    assert status == 500
    assert "fault" in json.loads(body)["error"]
    assert "nobody expected this" in caplog.text


def test_on_a_loop_nothing_waits_and_answers_come_from_its_thread(shown, monkeypatch):
    """A slow tile holds up neither the loop nor other answers, and one that is dropped not sent."""
    go = threading.Event()
    library = told(shown, "api/library")
    slide = library["slides"][0]["id"]
    opened = type(shown._library).open

    def slow(self: Any, name: str) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        assert go.wait(10)
        return opened(self, name)

    monkeypatch.setattr(type(shown._library), "open", slow)

    async def page() -> None:
        for number in range(3):
            path = f"api/slides/{slide}/tiles/0/{number}/0.jpg"
            tell(shown, {"ask": f"v-{number}", "method": "GET", "path": path})
        tell(shown, {"ask": "quick", "method": "GET", "path": "page"})
        while not shown.comm.sent:
            await asyncio.sleep(0.005)
        assert [each["ask"] for each in shown.comm.sent] == ["quick"]
        tell(shown, {"drop": "v-1"})
        go.set()
        while shown._asked or len(shown.comm.sent) < 3:
            await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(page(), 20))
    assert sorted(each["ask"] for each in shown.comm.sent) == ["quick", "v-0", "v-2"]
    assert {each["thread"] for each in shown.comm.sent} == {threading.main_thread()}


def test_the_page_is_whole(shown):
    sources = told(shown, "page")
    assert set(sources) == {"modules", "styles", "openseadragon"}
    assert "main.js" in sources["modules"]
    assert "notebook_loader.js" not in sources["modules"]
    assert "import.meta" not in "".join(sources["modules"].values()), "blobs have no address"
    assert page_sources() == json.dumps(sources).encode()


def test_files_are_let_go_when_the_last_view_goes(shown):
    slide = told(shown, "api/library")["slides"][0]["id"]
    handles = shown._library.handles
    tell(shown, {"came": "a"})
    tell(shown, {"came": "b"})
    asked(shown, f"api/slides/{slide}/tiles/0/0/0.jpg")
    tell(shown, {"left": "a"})
    assert len(handles) == 1
    tell(shown, {"left": "b"})
    assert len(handles) == 0
    assert asked(shown, f"api/slides/{slide}/tiles/0/0/0.jpg")[0] == 200


def test_nothing_of_it_stays_when_it_is_closed(slides_folder, results_folder):
    widget = show(slides_folder / "case_1.tif", results_folder / "vit")
    library = told(widget, "api/library")
    asked(widget, f"api/evidence/{library['evidence'][0]['id']}/maps/heatmap/0/0/0")
    asked(widget, f"api/slides/{library['slides'][0]['id']}/tiles/0/0/0.jpg")
    kept = [weakref.ref(each) for each in (widget, widget._library, widget._app)]
    widget.close()
    del widget
    gc.collect()
    assert [each() for each in kept] == [None, None, None]


@pytest.fixture(scope="module")
def fresh(runs_folder, tmp_path_factory):
    """An explanation that was never saved, of a slide that is no file."""
    slide = MemorySlide(pixels_of(300, 260, 5), mpp=(1.0, 0.8))
    grid = tile_slide(slide, TileSpec(size_px=32, mpp=1.0, min_tissue=0.9, exclude=()))
    run = load_run(runs_folder / "cnn", device="cpu")
    return slide, explain_slide(slide, grid, run, "tumour", quiet=True, out_mpp=2.0)


def test_what_was_never_saved_is_shown_and_leaves_nothing(fresh):
    slide, result = fresh
    widget = show(slide, result, height=420)
    assert widget.height == 420
    library = told(widget, "api/library")
    (evidence,) = library["evidence"]
    assert evidence["score"] == pytest.approx(result.logit, abs=0)
    assert told(widget, f"api/slides/{library['slides'][0]['id']}")["mpp"] == [1.0, 0.8]
    told_of = told(widget, f"api/evidence/{evidence['id']}")
    heat = next(each for each in told_of["maps"] if each["name"] == "heatmap")
    values = result.contributions.values
    assert (heat["width"], heat["height"]) == values.shape[::-1]
    body = asked(widget, f"api/evidence/{evidence['id']}/maps/heatmap/0/0/0")[2]
    tile = np.frombuffer(body, "<i2").reshape(256, 256)[: values.shape[0], : values.shape[1]]
    area = 2.0 * 2.0 / 1e6
    # Half a step of the int16 scale, and what float32 on disk takes away.
    assert np.allclose(
        np.where(tile == -32768, 0, tile * heat["step"]),
        np.nan_to_num(values) / area,
        atol=0.51 * heat["step"],
    )
    folder = widget._library.evidence[0].folder
    assert folder.is_dir()
    widget.close()
    assert not folder.exists()
    assert not folder.parent.exists()


def test_an_open_slide_may_be_closed(slides_folder, results_folder):
    with open_slide(slides_folder / f"{ODD}.tif", mpp=1.0) as slide:
        widget = show(slide, load_explanation(results_folder / "cnn" / ODD / "tumour"))
    (found,) = told(widget, "api/library")["slides"]
    assert found["name"] == ODD
    assert told(widget, f"api/slides/{found['id']}")["mpp"] == [1.0, 1.0]
    assert asked(widget, f"api/slides/{found['id']}/tiles/0/0/0.jpg")[0] == 200


class Scripted:
    """A worker that notes what it is sent, and whether it is told to end."""

    def __init__(self, *arguments):
        self.sent, self.is_closed = [], False

    def send(self, job):
        self.sent.append(job)

    def close(self):
        self.is_closed = True


def test_a_run_is_asked_until_the_widget_is_closed(
    slides_folder, results_folder, runs_folder, monkeypatch
):
    monkeypatch.setattr("pathology.viewer.model.client.WorkerProcess", Scripted)
    slide, results = slides_folder / "case_1.tif", [results_folder / run for run in ("cnn", "vit")]
    widget = show(slide, results, run=runs_folder / "cnn", device="cpu")
    askable = told(widget, "api/model")["askable"]
    runs = {each["id"]: each["run"] for each in told(widget, "api/library")["evidence"]}
    assert len(askable) == 2
    assert len({runs[each] for each in askable}) == 1
    path = f"api/evidence/{askable[0]}/ask/tile"
    job = told(widget, path, method="POST", body='{"index": 3}')["job"]
    assert told(widget, f"api/jobs/{job}")["state"] == "running"
    model = widget._model
    (sent,) = model._worker.sent
    assert (sent.explained.slide, sent.means.device) == (slide, "cpu")
    widget.close()
    assert model._worker.is_closed


def test_runs_that_cannot_be_asked(slides_folder, results_folder, runs_folder, fresh, tmp_path):
    slide, result = slides_folder / "case_1.tif", results_folder / "vit"
    with pytest.raises(StampMismatchError, match=r"^run .*cnn: has the weights .* in results was"):
        show(slide, result, run=runs_folder / "cnn")
    with pytest.raises(ManifestError, match=r"no checkpoint .*; give run a folder"):
        show(slide, result, run=tmp_path)
    with pytest.raises(ValueError, match="run: a slide in memory cannot be asked"):
        show(*fresh, run=runs_folder / "cnn")


def test_a_slide_alone_is_shown(slides_folder):
    assert told(show(slides_folder / "case_1.tif"), "api/library")["evidence"] == []


def test_other_slides_results_are_refused(slides_folder, results_folder, fresh, tmp_path):
    path = slides_folder / "case_1.tif"
    other = results_folder / "cnn" / ODD
    with pytest.raises(StampMismatchError, match="is of slide '<img"):
        show(path, other / "tumour")
    with pytest.raises(StampMismatchError, match=r"not of .*case_1"):
        show(path, load_explanation(other / "tumour"))
    with pytest.raises(StampMismatchError):
        show(path, fresh[1])
    with pytest.raises(PathologyError, match=r"of slide .case_1. in it, it has <img"):
        show(path, other)
    with pytest.raises(PathologyError, match="it has nothing"):
        show(path, tmp_path)


def test_arguments_that_cannot_be(slides_folder, results_folder):
    with pytest.raises(ValueError, match="height"):
        show(slides_folder / "case_1.tif", height=0)
    with pytest.raises(SlideOpenError):
        show(slides_folder / "broken.tif")
    with pytest.raises(TypeError, match="explanation or a folder"):
        show(slides_folder / "case_1.tif", [3])


def test_without_the_extra_it_says_what_to_install(slides_folder, monkeypatch):
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"anywidget.*bcos-pathology\[notebook\]"):
        show(slides_folder / "case_1.tif")
