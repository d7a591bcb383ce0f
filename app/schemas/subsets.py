"""Subsets, as sent and answered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AliasPath, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from app.catalog import (
    ByDocuments,
    BySubset,
    ByUnits,
    Containing,
    Deletion,
    Matching,
    ResolvedDeletion,
    SubsetRule,
)
from app.catalog.matching import MAX_PATTERN_LENGTH
from app.schemas import Answer, DocumentNumbers, Name, PageAnswer, RequestBody, UnitNames, exactly_one, example_page

_SUBSET: Final[JsonDict] = {
    "name": "has-x",
    "dataset": "census-names",
    "kind": "contains",
    "pattern": "x",
    "unit_count": 8,
    "document_count": 8,
    "created_at": "2026-01-05T09:30:00Z",
}
_RESOLVED: Final[JsonDict] = {
    "dataset": "census-names",
    "unit_count": 8,
    "document_count": 8,
    "units": ["2", "97", "150", "345", "397", "437", "558", "755"],
}

_Contains = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=200,
        description="The units with a document that contains this substring; case counts.",
    ),
]
_Matches = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=MAX_PATTERN_LENGTH,
        description="The units with a document in which this regular expression of Python's finds a match.",
    ),
]


class NewSubset(RequestBody):
    """A subset to add: a name, and exactly one rule that chooses its units."""

    model_config = ConfigDict(
        json_schema_extra={
            **exactly_one(documents="array", units="array", contains="string", matches="string"),
            "examples": [{"name": "ends-with-y", "matches": "y$"}, {"name": "first-three", "documents": [0, 1, 2]}],
        }
    )

    name: Name
    documents: DocumentNumbers = Field(default=None, description="These document numbers, those of a unit together.")
    units: UnitNames = Field(default=None, description="The units of these names.")
    contains: _Contains = None
    matches: _Matches = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if [self.documents, self.units, self.contains, self.matches].count(None) != 3:
            raise ValueError("give exactly one of documents, units, contains, matches")
        return self

    def rule(self) -> SubsetRule:
        """The rule, as the catalog takes it."""
        return _rule_of(self)


class SubsetAnswer(Answer):
    """A subset, without its members: those are the dataset's units, or documents, with ?subset=NAME."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SUBSET]})

    name: str
    dataset: str = Field(validation_alias=AliasPath("dataset", "name"))
    kind: Literal["documents", "units", "contains", "matches"] = Field(description="The rule that chose its units.")
    pattern: str | None = Field(description="The substring or regular expression; null for the other rules.")
    unit_count: int
    document_count: int
    created_at: datetime


class ResolveRequest(RequestBody):
    """What would be deleted: exactly one of documents, units, subset, contains, matches."""

    model_config = ConfigDict(
        json_schema_extra={
            **exactly_one(documents="array", units="array", subset="string", contains="string", matches="string"),
            "examples": [{"contains": "x"}, {"matches": "^zo|oe$"}, {"subset": "has-x"}, {"documents": [0, 1, 2]}],
        }
    )

    documents: DocumentNumbers = Field(
        default=None, description="Document numbers from 0, none twice, those of a unit together."
    )
    units: UnitNames = Field(default=None, description="Names of units, none twice.")
    subset: Name | None = Field(default=None, description="The name of a subset of the dataset.")
    contains: _Contains = None
    matches: _Matches = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if [self.documents, self.units, self.subset, self.contains, self.matches].count(None) != 4:
            raise ValueError("give exactly one of documents, units, subset, contains, matches")
        return self

    def resolvable(self) -> Deletion | SubsetRule:
        """The deletion, as the catalog takes it."""
        return _rule_of(self) if self.subset is None else BySubset(self.subset)


class ResolveAnswer(Answer):
    """The units that would be deleted."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RESOLVED]})

    dataset: str
    unit_count: int
    document_count: int = Field(description="Documents of these units.")
    units: list[str] = Field(description="Their names, in order of their numbers.")


def resolve_answer(dataset: str, resolved: ResolvedDeletion, names: list[str]) -> ResolveAnswer:
    """The units of a deletion set, with their names in order of their numbers."""
    return ResolveAnswer(
        dataset=dataset, unit_count=len(resolved.units), document_count=resolved.documents, units=names
    )


def _rule_of(body: NewSubset | ResolveRequest) -> SubsetRule:
    if body.documents is not None:
        return ByDocuments(body.documents)
    if body.units is not None:
        return ByUnits(body.units)
    if body.contains is not None:
        return Containing(body.contains)
    assert body.matches is not None
    return Matching(body.matches)


class SubsetPage(PageAnswer[SubsetAnswer]):
    """Subsets by name."""

    model_config = example_page(_SUBSET, total=3)
