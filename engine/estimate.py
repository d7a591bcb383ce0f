"""From a measurement's table and a deletion set to an estimate with its error: the sphere estimator.

For a direction ψ uniform on the complex unit sphere of C^m, and N_r = C(m+r-1, r),

    Z_{r,j} = Re( N_r · <ψ_j, x>^r · y_r(ψ_j) )

has the expectation T_r[x, …, x], the r-th Taylor term of the measurement along the downweight x; so the mean over
directions estimates the term, its spread gives the standard error, and the sum over r ≤ degree estimates the change.
(S. Gunn, *How to sketch a learning algorithm*, arXiv 2604.07328.)

**Choice of degree.** Noise grows by a factor with every order while the terms shrink, so the best degree differs from
answer to answer. Each term is given a normal prior, and the measured value with its standard error then leaves a
posterior mean and variance. The prior's scale comes, for the first order, from the derivative's norm (E N_1|y_1|² =
‖T_1‖²): a set's influences add up like random numbers or, in a coherent set, all with one sign; both are held
possible. For a higher order it comes from the order before it. The estimated squared error of a degree is the
sampling variance of the terms kept plus the posterior second moment of what is left out. The degree with the least is
taken; its root is the bar.

The theorem's own bound isn't used as a bar: its constants ask for analyticity far beyond where training is analytic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from engine.directions import Ensemble, dimension, remaining_fraction
from engine.errors import DegreeError, DeletionSetError, DownweightError, QuestionError
from engine.measure import Measurement, Table

Average: TypeAlias = Literal["mean", "median_of_means"]

_TAIL = 2.0
"""All orders beyond the sketch's, as a multiple of the last one: a geometric series of ratio 2/3. Among single
deletions the slowest are the first documents of the run, when Adam's second moment rests on few gradients: about 2."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One order's part of the change.

    Attributes:
        degree: r.
        value: estimate of T_r[x, …, x], in the measurement's unit.
        standard_error: of the value, from the directions.
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
        standard_error: of the estimate, from the directions alone.
        interval: joins sampling with what the orders left out may hold.
        degree: highest order in the estimate.
        terms: all orders that the sketch has, also those above `degree`.
        curve: the estimate at every downweight asked, where there are several; else empty.
        estimator: "sphere".
        average: how directions were averaged.
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
    estimator: Literal["sphere"]
    average: Average


@dataclass(frozen=True, kw_only=True)
class Question:
    """What of an answer is free to choose.

    Attributes:
        degree: "auto", or 0 … S.
        downweights: each in [0, 1]; at least one.
        confidence: of the interval, in (0, 1).
        average: "mean", or "median_of_means" over ceil(8 ln(1/(1-confidence))) groups, which heavy tails can't move.

    Raises:
        DegreeError, DownweightError, QuestionError: a value outside its range.
    """

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
        if not 0 < self.confidence < 1:
            raise QuestionError(f"The confidence must lie between 0 and 1, not be {self.confidence}.")


def predict(
    table: Table, overlaps: Tensor, *, units: int, deleted: int, ensemble: Ensemble, question: Question
) -> Prediction:
    """Answer a question by the sphere estimator.

    Args:
        table: of the measurement, with K directions.
        overlaps: <ψ_j, 1_D>, complex128 of shape [K].
        units: m.
        deleted: |D|.
        ensemble: of the directions.
        question: what to choose.

    Raises:
        DegreeError: a degree above the sketch's.
    """
    highest = len(table.coefficients)
    if question.degree != "auto" and question.degree > highest:
        raise DegreeError(f"The sketch holds orders up to {highest}; degree {question.degree} needs another build.")
    sample = _Sample(term_samples(table.coefficients, overlaps, units), ensemble, units, question)
    influence = (
        table.coefficients[0].abs().square().mean().item()
    )  # ‖T_1‖²/m: mean squared first-order effect of a unit
    sizes = (deleted * influence, deleted**2 * influence)  # of a random and of a coherent set's first term, squared
    largest = max(question.downweights)
    degree = question.degree if question.degree != "auto" else sample.best_degree(largest, sizes)
    quantile = NormalDist().inv_cdf((1 + question.confidence) / 2)

    def point(downweight: float) -> CurvePoint:
        estimate = table.baseline + sum(sample.value(r) * downweight**r for r in range(1, degree + 1))
        reach = quantile * math.sqrt(sample.squared_error(degree, downweight, sizes))
        return CurvePoint(
            downweight=downweight,
            estimate=estimate,
            standard_error=math.sqrt(sample.variance(degree, downweight)),
            interval=(estimate - reach, estimate + reach),
        )

    answer = point(largest)
    return Prediction(
        measurement=table.measurement,
        baseline=table.baseline,
        estimate=answer.estimate,
        change=answer.estimate - table.baseline,
        standard_error=answer.standard_error,
        interval=answer.interval,
        degree=degree,
        terms=tuple(
            Term(
                degree=r,
                value=sample.value(r) * largest**r,
                standard_error=math.sqrt(sample.term_variance(r)) * largest**r,
            )
            for r in range(1, highest + 1)
        ),
        curve=tuple(map(point, question.downweights)) if len(question.downweights) > 1 else (),
        estimator="sphere",
        average=question.average,
    )


def term_samples(coefficients: Tensor, overlaps: Tensor, units: int) -> Tensor:
    """Z_{r,j} of every order and direction.

    Args:
        coefficients: y_r(ψ_j), complex128 of shape [S, K].
        overlaps: <ψ_j, x>, complex128 of shape [K].
        units: m.

    Returns:
        float64 of shape [S, K].
    """
    highest = len(coefficients)
    factors = torch.tensor([float(dimension(units, r)) for r in range(1, highest + 1)], dtype=torch.float64)
    powers = overlaps.expand(highest, -1).cumprod(dim=0)  # <ψ, x>^r for r = 1 … S
    return (powers * coefficients).real * factors.to(overlaps.device)[:, None]


def derivative_norms(coefficients: Tensor, units: int) -> Tensor:
    """‖T_r‖ of orders 1 … S by E N_r |y_r|² = ‖T_r‖², float64 of shape [S]."""
    factors = torch.tensor([float(dimension(units, r)) for r in range(1, len(coefficients) + 1)], dtype=torch.float64)
    return (factors * coefficients.abs().square().mean(dim=1).cpu()).sqrt()


class _Sample:
    """Statistics of the term samples of one answer; orders count from 1."""

    def __init__(self, samples: Tensor, ensemble: Ensemble, units: int, question: Question) -> None:
        self.highest, self.count = samples.shape
        self.groups = 1
        if question.average == "median_of_means":
            self.groups = min(math.ceil(8 * math.log(1 / (1 - question.confidence))), self.count)
        self._values = self._average(samples).tolist()
        # Order 1 of a unitary ensemble is sampled without replacement; groups break its blocks up, and count as
        # independent.
        remaining = remaining_fraction(ensemble, units, self.count) if self.groups == 1 else 1.0
        scaled = samples - samples.mean(dim=1, keepdim=True)
        scaled[0] *= math.sqrt(remaining)
        spread = (
            1.0 if self.groups == 1 else math.pi / 2
        )  # variance of a median over that of a mean, for normal numbers
        self._covariance = (scaled @ scaled.T * (spread / (self.count * (self.count - 1)))).cpu()

    def _average(self, samples: Tensor) -> Tensor:
        if self.groups == 1:
            return samples.mean(dim=1)
        means = torch.stack([group.mean(dim=1) for group in samples.tensor_split(self.groups, dim=1)])
        return means.quantile(0.5, dim=0)

    def value(self, r: int) -> float:
        return float(self._values[r - 1])

    def term_variance(self, r: int) -> float:
        return float(self._covariance[r - 1, r - 1])

    def variance(self, degree: int, downweight: float) -> float:
        """Of the sum of orders 1 … degree."""
        weights = torch.tensor([downweight**r for r in range(1, degree + 1)], dtype=torch.float64)
        return max(float(weights @ self._covariance[:degree, :degree] @ weights), 0.0)

    def posterior(self, downweight: float, sizes: Sequence[float]) -> list[tuple[float, float]]:
        """Posterior mean and variance of every term, and of all together beyond the sketch's degree."""
        moments: list[tuple[float, float]] = []
        scales = [size * downweight**2 for size in sizes]
        for r in range(1, self.highest + 1):
            moments.append(
                _posterior(self.value(r) * downweight**r, self.term_variance(r) * downweight ** (2 * r), scales)
            )
            mean, variance = moments[-1]
            scales = [mean**2 + variance]  # the next term is expected to be no larger than this one
        return [*moments, (0.0, _TAIL**2 * scales[0])]

    def squared_error(self, degree: int, downweight: float, sizes: Sequence[float]) -> float:
        """Estimated squared error of the estimate that keeps orders 1 … degree."""
        left_out = self.posterior(downweight, sizes)[degree:]
        bias = sum(mean for mean, _ in left_out)
        return self.variance(degree, downweight) + bias**2 + sum(variance for _, variance in left_out)

    def best_degree(self, downweight: float, sizes: Sequence[float]) -> int:
        return min(range(self.highest + 1), key=lambda q: self.squared_error(q, downweight, sizes))


def _posterior(value: float, noise: float, scales: Sequence[float]) -> tuple[float, float]:
    """Mean and variance of a number that was measured with a noise variance, under an even mixture of N(0, scale)."""
    if noise == 0:
        return value, 0.0
    likelihoods = [NormalDist(0, math.sqrt(scale + noise)).pdf(value) for scale in scales]
    total = sum(likelihoods)
    shrinks = [scale / (scale + noise) for scale in scales]
    # Where every likelihood underflows, the value is far outside of all scales: the widest explains it best.
    weights = [likelihood / total for likelihood in likelihoods] if total else [float(s == max(scales)) for s in scales]
    mean = sum(w * shrink * value for w, shrink in zip(weights, shrinks, strict=True))
    second = sum(w * ((shrink * value) ** 2 + shrink * noise) for w, shrink in zip(weights, shrinks, strict=True))
    return mean, max(second - mean**2, 0.0)


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
