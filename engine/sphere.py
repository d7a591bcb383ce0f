"""The sphere estimator: random directions average to every order of the change, with a standard error.

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

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np

from engine.directions import dimension

Average: TypeAlias = Literal["mean", "median_of_means"]

_TAIL = 2.0
"""All orders beyond the sketch's, as a multiple of the last one: a geometric series of ratio 2/3. Among single
deletions the slowest are the first documents of the run, when Adam's second moment rests on few gradients: about 2."""


def term_samples(coefficients: np.ndarray, overlaps: np.ndarray, units: int) -> np.ndarray:
    """Z_{r,j} of every order and direction.

    Args:
        coefficients: y_r(ψ_j), complex128 of shape [S, K].
        overlaps: <ψ_j, x>, complex128 of shape [K].
        units: m.

    Returns:
        float64 of shape [S, K].
    """
    samples, power = np.empty(coefficients.shape), overlaps
    for r, of_order in enumerate(coefficients, start=1):
        power = power if r == 1 else power * overlaps
        np.multiply((power * of_order).real, dimension(units, r), out=samples[r - 1])
    return samples


def derivative_norms(coefficients: np.ndarray, units: int, *, remaining: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """‖T_r‖ of orders 1 … S by E N_r |y_r|² = ‖T_r‖², and standard errors of these norms.

    The errors are those of independent directions. N_r |y_r|² has heavy tails at high orders: with few directions they
    are too small as often as not, and the norms with them. Rows of a unitary matrix aren't independent: at order 1
    their squares add up to the norm's exactly over a whole matrix, so that the error shrinks by the root of
    `remaining`, to nothing where there are whole matrices only. At higher orders they repel each other less and less,
    and the error that is given is somewhat too large.

    Args:
        coefficients: y_r(ψ_j), complex128 of shape [S, K], of at least two directions.
        units: m.
        remaining: factor on the variance of order 1's mean, as `directions.remaining_fraction`.

    Returns:
        float64 of shape [S], each.
    """
    factors = np.array([float(dimension(units, r)) for r in range(1, len(coefficients) + 1)])
    squares = factors[:, None] * np.abs(coefficients) ** 2
    means = squares.mean(axis=1)
    errors = squares.std(axis=1, ddof=1) / math.sqrt(squares.shape[1])
    errors[0] *= math.sqrt(remaining)
    norms = np.sqrt(means)
    return norms, errors / np.maximum(2 * norms, 1e-300)  # of a root


class SphereEstimator:
    """Statistics of the term samples of one measurement and deletion set; orders count from 1."""

    name: Literal["sphere"] = "sphere"

    def __init__(
        self,
        coefficients: np.ndarray,
        overlaps: np.ndarray,
        *,
        units: int,
        deleted: int,
        remaining: float,
        average: Average,
        confidence: float,
    ) -> None:
        """Take the samples of every order.

        Args:
            coefficients: y_r(ψ_j), complex128 of shape [S, K].
            overlaps: <ψ_j, 1_D>, complex128 of shape [K].
            units: m.
            deleted: |D|.
            remaining: factor on the variance of order 1's mean, as `directions.remaining_fraction`.
            average: over the directions.
            confidence: of the interval; decides the number of groups of a median of means.
        """
        samples = term_samples(coefficients, overlaps, units)
        self.highest, self.count = samples.shape
        self.average: Average = average
        self._quantile = _quantile(confidence)
        # ‖T_1‖²/m: mean squared first-order effect of a unit.
        influence = float(np.vdot(coefficients[0], coefficients[0]).real) / self.count
        # Expected squared first term of a random and of a coherent set of this size.
        self._sizes = (deleted * influence, deleted**2 * influence)
        self.groups = 1
        if average == "median_of_means":
            self.groups = min(math.ceil(8 * math.log(1 / (1 - confidence))), self.count)
        self._values: list[float] = self._average(samples).tolist()
        # Order 1 of a unitary ensemble is sampled without replacement, which shrinks whatever it varies with; groups
        # break the ensemble's blocks up, and count as independent.
        remaining = remaining if self.groups == 1 else 1.0
        covariance = self._spread(samples)
        covariance[0, :] *= remaining
        covariance[1:, 0] *= remaining
        self._covariance: list[list[float]] = covariance.tolist()
        self._of_downweight: dict[float, list[float]] = {}
        self._moments = self.posterior()

    def change(self, degree: int, downweight: float) -> float:
        """Estimated change with orders 1 … degree."""
        return sum(self.value(r) * downweight**r for r in range(1, degree + 1))

    def term(self, r: int, downweight: float) -> tuple[float, float]:
        """Order r of the change, and its standard error."""
        return self.value(r) * downweight**r, math.sqrt(self.term_variance(r)) * downweight**r

    def standard_error(self, degree: int, downweight: float) -> float:
        """Of the change, from the directions alone."""
        return math.sqrt(self.variance(degree, downweight))

    def reach(self, degree: int, downweight: float) -> float:
        """Half of the interval."""
        return self._quantile * math.sqrt(self.squared_error(degree, downweight))

    def _average(self, samples: np.ndarray) -> np.ndarray:
        return np.asarray(samples.mean(axis=1) if self.groups == 1 else np.median(self._group_means(samples), axis=1))

    def _spread(self, samples: np.ndarray) -> np.ndarray:
        """Covariance of the averages, of shape [S, S]."""
        if self.groups == 1:
            return np.asarray(_covariance(samples) / self.count)
        means = self._group_means(samples)
        middle = np.median(means, axis=1, keepdims=True)
        # Without the groups that a wild direction moved: else the bar would follow what the median resists.
        deviation = 1.4826 * np.median(np.abs(means - middle), axis=1, keepdims=True)
        kept = means.clip(middle - 3 * deviation, middle + 3 * deviation)
        # A median varies more than a mean, by π/2 where the numbers are normal.
        return math.pi / 2 * _covariance(kept) / self.groups

    def _group_means(self, samples: np.ndarray) -> np.ndarray:
        return np.stack([group.mean(axis=1) for group in np.array_split(samples, self.groups, axis=1)], axis=1)

    def value(self, r: int) -> float:
        """Order r of the change."""
        return self._values[r - 1]

    def term_variance(self, r: int) -> float:
        """Sampling variance of order r."""
        return self._covariance[r - 1][r - 1]

    def variance(self, degree: int, downweight: float) -> float:
        """Of the sum of orders 1 … degree."""
        return max(self._variances(downweight)[degree], 0.0)

    def _variances(self, downweight: float) -> list[float]:
        """The same for all degrees, each from the one below it, made once a downweight."""
        if downweight not in self._of_downweight:
            total, totals = 0.0, [0.0]
            for r, row in enumerate(self._covariance, start=1):
                below = 0.0
                for q in range(1, r):
                    below += row[q - 1] * downweight ** (q + r)
                total += 2 * below + row[r - 1] * downweight ** (2 * r)
                totals.append(total)
            self._of_downweight[downweight] = totals
        return self._of_downweight[downweight]

    def posterior(self) -> list[tuple[float, float]]:
        """Mean and variance of every term given its sample, and of all together beyond the sketch's degree."""
        moments: list[tuple[float, float]] = []
        scales: Sequence[float] = self._sizes
        for r in range(1, self.highest + 1):
            moments.append(_posterior(self.value(r), self.term_variance(r), scales))
            mean, variance = moments[-1]
            scales = [mean**2 + variance]  # the next term is expected to be no larger than this one
        return [*moments, (0.0, _TAIL**2 * scales[0])]

    def squared_error(self, degree: int, downweight: float) -> float:
        """Estimated squared error of the estimate that keeps orders 1 … degree."""
        bias = spread = 0.0
        for r, (mean, variance) in enumerate(self._moments[degree:], start=degree + 1):
            bias += mean * downweight**r
            spread += variance * downweight ** (2 * r)
        return self.variance(degree, downweight) + bias**2 + spread

    def best_degree(self, downweight: float) -> int:
        """The degree with the least estimated squared error."""
        return min(range(self.highest + 1), key=lambda q: self.squared_error(q, downweight))


@functools.lru_cache(maxsize=128)
def _quantile(confidence: float) -> float:
    """Half of the interval that holds this share of a standard normal distribution."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _covariance(samples: np.ndarray) -> np.ndarray:
    """Of rows of samples, as `numpy.cov`, which takes four times as long; a single sample has none that is finite."""
    deviations = samples - samples.mean(axis=1, keepdims=True)
    return np.asarray(deviations @ deviations.T / (samples.shape[1] - 1))


def _posterior(value: float, noise: float, scales: Sequence[float]) -> tuple[float, float]:
    """Mean and variance of a number that was measured with a noise variance, under an even mixture of N(0, scale)."""
    if noise == 0:
        return value, 0.0
    likelihoods = [math.exp(-(value**2) / (2 * (scale + noise))) / math.sqrt(scale + noise) for scale in scales]
    total = sum(likelihoods)
    shrinks = [scale / (scale + noise) for scale in scales]
    # Where every likelihood underflows, the value is far outside of all scales: the widest explains it best.
    weights = [likelihood / total for likelihood in likelihoods] if total else [float(s == max(scales)) for s in scales]
    mean = sum(w * shrink * value for w, shrink in zip(weights, shrinks, strict=True))
    second = sum(w * ((shrink * value) ** 2 + shrink * noise) for w, shrink in zip(weights, shrinks, strict=True))
    return mean, max(second - mean**2, 0.0)
