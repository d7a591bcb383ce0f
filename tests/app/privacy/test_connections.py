"""Connections: their secrets are sealed, their credentials hashed, and both are shown once."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import select

from app import catalog
from app.db import Database, transaction
from app.errors import SealError, UnauthorisedError
from app.main import create_app
from app.privacy.connections import authenticated, open_connection
from app.secret import Secret, load_secret
from app.settings import Settings
from app.tables import PrivacyConnection
from tests.app.conftest import refusal

WEBHOOK = {"url": "https://privacy.example.org/events"}
FIDES = {"base_url": "https://fides.example.org"}


@pytest.fixture
def office(settings: Settings) -> Iterator[TestClient]:
    """The running application, without a sketch."""
    app = create_app(settings.model_copy(update={"privacy_worker": False}))
    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client


def make(client: TestClient, protocol: str, options: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"name": "peer", "protocol": protocol, "options": options, **more}
    response = client.post("/connections", json=body)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_what_a_peer_has_to_be_told_is_shown_once(office: TestClient) -> None:
    made = make(office, "webhook", WEBHOOK)
    assert made["webhook_secret"].startswith("whsec_")
    assert made["credential"] is None
    shown = office.get("/connections/peer").json()
    assert set(shown) == {"name", "protocol", "options", "created_at", "disabled_at", "disabled_reason"}
    assert office.get("/connections").json()["items"] == [shown]


def test_secrets_are_sealed_and_credentials_hashed(office: TestClient, database: Database, secret: Secret) -> None:
    credential = make(office, "fides", FIDES)["credential"]
    webhook = office.post("/connections", json={"name": "events", "protocol": "webhook", "options": WEBHOOK}).json()
    with transaction(database, writes=False) as session:
        rows = {row.name: row for row in session.scalars(select(PrivacyConnection))}
        stored = repr(
            [[getattr(row, column.key) for column in PrivacyConnection.__table__.columns] for row in rows.values()]
        )
        assert credential not in stored
        assert webhook["webhook_secret"] not in stored
        assert open_connection(rows["events"], secret).secrets.webhook_secrets == [webhook["webhook_secret"]]


def test_secrets_need_the_key_that_they_were_sealed_with(settings: Settings, database: Database) -> None:
    keyed = settings.model_copy(update={"encryption_key": SecretStr("k" * 32)})
    app = create_app(keyed.model_copy(update={"privacy_worker": False}))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        make(client, "webhook", WEBHOOK)
    with transaction(database, writes=False) as session:
        row = catalog.get_connection(session, "peer")
        open_connection(row, load_secret(keyed))
        with pytest.raises(SealError, match="NEVERSEEN_ENCRYPTION_KEY"):
            open_connection(row, load_secret(settings))


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"fides:{password}".encode()).decode()


def test_a_credential_is_shown_as_bearer_or_basic_or_alone(
    office: TestClient, database: Database, secret: Secret
) -> None:
    credential = make(office, "fides", FIDES)["credential"]
    with transaction(database, writes=False) as session:
        for value in (f"Bearer {credential}", f"bearer  {credential}", basic(credential), credential):
            assert authenticated(session, secret, "fides", {"Authorization": value}).name == "peer"
        for value in (
            "",
            "Bearer",
            f"Bearer {credential[:-1]}",
            f"Bearer {credential}x",
            basic(""),
            "Basic =",
            "Basic é",
        ):
            with pytest.raises(UnauthorisedError):
                authenticated(session, secret, "fides", {"Authorization": value})
        with pytest.raises(UnauthorisedError):
            authenticated(session, secret, "opendsr", {"Authorization": f"Bearer {credential}"})


def test_a_rotated_or_disabled_credential_is_refused(office: TestClient, database: Database, secret: Secret) -> None:
    before = make(office, "fides", FIDES)["credential"]
    after = office.post("/connections/peer/rotate", params={"what": "credential"}).json()["credential"]

    def admitted(credential: str) -> bool:
        with transaction(database, writes=False) as session:
            try:
                authenticated(session, secret, "fides", {"Authorization": f"Bearer {credential}"})
            except UnauthorisedError:
                return False
        return True

    assert (admitted(before), admitted(after)) == (False, True)
    office.post("/connections/peer/disable")
    assert not admitted(after)
    office.post("/connections/peer/enable")
    assert admitted(after)


def test_after_a_rotation_the_secret_before_signs_once_more(
    office: TestClient, database: Database, secret: Secret
) -> None:
    secrets = [make(office, "webhook", WEBHOOK)["webhook_secret"]]
    for _ in range(2):
        secrets.insert(0, office.post("/connections/peer/rotate").json()["webhook_secret"])
    with transaction(database, writes=False) as session:
        opened = open_connection(catalog.get_connection(session, "peer"), secret)
    assert opened.secrets.webhook_secrets == secrets[:2]
    assert len(set(secrets)) == 3


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("webhook", {}),
        ("webhook", {"url": "ftp://example.org"}),
        ("webhook", {"url": "https://user:pass@example.org"}),
        ("webhook", {"url": "https://example.org/?token=1"}),
        ("webhook", {**WEBHOOK, "colour": "red"}),
        ("webhook", {**WEBHOOK, "events": ["erasure_request.complete"]}),
        ("webhook", {**WEBHOOK, "allowed_networks": ["10.0.0.0/33"]}),
        ("webhook", {**WEBHOOK, "allowed_hosts": ["https://example.org"]}),
        ("fides", {**FIDES, "mode": "forget"}),
        ("fides", {**FIDES, "wait_seconds": 3}),
        ("opendsr", {"domain": "opendsr.example.org", "controller_id": "c", "mode": "predict"}),
    ],
)
def test_options_that_no_protocol_has_are_refused(office: TestClient, protocol: str, options: dict[str, Any]) -> None:
    body = {"name": "peer", "protocol": protocol, "options": options}
    assert "pass@" not in refusal(office.post("/connections", json=body), 400)["detail"]
    assert office.get("/connections").json()["total"] == 0


def test_a_secret_of_a_wrong_form_is_refused_and_not_echoed(office: TestClient) -> None:
    for value, status in (
        ("whsec_short", 422),
        ("whsec_" + "!" * 44, 422),
        ("secret" * 10, 422),
        ("whsec_" + "a" * 33, 400),
    ):
        body = {"name": "peer", "protocol": "webhook", "options": WEBHOOK, "secrets": {"webhook_secrets": [value]}}
        assert value not in refusal(office.post("/connections", json=body), status)["detail"]


def test_options_change_one_by_one_and_are_recorded(office: TestClient, database: Database) -> None:
    make(office, "webhook", WEBHOOK)
    changed = office.put("/connections/peer/options", json={"options": {"events": ["erasure_request.failed"]}}).json()
    assert changed["options"]["url"] == WEBHOOK["url"]
    assert changed["options"]["events"] == ["erasure_request.failed"]
    refusal(office.put("/connections/peer/options", json={"options": {"url": "nowhere"}}), 400)
    with transaction(database, writes=False) as session:
        actions = [one.action for one in catalog.walk_records(session)]
    assert actions == ["connection.create", "connection.change"]


def test_a_name_is_one_connections_and_api_is_nobodys(office: TestClient) -> None:
    make(office, "webhook", WEBHOOK)
    body = {"name": "peer", "protocol": "webhook", "options": WEBHOOK}
    refusal(office.post("/connections", json=body), 409)
    refusal(office.post("/connections", json={**body, "name": "api"}), 409)
    refusal(office.get("/connections/nobody"), 404)
