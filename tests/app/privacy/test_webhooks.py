"""Our events by Standard Webhooks: whoever uses its packages verifies them, while secrets change and after retries."""

from __future__ import annotations

import json
import ssl
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from standardwebhooks import Webhook, WebhookVerificationError

from app.db import Database, transaction
from app.privacy.connections import OpenedConnection, new_webhook_secret
from app.privacy.events import EVENT_TYPES, messages
from app.privacy.options import WebhookOptions
from app.privacy.webhooks import signature_headers
from app.schemas.connections import ConnectionSecrets
from app.secret import Secret
from app.tables import ErasureRequest, PrivacyConnection
from tests.app.conftest import until
from tests.app.privacy.delivering import add, connect, delivering, hurry, reaches, request
from tests.app.privacy.peers import Asked, Says, client_tls, peer, server_tls, verified_by_node

NEWEST, OLDER, UNKNOWN = (new_webhook_secret() for _ in range(3))
NOW = datetime.now(UTC)

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


def verifies(secret: str, one: Asked) -> bool:
    try:
        Webhook(secret).verify(one.body, one.headers)
    except WebhookVerificationError:
        return False
    return True


def test_each_secret_signs_the_newest_first() -> None:
    headers = signature_headers("msg_1", "{}", [NEWEST, OLDER], now=NOW)
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    first, second = headers["webhook-signature"].split(" ")
    assert first == Webhook(NEWEST).sign("msg_1", NOW, "{}")
    assert second == Webhook(OLDER).sign("msg_1", NOW, "{}")
    assert first.startswith("v1,")


@pytest.mark.parametrize("secret", [NEWEST, OLDER], ids=["newest", "older"])
def test_whoever_has_one_of_the_secrets_verifies(secret: str) -> None:
    body = '{"name": "Zoë"}'
    headers = signature_headers("msg_1", body, [NEWEST, OLDER], now=datetime.now(UTC))  # not as old as this module
    assert Webhook(secret).verify(body, headers) == {"name": "Zoë"}
    assert Webhook(secret).verify(body.encode(), headers) == {"name": "Zoë"}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.replace("Z", "z"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, {**headers, "webhook-id": "msg_2"})
    with pytest.raises(WebhookVerificationError):
        Webhook(UNKNOWN).verify(body, headers)


def test_what_was_sent_long_ago_doesnt_verify() -> None:
    headers = signature_headers("msg_1", "{}", [NEWEST], now=NOW - timedelta(minutes=6))
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(NEWEST).verify("{}", headers)


def opened(events: list[str] | None = None) -> OpenedConnection:
    return OpenedConnection(
        name="desk",
        protocol="webhook",
        options=WebhookOptions(url="https://privacy.example.org/hook", events=events),
        secrets=ConnectionSecrets(webhook_secrets=[NEWEST]),
        disabled=False,
    )


def row(state: str, **values: Any) -> ErasureRequest:
    given: dict[str, Any] = {
        "id": "6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11",
        "source": "crm",
        "caller_id": "zena@example.org",
        "protocol": "api",
        "mode": "predict",
        "state": state,
        "received_at": NOW,
        "due_at": NOW + timedelta(days=30),
        "identities": [{"type": "email", "hashes": ["ab" * 32]}],
        **values,
    }
    return ErasureRequest(**given)


@pytest.mark.parametrize("state", [kind.rpartition(".")[2] for kind in EVENT_TYPES])
def test_an_event_is_thin_and_says_nothing_of_the_person(state: str) -> None:
    done = {"finished_at": NOW, "outcome": "answered", "evidence": '{"verdict": "material", "x": 1}'}
    [message] = messages(row(state, **(done if state == "completed" else {})), opened(), {})
    assert (message.kind, message.url, message.method) == ("event", "https://privacy.example.org/hook", "POST")
    body = json.loads(message.body)
    assert set(body) == {"type", "timestamp", "data"}
    assert body["type"] == f"erasure_request.{state}"
    assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None
    assert len(message.body) < 2_000
    assert "zena" not in message.body
    assert "abab" not in message.body
    data = body["data"]
    assert data["state"] == state
    assert data["id"] == "6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11"
    completed = state == "completed"
    assert data["verdict"] == ("material" if completed else None)
    assert data["evidence_url"] == (f"/erasure-requests/{data['id']}/evidence" if completed else None)


def test_only_the_events_that_are_wanted_are_sent() -> None:
    wants = opened(["erasure_request.completed", "erasure_request.failed"])
    sent = [state for state in ("pending", "in_progress", "cancelled", "failed") if messages(row(state), wants, {})]
    assert sent == ["failed"]
    assert not messages(row("failed"), opened([]), {})


@on_sqlite
def test_events_verify_while_secrets_change_and_after_retries(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    """With the packages of PyPI and of npm, as whoever gets the events would do it."""
    later = {"Retry-After": "1000"}  # so that each attempt comes when it is asked for
    with peer(Says(status=500, headers=later), Says(status=503, headers=later), Says(), tls=identity) as one:
        connect(database, secret, one, secrets={"webhook_secrets": [OLDER]})
        told = request(database)
        with transaction(database) as session:
            stored = session.get(ErasureRequest, told)
            assert stored is not None
            [event] = messages(stored, opened(), {})
        id_ = add(database, secret, one.url(), request_id=told, body=event.body)
        with delivering(database, secret, trust) as deliverer:
            reaches(database, id_, "pending", attempts=1)
            with transaction(database) as session:  # the secret is changed: both are known for a while
                connection = session.get(PrivacyConnection, "desk")
                assert connection is not None
                connection.sealed = secret.seal({"webhook_secrets": [NEWEST, OLDER]})
            time.sleep(1.1)  # the timestamp is in seconds
            hurry(database)
            deliverer.wake()
            reaches(database, id_, "pending", attempts=2)
            with transaction(database) as session:  # and only the new one from now on
                connection = session.get(PrivacyConnection, "desk")
                assert connection is not None
                connection.sealed = secret.seal({"webhook_secrets": [NEWEST]})
            hurry(database)
            deliverer.wake()
            assert reaches(database, id_, "delivered").attempts == 3
    first, second, third = one.asked
    assert {asked.headers["webhook-id"] for asked in one.asked} == {id_}
    assert {asked.body for asked in one.asked} == {event.body}
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert first.headers["content-type"] == "application/json"
    expected = {
        (NEWEST, 0): False,
        (OLDER, 0): True,
        (NEWEST, 1): True,
        (OLDER, 1): True,
        (NEWEST, 2): True,
        (OLDER, 2): False,
        (UNKNOWN, 1): False,
    }
    arrived = (first, second, third)
    assert {key: verifies(key[0], arrived[key[1]]) for key in expected} == expected
    by_node = verified_by_node([(known, arrived[index]) for known, index in expected])
    assert dict(zip(expected, by_node, strict=True)) == expected


@on_sqlite
def test_callbacks_of_other_protocols_are_signed_too_where_there_is_a_secret(
    database: Database, secret: Secret, trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    with peer(tls=identity) as one:
        connect(database, secret, one, protocol="fides", secrets={"webhook_secrets": [NEWEST]})
        connect(database, secret, one, name="unsigned", protocol="fides")
        token = {"Authorization": "Bearer reply-token"}
        add(database, secret, one.url("/resume"), kind="fides_resume", body="{}", headers=token)
        add(database, secret, one.url("/plain"), kind="fides_resume", body="{}", connection="unsigned")
        with delivering(database, secret, trust):
            assert until(lambda: len(one.asked) == 2)
    signed, plain = sorted(one.asked, key=lambda asked: asked.path, reverse=True)
    assert verifies(NEWEST, signed)
    assert verified_by_node([(NEWEST, signed)]) == [True]
    assert signed.headers["authorization"] == "Bearer reply-token"
    assert "webhook-signature" not in plain.headers
