"""How fast erasure requests are taken and answered: ``python -m tests.benchmarks.privacy``.

A catalog with a sketch of 1,000 bundled names is built once, each name is linked to an e-mail address, and a report
measures 19 texts and the person's own document, which nobody has measured before. `neverseen serve` is started in a
process of its own, and this process asks, on an idle service and while two callers ask for new measurements without a
pause. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from rich.console import Console

from engine import bench
from engine.bench import Figure
from engine.data import BUNDLED
from tests.benchmarks import service
from tests.benchmarks.load import Connection, encoded, latencies

MEASUREMENTS: Final = 20
ACCEPT_MEDIAN_MS, ACCEPT_TAIL_MS, EVIDENCE_SECONDS = 20.0, 100.0, 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is built, and how often is asked."""

    data_dir: Path | None
    names: int
    requests: int
    output: Path | None


def prepare(data_dir: Path, names: int) -> None:
    """Build the sketch, link the names to addresses, and say what is measured."""
    build = service.Options(
        data_dir=data_dir,
        names=names,
        directions=200,
        axes=True,
        rounds=1,
        requests=1,
        seconds=1,
        connections=1,
        output=None,
    )
    service.build(data_dir, build)
    with (data_dir / "links.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["subject", "identity_type", "identity_value"])
        lines.writerows([str(number), "email", address(number)] for number in range(names))
    service.neverseen(data_dir, "datasets", "link", str(data_dir / "links.csv"), "--dataset", service.DATASET)
    texts = BUNDLED[service.DATASET].load().texts[names : names + MEASUREMENTS - 1]
    options = [part for text in texts for part in ("--text", text)]
    service.neverseen(
        data_dir, "privacy", "reports", "set", "--sketch", service.SKETCH, "--own-documents", "1", *options
    )


def address(number: int) -> str:
    """Whose documents they are."""
    return f"person{number}@example.org"


def request(number: int) -> bytes:
    """A request that wasn't made before."""
    body = {"id": str(uuid4()), "identities": [{"type": "email", "value": address(number)}]}
    return encoded("POST", "/erasure-requests", body)


@contextmanager
def busy(port: int, names: int) -> Iterator[None]:
    """Two callers that ask for new measurements without a pause."""
    stop = threading.Event()

    def ask(number: int) -> None:
        connection = Connection(port)
        for question in service.new_measurements(names, seed=2000 + number):
            if stop.is_set():
                break
            latencies(connection, [question])
        connection.close()

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for asker in askers:
        asker.start()
    try:
        yield
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def accepted(port: int, options: Options, what: str) -> list[Figure]:
    """How long a request takes to be acknowledged, one after the other, with pauses in which it is worked on."""
    connection, times = Connection(port), []
    for number in range(options.requests):
        times += latencies(connection, [request(number % options.names)])
        time.sleep(0.02)
    connection.close()
    return [
        Figure(
            name=f"accepted, {what}: median", value=statistics.median(times) * 1000, unit="ms", target=ACCEPT_MEDIAN_MS
        ),
        Figure(
            name=f"accepted, {what}: p99",
            value=statistics.quantiles(times, n=100)[98] * 1000,
            unit="ms",
            target=ACCEPT_TAIL_MS,
        ),
    ]


def drain(connection: Connection) -> None:
    """Wait until nothing waits: requests that come faster than they are worked on form a queue."""
    for state in ("pending", "in_progress"):
        asked = encoded("GET", f"/erasure-requests?state={state}&limit=1")
        while json.loads(connection.ask(asked))["total"]:
            time.sleep(0.1)


def answered(port: int, options: Options, what: str) -> list[Figure]:
    """How long it is from sending a request to its evidence, one after the other, asked every few milliseconds."""
    connection, times = Connection(port), []
    drain(connection)
    for number in range(min(options.requests, 100)):
        started = time.perf_counter()
        place = json.loads(connection.ask(request(number * 7 % options.names)))["id"]
        asked = encoded("GET", f"/erasure-requests/{place}")
        while json.loads(connection.ask(asked))["state"] != "completed":
            time.sleep(0.005)
        connection.ask(encoded("GET", f"/erasure-requests/{place}/evidence"))
        times.append(time.perf_counter() - started)
    connection.close()
    return [
        Figure(
            name=f"accepted to evidence, {what}: median",
            value=statistics.median(times),
            unit="s",
            target=EVIDENCE_SECONDS,
        ),
        Figure(name=f"accepted to evidence, {what}: the longest", value=max(times), unit="s", target=EVIDENCE_SECONDS),
    ]


def run(options: Options, data_dir: Path) -> list[Figure]:
    """Prepare what is missing, serve it, and measure."""
    prepare(data_dir, options.names)
    with service.served(data_dir) as served:
        figures = answered(served.port, options, "idle")  # the first one makes the tables of the report's texts
        figures += accepted(served.port, options, "idle")
        with busy(served.port, options.names):
            figures += accepted(served.port, options, "engine busy") + answered(served.port, options, "engine busy")
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="How fast erasure requests are taken and answered.")
    parser.add_argument("--data-dir", type=Path, help="where the catalog is, or is built; by default a temporary one")
    parser.add_argument("--names", type=int, default=1_000, help="documents of the dataset, where it is built")
    parser.add_argument("--requests", type=int, default=300, help="requests of each kind")
    parser.add_argument("--output", type=Path, help="file of JSON lines that the figures are appended to")
    options = Options(**vars(parser.parse_args()))
    about: dict[str, Any] = {**bench.conditions("cpu"), "names": options.names, "measurements": MEASUREMENTS}
    if options.data_dir is None:
        with tempfile.TemporaryDirectory() as temporary:
            figures = run(options, Path(temporary))
    else:
        figures = run(options, options.data_dir)
    Console(file=sys.stdout).print(bench.table(figures, about), highlight=False)
    if options.output is not None:
        bench.append(options.output, figures, about)


if __name__ == "__main__":
    main()
