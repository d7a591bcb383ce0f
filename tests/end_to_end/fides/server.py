"""A whole Fides server: PostgreSQL, Redis and `fides webserver`, each of one's own, and what one tells it by its API.

It is the package `ethyca-fides` in an environment of its own, .venv-fides, for it wants other versions of what
Neverseen needs, too. `make test-fides` makes that. Celery runs tasks at once, in the server itself, so no worker is
needed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import make_url

from tests.drills.processes import Cluster

ENVIRONMENT: Final = Path(__file__).parents[3] / ".venv-fides"
PROGRAM: Final = ENVIRONMENT / "bin" / "fides"

_CLIENT, _SECRET = "fidesadmin", "fidesadminsecret"
_REDIS_PASSWORD: Final = "scratch"
_START_SECONDS: Final = 300
"""The first start migrates an empty database: half a minute alone, minutes on a machine with other work."""


def missing() -> str | None:
    """What isn't installed, in words; None where everything is."""
    if not PROGRAM.exists():
        return "Fides isn't installed: `make test-fides` makes .venv-fides"
    if shutil.which("redis-server") is None:
        return "redis-server isn't installed"
    return None


class Fides:
    """A server that runs, and its API as its root client uses it."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self._log = url, log
        # Celery's tasks run within the requests that begin them.
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=120)
        token = self._client.post(
            "/oauth/token",
            data={"grant_type": "client_credentials", "client_id": _CLIENT, "client_secret": _SECRET},
        )
        root = httpx.Headers({"Authorization": f"Bearer {token.raise_for_status().json()['access_token']}"})
        self._client.headers = root

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What the API answers.

        Raises:
            AssertionError: it refuses, or says that something failed.
        """
        response = self._client.request(method, path, json=body)
        assert response.is_success, (response.status_code, response.text)
        answer = response.json() if response.content else None
        assert not (isinstance(answer, dict) and answer.get("failed")), answer
        return answer

    def connect(self, key: str, url: str, authorization: str) -> None:
        """Have a connection to an HTTP service."""
        self.ask("PATCH", "/connection", [{"name": key, "key": key, "connection_type": "https", "access": "read"}])
        self.ask("PUT", f"/connection/{key}/secret?verify=false", {"url": url, "authorization": authorization})

    def hook(self, policy: str, place: str, connection: str, direction: str = "two_way") -> None:
        """Call a connection before ("pre_execution") or after ("post_execution") a policy is followed, it alone."""
        hook = {"connection_config_key": connection, "direction": direction, "key": connection, "name": connection}
        self.ask("PUT", f"/dsr/policy/{policy}/webhook/{place}", [hook])

    def hook_approval(self, connection: str) -> None:
        """Call a connection before a privacy request is approved, it alone."""
        hook = {"connection_config_key": connection, "key": connection, "name": connection}
        self.ask("PUT", "/dsr/webhook/pre_approval", [hook])

    def request(self, policy: str, identity: dict[str, Any]) -> str:
        """Make a privacy request, and have it begun; its id."""
        answer = self.ask("POST", "/privacy-request", [{"identity": identity, "policy_key": policy}])
        [made] = answer["succeeded"]
        key: str = made["id"]
        return key

    def status(self, request: str) -> str:
        """Of a privacy request."""
        answer = self.ask("GET", f"/privacy-request?request_id={request}")
        [found] = answer["items"]
        status: str = found["status"]
        return status

    def log(self) -> str:
        """What the server has said, its end."""
        return self._log.read_text(errors="replace")[-6_000:]


@contextmanager
def running(cluster: Cluster) -> Iterator[Fides]:
    """A server that runs, with a database of its own in a cluster."""
    with tempfile.TemporaryDirectory(prefix="neverseen-fides-") as name, _redis(Path(name)) as redis_port:
        place = Path(name)
        (place / "data" / "saas" / "config").mkdir(parents=True)  # newer versions end where it is missing
        database = make_url(cluster.new_database())
        port = _free_port()
        settings = {
            "DATABASE__SERVER": database.host,
            "DATABASE__PORT": database.port,
            "DATABASE__USER": database.username,
            "DATABASE__PASSWORD": "trusted",
            "DATABASE__DB": database.database,
            "DATABASE__TEST_DB": database.database,
            "REDIS__HOST": "127.0.0.1",
            "REDIS__PORT": redis_port,
            "REDIS__PASSWORD": _REDIS_PASSWORD,
            "SECURITY__APP_ENCRYPTION_KEY": "0123456789abcdef0123456789abcdef",
            "SECURITY__OAUTH_ROOT_CLIENT_ID": _CLIENT,
            "SECURITY__OAUTH_ROOT_CLIENT_SECRET": _SECRET,
            "SECURITY__DRP_JWT_SECRET": "scratch",
            "CELERY__TASK_ALWAYS_EAGER": "true",
            "USER__ANALYTICS_OPT_OUT": "true",
        }
        environment = {"PATH": os.environ["PATH"], "HOME": name} | {
            f"FIDES__{key}": str(value) for key, value in settings.items()
        }
        log = place / "log"
        with _process([str(PROGRAM), "webserver", "--port", str(port)], place, environment, log) as process:
            url = f"http://127.0.0.1:{port}"
            _wait(lambda: _answers(f"{url}/health"), process, log)
            fides = Fides(url, log)
            try:
                yield fides
            finally:
                fides.close()


@contextmanager
def _redis(place: Path) -> Iterator[int]:
    port, log = _free_port(), place / "redis.log"
    options = {"bind": "127.0.0.1", "port": str(port), "requirepass": _REDIS_PASSWORD, "save": "", "dir": str(place)}
    arguments = ["redis-server", *(word for key, value in options.items() for word in (f"--{key}", value))]
    with _process(arguments, place, {"PATH": os.environ["PATH"]}, log) as process:
        _wait(lambda: _listens(port), process, log)
        yield port


@contextmanager
def _process(
    arguments: list[str], place: Path, environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, of which nothing is left at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, cwd=place, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(happens: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not happens():
        assert process.poll() is None, log.read_text(errors="replace")[-6_000:]
        assert time.monotonic() < end, log.read_text(errors="replace")[-6_000:]
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
