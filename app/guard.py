"""The one way into every operation but those that say how the service does: is the caller allowed, is it done in time?

It stands before the body is read. An operation says which scope it needs; one that doesn't can't be made. A peer of a
privacy connection shows a credential of that connection instead, which its operations look at themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, cast

from fastapi import Request, Response

from app.access import Caller
from app.actors import Actor
from app.catalog import Scope
from app.direct import DirectRoute
from app.in_time import InTime, too_late
from app.parts import parts_of

Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]

_SCOPE = "x-scope"  # in the OpenAPI document, too


def needs(scope: Scope) -> dict[str, Any]:
    """What an operation of a guarded route is made with, as its `openapi_extra`: the scope that it needs."""
    return {_SCOPE: scope, "security": [{"bearer": []}, {"header": []}]}


class Guarded(InTime):
    """A route that admits a request before anything else is done for it, and gives up when its time is over."""

    def get_route_handler(self) -> Handler:
        """What answers a request."""
        handler = super().get_route_handler()
        needed = cast("Scope", (self.openapi_extra or {})[_SCOPE])

        async def admitted(request: Request) -> Response:
            request.state.caller = await parts_of(request).access.admit(request.headers, needed)
            return await handler(request)

        return admitted if self.in_thread else _in_time(admitted)


class Peer(InTime):
    """A route for the peers of privacy connections, which authenticate as their protocols say; in time, too."""

    def get_route_handler(self) -> Handler:
        """What answers a request."""
        handler = super().get_route_handler()
        return handler if self.in_thread else _in_time(handler)


def _in_time(handler: Handler) -> Handler:
    """The same handler, which gives up when the request's time is over."""

    async def handled(request: Request) -> Response:
        seconds = parts_of(request).settings.request_seconds
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                return await handler(request)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise too_late(seconds) from None

    return handled


class GuardedDirectRoute(Guarded, DirectRoute):
    """A guarded route without detours."""


def caller_of(request: Request) -> Caller:
    """Who makes a request that was admitted."""
    caller: Caller = request.state.caller
    return caller


def actor_of(request: Request) -> Actor:
    """The same, for the audit."""
    return Actor(name=caller_of(request).name, request_id=request.state.request_id)
