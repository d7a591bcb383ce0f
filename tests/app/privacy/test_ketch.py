"""Deletions of Ketch's forwarder: what is answered, what is told to callbacks, and who is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app import catalog
from app.db import Database, transaction
from app.privacy import ketch
from app.privacy.connections import make_connection, open_connection
from app.schemas.connections import ConnectionSecrets
from app.secret import Secret
from app.tables import Delivery, ErasureRequest
from tests.app.conftest import about, refusal, until
from tests.app.privacy.conftest import ZENA

CREDENTIAL: Final = "what-ketch-is-set-up-to-send"
CALLBACK: Final = {"url": "https://dsr.ketch.example/callback", "headers": {"Authorization": "Bearer their-token"}}
STRANGER: Final = "someone.else@example.org"


@dataclass(frozen=True, kw_only=True)
class Forwarder:
    """A client of an application, that sends as Ketch is set up to."""

    client: TestClient
    name: str = "ketch"

    def send(self, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        shown = headers or {"Authorization": CREDENTIAL}
        answer: httpx.Response = self.client.post(f"/integrations/ketch/{self.name}", json=body, headers=shown)
        return answer

    def ended(self, body: Mapping[str, Any], status: str = "completed") -> dict[str, Any]:
        """The response to a deletion, once it is so."""
        answer: dict[str, Any] = {}

        def there() -> bool:
            sent = self.send(body)
            assert sent.status_code == 200, sent.text
            answer.update(sent.json()["response"])
            return bool(answer["status"] == status)

        assert until(there), answer
        return answer


def connect(
    database: Database, secret: Secret, *, name: str = "ketch", credential: str = CREDENTIAL, **options: Any
) -> None:
    with transaction(database) as session:
        make_connection(
            session,
            secret,
            name=name,
            protocol="ketch",
            options={"allowed_hosts": ["dsr.ketch.example"], "identity_types": {"mail": "email"}, **options},
            secrets=ConnectionSecrets(),
            credential=credential,
        )


@pytest.fixture
def forwarder(idle: TestClient, database: Database, secret: Secret) -> Forwarder:
    """Of an application that works on no request."""
    connect(database, secret)
    return Forwarder(client=idle)


@pytest.fixture
def served(desk: TestClient, database: Database, secret: Secret) -> Forwarder:
    """Of an application that works on requests."""
    connect(database, secret)
    return Forwarder(client=desk)


def deletion(email: str = ZENA, **changed: Any) -> dict[str, Any]:
    due = datetime.now(UTC) + timedelta(days=20)
    return {
        "apiVersion": "dsr/v1",
        "kind": "DeleteRequest",
        "metadata": {"uid": str(uuid4()), "tenant": "axonic"},
        "request": {
            "controller": "axonic",
            "property": "axonic.io",
            "environment": "production",
            "regulation": "GDPR",
            "jurisdiction": "eugdpr",
            "identities": [{"identitySpace": "mail", "identityFormat": "raw", "identityValue": email}],
            "callbacks": [CALLBACK],
            "subject": {"email": "the.form@example.org", "firstName": "Test"},
            "submittedTimestamp": int(due.timestamp()) - 86_400,
            "dueTimestamp": int(due.timestamp()),
            **changed,
        },
    }


def events(database: Database, secret: Secret) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The callbacks that were written: bodies, and where they go."""
    with transaction(database, writes=False) as session:
        for row in session.scalars(select(Delivery).where(Delivery.kind == "ketch_status")):
            yield json.loads(row.body), secret.unseal(row.sealed)


def test_a_deletion_is_answered_and_its_end_told_with_the_prediction(
    served: Forwarder, database: Database, secret: Secret
) -> None:
    body = deletion()
    first = served.send(body)
    assert first.status_code == 200
    answer = first.json()
    assert (answer["apiVersion"], answer["kind"]) == ("dsr/v1", "DeleteResponse")
    assert answer["metadata"] == body["metadata"]
    assert answer["response"]["expectedCompletionTimestamp"] == body["request"]["dueTimestamp"]
    last = served.ended(body)
    assert (last["reason"], last["outcome"]["erased"]) == ("unknown", False)
    assert last["requestID"] == last["outcome"]["evidence"] == answer["response"]["requestID"]
    [(event, target)] = events(database, secret)
    assert event == {
        "apiVersion": "dsr/v1",
        "kind": "DeleteStatusEvent",
        "metadata": body["metadata"],
        "event": last,
    }
    assert target["url"] == CALLBACK["url"]
    assert "Bearer their-token" in json.dumps(target)


def test_the_outcome_says_what_the_evidence_says(served: Forwarder) -> None:
    outcome = served.ended(deletion())["outcome"]
    evidence = served.client.get(f"/erasure-requests/{outcome['evidence']}/evidence").json()
    assert (outcome["verdict"], outcome["sentence"]) == (evidence["verdict"], evidence["sentence"])
    [report] = evidence["reports"]
    assert len(outcome["measurements"]) == len(report["results"]) == 4
    for said, result in zip(outcome["measurements"], report["results"], strict=True):
        assert (said["dataset"], said["sketch"], said["version"]) == ("names", "tiny", 1)
        parts = [(said, result)]
        if result["kind"] == "next_token":
            assert said["total_variation"] == result["total_variation"]
            parts = list(zip(said["tokens"], result["tokens"], strict=True))
        for one, filed in parts:
            for name in ("baseline", "estimate", "interval", "retrained", "material"):
                assert one[name] == filed[name]


def test_the_outcome_holds_no_text_and_no_identity_of_the_persons(
    served: Forwarder, database: Database, secret: Secret
) -> None:
    told = json.dumps(served.ended(deletion())["outcome"])
    [(event, _)] = events(database, secret)
    for text in (told, json.dumps(event)):
        assert "zena" not in text
        assert "the.form" not in text


def test_in_mode_erase_what_is_held_is_erased_and_so_it_is_told(
    desk: TestClient, database: Database, secret: Secret
) -> None:
    connect(database, secret, mode="erase")
    forwarder = Forwarder(client=desk)
    last = forwarder.ended(deletion())
    assert (last["reason"], last["outcome"]["erased"]) == ("executed", True)
    again = forwarder.ended(deletion())
    assert (again["reason"], again["outcome"]["erased"]) == ("no_match", False)


def test_nobody_found_is_no_match(served: Forwarder) -> None:
    last = served.ended(deletion(STRANGER))
    assert (last["reason"], last["outcome"]["measurements"]) == ("no_match", [])
    assert last["outcome"]["verdict"] == "no_match"


def test_the_same_again_is_the_same_request_even_with_other_tokens(
    forwarder: Forwarder, database: Database, secret: Secret
) -> None:
    body = deletion()
    first = forwarder.send(body).json()
    body["request"]["callbacks"] = [{**CALLBACK, "headers": {"Authorization": "Bearer another-token"}}]
    assert forwarder.send(body).json() == first
    with transaction(database, writes=False) as session:
        row = session.scalars(select(ErasureRequest)).one()
        opened = open_connection(catalog.get_connection(session, "ketch"), secret)
    row.state, row.finished_at = "cancelled", datetime.now(UTC)
    [message] = ketch.messages(row, opened, secret.unseal(row.sealed or ""))
    assert message.headers == {"Authorization": "Bearer another-token"}
    assert json.loads(message.body)["event"]["status"] == "cancelled"


def test_another_question_under_the_same_id_is_refused(forwarder: Forwarder) -> None:
    body = deletion()
    forwarder.send(body)
    other = deletion(STRANGER)
    refusal(forwarder.send({**other, "metadata": body["metadata"]}), 409)


def test_what_failed_is_unknown_and_told(forwarder: Forwarder, database: Database, secret: Secret) -> None:
    body = deletion()
    forwarder.send(body)
    with database.begin() as connection:
        failed = {"state": "failed", "failure": "why", "finished_at": datetime.now(UTC)}
        connection.execute(update(ErasureRequest).values(**failed))
    answer = forwarder.send(body).json()["response"]
    assert (answer["status"], answer["reason"], answer["outcome"]) == ("unknown", "unknown", {})


def test_what_is_before_the_end_isnt_told(forwarder: Forwarder, database: Database, secret: Secret) -> None:
    assert forwarder.send(deletion()).json()["response"]["status"] == "in_progress"
    assert list(events(database, secret)) == []


def test_what_is_stored_holds_neither_identity_nor_tokens_in_clear(forwarder: Forwarder, database: Database) -> None:
    forwarder.send(deletion())
    with transaction(database, writes=False) as session:
        row = session.scalars(select(ErasureRequest)).one()
        stored = repr(vars(row))
        assert row.regulation == "gdpr"
        assert row.due_at.timestamp() == pytest.approx((datetime.now(UTC) + timedelta(days=20)).timestamp(), abs=60)
    for what in (ZENA, "their-token", "the.form"):
        assert what not in stored


def test_nothing_is_done_without_the_connections_own_credential(
    forwarder: Forwarder, database: Database, secret: Secret
) -> None:
    connect(database, secret, name="other", credential="nvc_other")
    nobodys = refusal(Forwarder(client=forwarder.client, name="nobody").send(deletion()), 401)["detail"]
    shown: list[dict[str, str]] = [
        {"X": "y"},
        {"Authorization": "wrong"},
        {"Authorization": f"{CREDENTIAL} "[:-2]},
        {"X-Ketch": CREDENTIAL},
        {"Authorization": "nvc_other"},
    ]
    for headers in shown:
        with about(headers):
            answer = forwarder.send(deletion(), **headers)
            assert refusal(answer, 401)["detail"] == nobodys.replace("nobody", "ketch")
    with transaction(database, writes=False) as session:
        assert session.scalar(select(func.count()).select_from(ErasureRequest)) == 0


def test_the_header_is_the_one_of_the_options(idle: TestClient, database: Database, secret: Secret) -> None:
    connect(database, secret, header="X-Ketch-Key")
    forwarder = Forwarder(client=idle)
    assert forwarder.send(deletion(), **{"X-Ketch-Key": CREDENTIAL}).status_code == 200
    refusal(forwarder.send(deletion(), Authorization=CREDENTIAL), 401)


def test_who_isnt_known_is_refused_before_the_body_is_read(forwarder: Forwarder) -> None:
    answer = forwarder.client.post(
        "/integrations/ketch/ketch", content=b"{", headers={"Content-Type": "application/json"}
    )
    refusal(answer, 401)


def test_a_name_that_is_no_connections_is_as_a_wrong_credential(forwarder: Forwarder) -> None:
    for name in ("KETCH", "a%00", "nobody", "%2e%2e"):
        answer = Forwarder(client=forwarder.client, name=name).send(deletion())
        assert answer.status_code in {401, 404}, name
        assert answer.status_code == 401 or name == "%2e%2e", name


IMPOSSIBLE: Final[tuple[tuple[dict[str, Any], int], ...]] = (
    ({"identities": []}, 422),
    ({"identities": [{"identitySpace": "mail", "identityFormat": "sha512", "identityValue": ZENA}]}, 422),
    ({"identities": [{"identitySpace": "mail", "identityFormat": "sha1", "identityValue": ZENA}]}, 400),
    ({"identities": [{"identitySpace": "m\0", "identityValue": ZENA}]}, 400),
    ({"callbacks": [{"url": "https://elsewhere.example/"}]}, 400),
    ({"callbacks": [{"url": "http://169.254.169.254/"}]}, 400),
    ({"callbacks": [{**CALLBACK, "headers": {"A b": "c"}}]}, 422),
    ({"callbacks": [{**CALLBACK, "headers": {"A": "c\r\nB: d"}}]}, 422),
    ({"callbacks": [CALLBACK] * 11}, 422),
    ({"dueTimestamp": -1}, 422),
    ({"dueTimestamp": 10**30}, 422),
    ({"submittedTimestamp": "today"}, 422),
)


def test_what_cant_be_done_is_refused_without_the_identity(forwarder: Forwarder) -> None:
    for changed, status in IMPOSSIBLE:
        answer = forwarder.send(deletion(**changed))
        with about(changed):
            refusal(answer, status)
            assert ZENA not in answer.text


def test_only_deletions_of_dsr_v1_are_taken(forwarder: Forwarder) -> None:
    others: list[dict[str, Any]] = [
        {"kind": "AccessRequest"},
        {"apiVersion": "dsr/v2"},
        {"metadata": {"uid": "", "tenant": "a"}},
        {"metadata": {"uid": "a", "tenant": "\ud800"}},
        {"request": None},
    ]
    for changed in others:
        content = json.dumps({**deletion(), **changed})
        headers = {"Authorization": CREDENTIAL, "Content-Type": "application/json"}
        with about(changed):
            refusal(forwarder.client.post("/integrations/ketch/ketch", content=content, headers=headers), 422)


def test_an_id_that_cant_be_stored_is_refused(forwarder: Forwarder) -> None:
    refusal(forwarder.send({**deletion(), "metadata": {"uid": "a\0", "tenant": "a"}}), 400)
