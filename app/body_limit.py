"""Limits on the bodies of requests, for those that say their length and those that don't (chunked): size and time."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TOO_LARGE, TOO_SLOW


class BodyLimit:
    """Middleware that refuses a body as soon as it is, or says it is, too long, and one that arrives too slowly.

    The refusal is raised where the application reads the body, so that it is answered like every other error.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, body_seconds: float) -> None:
        self._app = app
        self._max_body_bytes, self._body_seconds = max_body_bytes, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with a `receive` that counts, and looks at the clock until the body is there."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        too_long = announced.isdecimal() and int(announced[:20]) > self._max_body_bytes
        deadline = asyncio.get_running_loop().time() + self._body_seconds
        received = 0
        complete = False

        async def counted() -> Message:
            nonlocal received, complete
            if too_long:
                raise self._too_large()
            if complete:  # what is waited for now is that the client hangs up
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._max_body_bytes:
                raise self._too_large()
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(
            TOO_LARGE.status, f"The body is larger than {self._max_body_bytes} bytes; send less at once."
        )

    def _too_slow(self) -> HTTPException:
        return HTTPException(TOO_SLOW.status, f"The body didn't arrive within {self._body_seconds:g} seconds.")
