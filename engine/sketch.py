"""Building a sketch: the ordinary training run, then blocks of directions through training in jets, into an artifact.

The data flow: documents → schedule of steps → for every block: directions → training → coefficients of the trained
parameters → a file of the workspace (`engine.blocks`). When all blocks are there, the manifest is written and the
artifact gets its name. A build that is killed goes on from its finished blocks; since a block depends on nothing but
the plan and its own directions, the result is the same to the bit.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from engine.blocks import block_tensors, direction_probe, draw_directions, execution, train_ordinarily
from engine.configuration import SketchConfiguration
from engine.devices import torch_device
from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError
from engine.store import (
    MANIFEST,
    PARAMETERS,
    Artifact,
    Manifest,
    Plan,
    Source,
    Workspace,
    open_artifact,
    save_tensors,
)
from engine.threads import one_thread
from engine.train import Progress, schedule
from engine.workers import Report, train_blocks


def build(
    documents: Documents,
    configuration: SketchConfiguration,
    destination: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    native: bool = True,
    progress: Progress = lambda done, total: None,
) -> Artifact:
    """Build a sketch, or go on with one, or return the one that is there already.

    Args:
        documents: in training order; their characters must be in the model's vocabulary.
        configuration: what to build.
        destination: directory of the artifact; its parent exists or can be made.
        device: "cpu", or a CUDA device.
        workers: how many blocks are trained at the same time; they change nothing but the time. Without a compiler
            they are processes, and a script needs Python's usual ``if __name__ == "__main__":``.
        native: whether to train by native code where it can be had. Otherwise torch trains, to rounding the same.
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
        execution=execution(configuration, place, work, native=native),
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
                direction_probe=direction_probe(draw_directions(configuration, documents.unit_count)),
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


def _fill(
    workspace: Workspace, documents: Documents, plan: Plan, device: torch.device, workers: int, progress: Progress
) -> None:
    """Train what the workspace doesn't have yet."""
    configuration = plan.configuration
    steps = schedule(configuration.model, configuration.training, documents, device)
    if not workspace.has(PARAMETERS):
        with one_thread():
            trained = train_ordinarily(configuration, steps, native=plan.execution.native)
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

    def report(work: int) -> None:
        nonlocal done
        done += work
        progress(done, total)

    train_one = functools.partial(_train_and_save, plan, documents, workspace.path, device)
    train_blocks(train_one, missing, workers=workers, threads=plan.execution.native, report=report)


def _train_and_save(
    plan: Plan, documents: Documents, workspace: Path, device: torch.device, number: int, report: Report
) -> None:
    """Train one block and write it to the workspace; runs in a worker, or here."""
    block = plan.configuration.blocks(documents.unit_count)[number]
    save_tensors(
        workspace / block.file,
        block_tensors(plan.configuration, documents, block, device, plan.execution, report=report),
    )


def _existing(destination: Path, plan: Plan) -> Artifact:
    if not (destination / MANIFEST).exists():
        raise ConfigurationError("The destination exists and is no artifact; choose another place.")
    artifact = open_artifact(destination)
    # How it was executed decides the last bits only: a finished artifact is as good from another machine.
    found = artifact.manifest.plan
    if (found.configuration, found.source) != (plan.configuration, plan.source):
        raise ConfigurationError("The destination holds another sketch; choose another place, or remove it first.")
    return artifact
