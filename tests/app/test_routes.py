"""Datasets, subsets and sketches over HTTP: what is created can be read, and a refusal changes nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app import catalog
from app.db import Database, transaction
from app.main import create_app
from app.settings import Settings
from engine.store import Artifact
from tests.app.conftest import NAMES, refusal

PEOPLE: dict[str, Any] = {
    "name": "people",
    "description": "of three",
    "documents": [
        {"text": "abc", "subject": "ann"},
        {"text": "cab", "subject": "ann"},
        {"text": "bca", "subject": "bob"},
        {"text": "cba", "subject": "zoë"},
    ],
}


@pytest.fixture
def people(client: TestClient) -> dict[str, Any]:
    response = client.post("/datasets", json=PEOPLE)
    assert response.status_code == 201
    body: dict[str, Any] = response.json()
    return body


def post(client: TestClient, address: str, body: dict[str, Any]) -> httpx.Response:
    """Send a body in ASCII, so that it may hold halves of surrogate pairs, as clients may."""
    headers = {"Content-Type": "application/json"}
    response: httpx.Response = client.post(address, content=json.dumps(body), headers=headers)
    return response


def test_a_dataset_is_found_where_its_creation_says(client: TestClient, people: dict[str, Any]) -> None:
    response = client.post("/datasets", json={"name": "names", "content": "ann\n\nbob\n"})
    created = response.json()
    assert created == {
        "name": "names",
        "description": "",
        "fingerprint": created["fingerprint"],
        "vocabulary": "abno",
        "document_count": 2,
        "unit_count": 2,
        "has_subjects": False,
        "created_at": created["created_at"],
    }
    assert datetime.fromisoformat(created["created_at"]).utcoffset() is not None
    assert client.get(response.headers["location"]).json() == created
    assert client.get("/datasets").json() == {"items": [created, people], "total": 2, "limit": 50, "offset": 0}
    assert client.get("/datasets?limit=1&offset=1").json()["items"] == [people]


def test_documents_and_units_are_listed(client: TestClient, people: dict[str, Any]) -> None:
    assert (people["document_count"], people["unit_count"], people["has_subjects"]) == (4, 3, True)
    documents = client.get("/datasets/people/documents?contains=ca&limit=1&offset=1").json()
    bobs = {"number": 2, "unit_number": 1, "unit": "bob", "text": "bca"}
    assert documents == {"items": [bobs], "total": 2, "limit": 1, "offset": 1}
    assert client.get("/datasets/people/documents", params={"matches": "^b.a$"}).json()["items"] == [bobs]
    matching = client.get("/datasets/people/documents", params={"matches": "a", "limit": 2, "offset": 1}).json()
    assert ([one["number"] for one in matching["items"]], matching["total"]) == ([1, 2], 4)
    units = client.get("/datasets/people/units?offset=1").json()
    assert units["items"] == [
        {"number": 1, "name": "bob", "document_count": 1},
        {"number": 2, "name": "zoë", "document_count": 1},
    ]
    found = client.get("/datasets/people/units?contains=nn").json()
    assert found["items"] == [{"number": 0, "name": "ann", "document_count": 2}]


@pytest.mark.parametrize(
    ("sought", "message"),
    [
        ({"matches": "(a"}, "Not a regular expression: missing )"),
        ({"matches": "a\0"}, "regular expression holds the unprintable"),
    ],
)
def test_documents_are_not_searched_for_just_anything(
    client: TestClient, people: dict[str, Any], sought: dict[str, str], message: str
) -> None:
    assert message in refusal(client.get("/datasets/people/documents", params=sought), 400)["detail"]


def test_documents_are_searched_for_in_one_way(client: TestClient, people: dict[str, Any]) -> None:
    body = refusal(client.get("/datasets/people/documents", params={"contains": "a", "matches": "a"}), 422)
    assert [fault["location"] for fault in body["errors"]] == ["query.matches"]
    assert body["detail"].endswith("by contains or by matches; give one of them.")


@pytest.mark.parametrize(
    ("file", "refused"),
    [
        ({"format": "text", "content": "ann\nb\0b\n"}, "Line 2: "),
        ({"format": "csv", "content": "name\nann\n"}, "Line 1: A column named 'text' is needed"),
        ({"format": "csv", "content": "text,subject\nann,a\nbob\n"}, "Line 3: "),
        ({"format": "csv", "content": 'text\n"ann\n'}, "Not CSV: unexpected end of data"),
        ({"format": "jsonl", "content": '{"text": "ann"}\n{"text": }\n'}, "Line 2: Not JSON"),
        ({"format": "jsonl", "content": '{"text": "ann"}\n\n["bob"]\n'}, "Line 3: "),
        ({"format": "text", "content": "\n \n"}, "There is no document"),
        ({"documents": []}, "There is no document"),
        ({"documents": [{"text": ""}]}, "Document 0 is empty"),
        ({"documents": [{"text": "a\ud800b"}]}, "Document 0 holds the unprintable character '\\ud800'"),
        ({"documents": [{"text": "a", "subject": "x"}, {"text": "b"}]}, "Document 1 has no subject"),
        ({"documents": [{"text": "a"}], "description": "b\0"}, "description holds the unprintable"),
    ],
)
def test_malformed_documents_are_told_where(client: TestClient, file: dict[str, Any], refused: str) -> None:
    body = refusal(post(client, "/datasets", {"name": "names"} | file), 400)
    assert refused in body["detail"]
    assert client.get("/datasets").json()["total"] == 0


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({"name": "names"}, "body"),
        ({"name": "names", "content": "a", "documents": [{"text": "a"}]}, "body"),
        ({"name": "Names", "content": "a"}, "body.name"),
        ({"name": "names", "content": "a", "format": "xml"}, "body.format"),
        ({"name": "names", "documents": [{"text": "a", "colour": "red"}]}, "body.documents.0.colour"),
        ({"name": "names", "documents": [{"text": 3}]}, "body.documents.0.text"),
        ({"name": "names", "content": "a", "description": "x" * 501}, "body.description"),
    ],
)
def test_a_dataset_of_the_wrong_form_is_told_where(client: TestClient, body: dict[str, Any], location: str) -> None:
    assert [fault["location"] for fault in refusal(client.post("/datasets", json=body), 422)["errors"]] == [location]


@pytest.mark.parametrize(
    ("address", "body", "location"),
    [
        ("/datasets", {"name": "names", "documents": [""] * 400_000}, "body.documents.0"),
        ("/datasets/people/subsets", {"name": "some", "documents": [""] * 400_000}, "body.documents.0"),
        ("/datasets/people/subsets", {"name": "some", "units": [0] * 400_000}, "body.units.0"),
        ("/datasets/people/resolve", {"units": [0] * 400_000}, "body.units.0"),
    ],
)
def test_the_first_fault_of_a_list_is_told(
    client: TestClient, people: dict[str, Any], address: str, body: dict[str, Any], location: str
) -> None:
    assert [fault["location"] for fault in refusal(post(client, address, body), 422)["errors"]] == [location]


def test_a_name_is_taken_once(client: TestClient, people: dict[str, Any]) -> None:
    assert "with the same documents" in refusal(client.post("/datasets", json=PEOPLE), 409)["detail"]
    other = {"name": "people", "content": "ann\n"}
    assert "with other documents" in refusal(client.post("/datasets", json=other), 409)["detail"]
    assert client.get("/datasets/people").json() == people


@pytest.mark.parametrize(
    ("rule", "kind", "pattern", "units"),
    [
        ({"documents": [0, 1]}, "documents", None, ["ann"]),
        ({"units": ["zoë", "bob"]}, "units", None, ["bob", "zoë"]),
        ({"contains": "bc"}, "contains", "bc", ["ann", "bob"]),
        ({"matches": "^cb?a"}, "matches", "^cb?a", ["ann", "zoë"]),
    ],
)
def test_a_subset_is_found_where_its_creation_says(
    client: TestClient, people: dict[str, Any], rule: dict[str, Any], kind: str, pattern: str | None, units: list[str]
) -> None:
    response = client.post("/datasets/people/subsets", json={"name": "some", **rule})
    assert response.status_code == 201
    created = response.json()
    assert created == {
        "name": "some",
        "dataset": "people",
        "kind": kind,
        "pattern": pattern,
        "unit_count": len(units),
        "document_count": len(units) + ("ann" in units),
        "created_at": created["created_at"],
    }
    assert client.get(response.headers["location"]).json() == created
    assert client.get("/datasets/people/subsets").json()["items"] == [created]
    members = client.get("/datasets/people/units?subset=some").json()
    assert [unit["name"] for unit in members["items"]] == units
    documents = client.get("/datasets/people/documents?subset=some").json()
    assert documents["total"] == created["document_count"]


NO_DELETION_SETS: list[tuple[dict[str, Any], int, str]] = [
    ({"documents": [0]}, 400, "Document 0 belongs to unit 0"),
    ({"documents": [4]}, 400, "no document 4"),
    ({"documents": [2, 2]}, 400, "more than once"),
    ({"documents": []}, 400, "is empty"),
    ({"documents": [0, 1, 2, 3]}, 400, "whole dataset"),
    ({"documents": [2**64]}, 400, "no document 18446744073709551616"),
    ({"units": ["nobody"]}, 404, "no unit 'nobody'"),
    ({"units": ["\0"]}, 404, "no unit '\\x00'"),
    ({"units": ["\ud800"]}, 404, "no unit '\\ud800'"),
    ({"contains": "x"}, 400, "is empty"),
    ({"contains": "\ud800"}, 422, "body.contains"),
    ({"matches": "(a"}, 400, "Not a regular expression: missing )"),
    ({"matches": "a\0"}, 400, "unprintable"),
    ({}, 422, "exactly one of"),
    ({"contains": "a", "matches": "a"}, 422, "exactly one of"),
    ({"contains": ""}, 422, "body.contains"),
    ({"contains": "a" * 201}, 422, "body.contains"),
    ({"matches": "a" * 201}, 422, "body.matches"),
    ({"documents": ["0"]}, 422, "body.documents.0"),
]


@pytest.mark.parametrize(("rule", "status", "message"), NO_DELETION_SETS)
def test_what_is_no_deletion_set_is_refused(
    client: TestClient, people: dict[str, Any], rule: dict[str, Any], status: int, message: str
) -> None:
    body = refusal(post(client, "/datasets/people/subsets", {"name": "some", **rule}), status)
    assert message in body["detail"]
    assert client.get("/datasets/people/subsets").json()["total"] == 0


CHOOSING: list[tuple[dict[str, Any], list[str]]] = [
    ({"documents": [1, 0]}, ["ann"]),
    ({"units": ["zoë", "bob"]}, ["bob", "zoë"]),
    ({"contains": "bc"}, ["ann", "bob"]),
    ({"matches": "^cb?a"}, ["ann", "zoë"]),
    ({"subset": "not-ann"}, ["bob", "zoë"]),
    ({"contains": None, "matches": None, "subset": None, "units": None, "documents": [3]}, ["zoë"]),
]


@pytest.mark.parametrize(("deletion", "units"), CHOOSING)
def test_a_deletion_is_resolved_and_nothing_is_changed(
    client: TestClient, people: dict[str, Any], deletion: dict[str, Any], units: list[str]
) -> None:
    not_ann = {"name": "not-ann", "documents": [2, 3]}
    subset = client.post("/datasets/people/subsets", json=not_ann).json()
    before = client.get("/audit").json()["total"]
    assert client.post("/datasets/people/resolve", json=deletion).json() == {
        "dataset": "people",
        "unit_count": len(units),
        "document_count": len(units) + ("ann" in units),
        "units": units,
    }
    assert client.get("/datasets/people/subsets").json()["items"] == [subset]
    assert client.get("/audit").json()["total"] == before


@pytest.mark.parametrize(
    ("deletion", "status", "message"),
    [
        *NO_DELETION_SETS,
        ({"subset": "others"}, 404, "no subset 'others' of the dataset 'people'. None exists yet."),
        ({"subset": "Others"}, 422, "body.subset"),
        ({"subset": "others", "documents": [0]}, 422, "exactly one of documents, units, subset, contains, matches"),
        ({"documents": [2], "colour": "red"}, 422, "body.colour"),
    ],
)
def test_what_is_no_deletion_set_is_not_resolved(
    client: TestClient, people: dict[str, Any], deletion: dict[str, Any], status: int, message: str
) -> None:
    assert message in refusal(post(client, "/datasets/people/resolve", deletion), status)["detail"]


def test_a_deletion_is_resolved_within_its_dataset(client: TestClient, people: dict[str, Any]) -> None:
    assert "Known: people." in refusal(client.post("/datasets/names/resolve", json={"contains": "a"}), 404)["detail"]


def test_more_units_than_a_question_may_delete_are_not_resolved(settings: Settings) -> None:
    application = create_app(settings.model_copy(update={"max_units": 2}))
    with TestClient(application, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        client.post("/datasets", json={"name": "names", "content": "ann\nanna\nhanna\nbob"})
        assert client.post("/datasets/names/resolve", json={"contains": "anna"}).json()["units"] == ["1", "2"]
        body = refusal(client.post("/datasets/names/resolve", json={"contains": "ann"}), 400)
    assert body["type"].endswith(":limit")
    assert body["detail"] == "3 units would be deleted, and a question may delete 2."


def test_an_expression_of_exponential_time_is_given_up(client: TestClient) -> None:
    client.post("/datasets", json={"name": "names", "content": f"{'a' * 60}\nbob"})
    asked = [
        client.get("/datasets/names/documents", params={"matches": "(a|a)*b"}),
        client.post("/datasets/names/resolve", json={"matches": "(a|a)*b"}),
    ]
    for response in asked:
        body = refusal(response, 400)
        assert body["type"].endswith(":pattern")
        assert "took longer than 3 s" in body["detail"]
    assert client.get("/datasets/names/documents?matches=b$").json()["total"] == 1


def test_erased_units_are_neither_searched_nor_resolved(
    client: TestClient, people: dict[str, Any], database: Database
) -> None:
    with transaction(database) as session:
        row = catalog.get_dataset(session, "people")
        catalog.forget_units(session, row, [1], now=datetime.now(UTC))
    assert client.get("/datasets/people/documents", params={"matches": "^|b"}).json()["total"] == 3
    assert [one["name"] for one in client.get("/datasets/people/units").json()["items"]] == ["ann", "zoë"]
    assert client.post("/datasets/people/resolve", json={"contains": "abc"}).json()["units"] == ["ann"]
    for deletion, status, message in (
        ({"documents": [2]}, 400, "was erased"),
        ({"units": ["bob"]}, 404, "no unit 'bob'"),
        ({"contains": "bca"}, 400, "is empty"),
        ({"matches": "^$"}, 400, "is empty"),
        ({"matches": "a"}, 400, "whole dataset"),  # all that is left
    ):
        assert message in refusal(client.post("/datasets/people/resolve", json=deletion), status)["detail"]


def test_a_subset_never_changes(client: TestClient, people: dict[str, Any]) -> None:
    first = client.post("/datasets/people/subsets", json={"name": "some", "contains": "bc"}).json()
    refusal(client.post("/datasets/people/subsets", json={"name": "some", "contains": "b"}), 409)
    assert client.get("/datasets/people/subsets/some").json() == first
    assert "Known: some." in refusal(client.get("/datasets/people/subsets/others"), 404)["detail"]
    assert "Known: some." in refusal(client.get("/datasets/people/units?subset=others"), 404)["detail"]


def test_a_sketch_and_its_versions_are_listed(
    sketch: str, client: TestClient, artifact: Artifact, settings: Settings
) -> None:
    listed = client.get("/sketches").json()
    assert listed["items"] == [client.get("/sketches/tiny").json()]
    assert listed["items"][0] | {"created_at": None} == {
        "name": "tiny",
        "dataset": "names",
        "current_version": 1,
        "created_at": None,
    }
    version = client.get("/sketches/tiny/versions/1").json()
    assert client.get("/sketches/tiny/versions").json()["items"] == [version]
    assert (version["sketch"], version["dataset"], version["number"]) == ("tiny", "names", 1)
    assert (version["state"], version["is_current"]) == ("ready", True)
    assert version["checksum"] == artifact.checksum
    assert version["configuration"]["model"]["vocabulary"] == NAMES.vocabulary
    assert str(settings.artifacts_dir) not in str(version)
    assert "numbered from 1 to 1" in refusal(client.get("/sketches/tiny/versions/2"), 404)["detail"]


def test_it_isnt_ready_without_a_sketch(client: TestClient) -> None:
    assert "No sketch is registered" in refusal(client.get("/readyz"), 503)["detail"]
    assert client.get("/healthz").json() == {"status": "alive"}
