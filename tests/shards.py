"""Shards in threads of this process, that tests may kill, silence and begin anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from engine.copies import Address
from engine.errors import ShardLostError
from engine.holdings import Part
from engine.resident import ResidentSketch
from engine.shard import Shard
from engine.shards import Shards
from engine.store import PARAMETERS, Artifact

FOREVER: Final = 2**40


class Processes:
    """Shards in threads of this process, which die, fall silent and begin anew when a test wants it: `Lines`."""

    def __init__(self, count: int, *, resident_bytes: int = FOREVER) -> None:
        self.count, self.resident_bytes = count, resident_bytes
        self.pool = ThreadPoolExecutor(4 * count)
        self.shards: list[Shard | None] = [self.new(number) for number in range(count)]
        self.silent: set[int] = set()
        self.calls: list[tuple[int, str]] = []
        self.before: Callable[[int, str], None] = lambda shard, method: None

    def new(self, number: int) -> Shard:
        return Shard(Part(number, self.count), device="cpu", resident_bytes=self.resident_bytes)

    def call(self, shard: int, method: str, *arguments: Any, **options: Any) -> Answer:
        self.calls.append((shard, method))
        return Answer(self.pool.submit(self.work, shard, method, *arguments, **options))

    def work(self, number: int, method: str, *arguments: Any, **options: Any) -> Any:
        while number in self.silent:
            time.sleep(0.001)
        self.before(number, method)
        shard = self.shards[number]
        if shard is None:
            raise ShardLostError("It died.")
        return getattr(shard, method)(*arguments, **options)

    def kill(self, number: int) -> None:
        self.shards[number] = None

    def begin_anew(self, number: int) -> None:
        self.shards[number] = self.new(number)


class Answer:
    def __init__(self, called: Future[Any]) -> None:
        self.called = called

    def result(self, timeout_seconds: float) -> Any:
        return self.called.result(timeout_seconds)

    def cancel(self) -> None:
        self.called.cancel()


@dataclass(frozen=True, kw_only=True)
class Service:
    """A sharded sketch, what is behind it, and the same in one process."""

    processes: Processes
    shards: Shards
    sketch: ResidentSketch
    alone: ResidentSketch
    address: Address

    def look(self) -> None:
        """Until nothing is being loaded."""
        self.shards.look()
        while self.shards._begun:  # noqa: SLF001 - to wait without a clock
            self.shards.look()
        self.shards.look()


@contextmanager
def served(artifact: Artifact, count: int, *, least_share: float = 0.5) -> Iterator[Service]:
    processes = Processes(count)
    shards = Shards(processes, least_share=least_share)
    address = Address(path=artifact.path, checksum=artifact.checksum)
    opened = address.open(files={PARAMETERS})
    yield Service(
        processes=processes,
        shards=shards,
        sketch=ResidentSketch(opened, holdings=shards.hold(address, opened)),
        alone=ResidentSketch(artifact),
        address=address,
    )
    processes.pool.shutdown(wait=False)
