"""The shards of the service (`engine.shards`) on a Ray cluster: a Ray Serve deployment of one replica for each.

Ray finds them a place, one device each, and starts those again that die, or hang. HTTP stays with the service: Ray's
own proxy isn't started. The shards are the service's that started them, and end with it; those of a service that was
killed end by themselves, some minutes later.

Ray is imported late: it is an extra, and reads its environment when it is imported (`engine.connection.connected`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Final

from app.errors import UnavailableError
from app.settings import Settings
from engine.connection import connected
from engine.errors import EngineError, ShardLostError
from engine.holdings import Part
from engine.shard import Shard
from engine.shards import Reply, Shards
from engine.threads import use_one_thread

logger = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 64
_HEALTH_SECONDS: Final = 10
_HANG_SECONDS: Final = 60
_START_SECONDS: Final = 180
_ABANDONED_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.2


class Replica:
    """The process of a shard, as Ray Serve runs it."""

    def __init__(self, part: Part, *, device: str, resident_bytes: int, abandoned_seconds: float) -> None:
        """As `Shard`.

        Args:
            part: as of `Shard`.
            device: as of `Shard`.
            resident_bytes: as of `Shard`.
            abandoned_seconds: after which a replica that nobody asks ends: its service was killed.
        """
        use_one_thread()
        self._shard = Shard(part, device=device, resident_bytes=resident_bytes)
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE)
        self._abandoned_seconds, self._asked_at = abandoned_seconds, time.monotonic()

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the shard, beside what it does already."""
        self._asked_at = time.monotonic()
        called = functools.partial(getattr(self._shard, method), *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._threads, called)

    async def check_health(self) -> None:
        """Say that its threads work; Ray starts it again where this takes too long."""
        from ray import serve  # noqa: PLC0415

        await asyncio.get_running_loop().run_in_executor(self._threads, self._shard.held)
        if time.monotonic() - self._asked_at > self._abandoned_seconds:
            serve.delete(serve.get_replica_context().app_name, _blocking=False)


class ServeReply:
    """An answer that comes from Ray Serve: an `engine.shards.Reply`."""

    def __init__(self, response: Any) -> None:
        """Of a `ray.serve.handle.DeploymentResponse`."""
        self._response = response

    def result(self, timeout_seconds: float) -> Any:
        """As of `Reply`."""
        from ray.exceptions import RayError, RayTaskError  # noqa: PLC0415
        from ray.serve.exceptions import RayServeException  # noqa: PLC0415

        try:
            return self._response.result(timeout_s=timeout_seconds)
        except RayTaskError as error:
            if isinstance(error.cause, EngineError):
                raise error.cause from None  # else its message would be a traceback
            raise RuntimeError("A shard failed.") from error  # by no class of its cause's: it may be a time-out's
        except TimeoutError:  # some of Ray's are its errors, too
            raise
        except (RayError, RayServeException) as error:
            raise ShardLostError("A shard went away while it was asked.") from error

    def cancel(self) -> None:
        """As of `Reply`."""
        with suppress(Exception):  # what the call has failed with already; then there is nothing to cancel
            self._response.cancel()


class Gone:
    """The answer of a shard that couldn't even be called: a `Reply`."""

    def result(self, timeout_seconds: float) -> Any:
        """As of `Reply`."""
        raise ShardLostError("A shard can't be called.")

    def cancel(self) -> None:
        """As of `Reply`."""


class ServeLines:
    """Calls of shards through Ray Serve: an `engine.shards.Lines`."""

    def __init__(self, handles: list[Any]) -> None:
        """By the handles of their deployments, in order."""
        self._calls = [handle.call for handle in handles]

    @property
    def count(self) -> int:
        """As of `Lines`."""
        return len(self._calls)

    def call(self, shard: int, method: str, *arguments: Any, **options: Any) -> Reply:
        """As of `Lines`."""
        from ray.exceptions import RayError  # noqa: PLC0415
        from ray.serve.exceptions import RayServeException  # noqa: PLC0415

        try:
            return ServeReply(self._calls[shard].remote(method, *arguments, **options))
        except (RayError, RayServeException):
            return Gone()


@contextmanager
def sharded(settings: Settings) -> Iterator[Shards]:
    """The shards of a service, started on its cluster, and looked after until the end.

    Args:
        settings: `cluster`, how many `shards`, their `device` and `resident_bytes`, and `least_share`.

    Raises:
        ConfigurationError: Ray isn't installed, or the cluster can't be reached.
        UnavailableError: the cluster has no room for the shards.
    """
    assert settings.cluster is not None
    with connected(settings.cluster) as ray, _deployed(settings, ray) as handles:
        shards = Shards(ServeLines(handles), least_share=settings.least_share)
        shards.start()
        try:
            yield shards
        finally:
            shards.stop()


def _count(settings: Settings, ray: ModuleType) -> int:
    """How many shards there are to be: one for each GPU, or else for each machine, where nothing is said."""
    if settings.shards is not None:
        return settings.shards
    if settings.device == "cpu":
        return max(1, sum(bool(node["Alive"]) for node in ray.nodes()))
    gpus: float = ray.cluster_resources().get("GPU", 0)
    return max(1, int(gpus))


@contextmanager
def _deployed(settings: Settings, ray: ModuleType) -> Iterator[list[Any]]:
    """Replicas under the care of Ray Serve while the block runs: their handles. Serve itself goes on, for others."""
    from ray import serve  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415
    from ray.serve.exceptions import RayServeException  # noqa: PLC0415
    from ray.serve.schema import LoggingConfig  # noqa: PLC0415

    count, resource = _count(settings, ray), "CPU" if settings.device == "cpu" else "GPU"
    there = ray.cluster_resources().get(resource, 0)
    if there < count:
        raise UnavailableError(
            f"{count} shards take a {resource} each, and the cluster has {there:.0f}: "
            "add machines, or ask for fewer with --shards."
        )
    deployed = serve.deployment(
        num_replicas=1,
        max_ongoing_requests=_MOST_AT_ONCE,
        ray_actor_options={"num_cpus": 1} if resource == "CPU" else {"num_cpus": 0, "num_gpus": 1},
        health_check_period_s=_HEALTH_SECONDS,
        health_check_timeout_s=_HANG_SECONDS,
        graceful_shutdown_timeout_s=1,
        graceful_shutdown_wait_loop_s=0.1,
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )(Replica)
    device = "cpu" if resource == "CPU" else "cuda"  # of the devices that Ray shows the process, the only one
    service = f"neverseen-{socket.gethostname()}-{os.getpid()}"
    targets = [
        serve.RunTarget(
            deployed.bind(
                Part(number, count),
                device=device,
                resident_bytes=settings.resident_bytes,
                abandoned_seconds=_ABANDONED_SECONDS,
            ),
            name=f"{service}-{number}",
            route_prefix=None,
        )
        for number in range(count)
    ]
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # what matters of it, `Shards` says
    serve.start(proxy_location="Disabled", logging_config=LoggingConfig(log_level="WARNING"))
    logger.info("Starting %d shards", count)
    try:
        handles = serve.run_many(targets, wait_for_applications_running=False)
        _wait_for([target.name for target in targets])
        yield handles
    finally:
        for target in targets:
            with suppress(RayError, RayServeException):
                serve.delete(target.name, _blocking=False)


def _wait_for(names: list[str]) -> None:
    """Until all of them run.

    Raises:
        UnavailableError: one can't be started, or not in time.
    """
    from ray import serve  # noqa: PLC0415
    from ray.serve.schema import ApplicationStatus  # noqa: PLC0415

    until = time.monotonic() + _START_SECONDS
    while True:
        there = serve.status().applications
        waiting = [name for name in names if name not in there or there[name].status != ApplicationStatus.RUNNING]
        failed = [name for name in waiting if name in there and there[name].status == ApplicationStatus.DEPLOY_FAILED]
        if failed:
            raise UnavailableError(f"A shard doesn't start; Ray's logs say why. {there[failed[0]].message[:500]}")
        if not waiting:
            return
        if time.monotonic() > until:
            raise UnavailableError(
                f"{len(waiting)} of {len(names)} shards don't start within {_START_SECONDS} seconds: has the cluster "
                "room, or do others use it? `ray status` says."
            )
        time.sleep(_POLL_SECONDS)
