"""Devices: the one place that knows which there are."""

from __future__ import annotations

import torch

from engine.errors import ConfigurationError


def on_node(name: str) -> str:
    """What a device is called in a process of a cluster, which is shown the only one that it may use."""
    return "cuda" if name.startswith("cuda") else name


def here(name: str) -> str:
    """The device of this name if this machine has it, else its processor: for what follows work that a cluster did."""
    try:
        torch_device(name)
    except ConfigurationError:
        return "cpu"
    return name


def torch_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"There is no device {name!r}; use 'cpu' or 'cuda'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("The device 'cuda' isn't available here; use 'cpu'.")
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"The device {name!r} isn't supported; use 'cpu' or 'cuda'.")
    return device
