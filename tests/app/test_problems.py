"""Every refusal has one shape, whatever was wrong, and nothing that a client sends makes the server crash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app import deps
from app.db import Database
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import refusal

# What has the wrong form is refused before the database is asked: one kind of it is enough.
on_sqlite = pytest.mark.parametrize("lasting_settings", ["sqlite"], indirect=True)

QUESTION: dict[str, Any] = {
    "sketch": "tiny",
    "delete": {"subset": "has-x"},
    "measurements": [{"kind": "loss", "text": "max"}],
}


def test_an_unknown_address_and_method_are_refused(lasting_client: TestClient) -> None:
    assert "/docs" in refusal(lasting_client.get("/nothing"), 404)["detail"]
    response = lasting_client.delete("/datasets")
    refusal(response, 405)
    assert response.headers["allow"] == "GET, POST"


@on_sqlite
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Field required"),
        (b"{", "Not JSON"),
        (b'{"sketch": }', "Not JSON: Expecting value at character 11"),
        (b"[]", "must be a JSON object"),
        (b"3", "must be a JSON object"),
        (b"\xff\xfe", "Not JSON"),
        (b'"\xff"', "Not JSON"),
        (b"[" * 200_000, "Not JSON"),
        (b'{"sketch": ' + b"9" * 10_000 + b"}", "Not JSON"),
        (b"null", "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(lasting_client: TestClient, content: bytes, message: str) -> None:
    response = lasting_client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    body = refusal(response, 422)
    assert message in body["detail"]
    assert [fault["location"] for fault in body["errors"]] == ["body"]


def test_a_body_of_another_content_type_is_told_which_to_use(lasting_client: TestClient) -> None:
    response = lasting_client.post("/predict", content=json.dumps(QUESTION), headers={"Content-Type": "text/plain"})
    assert "Content-Type: application/json" in refusal(response, 422)["detail"]


@on_sqlite
@pytest.mark.parametrize(
    ("changed", "location"),
    [
        ({"sketch": None}, "body.sketch"),
        ({"sketch": "Tiny!"}, "body.sketch"),
        ({"sketch": "\0"}, "body.sketch"),
        ({"sketch": "\ud800"}, "body.sketch"),
        ({"version": 0}, "body.version"),
        ({"version": 2**31}, "body.version"),
        ({"version": 10**60}, "body.version"),
        ({"version": "1"}, "body.version"),
        ({"version": True}, "body.version"),
        ({"version": 1.5}, "body.version"),
        ({"delete": {}}, "body.delete"),
        ({"delete": {"subset": "has-x", "documents": [1]}}, "body.delete"),
        ({"delete": {"subset": None}}, "body.delete"),
        ({"delete": {"subset": "no such name"}}, "body.delete.subset"),
        ({"delete": {"documents": [1, "2"]}}, "body.delete.documents.1"),
        ({"delete": {"documents": [1.0]}}, "body.delete.documents.0"),
        ({"delete": {"documents": [True]}}, "body.delete.documents.0"),
        ({"delete": {"documents": [float("nan")]}}, "body.delete.documents.0"),
        ({"delete": {"documents": 3}}, "body.delete.documents"),
        ({"delete": {"units": ["a", 1]}}, "body.delete.units.1"),
        ({"delete": {"names": ["a"]}}, "body.delete.names"),
        ({"measurements": []}, "body.measurements"),
        ({"measurements": [{"kind": "loss", "text": "max"}] * 65}, "body.measurements"),
        ({"measurements": [{"kind": "size", "text": "max"}]}, "body.measurements.0.kind"),
        ({"measurements": [{"kind": "loss"}]}, "body.measurements.0.text"),
        ({"degree": -1}, "body.degree"),
        ({"degree": "most"}, "body.degree"),
        ({"degree": 10**400}, "body.degree"),
        ({"downweight": "1"}, "body.downweight"),
        ({"downweight": []}, "body.downweight"),
        ({"downweight": [0.5] * 102}, "body.downweight"),
        ({"downweight": float("nan")}, "body.downweight"),
        ({"downweight": [float("inf")]}, "body.downweight"),
        ({"confidence": 1}, "body.confidence"),
        ({"confidence": 0}, "body.confidence"),
        ({"confidence": float("-inf")}, "body.confidence"),
        ({"confidence": "0.9"}, "body.confidence"),
        ({"average": "mode"}, "body.average"),
        ({"sketh": "tiny"}, "body.sketh"),
        ({"\ud800": 1}, "body"),
        ({"k" * 100_000: 1}, "body.kkk"),
    ],
)
def test_a_question_of_the_wrong_form_is_told_where(
    lasting_client: TestClient, changed: dict[str, Any], location: str
) -> None:
    content = json.dumps(QUESTION | changed)  # which writes NaN, Infinity and lone surrogates as clients may
    response = lasting_client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    body = refusal(response, 422)
    assert body["type"] == "urn:neverseen:problem:validation"
    assert [fault["location"][: len(location)] for fault in body["errors"]] == [location]
    assert all(fault["message"] for fault in body["errors"])


def test_many_faults_are_counted_and_the_first_are_listed(lasting_client: TestClient) -> None:
    body = refusal(lasting_client.post("/predict", json=QUESTION | {f"unknown{n}": 1 for n in range(500)}), 422)
    assert len(body["errors"]) == 20
    assert "and 499 more" in body["detail"]


@pytest.mark.parametrize(
    "address",
    [
        "/datasets?limit=0",
        "/datasets?limit=1001",
        "/datasets?limit=ten",
        "/datasets?offset=-1",
        f"/datasets?offset={2**31}",
        f"/datasets?offset={2**63}",
        f"/datasets?offset={'9' * 5_000}",
        "/datasets/Names",
        "/datasets/names%00",
        "/datasets/names%0A",
        "/datasets/%FF",
        "/datasets/names/documents?contains=",
        f"/datasets/names/documents?contains={'x' * 201}",
        "/datasets/names/documents?matches=",
        f"/datasets/names/documents?matches={'x' * 201}",
        "/datasets/names/units?contains=",
        f"/datasets/names/units?contains={'x' * 201}",
        "/datasets/names/documents?subset=%00",
        "/sketches/tiny/versions/0",
        "/sketches/tiny/versions/one",
        f"/sketches/tiny/versions/{2**31}",
        f"/sketches/tiny/versions/{2**64}",
        f"/sketches/tiny/versions/{'9' * 5_000}",
        "/sketches/tiny/versions/-1",
    ],
)
def test_parameters_out_of_range_are_refused(lasting_client: TestClient, address: str) -> None:
    assert refusal(lasting_client.get(address), 422)["errors"]


@pytest.mark.parametrize(
    "address",
    [
        "/datasets/nmaes",
        "/datasets/nmaes/documents",
        "/datasets/nmaes/units",
        "/datasets/nmaes/subsets",
        "/datasets/nmaes/subsets/has-x",
        "/sketches/nmaes",
        "/sketches/nmaes/versions",
        "/sketches/nmaes/versions/1",
        f"/sketches/nmaes/versions/{2**31 - 1}",
    ],
)
def test_unknown_names_are_refused(lasting_client: TestClient, address: str) -> None:
    body = refusal(lasting_client.get(address), 404)
    assert body["detail"].endswith("None exists yet.")
    assert body["errors"] == []


@pytest.mark.parametrize("sought", ["documents?contains", "documents?matches", "units?contains"])
@pytest.mark.parametrize("needle", ["%00", "%0A", "%ED%A0%80", "%F0%9F%98%80", "%25", "%27%3B--"])
def test_an_odd_filter_is_refused_or_finds_nothing(client: TestClient, sought: str, needle: str) -> None:
    client.post("/datasets", json={"name": "names", "content": "ann\nbob"})
    response = client.get(f"/datasets/names/{sought}={needle}")
    if needle in ("%00", "%0A"):
        assert "unprintable" in refusal(response, 400)["detail"]
    else:
        assert response.json()["total"] == 0


def test_unknown_query_parameters_are_no_trouble(lasting_client: TestClient) -> None:
    assert lasting_client.get("/datasets?colour=green").status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from([*QUESTION, "version", "degree", "downweight", "confidence", "average"]), value=json_values)
def test_no_value_crashes_the_server(lasting_client: TestClient, key: str, value: object) -> None:
    content = json.dumps(QUESTION | {key: value})
    response = lasting_client.post("/predict", content=content, headers={"Content-Type": "application/json"})
    refusal(response, 404 if response.status_code == 404 else 422)


@pytest.fixture
def small(settings: Settings) -> Iterator[TestClient]:
    limited = settings.model_copy(update={"max_body_bytes": 1_000})
    with TestClient(create_app(limited), raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused(small: TestClient, chunked: bool) -> None:
    def post(length: int) -> Any:
        body = json.dumps({"name": "names", "content": ""}).encode()
        body = body[:-2] + b"a" * (length - len(body)) + b'"}'
        parts = (body[i : i + 100] for i in range(0, len(body), 100))
        headers = {"Content-Type": "application/json"}
        return small.post("/datasets", content=parts if chunked else body, headers=headers)

    body = refusal(post(1_001), 413)
    assert (body["type"], body["title"]) == ("urn:neverseen:problem:too-large", "Body too large")
    assert "1000 bytes" in body["detail"]
    assert small.get("/datasets").json()["total"] == 0
    assert post(1_000).status_code == 201


def test_a_crash_says_nothing_of_itself(settings: Settings) -> None:
    app = create_app(settings)

    def broken() -> None:
        raise RuntimeError("a secret path")

    app.dependency_overrides[deps.get_session] = broken
    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        response = client.get("/datasets")
    assert refusal(response, 500)["type"] == "urn:neverseen:problem:internal"
    assert "secret" not in response.text


def test_a_catalog_that_fails_is_not_available(client: TestClient, database: Database) -> None:
    """The table is gone: SQLite calls that an operational error, PostgreSQL a programming error."""
    with renamed(database, "datasets", "elsewhere"):
        response = client.get("/datasets")
    if database.dialect.name == "sqlite":
        assert refusal(response, 503)["type"] == "urn:neverseen:problem:catalog-away"
        assert int(response.headers["retry-after"]) > 0
    else:
        assert refusal(response, 500)["type"] == "urn:neverseen:problem:internal"
    assert "datasets" not in response.text


@contextmanager
def renamed(database: Database, table: str, name: str) -> Iterator[None]:
    def rename(old: str, new: str) -> None:
        with database.begin() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    rename(table, name)
    try:
        yield
    finally:
        rename(name, table)
