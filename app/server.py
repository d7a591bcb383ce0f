"""The HTTP server around the application: uvicorn on our connections, with TLS, and with an end that is in order.

Its address is taken before the application starts, and is listened at after it: what can't be had is said at once, and
nobody is let in too early. `connections` says what a client may do, and how long.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import gaierror, socket
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.connections import MOST_LEAVING, Connection, Door, EncryptedConnection
from app.errors import UnavailableError
from app.settings import Settings
from engine.errors import ConfigurationError

_KEEP_ALIVE_SECONDS: Final = 20  # longer than the usual clients keep a connection, so that they close it first
_SHUTDOWN_SECONDS: Final = 8  # for requests in flight; Docker kills after ten
_OTHER_DESCRIPTORS: Final = 100  # of files, artifacts and the catalog

_logger = logging.getLogger(__name__)


def serve(
    app: ASGIApp,
    settings: Settings,
    *,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    watched: Callable[[Door], None] = lambda _: None,
    listening: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Serve the application until SIGTERM or SIGINT, and then finish the requests that are in flight.

    The process may open as many files as the system lets it from then on.

    Args:
        app: an ASGI application that has a start.
        settings: `host`, `port`, the times, and `max_connections`.
        tls_certificate: a file of PEM, the chain of the server; None serves without TLS.
        tls_key: a file of PEM, the certificate's key without a password.
        watched: handed the places for connections, to look at them.
        listening: called with its addresses once whoever connects is answered.

    Raises:
        ConfigurationError: certificate and key aren't both given, can't be read, or don't fit.
        UnavailableError: the address can't be listened at.
        Exception: whatever the application's start refuses with.
    """
    tls = None
    if tls_certificate is not None or tls_key is not None:
        tls = tls_context(tls_certificate, tls_key)
    fitting = connections_that_fit(settings.max_connections)
    if fitting < settings.max_connections:
        _logger.warning(
            "NEVERSEEN_MAX_CONNECTIONS is %d, but this process may open so few files that only %d connections are "
            "taken: raise its limit (ulimit -n)",
            settings.max_connections,
            fitting,
        )
    gc.freeze()  # or each full collection looks through all that was imported, and nobody is answered meanwhile
    server = HttpServer(app, settings.model_copy(update={"max_connections": fitting}), tls=tls, listening=listening)
    watched(server.door)
    server.run()


def connections_that_fit(wanted: int) -> int:
    """How many connections this process may hold, of those wanted; its own limit of open files is raised first."""
    reserved = _OTHER_DESCRIPTORS + MOST_LEAVING
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        soft = max(soft, wanted + reserved) if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return min(wanted, max(1, soft - reserved))
    return wanted


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """What the server shows and expects under TLS, of version 1.2 or newer.

    Raises:
        ConfigurationError: one of the two is missing, can't be read, isn't PEM, or the key isn't the certificate's.
    """
    if certificate is None or key is None:
        raise ConfigurationError("TLS takes both a certificate and its key: give --tls-certificate and --tls-key.")
    for file in (certificate, key):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{file.name} can't be read: {error.strerror}.") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without the last argument, a key that has a password would be asked about on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"{certificate.name} and {key.name} aren't a certificate and its key, in PEM and without a password."
        ) from error
    return context


class HttpServer(uvicorn.Server):
    """uvicorn's server with connections of our own, and an end with exit code 0."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        tls: ssl.SSLContext | None = None,
        listening: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        """Opens nothing yet.

        Args:
            app: an ASGI application that has a start.
            settings: `host`, `port`, the times, and `max_connections`.
            tls: None for plain HTTP.
            listening: called with its addresses once it listens.
        """
        self._start = _Start(app)
        super().__init__(
            uvicorn.Config(
                self._start,
                host=settings.host,
                port=settings.port,
                loop="asyncio",  # whose TLS is used below
                ws="none",
                lifespan="auto",  # "on" would log a refused start, which is raised instead
                interface="asgi3",
                log_config=None,  # whoever runs the server says where the logs go
                log_level="error" if settings.log_level == "error" else "warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
        )
        self.door = Door(settings, self.server_state)
        self._tls, self._listening = tls, listening

    @property
    def addresses(self) -> list[str]:
        """Where it listens, once it does."""
        scheme = "http" if self._tls is None else "https"
        sockets = [one for server in self.servers for one in server.sockets]
        return [f"{scheme}://{_bracketed(one.getsockname()[0])}:{one.getsockname()[1]}" for one in sockets]

    async def startup(self, sockets: Sequence[socket] | None = None) -> None:
        """Take the address, start the application, and only then listen.

        Raises:
            UnavailableError: the address can't be had.
            Exception: whatever the application's start refuses with.
        """
        loop, config = asyncio.get_running_loop(), self.config
        try:
            listening = await loop.create_server(
                self._connection, config.host, config.port, backlog=config.backlog, start_serving=False
            )
        except OSError as error:
            # asyncio says much about an address that is taken, and then what counts.
            reason = error.strerror if isinstance(error, gaierror) or error.errno is None else os.strerror(error.errno)
            raise UnavailableError(
                f"Can't listen at port {config.port} of {config.host}: {reason}. "
                "Stop what listens there, or choose another --port or --host."
            ) from error
        self.servers = [listening]
        await self.lifespan.startup()
        if self._start.refusal is not None:
            listening.close()
            raise self._start.refusal
        await listening.start_serving()
        for address in self.addresses:
            _logger.info("Listening at %s", address)
        self.started = True
        self._listening(self.addresses)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Finish what is in flight; a handshake isn't waited for."""
        _logger.info("Stopping: finishing the requests in flight")
        for connection in list(self.door.taken):
            if isinstance(connection, EncryptedConnection):
                connection.give_up_handshake()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; the second Ctrl-C ends without waiting. uvicorn would have the signal kill the process in the end."""
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True

    def _connection(self) -> asyncio.BaseProtocol:
        connection = Connection(self.config, self.server_state, self.lifespan.state, self.door)
        return connection if self._tls is None else EncryptedConnection(connection, self._tls, self.door)


class _Start:
    """The application, of which it is kept with what it refused to start: uvicorn would log a traceback, and exit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.refusal: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_what_went_well(message: Message) -> None:
            if message["type"] != "lifespan.startup.failed":
                await send(message)
            else:
                self.refusal = RuntimeError(message.get("message"))

        try:
            await self._app(scope, receive, send_what_went_well)
        except BaseException as error:
            self.refusal = error
            raise


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
