"""From a measurement and a deletion set to an answer: which estimator, which degree, what bar.

Sketches with axes answer by any of the estimators in `engine.estimators`; "auto" takes, for each answer, the candidate
with the least error at similar sets that the model was retrained for (`engine.calibration`), and the interval comes
from the same. A deletion set that the model was retrained for is answered with the retrained value. Sketches of random
directions alone answer by `engine.sphere`, with its own bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.calibration import ONE_SIGMA, Calibration, Choice, calibrate, choose, chosen_values
from engine.errors import DegreeError, QuestionError
from engine.estimators import Candidate, Estimates, Readout, hold
from engine.evidence import LINKS, Table, tabulate
from engine.frame import DeletionSets, Frame
from engine.measure import Measurement, outcomes
from engine.question import AnsweredBy, CurvePoint, Distribution, Outcome, Prediction, Question, Term
from engine.sphere import Average, SphereEstimator

EXACT_ERROR = 1e-6
"""Of a retrained value, relative to it: what rounding in training in single precision leaves open."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A measurement's table, and what the anchors say of it where the sketch has axes."""

    table: Table
    calibration: Calibration | None

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        return self.table.size_bytes + (0 if self.calibration is None else self.calibration.size_bytes)


@dataclass(frozen=True, kw_only=True)
class _Point:
    """All values at one downweight, [O] each."""

    values: np.ndarray
    standard_error: np.ndarray
    reach: np.ndarray

    def scalars(self, which: int) -> tuple[float, float, tuple[float, float]]:
        value, reach = float(self.values[which]), float(self.reach[which])
        return value, float(self.standard_error[which]), (value - reach, value + reach)


def prepare(measurements: Sequence[Measurement], frame: Frame) -> list[Prepared]:
    """Measure, and calibrate where there are anchors: all that depends on the measurements only.

    Raises:
        TextLengthError, UnknownCharacterError: as `measure.targets`.
    """
    return [
        Prepared(table=table, calibration=calibrate(table, frame) if table.evidence is not None else None)
        for table in tabulate(measurements, frame)
    ]


def predict(
    prepared: Prepared, frame: Frame, deleted: DeletionSets, question: Question, *, retrained: int | None = None
) -> Prediction | Distribution:
    """Answer a question.

    Args:
        prepared: of the measurement.
        frame: of the sketch.
        deleted: a single deletion set.
        question: what to choose.
        retrained: which of the retrained models is the one without D, if one is.

    Raises:
        DegreeError: a degree above the sketch's.
        QuestionError: an estimator that the sketch wasn't built for.
    """
    if question.degree != "auto" and question.degree > frame.degree:
        raise DegreeError(
            f"The sketch holds orders up to {frame.degree}; degree {question.degree} needs another build."
        )
    table = prepared.table
    free = question.estimator == "auto" and question.degree == "auto"
    truth = table.retrained[retrained] if free and retrained is not None and table.retrained is not None else None
    if prepared.calibration is None or question.estimator == "sphere":
        return _by_sphere(table, frame, deleted, question, truth)
    estimates = {1.0: Estimates(table, frame, deleted)}
    choice = choose(prepared.calibration, estimates[1], (question.estimator, question.degree))
    for downweight in question.downweights:
        if downweight not in estimates:
            estimates[downweight] = estimates[1].at(downweight)
    points = _calibrated_points(prepared.calibration, choice, estimates, question, truth)
    largest = max(question.downweights)
    exact = truth is not None and largest == 1
    answer = points[largest]
    candidate = choice.candidate
    estimator: AnsweredBy = "retrained" if exact else candidate.estimator
    readout = None if exact else candidate.readout
    if table.measurement.kind == "next_token":
        return Distribution(
            measurement=table.measurement,
            outcomes=_outcomes(table, frame, answer),
            degree=candidate.degree,
            estimator=estimator,
            readout=readout,
            average=None,
            missing_share=frame.missing_share,
        )
    return _prediction(
        table,
        points,
        question,
        degree=candidate.degree,
        terms=_terms(estimates[largest], candidate, float(answer.values[0])),
        estimator=estimator,
        readout=readout,
        average=None,
        missing_share=frame.missing_share,
    )


def _calibrated_points(
    calibration: Calibration,
    choice: Choice,
    estimates: dict[float, Estimates],
    question: Question,
    truth: np.ndarray | None,
) -> dict[float, _Point]:
    """The answer at every downweight.

    Bars are calibrated at downweight 1. Interactions grow with the square of the downweight or faster, so that in
    proportion is enough; where the retrained value is known, the curve is led to it and the bar closes there.
    """
    baseline = estimates[1].table.baseline
    reach, error = choice.half_width(question.confidence), choice.half_width(ONE_SIGMA)
    whole = chosen_values(calibration, choice, estimates[1])
    points = {}
    for downweight in dict.fromkeys(question.downweights):
        if downweight == 0:
            nothing = np.zeros_like(baseline)
            points[downweight] = _Point(values=baseline, standard_error=nothing, reach=nothing)
            continue
        values = whole if downweight == 1 else chosen_values(calibration, choice, estimates[downweight])
        point = _Point(values=values, standard_error=downweight * error, reach=downweight * reach)
        points[downweight] = point if truth is None else _led_to(truth, whole, point, downweight)
    return points


def _led_to(truth: np.ndarray, whole: np.ndarray, point: _Point, downweight: float) -> _Point:
    """A point of a curve whose end is known: led there, with a bar that closes.

    Args:
        truth: the values at downweight 1, [O].
        whole: the same as estimated.
        point: as estimated.
        downweight: of the point.
    """
    left, rounding = 1 - downweight, EXACT_ERROR * np.abs(truth)
    return _Point(
        values=point.values + downweight**2 * (truth - whole),
        standard_error=left * point.standard_error + rounding,
        reach=left * point.reach + rounding,
    )


def _terms(estimates: Estimates, candidate: Candidate, estimate: float) -> tuple[Term, ...]:
    """What each order adds; the last kept holds what is beyond the units' own effects."""
    in_links: list[list[float]] = estimates.of_axes[0, :, :, 0].tolist()
    links = range(len(LINKS)) if candidate.readout == "both" else (LINKS.index(candidate.readout),)
    alone = [sum(values[link] for link in links) / len(links) for values in in_links]
    alone[0] = float(estimates.table.baseline[0])
    if candidate.degree > 0:
        alone[candidate.degree] = estimate
    return tuple(Term(degree=r, value=alone[r] - alone[r - 1], standard_error=0.0) for r in range(1, len(alone)))


def _by_sphere(
    table: Table, frame: Frame, deleted: DeletionSets, question: Question, truth: np.ndarray | None
) -> Prediction | Distribution:
    """Answer from random directions alone."""
    if question.estimator not in {"auto", "sphere"}:
        raise QuestionError(f"The sketch has no axes; the estimator '{question.estimator}' needs a build with them.")
    if not len(table.coefficients):
        raise QuestionError("The sketch has no random directions; the estimator 'sphere' needs a build with them.")
    overlap, size = deleted.overlaps[0], int(deleted.sizes[0])
    estimators = [
        SphereEstimator(
            table.coefficients[:, :, which],
            overlap,
            units=frame.units,
            deleted=size,
            remaining=frame.remaining_fraction,
            average=question.average,
            confidence=question.confidence,
        )
        for which in range(len(table.baseline))
    ]
    largest = max(question.downweights)
    if question.degree == "auto":  # one for all values of a distribution, so that they still add up to one
        errors = [sum(e.squared_error(q, largest) for e in estimators) for q in range(frame.degree + 1)]
        degree = errors.index(min(errors))
    else:
        degree = question.degree
    points = {
        downweight: _Point(
            values=table.baseline + np.array([e.change(degree, downweight) for e in estimators]),
            standard_error=np.array([e.standard_error(degree, downweight) for e in estimators]),
            reach=np.array([e.reach(degree, downweight) for e in estimators]),
        )
        for downweight in dict.fromkeys((1.0, *question.downweights))
    }
    if truth is not None:
        whole = points[1.0].values
        points = {downweight: _led_to(truth, whole, point, downweight) for downweight, point in points.items()}
    exact = truth is not None and largest == 1
    estimator: AnsweredBy = "retrained" if exact else "sphere"
    average = None if exact else question.average
    if table.measurement.kind == "next_token":
        answer = points[largest]
        values = hold("next_token", answer.values)
        answer = _Point(values=values, standard_error=answer.standard_error, reach=answer.reach)
        return Distribution(
            measurement=table.measurement,
            outcomes=_outcomes(table, frame, answer),
            degree=degree,
            estimator=estimator,
            readout=None if exact else "probability",
            average=average,
            missing_share=frame.missing_share,
        )
    terms = [estimators[0].term(r, largest) for r in range(1, frame.degree + 1)]
    return _prediction(
        table,
        points,
        question,
        degree=degree,
        terms=tuple(Term(degree=r, value=v, standard_error=error) for r, (v, error) in enumerate(terms, start=1)),
        estimator=estimator,
        readout=None if exact else "logarithm",
        average=average,
        missing_share=frame.missing_share,
    )


def _prediction(
    table: Table,
    points: dict[float, _Point],
    question: Question,
    *,
    degree: int,
    terms: tuple[Term, ...],
    estimator: AnsweredBy,
    readout: Readout | None,
    average: Average | None,
    missing_share: float,
) -> Prediction:
    baseline = float(table.baseline[0])
    estimate, standard_error, interval = points[max(question.downweights)].scalars(0)
    return Prediction(
        measurement=table.measurement,
        baseline=baseline,
        estimate=estimate,
        change=estimate - baseline,
        standard_error=standard_error,
        interval=interval,
        below_resolution=interval[0] <= baseline <= interval[1],
        degree=degree,
        terms=terms,
        curve=tuple(_curve_point(downweight, points[downweight]) for downweight in question.downweights)
        if len(question.downweights) > 1
        else (),
        estimator=estimator,
        readout=readout,
        average=average,
        missing_share=missing_share,
    )


def _curve_point(downweight: float, point: _Point) -> CurvePoint:
    estimate, standard_error, interval = point.scalars(0)
    return CurvePoint(downweight=downweight, estimate=estimate, standard_error=standard_error, interval=interval)


def _outcomes(table: Table, frame: Frame, answer: _Point) -> tuple[Outcome, ...]:
    found = []
    for which, token in enumerate(outcomes(table.measurement, frame.model)):
        baseline = float(table.baseline[which])
        estimate, standard_error, (low, high) = answer.scalars(which)
        low, high = max(low, 0.0), min(high, 1.0)
        found.append(
            Outcome(
                token=token,
                baseline=baseline,
                estimate=estimate,
                change=estimate - baseline,
                standard_error=standard_error,
                interval=(low, high),
                below_resolution=low <= baseline <= high,
            )
        )
    return tuple(found)
