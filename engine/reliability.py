"""How far a sketch may be trusted about a measurement, told from models that were really retrained.

With axes, the anchors are asked about as if they weren't known (`engine.leave_one_out`): their truth stands beside what
would have been answered. Units alone, and pairs where the sketch has them, aren't among them: they are answered with
retrained values, and no anchor is needed for it. Of a sketch without axes the models that were retrained later, for a
pinned subset or a verification, are no part of any estimate, so that each is simply asked about.

Beside them, how stable training is for this measurement: the norms of its derivatives, as far as there are random
directions (`engine.sphere`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from engine.errors import QuestionError
from engine.estimate import Prepared, predict
from engine.estimators import EstimatorName
from engine.evidence import Table
from engine.frame import Frame
from engine.leave_one_out import leave_one_out
from engine.measure import Measurement
from engine.question import Prediction, Question, check_confidence
from engine.sphere import derivative_norms

MOST_GROUPS: Final = 6
"""Of anchors, by their size."""


@dataclass(frozen=True, kw_only=True)
class AnchorAnswer:
    """A set that the model was retrained without, as it would have been answered had that not been so.

    Attributes:
        units: how many it has.
        truth: the measurement of the retrained model.
        estimate: of it.
        interval: of it.
        inside_interval: whether the truth is.
        estimator: that gave the estimate.
    """

    units: int
    truth: float
    estimate: float
    interval: tuple[float, float]
    inside_interval: bool
    estimator: EstimatorName


@dataclass(frozen=True, kw_only=True)
class SizeGroup:
    """Anchors of similar size.

    Attributes:
        smallest, largest: numbers of units.
        anchors: how many.
        inside: of them, whose truth is in its interval.
        median_width: of the intervals.
        rms_error: root mean square of estimate - truth.
        rms_change: root mean square of truth - baseline.
    """

    smallest: int
    largest: int
    anchors: int
    inside: int
    median_width: float
    rms_error: float
    rms_change: float


@dataclass(frozen=True, kw_only=True)
class DerivativeNorm:
    """‖T_r‖, how large an order of the measurement's expansion is, and the standard error of that."""

    order: int
    norm: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """What is known of a sketch's answers about one measurement.

    Attributes:
        measurement: what was measured.
        baseline: after ordinary training.
        anchors: the smallest sets first; empty where there are none.
        sizes: the same by size, in at most `MOST_GROUPS` groups.
        derivative_norms: of the orders 1 … S; empty where there are no random directions, or a single one.
        missing_share: as of a `Prediction`.
    """

    measurement: Measurement
    baseline: float
    anchors: tuple[AnchorAnswer, ...]
    sizes: tuple[SizeGroup, ...]
    derivative_norms: tuple[DerivativeNorm, ...]
    missing_share: float


def reliability(prepared: Prepared, frame: Frame, *, confidence: float) -> Reliability:
    """Say how right answers about a measurement would have been where the truth is known.

    Args:
        prepared: of a measurement that is one number.
        frame: of the sketch.
        confidence: of the intervals.

    Raises:
        QuestionError: a confidence outside its range, or more than the anchors can tell; a measurement of several
            numbers.
    """
    check_confidence(confidence)
    table = prepared.table
    if len(table.baseline) > 1:
        raise QuestionError("A distribution has no single truth: ask for the log-probability of one completion.")
    with_axes = frame.axes is not None
    anchors = _without_each(table, frame, confidence) if with_axes else _beside(prepared, frame, confidence)
    anchors.sort(key=lambda anchor: anchor.units)
    baseline = float(table.baseline[0])
    return Reliability(
        measurement=table.measurement,
        baseline=baseline,
        anchors=tuple(anchors),
        sizes=tuple(_group(group, baseline) for group in by_size(anchors)),
        derivative_norms=_norms(table, frame),
        missing_share=frame.missing_share,
    )


def _without_each(table: Table, frame: Frame, confidence: float) -> list[AnchorAnswer]:
    """Of a sketch with axes: the sets of its anchors, those of the build and those that came later."""
    assert frame.axes is not None
    assert table.retrained is not None
    rows, exact = frame.axes.rows, 2 if frame.axes.pairs else 1
    same: dict[bytes, list[int]] = {}
    for number, row in enumerate(rows):
        same.setdefault(row.tobytes(), []).append(number)
    asked = [numbers for numbers in same.values() if rows[numbers[0]].sum() > exact]
    truth = table.retrained[len(table.retrained) - len(rows) :, 0]
    answers = leave_one_out(table, frame, asked, confidence=confidence)
    return [
        _anchor(
            units=int(rows[first].sum()),
            truth=float(truth[first]),
            estimate=answer.value,
            interval=(answer.value - answer.half_width, answer.value + answer.half_width),
            estimator=answer.candidate.estimator,
        )
        for (first, *_), answer in zip(asked, answers, strict=True)
    ]


def _beside(prepared: Prepared, frame: Frame, confidence: float) -> list[AnchorAnswer]:
    """Of a sketch of random directions alone: what was retrained later."""
    retrained = prepared.table.retrained
    if retrained is None:
        return []
    assert frame.holdings is not None
    found = []
    for units, (truth,) in zip(frame.holdings.sets, retrained.tolist(), strict=True):
        answer = predict(prepared, frame, frame.one_set(units), Question(confidence=confidence))
        assert isinstance(answer, Prediction)
        assert answer.estimator != "retrained"
        found.append(
            _anchor(
                units=len(units),
                truth=truth,
                estimate=answer.estimate,
                interval=answer.interval,
                estimator=answer.estimator,
            )
        )
    return found


def _anchor(
    *, units: int, truth: float, estimate: float, interval: tuple[float, float], estimator: EstimatorName
) -> AnchorAnswer:
    return AnchorAnswer(
        units=units,
        truth=truth,
        estimate=estimate,
        interval=interval,
        inside_interval=interval[0] <= truth <= interval[1],
        estimator=estimator,
    )


def by_size(anchors: Sequence[AnchorAnswer]) -> list[Sequence[AnchorAnswer]]:
    """Anchors in the order of their size, in groups of about equal numbers; sets of one size are in one group."""
    count = len(anchors)
    ends = [number for number in range(1, count) if anchors[number - 1].units < anchors[number].units]
    wanted = [count * group / MOST_GROUPS for group in range(1, MOST_GROUPS)]
    chosen = sorted({min(ends, key=lambda end: abs(end - place)) for place in wanted} if ends else set())
    bounds = [0, *chosen, count]
    return [anchors[start:stop] for start, stop in pairwise(bounds) if start < stop]


def _group(anchors: Sequence[AnchorAnswer], baseline: float) -> SizeGroup:
    errors = np.array([anchor.estimate - anchor.truth for anchor in anchors])
    changes = np.array([anchor.truth - baseline for anchor in anchors])
    return SizeGroup(
        smallest=anchors[0].units,
        largest=anchors[-1].units,
        anchors=len(anchors),
        inside=sum(anchor.inside_interval for anchor in anchors),
        median_width=float(np.median([anchor.interval[1] - anchor.interval[0] for anchor in anchors])),
        rms_error=float(np.sqrt(np.mean(errors**2))),
        rms_change=float(np.sqrt(np.mean(changes**2))),
    )


def _norms(table: Table, frame: Frame) -> tuple[DerivativeNorm, ...]:
    """Along the directions that are there."""
    if table.coefficients.shape[1] < 2:  # one has no spread
        return ()
    norms, errors = derivative_norms(table.coefficients[:, :, 0], frame.units, remaining=frame.remaining_fraction)
    return tuple(
        DerivativeNorm(order=order, norm=norm, standard_error=error)
        for order, (norm, error) in enumerate(zip(norms.tolist(), errors.tolist(), strict=True), start=1)
    )
