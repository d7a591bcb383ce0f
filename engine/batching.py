"""Work asked for by several threads at about the same time, done together, each piece once.

Who asks first waits a moment for others, then does the work of all who came. One batch is made at a time, by all cores
as it may be: who comes meanwhile is part of the next one. What is known already is answered at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from engine.cache import ByteCache

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Batches(Generic[Key, Value]):
    """Values by key, from a cache or made in batches."""

    def __init__(
        self, cache: ByteCache[Key, Value], make: Callable[[list[Key]], list[Value]], *, wait_seconds: float = 1e-3
    ) -> None:
        """Nothing is asked for yet.

        Args:
            cache: where values are kept.
            make: the values of some keys, in their order. What it raises is raised for all who wait for the batch.
            wait_seconds: how long a batch stays open.
        """
        self._cache, self._make, self._wait_seconds = cache, make, wait_seconds
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._promised: dict[Key, Future[Value]] = {}
        self._open: list[Key] = []

    def get(self, keys: Sequence[Key]) -> list[Value]:
        """The values of some keys, in their order."""
        known = self._known(keys)
        if any(key not in known for key in keys):
            promised, begins = self._ask_for(keys)
            if begins:
                try:
                    time.sleep(self._wait_seconds)
                finally:  # others wait for this batch
                    self._do_open()
            known |= {key: promise.result() for key, promise in promised.items()}
        return [known[key] for key in keys]

    def _known(self, keys: Sequence[Key]) -> dict[Key, Value]:
        return {key: value for key in keys if (value := self._cache.peek(key)) is not None}

    def _ask_for(self, keys: Sequence[Key]) -> tuple[dict[Key, Future[Value]], bool]:
        """Promises of some keys' values, and whether the batch that makes them is the caller's to do."""
        with self._lock:
            found = self._known(keys)  # what was made since the caller looked is promised no more
            begins = not self._open
            promised: dict[Key, Future[Value]] = {}
            for key in keys:
                promised[key] = promise = self._promised.get(key) or Future()
                if key in found:
                    promise.set_result(found[key])
                elif key not in self._promised:
                    self._promised[key] = promise
                    self._open.append(key)
            return promised, begins and bool(self._open)

    def _do_open(self) -> None:
        """Close the open batch when its turn has come, and do its work."""
        with self._making:
            with self._lock:
                keys, self._open = self._open, []
            self._do(keys)

    def _do(self, keys: list[Key]) -> None:
        promised = [self._promised[key] for key in keys]
        try:
            values = self._make(keys)
        except BaseException as error:
            self._forget(keys)
            for promise in promised:
                promise.set_exception(error)
            raise
        for key, value in zip(keys, values, strict=True):
            self._cache.put(key, value)
        self._forget(keys)
        for promise, value in zip(promised, values, strict=True):
            promise.set_result(value)

    def _forget(self, keys: Sequence[Key]) -> None:
        with self._lock:
            for key in keys:
                del self._promised[key]
