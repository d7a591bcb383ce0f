"""How stable a training run is: whether what units do to the parameters adds up.

Where deleting some units makes the run take another course, nothing that adds up single units foresees it, and
estimates for larger sets are coarse however many orders a sketch has. The anchors tell: their parameters were
retrained, and so were those without every single unit. A different set-up of the training, with the same loss at its
end, may be far more stable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from engine.resident import ResidentSketch


class Stability(NamedTuple):
    """Root mean square of what isn't explained by single units, over that of the change of parameters.

    Attributes:
        random: over anchors that are random sets.
        coherent: over anchors of units with something in common.
    """

    random: float
    coherent: float

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"What single units do to the parameters adds up to within {self.random:.0%} for random sets and "
            f"{self.coherent:.0%} for sets with something in common; the nearer to 0%, the more stable the training."
        )


@torch.inference_mode()
def stability(sketch: ResidentSketch) -> Stability | None:
    """How far parameters without an anchor's set are from the sum of what its units do; None without axes."""
    axes = sketch.frame.axes
    if axes is None:
        return None
    assert sketch.frame.holdings is not None
    changes = sketch.frame.holdings.models() - torch.cat([matrix.flatten() for matrix in sketch.frame.trained.values()])
    end = len(changes) - axes.later  # without what was retrained later
    first = end - sketch.configuration.anchors
    true, singles = changes[first:end].double(), changes[: sketch.unit_count].double()
    summed = torch.stack([singles[list(units)].sum(dim=0) for units in sketch.retrained_sets[first:end]])
    explained, unexplained = true.square().sum(dim=1), (true - summed).square().sum(dim=1)
    return Stability(*(_share(unexplained[start::2], explained[start::2]) for start in (0, 1)))  # they take turns


def _share(unexplained: torch.Tensor, whole: torch.Tensor) -> float:
    several = whole > 0
    return float((unexplained[several] / whole[several]).mean().sqrt())
