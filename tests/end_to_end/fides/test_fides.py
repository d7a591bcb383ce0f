"""A person's request from Fides to the evidence and back: the real server, and the service in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.db import Database, transaction
from app.settings import Settings
from app.tables import Delivery, ErasureRequest
from tests.app.conftest import until
from tests.app.privacy.conftest import XENA, ZENA
from tests.drills.processes import Service, serving
from tests.end_to_end.fides.server import Fides

pytestmark = pytest.mark.drill

POLICY = "default_erasure_policy"


@pytest.fixture(autouse=True)
def _no_webhooks_are_left(fides: Fides) -> Iterator[None]:
    yield
    for place in ("pre_execution", "post_execution"):
        fides.ask("PUT", f"/dsr/policy/{POLICY}/webhook/{place}", [])
    fides.ask("PUT", "/dsr/webhook/pre_approval", [])
    fides.ask("PATCH", "/config", {"execution": {"require_manual_request_approval": False}})


def connect(service: Service, fides: Fides, **options: Any) -> str:
    """Have a connection to Fides; what Fides shows there."""
    local = {"base_url": fides.url, "allow_http": True, "allowed_networks": ["127.0.0.0/8"]}
    with service.client() as client:
        body = {"name": "fides", "protocol": "fides", "options": local | options}
        credential: str = client.post("/connections", json=body).raise_for_status().json()["credential"]
    return credential


def hook(service: Service, fides: Fides, credential: str, place: str) -> None:
    """Have Fides call the service."""
    key = f"neverseen-{place}"
    fides.connect(key, f"http://127.0.0.1:{service.port}/integrations/fides/{place}", f"Bearer {credential}")
    if place == "pre-approval":
        fides.hook_approval(key)
    else:
        fides.hook(POLICY, f"{place}_execution", key)


def becomes(fides: Fides, request: str, *states: str, seconds: float = 90) -> None:
    seen: list[str] = []

    def has_become() -> bool:
        seen.append(fides.status(request))
        return seen[-1] in states

    assert until(has_become, seconds=seconds), (list(dict.fromkeys(seen)), fides.log())


def rows(database: Database) -> dict[str, ErasureRequest]:
    """The service's requests, by the last part of what Fides calls them."""
    with transaction(database, writes=False) as session:
        return {row.caller_id.partition(":")[2]: row for row in session.scalars(select(ErasureRequest))}


def sent(database: Database) -> list[tuple[str, str]]:
    with transaction(database, writes=False) as session:
        return [(row.kind, row.state) for row in session.scalars(select(Delivery).order_by(Delivery.created_at))]


def test_what_is_ready_in_time_is_not_paused(
    fides: Fides, filled: Settings, database: Database, tmp_path: Path
) -> None:
    with serving(filled, tmp_path / "log") as service:
        hook(service, fides, connect(service, fides, wait_seconds=2), "pre")
        request = fides.request(POLICY, {"email": ZENA})
        becomes(fides, request, "complete")
        assert fides.ask("GET", f"/privacy-request?request_id={request}")["items"][0]["paused_at"] is None
    row = rows(database)["pre"]
    assert (row.state, row.outcome, row.documents, row.mode) == ("completed", "answered", 1, "predict")
    assert sent(database) == []


def test_a_request_pauses_until_the_retrained_model_is_there(
    fides: Fides, filled: Settings, database: Database, tmp_path: Path
) -> None:
    with serving(filled, tmp_path / "log") as service:
        hook(service, fides, connect(service, fides, wait_seconds=0, verify=True), "pre")
        request = fides.request(POLICY, {"email": ZENA})
        assert fides.status(request) == "paused"  # Celery's task ran within the call
        becomes(fides, request, "complete")
        assert until(lambda: sent(database) == [("fides_resume", "delivered")])
    row = rows(database)["pre"]
    assert row.state == "completed"
    assert row.caller_id == f"{request}:pre"
    [report] = json.loads(row.evidence or "")["reports"]
    assert report["verification"] == "finished"


def test_a_service_that_is_killed_half_way_resumes_it_once_it_is_back(
    fides: Fides, filled: Settings, database: Database, tmp_path: Path
) -> None:
    with serving(filled, tmp_path / "log1", privacy_worker="false") as service:
        hook(service, fides, connect(service, fides, wait_seconds=0.2, verify=True), "pre")
        request = fides.request(POLICY, {"email": ZENA})
        assert fides.status(request) == "paused"
        service.process.kill()
    with serving(filled, tmp_path / "log2") as service:
        assert until(lambda: rows(database)["pre"].state != "pending")
        service.process.kill()  # before the model is retrained, or meanwhile
    state = rows(database)["pre"].state
    assert state == "in_progress", "it was killed too late for what is tested here"
    assert fides.status(request) == "paused"
    with serving(filled, tmp_path / "log3") as service:
        # A claim on a request goes stale after half a minute, one on a verification after three.
        assert until(lambda: rows(database)["pre"].state == "completed", seconds=300), service.process.said
        becomes(fides, request, "complete")
        assert until(lambda: sent(database) == [("fides_resume", "delivered")])
    assert rows(database)["pre"].state == "completed"


def test_a_request_that_ran_into_an_error_is_retried_when_the_service_is_back(
    fides: Fides, filled: Settings, database: Database, tmp_path: Path
) -> None:
    with serving(filled, tmp_path / "log1") as service:
        credential = connect(service, fides, wait_seconds=2)
        hook(service, fides, credential, "pre")
    request = fides.request(POLICY, {"email": XENA})
    assert fides.status(request) == "error"
    with serving(filled, tmp_path / "log2") as service:
        hook(service, fides, credential, "pre")  # which listens at another port now
        fides.ask("POST", f"/privacy-request/{request}/retry")
        becomes(fides, request, "complete")
    assert [row.state for row in rows(database).values()] == ["completed"]


def test_after_fides_has_erased_the_service_erases(
    fides: Fides, filled: Settings, database: Database, tmp_path: Path
) -> None:
    with serving(filled, tmp_path / "log") as service:
        credential = connect(service, fides, wait_seconds=2, mode="erase")
        for place in ("pre", "post"):
            hook(service, fides, credential, place)
        request = fides.request(POLICY, {"email": ZENA})
        becomes(fides, request, "complete")
        assert until(lambda: rows(database)["post"].state == "completed")
    found = rows(database)
    assert {name: (row.mode, row.documents) for name, row in found.items()} == {
        "pre": ("predict", 1),
        "post": ("erase", 1),
    }
    erased = {name: json.loads(row.evidence or "")["actions"]["erased"] for name, row in found.items()}
    assert erased["pre"] == []
    assert {one["what"]: one["count"] for one in erased["post"]}["documents"] == 1


def test_the_evidence_makes_a_request_eligible_for_approval(
    fides: Fides, filled: Settings, database: Database, tmp_path: Path
) -> None:
    fides.ask("PATCH", "/config", {"execution": {"require_manual_request_approval": True}})
    with serving(filled, tmp_path / "log") as service:
        hook(service, fides, connect(service, fides), "pre-approval")
        request = fides.request(POLICY, {"email": ZENA})
        becomes(fides, request, "complete")  # nobody else has to approve
        assert until(lambda: sent(database) == [("fides_pre_approval", "delivered")])
    assert rows(database)["pre_approval"].state == "completed"


def test_a_stranger_at_the_address_is_refused_and_fides_says_so(
    fides: Fides, filled: Settings, database: Database, tmp_path: Path
) -> None:
    with serving(filled, tmp_path / "log") as service:
        connect(service, fides)
        hook(service, fides, "nvc_wrong", "pre")
        assert fides.status(fides.request(POLICY, {"email": ZENA})) == "error"
    assert rows(database) == {}
