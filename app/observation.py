"""Every request seen from outside: its id, its line in the log, its time, and headers that every answer has.

It stands around the whole application, so that crashes are seen, too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from secrets import token_hex
from time import perf_counter
from typing import Final

from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics import Metrics

logger = logging.getLogger("app.requests")

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Of the request that is being answered, for lines of the log."""

_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_REFUSED: Final = 400
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNROUTED: Final = "none"
_PROBES: Final = ("/healthz", "/readyz", "/metrics")
_USUAL: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_SECURE: Final = ((b"strict-transport-security", b"max-age=31536000"),)


TELEMETRY: Final[TelemetryConfig] = {
    "auto_configure": True,  # where the variables OTEL_* say so, and the packages are there
    "logs": False,  # they would hold parts of what was asked
    "exclude": lambda scope: scope["path"] in _PROBES,
}
"""What FastAPI traces by OpenTelemetry: requests, but for those that only look how the service does."""


class Observed:
    """The application with an observer around it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and say afterwards what came of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500
        given = id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = given
        request_id.set(given)  # of this task alone, and until its end: the server logs crashes after us
        usual = _headers_of(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = message.get("headers", ())
                said = {name for name, _ in own}  # a page may say otherwise
                added = [header for header in usual if header[0] not in said]
                message["headers"] = [*own, *added, (b"x-request-id", given.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._say(scope, status, perf_counter() - started)

    def _say(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNROUTED)
        method = scope["method"] if scope["method"] in _METHODS else _UNROUTED  # of a stranger's choice
        self._metrics.requested(method, route, status, seconds)
        if status >= _REFUSED:
            self._metrics.refused(scope["state"].get("problem", _UNROUTED))
        if logger.isEnabledFor(logging.INFO):
            caller = scope["state"].get("caller")
            logger.info(
                "%s %s %d",
                scope["method"][:16],
                route,
                status,
                extra={
                    "method": scope["method"][:16],
                    "route": route,
                    "status": status,
                    "milliseconds": round(1000 * seconds, 3),
                    "caller": None if caller is None else caller.name,
                },
            )


def _headers_of(scope: Scope) -> Sequence[tuple[bytes, bytes]]:
    """What every answer to such a request has, unless it says otherwise."""
    return (*_USUAL, *_SECURE) if scope["scheme"] == "https" else _USUAL


def id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """A request's own id, as X-Request-ID or traceparent say it; else a new one."""
    trace = None
    for name, value in headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return value.decode()
        if name == b"traceparent":
            trace = _TRACEPARENT.fullmatch(value)
    return trace[1].decode() if trace else token_hex(16)
