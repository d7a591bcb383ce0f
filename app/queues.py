"""Two queues for questions to the engine: one for what takes about a millisecond, one for what takes longer.

Python runs one thread at a time, and torch hands over between threads at every small operation: a second thread makes
each question slower, and the event loop too. So what is known already is answered by one thread, in order. What has to
be computed first, for tens or hundreds of milliseconds, keeps none of these waiting; its threads are some, so that
questions that come together are computed together (`engine.batching`), and not many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


_SLOW_THREADS: Final = 8


class Queues:
    """The threads that questions are answered in."""

    def __init__(self) -> None:
        """Threads are started when they are needed."""
        self._quick = ThreadPoolExecutor(1, thread_name_prefix="quick")
        self._slow = ThreadPoolExecutor(_SLOW_THREADS, thread_name_prefix="slow")

    async def quick(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function that takes about a millisecond."""
        return await _run(self._quick, function, *args, **kwargs)

    async def slow(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call a function that may take longer."""
        return await _run(self._slow, function, *args, **kwargs)

    def close(self) -> None:
        """Wait for what runs, and let nothing more begin."""
        self._quick.shutdown(cancel_futures=True)
        self._slow.shutdown(cancel_futures=True)


async def _run(
    threads: ThreadPoolExecutor,
    function: Callable[Arguments, Result],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Result:
    return await asyncio.get_running_loop().run_in_executor(threads, lambda: function(*args, **kwargs))
