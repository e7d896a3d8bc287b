"""Serving a viewer to a browser on this machine, until it is interrupted."""

import asyncio
import ctypes
import errno
import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio.to_thread
import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pathology.viewer.serving.access import Access, Guard, is_local, local_names

TRIED = 20
"""Ports, when the one asked for is taken."""
THREADS = 12
"""That read slides and maps; more take memory, and are not quicker."""
M_MMAP_THRESHOLD, MAPPED_BYTES = -3, 256 * 1024
"""glibc's name for it; arrays above that are mapped apart."""
GRACE_S = 3
"""For answers on their way when the viewer is stopped."""


def bind(host: str, port: int) -> socket.socket:
    """A socket at ``host``, at the first port from ``port`` on that is free; 0 takes any.

    Raises:
        ValueError: there is no such address here, or no port is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = port + TRIED if port else 1
    for each in range(port, min(last, 65536)):
        # Named as TCP, which asyncio wants to see before it sends without delay: 40 ms a tile.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, each))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise ValueError(f"--host {host} --port {each}: {error.strerror}") from error
            continue
        return listener
    raise ValueError(f"--port {port}: taken, and so are those after it; choose another, or 0")


class _Server(uvicorn.Server):
    """Ends at SIGINT and SIGTERM with a clean exit, rather than by the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {
            each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for each, handler in former.items():
                signal.signal(each, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(GRACE_S, self._give_up)
        await super().shutdown(sockets)

    def _give_up(self) -> None:
        """End answers that take longer than the grace."""
        for task in self.server_state.tasks:
            task.cancel()


class _Ending:
    """Answers that were given up are answered as such, not logged as faults."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if not has_begun:
                gone = JSONResponse({"error": "the viewer was stopped"}, status_code=503)
                await gone(scope, receive, send)


def serve(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    open_browser: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: what :func:`~pathology.viewer.app.make_app` made.
        host: address to listen at.
        port: the first that is tried; 0 for any.
        open_browser: show the page, where this machine has a screen.
        say: told the address, with the token in it.

    Raises:
        ValueError: it cannot listen there.
    """
    listener = bind(host, port)
    found = listener.getsockname()[1]
    access = Access(found, local_names(host), any_address=not is_local(host))
    shown = host if host not in ("0.0.0.0", "::") else socket.gethostname()
    shown = f"[{shown}]" if ":" in shown else shown
    address = f"http://{shown}:{found}/?token={access.token}"
    _return_memory()
    config = uvicorn.Config(
        _Ending(Guard(app, access)),
        log_level="error",
        access_log=False,
        lifespan="off",
        server_header=False,
        ws="none",
    )
    if port and found != port:
        say(f"port {port} is taken, so at {found}:")
    say(address)
    sys.stdout.flush()
    if open_browser and _has_screen():
        # Browsers take their time, and some do not return.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    with listener:
        _Server(config).run(sockets=[listener])


def _return_memory() -> None:
    """Let arrays of a map's tiles go back to the system when they are freed (glibc).

    It would raise the size from which it does so, and keep the arrays in a heap for each thread:
    a third more memory, which grows for minutes.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


def leave(code: int) -> int:
    """``code``, once what was given up has come to its end; or the end of the process with it.

    Python waits for every thread before it exits, and a slide on a slow disk may take minutes.
    """
    until = time.monotonic() + 1
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    return code


def _has_screen() -> bool:
    return sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
