"""The axes estimator: what every unit does alone, summed over the deletion set, and calibrated on retrains.

Along the axis e_u of a unit, the probability of each target token has the Taylor coefficients T_r[e_u, …, e_u]. For a
deletion set D and downweight w the estimated probability is

    p(w) = p_0 + Σ_{r ≤ degree} w^r Σ_{u in D} T_r[e_u, …, e_u],

the first order exact for every D, all orders exact for a single unit, and interactions between units left out. The loss
is read out last, -mean log p: a loss is the logarithm of probabilities, and deleting all evidence of something drives
one towards zero, where the expansion of the loss itself converges slowly. A sum below `FLOOR` times the baseline
probability is held there, since a truncated sum can leave the positive numbers.

**Calibration.** There is no sampling error; what is wrong is interactions and truncation. How much, the *anchors* tell:
models really retrained without some hundreds of random and coherent sets. For each measurement their true values are
known, so a linear model of log |error| is fitted on features of a set (`_features`), and the quantile of what it leaves
makes the bar: split conformal prediction with a learned scale (Lei et al. 2018), by cross-validation. The degree is the
one with the least typical error on the anchors, by geometric mean: a mean of squares would listen to the largest only.

**Truncation** joins the bar apart from that: the first documents of a run expand slowly, since Adam's second moment
rests on few gradients there, and few anchors hold one of them. Each unit's last order, times `TAIL`, stands for its
remainder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor

from engine.errors import QuestionError

FLOOR = 0.05
"""Of the baseline probability: no estimate of a token's probability falls below."""

TAIL = 2.0
"""All orders of a unit beyond the last, as a multiple of the last one: a geometric series of ratio 2/3."""

ONE_SIGMA = 0.6827
"""The share of normal errors within one standard deviation."""

FOLDS = 8
_RIDGE = 0.01
_TINY = 1e-6  # nats: errors and effects below are rounding


@dataclass(frozen=True, kw_only=True)
class AxisTable:
    """Probabilities of a measurement's target tokens along the axes of all units.

    Attributes:
        constants: after ordinary training, float64 of shape [T].
        coefficients: orders 1 … S, float64 of shape [S, m, T].
    """

    constants: Tensor
    coefficients: Tensor

    @property
    def degree(self) -> int:
        """S."""
        return len(self.coefficients)


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Deletion sets for which the model was really retrained.

    Attributes:
        members: unit numbers of all sets, one set after the other, int64.
        owners: which set each member belongs to, int64.
        count: A, how many sets.
    """

    members: Tensor
    owners: Tensor
    count: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the anchors say of one measurement.

    Attributes:
        degree: with the least typical error on them.
        center: mean of each feature, shape [F].
        spread: standard deviation of each feature.
        weights: of the standardised features, for the logarithm of the error.
        scores: log |error| less the fitted one, out of fold, sorted, shape [A].
    """

    degree: int
    center: Tensor
    spread: Tensor
    weights: Tensor
    scores: Tensor

    def half_width(self, described: Tensor, confidence: float) -> float:
        """Half of the interval of a set with these features.

        Raises:
            QuestionError: a confidence that so few anchors can't tell.
        """
        rank = math.ceil((len(self.scores) + 1) * confidence)
        if rank > len(self.scores):
            most = len(self.scores) / (len(self.scores) + 1)
            raise QuestionError(
                f"{len(self.scores)} anchors can't tell an interval of confidence {confidence}; at most {most:.4f}."
            )
        fitted = float(((described - self.center) / self.spread) @ self.weights)
        return math.exp(fitted + float(self.scores[rank - 1]))


def losses(table: AxisTable, sums: Tensor, downweight: float = 1.0) -> Tensor:
    """The loss read out at degrees 0 … S.

    Args:
        table: of the measurement.
        sums: coefficients summed over deletion sets, of shape [..., S, T].
        downweight: w.

    Returns:
        Mean nats per token, of shape [..., S + 1].
    """
    orders = torch.arange(1, table.degree + 1, dtype=sums.dtype, device=sums.device)
    added = (sums * (downweight**orders)[:, None]).cumsum(dim=-2)
    probabilities = table.constants + torch.cat([torch.zeros_like(added[..., :1, :]), added], dim=-2)
    return -torch.maximum(probabilities, FLOOR * table.constants).log().mean(dim=-1)


def features(table: AxisTable, sums: Tensor, squares: Tensor, sizes: Tensor) -> Tensor:
    """What the error of an estimate may grow with, as logarithms.

    Args:
        table: of the measurement.
        sums: coefficients summed over each set, [..., S, T].
        squares: squared first-order effects of the units on the loss, summed over each set, [...].
        sizes: units of each set, [...].

    Returns:
        Of shape [..., 6]: one; size; root of the squares (a random set's effect); estimated effect (a coherent one's);
        effect of the orders above the first; relative change of the tokens' probabilities.
    """
    values = losses(table, sums)
    relative = sums / table.constants
    higher = relative[..., 1:, :].mean(dim=-1).abs().sum(dim=-1)
    return torch.stack(
        [
            torch.ones_like(squares),
            sizes.log(),
            (squares + _TINY**2).log() / 2,
            ((values[..., -1] - values[..., 0]).abs() + _TINY).log(),
            (higher + _TINY).log(),
            (relative[..., 0, :].square().mean(dim=-1) + _TINY**2).log() / 2,
        ],
        dim=-1,
    )


def effects(table: AxisTable, order: int) -> Tensor:
    """Effect of one order of every unit on the loss, where probabilities change little; of shape [m]."""
    return -(table.coefficients[order - 1] / table.constants).mean(dim=-1)


class AxesEstimator:
    """The estimate for one measurement and deletion set; what `estimate.predict` asks of an estimator."""

    name: Literal["axes"] = "axes"
    average = None

    def __init__(self, table: AxisTable, calibration: Calibration, deleted: Tensor, *, confidence: float) -> None:
        """Sum over the deletion set.

        Args:
            table: of the measurement.
            calibration: of the table.
            deleted: unit numbers, int64 of shape [|D|].
            confidence: of the interval.
        """
        self.highest = table.degree
        self._table, self._calibration = table, calibration
        self._sums = table.coefficients[:, deleted].sum(dim=1)
        described = features(
            table,
            self._sums,
            effects(table, 1)[deleted].square().sum(),
            torch.tensor(float(len(deleted)), dtype=table.constants.dtype, device=table.constants.device),
        )
        truncation = TAIL * float(effects(table, table.degree)[deleted].norm())
        quantile = NormalDist().inv_cdf((1 + confidence) / 2)
        self._reach = math.hypot(calibration.half_width(described, confidence), quantile * truncation)
        self._error = math.hypot(calibration.half_width(described, ONE_SIGMA), truncation)

    def change(self, degree: int, downweight: float) -> float:
        """Estimated change with orders 1 … degree."""
        values = losses(self._table, self._sums, downweight)
        return float(values[degree] - values[0])

    def term(self, r: int, downweight: float) -> tuple[float, float]:
        """What order r adds to the change. It has no sampling error."""
        return self.change(r, downweight) - self.change(r - 1, downweight), 0.0

    def standard_error(self, degree: int, downweight: float) -> float:
        """The error that two thirds of the anchors stay below, at sets like this one, joined with the truncation."""
        return self._widened(self._error, degree, downweight)

    def reach(self, degree: int, downweight: float) -> float:
        """Half of the interval."""
        return self._widened(self._reach, degree, downweight)

    def best_degree(self, downweight: float) -> int:
        """The degree with the least error on the anchors; 0 where nothing is deleted."""
        return self._calibration.degree if downweight > 0 else 0

    def _widened(self, reach: float, degree: int, downweight: float) -> float:
        # Calibrated at downweight 1; interactions grow with its square or faster, so in proportion is enough. And
        # calibrated for one degree: another one's answer is as much further off as it differs.
        differs = abs(self.change(degree, downweight) - self.change(self._calibration.degree, downweight))
        return reach * downweight + differs


def calibrate(table: AxisTable, anchors: Anchors, truth: Tensor) -> Calibration:
    """Learn from the anchors how wrong estimates of a measurement are.

    Args:
        table: of the measurement.
        anchors: the sets.
        truth: the measurement of each anchor's retrained model, float64 of shape [A].
    """
    shape = (anchors.count, table.degree, len(table.constants))
    of_members = table.coefficients[:, anchors.members].transpose(0, 1)
    sums = of_members.new_zeros(shape).index_add_(0, anchors.owners, of_members)
    squares = truth.new_zeros(anchors.count).index_add_(0, anchors.owners, effects(table, 1).square()[anchors.members])
    sizes = torch.bincount(anchors.owners, minlength=anchors.count).to(truth)
    errors = (losses(table, sums) - truth[:, None]).abs()
    degree = 1 + int((errors[:, 1:] + _TINY).log().mean(dim=0).argmin())
    inputs = features(table, sums, squares, sizes)
    center, spread = inputs.mean(dim=0), inputs.std(dim=0)
    center[0], spread[0] = 0, 1  # the constant stays one
    spread = spread.clamp(min=_TINY)
    standard = (inputs - center) / spread
    target = (errors[:, degree] + _TINY).log()
    scores = torch.empty_like(target)
    folds = torch.arange(anchors.count, device=truth.device) // 2 % FOLDS  # random and coherent sets take turns
    for fold in range(FOLDS):
        held_out = folds == fold
        weights = _ridge(standard[~held_out], target[~held_out])
        scores[held_out] = target[held_out] - standard[held_out] @ weights
    return Calibration(
        degree=degree,
        center=center,
        spread=spread,
        weights=_ridge(standard, target),
        scores=scores.sort().values,
    )


def _ridge(inputs: Tensor, target: Tensor) -> Tensor:
    penalty = _RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    penalty[0, 0] = 0  # the constant is no effect to shrink
    weights: Tensor = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ target)
    return weights
