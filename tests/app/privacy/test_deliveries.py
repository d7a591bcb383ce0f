"""Deliveries: written with the change, sent at least once, in order, side by side, and given up with a reason."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as commands
from app.catalog import DELIVERY_STALE_AFTER, DeliveryClaim
from app.db import Database, transaction
from app.errors import ConflictError, NotFoundError
from app.main import create_app
from app.privacy.attempts import judged
from app.privacy.connections import new_webhook_secret
from app.privacy.deliverer import MOST_AT_ONCE_OF_HOST
from app.privacy.outgoing import Reply, resolve
from app.secret import Secret
from app.settings import Settings
from app.tables import AuditRecord, Delivery
from tests.app.conftest import refusal, until
from tests.app.privacy.delivering import (
    add,
    connect,
    connection_of,
    delivering,
    hurry,
    reaches,
    request,
    seen,
)
from tests.app.privacy.peers import (
    NAME,
    Names,
    Says,
    client_tls,
    drip_head,
    hang,
    peer,
    server_tls,
)

NOW = datetime.now(UTC)
URL = "https://privacy.example.org:8443/hook?token=very-secret"

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    return client_tls(authority)


@pytest.fixture(scope="module")
def identity(authority: trustme.CA) -> ssl.SSLContext:
    return server_tls(authority)


def due(database: Database, *, now: datetime | None = None, limit: int = 100, **more: Any) -> list[DeliveryClaim]:
    with transaction(database, writes=False) as session:
        return catalog.due_deliveries(session, now=now or datetime.now(UTC), limit=limit, **more)


def claim(database: Database, claim: DeliveryClaim, *, now: datetime | None = None) -> DeliveryClaim | None:
    with transaction(database) as session:
        return catalog.claim_delivery(session, claim, now=now or datetime.now(UTC))


def claimed(database: Database, delivery: str) -> DeliveryClaim:
    [one] = [one for one in due(database) if one.id == delivery]
    got = claim(database, one)
    assert got is not None
    return got


def postpone(database: Database, claim: DeliveryClaim, *, next_at: datetime) -> bool:
    with transaction(database) as session:
        return catalog.postpone_delivery(session, claim, status=500, error="http_500", why="No.", next_at=next_at)


def records(database: Database, action: str) -> list[AuditRecord]:
    with transaction(database, writes=False) as session:
        query = select(AuditRecord).where(AuditRecord.action == action).order_by(AuditRecord.number)
        return list(session.scalars(query))


def stored(row: Delivery) -> str:
    return repr([getattr(row, column.key) for column in Delivery.__table__.columns])


# The queue


def test_a_delivery_is_written_with_the_change_or_not_at_all(database: Database, secret: Secret) -> None:
    connect(database, secret)

    def tell(*, and_fail: bool) -> None:
        message: dict[str, Any] = {"connection": "desk", "kind": "event", "url": URL, "method": "POST", "headers": {}}
        with transaction(database) as session:
            catalog.add_delivery(session, secret, request_id=None, body="{}", **message)
            if and_fail:
                raise ConflictError("the change")

    with pytest.raises(ConflictError, match="the change"):
        tell(and_fail=True)
    assert not due(database)
    tell(and_fail=False)
    assert len(due(database)) == 1


def test_what_is_secret_is_sealed(database: Database, secret: Secret) -> None:
    connect(database, secret)
    id_ = add(database, secret, URL, headers={"Authorization": "Bearer very-secret"})
    row = seen(database, id_)
    assert row.host == "privacy.example.org:8443"
    assert "very-secret" not in stored(row)
    assert secret.unseal(row.sealed) == {
        "method": "POST",
        "url": URL,
        "headers": {"Authorization": "Bearer very-secret"},
    }


def test_a_requests_deliveries_are_numbered(database: Database, secret: Secret) -> None:
    connect(database, secret)
    first, other = request(database), request(database)
    ids = [add(database, secret, URL, request_id=one) for one in (first, first, other, first)]
    assert [seen(database, id_).number for id_ in ids] == [1, 2, 1, 3]
    assert len(set(ids)) == 4


def test_a_first_attempt_waits_for_those_before_it_and_no_longer(database: Database, secret: Secret) -> None:
    connect(database, secret)
    told = request(database)
    first, second, third = (add(database, secret, URL, request_id=told) for _ in range(3))
    elsewhere = add(database, secret, "https://other.example.org/", request_id=told)
    of_other = add(database, secret, URL, request_id=request(database))
    assert {one.id for one in due(database)} == {first, elsewhere, of_other}
    mine = claimed(database, first)
    assert {one.id for one in due(database)} == {elsewhere, of_other}
    assert postpone(database, mine, next_at=NOW + timedelta(hours=1))
    assert {one.id for one in due(database)} == {second, elsewhere, of_other}
    mine = claimed(database, second)
    with transaction(database) as session:
        assert catalog.finish_delivery(session, mine, status=200, now=datetime.now(UTC))
    assert {one.id for one in due(database)} == {third, elsewhere, of_other}


def test_only_one_claims_a_delivery(database: Database, secret: Secret) -> None:
    connect(database, secret)
    add(database, secret, URL)
    [one] = due(database)
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda _: claim(database, one), range(8)))
    assert sum(each is not None for each in got) == 1
    assert not due(database)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_stale_claim_is_taken_over_and_worth_nothing_then(database: Database, secret: Secret, direction: int) -> None:
    connect(database, secret)
    id_ = add(database, secret, URL)
    dead = claimed(database, id_)
    now = datetime.now(UTC)  # not when this was read: other tests may have taken a minute since
    almost, later = (now + direction * (DELIVERY_STALE_AFTER + timedelta(seconds=s)) for s in (-30, 30))
    with transaction(database) as session:
        session.execute(update(Delivery).values(next_at=NOW - timedelta(hours=1)))
    assert not due(database, now=almost)
    [stale] = due(database, now=later)
    new = claim(database, stale, now=later)
    assert new is not None
    with transaction(database) as session:
        assert not catalog.finish_delivery(session, dead, status=200, now=later)
        assert catalog.renew_delivery(session, dead, now=later) is None
        assert not catalog.release_delivery(session, dead)
        assert not catalog.bury_delivery(session, dead, status=None, error="x", why="x", now=later)
    assert not postpone(database, dead, next_at=later)
    assert seen(database, id_).attempts == 0
    assert not records(database, "delivery.attempt")
    with transaction(database) as session:
        renewed = catalog.renew_delivery(session, new, now=later + timedelta(seconds=1))
        assert renewed is not None
        assert catalog.finish_delivery(session, renewed, status=200, now=later)


def test_every_attempt_is_in_the_audit_without_the_address(database: Database, secret: Secret) -> None:
    connect(database, secret)
    told = request(database)
    id_ = add(database, secret, URL, request_id=told)
    assert postpone(database, claimed(database, id_), next_at=NOW)
    with transaction(database) as session:
        [one] = catalog.due_deliveries(session, now=datetime.now(UTC), limit=1)
        mine = catalog.claim_delivery(session, one, now=datetime.now(UTC))
        assert mine is not None
        assert catalog.finish_delivery(session, mine, status=204, now=datetime.now(UTC))
    failed, delivered = records(database, "delivery.attempt")
    assert failed.details == {
        "delivery": id_,
        "request": told,
        "kind": "event",
        "connection": "desk",
        "host": "privacy.example.org:8443",
        "attempt": 1,
        "result": "failed",
        "status": 500,
        "error": "http_500",
    }
    assert (delivered.details["attempt"], delivered.details["result"], delivered.details["status"]) == (
        2,
        "delivered",
        204,
    )
    assert seen(database, id_).last_error is None


def test_the_longest_due_come_first_and_hosts_can_be_left_out(database: Database, secret: Secret) -> None:
    connect(database, secret)
    ids = [add(database, secret, f"https://h{number}.example.org/") for number in range(4)]
    with transaction(database) as session:
        for seconds, id_ in zip((30, 10, 40, 20), ids, strict=True):
            session.execute(
                update(Delivery).where(Delivery.id == id_).values(next_at=NOW - timedelta(seconds=100 - seconds))
            )
    assert [one.id for one in due(database)] == [ids[1], ids[3], ids[0], ids[2]]
    assert [one.id for one in due(database, limit=2)] == [ids[1], ids[3]]
    assert [one.id for one in due(database, without_hosts=["h1.example.org", "h0.example.org"])] == [ids[3], ids[2]]


def test_what_isnt_due_is_known_to_be_later(database: Database, secret: Secret) -> None:
    connect(database, secret)
    assert postpone(database, claimed(database, add(database, secret, URL)), next_at=NOW + timedelta(hours=3))
    assert postpone(database, claimed(database, add(database, secret, URL)), next_at=NOW + timedelta(hours=2))
    assert not due(database)
    with transaction(database, writes=False) as session:
        assert catalog.next_delivery_at(session, now=datetime.now(UTC)) == NOW + timedelta(hours=2)
        assert catalog.next_delivery_at(session, now=NOW + timedelta(hours=4)) is None


def test_what_a_disabled_connection_has_waiting_is_due_at_once(database: Database, secret: Secret) -> None:
    connect(database, secret)
    id_ = add(database, secret, URL)
    assert postpone(database, claimed(database, id_), next_at=NOW + timedelta(hours=3))
    with transaction(database) as session:
        catalog.disable_connection(session, "desk", "a reason")
    assert [one.id for one in due(database)] == [id_]


def bury(database: Database, delivery: str) -> None:
    mine = claimed(database, delivery)
    with transaction(database) as session:
        assert catalog.bury_delivery(session, mine, status=400, error="http_400", why="No.", now=datetime.now(UTC))


def test_dead_and_delivered_ones_are_replayed(database: Database, secret: Secret) -> None:
    connect(database, secret)
    dead, delivered, waits = (add(database, secret, URL) for _ in range(3))
    bury(database, dead)
    mine = claimed(database, delivered)
    with transaction(database) as session:
        catalog.finish_delivery(session, mine, status=200, now=NOW)
    for id_ in (dead, delivered):
        with transaction(database) as session:
            row = catalog.replay_delivery(session, id_, now=datetime.now(UTC))
        assert (row.id, row.state, row.attempts, row.finished_at, row.last_error) == (id_, "pending", 0, None, None)
    assert {one.id for one in due(database)} == {dead, delivered, waits}
    with pytest.raises(ConflictError, match="waits"), transaction(database) as session:
        catalog.replay_delivery(session, waits, now=NOW)
    with pytest.raises(NotFoundError, match="no delivery"), transaction(database) as session:
        catalog.replay_delivery(session, "msg_0", now=NOW)
    assert [record.details["delivery"] for record in records(database, "delivery.replay")] == [dead, delivered]


def test_all_dead_ones_are_replayed_but_those_of_disabled_connections(database: Database, secret: Secret) -> None:
    for name in ("desk", "other", "off"):
        connect(database, secret, name=name)
        bury(database, add(database, secret, URL, connection=name))
    with transaction(database) as session:
        catalog.disable_connection(session, "off", "a reason")
    [off] = [row for row in listed(database) if row.connection == "off"]
    with pytest.raises(ConflictError, match="disabled"), transaction(database) as session:
        catalog.replay_delivery(session, off.id, now=NOW)
    for connection, count in (("desk", 1), (None, 1), (None, 0)):
        with transaction(database) as session:
            assert catalog.replay_dead(session, connection=connection, now=NOW) == count
    assert {row.connection: row.state for row in listed(database)} == {
        "desk": "pending",
        "other": "pending",
        "off": "dead",
    }
    assert [record.details["deliveries"] for record in records(database, "delivery.replay_dead")] == [1, 1]


def listed(database: Database, **which: Any) -> list[Delivery]:
    with transaction(database, writes=False) as session:
        return list(catalog.list_deliveries(session, **which, limit=100, offset=0).items)


def test_deliveries_are_listed_by_state_connection_and_request_and_counted(database: Database, secret: Secret) -> None:
    for name in ("desk", "other"):
        connect(database, secret, name=name)
    told = request(database)
    first = add(database, secret, URL)
    second = add(database, secret, URL, connection="other")
    third = add(database, secret, URL, request_id=told)
    bury(database, first)
    assert [row.id for row in listed(database)] == [third, second, first]
    assert [row.id for row in listed(database, state="dead")] == [first]
    assert [row.id for row in listed(database, connection="desk", state="pending")] == [third]
    assert [row.id for row in listed(database, request=told)] == [third]
    with pytest.raises(NotFoundError, match="no connection"):
        listed(database, connection="nobody")
    with transaction(database, writes=False) as session:
        assert catalog.count_deliveries(session) == {"pending": 2, "delivered": 0, "dead": 1}


# What an attempt comes to


def waits(kind: str, reply: Reply, *, most: int = 200) -> list[float]:
    """Seconds between attempts that all end like this, until it is given up."""
    found: list[float] = []
    while len(found) < most:
        outcome = judged(kind, len(found) + 1, reply, jitter=0)
        if outcome.wait is None:
            return found
        found.append(outcome.wait.total_seconds())
    raise AssertionError(found)


def test_ten_attempts_are_made_over_three_days() -> None:
    hours = [2, 5, 10, 14, 20, 24]
    expected = [5, 300, 1800, *(3600 * one for one in hours)]
    for reply in (Reply(status=500), Reply(status=404), Reply(status=302), Reply(error="dns", why="No address.")):
        assert waits("event", reply) == expected
    assert judged("event", 10, Reply(status=503), jitter=0).why == "Given up after 10 attempts. It answered 503."


@given(attempt=st.integers(1, 9), jitter=st.floats(-1, 1))
def test_waits_differ_by_a_tenth_at_most(attempt: int, jitter: float) -> None:
    plain = judged("event", attempt, Reply(status=500), jitter=0).wait
    with_jitter = judged("event", attempt, Reply(status=500), jitter=jitter).wait
    assert plain is not None
    assert with_jitter is not None
    assert abs(with_jitter / plain - 1) < 0.1001


@given(attempt=st.integers(1, 9), jitter=st.floats(-1, 1), seconds=st.integers(0, 86_400))
def test_nobody_is_called_before_they_want_to_be(attempt: int, jitter: float, seconds: int) -> None:
    reply = Reply(status=429, retry_after=timedelta(seconds=seconds))
    wait = judged("event", attempt, reply, jitter=jitter).wait
    assert wait is not None
    assert wait >= timedelta(seconds=seconds)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_delivered(status: int) -> None:
    outcome = judged("event", 1, Reply(status=status), jitter=0)
    assert (outcome.result, outcome.wait, outcome.status) == ("delivered", None, status)


@pytest.mark.parametrize("kind", ["fides_resume", "fides_pre_approval"])
def test_fides_is_asked_again_at_once_and_then_as_long_as_its_token_lives(kind: str) -> None:
    down = waits(kind, Reply(error="connect", why="No."))
    assert down[:6] == [0.05, 0.1, 0.2, 0.5, 1, 2]
    assert down == sorted(down)
    assert 58 * 3600 < sum(down) < 61 * 3600
    refused = waits(kind, Reply(status=400))
    assert refused == down[:12]
    assert judged(kind, 13, Reply(status=400), jitter=0).why == "refused: already resumed, or never paused"
    for status in (401, 403):
        assert not waits(kind, Reply(status=status))
        assert judged(kind, 1, Reply(status=status), jitter=0).why == "refused: the token is over"


def test_transcend_that_can_be_changed_no_more_is_left_alone() -> None:
    assert len(waits("transcend_report", Reply(status=409))) == 2
    assert len(waits("event", Reply(status=409))) == 9


# The deliverer


def test_a_delivery_arrives_after_a_failure_with_the_same_id(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    with peer(Says(status=500), Says(), tls=identity) as one:
        connect(database, secret, one, secrets={"webhook_secrets": [new_webhook_secret()]})
        id_, begun = add(database, secret, one.url()), datetime.now(UTC)
        with delivering(database, secret, trust, sent=lambda *what: counted.update([what])) as deliverer:
            waiting = reaches(database, id_, "pending", attempts=1)
            assert (waiting.last_status, waiting.last_error) == (500, "It answered 500.")
            assert (waiting.next_at - begun).total_seconds() > 4.4
            assert (waiting.next_at - datetime.now(UTC)).total_seconds() < 5.6
            hurry(database)
            deliverer.wake()
            row = reaches(database, id_, "delivered")
    assert (row.attempts, row.last_status, row.last_error) == (2, 200, None)
    assert row.finished_at is not None
    assert [asked.headers["webhook-id"] for asked in one.asked] == [id_, id_]
    assert counted == {("event", "failed"): 1, ("event", "delivered"): 1}
    assert [record.actor for record in records(database, "delivery.attempt")] == ["deliverer", "deliverer"]


@on_sqlite
def test_a_delivery_is_given_up_after_ten_attempts_and_replayed(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    later = Says(status=503, headers={"Retry-After": "1000"})  # or else the second would come by itself
    with peer(later, *[Says(status=503)] * 9, Says(), tls=identity) as one:
        connect(database, secret, one)
        id_ = add(database, secret, one.url())
        with delivering(database, secret, trust) as deliverer:
            for attempt in range(1, 10):
                reaches(database, id_, "pending", attempts=attempt)
                hurry(database)
                deliverer.wake()
            dead = reaches(database, id_, "dead")
            assert (dead.attempts, dead.last_error) == (10, "Given up after 10 attempts. It answered 503.")
            with transaction(database) as session:
                catalog.replay_delivery(session, id_, now=datetime.now(UTC))
            reaches(database, id_, "delivered", attempts=1)
    assert len(one.asked) == 11


@on_sqlite
def test_the_schedule_is_kept_by_the_clock(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    with peer(Says(status=500), tls=identity) as one:
        connect(database, secret, one)
        id_ = add(database, secret, one.url())
        moment = datetime.now(UTC)
        for attempt, seconds in enumerate([5, 300, 1800, 7200], start=1):
            with time_machine.travel(moment, tick=True), delivering(database, secret, trust):
                row = reaches(database, id_, "pending", attempts=attempt)
            wait = (row.next_at - moment).total_seconds()
            assert 0.9 * seconds <= wait <= 1.1 * seconds + 60  # in which the attempt itself comes
            with time_machine.travel(row.next_at - timedelta(seconds=2), tick=False):
                assert not due(database)
            moment = row.next_at
    assert len(one.asked) == 4


@on_sqlite
def test_410_disables_a_webhook_and_gives_up_all_that_waits_for_it(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    with peer(Says(status=410), tls=identity) as one:
        connect(database, secret, one)
        told = request(database)
        gone, waiting = (add(database, secret, one.url(), request_id=told) for _ in range(2))
        with delivering(database, secret, trust):
            assert reaches(database, gone, "dead").last_error == "It answered 410: gone."
            assert reaches(database, waiting, "dead").last_error == "The connection is disabled."
    assert len(one.asked) == 1
    row = connection_of(database)
    assert row.disabled_at is not None
    assert row.disabled_reason == "its address answered 410: gone"
    [record] = records(database, "connection.disable")
    assert record.actor == "deliverer"


@on_sqlite
def test_410_gives_up_one_delivery_of_other_protocols(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    with peer(Says(status=410), Says(), tls=identity) as one:
        connect(database, secret, one, protocol="fides")
        told = request(database)
        first, second = (add(database, secret, one.url(), request_id=told, kind="fides_resume") for _ in range(2))
        with delivering(database, secret, trust):
            reaches(database, first, "dead")
            reaches(database, second, "delivered")
    assert connection_of(database).disabled_at is None


@on_sqlite
@pytest.mark.parametrize("status", [429, 503])
def test_a_peer_is_left_alone_as_long_as_it_wants(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext, status: int
) -> None:
    with peer(Says(status=status, headers={"Retry-After": "1000"}), tls=identity) as one:
        connect(database, secret, one)
        id_ = add(database, secret, one.url())
        with delivering(database, secret, trust):
            row = reaches(database, id_, "pending", attempts=1)
    assert 900 < (row.next_at - datetime.now(UTC)).total_seconds() <= 1001


@on_sqlite
def test_a_redirect_is_a_failure_and_not_followed(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    metadata = Says(status=307, headers={"Location": "http://169.254.169.254/latest/meta-data"})
    with peer(metadata, tls=identity) as one:
        connect(database, secret, one)
        id_ = add(database, secret, one.url())
        with delivering(database, secret, trust):
            row = reaches(database, id_, "pending", attempts=1)
    assert row.last_error == "It answered 307: redirects aren't followed."


@on_sqlite
@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://inside.example.org/",
        "https://evil.example/",
        "http://privacy.example.org/",
        "https://[::1",
        "",
    ],
)
def test_what_mustnt_be_called_is_given_up_at_once(
    database: Database, secret: Secret, trust: ssl.SSLContext, url: str
) -> None:
    listed = ["169.254.169.254", "[::1]", "inside.example.org", "privacy.example.org"]
    connect(database, secret, allowed_hosts=listed, allowed_networks=[])
    id_ = add(database, secret, url)
    counted: Counter[tuple[str, str]] = Counter()
    inside = Names({"inside.example.org": [["127.0.0.1"]]})
    with delivering(database, secret, trust, resolver=inside, sent=lambda *what: counted.update([what])):
        row = reaches(database, id_, "dead")
    assert row.attempts == 1
    assert row.last_error
    assert row.last_status is None
    assert counted == {("event", "refused"): 1}


@on_sqlite
def test_a_name_without_an_address_is_tried_again(database: Database, secret: Secret, trust: ssl.SSLContext) -> None:
    connect(database, secret)
    id_ = add(database, secret, "https://nobody.invalid/hook")
    with delivering(database, secret, trust, resolver=resolve):
        row = reaches(database, id_, "pending", attempts=1)
    assert row.last_error == "The name of the host has no address now."


@on_sqlite
def test_what_cant_be_unsealed_waits_for_its_key(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    other = Secret(b"o" * 32)
    with peer(tls=identity) as one:
        connect(database, secret, one)
        id_ = add(database, other, one.url())
        with delivering(database, secret, trust):
            row = reaches(database, id_, "pending", attempts=1)
    assert row.last_error is not None
    assert "NEVERSEEN_ENCRYPTION_KEY" in row.last_error
    assert not one.asked


def test_first_attempts_arrive_in_order(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    later = {"Retry-After": "1000"}
    with peer(Says(status=500, headers=later), Says(), tls=identity) as one:
        connect(database, secret, one)
        requests = [request(database) for _ in range(3)]
        for number in range(5):
            for told in requests:
                add(database, secret, one.url(), request_id=told, body=json.dumps([told, number]))
        with delivering(database, secret, trust):
            assert until(lambda: len(one.asked) == 15)
    arrived: dict[str, list[int]] = {told: [] for told in requests}
    for asked in one.asked:
        told, number = json.loads(asked.body)
        arrived[told].append(number)
    assert arrived == {told: [0, 1, 2, 3, 4] for told in requests}


@on_sqlite
@pytest.mark.parametrize("does", [hang, drip_head])
def test_a_peer_that_never_answers_holds_nobody_up(
    database: Database, secret: Secret, trust: ssl.SSLContext, authority: trustme.CA, does: Any
) -> None:
    names = [f"silent{number}.example.org" for number in range(3)]
    tls = server_tls(authority, NAME, *names)
    resolver = Names({name: [["127.0.0.1"]] for name in (NAME, *names)})
    with peer(does, tls=tls) as silent, peer(tls=tls) as one:
        hosts = [f"{name}:{silent.port}" for name in names]
        connect(database, secret, one, allowed_hosts=hosts)
        told = [add(database, secret, silent.url(name=name)) for name in names for _ in range(20)]
        good = [add(database, secret, one.url()) for _ in range(20)]
        samples: list[Counter[str]] = []

        def sending() -> Counter[str]:
            rows = listed(database, state="pending")
            samples.append(Counter(row.host for row in rows if row.claimed_at is not None))
            return samples[-1]

        with delivering(database, secret, trust, resolver=resolver, seconds=15) as deliverer:
            for id_ in good:
                reaches(database, id_, "delivered")
            assert not any(row.attempts for row in listed(database, state="pending"))  # nobody waited for them
            assert until(lambda: sending() == dict.fromkeys(hosts, MOST_AT_ONCE_OF_HOST))
            assert until(lambda: sum(sending().values()) <= 3, seconds=120)
            late = add(database, secret, one.url())
            deliverer.wake()
            reaches(database, late, "delivered")
            # Whoever didn't answer is called once at a time.
            assert until(lambda: sending() == dict.fromkeys(hosts, 1), seconds=120)
    assert max(max(sample.values(), default=0) for sample in samples) == MOST_AT_ONCE_OF_HOST
    timed_out = [row for id_ in told if (row := seen(database, id_)).attempts]
    assert {row.last_error for row in timed_out} == {"There was no answer within 15 seconds."}


def test_two_deliverers_send_nothing_twice(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    with peer(tls=identity) as one:
        connect(database, secret, one)
        ids = {add(database, secret, one.url(), body=json.dumps(number)) for number in range(60)}
        with delivering(database, secret, trust), delivering(database, secret, trust):
            assert until(lambda: {row.state for row in listed(database)} == {"delivered"})
    assert sorted(json.loads(asked.body) for asked in one.asked) == list(range(60))
    assert {row.attempts for row in listed(database)} == {1}
    assert {record.details["delivery"] for record in records(database, "delivery.attempt")} == ids


_DELIVERER = """
import ssl, sys, time
from app.db import open_database
from app.privacy.deliverer import Deliverer
from app.privacy.outgoing import Outgoing
from app.secret import load_secret
from app.settings import Settings
from tests.app.privacy.peers import HERE
settings = Settings()
tls = ssl.create_default_context(cafile=sys.argv[1])
Deliverer(open_database(settings), load_secret(settings), outgoing=Outgoing(resolver=HERE, tls=tls)).start()
time.sleep(60)
"""


def test_what_a_killed_process_was_sending_is_sent_by_another_one(
    database: Database,
    secret: Secret,
    settings: Settings,
    trust: ssl.SSLContext,
    identity: ssl.SSLContext,
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    certificate = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    environment = {
        **os.environ,
        "NEVERSEEN_DATA_DIR": str(settings.data_dir),
        "NEVERSEEN_DATABASE_URL": settings.database_url,
    }
    with peer(hang, hang, Says(), tls=identity) as one:
        connect(database, secret, one, secrets={"webhook_secrets": [new_webhook_secret()]})
        ids = {add(database, secret, one.url()) for _ in range(2)}
        with subprocess.Popen([sys.executable, "-c", _DELIVERER, str(certificate)], env=environment) as process:
            try:
                assert until(lambda: len(one.asked) == 2, seconds=60)
            finally:
                os.kill(process.pid, signal.SIGKILL)
        assert all(seen(database, id_).claimed_at is not None for id_ in ids)
        with delivering(database, secret, trust):  # takes it for alive, still
            time.sleep(1.2)
            assert len(one.asked) == 2
        with (
            time_machine.travel(datetime.now(UTC) + DELIVERY_STALE_AFTER + timedelta(seconds=5), tick=True),
            delivering(database, secret, trust),
        ):
            for id_ in ids:
                reaches(database, id_, "delivered")
    assert Counter(asked.headers["webhook-id"] for asked in one.asked) == dict.fromkeys(ids, 2)


@on_sqlite
def test_a_claim_is_renewed_while_an_attempt_lasts(
    database: Database,
    secret: Secret,
    trust: ssl.SSLContext,
    identity: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.privacy.deliverer._RENEW_SECONDS", 0.1)
    with peer(hang, tls=identity) as one:
        connect(database, secret, one)
        id_ = add(database, secret, one.url())
        with delivering(database, secret, trust, seconds=10):
            assert until(lambda: bool(one.asked))
            first = seen(database, id_).claimed_at
            assert first is not None
            assert until(lambda: (seen(database, id_).claimed_at or first) > first)
            row = reaches(database, id_, "pending", attempts=1)
    assert row.last_error == "There was no answer within 10 seconds."


@on_sqlite
def test_an_attempt_whose_claim_was_taken_over_changes_nothing(
    database: Database,
    secret: Secret,
    trust: ssl.SSLContext,
    identity: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.privacy.deliverer._RENEW_SECONDS", 0.1)
    with peer(hang, tls=identity) as one:
        connect(database, secret, one)
        id_ = add(database, secret, one.url())
        with delivering(database, secret, trust, seconds=10):
            assert until(lambda: bool(one.asked))
            others = datetime.now(UTC) + timedelta(seconds=20)
            with transaction(database) as session:
                session.execute(update(Delivery).values(claimed_at=others))
            time.sleep(10.5)
    row = seen(database, id_)
    assert (row.state, row.attempts, row.claimed_at) == ("pending", 0, others)
    assert len(one.asked) == 1


@on_sqlite
def test_what_isnt_answered_when_the_service_stops_waits_again(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    with peer(hang, Says(), tls=identity) as one:
        connect(database, secret, one)
        id_ = add(database, secret, one.url())
        with delivering(database, secret, trust):
            assert until(lambda: bool(one.asked))
            started = time.monotonic()
        assert time.monotonic() - started < 15
        row = seen(database, id_)
        assert (row.state, row.claimed_at, row.attempts) == ("pending", None, 0)
        with delivering(database, secret, trust):
            reaches(database, id_, "delivered")


@on_sqlite
def test_fides_that_hasnt_recorded_its_pause_yet_is_asked_again_at_once(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    with peer(Says(status=400), Says(status=400), Says(status=400), Says(), tls=identity) as one:
        connect(database, secret, one, protocol="fides")
        id_ = add(database, secret, one.url("/api/v1/privacy-request/pri_1/resume"), kind="fides_resume", body="{}")
        with delivering(database, secret, trust):
            reaches(database, id_, "delivered", attempts=4)  # for which the waits of others would take minutes
    assert len(one.asked) == 4


@on_sqlite
def test_a_callback_of_opendsr_is_signed_with_its_key(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext, authority: trustme.CA
) -> None:
    issued = authority.issue_cert("opendsr.example.org", key_type=trustme.KeyType.RSA)
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    secrets = {
        "private_key": issued.private_key_pem.bytes().decode(),
        "certificate": chain.decode(),
        "webhook_secrets": [new_webhook_secret()],
    }
    with peer(tls=identity) as one:
        connect(
            database,
            secret,
            one,
            protocol="opendsr",
            secrets=secrets,
            mode="erase",
            domain="opendsr.example.org",
            controller_id="controller",
            allowed_hosts=[f"{NAME}:{one.port}"],
        )
        id_ = add(database, secret, one.url("/callback"), kind="opendsr_callback", body='{"name": "Zoë"}')
        with delivering(database, secret, trust):
            reaches(database, id_, "delivered")
    [asked] = one.asked
    key = x509.load_pem_x509_certificate(chain).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(base64.b64decode(asked.headers["x-opendsr-signature"]), asked.body.encode(), PKCS1v15(), SHA256())
    assert asked.headers["x-opendsr-processor-domain"] == "opendsr.example.org"
    assert asked.headers["webhook-id"] == id_


@on_sqlite
def test_nothing_secret_is_logged_recorded_or_listed(
    database: Database,
    secret: Secret,
    trust: ssl.SSLContext,
    identity: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even where libraries log all that they do."""
    caplog.set_level(logging.DEBUG)
    signs = new_webhook_secret()
    with peer(Says(), Says(status=500), Says(status=410), tls=identity) as one:
        connect(database, secret, one, secrets={"webhook_secrets": [signs], "token": "very-secret-3"})
        for number in range(3):
            add(
                database,
                secret,
                one.url("/very-secret-0?token=very-secret-1"),
                headers={"Authorization": "Bearer very-secret-2", "X-Bad": "very-secret-4\r\nX: y" if number else "z"},
            )
        add(database, secret, "https://very-secret-5:very-secret-6@elsewhere.example.org/very-secret-7")
        with delivering(database, secret, trust):
            assert until(lambda: all(row.attempts for row in listed(database)))
    told = caplog.text + repr([record.details for record in records(database, "delivery.attempt")])
    told += "".join(stored(row) for row in listed(database))
    assert "very-secret" not in told
    assert signs.removeprefix("whsec_") not in told
    assert one.asked[0].headers["authorization"] == "Bearer very-secret-2"
    assert "given up" in caplog.text


# Routes and commands


@pytest.fixture
def office(settings: Settings) -> Iterator[TestClient]:
    """The running application, which sends nothing."""
    app = create_app(settings.model_copy(update={"privacy_worker": False}))
    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client


@on_sqlite
def test_deliveries_are_answered_without_what_is_secret(office: TestClient, database: Database, secret: Secret) -> None:
    connect(database, secret)
    told = request(database)
    dead = add(database, secret, URL, request_id=told, headers={"Authorization": "Bearer very-secret"})
    bury(database, dead)
    waiting = add(database, secret, URL)
    listed = office.get("/deliveries").json()
    assert [item["id"] for item in listed["items"]] == [waiting, dead]
    assert listed["total"] == 2
    assert office.get("/deliveries", params={"state": "dead"}).json()["items"] == [
        office.get(f"/deliveries/{dead}").json()
    ]
    assert office.get("/deliveries", params={"connection": "desk", "state": "delivered"}).json()["items"] == []
    one = office.get(f"/deliveries/{dead}").json()
    assert (one["request_id"], one["host"], one["next_at"]) == (told, "privacy.example.org:8443", None)
    assert (one["last_status"], one["last_error"], one["attempts"]) == (400, "No.", 1)
    assert "very-secret" not in office.get("/deliveries").text
    replayed = office.post(f"/deliveries/{dead}/replay").json()
    assert (replayed["state"], replayed["attempts"], replayed["last_error"]) == ("pending", 0, None)
    assert replayed["next_at"] is not None


@on_sqlite
def test_deliveries_that_arent_there_are_refused(office: TestClient, database: Database, secret: Secret) -> None:
    connect(database, secret)
    unknown = f"msg_{'0' * 32}"
    refusal(office.get(f"/deliveries/{unknown}"), 404)
    refusal(office.post(f"/deliveries/{unknown}/replay"), 404)
    refusal(office.get("/deliveries/msg_1"), 422)
    refusal(office.get("/deliveries", params={"state": "lost"}), 422)
    refusal(office.get("/deliveries", params={"connection": "nobody"}), 404)
    refusal(office.post(f"/deliveries/{add(database, secret, URL)}/replay"), 409)


@on_sqlite
def test_commands_list_and_replay_deliveries(
    settings: Settings, database: Database, secret: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("app.commands.deliveries.console.width", 200, raising=False)

    def neverseen(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(commands, ("privacy", "deliveries", *arguments))
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    connect(database, secret)
    first, second = (add(database, secret, URL) for _ in range(2))
    bury(database, first)
    assert first in neverseen()
    assert second in neverseen("list", "--state", "pending", "--connection", "desk")
    assert first not in neverseen("list", "--state", "pending")
    assert "isn't a state" in neverseen("list", "--state", "lost", code=2)
    shown = neverseen("show", first)
    assert "state dead" in shown
    assert "last error No." in shown
    assert "very-secret" not in shown + neverseen()
    assert f"Delivery {first} to privacy.example.org:8443 waits to be sent." in neverseen("replay", first)
    bury(database, first)
    bury(database, second)
    assert "2 deliveries wait to be sent." in neverseen("replay", "--all-dead")
    assert "or --all-dead" in neverseen("replay", code=2)
    assert "or --all-dead" in neverseen("replay", first, "--all-dead", code=2)
