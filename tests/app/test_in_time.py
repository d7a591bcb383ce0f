"""A request's time: whoever waits is told when it is over, and nothing is left open."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.db import Database, transaction
from app.deps import Reading
from app.guard import Guarded, needs
from app.main import create_app
from app.openapi import Application
from app.settings import Settings
from tests.app.conftest import refusal, until

SECONDS = 1.0


@pytest.fixture
def hurried(settings: Settings) -> Iterator[tuple[TestClient, threading.Event]]:
    """An application in a hurry with two routes that wait until somebody says to go on."""
    app, go_on = create_app(settings.model_copy(update={"request_seconds": SECONDS})), threading.Event()
    assert isinstance(app, Application)

    def blocking(session: Reading) -> str:
        go_on.wait(60)
        session.execute(text("SELECT 1"))
        return "done"

    async def waiting() -> str:
        await asyncio.to_thread(go_on.wait, 60)
        return "done"

    for path, function in (("/blocking", blocking), ("/waiting", waiting)):
        app.router.add_api_route(
            path, function, route_class_override=Guarded, openapi_extra=needs("predict"), response_model=str
        )
    with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client, go_on
        go_on.set()
        pool = client.app.state.database.pool  # type: ignore[attr-defined]
        assert until(lambda: pool.checkedout() == 0)  # what was left to itself has ended


@pytest.mark.parametrize("path", ["/blocking", "/waiting"])
def test_an_answer_that_takes_too_long_is_refused_in_time(
    hurried: tuple[TestClient, threading.Event], path: str
) -> None:
    client, go_on = hurried
    started = time.monotonic()
    answer = client.get(path)
    assert time.monotonic() - started < 30
    assert refusal(answer, 503)["type"].endswith(":deadline")
    assert int(answer.headers["Retry-After"]) > 0
    go_on.set()
    assert until(lambda: client.get(path).json() == "done")


def test_what_goes_on_after_its_time_closes_its_own_session(
    hurried: tuple[TestClient, threading.Event], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    client, go_on = hurried
    for _ in range(5):
        refusal(client.get("/blocking"), 503)
    go_on.set()
    checked_out = client.app.state.database.pool.checkedout  # type: ignore[attr-defined]
    assert until(lambda: checked_out() == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    with transaction(database) as session:  # nobody holds a lock
        session.execute(text("UPDATE datasets SET description = description"))


def test_work_that_holds_every_thread_holds_no_refusal_and_no_end(
    hurried: tuple[TestClient, threading.Event],
) -> None:
    client, go_on = hurried
    with ThreadPoolExecutor(50) as asking:
        held = [asking.submit(client.get, "/blocking") for _ in range(45)]  # as many threads as there are are 40
        assert {one.result(50).status_code for one in held} == {503}
        refusal(client.get("/nowhere"), 404)
        key = {"Authorization": f"Bearer nvs_{'a' * 8}_{'b' * 43}"}
        assert until(lambda: client.get("/datasets", headers=key).status_code == 401)
        assert client.get("/healthz").status_code == 200
        go_on.set()
    assert until(lambda: client.get("/datasets").status_code == 200)
