"""A cache under a byte budget: least recently used out, and each value made once, however many threads ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """Values by key, at most `budget` bytes of them; a value larger than the budget is made and not kept."""

    def __init__(self, budget: int, *, size: Callable[[Value], int]) -> None:
        """Start empty.

        Args:
            budget: in bytes.
            size: bytes of a value.
        """
        self._budget, self._size = budget, size
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._sizes: dict[Key, int] = {}  # as they were counted: a value may grow
        self._bytes = 0
        self._lock = threading.Lock()
        self._making: dict[Key, threading.Lock] = {}
        self.hits = self.misses = 0

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made by `make` where it is missing. What `make` raises is raised, and nothing is kept."""
        with self._lock:
            if key in self._values:
                return self._hit(key)
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:  # another thread made it while this one waited
                    return self._hit(key)
            try:
                value = make()
                with self._lock:
                    self.misses += 1
                    self._keep(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def peek(self, key: Key) -> Value | None:
        """The value of a key, if it is held."""
        with self._lock:
            return self._hit(key) if key in self._values else None

    def put(self, key: Key, value: Value) -> None:
        """Keep a value that was made elsewhere."""
        with self._lock:
            self.misses += 1
            self._keep(key, value)

    def drop(self, is_dropped: Callable[[Key], bool]) -> None:
        """Let go of the values of some keys; one that is being made meanwhile is kept."""
        with self._lock:
            for key in [key for key in self._values if is_dropped(key)]:
                del self._values[key]
                self._bytes -= self._sizes.pop(key)

    def items(self) -> list[tuple[Key, Value]]:
        """What is held, the least recently used first."""
        with self._lock:
            return list(self._values.items())

    @property
    def size_bytes(self) -> int:
        """Bytes of all values."""
        return self._bytes

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def _hit(self, key: Key) -> Value:
        self.hits += 1
        self._values.move_to_end(key)
        return self._values[key]

    def _keep(self, key: Key, value: Value) -> None:
        size = self._size(value)
        if size > self._budget or key in self._values:
            return
        self._values[key] = value
        self._sizes[key] = size
        self._bytes += size
        while self._bytes > self._budget:
            oldest, _ = self._values.popitem(last=False)
            self._bytes -= self._sizes.pop(oldest)
