"""The client: its methods are the API's operations, and give what the real application answers on a real server."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.client import (
    AsyncNeverseen,
    BatchItem,
    ConflictError,
    Deletion,
    ForbiddenError,
    InvalidRequestError,
    MeasurementBody,
    Neverseen,
    NewDocument,
    NotFoundError,
    TooManyRequestsError,
    UnauthorisedError,
    log_probability,
    loss,
    next_token,
    privacy,
    questions,
    resources,
)
from app.client.operation import Operation
from app.main import create_app
from app.schemas.erasure_requests import IdentityBody
from app.schemas.predict import PredictAnswer, PredictionAnswer
from app.settings import Settings
from tests.app.conftest import NAMES
from tests.app.servers import Said, saying, served

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"])

MAX = [loss("max")]
BESIDES = {"ask", "items", "lines", "wait_for_verification", "close"}
"""Methods that are no operations of the API, beside those that iterate."""


@pytest.fixture
def url(settings: Settings, sketch: str) -> Iterator[str]:
    """The address of a service with the sketch "tiny"."""
    with served(settings) as url:
        yield url


@pytest.fixture
def neverseen(url: str) -> Iterator[Neverseen]:
    with Neverseen(url) as neverseen:
        yield neverseen


# The API's operations


OPERATIONS: dict[str, Operation[Any]] = {
    operation.id: operation
    for operation in (
        questions.predict("s", subset="x", measurements=MAX),
        questions.predict_batch("s", deletions=[Deletion(subset="x")], measurements=MAX).operation,
        questions.attribute("s", measurement=loss("max")),
        questions.check_calibration("s", measurement=loss("max")),
        questions.sample("s", subset="x"),
        questions.list_verifications(),
        questions.get_verification(uuid4()),
        resources.list_datasets(),
        resources.create_dataset("d", content="a\nb\n"),
        resources.get_dataset("d"),
        resources.list_documents("d", contains="a", matches="^a", subset="x"),
        resources.list_units("d", contains="a", subset="x"),
        resources.resolve_deletion("d", contains="a"),
        resources.list_subsets("d"),
        resources.create_subset("d", "x", contains="a"),
        resources.get_subset("d", "x"),
        resources.list_sketches(),
        resources.get_sketch("s"),
        resources.list_sketch_versions("s"),
        resources.get_sketch_version("s", 1),
        resources.get_build("s", 1),
        resources.promote_version("s", 1, expected=None),
        resources.rollback_version("s", expected=2),
        resources.retire_version("s", 1),
        resources.delete_version("s", 1),
        privacy.create_erasure_request("r", identities=[IdentityBody(type="email", value="a@b")]),
        privacy.list_erasure_requests(state="failed", late=True, caller_id="r", order="deadline"),
        privacy.get_erasure_request(uuid4()),
        privacy.cancel_erasure_request(uuid4()),
        privacy.retry_erasure_request(uuid4()),
        privacy.get_evidence(uuid4()),
        privacy.get_evidence_page(uuid4()),
        privacy.list_reports(),
        privacy.set_report("r", sketch="s", own_documents=3),
        privacy.remove_report("r"),
        privacy.list_connections(),
        privacy.create_connection("c", protocol="webhook", options={"url": "https://example.org"}),
        privacy.get_connection("c"),
        privacy.change_connection("c", options={"events": None}),
        privacy.rotate_connection("c"),
        privacy.disable_connection("c"),
        privacy.enable_connection("c"),
        privacy.list_deliveries(state="dead", connection="c"),
        privacy.get_delivery("msg_0"),
        privacy.replay_delivery("msg_0"),
        resources.list_keys(),
        resources.create_key("k", scopes=["predict"]),
        resources.revoke_key("k7d2m9qa"),
        resources.list_audit_records(),
        resources.healthz(),
        resources.readyz(),
        resources.metrics(),
    )
}
PEERS = {"fides", "opendsr", "transcend", "ketch"}
"""What privacy backends speak to the service, which is none of a client's business."""

DOCUMENTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, operations in create_app(Settings(data_dir=Path("unused"))).openapi()["paths"].items()
    for method, operation in operations.items()
    if not PEERS.intersection(operation["tags"])
}


def methods(client: type) -> dict[str, Callable[..., Any]]:
    return {name: method for name, method in vars(client).items() if callable(method) and not name.startswith("_")}


def test_every_operation_of_the_api_has_one_method_of_its_name() -> None:
    own = {name for name in methods(Neverseen) if not name.startswith("iterate_")} - BESIDES
    assert own == set(DOCUMENTED) == set(OPERATIONS)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_an_operation_is_sent_as_the_document_says(name: str) -> None:
    method, path, operation = DOCUMENTED[name]
    sent = OPERATIONS[name]
    assert sent.method == method
    assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), sent.path)
    assert set(sent.query) == {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
    assert (sent.body is not None) == ("requestBody" in operation)


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if name.startswith("list_")])
def test_every_list_can_be_iterated(name: str) -> None:
    listed, iterated = (
        inspect.signature(methods(Neverseen)[one]).parameters for one in (name, name.replace("list_", "iterate_"))
    )
    assert {key: value for key, value in listed.items() if key not in {"limit", "offset"}} == dict(iterated)


def test_both_clients_have_the_same_methods() -> None:
    blocking, asynchronous = methods(Neverseen), methods(AsyncNeverseen)
    assert set(blocking) - {"close"} == set(asynchronous) - {"aclose"}
    for name in set(blocking) - {"close"}:
        [_, *first] = inspect.signature(blocking[name]).parameters.values()
        [_, *second] = inspect.signature(asynchronous[name]).parameters.values()
        assert first == second
        assert blocking[name].__doc__ == asynchronous[name].__doc__
        assert blocking[name].__doc__
    [first_, second_] = (inspect.signature(one).parameters for one in (Neverseen, AsyncNeverseen))
    assert list(first_) == list(second_)


def test_a_request_says_only_what_was_chosen() -> None:
    assert questions.predict("s", units=("a",), measurements=MAX, version=2).body == (
        b'{"sketch":"s","version":2,"measurements":[{"kind":"loss","text":"max"}],"delete":{"units":["a"]}}'
    )
    assert resources.promote_version("s", 1, expected=None).body == b'{"version":1,"expected":null}'
    assert resources.rollback_version("s").body is None
    assert resources.rollback_version("s", expected=2).body == b'{"expected":2}'


WRONG: list[tuple[Callable[[Neverseen], object], str]] = [
    (lambda n: n.predict("s", measurements=MAX), "delete: give exactly one of documents, units, subset"),
    (lambda n: n.predict("s", subset="x", units=["a"], measurements=MAX), "delete: give exactly one"),
    (lambda n: n.predict("s", subset="x", measurements=[]), "measurements: List should have at least 1 item"),
    (lambda n: n.predict("S s", subset="x", measurements=MAX), "sketch: String should match pattern"),
    (lambda n: n.predict("s", subset="x", measurements=MAX, confidence=2), "confidence: Input should be less"),
    (lambda n: n.predict("s", subset="x", measurements=MAX, verify=True, downweight=0.5), "verify retrains"),
    (lambda n: n.predict("s", subset="x", measurements=MAX, downweight=()), "downweight.list: List should have"),
    (
        lambda n: n.predict("s", subset="x", measurements=[loss("\ud800")]),
        "arguments: a text holds half of a surrogate pair",
    ),
    (lambda n: n.predict_batch("s", deletions=[], measurements=MAX), "deletions: List should have at least 1"),
    (lambda n: n.sample("s", subset="x", count=0), "count: Input should be greater"),
    (lambda n: n.get_dataset("../keys"), "dataset: use 1 to 64 small letters"),
    (lambda n: n.get_dataset(""), "dataset: use 1 to 64 small letters"),
    (lambda n: n.iterate_documents("a/b"), "dataset: use 1 to 64 small letters"),
    (
        lambda n: n.resolve_deletion("d", subset="x", contains="a"),
        "arguments: give exactly one of documents, units, subset, contains, matches",
    ),
    (lambda n: n.resolve_deletion("d", matches="a" * 201), "matches: String should have at most 200 characters"),
    (lambda n: n.create_dataset("d"), "arguments: give either documents or content"),
    (lambda n: n.create_key("k", scopes=[]), "scopes: List should have at least 1"),
    (lambda n: Neverseen("127.0.0.1:8000"), "url: give the service's address"),
    (lambda n: Neverseen("http://a:b:c"), "url: give the service's address"),
    (lambda n: Neverseen("http://127.0.0.1", key="nvs_a\n"), "key: not a key"),
]


@pytest.mark.parametrize(("ask", "message"), WRONG)
def test_wrong_arguments_are_refused_before_anything_is_sent(ask: Callable[[Neverseen], object], message: str) -> None:
    with saying(Said()) as tiny, Neverseen(tiny.url) as neverseen:
        with pytest.raises(InvalidRequestError, match=re.escape(message)) as caught:
            list(iterated) if isinstance(iterated := ask(neverseen), Iterator) else None
        assert tiny.asked == []
    assert (caught.value.status, caught.value.request_id) == (None, None)
    assert caught.value.problem.type == "urn:neverseen:problem:validation"
    assert "nvs_a" not in str(caught.value)


# The real service


@on_sqlite
def test_an_answer_is_the_services(url: str, neverseen: Neverseen) -> None:
    measurements: list[MeasurementBody] = [loss("max"), log_probability("m", "ax"), next_token("ma")]
    answer = neverseen.predict("tiny", subset="has-x", measurements=measurements, downweight=[0.5, 1.0], confidence=0.9)
    assert isinstance(answer, PredictAnswer)
    body = {
        "sketch": "tiny",
        "delete": {"subset": "has-x"},
        "measurements": [one.model_dump() for one in measurements],
        "downweight": [0.5, 1.0],
        "confidence": 0.9,
    }
    said = httpx.post(f"{url}/predict", json=body).json()
    assert answer.model_dump(mode="json") | {"elapsed_ms": 0} == said | {"elapsed_ms": 0}


@on_sqlite
def test_the_catalog_is_read_and_changed(url: str, neverseen: Neverseen) -> None:
    texts = ["ab", "ba", "bc"] * 800
    dataset = neverseen.create_dataset("many", content="\n".join(texts), description="of many")
    assert (dataset.document_count, dataset.description) == (len(texts), "of many")
    assert neverseen.get_dataset("many") == dataset
    assert [one.text for one in neverseen.iterate_documents("many")] == texts  # over several pages
    assert neverseen.list_documents("many", limit=2, offset=3).total == len(texts)
    subjects = [NewDocument(text="ab", subject="ann"), NewDocument(text="ba", subject="bob")]
    assert neverseen.create_dataset("few", documents=subjects).has_subjects
    assert [one.name for one in neverseen.iterate_datasets()] == ["few", "many", "names"]

    subset = neverseen.create_subset("many", "has-c", contains="c")
    assert subset == neverseen.get_subset("many", "has-c") == next(neverseen.iterate_subsets("many"))
    assert subset.unit_count == 800 == len(list(neverseen.iterate_units("many", subset="has-c")))
    assert {one.text for one in neverseen.iterate_documents("many", contains="bc", subset="has-c")} == {"bc"}
    matching = [one.text for one in neverseen.iterate_documents("many", matches="^b")]  # over several pages
    assert matching == [one for one in texts if one[0] == "b"]
    assert [one.document_count for one in neverseen.iterate_units("few", contains="nn")] == [1]
    for chosen in ({"contains": "c"}, {"matches": "c$"}, {"subset": "has-c"}, {"documents": range(2, 2_400, 3)}):
        resolved = neverseen.resolve_deletion("many", **chosen)
        assert (resolved.dataset, resolved.unit_count, resolved.document_count) == ("many", 800, 800)
        assert resolved.units == [one.name for one in neverseen.iterate_units("many", subset="has-c")]
    assert neverseen.resolve_deletion("few", units=["bob"]).units == ["bob"]

    [sketch] = neverseen.iterate_sketches()
    assert sketch == neverseen.get_sketch("tiny") == neverseen.promote_version("tiny", 1, expected=1)
    [version] = neverseen.iterate_sketch_versions("tiny")
    assert version == neverseen.get_sketch_version("tiny", 1)
    with pytest.raises(ConflictError):
        neverseen.rollback_version("tiny", expected=1)
    for change in (neverseen.retire_version, neverseen.delete_version):
        with pytest.raises(ConflictError):
            change("tiny", 1)

    build = neverseen.get_build("tiny", 1)
    assert (build.unit_count, build.directions, build.axes) == (len(NAMES), 64, False)

    assert neverseen.attribute("tiny", measurement=loss("max"), top=2).raising
    calibration = neverseen.check_calibration("tiny", measurement=loss("max"), confidence=0.9)
    assert (calibration.anchors, len(calibration.derivative_norms)) == ([], 2)
    assert neverseen.healthz().status == "alive"
    assert neverseen.readyz().resident[0].label == "tiny v1"
    assert "neverseen_" in neverseen.metrics()
    assert list(neverseen.iterate_verifications()) == []
    records = list(neverseen.iterate_audit_records())
    assert [record.number for record in records] == list(range(1, len(records) + 1))


@on_sqlite
def test_what_is_refused_is_an_error_of_its_kind(url: str, neverseen: Neverseen) -> None:
    with pytest.raises(NotFoundError, match=r"There is no sketch 'nothing'\. Known: tiny\.") as caught:
        neverseen.predict("nothing", subset="has-x", measurements=MAX)
    assert (caught.value.status, caught.value.problem.status) == (404, 404)
    assert caught.value.problem.type == "urn:neverseen:problem:not-found"
    assert caught.value.request_id
    with pytest.raises(InvalidRequestError, match="vocabulary") as invalid:
        neverseen.predict("tiny", subset="has-x", measurements=[loss("ö")])
    assert invalid.value.status == 400
    with pytest.raises(InvalidRequestError, match=r"query\.limit"):
        neverseen.list_datasets(limit=0)
    with pytest.raises(ConflictError, match="has a subset 'has-x' already"):
        neverseen.create_subset("names", "has-x", contains="x")
    with pytest.raises(NotFoundError, match="There is no sketch 'nothing'"):
        list(neverseen.predict_batch("nothing", deletions=[Deletion(subset="has-x")], measurements=MAX))


@on_sqlite
def test_a_key_is_shown_with_every_request(url: str, neverseen: Neverseen) -> None:
    admin = neverseen.create_key("admin", scopes=["admin"]).key
    with Neverseen(url, key=admin) as allowed:
        made = allowed.create_key("asks", scopes=["predict"], requests_per_minute=2, measurements=MAX, decimals=2)
        assert {one.name for one in allowed.iterate_keys()} == {"admin", "asks"}
    with Neverseen(url, key=made.key, retries=0) as asking:
        answer = asking.predict("tiny", subset="has-x", measurements=MAX).predictions[0]
        assert isinstance(answer, PredictionAnswer)
        assert answer.estimate == round(answer.estimate, 2)
        with pytest.raises(ForbiddenError, match="scope admin"):
            asking.list_keys()
        asking.predict("tiny", subset="has-x", measurements=MAX)
        with pytest.raises(TooManyRequestsError):
            asking.predict("tiny", subset="has-x", measurements=MAX)
    with Neverseen(url, key=admin) as allowed:
        assert allowed.revoke_key(made.prefix).state == "revoked"
    with Neverseen(url, key=made.key) as asking, pytest.raises(UnauthorisedError, match="revoked"):
        asking.predict("tiny", subset="has-x", measurements=MAX)


@on_sqlite
def test_the_sets_of_a_batch_are_answered_one_by_one(neverseen: Neverseen) -> None:
    deletions: list[BatchItem | Deletion] = [
        BatchItem(id="a\u2028b", delete=Deletion(subset="has-x")),
        Deletion(subset="nothing"),
        BatchItem(id="c", delete=Deletion(documents=[0, 1])),
    ]
    first, second, third = neverseen.predict_batch("tiny", deletions=deletions, measurements=MAX)
    alone = neverseen.predict("tiny", subset="has-x", measurements=MAX)
    assert (first.index, first.id, first.predictions, first.problem) == (0, "a\u2028b", alone.predictions, None)
    assert second.problem is not None
    assert (second.index, second.id, second.problem.status, second.predictions) == (1, None, 404, None)
    assert (third.index, third.id) == (2, "c")


@on_sqlite
@pytest.mark.parametrize("downweight", [1.0, [1.0]])
def test_a_verification_is_waited_for(neverseen: Neverseen, downweight: float | list[float]) -> None:
    answer = neverseen.predict("tiny", units=["0"], measurements=MAX, verify=True, downweight=downweight)
    assert answer.verification is not None
    with pytest.raises(TimeoutError, match="isn't over after 0 seconds"):
        neverseen.wait_for_verification(answer.verification.id, timeout_seconds=0)
    verification = neverseen.wait_for_verification(answer.verification.id, timeout_seconds=60)
    assert verification.state == "finished"
    assert verification.measurements[0].truth is not None
    assert neverseen.list_verifications(limit=1).items == [verification]


@on_sqlite
def test_the_asynchronous_client_asks_the_same(url: str, neverseen: Neverseen) -> None:
    async def asked() -> None:
        async with AsyncNeverseen(url) as waiting:
            one, two = await asyncio.gather(
                waiting.predict("tiny", subset="has-x", measurements=MAX), waiting.get_sketch("tiny")
            )
            assert one.predictions == neverseen.predict("tiny", subset="has-x", measurements=MAX).predictions
            assert two == neverseen.get_sketch("tiny")
            deletions = [Deletion(subset="has-x"), Deletion(units=["nobody"])]
            lines = [line async for line in waiting.predict_batch("tiny", deletions=deletions, measurements=MAX)]
            assert lines == list(neverseen.predict_batch("tiny", deletions=deletions, measurements=MAX))
            documents = [document async for document in waiting.iterate_documents("names")]
            assert documents == list(neverseen.iterate_documents("names"))
            with pytest.raises(NotFoundError):
                await waiting.get_dataset("nothing")
            with pytest.raises(NotFoundError):
                [line async for line in waiting.predict_batch("no", deletions=deletions, measurements=MAX)]
            answer = await waiting.predict("tiny", units=["1"], measurements=MAX, verify=True)
            assert answer.verification is not None
            with pytest.raises(TimeoutError):
                await waiting.wait_for_verification(answer.verification.id, timeout_seconds=0)
            verification = await waiting.wait_for_verification(answer.verification.id, timeout_seconds=60)
            assert verification.state == "finished"

    asyncio.run(asked())
