"""The service on a Ray cluster: the answers of a single process, shards that are killed, and nothing left behind."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app import catalog
from app.building import build_sketch
from app.db import migrate, open_database, transaction
from app.settings import Settings
from engine.configuration import SketchConfiguration
from engine.counterfactual import counterfactual_model, draw_texts
from engine.data import census_names
from engine.directions import Ensemble
from engine.measure import Measurement
from engine.model import ModelConfiguration
from engine.question import Prediction, Question
from engine.resident import ResidentSketch
from tests.cluster.nodes import processes
from tests.drills.conftest import _tests_are_found_by_processes
from tests.drills.processes import Asked, Load, Request, Service, environment_of, neverseen, serving, wait_until
from tests.shards import served

__all__ = ["_tests_are_found_by_processes"]  # a fixture

pytestmark = pytest.mark.cluster

SHARDS = 2
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Sharded:
    """A catalog with two sketches, and what one process says of them."""

    settings: Settings
    alone: dict[str, ResidentSketch]


@pytest.fixture(scope="module")
def sketches(tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    """`directions`, of these alone, and `axes`, of axes and retrained models alone."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("sharded"))
    migrate(settings.database_url)
    database = open_database(settings)
    documents = census_names().first(60)
    model = ModelConfiguration(vocabulary=LETTERS, width=8, heads=2)
    unitary: Ensemble = "unitary"
    with transaction(database) as session:
        catalog.add_dataset(session, name="names", documents=documents)
    alone = {}
    for name, axes in (("directions", False), ("axes", True)):
        configuration = SketchConfiguration(
            model=model, axes=axes, anchors=40, directions=0 if axes else 96, ensemble=unitary, block=32
        )
        build_sketch(
            database,
            settings,
            sketch=name,
            dataset="names",
            configuration=configuration,
            progress=lambda done, total: None,
        )
        with transaction(database, writes=False) as session:
            version = catalog.get_version(session, name, None)
            alone[name] = ResidentSketch.open(settings.artifacts_dir / version.location)
    database.dispose()
    return Sharded(settings, alone)


def test_sharded_answers_are_those_of_one_process(sketches: Sharded, tmp_path: Path) -> None:
    texts = random_texts(1)
    with clustered(sketches.settings, tmp_path) as service, service.client() as client:
        for sketch, alone in sketches.alone.items():
            for text in itertools.islice(texts, 5):
                check(whole(client, question(sketch, text)), expected(alone, text))
            top = client.post("/attributions", json={"sketch": sketch, "measurement": loss(text), "top": 3})
            influences = alone.attribute(Measurement(text=text), top=3, confidence=0.95)
            changes = [one["change"] for one in top.raise_for_status().json()["raising"]]
            assert changes == pytest.approx([one.change for one in influences.raising], rel=1e-9)
        drawn = client.post("/samples", json={"sketch": "axes", "delete": DELETED, "count": 3, "seed": 1})
        without = counterfactual_model(sketches.alone["axes"], DELETED["documents"])
        texts_drawn = [sample["counterfactual"] for sample in drawn.raise_for_status().json()["samples"]]
        assert texts_drawn == draw_texts(without, count=3, seed=1)
        wait_until(
            lambda: client.get("/readyz").json()["shards"] == {"count": SHARDS, "away": 0}, "all shards are there"
        )
        assert f"neverseen_shards {SHARDS}.0" in client.get("/metrics").text


def test_a_shard_that_is_killed_under_load_costs_no_right_answer_and_comes_back_by_itself(
    sketches: Sharded, tmp_path: Path
) -> None:
    alone = sketches.alone["directions"]
    texts = random_texts(2)
    known = [next(texts) for _ in range(3)]
    with clustered(sketches.settings, tmp_path) as service, service.client() as client:
        for text in known:
            client.post("/predict", json=question("directions", text)).raise_for_status()
        asked_again = (predict(text) for text in itertools.cycle(known))
        asked_anew = (predict(text) for text in texts)
        with Load(service, [asked_again, asked_anew], pause_seconds=0.01) as load:
            wait_until(lambda: len(load.asked) > 50, "answers come")
            victim = replica(service, 1)
            killed_at = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: any(missing(one) for one in load.asked), "it is noticed")
            wait_until(lambda: client.get("/readyz").json()["shards"]["away"] == 0, "the shard is back")
            so_far = len(load.asked)
            wait_until(lambda: len(load.asked) > so_far + 50, "answers come")
            wait_until(lambda: not any(missing(one) for one in load.asked[-20:]), "whole answers come")
        errors = [one for one in load.asked if one.status != 200]
        assert all(one.at < killed_at + 10 for one in errors), [(one.at - killed_at, one.status) for one in errors]
        assert all(one.seconds < 30 for one in load.asked)
        with served(alone.artifact, SHARDS) as reduced:
            reduced.processes.kill(1)
            for one in load.asked:
                if one.status == 200:
                    [prediction] = one.response.json()["predictions"]  # type: ignore[union-attr]
                    source = reduced.sketch if prediction["missing_share"] else alone
                    check(prediction, expected(source, prediction["measurement"]["text"]))
        of_known = [one for one in load.asked if one.request.body["measurements"][0]["text"] in known]
        assert not any(missing(one) for one in of_known)
        assert any(missing(one) for one in load.asked)


def test_a_sketch_with_axes_says_503_for_new_measurements_until_its_shard_is_back(
    sketches: Sharded, tmp_path: Path
) -> None:
    texts = random_texts(3)
    known = next(texts)
    with clustered(sketches.settings, tmp_path) as service, service.client() as client:
        before = client.post("/predict", json=question("axes", known)).raise_for_status().json()["predictions"]
        victim = replica(service, 0)
        os.kill(victim, signal.SIGKILL)
        refused = client.post("/predict", json=question("axes", next(texts)))
        assert refused.status_code == 503
        assert refused.json()["type"].endswith("shards-away")
        assert "Retry-After" in refused.headers
        after = client.post("/predict", json=question("axes", known)).raise_for_status().json()["predictions"]
        assert after == before
        new = question("axes", next(texts))
        wait_until(lambda: client.post("/predict", json=new).status_code == 200, "the shard is back")


def test_a_cluster_without_room_and_one_that_isnt_there_are_refused_with_a_sentence(
    sketches: Sharded, tmp_path: Path
) -> None:
    environment = environment_of(sketches.settings)
    code, said = neverseen("serve", "--port", "0", "--cluster", "127.0.0.1:1", environment=environment)
    assert (code, "No Ray cluster answers at 127.0.0.1:1" in said) == (2, True), said
    code, said = neverseen("serve", "--port", "0", "--cluster", "local", "--shards", "1000", environment=environment)
    assert (code, "1000 shards take a CPU each" in said) == (2, True), said


@contextmanager
def clustered(settings: Settings, place: Path) -> Iterator[Service]:
    """A service with two shards on a cluster of its own, all of which end with the block."""
    mark = uuid4().hex
    with serving(settings, place / "log", cluster="local", shards=SHARDS, tests_mark=mark) as service:
        try:
            yield service
        finally:
            service.process.stop()
            wait_until(lambda: not processes(mark), "all of Ray's processes have ended", seconds=60)


DELETED = {"documents": [3, 17, 40]}


def whole(client: httpx.Client, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The prediction of all shards: one of a busy machine may be silent for a while, and is away until it speaks."""
    found: list[dict[str, Any]] = []

    def is_whole() -> bool:
        [prediction] = client.post("/predict", json=asked).raise_for_status().json()["predictions"]
        found.append(prediction)
        return not prediction["missing_share"]

    wait_until(is_whole, "a whole answer comes")
    return found[-1]


def question(sketch: str, text: str) -> dict[str, Any]:
    return {"sketch": sketch, "delete": DELETED, "measurements": [loss(text)], "confidence": 0.9}


def loss(text: str) -> dict[str, str]:
    return {"kind": "loss", "text": text}


def predict(text: str) -> Request:
    return Request(method="POST", path="/predict", body=question("directions", text))


def random_texts(seed: int) -> Iterator[str]:
    generator = random.Random(seed)
    while True:
        yield "".join(generator.choices(LETTERS, k=7))


def expected(sketch: ResidentSketch, text: str) -> Prediction:
    [answer] = sketch.predict([Measurement(text=text)], DELETED["documents"], Question(confidence=0.9))
    assert isinstance(answer, Prediction)
    return answer


def check(prediction: dict[str, Any], right: Prediction) -> None:
    """Compare an answer that came over HTTP."""
    assert prediction["estimator"] == right.estimator
    assert prediction["missing_share"] == right.missing_share
    for name in ("baseline", "estimate", "standard_error", "interval"):
        assert prediction[name] == pytest.approx(getattr(right, name), rel=1e-9), name


def missing(asked: Asked) -> bool:
    return asked.status == 200 and asked.response.json()["predictions"][0]["missing_share"] > 0  # type: ignore[union-attr]


def replica(service: Service, number: int) -> int:
    """The process of a shard of a service."""
    title = f"ray::ServeReplica:neverseen-{socket.gethostname()}-{service.process.pid}-{number}:"
    [found] = [pid for pid, command in running() if command.startswith(title)]
    return found


def running() -> Iterator[tuple[int, str]]:
    """All processes by their command lines."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            yield int(entry.parent.name), entry.read_text(errors="replace")
