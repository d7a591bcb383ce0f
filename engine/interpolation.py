"""Interpolation: the least interactions between units that explain what was measured along random directions.

Order r of a measurement is a real symmetric tensor T over the units. Its pure powers T[e_u, …, e_u] are known from the
axes; the rest, the *interactions*, is measured along K complex directions:

    o_j = T[ψ_j, …, ψ_j] - Σ_u ψ_{j,u}^r T[e_u, …, e_u].

Real and imaginary parts are 2K real linear functionals of the interactions. The tensor of least norm that reproduces
them is a combination of the functionals themselves, so that all one needs are their inner products, a kernel:

    Σ over entries that aren't pure powers of ψ^{⊗r} φ^{⊗r} = (Σ_u ψ_u φ_u)^r - Σ_u (ψ_u φ_u)^r.

Where the directions span the symmetric tensors it is exact, and shrinks towards no interactions where they don't. The
factorisation depends on the directions only: it is made once a sketch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RIDGE = 1e-6
"""Of the mean diagonal: about the rounding of complex64 training, which mustn't be amplified."""

MOST_DIRECTIONS = 4_000
"""Beyond, the factor of the kernel would take more than half a gigabyte an order."""

HIGHEST_ORDER = 3
"""Interactions of higher orders have too many entries for any number of directions that fits."""


class Interpolation:
    """The factorised kernels of a sketch's directions."""

    def __init__(self, directions: Tensor, degree: int) -> None:
        """Factorise.

        Args:
            directions: ψ, complex128 of shape [K, m].
            degree: S of the sketch; orders 2 … min(S, `HIGHEST_ORDER`) are interpolated.
        """
        self._factors = {r: _factor(directions, r) for r in range(2, min(degree, HIGHEST_ORDER) + 1)}

    @property
    def orders(self) -> tuple[int, ...]:
        """The orders that can be interpolated."""
        return tuple(self._factors)

    @property
    def size_bytes(self) -> int:
        """What the factors occupy."""
        return sum(factor.nbytes for factor in self._factors.values())

    def weights(self, interactions: np.ndarray, order: int) -> np.ndarray:
        """How much of each functional the tensor of least norm holds.

        Args:
            interactions: o_j, complex128 of shape [K, ...].
            order: r.

        Returns:
            complex128 of shape [K, ...]: of the functionals' real parts, and of their imaginary ones.
        """
        factor = self._factors[order]
        measured = torch.from_numpy(np.concatenate([interactions.real, interactions.imag]))
        found = torch.cholesky_solve(measured.flatten(1).to(factor.device), factor)
        of_real, of_imaginary = found.cpu().numpy().reshape(2, *interactions.shape)
        return np.asarray(of_real + 1j * of_imaginary)


def _factor(directions: Tensor, order: int) -> Tensor:
    powers = directions**order
    hermitian = (directions.conj() @ directions.T) ** order - powers.conj() @ powers.T
    bilinear = (directions @ directions.T) ** order - powers @ powers.T
    gram = torch.cat(
        [
            torch.cat([(bilinear + hermitian).real, (bilinear + hermitian).imag], dim=1),
            torch.cat([(bilinear - hermitian).imag, (hermitian - bilinear).real], dim=1),
        ]
    )
    gram = gram / 2
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    factor: Tensor = torch.linalg.cholesky(gram)
    return factor
