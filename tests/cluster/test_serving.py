"""The service on a Ray cluster: the answers of a single process, shards that are killed, and nothing left behind."""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from tests.cluster.nodes import processes, replica
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
                assert agrees(whole(client, question(sketch, text)), expected(alone, text))
            top = asked(client, "/attributions", {"sketch": sketch, "measurement": loss(text), "top": 3})
            influences = alone.attribute(Measurement(text=text), top=3, confidence=0.95)
            changes = [one["change"] for one in top["raising"]]
            assert changes == pytest.approx([one.change for one in influences.raising], rel=1e-9)
        drawn = asked(client, "/samples", {"sketch": "axes", "delete": DELETED, "count": 3, "seed": 1})
        without = counterfactual_model(sketches.alone["axes"], DELETED["documents"])
        texts_drawn = [sample["counterfactual"] for sample in drawn["samples"]]
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
            whole(client, question("directions", text))
        asked_again = (predict(text) for text in itertools.cycle(known))
        asked_anew = (predict(text) for text in texts)
        with Load(service, [asked_again, asked_anew], pause_seconds=0.01) as load:
            wait_until(lambda: len(load.asked) > 50, "answers come")
            victim = replica(service.process.pid, 1)
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: any(missing(one) for one in load.asked[-20:]), "it is noticed")
            wait_until(lambda: client.get("/readyz").json()["shards"]["away"] == 0, "the shard is back")
            so_far = len(load.asked)
            wait_until(lambda: len(load.asked) > so_far + 50, "answers come")
            wait_until(lambda: all(is_whole(one) for one in load.asked[-20:]), "whole answers come")
        assert all(one.status == 200 or is_away(one.response) for one in load.asked)
        with served(alone.artifact, SHARDS) as without_last, served(alone.artifact, SHARDS) as without_first:
            without_last.processes.kill(1)
            without_first.processes.kill(0)  # as where the machine is busy, and the other one was silent for a while
            for one in load.asked:
                if one.status == 200:
                    [prediction] = one.response.json()["predictions"]  # type: ignore[union-attr]
                    part = [without_last.sketch, without_first.sketch]
                    sources = part if prediction["missing_share"] else [alone]
                    text = prediction["measurement"]["text"]
                    assert any(agrees(prediction, expected(source, text)) for source in sources), prediction
        of_known = [one for one in load.asked if one.request.body["measurements"][0]["text"] in known]
        assert not any(missing(one) for one in of_known)
        assert any(missing(one) for one in load.asked)


def test_a_sketch_with_axes_says_503_for_new_measurements_until_its_shard_is_back(
    sketches: Sharded, tmp_path: Path
) -> None:
    texts = random_texts(3)
    known = next(texts)
    with clustered(sketches.settings, tmp_path) as service, service.client() as client:
        before = asked(client, "/predict", question("axes", known))["predictions"]
        victim = replica(service.process.pid, 0)
        os.kill(victim, signal.SIGKILL)
        refused = client.post("/predict", json=question("axes", next(texts)))
        assert is_away(refused)
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
            wait_until(lambda: not processes(mark), "all of Ray's processes have ended")


DELETED = {"documents": [3, 17, 40]}


def asked(client: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """An answer: a shard of a busy machine may be silent for a while, and is away until it speaks."""
    found: list[httpx.Response] = []

    def is_there() -> bool:
        found.append(client.post(path, json=body))
        return not is_away(found[-1])

    wait_until(is_there, "an answer comes")
    answer: dict[str, Any] = found[-1].raise_for_status().json()
    return answer


def whole(client: httpx.Client, body: Mapping[str, Any]) -> dict[str, Any]:
    """A prediction of all shards, likewise."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found.extend(asked(client, "/predict", body)["predictions"])
        return not found[-1]["missing_share"]

    wait_until(is_there, "a whole answer comes")
    return found[-1]


def is_away(response: httpx.Response | None) -> bool:
    """Whether it was refused since shards are away."""
    return response is not None and response.status_code == 503 and response.json()["type"].endswith("shards-away")


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


def agrees(prediction: dict[str, Any], right: Prediction) -> bool:
    """Whether an answer that came over HTTP is that one."""
    return all(prediction[name] == getattr(right, name) for name in ("estimator", "missing_share")) and all(
        prediction[name] == pytest.approx(getattr(right, name), rel=1e-9)
        for name in ("baseline", "estimate", "standard_error", "interval")
    )


def missing(one: Asked) -> bool:
    return one.status == 200 and one.response.json()["predictions"][0]["missing_share"] > 0  # type: ignore[union-attr]


def is_whole(one: Asked) -> bool:
    return one.status == 200 and not missing(one)
