"""What routes have in common: numbers of a request, and answers that browsers keep."""

import hashlib
import math
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

KEEP = "private, no-cache"
"""Browsers keep an answer, and ask each time whether it is still the same."""


def number(request: Request, name: str, default: float | None = None) -> float:
    """A number of a request's query.

    Raises:
        ValueError: it is not there, or none.
    """
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a number, got {text!r}")
    return value


def kept(request: Request, kind: str, make: Callable[[], bytes], *names: object) -> Response:
    """An answer that is made only where the browser does not have it.

    Args:
        request: what was asked.
        kind: media type of the answer.
        make: makes it.
        names: all that it depends on; the same names, the same bytes.
    """
    headers = {"ETag": etag(*names), "Cache-Control": KEEP}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=kind, headers=headers)


def etag(*names: object) -> str:
    """A strong ETag."""
    text = "\0".join(str(name) for name in names)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
