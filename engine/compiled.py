"""Fused execution of element-wise ring rules. The one place that knows `torch.compile`.

Fused and plain execution agree to rounding, not to the bit, so a build decides once which it runs, and records it.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

WORTHWHILE_WORK = 20_000
"""Direction·steps from which fusing saves more than the ten seconds that compiling takes."""


def worth_fusing(work: int) -> bool:
    """Whether to fuse a build of so many direction·steps: it is large enough, and a C++ compiler is found."""
    return work >= WORTHWHILE_WORK and any(shutil.which(name) for name in ("c++", "g++", "clang++"))


@functools.cache
def fused(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled once for all sizes of its tensors."""
    return torch.compile(function, dynamic=True)
