"""POST /predict/batch: what POST /predict answers, for many deletion sets, a line each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app import catalog
from app.db import Database, open_database, transaction
from app.main import create_app
from app.schemas.batch import BatchAnswer
from app.settings import Settings
from engine.store import Artifact
from tests.app.conftest import NAMES, add_sketch, refusal, register, until
from tests.app.test_predict_route import QUESTION

MEASUREMENTS = [{"kind": "loss", "text": "max"}, {"kind": "next_token", "prompt": "m"}]


@pytest.fixture
def settings(settings: Settings, artifact: Artifact) -> Settings:
    """Settings with a catalog that has the sketch "tiny"."""
    database = open_database(settings)
    add_sketch(database, settings, artifact)
    database.dispose()
    return settings


def batch(client: TestClient, deletions: list[dict[str, Any]]) -> httpx.Response:
    body = {"sketch": "tiny", "measurements": MEASUREMENTS, "deletions": deletions}
    response: httpx.Response = client.post("/predict/batch", json=body)
    return response


def lines(response: httpx.Response) -> list[BatchAnswer]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/jsonl")
    return [BatchAnswer.model_validate_json(line) for line in response.text.splitlines()]


def test_each_line_is_what_a_single_question_gets(lasting_service: TestClient) -> None:
    sets: list[dict[str, Any]] = [{"subset": "has-x"}, {"documents": [0, 5]}, {"units": ["3"]}]
    answered = lines(batch(lasting_service, [{"id": f"s{n}", "delete": delete} for n, delete in enumerate(sets)]))
    assert [line.id for line in answered] == ["s0", "s1", "s2"]
    for line, delete in zip(answered, sets, strict=True):
        alone = lasting_service.post(
            "/predict", json={"sketch": "tiny", "measurements": MEASUREMENTS, "delete": delete}
        ).json()
        assert line.predictions is not None
        assert [one.model_dump(mode="json") for one in line.predictions] == alone["predictions"]
        assert line.deleted is not None
        assert line.deleted.model_dump() == alone["deleted"]


def test_many_sets_are_answered_in_order(lasting_service: TestClient) -> None:
    count = 1_000
    deletions = [{"delete": {"documents": [n % len(NAMES)]}} for n in range(count)]
    answered = lines(batch(lasting_service, deletions))
    assert [line.index for line in answered] == list(range(count))
    first = answered[: len(NAMES)]
    for line in answered:
        assert line.predictions == first[line.index % len(NAMES)].predictions


def test_a_set_that_cant_be_deleted_has_its_problem_in_its_line(lasting_service: TestClient) -> None:
    deletions = [
        {"id": "a", "delete": {"documents": [0]}},
        {"id": "b", "delete": {"subset": "unknown"}},
        {"id": "c", "delete": {"documents": [10**9]}},
        {"id": "d", "delete": {"documents": [1]}},
    ]
    answered = lines(batch(lasting_service, deletions))
    problems = [None if line.problem is None else line.problem.status for line in answered]
    assert problems == [None, 404, 400, None]
    assert [line.predictions is None for line in answered] == [False, True, True, False]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"sketch": "unknown"}, 404),
        ({"version": 9}, 404),
        ({"measurements": [{"kind": "loss", "text": "ö"}]}, 400),
        ({"degree": 9}, 400),
        ({"downweight": 2}, 400),
        ({"deletions": []}, 422),
        ({"deletions": [{"delete": {}}]}, 422),
        ({"verify": True}, 422),
    ],
)
def test_what_is_wrong_with_all_of_it_refuses_the_batch(
    lasting_service: TestClient, changed: dict[str, Any], status: int
) -> None:
    body = {"sketch": "tiny", "measurements": MEASUREMENTS, "deletions": [{"delete": {"subset": "has-x"}}]}
    refusal(lasting_service.post("/predict/batch", json=body | changed), status)


def test_one_version_answers_the_whole_batch(lasting_service: TestClient) -> None:
    answered = lines(batch(lasting_service, [{"delete": {"documents": [n]}} for n in range(20)]))
    assert {line.version for line in answered} == {1}


def test_each_line_is_in_the_audit_before_it_is_sent(client: TestClient, database: Database) -> None:
    response = batch(client, [{"delete": {"documents": [n]}} for n in range(50)])
    sent = {hashlib.sha256(line.encode()).hexdigest() for line in response.text.splitlines(keepends=True)}
    with transaction(database, writes=False) as session:
        recorded = {row.details.get("answer_digest") for row in catalog.walk_records(session)}
    assert len(sent) == 50
    assert sent <= recorded


def test_each_set_counts_as_a_request(settings: Settings) -> None:
    few = settings.model_copy(update={"requests_per_minute": 10})
    with TestClient(create_app(few), base_url="http://127.0.0.1") as client:
        refusal(batch(client, [{"delete": {"documents": [n]}} for n in range(11)]), 400)
        assert len(lines(batch(client, [{"delete": {"documents": [n]}} for n in range(8)]))) == 8
        refusal(batch(client, [{"delete": {"documents": [n]}} for n in range(5)]), 429)


@pytest.mark.parametrize(
    ("limits", "question"),
    [
        ({"max_units": 2}, {"delete": {"documents": [0, 1, 2]}}),
        ({"max_measurements": 1}, {"measurements": MEASUREMENTS}),
    ],
)
def test_a_question_larger_than_the_settings_allow_is_refused(
    settings: Settings, limits: dict[str, int], question: dict[str, Any]
) -> None:
    with TestClient(create_app(settings.model_copy(update=limits)), base_url="http://127.0.0.1") as client:
        body = refusal(client.post("/predict", json=QUESTION | question), 400)
        assert body["type"].endswith(":limit")
        assert client.post("/predict", json=QUESTION | {"delete": {"documents": [0]}}).status_code == 200


def test_a_client_that_leaves_in_the_middle_harms_nobody(lasting_service: TestClient) -> None:
    body = {"sketch": "tiny", "measurements": MEASUREMENTS}
    deletions = [{"delete": {"documents": [n % len(NAMES)]}} for n in range(500)]
    with lasting_service.stream("POST", "/predict/batch", json=body | {"deletions": deletions}) as response:
        first = next(response.iter_lines())
        assert json.loads(first)["index"] == 0
    assert lasting_service.post("/predict", json=QUESTION).status_code == 200


@pytest.mark.parametrize("extra", [{}, {"delete": {"subset": "unknown"}}])
def test_too_many_measurements_refuse_the_batch(settings: Settings, extra: dict[str, Any]) -> None:
    few = settings.model_copy(update={"max_measurements": 1})
    with TestClient(create_app(few), base_url="http://127.0.0.1") as client:
        body = refusal(batch(client, [{"delete": {"documents": [0]}} | extra]), 400)
    assert body["type"].endswith(":limit")


def test_what_cant_be_measured_refuses_the_batch_however_its_sets_begin(client: TestClient, database: Database) -> None:
    body = {"sketch": "tiny", "measurements": [*MEASUREMENTS, {"kind": "loss", "text": "ö"}]}
    deletions = [{"delete": {"subset": "unknown"}}] * 5_000 + [{"delete": {"subset": "has-x"}}]
    answer = refusal(client.post("/predict/batch", json=body | {"deletions": deletions}), 400)
    assert answer["type"].endswith(":unknown-character")
    with transaction(database, writes=False) as session:
        assert "predict" not in {row.action for row in catalog.walk_records(session)}


def test_what_is_found_out_late_ends_the_lines_with_its_problem(client: TestClient, database: Database) -> None:
    body = {"sketch": "tiny", "measurements": MEASUREMENTS, "degree": 9}
    deletions = [{"delete": {"subset": "unknown"}}] * 1_000 + [{"delete": {"subset": "has-x"}}] * 3
    answered = lines(client.post("/predict/batch", json=body | {"deletions": deletions}))
    assert [line.index for line in answered] == list(range(1_001))
    assert answered[-1].problem is not None
    assert answered[-1].problem.type.endswith(":degree")


def ended(
    client: TestClient, database: Database, headers: dict[str, str], happens: Callable[[], httpx.Response]
) -> list[BatchAnswer]:
    """The lines of a batch during which something happens."""
    deletions = [{"delete": {"documents": [n % len(NAMES)]}} for n in range(10_000)]
    body = {"sketch": "tiny", "version": 1, "measurements": MEASUREMENTS, "deletions": deletions}

    def begun() -> bool:
        with transaction(database, writes=False) as session:
            return any(row.action == "predict" for row in catalog.walk_records(session))

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/predict/batch", json=body, headers=headers)
        assert until(begun)
        assert happens().status_code == 200
        answered = lines(asked.result())
    assert [line.index for line in answered] == list(range(len(answered)))
    assert len(answered) < len(deletions)
    assert all(line.problem is None for line in answered[:-1])
    with transaction(database, writes=False) as session:
        records = [row.details for row in catalog.walk_records(session) if row.action == "predict"]
    assert len(records) == len(answered)
    assert records[-1]["index"] == len(answered) - 1
    return answered


def test_a_batch_ends_when_its_key_is_revoked(client: TestClient, database: Database) -> None:
    admin = client.post("/keys", json={"name": "admin", "scopes": ["admin"]}).json()["key"]
    as_admin = {"X-API-Key": admin}
    made = client.post("/keys", json={"name": "asks", "scopes": ["predict"]}, headers=as_admin).json()
    address = f"/keys/{made['prefix']}"
    answered = ended(client, database, {"X-API-Key": made["key"]}, lambda: client.delete(address, headers=as_admin))
    assert answered[-1].problem is not None
    assert answered[-1].problem.status == 401


def test_a_batch_ends_when_its_version_is_retired(
    client: TestClient, database: Database, settings: Settings, artifact: Artifact
) -> None:
    with transaction(database) as session:
        register(session, settings, catalog.get_dataset(session, "names"), artifact, sketch="tiny")
    answered = ended(client, database, {}, lambda: client.post("/sketches/tiny/versions/1/retire"))
    assert answered[-1].problem is not None
    assert answered[-1].problem.status == 409
