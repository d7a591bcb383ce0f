"""The direct way answers what FastAPI's own way answers, and leaves it every refusal."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response, params
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.direct import DirectRoute
from app.schemas import RequestBody
from app.schemas.predict import PredictAnswer, PredictRequest
from tests.app.conftest import refusal
from tests.app.test_predict_route import QUESTION, ask
from tests.app.test_problems import json_values

NUMBERS = [
    "0",
    "-0",
    "1",
    "1.0",
    "1e0",
    "0.1",
    "0.9500000000000001",
    "1E-1",
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "9" * 400,
]
TEXTS = ['"max"', '"\\u006dax"', '"\\ud83d\\ude00"', '"\\ud800"', '"auto"', "null", "true", "[1]", '{"a": 1}']


def both(content: bytes) -> tuple[PredictRequest | None, PredictRequest | None]:
    """What is read directly, and what FastAPI would have read."""
    try:
        direct = PredictRequest.model_validate_json(content)
    except ValidationError:
        direct = None
    try:
        decoded = PredictRequest.model_validate(json.loads(content))
    except (ValidationError, ValueError):
        decoded = None
    return direct, decoded


@settings(max_examples=300, deadline=None)
@given(
    key=st.sampled_from(
        [*PredictRequest.model_fields, "documents", "units", "subset", "text", "prompt", "kind", "unknown"]
    ),
    value=st.sampled_from(NUMBERS + TEXTS) | json_values.map(json.dumps),
    space=st.sampled_from(["", " ", "\n", "\t"]),
    twice=st.booleans(),
)
def test_what_is_read_directly_is_what_was_meant(key: str, value: str, space: str, twice: bool) -> None:
    fields = {name: json.dumps(given) for name, given in QUESTION.items()}
    if key in ("documents", "units", "subset"):
        fields["delete"] = f'{{"{key}": {value}}}'
    elif key in ("text", "prompt", "kind"):
        fields["measurements"] = f'[{{"kind": "next_token", "{key}": {value}}}]'
    else:
        fields[key] = value
    parts = [f'"{name}"{space}:{space}{written}' for name, written in fields.items()]
    if twice:
        parts.insert(0, f'"sketch": "other", "{key}": 3')
    direct, decoded = both(("{" + f"{space},{space}".join(parts) + "}").encode())
    if direct is not None:
        assert direct == decoded
        assert direct.model_dump_json() == decoded.model_dump_json()


@pytest.mark.parametrize("documents", [[0], list(range(29)), [28, 3, 3]])
def test_an_ordinary_question_is_read_directly(documents: list[int]) -> None:
    direct, decoded = both(json.dumps(QUESTION | {"delete": {"documents": documents}}).encode())
    assert direct is not None
    assert direct == decoded


class Body(RequestBody):
    number: int


@pytest.mark.parametrize("place", ["application", "inclusion", "router", "route"])
def test_what_a_route_depends_on_is_asked_first_wherever_it_is_declared(place: str) -> None:
    def refused() -> None:
        raise HTTPException(401)

    def dependencies(where: str) -> list[params.Depends]:
        return [Depends(refused)] if where == place else []

    router = APIRouter(route_class=DirectRoute, dependencies=dependencies("router"))

    @router.post("/", dependencies=dependencies("route"))
    async def answer(body: Body) -> Response:
        return Response(str(body.number))

    app = FastAPI(dependencies=dependencies("application"))
    app.include_router(router, dependencies=dependencies("inclusion"))
    assert TestClient(app, base_url="http://127.0.0.1").post("/", json={"number": 3}).status_code == 401


def test_a_body_is_decoded_once() -> None:
    router, seen = APIRouter(route_class=DirectRoute), []

    @router.post("/")
    async def answer(body: Body, request: Request) -> Response:
        seen.append((body, await request.json()))
        return Response(str(body.number))

    app = FastAPI()
    app.include_router(router)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.post("/", json={"number": 3}).text == "3"
        assert client.post("/", json={"number": "three"}).status_code == 422
    [(body, decoded)] = seen
    assert isinstance(decoded, Body)
    assert body == decoded


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.question+json"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_other_ways_to_say_json_are_answered_the_same(
    lasting_service: TestClient, content_type: str, encoding: str
) -> None:
    answers: list[Any] = []
    for kind in ("application/json", content_type):
        content = json.dumps(QUESTION).encode(encoding)
        response = lasting_service.post("/predict", content=content, headers={"Content-Type": kind})
        assert response.status_code == 200, response.text
        answers.append(response.json()["predictions"])
    assert answers == [ask(lasting_service)["predictions"]] * 2


def test_the_answer_is_of_the_declared_form_and_leaves_nothing_out(lasting_service: TestClient) -> None:
    kinds = [{"kind": "loss", "text": "max"}, {"kind": "next_token", "prompt": "m"}]
    response = lasting_service.post("/predict", json=QUESTION | {"measurements": kinds, "downweight": [0.5, 1]})
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    answer = PredictAnswer.model_validate_json(response.content)
    assert json.loads(answer.model_dump_json()) == response.json()


@pytest.mark.parametrize(
    ("address", "changed"),
    [
        ("/predict", {"delete": {"documents": [""] * 400_000}}),
        ("/predict", {"delete": {"units": [0] * 400_000}}),
        ("/predict", {"measurements": [0] * 400_000}),
        ("/predict", {"downweight": [""] * 400_000}),
        ("/predict", {f"{n:x}": 1 for n in range(130_000)}),
        ("/predict/batch", {"deletions": [0] * 400_000}),
        ("/samples", {"delete": {"documents": [""] * 400_000}}),
    ],
)
def test_very_many_faults_stop_nobody(lasting_service: TestClient, address: str, changed: dict[str, Any]) -> None:
    content = json.dumps(QUESTION | changed).encode()
    started = perf_counter()
    refusal(lasting_service.post(address, content=content, headers={"Content-Type": "application/json"}), 422)
    assert perf_counter() - started < 60


def test_more_than_a_million_documents_are_refused(lasting_service: TestClient) -> None:
    content = json.dumps(QUESTION | {"delete": {"documents": [1] * 1_000_001}}).encode()
    body = refusal(lasting_service.post("/predict", content=content, headers={"Content-Type": "application/json"}), 422)
    assert [fault["location"] for fault in body["errors"]] == ["body.delete.documents"]
    assert "at most 1000000 items" in body["errors"][0]["message"]
