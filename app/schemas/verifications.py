"""Verifications, as answered."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self, TypeAlias
from uuid import UUID

from pydantic import ConfigDict, Discriminator, Field
from pydantic.config import JsonDict

from app.schemas import Answer, PageAnswer, example_page
from app.schemas.predict import DeletedAnswer, LogProbabilityAnswer, LossAnswer, NextTokenAnswer
from app.tables import Verification

MeasurementAnswer = Annotated[LossAnswer | LogProbabilityAnswer | NextTokenAnswer, Discriminator("kind")]
Value: TypeAlias = float | list[float]
Interval: TypeAlias = tuple[float, float] | list[tuple[float, float]]

_VERIFICATION: Final[JsonDict] = {
    "id": "6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11",
    "state": "finished",
    "sketch": "names",
    "version": 1,
    "contains_erased": False,
    "deleted": {"units": 8, "documents": 8},
    "confidence": 0.95,
    "measurements": [
        {
            "measurement": {"kind": "loss", "text": "max"},
            "tokens": [],
            "baseline": 2.9325,
            "estimate": 3.245,
            "interval": [3.1576, 3.3325],
            "truth": 3.194,
            "error": -0.051,
            "inside_interval": True,
        }
    ],
    "reason": "",
    "created_at": "2026-01-05T09:40:00Z",
    "started_at": "2026-01-05T09:40:00Z",
    "finished_at": "2026-01-05T09:40:03Z",
}


class ComparisonAnswer(Answer):
    """A measurement as it was answered, beside what the retrained model measures."""

    measurement: MeasurementAnswer
    tokens: list[str] = Field(
        description="What the values of a distribution belong to, the text's end being ''; none for one number."
    )
    baseline: Value = Field(description="The measurement of the model as it was trained.")
    estimate: Value = Field(description="The counterfactual that was answered.")
    interval: Interval = Field(description="That was answered.")
    truth: Value | None = Field(description="The measurement of the retrained model; null until that is known.")
    error: Value | None = Field(description="truth - estimate; null until the truth is known.")
    inside_interval: bool | list[bool] | None = Field(
        description="Whether the interval holds the truth; null until that is known."
    )

    @classmethod
    def of(cls, prediction: dict[str, Any], truth: Value | None) -> Self:
        """Of an answer as it was kept, and the truth where it is known."""
        known = truth is not None
        return cls(
            measurement=prediction["measurement"],
            tokens=prediction["tokens"] or [],
            baseline=prediction["baseline"],
            estimate=prediction["estimate"],
            interval=prediction["interval"],
            truth=truth,
            error=_difference(truth, prediction["estimate"]) if known else None,
            inside_interval=_inside(truth, prediction["interval"]) if known else None,
        )


class VerificationAnswer(Answer):
    """An answer that was, or will be, compared with a model retrained without what was deleted."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VERIFICATION]})

    id: UUID
    state: Literal["pending", "running", "finished", "failed"]
    sketch: str
    version: int
    contains_erased: bool = Field(description="Whether the version was trained on units that have been erased since.")
    deleted: DeletedAnswer
    confidence: float = Field(description="Of the intervals.")
    measurements: list[ComparisonAnswer] = Field(description="In the order of the question.")
    reason: str = Field(description="Why there will be no truth, where it failed; else empty.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: Verification) -> Self:
        """Of a row with its version and sketch."""
        truths = row.truths or [None] * len(row.predictions)
        return cls(
            id=UUID(row.id),
            state=row.state,
            sketch=row.version.sketch.name,
            version=row.version.number,
            contains_erased=row.version.contains_erased,
            deleted=DeletedAnswer(units=len(row.units), documents=row.document_count),
            confidence=row.confidence,
            measurements=[
                ComparisonAnswer.of(prediction, truth)
                for prediction, truth in zip(row.predictions, truths, strict=True)
            ],
            reason=row.failure or "",
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )


class VerificationPage(PageAnswer[VerificationAnswer]):
    """Verifications, the newest first."""

    model_config = example_page(_VERIFICATION)


def _difference(truth: Any, estimate: Any) -> Any:
    """Of two numbers, or of two lists of them."""
    if isinstance(truth, list):
        return [_difference(*pair) for pair in zip(truth, estimate, strict=True)]
    return truth - estimate


def _inside(truth: Any, interval: Any) -> Any:
    """Whether an interval holds a number; for lists, one by one."""
    if isinstance(truth, list):
        return [_inside(*pair) for pair in zip(truth, interval, strict=True)]
    return interval[0] <= truth <= interval[1]
