"""A request answered by an ASGI application in this process: no server, no port."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Answer:
    """What an application answers.

    Args:
        status: as in HTTP.
        kind: media type of the body.
        body: all of it.
        fault: what the application raised after it had answered, for a log.
    """

    status: int
    kind: str
    body: bytes
    fault: Exception | None = None


async def call(
    app: Any, method: str, path: str, body: bytes = b"", kind: str = "application/json"
) -> Answer:
    """Ask an ASGI application.

    Args:
        app: the application.
        method: ``GET``, ``POST``, ...
        path: with its query, without a host; percent-encoded as in an address.
        body: of the request.
        kind: media type of ``body``.
    """
    parts = urlsplit("/" + path.lstrip("/"))
    headers = [(b"host", b"localhost"), (b"content-length", str(len(body)).encode())]
    if body:
        headers.append((b"content-type", kind.encode("latin-1")))
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": method, "scheme": "http", "path": unquote(parts.path),
        "raw_path": parts.path.encode(), "query_string": parts.query.encode(), "root_path": "",
        "headers": headers, "client": None, "server": ("localhost", None),
    }  # fmt: skip
    status, found, chunks = 500, {}, list[bytes]()
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status, found
        if message["type"] == "http.response.start":
            status, found = message["status"], dict(message.get("headers", ()))
        else:
            chunks.append(message.get("body", b""))

    fault = None
    try:
        await app(scope, receive, send)
    except Exception as error:  # Starlette answers 500 and raises it again
        fault = error
    kind = found.get(b"content-type", b"application/octet-stream").decode("latin-1")
    return Answer(status, kind, b"".join(chunks), fault)
