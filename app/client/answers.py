"""What both clients do with what comes back, and how their methods are made of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import Signature, signature
from time import monotonic
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import httpx
from pydantic import ValidationError

from app.client.errors import refusal_of, unexpected
from app.client.operation import Lines, Operation
from app.schemas.batch import BatchAnswer
from app.schemas.verifications import VerificationAnswer

_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 5.0

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


def answer_of(operation: Operation[T], response: httpx.Response) -> T:
    """The answer, of a response that was read.

    Raises:
        NeverseenError: it is a refusal, or has a form that isn't known.
    """
    if not response.is_success:
        raise refusal_of(response)
    return _read(operation, response, response.content)


class ReadLines(Generic[T]):
    """Takes the bytes of a response as they come, and gives whole lines. A line ends with LF, and nothing else."""

    def __init__(self, lines: Lines[T], response: httpx.Response) -> None:
        """Nothing has come yet.

        Args:
            lines: what was asked.
            response: whose status is known.
        """
        self._lines, self._response = lines, response
        self._begun = b""
        self.count = 0

    def take(self, content: bytes) -> Iterator[T]:
        """The lines that are whole with these bytes.

        Raises:
            NeverseenError: one has a form that isn't known, or none was expected.
        """
        *whole, self._begun = (self._begun + content).split(b"\n")
        for line in whole:
            self.count += 1
            if self.count > self._lines.count:
                raise unexpected(self._response, f"There are more than the {self._lines.count:,} answers asked for.")
            answer = _read(self._lines.operation, self._response, line)
            if isinstance(answer, BatchAnswer) and answer.index != self.count - 1:
                raise unexpected(self._response, f"Answer {answer.index:,} comes at place {self.count - 1:,}.")
            yield answer

    def end(self) -> None:
        """All has come.

        Raises:
            NeverseenError: that isn't as many lines as were expected.
        """
        if self._begun or self.count != self._lines.count:
            raise unexpected(self._response, f"It ended after {self.count:,} of {self._lines.count:,} answers.")


def is_over(verification: VerificationAnswer) -> bool:
    """Whether nothing more will become of it."""
    return verification.state in {"finished", "failed"}


def pauses(seconds: float) -> Iterator[float]:
    """How long to wait between looks, in seconds, until the time is over."""
    end, pause = monotonic() + seconds, _FIRST_PAUSE_SECONDS
    while (left := end - monotonic()) > 0:
        yield min(pause, left)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def not_over(verification: UUID, seconds: float) -> TimeoutError:
    """The error of a verification that takes too long."""
    return TimeoutError(f"The verification {verification} isn't over after {seconds:g} seconds.")


def as_method(method: Method, described: Callable[..., object]) -> Method:
    """The method, with name, description and arguments of the function that it is made of."""
    method.__name__ = described.__name__
    method.__qualname__ = described.__name__
    method.__doc__ = described.__doc__
    arguments = signature(described)
    [itself, *_] = signature(method).parameters.values()
    own: Any = method
    own.__signature__ = arguments.replace(
        parameters=[itself, *arguments.parameters.values()], return_annotation=Signature.empty
    )
    return method


def _read(operation: Operation[T], response: httpx.Response, content: bytes) -> T:
    try:
        return operation.read(content)
    except (ValidationError, UnicodeDecodeError):
        raise unexpected(response, f"The answer to {operation.id} has a form that isn't known here.") from None
