"""A service at 80 % of its highest rate for ten minutes: ``python -m tests.benchmarks.soak``, or ``make soak``.

Memory at the end may be 5 % more than after the first minute, and no request may fail: else the exit code is 1. What
is asked is what the benchmark of the service asks, a repeated measurement without ever other documents, with a few
requests of other kinds between. Memory is what the process holds of its own, without files that it maps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.benchmarks.load import AnswerError, encoded, open_loop
from tests.benchmarks.service import (
    DATASET,
    ENCODED,
    HEALTH,
    OPEN_CONNECTIONS,
    READY,
    SKETCH,
    Options,
    build,
    held_rate,
    questions,
    served,
)

SHARE: Final = 0.8
MOST_GROWTH: Final = 0.05
SLICE_SECONDS: Final = 8.0  # a connection that nothing is sent on is closed after 10
OTHERS: Final = (
    HEALTH,
    READY,
    encoded("GET", "/metrics"),
    encoded("GET", f"/datasets/{DATASET}/documents?limit=20"),
    encoded("POST", "/attributions", {"sketch": SKETCH, "measurement": {"kind": "loss", "text": "maria"}, "top": 5}),
)
EVERY: Final = 500
"""One request of another kind to so many predictions."""


def mixed(names: int) -> Iterator[bytes]:
    """Predictions, and now and then something else."""
    others = cycle(OTHERS)
    for number, asked in enumerate(cycle(list(islice(questions(names, seed=5), ENCODED)))):
        yield asked
        if number % EVERY == EVERY - 1:
            yield next(others)


def memory_bytes(pid: int) -> int:
    """What a process holds of its own (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def soak(data_dir: Path, *, names: int, seconds: float, console: Console) -> bool:
    """Ask for so long, and say how memory went; whether all was well."""
    with served(data_dir) as service:
        asked = mixed(names)
        rate = SHARE * held_rate(service.port, questions(names, seed=6), seconds=4, connections=8)
        console.print(f"{rate:.0f} requests a second, {SHARE:.0%} of the highest rate held.", highlight=False)
        started, answered, first = time.perf_counter(), 0, 0
        while (elapsed := time.perf_counter() - started) < seconds:
            try:
                taken = open_loop(
                    service.port, asked, rate=rate, count=OPEN_CONNECTIONS, seconds=SLICE_SECONDS, arrivals="even"
                )
            except AnswerError as error:
                console.print(f"A request failed after {elapsed:.0f} s: {error}", highlight=False)
                return False
            answered += len(taken)
            memory = memory_bytes(service.pid)
            if not first and time.perf_counter() - started >= min(60.0, seconds / 10):
                first = memory
            console.print(
                f"{time.perf_counter() - started:5.0f} s  {memory / 2**20:6.1f} MiB  "
                f"median {sorted(taken)[len(taken) // 2] * 1000:.2f} ms",
                highlight=False,
            )
        growth = memory / first - 1
    console.print(
        f"{answered:,} requests, none failed. Memory at the end is {growth:+.1%} of that after the first minute "
        f"(at most {MOST_GROWTH:+.0%}).",
        highlight=False,
    )
    return growth <= MOST_GROWTH


def main() -> None:
    """Soak a service."""
    parser = argparse.ArgumentParser(description="A service at 80 % of its highest rate, for long.")
    parser.add_argument("--data-dir", type=Path, help="where the catalog is, or is built; by default a temporary one")
    parser.add_argument("--names", type=int, default=1_000, help="documents of the dataset")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data_dir = given.data_dir or Path(temporary)
        options = Options(
            data_dir=data_dir,
            names=given.names,
            directions=500,
            axes=False,
            rounds=1,
            requests=1,
            seconds=4,
            connections=8,
            output=None,
        )
        build(data_dir, options)
        well = soak(data_dir, names=given.names, seconds=given.seconds, console=Console(stderr=False))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
