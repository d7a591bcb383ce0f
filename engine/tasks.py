"""What the nodes of a cluster do for `engine.cluster`: functions that Ray calls there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from engine.blocks import Job, nearest, train_and_save
from engine.configuration import Block, SketchConfiguration
from engine.connection import load_ray
from engine.devices import torch_device
from engine.documents import Documents
from engine.errors import ConfigurationError, WorkerError
from engine.native.library import library
from engine.retrain import retrain
from engine.store import PARAMETERS, File
from engine.threads import use_one_thread
from engine.workers import Report, as_progress

Part = TypeVar("Part")
Result = TypeVar("Result")

Function: TypeAlias = Callable[[Any, Part, Report], Result]
"""Works on a part, knowing what all parts share, and reports as it goes on."""


def work_on(
    of_driver: str, function: Function[Part, Result], shared: object, tally: Any, pause: float, index: int, part: Part
) -> Result:
    """Work on a part, in a process of a node: what Ray calls.

    Args:
        of_driver: the version of neverseen that the build was started by.
        function: works.
        shared: what it gets of all parts.
        tally: the actor that is told what has begun, and what is done.
        pause: seconds between two tellings, at least.
        index: what the tally knows the part by.
        part: what the function gets of this one.

    Raises:
        ConfigurationError: the node has another version.
        WorkerError: the tally has ended.
        EngineError: what the function refuses.
    """
    own = version("neverseen")
    if own != of_driver:
        raise ConfigurationError(
            f"The node {_node()} has neverseen {own}, and the machine that started this has {of_driver}: install the "
            "same version on all machines of the cluster."
        )
    use_one_thread()
    return function(shared, part, _Reporter(tally, index, pause))


class _Reporter:
    """Tells the tally of a part now and then; never waits for it.

    A task that waits, as in `ray.get`, gives its processor back meanwhile, and Ray starts another process for it.
    """

    def __init__(self, tally: Any, index: int, pause: float) -> None:
        self._ray, self._tally, self._index, self._pause = load_ray(), tally, index, pause
        self._done, self._told_at = 0, time.monotonic()
        self._answer: Any = tally.tell.remote(index, 0)  # to what was told last; first, that this has started

    def __call__(self, work: int) -> None:
        """So much was just done.

        Raises:
            WorkerError: the tally has ended, and with it what this was for.
        """
        self._done += work
        now = time.monotonic()
        if now - self._told_at < self._pause or not self._answered():
            return
        self._answer, self._told_at = self._tally.tell.remote(self._index, self._done), now

    def _answered(self) -> bool:
        if self._answer is None:
            return True
        if not self._ray.wait([self._answer], timeout=0)[0]:
            return False
        errors = self._ray.exceptions
        try:
            self._ray.get(self._answer)
        except errors.ActorDiedError:
            raise WorkerError("This isn't needed any more.") from None
        except errors.RayActorError:
            pass  # its node was lost, and it starts elsewhere
        return True


def call(function: Callable[..., Result], arguments: tuple[object, ...], report: Report) -> Result:
    """What a function gives."""
    return function(*arguments)


def train_block(job: Job, block: Block, report: Report) -> File:
    """Train a block, and write it, unless it is there.

    Raises:
        ConfigurationError: the node can't train as the others do, or doesn't see the artifact; what training refuses.
        ArtifactError: the block can't be written.
    """
    finished = job.files.find(block.file)
    if finished is not None:
        return finished
    _check_execution(job)
    if job.files.find(PARAMETERS) is None:
        raise ConfigurationError(
            f"The node {_node()} doesn't see the directory in which the artifact grows: it must be one that all "
            "machines of the cluster share, at the same path, or a URL of an object store."
        )
    return train_and_save(job, block, report)


def _check_execution(job: Job) -> None:
    """Make sure that this node trains to the bit as the plan says.

    Raises:
        ConfigurationError: it doesn't.
    """
    wanted = job.plan.execution
    here = nearest(job.plan.configuration, torch_device(job.device), wanted)
    if wanted.native and not here.native:
        raise _without_native_code()
    if here != wanted:
        raise ConfigurationError(
            f"The node {_node()} would train {here.sentence}, and the build was begun {wanted.sentence}: results would "
            "differ in their last bits. Build on machines of one kind: take the others out of the cluster."
        )


def retrain_part(
    shared: tuple[Documents, SketchConfiguration, int, str, bool],
    deletion_sets: Sequence[Sequence[int]],
    report: Report,
) -> Tensor:
    """Train the models without some deletion sets.

    Args:
        shared: documents, configuration, batch and device as of `engine.retrain.retrain`; whether native code trains.
        deletion_sets: unit numbers of each of B sets.
        report: called with model·steps.

    Returns:
        Their parameters, [B, P].

    Raises:
        ConfigurationError: the node can't train as the others do.
    """
    documents, configuration, batch, device, native = shared
    if native and lanes(configuration, device) is None:
        raise _without_native_code()
    models = retrain(
        documents, configuration, deletion_sets, batch=batch, device=device, native=native, progress=as_progress(report)
    )
    return torch.cat([matrix.flatten(1) for matrix in models.values()], dim=1).cpu()


def lanes(configuration: SketchConfiguration, device: str) -> int | None:
    """How many models native code trains at once here; None where torch trains them."""
    code = library(configuration.torch_dtype, 0, 1) if torch_device(device).type == "cpu" else None
    return None if code is None else code.lanes


def _without_native_code() -> ConfigurationError:
    return ConfigurationError(
        f"The node {_node()} has no C++ compiler that works, and others train by native code: results would differ in "
        "their last bits. Install one there (g++, clang++), or take the node out."
    )


def _node() -> str:
    """Address of this node."""
    return str(load_ray().util.get_node_ip_address())
