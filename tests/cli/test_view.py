"""``pathology view``: what is refused, and a viewer that starts and ends as a person's does."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from http.cookiejar import CookieJar

import pytest

from pathology.viewer.serving.serve import bind
from tests.pathology.viewer.made_library import write_record, write_slide

START_S = 60  # of a process on a busy machine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for others there")


@pytest.fixture
def slides(tmp_path):
    for name in ("a", "b"):
        write_slide(tmp_path / "slides" / f"{name}.tif")
    return tmp_path / "slides"


@pytest.fixture
def results(tmp_path):
    for run in ("cnn", "vit"):
        write_record(tmp_path / run / "a" / "tumour", "a")
    return tmp_path


@contextmanager
def viewer(*arguments, code=None):
    """A viewer in a process of its own: it, and the lines that it has said."""
    verb = ["-m", "pathology.cli", "view", *map(str, arguments)]
    command = [sys.executable, *(verb if code is None else ["-c", code])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("http"):
                break
        yield process, lines
    finally:
        process.kill()
        process.communicate()


def browser_of(address):
    """A client that has followed the address."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with opener.open(address, timeout=START_S) as answer:
        assert answer.status == 200
        assert answer.url == address.partition("?")[0]
    return opener


def ended(process):
    out, err = process.communicate(timeout=START_S)
    return process.returncode, out, err


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_starts_and_ends(slides, results, sign):
    options = ("--slides", slides, "--results", results / "cnn", results / "vit")
    with viewer(*options, "--port", 0, "--no-browser") as (process, lines):
        assert lines[0] == "2 slides, 2 explanations of 2 runs"
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", lines[-1])
        opener = browser_of(lines[-1])
        with opener.open(lines[-1].partition("?")[0] + "api/library") as answer:
            assert answer.status == 200
        process.send_signal(sign)
        assert ended(process) == (0, "stopped\n", "")


SLOW = """
import time
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from pathology.viewer.serving import serve

serve.GRACE_S = 0.2

def page(request):
    return PlainTextResponse("page")

def slow(request):
    print("begun", flush=True)
    time.sleep(600)

serve.serve(Starlette(routes=[Route("/", page), Route("/slow", slow)]), port=0)
print("stopped")
serve.leave(0)
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_ends_while_a_request_takes_for_ever(sign):
    with viewer(code=SLOW) as (process, lines):
        address = lines[-1].partition("?")[0]
        opener = browser_of(lines[-1])
        host, _, port = address.removeprefix("http://").rstrip("/").partition(":")
        cookie = next(iter(next(h for h in opener.handlers if hasattr(h, "cookiejar")).cookiejar))
        with socket.create_connection((host, int(port)), timeout=START_S) as connection:
            told = f"Host: {host}\r\nCookie: {cookie.name}={cookie.value}"
            connection.sendall(f"GET /slow HTTP/1.1\r\n{told}\r\n\r\n".encode())
            assert process.stdout.readline() == "begun\n"
            process.send_signal(sign)
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 503")
            code, out, err = ended(process)
    assert (code, out, err) == (0, "stopped\n", "")


def test_the_next_port_where_one_is_taken(slides, results):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        if port > 65000:
            pytest.skip("no ports above this one")
        options = ("--slides", slides, "--results", results, "--no-browser", "--port", port)
        with viewer(*options) as (_, lines):
            assert f"port {port} is taken" in lines[-2]
            found = int(re.search(r":(\d+)/", lines[-1])[1])
            assert port < found < port + 20
            browser_of(lines[-1])


def test_answers_are_sent_without_delay():
    """Or the system waits 40 ms for more to send with the last part of each tile."""
    nodelay = []

    class Noting(asyncio.Protocol):
        def connection_made(self, transport):
            accepted = transport.get_extra_info("socket")
            nodelay.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def connect():
        server = await asyncio.get_running_loop().create_server(Noting, sock=bind("127.0.0.1", 0))
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await writer.drain()
            while not nodelay:
                await asyncio.sleep(0.01)
            writer.close()

    asyncio.run(connect())
    assert nodelay[0]


def test_only_this_machine_can_reach_it(slides, results):
    """The socket is bound to the loopback address, whatever is asked of it."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    options = ("--slides", slides, "--results", results, "--no-browser", "--port", 0)
    with viewer(*options) as (_, lines):
        port = int(re.search(r":(\d+)/", lines[-1])[1])
        try:
            own = socket.gethostbyname(socket.gethostname())
        except OSError:
            own = "127.0.0.1"
        if own.startswith("127."):
            pytest.skip("this machine has no other address")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((own, port), timeout=START_S)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "station.lab.example"])
def test_remote_must_be_said(refused, slides, results, host):
    line = refused("view", "--slides", slides, "--results", results, "--host", host)
    assert "--allow-remote" in line
    assert host in line


def test_what_cannot_be_shown_is_refused(refused, slides, results, tmp_path):
    options = ("--slides", slides, "--results", results, "--no-browser")
    assert "no such folder" in refused("view", "--slides", slides, "--results", tmp_path / "x")
    assert "no explanation in it" in refused("view", "--slides", slides, "--results", slides)
    assert "--port" in refused("view", *options, "--port", 70000)
    for mpp in (0, -1, "1e999"):
        assert "--mpp must be" in refused("view", *options, f"--mpp={mpp}")
    assert "--host" in refused("view", *options, "--host", "203.0.113.5", "--allow-remote")
    other = tmp_path / "other.csv"
    other.write_text("slide_id,path\n")
    assert "no table of readings" in refused("view", *options, "--blind", other)
    assert "no checkpoint" in refused("view", *options, "--run", tmp_path / "nowhere")


def test_slides_that_are_not_listed_are_said(slides, results):
    (slides / "a.tif").unlink()
    options = ("--slides", slides, "--results", results, "--no-browser", "--port", 0)
    with viewer(*options) as (_, lines):
        assert lines[0] == "1 slide, 0 explanations of 0 runs"
        assert "2 explanations of slides that are not in --slides: a" in lines[1]


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra(slides, results, missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from pathology.cli import main;"
        f" sys.exit(main(['view', '--slides', {str(slides)!r}, '--results', {str(results)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bcos-pathology[viewer]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_handle_is_left_open(slides, results):
    """Slides by the hundred: as many files are open as slides are kept."""
    if not os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        pytest.skip("no /proc here")
    for number in range(40):
        write_slide(slides / f"more_{number}.tif", size=(64, 64))
    options = ("--slides", slides, "--results", results, "--no-browser", "--port", 0)
    with viewer(*options) as (process, lines):
        opener, base = browser_of(lines[-1]), lines[-1].partition("?")[0]
        with opener.open(f"{base}api/library") as answer:
            ids = [slide["id"] for slide in json.load(answer)["slides"]]

        def look():
            for name in ids:
                with opener.open(f"{base}api/slides/{name}/thumbnail.jpg") as answer:
                    assert answer.status == 200
            return len(os.listdir(f"/proc/{process.pid}/fd"))  # noqa: PTH208

        first = look()
        time.sleep(0.1)
        assert look() <= first + 2  # a connection more or less
