"""A sketch spread over shards: processes, maybe of several machines, that each hold a part of what is measured.

    front   ResidentSketch → ShardedHoldings → Shards ─┬─ call → Shard 0   directions 0 … K/N, axes, retrained models
            tables, calibration, sums over the set     └─ call → Shard 1   directions K/N … 2K/N, …

A measurement goes to all shards at once; each returns its rows of the measurement's table. The front puts them together
and keeps them, so that a further question about the measurement, whatever is deleted, asks no shard. It works with the
numbers that a single process would have, in the same order: answers are equal to the bit.

A shard that dies or falls silent is away until it answers again and has loaded what is wanted. Random directions are
interchangeable: a sketch of these alone answers meanwhile from the ones that are left, with the wider bar that fewer
give, and says so. Axes and retrained models aren't: a sketch with axes answers what was measured before.

A single shard is `engine.shard`. This is the front's side, but for the way a shard is called, `Lines`: the service
calls through Ray.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from engine.configuration import SketchConfiguration
from engine.copies import Address
from engine.errors import EngineError, NotLoadedError, ShardLostError, ShardsAwayError
from engine.holdings import Measured, Part, joined
from engine.jet import Jet
from engine.native.groups import Text
from engine.shard import Loaded, Rows
from engine.store import Artifact

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.25
SILENCE_SECONDS: Final = 1.0
"""Of a shard that is asked how it is, until it counts as away: of one that dies Ray tells, of one whose machine is gone
only this."""

LOAD_SECONDS: Final = 1_800.0
"""After which a load counts as hanging."""

_TRY_AGAIN_SECONDS: Final = 30.0
_GLANCE_SECONDS: Final = 0.05
_LEAST_SECONDS: Final = 0.001
_ROUNDING: Final = 1e-9
_FEWEST_DIRECTIONS: Final = 2  # of which there is a standard error


class Reply(Protocol):
    """What a shard will answer."""

    def result(self, timeout_seconds: float) -> Any:
        """The answer, if it comes in time.

        Raises:
            TimeoutError: it hasn't come yet, and may be asked for again.
            ShardLostError: the shard is gone.
            EngineError: what the shard refuses.
        """
        ...

    def cancel(self) -> None:
        """Say that nobody waits for it any more."""
        ...


class Lines(Protocol):
    """A way to call shards, numbered from 0; from several threads."""

    @property
    def count(self) -> int:
        """How many shards there are."""
        ...

    def call(self, shard: int, method: str, *arguments: Any, **options: Any) -> Reply:
        """Call a method of a shard's `Shard`; doesn't wait."""
        ...


class Shards:
    """All shards, as the front sees them: which are there, and what each has loaded. Safe to use from several threads.

    Between `start` and `stop` a thread asks them how they are, some times a second, and has those that begin anew load
    what is wanted again.
    """

    def __init__(self, lines: Lines, *, least_share: float) -> None:
        """Nothing is known of them yet.

        Args:
            lines: how they are called.
            least_share: of them, what must be there to measure with; above 0, at most 1.
        """
        self.count, self.least_share = lines.count, least_share
        self._lines = lines
        self._held: list[frozenset[str]] = [frozenset()] * lines.count
        self._silent = [False] * lines.count
        self._wanted: weakref.WeakSet[ShardedHoldings] = weakref.WeakSet()
        self._loading: Counter[Address] = Counter()
        self._asked: dict[int, Reply] = {}
        self._asked_at: dict[int, float] = {}
        self._begun: dict[int, tuple[Address, Reply]] = {}
        self._failed_at: dict[tuple[int, str], float] = {}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="shards", daemon=True)

    def start(self) -> None:
        """Begin to look after them."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def hold(self, address: Address, artifact: Artifact) -> ShardedHoldings:
        """Have every shard load its part; it is kept for as long as what is returned is.

        Args:
            address: of the artifact.
            artifact: the same, opened, with any of its files.

        Raises:
            ArtifactError: a shard can't load it.
            ShardLostError: a shard is away.
        """
        silent = [number for number in range(self.count) if self._silent[number]]
        if silent:
            raise ShardLostError(f"Shard {silent[0]} of {self.count} is away, and a sketch is loaded by all of them.")
        with self._lock:
            self._loading[address] += 1  # so that `look` doesn't have it dropped
        try:
            loads = {number: self._lines.call(number, "load", address) for number in range(self.count)}
            until = time.monotonic() + LOAD_SECONDS
            loaded: list[Loaded] = self._results(
                loads, lambda number: not self._silent[number] and time.monotonic() < until
            )
            holdings = ShardedHoldings(
                shards=self,
                address=address,
                configuration=artifact.manifest.configuration,
                bytes=max(one.bytes for one in loaded),
                sets=[units for one in loaded for units in one.sets],
                numbers=tuple(number for number, one in enumerate(loaded) if one.bytes),
            )
            with self._lock:
                self._wanted.add(holdings)
                self._held = [held | {address.checksum} for held in self._held]
        finally:
            with self._lock:
                self._loading[address] -= 1
        return holdings

    def holding(self, checksum: str) -> tuple[int, ...]:
        """Numbers of the shards that are there and have an artifact loaded."""
        return tuple(number for number, held in enumerate(self._held) if checksum in held)

    @property
    def away(self) -> int:
        """How many shards don't answer, or haven't loaded all that is wanted."""
        with self._lock:
            wanted = {holdings.address.checksum for holdings in self._wanted}
            return sum(silent or not wanted <= held for silent, held in zip(self._silent, self._held, strict=True))

    def ask(self, checksum: str, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> list[Any]:
        """Ask some shards about an artifact, all at once.

        Args:
            checksum: of the artifact.
            method: of `Shard`.
            arguments: behind the checksum, by the shard's number.

        Returns:
            Their answers, in the same order.

        Raises:
            ShardLostError: one of them is away, or went meanwhile.
        """
        replies = {number: self._lines.call(number, method, checksum, *rest) for number, rest in arguments.items()}
        try:
            return self._results(replies, lambda number: checksum in self._held[number])
        except NotLoadedError:
            with self._lock:
                self._held = [
                    held - {checksum} if number in replies and not self._silent[number] else held
                    for number, held in enumerate(self._held)
                ]
            raise

    def look(self) -> None:
        """Ask every shard how it is, and have those load what they should hold and don't."""
        with self._lock:
            addresses = {holdings.address.checksum: holdings.address for holdings in self._wanted}
            loading = {address.checksum for address in +self._loading}
        but = frozenset(addresses.keys() | loading)
        now = time.monotonic()
        for number in range(self.count):
            if number in self._asked and now - self._asked_at[number] > _TRY_AGAIN_SECONDS:
                self._asked.pop(number).cancel()
            if number not in self._asked:  # else it hasn't answered the last time
                self._asked[number], self._asked_at[number] = self._lines.call(number, "held", but=but), now
        until = time.monotonic() + SILENCE_SECONDS
        for number in range(self.count):
            try:
                held: frozenset[str] = self._asked[number].result(max(until - time.monotonic(), _LEAST_SECONDS))
            except TimeoutError:
                self._set_silent(number)
                continue
            except ShardLostError:
                self._set_silent(number)
            except Exception:  # whatever it is, the others are still to be looked after
                logger.exception("Shard %d can't say how it is", number)
                self._set_silent(number)
            else:
                self._set_held(number, held, settled=addresses.keys() - loading)
                there = held | loading
                self._load_again(number, [address for checksum, address in addresses.items() if checksum not in there])
            del self._asked[number]

    def _load_again(self, number: int, missing: Sequence[Address]) -> None:
        """Have a shard load what it should hold, one after the other, some time after a failure; doesn't wait."""
        if number in self._begun:
            address, load = self._begun[number]
            try:
                load.result(_LEAST_SECONDS)
            except TimeoutError:
                return
            except ShardLostError:
                pass  # and it has begun anew once more
            except EngineError as error:
                self._failed_at[number, address.checksum] = time.monotonic()
                logger.error("Shard %d can't load artifact %s…: %s", number, address.checksum[:12], error)
            except Exception:  # whatever it is, the others are still to be looked after
                self._failed_at[number, address.checksum] = time.monotonic()
                logger.exception("Shard %d can't load artifact %s…", number, address.checksum[:12])
            del self._begun[number]
        now = time.monotonic()
        for address in missing:
            if now - self._failed_at.get((number, address.checksum), -_TRY_AGAIN_SECONDS) >= _TRY_AGAIN_SECONDS:
                self._begun[number] = (address, self._lines.call(number, "load", address))
                return

    def _set_held(self, number: int, held: frozenset[str], *, settled: Collection[str]) -> None:
        """Note what a shard has loaded; of what began to be wanted since it was asked, it can't have told."""
        with self._lock:
            before = self._held[number]
            self._held[number] = held | (before - frozenset(settled))
            was_silent, self._silent[number] = self._silent[number], False
        if was_silent:
            logger.info("Shard %d answers again", number)

    def _set_silent(self, number: int) -> None:
        with self._lock:
            was_silent, self._silent[number] = self._silent[number], True
            self._held[number] = frozenset()
        if not was_silent:
            logger.warning("Shard %d is away", number)

    def _results(self, replies: Mapping[int, Reply], is_there: Callable[[int], bool]) -> list[Any]:
        """The answers of some shards, unless one goes away while it is waited for; then the others aren't needed."""
        try:
            return [self._result(number, reply, is_there) for number, reply in replies.items()]
        except BaseException:
            for reply in replies.values():
                reply.cancel()
            raise

    def _result(self, number: int, reply: Reply, is_there: Callable[[int], bool]) -> Any:
        while True:
            try:
                return reply.result(_GLANCE_SECONDS)
            except TimeoutError:
                if not is_there(number) or self._stopping.is_set():
                    raise ShardLostError(f"Shard {number} of {self.count} fell silent.") from None
            except NotLoadedError:
                raise
            except ShardLostError:
                self._set_silent(number)
                raise

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # whatever it is, the shards are still to be looked after
                logger.exception("Shards can't be looked after")


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardedHoldings:
    """Holdings that lie in shards.

    Attributes:
        shards: all of them.
        address: of the artifact.
        configuration: of the sketch.
        bytes: what the fullest shard holds of it.
        sets: deletion sets of all retrained models.
        numbers: of the shards that are asked: that have a part of it.
    """

    shards: Shards
    address: Address
    configuration: SketchConfiguration
    bytes: int
    sets: Sequence[tuple[int, ...]]
    numbers: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """As of `Holdings`."""
        return self.bytes

    @property
    def parts(self) -> tuple[range, ...]:
        """As of `Holdings`."""
        ranges = (Part(number, self.shards.count).range(self.configuration.directions) for number in self.numbers)
        return tuple(part for part in ranges if part)

    def available(self) -> ShardedHoldings:
        """As of `Holdings`."""
        there = frozenset(self.shards.holding(self.address.checksum))
        numbers = tuple(number for number in self.numbers if number in there)
        if numbers == self.numbers:
            return self
        away = f"{len(self.numbers) - len(numbers)} of {len(self.numbers)} shards are away"
        if self.configuration.axes:
            raise ShardsAwayError(
                f"{away}, and the sketch has axes, all of which a new measurement needs; what was measured before is "
                "answered. Try again."
            )
        left = replace(self, numbers=numbers)
        if len(numbers) < self.shards.least_share * len(self.numbers) - _ROUNDING:
            raise ShardsAwayError(
                f"{away}, and NEVERSEEN_LEAST_SHARE asks for {self.shards.least_share:.0%} of them. Try again."
            )
        if sum(map(len, left.parts)) < _FEWEST_DIRECTIONS:
            raise ShardsAwayError(f"{away}: too few directions are left to tell how far they agree. Try again.")
        return left

    def measure(self, texts: Sequence[Text]) -> Measured:
        """As of `Holdings`."""
        plain = [tuple(map(list, text)) for text in texts]
        found = self.shards.ask(self.address.checksum, "measure", dict.fromkeys(self.numbers, (plain,)))
        return Measured(*map(_joined, zip(*found, strict=True)))

    def models(self, which: Sequence[int] | None = None) -> Tensor:
        """As of `Holdings`."""
        count = len(self.sets)
        rows = np.arange(count) if which is None else np.asarray(which, dtype=np.int64)
        result = torch.empty(len(rows), self.configuration.model.parameter_count, dtype=self.configuration.torch_dtype)
        wanted = {}
        for number in range(self.shards.count):
            part = Part(number, self.shards.count).range(count)
            (at,) = np.nonzero((rows >= part.start) & (rows < part.stop))
            if len(at):
                wanted[number] = (at, (rows[at] - part.start).tolist())
        found = self.shards.ask(self.address.checksum, "models", {n: (own,) for n, (_, own) in wanted.items()})
        for (at, _), models in zip(wanted.values(), found, strict=True):
            result[at] = torch.tensor(models)  # what came can't be written, and torch warns of that
        return result


def _joined(of_shards: Sequence[Rows | None]) -> list[Jet] | None:
    """What the shards that have some of a kind say, text by text; None where none has."""
    found = [rows for rows in of_shards if rows is not None]
    if not found:
        return None
    return [
        joined([Jet(torch.tensor(constant), tuple(map(tuple, torch.tensor(higher)))) for constant, higher in of_text])
        for of_text in zip(*found, strict=True)
    ]
