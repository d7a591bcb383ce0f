"""A time for each request: whoever waits is told when it is over, and what was begun is left to end by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from anyio import CancelScope
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from app.errors import DeadlineError
from app.parts import parts_of

logger = logging.getLogger(__name__)


class InTime(APIRoute):
    """A route of plain functions that gives up when a request's time is over.

    What a function does in a thread can't be stopped, and its session mustn't be closed under it: its transaction would
    stay open, with all that it holds. So it is left to itself when the time is over, with its session, which is closed
    when it has ended; only nobody hears of it.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._left: set[asyncio.Task[None]] = set()  # the event loop alone doesn't keep them

    @property
    def in_thread(self) -> bool:
        """Whether the operation is a plain function."""
        return not iscoroutinefunction(self.endpoint)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            DeadlineError: no answer began in time.
        """
        if not self.in_thread:
            await super().handle(scope, receive, send)
            return
        seconds = parts_of(Request(scope)).settings.request_seconds
        begun = asyncio.get_running_loop().create_future()
        cancelling, late = CancelScope(), False

        async def send_in_time(message: Message) -> None:
            if not late:
                if not begun.done():
                    begun.set_result(None)
                await send(message)

        async def work() -> None:
            with cancelling:  # which waits for threads, as a task's cancellation doesn't
                await super(InTime, self).handle(scope, receive, send_in_time)

        task = asyncio.create_task(work())
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        try:
            await asyncio.wait({task, begun}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not begun.done():
                raise too_late(seconds)
            await asyncio.wait({task})
        finally:
            if not task.done():
                late = True
                cancelling.cancel()
                task.add_done_callback(_heard)
        task.result()


def too_late(seconds: float) -> DeadlineError:
    """What is answered when a request's time is over."""
    return DeadlineError(f"This took longer than {seconds:g} seconds. Try again later, or ask for less.")


def _heard(task: asyncio.Task[None]) -> None:
    """Take notice of what became of a task that nobody waits for, which asyncio would complain about otherwise."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("After its time, a request ended with %s", type(error).__name__)
