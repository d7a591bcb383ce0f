"""The question of a deletion and its answer."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Discriminator, FailFast, Field, Tag, model_validator

from app.catalog import ByDocuments, BySubset, ByUnits
from app.catalog import Deletion as CatalogDeletion
from app.schemas import Answer, DocumentNumbers, Name, RequestBody, UnitNames, VersionNumber, exactly_one
from engine.measure import Measurement
from engine.question import LEAST_CONFIDENCE, MOST_CONFIDENCE

_MAX_SQL_INTEGER: Final = 2**31 - 1

_Number = Annotated[float, Field(strict=True)]
_Order = Annotated[int, Field(strict=True, ge=0, le=_MAX_SQL_INTEGER)]

# Told apart by their JSON type, so that a wrong value is refused once, as what it was meant to be.
Degree = Annotated[
    Annotated[Literal["auto"], Tag("auto")] | Annotated[_Order, Tag("number")],
    Discriminator(lambda value: "auto" if isinstance(value, str) else "number"),
]
Downweight = Annotated[
    Annotated[_Number, Tag("number")] | Annotated[list[_Number], Field(min_length=1, max_length=101), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "number"),
]

_NullIfEmpty = BeforeValidator(lambda curve: curve or None)


class Deletion(RequestBody):
    """What to delete: exactly one of documents, units, subset."""

    model_config = ConfigDict(json_schema_extra=exactly_one(documents="array", units="array", subset="string"))

    documents: DocumentNumbers = Field(
        default=None, description="Document numbers from 0, none twice, those of a unit together."
    )
    units: UnitNames = Field(default=None, description="Names of units, none twice.")
    subset: Name | None = Field(default=None, description="The name of a subset of the sketch's dataset.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if [self.documents, self.units, self.subset].count(None) != 2:
            raise ValueError("give exactly one of documents, units, subset")
        return self

    def resolvable(self) -> CatalogDeletion:
        """The deletion, as the catalog takes it."""
        if self.documents is not None:
            return ByDocuments(self.documents)
        if self.units is not None:
            return ByUnits(self.units)
        assert self.subset is not None
        return BySubset(self.subset)


class LossBody(RequestBody):
    """The mean loss of a text's tokens and its end, in nats per token."""

    kind: Literal["loss"]
    text: str = Field(description="One to context - 1 characters, all of the model's vocabulary.")


class LogProbabilityBody(RequestBody):
    """The log-probability of a completion after a prompt, in nats."""

    kind: Literal["log_probability"]
    prompt: str = Field(default="", description="Empty is the start of a text.")
    completion: str = Field(description="At least one character; with the prompt at most the context's length.")


class NextTokenBody(RequestBody):
    """The distribution of the next character after a prompt."""

    kind: Literal["next_token"]
    prompt: str = Field(default="", description="Empty is the start of a text.")


MeasurementBody = Annotated[LossBody | LogProbabilityBody | NextTokenBody, Discriminator("kind")]


def measurement_of(body: MeasurementBody) -> Measurement:
    """The measurement, as the engine takes it."""
    return Measurement(**body.model_dump())


class Asked(RequestBody):
    """How a sketch is to be asked: what single questions and batches have in common."""

    sketch: Name
    version: VersionNumber = None
    measurements: Annotated[list[MeasurementBody], FailFast()] = Field(
        min_length=1, max_length=64, description="Answered in this order."
    )
    estimator: Literal["auto", "sphere", "axes", "pairs", "hybrid", "interpolation", "regression"] = Field(
        default="auto",
        description="axes sums what every unit does alone; pairs, hybrid and interpolation add interactions between"
        " units, from retrained pairs or from random directions; regression weights these sums as fits similar sets"
        " that the model was retrained for; sphere averages random directions. auto takes what had the least error at"
        " such sets.",
    )
    degree: Degree = Field(
        default="auto",
        description="The highest order of the expansion, up to the sketch's; auto is that, and for the estimator"
        " sphere the one of least estimated error.",
    )
    downweight: Downweight = Field(
        default=1.0, description="From 0 to 1: the part of the losses that is taken away. A list asks for a curve."
    )
    confidence: float = Field(
        default=0.95, strict=True, ge=LEAST_CONFIDENCE, le=MOST_CONFIDENCE, description="Of the interval."
    )
    average: Literal["mean", "median_of_means"] = Field(
        default="mean", description="Over the directions; median_of_means withstands heavy tails at some cost."
    )

    def downweights(self) -> list[float]:
        """The downweights asked, one or several."""
        return self.downweight if isinstance(self.downweight, list) else [self.downweight]

    def measured(self) -> list[Measurement]:
        """The measurements, as the engine takes them."""
        return [measurement_of(one) for one in self.measurements]


class PredictRequest(Asked):
    """How would the model measure, had this not been in its training data?"""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"verify": {"const": False}}},
                {"properties": {"downweight": {"const": 1}}},
                {"properties": {"downweight": {"type": "array", "items": {"maximum": 1}, "contains": {"const": 1}}}},
            ],
            "examples": [
                {
                    "sketch": "names",
                    "delete": {"subset": "has-x"},
                    "measurements": [{"kind": "loss", "text": "max"}],
                    "downweight": [0.5, 1.0],
                },
                {
                    "sketch": "names",
                    "version": 1,
                    "delete": {"documents": [3, 17]},
                    "measurements": [
                        {"kind": "loss", "text": "max"},
                        {"kind": "log_probability", "prompt": "qu", "completion": "inn"},
                        {"kind": "next_token", "prompt": "q"},
                    ],
                    "degree": 2,
                    "downweight": [0.0, 0.5, 1.0],
                    "confidence": 0.9,
                    "average": "median_of_means",
                },
                {
                    "sketch": "names",
                    "delete": {"subset": "has-x"},
                    "measurements": [{"kind": "loss", "text": "max"}],
                    "verify": True,
                },
            ],
        }
    )

    delete: Deletion
    verify: bool = Field(
        default=False,
        strict=True,
        description="Whether to retrain the model afterwards, in the background, and compare; the (largest) downweight"
        " must be 1.",
    )

    @model_validator(mode="after")
    def _verifiable(self) -> Self:
        if self.verify and max(self.downweights()) != 1:
            raise ValueError("verify retrains with all of the losses taken away: let the (largest) downweight be 1")
        return self


class DeletedAnswer(Answer):
    """How much was deleted."""

    units: int
    documents: int


class TermAnswer(Answer):
    """One order of the expansion."""

    degree: int
    value: float
    standard_error: float


class CurvePointAnswer(Answer):
    """The estimate at one downweight."""

    downweight: float
    estimate: float
    standard_error: float
    interval: tuple[float, float]


class LossAnswer(Answer):
    """The mean loss of a text, in nats per token."""

    kind: Literal["loss"]
    text: str


class LogProbabilityAnswer(Answer):
    """The log-probability of a completion, in nats."""

    kind: Literal["log_probability"]
    prompt: str
    completion: str


class NextTokenAnswer(Answer):
    """The distribution of the next character."""

    kind: Literal["next_token"]
    prompt: str


NumberMeasured = Annotated[LossAnswer | LogProbabilityAnswer, Discriminator("kind")]

EstimatorAnswer = Annotated[
    Literal["sphere", "axes", "pairs", "hybrid", "interpolation", "regression", "retrained"],
    Field(description="That gave the estimate; retrained where the model was really retrained without this set."),
]
ReadoutAnswer = Annotated[
    Literal["probability", "logarithm", "both"] | None,
    Field(
        description="Whether token probabilities were added up, or their logarithms, or both; null where nothing was."
    ),
]
AverageAnswer = Annotated[
    Literal["mean", "median_of_means"] | None,
    Field(description="Of the random directions by the estimator sphere, else null."),
]
BelowResolution = Annotated[
    bool, Field(description="True where the interval holds the baseline: whether there is a change isn't known.")
]

MissingShare = Annotated[
    float,
    Field(
        description="Of the sketch's random directions, what was away when this was measured: the estimate rests on"
        " the others, and its interval is wider. 0 except where a shard of a sharded service is lost."
    ),
]


class PredictionAnswer(Answer):
    """A measurement of the model without what was deleted, at the largest downweight asked."""

    measurement: NumberMeasured
    baseline: float = Field(description="The measurement of the model as it was trained.")
    estimate: float = Field(description="The estimated counterfactual.")
    change: float = Field(description="estimate - baseline.")
    standard_error: float = Field(
        description="Of the estimate: from the random directions, or as calibrated on retrained models."
    )
    interval: tuple[float, float] = Field(description="At the confidence asked; holds what higher orders may add, too.")
    below_resolution: BelowResolution
    degree: int = Field(description="The highest order in the estimate.")
    terms: list[TermAnswer] = Field(description="All orders that the sketch has.")
    curve: Annotated[list[CurvePointAnswer] | None, _NullIfEmpty] = Field(
        description="The estimate at every downweight; null where one was asked."
    )
    estimator: EstimatorAnswer
    readout: ReadoutAnswer
    average: AverageAnswer
    missing_share: MissingShare


class OutcomeAnswer(Answer):
    """The probability of one next character."""

    token: str = Field(description="A character; empty for the end of the text.")
    baseline: float
    estimate: float
    change: float
    standard_error: float
    interval: tuple[float, float]
    below_resolution: BelowResolution


class DistributionAnswer(Answer):
    """The distribution of the next character, at the largest downweight asked; the estimates add up to one."""

    measurement: NextTokenAnswer
    outcomes: list[OutcomeAnswer]
    degree: int = Field(description="The highest order in the estimate.")
    estimator: EstimatorAnswer
    readout: ReadoutAnswer
    average: AverageAnswer
    missing_share: MissingShare


class VerificationLinkAnswer(Answer):
    """Where to read how right an answer was."""

    id: UUID
    url: str


class PredictAnswer(Answer):
    """The answer: one prediction for each measurement."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sketch": "names",
                    "version": 1,
                    "contains_erased": False,
                    "deleted": {"units": 8, "documents": 8},
                    "predictions": [
                        {
                            "measurement": {"kind": "loss", "text": "max"},
                            "baseline": 2.9325,
                            "estimate": 3.1414,
                            "change": 0.2089,
                            "standard_error": 0.0365,
                            "interval": [2.9886, 3.2942],
                            "below_resolution": False,
                            "degree": 2,
                            "terms": [
                                {"degree": 1, "value": 0.1727, "standard_error": 0.0155},
                                {"degree": 2, "value": 0.0362, "standard_error": 0.0291},
                                {"degree": 3, "value": 0.0152, "standard_error": 0.039},
                            ],
                            "curve": [
                                {
                                    "downweight": 0.5,
                                    "estimate": 3.0279,
                                    "standard_error": 0.012,
                                    "interval": [2.9964, 3.0593],
                                },
                                {
                                    "downweight": 1.0,
                                    "estimate": 3.1414,
                                    "standard_error": 0.0365,
                                    "interval": [2.9886, 3.2942],
                                },
                            ],
                            "estimator": "sphere",
                            "readout": "logarithm",
                            "average": "mean",
                            "missing_share": 0.0,
                        }
                    ],
                    "verification": {
                        "id": "6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11",
                        "url": "/verifications/6f1c2f0e-5a0f-4c55-9a86-0d8f3e2d7b11",
                    },
                    "elapsed_ms": 3.734,
                }
            ]
        }
    )

    sketch: str
    version: int
    contains_erased: bool = Field(description="Whether the version was trained on units that have been erased since.")
    deleted: DeletedAnswer
    predictions: list[PredictionAnswer | DistributionAnswer]
    verification: VerificationLinkAnswer | None = Field(description="Null unless verify was asked.")
    elapsed_ms: float = Field(
        description="Time that the answer took in the server, without the network and its record in the audit."
    )
