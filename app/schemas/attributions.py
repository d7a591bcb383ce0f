"""Attributions: which units matter for a measurement."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Discriminator, Field
from pydantic.config import JsonDict

from app.schemas import Answer, Name, RequestBody, VersionNumber
from app.schemas.predict import BelowResolution, LogProbabilityBody, LossBody, MissingShare, NumberMeasured
from engine.question import LEAST_CONFIDENCE, MOST_CONFIDENCE

_MAX_SQL_INTEGER: Final = 2**31 - 1

_RAISING: Final[JsonDict] = {
    "unit": "214",
    "documents": 1,
    "text": "max",
    "estimate": 2.9641,
    "change": 0.0316,
    "standard_error": 0.000003,
    "interval": [2.9641, 2.9641],
    "below_resolution": False,
}


class AttributionsRequest(RequestBody):
    """Which units change a measurement most, when each is deleted by itself?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"sketch": "names", "measurement": {"kind": "loss", "text": "max"}, "top": 5, "confidence": 0.9}
            ]
        }
    )

    sketch: Name
    version: VersionNumber = None
    measurement: Annotated[LossBody | LogProbabilityBody, Discriminator("kind")] = Field(
        description="A number; of a next character, the log-probability of a completion of one character."
    )
    top: int = Field(
        default=10,
        strict=True,
        ge=1,
        le=_MAX_SQL_INTEGER,
        description="How many units to name in each direction, at most as many as there are.",
    )
    confidence: float = Field(
        default=0.95, strict=True, ge=LEAST_CONFIDENCE, le=MOST_CONFIDENCE, description="Of the intervals."
    )


class AttributionAnswer(Answer):
    """What deleting one unit does to the measurement."""

    unit: str = Field(description="The unit's name.")
    documents: int = Field(description="How many documents it has.")
    text: str | None = Field(description="The first of them; null for a key without the scope catalog:read.")
    estimate: float = Field(description="Of the measurement without the unit.")
    change: float = Field(description="estimate - baseline.")
    standard_error: float
    interval: tuple[float, float] = Field(
        description="Of the measurement without the unit. Where units are estimated from random directions, the"
        " intervals hold for all units at once."
    )
    below_resolution: BelowResolution


class AttributionsAnswer(Answer):
    """The units that matter most, in both directions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sketch": "names",
                    "version": 1,
                    "contains_erased": False,
                    "measurement": {"kind": "loss", "text": "max"},
                    "baseline": 2.9325,
                    "raising": [_RAISING],
                    "lowering": [],
                    "estimator": "retrained",
                    "missing_share": 0.0,
                    "elapsed_ms": 5.1,
                }
            ]
        }
    )

    sketch: str
    version: int
    contains_erased: bool = Field(description="Whether the version was trained on units that have been erased since.")
    measurement: NumberMeasured
    baseline: float = Field(description="The measurement of the model as it was trained.")
    raising: list[AttributionAnswer] = Field(
        description="Units whose deletion raises the measurement, the largest change first."
    )
    lowering: list[AttributionAnswer] = Field(
        description="Units whose deletion lowers the measurement, the largest change first."
    )
    estimator: Literal["retrained", "sphere"] = Field(
        description="retrained where the model was really retrained without every unit, as in builds with axes."
    )
    missing_share: MissingShare
    elapsed_ms: float = Field(description="Time that the answer took in the server, the network not counted.")
