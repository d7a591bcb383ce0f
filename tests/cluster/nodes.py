"""Ray nodes on this machine, to build on and to kill, and what builds on them are counted with."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import pytest
from torch import Tensor

from engine.blocks import Job
from engine.cluster import Cluster
from engine.configuration import Block
from engine.store import File
from engine.workers import Report
from engine.workspace import BlockFiles

logger = logging.getLogger(__name__)

ROOT: Final = Path(__file__).parent.parent.parent
MARK: Final = "NEVERSEEN_TESTS_MARK"
HANG_SECONDS: Final = 300.0
"""What takes so long hangs, on a machine that others use, too."""

_LOSS_IS_NOTICED_SOON: Final = {
    "health_check_initial_delay_ms": 1_000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 5,
}
"""Ray itself takes 15 seconds for it. A node that is killed refuses at once; one of a busy machine may be slow."""

Result = TypeVar("Result")


class Nodes:
    """A cluster of processes: a head without processors, where the driver is, and nodes with one each."""

    def __init__(self, directory: Path) -> None:
        """Start the head.

        Args:
            directory: of Ray's sockets and logs; its path is short.
        """
        from ray.cluster_utils import Cluster as Processes

        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": str(directory)}
        self._processes = started(
            lambda: Processes(
                initialize_head=True,
                head_node_args={**head, "_system_config": _LOSS_IS_NOTICED_SOON},
                shutdown_at_exit=False,
            ),
            is_head=True,
        )
        self.all: list[Any] = []
        self._odd: list[Any] = []  # with an environment of their own, or GPUs

    @property
    def address(self) -> str:
        """HOST:PORT of the head."""
        return str(self._processes.address)

    @property
    def sockets(self) -> Path:
        """Where the sockets of all nodes lie."""
        head: Any = self._processes.head_node
        return Path(head.get_session_dir_path()) / "sockets"

    def add(self, count: int = 1, *, environment: Mapping[str, str] | None = None, gpus: int = 0) -> None:
        """Start nodes, with further variables in their environment, and GPUs that they claim to have."""
        for _ in range(count):
            variables = dict(environment or {})
            node = started(lambda: self._processes.add_node(num_cpus=1, num_gpus=gpus, env_vars=variables))  # noqa: B023
            self.all.append(node)
            if environment or gpus:
                self._odd.append(node)

    def kill(self, number: int) -> None:
        """SIGKILL to all processes of a node at once, its workers too, as when the machine is gone."""
        node = self.all.pop(number)
        for one in _with_children(info.process.pid for infos in node.all_processes.values() for info in infos):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self._processes.remove_node(node, allow_graceful=False)

    def keep(self, count: int) -> None:
        """End nodes, or start some, until there are so many, all of them plain, and Ray knows."""
        for node in self._odd:
            if node in self.all:
                self.all.remove(node)
                self._processes.remove_node(node, allow_graceful=False)
        self._odd.clear()
        while len(self.all) > count:
            self._processes.remove_node(self.all.pop(), allow_graceful=False)
        self.add(count - len(self.all))
        self._processes.wait_for_nodes(timeout=HANG_SECONDS)

    def stop(self) -> None:
        """End all."""
        self._processes.shutdown()  # type: ignore[no-untyped-call]


def started(start: Callable[[], Result], *, is_head: bool = False) -> Result:
    """What Ray starts, twice more where it doesn't: it gives a node up whose agent takes longer than 15 seconds.

    Args:
        start: starts it, in a marked environment.
        is_head: nothing else runs there, and what is left of a start is ended: it wouldn't end by itself.
    """
    for _ in range(2):
        try:
            return start()
        except Exception as error:  # noqa: BLE001 - Ray's own is a bare one
            logger.warning("Ray hasn't started: %s", error)
        while is_head and (left := processes(os.environ[MARK])):
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
    return start()


def _with_children(numbers: Iterable[int]) -> list[int]:
    """Processes, and those that they started."""
    found = list(numbers)
    for number in found:  # grows meanwhile
        with contextlib.suppress(OSError):  # it has just ended
            for children in Path(f"/proc/{number}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


@contextmanager
def marked_environment() -> Iterator[str]:
    """Variables for Ray, and a mark by which the processes that inherit it are found."""
    mark = uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("RAY_", "NEVERSEEN_")):
                patch.delenv(name)
        for name, value in {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what has Ray listen at 127.0.0.1
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_worker_niceness": "0",  # else whatever others do here comes first
            "RAY_memory_monitor_refresh_ms": "0",  # else work is begun anew where others fill the machine's memory
            "PYTHONPATH": str(ROOT),  # where workers find this module
            MARK: mark,
        }.items():
            patch.setenv(name, value)
        yield mark


@contextmanager
def running_nodes() -> Iterator[Nodes]:
    """A head alone; who wants nodes adds them."""
    with (
        tempfile.TemporaryDirectory(prefix="nt-", ignore_cleanup_errors=True) as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Where the head leaves its address: else in a directory of all of Ray's clusters, which it doesn't make.
        patch.setenv("RAY_TMPDIR", directory)
        place = Path(directory, "ray")
        place.mkdir()
        nodes = Nodes(place)
        try:
            yield nodes
        finally:
            nodes.stop()


def processes(mark: str) -> dict[int, str]:
    """The command lines of the processes that live and inherited a mark, by their numbers."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or isn't ours
            if wanted in (directory / "environ").read_bytes().split(b"\0"):
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command:  # else it has ended, and nobody has asked how
                    found[int(directory.name)] = command
    return found


def replica(service: int, number: int) -> int:
    """The process of a shard of a service on this machine, which is a process, too; once there is one alone."""
    title = f"ray::ServeReplica:neverseen-{socket.gethostname()}-{service}-{number}:"
    found: list[int] = []

    def is_one() -> bool:
        found.clear()
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has just ended
                if entry.read_text(errors="replace").startswith(title):
                    found.append(int(entry.parent.name))
        return len(found) == 1

    wait_until(is_one, "the shard has one process")
    return found[0]


def listening(numbers: Collection[int]) -> set[str]:
    """The addresses, in the system's hexadecimal, at which processes listen."""
    addresses = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *more = line.split()
            if state == "0A":
                addresses[more[5]] = local.partition(":")[0]
    found = set()
    for number in numbers:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{number}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(descriptor.readlink())
                    inode = target.removeprefix("socket:[").removesuffix("]")
                    if inode in addresses:
                        found.add(addresses[inode])
    return found


@dataclass(frozen=True)
class CountedFiles:
    """Files of a build whose every computation is noted.

    Attributes:
        files: where they lie.
        log: directory with a file for each worker process.
        held: says, while it is there, how many may be saved: further ones wait, but for one that comes at that moment.
    """

    files: BlockFiles
    log: Path
    held: Path

    def find(self, name: str) -> File | None:
        """As the files; what isn't there is computed next."""
        found = self.files.find(name)
        if found is None:
            self._note("begun", name)
        return found

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> File:
        """As the files."""
        while self._is_held():
            time.sleep(0.005)
        file = self.files.save(name, tensors)
        self._note("saved", name)
        return file

    def _is_held(self) -> bool:
        try:
            most = int(self.held.read_text())
        except FileNotFoundError:
            return False
        return noted(self.log, "saved").total() >= most

    def _note(self, what: str, name: str) -> None:
        with (self.log / str(os.getpid())).open("a", encoding="utf-8") as file:
            file.write(f"{what} {name}\n")


class Counted:
    """A place whose computations of blocks are counted."""

    def __init__(self, cluster: Cluster, log: Path) -> None:
        log.mkdir()
        self._cluster, self._log, self._held = cluster, log, log.with_name(f"{log.name}.held")

    def named(self, device: str) -> str:
        """As the cluster."""
        return self._cluster.named(device)

    def once(self, device: str, function: Callable[..., Result], /, *arguments: object) -> Result:
        """As the cluster."""
        return self._cluster.once(device, function, *arguments)

    def train_blocks(self, job: Job, blocks: Sequence[Block], *, report: Report) -> Mapping[str, File]:
        """As the cluster."""
        counted = replace(job, files=CountedFiles(job.files, self._log, self._held))
        return self._cluster.train_blocks(counted, blocks, report=report)

    def count(self, what: str) -> Counter[str]:
        """How often each file was "begun" or "saved"."""
        return noted(self._log, what)

    def hold(self, moment: int) -> None:
        """Have nothing saved beyond so many blocks, or one more, until `release`: whoever has another one waits."""
        self._held.write_text(str(moment))

    def release(self) -> None:
        """Have everything saved."""
        self._held.unlink()


def noted(log: Path, what: str) -> Counter[str]:
    """How often each file was "begun" or "saved" by the log of `CountedFiles`."""
    lines = [line.split() for path in log.iterdir() for line in path.read_text().splitlines()]
    return Counter(line[1] for line in lines if line[0] == what and len(line) == 2)  # the last one may be half there


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = HANG_SECONDS) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:g} seconds still not: {what}"
        time.sleep(0.01)
