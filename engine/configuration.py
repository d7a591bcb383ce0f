"""What a sketch is: the model, how it is trained, and the directions along which training is expanded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import torch

from engine.anchors import pair_count
from engine.directions import ENSEMBLES, Ensemble
from engine.errors import ConfigurationError
from engine.model import ModelConfiguration
from engine.train import TrainingConfiguration

FEWEST_ANCHORS = 32
"""Below, the quantiles that bars are made of mean nothing."""

BlockKind: TypeAlias = Literal["axes", "directions", "retrained"]


class Block(NamedTuple):
    """Axes of units, random directions, or deletion sets that are trained together: from `start` to before `stop`."""

    kind: BlockKind
    number: int
    start: int
    stop: int

    @property
    def file(self) -> str:
        """Name of its file in the artifact."""
        return f"{self.kind}-{self.number:05d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class SketchConfiguration:
    """Everything that decides a sketch's numbers, except the documents.

    Attributes:
        model: the model.
        training: the optimiser and the schedule.
        axes: whether to train along every unit's own axis too, in real jets, and to retrain without every unit: the
            first order of every deletion set comes out exact, and so does the deletion of a single unit.
        pairs: with axes, whether to retrain without every two units: their interactions come out exact.
        anchors: deletion sets that the model is retrained for beside axes, whose estimates take their bars from them.
        ensemble: distribution of the random directions.
        directions: k, how many of them; at least 2, since a bar needs a spread, or 0 beside axes.
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
    axes: bool = False
    pairs: bool = False
    anchors: int = 1_000
    ensemble: Ensemble = "unitary"
    directions: int = 500
    degree: int = 3
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    block: int = 128

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise ConfigurationError(f"There is no ensemble {self.ensemble!r}; there are {', '.join(ENSEMBLES)}.")
        if self.directions < 2 and not (self.axes and self.directions == 0):
            raise ConfigurationError(
                f"directions must be at least 2, not {self.directions}; with axes there may also be none."
            )
        if self.axes and self.anchors < FEWEST_ANCHORS:
            raise ConfigurationError(
                f"Axes take their bars from anchors, at least {FEWEST_ANCHORS} of them; anchors is {self.anchors}."
            )
        if self.pairs and not self.axes:
            raise ConfigurationError("Pairs add to axes what two units do together; pairs need axes.")
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

    def retrained(self, units: int) -> int:
        """How many deletion sets the model is retrained for: single units, pairs and anchors."""
        if not self.axes:
            return 0
        return units + (pair_count(units) if self.pairs else 0) + self.anchors

    def blocks(self, units: int) -> list[Block]:
        """The work, in parts: axes and retrained sets first, then the random directions.

        Args:
            units: m.
        """
        axes = []
        if self.axes:
            axes = _parts("axes", units, self.block) + _parts("retrained", self.retrained(units), self.block)
        return axes + (_parts("directions", self.directions, self.block) if self.directions else [])

    def size_bytes(self, units: int) -> int:
        """Of an artifact: S · P complex numbers a direction, as many real ones a unit's axis, and P a retrained set."""
        reals = self.degree * (2 * self.directions + (units if self.axes else 0))
        models = 2 + self.retrained(units)  # initial and trained, and one a set
        return (reals + models) * self.model.parameter_count * self.torch_dtype.itemsize


def _parts(kind: BlockKind, count: int, most: int) -> list[Block]:
    parts = -(-count // most)
    bounds = [count * number // parts for number in range(parts + 1)]
    return [
        Block(kind=kind, number=number, start=start, stop=stop)
        for number, (start, stop) in enumerate(itertools.pairwise(bounds))
    ]
