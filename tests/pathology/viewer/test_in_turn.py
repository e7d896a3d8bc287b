"""Requests that are given up while they wait for a thread are not worked on."""

import asyncio
import threading

import anyio.to_thread
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pathology.viewer.in_turn import in_turn

WAIT_S = 20


def test_who_has_left_gets_no_thread():
    begun, let, made = threading.Event(), threading.Event(), []

    def tile(request):
        name = request.path_params["name"]
        made.append(name)
        if name == "first":
            begun.set()
            assert let.wait(WAIT_S)
        return PlainTextResponse(name)

    app = Starlette(routes=[Route("/{name}", in_turn(tile))])

    async def ask(name, left):
        said = []
        scope = {
            "type": "http", "method": "GET", "path": f"/{name}", "query_string": b"",
            "headers": [], "http_version": "1.1", "scheme": "http", "root_path": "",
        }  # fmt: skip

        async def receive():
            if left.is_set():
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            said.append(message)

        await app(scope, receive, send)
        return said[0]["status"], b"".join(message.get("body", b"") for message in said)

    async def all_of_them():
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        stays, leaves = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(ask("first", stays))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(ask(f"left {i}", leaves)) for i in range(5)]
        last = asyncio.create_task(ask("last", stays))
        await asyncio.sleep(0.05)  # they wait
        leaves.set()
        let.set()
        return await first, [await other for other in others], await last

    first, others, last = asyncio.run(all_of_them())
    assert first == (200, b"first")
    assert last == (200, b"last")
    assert {status for status, _ in others} == {204}
    assert made == ["first", "last"]
