"""The widget's module in a real browser: the page itself in cells, fed by the widget's channel.

What a notebook does is done by a few lines here: messages go to the widget in this process and come
back, buffers as base64, while Playwright's loop plays the kernel's.
"""

import base64
import json
from pathlib import Path
from typing import Any

import comm
import pytest

from pathology.viewer.notebook.show import show
from pathology.viewer.notebook.widget import page_sources
from tests.pathology.viewer.channel import Channel, tell

HERE = Path(__file__).parent


@pytest.fixture
def notebook(module_page, monkeypatch):
    """Opens cells with widgets, by name; what went to the kernel is in ``.asked``."""
    monkeypatch.setattr(comm, "create_comm", Channel)
    widgets, asked = {}, []

    def to_kernel(name: str, content: str, buffers: list[str]) -> None:
        message = json.loads(content)
        asked.append((name, message))
        tell(widgets[name], message, *map(base64.b64decode, buffers))

    def from_kernel(deaf: list[str]) -> list[Any]:
        found = []
        for name, widget in widgets.items():
            while name not in deaf and widget.comm is not None and widget.comm.sent:
                sent = widget.comm.sent.pop(0)
                told = {key: sent[key] for key in ("ask", "status", "kind", "packed")}
                found.append([name, told, base64.b64encode(sent["body"]).decode()])
        return found

    def open_cells(**shown: Any) -> Any:
        widgets.update(shown)
        module_page.expose_function("toKernel", to_kernel)
        module_page.expose_function("fromKernel", from_kernel)
        traits = {name: {"height": each.height, "page": each.page} for name, each in shown.items()}
        esm = next(iter(shown.values()))._esm
        module_page.evaluate((HERE / "cells.js").read_text(), [esm, traits])
        return module_page

    open_cells.asked = asked
    yield open_cells
    for widget in widgets.values():
        widget.close()


IS_DRAWN = "(name) => window.cells[name].colours() > 100"


def test_cells_show_the_page_and_leave_nothing(notebook, slides_folder, results_folder):
    path = slides_folder / "case_1.tif"
    first = show(path, results_folder / "cnn", height=500)
    second = show(path, [results_folder / "cnn", results_folder / "vit"], height=400)
    page = notebook(first=first, second=second)
    for name in ("first", "second"):
        page.wait_for_function("(name) => window.cells[name].root?.viewer?.panes", arg=name)
        page.wait_for_function(IS_DRAWN, arg=name)

    # The page's modules came once for both, and nothing was asked for by another way.
    paths = [message["path"] for _, message in notebook.asked if "ask" in message]
    assert paths.count("page") == 1
    assert any("/maps/heatmap/" in each for each in paths)
    assert any(each.endswith(".jpg") for each in paths)
    requests = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    assert not [each for each in requests if not each.startswith(("blob:", "data:"))]

    # Nothing outside of the cells: no global, no fragment in the notebook's address, no style but
    # the one that OpenSeadragon adds, about elements of its own.
    assert page.evaluate("typeof window.OpenSeadragon") == "undefined"
    styles = "document.head.querySelectorAll('style:not([data-openseadragon-mobile-css])').length"
    assert page.evaluate(styles) == 0
    assert page.evaluate("location.hash") == ""
    sizes = page.evaluate(
        "['first', 'second'].map((name) => window.cells[name].root.getBoundingClientRect().height)"
    )
    assert sizes == [500, 400]

    # Each has a state of its own.
    page.evaluate("window.cells.first.root.viewer.store.set({theme: 'dark'})")
    themes = "['first', 'second'].map((name) => window.cells[name].root.dataset.theme)"
    assert page.evaluate(themes) == ["dark", "auto"]

    # Numbers are the kernel's.
    told = page.evaluate("""async () => {
      const {transport, library} = window.cells.second.root.viewer;
      const path = `api/evidence/${library.evidence[0].id}`;
      const bytes = await transport.bytes(`${path}/maps/heatmap/0/0/0`);
      return [(await transport.json(path)).ledger.score, bytes.byteLength];
    }""")
    score = second._library.evidence[0].explanation.ledger.score
    assert told == [pytest.approx(score, abs=1e-12), 256 * 256 * 2]

    # What fails says so in a line; what is aborted is not answered.
    failed = page.evaluate("""async () => {
      const {transport} = window.cells.first.root.viewer;
      const ends = new AbortController();
      const dropped = transport.json("api/library", {signal: ends.signal}).catch((e) => e.name);
      await Promise.resolve();
      ends.abort();
      const failed = await transport.json("api/slides/0123456789ab").catch((e) => e);
      return [[failed.message, failed.status], await dropped];
    }""")
    assert failed == [["no slide '0123456789ab'", 404], "AbortError"]

    # A view that goes ends all of it: its files are let go, and it asks for nothing more.
    page.evaluate("window.cells.first.end()")
    assert page.evaluate("window.cells.first.el.childElementCount") == 0
    assert page.evaluate("(window.cells.first.listeners.get('msg:custom') ?? []).length") == 0
    page.wait_for_function("window.cells.first.said.at(-1)?.left")
    page.wait_for_timeout(300)
    assert [message for name, message in notebook.asked if name == "first"][-1].keys() == {"left"}
    assert len(first._library.handles) == 0
    assert len(second._library.handles) == 1
    page.evaluate("window.cells.second.end()")


def test_a_kernel_that_is_busy_is_said_to_be(notebook, slides_folder):
    page = notebook(quiet=show(slides_folder / "case_1.tif", height=300))
    page.wait_for_function("window.cells.quiet.root?.viewer?.panes")
    status = "window.cells.quiet.el.firstElementChild.shadowRoot.lastElementChild.textContent"
    assert page.evaluate(status) == ""
    page.evaluate("""() => {
      window.cells.quiet.isDeaf = true;
      window.answered = window.cells.quiet.root.viewer.transport.json("api/library");
    }""")
    page.wait_for_function(f"{status}.startsWith('The kernel does not answer')")
    page.evaluate("window.cells.quiet.isDeaf = false")
    assert page.evaluate("window.answered.then(({slides}) => slides.length)") == 1
    assert page.evaluate(status) == ""


def test_a_page_that_cannot_start_says_why(notebook, slides_folder, monkeypatch):
    sources = json.loads(page_sources())
    sources["modules"]["main.js"] = 'import { gone } from "./gone.js";'
    monkeypatch.setattr(
        "pathology.viewer.notebook.widget.page_sources", lambda: json.dumps(sources).encode()
    )
    page = notebook(broken=show(slides_folder / "case_1.tif", height=300))
    page.wait_for_function("window.cells.broken.el.firstElementChild.shadowRoot.textContent")
    assert page.evaluate("window.cells.broken.el.firstElementChild.shadowRoot.textContent") == (
        "The viewer cannot start: no module gone.js, which main.js imports"
    )
