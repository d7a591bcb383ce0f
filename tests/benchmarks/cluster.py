"""Builds on Ray nodes of this machine: ``python -m tests.benchmarks.cluster``, four minutes.

A node is a worker of one processor, held to a core of its own. The same build is made by one node and by two, in turns;
then thousands of blocks that are hardly any work, by `engine.sketch.build` as it is, to see what a block costs beside
its training, and what the process that hands them out needs. Nothing here passes or fails. More nodes than cores, lost
ones and slow ones: `tests.benchmarks.scale_ray`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rich.console import Console

from engine import bench
from engine.bench import Figure
from engine.cluster import Cluster, connected
from engine.configuration import SketchConfiguration
from engine.data import census_names
from engine.documents import Documents
from engine.model import ModelConfiguration
from engine.sketch import build
from engine.threads import use_one_thread
from tests.cluster.nodes import Nodes, marked_environment, running_nodes

SPEED_UP: Final = 1.7
OVERHEAD_MS: Final = 50.0
GROWTH_MB: Final = 200.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is built."""

    documents: int
    directions: int
    rounds: int
    blocks: int
    output: Path | None


def run(options: Options, folder: Path) -> Iterator[Figure]:
    """The figures, one after the other."""
    with marked_environment(), running_nodes() as nodes:
        nodes.keep(2)
        hold_to_cores(nodes)
        with connected(nodes.address) as ray:
            yield from speed(Cluster(ray), OneOf(ray, nodes.all[0].node_id), options, folder)
            yield from overhead(Cluster(ray), options.blocks, folder)


def speed(two: Cluster, one: Cluster, options: Options, folder: Path) -> Iterator[Figure]:
    """Whole builds by one node and by two, in turns."""
    documents = census_names().first(options.documents)
    configuration = SketchConfiguration(
        model=ModelConfiguration(vocabulary=documents.vocabulary), directions=options.directions, block=16
    )
    pairs = []
    for number in range(options.rounds + 1):
        both = timed(documents, configuration, folder / f"two-{number}", two)
        alone = timed(documents, configuration, folder / f"one-{number}", one)
        if number:  # the processes have been started, and have imported what they need
            pairs.append((both, alone))
    what = f"build, {options.directions:,} directions of {options.documents:,} documents"
    yield Figure(name=f"{what}: one node", value=statistics.median(alone for _, alone in pairs), unit="s")
    yield Figure(
        name="… two nodes",
        value=statistics.median(both for both, _ in pairs),
        unit="s",
        yardstick="one node",
        ratio=statistics.median(both / alone for both, alone in pairs),
        target=1 / SPEED_UP,
    )
    speed_ups = sorted(alone / both for both, alone in pairs)
    yield Figure(name="… so many times as fast", value=statistics.median(speed_ups), unit="x")
    yield Figure(name="… in the worst of the rounds", value=speed_ups[0], unit="x")


def overhead(cluster: Cluster, blocks: int, folder: Path) -> Iterator[Figure]:
    """Blocks of one direction, four steps each, beside the same on one processor of this process."""
    documents = Documents.from_records((name, None) for name in ("ab", "ba", "aab", "abb"))
    model = ModelConfiguration(vocabulary=documents.vocabulary, width=4, heads=1, context=4)
    many = SketchConfiguration(model=model, directions=blocks, degree=1, block=1)
    few = replace(many, directions=max(2, blocks // 10))
    timed(documents, few, folder / "warm", cluster)
    alone = timed(documents, few, folder / "few", None) / few.directions
    before, most, done = resident_bytes(), 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, resident_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    seconds = timed(documents, many, folder / "many", cluster)
    done.set()
    looking.join()
    yield Figure(name=f"{blocks:,} tiny blocks, two nodes", value=seconds, unit="s")
    yield Figure(name="… a block of a node", value=2e3 * seconds / blocks, unit="ms")
    yield Figure(name="… without a cluster", value=1e3 * alone, unit="ms")
    beside = 1e3 * (2 * seconds / blocks - alone)
    yield Figure(name="… what the cluster adds to a block", value=beside, unit="ms", target=OVERHEAD_MS)
    yield Figure(name="… the driver's memory grew by", value=(most - before) / 1e6, unit="MB", target=GROWTH_MB)


def timed(documents: Documents, configuration: SketchConfiguration, place: Path, cluster: Cluster | None) -> float:
    """Seconds of a build, which isn't kept."""
    started = time.perf_counter()
    build(documents, configuration, place, place=cluster)
    seconds = time.perf_counter() - started
    shutil.rmtree(place)
    return seconds


def hold_to_cores(nodes: Nodes) -> None:
    """Hold each node, and the workers that it will start, to a core of its own."""
    for node, core in zip(nodes.all, sorted(os.sched_getaffinity(0)), strict=False):
        for infos in node.all_processes.values():
            for info in infos:
                for thread in Path(f"/proc/{info.process.pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})


class OneOf(Cluster):
    """A single node of a cluster."""

    def __init__(self, ray: ModuleType, node: str) -> None:
        """Begin nothing yet.

        Args:
            ray: from `connected`.
            node: Ray's id of it.
        """
        super().__init__(ray)
        self._here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def workers(self, device: str) -> int:
        """One."""
        return min(1, super().workers(device))

    def _task(self, device: str) -> Any:
        return super()._task(device).options(scheduling_strategy=self._here)


def resident_bytes() -> int:
    """What this process has in memory now, on Linux."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Builds on Ray nodes of this machine.")
    parser.add_argument("--documents", type=int, default=300, help="of the build that is timed")
    parser.add_argument("--directions", type=int, default=960, help="of the build that is timed, in blocks of 16")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of builds that medians are taken over")
    parser.add_argument("--blocks", type=int, default=5_000, help="that are hardly any work")
    parser.add_argument("--output", type=Path, help="file of JSON lines that the figures are appended to")
    options = Options(**vars(parser.parse_args()))
    use_one_thread()
    about = {**bench.conditions("cpu"), "ray": version("ray")}
    figures, aside = list[Figure](), Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        for figure in run(options, Path(folder)):  # told at once: whoever stops it has what was measured
            figures.append(figure)
            aside.print(f"{figure.name}: {figure.value:.4g} {figure.unit}", highlight=False, soft_wrap=True)
    Console(file=sys.stdout).print(bench.table(figures, about), highlight=False)
    if options.output is not None:
        bench.append(options.output, figures, about)


if __name__ == "__main__":
    main()
