"""Who may talk to the viewer: a token, the names it answers to, and the limits of a request.

A viewer is a server on this machine, and other pages in the same browser can reach it. So:

* nothing is answered without a token of 256 bits. It is in the address that the viewer prints,
  once: the answer to that puts it in a cookie that scripts cannot read and other sites do not send;
* it answers to names of this machine only. A name that somebody else owns can be made to lead here
  (DNS rebinding), and its pages would then be of the same origin; an address made of digits cannot;
* what changes something must come from a page of its own, by ``Origin``;
* browsers are told to load nothing from elsewhere, to run no script but ours, and to let no other
  page look in;
* a request's body has an end.
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 32 * 2**20
"""Of a request at most; annotations of a large slide are some megabytes."""
LOCAL = ("localhost", "127.0.0.1", "::1")
READS = ("GET", "HEAD")
# OpenSeadragon adds this one style to a page's head; its hash lets it, and no other, pass.
OPENSEADRAGON_STYLE = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self';"
        f" style-src 'self' '{OPENSEADRAGON_STYLE}'; img-src 'self' blob: data:;"
        " connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# A page of another site that links here sends no cookie along, nor does what it is redirected to.
# This one has our own origin: what it goes on to has the cookie.
ONWARD = (
    '<!doctype html><meta http-equiv="refresh" content="0{}"><title>Viewer</title>'
    '<link rel="icon" href="data:,">'
)
NO_TOKEN = (
    '<!doctype html><title>Viewer</title><link rel="icon" href="data:,">'
    "<p>This viewer shows nothing without the token in its address. Open the address that"
    " <code>pathology view</code> printed in its terminal."
)


def local_names(host: str) -> frozenset[str]:
    """The names a viewer bound to ``host`` answers to, addresses made of digits aside."""
    if is_local(host):
        return frozenset((*LOCAL, host))  # 127.0.0.2 is this machine, too
    own = (host, socket.gethostname(), socket.getfqdn())
    return frozenset(name.lower() for name in (*LOCAL, *own))


def is_local(host: str) -> bool:
    """Whether an address to bind can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """What a viewer asks of a request.

    Args:
        port: that it listens at; names its cookie, so that two viewers keep out of each other's.
        names: it answers to.
        any_address: it answers to any address made of digits, too.
        token: what a request must know.
        body_bytes: of a request at most.
    """

    port: int
    names: Iterable[str] = LOCAL
    any_address: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    body_bytes: int = BODY_BYTES

    @property
    def cookie(self) -> str:
        """The cookie's name."""
        return f"pathology_view_{self.port}"

    def knows(self, host: str) -> bool:
        """Whether ``Host`` is one of ours. Its port is not asked for: a tunnel may have another."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address

    def is_token(self, text: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(text.encode(), self.token.encode())


class Guard:
    """ASGI middleware that lets pass what :class:`Access` allows.

    Args:
        app: what is guarded.
        access: what is asked.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: none is spoken here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                # What says nothing of it is of this moment: a list, numbers, an error.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
            return
        await self._limited(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """What a request gets instead of what it asked for; None when it may pass."""
        access, headers = self._access, Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not access.knows(host):
            return _error(421, "this viewer does not answer to that name")
        is_read = scope["method"] in READS
        site = headers.get("sec-fetch-site", "none")
        is_visit = is_read and scope["path"] == "/" and headers.get("sec-fetch-dest") == "document"
        if site not in ("none", "same-origin") and not is_visit:
            return _error(403, "asked for by a page that is not of this viewer")
        if is_read and scope["path"] == "/":
            query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            given = query.pop("token", [])
            if given and access.is_token(given[-1]):
                return self._welcome(query, site)
        if not access.is_token(cookie_parser(headers.get("cookie", "")).get(access.cookie, "")):
            if is_visit:
                if site not in ("none", "same-origin"):
                    # Followed from elsewhere, the cookie may be there and was not sent.
                    return HTMLResponse(ONWARD.format(""))  # here, with what follows the #
                return HTMLResponse(NO_TOKEN, status_code=401)
            return _error(401, "no token; open the address that `pathology view` printed")
        if not is_read and not _is_own(headers.get("origin", ""), host):
            return _error(403, "changes are taken from this viewer's own page only")
        return None

    def _welcome(self, query: dict[str, list[str]], site: str) -> Response:
        """Put the token in a cookie, and go on without it in the address."""
        rest = urlencode(query, doseq=True)
        onward = f"/?{rest}" if rest else "/"
        response: Response
        if site in ("none", "same-origin"):
            response = RedirectResponse(onward, status_code=303)
        else:
            response = HTMLResponse(ONWARD.format(f";url={onward.replace('&', '&amp;')}"))
        response.set_cookie(
            self._access.cookie, self._access.token, httponly=True, samesite="strict"
        )
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, up to the end that its body may have."""
        most, taken = self._access.body_bytes, 0
        refusal = f"a request may have {most:,} bytes at most"
        told = Headers(scope=scope).get("content-length", "0")
        if not told.isdecimal() or int(told) > most:
            await _error(413, refusal)(scope, receive, send)
            return

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise HTTPException(413, refusal)
            return message

        await self._app(scope, counted, send)


def _is_own(origin: str, host: str) -> bool:
    """Whether ``Origin`` is where the request went to."""
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and place.lower() == host.lower()


def _error(status: int, line: str) -> Response:
    return JSONResponse({"error": line}, status_code=status)
