"""What a sketch says of one measurement, whatever is deleted: its table.

The flow: jets of the trained parameters, and retrained models → probabilities of the measurement's tokens → evidence in
two *links*. An estimate adds up what units do; whether it adds up probabilities or their logarithms makes a difference,
since deleting all evidence of something drives a probability towards zero. Which is better depends on the measurement
and the deletion set, so both are kept, and the calibration chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from engine import jet
from engine.frame import Frame
from engine.jet import Jet
from engine.measure import Measurement, measured_probabilities, read_out, read_out_jets

Link: TypeAlias = Literal["probability", "logarithm"]
LINKS: tuple[Link, ...] = ("probability", "logarithm")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Of the T tokens of a measurement, in one link; float64 or complex128.

    Attributes:
        link: what is added up.
        origin: after ordinary training, [T].
        axes: T_r[e_u, …, e_u] for r = 1 … S, [S, m, T].
        remainder: what deleting a unit does beyond these orders, [m, T].
        pairs: what deleting two units does beyond deleting each, symmetric, [m, m, T]; None without pairs.
        directions: y_r(ψ_j), [S, K, T]; None without random directions.
        interactions: of them what the axes don't explain, o_r for r = 2 … S, [S - 1, K, T].
        weights: of the interpolation, by order, [2K, T].
    """

    link: Link
    origin: Tensor
    axes: Tensor
    remainder: Tensor
    pairs: Tensor | None
    directions: Tensor | None
    interactions: Tensor | None
    weights: Mapping[int, Tensor]

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        optional = (self.pairs, self.directions, self.interactions, *self.weights.values())
        tensors = [self.axes, self.remainder, *(tensor for tensor in optional if tensor is not None)]
        return sum(tensor.nbytes for tensor in tensors)


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one measurement needs of a sketch.

    Attributes:
        measurement: what was measured.
        baseline: its values after ordinary training, float64 of shape [O].
        coefficients: orders 1 … S of the values along the random directions, complex128 of shape [S, K, O].
        evidence: in every link; empty without axes.
        retrained: the values of every retrained model, float64 of shape [B, O]; None where there are none.
    """

    measurement: Measurement
    baseline: Tensor
    coefficients: Tensor
    evidence: tuple[Evidence, ...] = ()
    retrained: Tensor | None = None

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        own = self.coefficients.nbytes + (0 if self.retrained is None else self.retrained.nbytes)
        return own + sum(evidence.size_bytes for evidence in self.evidence)


@torch.inference_mode()
def tabulate(measurement: Measurement, frame: Frame) -> Table:
    """Measure along all directions and axes, and on all retrained models.

    Args:
        measurement: what to measure.
        frame: of the sketch.

    Raises:
        TextLengthError, UnknownCharacterError: as `measure.targets`.
    """
    probabilities = jet.linear_map(
        torch.Tensor.double, measured_probabilities(measurement, frame.model, frame.parameters)
    )
    values = read_out_jets(measurement.kind, probabilities)
    baseline = values.constant
    coefficients = _complex(values) if values.higher else baseline.new_empty((0, 0, 1), dtype=torch.complex128)
    known = None
    if frame.models:
        models = {name: Jet(matrix) for name, matrix in frame.models.items()}
        known = measured_probabilities(measurement, frame.model, models).constant.double()
    retrained = None if known is None else read_out(measurement.kind, known)
    if frame.axes is None or known is None:
        return Table(measurement=measurement, baseline=baseline, coefficients=coefficients, retrained=retrained)
    along = jet.linear_map(torch.Tensor.double, measured_probabilities(measurement, frame.model, frame.axes.parameters))
    return Table(
        measurement=measurement,
        baseline=baseline,
        coefficients=coefficients,
        evidence=tuple(_evidence(link, frame, probabilities, along, known) for link in LINKS),
        retrained=retrained,
    )


def _evidence(link: Link, frame: Frame, probabilities: Jet, along: Jet, retrained: Tensor) -> Evidence:
    """Evidence from probabilities along directions, along axes and of retrained models [B, T]."""
    assert frame.axes is not None
    if link == "logarithm":
        probabilities, along, retrained = jet.log(probabilities), jet.log(along), retrained.log()
    units, origin = frame.units, along.constant
    axes = torch.stack([plane for (plane,) in along.higher])
    singles = retrained[:units] - origin
    pairs = None
    if frame.axes.pairs:
        first, second = torch.triu_indices(units, units, offset=1, device=origin.device)
        together = retrained[units : units + len(first)] - origin - singles[first] - singles[second]
        pairs = origin.new_zeros(units, units, len(origin))
        pairs[first, second] = together
        pairs[second, first] = together
    directions = interactions = None
    weights: dict[int, Tensor] = {}
    if probabilities.higher:
        directions = _complex(probabilities)
        psi = frame.directions.to(torch.complex128)
        powers = [psi**order @ axes[order - 1].to(psi.dtype) for order in range(2, frame.degree + 1)]
        if powers:
            interactions = directions[1:] - torch.stack(powers)
        if frame.interpolation is not None and interactions is not None:
            weights = {r: frame.interpolation.weights(interactions[r - 2], r) for r in frame.interpolation.orders}
    return Evidence(
        link=link,
        origin=origin,
        axes=axes,
        remainder=singles - axes.sum(dim=0),
        pairs=pairs,
        directions=directions,
        interactions=interactions,
        weights=weights,
    )


def _complex(values: Jet) -> Tensor:
    return torch.stack([torch.complex(*planes) for planes in values.higher])
