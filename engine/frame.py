"""What all measurements of a sketch share, and sums over deletion sets.

Everything that an answer needs of a deletion set is a sum over its units, or over its pairs of units. `DeletionSets`
makes such sums, of one set by gathering its members and of many by products of matrices, and keeps those that no
measurement changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from engine.directions import Ensemble
from engine.interpolation import Interpolation
from engine.model import ModelConfiguration, Parameters


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Every unit alone: jets along the units' axes, and what the retrained models are.

    Attributes:
        parameters: real jets of the trained parameters along the m axes.
        pairs: whether there are retrained models without every two units.
        anchors: the anchors' deletion sets as rows of zeros and ones, float64 of shape [A, m].
        kinship: inner products of what deleting each unit does to the parameters, less the mean over the units; of
            shape [m, m].
    """

    parameters: Parameters
    pairs: bool
    anchors: Tensor
    kinship: Tensor

    @cached_property
    def anchors_by_unit(self) -> Tensor:
        """The same, a row a unit, [m, A]: to be gathered."""
        return self.anchors.T.contiguous()

    @cached_property
    def anchor_sizes(self) -> Tensor:
        """How many units each anchor deletes, [A]."""
        return self.anchors.sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What all measurements of a sketch share.

    Attributes:
        model: the model.
        units: m.
        degree: S.
        ensemble: of the random directions.
        directions: ψ, complex of shape [K, m].
        parameters: jets of the trained parameters along them; of degree 0 where there are none.
        models: matrices of the B models that were really retrained, [B, rows, columns] by name. With axes: without each
            single unit, then without each pair where there are pairs, then the anchors. Empty where there are none.
        axes: where the sketch has them.
        interpolation: of the directions, where the sketch has axes too.
    """

    model: ModelConfiguration
    units: int
    degree: int
    ensemble: Ensemble
    directions: Tensor
    parameters: Parameters
    models: Mapping[str, Tensor] = field(default_factory=dict)
    axes: Axes | None = None
    interpolation: Interpolation | None = None

    @cached_property
    def anchor_sets(self) -> DeletionSets:
        """The anchors, with all sums over them that no measurement changes."""
        assert self.axes is not None
        return DeletionSets(self, rows=self.axes.anchors)

    @property
    def size_bytes(self) -> int:
        """What the sketch occupies, with what is made of it at the first questions."""
        axes, interpolation, psi = self.axes, self.interpolation, self.directions
        jets = [*self.parameters.values(), *(axes.parameters.values() if axes else ())]
        tensors = [plane for jet in jets for coefficient in jet.coefficients for plane in coefficient]
        tensors += [*self.models.values(), psi]
        total: int = sum(tensor.nbytes for tensor in tensors) + 16 * psi.numel()  # and `directions_by_unit`
        if axes is not None:
            total += 2 * axes.anchors.nbytes + axes.kinship.nbytes + self.anchor_sets.size_bytes
        return total + (0 if interpolation is None else interpolation.size_bytes)

    @cached_property
    def directions_by_unit(self) -> Tensor:
        """ψ in double precision, a row a unit, [m, K]: to be gathered."""
        return self.directions.to(torch.complex128).T.contiguous()

    def one_set(self, units: Tensor) -> DeletionSets:
        """A single deletion set, of unit numbers."""
        return DeletionSets(self, members=units)


class DeletionSets:
    """B deletion sets of a sketch, and sums over their units."""

    def __init__(self, frame: Frame, *, rows: Tensor | None = None, members: Tensor | None = None) -> None:
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
        self._functionals: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return 1 if self._rows is None else len(self._rows)

    def total(self, of_units: Tensor) -> Tensor:
        """Sums over the units of each set.

        Args:
            of_units: real or complex, of shape [m, N].

        Returns:
            Of shape [B, N].
        """
        if self._members is not None:
            return of_units[self._members].sum(dim=0, keepdim=True)
        assert self._rows is not None
        return self._rows.to(of_units.dtype) @ of_units

    def total_of_two(self, of_pairs: Tensor) -> Tensor:
        """Sums over ordered pairs of units of each set, a unit with itself included.

        Args:
            of_pairs: of shape [m, m, N].

        Returns:
            Of shape [B, N].
        """
        if self._members is not None:
            return of_pairs[self._members[:, None], self._members].sum(dim=(0, 1))[None]
        return torch.einsum("bu,uvt,bv->bt", self._rows, of_pairs, self._rows)

    @property
    def size_bytes(self) -> int:
        """What is kept of them once every sum was asked for."""
        frame = self._frame
        orders = () if frame.interpolation is None else frame.interpolation.orders
        anchors = 0 if frame.axes is None else len(frame.axes.anchors)
        return len(self) * (16 * len(frame.directions) * (1 + len(orders)) + 8 * anchors)

    @cached_property
    def sizes(self) -> Tensor:
        """How many units each set has, float64 of shape [B]."""
        if self._members is not None:
            return torch.tensor([len(self._members)], dtype=torch.float64, device=self._members.device)
        assert self._rows is not None
        return self._rows.sum(dim=1)

    @cached_property
    def overlaps(self) -> Tensor:
        """<ψ_j, 1_D>, complex128 of shape [B, K]."""
        return self.total(self._frame.directions_by_unit).conj().resolve_conj()

    def functionals(self, order: int) -> Tensor:
        """What each direction says of interactions alone: real parts, then imaginary ones, float64 of shape [B, 2K].

        Times the weights of `Interpolation` it is the order's interactions.
        """
        if order not in self._functionals:
            psi = self._frame.directions_by_unit
            at = self.overlaps.conj() ** order - self._total_of_powers(psi, order)
            self._functionals[order] = torch.cat([at.real, at.imag], dim=1)
        return self._functionals[order]

    @cached_property
    def coherence(self) -> Tensor:
        """Whether the units of a set push the parameters the same way: about 1 for random ones, [B]."""
        assert self._frame.axes is not None
        kinship = self._frame.axes.kinship
        together = self.total_of_two(kinship[..., None])[:, 0]
        own = self.total(kinship.diagonal()[:, None])[:, 0]
        return (together / own.clamp(min=1e-300)).clamp(min=0).sqrt()

    @cached_property
    def likeness(self) -> Tensor:
        """How much of each set an anchor has, and no more: correlations of membership, [B, A]."""
        axes, units = self._frame.axes, self._frame.units
        assert axes is not None
        own, others = self.sizes[:, None], axes.anchor_sizes
        common = self.total(axes.anchors_by_unit) - own * others / units
        return common / ((own * (1 - own / units)) * (others * (1 - others / units))).sqrt()

    def _total_of_powers(self, of_units: Tensor, order: int) -> Tensor:
        if self._members is not None:
            return (of_units[self._members] ** order).sum(dim=0, keepdim=True)
        return self.total(of_units**order)
