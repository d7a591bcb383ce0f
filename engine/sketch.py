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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, TypeVar, overload

import numpy as np
import torch

from engine.anchors import DRAWING
from engine.blocks import Job, execution, nearest, probe_of, train_and_save, train_parameters
from engine.configuration import Block, SketchConfiguration
from engine.devices import torch_device
from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError, StoreError
from engine.locations import Location, ObjectStore
from engine.remote import Published, RemoteWorkspace, check_same_sketch, find_published, open_workspace
from engine.store import (
    MANIFEST,
    PARAMETERS,
    PLAN,
    Artifact,
    Execution,
    File,
    Manifest,
    Plan,
    Source,
    open_artifact,
    parse_plan,
)
from engine.train import Progress
from engine.workers import Report, train_blocks
from engine.workspace import Workspace, finished_files, workspace_of

Result = TypeVar("Result")


class Place(Protocol):
    """Where the work of a build is done: `Here`, or `engine.cluster.Cluster`."""

    def named(self, device: str) -> str:
        """What a device is called where the work is done: a process of a cluster has one, and no number for it."""
        ...

    def once(self, device: str, function: Callable[..., Result], /, *arguments: object) -> Result:
        """What a function gives where the work is done, which may be another machine than this one.

        Args:
            device: that the function needs: "cpu" or "cuda".
            function: of a module.
            arguments: that can be pickled.
        """
        ...

    def train_blocks(self, job: Job, blocks: Sequence[Block], *, report: Report) -> Mapping[str, File]:
        """Train and write some blocks.

        Args:
            job: the build.
            blocks: of the build.
            report: called with the direction·steps that were just done; with a negative number where some were lost.

        Returns:
            The files that are known by now; it needn't be all of them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Here:
    """This machine: threads or processes, `workers` of them."""

    workers: int = 1

    def named(self, device: str) -> str:
        """As it is."""
        return device

    def once(self, device: str, function: Callable[..., Result], /, *arguments: object) -> Result:
        """What the function gives."""
        return function(*arguments)

    def train_blocks(self, job: Job, blocks: Sequence[Block], *, report: Report) -> Mapping[str, File]:
        """Train and write some blocks."""
        train_one = functools.partial(train_and_save, job)
        train_blocks(train_one, blocks, workers=self.workers, threads=job.plan.execution.native, report=report)
        return {}


@overload
def build(
    documents: Documents,
    configuration: SketchConfiguration,
    destination: Path,
    *,
    device: str = ...,
    workers: int = ...,
    native: bool = ...,
    place: Place | None = ...,
    progress: Progress = ...,
) -> Artifact: ...


@overload
def build(
    documents: Documents,
    configuration: SketchConfiguration,
    destination: str,
    *,
    device: str = ...,
    workers: int = ...,
    native: bool = ...,
    place: Place | None = ...,
    progress: Progress = ...,
) -> Published: ...


def build(
    documents: Documents,
    configuration: SketchConfiguration,
    destination: Location,
    *,
    device: str = "cpu",
    workers: int = 1,
    native: bool = True,
    place: Place | None = None,
    progress: Progress = lambda done, total: None,
) -> Artifact | Published:
    """Build a sketch, or go on with one, or return the one that is there already.

    Args:
        documents: in training order; their characters must be in the model's vocabulary.
        configuration: what to build.
        destination: of the artifact: a directory whose parent exists or can be made, or a URL of an object store.
        device: "cpu", or a CUDA device.
        workers: how many blocks are trained at the same time; they change nothing but the time. Without a compiler
            they are processes, and a script needs Python's usual ``if __name__ == "__main__":``.
        native: whether to train by native code where it can be had. Otherwise torch trains, to rounding the same.
        place: where the work is done; this machine, if nothing is said. A cluster has workers of its own.
        progress: called with the finished direction·steps and all of them. What an earlier attempt finished counts at
            once.

    Returns:
        The artifact; in an object store, where it is.

    Raises:
        ConfigurationError: the device isn't there, another process builds the same, another artifact has the place, or
            what was built there so far can't be gone on with to the bit where the work is to be done now.
        ArtifactError: the artifact that has the place is damaged, or it can't be written.
        WorkerError: a worker was lost.
    """
    place = place or Here(workers=workers)
    destination = destination.absolute() if isinstance(destination, Path) else destination
    work, device = direction_steps(configuration, documents), place.named(device)
    source = Source(fingerprint=documents.fingerprint, documents=len(documents), units=documents.unit_count)
    if (found := _existing(destination, configuration, source)) is not None:
        progress(work, work)
        return found
    begun = _begun(destination, configuration, source)
    execution = place.once(device, _execution, configuration, device, work, native, begun)
    if begun is not None and begun != execution:
        raise ConfigurationError(_otherwise(destination, begun, execution))
    plan = Plan(configuration=configuration, source=source, execution=execution, drawing=DRAWING)
    with open_workspace(destination, plan) as workspace:
        started = time.monotonic()
        job = Job(plan=plan, documents=documents, files=workspace.files, device=device)
        try:
            known = _fill(workspace, job, place, progress)
        except BaseException as error:
            # A store that is away would have to be waited for again, and nobody waits after Ctrl-C.
            if isinstance(workspace, Workspace) or (isinstance(error, Exception) and not isinstance(error, StoreError)):
                with contextlib.suppress(ArtifactError):  # the disk may be what failed; the first error is to be told
                    workspace.seconds(time.monotonic() - started, patiently=False)
            raise
        spent = workspace.seconds(time.monotonic() - started)
        return workspace.publish(
            Manifest(
                plan=plan,
                shapes=configuration.model.shapes,
                direction_probe=probe_of(configuration, documents.unit_count),
                files=dict(sorted({**workspace.describe(known), **known}.items())),
                versions=place.once(device, _versions),
                build_seconds=spent,
                created_at=datetime.now(UTC),
            )
        )


def direction_steps(configuration: SketchConfiguration, documents: Documents) -> int:
    """The size of a build: directions, axes and retrained sets, times steps."""
    together = sum(block.stop - block.start for block in configuration.blocks(documents.unit_count))
    return together * len(documents) * configuration.training.epochs


def _execution(
    configuration: SketchConfiguration, device: str, work: int, native: bool, begun: Execution | None
) -> Execution:
    """How to build: as it was begun, if that can be done here, else as is best here."""
    place = torch_device(device)
    best = execution(configuration, place, work, native=native)
    if begun is None or (begun.native and not native) or nearest(configuration, place, begun) != begun:
        return best
    return begun


def _versions() -> dict[str, str]:
    return {
        "neverseen": version("neverseen"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _fill(workspace: Workspace | RemoteWorkspace, job: Job, place: Place, progress: Progress) -> Mapping[str, File]:
    """Train what the workspace doesn't have yet; the files that became known meanwhile."""
    configuration = job.plan.configuration
    known: dict[str, File] = {}
    if not workspace.has(PARAMETERS):
        known[PARAMETERS] = place.once(job.device, train_parameters, job)
    blocks = configuration.blocks(job.documents.unit_count)
    missing = [block for block in blocks if not workspace.has(block.file)]
    steps = len(job.documents) * configuration.training.epochs
    total = sum(block.stop - block.start for block in blocks) * steps
    done = total - sum(block.stop - block.start for block in missing) * steps
    progress(done, total)

    def report(work: int) -> None:
        nonlocal done
        done += work
        progress(done, total)

    return {**known, **place.train_blocks(job, missing, report=report)}


def _existing(destination: Location, configuration: SketchConfiguration, source: Source) -> Artifact | Published | None:
    """The artifact that has the place, if it is of the same sketch."""
    found: Artifact | Published | None = None
    if isinstance(destination, str):
        found = find_published(destination)
    elif destination.exists():
        if not (destination / MANIFEST).exists():
            raise ConfigurationError("The destination exists and is no artifact; choose another place.")
        found = open_artifact(destination)
    if found is not None:
        check_same_sketch(
            found.manifest, Plan(configuration=configuration, source=source, execution=found.manifest.plan.execution)
        )
    return found


def _begun(destination: Location, configuration: SketchConfiguration, source: Source) -> Execution | None:
    """How an unfinished build of the same sketch was executed, of which blocks are there; None where there is none."""
    content: bytes | None = None
    if isinstance(destination, str):
        store = ObjectStore(destination)
        if any(name.endswith(".safetensors") for name in store.names()):
            content = store.find(PLAN)
    elif finished_files(destination):
        with contextlib.suppress(OSError):
            content = (workspace_of(destination) / PLAN).read_bytes()
    plan = None if content is None else parse_plan(content)
    if plan is None or (plan.configuration, plan.source, plan.drawing) != (configuration, source, DRAWING):
        return None
    return plan.execution if plan.execution.processor else None


def _otherwise(destination: Location, begun: Execution, here: Execution) -> str:
    place = destination if isinstance(destination, str) else workspace_of(destination).name
    return (
        f"This build was begun {begun.sentence}, and would go on {here.sentence}: the last bits would differ, and its "
        f"finished blocks would be lost. Go on where it was begun, or remove {place} to begin anew."
    )
