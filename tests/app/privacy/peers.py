"""A peer that is called: a real server in a thread, with or without TLS, that does what it is told to."""

from __future__ import annotations

import fcntl
import json
import select
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import trustme

Handler: TypeAlias = BaseHTTPRequestHandler

NAME: Final = "privacy.example.org"
"""Of the peer, in its certificate; no resolver but that of the tests knows it."""

_NPM: Final = "standardwebhooks@1.1.1"
_VERIFY: Final = """
const { Webhook } = require("standardwebhooks");
const messages = JSON.parse(require("fs").readFileSync(0, "utf8"));
const verified = messages.map(({ secret, body, headers }) => {
  try { new Webhook(secret).verify(body, headers); return true; } catch (error) { return false; }
});
console.log(JSON.stringify(verified));
"""


@dataclass(frozen=True, kw_only=True)
class Says:
    """An answer of the peer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"

    def __call__(self, handler: Handler, _: Peer) -> None:
        """Give it."""
        handler.send_response(self.status)
        for name, value in ({"Content-Length": str(len(self.body))} | dict(self.headers)).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(self.body)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A message that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: str
    at: float


@dataclass
class Peer:
    """A server, and what it was asked.

    Attributes:
        says: what it does, a request each, the last for ever.
        asked: what arrived whole, in order.
        connections: that were made, with or without a request.
        ended: set when those shall end that hang.
    """

    says: Sequence[Callable[[Handler, Peer], None]]
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/hook", *, name: str = NAME, scheme: str = "https") -> str:
        """An address of it."""
        return f"{scheme}://{name}:{self.port}{path}"


def hang(handler: Handler, one: Peer) -> None:
    """Never answer, until the other side goes away."""
    while not one.ended.wait(0.02) and not select.select([handler.connection], [], [], 0)[0]:
        pass


def drip_head(handler: Handler, one: Peer) -> None:
    """Begin to answer, and never come to the end of the head."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    _drip(handler, one, b"X-More: more\r\n")


def drip_body(handler: Handler, one: Peer) -> None:
    """Answer, and never come to the end of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    _drip(handler, one, b"x")


def _drip(handler: Handler, one: Peer, what: bytes) -> None:
    with suppress(OSError):
        while not one.ended.wait(0.05):
            handler.wfile.write(what)
            handler.wfile.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hangs up does no harm."""


@contextmanager
def peer(*says: Callable[[Handler, Peer], None], tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A peer on this machine."""
    one, lock = Peer(says or (Says(),)), threading.Lock()

    class TheHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("utf-8")
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                said = one.says[min(len(one.asked), len(one.says) - 1)]
                one.asked.append(Asked(method=self.command, path=self.path, headers=headers, body=body, at=time.time()))
            self.close_connection = True
            said(self, one)

        do_GET = do_PUT = do_POST  # noqa: N815 - the library's names

        def setup(self) -> None:
            with lock:
                one.connections += 1
            super().setup()

        def log_message(self, *arguments: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), TheHandler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    one.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield one
    finally:
        one.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """Of a server with a certificate for some names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or (NAME,))).configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """Of whoever trusts the authority, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@dataclass
class Names:
    """A resolver; each name has answers, one after the other, the last for ever.

    Attributes:
        answers: by name.
        asked: names, in order.
    """

    answers: Mapping[str, Sequence[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Addresses of a host."""
        answers = self.answers[host]
        self.asked.append(host)
        return answers[min(self.asked.count(host), len(answers)) - 1]


HERE: Final = Names({NAME: [["127.0.0.1"]]})
"""Knows where the peer is."""


def verified_by_node(messages: Sequence[tuple[str, Asked]]) -> list[bool]:
    """Whether the package of npm verifies messages, each with a secret."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm aren't here")
    folder = Path(sys.prefix) / "node" / _NPM
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # of who comes at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "node_modules" / "standardwebhooks").exists():
            options = ("--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries", "0")
            command = [npm, "install", "--prefix", str(folder), *options, _NPM]
            try:
                installed = subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
            except subprocess.TimeoutExpired:
                installed = False
            if not installed:
                pytest.skip("the registry of npm can't be reached")
    given = [{"secret": secret, "body": one.body, "headers": one.headers} for secret, one in messages]
    run = subprocess.run(
        [node, "-e", _VERIFY], cwd=folder, input=json.dumps(given), capture_output=True, text=True, check=True
    )
    verified: list[bool] = json.loads(run.stdout)
    return verified
