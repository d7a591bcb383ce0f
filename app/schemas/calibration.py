"""Calibration: how right the answers about a measurement would have been where the truth is known."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field

from app.schemas import Answer, Name, RequestBody, VersionNumber
from app.schemas.predict import LogProbabilityBody, LossBody, MissingShare, NumberMeasured
from engine.question import LEAST_CONFIDENCE, MOST_CONFIDENCE
from engine.reliability import MOST_ASKED, Reliability


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
    interval: tuple[float, float] = Field(description="Of the confidence.")
    inside_interval: bool = Field(description="Whether the truth is in the interval.")
    estimator: Literal["sphere", "axes", "pairs", "hybrid", "interpolation", "regression"] = Field(
        description="That gave the estimate: chosen without the set, too."
    )
    likeness: float = Field(
        ge=0,
        le=1,
        description="To the set among the other anchors that is most like it: the correlation of membership, from 0 for"
        " a stranger to 1. Most sets of units with something in common have a close relative here; one that hasn't is"
        " covered less often.",
    )
    later: bool = Field(description="Whether the model was retrained after the build, for a pin or a verification.")


class SizeGroupAnswer(Answer):
    """Sets of similar size."""

    smallest: int = Field(description="Units of the smallest of them.")
    largest: int = Field(description="Units of the largest.")
    anchors: int = Field(description="How many sets.")
    inside: int = Field(description="In how many intervals the truth is.")
    coverage_interval: tuple[float, float] = Field(
        description="Where the share inside lies with 95% confidence (Wilson), as if the sets were independent."
    )
    median_width: float = Field(description="Of the intervals.")
    rms_error: float = Field(description="Root mean square of estimate - truth.")
    rms_change: float = Field(description="Root mean square of truth - baseline: what there is to be told.")


class DerivativeNormAnswer(Answer):
    """How large an order of the measurement's expansion is in the units' downweights, all directions together."""

    order: int
    norm: float
    standard_error: float = Field(description="Of the norm; at high orders and with few directions often too small.")


class CalibrationAnswer(Answer):
    """Estimates beside truths, each made without what it is compared with.

    What is covered is told for sets with something in common that mostly have close relatives among the others, and for
    random ones. Sets that are less like what the model was retrained without are covered less often.
    """

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
                            "truth": 2.9398,
                            "estimate": 2.9398,
                            "interval": [2.9395, 2.9402],
                            "inside_interval": True,
                            "estimator": "axes",
                            "likeness": 0.4068,
                            "later": False,
                        }
                    ],
                    "anchors_in_all": 1000,
                    "sizes": [
                        {
                            "smallest": 2,
                            "largest": 6,
                            "anchors": 159,
                            "inside": 144,
                            "coverage_interval": [0.8502, 0.9419],
                            "median_width": 0.001,
                            "rms_error": 0.0014,
                            "rms_change": 0.0106,
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
        description="Different sets that the model was retrained without, the smallest first: of a build with axes the"
        " sets that its bars come from, and what was pinned or verified since. Units alone, and pairs where each was"
        " retrained, aren't among them: they are answered exactly without. Of a build without axes, what was pinned or"
        f" verified: none of its estimates uses these. Of more than {MOST_ASKED:,}, so many are drawn, the same every"
        " time, evenly by size. Empty where there are none."
    )
    anchors_in_all: int = Field(description="How many such sets there are, drawn or not.")
    sizes: list[SizeGroupAnswer] = Field(
        description="The anchors in up to six groups of about equal numbers, by size; sets of one size are in one. Of a"
        " build with axes without those that were retrained later, which were chosen and not drawn. Sets that are less"
        " like what the model was retrained without are covered less often."
    )
    derivative_norms: list[DerivativeNormAnswer] = Field(
        description="By order, from the random directions; training is stable for this measurement where they fall"
        " quickly. Empty where the sketch has none."
    )
    missing_share: MissingShare
    elapsed_ms: float = Field(description="Time that the answer took in the server, the network not counted.")


def calibration_answer(
    found: Reliability, *, sketch: str, version: int, contains_erased: bool, confidence: float, elapsed_ms: float
) -> CalibrationAnswer:
    """What is known of a version's answers about a measurement."""
    return CalibrationAnswer.model_validate(
        {
            "sketch": sketch,
            "version": version,
            "contains_erased": contains_erased,
            "measurement": found.measurement,
            "confidence": confidence,
            "baseline": found.baseline,
            "anchors": found.anchors,
            "anchors_in_all": found.anchors_in_all,
            "sizes": found.sizes,
            "derivative_norms": found.derivative_norms,
            "missing_share": found.missing_share,
            "elapsed_ms": elapsed_ms,
        }
    )
