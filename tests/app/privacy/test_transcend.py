"""Transcend's server webhooks, with a gateway that shows its key and takes reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.db import Database, transaction
from app.settings import Settings
from app.tables import Delivery, ErasureRequest
from tests.app.conftest import about, refusal, until
from tests.app.privacy.conftest import XENA, ZENA
from tests.app.servers import Said, Tiny, saying, served

KEY, OTHER = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
AUDIENCE = "organization"
CLAIMS = {"aud": AUDIENCE, "scope": "coreIdentifier", "value": ZENA}


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signed(key: Any = KEY, algorithm: str = "ES384", **claims: Any) -> str:
    return jwt.encode({**CLAIMS, **claims}, key, algorithm=algorithm)


def job(value: str = ZENA, *, request: str = "r1", **more: Any) -> dict[str, Any]:
    extras = {"profile": {"identifier": value, "type": "email"}, "request": {"id": request, "link": "https://x"}}
    return {"type": "ERASURE", "coreIdentifier": {"value": value}, "isTest": False, "extras": extras, **more}


def connect(client: TestClient | httpx.Client, gateway: Tiny, **options: Any) -> None:
    local = {"allow_http": True, "allowed_networks": ["127.0.0.0/8"]}
    body = {
        "name": "transcend",
        "protocol": "transcend",
        "options": {"sombra_url": gateway.url, "audience": AUDIENCE, **local, **options},
        "secrets": {"token": "api-key"},
    }
    response = client.post("/connections", json=body)
    assert response.status_code == 201, response.text


def call(client: TestClient | httpx.Client, body: Any, token: str | None = None, **headers: str) -> httpx.Response:
    shown = {"x-sombra-token": signed() if token is None else token, "x-transcend-nonce": "nonce-1"}
    return client.post("/integrations/transcend/transcend", json=body, headers=shown | headers)


def rows(database: Database) -> list[ErasureRequest]:
    with transaction(database, writes=False) as session:
        return list(session.scalars(select(ErasureRequest).order_by(ErasureRequest.received_at)))


def deliveries(database: Database) -> list[Delivery]:
    with transaction(database, writes=False) as session:
        return list(session.scalars(select(Delivery)))


@pytest.fixture
def gateway() -> Iterator[Tiny]:
    """A gateway, which answers all with its key."""
    with saying(Said(200, pem(KEY))) as tiny:
        yield tiny


@pytest.mark.parametrize(
    ("mode", "is_test", "status"),
    [("erase", False, "RESOLVED"), ("erase", True, "ACTION_REQUIRED"), ("predict", False, "ACTION_REQUIRED")],
)
def test_a_job_is_queued_and_reported_and_erased_only_where_that_is_meant(
    settings: Settings, linked: str, gateway: Tiny, database: Database, mode: str, is_test: bool, status: str
) -> None:
    assert linked
    with served(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        connect(client, gateway, mode=mode)
        assert call(client, job(isTest=is_test)).status_code == 200
        assert until(lambda: [one.state for one in deliveries(database)] == ["delivered"])
    (_, key_path, key_headers, _), (method, path, headers, body) = gateway.asked
    assert (key_path, key_headers["authorization"]) == ("/public-keys/sombra-general-signing-key", "Bearer api-key")
    assert (method, path) == ("PUT", "/v1/data-silo")
    assert (headers["authorization"], headers["x-transcend-nonce"]) == ("Bearer api-key", "nonce-1")
    assert json.loads(body)["status"] == status
    [row] = rows(database)
    assert (row.state, row.documents, ZENA in row.caller_id) == ("completed", 1, False)


def test_where_nothing_is_found_that_is_filed_and_said_at_once(
    desk: TestClient, gateway: Tiny, database: Database
) -> None:
    connect(desk, gateway)
    nobody = "nobody@example.org"
    for _ in range(2):
        answer = call(desk, job(nobody), signed(value=nobody))
        assert (answer.status_code, answer.content) == (204, b"")
    assert until(lambda: rows(database)[0].state == "completed")
    assert [row.outcome for row in rows(database)] == ["no_match"]
    assert deliveries(database) == []


def test_the_same_job_again_is_the_same_request(idle: TestClient, gateway: Tiny, database: Database) -> None:
    connect(idle, gateway)
    for _ in range(2):
        assert call(idle, job()).status_code == 200
    assert len(rows(database)) == 1
    refusal(call(idle, job(isTest=True)), 409)
    assert call(idle, job(request="r2")).status_code == 200
    assert len(rows(database)) == 2


def test_only_what_the_token_holds_is_looked_for(desk: TestClient, gateway: Tiny, database: Database) -> None:
    connect(desk, gateway)
    body = job("nobody@example.org")
    body["extras"]["profile"]["identifier"] = XENA  # which anybody could have put there
    assert call(desk, body, signed(value="nobody@example.org")).status_code == 204
    assert until(lambda: rows(database)[0].state == "completed")
    assert rows(database)[0].outcome == "no_match"


def test_the_core_identifier_has_a_type_of_its_own(idle: TestClient, gateway: Tiny) -> None:
    connect(idle, gateway, identity_types={"coreIdentifier": "email"})
    assert call(idle, job(extras={})).status_code == 200


SOON, LONG_AGO = datetime.now(UTC) + timedelta(hours=1), datetime(2020, 1, 1, tzinfo=UTC)


TOKENS: Final = (
    (signed(), 200),
    (signed(exp=SOON), 200),
    (signed(aud=["x", AUDIENCE]), 200),
    (signed(OTHER), 401),
    (signed(exp=LONG_AGO), 401),
    (signed(nbf=SOON), 401),
    (signed(aud="other"), 401),
    (signed(aud=None), 401),
    (signed(scope="other"), 401),
    (signed(value=XENA), 401),
    (signed(value=7), 401),
    (signed(ec.generate_private_key(ec.SECP256R1()), "ES256"), 401),
    (signed("s" * 32, "HS256"), 401),
    (signed(None, "none"), 401),
    (signed()[:-8] + "AAAAAAAA", 401),
    ("a.b.c", 401),
    ("", 401),
    ("x" * 9_000, 401),
)


def test_a_token_is_the_gateway_s_for_this_identifier(idle: TestClient, gateway: Tiny, database: Database) -> None:
    connect(idle, gateway)
    for number, (token, status) in enumerate(TOKENS):
        before = len(rows(database))
        answer = call(idle, job(request=f"r{number}"), token)
        with about(token):
            if status == 200:
                assert answer.status_code == 200
            else:
                refusal(answer, status)
            assert len(rows(database)) == before + (status == 200)


def test_strangers_do_not_make_the_gateway_be_asked_again_and_again(idle: TestClient, gateway: Tiny) -> None:
    connect(idle, gateway)
    for _ in range(5):
        refusal(call(idle, job(), signed(OTHER)), 401)
        assert call(idle, job()).status_code == 200
    assert len(gateway.asked) == 1


def test_an_address_without_a_connection_tells_nothing(idle: TestClient, gateway: Tiny) -> None:
    connect(idle, gateway)
    wrong = refusal(call(idle, job(), signed(OTHER)), 401)
    for name in ("other", "NO", "%00", "a" * 99):
        assert refusal(idle.post(f"/integrations/transcend/{name}", json=job()), 401) == wrong
    idle.post("/connections/transcend/disable")
    assert refusal(call(idle, job()), 401) == wrong


@pytest.mark.parametrize(
    "answer",
    [
        Said(500),
        Said(200, b"-----BEGIN"),
        Said(200, b"x" * 100_000),
        Said(302, b"", {"Location": "http://127.0.0.1:1/"}),
        Said(200, pem(ec.generate_private_key(ec.SECP256R1()))),
        Said(None),
    ],
)
def test_without_the_gateway_s_key_nobody_is_believed(idle: TestClient, answer: Said, database: Database) -> None:
    with saying(answer) as gateway:
        connect(idle, gateway)
        for _ in range(2):
            refusal(call(idle, job()), 503)
        assert len(gateway.asked) == 1  # for a while
    assert rows(database) == []


NO_JOBS: Final[tuple[tuple[dict[str, Any], dict[str, str], int], ...]] = (
    ({"type": "ACCESS"}, {}, 400),
    ({"type": "erasure"}, {}, 422),
    ({"coreIdentifier": {}}, {}, 422),
    ({"coreIdentifier": {"value": "v" * 2_000}}, {}, 422),
    ({"isTest": "maybe"}, {}, 422),
    ({"extras": []}, {}, 422),
    ({}, {"x-transcend-nonce": ""}, 400),
    ({}, {"x-transcend-nonce": "n" * 4_001}, 400),
)


def test_what_is_no_job_is_refused(idle: TestClient, gateway: Tiny, database: Database) -> None:
    connect(idle, gateway)
    for change, headers, status in NO_JOBS:
        with about((change, headers)):
            refusal(call(idle, {**job(), **change}, **headers), status)
    assert rows(database) == []
