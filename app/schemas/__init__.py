"""Bodies of requests and answers, one file a resource, each with an example that works on the demo.

A request refuses keys that it doesn't know; an answer has no defaults, so nothing is left out by forgetting it. What
needs the catalog or a sketch to be decided isn't decided here.
"""

from __future__ import annotations

from typing import Annotated, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field
from pydantic.config import JsonDict

from app.names import NAME_PATTERN

Name = Annotated[str, Field(pattern=NAME_PATTERN, description="Small letters, digits, dots, dashes and underscores.")]
VersionNumber = Annotated[
    int | None, Field(strict=True, ge=1, le=2**31 - 1, description="Null is the current version.")
]
DocumentNumber = Annotated[int, Field(strict=True)]

MOST_NAMED: Final = 1_000_000
"""Documents or units that one list may name."""

# Of a long list the first fault is told: to tell hundreds of thousands takes seconds, in which nobody is served.
DocumentNumbers = Annotated[list[DocumentNumber] | None, FailFast(), Field(max_length=MOST_NAMED)]
UnitNames = Annotated[list[str] | None, FailFast(), Field(max_length=MOST_NAMED)]

Item = TypeVar("Item", bound="Answer")


class RequestBody(BaseModel):
    """A body that a client sends."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Answer(BaseModel):
    """A body that a client gets, made of the attributes of a row or of another object."""

    model_config = ConfigDict(from_attributes=True, allow_inf_nan=False)


class PageAnswer(Answer, Generic[Item]):
    """A part of a list, made of the catalog's page."""

    items: list[Item]
    total: int = Field(description="Length of the whole list.")
    limit: int = Field(description="The most items of a page, as asked.")
    offset: int = Field(description="How many items come before this page, as asked.")


def exactly_one(**types: str) -> JsonDict:
    """What the schema of a form says of which exactly one of some fields has a value; null is none.

    Args:
        types: of the fields' values, by their names.
    """
    return {"oneOf": [{"required": [name], "properties": {name: {"type": type_}}} for name, type_ in types.items()]}


def example_page(example: JsonDict, *, total: int = 1) -> ConfigDict:
    """The configuration of a page's class: its example holds this item's."""
    value: JsonDict = {"items": [example], "total": total, "limit": 50, "offset": 0}
    return ConfigDict(json_schema_extra={"examples": [value]})
