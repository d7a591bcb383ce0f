"""Verifications: the truth is that of a retrain, each is worked on once, and a process that dies loses none."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from app import catalog
from app.catalog import Claim, ResolvedDeletion
from app.catalog.verifications import MOST_WAITING, STALE_AFTER, as_json, from_json
from app.db import Database, open_database, transaction
from app.errors import BusyError
from app.main import create_app
from app.schemas.verifications import ComparisonAnswer
from app.settings import Settings
from app.tables import Verification
from app.truth import Outcome, TruthProcess, truths_of
from app.verifier import Verifier
from engine.errors import ArtifactError
from engine.measure import Measurement, measure_models
from engine.question import Prediction, Term
from engine.retrain import retrain
from engine.store import Artifact, open_artifact
from engine.supplements import contains
from tests.app.conftest import NAMES, add_sketch, refusal, register

HAS_X = [number for number, text in enumerate(NAMES.texts) if "x" in text]
QUESTION: dict[str, Any] = {
    "sketch": "tiny",
    "delete": {"subset": "has-x"},
    "measurements": [{"kind": "loss", "text": "max"}, {"kind": "loss", "text": "bob"}],
    "verify": True,
}
TEXTS = ("max", "bob")
NOW = datetime.now(UTC)


@pytest.fixture
def settings(settings: Settings, artifact: Artifact) -> Settings:
    """Settings with a catalog that has the sketch "tiny"."""
    database = open_database(settings)
    add_sketch(database, settings, artifact)
    database.dispose()
    return settings


def prediction(text: str) -> Prediction:
    """An answer that only the tests believe in."""
    return Prediction(
        measurement=Measurement(text=text),
        baseline=2.0,
        estimate=2.5,
        change=0.5,
        standard_error=0.1,
        interval=(2.25, 2.75),
        below_resolution=False,
        readout="logarithm",
        degree=1,
        terms=(Term(degree=1, value=0.5, standard_error=0.1),),
        curve=(),
        estimator="sphere",
        average="mean",
        missing_share=0.0,
    )


def queue(database: Database, *, created_at: datetime | None = None, elsewhere: bool = False) -> str:
    """A verification that waits, or that another process works on; its id."""
    with transaction(database) as session:
        row = catalog.add_verification(
            session,
            version_id=catalog.get_version(session, "tiny").id,
            deletion=ResolvedDeletion(units=HAS_X, documents=len(HAS_X)),
            predictions=[prediction(text) for text in TEXTS],
            confidence=0.9,
        )
        if created_at is not None:
            row.created_at = created_at
        if elsewhere:
            row.state, row.claimed_at = "running", datetime.now(UTC)
    return row.id


def claim(database: Database, *, now: datetime) -> Claim | None:
    """What a process does that looks for work."""
    with transaction(database) as session:
        seen = catalog.next_verification(session, now=now)
        return None if seen is None else catalog.claim_verification(session, seen, now=now)


def state(database: Database, verification: str) -> str:
    with transaction(database, writes=False) as session:
        return catalog.get_verification(session, verification).state


def wait_until(condition: Callable[[], bool], *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.05)


def truths(artifact: Artifact) -> list[float]:
    """The truth, without supplements, queue and processes."""
    configuration = artifact.manifest.configuration
    models = retrain(NAMES, configuration, [HAS_X])
    return [measure_models(Measurement(text=text), configuration.model, models).item() for text in TEXTS]


# The life of a verification


def test_an_answer_is_verified_by_a_retrain(
    client: TestClient, database: Database, settings: Settings, artifact: Artifact
) -> None:
    response = client.post("/predict", json=QUESTION | {"downweight": [0.5, 1.0]})
    assert response.status_code == 200, response.text
    answer = response.json()
    link = answer["verification"]
    assert link["url"] == f"/verifications/{link['id']}"
    wait_until(lambda: client.get(link["url"]).json()["state"] not in ("pending", "running"))
    body = client.get(link["url"]).json()
    assert (body["id"], body["state"], body["reason"]) == (link["id"], "finished", "")
    assert (body["sketch"], body["version"], body["confidence"]) == ("tiny", 1, 0.95)
    assert body["deleted"] == {"units": len(HAS_X), "documents": len(HAS_X)}
    assert body["created_at"] <= body["started_at"] <= body["finished_at"]
    for compared, answered, truth in zip(body["measurements"], answer["predictions"], truths(artifact), strict=True):
        assert compared["truth"] == pytest.approx(truth, abs=1e-6)
        for part in ("measurement", "baseline", "estimate", "interval"):
            assert compared[part] == answered[part]
        assert compared["error"] == pytest.approx(truth - answered["estimate"], abs=1e-6)
        low, high = answered["interval"]
        assert compared["inside_interval"] is (low <= truth <= high)
    assert client.get("/verifications").json() == {"items": [body], "total": 1, "limit": 50, "offset": 0}
    with transaction(database, writes=False) as session:
        location = catalog.get_version(session, "tiny").location
    assert contains(open_artifact(settings.artifacts_dir / location), HAS_X)


def test_a_verified_question_is_answered_exactly_from_then_on(client: TestClient, artifact: Artifact) -> None:
    first = client.post("/predict", json=QUESTION).json()
    wait_until(lambda: client.get(first["verification"]["url"]).json()["state"] == "finished")
    again = client.post("/predict", json=QUESTION | {"verify": False}).json()
    assert [one["estimator"] for one in first["predictions"]] == ["sphere", "sphere"]
    assert [one["estimator"] for one in again["predictions"]] == ["retrained", "retrained"]
    assert [one["estimate"] for one in again["predictions"]] == pytest.approx(truths(artifact), abs=1e-5)


def test_a_distribution_is_verified_character_by_character(client: TestClient, artifact: Artifact) -> None:
    question = QUESTION | {"measurements": [{"kind": "next_token", "prompt": "xe"}]}
    answer = client.post("/predict", json=question).json()
    url = answer["verification"]["url"]
    wait_until(lambda: client.get(url).json()["state"] == "finished")
    (compared,) = client.get(url).json()["measurements"]
    (answered,) = answer["predictions"]
    assert compared["measurement"] == {"kind": "next_token", "prompt": "xe"}
    assert compared["tokens"] == [outcome["token"] for outcome in answered["outcomes"]]
    assert compared["estimate"] == [outcome["estimate"] for outcome in answered["outcomes"]]
    configuration = artifact.manifest.configuration
    models = retrain(NAMES, configuration, [HAS_X])
    truth = measure_models(Measurement(kind="next_token", prompt="xe"), configuration.model, models)
    assert compared["truth"] == pytest.approx(truth.flatten().tolist(), abs=1e-9)
    assert sum(compared["truth"]) == pytest.approx(1)
    assert len(compared["error"]) == len(compared["inside_interval"]) == len(compared["tokens"])


def test_without_verify_nothing_is_verified(lasting_service: TestClient) -> None:
    assert lasting_service.post("/predict", json=QUESTION | {"verify": False}).json()["verification"] is None
    assert lasting_service.get("/verifications").json()["total"] == 0


@pytest.mark.usefixtures("spawned")  # which takes so long that it is stopped in the middle
def test_what_a_stopped_service_leaves_is_taken_up_by_the_next_one(
    settings: Settings, database: Database, artifact: Artifact
) -> None:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        verification = client.post("/predict", json=QUESTION).json()["verification"]
        wait_until(lambda: client.get(verification["url"]).json()["state"] == "running")
    assert state(database, verification["id"]) == "pending"
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        wait_until(lambda: client.get(verification["url"]).json()["state"] == "finished")
        body = client.get(verification["url"]).json()
    assert [one["truth"] for one in body["measurements"]] == pytest.approx(truths(artifact), abs=1e-6)


def test_what_dead_processes_left_is_taken_over_and_others_work_is_not(
    settings: Settings, database: Database, artifact: Artifact
) -> None:
    stale, fresh, retired = (queue(database, created_at=NOW - timedelta(hours=hours)) for hours in (3, 2, 1))
    assert claim(database, now=datetime.now(UTC) - 2 * STALE_AFTER) is not None
    taken = claim(database, now=datetime.now(UTC) - 2 * STALE_AFTER + timedelta(seconds=1))
    assert taken is not None
    assert taken.id == fresh
    with transaction(database) as session:
        assert catalog.renew_claim(session, taken, now=datetime.now(UTC)) is not None
        register(session, settings, catalog.get_dataset(session, "names"), artifact, sketch="tiny")
        catalog.retire(session, sketch="tiny", version=1)
        session.execute(
            update(Verification)
            .where(Verification.id != retired)
            .values(version_id=catalog.get_version(session, "tiny").id)
        )
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        wait_until(lambda: client.get(f"/verifications/{retired}").json()["state"] == "finished")
        assert client.get(f"/verifications/{stale}").json()["state"] == "finished"
        finished = client.get(f"/verifications/{retired}").json()
    assert [one["truth"] for one in finished["measurements"]] == pytest.approx(truths(artifact), abs=1e-6)
    assert state(database, fresh) == "running"


def test_a_verification_of_a_deleted_version_fails(settings: Settings, database: Database, artifact: Artifact) -> None:
    deleted = queue(database)
    with transaction(database) as session:
        register(session, settings, catalog.get_dataset(session, "names"), artifact, sketch="tiny")
        catalog.retire(session, sketch="tiny", version=1)
        catalog.get_version(session, "tiny", 1).state = "deleted"  # which the catalog refuses while it waits
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        wait_until(lambda: client.get(f"/verifications/{deleted}").json()["state"] == "failed")
        failed = client.get(f"/verifications/{deleted}").json()
    assert "tiny v1 is deleted" in failed["reason"]
    assert [one["truth"] for one in failed["measurements"]] == [None, None]
    assert [one["inside_interval"] for one in failed["measurements"]] == [None, None]


def test_the_queue_is_bounded(client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_WAITING >= 100
    monkeypatch.setattr("app.catalog.verifications.MOST_WAITING", 2)
    for _ in range(2):
        queue(database, elsewhere=True)
    response = client.post("/predict", json=QUESTION)
    body = refusal(response, 503)
    assert body["type"] == "urn:neverseen:problem:busy"
    assert "2 verifications wait already" in body["detail"]
    assert int(response.headers["retry-after"]) > 0
    assert client.get("/verifications").json()["total"] == 2
    assert client.post("/predict", json=QUESTION | {"verify": False}).status_code == 200
    with pytest.raises(BusyError):
        queue(database)


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"downweight": 0.5}, 422, "downweight be 1"),
        ({"downweight": [0.0, 0.99]}, 422, "downweight be 1"),
        ({"verify": "yes"}, 422, "body.verify"),
        ({"verify": 1}, 422, "body.verify"),
        ({"sketch": "names"}, 404, "no sketch 'names'"),
        ({"measurements": [{"kind": "loss", "text": "mäx"}]}, 400, "'ä'"),
        ({"delete": {"documents": []}}, 400, "is empty"),
    ],
)
def test_what_is_refused_is_not_verified(
    lasting_service: TestClient, changed: dict[str, Any], status: int, message: str
) -> None:
    assert message in refusal(lasting_service.post("/predict", json=QUESTION | changed), status)["detail"]
    assert lasting_service.get("/verifications").json()["total"] == 0


def test_an_unknown_verification_is_refused(lasting_service: TestClient) -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    assert f"no verification '{unknown}'" in refusal(lasting_service.get(f"/verifications/{unknown}"), 404)["detail"]
    for wrong in ("1", "none", "%00", "9" * 5_000, unknown[:-1]):
        assert "path.verification" in refusal(lasting_service.get(f"/verifications/{wrong}"), 422)["detail"]
    for address in ("/verifications?limit=0", "/verifications?offset=-1"):
        refusal(lasting_service.get(address), 422)


def test_verifications_are_listed_the_newest_first(client: TestClient, database: Database) -> None:
    verifications = [queue(database, created_at=NOW + timedelta(hours=hours), elsewhere=True) for hours in range(3)]
    page = client.get("/verifications?limit=2").json()
    assert [one["id"] for one in page["items"]] == verifications[:0:-1]
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 0)
    assert [one["id"] for one in client.get("/verifications?offset=2").json()["items"]] == verifications[:1]


# The queue


def test_the_oldest_is_claimed_first_and_each_once(database: Database) -> None:
    first, second = (queue(database, created_at=NOW + timedelta(seconds=seconds)) for seconds in (1, 2))
    assert claim(database, now=NOW) == Claim(id=first, at=NOW)
    assert claim(database, now=NOW) == Claim(id=second, at=NOW)
    assert claim(database, now=NOW) is None


def test_of_many_processes_one_gets_each(database: Database) -> None:
    verifications = {queue(database) for _ in range(5)}

    def work(_: int) -> list[str]:
        mine = []
        while (claimed := claim(database, now=datetime.now(UTC))) is not None:
            mine.append(claimed.id)
        return mine

    with ThreadPoolExecutor(8) as threads:
        claimed = [one for mine in threads.map(work, range(8)) for one in mine]
    assert sorted(claimed) == sorted(verifications)


def test_two_that_saw_the_same_have_one_claim(database: Database) -> None:
    queue(database)
    with transaction(database, writes=False) as session:
        seen = catalog.next_verification(session, now=NOW)
    assert seen is not None
    with transaction(database) as session:
        assert catalog.claim_verification(session, seen, now=NOW) is not None
    with transaction(database) as session:
        assert catalog.claim_verification(session, seen, now=NOW) is None


def test_a_claim_that_is_renewed_does_not_get_stale(database: Database) -> None:
    verification = queue(database)
    claimed = claim(database, now=NOW)
    assert claimed is not None
    assert claim(database, now=NOW + STALE_AFTER) is None
    with transaction(database) as session:
        renewed = catalog.renew_claim(session, claimed, now=NOW + STALE_AFTER)
    assert renewed == Claim(id=verification, at=NOW + STALE_AFTER)
    later = NOW + STALE_AFTER + timedelta(seconds=1)
    assert claim(database, now=later) is None
    with transaction(database) as session:
        assert catalog.renew_claim(session, claimed, now=later) is None  # the older one is no claim any more


def test_who_lost_a_claim_changes_nothing(database: Database) -> None:
    verification = queue(database)
    lost = claim(database, now=NOW)
    taken_over = claim(database, now=NOW + STALE_AFTER + timedelta(seconds=1))
    assert lost is not None
    assert taken_over is not None
    with transaction(database) as session:
        assert not catalog.finish_verification(session, lost, [1.0, 2.0])
        assert not catalog.fail_verification(session, lost, "no reason")
        assert not catalog.release_claim(session, lost)
        assert catalog.get_verification(session, verification).state == "running"
        assert catalog.finish_verification(session, taken_over, [3.0, 4.0])
        assert not catalog.fail_verification(session, taken_over, "no reason")
    with transaction(database, writes=False) as session:
        row = catalog.get_verification(session, verification)
    assert (row.state, row.truths, row.failure, row.claimed_at) == ("finished", [3.0, 4.0], None, None)
    assert claim(database, now=NOW + timedelta(days=1)) is None


def test_what_is_released_waits_again(database: Database) -> None:
    verification = queue(database)
    claimed = claim(database, now=NOW)
    assert claimed is not None
    with transaction(database) as session:
        assert catalog.release_claim(session, claimed)
    assert state(database, verification) == "pending"
    assert claim(database, now=NOW) is not None


@pytest.mark.parametrize(
    "values",
    [
        {"state": "done"},
        {"state": "running"},
        {"claimed_at": NOW},
        {"state": "finished", "finished_at": NOW},
        {"state": "finished", "truths": [1.0]},
        {"state": "failed", "finished_at": NOW},
        {"failure": "why"},
        {"version_id": 10**6},
    ],
    ids=lambda values: " ".join(f"{name}={'now' if value is NOW else value}" for name, value in values.items()),
)
def test_a_state_that_contradicts_itself_can_not_be_stored(database: Database, values: dict[str, Any]) -> None:
    verification = queue(database)
    with pytest.raises(IntegrityError), transaction(database) as session:
        session.execute(update(Verification).where(Verification.id == verification).values(**values))


# What is kept, and compared


def test_what_is_kept_of_an_answer_gives_its_measurement_back() -> None:
    assert from_json(as_json(prediction("max"))) == Measurement(text="max")
    assert as_json(prediction("max"))["interval"] == (2.25, 2.75)


@pytest.mark.parametrize(
    ("estimate", "interval", "truth", "error", "inside"),
    [
        (2.5, (2.25, 2.75), 2.75, 0.25, True),
        (2.5, (2.25, 2.75), 2.0, -0.5, False),
        (2.5, (2.25, 2.75), None, None, None),
        ([0.5, 0.25], [(0.25, 0.75), (0.125, 0.375)], [0.25, 0.5], [-0.25, 0.25], [True, False]),
    ],
)
def test_a_truth_is_compared_number_by_number(
    estimate: Any, interval: Any, truth: Any, error: Any, inside: Any
) -> None:
    kept = as_json(prediction("max")) | {"estimate": estimate, "interval": interval}
    compared = ComparisonAnswer.of(kept, truth)
    assert (compared.truth, compared.error, compared.inside_interval) == (truth, error, inside)


# The process that retrains


def test_the_truth_needs_the_artifact(database: Database, settings: Settings) -> None:
    verification = queue(database)
    shutil.rmtree(settings.artifacts_dir)
    with pytest.raises(ArtifactError, match=r"^tiny v1: There is no artifact") as refused:
        truths_of(database, settings, verification)
    assert str(settings.data_dir) not in str(refused.value)


@pytest.mark.usefixtures("spawned")
@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_process_that_dies_has_failed_and_the_next_one_works(database: Database, settings: Settings) -> None:
    verification = queue(database)
    process = TruthProcess(settings)
    try:
        process.begin(verification)
        kill(process, signal.SIGKILL)
        assert outcome_of(process) == Outcome(
            state="failed", reason="The process that retrained ended with exit code -9."
        )
        process.begin(verification)
        kill(process, signal.SIGTERM)  # as the end of a whole service begins
        assert outcome_of(process).state == "pending"
        process.begin(verification)
        assert outcome_of(process).state == "finished"
        kill(process, signal.SIGKILL)  # while it has nothing to do
        process.begin(verification)
        assert outcome_of(process).state == "finished"
    finally:
        process.end()
        process.end()


def kill(process: TruthProcess, how: signal.Signals) -> None:
    assert process.pid is not None
    os.kill(process.pid, how)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and its parent hasn't asked yet


def outcome_of(process: TruthProcess) -> Outcome:
    for _ in range(900):
        outcome = process.outcome(0.1)
        if outcome is not None:
            return outcome
    pytest.fail("it never came to an end")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_catalog_that_is_away_is_waited_for(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql+psycopg://nobody@127.0.0.1:1/nothing"})
    process = TruthProcess(away)
    try:
        process.begin("any")
        assert outcome_of(process) == Outcome(state="pending")
    finally:
        process.end()
    database = open_database(away)
    verifier = Verifier(database, away)
    verifier.start()
    verifier.stop()
    database.dispose()
