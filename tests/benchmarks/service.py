"""How fast the service is over HTTP, as ratios of one run: ``python -m tests.benchmarks.service``.

A catalog with a sketch of 1,000 bundled names is built once, `neverseen serve` is started in a process of its own, and
this process asks. What is asked is a repeated measurement: its table is cached, and what is deleted is new every time.
The yardstick is an empty route of the same application. Machines differ and are noisy: the ratios are the figures to
compare, absolute ones are for orientation. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from engine import bench
from engine.bench import Figure
from tests.benchmarks.load import (
    AnswerError,
    Arrivals,
    Connection,
    closed_loop,
    connections,
    encoded,
    latencies,
    open_loop,
)

ROOT: Final = Path(__file__).parent.parent.parent
DATASET: Final = "census-names"
SKETCH: Final = "names"
DELETED: Final = 50
OPEN_CONNECTIONS: Final = 64
ENCODED: Final = 5_000  # deletion sets that are encoded before a loop begins
START_SECONDS: Final = 120.0
NEW_TEXT_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
HEALTH: Final = encoded("GET", "/healthz")
READY: Final = encoded("GET", "/readyz")

QUEUED_SECONDS: Final = 0.01  # half of the last requests of a loop are answered within this, if no queue grows

# What is promised, where something is.
START_TARGET, LATENCY_TARGET, TAIL_TARGET, RATE_TARGET = 5.0, 2.0, 5.0, 2.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is built, and how long is measured."""

    data_dir: Path | None
    names: int
    directions: int
    axes: bool
    rounds: int
    requests: int
    seconds: float
    connections: int
    output: Path | None


def questions(names: int, *, seed: int, by: str = "documents") -> Iterator[bytes]:
    """Questions for one measurement, another deletion set in each."""
    generator = random.Random(seed)
    while True:
        chosen = generator.sample(range(names), min(DELETED, names // 2))
        delete: dict[str, Any] = {"documents": chosen} if by == "documents" else {"units": [str(u) for u in chosen]}
        yield question(delete, "max")


def new_measurements(names: int, *, seed: int) -> Iterator[bytes]:
    """Questions for a text that wasn't measured before."""
    generator = random.Random(seed)
    while True:
        text = "".join(generator.choices(NEW_TEXT_LETTERS, k=12))
        yield question({"documents": generator.sample(range(names), DELETED)}, text)


def question(delete: dict[str, Any], text: str) -> bytes:
    """One request."""
    body = {"sketch": SKETCH, "delete": delete, "measurements": [{"kind": "loss", "text": text}]}
    return encoded("POST", "/predict", body)


def build(data_dir: Path, options: Options) -> None:
    """Make the catalog and its sketch, with the command line, where they aren't there."""
    if not (data_dir / "catalog.sqlite").exists():
        neverseen(data_dir, "datasets", "add", "--bundled", DATASET, "--limit", str(options.names))
    axes = "--axes" if options.axes else "--no-axes"
    what = [axes, "--directions", str(options.directions), "--ensemble", "unitary", "--no-pin"]
    neverseen(data_dir, "sketches", "build", SKETCH, "--dataset", DATASET, *what)


def neverseen(data_dir: Path, *arguments: str) -> None:
    """Run the command line on a catalog."""
    command = [sys.executable, "-m", "app", *arguments]
    subprocess.run(command, cwd=ROOT, env=_environment(data_dir), check=True, stdout=sys.stderr)


def _environment(data_dir: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NEVERSEEN_")}
    return {**ours, "NEVERSEEN_DATA_DIR": str(data_dir)}


@dataclass(frozen=True, kw_only=True)
class Served:
    """`neverseen serve` in a process of its own.

    Attributes:
        port: where it listens.
        pid: of the process.
        start_seconds: from its start until it was ready.
    """

    port: int
    pid: int
    start_seconds: float


@contextmanager
def served(data_dir: Path, *arguments: str) -> Iterator[Served]:
    """A service, until the end of the block; it logs, as it does in earnest, where nobody looks.

    Args:
        data_dir: where its catalog is.
        arguments: of `neverseen serve`, beside the port.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "app", "serve", "--port", str(port), *arguments]
    started = time.perf_counter()
    log = (data_dir / f"service-{port}.log").open("w")
    process = subprocess.Popen(command, cwd=ROOT, env=_environment(data_dir), stderr=log)
    try:
        while not _ready(port):
            if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                sys.exit("The service didn't become ready.")
            time.sleep(0.01)
        yield Served(port=port, pid=process.pid, start_seconds=time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
        log.close()


def _ready(port: int) -> bool:
    try:
        connection = Connection(port)
    except OSError:
        return False
    try:
        connection.ask(READY)
    finally:
        connection.close()
    return True


def measure(port: int, options: Options) -> list[Figure]:
    """All figures of a running service but its start."""
    return [*_latency_figures(port, options), *_rate_figures(port, options), *_beside_figures(port, options)]


def _latency_figures(port: int, options: Options) -> list[Figure]:
    """Medians of routes asked in turn, so that all see the same machine."""
    asked = {
        "GET /healthz": repeat(HEALTH),
        "POST /predict, by documents": questions(options.names, seed=1),
        "POST /predict, by units": questions(options.names, seed=2, by="units"),
    }
    taken: dict[str, list[float]] = {name: [] for name in asked}
    medians: dict[str, list[float]] = {name: [] for name in asked}
    with connections(port, 1) as [connection]:
        for number in range(options.rounds + 1):
            for name, requests in asked.items():
                times = latencies(connection, [next(requests) for _ in range(options.requests)])
                if number:  # the first round warms up
                    taken[name] += times
                    medians[name].append(statistics.median(times))
    figures = []
    for name, times in taken.items():
        ratios = [own / empty for own, empty in zip(medians[name], medians["GET /healthz"], strict=True)]
        yardstick = None if name == "GET /healthz" else "GET /healthz"
        figures.append(
            Figure(
                name=f"{name}, median",
                value=statistics.median(times) * 1000,
                unit="ms",
                yardstick=yardstick,
                ratio=statistics.median(ratios) if yardstick else None,
                target=LATENCY_TARGET if yardstick else None,
            )
        )
    return figures


def _rate_figures(port: int, options: Options) -> list[Figure]:
    """The highest rates held, and latencies at 80% of them, in rounds."""
    rates: dict[str, list[float]] = {"health": [], "predict": []}
    medians: dict[Arrivals, list[float]] = {"even": [], "random": []}
    tails: dict[Arrivals, list[float]] = {"even": [], "random": []}
    asked = cycle(list(islice(questions(options.names, seed=3), ENCODED)))
    for _ in range(options.rounds):
        rates["health"].append(held_rate(port, repeat(HEALTH), options.seconds, options.connections))
        rates["predict"].append(held_rate(port, asked, options.seconds, options.connections))
        for arrivals, times in medians.items():
            taken = open_loop(
                port,
                asked,
                rate=0.8 * rates["predict"][-1],
                count=OPEN_CONNECTIONS,
                seconds=options.seconds,
                arrivals=arrivals,
            )
            times.append(statistics.median(taken) * 1000)
            tails[arrivals].append(statistics.quantiles(taken, n=100)[98] * 1000)
    health, predict = (statistics.median(rates[name]) for name in ("health", "predict"))
    figures = [
        Figure(name="POST /predict, highest rate held", value=predict, unit="1/s"),
        Figure(
            name="GET /healthz, highest rate held",
            value=health,
            unit="1/s",
            yardstick="that",
            ratio=health / predict,
            target=RATE_TARGET,
        ),
    ]
    for arrivals, times in medians.items():
        ratios = [tail / middle for tail, middle in zip(tails[arrivals], times, strict=True)]
        figures += [
            Figure(name=f"at 80% of it, {arrivals} arrivals: median", value=statistics.median(times), unit="ms"),
            Figure(
                name=f"at 80% of it, {arrivals} arrivals: p99",
                value=statistics.median(tails[arrivals]),
                unit="ms",
                yardstick="median",
                ratio=statistics.median(ratios),
                target=TAIL_TARGET,
            ),
        ]
    return figures


def held_rate(port: int, requests: Iterator[bytes], seconds: float, connections: int) -> float:
    """The highest rate at which requests may become due without a queue that grows.

    A closed loop says what is possible where requests wait for each other; from there it goes down.
    """
    highest = closed_loop(port, requests, count=connections, seconds=seconds / 4)
    for percent in range(100, 10, -5):
        rate = highest * percent / 100
        taken = open_loop(port, requests, rate=rate, count=OPEN_CONNECTIONS, seconds=seconds / 2, arrivals="even")
        if statistics.median(taken[-len(taken) // 3 :]) < QUEUED_SECONDS:
            return rate
    raise AnswerError("No rate is held.")


def _beside_figures(port: int, options: Options) -> list[Figure]:
    """The empty route, and repeated measurements, while others ask for new measurements without a pause."""
    stop = threading.Event()
    new: list[float] = []

    def ask(number: int) -> None:
        connection = Connection(port)
        for request in new_measurements(options.names, seed=1000 + number):
            if stop.is_set():
                break
            new.extend(latencies(connection, [request]))
        connection.close()

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    repeated = questions(options.names, seed=4)
    for asker in askers:
        asker.start()
    with connections(port, 1) as [connection]:
        health, predict = [], []
        deadline = time.perf_counter() + 2 * options.seconds
        while time.perf_counter() < deadline:
            health += latencies(connection, [HEALTH])
            predict += latencies(connection, [next(repeated)])
            time.sleep(0.002)
    stop.set()
    for asker in askers:
        asker.join()
    figures = [Figure(name="POST /predict, new, 2 at a time, median", value=statistics.median(new) * 1000, unit="ms")]
    for name, times in (("GET /healthz", health), ("POST /predict", predict)):
        figures += [
            Figure(name=f"{name} beside new ones, median", value=statistics.median(times) * 1000, unit="ms"),
            Figure(
                name=f"{name} beside new ones, p99",
                value=statistics.quantiles(times, n=100)[98] * 1000,
                unit="ms",
            ),
        ]
    return figures


def run(options: Options, data_dir: Path) -> list[Figure]:
    """Build what is missing, serve it, and measure."""
    build(data_dir, options)
    with served(data_dir):
        pass  # files are in the page cache, and compiled modules beside their sources
    with served(data_dir) as service:
        figures = [Figure(name="start until ready", value=service.start_seconds, unit="s", target=START_TARGET)]
        return figures + measure(service.port, options)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="How fast the service is over HTTP.")
    parser.add_argument("--data-dir", type=Path, help="where the catalog is, or is built; by default a temporary one")
    parser.add_argument("--names", type=int, default=1_000, help="documents of the dataset, where it is built")
    parser.add_argument("--directions", type=int, default=500, help="random directions; 500 are 50 MB of 1,000 names")
    parser.add_argument("--axes", action="store_true", help="a sketch with axes and anchors, which takes longer")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which routes take turns")
    parser.add_argument("--requests", type=int, default=200, help="requests of each route in a round")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a loop")
    parser.add_argument("--connections", type=int, default=8, help="connections of the closed loop")
    parser.add_argument("--output", type=Path, help="file of JSON lines that the figures are appended to")
    options = Options(**vars(parser.parse_args()))
    if options.data_dir is None:
        with tempfile.TemporaryDirectory() as temporary:
            figures = run(options, Path(temporary))
    else:
        figures = run(options, options.data_dir)
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
