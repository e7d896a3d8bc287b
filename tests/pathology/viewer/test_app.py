"""The application: its page and files, what it answers when something fails, and how it starts."""

import subprocess
import sys

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pathology.errors import AnnotationError, OutputError, SlideOpenError, StampMismatchError
from pathology.viewer import app as module
from pathology.viewer.app import STATIC, make_app
from pathology.viewer.library.library import HiddenError, Library, UnknownIdError
from tests.pathology.viewer.made_library import write_record, write_slide


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    write_slide(folder / "slides" / "a.tif")
    write_record(folder / "out" / "cnn" / "a" / "tumour", "a")
    return Library.find(folder / "slides", [folder / "out"])


@pytest.fixture
def client(library):
    return TestClient(make_app(library))


def test_the_page_and_its_files(client):
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for path in STATIC.rglob("*"):
        if path.is_file():
            answer = client.get(f"/static/{path.relative_to(STATIC).as_posix()}")
            assert answer.content == path.read_bytes()
            if path.suffix == ".js":  # browsers run nothing else as a module
                assert answer.headers["content-type"].startswith("text/javascript")
            if path.suffix == ".css":
                assert answer.headers["content-type"].startswith("text/css")


@pytest.mark.parametrize(
    "name",
    ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "..%5capp.py", "/etc/passwd", "%2fetc%2fpasswd",
     "openseadragon/../../app.py", "", ".", "openseadragon", "main.js/", "main.js%00"],
)  # fmt: skip
def test_no_path_leads_out(client, name):
    answer = client.get(f"/static/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"


def test_a_file_that_appears_later_is_not_served(library, tmp_path, monkeypatch):
    for name in ("index.html", "main.js"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(module, "STATIC", tmp_path)
    client = TestClient(make_app(library))
    (tmp_path / "later.js").write_text("x")
    assert client.get("/static/main.js").text == "main.js"
    assert client.get("/static/later.js").status_code == 404


def test_there_is_nothing_to_write_but_what_is_for_it(client):
    for path in ("/", "/static/main.js", "/api/library"):
        for method in ("POST", "PUT", "DELETE"):
            answer = client.request(method, path)
            assert answer.status_code == 405
            assert answer.json()["error"]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UnknownIdError("no slide 'x'"), 404, "no slide 'x'"),
        (HiddenError("hidden"), 403, "hidden"),
        (AnnotationError("no polygon"), 422, "no polygon"),
        (ValueError("x must\nbe a number"), 422, "x must be a number"),
        (StampMismatchError("other"), 409, "other"),
        (OutputError("disk full"), 500, "disk full"),
        (SlideOpenError("is damaged", "/home/me/a.svs"), 500, "a.svs: is damaged"),
    ],
)
def test_errors_are_one_line_of_json(library, error, status, line):
    def fails(request):
        raise error

    app = make_app(library)
    app.router.routes.append(Route("/fails", fails))
    answer = TestClient(app).get("/fails")
    assert answer.status_code == status
    assert answer.json() == {"error": line}


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("y"), ZeroDivisionError()])
def test_faults_of_ours_are_logged_and_say_little(library, error):
    def fails(request):
        raise error

    app = make_app(library)
    app.router.routes.append(Route("/fails", fails))
    answer = TestClient(app, raise_server_exceptions=False).get("/fails")
    assert answer.status_code == 500
    assert "terminal" in answer.json()["error"]
    with pytest.raises(type(error)):  # goes on to the server, which logs it
        TestClient(app).get("/fails")


@pytest.mark.parametrize("body", ["{", "[" * 100_000, b"\xff\xfe", ""])
def test_bodies_that_are_no_json(library, body):
    async def reads(request):
        return PlainTextResponse(str(await request.json()))

    app = make_app(library)
    app.router.routes.append(Route("/reads", reads, methods=["POST"]))
    answer = TestClient(app).post("/reads", content=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]


def test_starts_without_torch():
    code = (
        "import sys; import pathology.viewer.app, pathology.viewer.serving.serve,"
        " pathology.cli.view,"
        " pathology.viewer.model.client, pathology.explain.results.stored,"
        " pathology.data.slide_list;"
        " print(sorted({'torch', 'lightning', 'monai', 'timm', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
