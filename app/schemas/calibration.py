"""Calibration: how right the answers about a measurement would have been where the truth is known."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field

from app.schemas import Answer, Name, RequestBody, VersionNumber
from app.schemas.predict import LogProbabilityBody, LossBody, MissingShare, NumberMeasured
from engine.question import LEAST_CONFIDENCE, MOST_CONFIDENCE


class CalibrationRequest(RequestBody):
    """How far may a version be trusted about a measurement?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"sketch": "names", "measurement": {"kind": "loss", "text": "max"}, "confidence": 0.9}]
        }
    )

    sketch: Name
    version: VersionNumber = None
    measurement: Annotated[LossBody | LogProbabilityBody, Discriminator("kind")] = Field(
        description="A number; of a next character, the log-probability of a completion of one character."
    )
    confidence: float = Field(
        default=0.95,
        strict=True,
        ge=LEAST_CONFIDENCE,
        le=MOST_CONFIDENCE,
        description="Of the intervals. Few anchors can't tell a high one.",
    )


class AnchorAnswer(Answer):
    """A set that the model was retrained without, as it would have been answered had that not been so."""

    units: int = Field(description="How many units the set has.")
    truth: float = Field(description="The measurement of the model that was retrained without it.")
    estimate: float = Field(description="What would have been answered, had this not been known.")
    interval: tuple[float, float]
    inside_interval: bool = Field(description="Whether the truth is in the interval.")
    estimator: Literal["sphere", "axes", "pairs", "hybrid", "interpolation", "regression"] = Field(
        description="That gave the estimate: chosen without the set, too."
    )


class SizeGroupAnswer(Answer):
    """Sets of similar size."""

    smallest: int = Field(description="Units of the smallest of them.")
    largest: int = Field(description="Units of the largest.")
    anchors: int = Field(description="How many sets.")
    inside: int = Field(description="In how many intervals the truth is.")
    median_width: float = Field(description="Of the intervals.")
    rms_error: float = Field(description="Root mean square of estimate - truth.")
    rms_change: float = Field(description="Root mean square of truth - baseline: what there is to be told.")


class DerivativeNormAnswer(Answer):
    """How large an order of the measurement's expansion is in the units' downweights, all directions together."""

    order: int
    norm: float
    standard_error: float = Field(description="Of the norm; at high orders and with few directions often too small.")


class CalibrationAnswer(Answer):
    """Estimates beside truths, each made without what it is compared with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sketch": "names",
                    "version": 1,
                    "contains_erased": False,
                    "measurement": {"kind": "loss", "text": "max"},
                    "confidence": 0.9,
                    "baseline": 2.9325,
                    "anchors": [
                        {
                            "units": 2,
                            "truth": 2.9292,
                            "estimate": 2.9292,
                            "interval": [2.9291, 2.9293],
                            "inside_interval": True,
                            "estimator": "axes",
                        }
                    ],
                    "sizes": [
                        {
                            "smallest": 2,
                            "largest": 5,
                            "anchors": 143,
                            "inside": 125,
                            "median_width": 0.0006,
                            "rms_error": 0.0004,
                            "rms_change": 0.0096,
                        }
                    ],
                    "derivative_norms": [{"order": 1, "norm": 0.1729, "standard_error": 0.0051}],
                    "missing_share": 0.0,
                    "elapsed_ms": 640.0,
                }
            ]
        }
    )

    sketch: str
    version: int
    contains_erased: bool = Field(description="Whether the version was trained on units that have been erased since.")
    measurement: NumberMeasured
    confidence: float = Field(description="Of the intervals, as asked.")
    baseline: float = Field(description="The measurement of the model as it was trained.")
    anchors: list[AnchorAnswer] = Field(
        description="Every different set that the model was retrained without, the smallest first: of a build with axes"
        " the sets that its bars come from, and what was pinned or verified since. Units alone, and pairs where each"
        " was retrained, aren't among them: they are answered exactly without. Of a build without axes, what was pinned"
        " or verified: none of its estimates uses these. Empty where there are none."
    )
    sizes: list[SizeGroupAnswer] = Field(
        description="The anchors in up to six groups of about equal numbers, by size; sets of one size are in one."
    )
    derivative_norms: list[DerivativeNormAnswer] = Field(
        description="By order, from the random directions; training is stable for this measurement where they fall"
        " quickly. Empty where the sketch has none."
    )
    missing_share: MissingShare
    elapsed_ms: float = Field(description="Time that the answer took in the server, the network not counted.")
