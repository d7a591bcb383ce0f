"""Ten thousand clients that send nothing, and hundreds that send a byte a second: the service goes on answering."""

from __future__ import annotations

import json
import re
import resource
import select
import shutil
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.server import connections_that_fit
from app.settings import Settings
from tests.drills.processes import Neverseen, environment_of, running, wait_until

pytestmark = pytest.mark.drill

CLIENTS, PLACES = 10_000, 9_000
HEAD_SECONDS = 20
PROMPT_SECONDS = 1.0  # while thousands of connections are opened on the same processors
SLOW_CLIENTS, BODY_SECONDS = 500, 8


@pytest.fixture
def enough_files() -> Iterator[None]:
    """As many open files as both sides of the connections take."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if connections_that_fit(CLIENTS) < CLIENTS:
        pytest.skip(f"a process may open only {before[1]} files here (ulimit -Hn)")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def service(place: Path, template: Path, **settings: float) -> Iterator[tuple[Neverseen, int]]:
    """A service with an empty catalog and some settings of its own, and its port."""
    shutil.copy(template, place / "catalog.sqlite")
    own = {f"NEVERSEEN_{name.upper()}": str(value) for name, value in settings.items()}
    environment = environment_of(Settings(data_dir=place)) | own
    log = place / "log"
    log.touch()
    with running("serve", "--port", "0", environment=environment, log=log) as process:
        wait_until(lambda: listening(process) is not None, "the service listens")
        port = listening(process)
        assert port is not None
        yield process, port


def listening(process: Neverseen) -> int | None:
    assert process.code is None, process.said
    found = re.search(r"Listening at http://127\.0\.0\.1:(\d+)", process.said)
    return None if found is None else int(found[1])


def seconds_to_answer(client: httpx.Client, path: str) -> float:
    began = time.monotonic()
    assert client.get(path).status_code == 200
    return time.monotonic() - began


def readable(sockets: list[socket.socket], *, within_seconds: float) -> list[socket.socket]:
    """Those to which something has come, or that have been hung up on."""
    by_number = {one.fileno(): one for one in sockets}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(1000 * within_seconds)]


def all_of(one: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    one.settimeout(5)
    received = b""
    while piece := one.recv(4096):
        received += piece
    return received


def problem(answer: bytes) -> dict[str, Any]:
    """The body of a refusal that was the last answer of its connection."""
    head, _, body = answer.lower().partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    content: dict[str, Any] = json.loads(body)
    assert head.startswith(b"http/1.1 %d " % content["status"])
    return content


@pytest.mark.usefixtures("enough_files")
def test_ten_thousand_idle_connections_neither_stop_the_service_nor_stay(tmp_path: Path, sqlite_template: Path) -> None:
    with (
        service(tmp_path, sqlite_template, max_connections=PLACES, head_seconds=HEAD_SECONDS) as (process, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as before,
        ExitStack() as opened,
    ):
        latencies = [seconds_to_answer(before, "/healthz")]
        began = time.monotonic()
        clients = []
        for number in range(CLIENTS):
            clients.append(opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)))
            if number % 100 == 0:
                latencies.append(seconds_to_answer(before, "/healthz"))
        took = time.monotonic() - began
        assert took < HEAD_SECONDS / 2, "the machine is too slow for this drill"

        idle, refused = clients[: PLACES - 1], clients[PLACES - 1 :]  # one place is that of `before`
        for one in refused:
            answer = all_of(one)
            assert b"\r\nretry-after: " in answer.lower()
            assert problem(answer)["type"] == "urn:neverseen:problem:connections"
        assert readable(idle, within_seconds=0) == []
        latencies += [seconds_to_answer(before, "/healthz") for _ in range(100)]
        assert max(latencies) < PROMPT_SECONDS

        assert {all_of_patiently(one, began + took + HEAD_SECONDS + 5) for one in idle} == {b""}
        assert time.monotonic() - began >= HEAD_SECONDS
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as after:
            assert seconds_to_answer(after, "/healthz") < PROMPT_SECONDS
        assert process.said.count("connections are taken;") == 1
        print(f"opened in {took:.1f} s; answered in {statistics.median(latencies) * 1e3:.1f} ms, ", end="")  # noqa: T201
        print(f"at most {max(latencies) * 1e3:.0f} ms")  # noqa: T201


def all_of_patiently(one: socket.socket, deadline: float) -> bytes:
    """What comes until the other side hangs up, which it does by then."""
    one.settimeout(max(0.1, deadline - time.monotonic()))
    return one.recv(4096)


def test_clients_that_send_a_byte_a_second_hold_nobody_up(tmp_path: Path, sqlite_template: Path) -> None:
    with (
        service(tmp_path, sqlite_template, body_seconds=BODY_SECONDS) as (_, port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as ordinary,
        ExitStack() as opened,
    ):
        seconds_to_answer(ordinary, "/datasets")
        alone = [seconds_to_answer(ordinary, "/datasets") for _ in range(300)]

        head = (
            b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
        )
        slow = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(SLOW_CLIENTS)
        ]
        began = time.monotonic()
        for one in slow:
            one.sendall(head + b"\r\n")
        sending = threading.Thread(target=send_slowly, args=(slow, began + BODY_SECONDS))
        sending.start()
        meanwhile = []
        while time.monotonic() < began + BODY_SECONDS - 1:
            meanwhile.append(seconds_to_answer(ordinary, "/datasets"))
            time.sleep(0.02)
        sending.join()

        statuses = Counter(problem(all_of(one))["status"] for one in slow)
        assert statuses == {408: SLOW_CLIENTS}
        assert time.monotonic() - began < BODY_SECONDS + 5
        usual, now = statistics.median(alone), statistics.median(meanwhile)
        assert now < 3 * usual + 0.005, f"{now * 1e3:.1f} ms beside slow clients, {usual * 1e3:.1f} ms without"
        print(f"answered in {now * 1e3:.1f} ms beside slow clients, {usual * 1e3:.1f} ms without")  # noqa: T201


def send_slowly(clients: list[socket.socket], until: float) -> None:
    """A space a second from each, until it is answered."""
    while time.monotonic() < until - 0.5:
        for one in clients:
            one.sendall(b" ")
        time.sleep(1)
