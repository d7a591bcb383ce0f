"""Attributions: the units whose deletion changes a measurement most, among all of them.

With axes, the model was retrained without every unit by itself, so that the changes are known. From random directions
alone, the first order of every unit is estimated; the ones that stand out among many estimates stand out by their noise
too, so that the intervals are widened to hold for all units at once (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.errors import QuestionError
from engine.estimate import EXACT_ERROR, Prepared
from engine.evidence import Table
from engine.frame import Frame
from engine.measure import Measurement
from engine.question import check_confidence
from engine.sphere import SphereEstimator


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """What deleting one unit does.

    Attributes:
        unit: its number.
        estimate: of the measurement without it.
        change: estimate - baseline.
        standard_error: of the estimate.
        interval: of the measurement without it.
        below_resolution: whether the interval holds the baseline.
    """

    unit: int
    estimate: float
    change: float
    standard_error: float
    interval: tuple[float, float]
    below_resolution: bool


@dataclass(frozen=True, kw_only=True)
class Attributions:
    """The units that matter most for one measurement.

    Attributes:
        measurement: what was measured.
        baseline: after ordinary training.
        raising: units whose deletion raises the measurement, the largest change first.
        lowering: units whose deletion lowers it, the largest change first.
        estimator: "retrained" where every unit was, else "sphere".
        missing_share: as of a `Prediction`.
    """

    measurement: Measurement
    baseline: float
    raising: tuple[Attribution, ...]
    lowering: tuple[Attribution, ...]
    estimator: Literal["retrained", "sphere"]
    missing_share: float


def attribute(
    prepared: Prepared, frame: Frame, *, top: int, confidence: float, left_out: Collection[int] = ()
) -> Attributions:
    """Find the units that matter most.

    Args:
        prepared: of a measurement that is one number.
        frame: of the sketch.
        top: how many units to name in each direction, 1 … m.
        confidence: of the intervals.
        left_out: units that aren't to be named.

    Raises:
        QuestionError: a top or a confidence outside its range, or a measurement of several numbers.
    """
    if not 1 <= top <= frame.units:
        raise QuestionError(f"top must lie between 1 and {frame.units:,}, the number of units, not be {top}.")
    check_confidence(confidence)
    table = prepared.table
    if len(table.baseline) > 1:
        raise QuestionError("A distribution can't be attributed: ask for the log-probability of one completion.")
    baseline = float(table.baseline[0])
    if frame.axes is not None and table.retrained is not None:
        changes = table.retrained[: frame.units, 0] - table.baseline
        found = {unit: _known(unit, baseline, float(changes[unit])) for unit in _extremes(changes, top, left_out)}
    else:
        changes = _first_orders(table, frame)
        named = _extremes(changes, top, left_out)
        found = {unit: _estimated(unit, table, frame, confidence) for unit in named}
    ordered = sorted(found.values(), key=lambda attribution: attribution.change)
    return Attributions(
        measurement=table.measurement,
        baseline=baseline,
        raising=tuple(a for a in reversed(ordered) if a.change > 0)[:top],
        lowering=tuple(a for a in ordered if a.change < 0)[:top],
        estimator="sphere" if frame.axes is None else "retrained",
        missing_share=frame.missing_share,
    )


def _extremes(changes: np.ndarray, top: int, left_out: Collection[int]) -> list[int]:
    """Units with the largest and with the smallest changes."""
    ascending: list[int] = [unit for unit in changes.argsort().tolist() if unit not in left_out]
    return list(dict.fromkeys([*ascending[: -top - 1 : -1], *ascending[:top]]))


def _known(unit: int, baseline: float, change: float) -> Attribution:
    estimate = baseline + change
    return _attribution(unit, baseline, change, EXACT_ERROR * abs(estimate), EXACT_ERROR * abs(estimate))


def _first_orders(table: Table, frame: Frame) -> np.ndarray:
    """Estimated first-order changes by every unit, float64 of shape [m]."""
    if not len(table.coefficients):
        raise QuestionError("The sketch has no axes and no random directions: there is nothing to attribute with.")
    first = table.coefficients[0, :, 0]
    return np.asarray(frame.units * (frame.directions_by_unit.conj() @ first).real / len(first))


def _estimated(unit: int, table: Table, frame: Frame, confidence: float) -> Attribution:
    estimator = SphereEstimator(
        table.coefficients[:, :, 0],
        frame.one_set([unit]).overlaps[0],
        units=frame.units,
        deleted=1,
        remaining=frame.remaining_fraction,
        average="mean",
        confidence=1 - (1 - confidence) / frame.units,
    )
    return _attribution(
        unit, float(table.baseline[0]), estimator.change(1, 1), estimator.standard_error(1, 1), estimator.reach(1, 1)
    )


def _attribution(unit: int, baseline: float, change: float, standard_error: float, reach: float) -> Attribution:
    estimate = baseline + change
    return Attribution(
        unit=unit,
        estimate=estimate,
        change=change,
        standard_error=standard_error,
        interval=(estimate - reach, estimate + reach),
        below_resolution=abs(change) <= reach,
    )
