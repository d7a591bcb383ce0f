"""What a request of the API is, before it is sent: both clients send the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from app.client.errors import invalid, invalid_argument
from app.names import is_name
from app.schemas import Answer, PageAnswer, RequestBody

T_co = TypeVar("T_co", covariant=True)
Item = TypeVar("Item", bound=Answer)
Form = TypeVar("Form", bound=BaseModel)

Repeat: TypeAlias = Literal["freely", "if undone", "never"]
"""When a request is sent again: whatever went wrong, since twice is as good as once; only where it is certain that
nothing was done; not at all."""

MOST_ITEMS: Final = 1_000
"""Of a page: the most that the service answers."""


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[T_co]):
    """A request of one of the API's operations.

    Attributes:
        id: of the operation, in the API's document.
        method: of HTTP.
        path: of the address, quoted.
        query: parameters of the address.
        body: JSON; None where there is none.
        repeat: when it is sent again.
        read: from the body of a success to the answer; refuses another form with a ValidationError.
    """

    id: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    read: Callable[[bytes], T_co]
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: bytes | None = None
    repeat: Repeat = "freely"


@dataclass(frozen=True, kw_only=True)
class Lines(Generic[T_co]):
    """A request that is answered in lines, as many as are known before.

    Attributes:
        operation: whose `read` takes one line.
        count: of the lines.
    """

    operation: Operation[T_co]
    count: int


class Pages(Protocol[Item]):
    """A list: what asks for a part of it."""

    def __call__(self, *, limit: int, offset: int) -> Operation[PageAnswer[Item]]:
        """The request of a page."""


def checked(form: type[Form], **values: Any) -> Form:
    """What of a body has this form.

    Raises:
        InvalidRequestError: the values don't have the form.
    """
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None


def body_of(form: type[RequestBody], **values: Any) -> bytes:
    """A body of a form, with what differs from its defaults.

    Raises:
        InvalidRequestError: the values don't have the form.
    """
    body = checked(form, **values)
    try:
        return body.model_dump_json(exclude_defaults=True).encode()
    except PydanticSerializationError:
        raise invalid_argument("arguments", "a text holds half of a surrogate pair, which can't be sent") from None


def path_of(template: str, **parts: str | int | UUID) -> str:
    """An address with its parts filled in.

    Raises:
        InvalidRequestError: a part is text and no name, so that it would make another address.
    """
    for name, part in parts.items():
        if isinstance(part, str) and not is_name(part):
            raise invalid_argument(
                name,
                "use 1 to 64 small letters, digits, dots, dashes and underscores, beginning with a letter or digit",
            )
    return template.format(**{name: quote(str(part), safe="") for name, part in parts.items()})


def query_of(**parameters: str | int | None) -> dict[str, str | int]:
    """The parameters that are given."""
    return {name: value for name, value in parameters.items() if value is not None}


def reader(form: type[Form]) -> Callable[[bytes], Form]:
    """What reads an answer of a form.

    Answers are made of rows, which have other names inside; what was sent goes by the fields' own.
    """
    return lambda content: form.model_validate_json(content, by_name=True, by_alias=False)


def got(id: str, path: str, form: type[Form], **query: str | int | None) -> Operation[Form]:
    """A request that reads.

    Args:
        id: of the operation.
        path: of the address, quoted.
        form: of the answer.
        query: parameters of the address; those that are None are left out.
    """
    return Operation(id=id, method="GET", path=path, query=query_of(**query), read=reader(form))
