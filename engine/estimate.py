"""From a measurement's table and a deletion set to an answer: which estimator, which degree, what bar.

Two estimators answer from a sketch: `engine.sphere` from random directions, and `engine.axes` from every unit's own
axis. Where both can, "auto" takes the axes: their errors are calibrated on retrains, and were below the sphere's for
every kind and size of deletion set that was measured (`docs/accuracy.md`). Each chooses its degree by its least
estimated error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from engine.axes import AxesEstimator
from engine.directions import Ensemble
from engine.errors import DegreeError, DeletionSetError, DownweightError, QuestionError
from engine.measure import Measurement, Table
from engine.sphere import Average, SphereEstimator

LEAST_CONFIDENCE, MOST_CONFIDENCE = 0.5, 0.999
"""Beyond, an interval would rest on tails that neither directions nor anchors show."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One order's part of the change.

    Attributes:
        degree: r.
        value: in the measurement's unit: of "sphere" an estimate of T_r[x, …, x]; of "axes" what the order adds to the
            loss read out of the probabilities, without interactions between units.
        standard_error: of the value, from the directions; 0 for "axes", which has no sampling error.
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
        standard_error: of "sphere" from the random directions alone, of "axes" as calibrated on retrains.
        interval: at the confidence asked; of "sphere" it joins sampling with what the orders left out may hold.
        degree: highest order in the estimate.
        terms: all orders that the sketch has, also those above `degree`.
        curve: the estimate at every downweight asked, where there are several; else empty.
        estimator: that gave it: "sphere" or "axes".
        average: how random directions were averaged; None where none were.
    """

    measurement: Measurement
    baseline: float
    estimate: float
    change: float
    standard_error: float
    interval: tuple[float, float]
    degree: int
    terms: tuple[Term, ...]
    curve: tuple[CurvePoint, ...]
    estimator: Literal["sphere", "axes"]
    average: Average | None


@dataclass(frozen=True, kw_only=True)
class Question:
    """What of an answer is free to choose.

    Attributes:
        estimator: "auto" takes the axes where the sketch has them.
        degree: "auto", or 0 … S.
        downweights: each in [0, 1]; at least one.
        confidence: of the interval, from `LEAST_CONFIDENCE` to `MOST_CONFIDENCE`.
        average: "mean", or "median_of_means" over ceil(8 ln(1/(1-confidence))) groups, which heavy tails can't move.

    Raises:
        DegreeError, DownweightError, QuestionError: a value outside its range.
    """

    estimator: Literal["auto", "sphere", "axes"] = "auto"
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
        if not LEAST_CONFIDENCE <= self.confidence <= MOST_CONFIDENCE:
            raise QuestionError(
                f"The confidence must lie between {LEAST_CONFIDENCE} and {MOST_CONFIDENCE}, not be {self.confidence}."
            )


def predict(
    table: Table, deleted: Tensor, overlaps: Tensor, *, units: int, ensemble: Ensemble, question: Question
) -> Prediction:
    """Answer a question.

    Args:
        table: of the measurement.
        deleted: the deletion set D, unit numbers of shape [|D|].
        overlaps: <ψ_j, 1_D> of the random directions, complex128 of shape [K].
        units: m.
        ensemble: of the random directions.
        question: what to choose.

    Raises:
        DegreeError: a degree above the sketch's.
        QuestionError: an estimator that the sketch wasn't built for.
    """
    largest = max(question.downweights)
    estimator = _estimator(table, deleted, overlaps, units=units, ensemble=ensemble, question=question)
    degree = estimator.best_degree(largest) if question.degree == "auto" else question.degree
    if degree > estimator.highest:
        raise DegreeError(f"The sketch holds orders up to {estimator.highest}; degree {degree} needs another build.")

    def point(downweight: float) -> CurvePoint:
        estimate = table.baseline + estimator.change(degree, downweight)
        reach = estimator.reach(degree, downweight)
        return CurvePoint(
            downweight=downweight,
            estimate=estimate,
            standard_error=estimator.standard_error(degree, downweight),
            interval=(estimate - reach, estimate + reach),
        )

    answer = point(largest)
    terms = (estimator.term(r, largest) for r in range(1, estimator.highest + 1))
    return Prediction(
        measurement=table.measurement,
        baseline=table.baseline,
        estimate=answer.estimate,
        change=answer.estimate - table.baseline,
        standard_error=answer.standard_error,
        interval=answer.interval,
        degree=degree,
        terms=tuple(Term(degree=r, value=v, standard_error=error) for r, (v, error) in enumerate(terms, start=1)),
        curve=tuple(map(point, question.downweights)) if len(question.downweights) > 1 else (),
        estimator=estimator.name,
        average=estimator.average,
    )


def _estimator(
    table: Table, deleted: Tensor, overlaps: Tensor, *, units: int, ensemble: Ensemble, question: Question
) -> SphereEstimator | AxesEstimator:
    """The estimator that the question asks for, of those that the sketch was built for."""
    if question.estimator != "sphere" and table.axes is not None and table.calibration is not None:
        return AxesEstimator(table.axes, table.calibration, deleted, confidence=question.confidence)
    if question.estimator == "axes":
        raise QuestionError("The sketch has no axes; the estimator 'axes' needs a build with them.")
    if not len(table.coefficients):
        raise QuestionError("The sketch has no random directions; the estimator 'sphere' needs a build with them.")
    return SphereEstimator(
        table.coefficients,
        overlaps,
        units=units,
        deleted=len(deleted),
        ensemble=ensemble,
        average=question.average,
        confidence=question.confidence,
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
    for unit in units:
        if not 0 <= unit < total:
            raise DeletionSetError(f"There is no unit {unit}; units are numbered 0 to {total - 1}.")
    if len(units) == total:
        raise DeletionSetError("The deletion set is the whole data set: nothing would be left to train on.")
