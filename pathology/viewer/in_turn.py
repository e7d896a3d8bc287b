"""Tiles that nobody waits for any more are not made.

A page that pans fast gives up most of what it asked for a moment ago. Requests wait for a thread;
whose page has left by the time that it gets one needs no answer.
"""

from collections.abc import Awaitable, Callable

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response


def in_turn(handler: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """``handler``, run in a thread when it is its turn, and only if somebody still waits."""

    async def wait(request: Request) -> Response:
        async with anyio.to_thread.current_default_thread_limiter():
            if await request.is_disconnected():
                return Response(status_code=204)  # which nobody reads
            # The turn is ours already: this thread is not to be waited for.
            only = anyio.CapacityLimiter(1)
            return await anyio.to_thread.run_sync(handler, request, limiter=only)

    return wait
