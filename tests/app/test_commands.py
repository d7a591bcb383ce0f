"""Commands that bring data in and say what a build will cost, on a catalog of SQLite."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.__main__ import app
from engine.data import census_names, census_subjects

TINY = ("--width", "4", "--heads", "1", "--context", "4", "--degree", "1")


@pytest.fixture
def data_dir(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with an empty catalog, which the commands find."""
    shutil.copy(sqlite_template, tmp_path / "catalog.sqlite")
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(tmp_path))
    return tmp_path


def neverseen(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def words(result: Result) -> str:
    """What was printed, as if nothing had been broken into lines."""
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_bundled_data_are_imported_by_name(data_dir: Path) -> None:
    assert "census-subjects: 1,000 documents, 200 units" in words(
        neverseen("datasets", "add", "--bundled", "census-subjects")
    )
    assert "few: 30 documents, 30 units" in words(
        neverseen("datasets", "add", "--bundled", "census-names", "--limit", "30", "--name", "few")
    )
    listed = words(neverseen("datasets", "list"))
    assert "few" in listed
    assert "yes" in listed  # has subjects


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "exactly one of FILE, --bundled"),
        (("names.txt", "--bundled", "census-names"), "exactly one of FILE, --bundled"),
        (("--bundled", "census"), "'census-names', 'census-subjects'"),
    ],
)
def test_a_dataset_has_one_source(data_dir: Path, arguments: tuple[str, ...], message: str) -> None:
    refused = neverseen("datasets", "add", *arguments)
    assert refused.exit_code == 2
    assert message in " ".join(refused.output.replace("│", " ").split())


def test_a_subject_is_deleted_by_name(data_dir: Path) -> None:
    neverseen("datasets", "add", "--bundled", "census-subjects")
    built = neverseen("sketches", "build", "s", "--dataset", "census-subjects", "--no-axes", "--directions", "2", *TINY)
    assert "s v1 is current" in words(built)
    names = census_subjects()
    count = names.unit_of.count(names.unit_names.index("subject-017"))
    answered = words(neverseen("predict", "s", "--unit", "subject-017", "--text", "ann"))
    assert f"without 1 units ({count} documents)" in answered


def test_what_a_deletion_would_take_away_is_counted_or_listed_and_nothing_is_changed(data_dir: Path) -> None:
    neverseen("datasets", "add", "--bundled", "census-subjects")
    people = census_subjects()
    named = [i for i, text in enumerate(people.texts) if "x" in text]
    units = sorted({people.unit_of[i] for i in named})
    documents = sum(people.unit_of.count(unit) for unit in units)
    said = words(neverseen("datasets", "resolve", "census-subjects", "--contains", "x"))
    names = ", ".join(people.unit_names[unit] for unit in units)
    assert said == f"{len(units):,} units ({documents:,} documents) of census-subjects would be deleted: {names}."
    many = sorted({unit for text, unit in zip(people.texts, people.unit_of, strict=True) if "y" in text})
    said = words(neverseen("datasets", "resolve", "census-subjects", "--contains", "y"))
    first = ", ".join(people.unit_names[unit] for unit in many[:20])
    assert said.endswith(f"would be deleted: {first} and {len(many) - 20:,} more.")
    assert len(many) > 20
    assert "Known" not in words(neverseen("subsets", "add", "census-subjects", "has-x", "--contains", "x"))
    for option, value in (("--contains", "x"), ("--matches", "[x]"), ("--subset", "has-x")):
        answered = neverseen("datasets", "resolve", "census-subjects", option, value, "--json")
        assert json.loads(answered.stdout) == {
            "dataset": "census-subjects",
            "unit_count": len(units),
            "document_count": documents,
            "units": [people.unit_names[unit] for unit in units],
        }
    two = ("--unit", people.unit_names[0], "--unit", people.unit_names[1])
    said = words(neverseen("datasets", "resolve", "census-subjects", *two))
    assert said.startswith("2 units (")
    assert said.endswith(f"would be deleted: {people.unit_names[0]}, {people.unit_names[1]}.")
    listed = words(neverseen("subsets", "list", "census-subjects"))
    assert listed.count("has-x") == 1
    audited = neverseen("audit", "export").stdout.splitlines()
    assert [json.loads(line)["action"] for line in audited] == ["dataset.create", "subset.create"]


@pytest.mark.parametrize(
    "command", [("datasets", "resolve", "census-subjects"), ("subsets", "add", "census-subjects", "some")]
)
@pytest.mark.parametrize("options", [(), ("--contains", "x", "--matches", "x"), ("--unit", "a", "--document", "1")])
def test_a_deletion_is_said_in_one_way(data_dir: Path, command: tuple[str, ...], options: tuple[str, ...]) -> None:
    refused = neverseen(*command, *options)
    assert refused.exit_code == 2
    message = " ".join(refused.output.replace("│", " ").split())
    assert "give exactly one of --contains, --matches, --document, --unit" in message
    assert ("--unit, --subset" in message) == (command[0] == "datasets")


def test_a_dry_run_says_what_would_be_built_and_builds_nothing(data_dir: Path) -> None:
    neverseen("datasets", "add", "--bundled", "census-names", "--limit", "30", "--name", "few")
    options = ("sketches", "build", "s", "--dataset", "few", "--anchors", "32", "--directions", "4", *TINY)
    said = words(neverseen(*options, "--dry-run"))
    assert "30 axes and 497 retrained models (without each, each pair, and anchors) and 4 random directions" in said
    assert "to order 1, from 30 documents" in said
    assert " takes " in said
    assert "MB" in said
    assert "of the work is retraining" in said
    assert "good for the sign" in said
    assert "better --degree 3" in said
    assert not (data_dir / "artifacts").exists()
    assert "s v1" not in words(neverseen("sketches", "list"))
    built = words(neverseen(*options))
    # Time and memory are measured anew each time.
    before, after = re.split(r"takes .* of the work is retraining memory [\d,]+ MiB at most", said)
    assert before in built
    assert after in built
    assert "s v1 is current" in built
    assert "the more stable the training" in built
    assert "takes no time: it has been built" in words(neverseen(*options, "--dry-run"))


def test_a_dry_run_refuses_what_the_build_would(data_dir: Path) -> None:
    for name in ("few", "other"):
        neverseen("datasets", "add", "--bundled", "census-names", "--limit", "12", "--name", name)
    options = ("--no-axes", "--directions", "2", *TINY)
    words(neverseen("sketches", "build", "s", "--dataset", "few", *options))
    for arguments in (("s", "--dataset", "other"), ("s", "--dataset", "nothing")):
        refused = neverseen("sketches", "build", *arguments, *options, "--dry-run")
        assert refused.exit_code != 0
        assert type(refused.exception).__name__ in {"ConflictError", "NotFoundError"}


def test_the_demo_finds_names_that_were_imported_without_its_subsets(data_dir: Path) -> None:
    from app.commands import opened
    from app.commands.demo import CASES, _documents

    neverseen("datasets", "add", "--bundled", "census-names", "--limit", "300")
    with opened() as (_, database):
        assert _documents(database, 300) == census_names().first(300)
    listed = words(neverseen("subsets", "list", "census-names"))
    assert all(case.subset in listed for case in CASES)
