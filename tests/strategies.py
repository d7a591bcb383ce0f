"""Random jets for property-based tests, and training along any directions."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from engine.configuration import SketchConfiguration
from engine.directions import planes as planes_of
from engine.jet import Jet
from engine.sketch import train_block
from engine.train import Step

degrees = st.integers(min_value=0, max_value=6)
seeds = st.integers(min_value=0, max_value=2**31 - 1)
planes = st.sampled_from([1, 2])


def random_jet(seed: int, degree: int, planes: int, shape: tuple[int, ...] = (3, 4), *, positive: bool = False) -> Jet:
    """A float64 jet along two directions; `positive` keeps the constant term in [0.5, 2]."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=generator)

    constant = normal(*shape)
    if positive:
        constant = 0.5 + 1.5 * torch.sigmoid(constant)
    return Jet(constant, tuple(tuple(normal(2, *shape) for _ in range(planes)) for _ in range(degree)))


def train_along(configuration: SketchConfiguration, steps: list[Step], rows: torch.Tensor) -> dict[str, Jet]:
    """Train along complex directions, of shape [K, m]."""
    place = steps[0].inputs.device
    return train_block(configuration, steps, planes_of(rows, dtype=configuration.torch_dtype, device=place))
