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

from collections.abc import Collection, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from engine.directions import dimension
from engine.evidence import Evidence, Link, Table
from engine.frame import DeletionSets, Frame
from engine.measure import read_out

EstimatorName: TypeAlias = Literal["sphere", "axes", "pairs", "hybrid", "interpolation", "regression"]
Readout: TypeAlias = Link | Literal["both"]

ALWAYS: Final[tuple[EstimatorName, ...]] = ("axes", "pairs")
"""Whose candidates tell how large and how sure a change is, whichever one answers."""

FLOOR = 0.05
"""Of the baseline probability: where probabilities are added up, no estimate falls below."""

_LEAST_LOGARITHM = -50.0


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


def candidate_values(
    table: Table,
    frame: Frame,
    sets: DeletionSets,
    downweight: float = 1.0,
    *,
    estimators: Collection[EstimatorName] = get_args(EstimatorName),
) -> dict[Candidate, Tensor]:
    """Every candidate's estimate of a measurement; that of the regression needs anchors and isn't among them.

    Args:
        table: of the measurement, with axes.
        frame: of the sketch.
        sets: B deletion sets.
        downweight: w.
        estimators: whose candidates are wanted.

    Returns:
        float64 of shape [B, O], by candidate.
    """
    values = {
        Candidate(name, degree, interactions, evidence.link): read_out(
            table.measurement.kind, _probabilities(evidence, change)
        )
        for evidence in table.evidence
        for name, degree, interactions, change in _changes(evidence, frame, sets, downweight, table, estimators)
    }
    for candidate, value in list(values.items()):
        other = values.get(candidate._replace(readout="logarithm"))
        if candidate.estimator in {"axes", "pairs"} and candidate.readout == "probability" and other is not None:
            values[candidate._replace(readout="both")] = (value + other) / 2
    return values


def _changes(
    evidence: Evidence,
    frame: Frame,
    sets: DeletionSets,
    downweight: float,
    table: Table,
    estimators: Collection[EstimatorName],
) -> Iterator[tuple[EstimatorName, int, int, Tensor]]:
    """Estimator, degree, interactions and the changes [B, T] in link space; those of the axes always."""
    alone = _alone(evidence, sets, downweight)
    # Nothing changes at degree 0, in whatever link: once is enough.
    for degree in range(0 if evidence.link == "probability" else 1, frame.degree + 1):
        yield "axes", degree, 0, alone[degree]
    if evidence.pairs is not None and "pairs" in estimators:
        together = sets.total_of_two(evidence.pairs) * downweight**2 / 2
        for degree in range(min(2, frame.degree), frame.degree + 1):
            yield "pairs", degree, 2, alone[degree] + together
    for name, parts in (
        ("interpolation", _interpolated(evidence, sets, downweight)),
        ("hybrid", _averaged(evidence, frame, sets, downweight)),
    ):
        if name not in estimators:
            continue
        total = torch.zeros_like(alone[0])
        for order, part in parts:
            total = total + part
            for degree in range(order, frame.degree + 1):
                yield name, degree, order, alone[degree] + total  # type: ignore[misc]  # the names above
    if "sphere" in estimators and evidence.directions is not None and evidence.link == _sphere_link(table):
        change = torch.zeros_like(alone[0])
        for order in range(1, frame.degree + 1):
            change = change + _term(evidence.directions[order - 1], sets.overlaps, frame.units, order)[0] * (
                downweight**order
            )
            yield "sphere", order, order, change


def _sphere_link(table: Table) -> Link:
    """In which the plain estimator adds up: where the value itself is linear."""
    return "probability" if table.measurement.kind == "next_token" else "logarithm"


def _alone(evidence: Evidence, sets: DeletionSets, downweight: float) -> list[Tensor]:
    """Changes [B, T] by what every unit does alone, to degrees 0 … S."""
    changes = [evidence.origin.new_zeros(len(sets), len(evidence.origin))]
    for order, coefficients in enumerate(evidence.axes, start=1):
        changes.append(changes[-1] + downweight**order * sets.total(coefficients))
    changes[-1] = changes[-1] + downweight ** len(changes) * sets.total(evidence.remainder)
    return changes


def _interpolated(evidence: Evidence, sets: DeletionSets, downweight: float) -> Iterator[tuple[int, Tensor]]:
    for order, weights in evidence.weights.items():
        yield order, sets.functionals(order) @ weights * downweight**order


def _averaged(evidence: Evidence, frame: Frame, sets: DeletionSets, downweight: float) -> Iterator[tuple[int, Tensor]]:
    if evidence.interactions is None:
        return
    for order, interactions in enumerate(evidence.interactions, start=2):
        mean, noise = _term(interactions, sets.overlaps, frame.units, order)
        signal = mean.square().sum(dim=1, keepdim=True)
        shrink = (1 - noise.sum(dim=1, keepdim=True) / signal.clamp(min=1e-300)).clamp(min=0)
        yield order, shrink * mean * downweight**order


def _term(coefficients: Tensor, overlaps: Tensor, units: int, order: int) -> tuple[Tensor, Tensor]:
    """Mean over directions of Re(N_r <ψ, x>^r y), and the variance of the mean.

    The variance needs no sample by itself: Re(z)² = (|z|² + Re(z²)) / 2, and both are sums over directions again.

    Args:
        coefficients: y, complex128 of shape [K, T].
        overlaps: <ψ, x>, complex128 of shape [B, K].
        units: m.
        order: r.
    """
    count = len(coefficients)
    powers = overlaps**order * float(dimension(units, order))
    mean = (powers @ coefficients).real / count
    squares = powers.abs().square() @ coefficients.abs().square() + (powers**2 @ coefficients**2).real
    return mean, (squares / 2 / count - mean.square()).clamp(min=0) / max(count - 1, 1)


def _probabilities(evidence: Evidence, change: Tensor) -> Tensor:
    """Probabilities from changes in link space, held where probabilities can be."""
    if evidence.link == "logarithm":
        return (evidence.origin + change).clamp(min=_LEAST_LOGARITHM, max=0).exp()
    return torch.maximum(evidence.origin + change, FLOOR * evidence.origin).clamp(max=1)
