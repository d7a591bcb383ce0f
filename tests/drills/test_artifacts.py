"""Artifacts that are damaged on disk: what is resident answers on, and what can't be loaded keeps no other from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import catalog
from app.catalog import Containing
from app.db import open_database, transaction
from app.settings import Settings
from engine.configuration import SketchConfiguration
from engine.model import ModelConfiguration
from engine.sketch import build
from engine.store import Artifact
from tests.app.conftest import NAMES, register
from tests.drills.processes import Service, environment_of, neverseen, serving


@pytest.fixture(scope="session")
def artifact_with_axes(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A sketch of all kinds: axes, retrained models and random directions, which draws texts, too."""
    configuration = SketchConfiguration(
        model=ModelConfiguration(vocabulary=NAMES.vocabulary, width=8, heads=2, context=6),
        axes=True,
        anchors=64,
        directions=8,
        degree=2,
    )
    return build(NAMES, configuration, tmp_path_factory.mktemp("axes") / "whole")


def overwrite(path: Path) -> None:
    """The same size, and other numbers in the second half."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size - file.tell()))


def cut_off(path: Path) -> None:
    os.truncate(path, 100)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "overwritten": overwrite,
    "cut off": cut_off,
    "removed": lambda path: path.unlink(),
}


@pytest.fixture
def places(tmp_path: Path, sqlite_template: Path, artifact_with_axes: Artifact) -> Iterator[dict[str, Path]]:
    """Where the artifacts of two sketches lie, "damaged" and "whole"."""
    shutil.copy(sqlite_template, tmp_path / "catalog.sqlite")
    settings = Settings(data_dir=tmp_path)
    database = open_database(settings)
    with transaction(database) as session:
        dataset = catalog.add_dataset(session, name="names", documents=NAMES)
        catalog.add_subset(session, dataset=dataset, name="has-x", rule=Containing("x"))
        places = {
            sketch: register(session, settings, dataset, artifact_with_axes, sketch=sketch)
            for sketch in ("damaged", "whole")
        }
    yield places
    database.dispose()


def ask(client: httpx.Client, sketch: str, text: str) -> list[httpx.Response]:
    """A question of each kind."""
    loss = {"kind": "loss", "text": text}
    question = {"sketch": sketch, "delete": {"subset": "has-x"}}
    return [
        client.post("/predict", json=question | {"measurements": [loss, {"kind": "next_token", "prompt": text}]}),
        client.post("/attributions", json={"sketch": sketch, "measurement": loss, "top": 3}),
        client.post("/samples", json=question | {"count": 3}),
    ]


def told(response: httpx.Response) -> dict[str, Any]:
    """An answer without the time that it took, and without the sketch's name."""
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return {key: value for key, value in body.items() if key not in ("elapsed_ms", "sketch")}


def check_same_answers(service: Service, text: str, *, sketches: tuple[str, str]) -> None:
    """Two sketches of the same artifact answer the same."""
    with service.client() as client:
        first, second = (ask(client, sketch, text) for sketch in sketches)
        assert [told(one) for one in first] == [told(one) for one in second]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_resident_sketch_answers_on_when_its_artifact_is_damaged_and_is_refused_when_it_is_loaded_again(
    damage: str, places: dict[str, Path], tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path)
    with serving(settings, tmp_path / "log") as service:
        check_same_answers(service, "max", sketches=("damaged", "whole"))
        for file in list(places["damaged"].iterdir()):
            DAMAGES[damage](file)
        for text in ("max", "bob", "zoe"):  # one that was asked before, and new ones
            check_same_answers(service, text, sketches=("damaged", "whole"))
        service.process.stop()
    with serving(settings, tmp_path / "again.log") as service:
        with service.client() as client:
            for response in ask(client, "damaged", "max"):
                assert response.status_code == 500
                assert response.headers["content-type"] == "application/problem+json"
                assert response.json()["type"] == "urn:neverseen:problem:artifact"
                assert response.json()["detail"].startswith("damaged v1: ")
                assert str(tmp_path) not in response.text
            assert all(response.status_code == 200 for response in ask(client, "whole", "max"))
            ready = client.get("/readyz")
            assert ready.status_code == 200
            assert [one["label"] for one in ready.json()["resident"]] == ["whole v1"]
            assert [one["label"] for one in ready.json()["failed"]] == ["damaged v1"]
        assert "Not served: damaged v1: " in service.process.said
        assert "Traceback" not in service.process.said
        service.process.stop()
    code, said = neverseen(
        "predict", "damaged", "--subset", "has-x", "--text", "max", environment=environment_of(settings)
    )
    assert code == 2
    assert said.startswith("Error: damaged v1: ")
