"""Quick questions wait for quick ones only, in order, and the event loop for none."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app import catalog
from app.db import Database, transaction
from app.errors import BusyError
from app.main import create_app
from app.predictor import Artifact, Predictor
from app.queues import Queues
from app.serving import artifact_of
from app.settings import Settings
from engine import store
from engine.measure import Measurement
from engine.supplements import retrained_values
from tests.app.conftest import NAMES, refusal, until
from tests.app.test_predict_route import QUESTION, ask

PATIENCE_SECONDS = 30
MAX, BOB = Measurement(text="max"), Measurement(text="bob")


def test_a_quick_question_is_answered_while_slow_ones_fill_all_their_threads() -> None:
    queues, go_on = Queues(most_waiting=1_000, waited=lambda _: None), threading.Event()

    async def questions() -> None:
        slow = [asyncio.ensure_future(queues.slow(go_on.wait, PATIENCE_SECONDS)) for _ in range(40)]
        assert await asyncio.wait_for(queues.quick(lambda: "answered"), PATIENCE_SECONDS) == "answered"
        assert not any(future.done() for future in slow)
        go_on.set()
        assert all(await asyncio.gather(*slow))

    asyncio.run(questions())
    queues.close()


def test_quick_questions_are_answered_in_order_and_one_at_a_time() -> None:
    queues = Queues(most_waiting=1_000, waited=lambda _: None)
    running, answered = threading.Lock(), []

    def answer(number: int) -> None:
        assert running.acquire(blocking=False)
        answered.append(number)
        running.release()

    async def questions() -> None:
        await asyncio.gather(*(queues.quick(answer, number) for number in range(100)))

    asyncio.run(questions())
    queues.close()
    assert answered == list(range(100))


def test_what_a_question_raises_reaches_whoever_asked() -> None:
    queues = Queues(most_waiting=1_000, waited=lambda _: None)

    async def question() -> None:
        with pytest.raises(ZeroDivisionError):
            await queues.quick(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await queues.slow(lambda: 1 // 0)

    asyncio.run(question())
    queues.close()


@pytest.fixture
def served(database: Database, settings: Settings, sketch: str) -> Artifact:
    with transaction(database, writes=False) as session:
        return artifact_of(catalog.get_version(session, sketch), settings.artifacts)


def predictor(table_cache_bytes: int = 2**20) -> Predictor:
    return Predictor(device="cpu", resident_bytes=2**30, table_cache_bytes=table_cache_bytes)


def predict(asked: Predictor, served: Artifact, *measurements: Measurement) -> None:
    asked.predict(served, units=[0], measurements=measurements, degree="auto", downweights=[1.0], confidence=0.9)


def test_a_measurement_is_known_once_it_was_asked_and_as_long_as_it_is_kept(served: Artifact) -> None:
    asked = predictor()
    assert not asked.knows(served, [MAX])
    asked.load(served)
    assert not asked.knows(served, [MAX])
    predict(asked, served, MAX)
    assert asked.knows(served, [MAX])
    assert not asked.knows(served, [MAX, BOB])
    predict(asked, served, BOB)
    assert asked.knows(served, [MAX, BOB])
    forgetful = predictor(table_cache_bytes=0)
    predict(forgetful, served, MAX)
    assert not forgetful.knows(served, [MAX])


def test_nothing_is_known_where_a_model_was_retrained_since(served: Artifact) -> None:
    asked = predictor()
    predict(asked, served, MAX)
    retrained_values(store.open_artifact(served.path, checksum=served.checksum), NAMES, [1], [MAX], device="cpu")
    assert not asked.knows(served, [MAX])
    predict(asked, served, MAX)
    assert asked.knows(served, [MAX])


@pytest.mark.usefixtures("sketch")
def test_many_measurements_are_answered_as_few_are(client: TestClient) -> None:
    measurements = [{"kind": "loss", "text": text} for text in ("max", "bob", "ann", "leo", "mia", "ida")]
    for _ in range(2):  # new, then known
        together = ask(client, measurements=measurements)["predictions"]
        assert together == [ask(client, measurements=[one])["predictions"][0] for one in measurements]


LITTLE: dict[str, Any] = {"sketch": "s", "delete": {"documents": [0]}, "measurements": [{"kind": "loss", "text": "a"}]}


@pytest.mark.parametrize(
    ("change", "little"),
    [
        ({}, True),
        ({"measurements": LITTLE["measurements"] * 4}, True),
        ({"measurements": LITTLE["measurements"] * 5}, False),
        ({"measurements": LITTLE["measurements"] * 2, "downweight": [0.5, 1.0]}, True),
        ({"downweight": [number / 10 for number in range(1, 11)]}, False),
        ({"measurements": [{"kind": "next_token", "prompt": "a"}]}, True),
        ({"measurements": [{"kind": "next_token", "prompt": "a"}] * 2}, False),
        ({"delete": {"documents": list(range(250))}}, True),
        ({"delete": {"documents": list(range(251))}}, False),
        ({"delete": {"units": [str(number) for number in range(251)]}}, False),
    ],
)
def test_a_question_that_asks_for_much_is_no_quick_one(change: dict[str, Any], little: bool) -> None:
    from app.routes.predict import _little_is_asked
    from app.schemas.predict import PredictRequest

    assert _little_is_asked(PredictRequest.model_validate(LITTLE | change)) is little


def test_loading_is_logged_with_size_and_time(
    settings: Settings, served: Artifact, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level("INFO", logger="app"), TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        ready = client.get("/readyz").json()
    [resident] = ready["resident"]
    assert resident["bytes"] < ready["budget_bytes"] == settings.resident_bytes
    [line] = [record.getMessage() for record in caplog.records if record.name == "app.serving"]
    assert line.startswith(f"Loaded {served.label}: {resident['bytes'] / 1e6:.1f} MB in ")


def test_a_queue_is_bounded_and_says_so_at_once() -> None:
    waited: list[float] = []
    queues, go_on = Queues(most_waiting=3, waited=waited.append), threading.Event()

    async def questions() -> None:
        quick = [asyncio.ensure_future(queues.quick(go_on.wait, PATIENCE_SECONDS)) for _ in range(4)]
        await asyncio.sleep(0)
        assert queues.lengths() == {"quick": 4, "slow": 0, "calibration": 0, "search": 0}
        with pytest.raises(BusyError, match="4 questions"):
            await queues.quick(lambda: None)
        assert await queues.slow(lambda: "another queue") == "another queue"
        go_on.set()
        assert all(await asyncio.gather(*quick))
        assert await queues.quick(lambda: "room again") == "room again"

    asyncio.run(questions())
    queues.close()
    assert set(queues.lengths().values()) == {0}
    assert len(waited) == 6


def test_no_more_than_two_search_at_once_and_few_may_wait() -> None:
    queues, go_on = Queues(most_waiting=1_000, waited=lambda _: None), threading.Event()
    running: list[int] = []
    begun = threading.Semaphore(0)

    def search(number: int) -> bool:
        running.append(number)
        begun.release()
        return go_on.wait(PATIENCE_SECONDS)

    async def searches() -> None:
        asked = [asyncio.ensure_future(queues.search(search, number)) for number in range(10)]
        for _ in range(2):
            assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE_SECONDS)
        await asyncio.sleep(0.1)  # in which a third might begin
        assert sorted(running) == [0, 1]
        with pytest.raises(BusyError, match="10 questions are before this one"):
            await queues.search(search, 10)
        assert await asyncio.wait_for(queues.slow(lambda: "answered"), PATIENCE_SECONDS) == "answered"
        go_on.set()
        assert all(await asyncio.gather(*asked))

    asyncio.run(searches())
    queues.close()
    assert sorted(running) == list(range(10))


def test_calibrations_take_no_thread_of_other_questions_and_run_one_at_a_time() -> None:
    queues, go_on = Queues(most_waiting=1_000, waited=lambda _: None), threading.Event()
    running = threading.Lock()

    def calibrate() -> bool:
        with running:
            return go_on.wait(PATIENCE_SECONDS)

    def alone() -> bool:
        assert running.acquire(blocking=False)
        running.release()
        return True

    async def questions() -> None:
        asked = [asyncio.ensure_future(queues.calibration(calibrate))]
        asked += [asyncio.ensure_future(queues.calibration(alone)) for _ in range(16)]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError, match="17 questions are before this one"):
            await queues.calibration(alone)
        slow = [queues.slow(lambda: "answered") for _ in range(20)]
        assert await asyncio.wait_for(asyncio.gather(*slow), PATIENCE_SECONDS) == ["answered"] * 20
        go_on.set()
        assert all(await asyncio.gather(*asked))

    asyncio.run(questions())
    queues.close()


@pytest.mark.parametrize(
    ("method", "address", "sent"),
    [
        ("GET", "/datasets/names/documents?matches=a", None),
        ("POST", "/datasets/names/resolve", {"matches": "a"}),
        ("POST", "/datasets/names/subsets", {"name": "matching", "matches": "a"}),
    ],
)
def test_searches_hold_neither_a_thread_of_requests_nor_a_transaction(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, method: str, address: str, sent: dict[str, str] | None
) -> None:
    go_on, searching = threading.Event(), threading.Semaphore(0)

    def endless(pattern: str, texts: list[str]) -> list[bool]:
        searching.release()
        assert go_on.wait(PATIENCE_SECONDS)
        return ["b" in text for text in texts]

    monkeypatch.setattr("app.catalog.texts.matching", endless)
    application = create_app(settings)
    with TestClient(application, base_url="http://127.0.0.1") as client, ThreadPoolExecutor(60) as asking:
        client.post("/datasets", json={"name": "names", "content": "ann\nbob\nida"})
        asked = [asking.submit(client.request, method, address, json=sent) for _ in range(60)]
        for _ in range(2):
            assert searching.acquire(timeout=PATIENCE_SECONDS)
        for refused in islice(as_completed(asked, PATIENCE_SECONDS), 50):
            assert refusal(refused.result(), 503)["type"].endswith(":busy")
        pool = application.state.database.pool
        assert until(lambda: pool.checkedout() == 0)  # what was refused has given back what it held by then
        assert client.get("/datasets/names/documents").json()["total"] == 3
        go_on.set()
        answers = [one.result(PATIENCE_SECONDS) for one in asked]
    assert [one.status_code for one in answers].count(503) == 50
    found = [one for one in answers if one.status_code != 503]
    if method == "GET":
        assert all([document["text"] for document in one.json()["items"]] == ["bob"] for one in found)
    elif address.endswith("resolve"):
        assert all(one.json()["units"] == ["1"] for one in found)
    else:
        assert sorted(one.status_code for one in found) == [201] + [409] * 9


def test_who_gives_up_waiting_leaves_the_queue_and_is_never_called() -> None:
    queues, go_on = Queues(most_waiting=1, waited=lambda _: None), threading.Event()
    called: list[str] = []

    async def questions() -> None:
        running = asyncio.ensure_future(queues.quick(go_on.wait, PATIENCE_SECONDS))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await queues.quick(called.append, "given up")
        assert queues.lengths()["quick"] == 1
        go_on.set()
        await running

    asyncio.run(questions())
    queues.close()
    assert called == []


@pytest.mark.usefixtures("sketch")
def test_a_full_queue_is_answered_with_503_and_when_to_come_back(settings: Settings) -> None:
    few = settings.model_copy(update={"queue_length": 1})
    curve = [number / 100 for number in range(101)]
    with TestClient(create_app(few), base_url="http://127.0.0.1") as client, ThreadPoolExecutor(40) as asking:

        def ask_much(number: int) -> httpx.Response:
            texts = [NAMES.texts[(number + i) % len(NAMES)][:5] for i in range(30)]
            measured = [{"kind": "loss", "text": text} for text in texts]
            asked = QUESTION | {"measurements": measured, "downweight": curve}
            response: httpx.Response = client.post("/predict", json=asked)
            return response

        answers = list(asking.map(ask_much, range(40)))
        assert {answer.status_code for answer in answers} == {200, 503}
        for answer in answers:
            if answer.status_code == 503:
                assert refusal(answer, 503)["type"].endswith(":busy")
                assert int(answer.headers["Retry-After"]) > 0
        assert client.post("/predict", json=QUESTION).status_code == 200
