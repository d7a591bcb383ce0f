"""Ground truth: the model trained anew with deletion sets at weight zero, many sets at once.

The same schedule, initialisation and optimiser as in the ordinary run; only the loss of deleted units is multiplied
by zero (`engine.train`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.configuration import SketchConfiguration
from engine.devices import torch_device
from engine.documents import Documents
from engine.jet import Jet
from engine.model import matrices
from engine.native.groups import Schedule, train_models
from engine.native.library import library
from engine.threads import one_thread
from engine.train import Progress, of_models, schedule, train
from engine.workers import Report, train_blocks


class Retrain(Protocol):
    """`retrain`, or the same on a cluster: `engine.cluster.Cluster.retrain`."""

    def __call__(
        self,
        documents: Documents,
        configuration: SketchConfiguration,
        deletion_sets: Sequence[Sequence[int]],
        *,
        batch: int = 64,
        device: str = "cpu",
        workers: int = 1,
        progress: Progress = lambda done, total: None,
    ) -> dict[str, Tensor]:
        """Train one plain model for every deletion set."""
        ...


@one_thread()
@torch.inference_mode()
def retrain(
    documents: Documents,
    configuration: SketchConfiguration,
    deletion_sets: Sequence[Sequence[int]],
    *,
    downweight: float | Sequence[float] = 1.0,
    batch: int = 64,
    device: str = "cpu",
    native: bool = True,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[str, Tensor]:
    """Train one plain model for every deletion set.

    Args:
        documents: in training order.
        configuration: of the sketch; directions and degree play no part.
        deletion_sets: unit numbers of each of the B sets; an empty one gives the ordinary model.
        downweight: how far the sets' weight is taken down, 1 deletes; one for all, or one for each set.
        batch: models that torch trains at once; native code has a batch size of its own.
        device: "cpu", or a CUDA device.
        native: whether to train by native code where it can be had.
        workers: threads of native code; they change nothing but the time.
        progress: called with finished model·steps and all of them.

    Returns:
        Parameter matrices of shape [B, rows, columns] by name.
    """
    place, dtype = torch_device(device), configuration.torch_dtype
    steps = schedule(configuration.model, configuration.training, documents, place)
    each = [downweight] * len(deletion_sets) if isinstance(downweight, int | float) else downweight
    total = len(deletion_sets) * len(steps)
    code = library(dtype, 0, 1) if native and place.type == "cpu" else None
    if code is not None:
        done = 0

        def report(work: int) -> None:
            nonlocal done
            done += work
            progress(done, total)

        arrays = Schedule.of(configuration.model, configuration.training, steps, dtype)
        weights = 1 - _downweights(deletion_sets, each, documents.unit_count, like=arrays.initial)
        groups = torch.split(weights, code.lanes)
        models: dict[int, Tensor] = {}

        def train_group(number: int, report: Report) -> None:
            models[number] = train_models(code, arrays, groups[number], report=report)

        train_blocks(train_group, range(len(groups)), workers=workers, threads=True, report=report)
        return matrices(configuration.model, torch.cat([models[number] for number in range(len(groups))]))
    initial = {name: matrix.to(place, dtype) for name, matrix in configuration.model.initial_parameters().items()}
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(deletion_sets), batch):
        sets = deletion_sets[start : start + batch]
        like = next(iter(initial.values()))
        downweights = _downweights(sets, each[start : start + batch], documents.unit_count, like=like)

        def on_step(step: int, done: int = start * len(steps), models: int = len(sets)) -> None:
            progress(done + (step + 1) * models, total)

        trained = train(
            configuration.model,
            configuration.training,
            steps,
            {name: Jet(matrix.expand(len(sets), -1, -1)) for name, matrix in initial.items()},
            of_models(downweights),
            on_step=on_step,
        )
        parts.append({name: matrix.constant for name, matrix in trained.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in initial}


def _downweights(sets: Sequence[Sequence[int]], each: Sequence[float], units: int, *, like: Tensor) -> Tensor:
    """What every unit's weight is taken down by for each of B sets, [B, m]."""
    downweights = like.new_zeros(len(sets), units)
    for row, members, downweight in zip(downweights, sets, each, strict=True):
        row[list(members)] = downweight
    return downweights
