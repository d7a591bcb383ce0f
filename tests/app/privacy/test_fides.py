"""Fides' policy webhooks, without Fides: `tests/fides` and `tests/end_to_end/fides` have the real one."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.db import Database, transaction
from app.settings import Settings
from app.tables import AuditRecord, Delivery, ErasureRequest
from tests.app.conftest import about, refusal, until
from tests.app.privacy.conftest import XENA, ZENA, done
from tests.app.servers import Said, Tiny, saying, served

TOKEN = "eyJhbGciOiJkaXIifQ..token"
ERASURE, ACCESS = {"action_type": "erasure"}, {"action_type": "access"}


class Peer:
    """A Fides server's view of the service: its connection, and its calls."""

    def __init__(
        self, client: TestClient | httpx.Client, url: str = "https://fides.example.org", **options: Any
    ) -> None:
        local = {"allow_http": True, "allowed_networks": ["127.0.0.0/8"]} if url.startswith("http:") else {}
        self.client = client
        body = {"name": "fides", "protocol": "fides", "options": {"base_url": url, **local, **options}}
        response = client.post("/connections", json=body)
        assert response.status_code == 201, response.text
        self.credential: str = response.json()["credential"]

    def call(
        self, body: dict[str, Any], headers: Mapping[str, Any] | None = None, *, client: Any = None
    ) -> httpx.Response:
        shown = {"Authorization": f"Bearer {self.credential}"}
        place = body.get("callback_type", "pre").replace("_", "-")
        replied = reply(body) if headers is None else headers
        response: httpx.Response = (client or self.client).post(
            f"/integrations/fides/{place}", json=body, headers={**shown, **replied}
        )
        return response


def asks(email: str | None = ZENA, *, id: str = "pri_1", **more: Any) -> dict[str, Any]:
    """The body of a webhook, as Fides 2.78.2 sends it."""
    return {
        "privacy_request_id": id,
        "privacy_request_status": "in_processing",
        "direction": "two_way",
        "callback_type": "pre",
        "identity": {"phone_number": None, "email": email, "ga_client_id": None, "external_id": None},
        "policy_action": "erasure",
        "privacy_request": {
            "id": id,
            "requested_at": "2026-11-25T07:17:52.521700+00:00",
            "due_date": "2027-01-09T07:17:52.521700+00:00",
            "days_left": 45,
            "policy": {"key": "default_erasure_policy", "drp_action": "deletion", "rules": [ERASURE]},
            "custom_fields": None,
        },
        "timestamp": "2026-11-25T07:17:52.604563",
        **more,
    }


def reply(body: dict[str, Any], token: str = TOKEN) -> dict[str, str]:
    """The headers that Fides sends with a webhook."""
    base = f"/privacy-request/{body['privacy_request_id']}"
    match body["callback_type"], body["direction"]:
        case "pre", "two_way":
            return {"reply-to": f"{base}/resume", "reply-to-token": token}
        case "pre_approval", _:
            return {
                "reply-to-approve": f"{base}/pre-approve/eligible",
                "reply-to-deny": f"{base}/pre-approve/not-eligible",
                "reply-to-token": token,
            }
    return {}


def rows(database: Database) -> list[ErasureRequest]:
    with transaction(database, writes=False) as session:
        return list(session.scalars(select(ErasureRequest).order_by(ErasureRequest.caller_id)))


def deliveries(database: Database) -> list[Delivery]:
    with transaction(database, writes=False) as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.created_at)))


def audited(database: Database, action: str) -> list[AuditRecord]:
    with transaction(database, writes=False) as session:
        return list(session.scalars(select(AuditRecord).where(AuditRecord.action == action)))


@contextmanager
def failing(settings: Settings, database: Database) -> Iterator[httpx.Client]:
    """The service, with which all requests have failed for the last time: the sketch's files are away."""
    with transaction(database) as session:
        session.execute(update(ErasureRequest).values(attempts=6))
    [artifact] = settings.artifacts_dir.iterdir()
    moved = artifact.rename(settings.data_dir / "away")
    with served(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert until(lambda: all(row.state == "failed" for row in rows(database)))
        moved.rename(artifact)
        yield client


@pytest.fixture
def fake() -> Iterator[Tiny]:
    """A Fides server that still records the pause when it is first told to resume."""
    with saying(Said(400), Said(200)) as tiny:
        yield tiny


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until this is set, the time that a webhook waits is never over."""
    over = threading.Event()
    clock = SimpleNamespace(monotonic=lambda: 1000.0 if over.is_set() else 0.0)
    monkeypatch.setattr("app.routes.fides.time", clock)
    return over


@pytest.mark.usefixtures("over")
def test_what_is_ready_in_time_goes_on(desk: TestClient, database: Database) -> None:
    answered = Peer(desk, wait_seconds=2).call(asks())
    assert (answered.status_code, answered.json()) == (200, {"halt": False})
    [row] = rows(database)
    assert (row.state, row.outcome, row.caller_id, row.protocol) == ("completed", "answered", "pri_1:pre", "fides")
    assert deliveries(database) == []  # which would resume what isn't paused


def test_what_is_not_ready_waits_and_is_resumed_though_the_service_was_restarted(
    settings: Settings, linked: str, fake: Tiny, database: Database
) -> None:
    assert linked
    with (
        served(settings.model_copy(update={"privacy_worker": False})) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        peer = Peer(client, fake.url, wait_seconds=0.1)
        started = time.monotonic()
        assert peer.call(asks()).json() == {"halt": True}
        assert time.monotonic() - started < 30
    assert fake.asked == []
    with served(settings):
        assert until(lambda: len(fake.asked) == 2)
        assert until(lambda: deliveries(database)[0].state == "delivered")
    method, path, headers, body = fake.asked[-1]
    assert (method, path, body) == ("POST", "/api/v1/privacy-request/pri_1/resume", b"{}")
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert [(one.kind, one.attempts) for one in deliveries(database)] == [("fides_resume", 2)]


def test_the_same_again_is_the_same_request_and_its_last_token_counts(
    settings: Settings, linked: str, fake: Tiny, database: Database
) -> None:
    assert linked
    with (
        served(settings.model_copy(update={"privacy_worker": False})) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        peer = Peer(client, fake.url, wait_seconds=0)
        assert peer.call(asks()).json() == {"halt": True}
        again = asks(timestamp="2026-11-25T08:00:00", new_field=[1], privacy_request={"days_left": 44})
        assert peer.call(again, reply(again, "newer")).json() == {"halt": True}
    assert len(rows(database)) == 1
    with served(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert until(lambda: bool(deliveries(database)) and deliveries(database)[0].state == "delivered")
        assert {headers["authorization"] for _, _, headers, _ in fake.asked} == {"Bearer newer"}
        third = asks(timestamp="2026-11-25T09:00:00")
        assert peer.call(third, client=client).json() == {"halt": False}
    assert len(rows(database)) == len(deliveries(database)) == 1


def test_another_question_under_the_same_id_is_refused(idle: TestClient, database: Database) -> None:
    peer = Peer(idle, wait_seconds=0)
    peer.call(asks())
    others: list[dict[str, Any]] = [
        {"identity": {"email": XENA}},
        {"identity": {"email": ZENA, "external_id": "1"}},
        {"policy_action": "access"},  # whose second rule erases
    ]
    for other in others:
        with about(other):
            refusal(peer.call({**asks(), **other}), 409)
    assert len(rows(database)) == 1


def test_each_type_of_call_is_a_request_of_its_own(idle: TestClient, database: Database) -> None:
    peer = Peer(idle, wait_seconds=0, mode="erase")
    for callback_type in ("pre_approval", "pre", "post"):
        assert peer.call(asks(callback_type=callback_type)).status_code == 200
    assert [(row.caller_id, row.mode) for row in rows(database)] == [
        ("pri_1:post", "erase"),
        ("pri_1:pre", "predict"),
        ("pri_1:pre_approval", "predict"),
    ]


@pytest.mark.usefixtures("over")
def test_only_after_fides_has_erased_is_anything_erased(desk: TestClient, database: Database) -> None:
    peer = Peer(desk, wait_seconds=2, mode="erase")
    assert peer.call(asks()).json() == {"halt": False}
    assert [row.documents for row in rows(database)] == [1]
    documents = desk.get("/datasets/names/documents").json()
    assert peer.call(asks(callback_type="post")).json() == {"halt": False}
    [post, pre] = rows(database)
    assert done(desk, post.id)["state"] == "completed"
    assert desk.get("/datasets/names/documents").json() != documents
    actions = [json.loads(row.evidence or "")["actions"] for row in (rows(database)[0], pre)]
    assert [bool(one["erased"]) for one in actions] == [True, False]


def test_a_credential_is_shown_as_fides_sends_it(idle: TestClient) -> None:
    peer = Peer(idle, wait_seconds=0)
    basic = "Basic " + base64.b64encode(f"fides:{peer.credential}".encode()).decode()
    for shown in (peer.credential, f"Bearer {peer.credential}", f"bearer {peer.credential}", basic):
        response = idle.post("/integrations/fides/pre", json=asks(), headers={"Authorization": shown, **reply(asks())})
        assert response.json() == {"halt": True}, shown


def test_strangers_are_refused_before_their_body_is_read(idle: TestClient, database: Database) -> None:
    peer = Peer(idle)
    other = idle.post("/connections", json={"name": "k", "protocol": "ketch", "options": {}}).json()["credential"]
    for shown in ({}, {"Authorization": "Bearer nvc_wrong"}, {"Authorization": f"Bearer {other}"}):
        for content in (b"{", json.dumps(asks()).encode()):
            answer = idle.post("/integrations/fides/pre", content=content, headers=shown | reply(asks()))
            assert refusal(answer, 401)["type"].endswith("unauthorised")
    idle.post("/connections/fides/disable")
    refusal(peer.call(asks()), 401)
    assert rows(database) == []


def test_moments_without_a_zone_are_in_utc_and_the_due_date_is_kept(idle: TestClient, database: Database) -> None:
    peer = Peer(idle, wait_seconds=0)
    peer.call(asks())
    peer.call(asks(id="pri_2", privacy_request={"due_date": "2027-02-01T10:00:00"}, timestamp="2026-11-25T07:00:00"))
    first, second = rows(database)
    assert first.submitted_at == datetime(2026, 11, 25, 7, 17, 52, 521700, tzinfo=UTC)
    assert first.due_at == datetime(2027, 1, 9, 7, 17, 52, 521700, tzinfo=UTC)
    assert second.submitted_at == datetime(2026, 11, 25, 7, tzinfo=UTC)
    assert second.due_at == datetime(2027, 2, 1, 10, tzinfo=UTC)


@pytest.mark.usefixtures("over")
def test_identities_are_found_whatever_form_they_come_in(desk: TestClient, database: Database) -> None:
    peer = Peer(desk, wait_seconds=2, identity_types={"login": "email", "mails": "email"})
    forms: list[dict[str, Any]] = [
        {"email": ZENA.upper()},
        {"login": {"label": "Login", "value": ZENA}},
        {"email": None, "mails": {"label": "Mails", "value": ["a@example.org", ZENA]}},
        {"number": {"label": "Number", "value": 81}, "phone_number": "", "email": ZENA, "flags": {"value": []}},
    ]
    for number, identity in enumerate(forms):
        assert peer.call(asks(id=f"pri_{number}", identity=identity)).json() == {"halt": False}
    assert [(row.outcome, row.documents) for row in rows(database)] == [("answered", 1)] * len(forms)


def test_a_request_for_nobody_is_refused_for_it_would_find_nobody(idle: TestClient, database: Database) -> None:
    peer = Peer(idle)
    identities: list[dict[str, Any]] = [{}, {"email": None}, {"email": ""}, {"x": {"label": "x", "value": []}}]
    for identity in identities:
        with about(identity):
            assert "identity" in refusal(peer.call(asks(identity=identity)), 400)["detail"]
    assert rows(database) == []


def test_a_policy_that_erases_nothing_goes_on_and_is_recorded(idle: TestClient, database: Database) -> None:
    policy, peer = {"policy": {"rules": [ACCESS, {"action_type": None}]}}, Peer(idle)
    actions = ("access", "consent", "update", None)
    for number, action in enumerate(actions):
        answer = peer.call(asks(id=f"pri_{number}", policy_action=action, privacy_request=policy))
        with about(action):
            assert (answer.status_code, answer.json()) == (200, {"halt": False})
    assert rows(database) == []
    records = audited(database, "request.pass")
    assert sorted(record.details["caller_id"] for record in records) == [f"pri_{n}:pre" for n in range(len(actions))]
    assert {record.actor for record in records} == {"connection:fides"}


def test_a_policy_erases_by_any_of_its_rules(idle: TestClient, database: Database) -> None:
    policy = {"policy": {"rules": [ACCESS, ERASURE]}}
    assert Peer(idle, wait_seconds=0).call(asks(policy_action="access", privacy_request=policy)).json()["halt"]
    assert len(rows(database)) == 1


ADDRESSES: Final = (
    "https://evil.example.org/privacy-request/pri_1/resume",
    "//evil.example.org/privacy-request/pri_1/resume",
    "/privacy-request/pri_1/../pri_2/resume",
    "/privacy-request/pri_1//resume",
    "/../privacy-request/pri_1/resume",
    "/privacy-request/pri_2/resume",
    "/privacy-request/pri_1/resume?x=1",
    "/privacy-request/pri_1/resume#x",
    "/privacy-request/pri_1/resume@evil.example.org",
    "@evil.example.org/privacy-request/pri_1/resume",
    "/privacy-request/pri_1/%2e%2e/resume",
    "\\privacy-request\\pri_1\\resume",
    "privacy-request/pri_1/resume",
    "/privacy-request/pri_1/resume\t/x",
    "/privacy-request/pri_1",
    "/" + "a" * 300 + "/privacy-request/pri_1/resume",
    "",
)
"""Which aren't where a request is resumed."""


def test_replies_go_to_this_request_alone(idle: TestClient, database: Database) -> None:
    peer = Peer(idle, wait_seconds=0)
    for address in ADDRESSES:
        for callback_type, header in (("pre", "reply-to"), ("pre_approval", "reply-to-approve")):
            body = asks(callback_type=callback_type)
            with about((callback_type, address)):
                problem = refusal(peer.call(body, {header: address, "reply-to-token": TOKEN}), 400)
                assert problem["type"].endswith("target")
    assert rows(database) == []


def test_without_a_token_nothing_is_taken_that_could_not_be_resumed(idle: TestClient, database: Database) -> None:
    peer = Peer(idle)
    for token in (None, "", "a b", "t" * 8_001, "tökén"):
        headers = {"reply-to": "/privacy-request/pri_1/resume"} | ({} if token is None else {"reply-to-token": token})
        encoded = {name: value.encode() for name, value in headers.items()}  # what isn't ASCII goes as bytes
        with about(token):
            refusal(peer.call(asks(), encoded), 400)
    refusal(peer.call(asks(), {"reply-to-token": TOKEN}), 400)
    assert rows(database) == []


def test_a_later_version_may_have_the_prefix_in_its_address(
    settings: Settings, linked: str, database: Database
) -> None:
    assert linked
    with saying(Said(200)) as fake, served(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        eligible = {"reply-to-eligible": "/api/v1/privacy-request/pri_1/pre-approve/eligible", "reply-to-token": TOKEN}
        Peer(client, fake.url).call(asks(callback_type="pre_approval"), eligible)
        assert until(lambda: bool(fake.asked))
        assert until(lambda: deliveries(database)[0].state == "delivered")
        assert fake.asked[0][1] == "/api/v1/privacy-request/pri_1/pre-approve/eligible"


@pytest.mark.usefixtures("over")  # who is kept waiting waits for ever, as nobody works here
def test_who_does_not_listen_is_not_kept_waiting(idle: TestClient, database: Database) -> None:
    answer = Peer(idle, wait_seconds=2).call(asks(direction="one_way"))
    assert (answer.status_code, answer.json()) == (200, {"halt": False})
    assert [row.caller_id for row in rows(database)] == ["pri_1:pre"]


def test_before_an_approval_the_evidence_makes_eligible_whatever_it_says(
    settings: Settings, linked: str, database: Database
) -> None:
    assert linked
    with saying(Said(200)) as fake, served(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        peer = Peer(client, fake.url)
        for number, email in enumerate((ZENA, "nobody@example.org")):
            assert peer.call(asks(email, id=f"pri_{number}", callback_type="pre_approval")).json() == {"halt": False}
        assert until(lambda: len(fake.asked) == 2)
        again = asks(id="pri_0", callback_type="pre_approval")
        peer.call(again, reply(again, "newer"))  # though it is done: each token is for one reply
        assert until(lambda: len(fake.asked) == 3)
        access = asks(id="pri_3", callback_type="pre_approval", policy_action="access", privacy_request={})
        peer.call(access)  # which would wait for ever otherwise: all webhooks have to reply
        assert until(lambda: len(fake.asked) == 4)
        assert until(lambda: all(one.state == "delivered" for one in deliveries(database)))
    paths = sorted(path for _, path, _, _ in fake.asked)
    assert paths == [f"/api/v1/privacy-request/pri_{number}/pre-approve/eligible" for number in (0, 0, 1, 3)]
    assert [headers["authorization"] for _, _, headers, _ in fake.asked].count("Bearer newer") == 1
    assert {one.kind for one in deliveries(database)} == {"fides_pre_approval"}
    assert {row.outcome for row in rows(database)} == {"answered", "no_match"}


@pytest.mark.parametrize("on_failure", ["hold", "resume"])
def test_without_evidence_it_goes_on_only_where_that_is_wanted(
    idle: TestClient, settings: Settings, database: Database, on_failure: str
) -> None:
    with saying(Said(200)) as fake:
        peer = Peer(idle, fake.url, wait_seconds=0.1, on_failure=on_failure)
        assert peer.call(asks()).json() == {"halt": True}
        assert peer.call(asks(callback_type="pre_approval")).json() == {"halt": False}
        with failing(settings, database) as client:
            resumed = ["fides_resume"] if on_failure == "resume" else []
            assert [one.kind for one in deliveries(database)] == resumed
            assert until(lambda: len(fake.asked) == len(resumed))
            assert until(lambda: all(one.state == "delivered" for one in deliveries(database)))
            assert peer.call(asks(), client=client).json() == {"halt": on_failure == "hold"}


def test_what_failed_and_is_tried_again_is_resumed_by_the_last_token(
    idle: TestClient, settings: Settings, database: Database
) -> None:
    with saying(Said(200)) as fake:
        peer = Peer(idle, fake.url, wait_seconds=0.1)
        assert peer.call(asks()).json() == {"halt": True}
        with failing(settings, database) as client:
            assert peer.call(asks(), reply(asks(), "after"), client=client).json() == {"halt": True}
            assert client.post(f"/erasure-requests/{rows(database)[0].id}/retry").is_success
            assert until(lambda: [one.state for one in deliveries(database)] == ["delivered"])
        assert fake.asked[0][2]["authorization"] == "Bearer after"


def test_whatever_comes_first_fides_is_told_to_go_on_exactly_once(
    settings: Settings, linked: str, database: Database
) -> None:
    assert linked
    with saying(Said(200)) as fake, served(settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        peer = Peer(client, fake.url, wait_seconds=0.05)
        with ThreadPoolExecutor(8) as threads:
            bodies = [asks(id=f"pri_{uuid4()}") for _ in range(30)]
            halted = dict(
                zip(
                    (one["privacy_request_id"] for one in bodies),
                    threads.map(lambda body: peer.call(body).json()["halt"], bodies),
                    strict=True,
                )
            )
        assert until(lambda: all(row.state == "completed" for row in rows(database)), seconds=60)
        assert until(lambda: all(one.state == "delivered" for one in deliveries(database)), seconds=60)
        resumed = [path.split("/")[4] for _, path, _, _ in fake.asked]
    assert sorted(resumed) == sorted(one for one, halt in halted.items() if halt)


def test_many_that_wait_starve_nobody(
    settings: Settings, linked: str, database: Database, over: threading.Event
) -> None:
    assert linked
    with (
        served(settings.model_copy(update={"privacy_worker": False})) as url,
        httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=200)) as client,
        ThreadPoolExecutor(120) as threads,
    ):
        peer = Peer(client, wait_seconds=2)
        waiting = [threads.submit(peer.call, asks(id=f"pri_{number}")) for number in range(100)]
        assert until(lambda: len(rows(database)) == len(waiting), seconds=60)
        assert all(client.get("/datasets").is_success for _ in range(20))
        assert not any(one.done() for one in waiting)  # behind none of which it waited
        over.set()
        assert {one.result().json()["halt"] for one in waiting} == {True}


HOSTILE: Final[tuple[tuple[dict[str, Any], int], ...]] = (
    ({"callback_type": "post"}, 422),
    ({"callback_type": None}, 422),
    ({"privacy_request_id": ""}, 422),
    ({"privacy_request_id": "a/b"}, 422),
    ({"privacy_request_id": "a\0"}, 422),
    ({"privacy_request_id": ".."}, 422),
    ({"privacy_request_id": "p" * 101}, 422),
    ({"privacy_request_id": 7}, 422),
    ({"identity": None}, 422),
    ({"identity": [ZENA]}, 422),
    ({"identity": {"email": True}}, 422),
    ({"identity": {"email": 1.5}}, 422),
    ({"identity": {"email": [[ZENA]]}}, 422),
    ({"identity": {"email": "\ud800"}}, 400),
    ({"identity": {"email": "a\0b"}}, 400),
    ({"identity": {"email": " "}}, 400),
    ({"identity": {"email": "e" * 10_000_000}}, 400),
    ({"identity": {"no word": "x"}}, 400),
    ({"identity": {"\ud800": "x"}}, 400),
    ({"identity": {f"k{number}": "x" for number in range(200_000)}}, 422),
    ({"identity": {"x": {"value": list(range(101))}}}, 422),
    ({"identity": {str(n): list(range(60)) for n in range(2)}}, 400),
    ({"policy_action": "x" * 99}, 422),
    ({"policy_action": 1}, 422),
    ({"privacy_request": []}, 422),
    ({"privacy_request": {"due_date": "soon"}}, 422),
    ({"privacy_request": {"due_date": "0001-01-01T00:00:00+14:00"}}, 422),
    ({"privacy_request": {"policy": {"rules": {}}}}, 422),
    ({"timestamp": "9999-12-31T23:59:59-14:00"}, 422),
    ({"direction": "sideways"}, 422),
)


def test_hostile_bodies_are_refused_as_problems(idle: TestClient, database: Database) -> None:
    peer = Peer(idle, wait_seconds=0)
    for change, status in HOSTILE:
        content = json.dumps({**asks(), **change}).encode()
        headers = {"Authorization": f"Bearer {peer.credential}", "Content-Type": "application/json", **reply(asks())}
        wanted = {"reply-to": f"/privacy-request/{change.get('privacy_request_id', 'pri_1')}/resume"}
        if wanted["reply-to"].isascii() and wanted["reply-to"].isprintable():
            headers |= wanted
        started = time.monotonic()
        with about(change):
            problem = refusal(idle.post("/integrations/fides/pre", content=content, headers=headers), status)
            assert time.monotonic() - started < 30  # not in the square of what came
            assert ZENA not in json.dumps(problem)
    assert rows(database) == []


NO_WEBHOOKS: Final = (
    (b"", 422),
    (b"{", 422),
    (b"null", 422),
    (b"[" * 100_000, 422),
    (b'{"identity":' * 5_000 + b"1" + b"}" * 5_000, 422),
    (b"\xff\xfe", 422),
    (b'{"a":' + b"9" * 5_000 + b"}", 422),
    (b'"' + b"x" * (17 * 2**20) + b'"', 413),
)


def test_what_is_no_webhook_is_refused_as_a_problem(idle: TestClient) -> None:
    peer = Peer(idle)
    headers = {"Authorization": f"Bearer {peer.credential}", "Content-Type": "application/json", **reply(asks())}
    for content, status in NO_WEBHOOKS:
        with about(content[:100]):
            refusal(idle.post("/integrations/fides/pre", content=content, headers=headers), status)


def test_nothing_of_a_person_is_stored_in_clear(
    idle: TestClient, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    Peer(idle, wait_seconds=0).call(asks())
    stored = repr(
        [[getattr(row, column.key) for column in ErasureRequest.__table__.columns] for row in rows(database)]
        + [record.details for record in audited(database, "request.receive")]
    )
    for word in (ZENA, TOKEN, "resume"):
        assert word not in stored
        assert word not in caplog.text
