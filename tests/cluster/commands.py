"""Commands of the engine, in processes of their own, for the tests of clusters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

BLOCKS = ("--directions", "384", "--block", "16", "--epochs", "12", "--width", "8", "--heads", "2")
"""Options of a build of 24 blocks, none of which takes long."""

LONG = ("--epochs", "36", "--directions", "768")
"""48 blocks, with which nobody is through before it is interrupted; much longer training diverges."""


@contextmanager
def python(*arguments: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """``python ARGUMENTS`` in a session of its own, which doesn't outlive the block."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def engine(*arguments: str, cwd: Path, **variables: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """``python -m engine ARGUMENTS``, likewise."""
    return python("-m", "engine", *arguments, cwd=cwd, **variables)


def but_silence(complained: str) -> str:
    """What a command complained of, but for a cluster that is slow to start, as on a machine that others use."""
    slow = ("Nothing has started for ", "The cluster hasn't started in time")
    return "".join(line for line in complained.splitlines(True) if not line.startswith(slow))
