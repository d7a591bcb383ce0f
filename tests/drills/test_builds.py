"""Builds that are killed at any moment: nothing unfinished is ever taken for an artifact, and a rerun finishes."""

from __future__ import annotations

import os
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from app import catalog
from app.db import open_database, transaction
from app.settings import Settings
from engine.data import census_names
from engine.store import File, open_artifact
from tests.drills.processes import Neverseen, environment_of, neverseen, running, wait_until

BUILD = (
    *("sketches", "build", "killed", "--dataset", "few", "--width", "8", "--heads", "2", "--context", "6"),
    *("--degree", "2", "--anchors", "64", "--no-pairs"),
)
BUILDS = {
    "native": (*BUILD, "--axes", "--directions", "500", "--block", "16"),
    "torch": (*BUILD, "--no-axes", "--directions", "360", "--block", "45"),
}
"""Each worth two workers. Where a build finds a compiler they are threads of native code, else processes of torch."""

DATASET = census_names().first(60)
SEED = 20


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A build that nobody disturbed: what it made, and its seconds from the first file to the end."""

    files: dict[str, File]
    seconds: float


def data_dir(path: Path, template: Path) -> Settings:
    """Settings of a directory with nothing but a dataset in its catalog."""
    path.mkdir()
    shutil.copy(template, path / "catalog.sqlite")
    settings = Settings(data_dir=path)
    database = open_database(settings)
    with transaction(database) as session:
        catalog.add_dataset(session, name="few", documents=DATASET)
    database.dispose()
    return settings


def environment(settings: Settings, how: str) -> dict[str, str]:
    """Of a build that finds a compiler, or none."""
    return environment_of(settings) | ({} if how == "native" else {"PATH": os.devnull})


def begun(process: Neverseen, settings: Settings) -> float:
    """The moment at which a build's first file is written."""

    def there() -> bool:
        assert process.code is None, process.said
        return any(settings.artifacts_dir.glob("*/*.partial/*"))

    wait_until(there, "the build begins")
    return time.monotonic()


def versions(settings: Settings) -> list[dict[str, File]]:
    """The files of the versions in the catalog, each of them opened, which compares them with their checksums."""
    database = open_database(settings)
    try:
        with transaction(database, writes=False) as session:
            assert catalog.load_documents(session, catalog.get_dataset(session, "few")) == DATASET
            rows = [
                row
                for sketch in catalog.list_sketches(session, limit=1000, offset=0).items
                for row in catalog.list_versions(session, sketch, limit=1000, offset=0).items
            ]
            assert all(row.is_current for row in rows)
        places = [(settings.artifacts_dir / row.location, row.checksum) for row in rows]
        return [open_artifact(place, checksum=checksum).manifest.files for place, checksum in places]
    finally:
        database.dispose()


@pytest.fixture(scope="module")
def undisturbed(how: str, tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Undisturbed:
    place = tmp_path_factory.mktemp("undisturbed")
    settings = data_dir(place / "var", sqlite_template)
    with running(*BUILDS[how], environment=environment(settings, how), log=place / "log") as process:
        first = begun(process, settings)
        assert process.wait() == 0, process.said
        seconds = time.monotonic() - first
    [files] = versions(settings)
    return Undisturbed(files=files, seconds=seconds)


@pytest.mark.parametrize(
    ("how", "times"),
    [
        ("native", 2),
        pytest.param("native", 20, marks=pytest.mark.drill),
        pytest.param("torch", 8, marks=pytest.mark.drill),  # half a minute each
    ],
    scope="module",
)
def test_a_build_that_is_killed_leaves_nothing_half_done_and_its_rerun_finishes_the_same(
    how: str, times: int, undisturbed: Undisturbed, tmp_path: Path, sqlite_template: Path
) -> None:
    moments = random.Random(SEED)
    unfinished = 0
    for number in range(times):
        settings = data_dir(tmp_path / str(number), sqlite_template)
        variables = environment(settings, how)
        with running(*BUILDS[how], environment=variables, log=tmp_path / f"{number}.log") as process:
            begun(process, settings)
            if number:  # the first kill comes at once: it surely isn't too late, however fast the machine is by now
                time.sleep(undisturbed.seconds * (number + moments.random()) / times)
            process.kill()
            wait_until(lambda: not process.orphans(), "the workers notice that the build is gone")
        registered = versions(settings)  # which opens them
        unfinished += not registered
        finished = [path for path in settings.artifacts_dir.glob("*/*") if path.suffix != ".partial"]
        assert len(registered) <= len(finished) <= 1
        for path in finished:
            assert open_artifact(path).manifest.files == undisturbed.files
        code, said = neverseen("sketches", "list", environment=variables)
        assert (code, said.count("killed")) == (0, len(registered)), said
        code, said = neverseen(*BUILDS[how], environment=variables)
        assert code == 0, said
        assert "killed v1 is current" in said
        assert versions(settings) == [undisturbed.files]
        assert not list(settings.artifacts_dir.rglob("*.partial"))
    assert unfinished > 0
