"""Connecting to a Ray cluster, extra ``neverseen[cluster]``: the only place of the engine that imports Ray."""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from engine.errors import ConfigurationError
from engine.threads import cores

logger = logging.getLogger(__name__)

AUTO: Final = "auto"
LOCAL: Final = "local"

_REACHABLE_SECONDS: Final = 5.0
_TOLD_SECONDS: Final = 30.0  # of a head that is reached, and may be busy
_TERMINATED: Final = 128 + signal.SIGTERM
_LOOK_SECONDS: Final = 0.1
_MOST_LOOKS: Final = 100
_MOST_STARTS: Final = 3
"""Ray gives up a node whose agent takes more than 15 seconds to start (ray-project/ray#65983)."""

_PROCESSES: Final = Path("/proc")
_DIRECTORY: Final = "NEVERSEEN_CLUSTER_DIRECTORY"
_PREFIX: Final = "ns-"
_LOCK: Final = "neverseen.lock"
_HOW: Final = (
    "Start one: `ray start --head` on one machine, then what that prints, `ray start --address=…`, on the others. "
    "`--cluster local` is one on this machine, for the time of the command."
)

_OF_OUR_CLUSTERS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what makes Ray listen at 127.0.0.1 alone, on every system
    "RAY_AUTH_MODE": "token",  # so that other users of this machine have no part in it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what it would otherwise warn of
    "RAY_worker_niceness": "0",  # the work is what the command is for, and would come after all else
}
"""Ray takes these from the environment alone."""

_OF_OUR_DRIVERS: Final = {"RAY_IGNORE_UNHANDLED_ERRORS": "1"}
"""A task that fails when nobody needs it any more isn't told of, in a page: as after Ctrl-C, when it fails by that."""


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Connect this process to a cluster while the block runs. SIGTERM ends the block in order meanwhile.

    Args:
        address: "auto" is the cluster that runs: RAY_ADDRESS, or what `ray start` has started on this machine. "local"
            is one that is started on this machine, which nobody else reaches, and ends with the block. Else
            HOST:PORT of the head.

    Yields:
        Ray.

    Raises:
        ConfigurationError: Ray isn't installed, there is no such cluster, this machine has no node of it, or it has
            another version of Ray or Python.
        SystemExit: SIGTERM came.
    """
    with ExitStack() as stack:
        options: dict[str, object] = {"address": address}
        sigterm = stack.enter_context(_ended_by_sigterm())  # a service's server, within, has a way of its own
        stack.enter_context(_environment(_OF_OUR_DRIVERS))
        if address == LOCAL:
            place = stack.enter_context(private_directory(_short_place()))
            options |= {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": str(place / "r")}
            variables = {"RAY_AUTH_TOKEN": _token(), _DIRECTORY: str(place)}
            stack.enter_context(_environment(_OF_OUR_CLUSTERS | variables))
        ray = load_ray()
        if ray.is_initialized():
            yield ray  # whoever connected this process ends that, too
            return
        if address != LOCAL:
            _check_reachable(address)
            _check_node(ray, address)
        stack.callback(ray.shutdown)
        stack.enter_context(_quiet(ray))
        for starts_left in reversed(range(_MOST_STARTS if address == LOCAL and _PROCESSES.is_dir() else 1)):
            try:
                _start(ray, sigterm, options)
                break
            except Exception as error:
                is_late = type(error) is Exception  # as Ray's own of a node that takes too long
                if not is_late and not isinstance(error, (ConnectionError, RuntimeError, ValueError)):
                    raise
                if not is_late or not starts_left:
                    raise ConfigurationError(_refusal(address, error)) from error
                logger.warning("The cluster hasn't started in time: the machine may be very busy. It is started again.")
                ray.shutdown()
                _empty(place)
        yield ray


def _start(ray: ModuleType, sigterm: _Sigterm, options: Mapping[str, object]) -> None:
    """Connect, or start a cluster; Ray puts a handler of its own into the place of ours."""
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except SystemExit:  # by that one
        sigterm.end()
    finally:
        sigterm.listen()


@contextmanager
def private_directory(parent: Path) -> Iterator[Path]:
    """A directory for Ray's sockets and logs which nobody else enters, until the block ends.

    Ray opens what it is given to everybody; so it gets a directory in this one. It isn't in /tmp/ray, where the logs of
    all clusters that ever were remain. Those of processes that were killed are removed: nobody holds their lock any
    more.

    Args:
        parent: where it is made, under a random name.
    """
    for left in parent.glob(f"{_PREFIX}*"):
        if _is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True) as name:
        place = Path(name)
        with (place / f"{_LOCK}.new").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            (place / f"{_LOCK}.new").rename(place / _LOCK)  # held from the first moment that it is there
            try:
                yield place
            finally:
                _empty(place)


def _empty(place: Path) -> None:
    """Remove all but the lock, and end the processes that work there; what is left after ten seconds stays.

    `ray.shutdown` waits a second for its processes to end, and for their children not at all; and where Ray was
    interrupted as it started, it ends none. They would write on, and make the directory anew.
    """
    for _ in range(_MOST_LOOKS):
        at_work = list(_processes_of(place))
        for number in at_work:
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        left = [path for path in place.glob("*") if path.name != _LOCK]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        if not at_work and not left:
            return
        time.sleep(_LOOK_SECONDS)


def _processes_of(place: Path) -> Iterator[int]:
    """Numbers of Ray's processes that were started in the environment of a cluster: not of others that we started.

    Where the system has no /proc there are none: what Ray itself ends is what ends.
    """
    mark, name = f"{_DIRECTORY}={place}".encode(), os.fsencode(place)
    for process in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or isn't ours
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            if (name in command or command.startswith(b"ray::")) and mark in environment.split(b"\0"):
                yield int(process.name)


def _short_place() -> Path:
    """Where directories are made: the paths of sockets must be short."""
    short = Path("/tmp")  # noqa: S108 - what is made there has a random name, and is ours alone
    return short if short.is_dir() else Path(tempfile.gettempdir())


def _is_abandoned(directory: Path) -> bool:
    """Whether a directory was made here, by this user, for a process that is gone."""
    try:
        found = directory.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o777 != 0o700:
            return False
        with (directory / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # there is no lock, or somebody holds it
        return False
    return True


class _Sigterm:
    """Ends this process as an exception does; once, so that what follows is done."""

    came = False

    def listen(self) -> None:
        """Be what SIGTERM calls: again, where others have put themselves into the place. Not, where it came already."""
        if not self.came:
            _on_sigterm(self.end)

    def end(self, *_: object) -> NoReturn:
        """End the process, deaf to any further SIGTERM."""
        self.came = True
        _on_sigterm(signal.SIG_IGN)
        raise SystemExit(_TERMINATED)


def _on_sigterm(handler: Any) -> None:
    """Have SIGTERM do something, as the main thread alone may say: nothing is changed on another."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _ended_by_sigterm() -> Iterator[_Sigterm]:
    """Have SIGTERM end this process so, while the block runs."""
    sigterm, before = _Sigterm(), signal.getsignal(signal.SIGTERM)
    sigterm.listen()
    try:
        yield sigterm
    except SystemExit:  # maybe through Ray, which makes another of it
        if sigterm.came:
            raise SystemExit(_TERMINATED) from None
        raise
    finally:
        _on_sigterm(before if before is not None else signal.SIG_DFL)


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


def _check_node(ray: ModuleType, address: str) -> None:
    """Refuse where this machine has no node of the cluster, as Ray's drivers need: Ray waits for one, and crashes.

    There is no public way to ask before connecting. Where Ray has changed inside, it says so itself.
    """
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO
    if address == AUTO or "://" in address:
        return
    try:
        nodes = ray._raylet.GcsClient(address=address).get_all_node_info(timeout=_TOLD_SECONDS)  # noqa: SLF001
        sockets = [node.raylet_socket_name for node in nodes.values() if node.state == 0]  # ALIVE
    except Exception:  # noqa: BLE001 - whatever it is, connecting tells more
        return
    if sockets and not any(map(_answers, sockets)):
        raise ConfigurationError(
            f"This machine has no node of the cluster at {address}: run `ray start --address={address}` here, with "
            "`--num-cpus 0` if it is not to work."
        )


def _answers(path: str) -> bool:
    """Whether a process of this machine listens at a socket."""
    with socket.socket(socket.AF_UNIX) as here:
        here.settimeout(_REACHABLE_SECONDS)
        try:
            here.connect(path)
        except OSError:
            return False
    return True


def _refusal(address: str, error: Exception) -> str:
    if isinstance(error, ConnectionError) and address == AUTO:
        return f"No Ray cluster runs here, and RAY_ADDRESS names none. {_HOW}"
    whole = " ".join(str(error).split()) if "mismatch" in str(error) else ""
    told = whole or first_line(error) or type(error).__name__
    return f"The cluster can't be used: {told}"


def first_line(error: object) -> str:
    """Of what an error says, which may be a traceback; empty where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
