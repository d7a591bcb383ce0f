"""Object stores to test on: fsspec's in memory, and an S3 that runs here, behind a proxy whose cable can be cut."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from uuid import uuid4

import boto3
import httpx
import pytest
import s3fs
from moto.server import ThreadedMotoServer

Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""Of WSGI."""

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


class Proxy:
    """Hands connections on to a port of this machine, until it is cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._passing, self._lock = True, threading.Lock()
        self._left: int | None = None
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, after_bytes: int = 0) -> None:
        """End all connections, at once or when so much more has come from the target, and take no others."""
        if after_bytes:
            self._left = after_bytes
            return
        self._passing = False
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        """Take connections again."""
        self._left, self._passing = None, True

    @contextmanager
    def restored_when_noticed(self) -> Iterator[None]:
        """Take connections again as soon as somebody says in the log that the store is away."""
        proxy = self

        class Noticed(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if "Trying again" in record.getMessage():
                    proxy.restore()

        handler, logger = Noticed(), logging.getLogger("engine.locations")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if not self._passing:
                ours.close()
                continue
            try:
                theirs = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                ours.close()
                continue
            with self._lock:
                self._open |= {ours, theirs}
            for source, sink, counted in ((ours, theirs, False), (theirs, ours, True)):
                threading.Thread(target=self._pump, args=(source, sink, counted), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while self._passing and (chunk := source.recv(16_384)):
                if counted and self._left is not None:
                    self._left -= len(chunk)
                    if self._left < 0:
                        self._left = None
                        self.cut()
                        break
                sink.sendall(chunk)
        with self._lock:
            for one in (source, sink):
                self._open.discard(one)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def running_s3() -> Iterator[int]:
    """An S3 on a port of this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    assert server._server is not None  # noqa: SLF001 — it takes no application of ours
    server._server.app = atomic(server._server.app)  # noqa: SLF001
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


def atomic(app: Application) -> Application:
    """Writes on a condition, one at a time: moto looks and then writes, in each request's thread. A store doesn't."""
    lock = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ:
            return app(environ, start_response)
        with lock:
            return list(app(environ, start_response))

    return serve


@contextmanager
def enforced_rights(port: int) -> Iterator[None]:
    """The S3 at a port checks who asks, as others do; else it takes everybody for its owner."""

    def after(requests: float) -> None:
        httpx.post(f"http://127.0.0.1:{port}/moto-api/reset-auth", content=str(requests)).raise_for_status()

    after(0)
    try:
        yield
    finally:
        after(float("inf"))


def user(port: int, *, policy: str | None = None) -> tuple[str, str]:
    """Access key and secret of a new user, who may do what a policy allows, or nothing."""
    client = boto3.client("iam", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
    name = f"user-{uuid4().hex}"
    client.create_user(UserName=name)
    if policy is not None:
        client.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=policy)
    key = client.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


@contextmanager
def new_clients() -> Iterator[None]:
    """Clients that are made in here: fsspec keeps them, with the port and the credentials that they began with."""
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        yield
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def bucket_behind(port: int) -> Iterator[str]:
    """The URL of a new bucket at a port, which the environment names for clients."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AWS_", "FSSPEC_")):
                patch.delenv(name)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        name = f"bucket-{uuid4().hex}"
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
