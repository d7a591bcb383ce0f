"""The connections of the HTTP server: held against slow clients, and against too many of them.

- A request's head arrives within the settings' `head_seconds` of its first byte (of the connection, for the first
  request), or its connection is answered with 408 and closed; a connection on which nothing has begun is just closed.
  A byte now and then prolongs nothing. The time of bodies, and of whole requests, is the application's part.
- Connections beyond `max_connections` are answered with 503 and closed, and take no place meanwhile. Under TLS they are
  closed without a word: saying it would take the handshake, which is the work that is to be spared.
- A head is bounded, and so is the number of requests that are sent before the first one is answered.
- A client that doesn't take its answer is hung up on after `request_seconds`.

What is refused here never reaches the application, and still is a problem like every other (see `problems`).
The reading of HTTP is uvicorn's. Nothing here knows keys or routes.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.errors import HEAD_TOO_LARGE, NOT_HTTP, TOO_MANY_CONNECTIONS, TOO_SLOW, ProblemType
from app.problems import MEDIA_TYPE, RETRY_AFTER_SECONDS, problem
from app.settings import Settings

MOST_LEAVING: Final = 50
"""Connections that have been refused, and may take a second to go; more go at once."""

_LEAVING_SECONDS: Final = 1.0
_MAX_HEAD_BYTES: Final = 64 * 2**10  # more by what arrives at once: it is looked at between two readings
_MAX_PIPELINED: Final = 100
_SECONDS_BETWEEN_WARNINGS: Final = 60

_logger = logging.getLogger(__name__)


class Door:
    """The places that a server has, who takes them, and how those go that have to."""

    def __init__(self, settings: Settings, server_state: ServerState) -> None:
        """All places are free.

        Args:
            settings: `max_connections` is their number.
            server_state: uvicorn's, which has the headers of every answer.
        """
        self.settings = settings
        self.taken: set[asyncio.BaseProtocol] = set()
        self.leaving: set[asyncio.BaseProtocol] = set()
        self.refused = Counter({TOO_MANY_CONNECTIONS.slug: 0})  # by the last part of the problem's type
        self._server_state = server_state
        self._next_warning = 0.0

    def lets_in(self, connection: asyncio.BaseProtocol) -> bool:
        """Whether there was a place, which the connection then has; that there was none is said once a minute."""
        most = self.settings.max_connections
        if len(self.taken) < most:
            self.taken.add(connection)
            return True
        self.refused[TOO_MANY_CONNECTIONS.slug] += 1
        now = asyncio.get_running_loop().time()
        if now >= self._next_warning:
            self._next_warning = now + _SECONDS_BETWEEN_WARNINGS
            _logger.warning(
                "All %d connections are taken; refused since the start: %d",
                most,
                self.refused[TOO_MANY_CONNECTIONS.slug],
            )
        return False

    def refuse(self, transport: asyncio.Transport, kind: ProblemType, detail: str) -> None:
        """Write a refusal to a connection, and let it leave."""
        if kind is not TOO_MANY_CONNECTIONS:  # which is counted where there is no place
            self.refused[kind.slug] += 1
        transport.write(_answer(kind, detail, self._server_state.default_headers))
        leaving = Leaving(self.leaving)
        transport.set_protocol(leaving)
        leaving.connection_made(transport)


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with times, and bounds on what is held for a client."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], door: Door) -> None:
        super().__init__(config, server_state, app_state)
        self._door = door
        self._settings = door.settings
        self._head_timer: asyncio.TimerHandle | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._overhead_bytes = 0  # received since a head was complete, or a piece of a body was
        self._progress = False  # whether either was, in what is being read
        self._deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head, if there is a place."""
        encrypted = transport.get_extra_info("sslcontext") is not None  # then it has its place already
        if not encrypted and not self._door.lets_in(self):
            most = self._settings.max_connections
            self._door.refuse(transport, TOO_MANY_CONNECTIONS, f"All {most} connections are taken; try again.")
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back, and stop the clocks."""
        self._door.taken.discard(self)
        self._stop_head_timer()
        self._stop_abort_timer()
        super().connection_lost(exc)

    @property
    def is_open(self) -> bool:
        """Whether requests may come; under TLS only after the handshake."""
        return self in self.connections

    def data_received(self, data: bytes) -> None:
        """Read on; then look whether a head, or the rest of a body that nobody wants, is still to come."""
        if self._deaf:
            return
        self._progress = False
        super().data_received(data)
        if not self.is_open or self.transport.is_closing():
            return
        self._overhead_bytes = 0 if self._progress else self._overhead_bytes + len(data)
        if self._overhead_bytes > _MAX_HEAD_BYTES:
            if self._owes_an_answer():
                self.transport.abort()
            else:
                self._refuse(HEAD_TOO_LARGE, f"The head of the request is larger than {_MAX_HEAD_BYTES} bytes.")
        elif self._head_timer is None and (self._in_head or self.cycle is None or self.cycle.response_complete):
            self._expect_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is there."""
        self._in_head, self._progress = False, True
        self._stop_head_timer()
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise httptools.HttpParserError("too many requests before the first one is answered")
        super().on_headers_complete()
        self.headers = []  # the request has its own; what a body's trailers say shall not become its headers
        if self.parser.should_upgrade():  # which isn't done, and after which nothing more is read
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of a body is there."""
        self._progress = True
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on to the next request; if this was the last one, its answer is still to be taken."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_after(self._settings.request_seconds)

    def send_400_response(self, msg: str) -> None:
        """Refuse what isn't HTTP, after what was asked before has been answered."""
        if self._owes_an_answer():
            self._answer_and_close()
        else:
            self._refuse(NOT_HTTP, "What was sent isn't an HTTP request; the connection is closed.")

    def timeout_keep_alive_handler(self) -> None:
        """Close, unless the next head has begun, whose clock runs."""
        if self._head_timer is None:
            self._close()

    def pause_writing(self) -> None:
        """The client doesn't take its answer as fast as it is written."""
        super().pause_writing()
        self._abort_after(self._settings.request_seconds)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._stop_abort_timer()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: the request is answered as if it hadn't asked for another protocol, as it may be."""

    def _owes_an_answer(self) -> bool:
        """Whether a request that has arrived isn't answered yet, so that nothing else may be written now."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        arriving = self.cycle.more_body and not self.cycle.response_started and not self.pipeline
        return not arriving

    def _expect_head(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self._settings.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it may have arrived: it is we who don't read
            self._expect_head()
        elif self._owes_an_answer():
            self._answer_and_close()
        elif self._in_head:
            seconds = self._settings.head_seconds
            self._refuse(TOO_SLOW, f"The head of the request didn't arrive within {seconds:g} seconds.")
        else:
            self._close()

    def _refuse(self, kind: ProblemType, detail: str) -> None:
        self._unset_keepalive_if_required()
        self._door.refuse(self.transport, kind, detail)
        self.connection_lost(ConnectionAbortedError())  # for whoever still reads the request's body

    def _answer_and_close(self) -> None:
        """Hang up when all is answered that has arrived; what still comes is dropped."""
        self.cycle.keep_alive = False
        self._deaf = True

    def _close(self) -> None:
        self.transport.close()
        unread = self.transport.get_write_buffer_size() > 0
        self._abort_after(self._settings.request_seconds if unread else _LEAVING_SECONDS)

    def _abort_after(self, seconds: float) -> None:
        self._stop_abort_timer()
        self._abort_timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_abort_timer(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None


class EncryptedConnection(SSLProtocol):
    """A connection under TLS: counted from its first moment, while uvicorn sees it after the handshake."""

    def __init__(self, connection: Connection, tls: ssl.SSLContext, door: Door) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            connection,
            tls,
            None,  # type: ignore[arg-type]  # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=door.settings.head_seconds,  # type: ignore[arg-type]  # any number will do
        )
        self._door = door
        self._connection = connection
        self._raw: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake, if there is a place."""
        assert isinstance(transport, asyncio.Transport)
        if self._door.lets_in(self):
            self._raw = transport
            super().connection_made(transport)
        else:
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self._door.taken.discard(self)
        super().connection_lost(exc)

    def give_up_handshake(self) -> None:
        """Hang up if it isn't done."""
        if self._raw is not None and not self._connection.is_open:
            self._raw.abort()


class Leaving(asyncio.Protocol):
    """A client that has been told why it has to go.

    What it still sends is read and dropped, for a second at most: closed at once, TCP would throw away the answer with
    what isn't read. Of very many at once, the others are closed at once.
    """

    def __init__(self, leaving: set[asyncio.BaseProtocol]) -> None:
        self._leaving = leaving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say that nothing more comes."""
        assert isinstance(transport, asyncio.Transport)
        if transport.can_write_eof() and len(self._leaving) < MOST_LEAVING:
            transport.write_eof()
            transport.resume_reading()
        else:  # under TLS, closing takes in what still comes
            transport.close()
        self._leaving.add(self)
        self._timer = asyncio.get_running_loop().call_later(_LEAVING_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._leaving.discard(self)
        self._timer.cancel()


def _answer(kind: ProblemType, detail: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A refusal as it goes over the wire, the last answer of its connection."""
    body = problem(kind, detail).model_dump_json().encode()
    status = HTTPStatus(kind.status)
    own = {
        "content-type": MEDIA_TYPE,
        "content-length": len(body),
        "cache-control": "no-store",
        "connection": "close",
        **({"retry-after": RETRY_AFTER_SECONDS} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}),
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in headers]
    lines += [f"{name}: {value}".encode() for name, value in own.items()]
    return b"\r\n".join([*lines, b"", body])
