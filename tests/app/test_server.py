"""The HTTP server: what slow clients, too many of them and clients that don't speak HTTP get, and how it ends.

Mostly around a small application, since what is tested never reaches it; the command line's part around the real one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import resource
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp
from typer.testing import CliRunner

from app.__main__ import app as command_line
from app.__main__ import main
from app.errors import SchemaError
from app.server import HttpServer, connections_that_fit, tls_context
from app.settings import Settings
from engine.errors import ConfigurationError

HEAD_SECONDS, REQUEST_SECONDS = 1.2, 2.4
SOON = 12.0  # seconds by which a loaded machine may be late; shorter than a connection is kept without requests
PLACES = 5
HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE_BYTES = 32 * 2**20

application = FastAPI(openapi_url=None)


@application.get("/healthz")
async def healthz() -> PlainTextResponse:
    return PlainTextResponse("alive")


@application.get("/slow/{seconds}")
async def slow(seconds: float) -> PlainTextResponse:
    await asyncio.sleep(seconds)
    return PlainTextResponse(f"{seconds:g}")


@application.post("/echo")
async def echo(request: Request) -> PlainTextResponse:
    body = await request.body()
    return PlainTextResponse(body + b" " + request.headers.get("x-word", "").encode())


@application.post("/refused")
async def refused() -> PlainTextResponse:
    """Answers without a look at the body."""
    return PlainTextResponse("no", status_code=403)


@application.get("/large")
async def large() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGE_BYTES // 2**16):
            yield bytes(2**16)

    return StreamingResponse(pieces())


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        assert self.headers["connection"] == "close"
        body: dict[str, Any] = json.loads(self.body)
        assert set(body) == {"type", "title", "status", "detail", "errors"}
        assert body["status"] == self.status
        return body


class Client:
    """A connection on which any bytes may be sent, at any pace."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, *, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(60)
        self.opened = time.monotonic()
        self.socket.connect(("127.0.0.1", port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def trickle(self, data: bytes, *, seconds_between: float = 0.05) -> None:
        """Send a byte at a time, until the other side answers or has hung up."""
        for i in range(len(data)):
            try:
                self.send(data[i : i + 1])
            except OSError:
                return
            if self.is_told(within=seconds_between):
                return

    def is_told(self, *, within: float) -> bool:
        """Whether something comes within so many seconds; known of plain HTTP only, since TLS itself says things."""
        if isinstance(self.socket, ssl.SSLSocket):
            time.sleep(within)
            return False
        return bool(select.select([self.socket], [], [], within)[0])

    def answer(self) -> Answer:
        status = int(self._file.readline().split()[1])
        lines = iter(self._file.readline, b"\r\n")
        headers = dict(line.decode().rstrip().lower().split(": ", 1) for line in lines)
        return Answer(status, headers, self._file.read(int(headers["content-length"])))

    def ask(self, request: bytes = HEALTHZ) -> Answer:
        self.send(request)
        return self.answer()

    def rest(self) -> bytes:
        """All that comes until the other side hangs up."""
        try:
            return self._file.read()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@contextmanager
def running(app: ASGIApp, tls: ssl.SSLContext | None = None, **given: Any) -> Iterator[HttpServer]:
    """A server in a thread."""
    times = {"head_seconds": HEAD_SECONDS, "request_seconds": REQUEST_SECONDS, "max_connections": PLACES}
    server = HttpServer(app, Settings(**{"port": 0, **times, **given}), tls=tls)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield server
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def port_of(server: HttpServer) -> int:
    [address] = server.addresses
    return int(address.rpartition(":")[2])


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with running(application) as server:
        yield server


@pytest.fixture
def port(server: HttpServer) -> int:
    wait_until(lambda: not server.door.taken and not server.door.leaving)  # those of the test before
    return port_of(server)


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    with closing(Client(port)) as client:
        yield client


def test_answers_dont_say_what_the_server_is(client: Client) -> None:
    answer = client.ask()
    assert (answer.status, answer.body) == (200, b"alive")
    assert "server" not in answer.headers
    assert "date" in answer.headers


def test_a_head_that_trickles_in_is_refused_in_time_however_steadily_it_comes(client: Client) -> None:
    client.trickle(HEALTHZ)
    assert HEAD_SECONDS <= time.monotonic() - client.opened < HEAD_SECONDS + SOON
    answer = client.answer()
    assert answer.status == 408
    assert answer.problem()["type"] == "urn:neverseen:problem:too-slow"
    assert client.rest() == b""


@pytest.mark.parametrize("sent", [b"", b"\r\n" * 50])
def test_a_connection_on_which_no_request_begins_is_closed_without_a_word(client: Client, sent: bytes) -> None:
    client.trickle(sent)
    assert client.rest() == b""
    assert HEAD_SECONDS <= time.monotonic() - client.opened < HEAD_SECONDS + SOON


def test_a_connection_is_kept_for_further_requests_and_each_head_has_its_own_time(client: Client) -> None:
    for _ in range(3):
        assert client.ask().status == 200
        time.sleep(0.6 * HEAD_SECONDS)  # between requests, no head is waited for
    began = time.monotonic()
    client.trickle(HEALTHZ)
    assert HEAD_SECONDS <= time.monotonic() - began < HEAD_SECONDS + SOON
    assert client.answer().status == 408


def test_a_request_may_take_longer_than_its_head(client: Client) -> None:
    assert client.ask(b"GET /slow/%.1f HTTP/1.1\r\nHost: test\r\n\r\n" % (2 * HEAD_SECONDS)).status == 200
    client.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 12\r\n\r\n")
    client.trickle(b"twelve bytes", seconds_between=HEAD_SECONDS / 8)
    assert client.answer().body == b"twelve bytes "


@pytest.mark.parametrize("piece_bytes", [1, 7, 50, 10_000])
def test_pipelined_requests_are_answered_in_order_wherever_they_are_cut(client: Client, piece_bytes: int) -> None:
    numbers = [0.02, 0.01, 0.03, 0.0]
    requests = b"".join(b"GET /slow/%g HTTP/1.1\r\nHost: test\r\n\r\n" % number for number in numbers)
    for at in range(0, len(requests), piece_bytes):
        client.send(requests[at : at + piece_bytes])
    assert [client.answer().body for _ in numbers] == [b"%g" % number for number in numbers]


def test_a_request_is_answered_before_one_behind_it_is_hung_up_on(client: Client) -> None:
    client.send(b"GET /slow/%.1f HTTP/1.1\r\nHost: test\r\n\r\nGET /hea" % (2 * HEAD_SECONDS))
    assert client.answer().status == 200
    assert client.rest() == b""


def test_only_so_many_requests_wait_for_one_before_them(client: Client) -> None:
    client.send(HEALTHZ * 500)
    answers = client.rest().count(b"HTTP/1.1 200")
    assert 100 <= answers < 500


def test_the_rest_of_a_body_that_nobody_wants_isnt_waited_for(client: Client) -> None:
    assert client.ask(b"POST /refused HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n").status == 403
    began = time.monotonic()
    client.trickle(bytes(1000))
    assert HEAD_SECONDS <= time.monotonic() - began < HEAD_SECONDS + SOON


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n"]
)
def test_what_isnt_http_is_refused(client: Client, sent: bytes) -> None:
    answer = client.ask(sent)
    assert answer.status == 400
    assert answer.problem()["type"] == "urn:neverseen:problem:not-http"
    assert client.rest() == b""


def test_a_body_that_isnt_http_is_refused_while_the_application_waits_for_it(client: Client) -> None:
    client.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    time.sleep(0.05)
    answer = client.ask(b"nothing hexadecimal\r\n")
    assert answer.status == 400
    assert client.rest() == b""


def test_a_request_is_answered_before_the_connection_is_closed_for_what_came_behind_it(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.send(b"GET /slow/0.3 HTTP/1.1\r\nHost: test\r\n\r\nhello\r\n\r\n")
    client.trickle(b"hello\r\n\r\n", seconds_between=0.01)
    assert client.answer().body == b"0.3"
    assert client.rest() == b""
    assert len([record for record in caplog.records if "Invalid" in record.message]) == 1  # not for each byte


def test_a_head_is_bounded(client: Client) -> None:
    client.send(HEALTHZ[:-2] + b"X-Long: ")
    sent = 0
    while not client.is_told(within=0.01):
        client.send(bytes([120]) * 2**14)
        sent += 2**14
    assert sent < 2**20
    assert client.answer().problem()["type"] == "urn:neverseen:problem:head-too-large"


def test_a_body_may_be_larger_than_a_head(client: Client) -> None:
    body = b"body" * 2**17
    answer = client.ask(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.body == body + b" "


def test_what_a_body_says_behind_itself_are_no_headers(client: Client) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"
    body = b"\r\n4\r\nbody\r\n0\r\nX-Word: behind\r\n\r\n"
    assert client.ask(head + b"X-Word: before\r\n" + body).body == b"body before"
    assert client.ask(head + body).body == b"body "


def test_another_protocol_isnt_switched_to(client: Client) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    answer = client.ask(HEALTHZ[:-2] + upgrade)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.rest() == b""


def test_a_client_that_doesnt_take_its_answer_is_hung_up_on(server: HttpServer, port: int) -> None:
    with closing(Client(port, receive_bytes=4096)) as client:
        client.send(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n")
        wait_until(lambda: bool(server.server_state.tasks))
        wait_until(lambda: not server.door.taken, seconds=REQUEST_SECONDS + SOON)
        assert time.monotonic() - client.opened >= REQUEST_SECONDS
        assert len(client.rest()) < LARGE_BYTES


def test_one_connection_too_many_is_refused_and_has_its_place_when_another_one_goes(
    server: HttpServer, port: int
) -> None:
    clients = [Client(port) for _ in range(PLACES)]
    assert [client.ask().status for client in clients] == [200] * PLACES
    for sent in (b"", HEALTHZ, bytes(10_000)):
        with closing(Client(port)) as refused:
            answer = refused.ask(sent)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.problem()["type"] == "urn:neverseen:problem:connections"
            assert refused.rest() == b""
            assert time.monotonic() - refused.opened < SOON
    assert clients[0].ask().status == 200
    clients.pop().close()
    wait_until(lambda: len(server.door.taken) < PLACES)
    clients.append(Client(port))
    assert clients[-1].ask().status == 200
    for client in clients:
        client.close()


def test_refused_connections_are_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with running(application, max_connections=1) as server, closing(Client(port_of(server))) as first:
        assert first.ask().status == 200
        for _ in range(60):  # more than may take their time to leave
            with closing(Client(port_of(server))) as refused:
                assert refused.answer().status == 503
    assert [record.message for record in caplog.records if "refused" in record.message] == [
        "All 1 connections are taken; refused since the start: 1"
    ]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    directory = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    issued.private_key_pem.write_to_path(directory / "key.pem")
    return directory / "certificate.pem", directory / "key.pem"


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def tls_port(certificate: tuple[Path, Path]) -> Iterator[int]:
    with running(application, tls_context(*certificate)) as server:
        assert server.addresses[0].startswith("https://127.0.0.1:")
        yield port_of(server)


def test_tls_is_served(tls_port: int, trusting: ssl.SSLContext) -> None:
    with closing(Client(tls_port, trusting)) as client:
        assert [client.ask().status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(("sent", "status"), [(HEALTHZ, 408), (b"", None)])
def test_slow_clients_are_hung_up_on_under_tls(
    tls_port: int, trusting: ssl.SSLContext, sent: bytes, status: int | None
) -> None:
    with closing(Client(tls_port, trusting)) as client:
        client.trickle(sent)
        if status is not None:
            assert client.answer().status == status
        assert client.rest() == b""
        assert HEAD_SECONDS <= time.monotonic() - client.opened < HEAD_SECONDS + SOON


def test_a_handshake_has_its_time(tls_port: int) -> None:
    with closing(Client(tls_port)) as client:
        assert client.rest() == b""
        assert HEAD_SECONDS <= time.monotonic() - client.opened < HEAD_SECONDS + SOON


def test_who_speaks_plain_http_to_tls_is_hung_up_on(tls_port: int) -> None:
    with closing(Client(tls_port)) as client:
        client.send(HEALTHZ)
        assert b"200" not in client.rest()


def test_connections_in_their_handshake_take_places(certificate: tuple[Path, Path], trusting: ssl.SSLContext) -> None:
    with running(application, tls_context(*certificate), head_seconds=60) as server:
        shaking = [Client(port_of(server)) for _ in range(PLACES)]
        wait_until(lambda: len(server.door.taken) == PLACES)
        with closing(Client(port_of(server))) as refused:
            assert refused.rest() == b""
        for client in shaking:
            client.close()
        wait_until(lambda: not server.door.taken)
        with closing(Client(port_of(server), trusting)) as client:
            assert client.ask().status == 200


def test_a_server_stops_while_handshakes_and_heads_are_unfinished(certificate: tuple[Path, Path]) -> None:
    for tls, sent in ((tls_context(*certificate), b""), (None, HEALTHZ[:9])):
        with running(application, tls, head_seconds=60) as server, closing(Client(port_of(server))) as client:
            client.send(sent)
            time.sleep(0.05)
            server.should_exit = True
            assert client.rest() == b""


def test_tls_takes_a_certificate_and_its_key(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    chain, key = certificate
    protected = tmp_path / "protected.pem"
    unlocked = load_pem_private_key(key.read_bytes(), None)
    protected.write_bytes(
        unlocked.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    )
    other = tmp_path / "other.pem"
    other.write_bytes(trustme.CA().private_key_pem.bytes())
    for given, message in (
        ((chain, None), "give --tls-certificate and --tls-key"),
        ((None, key), "give --tls-certificate and --tls-key"),
        ((chain, tmp_path / "no.pem"), r"^no\.pem can't be read: No such file"),
        ((tmp_path, key), "can't be read: Is a directory"),
        ((key, key), "aren't a certificate and its key"),
        ((chain, other), "aren't a certificate and its key"),
        ((chain, protected), "aren't a certificate and its key"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            tls_context(*given)


def test_a_start_that_is_refused_is_raised_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def refusing(app: FastAPI) -> AsyncIterator[None]:
        raise SchemaError("The schema is another.")
        yield

    server = HttpServer(FastAPI(lifespan=refusing), Settings(port=0))
    with pytest.raises(SchemaError, match=r"^The schema is another\.$"):
        server.run()
    assert not caplog.records  # whoever runs the server says it


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """The command line sets up the logging of the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("app")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.mark.usefixtures("logging_as_before")
def test_an_address_that_cant_be_had_is_refused_in_one_line(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(tmp_path))
    for host, reason in (("127.0.0.1", "Address already in use"), ("no such host", ".*")):
        monkeypatch.setattr("sys.argv", ["neverseen", "serve", "--host", host, "--port", str(port)])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 2
        said = rf"Error: Can't listen at port {port} of {host}: {reason}\. Stop what listens there, or choose .*\n"
        assert re.fullmatch(said, capsys.readouterr().err)


def test_the_process_may_open_as_many_files_as_the_system_lets_it() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert connections_that_fit(1000) == 1000
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000
        if hard != resource.RLIM_INFINITY:
            assert connections_that_fit(hard) < hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("logging_as_before")
def test_one_of_certificate_and_key_is_refused_by_the_command_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command_line, ["serve", "--tls-key", "key.pem"], env={"NEVERSEEN_DATA_DIR": str(tmp_path)}
    )
    assert isinstance(result.exception, ConfigurationError)


def test_a_signal_has_the_service_finish_what_is_in_flight_and_exit_with_0(tmp_path: Path) -> None:
    environment = {"NEVERSEEN_DATA_DIR": str(tmp_path), "NEVERSEEN_PORT": "0", "NEVERSEEN_MAX_CONNECTIONS": "1000"}
    command = ["sh", "-c", 'ulimit -n 300; exec "$@"', "sh", sys.executable, "-m", "app", "serve"]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        service = subprocess.Popen(command, env={**os.environ, **environment}, stderr=stderr)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"Listening at http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert service.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "only 150 connections are taken" in log.read_text()
        with closing(Client(int(found[1]))) as client:
            body = b'{"sketch": "none", "delete": {"units": ["a"]}, "measurements": [{"kind": "loss", "text": "a"}]}'
            client.send(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            client.send(b"Content-Length: %d\r\n\r\n" % len(body))
            time.sleep(1)  # until it has been read
            service.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert service.poll() is None
            client.send(body)
            assert client.answer().status == 404
            assert client.rest() == b""
        assert service.wait(60) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        service.kill()
        service.wait()
