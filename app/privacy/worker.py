"""The threads that work on erasure requests and send what is to be told, in the service or in `neverseen worker`.

The queues are tables, which outlive the process and may be shared by several: what one leaves unfinished, another one
goes on with.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from app import catalog
from app.catalog import RequestClaim
from app.db import Database, transaction
from app.errors import AppError, BusyError
from app.lookup import Lookup
from app.predictor import Predictor
from app.privacy.deliverer import Deliverer
from app.privacy.notices import announce
from app.privacy.signing_key import load_signing_key
from app.privacy.work import WORKER, Work
from app.secret import Secret
from app.settings import Settings
from app.tables import ErasureRequest
from app.verifier import Verifier
from engine.errors import EngineError, ShardsAwayError

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.5
"""Between looks at the queue, where nothing says that there is something new."""

_AWAY_SECONDS: Final = 2.0
_RENEW_SECONDS: Final = 10.0
_BUSY: Final = timedelta(seconds=10)
_CRASHED: Final = "Something went wrong that shouldn't; the log says what."

_DELAYS: Final = tuple(timedelta(seconds=seconds) for seconds in (2, 10, 60, 300, 1800, 7200))
"""Between attempts; after the last the request has failed."""


class JobWorker:
    """Works on requests, one after the other, from `start` to `stop`."""

    def __init__(
        self,
        database: Database,
        secret: Secret,
        work: Work,
        *,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is started yet.

        Args:
            database: the catalog.
            secret: of the installation.
            work: what is done.
            told: called when there may be something to send.
        """
        self._database, self._secret, self._work, self._told = database, secret, work, told
        self._news, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="erasure-requests", daemon=True)

    def start(self) -> None:
        """Begin with what waits already."""
        self._thread.start()

    def stop(self) -> None:
        """End with the step that is being done."""
        self._stopping.set()
        self._news.set()
        self._thread.join()

    def wake(self) -> None:
        """Look at the queue now."""
        self._news.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            try:
                worked = self.work_one()
            except SQLAlchemyError as error:
                logger.warning("Erasure requests wait: the catalog can't be used (%s)", type(error).__name__)
                self._stopping.wait(_AWAY_SECONDS)
                continue
            except Exception:  # as where the secrets of a connection can't be read: the thread has to go on
                logger.exception("Erasure requests wait")
                self._stopping.wait(_AWAY_SECONDS)
                continue
            if not worked:
                self._news.wait(_LOOK_SECONDS)

    def work_one(self) -> bool:
        """Work on the request that is first due; whether there was one.

        Raises:
            SQLAlchemyError: the catalog can't be used.
        """
        claimed = self._claim()
        if claimed is None:
            return False
        row, claim = claimed
        with _Renewal(self._database, claim):
            try:
                self._work.advance(row, claim)
            except SQLAlchemyError:
                with suppress(SQLAlchemyError):  # else the claim goes stale, and whoever comes next tries again
                    self._put_off(claim, timedelta(0), attempts=row.attempts, why="The catalog couldn't be used.")
                raise
            except (BusyError, ShardsAwayError) as error:
                self._put_off(claim, _BUSY, attempts=row.attempts, why=str(error))
            except (AppError, EngineError) as error:
                self._failed(row, claim, str(error))
            except OSError as error:
                self._failed(row, claim, f"A file can't be used: {error.strerror}.")
            except Exception:
                logger.exception("Erasure request %s failed", row.id)
                self._failed(row, claim, _CRASHED)
        self._told()
        return True

    def _claim(self) -> tuple[ErasureRequest, RequestClaim] | None:
        while True:
            with transaction(self._database, writes=False) as session:
                seen = catalog.next_request(session, now=datetime.now(UTC))
            if seen is None:
                return None
            with transaction(self._database, actor=WORKER) as session:
                claimed = catalog.claim_request(session, seen, now=datetime.now(UTC))
                if claimed is not None and seen.state == "pending":
                    announce(session, self._secret, claimed[0])
            if claimed is not None:
                self._told()
                return claimed

    def _failed(self, row: ErasureRequest, claim: RequestClaim, why: str) -> None:
        logger.warning("Erasure request %s, attempt %d: %s", row.id, row.attempts + 1, why)
        # What is erased can't be predicted again: a request that got so far ends nowhere but in being completed.
        if row.attempts < len(_DELAYS) or self._is_forgetting(row.id):
            wait = _DELAYS[min(row.attempts, len(_DELAYS) - 1)]
            self._put_off(claim, wait, attempts=row.attempts + 1, why=why)
            return
        with transaction(self._database, actor=WORKER) as session:
            failed = catalog.change_request(
                session,
                claim,
                state="failed",
                stage=None,
                claim=None,
                claimed_at=None,
                attempts=row.attempts + 1,
                failure=why,
                finished_at=datetime.now(UTC),
            )
            if failed is not None:
                catalog.record(session, "request.fail", request=row.id)
                announce(session, self._secret, failed)

    def _is_forgetting(self, request: str) -> bool:
        with transaction(self._database, writes=False) as session:
            return catalog.get_request_of_id(session, request).stage == "forgetting"

    def _put_off(self, claim: RequestClaim, wait: timedelta, *, attempts: int, why: str) -> None:
        with transaction(self._database, actor=WORKER) as session:
            catalog.change_request(
                session,
                claim,
                claim=None,
                claimed_at=None,
                attempts=attempts,
                failure=why,
                next_at=datetime.now(UTC) + wait,
            )


class Workers:
    """What works on requests and what sends, together."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        secret: Secret,
        *,
        lookup: Lookup,
        predictor: Predictor,
        verifier: Verifier,
        sent: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """Nothing is started yet.

        Args:
            database: the catalog.
            settings: of the installation.
            secret: of the installation.
            lookup: that knows which versions are served.
            predictor: that answers.
            verifier: that retrains models.
            sent: told of each attempt to send something its kind and what came of it.

        Raises:
            ConfigurationError, OSError: there is no key to sign evidence with.
        """
        work = Work(
            database,
            settings,
            secret,
            lookup=lookup,
            predictor=predictor,
            verifier=verifier,
            signing_key=load_signing_key(settings),
        )
        self._deliverer = Deliverer(database, secret, sent=sent)
        self._jobs = JobWorker(database, secret, work, told=self._deliverer.wake)

    def start(self) -> None:
        """Begin with what waits already."""
        self._deliverer.start()
        self._jobs.start()

    def stop(self) -> None:
        """End with what is being done."""
        self._jobs.stop()
        self._deliverer.stop()

    def wake(self) -> None:
        """Look now at what waits."""
        self._jobs.wake()
        self._deliverer.wake()


class _Renewal:
    """Renews a claim as long as its block takes."""

    def __init__(self, database: Database, claim: RequestClaim) -> None:
        self._database, self._claim = database, claim
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="claim-renewal", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_RENEW_SECONDS):
            try:
                with transaction(self._database, actor=WORKER) as session:
                    catalog.renew_request(session, self._claim, now=datetime.now(UTC))
            except SQLAlchemyError:
                continue  # the next one may be in time
