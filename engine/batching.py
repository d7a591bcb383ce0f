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
        self,
        cache: ByteCache[Key, Value],
        make: Callable[[list[Key]], list[Value]],
        *,
        wait_seconds: float = 1e-3,
        making: threading.Lock | None = None,
    ) -> None:
        """Nothing is asked for yet.

        Args:
            cache: where values are kept.
            make: the values of some keys, in their order. What it raises is raised for all who wait for the batch.
            wait_seconds: how long a batch stays open.
            making: held while a batch is made; by default a lock of its own.
        """
        self._cache, self._make, self._wait_seconds = cache, make, wait_seconds
        self._lock = threading.Lock()
        self._making = making or threading.Lock()
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
        promised: dict[Key, Future[Value]] = {}
        with self._lock:
            begins = not self._open
            for key in dict.fromkeys(keys):
                promise = self._promised.get(key)
                if promise is None:
                    promise = Future()
                    if (value := self._cache.peek(key)) is not None:  # made since the caller looked
                        promise.set_result(value)
                    else:
                        self._promised[key] = promise
                        self._open.append(key)
                promised[key] = promise
            return promised, begins and bool(self._open)

    def _do_open(self) -> None:
        """Close the open batch when its turn has come, and do its work."""
        with self._making:
            with self._lock:
                keys, self._open = self._open, []
            try:
                values = dict(zip(keys, self._make(keys), strict=True))
                for key, value in values.items():
                    self._cache.put(key, value)
            except BaseException as error:
                self._fail(keys, error)
                raise
            for key, promise in zip(keys, self._taken(keys), strict=True):
                promise.set_result(values[key])

    def _fail(self, keys: Sequence[Key], error: BaseException) -> None:
        """Break some promises. Not where the error is caught: promise, error and frame would hold each other."""
        for promise in self._taken(keys):
            promise.set_exception(error)

    def _taken(self, keys: Sequence[Key]) -> list[Future[Value]]:
        """The promises of some keys, which are the caller's to keep from here on."""
        with self._lock:
            return [self._promised.pop(key) for key in keys]
