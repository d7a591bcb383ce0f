"""How fast a sharded service is beside one that holds its sketches itself: ``python -m tests.benchmarks.sharded``.

Both serve the same catalog at the same time, the sharded one from two shards on a Ray cluster of this machine, and are
asked the same in turn: repeated measurements, whose tables the front keeps, and new ones, which the shards measure. The
ratios of the medians of a round are what compares. Then a shard is killed while new measurements are asked one after
the other: how long the longest answer took, how long some were refused, and when they were of all shards again. Nothing
here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from engine import bench
from engine.bench import Figure
from tests.benchmarks.load import AnswerError, connections, latencies
from tests.benchmarks.service import Options, Served, build, new_measurements, questions, served
from tests.cluster.nodes import replica

TARGET: Final = 2.0
_ALONE: Final = "in one process"
_OUTAGE_SECONDS: Final = 120.0


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


def outage(service: Served, requests: Iterator[bytes], shards: int) -> list[Figure]:
    """What those who ask notice of a shard that is killed, until there were whole answers for a second.

    Args:
        service: that has shards.
        requests: each of a new measurement.
        shards: how many; the last one is killed.
    """
    longest, last_refusal, whole_since, was_noticed = 0.0, 0.0, None, False
    with connections(service.port, 1) as [connection]:
        latencies(connection, [next(requests)])
        os.kill(replica(service.pid, shards - 1), signal.SIGKILL)
        killed = time.perf_counter()
        while (asked := time.perf_counter()) - killed < _OUTAGE_SECONDS:
            try:
                [prediction] = json.loads(connection.ask(next(requests)))["predictions"]
                is_whole = not prediction["missing_share"]
            except AnswerError:
                is_whole, last_refusal = False, time.perf_counter() - killed
            now = time.perf_counter()
            longest = max(longest, now - asked)
            was_noticed |= not is_whole
            whole_since = (whole_since or now) if is_whole else None
            if was_noticed and whole_since and now - whole_since > 1:
                break
        else:
            sys.exit("The shard that was killed was never missed, or isn't back.")
    return [
        Figure(name="a shard is killed: the longest answer", value=longest * 1000, unit="ms"),
        Figure(name="a shard is killed: the last refusal", value=last_refusal, unit="s"),
        Figure(name="a shard is killed: whole answers again", value=whole_since - killed, unit="s"),
    ]


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
            figures += outage(spread, new_measurements(options.names, seed=3), shards)
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
