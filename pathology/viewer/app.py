"""The viewer's routes put together, and what is answered when one fails."""

import json
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pathology.errors import AnnotationError, PathologyError, SlideError, StampMismatchError
from pathology.viewer.evidence import routes as evidence_routes
from pathology.viewer.library.library import HiddenError, Library
from pathology.viewer.model import routes as model_routes
from pathology.viewer.regions import routes as region_routes
from pathology.viewer.slides import routes as slide_routes

if TYPE_CHECKING:
    from pathology.viewer.model.client import ModelClient

STATIC = Path(__file__).parent / "static"


def make_app(library: Library, model: "ModelClient | None" = None) -> Starlette:
    """The viewer of a library, as an ASGI application without any guard.

    Args:
        library: what it shows.
        model: who answers questions to the model; None when there is none to ask.
    """
    routes: list[BaseRoute] = [
        *_static_routes(),
        *slide_routes.routes(library),
        *evidence_routes.routes(library),
        *region_routes.routes(library),
        *model_routes.routes(library, model),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _http_error,
            PathologyError: _our_error,
            ValueError: _our_error,
            RecursionError: _our_error,
            Exception: _fault,
        },
    )


def _static_routes() -> list[Route]:
    """The page and its files, by a list made now: no request names a path."""
    files = {
        path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()
    }

    def page(request: Request) -> Response:
        return _file(files["index.html"])

    def static(request: Request) -> Response:
        path = files.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return _file(path)

    return [Route("/", page), Route("/static/{name:path}", static)]


def _file(path: Path) -> Response:
    # What Windows' registry says of .js is not to be relied on.
    kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0]
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": error.detail}, status_code=error.status_code, headers=error.headers
    )


def _our_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": one_line(error)}, status_code=status_of(error))


def status_of(error: Exception) -> int:
    """The HTTP status of an error."""
    if isinstance(error, HiddenError):
        return 403
    if isinstance(error, LookupError):
        return 404
    if isinstance(error, AnnotationError):
        return 422
    if isinstance(error, StampMismatchError):
        return 409
    if isinstance(error, PathologyError):  # a file that is damaged or gone
        return 500
    return 400 if isinstance(error, json.JSONDecodeError | RecursionError) else 422


def one_line(error: Exception) -> str:
    """An error's message in one line; of a slide's file the name, not where it is."""
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SlideError) and error.path is not None:
        line = line.replace(str(error.path), error.path.name)
    return line


def _fault(request: Request, error: Exception) -> Response:
    # It is raised again for the server to log.
    return JSONResponse({"error": "a fault of the viewer; its terminal says more"}, status_code=500)
