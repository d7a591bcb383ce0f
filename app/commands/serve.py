"""``neverseen serve``: the HTTP service."""

from __future__ import annotations

import logging
from typing import Annotated

import typer
import uvicorn

from app.db import open_ready_database
from app.main import create_app
from app.settings import Settings
from engine.devices import torch_device


def serve(
    host: Annotated[str | None, typer.Option(help="Address; by default NEVERSEEN_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; by default NEVERSEEN_PORT.")] = None,
) -> None:
    """Serve the API until stopped."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serve_until_stopped(Settings().model_copy(update=given))


def serve_until_stopped(settings: Settings) -> None:
    """Run the application under uvicorn, in this process.

    Raises:
        ConfigurationError: the device isn't there.
        SchemaError: the catalog isn't ready, said here rather than in the middle of the server's start.
    """
    logging.basicConfig(format="%(message)s")  # to standard error
    logging.getLogger("app").setLevel(logging.INFO)
    torch_device(settings.device)
    open_ready_database(settings).dispose()
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, log_level="warning", access_log=False)
