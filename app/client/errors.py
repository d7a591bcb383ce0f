"""What the client raises: every refusal of the service, and whatever else keeps an answer from arriving.

The classes are named as those of `app.errors`, which the service raises, but are others: they are made of answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import responses
from typing import Final

import httpx
from pydantic import ValidationError

from app.errors import VALIDATION
from app.problems import MEDIA_TYPE, Fault, Problem, problem

_SHOWN: Final = 200
_OURS: Final = "Value error, "  # pydantic puts it before the message of a validator's ValueError


class NeverseenError(Exception):
    """Root of all that the client raises.

    Attributes:
        problem: what the service said (RFC 9457). Where no problem was answered, one of the type "about:blank".
        status: of the answer; None where there was none.
        request_id: under which the service's log and audit know the request; None where it is unknown.
    """

    def __init__(self, problem: Problem, *, status: int | None = None, request_id: str | None = None) -> None:
        hint = f" (request {request_id})" if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR and request_id else ""
        super().__init__(problem.detail + hint)
        self.problem, self.status, self.request_id = problem, status, request_id


class InvalidRequestError(NeverseenError, ValueError):
    """A request that has the wrong form or can't be answered, refused by the service or before it was sent."""


class UnauthorisedError(NeverseenError):
    """A request without a key that is valid."""


class ForbiddenError(NeverseenError):
    """A request that its key doesn't allow."""


class NotFoundError(NeverseenError):
    """A name that the service doesn't know."""


class ConflictError(NeverseenError):
    """A request that contradicts what is there, or that another one overtook."""


class TooManyRequestsError(NeverseenError):
    """More requests of a key than it may make in this time."""


class UnavailableError(NeverseenError):
    """A service that can't be reached, or can't answer now, after all tries."""


_CLASSES: Final[dict[int, type[NeverseenError]]] = {
    400: InvalidRequestError,
    401: UnauthorisedError,
    403: ForbiddenError,
    404: NotFoundError,
    408: UnavailableError,
    409: ConflictError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: TooManyRequestsError,
    502: UnavailableError,
    503: UnavailableError,
    504: UnavailableError,
}


def refusal_of(response: httpx.Response) -> NeverseenError:
    """The error of an answer that isn't a success; its body was read."""
    said = problem_of(response) or _blank(response.status_code, _what_was_said(response))
    request_id = response.headers.get("x-request-id")
    return _CLASSES.get(response.status_code, NeverseenError)(said, status=response.status_code, request_id=request_id)


def problem_of(response: httpx.Response) -> Problem | None:
    """The problem that was answered; None where the answer, of a proxy say, is something else."""
    if response.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
        return None
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None


def unexpected(response: httpx.Response, what: str) -> NeverseenError:
    """The error of a success whose body isn't what this version of the client knows."""
    return NeverseenError(
        _blank(response.status_code, f"{what} Is this a Neverseen service, of about this client's version?"),
        status=response.status_code,
        request_id=response.headers.get("x-request-id"),
    )


def invalid(error: ValidationError) -> InvalidRequestError:
    """The error of arguments that no request can be made of, in the words of the service."""
    faults = [
        Fault(
            location=".".join(map(str, one["loc"])) or "arguments",
            message=one["msg"].removeprefix(_OURS),
        )
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = "" if len(faults) == 1 else f" (and {len(faults) - 1} more)"
    return InvalidRequestError(problem(VALIDATION, f"{faults[0].location}: {faults[0].message}{more}", faults))


def invalid_argument(name: str, message: str) -> InvalidRequestError:
    """The error of one argument."""
    return InvalidRequestError(
        problem(VALIDATION, f"{name}: {message}", [Fault(location=name, message=message)]),
    )


def unavailable(detail: str) -> UnavailableError:
    """The error of an answer that didn't arrive, or not whole."""
    return UnavailableError(_blank(HTTPStatus.SERVICE_UNAVAILABLE, detail))


@contextmanager
def arriving(url: httpx.URL) -> Iterator[None]:
    """Whatever keeps an answer of a service from arriving becomes an `UnavailableError`."""
    where = f"{url.scheme}://{url.netloc.decode('ascii')}"  # without a user and password
    try:
        yield
    except httpx.TimeoutException as error:
        raise unavailable(f"{where} didn't answer in time ({type(error).__name__}).") from error
    except httpx.HTTPError as error:
        said = f"{type(error).__name__}: {error}".removesuffix(": ").removesuffix(".")
        raise unavailable(f"{where} can't be reached, or broke off: {said}.") from error


def _blank(status: int, detail: str) -> Problem:
    title = responses.get(status, "Unknown")
    return Problem(type="about:blank", title=title, status=status, detail=detail, errors=[])


def _what_was_said(response: httpx.Response) -> str:
    """A line on an answer that no service of ours gives."""
    text = " ".join(response.text.split())
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    # JSON's quotes keep control characters from a terminal.
    return f"Status {response.status_code} from something other than this service: {json.dumps(text)}"
