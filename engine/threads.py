"""One processor thread for torch, and for NumPy's linear algebra. The one place that says so.

The tensors of a step are small. Several threads would wait for each other at each of its thousand operations: little is
gained on an idle machine, and where something else runs beside it, waiting for a thread that has lost its core makes a
step ten to a hundred times slower. Cores are used by threads and processes that share nothing (`engine.workers`,
`engine.native`), and by concurrent requests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl
import torch


def cores() -> int:
    """Cores that this process may use; a container may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def linear_algebra() -> list[str]:
    """The kinds of processor that NumPy's OpenBLAS has chosen code for, on which its rounding depends."""
    return sorted(
        {
            str(library["architecture"])
            for library in threadpoolctl.threadpool_info()
            if library.get("internal_api") == "openblas" and "numpy" in library.get("filepath", "")
        }
    )


def use_one_thread() -> None:
    """From here on, in the whole process: for programs to call when they start."""
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1, user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's, inside the block or the function that this decorates: for libraries, which leave things as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
