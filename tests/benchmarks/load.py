"""A light HTTP client: requests encoded beforehand over plain sockets, so that the server has the processor.

It knows one kind of exchange: a request, an answer of status 200 with a Content-Length, on a connection that is kept.
Latencies of an open loop are counted from the moment at which a request was due, not from when it could be sent: what
waits for a slow server shows.
"""

from __future__ import annotations

import gc
import json
import random
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

Arrivals: TypeAlias = Literal["even", "random"]

_RECEIVE_BYTES: Final = 1 << 16
_HEAD_END: Final = b"\r\n\r\n"


class AnswerError(Exception):
    """An answer that isn't a success."""


def encoded(method: str, path: str, body: object = None) -> bytes:
    """A request as it goes over the wire; `body` is sent as JSON."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    content = json.dumps(body).encode()
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


class Connection:
    """One connection that is kept alive."""

    def __init__(self, port: int) -> None:
        """Connect to a server on this machine."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def ask(self, request: bytes) -> bytes:
        """The body of the answer."""
        self.socket.sendall(request)
        while (body := self.receive()) is None:
            pass
        return body

    def receive(self) -> bytes | None:
        """The body of the answer, or None where more is to come; reads once.

        Raises:
            AnswerError: the answer isn't a success, or the connection ended.
        """
        received = self.socket.recv(_RECEIVE_BYTES)
        if not received:
            raise AnswerError("The server closed the connection.")
        self._received += received
        end = self._received.find(_HEAD_END)
        if end < 0:
            return None
        head = self._received[:end].lower()
        place = head.index(b"content-length:") + len(b"content-length:")
        length = int(head[place:].split(b"\r\n", 1)[0])
        start = end + len(_HEAD_END)
        if len(self._received) < start + length:
            return None
        body, self._received = self._received[start : start + length], b""
        if not head.startswith(b"http/1.1 20"):
            raise AnswerError(f"{head.splitlines()[0].decode()}: {body[:500].decode(errors='replace')}")
        return body

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


@contextmanager
def connections(port: int, count: int) -> Iterator[list[Connection]]:
    """Several connections, closed at the end of the block. Meanwhile nothing is collected: no pauses of ours."""
    opened = [Connection(port) for _ in range(count)]
    gc.collect()
    gc.disable()
    try:
        yield opened
    finally:
        gc.enable()
        for connection in opened:
            connection.close()


def latencies(connection: Connection, requests: Sequence[bytes]) -> list[float]:
    """Seconds that each request takes, one after the other."""
    taken = []
    for request in requests:
        started = time.perf_counter()
        connection.ask(request)
        taken.append(time.perf_counter() - started)
    return taken


def closed_loop(port: int, requests: Iterator[bytes], *, count: int, seconds: float) -> float:
    """Requests answered a second, where each of `count` connections asks again as soon as it has its answer."""
    with connections(port, count) as opened, selectors.SelectSelector() as selector:
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        started = time.perf_counter()
        for connection in opened:
            connection.socket.sendall(next(requests))
        answered, waiting = 0, count
        while waiting:
            for key, _ in selector.select():
                if key.data.receive() is None:
                    continue
                answered += 1
                if time.perf_counter() - started < seconds:
                    key.data.socket.sendall(next(requests))
                else:
                    waiting -= 1
        return answered / (time.perf_counter() - started)


def open_loop(
    port: int, requests: Iterator[bytes], *, rate: float, count: int, seconds: float, arrivals: Arrivals
) -> list[float]:
    """Latencies of requests that become due whether or not the server keeps up.

    Args:
        port: of the server.
        requests: what is asked.
        rate: requests a second.
        count: connections; a request that finds all of them busy waits for one, which counts.
        seconds: how long requests become due.
        arrivals: evenly spaced, or at random as those of many users are (exponential gaps).
    """
    generator = random.Random(0)
    due, moment = deque[float](), 0.0
    while moment < seconds:
        due.append(moment)
        moment += 1 / rate if arrivals == "even" else generator.expovariate(rate)
    taken: list[float] = []
    # `select` waits for microseconds; epoll would round up to whole milliseconds, and ask late.
    with connections(port, count) as opened, selectors.SelectSelector() as selector:
        idle = list(opened)
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        asked: dict[Connection, float] = {}
        started = time.perf_counter()
        while due or asked:
            now = time.perf_counter() - started
            while due and idle and due[0] <= now:
                connection = idle.pop()
                asked[connection] = due.popleft()
                connection.socket.sendall(next(requests))
            until_due = max(0.0, due[0] - (time.perf_counter() - started)) if due and idle else None
            for key, _ in selector.select(until_due):
                if key.data.receive() is not None:
                    taken.append(time.perf_counter() - started - asked.pop(key.data))
                    idle.append(key.data)
    return taken
