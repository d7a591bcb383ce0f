"""What is written beside answers: their records in the audit, and when keys were used.

An answer is sent when its record is committed. On SQLite a commit takes some 50 µs, and whoever computed the answer
writes at once. A commit of PostgreSQL waits for its disk, so that a thread writes what waits in one transaction:
answers that come together share a commit. SQLite moves what was committed from its log to its file now and then, which
waits for the disk, too: on SQLite the thread does that.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter
from typing import Final, TypeAlias

from sqlalchemy.exc import SQLAlchemyError

from app import catalog
from app.actors import Actor
from app.catalog import Details, Entry
from app.db import Database, move_from_log, transaction
from app.kept import ConnectionLostError, KeptWriter

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 1_000
_TIDY_SECONDS: Final = 1.0

Committed: TypeAlias = Future[None]
"""Done when a record is committed, or can't be."""

_Record: TypeAlias = tuple[Entry, Committed]


class Recorder:
    """Writes records from `start` to `stop`. Safe to use from several threads."""

    def __init__(
        self,
        database: Database,
        *,
        written: Callable[[int, float], None],
        failed: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Nothing is started yet.

        Args:
            database: the catalog.
            written: told of each transaction how many records it wrote, and in how many seconds.
            failed: told how many records couldn't be written.
        """
        self._database, self._written, self._failed = database, written, failed
        self._writer = KeptWriter(database)
        self._at_once = database.dialect.name == "sqlite"
        self._waiting: SimpleQueue[_Record | None] = SimpleQueue()
        self._used: dict[str, datetime] = {}
        self._count = self._moved = 0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        self._waiting.put(None)
        self._thread.join()
        self._writer.close()

    def record(self, actor: Actor, action: str, details: Details) -> Committed:
        """Append a record to the audit; called by the thread that computed what is recorded.

        Returns:
            What `committed` waits for before the answer is sent.
        """
        done: Committed = Future()
        entry = Entry(at=datetime.now(UTC), actor=actor, action=action, details=details)
        if self._at_once:
            self._write([(entry, done)])
        else:
            self._waiting.put((entry, done))
        return done

    def mark_used(self, prefix: str) -> None:
        """Remember that a key was used; written soon, and lost where that fails."""
        self._used[prefix] = datetime.now(UTC)

    def _run(self) -> None:
        tidied = monotonic()
        stopping = False
        while not stopping:
            batch, stopping = self._waited_for()
            if batch:
                self._write(batch)
            if stopping or monotonic() - tidied >= _TIDY_SECONDS:
                try:
                    self._tidy()
                except Exception:  # the thread has to go on
                    logger.exception("What is done beside records failed")
                tidied = monotonic()

    def _waited_for(self) -> tuple[list[_Record], bool]:
        """What waits, after a while at the latest, and whether it is the last."""
        batch: list[_Record] = []
        with suppress(Empty):
            item = self._waiting.get(timeout=_TIDY_SECONDS)
            while item is not None:
                batch.append(item)
                if len(batch) == _MOST_AT_ONCE:
                    return batch, False
                item = self._waiting.get_nowait()
            return batch, True
        return batch, False

    def _tidy(self) -> None:
        """Write when keys were used; on SQLite move what was committed to the file."""
        used, self._used = self._used, {}
        try:
            if used:
                with transaction(self._database) as session:
                    for prefix, at in sorted(used.items()):  # in one order, or two processes may wait for each other
                        catalog.mark_used(session, prefix, at)
        except SQLAlchemyError as error:
            logger.warning("When keys were used can't be written: %s", type(error).__name__)
        if self._at_once and self._moved < self._count:
            self._moved = self._count
            move_from_log(self._database)

    def _write(self, batch: Sequence[_Record]) -> None:
        # Who gave up waiting gets no answer that would have to be recorded.
        kept = [(entry, done) for entry, done in batch if done.set_running_or_notify_cancel()]
        if not kept:
            return
        started = perf_counter()
        entries = [entry for entry, _ in kept]
        try:
            self._append(entries)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and the thread goes on
            logger.warning("Records can't be written: %s", type(error).__name__)
            self._failed(len(kept))
            for _, done in kept:
                done.set_exception(error)
            return
        self._count += len(kept)
        self._written(len(kept), perf_counter() - started)
        for _, done in kept:
            done.set_result(None)

    def _append(self, entries: Sequence[Entry]) -> None:
        try:
            with self._writer.transaction() as writer:
                length, head = writer.one(catalog.CHAIN_FOR_UPDATE)
                rows, chain = catalog.chained(entries, length, head)
                writer.write(catalog.INSERT_RECORD, rows)
                writer.write(catalog.UPDATE_CHAIN, [chain])
        except ConnectionLostError:
            with transaction(self._database) as session:
                catalog.append_records(session, entries)


async def committed(record: Committed) -> None:
    """Wait until a record is committed.

    Raises:
        SQLAlchemyError: the catalog can't be written.
    """
    if record.done():
        record.result()
    else:
        await asyncio.wrap_future(record)
