"""Pins and the truth on the command line: models are retrained, kept, and shown beside estimates."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app import catalog
from app.__main__ import app
from app.catalog import ByDocuments
from app.db import Database, open_database, transaction
from app.errors import AppError
from app.pinning import MOST_PINS
from app.settings import Settings
from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.measure import Measurement, measure_models
from engine.model import ModelConfiguration
from engine.retrain import retrain
from engine.store import open_artifact
from engine.supplements import read

TEXTS = ("ann", "bob", "max", "xena", "zoe", "maxim", "roxana", "leo")
DOCUMENTS = Documents.from_records((text, None) for text in TEXTS)
SUBSETS = {"has-x": [2, 3, 5, 6], "has-o": [1, 4, 6, 7], "last": [7]}
TINY = ("--width", "4", "--heads", "1", "--context", "6", "--no-axes", "--directions", "8", "--dtype", "float64")
MODEL = ModelConfiguration(vocabulary=DOCUMENTS.vocabulary, width=4, heads=1, context=6)


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A catalog with documents and subsets, which the commands find."""
    shutil.copy(sqlite_template, tmp_path / "catalog.sqlite")
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    database = open_database(Settings())
    with transaction(database) as session:
        dataset = catalog.add_dataset(session, name="few", documents=DOCUMENTS)
        for name, numbers in SUBSETS.items():
            catalog.add_subset(session, dataset=dataset, name=name, rule=ByDocuments(numbers))
    database.dispose()
    return database


def neverseen(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})


def words(result: Result) -> str:
    """What was printed, as if nothing had been broken into lines."""
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


def build(*options: str) -> str:
    return words(neverseen("sketches", "build", "s", "--dataset", "few", *TINY, *options))


def pinned(database: Database, sketch: str = "s", version: int = 1) -> list[list[int]]:
    """The deletion sets that are kept with a version."""
    with transaction(database, writes=False) as session:
        location = catalog.get_version(session, sketch, version).location
    return [list(units) for units in read(open_artifact(Settings().artifacts_dir / location)).sets]


def test_a_build_pins_the_subsets_that_there_are(database: Database) -> None:
    assert "Pinned 3 subsets: the model was retrained without each." in build()
    assert pinned(database) == sorted(SUBSETS.values())
    assert "Pinned 3 subsets" in build()


def test_a_build_can_do_without(database: Database) -> None:
    assert "Pin" not in build("--no-pin")
    assert pinned(database) == []
    assert "Pinned 3 subsets" in build()  # the same version, again
    assert len(pinned(database)) == 3


def test_a_build_pins_no_more_than_the_limit_and_says_so(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_PINS == 64
    with transaction(database) as session:
        for number in range(MOST_PINS):
            rule = ByDocuments([document for document in range(7) if number + 1 >> document & 1])
            catalog.add_subset(session, dataset=catalog.get_dataset(session, "few"), name=f"a-{number:02d}", rule=rule)
    assert "Pinned the first 64 of 67 subsets by name" in build()
    assert [7] not in pinned(database)
    assert len(pinned(database)) == 64


def test_a_dataset_without_subsets_has_nothing_to_pin(database: Database) -> None:
    with transaction(database) as session:
        catalog.add_dataset(session, name="plain", documents=DOCUMENTS)
    assert "no subset to pin" in words(neverseen("sketches", "build", "p", "--dataset", "plain", *TINY))
    assert pinned(database, "p") == []


def test_a_subset_is_pinned_by_name(database: Database) -> None:
    build("--no-pin")
    said = words(neverseen("subsets", "pin", "few", "has-x", "--sketch", "s"))
    assert "Retraining the model of s v1 without has-x: 4 units." in said
    assert "has-x is pinned to s v1" in said
    assert pinned(database) == [SUBSETS["has-x"]]
    assert "pinned to s v1 already" in words(neverseen("subsets", "pin", "few", "has-x", "--sketch", "s"))


def test_a_subset_is_pinned_to_the_version_that_is_named(database: Database) -> None:
    build("--no-pin")
    build("--no-pin", "--seed", "1")
    assert "s v1" in words(neverseen("subsets", "pin", "few", "last", "--sketch", "s", "--version", "1"))
    assert (pinned(database, version=1), pinned(database, version=2)) == ([[7]], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("few", "has-q", "--sketch", "s"), "no subset 'has-q'"),
        (("many", "has-x", "--sketch", "s"), "no dataset 'many'"),
        (("few", "has-x", "--sketch", "t"), "no sketch 't'"),
        (("few", "has-x", "--sketch", "s", "--version", "2"), "no version 2"),
        (("other", "has-x", "--sketch", "s"), "is of the dataset 'few', not 'other'"),
    ],
)
def test_what_can_not_be_pinned_is_refused(database: Database, arguments: tuple[str, ...], message: str) -> None:
    build("--no-pin")
    with transaction(database) as session:
        other = catalog.add_dataset(session, name="other", documents=DOCUMENTS)
        catalog.add_subset(session, dataset=other, name="has-x", rule=ByDocuments([0]))
    refused = neverseen("subsets", "pin", *arguments)
    assert isinstance(refused.exception, AppError)
    assert message in str(refused.exception)
    assert refused.output == ""
    assert pinned(database) == []


def test_a_prediction_is_shown_beside_the_truth(database: Database) -> None:
    build("--no-pin")
    ask = ("predict", "s", "--subset", "has-o", "--text", "leo", "--text", "max")
    said = words(neverseen(*ask, "--downweight", "0.5", "--downweight", "1", "--verify"))
    configuration = SketchConfiguration(model=MODEL, directions=8, dtype="float64")
    models = retrain(DOCUMENTS, configuration, [SUBSETS["has-o"]])
    for text in ("leo", "max"):
        truth = measure_models(Measurement(text=text), MODEL, models).item()
        (row,) = re.findall(rf"│ {text} │ 1 │ .*? │ (\S+) │ (\S+) │ (yes|no) │", said)
        estimate = float(re.findall(rf"│ {text} │ 1 │ \S+ │ (\S+) ", said)[0])
        assert row[0] == f"{truth:.4f}"
        assert float(row[1]) == pytest.approx(truth - estimate, abs=2e-4)
        assert re.search(rf"│ {text} │ 0.5 │ [^│]+│[^│]+│[^│]+│[^│]+│[^│]+│ │ │ │", said)
    assert pinned(database) == [SUBSETS["has-o"]]
    assert "retrained" in words(neverseen(*ask))  # the same question is answered exactly from now on


def test_the_truth_is_one_about_deleting_all_of_it(database: Database) -> None:
    build("--no-pin")
    refused = neverseen("predict", "s", "--subset", "has-o", "--text", "leo", "--downweight", "0.5", "--verify")
    assert refused.exit_code == 2
    assert "downweight be 1" in " ".join(refused.output.replace("│", " ").split())
    assert pinned(database) == []
