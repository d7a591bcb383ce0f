"""Trained parameters in memory, in the layout that is the fastest to measure: of K directions' jets, or of K models.

On a processor with a compiler they lie in groups for native code (`engine.native.groups.Packed`); elsewhere they are
planes that torch works on (`Planes`). Both are filled block by block as an artifact is read, so that there is no second
copy, and measure several texts in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from engine.jet import Jet
from engine.model import ModelConfiguration, Parameters, matrices, token_probabilities
from engine.native.groups import Packed, Text
from engine.native.library import library
from engine.threads import cores


class Held(Protocol):
    """Trained parameters of K directions, or of K plain models."""

    @property
    def nbytes(self) -> int:
        """What they occupy."""
        ...

    @property
    def count(self) -> int:
        """K."""
        ...

    def rows(self, which: Sequence[int] | None = None, *, order: int = 0, plane: int = 0) -> Tensor:
        """Coefficients of an order and plane, of all or of some directions; of order 0 of plain models: [n, P]."""
        ...

    def probabilities(self, texts: Sequence[Text]) -> list[Jet]:
        """Jets of the probabilities of chosen next tokens.

        Args:
            texts: what to look at, as `engine.measure.targets` says.

        Returns:
            A jet of shape [T] for each text; of plain models a constant of shape [K, T].
        """
        ...


class Room(Held, Protocol):
    """Room for them, to be filled in."""

    def put(self, start: int, rows: Tensor, *, order: int = 0, plane: int = 0) -> None:
        """Fill in a plane of some directions' coefficients of an order, or, of order 0, some plain models.

        Args:
            start: the first direction or model.
            rows: of shape [count, P].
            order: 1 … S, or 0.
            plane: 0, or 1 for imaginary parts.
        """
        ...


def room(
    model: ModelConfiguration,
    count: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
    degree: int = 0,
    planes: int = 1,
    constant: Tensor | None = None,
    native: bool = True,
) -> Room:
    """Room for parameters, all zero.

    Args:
        model: whose parameters they are.
        count: K.
        dtype: of the numbers.
        device: where they are to be.
        degree: S; 0 for plain models.
        planes: of a coefficient: 2 for complex ones, 1 for real ones.
        constant: the constant terms [P] that directions share; None for plain models.
        native: whether to lay them out for native code where it can be had.
    """
    code = library(dtype, degree, planes) if native and device.type == "cpu" else None
    if code is not None:
        return Packed.empty(code, model, count, constant, threads=cores())
    shape = (count, model.parameter_count)
    return Planes(
        model=model,
        count=count,
        constant=torch.zeros(shape, dtype=dtype, device=device) if constant is None else constant,
        higher=torch.zeros(degree, planes, *shape, dtype=dtype, device=device),
    )


@dataclass(frozen=True, kw_only=True)
class Planes:
    """Parameters for torch.

    Attributes:
        model: whose parameters they are.
        count: K.
        constant: shared by all, [P]; of plain models [K, P].
        higher: [S, planes, K, P].
    """

    model: ModelConfiguration
    count: int
    constant: Tensor
    higher: Tensor

    @cached_property
    def _parameters(self) -> Parameters:
        """The same memory as jets by name."""
        constant = matrices(self.model, self.constant)
        orders = [[matrices(self.model, plane) for plane in planes] for planes in self.higher]
        return {
            name: Jet(matrix, tuple(tuple(plane[name] for plane in planes) for planes in orders))
            for name, matrix in constant.items()
        }

    @property
    def nbytes(self) -> int:
        """What they occupy."""
        return self.constant.nbytes + self.higher.nbytes

    def put(self, start: int, rows: Tensor, *, order: int = 0, plane: int = 0) -> None:
        """As of `Held`."""
        whole = self.constant if order == 0 else self.higher[order - 1, plane]
        whole[start : start + len(rows)] = rows

    def rows(self, which: Sequence[int] | None = None, *, order: int = 0, plane: int = 0) -> Tensor:
        """As of `Held`."""
        whole = self.constant if order == 0 else self.higher[order - 1, plane]
        return whole if which is None else whole[list(which)]

    def probabilities(self, texts: Sequence[Text]) -> list[Jet]:
        """As of `Held`."""
        return [token_probabilities(self.model, self._parameters, *map(list, text)) for text in texts]
