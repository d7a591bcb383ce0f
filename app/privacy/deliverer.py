"""The deliverer: sends what waits to be told to peers, until it arrives or is given up.

The queue is a table (`catalog.deliveries`), which outlives the process and may be shared by several. One thread runs
all attempts of this process side by side: so many at once, and so few of them to one host, that a peer who never
answers holds nobody up. What a dead process left is found when its claim is stale, and sent again under the same id.

Nothing of an address but its host, of headers, or of a body is logged or recorded.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from app import catalog
from app.actors import Actor
from app.catalog import DeliveryClaim
from app.db import Database, transaction
from app.errors import SealError, TargetError
from app.privacy import opendsr
from app.privacy.attempts import Outcome, failed, judged
from app.privacy.connections import OpenedConnection, open_connection
from app.privacy.outgoing import Outgoing
from app.privacy.webhooks import signature_headers
from app.secret import Secret

logger = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 16
MOST_AT_ONCE_OF_HOST: Final = 4
"""Of a host that was last connected to; of another one a single attempt is made at once."""

_DELIVERER: Final = Actor(name="deliverer")

_LOOK_SECONDS: Final = 0.5
"""Between looks at the queue, where nothing says that there is something new."""

_AWAY_SECONDS: Final = 2.0
_RENEW_SECONDS: Final = 15.0
_STOP_SECONDS: Final = 3.0
_WRITE_TRIES: Final = 10
_CATALOG_THREADS: Final = 4
_RESOLVER_THREADS: Final = 32  # a name that nobody knows takes the system long to find out

_NO_ANSWER: Final = ("timeout", "connect", "dns")

Done = TypeVar("Done")


@dataclass(frozen=True, kw_only=True)
class _Letter:
    """What is sent, in memory only."""

    kind: str
    attempt: int
    connection: OpenedConnection
    method: str
    url: str
    headers: dict[str, str]
    body: str


class Deliverer:
    """Sends deliveries in the background, from `start` to `stop`. `wake` is safe to use from several threads."""

    def __init__(
        self,
        database: Database,
        secret: Secret,
        *,
        outgoing: Outgoing | None = None,
        sent: Callable[[str, str], None] = lambda *_: None,
        actor: Actor = _DELIVERER,
    ) -> None:
        """Nothing is started yet.

        Args:
            database: the catalog.
            secret: of the installation.
            outgoing: that calls; None is the usual one.
            sent: told of each attempt its kind and what came of it: "delivered", "failed", or "refused" where
                the address mustn't be called or the connection is disabled.
            actor: who attempts, for the audit.
        """
        self._database, self._secret, self._actor, self._sent = database, secret, actor, sent
        self._outgoing = outgoing or Outgoing()
        self._news = asyncio.Event()
        self._stopping = False
        self._attempts: set[asyncio.Task[None]] = set()
        self._at_once: Counter[str] = Counter()
        self._silent: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._catalog_threads = ThreadPoolExecutor(_CATALOG_THREADS, "deliveries")
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)

    def start(self) -> None:
        """Begin with what waits already."""
        self._thread.start()

    def stop(self) -> None:
        """End; what isn't answered within seconds waits again, for whoever starts next."""
        self._stopping = True
        self.wake()
        self._thread.join()

    def wake(self) -> None:
        """Look at the queue now."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(self._news.set)

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        loop.set_default_executor(ThreadPoolExecutor(_RESOLVER_THREADS, "resolver"))
        self._loop = loop
        try:
            loop.run_until_complete(self._deliver())
        finally:
            self._catalog_threads.shutdown()
            loop.close()  # without waiting for names to be resolved

    async def _deliver(self) -> None:
        while not self._stopping:
            self._news.clear()
            try:
                wait = await self._begin_due()
            except SQLAlchemyError as error:
                logger.warning("Deliveries wait: the catalog can't be used (%s)", type(error).__name__)
                wait = _AWAY_SECONDS
            if not self._stopping:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), wait)
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=_STOP_SECONDS)
        for attempt in self._attempts:
            attempt.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)

    async def _begin_due(self) -> float:
        """Begin with all that is due and may be begun; the seconds until the next look."""
        while (free := MOST_AT_ONCE - len(self._attempts)) > 0 and not self._stopping:
            at_once, silent = self._at_once.copy(), frozenset(self._silent)
            claims = await self._in_thread(self._claim, free, at_once, silent)
            for claim in claims:
                attempt = asyncio.get_running_loop().create_task(self._attempt(claim))
                self._attempts.add(attempt)
                self._at_once[claim.host] += 1
                attempt.add_done_callback(partial(self._ended, claim.host))
            if not claims:
                break
        return await self._in_thread(self._seconds_to_next)

    def _ended(self, host: str, attempt: asyncio.Task[None]) -> None:
        self._attempts.discard(attempt)
        self._at_once[host] -= 1
        if not self._at_once[host]:
            del self._at_once[host]
        self._news.set()

    async def _attempt(self, claim: DeliveryClaim) -> None:
        """Send a claimed delivery once, and write what came of it."""
        try:
            letter = await self._in_thread(self._open, claim)
            if isinstance(letter, _Letter):
                kind, sending = letter.kind, asyncio.ensure_future(self._send(claim, letter))
                try:
                    while not (await asyncio.wait({sending}, timeout=_RENEW_SECONDS))[0]:
                        renewed = await self._in_thread(self._renew, claim)
                        if renewed is None:
                            logger.warning("Delivery %s was taken over by another process", claim.id)
                            return
                        claim = renewed
                    outcome = sending.result()
                finally:
                    sending.cancel()
                    await asyncio.wait({sending})
            else:
                kind, outcome = letter
            self._note(claim.host, outcome)
            await self._write(claim, outcome)
            self._sent(kind, outcome.result)
        except SQLAlchemyError as error:  # its claim goes stale
            logger.warning("Delivery %s: the catalog can't be used (%s)", claim.id, type(error).__name__)
        except asyncio.CancelledError:
            with suppress(SQLAlchemyError):
                await self._in_thread(self._release, claim)
            raise

    async def _send(self, claim: DeliveryClaim, letter: _Letter) -> Outcome:
        jitter = random.uniform(-1, 1)
        try:
            reply = await self._outgoing.send(
                method=letter.method,
                url=letter.url,
                headers=_headers(claim.id, letter, datetime.now(UTC)),
                body=letter.body.encode("utf-8"),
                options=letter.connection.options,
            )
        except TargetError as error:
            return Outcome(result="refused", error="target", why=str(error))
        except Exception as error:  # noqa: BLE001 - its text may hold what is secret, and the others go on
            logger.error("Delivery %s crashed: %s", claim.id, type(error).__name__)
            why = "Something went wrong here that shouldn't."
            return failed(letter.kind, letter.attempt, error="crash", why=why, jitter=jitter)
        return judged(letter.kind, letter.attempt, reply, jitter=jitter)

    def _note(self, host: str, outcome: Outcome) -> None:
        if outcome.error in _NO_ANSWER:
            self._silent.add(host)
        else:
            self._silent.discard(host)

    async def _write(self, claim: DeliveryClaim, outcome: Outcome) -> None:
        """Write what came of an attempt, again and again: what isn't written is sent twice.

        Raises:
            SQLAlchemyError: the catalog has been away for long.
        """
        for _ in range(_WRITE_TRIES - 1):
            try:
                await self._in_thread(self._write_once, claim, outcome)
            except SQLAlchemyError:
                await asyncio.sleep(_AWAY_SECONDS)
            else:
                return
        await self._in_thread(self._write_once, claim, outcome)

    async def _in_thread(self, function: Callable[..., Done], *arguments: Any) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._catalog_threads, function, *arguments)

    def _claim(self, limit: int, at_once: Counter[str], silent: frozenset[str]) -> list[DeliveryClaim]:
        full = [host for host, count in at_once.items() if count >= _most(host, silent)]
        with transaction(self._database, writes=False) as session:
            due = catalog.due_deliveries(session, now=datetime.now(UTC), limit=limit, without_hosts=full)
        if not due:
            return []
        claims = []
        with transaction(self._database, actor=self._actor) as session:
            for seen in due:
                if at_once[seen.host] >= _most(seen.host, silent):
                    continue
                claim = catalog.claim_delivery(session, seen, now=datetime.now(UTC))
                if claim is not None:
                    claims.append(claim)
                    at_once[seen.host] += 1
        return claims

    def _seconds_to_next(self) -> float:
        now = datetime.now(UTC)
        with transaction(self._database, writes=False) as session:
            next_at = catalog.next_delivery_at(session, now=now)
        return _LOOK_SECONDS if next_at is None else min(_LOOK_SECONDS, (next_at - now).total_seconds())

    def _open(self, claim: DeliveryClaim) -> _Letter | tuple[str, Outcome]:
        """What is to be sent; or its kind, and why nothing is."""
        with transaction(self._database, writes=False) as session:
            row = catalog.get_delivery(session, claim.id)
            peer = catalog.get_connection(session, row.connection)
        if peer.disabled_at is not None:
            return row.kind, Outcome(result="refused", error="disabled", why="The connection is disabled.")
        try:
            return _Letter(
                kind=row.kind,
                attempt=row.attempts + 1,
                connection=open_connection(peer, self._secret),
                body=row.body,
                **self._secret.unseal(row.sealed),
            )
        except SealError as error:
            why = str(error)
        except (ValueError, TypeError, LookupError):
            why = "The connection, or the message, isn't stored as it should be."
        jitter = random.uniform(-1, 1)
        return row.kind, failed(row.kind, row.attempts + 1, error="unreadable", why=why, jitter=jitter)

    def _renew(self, claim: DeliveryClaim) -> DeliveryClaim | None:
        with transaction(self._database, actor=self._actor) as session:
            return catalog.renew_delivery(session, claim, now=datetime.now(UTC))

    def _release(self, claim: DeliveryClaim) -> None:
        with transaction(self._database, actor=self._actor) as session:
            catalog.release_delivery(session, claim)

    def _write_once(self, claim: DeliveryClaim, outcome: Outcome) -> None:
        now = datetime.now(UTC)
        with transaction(self._database, actor=self._actor) as session:
            if outcome.result == "delivered":
                assert outcome.status is not None
                catalog.finish_delivery(session, claim, status=outcome.status, now=now)
                return
            error = outcome.error or ""
            if outcome.wait is not None:
                catalog.postpone_delivery(
                    session, claim, status=outcome.status, error=error, why=outcome.why, next_at=now + outcome.wait
                )
                return
            if catalog.bury_delivery(session, claim, status=outcome.status, error=error, why=outcome.why, now=now):
                logger.warning("Delivery %s to %s is given up: %s", claim.id, claim.host, outcome.why)
                row = catalog.get_delivery(session, claim.id)
                if outcome.gone and catalog.get_connection(session, row.connection).protocol == "webhook":
                    catalog.disable_connection(session, row.connection, "its address answered 410: gone")


def _most(host: str, silent: frozenset[str]) -> int:
    return 1 if host in silent else MOST_AT_ONCE_OF_HOST


def _headers(message_id: str, letter: _Letter, now: datetime) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    headers |= {name.lower(): value for name, value in letter.headers.items()}
    if letter.connection.protocol == "opendsr":
        headers |= opendsr.signature_headers(letter.connection, letter.body.encode("utf-8"))
    if letter.connection.secrets.webhook_secrets:
        headers |= signature_headers(message_id, letter.body, letter.connection.secrets.webhook_secrets, now=now)
    return headers
