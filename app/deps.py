"""What routes depend on: sessions, the predictor, and parameters that several routes take.

What blocks, as a session does, is a plain function, which FastAPI runs in a thread; what only reads an attribute is
`async`, which saves the way to a thread and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final
from uuid import UUID

from fastapi import Depends, Path, Query, Request
from sqlalchemy.orm import Session

from app.catalog.matching import MAX_PATTERN_LENGTH
from app.db import transaction
from app.guard import actor_of
from app.names import NAME_PATTERN
from app.predictor import Predictor

_MAX_SQL_INTEGER: Final = 2**31 - 1


def get_session(request: Request) -> Iterator[Session]:
    """A transaction that reads."""
    with transaction(request.app.state.database, writes=False) as session:
        yield session


def get_writing_session(request: Request) -> Iterator[Session]:
    """A transaction that writes: committed before the answer is sent, or not at all."""
    with transaction(request.app.state.database, actor=actor_of(request)) as session:
        yield session


async def get_predictor(request: Request) -> Predictor:
    """The application's predictor."""
    predictor: Predictor = request.app.state.predictor
    return predictor


# Of scope "function", for otherwise the commit would come after the answer, and a failed one would have answered 200.
Reading = Annotated[Session, Depends(get_session, scope="function")]
Writing = Annotated[Session, Depends(get_writing_session, scope="function")]
ThePredictor = Annotated[Predictor, Depends(get_predictor)]


def _name(what: str, example: str) -> object:
    return Path(pattern=NAME_PATTERN, description=f"Name of the {what}.", openapi_examples={"demo": {"value": example}})


KeyPrefix = Annotated[
    str,
    Path(
        pattern=r"^[a-z0-9]{8}$",
        description="What the key begins with, behind nvs_.",
        openapi_examples={"demo": {"value": "k7d2m9qa"}},
    ),
]
DatasetName = Annotated[str, _name("dataset", "census-names")]
SubsetName = Annotated[str, _name("subset", "has-x")]
SketchName = Annotated[str, _name("sketch", "names")]
VersionNumber = Annotated[
    int, Path(ge=1, le=_MAX_SQL_INTEGER, description="Number of the version.", openapi_examples={"demo": {"value": 1}})
]
VerificationId = Annotated[
    UUID,
    Path(
        description="Id of the verification, as the answer to the question gave it.",
        openapi_examples={"demo": {"value": "6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11"}},
    ),
]
SubsetFilter = Annotated[
    str | None, Query(alias="subset", pattern=NAME_PATTERN, description="Only those that this subset deletes.")
]
Contains = Annotated[
    str | None, Query(min_length=1, max_length=200, description="Only those with this substring; case counts.")
]
Matches = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_PATTERN_LENGTH,
        description="Only those in which this regular expression of Python's finds a match; without contains.",
    ),
]
NameContains = Annotated[
    str | None,
    Query(
        alias="contains", min_length=1, max_length=200, description="Only those with this in their name; case counts."
    ),
]
Limit = Annotated[int, Query(ge=1, le=1000, description="The most items to answer.")]
Offset = Annotated[int, Query(ge=0, le=_MAX_SQL_INTEGER, description="How many items to leave out before them.")]
