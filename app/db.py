"""The one place for the database and its transaction: connections, sessions, and the schema's version.

A session is one transaction: it commits where its block ends, and nothing else commits. On SQLite a writing
transaction takes the write lock at once (BEGIN IMMEDIATE), so that it waits for another writer instead of failing
when it comes to write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import SchemaError
from app.settings import Settings

Database = Engine  # SQLAlchemy's word, but `engine` is our other package

MIGRATIONS: Final = Path(__file__).resolve().parent.parent / "migrations"  # beside this package, installed or not

_BUSY_TIMEOUT_MS: Final = 10_000
_CONNECT_TIMEOUT_SECONDS: Final = 5
_WRITES: Final = "neverseen_writes"


def open_database(settings: Settings) -> Database:
    """The catalog's database; the directory of a SQLite file is made where it is missing.

    Connections are opened when they are needed: a server that is away shows at the first query.
    """
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    return connect(url)


def connect(url: str | URL, *, enforce_foreign_keys: bool = True) -> Database:
    """The database at a URL, set up the way that this application uses it.

    Args:
        url: SQLite (a file) or PostgreSQL.
        enforce_foreign_keys: on SQLite; only migrations, which may make tables anew, go without.
    """
    sqlite = make_url(url).get_backend_name() == "sqlite"
    database = create_engine(
        url,
        # As many connections as the server has threads for requests: none waits for another's.
        pool_size=8,
        max_overflow=32,
        pool_pre_ping=not sqlite,
        connect_args={"check_same_thread": False} if sqlite else {"connect_timeout": _CONNECT_TIMEOUT_SECONDS},
    )
    if sqlite:

        @event.listens_for(database, "connect")
        def set_up(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
            connection.isolation_level = None  # the driver would begin transactions late, and never for DDL
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA foreign_keys = {'ON' if enforce_foreign_keys else 'OFF'}")

        @event.listens_for(database, "begin")
        def begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get(_WRITES, False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")

    return database


@contextmanager
def transaction(database: Database, *, writes: bool = True) -> Iterator[Session]:
    """A session that is one transaction: committed at the end of the block, rolled back on an error.

    Args:
        database: the catalog's.
        writes: whether the block may write. A reading transaction holds nobody up.
    """
    with Session(writing(database) if writes else database, expire_on_commit=False) as session, session.begin():
        yield session


def writing(database: Database) -> Database:
    """The same database; on SQLite its transactions take the write lock at once."""
    return database.execution_options(**{_WRITES: True})


def migrate(url: str) -> None:
    """Bring the database at a URL to the newest schema; all migrations or none.

    Raises:
        SchemaError: the schema was made by a newer version of the application.
    """
    config = _alembic()
    config.attributes["url"] = url
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SchemaError(
            "The database's schema isn't known to this version of neverseen: use the newer one that made it."
        ) from error


def open_ready_database(settings: Settings) -> Database:
    """The catalog's database with its schema in order: SQLite is migrated, for the file is ours alone.

    Raises:
        SchemaError: PostgreSQL has another schema than this version needs.
    """
    database = open_database(settings)
    if database.dialect.name == "sqlite":
        migrate(settings.database_url)
    elif not schema_is_current(database):
        database.dispose()
        raise SchemaError("The database's schema isn't the one that this version needs. Run: neverseen db upgrade")
    return database


def schema_is_current(database: Database) -> bool:
    """Whether the database has exactly the newest schema."""
    with database.connect() as connection:
        present = MigrationContext.configure(connection).get_current_heads()
    return set(present) == set(ScriptDirectory.from_config(_alembic()).get_heads())


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
