"""Random directions of downweights, the numbers <ψ, x>, and the constants of the estimators.

Directions come from one counter-based stream (Philox 4x64, Salmon et al. 2011): the Gaussian vector behind direction
j occupies its own range of counters under the key `seed`, so any range of directions can be drawn alone, by any
worker, in any order, and the first k of k' directions are the k. Raw bits are turned into Gaussians here
(Box-Muller), because the bits are specified and a library's Gaussian sampler may change.

Ensembles (m units):

- `sphere`: complex Gaussian vectors, normalised: independent and uniform on the complex unit sphere of C^m.
- `unitary`: consecutive blocks of m directions are the rows of Haar-random unitary matrices: each is uniform on the
  sphere, a block is orthonormal. Gram-Schmidt on Gaussian rows gives Haar measure (Mezzadri 2007), and row j depends
  on the rows before it only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from engine.errors import ConfigurationError
from engine.jet import Coefficient

Ensemble: TypeAlias = Literal["sphere", "unitary"]
ENSEMBLES: tuple[str, ...] = get_args(Ensemble)

_PANEL = 128
"""Rows that Gram-Schmidt takes together. Part of the definition: another value changes the rounding."""


def directions(ensemble: Ensemble, seed: int, units: int, start: int, stop: int) -> Tensor:
    """Directions start … stop - 1.

    Args:
        ensemble: their distribution.
        seed: of the stream, 0 <= seed < 2^64.
        units: m.
        start: index of the first.
        stop: index behind the last.

    Returns:
        complex128 of shape [stop - start, m], rows of norm 1.

    Raises:
        ConfigurationError: an unknown ensemble.
    """
    if start == stop:
        return torch.empty((0, units), dtype=torch.complex128)
    if ensemble == "sphere":
        rows = _gaussians(seed, units, start, stop)
        return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    if ensemble == "unitary":
        return torch.from_numpy(np.concatenate(list(_unitary_rows(seed, units, start, stop))))
    raise ConfigurationError(f"There is no ensemble {ensemble!r}; there are {', '.join(ENSEMBLES)}.")


def planes(rows: Tensor, *, dtype: torch.dtype, device: torch.device) -> Coefficient:
    """Directions as (real, imaginary) planes in the precision of training."""
    return rows.real.to(device, dtype).contiguous(), rows.imag.to(device, dtype).contiguous()


def dimension(units: int, order: int) -> int:
    """N_r = C(m + r - 1, r), the dimension of the symmetric tensors of order r over C^m."""
    return math.comb(units + order - 1, order)


def overlaps(rows: Tensor, units: Tensor) -> Tensor:
    """<ψ_j, 1_D> = Σ_{u in D} conj(ψ_{j,u}) of every direction.

    Args:
        rows: directions, complex of shape [K, m].
        units: the deletion set D, int64 of shape [|D|].

    Returns:
        complex128 of shape [K].
    """
    return rows[:, units].to(torch.complex128).sum(dim=1).conj()


def remaining_fraction(ensemble: Ensemble, units: int, parts: Sequence[range]) -> float:
    """Factor on the variance of a mean over directions at order 1.

    The mean over a complete block of m rows of a unitary matrix is exact, and its rows are exchangeable: a mean over
    b of the m is a mean over a finite population, with variance (1 - b/m) S²/b. Complete blocks contribute none; over
    blocks that add up to K directions the factor is Σ_b b (1 - b/m) / K. Independent directions have factor 1.

    Args:
        ensemble: of the directions.
        units: m.
        parts: which directions the mean is over, none twice.
    """
    count = sum(len(part) for part in parts)
    if ensemble != "unitary" or not count:
        return 1.0
    of_block: Counter[int] = Counter()
    for part in parts:
        for block in range(part.start // units, -(-part.stop // units)):
            of_block[block] += min(part.stop, (block + 1) * units) - max(part.start, block * units)
    return sum(rows * (1 - rows / units) for rows in of_block.values()) / count


def _gaussians(seed: int, units: int, start: int, stop: int) -> np.ndarray:
    """Standard complex Gaussians (E|g|² = 1), complex128 of shape [stop - start, m]."""
    counters = -(-2 * units // 4)  # a counter gives four 64-bit words, a complex Gaussian takes two
    generator = np.random.Philox(key=seed, counter=start * counters)
    words = generator.random_raw((stop - start) * counters * 4).reshape(stop - start, -1)[:, : 2 * units]
    uniforms = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1), so the logarithm is finite
    radius = np.sqrt(-np.log(uniforms[:, 0::2]))
    return np.asarray(radius * np.exp(2j * math.pi * uniforms[:, 1::2]))


def _unitary_rows(seed: int, units: int, start: int, stop: int) -> Iterator[np.ndarray]:
    for block in range(start // units, -(-stop // units)):
        first = block * units
        low, high = max(start - first, 0), min(stop - first, units)
        yield _unitary_block(seed, units, first, high)[low:high]


def _unitary_block(seed: int, units: int, first: int, count: int) -> np.ndarray:
    """At least the first `count` rows of the Haar-random unitary matrix that begins at direction `first`.

    Whole panels are computed whatever `count` is, so that a row comes out the same, to the bit, alone or with others.
    """
    rows = np.empty((0, units), dtype=np.complex128)
    while len(rows) < count:
        panel = _gaussians(seed, units, first + len(rows), first + min(len(rows) + _PANEL, units))
        for _ in range(2):  # twice is enough (Kahan, Parlett): orthogonal to rounding
            panel = panel - (panel @ rows.conj().T) @ rows
        q, r = np.linalg.qr(panel.T)
        diagonal = np.diagonal(r)
        # QR fixes rows up to a phase; a positive diagonal is what makes the result Haar-distributed.
        rows = np.concatenate([rows, (q * (diagonal / np.abs(diagonal))).T])
    return rows
