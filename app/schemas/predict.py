"""The question of a deletion and its answer."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from app.catalog import ByDocuments, BySubset, ByUnits
from app.catalog import Deletion as CatalogDeletion
from app.schemas import Answer, DocumentNumber, Name, RequestBody
from engine.estimate import LEAST_CONFIDENCE, MOST_CONFIDENCE

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

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    documents: list[DocumentNumber] | None = Field(
        default=None, description="Document numbers from 0, none twice, those of a unit together."
    )
    units: list[str] | None = Field(default=None, description="Names of units, none twice.")
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


class MeasurementBody(RequestBody):
    """A number computed from the trained model."""

    kind: Literal["loss"] = Field(description="The mean loss of the text's tokens, in nats per token.")
    text: str = Field(description="One to context - 1 characters, all of the model's vocabulary.")


class PredictRequest(RequestBody):
    """How would the model measure, had this not been in its training data?"""

    model_config = ConfigDict(
        json_schema_extra={
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
                    "measurements": [{"kind": "loss", "text": "max"}, {"kind": "loss", "text": "quinn"}],
                    "degree": 2,
                    "downweight": [0.0, 0.5, 1.0],
                    "confidence": 0.9,
                    "average": "median_of_means",
                },
            ]
        }
    )

    sketch: Name
    version: int | None = Field(
        default=None, strict=True, ge=1, le=_MAX_SQL_INTEGER, description="Null is the current version."
    )
    delete: Deletion
    measurements: list[MeasurementBody] = Field(min_length=1, max_length=64, description="Answered in this order.")
    estimator: Literal["auto", "sphere", "axes"] = Field(
        default="auto",
        description="sphere averages random directions, axes sums what every unit does alone; auto takes axes where the"
        " sketch has them.",
    )
    degree: Degree = Field(
        default="auto",
        description="The highest order of the expansion, up to the sketch's; auto chooses it for each answer.",
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


class MeasurementAnswer(Answer):
    """What was measured."""

    kind: Literal["loss"]
    text: str


class PredictionAnswer(Answer):
    """A measurement of the model without what was deleted, at the largest downweight asked."""

    measurement: MeasurementAnswer
    baseline: float = Field(description="The measurement of the model as it was trained.")
    estimate: float = Field(description="The estimated counterfactual.")
    change: float = Field(description="estimate - baseline.")
    standard_error: float = Field(
        description="Of the estimate: from the random directions, or as calibrated on retrained models."
    )
    interval: tuple[float, float] = Field(description="At the confidence asked; holds what higher orders may add, too.")
    degree: int = Field(description="The highest order in the estimate.")
    terms: list[TermAnswer] = Field(description="All orders that the sketch has.")
    curve: Annotated[list[CurvePointAnswer] | None, _NullIfEmpty] = Field(
        description="The estimate at every downweight; null where one was asked."
    )
    estimator: Literal["sphere", "axes"] = Field(description="That gave the estimate.")
    average: Literal["mean", "median_of_means"] | None = Field(
        description="Of the random directions; null where none were used."
    )


class PredictAnswer(Answer):
    """The answer: one prediction for each measurement."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sketch": "names",
                    "version": 1,
                    "deleted": {"units": 8, "documents": 8},
                    "predictions": [
                        {
                            "measurement": {"kind": "loss", "text": "max"},
                            "baseline": 2.9325,
                            "estimate": 3.1414,
                            "change": 0.2089,
                            "standard_error": 0.0365,
                            "interval": [2.9886, 3.2942],
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
                            "average": "mean",
                        }
                    ],
                    "elapsed_ms": 3.734,
                }
            ]
        }
    )

    sketch: str
    version: int
    deleted: DeletedAnswer
    predictions: list[PredictionAnswer]
    elapsed_ms: float = Field(description="Time that the answer took in the server, the network not counted.")
