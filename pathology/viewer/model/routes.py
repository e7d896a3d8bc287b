"""Questions to the model, over HTTP.

``GET /api/model`` -> ``{askable: [evidence ids], state, problem, fills}``: ``state`` is "no run",
"not loaded", "ready" or "working".

``POST /api/evidence/ID/ask/tile`` ``{index, targets?, depth?}`` and ``.../ask/mask``
``{polygons, fill?}`` -> ``{job}``. ``depth`` is "pixels" or that of the explanation.

``GET /api/jobs/J`` -> ``{id, evidence, state, done, total, what, result, error}``; ``DELETE``
gives it up. A result is what :func:`~pathology.viewer.model.worker.ask_tile.ask_tile` or
:func:`~pathology.viewer.model.worker.ask_mask.ask_mask` say, and ``seconds`` of ``loading`` and
``answering``; ``GET /api/jobs/J/NAME`` are its parts.
"""

from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pathology.errors import PathologyError
from pathology.viewer.library.library import EvidenceEntry, Library
from pathology.viewer.model.client import JobState, ModelClient, UnavailableError
from pathology.viewer.model.question import (
    Explained,
    Fill,
    MaskQuestion,
    TileQuestion,
    record_hash,
)

NO_RUN = (
    "there is no model to ask: start the viewer with --run and the run that was explained, as"
    ' `pathology view ... --run runs/first` or, in a notebook, `show(..., run="runs/first")`'
)


def routes(library: Library, model: ModelClient | None) -> list[Route]:
    """The routes of questions.

    Args:
        library: explanations by id.
        model: who is asked; None when no run was given.
    """
    return ModelRoutes(library, model).routes


class ModelRoutes:
    """Handlers."""

    def __init__(self, library: Library, model: ModelClient | None) -> None:
        self._library, self._model = library, model
        self._askable: list[str] | None = None
        ask = "/api/evidence/{evidence}/ask"
        self.routes = [
            Route("/api/model", self.model),
            Route(f"{ask}/tile", self.tile, methods=["POST"]),
            Route(f"{ask}/mask", self.mask, methods=["POST"]),
            Route("/api/jobs/{job}", self.job),
            Route("/api/jobs/{job}", self.cancel, methods=["DELETE"]),
            Route("/api/jobs/{job}/{name:path}", self.part),
        ]

    def model(self, request: Request) -> Response:
        """Which explanations can be asked about."""
        model = self._model
        told: dict[str, Any] = {"askable": [], "state": "no run", "problem": NO_RUN}
        if model is not None:
            told = {"askable": self._all(model), "state": model.state, "problem": model.problem}
        return JSONResponse({**told, "fills": get_args(Fill)})

    def _all(self, model: ModelClient) -> list[str]:
        if self._askable is None:
            self._askable = [each.id for each in self._library.evidence if _can_ask(model, each)]
        return self._askable

    async def tile(self, request: Request) -> Response:
        """Ask about a tile."""
        question = TileQuestion.of(await request.json())
        return await run_in_threadpool(self._ask, request, question)

    async def mask(self, request: Request) -> Response:
        """Ask about a region."""
        question = MaskQuestion.of(await request.json())
        return await run_in_threadpool(self._ask, request, question)

    def _ask(self, request: Request, question: TileQuestion | MaskQuestion) -> Response:
        evidence = request.path_params["evidence"]
        if self._model is None:
            raise HTTPException(503, NO_RUN)
        if "~" in evidence:
            raise ValueError("a difference of two explanations has no model; ask each of the two")
        entry = self._library.entry(evidence)
        record = entry.explanation.record
        explained = Explained(entry.folder, entry.slide.path, record_hash(record))
        try:
            state = self._model.ask(entry.id, explained, record, question)
        except UnavailableError as error:
            raise HTTPException(503, str(error)) from error
        return JSONResponse({"job": state.id})

    def job(self, request: Request) -> Response:
        """How far a question is, and its answer."""
        return JSONResponse(self._state(request).to_dict())

    def cancel(self, request: Request) -> Response:
        """Give a question up."""
        state = self._state(request)
        return JSONResponse(self._known().cancel(state.id).to_dict())

    def part(self, request: Request) -> Response:
        """A picture or array of an answer."""
        name = request.path_params["name"]
        content = self._known().part(self._state(request).id, name)
        kind = "image/png" if name.endswith(".png") else "application/octet-stream"
        headers = {"Cache-Control": "private, no-cache"}
        return Response(content, media_type=kind, headers=headers)

    def _state(self, request: Request) -> JobState:
        state = self._known().job(request.path_params["job"])
        self._library.entry(state.evidence)  # still not hidden
        return state

    def _known(self) -> ModelClient:
        if self._model is None:
            raise HTTPException(503, NO_RUN)
        return self._model


def _can_ask(model: ModelClient, entry: EvidenceEntry) -> bool:
    try:
        record: Any = entry.explanation.record
    except PathologyError:
        return False  # damaged, which its own route says
    return not model.missing(record)
