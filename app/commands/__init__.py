"""The command line: one file a resource, as in `app.routes`.

Commands open the catalog named by the settings, use the same catalog functions as the routes, and print for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from app.db import Database, open_ready_database
from app.settings import Settings

console = Console()


@contextmanager
def opened() -> Iterator[tuple[Settings, Database]]:
    """The settings, and the catalog with its schema in order."""
    settings = Settings()
    database = open_ready_database(settings)
    try:
        yield settings, database
    finally:
        database.dispose()
