"""Building a sketch: the ordinary training run, then blocks of directions through training in jets, into an artifact.

The data flow: documents → schedule of steps → for every block: directions → `train` → coefficients of the trained
parameters → a file of the workspace. When all blocks are there, the manifest is written and the artifact gets its
name. A build that is killed goes on from its finished blocks; since a block depends on nothing but the plan and its
own directions, the result is the same to the bit.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from engine.anchors import anchor_sets, pairs
from engine.compiled import worth_fusing
from engine.configuration import Block, SketchConfiguration
from engine.devices import torch_device
from engine.directions import directions, planes
from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError
from engine.jet import Coefficient, Jet
from engine.retrain import retrain
from engine.store import (
    MANIFEST,
    PARAMETERS,
    Artifact,
    Execution,
    Manifest,
    Plan,
    Source,
    Workspace,
    open_artifact,
    save_tensors,
)
from engine.threads import one_thread
from engine.train import Progress, Step, along_directions, constant_jets, schedule, train
from engine.workers import train_blocks

PLANE_NAMES = ("real", "imaginary")


def build(
    documents: Documents,
    configuration: SketchConfiguration,
    destination: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> Artifact:
    """Build a sketch, or go on with one, or return the one that is there already.

    Args:
        documents: in training order; their characters must be in the model's vocabulary.
        configuration: what to build.
        destination: directory of the artifact; its parent exists or can be made.
        device: "cpu", or a CUDA device.
        workers: processes that train blocks; they change nothing but the time. With more than one, a script needs
            Python's usual ``if __name__ == "__main__":``.
        progress: called with the finished direction·steps and all of them. What an earlier attempt finished counts at
            once.

    Raises:
        ConfigurationError: the device isn't there, another process builds the same, or another artifact has the place.
        ArtifactError: the artifact that has the place is damaged, or it can't be written.
    """
    place = torch_device(device)
    work = direction_steps(configuration, documents)
    plan = Plan(
        configuration=configuration,
        source=Source(fingerprint=documents.fingerprint, documents=len(documents), units=documents.unit_count),
        execution=Execution(device=place.type, fused=worth_fusing(work)),
    )
    if destination.exists():
        found = _existing(destination, plan)
        progress(work, work)
        return found
    with Workspace(destination, plan) as workspace:
        started = time.monotonic()
        try:
            _fill(workspace, documents, plan, place, workers, progress)
        except BaseException:
            with contextlib.suppress(ArtifactError):  # the disk may be what failed; the first error is the one to tell
                workspace.seconds(time.monotonic() - started)
            raise
        spent = workspace.seconds(time.monotonic() - started)
        return workspace.publish(
            Manifest(
                plan=plan,
                shapes=configuration.model.shapes,
                direction_probe=direction_probe(configuration, documents.unit_count),
                files=workspace.describe(),
                versions={
                    "neverseen": version("neverseen"),
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
                build_seconds=spent,
                created_at=datetime.now(UTC),
            )
        )


def direction_steps(configuration: SketchConfiguration, documents: Documents) -> int:
    """The size of a build: directions, axes and retrained sets, times steps."""
    together = sum(block.stop - block.start for block in configuration.blocks(documents.unit_count))
    return together * len(documents) * configuration.training.epochs


def train_block(
    configuration: SketchConfiguration,
    steps: list[Step],
    directions: Coefficient,
    *,
    start: int = 0,
    fuse: bool = False,
    on_step: Progress = lambda done, total: None,
) -> dict[str, Jet]:
    """Jets of the trained parameters along some directions.

    Args:
        configuration: what is built.
        steps: the schedule, on the device that is to work.
        directions: planes of shape [K, m], in the precision of training: two of complex directions, one of real axes.
        start: the first step that visits a unit of a direction.
        fuse: whether to compile the optimiser's update into one pass.
        on_step: called with the steps done and all of them.
    """
    device, dtype = steps[0].inputs.device, configuration.torch_dtype
    matrices = ((name, m.to(device, dtype)) for name, m in configuration.model.initial_parameters().items())
    return train(
        configuration.model,
        configuration.training,
        steps,
        constant_jets(matrices, configuration.degree, len(directions), len(directions[0])),
        along_directions(directions),
        start=start,
        fuse=fuse,
        on_step=lambda index: on_step(index + 1, len(steps)),
    )


def block_directions(configuration: SketchConfiguration, block: Block, units: int, device: torch.device) -> Coefficient:
    """The planes of a block's directions, of shape [K, m]."""
    if block.kind == "axes":
        rows = torch.arange(block.start, block.stop, device=device)
        return (one_hot(rows, units).to(configuration.torch_dtype),)
    drawn = directions(configuration.ensemble, configuration.seed, units, block.start, block.stop)
    return planes(drawn, dtype=configuration.torch_dtype, device=device)


def first_step(block: Block, steps: list[Step]) -> int:
    """The first step of the schedule that a block trains in jets, or in many models; those before are ordinary ones."""
    if block.kind != "axes":
        return 0
    visited = range(block.start, block.stop)
    return next(index for index, step in enumerate(steps) if step.unit in visited)


def block_tensors(
    configuration: SketchConfiguration,
    documents: Documents,
    block: Block,
    device: torch.device,
    *,
    fuse: bool,
    report: Callable[[int], None],
) -> dict[str, Tensor]:
    """Train one block: the tensors of its file.

    Args:
        configuration: what is built.
        documents: in training order.
        block: one of the configuration's blocks.
        device: the device that is to work.
        fuse: whether to compile the optimiser's update into one pass.
        report: called after every step with the block's number of directions, axes or retrained sets.

    Raises:
        ConfigurationError: what was trained isn't finite.
    """
    if block.kind == "retrained":
        return _retrain_sets(configuration, documents, block, device, report)
    steps = schedule(configuration.model, configuration.training, documents, device)
    trained = train_block(
        configuration,
        steps,
        block_directions(configuration, block, documents.unit_count, device),
        start=first_step(block, steps),
        fuse=fuse,
        on_step=lambda step, steps: report(block.stop - block.start),
    )
    tensors = coefficients(trained)
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ConfigurationError(
            "The expansion of training isn't finite along some direction: lower degree, or raise epsilon."
        )
    return tensors


def train_ordinarily(configuration: SketchConfiguration, steps: list[Step]) -> dict[str, Tensor]:
    """The trained parameters of the ordinary run, x = 0."""
    device, dtype = steps[0].inputs.device, configuration.torch_dtype
    initial = {name: Jet(matrix.to(device, dtype)) for name, matrix in configuration.model.initial_parameters().items()}
    trained = train(configuration.model, configuration.training, steps, initial, lambda gradient, unit: gradient)
    return {name: matrix.constant for name, matrix in trained.items()}


def coefficients(trained: dict[str, Jet]) -> dict[str, Tensor]:
    """Higher coefficients of all parameters as tensors [K, P] by name, one an order and plane."""
    first = next(iter(trained.values()))
    return {
        f"order{order}.{PLANE_NAMES[plane]}": torch.cat(
            [parameter.higher[order - 1][plane].flatten(1) for parameter in trained.values()], dim=1
        )
        for order in range(1, first.degree + 1)
        for plane in range(len(first.higher[0]))
    }


def direction_probe(configuration: SketchConfiguration, units: int) -> list[tuple[float, float]]:
    """A few numbers of the first and the last direction, to tell later whether the same directions are drawn."""
    ends = [0, configuration.directions - 1] if configuration.directions else []
    rows = [directions(configuration.ensemble, configuration.seed, units, j, j + 1)[0, :4].tolist() for j in ends]
    return [(number.real, number.imag) for row in rows for number in row]


def _fill(
    workspace: Workspace, documents: Documents, plan: Plan, device: torch.device, workers: int, progress: Progress
) -> None:
    """Train what the workspace doesn't have yet."""
    configuration = plan.configuration
    steps = schedule(configuration.model, configuration.training, documents, device)
    if not workspace.has(PARAMETERS):
        with one_thread():
            trained = train_ordinarily(configuration, steps)
        if not all(matrix.isfinite().all() for matrix in trained.values()):
            raise ConfigurationError(
                "Training diverged: the parameters aren't finite. Lower learning_rate or raise epsilon."
            )
        initial = configuration.model.initial_parameters()
        workspace.save(
            PARAMETERS,
            {f"initial.{name}": matrix.to(configuration.torch_dtype) for name, matrix in initial.items()}
            | {f"trained.{name}": matrix for name, matrix in trained.items()},
        )
    blocks = configuration.blocks(documents.unit_count)
    missing = [number for number, block in enumerate(blocks) if not workspace.has(block.file)]
    total = sum(block.stop - block.start for block in blocks) * len(steps)
    done = total - sum(blocks[number].stop - blocks[number].start for number in missing) * len(steps)
    progress(done, total)

    def report(directions: int) -> None:
        nonlocal done
        done += directions
        progress(done, total)

    train_one = functools.partial(_train_and_save, plan, documents, workspace.path, device)
    train_blocks(train_one, missing, workers=workers, report=report)


def _train_and_save(
    plan: Plan, documents: Documents, workspace: Path, device: torch.device, number: int, report: Callable[[int], None]
) -> None:
    """Train one block and write it to the workspace; runs in a worker, or here."""
    block = plan.configuration.blocks(documents.unit_count)[number]
    fuse = plan.execution.fused
    save_tensors(
        workspace / block.file, block_tensors(plan.configuration, documents, block, device, fuse=fuse, report=report)
    )


def retrained_sets(configuration: SketchConfiguration, documents: Documents) -> list[tuple[int, ...]]:
    """The deletion sets that the model is retrained for: single units, pairs and anchors, in this order."""
    units = documents.unit_count
    sets: list[tuple[int, ...]] = [(unit,) for unit in range(units)]
    if configuration.pairs:
        sets += pairs(units)
    return sets + anchor_sets(documents, count=configuration.anchors, seed=configuration.seed)


def _retrain_sets(
    configuration: SketchConfiguration,
    documents: Documents,
    block: Block,
    device: torch.device,
    report: Callable[[int], None],
) -> dict[str, Tensor]:
    """Parameters of the models without each of a block's deletion sets, and the sets themselves."""
    sets = retrained_sets(configuration, documents)[block.start : block.stop]
    models = retrain(
        documents,
        configuration,
        sets,
        batch=len(sets),
        device=str(device),
        progress=lambda done, total: report(len(sets)),
    )
    if not all(matrix.isfinite().all() for matrix in models.values()):
        raise ConfigurationError("Retraining without a deletion set diverged. Lower learning_rate or raise epsilon.")
    return {
        "models": torch.cat([matrix.flatten(1) for matrix in models.values()], dim=1),
        "members": torch.tensor([unit for units in sets for unit in units]),
        "sizes": torch.tensor([len(units) for units in sets]),
    }


def _existing(destination: Path, plan: Plan) -> Artifact:
    if not (destination / MANIFEST).exists():
        raise ConfigurationError("The destination exists and is no artifact; choose another place.")
    artifact = open_artifact(destination)
    # How it was executed decides the last bits only: a finished artifact is as good from another machine.
    found = artifact.manifest.plan
    if (found.configuration, found.source) != (plan.configuration, plan.source):
        raise ConfigurationError("The destination holds another sketch; choose another place, or remove it first.")
    return artifact
