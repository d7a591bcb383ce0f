"""Servers in threads: the real application's, and a tiny one that says whatever it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import uvicorn

from app.errors import problem_type
from app.main import create_app
from app.problems import problem
from app.settings import Settings


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The application on a server in a thread; its address."""
    config = uvicorn.Config(create_app(settings), port=0, log_config=None, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        [listening] = [one for part in server.servers for one in part.sockets]
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
    assert not thread.is_alive()


@dataclass(frozen=True)
class Said:
    """An answer of the tiny server; None of a status hangs up without one."""

    status: int | None = 200
    body: bytes = b'{"status": "alive"}'
    headers: dict[str, str] = field(default_factory=dict)


LINE = b'{"index":%d,"id":null,"version":1,"contains_erased":false,"deleted":null,"predictions":null,"problem":null}\n'
"""Of the answer to a batch, in which nothing is said."""


@dataclass
class Tiny:
    """A server that says what it is told to, the last for ever; and what it was asked."""

    says: Sequence[Said]
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def saying(*says: Said) -> Iterator[Tiny]:
    tiny = Tiny(says)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = tiny.says[min(len(tiny.asked), len(tiny.says) - 1)]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            tiny.asked.append((self.command, self.path, headers, body))
            self.close_connection = True
            if said.status is None:
                return
            self.send_response(said.status)
            for name, value in ({"Content-Length": str(len(said.body))} | said.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the library's names

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        tiny.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield tiny
        finally:
            server.shutdown()
            thread.join()


def refused(error: type[Exception], *, retry_after: int = 0) -> Said:
    """A refusal as the service makes it."""
    kind = problem_type(error)
    headers = {"Content-Type": "application/problem+json", "Retry-After": str(retry_after)}
    return Said(kind.status, problem(kind, "Not now.").model_dump_json().encode(), headers)
