"""How requests are sent: with which headers, how patiently, and again when they were refused or lost.

A request is sent again after the service's `Retry-After`, or after a random time that doubles. Where twice is as good
as once, that is done whatever went wrong on the way; else only where it is certain that nothing was done: no connection
was made, or the service itself refused to begin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

import httpx
from httpx_retries import Retry

from app.client.errors import invalid_argument, problem_of
from app.client.operation import Operation, Repeat
from app.errors import DeadlineError, problem_type

MOST_WAIT_SECONDS: Final = 60.0
"""Of one request, all tries together, where the service says how long. What a key may ask in a minute is there again
after a minute: a service that says to wait longer, or still refuses then, was asked for more than it ever allows."""

_CONNECT_SECONDS: Final = 10.0
_BACKOFF_SECONDS: Final = 0.25  # times 2, 4, 8 …, times a random number below 1
_REFUSED: Final = frozenset({429, 503})  # by the service; proxies say the others, whatever became of the request
_PASSING: Final = _REFUSED | {502, 504}
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout)
_LOST: Final = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
_TRIES: Final = "neverseen.tries"
_DEADLINE: Final = f"urn:neverseen:problem:{problem_type(DeadlineError).slug}"


class _SendAgainError(Exception):
    """An answer after which the request is sent again; it never leaves the transport."""


@dataclass(kw_only=True)
class _Tries:
    """What a request carries along: when it is sent again, and how long the service had it wait."""

    repeat: Repeat
    waited_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """Where a service is, and how it is asked.

    Attributes:
        url: its address.
        headers: of every request.
        timeout: of every request.
        retries: how often a request is sent again, at most.
    """

    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)  # they may hold a key
    timeout: httpx.Timeout
    retries: int

    @classmethod
    def at(
        cls, url: str, *, key: str | None, timeout_seconds: float, retries: int, headers: Mapping[str, str] | None
    ) -> Service:
        """The service at an address.

        Raises:
            InvalidRequestError: the address isn't one of HTTP, or the key can't be one.
        """
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL()
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise invalid_argument("url", "give the service's address, such as http://127.0.0.1:8000")
        sent = {"User-Agent": f"neverseen/{version('neverseen')}", **(headers or {})}
        if key is not None:
            if not (key and key.isascii() and key.isprintable() and " " not in key):
                raise invalid_argument("key", "not a key: keys begin with nvs_ and have 56 characters")
            sent["Authorization"] = f"Bearer {key}"
        timeout = httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECT_SECONDS))
        return cls(url=parsed, headers=sent, timeout=timeout, retries=retries)

    def options(self) -> dict[str, Any]:
        """What httpx' clients are made with."""
        return {"base_url": self.url, "headers": self.headers, "timeout": self.timeout}

    def request(self, operation: Operation[Any], check: Callable[[httpx.Response], Awaitable[None] | None]) -> Any:
        """What httpx' clients send for an operation.

        Args:
            operation: what is asked.
            check: `check_answer`, or `check_answer_async`.
        """
        again = operation.repeat != "never"
        retry = Retry(
            total=self.retries if again else 0,
            allowed_methods=["GET", "POST", "PUT", "DELETE"],
            status_forcelist=[0],  # no status: `check` looks at more than that
            retry_on_exceptions=[*(_LOST if operation.repeat == "freely" else _NOT_SENT), _SendAgainError],
            backoff_factor=_BACKOFF_SECONDS,
            max_backoff_wait=MOST_WAIT_SECONDS,
            validate_response=check,
        )
        return {
            "method": operation.method,
            "url": operation.path.removeprefix("/"),
            "params": operation.query,
            "content": operation.body,
            "headers": {} if operation.body is None else {"Content-Type": "application/json"},
            "extensions": {"retry": retry, _TRIES: _Tries(repeat=operation.repeat)},
        }


def check_answer(response: httpx.Response) -> None:
    """Have the request sent again, where its answer says that this may help."""
    if response.status_code in _PASSING:
        response.read()
        _check_refusal(response)


async def check_answer_async(response: httpx.Response) -> None:
    """The same, for the asynchronous client."""
    if response.status_code in _PASSING:
        await response.aread()
        _check_refusal(response)


def _check_refusal(response: httpx.Response) -> None:
    tries: _Tries = response.request.extensions[_TRIES]
    said = problem_of(response)
    # Of a request that took too long, the service stopped waiting for what it had begun.
    undone = said is not None and response.status_code in _REFUSED and said.type != _DEADLINE
    tries.waited_seconds += _seconds_to_wait(response)
    if (tries.repeat == "freely" or undone) and tries.waited_seconds <= MOST_WAIT_SECONDS:
        raise _SendAgainError


def _seconds_to_wait(response: httpx.Response) -> float:
    with suppress(ValueError):
        return Retry().parse_retry_after(response.headers.get("Retry-After", ""))
    return 0.0
