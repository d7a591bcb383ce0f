"""The OpenAPI document: what each operation may refuse, with examples, in the one shape of all problems.

Descriptions and examples of bodies stand at the schemas and routes themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.types import ASGIApp

from app.errors import (
    CATALOG_AWAY,
    PROBLEM_TYPES_OF_LIBRARIES,
    TOO_LARGE,
    TOO_SLOW,
    VALIDATION,
    AppError,
    DeadlineError,
    ForbiddenError,
    TooManyRequestsError,
    UnauthorisedError,
    problem_type,
)
from app.metrics import Metrics
from app.observation import Observed
from app.problems import MEDIA_TYPE, Fault, Problem, problem
from app.schemas import Answer, RequestBody
from app.schemas.batch import BatchAnswer
from app.schemas.opendsr import OldSubjectRequest, SubjectRequest
from engine.errors import EngineError

Responses = dict[int | str, dict[str, Any]]

DESCRIPTION: Final = """\
How would a model behave had some documents not been in its training data?

A *dataset* holds documents in training order. A *unit* is the smallest thing that can be deleted: a document, or all
documents of a subject. A *subset* is a named deletion set. A *sketch* is precomputed from the training run; its
current *version* answers questions. `POST /predict` is the question: a sketch, what to delete, and what to measure. A
*verification* retrains the model afterwards, and says how right the answer was.

Deleted means: the documents' losses are multiplied by zero in the same training schedule. Each answer names the
estimator that gave it. Standard errors and intervals are calibrated on models that were really retrained while the
sketch was built; of a sketch of random directions alone they come from the directions and from what is left out of the
expansion. A set that the model was retrained without is answered exactly (`"estimator": "retrained"`).

Every answer carries `X-Request-ID`, the request's own or a new one; under it the audit knows the answer.

Every refusal is a problem (RFC 9457) of one shape, with the media type `application/problem+json`.
"""

TAGS: Final = [
    {"name": "predict", "description": "The question that everything else serves."},
    {"name": "verifications", "description": "Answers beside the truth: the model retrained without what was deleted."},
    {"name": "datasets", "description": "Documents and units; a dataset never changes."},
    {"name": "subsets", "description": "Named deletion sets of a dataset."},
    {"name": "sketches", "description": "Sketches and their versions; they are built and registered offline."},
    {"name": "erasure requests", "description": "A person's request, from its arrival to the evidence that is filed."},
    {"name": "reports", "description": "What is measured for a request."},
    {"name": "connections", "description": "Privacy backends: who sends requests, and who is told of them."},
    {"name": "deliveries", "description": "Messages to privacy backends."},
    {"name": "fides", "description": "What Fides calls: its policy webhooks."},
    {"name": "opendsr", "description": "What controllers of OpenDSR 2.0 call, and of OpenGDPR 1.0."},
    {"name": "transcend", "description": "What Transcend calls: its server webhook."},
    {"name": "ketch", "description": "What Ketch's forwarder calls."},
    {"name": "keys", "description": "Who may ask what."},
    {"name": "audit", "description": "What was asked and changed: records chained by hashes."},
    {"name": "health", "description": "For those who run the service."},
]


_SECURITY_SCHEMES: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer KEY`. `neverseen keys create` and `POST /keys` make keys. A service"
        " that listens to its own machine alone needs none until the first is made.",
    },
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, `X-API-Key: KEY`."},
}
_REFUSED_BY_GUARD: Final = (
    UnauthorisedError("A key is needed: send Authorization: Bearer KEY. `neverseen keys create` makes one."),
    ForbiddenError("The key doesn't have the scope catalog:write; it has predict."),
    TooManyRequestsError("This key may make 600 requests a minute; 1 more are too many now.", retry_after_seconds=1),
    DeadlineError("This took longer than 60 seconds. Try again later, or ask for less."),
)

_REQUEST_ID: Final = {
    "description": "The request's own X-Request-ID, or that of its traceparent, or a new one.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"},
}
_RETRY_AFTER: Final = {
    "Retry-After": {"description": "In seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}
}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": {"description": "Bearer", "required": True, "schema": {"const": "Bearer"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}

LOCATED: Final[Responses] = {
    201: {
        "headers": {
            "Location": {"description": "Address of what was made.", "required": True, "schema": {"type": "string"}}
        }
    }
}
"""What an operation that makes something with an address of its own answers, beside the body."""

WRONG_PAGE: Final = "query.limit: Input should be less than or equal to 1000"
WRONG_NAME: Final = "path.dataset: String should match pattern '^[a-z0-9][a-z0-9._-]{0,63}$'"


class Application(FastAPI):
    """FastAPI, observed from outside.

    Its OpenAPI document has the schema of problems, what every guarded operation may refuse, and docstrings' first
    sentences as summaries.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.metrics = Metrics()

    def build_middleware_stack(self) -> ASGIApp:
        """The application with the observer around it, so that what crashes is seen, too."""
        return Observed(super().build_middleware_stack(), self.metrics)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made at the first call."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            for model in (Problem, BatchAnswer, SubjectRequest, OldSubjectRequest):
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
            _put_back_examples(schemas)
            document["components"]["securitySchemes"] = _SECURITY_SCHEMES
            document["components"]["headers"] = {"X-Request-ID": _REQUEST_ID}
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["summary"] = operation["description"].partition(".")[0].partition(":")[0]
                    if "security" in operation:
                        _declare_guard(operation)
                    for answer in operation["responses"].values():
                        answer.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
            self.openapi_schema = document
        return self.openapi_schema


def _declare_guard(operation: dict[str, Any]) -> None:
    """Add what the guard of every such operation may refuse, beside what the operation itself does."""
    for status, answer in declared(*_REFUSED_BY_GUARD, slow="requestBody" in operation, catalog=False).items():
        own = operation["responses"].setdefault(str(status), answer)
        own["content"][MEDIA_TYPE]["examples"] |= answer["content"][MEDIA_TYPE]["examples"]
    operation["responses"] = dict(sorted(operation["responses"].items()))
    operation["description"] += f"\n\nScope of the key: `{operation['x-scope']}`."


def _put_back_examples(schemas: dict[str, Any]) -> None:
    """Have examples as they are written: FastAPI leaves out what is null in the document, be it in an example."""
    classes: list[type[BaseModel]] = [Answer, RequestBody]
    for one in classes:  # which grows meanwhile
        classes += one.__subclasses__()
        extra = one.model_config.get("json_schema_extra")
        if one.__name__ in schemas and isinstance(extra, dict) and "examples" in extra:
            schemas[one.__name__]["examples"] = extra["examples"]


def declared(
    *errors: AppError | EngineError,
    wrong: str | None = None,
    body: bool = False,
    slow: bool = False,
    catalog: bool = True,
) -> Responses:
    """The errors of an operation, for its entry in the document.

    Args:
        errors: examples of what it refuses, with their messages.
        wrong: an example of what has the wrong form, "place: message"; None where it takes no input.
        body: whether it takes a body, which may be too large.
        slow: whether it takes one that may be too slow.
        catalog: whether it needs the catalog's database.
    """
    problems = [problem(problem_type(type(error)), str(error)) for error in errors]
    if wrong is not None:
        location, _, message = wrong.partition(": ")
        problems.append(problem(VALIDATION, wrong, [Fault(location=location, message=message)]))
    if body:
        problems.append(problem(TOO_LARGE, "The body is larger than 16777216 bytes; send less at once."))
    if slow:
        problems.append(problem(TOO_SLOW, "The body didn't arrive within 15 seconds."))
    if catalog:
        problems.append(problem(*next(row for row in PROBLEM_TYPES_OF_LIBRARIES.values() if row[0] is CATALOG_AWAY)))
    by_status: dict[int, list[Problem]] = {}
    for one in problems:
        by_status.setdefault(one.status, []).append(one)
    return {status: _response(by_status[status]) for status in sorted(by_status)}


def _response(problems: Sequence[Problem]) -> dict[str, Any]:
    titles = dict.fromkeys(one.title for one in problems)
    examples = {one.type.rpartition(":")[2]: {"summary": one.title, "value": one.model_dump()} for one in problems}
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": "; ".join(titles),
        "headers": dict(_HEADERS.get(problems[0].status, {})),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
