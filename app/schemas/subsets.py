"""Subsets, as sent and answered."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, Self

from pydantic import AliasPath, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from app.catalog import ByDocuments, ByUnits, Containing, Matching, SubsetRule
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
    contains: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The units with a document that contains this substring; case counts.",
    )
    matches: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PATTERN_LENGTH,
        description="The units with a document in which this regular expression of Python's finds a match.",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if [self.documents, self.units, self.contains, self.matches].count(None) != 3:
            raise ValueError("give exactly one of documents, units, contains, matches")
        return self

    def rule(self) -> SubsetRule:
        """The rule, as the catalog takes it."""
        if self.documents is not None:
            return ByDocuments(self.documents)
        if self.units is not None:
            return ByUnits(self.units)
        if self.contains is not None:
            return Containing(self.contains)
        assert self.matches is not None
        return Matching(self.matches)


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


class SubsetPage(PageAnswer[SubsetAnswer]):
    """Subsets by name."""

    model_config = example_page(_SUBSET, total=3)
