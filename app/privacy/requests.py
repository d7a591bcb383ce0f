"""Erasure requests as they are taken, cancelled and found. What is done for them is `work`'s part.

A request has the id that its caller gave it: the same id with the same question is the same request, and is answered
as it was at first; with another question it is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app import catalog
from app.actors import Actor
from app.db import Database, transaction
from app.errors import ConflictError, InvalidTextError
from app.names import check_printable
from app.privacy.identities import Identity, identity_hashes
from app.privacy.notices import announce
from app.secret import Secret
from app.tables import ErasureRequest

FINAL: Final = catalog.FINAL_STATES

REGULATION_DAYS: Final = {"gdpr": 30, "ccpa": 45}
"""Within how many days a request is to be done: Art. 12(3) GDPR (a month), § 7021 of the CCPA regulations."""

DEFAULT_DAYS: Final = 30

_LONGEST_CALLER_ID: Final = 200
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request as a protocol brought it.

    Attributes:
        source: name of its connection; `catalog.NATIVE` for the native API.
        protocol: that it came by.
        caller_id: that its caller knows it by; no identity.
        body_digest: keyed digest of what it asks: another one under the same id is another request.
        identities: of the person.
        regulation: that it is made under, in small letters; None where that isn't said.
        submitted_at: when the person asked, as far as is known.
        due_at: when it has to be done; None goes by the regulation.
        mode: "predict", or "erase".
        report: name of what is measured.
        verify: whether the answer is compared with a retrained model.
        sealed: what the protocol needs for its messages.
    """

    source: str
    protocol: str
    caller_id: str
    body_digest: str
    identities: tuple[Identity, ...]
    regulation: str | None
    submitted_at: datetime | None
    due_at: datetime | None
    mode: str
    report: str
    verify: bool
    sealed: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A request that was taken, or had been.

    Attributes:
        row: of it, no longer of any session.
        is_new: whether it was taken now.
    """

    row: ErasureRequest
    is_new: bool


class Requests:
    """Takes requests. Safe to use from several threads."""

    def __init__(self, database: Database, secret: Secret, *, news: Callable[[], None] = lambda: None) -> None:
        """Nothing is done yet.

        Args:
            database: the catalog.
            secret: of the installation.
            news: called when there is something to work on or to send.
        """
        self._database, self._secret, self._news = database, secret, news

    def submit(self, actor: Actor, received: Received, answer: Callable[[ErasureRequest], str]) -> Accepted:
        """Take a request, or find that it was taken; committed when this returns.

        Args:
            actor: who sends it, for the audit.
            received: the request.
            answer: what it is answered, without an identity; kept, for the same request again.

        Raises:
            ConflictError: the same id asks something else.
            InvalidTextError: an id or an identity that can't be one.
        """
        _check_caller_id(received.caller_id)
        hashes = [identity_hashes(one, self._secret) for one in received.identities]
        now = datetime.now(UTC)
        with transaction(self._database, actor=actor) as session:
            row, is_new = catalog.insert_request(
                session,
                source=received.source,
                caller_id=received.caller_id,
                protocol=received.protocol,
                body_digest=received.body_digest,
                regulation=received.regulation,
                mode=received.mode,
                report=received.report,
                verify=received.verify,
                identities=[
                    {"type": one.kind, "hashes": found} for one, found in zip(received.identities, hashes, strict=True)
                ],
                sealed=self._secret.seal(received.sealed),
                submitted_at=received.submitted_at,
                received_at=now,
                due_at=received.due_at or due_at(received.regulation, now),
                next_at=now,
            )
            if row.body_digest != received.body_digest:
                raise ConflictError("There is a request with this id already, and it asks something else.")
            if is_new:
                row.answer = answer(row)
                session.flush()
                catalog.record(
                    session,
                    "request.receive",
                    request=row.id,
                    source=row.source,
                    protocol=row.protocol,
                    caller_id=row.caller_id,
                    body_digest=row.body_digest,
                    mode=row.mode,
                    regulation=row.regulation,
                    identities=len(received.identities),
                    due_at=row.due_at.isoformat(),
                )
                announce(session, self._secret, row)
        if is_new:
            self._news()
        return Accepted(row=row, is_new=is_new)

    def cancel(self, actor: Actor, source: str, caller_id: str) -> ErasureRequest:
        """Cancel a request that nobody has begun with; again changes nothing.

        Raises:
            NotFoundError: there is no such request.
            ConflictError: it is past that.
        """
        with transaction(self._database, actor=actor) as session:
            row = catalog.lock_request(session, source, caller_id)
            if row.state != "cancelled":
                catalog.cancel_request(session, row, now=datetime.now(UTC))
                announce(session, self._secret, row)
                row.sealed = None
                session.flush()
        self._news()
        return row

    def get(self, source: str, caller_id: str) -> ErasureRequest:
        """A request.

        Raises:
            NotFoundError: there is no such request.
        """
        with transaction(self._database, writes=False) as session:
            return catalog.get_request(session, source, caller_id)

    def find(self, request: str) -> ErasureRequest:
        """The request with an id of ours.

        Raises:
            NotFoundError: there is no such request.
        """
        with transaction(self._database, writes=False) as session:
            return catalog.get_request_of_id(session, request)

    def amend(self, actor: Actor, source: str, caller_id: str, sealed: dict[str, Any]) -> ErasureRequest:
        """Add to what a request's protocol needs for its messages, unless it is completed or cancelled.

        Returns:
            The row as it is then. Whoever finds it completed or cancelled has to answer by itself, for no message will
            come; of a failed one none has come, and one will when it is tried again.

        Raises:
            NotFoundError: there is no such request.
        """
        with transaction(self._database, actor=actor) as session:
            row = catalog.lock_request(session, source, caller_id)
            if row.state not in ("completed", "cancelled"):
                before = {} if row.sealed is None else self._secret.unseal(row.sealed)
                row.sealed = self._secret.seal({**before, **sealed})
                session.flush()
        return row

    def wait(self, source: str, caller_id: str, seconds: float) -> ErasureRequest:
        """A request, as soon as it is done, and as it is when the time is over.

        Raises:
            NotFoundError: there is no such request.
        """
        until = time.monotonic() + seconds
        while True:
            row = self.get(source, caller_id)
            if row.state in FINAL or time.monotonic() >= until:
                return row
            time.sleep(_POLL_SECONDS)

    def retry(self, actor: Actor, request: str) -> ErasureRequest:
        """Have a failed request worked on again.

        Raises:
            NotFoundError: there is none of this id.
            ConflictError: it hasn't failed.
        """
        with transaction(self._database, actor=actor) as session:
            row = catalog.retry_request(session, request, now=datetime.now(UTC))
            announce(session, self._secret, row)
        self._news()
        return row


def due_at(regulation: str | None, received_at: datetime) -> datetime:
    """When a request has to be done, where its caller doesn't say so."""
    return received_at + timedelta(days=REGULATION_DAYS.get(regulation or "", DEFAULT_DAYS))


def _check_caller_id(caller_id: str) -> None:
    check_printable(caller_id, "id")
    if not 1 <= len(caller_id) <= _LONGEST_CALLER_ID:
        raise InvalidTextError(f"The id of a request has 1 to {_LONGEST_CALLER_ID} characters.")
