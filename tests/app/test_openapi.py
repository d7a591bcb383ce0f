"""The OpenAPI document: every operation is described, has examples that are true, and declares its errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi import APIRouter, FastAPI
from pydantic import TypeAdapter

from app import schemas
from app.catalog import SCOPES
from app.guard import Guarded
from app.main import create_app
from app.problems import MEDIA_TYPE, Problem
from app.schemas import Answer, RequestBody
from app.settings import Settings

APP: FastAPI = create_app(Settings(data_dir=Path("unused")))
DOCUMENT: dict[str, Any] = APP.openapi()
OPERATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    operation["operationId"]: (method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}

OPEN = {"healthz", "readyz", "metrics"}
"""Operations that need no key."""

OPENDSR = {name for name, (_, _, operation) in OPERATIONS.items() if "opendsr" in operation["tags"]}
"""Operations whose callers show a connection's credential, and whose refusals have that protocol's shape."""

WEBHOOKS = {"fides_pre", "fides_post", "fides_pre_approval", "transcend_job", "ketch_delete"}
"""Operations whose callers show a connection's credential, and that refuse as all others do."""

PEERS = {name for name, (_, _, one) in OPERATIONS.items() if {"fides", "transcend", "ketch"} & set(one["tags"])}
"""Operations whose callers show a connection's credential, or as their protocol has it, rather than a key."""

every_operation = pytest.mark.parametrize("name", OPERATIONS)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, or the component that it refers to."""
    if "$ref" not in schema:
        return schema
    component: dict[str, Any] = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return component


def bodies(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas of what an operation takes and what it answers when all is well."""
    if "requestBody" in operation:
        yield operation["requestBody"]["content"]["application/json"]["schema"]
    for status, response in operation["responses"].items():
        if status.startswith("2") and "content" in response:
            [content] = response["content"].values()
            yield content["schema"]


def test_the_operations_are_these() -> None:
    assert set(OPERATIONS) == {
        "predict",
        "attribute",
        "check_calibration",
        "sample",
        "list_verifications",
        "get_verification",
        "list_datasets",
        "create_dataset",
        "get_dataset",
        "list_documents",
        "list_units",
        "resolve_deletion",
        "list_subsets",
        "create_subset",
        "get_subset",
        "list_sketches",
        "get_sketch",
        "list_sketch_versions",
        "get_sketch_version",
        "get_build",
        "promote_version",
        "rollback_version",
        "retire_version",
        "delete_version",
        "predict_batch",
        "list_keys",
        "create_key",
        "revoke_key",
        "list_audit_records",
        "create_erasure_request",
        "list_erasure_requests",
        "get_erasure_request",
        "cancel_erasure_request",
        "retry_erasure_request",
        "get_evidence",
        "get_evidence_page",
        "list_reports",
        "set_report",
        "remove_report",
        "list_connections",
        "create_connection",
        "get_connection",
        "change_connection",
        "rotate_connection",
        "disable_connection",
        "enable_connection",
        "list_deliveries",
        "get_delivery",
        "replay_delivery",
        *WEBHOOKS,
        "opendsr_discovery",
        "opendsr_certificate",
        "opendsr_create_request",
        "opendsr_get_request",
        "opendsr_get_status",
        "opendsr_cancel_request",
        "opengdpr_create_request",
        "opengdpr_get_request",
        "opengdpr_cancel_request",
        "ketch_delete",
        *OPEN,
    }


@every_operation
def test_an_operation_is_described(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    assert operation["description"].endswith(".")
    assert 10 < len(operation["summary"]) < 100
    assert operation["tags"]
    assert all(parameter["description"] for parameter in operation.get("parameters", ()))


@every_operation
def test_what_an_operation_takes_and_answers_has_an_example(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    for schema in bodies(operation):
        assert name == "metrics" or resolved(schema)["examples"], schema
    for parameter in operation.get("parameters", ()):
        assert parameter["in"] == "query" or parameter["examples"], parameter


@pytest.mark.parametrize("name", sorted(OPENDSR))
def test_an_operation_of_opendsr_declares_refusals_in_its_own_shape_and_the_services_in_the_one(name: str) -> None:
    _, path, operation = OPERATIONS[name]
    own, services = {"400", "401", "404"}, {"408", "413", "503", "default"}
    errors = {status: answer for status, answer in operation["responses"].items() if not status.startswith("2")}
    for status, answer in errors.items():
        [(media_type, content)] = answer["content"].items()
        if status in own:
            assert media_type == "application/json"
            assert content["schema"] == {"$ref": "#/components/schemas/RefusalAnswer"}
        else:
            assert (media_type, content["schema"]) == (MEDIA_TYPE, {"$ref": "#/components/schemas/Problem"})
    assert set(errors) <= own | services
    assert {"503", "default"} <= set(errors)
    assert ({"400", "401"} <= set(errors)) == (path not in {"/v2/discovery", "/v2/certificate"})
    assert ("404" in errors) == ("requestBody" not in operation)
    assert ({"408", "413"} <= set(errors)) == ("requestBody" in operation)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in OPENDSR])
def test_an_operation_declares_its_errors_in_the_one_shape(name: str) -> None:
    method, _, operation = OPERATIONS[name]
    errors = {int(status): answer for status, answer in operation["responses"].items() if not status.startswith("2")}
    for status, answer in errors.items():
        assert set(answer["content"]) == {MEDIA_TYPE}
        assert answer["content"][MEDIA_TYPE]["schema"] == {"$ref": "#/components/schemas/Problem"}
        for example in answer["content"][MEDIA_TYPE]["examples"].values():
            assert Problem.model_validate(example["value"]).status == status
            assert example["value"]["type"].startswith("urn:neverseen:problem:")
    if name not in {"healthz", "metrics"}:
        assert 503 in errors
    assert ({401, 403, 429} <= set(errors)) == (name not in OPEN | WEBHOOKS)
    assert (401 in errors) == (name not in OPEN)
    if operation.get("parameters") or "requestBody" in operation:
        assert 422 in errors
    named = any(parameter["in"] == "path" for parameter in operation.get("parameters", ())) and name not in PEERS
    if named or name == "predict":
        assert 404 in errors
    if "requestBody" in operation:
        assert {408, 413} <= set(errors)
    if method == "post" and "requestBody" in operation:
        assert {400, 409} <= set(errors)


@every_operation
def test_an_operation_says_which_key_it_needs(name: str) -> None:
    _, _, operation = OPERATIONS[name]
    if name in OPEN | OPENDSR | WEBHOOKS:
        assert "security" not in operation
        return
    assert operation["x-scope"] in SCOPES
    assert [set(way) for way in operation["security"]] == [{"bearer"}, {"header"}]
    assert set(DOCUMENT["components"]["securitySchemes"]) == {"bearer", "header"}


def test_an_operation_that_names_no_scope_cant_be_made() -> None:
    router = APIRouter(route_class=Guarded)
    declare = router.get("/open")
    with pytest.raises(KeyError):
        declare(lambda: None)


def test_no_error_is_declared_as_plain_json() -> None:
    assert "HTTPValidationError" not in DOCUMENT["components"]["schemas"]


def schema_classes(root: type[RequestBody] | type[Answer]) -> Iterator[type[RequestBody] | type[Answer]]:
    for child in root.__subclasses__():
        if not child.__pydantic_generic_metadata__["parameters"]:
            yield child
        yield from schema_classes(child)


EXAMPLES = [
    pytest.param(cls, example, id=f"{cls.__name__}-{index}")
    for root in (RequestBody, Answer)
    for cls in schema_classes(root)
    for index, example in enumerate(DOCUMENT["components"]["schemas"].get(cls.__name__, {}).get("examples", ()))
]


@pytest.mark.parametrize(("cls", "example"), EXAMPLES)
def test_an_example_has_the_form_that_it_shows(cls: type[schemas.Answer], example: dict[str, Any]) -> None:
    given = cls.model_validate(example, by_name=True, by_alias=False)
    assert given.model_dump(mode="json", exclude_unset=True) == example


def test_the_examples_are_some() -> None:
    assert len(EXAMPLES) >= 14


@pytest.mark.parametrize("cls", sorted(schema_classes(Answer), key=str))
def test_an_answer_leaves_nothing_out(cls: type[Answer]) -> None:
    assert [name for name, field in cls.model_fields.items() if not field.is_required()] == []


@pytest.mark.parametrize("cls", sorted(schema_classes(RequestBody), key=str))
def test_a_request_describes_its_fields_and_refuses_others(cls: type[RequestBody]) -> None:
    assert cls.model_config["extra"] == "forbid"
    for name, field in cls.model_fields.items():
        describes_itself = isinstance(field.annotation, type) or len(get_args(field.annotation)) == 1  # a constant
        assert field.description or describes_itself, name


@every_operation
def test_every_parameter_name_of_a_path_is_taken_by_its_route(name: str) -> None:
    _, path, operation = OPERATIONS[name]
    taken = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
    assert taken == set(re.findall(r"{(\w+)}", path))


def test_the_document_is_made_once() -> None:
    assert APP.openapi() is DOCUMENT
    assert TypeAdapter(dict[str, Any]).dump_json(DOCUMENT)
