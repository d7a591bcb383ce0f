"""Datasets, documents and units, as sent and answered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, FailFast, Field, model_validator
from pydantic.config import JsonDict

from app.schemas import Answer, Name, PageAnswer, RequestBody, exactly_one, example_page

_DATASET: Final[JsonDict] = {
    "name": "census-names",
    "description": "First names of the 1990 US Census lists, public domain",
    "fingerprint": "131a8ecdec3464071ed9b9c6ebe7e612ee4e5c5dd9f6af1211c77a9fafe4a196",
    "vocabulary": "abcdefghijklmnopqrstuvwxyz",
    "document_count": 1000,
    "unit_count": 1000,
    "has_subjects": False,
    "created_at": "2026-01-05T09:30:00Z",
}
_DOCUMENT: Final[JsonDict] = {"number": 17, "unit_number": 17, "unit": "17", "text": "nickole"}
_UNIT: Final[JsonDict] = {"number": 17, "name": "17", "document_count": 1}


class NewDocument(RequestBody):
    """A document to add."""

    text: str = Field(description="What the model is trained on: printable characters, at least one.")
    subject: str | None = Field(
        default=None, description="Whom it belongs to: all documents of a subject are one unit."
    )


class NewDataset(RequestBody):
    """A dataset to add: its documents one by one, or as the content of a file."""

    model_config = ConfigDict(
        json_schema_extra={
            **exactly_one(documents="array", content="string"),
            "examples": [
                {
                    "name": "letters",
                    "description": "Three short texts of two people",
                    "documents": [
                        {"text": "abc", "subject": "ann"},
                        {"text": "cab", "subject": "ann"},
                        {"text": "bca", "subject": "bob"},
                    ],
                },
                {"name": "more-letters", "content": "abc\ncab\nbca\n"},
            ],
        }
    )

    name: Name
    description: str = Field(default="", max_length=500, description="One line for people.")
    documents: Annotated[list[NewDocument] | None, FailFast()] = Field(
        default=None, description="In training order; all with a subject, or none."
    )
    content: str | None = Field(default=None, description="Instead of documents: the content of a file.")
    format: Literal["text", "csv", "jsonl"] = Field(
        default="text",
        description="Of the content: a document a line, or CSV or JSONL with `text` and optionally `subject`.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.documents is None) == (self.content is None):
            raise ValueError("give either documents or content")
        return self


class DatasetAnswer(Answer):
    """A dataset, without its documents."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DATASET]})

    name: str
    description: str
    fingerprint: str = Field(description="SHA-256 of documents, order and units: equal where a training run would be.")
    vocabulary: str = Field(description="The characters that occur.")
    document_count: int
    unit_count: int
    has_subjects: bool = Field(description="Whether units are subjects; else each document is one.")
    created_at: datetime


class DocumentAnswer(Answer):
    """A document."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DOCUMENT]})

    number: int = Field(description="Its place in training order, from 0.")
    unit_number: int = Field(description="The unit that it belongs to.")
    unit: str = Field(description="The name of that unit.")
    text: str


class UnitAnswer(Answer):
    """A unit."""

    model_config = ConfigDict(json_schema_extra={"examples": [_UNIT]})

    number: int
    name: str = Field(description="The subject, or the document's number where there are no subjects.")
    document_count: int


class DatasetPage(PageAnswer[DatasetAnswer]):
    """Datasets by name."""

    model_config = example_page(_DATASET)


class DocumentPage(PageAnswer[DocumentAnswer]):
    """Documents in training order."""

    model_config = example_page(_DOCUMENT, total=1000)


class UnitPage(PageAnswer[UnitAnswer]):
    """Units by number."""

    model_config = example_page(_UNIT, total=1000)
