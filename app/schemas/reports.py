"""Reports, as sent and answered."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from app.schemas import Answer, Name, PageAnswer, RequestBody, example_page
from app.schemas.predict import MeasurementBody
from engine.question import LEAST_CONFIDENCE, MOST_CONFIDENCE

_REPORT: Final[JsonDict] = {
    "name": "default",
    "dataset": "census-names",
    "sketch": "names",
    "measurements": [{"kind": "loss", "text": "max"}],
    "own_documents": 5,
    "confidence": 0.9,
    "materiality_nats": 0.05,
    "materiality_probability": 0.01,
    "created_at": "2026-01-05T09:50:00Z",
}


class ReportBody(RequestBody):
    """What a report measures of a sketch, for requests that concern its dataset."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"measurements": [{"kind": "loss", "text": "max"}], "own_documents": 5, "confidence": 0.9}]
        }
    )

    sketch: Name = Field(default="names", description="Whose current version is asked.")
    measurements: list[MeasurementBody] = Field(default_factory=list, max_length=64)
    own_documents: int = Field(
        default=5, strict=True, ge=0, le=64, description="Losses of so many of the person's own documents, too."
    )
    confidence: float = Field(
        default=0.9, strict=True, ge=LEAST_CONFIDENCE, le=MOST_CONFIDENCE, description="Of intervals."
    )
    materiality_nats: float = Field(
        default=0.05, strict=True, ge=0, description="A change of a loss or log-probability beyond it is material."
    )
    materiality_probability: float = Field(
        default=0.01, strict=True, ge=0, le=1, description="A change of a probability beyond it is material."
    )


class ReportAnswer(Answer):
    """What a report measures of one dataset's sketch."""

    model_config = ConfigDict(json_schema_extra={"examples": [_REPORT]})

    name: str
    dataset: str
    sketch: str
    measurements: list[dict[str, Any]]
    own_documents: int
    confidence: float
    materiality_nats: float
    materiality_probability: float
    created_at: datetime


class RemovedReportAnswer(Answer):
    """A report that is no more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "default", "parts": 1}]})

    name: str
    parts: int = Field(description="How many datasets it measured something for.")


class ReportPage(PageAnswer[ReportAnswer]):
    """A part of the list of reports, by name and dataset."""

    model_config = example_page(_REPORT)
