"""A clock that is set back an hour: the audit goes on, keys and limits hold, and nothing waits for the lost hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import time_machine
from fastapi.testclient import TestClient

from app import catalog
from app.catalog import Claim, ResolvedDeletion
from app.catalog.verifications import STALE_AFTER
from app.db import Database, open_database, transaction
from app.main import create_app
from app.settings import Settings
from app.tables import AuditRecord
from tests.drills.test_kills import question

BACK: Final = timedelta(hours=1)
ASKED: Final = question("max").body
PER_MINUTE: Final = 120

SQLITE = pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
"""For what has nothing to do with the database."""


@contextmanager
def an_hour_ago() -> Iterator[None]:
    """The clock set back, and going on; `time.monotonic` knows nothing of it, as ever."""
    with time_machine.travel(datetime.now(UTC) - BACK, tick=True):
        yield


@pytest.fixture
def client(served: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(served), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def database(served: Settings) -> Iterator[Database]:
    database = open_database(served)
    yield database
    database.dispose()


def told(client: TestClient, **more: Any) -> dict[str, Any]:
    """The answer to the question, without the time that it took."""
    response = client.post("/predict", json=ASKED, **more)
    assert response.status_code == 200, response.text
    return {**response.json(), "elapsed_ms": 0}


def records(database: Database) -> list[AuditRecord]:
    """All records of the audit, after a walk along the chain."""
    with transaction(database, writes=False) as session:
        chain = catalog.verify_chain(session)
        assert chain.broken is None, chain.reason
        found = catalog.list_records(session, limit=1000, offset=0).items
    assert [record.number for record in found] == list(range(1, chain.length + 1))
    return list(found)


def test_the_audit_goes_on_over_a_clock_that_is_set_back(client: TestClient, database: Database) -> None:
    before = told(client)
    with an_hour_ago():
        assert told(client) == before
        subset = {"name": "later", "contains": "a"}
        assert client.post("/datasets/names/subsets", json=subset).status_code == 201
    assert told(client) == before
    first, earlier, changed, last = records(database)[-4:]
    assert earlier.at < first.at - BACK / 2
    assert changed.at < last.at - BACK / 2
    assert [record.action for record in (first, earlier, changed, last)] == [
        "predict",
        "predict",
        "subset.create",
        "predict",
    ]


@SQLITE
def test_keys_that_have_not_expired_go_on_working(client: TestClient) -> None:
    made = client.post("/keys", json={"name": "caller", "scopes": ["predict"], "expires_days": 1})
    assert made.status_code == 201, made.text
    headers = {"Authorization": f"Bearer {made.json()['key']}"}
    before = told(client, headers=headers)
    with an_hour_ago():
        assert told(client, headers=headers) == before
        assert client.get("/datasets", headers=headers).status_code == 403  # and not 401
    assert told(client, headers=headers) == before


@SQLITE
def test_a_key_of_the_lost_hour_works(client: TestClient) -> None:
    """Made before the clock was set back, it is one of the future."""
    made = client.post("/keys", json={"name": "caller", "scopes": ["predict", "admin"], "expires_days": 1})
    headers = {"X-API-Key": made.json()["key"]}
    with an_hour_ago():
        told(client, headers=headers)
        revoked = client.delete(f"/keys/{made.json()['prefix']}", headers=headers)
        assert revoked.json()["state"] == "revoked"
        assert client.post("/predict", json=ASKED, headers=headers).status_code == 401


@SQLITE
def test_limits_of_requests_lock_nobody_out(client: TestClient) -> None:
    made = client.post("/keys", json={"name": "caller", "scopes": ["predict"], "requests_per_minute": PER_MINUTE})
    headers = {"Authorization": f"Bearer {made.json()['key']}"}

    def statuses(count: int) -> list[int]:
        return [client.post("/predict", json=ASKED, headers=headers).status_code for _ in range(count)]

    assert statuses(2 * PER_MINUTE).count(429) > 0
    with an_hour_ago():
        refused = client.post("/predict", json=ASKED, headers=headers)
        if refused.status_code != 200:
            assert int(refused.headers["Retry-After"]) <= 60
        time.sleep(3 * 60 / PER_MINUTE)
        assert statuses(2) == [200, 200]
        assert statuses(PER_MINUTE).count(429) > 0  # nor is anything given away


def queued(database: Database) -> str:
    """A verification that waits; its id."""
    with transaction(database) as session:
        version_id = catalog.get_version(session, "tiny").id
        deletion = ResolvedDeletion(units=[0], documents=1)
        row = catalog.add_verification(
            session, version_id=version_id, deletion=deletion, predictions=[], confidence=0.95
        )
    return row.id


def claimed(database: Database) -> Claim | None:
    """What a process gets that looks for work now."""
    now = datetime.now(UTC)
    with transaction(database) as session:
        seen = catalog.next_verification(session, now=now)
        return None if seen is None else catalog.claim_verification(session, seen, now=now)


def test_what_a_process_left_that_died_before_the_clock_was_set_back_is_taken_over(database: Database) -> None:
    verification = queued(database)
    dead = claimed(database)
    assert dead is not None
    with an_hour_ago():
        taken = claimed(database)
        assert taken is not None
        assert taken.id == verification
        with transaction(database) as session:  # the one that seemed dead changes nothing any more
            assert catalog.renew_claim(session, dead, now=datetime.now(UTC)) is None
        assert claimed(database) is None  # and what is being worked on is left alone


def test_a_process_that_works_on_while_the_clock_is_set_back_keeps_its_claim(database: Database) -> None:
    queued(database)
    mine = claimed(database)
    assert mine is not None
    with an_hour_ago(), transaction(database) as session:
        renewed = catalog.renew_claim(session, mine, now=datetime.now(UTC))
        assert renewed is not None
        assert catalog.next_verification(session, now=datetime.now(UTC)) is None
        assert catalog.finish_verification(session, renewed, [])


def test_clocks_that_differ_by_less_than_a_claim_lasts_take_nothing_over(database: Database) -> None:
    """As those of two machines on one catalog do."""
    queued(database)
    assert claimed(database) is not None
    for differs in (-STALE_AFTER / 2, STALE_AFTER / 2):
        with transaction(database, writes=False) as session:
            assert catalog.next_verification(session, now=datetime.now(UTC) + differs) is None
