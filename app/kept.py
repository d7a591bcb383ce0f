"""Connections that are kept, and spoken to in the driver's own words: what every request asks and writes.

A session takes some 100 to 500 µs for what takes 10 to 60 in this way. Statements are SQLAlchemy's, compiled once for
the database's dialect; the values of what is written are prepared as its types say. What is read is plain numbers and
strings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ClauseElement, Dialect, Insert, Select
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.db import Database

_WAIT_SECONDS: Final = 10.0  # for another thread's transaction: as long as SQLite waits for another process's


@dataclass(frozen=True)
class _Prepared:
    """A statement in the driver's words, with parameters by name, and what prepares their values."""

    text: str
    processors: Mapping[str, Callable[[Any], Any]]


class _Kept:
    """A connection, opened when it is needed, and opened again after it failed."""

    def __init__(self, database: Database) -> None:
        """Connects at the first use.

        Args:
            database: the catalog's.
        """
        self._database = database
        self._prepared: dict[ClauseElement, _Prepared] = {}
        self._connection: Any = None  # the driver's own
        self._lock = threading.Lock()
        self._driver_error: type[Exception] = database.dialect.loaded_dbapi.Error

    def close(self) -> None:
        """Hang up; the next use connects again."""
        with self._lock:
            self._disconnect()

    def _connect(self) -> None:
        pooled = self._database.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()  # the pool forgets it: it is ours to close
        if not self._is_sqlite:  # whose connections begin nothing by themselves, see `app.db.connect`
            connection.autocommit = True
        self._connection = connection
        self._set_up()

    def _set_up(self) -> None:
        """Prepare a connection that was just opened."""

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _in_words(self, statement: ClauseElement) -> _Prepared:
        if statement not in self._prepared:
            dialect: Dialect = SQLiteDialect(paramstyle="named") if self._is_sqlite else self._database.dialect
            columns = statement.table.columns if isinstance(statement, Insert) else ()
            processors = {column.key: column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns}
            self._prepared[statement] = _Prepared(
                text=str(statement.compile(dialect=dialect)),
                processors={name: processor for name, processor in processors.items() if processor is not None},
            )
        return self._prepared[statement]

    @property
    def _is_sqlite(self) -> bool:
        return self._database.dialect.name == "sqlite"


class KeptReader(_Kept):
    """Reads a row at a time.

    Each reading is a transaction of its own, and sees all that was committed before it. Safe to use from several
    threads, of which one reads and the others are sent away; a reading is some microseconds of SQLite, or one exchange
    with PostgreSQL.
    """

    def row(
        self, statement: Select[*tuple[Any, ...]], parameters: dict[str, Any], *, connect: bool = True
    ) -> tuple[Any, ...] | None:
        """The only row of a statement; None where there is none, or the database can't be asked in this way now.

        Whoever gets None asks again in a transaction, which finds what there is or says what is wrong.

        Args:
            statement: with parameters by name.
            parameters: of it.
            connect: whether to connect where that isn't done, which takes long where the database is away.
        """
        if not self._lock.acquire(blocking=False):
            return None  # another thread reads, or tries to connect: who waits for it would wait as long
        try:
            if self._connection is None:
                if not connect:
                    return None
                self._connect()
            rows = self._connection.execute(self._in_words(statement).text, parameters).fetchall()
        except (SQLAlchemyError, self._driver_error):
            self._disconnect()
            return None
        finally:
            self._lock.release()
        return rows[0] if rows else None


class ConnectionLostError(Exception):
    """A kept connection that is gone, as after a restart of the database; nothing was written."""


class KeptWriter(_Kept):
    """Writes in short transactions, one after the other. Safe to use from several threads."""

    @contextmanager
    def transaction(self) -> Iterator[KeptWriter]:
        """A transaction that writes, committed at the end of the block; taken back, and hung up, on an error.

        Raises:
            ConnectionLostError: try again, in another way.
            SQLAlchemyError: the database can't be written now.
        """
        if not self._lock.acquire(timeout=_WAIT_SECONDS):
            raise PoolTimeoutError("another thread has been writing for too long")
        committing = False
        try:
            if self._connection is None:
                self._connect()
            self._connection.execute("BEGIN IMMEDIATE" if self._is_sqlite else "BEGIN")
            yield self
            committing = True
            self._connection.execute("COMMIT")
        except self._driver_error as error:
            # Where the commit is lost, it may be done; where there was no connection, another one gets none either.
            lost = not self._is_sqlite and self._connection is not None and not committing and self._connection.broken
            self._disconnect()  # which takes back what was begun
            if lost:
                raise ConnectionLostError from error
            raise OperationalError(None, None, error, hide_parameters=True) from error
        except BaseException:
            self._disconnect()
            raise
        finally:
            self._lock.release()

    def _set_up(self) -> None:
        if self._is_sqlite:  # whose log is moved to its file by somebody who has the time, see `app.recorder`
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")

    def one(self, statement: ClauseElement) -> tuple[Any, ...]:
        """The only row of a statement, in a transaction."""
        row: tuple[Any, ...] = self._connection.execute(self._in_words(statement).text).fetchone()
        return row

    def write(self, statement: ClauseElement, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute a statement for each of some rows of parameters, in a transaction."""
        prepared = self._in_words(statement)
        values = [{name: self._value(prepared, name, value) for name, value in row.items()} for row in rows]
        cursor = self._connection.cursor()
        if len(values) == 1:
            cursor.execute(prepared.text, values[0])
        else:
            cursor.executemany(prepared.text, values)

    @staticmethod
    def _value(prepared: _Prepared, name: str, value: Any) -> Any:
        processor = prepared.processors.get(name)
        return value if processor is None else processor(value)
