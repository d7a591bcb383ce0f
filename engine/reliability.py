"""How far a sketch may be trusted about a measurement, told from models that were really retrained.

With axes, the anchors are asked about as if they weren't known (`engine.leave_one_out`): their truth stands beside what
would have been answered. Units alone, and pairs where the sketch has them, aren't among them: they are answered with
retrained values, and no anchor is needed for it. Of a sketch without axes the models that were retrained later, for a
pinned subset or a verification, are no part of any estimate, so that each is simply asked about. Where there are very
many sets, some are drawn and asked about.

Coherent anchors mostly have close relatives among the others: what is covered is told for sets that are as much like
the rest as these. Those that are less like it are covered less often.

Beside them, how stable training is for this measurement: the norms of its derivatives, as far as there are random
directions (`engine.sphere`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

MOST_ASKED: Final = 1_000
"""Sets that are asked about; of more, so many are drawn. Each costs as much as the square of the number of anchors."""

_SEED: Final = 0

_Z: Final = 1.959964
"""Standard deviations of a normal distribution within which 95% lie."""


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
        likeness: to the set among the other anchors that is most like it, the correlation of membership; from 0, a
            stranger, to 1.
        later: whether it was retrained after the build: it was chosen then, and not drawn.
    """

    units: int
    truth: float
    estimate: float
    interval: tuple[float, float]
    inside_interval: bool
    estimator: EstimatorName
    likeness: float
    later: bool


@dataclass(frozen=True, kw_only=True)
class SizeGroup:
    """Anchors of similar size.

    Attributes:
        smallest, largest: numbers of units.
        anchors: how many.
        inside: of them, whose truth is in its interval.
        coverage_interval: where the share inside lies with 95% confidence, were the sets independent (Wilson).
        median_width: of the intervals.
        rms_error: root mean square of estimate - truth.
        rms_change: root mean square of truth - baseline.
    """

    smallest: int
    largest: int
    anchors: int
    inside: int
    coverage_interval: tuple[float, float]
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
        anchors: the smallest sets first, at most `MOST_ASKED`; empty where there are none.
        anchors_in_all: how many different sets there are, asked about or not.
        sizes: the same by size, in at most `MOST_GROUPS` groups; with axes without those that were retrained later.
        derivative_norms: of the orders 1 … S; empty where there are no random directions, or a single one.
        missing_share: as of a `Prediction`.
    """

    measurement: Measurement
    baseline: float
    anchors: tuple[AnchorAnswer, ...]
    anchors_in_all: int
    sizes: tuple[SizeGroup, ...]
    derivative_norms: tuple[DerivativeNorm, ...]
    missing_share: float


def reliability(
    prepared: Prepared, frame: Frame, *, confidence: float, go_on: Callable[[], None] = lambda: None
) -> Reliability:
    """Say how right answers about a measurement would have been where the truth is known.

    Args:
        prepared: of a measurement that is one number.
        frame: of the sketch.
        confidence: of the intervals.
        go_on: called again and again meanwhile; what it raises ends the work.

    Raises:
        QuestionError: a confidence outside its range, or more than the anchors can tell; a measurement of several
            numbers.
    """
    check_confidence(confidence)
    table = prepared.table
    if len(table.baseline) > 1:
        raise QuestionError("A distribution has no single truth: ask for the log-probability of one completion.")
    with_axes = frame.axes is not None
    if with_axes:
        anchors, in_all = _without_each(table, frame, confidence, go_on)
    else:
        anchors, in_all = _beside(prepared, frame, confidence, go_on)
    anchors.sort(key=lambda anchor: anchor.units)
    baseline = float(table.baseline[0])
    grouped = [anchor for anchor in anchors if not (with_axes and anchor.later)]
    return Reliability(
        measurement=table.measurement,
        baseline=baseline,
        anchors=tuple(anchors),
        anchors_in_all=in_all,
        sizes=tuple(_group(group, baseline) for group in by_size(grouped)),
        derivative_norms=_norms(table, frame),
        missing_share=frame.missing_share,
    )


def drawn(sizes: Sequence[float] | np.ndarray, most: int) -> list[int]:
    """Which of some sets are asked about, in their order: all, or of more than `most` as many, the same every time.

    In the order of size there are as many stretches, equally long but for one set; of each, one is drawn.

    Args:
        sizes: of the sets.
        most: how many may be asked about.
    """
    count = len(sizes)
    if count <= most:
        return list(range(count))
    random = np.random.default_rng(_SEED)
    mixed = random.permutation(count)
    ordered = mixed[np.argsort(np.asarray(sizes)[mixed], kind="stable")]
    bounds = np.arange(most + 1) * count // most
    return sorted(ordered[random.integers(bounds[:-1], bounds[1:])].tolist())


def coverage_interval(inside: int, count: int) -> tuple[float, float]:
    """Where a share lies with 95% confidence, by Wilson's score, from how often it was seen.

    Args:
        inside: how often.
        count: of how many independent cases, at least one.
    """
    share, square = inside / count, _Z**2
    center = (share + square / (2 * count)) / (1 + square / count)
    reach = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    low = 0.0 if inside == 0 else max(center - reach, 0.0)
    return low, 1.0 if inside == count else min(center + reach, 1.0)


def _without_each(
    table: Table, frame: Frame, confidence: float, go_on: Callable[[], None]
) -> tuple[list[AnchorAnswer], int]:
    """Of a sketch with axes: its anchors, those of the build and those that came later; how many in all."""
    assert frame.axes is not None
    assert table.retrained is not None
    models, sizes = frame.axes.models, frame.anchor_sets.sizes
    first_later = len(models) - frame.axes.later
    asked = drawn(sizes, MOST_ASKED)
    answers = leave_one_out(table, frame, asked, confidence=confidence, go_on=go_on)
    anchors = [
        _anchor(
            units=int(sizes[number]),
            truth=float(table.retrained[models[number], 0]),
            estimate=answer.value,
            interval=(answer.value - answer.half_width, answer.value + answer.half_width),
            estimator=answer.candidate.estimator,
            likeness=answer.likeness,
            later=number >= first_later,
        )
        for number, answer in zip(asked, answers, strict=True)
    ]
    return anchors, len(models)


def _beside(
    prepared: Prepared, frame: Frame, confidence: float, go_on: Callable[[], None]
) -> tuple[list[AnchorAnswer], int]:
    """Of a sketch of random directions alone: what was retrained later; how many in all."""
    retrained = prepared.table.retrained
    if retrained is None:
        return [], 0
    assert frame.holdings is not None
    sets = frame.holdings.sets
    memberships, found = _Memberships(sets, frame.units), []
    for which in drawn([len(units) for units in sets], MOST_ASKED):
        go_on()
        units = sets[which]
        answer = predict(prepared, frame, frame.one_set(units), Question(confidence=confidence))
        assert isinstance(answer, Prediction)
        assert answer.estimator != "retrained"
        found.append(
            _anchor(
                units=len(units),
                truth=float(retrained[which, 0]),
                estimate=answer.estimate,
                interval=answer.interval,
                estimator=answer.estimator,
                likeness=memberships.likeness(which),
                later=True,
            )
        )
    return found, len(sets)


class _Memberships:
    """Which units are in which of some sets, to be compared; B sets of m units."""

    def __init__(self, sets: Sequence[Sequence[int]], units: int) -> None:
        self._sizes = sizes = np.array([len(members) for members in sets])
        self._members, self._units = np.concatenate([np.array(members) for members in sets]), units
        self._starts = sizes.cumsum() - sizes
        self._shares = sizes / units
        self._spreads = np.sqrt(self._shares * (1 - self._shares))

    def likeness(self, which: int) -> float:
        """The largest correlation of one with another, but at least 0."""
        inside = np.zeros(self._units)
        start = self._starts[which]
        inside[self._members[start : start + self._sizes[which]]] = 1
        common = np.add.reduceat(inside[self._members], self._starts) / self._units
        found = (common - self._shares[which] * self._shares) / (self._spreads[which] * self._spreads)
        found[which] = 0
        return float(min(max(found.max(), 0.0), 1.0))


def _anchor(
    *,
    units: int,
    truth: float,
    estimate: float,
    interval: tuple[float, float],
    estimator: EstimatorName,
    likeness: float,
    later: bool,
) -> AnchorAnswer:
    return AnchorAnswer(
        units=units,
        truth=truth,
        estimate=estimate,
        interval=interval,
        inside_interval=interval[0] <= truth <= interval[1],
        estimator=estimator,
        likeness=likeness,
        later=later,
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
    inside = sum(anchor.inside_interval for anchor in anchors)
    return SizeGroup(
        smallest=anchors[0].units,
        largest=anchors[-1].units,
        anchors=len(anchors),
        inside=inside,
        coverage_interval=coverage_interval(inside, len(anchors)),
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
