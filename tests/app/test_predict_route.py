"""POST /predict on a real sketch: the answer's arithmetic, and each question that can't be answered."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from app import catalog
from app.db import Database, transaction
from app.main import create_app
from app.settings import Settings
from engine.store import Artifact
from tests.app.conftest import NAMES, refusal, register, until

QUESTION: dict[str, Any] = {
    "sketch": "tiny",
    "delete": {"subset": "has-x"},
    "measurements": [{"kind": "loss", "text": "max"}],
}
HAS_X = [number for number, text in enumerate(NAMES.texts) if "x" in text]

JSON = {"Content-Type": "application/json"}


def ask(client: TestClient, **changed: Any) -> dict[str, Any]:
    response = client.post("/predict", json=QUESTION | changed)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_the_answer_says_what_was_asked_and_adds_up(lasting_service: TestClient) -> None:
    answer = ask(lasting_service, degree=2)
    assert (answer["sketch"], answer["version"]) == ("tiny", 1)
    assert answer["deleted"] == {"units": len(HAS_X), "documents": len(HAS_X)}
    assert answer["elapsed_ms"] > 0
    (prediction,) = answer["predictions"]
    assert prediction["measurement"] == {"kind": "loss", "text": "max"}
    assert (prediction["degree"], prediction["estimator"], prediction["average"]) == (2, "sphere", "mean")
    assert prediction["curve"] is None
    assert [term["degree"] for term in prediction["terms"]] == [1, 2]
    assert prediction["change"] == pytest.approx(sum(term["value"] for term in prediction["terms"]), rel=1e-9)
    assert prediction["estimate"] == pytest.approx(prediction["baseline"] + prediction["change"], rel=1e-12)
    assert 0 < prediction["baseline"] < 2 * math.log(len(NAMES.vocabulary) + 1)
    low, high = prediction["interval"]
    assert low < prediction["estimate"] < high
    assert prediction["standard_error"] > 0


NUMBERS = st.integers() | st.floats() | st.sampled_from([0.5, 0.95, 0.999, 1.0, 0, 1, 2])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "confidence": NUMBERS,
    "degree": st.integers(-1, 4) | st.sampled_from(["auto", "all"]) | NUMBERS,
    "downweight": NUMBERS | st.lists(NUMBERS, max_size=4),
    "average": st.sampled_from(["mean", "median_of_means", "mode"]),
    "estimator": st.sampled_from(["auto", "sphere", "axes", "best"]),
    "delete": st.builds(lambda numbers: {"documents": numbers}, st.lists(st.integers(-1, len(NAMES) + 1), max_size=8)),
    "measurements": st.lists(
        st.builds(lambda text: {"kind": "loss", "text": text}, st.text("maxbo!é", max_size=20)), max_size=3
    ),
}


@settings(max_examples=200)
@given(changed=st.fixed_dictionaries({}, optional=VALUES))
def test_every_question_is_answered_with_finite_numbers_or_refused(
    lasting_service: TestClient, changed: dict[str, Any]
) -> None:
    response = lasting_service.post("/predict", content=json.dumps(QUESTION | changed), headers=JSON)
    if response.status_code != 200:
        refusal(response, response.status_code)
        assert response.status_code in (400, 422), response.text
        return
    for prediction in response.json()["predictions"]:
        points = prediction["curve"] or [prediction]
        assert all(math.isfinite(point["estimate"]) for point in points)
        assert all(low <= point["estimate"] <= high for point in points for low, high in [point["interval"]])


def test_the_same_deletion_has_the_same_answer_whatever_it_is_called(lasting_service: TestClient) -> None:
    by_subset, by_documents, by_units = (
        ask(lasting_service, delete=delete)["predictions"]
        for delete in ({"subset": "has-x"}, {"documents": HAS_X[::-1]}, {"units": [str(n) for n in HAS_X]})
    )
    assert by_subset == by_documents == by_units


def test_another_deletion_has_another_answer(lasting_service: TestClient) -> None:
    assert ask(lasting_service)["predictions"] != ask(lasting_service, delete={"documents": [0]})["predictions"]


def test_degree_0_is_the_baseline(lasting_service: TestClient) -> None:
    (prediction,) = ask(lasting_service, degree=0)["predictions"]
    assert prediction["estimate"] == prediction["baseline"]
    assert prediction["change"] == 0


def test_auto_takes_a_degree_that_the_sketch_has(lasting_service: TestClient) -> None:
    (automatic,) = ask(lasting_service)["predictions"]
    (chosen,) = ask(lasting_service, degree=automatic["degree"])["predictions"]
    assert automatic == chosen


def test_measurements_are_answered_in_order(lasting_service: TestClient) -> None:
    texts = ["xena", "max", "bob", "max"]
    predictions = ask(lasting_service, measurements=[{"kind": "loss", "text": text} for text in texts])["predictions"]
    assert [prediction["measurement"]["text"] for prediction in predictions] == texts
    assert predictions[1] == predictions[3] == ask(lasting_service)["predictions"][0]


def test_a_list_of_downweights_is_a_curve(lasting_service: TestClient) -> None:
    (prediction,) = ask(lasting_service, degree=2, downweight=[0.0, 0.5, 1.0])["predictions"]
    (first, second) = (term["value"] for term in prediction["terms"])
    assert [point["downweight"] for point in prediction["curve"]] == [0.0, 0.5, 1.0]
    for point in prediction["curve"]:
        w = point["downweight"]
        assert point["estimate"] == pytest.approx(prediction["baseline"] + w * first + w**2 * second, rel=1e-9)
        assert point["interval"][0] <= point["estimate"] <= point["interval"][1]
    assert prediction["curve"][0]["standard_error"] == 0
    assert prediction["estimate"] == prediction["curve"][-1]["estimate"]
    (single,) = ask(lasting_service, degree=2, downweight=0.5)["predictions"]
    assert single["estimate"] == prediction["curve"][1]["estimate"]
    assert single["curve"] is None


def test_more_confidence_is_a_wider_interval(lasting_service: TestClient) -> None:
    def width(confidence: float) -> float:
        (prediction,) = ask(lasting_service, degree=1, confidence=confidence)["predictions"]
        return float(prediction["interval"][1] - prediction["interval"][0])

    assert width(0.5) < width(0.9) < width(0.99)


def test_the_average_asked_is_the_one_answered(lasting_service: TestClient) -> None:
    (mean,) = ask(lasting_service, degree=1)["predictions"]
    (median,) = ask(lasting_service, degree=1, average="median_of_means")["predictions"]
    assert median["average"] == "median_of_means"
    assert median["baseline"] == mean["baseline"]
    assert median["estimate"] != mean["estimate"]


@pytest.mark.parametrize(
    ("changed", "status", "slug", "message"),
    [
        ({"sketch": "names"}, 404, "not-found", "no sketch 'names'. Known: tiny."),
        ({"version": 2}, 404, "not-found", "'tiny' has no version 2"),
        ({"delete": {"subset": "has-q"}}, 404, "not-found", "no subset 'has-q' of the dataset 'names'. Known: has-x."),
        ({"delete": {"units": ["max"]}}, 404, "not-found", "no unit 'max'"),
        ({"delete": {"units": ["\0"]}}, 404, "not-found", "no unit '\\x00'"),
        ({"delete": {"documents": [len(NAMES)]}}, 400, "deletion-set", f"numbered from 0 to {len(NAMES) - 1}"),
        ({"delete": {"documents": [-1]}}, 400, "deletion-set", "no document -1"),
        ({"delete": {"documents": [2**63]}}, 400, "deletion-set", "no document 9223372036854775808"),
        ({"delete": {"documents": [3, 17, 3]}}, 400, "deletion-set", "document 3 is named more than once"),
        ({"delete": {"documents": []}}, 400, "deletion-set", "is empty"),
        ({"delete": {"documents": list(range(len(NAMES)))}}, 400, "deletion-set", "whole dataset"),
        ({"measurements": [{"kind": "loss", "text": ""}]}, 400, "text-length", "empty"),
        ({"measurements": [{"kind": "loss", "text": "maximilian"}]}, 400, "text-length", "10 characters"),
        ({"measurements": [{"kind": "loss", "text": "mäx"}]}, 400, "unknown-character", "'ä'"),
        ({"measurements": [{"kind": "loss", "text": "m\0"}]}, 400, "unknown-character", "'\\x00'"),
        ({"measurements": [{"kind": "loss", "text": "m\ud800"}]}, 400, "unknown-character", "'\\ud800'"),
        ({"degree": 3}, 400, "degree", "up to 2"),
        ({"downweight": 1.5}, 400, "downweight", "1.5"),
        ({"downweight": [0.5, -0.1]}, 400, "downweight", "-0.1"),
        ({"downweight": 1e300}, 400, "downweight", "[0, 1]"),
    ],
)
def test_a_question_that_cant_be_answered_is_told_why(
    lasting_service: TestClient, changed: dict[str, Any], status: int, slug: str, message: str
) -> None:
    body = refusal(lasting_service.post("/predict", content=json.dumps(QUESTION | changed), headers=JSON), status)
    assert body["type"] == f"urn:neverseen:problem:{slug}"
    assert message in body["detail"]


@pytest.mark.usefixtures("sketch")
def test_a_version_can_be_named_and_a_retired_one_isnt_served(
    client: TestClient, database: Database, settings: Settings, artifact: Artifact
) -> None:
    with transaction(database) as session:
        dataset = catalog.get_dataset(session, "names")
        register(session, settings, dataset, artifact, sketch="tiny")
    assert until(lambda: ask(client)["version"] == 2)
    assert ask(client, version=1)["predictions"] == ask(client)["predictions"]
    with transaction(database) as session:
        catalog.retire(session, sketch="tiny", version=1)
    body = refusal(client.post("/predict", json=QUESTION | {"version": 1}), 409)
    assert "tiny v1 is retired" in body["detail"]


def damage(path: Path, how: str) -> None:
    match how:
        case "truncated":
            file = path / "parameters.safetensors"
            file.write_bytes(file.read_bytes()[:-1])
        case "damaged":
            file = path / "directions-00000.safetensors"
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
        case "foreign":
            (path / "manifest.json").write_text('{"format": "something else"}')
        case "gone":
            path.rename(path.with_name("elsewhere"))


@pytest.mark.usefixtures("sketch")
@pytest.mark.parametrize("how", ["truncated", "damaged", "foreign", "gone"])
def test_a_damaged_artifact_is_refused_and_the_others_go_on_serving(
    database: Database, settings: Settings, artifact: Artifact, how: str
) -> None:
    with transaction(database) as session:
        dataset = catalog.get_dataset(session, "names")
        path = register(session, settings, dataset, artifact, sketch="broken")
    damage(path, how)
    with TestClient(create_app(settings), raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        ready = client.get("/readyz").json()
        assert [one["label"] for one in ready["resident"]] == ["tiny v1"]
        assert [one["label"] for one in ready["failed"]] == ["broken v1"]
        body = refusal(client.post("/predict", json=QUESTION | {"sketch": "broken"}), 500)
        assert body["type"] == "urn:neverseen:problem:artifact"
        assert body["detail"].startswith("broken v1: ")
        assert str(settings.data_dir) not in body["detail"]
        assert ask(client)["predictions"]


def test_it_is_ready_with_the_current_versions_resident(lasting_service: TestClient) -> None:
    ready = lasting_service.get("/readyz").json()
    assert ready["status"] == "ready"
    assert [one["label"] for one in ready["resident"]] == ["tiny v1"]
    assert all(one["bytes"] > 0 for one in ready["resident"])
    assert ready["failed"] == []


@pytest.mark.usefixtures("sketch")
def test_it_isnt_ready_when_no_sketch_can_be_served(settings: Settings, database: Database) -> None:
    with transaction(database, writes=False) as session:
        damage(settings.artifacts_dir / catalog.get_version(session, "tiny").location, "gone")
    with TestClient(create_app(settings), raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        response = client.get("/readyz")
        assert "tiny v1: " in refusal(response, 503)["detail"]
        assert response.headers["retry-after"]
        assert client.get("/healthz").json() == {"status": "alive"}


@pytest.mark.usefixtures("sketch")
def test_a_version_registered_while_it_runs_is_served(
    client: TestClient, database: Database, settings: Settings, artifact: Artifact
) -> None:
    with transaction(database) as session:
        register(session, settings, catalog.get_dataset(session, "names"), artifact, sketch="late")
    assert ask(client, sketch="late")["predictions"] == ask(client)["predictions"]
