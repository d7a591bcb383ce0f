"""After units were erased: what a database keeps of rows that are gone, and files about them, are removed, too.

A database leaves deleted rows in its file until their room is needed. SQLite's file is written anew, and its log
emptied; so are PostgreSQL's tables (VACUUM FULL), which nobody can use meanwhile, once nobody is left who began before
and may still see the rows as they were. Models that were retrained without a set that an erased unit is in are removed
from beside the artifacts, here and in the object store; other machines' copies follow the store (`app.sharing`).

Not reached: backups; PostgreSQL's log, until it is recycled; the numbers of an erased unit's axis in an artifact, which
stay until the version is deleted; what the model itself has learned.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import catalog
from app.db import Database, transaction
from app.errors import BusyError, ConflictError
from app.predictor import Artifact
from app.settings import Settings
from app.tables import (
    ApiKey,
    Document,
    ErasureRequest,
    IdentityLink,
    Report,
    Subset,
    SubsetMember,
    Unit,
    Verification,
)
from engine import supplements

_TABLES: Final = tuple(
    table.__tablename__
    for table in (
        Document,
        Unit,
        IdentityLink,
        SubsetMember,
        Subset,
        Verification,
        ErasureRequest,
        Report,
        ApiKey,
    )
)
"""What may have held something of a person: rewritten one after the other."""

_STATISTICS: Final = "pg_statistic"
"""PostgreSQL's copies of frequent values. Columns with texts and names have none since migration 0006, but rows of
before may lie in its file. It is rewritten where the database is ours; elsewhere PostgreSQL warns, and leaves it."""

_THIS_TRANSACTION: Final = text("SELECT CAST(pg_current_xact_id() AS xid)")

_SEES_WHAT_WAS: Final = text("""
    SELECT count(*) FROM (
        SELECT backend_xmin AS seen FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND backend_type IS DISTINCT FROM 'autovacuum worker'
        UNION ALL SELECT backend_xid FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
        UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL SELECT xmin FROM pg_replication_slots
    ) AS others
    WHERE age(seen) > age(CAST(:now AS xid))
""")
"""How many began before a transaction: VACUUM keeps rows that these may still see, and says nothing."""

_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.2
_LOCK_SECONDS: Final = 5
_BUSY_TIMEOUT_MS: Final = 1_000
_IN_THE_WAY: Final = ("55P03", "40P01")
"""PostgreSQL's codes for a lock that isn't given in time, and for one that can't be."""

_BUSY: Final = "What was erased can't be removed from the disk yet: somebody reads the catalog for long. Try later."


@dataclass(frozen=True, kw_only=True)
class Scrubbed:
    """What was removed.

    Attributes:
        files: of models retrained without erased units.
    """

    files: int


def scrub(database: Database, settings: Settings, *, patience_seconds: float = _PATIENCE_SECONDS) -> Scrubbed:
    """Remove from the disk what was ever erased from the catalog. Again is harmless, as after a crash.

    Args:
        database: the catalog, in which the erasure is committed.
        settings: where artifacts lie.
        patience_seconds: how long to wait for readers that are in the way, and for a store that is away.

    Raises:
        BusyError: they still are.
        SQLAlchemyError: the database is away.
        OSError: a file can't be removed; all else was.
        StoreError: the object store is away, or refuses.
    """
    with transaction(database, writes=False) as session:
        artifacts = catalog.erased_artifacts(session)
    places = settings.artifacts
    files, errors = 0, []
    for one in artifacts:
        path, url = places.path(one.location), places.origin(one.location)
        try:
            files += supplements.remove(path, one.units, url=url, patience_seconds=patience_seconds)
        except OSError as error:
            errors.append(error)
    until = time.monotonic() + patience_seconds
    if database.dialect.name == "sqlite":
        _rewrite_file(database, until)
    else:
        _wait_for_readers(database, until)
        for table in (*_TABLES, _STATISTICS):
            _rewrite_table(database, table, until)
    if errors:
        raise errors[0]
    return Scrubbed(files=files)


def check_retrained(database: Database, artifact: Artifact) -> None:
    """After retraining: make sure that nothing was erased meanwhile; else remove what was retrained without it.

    Args:
        database: the catalog.
        artifact: of the version that was retrained for; what came of it is on disk.

    Raises:
        ConflictError: units that the version was trained on were erased.
        OSError: a file can't be removed.
        StoreError: it can't be removed from the object store now; services do that later (`app.sharing`).
    """
    with transaction(database, writes=False) as session:
        dataset = catalog.get_version_of_id(session, artifact.version_id).dataset
        erased = catalog.list_erased_units(session, dataset)
    if erased:
        supplements.remove(artifact.path, erased, url=artifact.origin)
        raise ConflictError(catalog.erased_refusal(dataset))


def _rewrite_file(database: Database, until: float) -> None:
    pooled = database.raw_connection()
    connection = pooled.driver_connection
    assert isinstance(connection, sqlite3.Connection)
    pooled.detach()  # with its settings
    try:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        written = False
        while True:
            try:
                if not written:
                    connection.execute("VACUUM")
                    written = True
                if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                    return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise OperationalError(None, None, error, hide_parameters=True) from error
            if time.monotonic() >= until:
                raise BusyError(_BUSY)
            time.sleep(_PAUSE_SECONDS)
    finally:
        connection.close()


def _wait_for_readers(database: Database, until: float) -> None:
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        now = connection.execute(_THIS_TRANSACTION).scalar_one()
        while connection.execute(_SEES_WHAT_WAS, {"now": str(now)}).scalar_one():
            if time.monotonic() >= until:
                raise BusyError(_BUSY)
            time.sleep(_PAUSE_SECONDS)


def _rewrite_table(database: Database, table: str, until: float) -> None:
    while True:
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                connection.execute(text("SET statement_timeout = 0"))
                connection.execute(text(f"SET lock_timeout = '{_LOCK_SECONDS}s'"))
                connection.execute(text(f"VACUUM (FULL) {table}"))
                return
            except OperationalError as error:
                if getattr(error.orig, "sqlstate", None) not in _IN_THE_WAY:
                    raise
            finally:
                connection.invalidate()  # with its settings
        if time.monotonic() >= until:
            raise BusyError(_BUSY)
        time.sleep(_PAUSE_SECONDS)
