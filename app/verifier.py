"""The verifier of the service: takes answers to verify, and sees to it that each is.

The queue is a table (`catalog.verifications`), which outlives the process and may be shared by several. A thread
claims one verification after the other, has a process work on it (`app.truth`), renews the claim meanwhile, and writes
what came of it. What a dead process left is found when its claim is stale.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from app import catalog
from app.catalog import Claim, ResolvedDeletion
from app.db import Database, transaction
from app.settings import Settings
from app.truth import Outcome, TruthProcess
from engine.question import Distribution, Prediction

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 30.0
"""Between looks at the queue, where nothing says that there is something new."""

_RENEW_SECONDS: Final = 30.0
_LISTEN_SECONDS: Final = 0.2


class Verifier:
    """Verifies answers in the background, from `start` to `stop`. `submit` is safe to use from several threads."""

    def __init__(self, database: Database, settings: Settings) -> None:
        """Nothing is started yet.

        Args:
            database: the catalog.
            settings: where artifacts lie, and the device.
        """
        self._database = database
        self._process = TruthProcess(settings)
        self._news, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="verifier", daemon=True)

    def start(self) -> None:
        """Begin with what waits already."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is being worked on waits again, for whoever starts next."""
        self._stopping.set()
        self._news.set()
        self._thread.join()

    def wake(self) -> None:
        """Look at the queue now: another one wrote to it."""
        self._news.set()

    def submit(
        self,
        *,
        version_id: int,
        deletion: ResolvedDeletion,
        predictions: Sequence[Prediction | Distribution],
        confidence: float,
    ) -> str:
        """Queue an answer; committed when this returns.

        Args:
            version_id: of the sketch version that answered.
            deletion: what was deleted.
            predictions: what was answered, at downweight 1.
            confidence: of their intervals.

        Returns:
            The verification's id.

        Raises:
            BusyError: too many wait already.
        """
        with transaction(self._database) as session:
            row = catalog.add_verification(
                session, version_id=version_id, deletion=deletion, predictions=predictions, confidence=confidence
            )
        self._news.set()
        return row.id

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._news.clear()
                if not self._verified_one() and not self._news.wait(_LOOK_SECONDS):
                    self._process.end()  # it isn't worth its memory
        finally:
            self._process.end()

    def _verified_one(self) -> bool:
        """Work on the next verification; whether there may be another one to work on now."""
        try:
            claim = self._claim()
            if claim is None:
                return False
            outcome = self._outcome(claim)
            if outcome is not None:
                self._write(*outcome)
            return outcome is None or outcome[1].state != "pending"
        except (SQLAlchemyError, OSError) as error:
            logger.warning("Verifications wait: the catalog, or a process, can't be used (%s)", type(error).__name__)
            self._process.end()  # it may be at work on what isn't ours any more
            return False

    def _claim(self) -> Claim | None:
        while True:
            with transaction(self._database, writes=False) as session:
                seen = catalog.next_verification(session, now=datetime.now(UTC))
            if seen is None:
                return None
            with transaction(self._database) as session:
                claim = catalog.claim_verification(session, seen, now=datetime.now(UTC))
            if claim is not None:
                return claim

    def _outcome(self, claim: Claim) -> tuple[Claim, Outcome] | None:
        """What came of a claimed verification, with the claim as renewed last; None where the claim is lost."""
        self._process.begin(claim.id)
        renewed = time.monotonic()
        while not self._stopping.is_set():
            outcome = self._process.outcome(_LISTEN_SECONDS)
            if outcome is not None:
                return claim, outcome
            if time.monotonic() - renewed > _RENEW_SECONDS:
                with transaction(self._database) as session:
                    kept = catalog.renew_claim(session, claim, now=datetime.now(UTC))
                if kept is None:
                    self._process.end()
                    return None
                claim, renewed = kept, time.monotonic()
        self._process.end()
        return claim, Outcome(state="pending")

    def _write(self, claim: Claim, outcome: Outcome) -> None:
        with transaction(self._database) as session:
            match outcome.state:
                case "finished":
                    catalog.finish_verification(session, claim, outcome.truths)
                case "failed":
                    catalog.fail_verification(session, claim, outcome.reason)
                case "pending":
                    catalog.release_claim(session, claim)
