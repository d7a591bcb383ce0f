"""What a sketch is: the model, how it is trained, and the directions along which training is expanded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

import torch

from engine.directions import ENSEMBLES, Ensemble
from engine.errors import ConfigurationError
from engine.model import ModelConfiguration
from engine.train import TrainingConfiguration


@dataclass(frozen=True, kw_only=True)
class SketchConfiguration:
    """Everything that decides a sketch's numbers, except the documents.

    Attributes:
        model: the model.
        training: the optimiser and the schedule.
        ensemble: distribution of the directions.
        directions: k, how many; at least 2, since a bar needs a spread.
        degree: S, the highest order kept.
        seed: of the directions.
        dtype: of training; the coefficients are complex numbers of this precision.
        block: the most directions that are trained together, and lost together when a build is killed; all blocks get
            about the same number. It changes results by rounding only.

    Raises:
        ConfigurationError: a value outside its range.
    """

    model: ModelConfiguration
    training: TrainingConfiguration = field(default_factory=TrainingConfiguration)
    ensemble: Ensemble = "unitary"
    directions: int = 500
    degree: int = 3
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    block: int = 128

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise ConfigurationError(f"There is no ensemble {self.ensemble!r}; there are {', '.join(ENSEMBLES)}.")
        if self.directions < 2:
            raise ConfigurationError(f"directions must be at least 2, not {self.directions}.")
        if self.degree < 1:
            raise ConfigurationError(f"degree must be at least 1, not {self.degree}.")
        if self.block < 1:
            raise ConfigurationError(f"block must be at least 1, not {self.block}.")
        if not 0 <= self.seed < 2**64:
            raise ConfigurationError("seed must lie in [0, 2^64).")
        if self.dtype not in ("float32", "float64"):
            raise ConfigurationError(f"dtype must be float32 or float64, not {self.dtype!r}.")

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch names it."""
        return {"float32": torch.float32, "float64": torch.float64}[self.dtype]

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """First direction, and the one behind the last, of every block."""
        count = -(-self.directions // self.block)
        bounds = [self.directions * number // count for number in range(count + 1)]
        return list(itertools.pairwise(bounds))

    @property
    def size_bytes(self) -> int:
        """Of the coefficients: k · S · P complex numbers."""
        return self.directions * self.degree * self.model.parameter_count * 2 * self.torch_dtype.itemsize
