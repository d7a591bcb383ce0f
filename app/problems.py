"""Every refusal as an answer: RFC 9457, application/problem+json, one shape for all.

Which status an error has is said by the table in `errors`; here are the shape and the handlers. Nothing of a request
that has the wrong form is echoed but the place where it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from app.errors import (
    INTERNAL,
    NO_SUCH_ADDRESS,
    NO_SUCH_METHOD,
    PROBLEM_TYPES_OF_LIBRARIES,
    TOO_LARGE,
    TOO_SLOW,
    VALIDATION,
    AppError,
    ProblemType,
    TooManyRequestsError,
    UnauthorisedError,
    library_problem,
    problem_type,
)
from engine.errors import EngineError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_SECONDS: Final = 5

_MAX_FAULTS: Final = 20
_MAX_FAULT_LENGTH: Final = 200

_OURS: Final = "Value error, "  # pydantic puts it before the message of a validator's ValueError
_UNREADABLE: Final = "There was an error parsing the body"  # FastAPI's, for whatever isn't a mere syntax error
_ROUTING: Final = {
    404: (NO_SUCH_ADDRESS, "There is nothing at this address; /docs lists the addresses."),
    405: (NO_SUCH_METHOD, "This address doesn't have this method; /docs lists those that it has."),
}
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_UNREAD: Final = {kind.status: kind for kind in (TOO_LARGE, TOO_SLOW)}


class Fault(BaseModel):
    """One part of a request that has the wrong form."""

    location: str = Field(description="Where it is, from the outside in: body.delete.documents.0.")
    message: str = Field(description="What is wrong there.")


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(description="Kind of problem, stable for programs to compare: urn:neverseen:problem:SLUG.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, where, and what to change.")
    errors: list[Fault] = Field(description="The parts that have the wrong form (status 422); else empty.")


def problem(kind: ProblemType, detail: str, errors: Sequence[Fault] = ()) -> Problem:
    """A problem of a kind."""
    return Problem(
        type=f"urn:neverseen:problem:{kind.slug}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        errors=list(errors),
    )


def install(app: FastAPI) -> None:
    """Make the application answer every error with a problem.

    The handlers are coroutines: plain functions would wait for a thread, which is what may be short.
    """
    app.add_exception_handler(AppError, _refused)
    app.add_exception_handler(EngineError, _refused)
    for error in PROBLEM_TYPES_OF_LIBRARIES:
        app.add_exception_handler(error, _library_failed)
    app.add_exception_handler(RequestValidationError, _wrong_form)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _crashed)


def _answer(request: Request, body: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    request.state.problem = body.type.rpartition(":")[2]  # for those who observe
    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)} if body.status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return JSONResponse(
        body.model_dump(), status_code=body.status, media_type=MEDIA_TYPE, headers={**retry, **(headers or {})}
    )


async def _refused(request: Request, error: Exception) -> JSONResponse:
    headers = {}
    if isinstance(error, UnauthorisedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(error.retry_after_seconds)
    return _answer(request, problem(problem_type(type(error)), str(error)), headers)


async def _library_failed(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, problem(*library_problem(error)))


async def _crashed(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, problem(INTERNAL, "Something went wrong that shouldn't; the server's log says what."))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.detail == _UNREADABLE:
        fault = Fault(location="body", message="Not JSON in UTF-8, or nested too deeply, or a number is too long.")
        return _answer(request, problem(VALIDATION, f"{fault.location}: {fault.message}", [fault]))
    if error.status_code in _ROUTING:
        headers = {"Allow": ", ".join(_methods(request))} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else {}
        return _answer(request, problem(*_ROUTING[error.status_code]), headers)
    if error.status_code in _UNREAD:
        # What is left of the body isn't read: the connection can't be used again.
        return _answer(request, problem(_UNREAD[error.status_code], error.detail), {"Connection": "close"})
    title = HTTPStatus(error.status_code).phrase
    kind = ProblemType(status=error.status_code, slug=title.lower().replace(" ", "-"), title=title)
    return _answer(request, problem(kind, error.detail), error.headers)


def _methods(request: Request) -> list[str]:
    """Those that the address has, in all of its routes: the one that refused knows its own alone."""
    place = {key: request.scope[key] for key in ("type", "path", "root_path")}
    routes: list[BaseRoute] = request.app.routes
    return [
        one for one in _METHODS if any(route.matches({**place, "method": one})[0] is Match.FULL for route in routes)
    ]


async def _wrong_form(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    faults = [_fault(one, error.body) for one in found[:_MAX_FAULTS]]
    more = "" if len(found) == 1 else f" (and {len(found) - 1} more)"
    detail = f"{faults[0].location}: {faults[0].message}{more}"
    return _answer(request, problem(VALIDATION, detail, faults))


def _fault(error: Mapping[str, Any], body: object) -> Fault:
    location, message = error["loc"], str(error["msg"])
    if error["type"] == "json_invalid":
        location, message = ("body",), f"Not JSON: {error['ctx']['error']} at character {location[-1]}."
    elif location == ("body",) and error["type"].startswith("model_"):
        message = "The body must be a JSON object, and the header Content-Type: application/json must say so."
    elif location[0] == "body":
        location = ("body", *_keys(location[1:], body))
        if error["type"].startswith("union_tag_"):
            location += (error["ctx"]["discriminator"].strip("'"),)
    return Fault(location=_short(".".join(map(str, location))), message=_short(message.removeprefix(_OURS)))


def _keys(location: Sequence[str | int], body: object) -> Iterator[str | int]:
    """The parts of a location that are keys in the body, or are missing there; others name a member of a union."""
    last = len(location) - 1
    for place, part in enumerate(location):
        if isinstance(body, list) and isinstance(part, int):
            body = body[part]
        elif isinstance(body, dict) and (part in body or place == last):
            body = body.get(part)
        else:
            continue
        yield part


def _short(text: str) -> str:
    # A key of the request may be in it: anything of any length, even what UTF-8 can't encode.
    encodable = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return encodable if len(encodable) <= _MAX_FAULT_LENGTH else encodable[: _MAX_FAULT_LENGTH - 1] + "…"
