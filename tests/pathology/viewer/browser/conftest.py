"""The page in a real browser: the system's Chromium, driven by Playwright.

Tests are skipped, with a reason, where there is no Chromium or no Playwright.

``page``: an empty page in a context of its own. It fails its test for console errors, uncaught
    exceptions, broken rules of the page's policy, and requests to anywhere but this machine; what
    was found is in ``complaints``, from which a test takes what it has asked for.
``module_page``: the same at ``http://viewer.localhost``, with the viewer's ``static/`` files and
    nothing behind them, for tests of one module.
``serve_viewer``: starts a viewer, ``serve_viewer(library, model=None) -> Served``, which says where
    it is (``url``, with the token in it, and ``origin``); it ends with the module's tests.
``served``: the one of the small library.
``viewer``: its page, with words for what a person does there.
"""

import mimetypes
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import pathology.viewer
from tests.pathology.viewer.browser.tool_page import Viewer

STATIC = Path(pathology.viewer.__file__).parent / "static"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-default-apps", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-extensions", "--mute-audio", "--force-color-profile=srgb",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window.

    By module, since Playwright keeps an event loop running in this thread as long as it lives, and
    other tests have loops of their own.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    root = sys.platform == "linux" and os.geteuid() == 0
    with sync_api.sync_playwright() as playwright:
        flags = [*FLAGS, *(["--no-sandbox"] if root else [])]
        started = playwright.chromium.launch(executable_path=program, args=flags)
        yield started
        started.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the page said or did that it should not."""
    return []


@pytest.fixture
def page(browser, complaints) -> Iterator:
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, accept_downloads=True, reduced_motion="reduce"
    )
    context.set_default_timeout(15_000)

    def asked(request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in (
            "127.0.0.1",
            "viewer.localhost",
        ):
            complaints.append(f"asked the network for {request.url}")

    def said(message) -> None:
        # Tests read canvases back, which the page need not be made for.
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:
            place = message.location
            complaints.append(f"console {message.type}: {message.text} ({place.get('url')})")

    context.on("request", asked)
    context.on("console", said)
    context.on("weberror", lambda error: complaints.append(f"uncaught: {error.error}"))
    opened = context.new_page()
    yield opened
    context.close()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def module_page(page):
    """A page that can import ``/static/...``; its body is empty."""

    def serve(route) -> None:
        name = urlsplit(route.request.url).path
        path = (STATIC / name.removeprefix("/static/")).resolve()
        if name == "/":
            route.fulfill(
                body='<!doctype html><link rel="icon" href="data:,"><body></body>',
                content_type="text/html",
            )
        elif name.startswith("/static/") and path.is_relative_to(STATIC) and path.is_file():
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            route.fulfill(body=path.read_bytes(), content_type=kind)
        else:
            route.fulfill(status=404)

    page.route("http://viewer.localhost/**", serve)
    page.goto("http://viewer.localhost/")
    return page


@dataclass(frozen=True)
class Served:
    """A viewer that runs, as ``pathology view`` runs it."""

    library: Any
    origin: str
    token: str

    @property
    def url(self) -> str:
        return f"{self.origin}/?token={self.token}"


@pytest.fixture(scope="module")
def serve_viewer() -> Iterator[Callable[..., Served]]:
    import uvicorn

    from pathology.viewer.app import make_app
    from pathology.viewer.serving.access import Access, Guard
    from pathology.viewer.serving.serve import bind

    running = []

    def serve(library: Any, model: Any = None) -> Served:
        listener = bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        access = Access(port)
        guarded = Guard(make_app(library, model), access)
        config = uvicorn.Config(guarded, log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        running.append((server, thread, listener))
        return Served(library, f"http://127.0.0.1:{port}", access.token)

    yield serve
    for server, thread, listener in running:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def served(serve_viewer, library) -> Served:
    return serve_viewer(library)


@pytest.fixture
def viewer(page, served) -> Viewer:
    return Viewer(page, served)
