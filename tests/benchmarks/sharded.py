"""How fast a sharded service is beside one that holds its sketches itself: ``python -m tests.benchmarks.sharded``.

Both serve the same catalog at the same time, the sharded one from two shards on a Ray cluster of this machine, and are
asked the same in turn: repeated measurements, whose tables the front keeps, and new ones, which the shards measure. The
ratios of the medians of a round are what compares. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from engine import bench
from engine.bench import Figure
from tests.benchmarks.load import connections, latencies
from tests.benchmarks.service import Options, build, new_measurements, questions, served

TARGET: Final = 2.0
_ALONE: Final = "in one process"


def measure(ports: dict[str, int], options: Options) -> list[Figure]:
    """Medians of each service and kind of question, asked in turn, and their ratios.

    Args:
        ports: of the services by name, the yardstick first.
        options: rounds, and requests of a round.
    """
    asked: dict[str, Callable[[], Iterator[bytes]]] = {
        "repeated measurement": partial(questions, options.names, seed=1),
        "new measurement": partial(new_measurements, options.names, seed=2),
    }
    figures = []
    for what, made in asked.items():
        requests = {service: made() for service in ports}  # the same for each
        medians: dict[str, list[float]] = {service: [] for service in ports}
        for number in range(options.rounds + 1):
            for service, port in ports.items():
                with connections(port, 1) as [connection]:
                    times = latencies(connection, [next(requests[service]) for _ in range(options.requests)])
                if number:  # the first round warms up
                    medians[service].append(statistics.median(times))
        for service, taken in medians.items():
            ratios = [own / alone for own, alone in zip(taken, medians[_ALONE], strict=True)]
            compared = service != _ALONE
            figures.append(
                Figure(
                    name=f"{what}, {service}, median",
                    value=statistics.median(taken) * 1000,
                    unit="ms",
                    yardstick=_ALONE if compared else None,
                    ratio=statistics.median(ratios) if compared else None,
                    target=TARGET if compared else None,
                )
            )
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="How fast a sharded service is beside one in a single process.")
    parser.add_argument("--names", type=int, default=1_000, help="documents of the dataset")
    parser.add_argument("--directions", type=int, default=500, help="random directions")
    parser.add_argument("--axes", action="store_true", help="a sketch with axes and anchors, which takes longer")
    parser.add_argument("--shards", type=int, default=2, help="shards, a core each")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which services take turns")
    parser.add_argument("--requests", type=int, default=100, help="requests of a kind in a round")
    parser.add_argument("--output", type=Path, help="file of JSON lines that the figures are appended to")
    given = vars(parser.parse_args())
    shards: int = given.pop("shards")
    with tempfile.TemporaryDirectory() as temporary:
        options = Options(data_dir=Path(temporary), seconds=0, connections=1, **given)
        build(Path(temporary), options)
        sharded = served(Path(temporary), "--cluster", "local", "--shards", str(shards))
        with served(Path(temporary)) as alone, sharded as spread:
            figures = measure({_ALONE: alone.port, f"over {shards} shards": spread.port}, options)
    about = {
        **bench.conditions("cpu"),
        "names": options.names,
        "directions": options.directions,
        "axes": "yes" if options.axes else "no",
    }
    Console().print(bench.table(figures, about), highlight=False)
    if options.output is not None:
        bench.append(options.output, figures, about)


if __name__ == "__main__":
    main()
