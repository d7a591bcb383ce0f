"""A disk that is full: one clear refusal, nothing half done, and the same again works where there is space again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from app import catalog
from app.db import open_database, transaction
from app.settings import Settings
from engine.data import census_names
from engine.store import Artifact, open_artifact
from tests.drills.conftest import fill
from tests.drills.processes import environment_of, neverseen, serving, small_disk, wait_until
from tests.drills.test_kills import check_audit, check_catalog, question

DISK_BYTES: Final = 16 * 2**20
BALLAST: Final = "ballast"
BUILD: Final = (
    *("sketches", "build", "large", "--dataset", "few", "--no-axes", "--directions", "400", "--block", "40"),
    *("--width", "8", "--heads", "2", "--context", "6", "--degree", "2"),
)
"""Of 8 MB, in ten blocks."""

NAMES_FILE: Final = "".join(f"{name}\n" for name in census_names().texts)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        with small_disk(place, size_bytes=DISK_BYTES):
            yield place
    except PermissionError as error:
        pytest.skip(f"no file system can be mounted here: {error}")


def leave(disk: Path, free_bytes: int) -> None:
    """Fill a disk up to so many bytes."""
    with (disk / BALLAST).open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - free_bytes))


def free(disk: Path) -> None:
    (disk / BALLAST).unlink()


def check_one_line(said: str) -> None:
    """A refusal for people: what is wrong, and no trace of the program's inside."""
    assert "Traceback" not in said
    assert said.count("Error: ") == 1


def datasets(settings: Settings) -> list[str]:
    database = open_database(settings)
    with transaction(database, writes=False) as session:
        names = [dataset.name for dataset in catalog.list_datasets(session, limit=1000, offset=0).items]
    database.dispose()
    return names


@pytest.mark.parametrize("free_bytes", [20_000, 5_000_000])
def test_a_build_on_a_full_disk_is_refused_and_goes_on_when_there_is_space(
    disk: Path, tmp_path: Path, sqlite_template: Path, free_bytes: int
) -> None:
    shutil.copy(sqlite_template, tmp_path / "catalog.sqlite")
    settings = Settings(data_dir=tmp_path, artifacts_dir=disk / "artifacts")
    environment = environment_of(settings)
    added = ("datasets", "add", "--bundled", "census-names", "--limit", "60", "--name", "few")
    assert neverseen(*added, environment=environment)[0] == 0
    leave(disk, free_bytes)
    code, said = neverseen(*BUILD, environment=environment)
    assert code == 2, said
    check_one_line(said)
    assert "can't be written: " in said
    assert "No space left on device" in said
    assert not [path for path in (disk / "artifacts").glob("*/*") if path.suffix != ".partial"]
    code, said = neverseen("sketches", "list", environment=environment)
    assert (code, "large" in said) == (0, False), said
    free(disk)
    code, said = neverseen(*BUILD, environment=environment)
    assert code == 0, said
    assert "large v1 is current" in said
    (place,) = (disk / "artifacts").glob("*/*")
    open_artifact(place)


@pytest.fixture
def on_disk(disk: Path, sqlite_template: Path) -> Settings:
    """Settings of an empty catalog on the small disk."""
    shutil.copy(sqlite_template, disk / "catalog.sqlite")
    return Settings(data_dir=disk)


@pytest.mark.parametrize("free_bytes", [0, 200_000])
def test_an_import_on_a_full_disk_is_refused_and_works_when_there_is_space(
    disk: Path, on_disk: Settings, tmp_path: Path, free_bytes: int
) -> None:
    file, environment = tmp_path / "names.txt", environment_of(on_disk)
    file.write_text(NAMES_FILE)
    leave(disk, free_bytes)
    code, said = neverseen("datasets", "add", str(file), environment=environment)
    assert code == 2, said
    check_one_line(said)
    assert said.startswith("Error: There is no space left")
    free(disk)
    assert datasets(on_disk) == []
    code, said = neverseen("datasets", "add", str(file), environment=environment)
    assert code == 0, said
    assert datasets(on_disk) == ["names"]


def test_a_service_on_a_full_disk_refuses_what_it_can_not_record_and_works_when_there_is_space(
    disk: Path, on_disk: Settings, artifact: Artifact, tmp_path: Path
) -> None:
    fill(on_disk, artifact)
    asked, new = question("max").body, {"name": "more", "content": NAMES_FILE}
    with serving(on_disk, tmp_path / "log") as service, service.client() as client:
        before = client.post("/predict", json=asked).json()
        leave(disk, 100_000)
        for _ in range(3):
            check_refusal(client.post("/datasets", json=new))
        assert [one["name"] for one in client.get("/datasets").json()["items"]] == ["names"]
        free(disk)
        leave(disk, 0)
        # What was refused has left some room in the database's file -wal, which is used up first.
        wait_until(lambda: client.post("/predict", json=asked).status_code != 200, "answers can't be recorded")
        for _ in range(10):
            check_refusal(client.post("/predict", json=asked))
        assert client.get("/healthz").status_code == 200
        free(disk)
        after = client.post("/predict", json=asked).json()
        assert {**after, "elapsed_ms": 0} == {**before, "elapsed_ms": 0}
        assert client.post("/datasets", json=new).status_code == 201
        assert "Traceback" not in service.process.said
        service.process.stop()
    check_catalog(on_disk)
    check_audit(on_disk, [])


def check_refusal(response: httpx.Response) -> None:
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0
    assert response.json()["type"] == "urn:neverseen:problem:catalog-full"
    assert response.json()["detail"].startswith("There is no space left")
