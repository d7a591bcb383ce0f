"""Builds and retrains on a Ray cluster, extra ``neverseen[cluster]``.

A block of a build, or some models to retrain, is a task of Ray's: it takes a processor, or a CUDA device, of any node,
writes its file where the artifact grows, and returns the file's size and checksum. Ray places the tasks, and does those
again whose node is lost; a task looks first whether its file is there. What all tasks need is put into Ray's object
store once. No more tasks are handed to Ray at a time than twice what the cluster works on.

    driver   parts ── window ──> tasks ──> files               a block's bits are those of a build on one machine
               └─ every half second ─ tally <─ now and then ─┘

What is being done is told by the tasks to an actor, the tally, and asked there. A task that begins anew tells less than
it did before, and the progress goes back.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from itertools import count, islice
from types import ModuleType
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from engine.blocks import Job
from engine.configuration import Block, SketchConfiguration
from engine.connection import AUTO, LOCAL, connected, first_line
from engine.devices import on_node
from engine.documents import Documents
from engine.errors import ConfigurationError, EngineError, WorkerError
from engine.model import matrices
from engine.retrain import Retrain, retrain
from engine.store import File
from engine.tasks import Function, call, lanes, retrain_part, train_block, work_on
from engine.train import Progress
from engine.workers import Report

__all__ = ["AUTO", "LOCAL", "MOST_LOSSES", "Cluster", "connected", "retrain_on", "spread_over"]

MOST_LOSSES: Final = 5
"""How often a part of the work may be lost with its node, or its process, until all of it ends."""

logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.5
_SILENT_SECONDS: Final = 30.0
_TELLS_A_SECOND: Final = 1_000
"""What the tally takes from all tasks together without falling behind."""

_GRACE_SECONDS: Final = 5.0
"""For tasks to end that aren't needed any more. What doesn't, Ray ends when this process disconnects.

`ray.cancel` isn't for us: it ends the whole driver where the task's result comes at this very moment (Ray 2.60, "Tried
to complete task that was not pending")."""

Part = TypeVar("Part")
Result = TypeVar("Result")


class Cluster:
    """A cluster that this process is connected to: an `engine.sketch.Place`."""

    def __init__(self, ray: ModuleType) -> None:
        """Begin nothing yet.

        Args:
            ray: from `connected`.
        """
        self._ray = ray
        self._silence = _Silence()
        self._calls = count()  # of `once`
        self._tally: _Tally | None = None  # of them

    @property
    def sentence(self) -> str:
        """What there is, for people."""
        nodes = sum(node["Alive"] for node in self._ray.nodes())
        counts = [
            f"{self._slots(resource):,} {name}{'' if self._slots(resource) == 1 else 's'}"
            for resource, name in (("CPU", "processor"), ("GPU", "GPU"))
            if self._slots(resource)
        ]
        return f"On a cluster of {nodes:,} node{'' if nodes == 1 else 's'}: {', '.join(counts) or 'no processor'}."

    def workers(self, device: str) -> int:
        """How many tasks are worked on at a time.

        Args:
            device: that each needs: "cpu" or "cuda".
        """
        return self._slots(_resource(device))

    def named(self, device: str) -> str:
        """What a device is called on a node: "cuda", whatever its number is elsewhere."""
        return on_node(device)

    def once(self, device: str, function: Callable[..., Result], /, *arguments: object) -> Result:
        """What a function gives on a node of the cluster.

        Args:
            device: that it needs: "cpu" or "cuda".
            function: of a module that the nodes have.
            arguments: that can be pickled.

        Raises:
            EngineError: what the function refuses, or the cluster.
            WorkerError: the nodes that worked on it were lost.
        """
        task = self._task(device)
        tally = self._tally = self._tally or _Tally(self._ray, lambda work: None)
        number, began = next(self._calls), time.monotonic()
        reference = task.remote(version("neverseen"), call, function, tally.actor, 0.0, number, arguments)
        while not self._ray.wait([reference], timeout=_POLL_SECONDS)[0]:
            if tally.look([number]) and number not in tally.heard_of:
                self._silence.look(_resource(device), self.workers(device), began)
        result: Result = self._result(reference)
        return result

    def train_blocks(self, job: Job, blocks: Sequence[Block], *, report: Report) -> dict[str, File]:
        """Train and write some blocks.

        Args:
            job: the build; its files must be reached from all nodes.
            blocks: of the build.
            report: called with the direction·steps that were just done; with a negative number where some were lost.

        Returns:
            The files.

        Raises:
            EngineError: what a block's training refuses, or the cluster: the first one ends the build.
            WorkerError: a block was lost too often.
        """
        steps = len(job.documents) * job.plan.configuration.training.epochs
        work = [(block.stop - block.start) * steps for block in blocks]
        job = replace(job, device=on_node(job.device))
        files = self._run(train_block, job, blocks, work=work, device=job.device, report=report)
        return {blocks[index].file: file for index, file in files.items()}

    def retrain(
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
        """Train one plain model for every deletion set; to the bit as `engine.retrain.retrain` on a node.

        Args:
            documents: in training order.
            configuration: of the sketch; directions and degree play no part.
            deletion_sets: unit numbers of each of the B sets.
            batch: models that torch trains at once.
            device: "cpu" or "cuda".
            workers: not needed.
            progress: called with finished model·steps and all of them.

        Returns:
            Parameter matrices of shape [B, rows, columns] by name, on the CPU.

        Raises:
            EngineError: what the cluster refuses.
            WorkerError: some models were lost too often.
        """
        steps, done, device = len(documents) * configuration.training.epochs, 0, on_node(device)

        def report(work: int) -> None:
            nonlocal done
            done += work
            progress(done, len(deletion_sets) * steps)

        wide = self.once(device, lanes, configuration, device)
        # Torch's models depend on which others are trained at once, by rounding; those of native code don't.
        size = batch if wide is None else wide * -(-len(deletion_sets) // (4 * wide * max(1, self.workers(device))))
        parts = [deletion_sets[at : at + size] for at in range(0, len(deletion_sets), size)]
        shared = (documents, configuration, batch, device, wide is not None)
        work = [len(part) * steps for part in parts]
        found = self._run(retrain_part, shared, parts, work=work, device=device, report=report)
        flat = [found[index] for index in range(len(parts))]
        none = torch.empty((0, configuration.model.parameter_count), dtype=configuration.torch_dtype)
        return matrices(configuration.model, torch.cat(flat) if flat else none)

    def _run(
        self,
        function: Function[Part, Result],
        shared: object,
        parts: Sequence[Part],
        *,
        work: Sequence[int],
        device: str,
        report: Report,
    ) -> dict[int, Result]:
        """Have all parts worked on.

        Args:
            function: of a module.
            shared: what it gets of all parts.
            parts: what it gets of each.
            work: of each part, in the unit of `report`.
            device: that a part needs.
            report: called with the work that was just done.

        Returns:
            The result of each part by its index, in the order in which they were finished.
        """
        if not parts:
            return {}
        task, tally, began = self._task(device), _Tally(self._ray, report), time.monotonic()
        slots = self.workers(device)
        given = (version("neverseen"), function, self._ray.put(shared), tally.actor)
        waiting = iter(range(len(parts)))
        running: dict[Any, int] = {}  # by what Ray refers to the result with
        results: dict[int, Result] = {}
        try:
            while len(results) < len(parts):
                for index in islice(waiting, max(0, 2 * max(1, slots) - len(running))):
                    pause = max(_POLL_SECONDS / 2, slots / _TELLS_A_SECOND)
                    running[task.remote(*given, pause, index, parts[index])] = index
                finished, _ = self._ray.wait(list(running), timeout=_POLL_SECONDS)
                for reference in finished:
                    index = running.pop(reference)
                    results[index] = self._result(reference)
                    tally.count(index, work[index])
                if tally.look(running.values()):
                    slots = self.counted(device, slots)
                    if not results and not tally.heard_of:
                        self._silence.look(_resource(device), slots, began)
            return results
        finally:
            tally.end()  # after Ctrl-C or an error, tasks that find it gone end, too
            if running:
                self._ray.wait(list(running), num_returns=len(running), timeout=_GRACE_SECONDS)

    def counted(self, device: str, before: int) -> int:
        """How many tasks are worked on at a time by now, since nodes come and go."""
        now = self.workers(device)
        if now < before:
            then = "what they worked on is begun anew" if now else "this waits for others"
            logger.warning("%d of %d workers were lost; %s.", before - now, before, then)
        return now

    def _task(self, device: str) -> Any:
        """The function that Ray calls, with what it needs.

        Raises:
            ConfigurationError: no node has that.
        """
        resource = _resource(device)
        if not self._slots(resource):
            raise ConfigurationError(f"No node of the cluster has a {resource}; start one that has.")
        return self._ray.remote(num_cpus=1, num_gpus=int(resource == "GPU"), max_retries=MOST_LOSSES)(work_on)

    def _result(self, reference: Any) -> Any:
        """Of a finished task, or what has ended it."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, EngineError):
                raise error.cause from None
            raise WorkerError(f"A node of the cluster can't do its work: {_told(error.cause)}") from error
        except errors.RayError as error:
            raise WorkerError(
                f"Work was lost with its node or its process, {1 + MOST_LOSSES} times at most: {_told(error)} "
                "Start again, it goes on."
            ) from error

    def _slots(self, resource: str) -> int:
        return int(self._ray.cluster_resources().get(resource, 0))


class _Silence:
    """Says once that nothing has started for long: else nothing tells a full cluster from work that is slow."""

    def __init__(self) -> None:
        """Of a cluster."""
        self._said = False

    def look(self, resource: str, slots: int, began: float) -> None:
        """Nothing has started by now of what was handed over then, to a cluster with so many of the resource."""
        if self._said or time.monotonic() - began < _SILENT_SECONDS:
            return
        self._said = True
        logger.warning(
            "Nothing has started for %.0f s: the cluster has %d %s%s, and other work may have them all, or its nodes "
            "are slow to start. This waits; `ray status` tells.",
            _SILENT_SECONDS,
            slots,
            resource,
            "" if slots == 1 else "s",
        )


class _Tally:
    """What the tasks of a run tell of their progress; an actor that takes no processor."""

    def __init__(self, ray: ModuleType, report: Report) -> None:
        """Start the actor on this node, or anywhere, where this process isn't on one."""
        self._ray, self._report = ray, report
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        self.actor: Any = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_actor_class()).remote()
        self._told: dict[int, int] = {}  # of parts that aren't finished
        self._news: Any = None
        self.heard_of: set[int] = set()  # parts that have begun
        self._looked_at = time.monotonic()

    def count(self, index: int, work: int) -> None:
        """A part is finished, which is so much work."""
        self._report(work - self._told.pop(index, 0))

    def look(self, running: Collection[int]) -> bool:
        """Report what was told of these parts, if it is time to; whether it was."""
        if time.monotonic() - self._looked_at < _POLL_SECONDS:
            return False
        if self._news is not None and self._ray.wait([self._news], timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):  # the actor was lost, and starts again
                unfinished = frozenset(running)
                for index, done in self._ray.get(self._news).items():
                    self.heard_of.add(index)
                    if index in unfinished:
                        self._report(done - self._told.get(index, 0))
                        self._told[index] = done
            self._news = None
        self._news = self._news or self.actor.news.remote()
        self._looked_at = time.monotonic()
        return True

    def end(self) -> None:
        """End the actor."""
        self._ray.kill(self.actor)


def _actor_class() -> type:
    """Made in a function, so that Ray hands it over whole, and its process needn't import this package, with torch."""

    class Told:
        """How much of each part is done."""

        def __init__(self) -> None:
            self.told: dict[int, int] = {}

        def tell(self, index: int, done: int) -> None:
            self.told[index] = done

        def news(self) -> dict[int, int]:
            news, self.told = self.told, {}
            return news

    return Told


def spread_over(address: str | None) -> AbstractContextManager[Cluster | None]:
    """The cluster at an address, as `connected` has it; None where there is no address: the work is done here."""
    return nullcontext() if address is None else _cluster(address)


def retrain_on(place: Cluster | None, device_there: str) -> Retrain:
    """What retrains at a place.

    Args:
        place: the cluster; None is this machine.
        device_there: that the cluster retrains on, whatever this machine has for the rest.
    """
    if place is None:
        return retrain
    cluster = place

    def spread(
        documents: Documents,
        configuration: SketchConfiguration,
        deletion_sets: Sequence[Sequence[int]],
        *,
        batch: int = 64,
        device: str = "",
        workers: int = 1,
        progress: Progress = lambda done, total: None,
    ) -> dict[str, Tensor]:
        given = (documents, configuration, deletion_sets)
        return cluster.retrain(*given, batch=batch, device=device_there, workers=workers, progress=progress)

    return spread


@contextmanager
def _cluster(address: str) -> Iterator[Cluster]:
    with connected(address) as ray:
        yield Cluster(ray)


def _resource(device: str) -> str:
    """What Ray calls a device."""
    return "GPU" if device.startswith("cuda") else "CPU"


def _told(error: object) -> str:
    return f"{type(error).__name__}: {first_line(error)}".removesuffix(": ")
