"""The one place for the database and its transaction: connections, sessions, and the schema's version.

A session is one transaction: it commits where its block ends, and nothing else commits. On SQLite a writing
transaction takes the write lock at once (BEGIN IMMEDIATE), so that it waits for another writer instead of failing
when it comes to write.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, String, column, create_engine, event, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from app.actors import Actor, local_actor
from app.errors import SchemaError
from app.settings import Settings

Database = Engine  # SQLAlchemy's word, but `engine` is our other package

MIGRATIONS: Final = Path(__file__).resolve().parent.parent / "migrations"  # beside this package, installed or not

_REVISIONS: Final = [re.compile(rf'^{name} = "(\w+)"$', re.MULTILINE) for name in ("revision", "down_revision")]

_BUSY_TIMEOUT_MS: Final = 10_000
_CONNECT_TIMEOUT_SECONDS: Final = 5
_SERVER_OPTIONS: Final = (
    "lock_timeout=10s",
    "statement_timeout=30s",
    "idle_in_transaction_session_timeout=15s",
    # For a client that went away without a word, and holds locks.
    "tcp_keepalives_idle=5",
    "tcp_keepalives_interval=2",
    "tcp_keepalives_count=3",
)
_WRITES: Final = "neverseen_writes"


def open_database(settings: Settings) -> Database:
    """The catalog's database; the directory of a SQLite file is made where it is missing.

    Connections are opened when they are needed: a server that is away shows at the first query.
    """
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    return connect(url)


def connect(url: str | URL, *, enforce_foreign_keys: bool = True, in_time: bool = True) -> Database:
    """The database at a URL, set up the way that this application uses it.

    Args:
        url: SQLite (a file) or PostgreSQL.
        enforce_foreign_keys: on SQLite; only migrations, which may make tables anew, go without.
        in_time: on PostgreSQL, whether statements and waits for locks are given up; only migrations may take long.
    """
    sqlite = make_url(url).get_backend_name() == "sqlite"
    database = create_engine(
        url,
        # As many connections as the server has threads: none waits for another's.
        pool_size=8,
        max_overflow=48,
        pool_pre_ping=not sqlite,
        hide_parameters=True,  # a traceback in the log shall hold no text
        connect_args={"check_same_thread": False}
        if sqlite
        else {
            "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
            # For a server that went away without a word.
            "tcp_user_timeout": 1000 * _CONNECT_TIMEOUT_SECONDS,
            "keepalives_idle": _CONNECT_TIMEOUT_SECONDS,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "options": " ".join(f"-c {option}" for option in (_SERVER_OPTIONS if in_time else ())),
        },
    )
    if sqlite:

        @event.listens_for(database, "connect")
        def set_up(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
            connection.isolation_level = None  # the driver would begin transactions late, and never for DDL
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # see docs/decisions.md, 28: a record for each answer
            connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
            connection.execute(f"PRAGMA foreign_keys = {'ON' if enforce_foreign_keys else 'OFF'}")

        @event.listens_for(database, "begin")
        def begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get(_WRITES, False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")

    return database


@contextmanager
def transaction(database: Database, *, writes: bool = True, actor: Actor | None = None) -> Iterator[Session]:
    """A session that is one transaction: committed at the end of the block, rolled back on an error.

    Args:
        database: the catalog's.
        writes: whether the block may write. A reading transaction holds nobody up.
        actor: who does it, for the audit; None is whoever runs this process.
    """
    info = {"actor": actor or local_actor()} if writes else {}
    with (
        Session(writing(database) if writes else database, expire_on_commit=False, info=info) as session,
        session.begin(),
    ):
        yield session


def writing(database: Database) -> Database:
    """The same database; on SQLite its transactions take the write lock at once."""
    return database.execution_options(**{_WRITES: True})


def move_from_log(database: Database) -> None:
    """Have SQLite move what was committed from its log to its file; nobody waits for that, and a failure is no harm."""
    with suppress(SQLAlchemyError), database.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")


def migrate(url: str) -> None:
    """Bring the database at a URL to the newest schema; all migrations or none.

    Raises:
        SchemaError: the schema was made by a newer version of the application.
    """
    # Slow to import, and needed only where something is to be done.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
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
    if schema_is_current(database):
        return database
    if database.dialect.name != "sqlite":
        database.dispose()
        raise SchemaError("The database's schema isn't the one that this version needs. Run: neverseen db upgrade")
    migrate(settings.database_url)
    return database


def schema_is_current(database: Database) -> bool:
    """Whether the database has exactly the newest schema, as Alembic would say, without importing it."""
    with database.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        present = set(connection.scalars(select(column("version_num", String)).select_from(text("alembic_version"))))
    return present == newest_schema()


def newest_schema() -> set[str]:
    """The revision that no other one follows, as the files of the migrations say; one, unless two were merged badly."""
    files = [path.read_text(encoding="utf-8") for path in (MIGRATIONS / "versions").glob("*.py")]
    revisions, followed = ({found[1] for text in files if (found := line.search(text))} for line in _REVISIONS)
    return revisions - followed
