"""Commands on a cluster that has GPUs, given on a machine that has none: here a place that stands for the cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as command_line
from app.catalog import ByDocuments
from app.db import migrate, open_database, transaction
from app.settings import Settings
from engine import supplements
from engine.__main__ import app as engine_command_line
from engine.blocks import Job
from engine.configuration import Block
from engine.data import census_names
from engine.retrain import retrain
from engine.sketch import Here
from engine.store import File, open_artifact
from engine.workers import Report

Result = TypeVar("Result")
TINY = ("--width", "4", "--heads", "1", "--anchors", "40", "--no-pairs", "--block", "20")


class Elsewhere:
    """What `engine.cluster.Cluster` is, with processors that count as GPUs."""

    sentence = "On a cluster of 1 node: 1 GPU."

    def __init__(self) -> None:
        self.retrained_on: list[str] = []

    def workers(self, device: str) -> int:
        """One GPU."""
        return 1

    def named(self, device: str) -> str:
        """A processor in truth."""
        assert device == "cuda"
        return "cpu"

    def once(self, device: str, function: Callable[..., Result], /, *arguments: object) -> Result:
        """What the function gives."""
        return function(*arguments)

    def train_blocks(self, job: Job, blocks: Sequence[Block], *, report: Report) -> Mapping[str, File]:
        """Train and write some blocks."""
        return Here().train_blocks(replace(job, device="cpu"), blocks, report=report)

    def retrain(self, *arguments: Any, device: str, **options: Any) -> Any:
        """Train models."""
        self.retrained_on.append(device)
        return retrain(*arguments, **options)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """The cluster of all commands."""
    place = Elsewhere()

    @contextmanager
    def on_cluster(address: str | None, **_: object) -> Iterator[Elsewhere | None]:
        yield None if address is None else place

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for module in ("app.commands.sketches", "engine.__main__"):
        monkeypatch.setattr(f"{module}.on_cluster", on_cluster)
    return place


def said(*arguments: str, command: Any = command_line) -> str:
    result = CliRunner().invoke(command, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, (result.output, result.exception)
    return " ".join(result.output.split())


def test_a_machine_without_a_gpu_builds_pins_and_evaluates_on_a_cluster_that_has_some(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NEVERSEEN_DEVICE", "cuda")
    settings = Settings()
    migrate(settings.database_url)
    database = open_database(settings)
    with transaction(database) as session:
        dataset = catalog.add_dataset(session, name="names", documents=census_names().first(20))
        catalog.add_subset(session, dataset=dataset, name="three", rule=ByDocuments([1, 2, 3]))
    told = said("sketches", "build", "s", "--dataset", "names", *TINY, "--cluster", "auto")
    assert "s v1 is current" in told
    assert 0 < told.index("Pinned 1 subsets") < told.index("What single units do")
    evaluated = said("sketches", "evaluate", "s", "--size", "5", "--count", "2", "--cluster", "auto")
    assert "random" in evaluated
    assert set(elsewhere.retrained_on) == {"cuda"}
    with transaction(database, writes=False) as session:
        place = settings.artifacts_dir / catalog.get_version(session, "s", 1).location
    database.dispose()
    assert supplements.read(open_artifact(place)).sets == [(1, 2, 3)]


def test_the_engine_alone_does_so_too(elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join(census_names().first(20).texts))
    there = ("--device", "cuda", "--cluster", "auto")
    engine = functools.partial(said, command=engine_command_line)
    built = engine("build", "names.txt", "a", "--axes", "--directions", "0", *TINY, *there)
    assert "What single units do" in built
    assert "random" in engine("evaluate", "a", "names.txt", "--size", "5", "--count", "2", *there)
    assert set(elsewhere.retrained_on) == {"cuda"}
