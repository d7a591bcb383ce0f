"""How builds speed up with nodes, and what a block costs: ``python -m tests.benchmarks.cluster``.

The same sketch is built by one node and by two, of a processor each, in turn; then thousands of blocks of nothing are
worked on, for what a block costs beside its work, and for the memory of the driver. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from engine import bench
from engine.bench import Figure
from engine.cluster import Cluster
from engine.configuration import SketchConfiguration
from engine.data import census_names
from engine.model import ModelConfiguration
from engine.sketch import build
from tests.benchmarks.scale_ray import EMPTY_BLOCKS, running, spread

SPEED_UP, BLOCK_MS, DRIVER_MB = 1.7, 50.0, 200.0
"""What is promised: at least, at most, at most."""

NAMES: Final = 400
BLOCK: Final = 32
BLOCKS: Final = 24


def measure(rounds: int) -> list[Figure]:
    """All figures, on a cluster of two nodes."""
    with running(2) as (ray, nodes):
        place = Cluster(ray)
        ratios, seconds = [], []
        for number in range(rounds + 1):
            taken = []
            for count in (1, 2):
                nodes.keep(count)
                spread(place, 8 * count, 0.2)  # the nodes' processes are started, and have imported what they need
                taken.append(build_seconds(place))
            if number:  # the first round warms up
                ratios.append(taken[0] / taken[1])
                seconds.append(taken)
        empty = spread(place, EMPTY_BLOCKS, 0.0)
    one, two = (statistics.median(of_count) for of_count in zip(*seconds, strict=True))
    return [
        Figure(name=f"{BLOCKS} blocks on one node", value=one, unit="s"),
        Figure(
            name="… on two nodes, times as fast",
            value=two,
            unit="s",
            yardstick=f"one node (at least {SPEED_UP})",
            ratio=statistics.median(ratios),
        ),
        Figure(name="a block that holds nothing", value=1e3 * empty.seconds / EMPTY_BLOCKS, unit="ms", target=BLOCK_MS),
        Figure(
            name=f"the driver's memory over {EMPTY_BLOCKS:,} such",
            value=empty.grown_bytes / 1e6,
            unit="MB",
            target=DRIVER_MB,
        ),
    ]


def build_seconds(place: Cluster) -> float:
    """What the build takes on the nodes that there are."""
    documents = census_names().first(NAMES)
    configuration = SketchConfiguration(
        model=ModelConfiguration(vocabulary=documents.vocabulary), directions=BLOCK * BLOCKS, block=BLOCK
    )
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        build(documents, configuration, Path(directory) / "sketch", place=place)
        return time.perf_counter() - started


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="How builds speed up with nodes, and what a block costs.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which one node and two take turns")
    parser.add_argument("--output", type=Path, help="file of JSON lines that the figures are appended to")
    options = parser.parse_args()
    figures, about = measure(options.rounds), bench.conditions("cpu")
    Console().print(bench.table(figures, about), highlight=False)
    if options.output is not None:
        bench.append(options.output, figures, about)


if __name__ == "__main__":
    main()
