"""Real processes to break: the command line, the service under load, and a PostgreSQL cluster of one's own.

Starting Python and importing torch takes three seconds. So a process is forked from one that has imported the command
line already; but for that it is what a shell would start.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from uuid import uuid4

import httpx

from app.settings import Settings

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "app.__main__", "alembic.command", "uvicorn.protocols.http.httptools_impl"])

_HANG_SECONDS: Final = 300
"""What takes so long hangs, on a machine that others use, too."""


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = _HANG_SECONDS) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:g} seconds still not: {what}"
        time.sleep(0.002)


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment in which a process has these settings, as far as drills set them."""
    names = ("data_dir", "artifacts_dir", "database_url")
    return {f"NEVERSEEN_{name.upper()}": str(getattr(settings, name)) for name in names}


def free_port() -> int:
    """A port at which nothing listens, of those that nobody is given who asks for any: it stays free for a while."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


class Neverseen:
    """``neverseen ARGUMENTS`` in a process of its own, the first one of its session."""

    def __init__(self, *arguments: str, environment: Mapping[str, str], log: Path) -> None:
        """Start it.

        Args:
            arguments: of the command line.
            environment: variables beside those of whoever runs the tests; of NEVERSEEN_ the only ones.
            log: file that gets what it says, behind what is there.
        """
        log.touch()
        self._log = log
        self._process = _FORKS.Process(target=_run, args=(arguments, dict(environment), log))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def said(self) -> str:
        """Its standard output and standard error, without line breaks, which depend on the terminal."""
        return " ".join(self._log.read_text(encoding="utf-8").split())

    @property
    def code(self) -> int | None:
        """Its exit code, negative where a signal ended it; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        self._process.join(_HANG_SECONDS)
        assert self.code is not None, f"it hangs; it said: {self.said}"
        return self.code

    def kill(self) -> None:
        """SIGKILL, to this process alone: what it started is orphaned. Nothing, where it has ended by itself."""
        self._process.kill()
        self.wait()

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self._process.terminate()
        assert self.wait() in (0, -signal.SIGTERM), self.said

    def orphans(self) -> list[int]:
        """The processes that it started and that live, whether or not it does itself."""
        return [pid for pid in _session(self.pid) if pid != self.pid]

    def clear_away(self) -> None:
        """End it and all that it started, however it is."""
        for pid in _session(self.pid):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._process.close()


def _run(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
    from app.__main__ import main

    os.setsid()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEVERSEEN_")}
    os.environ.clear()
    os.environ.update({**kept, **environment})
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.argv = ["neverseen", *arguments]
    main()


def _session(leader: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which may hold anything: state, parent, group, session.
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if int(session) == leader and state != "Z":
            found.append(int(stat.parent.name))
    return found


@contextmanager
def running(*arguments: str, environment: Mapping[str, str], log: Path) -> Iterator[Neverseen]:
    """A process of the command line, which doesn't outlive the block."""
    process = Neverseen(*arguments, environment=environment, log=log)
    try:
        yield process
    finally:
        process.clear_away()


def neverseen(*arguments: str, environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit code of a command, and all that it said."""
    with (
        tempfile.TemporaryDirectory() as place,
        running(*arguments, environment=environment, log=Path(place) / "log") as process,
    ):
        return process.wait(), process.said


class Service:
    """A service that runs in a process of its own."""

    def __init__(self, process: Neverseen, port: int) -> None:
        self.process, self.port = process, port

    def client(self) -> httpx.Client:
        """A client with a connection of its own."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=_HANG_SECONDS)


@contextmanager
def serving(settings: Settings, log: Path, **more: object) -> Iterator[Service]:
    """A service for these settings that answers; it doesn't outlive the block.

    Args:
        settings: where its data are.
        log: file that gets what it says.
        more: further settings.
    """
    environment = environment_of(settings) | {f"NEVERSEEN_{name.upper()}": str(value) for name, value in more.items()}
    with running("serve", "--port", "0", environment=environment, log=log) as process:
        wait_until(lambda: _port(process) is not None, "the service listens")
        port = _port(process)
        assert port is not None
        yield Service(process, port)


def _port(process: Neverseen) -> int | None:
    """Where a service listens, once it does."""
    assert process.code is None, f"the service stopped; it said: {process.said}"
    said = re.search(r"Listening at http://127\.0\.0\.1:(\d+)", process.said)
    return None if said is None else int(said[1])


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a load asks."""

    method: str
    path: str
    body: Any = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request of a load, and what came of it.

    Attributes:
        request: what was asked.
        at: when, on the clock of `time.monotonic`.
        seconds: till the answer, or till the connection broke.
        response: the answer; None where there was none.
    """

    request: Request
    at: float
    seconds: float
    response: httpx.Response | None

    @property
    def status(self) -> int:
        """Of the answer; 0 where there was none."""
        return 0 if self.response is None else self.response.status_code


class Load:
    """Threads that each put one request after the other to a service, on a connection of its own."""

    def __init__(self, service: Service, askers: Iterable[Iterator[Request]], *, pause_seconds: float = 0.0) -> None:
        """Begin.

        Args:
            service: to be asked.
            askers: the requests of each thread.
            pause_seconds: between an answer and the next request of a thread.
        """
        self.asked: list[Asked] = []  # in the order of the answers, those of a thread in order
        self._service, self._pause_seconds = service, pause_seconds
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(asker,), daemon=True) for asker in askers]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask nothing more, and wait for the answers."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * _HANG_SECONDS)
            assert not thread.is_alive()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, asker: Iterator[Request]) -> None:
        with self._service.client() as client:
            while not self._stopping.is_set():
                request, at, response = next(asker), time.monotonic(), None
                try:
                    response = client.request(request.method, request.path, json=request.body)
                except httpx.TransportError:
                    self._stopping.wait(0.05)  # it may have been killed
                seconds = time.monotonic() - at
                self.asked.append(Asked(request=request, at=at, seconds=seconds, response=response))
                self._stopping.wait(self._pause_seconds)


Stop = Literal["fast", "immediate"]


class Cluster:
    """A PostgreSQL cluster: stopped "fast" it hangs up on everybody, "immediate" is its crash."""

    def __init__(self, programs: Path) -> None:
        """Make it, and start it on a free port.

        Args:
            programs: the directory of initdb and pg_ctl.
        """
        self._programs = programs
        # Not below pytest's directory, which the server's user may not enter.
        self.directory = Path(tempfile.mkdtemp(prefix="neverseen-drills-"))
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        self._port = free_port()
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._program("initdb", "-D", "data", *options)
        self.start()

    def new_database(self) -> str:
        """The URL of an empty database, which is there as long as the cluster."""
        name = f"drill_{uuid4().hex}"
        self._program("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres", name)
        return f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/{name}"

    def start(self) -> None:
        """Start; when this returns, connections are accepted."""
        # Without fsync: the machine doesn't fail, and a crash of the server alone loses nothing.
        options = f"-h 127.0.0.1 -p {self._port} -k '' -F"
        self._program("pg_ctl", "start", "-D", "data", "-l", "log", "-w", "-s", "-o", options)

    def stop(self, how: Stop) -> None:
        """Stop; when this returns, the server is gone."""
        self._program("pg_ctl", "stop", "-D", "data", "-m", how, "-w", "-s")

    @contextmanager
    def stopped(self, how: Stop) -> Iterator[None]:
        """Meanwhile it is gone; afterwards, connections are accepted again."""
        self.stop(how)
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Meanwhile it does nothing, and says nothing: connections stay open, and new ones are never answered."""
        pid = int((self.directory / "data" / "postmaster.pid").read_text().split()[0])
        _hold(pid)  # first, so that there are no further children
        children = list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        processes = [pid, *children]
        for child in children:
            _hold(child)
        try:
            yield
        finally:
            for process in processes:
                with suppress(ProcessLookupError):  # a child that had ended before it was held
                    os.kill(process, signal.SIGCONT)

    def _program(self, name: str, *arguments: str) -> None:
        # PostgreSQL refuses to run as root.
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run([*user, self._programs / name, *arguments], cwd=self.directory, check=True, capture_output=True)


def _hold(process: int) -> None:
    """Stop a process; when this returns, it does nothing."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
    wait_until(lambda: _state(process) in "TtZX", "it stops")


def _state(process: int) -> str:
    """Of a process, one letter; X where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def postgresql_programs() -> Path | None:
    """Where the newest PostgreSQL server's programs are: Debian keeps them out of PATH. None where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).parent


@contextmanager
def small_disk(place: Path, *, size_bytes: int) -> Iterator[None]:
    """A file system of its own at an empty directory, which is soon full.

    Raises:
        PermissionError: who runs this may not mount.
    """
    options = f"size={size_bytes},mode=0777"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        raise PermissionError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
