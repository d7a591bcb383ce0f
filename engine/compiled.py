"""Fused execution of element-wise ring rules. The one place that knows `torch.compile`.

Fused and plain execution agree to rounding, not to the bit, so a build decides once which it runs, and records it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

WORTHWHILE_WORK = 20_000
"""Direction·steps from which fusing saves more than the ten seconds that compiling takes."""


def worth_fusing(work: int, device: str = "cpu") -> bool:
    """Whether to fuse a build of so many direction·steps on a device: it is large enough, and compiling works here."""
    return work >= WORTHWHILE_WORK and _compiling_works(device)


@functools.cache
def fused(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled once for all sizes of its tensors."""
    return torch.compile(function, dynamic=True)


@functools.cache
def _compiling_works(device: str) -> bool:
    """Tried once, since what it takes (a compiler that torch knows, headers; Triton on CUDA) isn't told by looking."""
    try:
        return bool((fused(_one_more)(torch.zeros(2, device=device)) == 1).all())
    except Exception:  # noqa: BLE001 - torch documents no common class; whatever it is, plain execution works
        return False


def _one_more(x: torch.Tensor) -> torch.Tensor:
    return x + 1
