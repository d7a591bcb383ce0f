"""Questions and answers: what may be asked of a sketch beside the measurement, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.errors import DegreeError, DeletionSetError, DownweightError, QuestionError
from engine.estimators import EstimatorName, Readout
from engine.measure import Measurement
from engine.sphere import Average

LEAST_CONFIDENCE, MOST_CONFIDENCE = 0.5, 0.999
"""Beyond, an interval would rest on tails that neither directions nor anchors show."""

AnsweredBy: TypeAlias = EstimatorName | Literal["retrained"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What of an answer is free to choose.

    Attributes:
        estimator: "auto" takes what has the least expected error.
        degree: "auto", or 0 … S.
        downweights: each in [0, 1]; at least one.
        confidence: of the interval, from `LEAST_CONFIDENCE` to `MOST_CONFIDENCE`.
        average: of the estimator "sphere": "mean", or "median_of_means" over ceil(8 ln(1/(1-confidence))) groups, which
            heavy tails can't move.

    Raises:
        DegreeError, DownweightError, QuestionError: a value outside its range.
    """

    estimator: Literal["auto"] | EstimatorName = "auto"
    degree: int | Literal["auto"] = "auto"
    downweights: tuple[float, ...] = (1.0,)
    confidence: float = 0.95
    average: Average = "mean"

    def __post_init__(self) -> None:
        if self.degree != "auto" and self.degree < 0:
            raise DegreeError(f"The degree must be 'auto' or at least 0, not {self.degree}.")
        if not self.downweights:
            raise DownweightError("There is no downweight: give a number between 0 and 1, or a list of such.")
        for downweight in self.downweights:
            if not 0 <= downweight <= 1:
                raise DownweightError(f"The downweight {downweight} lies outside [0, 1].")
        check_confidence(self.confidence)


@dataclass(frozen=True, kw_only=True)
class Term:
    """One order's part of the change.

    Attributes:
        degree: r.
        value: in the measurement's unit: of "sphere" an estimate of T_r[x, …, x]; else what the order adds to the
            value by what every unit does alone, the last one with all that is beyond it, interactions included.
        standard_error: of the value, from random directions; 0 where there is no sampling error.
    """

    degree: int
    value: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """The estimate at one downweight of the deletion set."""

    downweight: float
    estimate: float
    standard_error: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An answer; in the measurement's unit, and at the largest downweight that was asked.

    Attributes:
        measurement: what was asked.
        baseline: the value after ordinary training.
        estimate: of the value without the deletion set.
        change: estimate - baseline.
        standard_error: of "sphere" from the random directions alone, else as calibrated on retrained models.
        interval: at the confidence asked.
        below_resolution: whether the interval holds the baseline: whether there is a change at all isn't known.
        degree: highest order in the estimate.
        terms: all orders that the sketch has, also those above `degree`.
        curve: the estimate at every downweight asked, where there are several; else empty.
        estimator: that gave it; "retrained" where the model was really retrained without the set.
        readout: whether probabilities were added up, or their logarithms, or both; None where nothing was.
        average: how random directions were averaged; None where none were.
        missing_share: of the sketch's random directions, what was away when this was measured; the estimate rests on
            the others, and the interval is wider for it.
    """

    measurement: Measurement
    baseline: float
    estimate: float
    change: float
    standard_error: float
    interval: tuple[float, float]
    below_resolution: bool
    degree: int
    terms: tuple[Term, ...]
    curve: tuple[CurvePoint, ...]
    estimator: AnsweredBy
    readout: Readout | None
    average: Average | None
    missing_share: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The probability of one next token; the end of the text is the empty string."""

    token: str
    baseline: float
    estimate: float
    change: float
    standard_error: float
    interval: tuple[float, float]
    below_resolution: bool


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """An answer to a next-token measurement, at the largest downweight asked; the estimates add up to one.

    Attributes:
        measurement: what was asked.
        outcomes: for every token of the vocabulary.
        degree, estimator, readout, average, missing_share: as of a `Prediction`.
    """

    measurement: Measurement
    outcomes: tuple[Outcome, ...]
    degree: int
    estimator: AnsweredBy
    readout: Readout | None
    average: Average | None
    missing_share: float


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that no interval is given for.

    Raises:
        QuestionError: it lies outside its range.
    """
    if not LEAST_CONFIDENCE <= confidence <= MOST_CONFIDENCE:
        raise QuestionError(
            f"The confidence must lie between {LEAST_CONFIDENCE} and {MOST_CONFIDENCE}, not be {confidence}."
        )


def check_units(units: Sequence[int], total: int) -> None:
    """Refuse what is no deletion set.

    Raises:
        DeletionSetError: empty, out of range, repeated, or everything.
    """
    if not units:
        raise DeletionSetError("The deletion set is empty: name at least one unit.")
    if len(set(units)) != len(units):
        repeated = next(unit for unit in units if list(units).count(unit) > 1)
        raise DeletionSetError(f"Unit {repeated} is named more than once.")
    if min(units) < 0 or max(units) >= total:
        unit = next(unit for unit in units if not 0 <= unit < total)
        raise DeletionSetError(f"There is no unit {unit}; units are numbered 0 to {total - 1}.")
    if len(units) == total:
        raise DeletionSetError("The deletion set is the whole data set: nothing would be left to train on.")
