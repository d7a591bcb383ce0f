"""Connecting to a Ray cluster, extra ``neverseen[cluster]``: the only place of the engine that imports Ray."""

from __future__ import annotations

import functools
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final
from urllib.parse import urlsplit

from engine.errors import ConfigurationError
from engine.threads import cores

AUTO: Final = "auto"
LOCAL: Final = "local"

_REACHABLE_SECONDS: Final = 5.0
_HOW: Final = (
    "Start one: `ray start --head` on one machine, then what that prints, `ray start --address=…`, on the others. "
    "`--cluster local` is one on this machine, for the time of the command."
)

_OF_OUR_CLUSTERS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes Ray listen at 127.0.0.1 alone, on every system
    "RAY_AUTH_MODE": "token",  # so that other users of this machine have no part in it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what it would otherwise warn of
}
"""Ray takes these from the environment alone."""


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Connect this process to a cluster while the block runs.

    Args:
        address: "auto" is the cluster that runs: RAY_ADDRESS, or what `ray start` has started on this machine. "local"
            is one that is started on this machine, which nobody else reaches, and ends with the block. Else
            HOST:PORT of the head.

    Yields:
        Ray.

    Raises:
        ConfigurationError: Ray isn't installed, there is no such cluster, or it has another version of Ray or Python.
    """
    with ExitStack() as stack:
        options: dict[str, object] = {"address": address}
        if address == LOCAL:
            # Not in /tmp/ray, where the logs of all clusters that ever were remain; sockets' paths must be short.
            short = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 - the directory itself has a random name
            place = tempfile.TemporaryDirectory(prefix="ns-", dir=short, ignore_cleanup_errors=True)
            options |= {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": stack.enter_context(place)}
            stack.enter_context(_environment(_OF_OUR_CLUSTERS | {"RAY_AUTH_TOKEN": _token()}))
        ray = load_ray()
        if ray.is_initialized():
            yield ray  # whoever connected this process ends that, too
            return
        if address != LOCAL:
            _check_reachable(address)
        stack.callback(ray.shutdown)
        stack.enter_context(_quiet(ray))
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigurationError(_refusal(address, error)) from error
        yield ray


@contextmanager
def _quiet(ray: ModuleType) -> Iterator[None]:
    """Have Ray not print, beside its logs, what happens to nodes: pages for a lost one, into the progress bar.

    There is no setting for it. Where Ray has changed inside, it prints, and nothing else.
    """
    inside = ray._private.worker  # noqa: SLF001
    listen = getattr(inside, "listen_error_messages", None)
    inside.listen_error_messages = lambda worker, stopped: None
    try:
        yield
    finally:
        inside.listen_error_messages = listen


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables while the block runs, those apart that are set already."""
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@functools.cache
def _token() -> str:
    """Of all clusters that this process starts: Ray reads it once."""
    return secrets.token_hex(32)


def load_ray() -> ModuleType:
    """Ray.

    Raises:
        ConfigurationError: it isn't installed.
    """
    try:
        import ray  # noqa: PLC0415 - an extra, and seconds to import
    except ImportError:
        raise ConfigurationError("A cluster needs Ray: pip install 'neverseen[cluster]'.") from None
    module: ModuleType = ray
    return module


def _check_reachable(address: str) -> None:
    """Ask at the address first: Ray would try for minutes, and say so in its own way."""
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO  # Ray's own variable
    if address == AUTO:
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if parts.hostname is None or parts.port is None:
            raise ValueError
    except ValueError:
        raise ConfigurationError(f"{address!r} is no address of a cluster; HOST:PORT, auto or local are.") from None
    try:
        socket.create_connection((parts.hostname, parts.port), _REACHABLE_SECONDS).close()
    except OSError:
        raise ConfigurationError(f"No Ray cluster answers at {address}. {_HOW}") from None


def _refusal(address: str, error: Exception) -> str:
    if isinstance(error, ConnectionError) and address == AUTO:
        return f"No Ray cluster runs here, and RAY_ADDRESS names none. {_HOW}"
    told = " ".join(str(error).split()) if "mismatch" in str(error) else _first_line(error)
    return f"The cluster can't be used: {told}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
