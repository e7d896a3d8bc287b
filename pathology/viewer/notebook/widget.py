"""The viewer as a widget: its page in a notebook's cell, its requests over the widget's channel.

The page asks ``{ask, method, path, body}`` (or the body in a buffer), and gets ``{ask, status,
kind, packed}`` with the body in a buffer. ``{drop}`` says that an answer is not wanted any more,
``{came}`` and ``{left}`` that a view of the widget is there, or gone.

Requests are tasks on the event loop that the message came in by, which is the kernel's or, where
there are, a subshell's. Reading is done in threads, so no cell waits for it; answers are sent from
the loop, since few front ends can be talked to from other threads.
"""

import asyncio
import hashlib
import json
import shutil
import weakref
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from pathology.viewer.app import STATIC, make_app
from pathology.viewer.library.library import Library
from pathology.viewer.notebook.asgi_call import Answer, call

if TYPE_CHECKING:
    from pathology.viewer.model import ModelClient

LOADER = "notebook_loader.js"
PAGE = "page"
"""What the loader asks for first: the page itself."""
PACKED = 1024
"""Bytes from which numbers and text travel packed; pictures are packed as they are."""


@cache
def page_sources() -> bytes:
    """The page's modules, styles and OpenSeadragon, as one JSON object."""
    modules = {
        path.relative_to(STATIC).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(STATIC.rglob("*.js"))
        if path.name not in (LOADER, "page.js") and path.parent.name != "openseadragon"
    }
    styles = [path.read_text(encoding="utf-8") for path in _styles()]
    library = (STATIC / "openseadragon" / "openseadragon.min.js").read_text(encoding="utf-8")
    return json.dumps({"modules": modules, "styles": styles, "openseadragon": library}).encode()


def _styles() -> list[Path]:
    """In the order of the page: the frame's first, which the others build on."""
    return [STATIC / name for name in ("viewer.css", "panes/panes.css", "tools/tools.css")]


class Viewer(anywidget.AnyWidget):
    """Slides and their evidence in a cell; made by :func:`pathology.viewer.notebook.show.show`.

    Args:
        library: what it shows. Its files are let go while nobody looks.
        words: what it is, in a line, where widgets cannot be drawn.
        height: of the cell in pixels.
        folder: goes with the widget, if given.
        model: who is asked, until the widget is closed; None when there is none to ask.
    """

    _esm = (STATIC / LOADER).read_text(encoding="utf-8")
    height = traitlets.Int().tag(sync=True)
    page = traitlets.Unicode(help="names what the front end keeps of the page").tag(sync=True)

    def __init__(
        self,
        library: Library,
        words: str,
        *,
        height: int,
        folder: Path | None = None,
        model: "ModelClient | None" = None,
    ) -> None:
        self._library, self._model, self._words = library, model, words
        self._app = make_app(library, model)
        self._asked: dict[str, asyncio.Task[None]] = {}
        self._views: set[str] = set()
        super().__init__(height=height, page=hashlib.sha256(page_sources()).hexdigest()[:16])
        self._ends = weakref.finalize(self, _end, library, folder, model)
        self.on_msg(self._on_message)

    def close(self) -> None:
        """Take it out of the notebook, and let go of all that it holds."""
        for task in self._asked.values():
            task.cancel()
        super().close()
        self._ends()

    def __repr__(self) -> str:
        return f"Viewer({self._words})"

    def _on_message(self, _: Any, message: dict[str, Any], buffers: Sequence[Any]) -> None:
        if "ask" in message:
            self._ask(message, buffers)
        elif "drop" in message:
            task = self._asked.pop(message["drop"], None)
            if task is not None:
                task.cancel()
        elif "came" in message:
            self._views.add(message["came"])
        elif "left" in message:
            self._views.discard(message["left"])
            if not self._views:
                self._library.close()

    def _ask(self, message: dict[str, Any], buffers: Sequence[Any]) -> None:
        name = str(message["ask"])
        work = self._answer(name, message, bytes(buffers[0]) if buffers else None)
        try:
            task = asyncio.get_running_loop().create_task(work)
        except RuntimeError:  # a front end without a loop has to wait
            asyncio.run(work)
            return
        self._asked[name] = task
        task.add_done_callback(lambda _: self._asked.pop(name, None))

    async def _answer(self, name: str, message: dict[str, Any], buffer: bytes | None) -> None:
        path = str(message["path"])
        if path == PAGE:
            answer = Answer(200, "application/json", page_sources())
        else:
            body = (message.get("body") or "").encode() if buffer is None else buffer
            answer = await call(self._app, str(message.get("method", "GET")), path, body)
        if answer.fault is not None:
            self.log.error("the viewer failed at %s", path, exc_info=answer.fault)
        packed = len(answer.body) >= PACKED and not answer.kind.startswith("image/")
        self.send(
            {"ask": name, "status": answer.status, "kind": answer.kind, "packed": packed},
            [zlib.compress(answer.body, 1) if packed else answer.body],
        )


def _end(library: Library, folder: Path | None, model: "ModelClient | None") -> None:
    if model is not None:
        model.close()
    library.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
