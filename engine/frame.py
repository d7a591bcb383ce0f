"""What all measurements of a sketch share, and sums over deletion sets.

Everything that an answer needs of a deletion set is a sum over its units, or over its pairs of units. `DeletionSets`
makes such sums, of one set by gathering its members and of many by products of matrices, and keeps those that no
measurement changes.

From here on everything is NumPy on the host, in double precision, wherever the sketch's own tensors lie: the sums of an
answer are so small that starting a kernel, or an operation of torch, would take longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from engine.directions import Ensemble, remaining_fraction
from engine.holdings import Holdings
from engine.interpolation import Interpolation
from engine.model import ModelConfiguration


def on_host(tensor: Tensor) -> np.ndarray:
    """The same numbers as an array; of a tensor on the CPU without a copy."""
    return np.asarray(tensor.cpu().resolve_conj().numpy())


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of two matrices of float64, [B, N] and [N, T]; where there are many sets, by torch in one thread.

    NumPy would share a large product out to threads, and where something else runs beside it, wait for them
    (`engine.threads`).
    """
    if len(left) == 1:
        return np.asarray(np.matmul(left, right))
    return np.asarray(torch.matmul(torch.from_numpy(left), torch.from_numpy(right)).numpy())


def as_real(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients c, complex of shape [K, ...], for sums Re Σ_j p_j c_j with complex p of shape [B, K].

    Returns:
        float64 of shape [..., 2K]: the sums are real products of its rows with p.view(float64), half of the work of
        complex ones.
    """
    return np.moveaxis(coefficients.conj(), 0, -1).copy(order="C").view(np.float64)


_FEW = 128
_FIRST_PAIRS = np.array(np.tril_indices(_FEW, -1))
"""Every two of so many, the later one first: those of the first n come first, whatever n is."""

_KINSHIP = 8.0
"""An anchor of likeness c weighs exp(c²) to this power as much; random sets, of c below 0.1, are no relatives."""


def relatives(likeness: np.ndarray) -> np.ndarray:
    """How many times as much an anchor weighs that shares so much of a set, of the same shape."""
    return np.asarray(np.exp(_KINSHIP * likeness**2))


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Every unit alone: what the retrained models are, and what they have in common.

    Attributes:
        pairs: whether there are retrained models without every two units.
        anchors: the deletion sets of the anchors that tell something (`engine.anchors.telling`), or of all where these
            are too few; as rows of zeros and ones, float64 of shape [A, m].
        models: which of the retrained models are theirs, A numbers.
        kinship: inner products of what deleting each unit does to the parameters, less the mean over the units; of
            shape [m, m].
        later: how many of the anchors, the last ones, were retrained after the build.
    """

    pairs: bool
    anchors: Tensor
    models: Sequence[int]
    kinship: Tensor
    later: int = 0

    @cached_property
    def rows(self) -> np.ndarray:
        """The anchors on the host, float64 of shape [A, m]."""
        return on_host(self.anchors)

    @cached_property
    def anchors_by_unit(self) -> np.ndarray:
        """The same, a row a unit, [m, A], to be gathered: in the smallest integers that count to m, for speed."""
        return np.ascontiguousarray(self.rows.T, dtype=np.min_scalar_type(self.rows.shape[1]))

    @cached_property
    def anchor_shares(self) -> np.ndarray:
        """Of all units, what each anchor deletes, [A]."""
        return np.asarray(self.rows.mean(axis=1))

    @cached_property
    def anchor_spreads(self) -> np.ndarray:
        """Standard deviation of each anchor's membership over the units, [A]."""
        return _spread(self.anchor_shares)

    @cached_property
    def kinship_on_host(self) -> np.ndarray:
        """Float64, [m, m]."""
        return on_host(self.kinship)

    @cached_property
    def own_kinship(self) -> np.ndarray:
        """Its diagonal, to be gathered, [m]."""
        return self.kinship_on_host.diagonal().copy()


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What all measurements of a sketch share.

    Attributes:
        model: the model.
        units: m.
        degree: S.
        ensemble: of the random directions.
        directions: ψ, complex of shape [K, m].
        trained: matrices of the ordinary run's parameters by name.
        holdings: what is measured: jets along the random directions and along the axes, and the B models that were
            really retrained. With axes: without each single unit, then without each pair where there are pairs, then
            the anchors. None where nothing is to be measured.
        missing_share: of the sketch's random directions, what these lack.
        axes: where the sketch has them.
        interpolation: of the directions, where the sketch has axes too.
    """

    model: ModelConfiguration
    units: int
    degree: int
    ensemble: Ensemble
    directions: Tensor
    trained: Mapping[str, Tensor]
    holdings: Holdings | None = None
    missing_share: float = 0.0
    axes: Axes | None = None
    interpolation: Interpolation | None = None

    @cached_property
    def anchor_sets(self) -> DeletionSets:
        """The anchors, with all sums over them that no measurement changes."""
        assert self.axes is not None
        return DeletionSets(self, rows=self.axes.rows)

    @cached_property
    def anchor_likeness(self) -> np.ndarray:
        """`DeletionSets.likeness` of the anchors to each other, [A, A]; an anchor is no relative of itself."""
        likeness = self.anchor_sets.likeness.copy()
        np.fill_diagonal(likeness, 0)
        return likeness

    @cached_property
    def anchor_relatives(self) -> np.ndarray:
        """How many times as much anchors weigh for each other, [A, A]."""
        return relatives(self.anchor_likeness)

    @property
    def size_bytes(self) -> int:
        """What the sketch occupies, with what is made of it at the first questions."""
        axes, interpolation, psi = self.axes, self.interpolation, self.directions
        total = sum(matrix.nbytes for matrix in self.trained.values())
        total += 0 if self.holdings is None else self.holdings.nbytes
        total += 2 * psi.nbytes  # and `directions_by_unit`
        if axes is not None:
            total += 2 * axes.anchors.nbytes + axes.kinship.nbytes + self.anchor_sets.size_bytes
            total += 16 * len(axes.anchors) ** 2  # `anchor_likeness` and `anchor_relatives`
            total += 16 * psi.numel() * max(self.degree - 1, 0)  # `direction_powers`
        return total + (0 if interpolation is None else interpolation.size_bytes)

    @cached_property
    def remaining_fraction(self) -> float:
        """Factor on the variance of a mean over the directions at order 1."""
        parts = (range(len(self.directions)),) if self.holdings is None else self.holdings.parts
        return remaining_fraction(self.ensemble, self.units, parts)

    @cached_property
    def directions_by_unit(self) -> np.ndarray:
        """ψ, a row a unit, [m, K], to be gathered; as precise as the sketch, complex64 or complex128."""
        return np.ascontiguousarray(on_host(self.directions).T)

    @cached_property
    def direction_powers(self) -> Mapping[int, np.ndarray]:
        """ψ^r for r = 2 … S, complex128 of shape [m, K]."""
        psi = self.directions_by_unit.astype(np.complex128)
        powers = {1: psi}
        for order in range(2, self.degree + 1):
            powers[order] = powers[order - 1] * psi
        del powers[1]
        return powers

    def one_set(self, units: Sequence[int]) -> DeletionSets:
        """A single deletion set, of unit numbers."""
        return DeletionSets(self, members=np.array(units))


class DeletionSets:
    """B deletion sets of a sketch, and sums over their units."""

    def __init__(self, frame: Frame, *, rows: np.ndarray | None = None, members: np.ndarray | None = None) -> None:
        """Of one of both.

        Args:
            frame: of the sketch.
            rows: B sets as rows of zeros and ones, float64 of shape [B, m].
            members: the unit numbers of a single set, int64.
        """
        assert (rows is None) != (members is None)
        self._frame = frame
        self._rows = rows
        self._members = members
        self._powers: dict[int, np.ndarray] = {}
        self._squares: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return 1 if self._rows is None else len(self._rows)

    def total(self, of_units: np.ndarray) -> np.ndarray:
        """Sums over the units of each set.

        Args:
            of_units: of shape [m, ...], real; or whole numbers whose sums their type can hold.

        Returns:
            Of shape [B, ...], float64; of whole numbers and a single set of their type.
        """
        if self._members is not None:
            dtype = of_units.dtype if of_units.dtype.kind == "u" else np.float64
            return np.add.reduce(of_units.take(self._members, axis=0), axis=0, keepdims=True, dtype=dtype)
        assert self._rows is not None
        flat = product(self._rows, np.asarray(of_units, dtype=np.float64).reshape(len(of_units), -1))
        return flat.reshape(len(self), *of_units.shape[1:])

    def total_of_two(self, of_pairs: np.ndarray) -> np.ndarray:
        """Sums over every two different units of each set.

        Args:
            of_pairs: symmetric, of shape [m, m, ...].

        Returns:
            Of shape [B, ...].
        """
        if self._members is not None:
            units, rest = self._frame.units, of_pairs.shape[2:]
            return np.add.reduce(of_pairs.reshape(units**2, *rest).take(self._cells, axis=0), axis=0, keepdims=True)
        assert self._rows is not None
        ordered = np.einsum("bv...,bv->b...", self.total(of_pairs), self._rows)
        alike = np.moveaxis(of_pairs.diagonal(), -1, 0).copy()
        return np.asarray((ordered - self.total(alike)) / 2)

    @property
    def size_bytes(self) -> int:
        """What is kept of them once every sum was asked for."""
        frame, axes = self._frame, self._frame.axes
        anchors = 0 if axes is None else len(axes.anchors)
        # <ψ, 1_D>^r for r = 1 … S; for r = 2 … S its square and squared modulus, too.
        directions = len(frame.directions) * (16 * frame.degree + 24 * max(frame.degree - 1, 0))
        return len(self) * (directions + 8 * anchors)

    @cached_property
    def sizes(self) -> np.ndarray:
        """How many units each set has, float64 of shape [B]."""
        if self._members is not None:
            return np.array([float(len(self._members))])
        assert self._rows is not None
        return np.asarray(self._rows.sum(axis=1))

    @cached_property
    def overlaps(self) -> np.ndarray:
        """<ψ_j, 1_D>, complex128 of shape [B, K]."""
        psi = self._frame.directions_by_unit
        return self.total(psi.view(psi.real.dtype)).view(np.complex128).conj()

    def powers(self, order: int) -> np.ndarray:
        """<ψ_j, 1_D>^r, complex128 of shape [B, K]."""
        if order not in self._powers:
            half = self.powers(order // 2) if order > 1 else self.overlaps
            self._powers[order] = half if order == 1 else half * self.powers(order - order // 2)
        return self._powers[order]

    def squares(self, order: int) -> np.ndarray:
        """|<ψ_j, 1_D>|^2r, float64 of shape [B, K]."""
        if order not in self._squares:
            powers = self.powers(order)
            self._squares[order] = powers.real**2 + powers.imag**2
        return self._squares[order]

    def along(self, order: int, coefficients: np.ndarray) -> np.ndarray:
        """Sums Re Σ_j <ψ_j, 1_D>^r c_j over the directions.

        Args:
            order: r.
            coefficients: c, [N, 2K] as of `as_real`.

        Returns:
            Of shape [B, N].
        """
        return product(self.powers(order).view(np.float64), coefficients.T)

    @cached_property
    def coherence(self) -> np.ndarray:
        """Whether the units of a set push the parameters the same way: about 1 for random ones, [B]."""
        axes = self._frame.axes
        assert axes is not None
        own, together = self.total(axes.own_kinship), self.total_of_two(axes.kinship_on_host)
        return np.asarray(np.sqrt(np.maximum((own + 2 * together) / np.maximum(own, 1e-300), 0)))

    @cached_property
    def likeness(self) -> np.ndarray:
        """How much of each set an anchor has, and no more: correlations of membership, [B, A]."""
        axes, units = self._frame.axes, self._frame.units
        assert axes is not None
        own = self.sizes[:, None]
        common = self.total(axes.anchors_by_unit) - own * axes.anchor_shares
        return np.asarray(common / (units * _spread(own / units) * axes.anchor_spreads))

    @cached_property
    def _cells(self) -> np.ndarray:
        """Where every two of the members lie in a flattened matrix over two units, [|D| (|D| - 1) / 2]."""
        assert self._members is not None
        count = len(self._members)
        later, earlier = _FIRST_PAIRS[:, : count * (count - 1) // 2] if count <= _FEW else np.tril_indices(count, -1)
        return np.asarray(self._members.take(earlier) * self._frame.units + self._members.take(later))


def _spread(share: np.ndarray) -> np.ndarray:
    """Standard deviation of the membership in a set that has such a share of the units."""
    return np.asarray(np.sqrt(share * (1 - share)))
