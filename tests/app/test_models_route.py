"""POST /attributions, POST /samples, and their commands, on real sketches."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors import safe_open
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as commands
from app.db import Database, transaction
from app.settings import Settings
from engine.configuration import FEWEST_ANCHORS
from engine.errors import QuestionError
from engine.measure import Measurement, measure_models
from engine.retrain import retrain
from engine.sketch import build
from engine.store import Artifact
from tests.app.conftest import NAMES, refusal, register

MAX = Measurement(text="max")
HAS_X = [number for number, text in enumerate(NAMES.texts) if "x" in text]


@pytest.fixture(scope="module")
def with_axes(tmp_path_factory: pytest.TempPathFactory, artifact: Artifact) -> Artifact:
    wanted = dataclasses.replace(artifact.manifest.configuration, axes=True, directions=0, anchors=FEWEST_ANCHORS)
    return build(NAMES, wanted, tmp_path_factory.mktemp("artifacts") / "axes")


@pytest.fixture(scope="module")
def axes(lasting_database: Database, lasting_settings: Settings, lasting_sketch: str, with_axes: Artifact) -> str:
    """The name of a sketch with axes beside the one without."""
    assert lasting_sketch
    with transaction(lasting_database) as session:
        register(session, lasting_settings, catalog.get_dataset(session, "names"), with_axes, sketch="axes")
    return "axes"


def post(client: TestClient, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_attributions_name_the_units_that_matter(lasting_service: TestClient, axes: str, with_axes: Artifact) -> None:
    answer = post(lasting_service, "/attributions", sketch=axes, measurement={"kind": "loss", "text": "max"}, top=4)
    configuration = with_axes.manifest.configuration
    models = retrain(NAMES, configuration, [[], *([unit] for unit in range(len(NAMES)))])
    base, *values = measure_models(MAX, configuration.model, models).tolist()
    changes = {str(unit): value - base for unit, value in enumerate(values)}
    assert (answer["sketch"], answer["version"], answer["estimator"]) == ("axes", 1, "retrained")
    assert answer["measurement"] == {"kind": "loss", "text": "max"}
    assert [a["unit"] for a in answer["raising"]] == sorted(changes, key=lambda unit: -changes[unit])[:4]
    assert [a["unit"] for a in answer["lowering"]] == sorted(changes, key=lambda unit: changes[unit])[:4]
    for a in answer["raising"] + answer["lowering"]:
        assert a["change"] == pytest.approx(changes[a["unit"]], rel=1e-5)
        assert (a["text"], a["documents"]) == (NAMES.texts[int(a["unit"])], 1)


def test_attributions_come_from_directions_alone_too(lasting_service: TestClient, lasting_sketch: str) -> None:
    measurement = {"kind": "log_probability", "prompt": "ma", "completion": "x"}
    answer = post(lasting_service, "/attributions", sketch=lasting_sketch, measurement=measurement)
    assert answer["estimator"] == "sphere"
    assert len(answer["raising"]) == len(answer["lowering"]) == 10


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"top": 0}, 422),
        ({"top": len(NAMES) + 1}, 400),
        ({"measurement": {"kind": "next_token", "prompt": "a"}}, 422),
        ({"measurement": {"kind": "weight"}}, 422),
        ({"measurement": {"kind": "log_probability", "completion": ""}}, 400),
        ({"sketch": "nothing"}, 404),
    ],
)
def test_attributions_that_cannot_be_told_are_refused(
    lasting_service: TestClient, lasting_sketch: str, changed: dict[str, Any], status: int
) -> None:
    question = {"sketch": lasting_sketch, "measurement": {"kind": "loss", "text": "max"}} | changed
    refusal(lasting_service.post("/attributions", json=question), status)


def test_samples_of_both_models_come_from_the_same_random_numbers(lasting_service: TestClient, axes: str) -> None:
    question = {"sketch": axes, "delete": {"subset": "has-x"}, "count": 40, "seed": 3}
    answer = post(lasting_service, "/samples", **question)
    assert answer["deleted"] == {"units": len(HAS_X), "documents": len(HAS_X)}
    assert answer["source"] in {"axes", "retrained"}
    pairs = [(sample["baseline"], sample["counterfactual"]) for sample in answer["samples"]]
    assert len(pairs) == 40
    assert 0 < sum(one == two for one, two in pairs) < 40
    again = post(lasting_service, "/samples", **question)
    assert again["samples"] == answer["samples"]
    alone = post(lasting_service, "/samples", **(question | {"delete": {"documents": [0]}}))
    assert alone["source"] == "retrained"
    assert [sample["baseline"] for sample in alone["samples"]] == [one for one, _ in pairs]


def test_without_axes_a_sample_is_refused_with_the_build_that_serves(
    lasting_service: TestClient, lasting_sketch: str
) -> None:
    body = refusal(
        lasting_service.post("/samples", json={"sketch": lasting_sketch, "delete": {"subset": "has-x"}}), 400
    )
    assert "a build with --axes serves this question" in body["detail"]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"count": 0}, 422),
        ({"count": 101}, 422),
        ({"temperature": 0}, 422),
        ({"prompt": "!"}, 400),
        ({"prompt": "aaaaaa"}, 400),
        ({"delete": {"documents": []}}, 400),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(
    lasting_service: TestClient, axes: str, changed: dict[str, Any], status: int
) -> None:
    refusal(lasting_service.post("/samples", json={"sketch": axes, "delete": {"subset": "has-x"}} | changed), status)


def test_the_commands_say_the_same(
    lasting_service: TestClient, axes: str, lasting_settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(lasting_settings.data_dir))
    monkeypatch.setenv("NEVERSEEN_DATABASE_URL", lasting_settings.database_url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(commands, arguments)
        assert done.exception is None, done.output
        return done.output

    answer = post(lasting_service, "/attributions", sketch=axes, measurement={"kind": "loss", "text": "max"}, top=2)
    printed = run("attributions", axes, "--text", "max", "--top", "2")
    for a in answer["raising"] + answer["lowering"]:
        assert f"{a['change']:+.4f}" in printed
        assert a["text"] in printed
    drawn = post(lasting_service, "/samples", sketch=axes, delete={"subset": "has-x"}, count=3, seed=4)
    printed = run("samples", axes, "--subset", "has-x", "--count", "3", "--seed", "4")
    assert all(sample["counterfactual"] in printed for sample in drawn["samples"])
    path = tmp_path / "model.safetensors"
    assert f"without {len(HAS_X)} units" in run("sketches", "materialise", axes, str(path), "--subset", "has-x")
    with safe_open(path, "pt") as file:
        assert "lm_head" in file.keys()  # noqa: SIM118 - not a dictionary
    refused = CliRunner().invoke(commands, ["sketches", "materialise", axes, str(path), "--subset", "has-x"])
    assert refused.exit_code == 2
    refused = CliRunner().invoke(commands, ["samples", "tiny", "--subset", "has-x"])
    assert isinstance(refused.exception, QuestionError)
