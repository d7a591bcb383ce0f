"""Processes of their own that start at once.

Starting Python and importing torch takes three seconds. These are forked from one that has imported already what most
of them need, has run nothing else, and has a single thread; but for that they are what a new interpreter would be.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Final

FORKS: Final[ForkServerContext] = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "app.__main__", "alembic.command", "uvicorn.protocols.http.httptools_impl"])

_HANG_SECONDS: Final = 120


def begin(program: str) -> BaseProcess:
    """Have a process run a program in Python."""
    process = FORKS.Process(target=exec, args=(program, {}), daemon=True)
    process.start()
    return process


def succeeds(process: BaseProcess) -> bool:
    """Whether a process ends, and without an error, which it has said on standard error otherwise."""
    process.join(_HANG_SECONDS)
    return process.exitcode == 0
