"""What a sketch says of one measurement, whatever is deleted: its table.

The flow: jets of the trained parameters, and retrained models → probabilities of the measurement's tokens → evidence in
two *links*. An estimate adds up what units do; whether it adds up probabilities or their logarithms makes a difference,
since deleting all evidence of something drives a probability towards zero. Which is better depends on the measurement
and the deletion set, so both are kept, and the calibration chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from engine import jet
from engine.frame import Frame, as_real, on_host, product
from engine.jet import Jet
from engine.measure import Measurement, read_out, read_out_jets, targets

Link: TypeAlias = Literal["probability", "logarithm"]
Along: TypeAlias = Literal["directions", "interactions", "weights"]
"""What of `Evidence` is summed over the directions."""

LINKS: tuple[Link, ...] = ("probability", "logarithm")


class Spread(NamedTuple):
    """Coefficients y along the directions, laid out for the variance of sums Re Σ_j p_j y_j.

    Attributes:
        moduli: |y|², [T, K].
        squares: y², [T, 2K] as of `as_real`.
    """

    moduli: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, coefficients: np.ndarray) -> Spread:
        """From y, complex of shape [K, T]."""
        moduli = coefficients.real**2 + coefficients.imag**2
        return cls(moduli=moduli.T.copy(order="C"), squares=as_real(coefficients**2))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Of the T tokens of a measurement, in both links; on the host, float64 or complex128. L = 2, in order of `LINKS`.

    Attributes:
        origin: after ordinary training, [L, T].
        by_unit: what is summed over the units of a set, a row a unit so that all of it is gathered at once,
            [m, S + 1 + R, L, T]: the S orders of `axes`; the `remainder`; and for each of the R interpolated orders
            what its functionals hold of the pure powers of a unit, to be taken off.
        degree: S.
        pairs: what deleting two units does beyond deleting each, symmetric, [m, m, L, T]; None without pairs.
        directions: y_r(ψ_j), [S, K, L, T]; None without random directions.
        interactions: of them what the axes don't explain, o_r for r = 2 … S, [S - 1, K, L, T].
        weights: of the interpolation, by order, complex of shape [K, L, T].
    """

    origin: np.ndarray
    by_unit: np.ndarray
    degree: int
    pairs: np.ndarray | None
    directions: np.ndarray | None
    interactions: np.ndarray | None
    weights: Mapping[int, np.ndarray]

    @property
    def axes(self) -> np.ndarray:
        """T_r[e_u, …, e_u] for r = 1 … S, [S, m, L, T]."""
        return self.by_unit[:, : self.degree].swapaxes(0, 1)

    @property
    def remainder(self) -> np.ndarray:
        """What deleting a unit does beyond these orders, [m, L, T]."""
        return self.by_unit[:, self.degree]

    @cached_property
    def along(self) -> Mapping[tuple[Along, int], np.ndarray]:
        """What is summed over the directions at every order, [L, T, 2K] as of `frame.as_real`."""
        found: dict[tuple[Along, int], np.ndarray] = {("weights", r): as_real(w) for r, w in self.weights.items()}
        for order, of_order in enumerate(() if self.directions is None else self.directions, start=1):
            found["directions", order] = as_real(of_order)
        for order, of_order in enumerate(() if self.interactions is None else self.interactions, start=2):
            found["interactions", order] = as_real(of_order)
        return found

    @cached_property
    def spreads(self) -> Mapping[tuple[int, int], Spread]:
        """What the noise in o_r follows from, by r and the link's number."""
        orders = enumerate(() if self.interactions is None else self.interactions, start=2)
        return {(r, link): Spread.of(measured[:, link]) for r, measured in orders for link in range(len(LINKS))}

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        optional = (self.pairs, self.directions, self.interactions, *self.weights.values(), *self.along.values())
        spreads = (array for spread in self.spreads.values() for array in spread)
        return self.by_unit.nbytes + sum(array.nbytes for array in (*optional, *spreads) if array is not None)


@dataclass(frozen=True, kw_only=True)
class Table:
    """What one measurement needs of a sketch, on the host.

    Attributes:
        measurement: what was measured.
        baseline: its values after ordinary training, float64 of shape [O].
        coefficients: orders 1 … S of the values along the random directions, complex128 of shape [S, K, O].
        evidence: of its tokens; None without axes.
        retrained: the values of every retrained model, float64 of shape [B, O]; None where there are none.
    """

    measurement: Measurement
    baseline: np.ndarray
    coefficients: np.ndarray
    evidence: Evidence | None = None
    retrained: np.ndarray | None = None

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        own = self.coefficients.nbytes + (0 if self.retrained is None else self.retrained.nbytes)
        return own + (0 if self.evidence is None else self.evidence.size_bytes)


@torch.inference_mode()
def tabulate(measurements: Sequence[Measurement], frame: Frame) -> list[Table]:
    """Measure along all directions and axes, and on all retrained models, in one pass over each.

    Args:
        measurements: what to measure.
        frame: of the sketch.

    Raises:
        TextLengthError, UnknownCharacterError: as `measure.targets`.
    """
    texts = [targets(measurement, frame.model) for measurement in measurements]
    assert frame.holdings is not None

    def precise(found: Sequence[Jet] | None) -> Sequence[Jet | None]:
        return [None] * len(texts) if found is None else [jet.linear_map(torch.Tensor.double, one) for one in found]

    measured = map(precise, frame.holdings.measure(texts))
    return [_table(measurement, frame, *found) for measurement, *found in zip(measurements, *measured, strict=True)]


def _table(
    measurement: Measurement, frame: Frame, probabilities: Jet | None, along: Jet | None, models: Jet | None
) -> Table:
    """From probabilities [T] along directions and along axes, and of retrained models [B, T]: each may be absent."""
    if probabilities is None:
        assert along is not None  # a sketch has axes, or random directions, or both
        probabilities = Jet(along.constant)
    values = read_out_jets(measurement.kind, probabilities)
    baseline = on_host(values.constant)
    coefficients = _complex(values) if values.higher else np.empty((0, 0, 1), dtype=np.complex128)
    known = None if models is None else models.constant
    retrained = None if known is None else on_host(read_out(measurement.kind, known))
    if along is None or known is None:
        return Table(measurement=measurement, baseline=baseline, coefficients=coefficients, retrained=retrained)
    return Table(
        measurement=measurement,
        baseline=baseline,
        coefficients=coefficients,
        evidence=_evidence(
            frame,
            _in_both_links(probabilities),
            _in_both_links(along),
            on_host(torch.stack([known, known.log()], dim=-2)),
        ),
        retrained=retrained,
    )


def _evidence(frame: Frame, probabilities: Jet, along: Jet, retrained: np.ndarray) -> Evidence:
    """Evidence from what was measured, in both links.

    Args:
        frame: of the sketch, with axes.
        probabilities: along the directions, of shape [L, T].
        along: along the axes, of shape [L, T].
        retrained: of the retrained models, [B, L, T].
    """
    assert frame.axes is not None
    units, origin = frame.units, on_host(along.constant)
    axes = [on_host(plane) for (plane,) in along.higher]
    singles = retrained[:units] - origin
    pairs = None
    if frame.axes.pairs:
        first, second = np.triu_indices(units, 1)
        together = retrained[units : units + len(first)] - origin - singles[first] - singles[second]
        pairs = np.zeros((units, units, *origin.shape))
        pairs[first, second] = pairs[second, first] = together
    directions = interactions = None
    weights: dict[int, np.ndarray] = {}
    pure_powers = []
    if probabilities.higher:
        directions = _complex(probabilities)
        interactions = directions[1:].copy()
        for order, psi in frame.direction_powers.items():
            rows, of_order = psi.view(np.float64), interactions[order - 2]  # ψ^r, [m, 2K]; o_r, [K, L, T]
            explained = product(rows.T, axes[order - 1].reshape(units, -1)).reshape(-1, 2, *origin.shape)
            of_order -= explained[:, 0] + 1j * explained[:, 1]
            if frame.interpolation is not None and order in frame.interpolation.orders:
                weights[order] = frame.interpolation.weights(of_order, order)
                of_weights = as_real(weights[order].conj()).reshape(-1, rows.shape[1])
                pure_powers.append(product(rows, of_weights.T).reshape(units, *origin.shape))
    return Evidence(
        origin=origin,
        by_unit=np.stack([*axes, singles - sum(axes), *pure_powers], axis=1),
        degree=frame.degree,
        pairs=pairs,
        directions=directions,
        interactions=interactions if frame.degree > 1 else None,
        weights=weights,
    )


def _in_both_links(probabilities: Jet) -> Jet:
    """Jets of the probabilities [T] and of their logarithms, as one of shape [L, T]."""
    logarithms = jet.log(probabilities)
    pairs = zip(probabilities.higher, logarithms.higher, strict=True)
    return Jet(
        torch.stack([probabilities.constant, logarithms.constant], dim=-2),
        tuple(tuple(torch.stack(planes, dim=-2) for planes in zip(p, q, strict=True)) for p, q in pairs),
    )


def _complex(values: Jet) -> np.ndarray:
    return np.stack([on_host(torch.complex(*planes)) for planes in values.higher])
