"""Fused execution of element-wise ring rules, and the plain one where no compiler is at hand.

The one place that knows `torch.compile`. Results of both executions agree to rounding, not to the bit; a build records which one it ran.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_enabled = True


def compiler_available() -> bool:
    """Whether a C++ compiler is found, which `torch.compile` needs on a processor."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


@functools.cache
def _compile(function: Callable[P, R]) -> Callable[P, R]:
    return torch.compile(function, dynamic=True, fullgraph=True)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled where that is possible."""
    return _compile(function) if compiler_available() else function
