"""The job, over the native API: a person's request from its arrival to the evidence."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as commands
from app.actors import local_actor
from app.db import Database, transaction
from app.errors import ConflictError
from app.privacy.figures import Figures
from app.privacy.identities import Form, Identity, identity_hashes
from app.privacy.proof import verify_evidence
from app.privacy.requests import Requests
from app.privacy.signing_key import load_signing_key
from app.secret import Secret
from app.settings import Settings
from app.tables import Document, ErasureRequest, IdentityLink
from engine.shards import Shards
from tests.app.conftest import NAMES, about, refusal, until
from tests.app.privacy.conftest import EVERYBODY, XENA, ZENA, asked, done
from tests.app.privacy.work import job_worker
from tests.shards import Processes


def take(client: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/erasure-requests", json=body)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_request_is_answered_with_evidence_that_verifies(desk: TestClient, settings: Settings) -> None:
    taken = take(desk, asked(ZENA, regulation="gdpr"))
    row = done(desk, taken["id"])
    assert (row["state"], row["outcome"], row["units"], row["documents"]) == ("completed", "answered", 1, 1)
    evidence = desk.get(row["evidence"])
    assert evidence.status_code == 200
    verdict = verify_evidence(evidence.text, [load_signing_key(settings).public_key()])
    assert (verdict.intact, verdict.trusted, verdict.exit_code) == (True, True, 0)
    [report] = evidence.json()["reports"]
    assert len(report["results"]) == 4  # three of the report, and one document of the person's own
    page = desk.get(f"{row['evidence']}.html")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


def test_the_evidence_says_what_predict_says(desk: TestClient, linked: str) -> None:
    row = done(desk, take(desk, asked(ZENA))["id"])
    [report] = desk.get(row["evidence"]).json()["reports"]
    number = NAMES.texts.index("zena")
    question = {
        "sketch": linked,
        "delete": {"documents": [number]},
        "measurements": [{"kind": "loss", "text": "max"}, {"kind": "loss", "text": "zena"}],
        "confidence": 0.9,
    }
    predicted = desk.post("/predict", json=question).json()["predictions"]
    of_label = {one["label"]: one for one in report["results"]}
    for label, prediction in zip(("max", "own document 1"), predicted, strict=True):
        assert of_label[label]["baseline"] == prediction["baseline"]
        assert of_label[label]["estimate"] == prediction["estimate"]
        assert list(of_label[label]["interval"]) == list(prediction["interval"])


def test_the_evidence_holds_neither_text_nor_identity(desk: TestClient) -> None:
    row = done(desk, take(desk, asked(ZENA))["id"])
    for address in (row["evidence"], f"{row['evidence']}.html"):
        text = desk.get(address).text
        assert "zena" not in text
        assert "zappa" not in text
        assert "max" in text  # as the report is configured: what is looked for can be found


def test_the_same_request_again_is_answered_byte_for_byte(desk: TestClient) -> None:
    body = asked(ZENA, submitted_at="2026-01-17T08:00:00Z")
    first = desk.post("/erasure-requests", json=body)
    done(desk, first.json()["id"])
    again = desk.post("/erasure-requests", json=body)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["location"] == first.headers["location"]


@pytest.mark.parametrize(
    "other", [{"mode": "erase"}, {"identities": [{"type": "email", "value": XENA}]}, {"regulation": "ccpa"}]
)
def test_another_question_under_the_same_id_is_refused(idle: TestClient, other: dict[str, Any]) -> None:
    take(idle, asked(ZENA))
    refusal(idle.post("/erasure-requests", json={**asked(ZENA), **other}), 409)


def test_a_hundred_at_once_with_one_id_are_one_request(idle: TestClient, database: Database) -> None:
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: idle.post("/erasure-requests", json=asked(ZENA)), range(100)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    with transaction(database, writes=False) as session:
        assert session.scalar(select(func.count()).select_from(ErasureRequest)) == 1


def test_a_pending_request_can_be_cancelled_and_nothing_else(idle: TestClient, database: Database) -> None:
    taken = take(idle, asked(ZENA))
    address = f"/erasure-requests/{taken['id']}"
    assert idle.delete(address).json()["state"] == "cancelled"
    assert idle.delete(address).json()["state"] == "cancelled"
    other = take(idle, asked(XENA, id="dsar-2"))
    with transaction(database) as session:
        seen = catalog.next_request(session, now=datetime.now(UTC))
        assert seen is not None
        assert catalog.claim_request(session, seen, now=datetime.now(UTC)) is not None
    refusal(idle.delete(f"/erasure-requests/{other['id']}"), 409)


def test_a_cancellation_that_races_the_work_has_one_outcome(
    idle: TestClient, database: Database, secret: Secret, settings: Settings
) -> None:
    requests = Requests(database, secret)
    worker, close = job_worker(database, settings, secret)
    outcomes = set()
    for number in range(30):
        taken = take(idle, asked(ZENA, id=f"dsar-{number}"))
        barrier = threading.Barrier(2)
        cancelled: list[bool] = []

        def cancel(id: str = taken["caller_id"], to: list[bool] = cancelled, wait: threading.Barrier = barrier) -> None:
            wait.wait()
            try:
                requests.cancel(local_actor(), "api", id)
                to.append(True)
            except ConflictError:
                to.append(False)

        thread = threading.Thread(target=cancel)
        thread.start()
        barrier.wait()
        worker.work_one()
        thread.join()
        row = requests.find(taken["id"])
        assert row.state == ("cancelled" if cancelled[0] else "completed")
        assert (row.evidence is None) == cancelled[0]
        outcomes.add(row.state)
    close()
    assert outcomes <= {"cancelled", "completed"}


def test_a_person_without_data_is_no_match(desk: TestClient) -> None:
    row = done(desk, take(desk, asked("nobody@example.org", mode="erase"))["id"])
    assert (row["state"], row["outcome"], row["units"], row["documents"]) == ("completed", "no_match", 0, 0)
    evidence = desk.get(row["evidence"]).json()
    assert evidence["matches"] == []
    assert evidence["reports"] == []


def test_a_person_with_all_the_data_is_answered_without_a_counterfactual(desk: TestClient) -> None:
    row = done(desk, take(desk, asked(EVERYBODY))["id"])
    assert (row["state"], row["outcome"], row["documents"]) == ("completed", "answered", len(NAMES))
    evidence = desk.get(row["evidence"]).json()
    assert evidence["reports"] == []
    assert evidence["matches"][0]["units"] == evidence["matches"][0]["units_of"]


@pytest.mark.parametrize("form", ["raw", "sha256", "sha1", "md5"])
@pytest.mark.parametrize("written", [ZENA, f" {ZENA.upper()} "])
@pytest.mark.parametrize("backend", ["sqlite"])
def test_what_is_linked_in_clear_is_found_in_each_form(secret: Secret, form: Form, written: str) -> None:
    usual = written.strip().lower()
    value = written if form == "raw" else hashlib.new(form, usual.encode()).hexdigest().upper()
    stored = set(identity_hashes(Identity(kind="email", value=ZENA), secret))
    assert stored & set(identity_hashes(Identity(kind="email", value=value, form=form), secret))


@pytest.mark.parametrize("form", ["sha256", "sha1", "md5"])
@pytest.mark.parametrize("backend", ["sqlite"])
def test_what_is_linked_as_a_digest_is_found_in_clear(secret: Secret, form: Form) -> None:
    digest = hashlib.new(form, ZENA.encode()).hexdigest()
    stored = set(identity_hashes(Identity(kind="email", value=digest, form=form), secret))
    assert stored & set(identity_hashes(Identity(kind="email", value=ZENA), secret))
    assert not stored & set(identity_hashes(Identity(kind="email", value=XENA), secret))
    assert not stored & set(identity_hashes(Identity(kind="phone", value=ZENA), secret))


def test_a_verified_request_waits_for_the_retrained_model(desk: TestClient) -> None:
    row = done(desk, take(desk, asked(ZENA, verify=True))["id"], seconds=60)
    assert row["state"] == "completed"
    [report] = desk.get(row["evidence"]).json()["reports"]
    numbers = [one for one in report["results"] if "retrained" in one]
    assert len(numbers) == 3
    assert all(one["retrained"] is not None for one in numbers)


def test_an_erased_person_is_gone_and_the_answers_say_so(desk: TestClient, database: Database, linked: str) -> None:
    row = done(desk, take(desk, asked(ZENA, mode="erase"))["id"])
    assert (row["state"], row["outcome"]) == ("completed", "answered")
    evidence = desk.get(row["evidence"]).json()
    assert {one["what"]: one["count"] for one in evidence["actions"]["erased"]}["documents"] == 1
    with transaction(database, writes=False) as session:
        assert "zena" not in session.scalars(select(Document.text)).all()
        number = NAMES.texts.index("zena")
        left = session.scalars(select(IdentityLink.unit_number).where(IdentityLink.unit_number == number)).all()
        assert left == []
    question = {"sketch": linked, "delete": {"documents": [0]}, "measurements": [{"kind": "loss", "text": "max"}]}
    assert desk.post("/predict", json=question).json()["contains_erased"] is True
    again = done(desk, take(desk, asked(ZENA, id="dsar-2"))["id"])
    assert again["outcome"] == "no_match"


def test_nothing_in_clear_is_stored_or_logged(
    desk: TestClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    done(desk, take(desk, asked(ZENA))["id"])
    refusal(desk.post("/erasure-requests", json={**asked(ZENA), "mode": "erase"}), 409)
    refusal(desk.post("/erasure-requests", json={**asked(ZENA), "modes": "erase"}), 422)
    refusal(
        desk.post(
            "/erasure-requests",
            json={**asked(ZENA, id="x"), "identities": [{"type": "email", "value": ZENA, "format": "md5"}]},
        ),
        400,
    )
    if settings.database_url.startswith("sqlite"):
        for path in Path(settings.data_dir).rglob("*"):
            if path.is_file():
                assert ZENA.encode() not in path.read_bytes(), path
                assert b"zappa" not in path.read_bytes(), path
    assert "zappa" not in caplog.text


def test_what_a_dead_process_left_is_gone_on_with(
    idle: TestClient, database: Database, settings: Settings, secret: Secret
) -> None:
    taken = take(idle, asked(ZENA))
    with transaction(database) as session:
        seen = catalog.next_request(session, now=datetime.now(UTC))
        assert seen is not None
        claimed = catalog.claim_request(session, seen, now=datetime.now(UTC))
        assert claimed is not None
    worker, close = job_worker(database, settings, secret)
    assert not worker.work_one()  # somebody works on it
    with transaction(database) as session:
        session.execute(update(ErasureRequest).values(claimed_at=datetime.now(UTC) - timedelta(minutes=1)))
    assert worker.work_one()
    assert idle.get(f"/erasure-requests/{taken['id']}").json()["state"] == "completed"
    with transaction(database) as session:
        assert catalog.change_request(session, claimed[1], units=99) is None  # the dead one changes nothing any more
    close()


def test_deadlines_follow_from_the_regulation_and_late_requests_show(
    idle: TestClient, database: Database, secret: Secret
) -> None:
    for name, more, days in (("a", {"regulation": "gdpr"}, 30), ("b", {"regulation": "ccpa"}, 45), ("c", {}, 30)):
        taken = take(idle, asked(ZENA, id=name, **more))
        received, due = (datetime.fromisoformat(taken[one]) for one in ("received_at", "due_at"))
        assert due - received == timedelta(days=days)
    late = take(idle, asked(ZENA, id="d", due_at="2026-01-01T00:00:00Z"))
    assert [one["id"] for one in idle.get("/erasure-requests", params={"late": True}).json()["items"]] == [late["id"]]

    figures = Figures(database, secret)
    assert figure(figures, "neverseen_erasure_requests_late") == 1
    assert figure(figures, "neverseen_erasure_requests_stuck") == 0
    with transaction(database) as session:
        session.execute(update(ErasureRequest).values(next_at=datetime.now(UTC) - timedelta(hours=1)))
    assert figure(figures, "neverseen_erasure_requests_stuck") == 4


def test_the_next_deadline_comes_first_where_it_is_asked_for_and_what_is_done_last(
    idle: TestClient, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = {"a": 5, "b": 2, "done": 1, "c": 9, "failed": 3, "cancelled": 4, "late": -2}
    now = datetime.now(UTC)
    for name, left in days.items():
        take(idle, asked(ZENA, id=name, due_at=(now + timedelta(days=left)).isoformat()))
    with transaction(database) as session:
        rows = {row.caller_id: row for row in session.scalars(select(ErasureRequest))}
        rows["done"].evidence, rows["failed"].failure = "{}", "No space is left."
        for name, state in (("done", "completed"), ("failed", "failed"), ("cancelled", "cancelled")):
            rows[name].state, rows[name].finished_at = state, now

    def listed(**options: Any) -> list[str]:
        page = idle.get("/erasure-requests", params=options).json()
        return [one["caller_id"] for one in page["items"]]

    assert listed(order="deadline") == ["late", "b", "failed", "a", "c", "done", "cancelled"]
    assert listed(order="deadline", limit=2, offset=2) == ["failed", "a"]
    assert listed(order="deadline", state="pending") == ["late", "b", "a", "c"]
    assert listed(order="newest") == listed() == list(reversed(days))
    assert idle.get("/erasure-requests", params={"order": "size"}).status_code == 422

    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("NEVERSEEN_DATABASE_URL", settings.database_url)
    monkeypatch.setattr("app.commands.privacy.console.width", 200, raising=False)
    for options, expected in ((["--by-deadline"], listed(order="deadline")), ([], listed())):
        printed = CliRunner().invoke(commands, ["privacy", "list", *options]).output
        assert sorted(days, key=lambda name: printed.index(f" {name} ")) == expected


def figure(figures: Figures, name: str) -> float:
    figures.count()
    [value] = [sample.value for metric in figures.collect() for sample in metric.samples if sample.name == name]
    return value


def test_figures_of_requests_are_among_the_metrics(idle: TestClient) -> None:
    assert until(lambda: 'neverseen_erasure_requests{state="pending"} 0.0' in idle.get("/metrics").text)


def test_what_cannot_be_done_is_tried_again_then_failed_then_retried(
    idle: TestClient, database: Database, settings: Settings, secret: Secret
) -> None:
    taken = take(idle, asked(ZENA))
    [artifact] = settings.artifacts_dir.iterdir()
    moved = artifact.rename(settings.data_dir / "away")
    worker, close = job_worker(database, settings, secret)
    address = f"/erasure-requests/{taken['id']}"
    for attempt in range(1, 8):
        with transaction(database) as session:
            session.execute(update(ErasureRequest).values(next_at=datetime.now(UTC)))
        assert worker.work_one()
        row = idle.get(address).json()
        assert row["attempts"] == attempt
        assert row["problem"].startswith("tiny v1: ")
    assert row["state"] == "failed"
    refusal(idle.get(f"{address}/evidence"), 409)
    moved.rename(artifact)
    assert idle.post(f"{address}/retry").json()["state"] == "pending"
    assert worker.work_one()
    assert idle.get(address).json()["state"] == "completed"
    refusal(idle.post(f"{address}/retry"), 409)
    close()


def test_evidence_waits_while_a_part_of_the_sketch_is_away(
    idle: TestClient, database: Database, settings: Settings, secret: Secret
) -> None:
    taken = take(idle, asked(ZENA))
    processes = Processes(2)
    shards = Shards(processes, least_share=0.5)

    def die(shard: int, method: str) -> None:
        if processes.calls.count((1, "measure")) == 2:  # the first one makes ready
            processes.kill(1)

    processes.before = die
    worker, close = job_worker(database, settings, secret, shards=shards)
    assert worker.work_one()
    row = idle.get(f"/erasure-requests/{taken['id']}").json()
    assert (row["state"], row["attempts"]) == ("in_progress", 0)
    assert row["problem"].startswith("A shard of tiny v1 is away")
    processes.before = lambda shard, method: None
    processes.begin_anew(1)

    def is_back() -> bool:
        shards.look()
        return shards.away == 0

    assert until(is_back)
    with transaction(database) as session:
        session.execute(update(ErasureRequest).values(next_at=datetime.now(UTC)))
    assert worker.work_one()
    assert idle.get(f"/erasure-requests/{taken['id']}").json()["state"] == "completed"
    close()


HOSTILE: Final = (
    (b'{"id": "a", "identities": [{"type": "email", "value": "' + b"x" * 10_000_000 + b'"}]}', 422),
    (b"[" * 100_000, 422),
    (b'{"id": "a\\u0000b", "identities": [{"type": "email", "value": "a@b"}]}', 400),
    (b'{"id": "a", "identities": [{"type": "email", "value": "a\\u0000b"}]}', 400),
    (b'{"id": "a", "identities": [{"type": "email", "value": "\\ud800"}]}', 422),
    (b'{"id": "a", "identities": []}', 422),
    (b'{"id": "a", "identities": [{"type": "email", "value": "a@b"}], "regulation": "lgpd"}', 422),
    (b'{"id": "a", "identities": [{"type": "e mail", "value": "a@b"}]}', 422),
    (b"not json", 422),
)


def test_hostile_bodies_are_refused_and_leave_nothing(idle: TestClient, database: Database) -> None:
    headers = {"Content-Type": "application/json"}
    for body, status in HOSTILE:
        with about(body[:100]):
            answer = refusal(idle.post("/erasure-requests", content=body, headers=headers), status)
            assert "a@b" not in json.dumps(answer)
    with transaction(database, writes=False) as session:
        assert session.scalar(select(func.count()).select_from(ErasureRequest)) == 0


def test_a_body_over_the_limit_is_refused(idle: TestClient) -> None:
    body = b'{"id": "' + b"x" * (16 * 2**20) + b'"}'
    refusal(idle.post("/erasure-requests", content=body, headers={"Content-Type": "application/json"}), 413)


def test_a_report_without_the_dataset_is_answered_with_the_match_alone(
    idle: TestClient, database: Database, settings: Settings, secret: Secret
) -> None:
    taken = take(idle, asked(ZENA, report="another"))
    worker, close = job_worker(database, settings, secret)
    assert worker.work_one()
    evidence = idle.get(f"/erasure-requests/{taken['id']}/evidence").json()
    assert (len(evidence["matches"]), evidence["reports"]) == (1, [])
    close()


def test_the_chain_of_the_audit_holds_what_was_filed(desk: TestClient, database: Database) -> None:
    row = done(desk, take(desk, asked(ZENA))["id"])
    text = desk.get(row["evidence"]).text
    with transaction(database, writes=False) as session:
        assert catalog.verify_chain(session).broken is None
        records = {one.action: one for one in catalog.walk_records(session)}
    assert records["request.file"].details["evidence_digest"] == hashlib.sha256(text.encode()).hexdigest()
    assert {"request.receive", "request.file", "request.complete"} <= set(records)


def test_secrets_that_cant_be_read_keep_the_work_waiting_and_no_longer(
    idle: TestClient, database: Database, settings: Settings, secret: Secret
) -> None:
    taken = take(idle, asked(ZENA))
    with transaction(database) as session:
        sealed = Secret(b"another" * 8).seal({})
        catalog.add_connection(
            session,
            name="events",
            protocol="webhook",
            options={"url": "https://example.org"},
            sealed=sealed,
            credential_hash=None,
        )
    worker, close = job_worker(database, settings, secret)
    worker.start()
    try:
        assert not until(lambda: idle.get(f"/erasure-requests/{taken['id']}").json()["state"] != "pending", seconds=1)
        with transaction(database) as session:
            catalog.disable_connection(session, "events", "its secrets can't be read")
        assert done(idle, taken["id"])["state"] == "completed"
    finally:
        worker.stop()
        close()
