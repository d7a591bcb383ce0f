"""A database that stops and starts again under load: refused in order meanwhile, and soon all is as before."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from app.settings import Settings
from tests.drills.conftest import TIMES
from tests.drills.processes import (
    Asked,
    Cluster,
    Load,
    Request,
    Stop,
    serving,
    wait_until,
)
from tests.drills.test_kills import check_audit, check_catalog, current_version, promotions, question, questions

AWAY_SECONDS: Final = 1.0
WATCHED_SECONDS: Final = 0.7
"""Without a refusal, till a service counts as recovered."""

LONGEST_SECONDS: Final = 30.0
"""That an answer takes, whatever becomes of the database meanwhile."""

REQUEST_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.01
PREDICT, HEALTH, READY, LIST = "/predict", "/healthz", "/readyz", "/datasets"
WELL: Final = (200, 201, 409)
"""Done; or, after a refusal, not what the next promotion expects."""

STOPS: Final[tuple[Stop, ...]] = ("fast", "immediate")


def gets(path: str) -> Iterator[Request]:
    return itertools.repeat(Request(method="GET", path=path))


def known() -> Iterator[Request]:
    """What the service has in memory whole, but for what the catalog must be asked each time."""
    return itertools.repeat(question("max"))


def subsets(numbers: Iterator[int]) -> Iterator[Request]:
    """New subsets, none of which needs that another was made."""
    for number in numbers:
        yield Request(method="POST", path="/datasets/names/subsets", body={"name": f"s{number}", "contains": "a"})


def askers(seed: int, numbers: Iterator[int]) -> list[Iterator[Request]]:
    asked_again = [gets(path) for path in (LIST, HEALTH, READY)]
    return [known(), questions(seed), subsets(numbers), promotions(2), *asked_again]


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
@TIMES
def test_without_its_database_a_service_refuses_in_order_and_recovers_by_itself(
    times: int, served: Settings, cluster: Cluster, tmp_path: Path
) -> None:
    numbers = itertools.count()
    with serving(served, tmp_path / "log") as service:
        for number in range(times):
            with Load(service, askers(number, numbers), pause_seconds=PAUSE_SECONDS) as asking:
                time.sleep(0.5)
                with cluster.stopped(STOPS[number % 2]):
                    gone = time.monotonic()
                    time.sleep(AWAY_SECONDS)
                    wait_until(lambda: answered(asking, gone), "all is asked while it is away")  # noqa: B023
                    back = time.monotonic()  # before it is: whatever is asked while it starts may be answered
                started = time.monotonic()
                wait_until(lambda: recovered(asking, started), "all is as before")  # noqa: B023
            check_refusals(asking.asked)
            away = [one for one in asking.asked if gone < one.at and one.at + one.seconds < back]
            for path in (PREDICT, LIST):
                refused = [one for one in away if one.request.path == path]
                assert {one.status for one in refused} == {503}
            assert {one.status for one in away if one.request.path == HEALTH} == {200}
            check_catalog(served)
            check_audit(served, asking.asked)
            current = current_version(served)
            with service.client() as client:
                wait_until(lambda: asked_version(client) == current, "what was promoted is served")  # noqa: B023
        assert "Exception in thread" not in service.process.said
        service.process.stop()


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_when_its_database_hangs_a_service_refuses_in_time_and_recovers_by_itself(
    served: Settings, cluster: Cluster, tmp_path: Path
) -> None:
    with serving(served, tmp_path / "log", request_seconds=REQUEST_SECONDS) as service:
        with Load(service, askers(0, itertools.count()), pause_seconds=PAUSE_SECONDS) as asking:
            time.sleep(0.5)
            with cluster.hanging():
                hung = time.monotonic()
                time.sleep(3 * REQUEST_SECONDS)
                wait_until(lambda: answered(asking, hung), "all is asked while it hangs")
                back = time.monotonic()  # before it is: whatever is asked from then on may be answered
            started = time.monotonic()
            wait_until(lambda: recovered(asking, started), "all is as before")
        check_refusals(asking.asked)
        away = [one for one in asking.asked if hung < one.at and one.at + one.seconds < back]
        for path in (PREDICT, LIST, READY):
            refused = [one for one in away if one.request.path == path]
            assert {one.status for one in refused} == {503}  # while it hangs: nobody waits for it
        assert {one.status for one in away if one.request.path == HEALTH} == {200}
        check_catalog(served)
        check_audit(served, asking.asked)
        assert "Traceback" not in service.process.said
        service.process.stop()


def answered(asking: Load, since: float) -> bool:
    """Whether all was asked, and answered, since then."""
    return {one.request.path for one in list(asking.asked) if one.at > since} >= {PREDICT, LIST, HEALTH, READY}


def recovered(asking: Load, started: float) -> bool:
    """Whether nothing was refused of late, though all was asked."""
    since = max(started, time.monotonic() - WATCHED_SECONDS)
    late = [one for one in list(asking.asked) if one.at > since]
    paths = {one.request.path for one in late}
    return paths >= {PREDICT, LIST, HEALTH, READY} and all(one.status in WELL for one in late)


def asked_version(client: httpx.Client) -> int:
    """The version that a question gets which names none."""
    version: int = client.post(PREDICT, json=question("max").body).json()["version"]
    return version


def check_refusals(asked: list[Asked]) -> None:
    """Each request had an answer soon: what was asked for, or that the catalog is away. Nobody's connection broke."""
    for one in asked:
        assert one.response is not None, one
        assert one.seconds < LONGEST_SECONDS, one
        if one.request.path == HEALTH:
            assert one.status == 200
        elif one.status not in WELL:
            check_refusal(one.response)


def check_refusal(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0
    assert response.json()["type"] in ("urn:neverseen:problem:catalog-away", "urn:neverseen:problem:deadline")
