"""Estimators: from the evidence of a measurement to its values without a deletion set.

All of them add changes to the evidence's link space (probabilities, or their logarithms), and read the measurement out
of the sum. With D the deletion set, w the downweight, x = w·1_D:

- `axes`: Σ_r w^r Σ_{u in D} T_r[e_u, …, e_u], and with all orders of the sketch each unit's remainder too, so that a
  single unit comes out exact; no interactions between units.
- `pairs`: and w² Σ_{u < v in D} of what two units do together, from retrained models: exact for two.
- `hybrid`: and Σ_r mean_j Re(N_r <ψ_j, x>^r o_{r,j}), interactions from random directions by averaging, shrunk by the
  share of noise in them.
- `interpolation`: and Σ_r of the least interactions that explain what was measured along the directions.
- `sphere`: Σ_r mean_j Re(N_r <ψ_j, x>^r y_r(ψ_j)), everything from random directions (`engine.sphere`).
- `regression`: what `axes` (or `pairs`) adds up in both links, weighted as fits retrained models at similar sets
  (`engine.regression`).

A *candidate* is an estimator with a highest order, a highest order of interactions, and a readout: one of the links, or
the mean of what both give.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from engine.directions import dimension
from engine.errors import DegreeError, QuestionError
from engine.evidence import LINKS, Along, Link, Spread, Table
from engine.frame import DeletionSets, Frame, product
from engine.measure import Kind

EstimatorName: TypeAlias = Literal["sphere", "axes", "pairs", "hybrid", "interpolation", "regression"]
Readout: TypeAlias = Link | Literal["both"]

Asked: TypeAlias = tuple[Literal["auto"] | EstimatorName, int | Literal["auto"]]
"""Estimator and degree of a question."""

FLOOR = 0.05
"""Of the baseline probability: where probabilities are added up, no estimate falls below."""

_LEAST_LOGARITHM = -50.0
_LEAST_PROBABILITY = 1e-12


class Candidate(NamedTuple):
    """One way to estimate.

    Attributes:
        estimator: its name.
        degree: the highest order of the expansion.
        interactions: the highest order of interactions between units; 0 for none.
        readout: what is added up.
    """

    estimator: EstimatorName
    degree: int
    interactions: int
    readout: Readout


def candidates(table: Table, frame: Frame) -> tuple[Candidate, ...]:
    """All that a table can be estimated by; the regression, which needs anchors too, isn't among them."""
    evidence, degrees = table.evidence, range(1, frame.degree + 1)
    assert evidence is not None
    found: list[Candidate] = []
    for link in LINKS:
        # Nothing changes at degree 0, in whatever link: once is enough.
        found += [Candidate("axes", degree, 0, link) for degree in ((0, *degrees) if link == LINKS[0] else degrees)]
        if evidence.pairs is not None:
            found += [Candidate("pairs", degree, 2, link) for degree in degrees if degree >= min(2, frame.degree)]
        orders = () if evidence.interactions is None else degrees[1:]
        found += [Candidate("interpolation", d, r, link) for r in evidence.weights for d in degrees[r - 1 :]]
        found += [Candidate("hybrid", d, r, link) for r in orders for d in degrees[r - 1 :]]
        if evidence.directions is not None and link == _sphere_link(table):
            found += [Candidate("sphere", degree, degree, link) for degree in degrees]
    exact = [c for c in found if c.estimator in {"axes", "pairs"} and c.degree > 0 and c.readout == LINKS[0]]
    return (*found, *(candidate._replace(readout="both") for candidate in exact))


def allowed(among: Sequence[Candidate], asked: Asked, degree: int) -> list[Candidate]:
    """The candidates that a question leaves open.

    What is added up has no noise that grows with the order, so that "auto" keeps to the sketch's whole degree: a lower
    one is at times nearer at anchors by chance, and lost on sets that were no anchors.

    Raises:
        QuestionError: an estimator that the sketch wasn't built for.
        DegreeError: a degree too low for the estimator.
    """
    estimator, wanted = asked
    of_estimator = [c for c in among if estimator in {"auto", c.estimator}]
    if estimator != "auto" and not of_estimator:
        needs = "pairs" if estimator == "pairs" else "random directions beside axes, and degree 2 or more"
        raise QuestionError(f"The estimator '{estimator}' needs a build with {needs}.")
    found = [c for c in of_estimator if c.degree == (degree if wanted == "auto" else wanted)]
    if not found:
        least = min(c.degree for c in of_estimator)  # they go up to the sketch's from there
        raise DegreeError(f"The estimator '{estimator}' needs at least degree {least}.")
    return found


class Estimates:
    """Estimates of a measurement at B deletion sets by any candidate, each made when it is asked for. L = 2 links."""

    def __init__(self, table: Table, frame: Frame, sets: DeletionSets, downweight: float = 1.0) -> None:
        """Of nothing yet.

        Args:
            table: of the measurement, with axes.
            frame: of the sketch.
            sets: B deletion sets.
            downweight: w.
        """
        assert table.evidence is not None
        self.table, self.frame, self.sets, self.evidence = table, frame, sets, table.evidence
        self._downweight = downweight
        self._values: dict[Candidate, np.ndarray] = {}
        self._parts: dict[tuple[EstimatorName, int, int], np.ndarray] = {}
        self._sums: dict[tuple[Along, int, int], np.ndarray] = {}

    def at(self, downweight: float) -> Estimates:
        """The same at another downweight."""
        return Estimates(self.table, self.frame, self.sets, downweight)

    def value(self, candidate: Candidate) -> np.ndarray:
        """A candidate's estimates, float64 of shape [B, O]; any of `candidates`."""
        if candidate.readout == "both":
            return np.asarray(np.add.reduce(self.in_both_links(candidate), axis=1) / 2)
        link = LINKS.index(candidate.readout)
        if candidate.estimator == "axes":
            return self.of_axes[:, candidate.degree, link]
        if candidate not in self._values:
            summed = self.evidence.origin[link] + self._change(candidate, link)
            self._hold(summed, link)
            self._values[candidate] = read_out(self.table.measurement.kind, summed)
        return self._values[candidate]

    def in_both_links(self, candidate: Candidate) -> np.ndarray:
        """The same with either readout, [B, L, O]."""
        if candidate.estimator == "axes":
            return self.of_axes[:, candidate.degree]
        return np.stack([self.value(candidate._replace(readout=link)) for link in LINKS], axis=1)

    @cached_property
    def of_axes(self) -> np.ndarray:
        """Estimates of `axes` at degrees 0 … S, float64 of shape [B, S + 1, L, O]."""
        summed = self.evidence.origin + self.alone
        for link in range(len(LINKS)):
            self._hold(summed[..., link, :], link)
        return read_out(self.table.measurement.kind, summed)

    @cached_property
    def alone(self) -> np.ndarray:
        """Changes in link space by what every unit does alone, to degrees 0 … S, [B, S + 1, L, T]."""
        count = self.frame.degree + 1
        orders = self._total[:, :count].reshape(len(self.sets), count, -1)
        changes = _up_to_degrees(self.frame.degree, self._downweight) @ orders
        return np.reshape(changes, (len(self.sets), count, *self.evidence.origin.shape))

    @cached_property
    def _total(self) -> np.ndarray:
        return self.sets.total(self.evidence.by_unit)

    @cached_property
    def _total_of_two(self) -> np.ndarray:
        assert self.evidence.pairs is not None
        return self.sets.total_of_two(self.evidence.pairs)

    def _change(self, candidate: Candidate, link: int) -> np.ndarray:
        """What a candidate adds up in link space, [B, T]."""
        estimator, degree, interactions, _ = candidate
        change = self.alone[:, 0 if estimator == "sphere" else degree, link]
        for order in range(1 if estimator == "sphere" else 2, interactions + 1):
            change = change + self._part(estimator, order, link)
        return change

    def _part(self, estimator: EstimatorName, order: int, link: int) -> np.ndarray:
        """What one order adds by interactions, and of `sphere` by everything, [B, T]."""
        key = estimator, order, link
        if key not in self._parts:
            self._parts[key] = self._downweight**order * self._whole_part(*key)
        return self._parts[key]

    def _whole_part(self, estimator: EstimatorName, order: int, link: int) -> np.ndarray:
        """The same at downweight 1."""
        evidence, sets, units = self.evidence, self.sets, self.frame.units
        if estimator == "pairs":
            return self._total_of_two[:, link]
        if estimator == "interpolation":
            pure_powers = self._total[:, self.frame.degree + order - 1, link]
            return np.asarray(self._sum_along("weights", order, link) - pure_powers)
        factor = dimension(units, order) / len(self.frame.directions)
        if estimator == "sphere":
            return factor * self._sum_along("directions", order, link)
        mean = factor * self._sum_along("interactions", order, link)
        noise = variance_of_mean(mean, evidence.spreads[order, link], sets, units, order).sum(axis=1, keepdims=True)
        signal = np.sum(mean**2, axis=1, keepdims=True)
        return np.asarray(np.maximum(1 - noise / np.maximum(signal, 1e-300), 0) * mean)

    def _sum_along(self, what: Along, order: int, link: int) -> np.ndarray:
        """A sum over directions, [B, T]."""
        along, sets = self.evidence.along, self.sets
        if len(sets) == 1:
            return sets.along(order, along[what, order][link])
        if (what, order, link) not in self._sums:
            # Of many sets all sums of an order at once: a large product takes less time than small ones.
            keys = [(*key, of) for key in along if key[1] == order for of in range(len(LINKS))]
            sums = sets.along(order, np.concatenate([along[name, r][of] for name, r, of in keys]))
            self._sums.update(zip(keys, np.split(sums, len(keys), axis=1), strict=True))
        return self._sums[what, order, link]

    def _hold(self, summed: np.ndarray, link: int) -> None:
        """Turn what is added up in a link, [..., T], into probabilities, in place: held where probabilities can be."""
        if LINKS[link] == "probability":
            np.maximum(summed, FLOOR * self.evidence.origin[link], out=summed)
            np.minimum(summed, 1, out=summed)
        else:
            np.maximum(summed, _LEAST_LOGARITHM, out=summed)
            np.minimum(summed, 0, out=summed)
            np.exp(summed, out=summed)


@lru_cache(maxsize=64)
def _up_to_degrees(degree: int, downweight: float) -> np.ndarray:
    """What turns the orders 1 … S of the axes and the remainder into changes to degrees 0 … S, [S + 1, S + 1]."""
    orders = np.tril(np.full((degree + 1, degree + 1), downweight), -1).cumprod(axis=1)
    orders[degree, degree] = downweight ** (degree + 1)  # the remainder belongs to the whole degree only
    return orders


def _sphere_link(table: Table) -> Link:
    """In which the plain estimator adds up: where the value itself is linear."""
    return "probability" if table.measurement.kind == "next_token" else "logarithm"


def variance_of_mean(mean: np.ndarray, spread: Spread, sets: DeletionSets, units: int, order: int) -> np.ndarray:
    """Sampling variance of the mean over directions of Re(N_r <ψ, x>^r y).

    It needs no sample by itself: Re(z)² = (|z|² + Re(z²)) / 2, and both are sums over directions again.

    Args:
        mean: for B sets, [B, N].
        spread: of y.
        sets: the B sets.
        units: m.
        order: r.

    Returns:
        Of shape [B, N].
    """
    count, factor = spread.moduli.shape[1], float(dimension(units, order))
    squares = product(sets.squares(order), spread.moduli.T) + sets.along(2 * order, spread.squares)
    return np.asarray(np.maximum(squares * (factor**2 / 2 / count) - mean**2, 0) / max(count - 1, 1))


def read_out(kind: Kind, probabilities: np.ndarray) -> np.ndarray:
    """Values [..., O] of a measurement from its tokens' probabilities [..., T]: `measure.read_out` on the host."""
    if kind == "next_token":
        return np.asarray(probabilities / np.add.reduce(probabilities, axis=-1, keepdims=True))
    total = np.add.reduce(np.log(probabilities), axis=-1, keepdims=True)
    return np.asarray(total / -probabilities.shape[-1] if kind == "loss" else total)


def hold(kind: Kind, values: np.ndarray) -> np.ndarray:
    """The nearest values that a measurement can have, of shape [..., O].

    A mean loss is at least 0, a log-probability at most; probabilities are positive and add up to one.
    """
    if kind == "loss":
        return np.asarray(np.maximum(values, 0))
    if kind == "log_probability":
        return np.asarray(np.minimum(values, 0))
    return read_out(kind, np.maximum(values, _LEAST_PROBABILITY))
