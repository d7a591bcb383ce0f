"""Queues for work that takes threads: each bounded, so that none takes the threads of another.

Python runs one thread at a time, and torch hands over between threads at every small operation: a second thread makes
each question slower, and the event loop too. So what is known already is answered by one thread, in order. What has to
be computed first, for tens or hundreds of milliseconds, keeps none of these waiting; its threads are some, so that
questions that come together are computed together (`engine.batching`), and not many. A calibration computes for a
second and longer: they have one thread for all of them. Searches by regular expression wait for a process each, which
takes a core: there are two at once, and few may wait.

Who would wait behind too many others is refused at once. Who gives up waiting, as a request does whose time is over,
leaves the queue.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final, ParamSpec, TypeVar

from app.errors import BusyError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_SLOW_THREADS: Final = 8
_SEARCH_THREADS: Final = 2
_MOST_CALIBRATIONS_WAITING: Final = 16
_MOST_SEARCHES_WAITING: Final = 8


class Queue:
    """Some threads, and what waits for them."""

    def __init__(self, name: str, *, threads: int, most_waiting: int, waited: Callable[[float], None]) -> None:
        """Threads are started when they are needed.

        Args:
            name: of the threads, for those who look at them.
            threads: how many.
            most_waiting: calls that may wait while all threads are at work.
            waited: told how many seconds each call has waited.
        """
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most, self._waited = threads + most_waiting, waited
        self._lock, self._inside = threading.Lock(), 0

    @property
    def inside(self) -> int:
        """How many calls wait or run."""
        return self._inside

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function in one of the threads.

        Raises:
            BusyError: too many wait already.
        """
        with self._lock:
            if self._inside >= self._most:
                raise BusyError(f"{self._inside} questions are before this one: try again later.")
            self._inside += 1
        asked = perf_counter()

        def called() -> Result:
            self._waited(perf_counter() - asked)
            return function(*args, **kwargs)

        future = self._threads.submit(called)
        future.add_done_callback(self._left)  # of the thread's own: what nobody awaits any more may still run
        return await asyncio.wrap_future(future)

    def _left(self, _: object) -> None:
        with self._lock:
            self._inside -= 1

    def close(self) -> None:
        """Wait for what runs, and let nothing more begin."""
        self._threads.shutdown(cancel_futures=True)


class Queues:
    """The threads that questions are answered in, and those of searches."""

    def __init__(self, *, most_waiting: int, waited: Callable[[float], None]) -> None:
        """Threads are started when they are needed.

        Args:
            most_waiting: calls that may wait in each queue; for calibrations and searches it is less at most.
            waited: told how many seconds each call has waited.
        """

        def queue(name: str, *, threads: int, most: int = most_waiting) -> Queue:
            return Queue(name, threads=threads, most_waiting=min(most, most_waiting), waited=waited)

        self._quick, self._slow = queue("quick", threads=1), queue("slow", threads=_SLOW_THREADS)
        self._calibration = queue("calibration", threads=1, most=_MOST_CALIBRATIONS_WAITING)
        self._search = queue("search", threads=_SEARCH_THREADS, most=_MOST_SEARCHES_WAITING)

    async def quick(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function that takes about a millisecond.

        Raises:
            BusyError: too many wait already.
        """
        return await self._quick.run(function, *args, **kwargs)

    async def slow(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function that may take longer.

        Raises:
            BusyError: too many wait already.
        """
        return await self._slow.run(function, *args, **kwargs)

    async def calibration(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function that computes for seconds, one at a time.

        Raises:
            BusyError: too many wait already.
        """
        return await self._calibration.run(function, *args, **kwargs)

    async def search(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function that waits for a process that searches.

        Raises:
            BusyError: too many wait already.
        """
        return await self._search.run(function, *args, **kwargs)

    def lengths(self) -> dict[str, int]:
        """How many calls wait or run, by the queue's name."""
        return {
            "quick": self._quick.inside,
            "slow": self._slow.inside,
            "calibration": self._calibration.inside,
            "search": self._search.inside,
        }

    def close(self) -> None:
        """Wait for what runs, and let nothing more begin."""
        for queue in (self._quick, self._slow, self._calibration, self._search):
            queue.close()
