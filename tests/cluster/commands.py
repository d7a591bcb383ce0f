"""Commands of the engine, in processes of their own, for the tests of clusters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.nodes import ROOT

BLOCKS = ("--directions", "384", "--block", "16", "--epochs", "12", "--width", "8", "--heads", "2")
"""Options of a build of 24 blocks, none of which takes long."""

LONG = ("--epochs", "36")
"""With which nobody is through before it is interrupted; much longer training diverges."""


@contextmanager
def engine(*arguments: str, cwd: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m engine`` in a session of its own, which doesn't outlive the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "engine", *arguments],
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


@contextmanager
def engine_script(script: str, *, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A program in a session of its own, which doesn't outlive the block."""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
