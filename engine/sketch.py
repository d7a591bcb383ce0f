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

from engine.compiled import worth_fusing
from engine.configuration import SketchConfiguration
from engine.directions import directions, planes
from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError
from engine.jet import Jet
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
    work = configuration.directions * len(documents) * configuration.training.epochs
    plan = Plan(
        configuration=configuration,
        source=Source(fingerprint=documents.fingerprint, documents=len(documents), units=documents.unit_count),
        execution=Execution(device=place.type, fused=worth_fusing(work)),
    )
    if destination.exists():
        return _existing(destination, plan)
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


def train_block(
    configuration: SketchConfiguration,
    steps: list[Step],
    rows: Tensor,
    *,
    fuse: bool = False,
    on_step: Progress = lambda done, total: None,
) -> dict[str, Jet]:
    """Jets of the trained parameters along some directions.

    Args:
        configuration: what is built.
        steps: the schedule, on the device that is to work.
        rows: directions, complex128 of shape [K, m].
        fuse: whether to compile the optimiser's update into one pass.
        on_step: called with the steps done and all of them.
    """
    device, dtype = steps[0].inputs.device, configuration.torch_dtype
    initial = configuration.model.initial_parameters().items()
    return train(
        configuration.model,
        configuration.training,
        steps,
        constant_jets(
            ((name, matrix.to(device, dtype)) for name, matrix in initial), configuration.degree, 2, len(rows)
        ),
        along_directions(planes(rows, dtype=dtype, device=device)),
        fuse=fuse,
        on_step=lambda index: on_step(index + 1, len(steps)),
    )


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
    last = configuration.directions - 1
    rows = [directions(configuration.ensemble, configuration.seed, units, j, j + 1)[0, :4] for j in (0, last)]
    return [(number.real, number.imag) for number in torch.cat(rows).tolist()]


def torch_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"There is no device {name!r}; use 'cpu' or 'cuda'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("The device 'cuda' isn't available here; use 'cpu'.")
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"The device {name!r} isn't supported; use 'cpu' or 'cuda'.")
    return device


def block_file(number: int) -> str:
    """Name of a block's file."""
    return f"block-{number:05d}.safetensors"


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
    total = configuration.directions * len(steps)
    missing = [number for number in range(len(configuration.blocks)) if not workspace.has(block_file(number))]
    left = sum(stop - start for start, stop in (configuration.blocks[number] for number in missing)) * len(steps)
    done = total - left
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
    configuration = plan.configuration
    start, stop = configuration.blocks[number]
    trained = train_block(
        configuration,
        schedule(configuration.model, configuration.training, documents, device),
        directions(configuration.ensemble, configuration.seed, documents.unit_count, start, stop),
        fuse=plan.execution.fused,
        on_step=lambda step, steps: report(stop - start),
    )
    block = coefficients(trained)
    if not all(tensor.isfinite().all() for tensor in block.values()):
        raise ConfigurationError(
            "The expansion of training isn't finite along some direction: lower degree, or raise epsilon."
        )
    save_tensors(workspace / block_file(number), block)


def _existing(destination: Path, plan: Plan) -> Artifact:
    if not (destination / MANIFEST).exists():
        raise ConfigurationError("The destination exists and is no artifact; choose another place.")
    artifact = open_artifact(destination)
    if artifact.manifest.plan != plan:
        raise ConfigurationError("The destination holds another sketch; choose another place, or remove it first.")
    return artifact
