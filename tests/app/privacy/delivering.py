"""What tests of deliveries share: connections to a peer on this machine, requests to tell of, deliverers that run."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import update

from app import catalog
from app.db import Database, transaction
from app.privacy.deliverer import Deliverer
from app.privacy.outgoing import Outgoing
from app.secret import Secret
from app.tables import Delivery, ErasureRequest, PrivacyConnection
from tests.app.conftest import until
from tests.app.privacy.peers import HERE, Peer

HERE_ALLOWED = {"allowed_networks": ["127.0.0.0/8"]}


def connect(
    database: Database,
    secret: Secret,
    one: Peer | None = None,
    *,
    name: str = "desk",
    protocol: str = "webhook",
    secrets: dict[str, Any] | None = None,
    **options: Any,
) -> str:
    """A connection to a peer; its name."""
    url = "https://nobody.invalid/hook" if one is None else one.url()
    own = {"webhook": {"url": url}, "fides": {"base_url": url.removesuffix("/hook")}}.get(protocol, {})
    with transaction(database) as session:
        catalog.add_connection(
            session,
            name=name,
            protocol=protocol,
            options={**own, **HERE_ALLOWED, **options},
            sealed=secret.seal(secrets or {}),
            credential_hash=None,
        )
    return name


def request(database: Database, **values: Any) -> str:
    """A request to tell of; its id."""
    id_ = str(uuid4())
    given: dict[str, Any] = {
        "source": "api",
        "caller_id": f"dsar of zena@example.org {id_}",
        "protocol": "api",
        "body_digest": "0" * 64,
        "mode": "predict",
        "report": "default",
        "verify": False,
        "due_at": datetime.now(UTC) + timedelta(days=30),
        **values,
    }
    with transaction(database) as session:
        session.add(ErasureRequest(id=id_, **given))
    return id_


def add(
    database: Database,
    secret: Secret,
    url: str,
    *,
    connection: str = "desk",
    request_id: str | None = None,
    kind: str = "event",
    body: str = '{"type": "test"}',
    headers: dict[str, str] | None = None,
) -> str:
    """A delivery that waits; its id."""
    with transaction(database) as session:
        return catalog.add_delivery(
            session,
            secret,
            connection=connection,
            request_id=request_id,
            kind=kind,
            url=url,
            method="POST",
            headers=headers or {},
            body=body,
        ).id


def seen(database: Database, delivery: str) -> Delivery:
    """A delivery as it is."""
    with transaction(database, writes=False) as session:
        return catalog.get_delivery(session, delivery)


def connection_of(database: Database, name: str = "desk") -> PrivacyConnection:
    """A connection as it is."""
    with transaction(database, writes=False) as session:
        return catalog.get_connection(session, name)


def hurry(database: Database) -> None:
    """Have all that waits be due now."""
    with transaction(database) as session:
        session.execute(update(Delivery).where(Delivery.state == "pending").values(next_at=datetime.now(UTC)))


def reaches(database: Database, delivery: str, state: str, *, attempts: int | None = None) -> Delivery:
    """A delivery, once it is in a state, and was attempted so often."""

    def is_so() -> bool:
        row = seen(database, delivery)
        return row.state == state and row.claimed_at is None and attempts in (None, row.attempts)

    assert until(is_so), vars(seen(database, delivery))
    return seen(database, delivery)


@contextmanager
def delivering(
    database: Database, secret: Secret, trust: ssl.SSLContext, *, seconds: float = 20, **more: Any
) -> Iterator[Deliverer]:
    """A deliverer that runs, and trusts the tests' authority."""
    outgoing = Outgoing(resolver=more.pop("resolver", HERE), tls=trust, seconds=seconds)
    deliverer = Deliverer(database, secret, outgoing=outgoing, **more)
    deliverer.start()
    try:
        yield deliverer
    finally:
        deliverer.stop()
