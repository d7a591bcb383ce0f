"""Thousands of blocks over many nodes, by the real scheduler and `engine.cluster`, with blocks that sleep.

Ray's resources are logical: nodes of this machine claim a processor each that isn't there, and a block, in place of
training, sleeps as long as it would train. What is real is everything else: the driver with its window of tasks, Ray's
scheduler, a worker process a node, the retries after a lost node, the news of progress.

A block sleeps where a task looks whether its file is there already (`BlockFiles.find`): `SleepingFiles` says, after a
while, that it is.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from torch import Tensor

from engine import cluster
from engine.bench import Figure
from engine.blocks import Job
from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.model import ModelConfiguration
from engine.store import Execution, File, Plan, Source
from tests.cluster.nodes import Nodes, marked_environment, running_nodes

NODES: Final = 16
LOST: Final = 1 / 4  # of the nodes
BLOCKS: Final = 960
EMPTY_BLOCKS: Final = 5_000
BLOCK_SECONDS: Final = 0.25
LOST_AFTER: Final = 1 / 3  # of the blocks
SLOWER: Final = 10
PENDING: Final = (1_000, 10_000)
CALLS: Final = 300


@dataclass(frozen=True)
class SleepingFiles:
    """Files of a build that are all there, after a block's time.

    Attributes:
        tries: directory in which is noted which blocks were begun.
        seconds: of a block.
        slow_node: Ray's id of a node on which everything takes `SLOWER` times as long.
    """

    tries: Path
    seconds: float
    slow_node: str | None = None

    def find(self, name: str) -> File:
        """Note the block, and sleep."""
        import ray

        with (self.tries / str(os.getpid())).open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
        slow = self.slow_node is not None and ray.get_runtime_context().get_node_id() == self.slow_node
        time.sleep(self.seconds * (SLOWER if slow else 1))
        return File(bytes=1, sha256="0" * 64)

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """Never called: every file is found."""
        raise AssertionError(f"{name} was to be written, and every file is there.")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How blocks were worked on.

    Attributes:
        seconds: wall time.
        grown_bytes: what the driver's process had more at most.
        tries: of each block, by how many blocks had so many.
    """

    seconds: float
    grown_bytes: int
    tries: Counter[int]


def simulate(nodes: int = NODES) -> Iterator[Figure]:
    """The figures, one after the other."""
    ideal = BLOCKS * BLOCK_SECONDS / nodes
    with running(nodes) as (ray, there):
        place = cluster.Cluster(ray)
        spread(place, 8 * nodes, 1.0)  # every node's process is started, and has imported what it needs
        empty = spread(place, EMPTY_BLOCKS, 0.0)
        what = f"{EMPTY_BLOCKS:,} empty blocks, {nodes} nodes"
        yield Figure(name=what, value=EMPTY_BLOCKS / empty.seconds, unit="1/s")
        yield Figure(name="… a block", value=1e3 * empty.seconds / EMPTY_BLOCKS, unit="ms", target=50.0)
        yield Figure(name="… the driver's memory grew by", value=empty.grown_bytes / 1e6, unit="MB", target=200.0)
        even = spread(place, BLOCKS, BLOCK_SECONDS)
        what = f"{BLOCKS:,} blocks of {BLOCK_SECONDS:g} s on {nodes} nodes"
        yield Figure(name=what, value=even.seconds, unit="s", yardstick=f"{ideal:.3g} s", ratio=even.seconds / ideal)
        slow = spread(place, BLOCKS, BLOCK_SECONDS, slow_node=there.all[-1].node_id)
        yield Figure(
            name=f"… one of them {SLOWER} times slower",
            value=slow.seconds,
            unit="s",
            yardstick="all alike",
            ratio=slow.seconds / even.seconds,
        )
        yield from _losing(place, there, even.seconds)
        yield from _waiting(ray)
        yield from _calls(ray)


def _losing(place: cluster.Cluster, nodes: Nodes, even_seconds: float) -> Iterator[Figure]:
    """A quarter of the nodes is killed when a third of the blocks is done."""
    count = int(LOST * len(nodes.all))

    def kill() -> None:
        for _ in range(count):
            nodes.kill(0)

    lost = spread(place, BLOCKS, BLOCK_SECONDS, after=(int(BLOCKS * LOST_AFTER), kill))
    again = sum(count * (tries - 1) for tries, count in lost.tries.items())
    yield Figure(
        name=f"… {count} of them killed after a third",
        value=lost.seconds,
        unit="s",
        yardstick="none killed",
        ratio=lost.seconds / even_seconds,
    )
    yield Figure(name="… blocks begun once more", value=again, unit="")
    yield Figure(name="… most tries of a block", value=max(lost.tries), unit="")


def _waiting(ray: Any) -> Iterator[Figure]:
    """What a look at all tasks takes, as the driver does for each block that is finished."""
    task = ray.remote(resources={"nowhere": 1})(_nothing)
    for count in PENDING:
        before = resident_bytes()
        references = [task.remote() for _ in range(count)]
        times = []
        for _ in range(20):
            started = time.perf_counter()
            ray.wait(references, timeout=0)
            times.append(time.perf_counter() - started)
        yield Figure(name=f"ray.wait, {count:,} tasks", value=1e3 * statistics.median(times), unit="ms")
        grown = resident_bytes() - before
        yield Figure(name="… the driver's memory, a task", value=grown / count / 1e3, unit="kB")
        for reference in references:
            ray.cancel(reference)
        del references


def _calls(ray: Any) -> Iterator[Figure]:
    """A call of an actor, and of a deployment of Ray Serve, as a front calls a shard."""
    from ray import serve
    from ray.serve.schema import LoggingConfig

    actor = ray.remote(num_cpus=0)(_Echo).remote()
    called = _median_seconds(lambda: ray.get(actor.say.remote(b"")))
    yield Figure(name="call of an actor", value=1e3 * called, unit="ms")
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    serve.start(proxy_location="Disabled", logging_config=quiet)
    deployment: Any = serve.deployment(_Echo)
    handle: Any = serve.run(deployment.options(logging_config=quiet).bind(), name="echo", route_prefix=None)
    called = _median_seconds(lambda: handle.say.remote(b"").result())
    yield Figure(name="call by Ray Serve", value=1e3 * called, unit="ms")
    megabyte = bytes(10**6)
    larger = _median_seconds(lambda: handle.say.remote(megabyte).result())
    yield Figure(name="… a megabyte there and back", value=1e3 * (larger - called), unit="ms")
    stop: Callable[[], None] = serve.shutdown
    stop()


class _Echo:
    def say(self, content: bytes) -> bytes:
        return content


def _nothing() -> None:
    return None


def _median_seconds(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


@contextmanager
def running(count: int) -> Iterator[tuple[Any, Nodes]]:
    """A cluster of nodes with a processor each, and a head without; all on this machine.

    Yields:
        Ray, and the nodes.
    """
    with marked_environment(), running_nodes() as nodes:
        nodes.keep(count)
        with cluster.connected(nodes.address) as ray:
            yield ray, nodes


def spread(
    place: cluster.Cluster,
    count: int,
    seconds: float,
    *,
    slow_node: str | None = None,
    after: tuple[int, Callable[[], None]] | None = None,
) -> Spread:
    """Have so many blocks worked on.

    Args:
        place: the cluster.
        count: blocks, of a direction each.
        seconds: that each sleeps.
        slow_node: as of `SleepingFiles`.
        after: how many blocks are done when something is called, and what.
    """
    documents = Documents.from_records((name, None) for name in ("ab", "ba"))
    model = ModelConfiguration(vocabulary=documents.vocabulary, width=4, heads=1, context=4)
    configuration = SketchConfiguration(model=model, directions=count, ensemble="sphere", block=1)
    steps, done, most = len(documents), 0, 0
    before = resident_bytes()

    def report(work: int) -> None:
        nonlocal done, most
        earlier, done = done, done + work // steps
        most = max(most, resident_bytes())
        if after is not None and earlier < after[0] <= done:
            threading.Thread(target=after[1]).start()

    with TemporaryDirectory() as tries:
        job = Job(
            plan=Plan(
                configuration=configuration,
                source=Source(fingerprint=documents.fingerprint, documents=steps, units=documents.unit_count),
                execution=Execution(device="cpu", fused=False, native=False),
            ),
            documents=documents,
            files=SleepingFiles(Path(tries), seconds, slow_node),
            device="cpu",
        )
        started = time.perf_counter()
        files = place.train_blocks(job, configuration.blocks(documents.unit_count), report=report)
        taken = time.perf_counter() - started
        assert len(files) == count
        begun = Counter(line for file in Path(tries).iterdir() for line in file.read_text().splitlines())
    return Spread(seconds=taken, grown_bytes=max(0, most - before), tries=Counter(begun.values()))


def resident_bytes() -> int:
    """What this process has in memory now, on Linux."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def conditions(nodes: int) -> dict[str, str | int]:
    """What the figures were measured on."""
    return {"nodes": nodes, "ray": version("ray")}
