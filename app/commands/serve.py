"""``neverseen serve``: the HTTP service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from app import server
from app.db import open_ready_database
from app.logs import set_up_logging
from app.main import create_app
from app.settings import Settings
from app.sharded import sharded
from engine.devices import torch_device


def serve(
    host: Annotated[str | None, typer.Option(help="Address; by default NEVERSEEN_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; by default NEVERSEEN_PORT.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Spread sketches over a Ray cluster: auto, local or ADDRESS; by default NEVERSEEN_CLUSTER, if any."
        ),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Parts that a sketch is spread in; by default one a GPU, or a machine.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate (chain) in PEM; serves HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key in PEM, without a password.")] = None,
) -> None:
    """Serve the API until stopped."""
    options = {"host": host, "port": port, "cluster": cluster, "shards": shards}
    given = {name: value for name, value in options.items() if value is not None}
    serve_until_stopped(Settings().model_copy(update=given), tls_certificate=tls_certificate, tls_key=tls_key)


def serve_until_stopped(
    settings: Settings,
    *,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
    listening: Callable[[Sequence[str]], None] = lambda _: None,
) -> None:
    """Run the application in this process.

    Args:
        settings: all of them.
        tls_certificate: as `server.serve`.
        tls_key: likewise.
        listening: likewise.

    Raises:
        ConfigurationError: the device or the cluster isn't there, or the certificate and its key aren't what TLS takes.
        SchemaError: the catalog isn't ready, said here rather than in the middle of the server's start.
        UnavailableError: the address is taken.
    """
    set_up_logging(settings)
    open_ready_database(settings).dispose()
    with ExitStack() as stack:
        shards = None
        if settings.cluster is None:
            torch_device(settings.device)
        else:
            shards = stack.enter_context(sharded(settings))
        app = create_app(settings, shards=shards)
        server.serve(
            app,
            settings,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            watched=app.metrics.watch_door,
            listening=listening,
        )
