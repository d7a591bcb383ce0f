"""Backups: made of a catalog under load, restored, and served by another process that answers the same."""

from __future__ import annotations

import itertools
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url, text
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as command_line
from app.backup import back_up
from app.catalog import BySubset
from app.db import open_database, transaction
from app.errors import ConflictError, NotFoundError, SchemaError
from app.privacy.signing_key import load_signing_key
from app.secret import load_secret
from app.settings import Settings
from app.tables import SketchVersion
from engine import supplements
from engine.errors import ArtifactError, ConfigurationError
from engine.store import Artifact, open_artifact
from tests.app.conftest import NAMES, _no_settings_from_outside, artifact, sqlite_template
from tests.drills.conftest import _tests_are_found_by_processes, cluster, fill, served, settings
from tests.drills.processes import (
    Cluster,
    Load,
    Request,
    Service,
    environment_of,
    neverseen,
    postgresql_programs,
    serving,
    wait_until,
)

__all__ = [  # fixtures
    "_no_settings_from_outside",
    "_tests_are_found_by_processes",
    "artifact",
    "cluster",
    "served",
    "settings",
    "sqlite_template",
]

ANSWERS_BEFORE, ANSWERS_AFTER = 60, 60
TEXTS = ("max", "ann", "zoe", "xena")
ELAPSED = re.compile(rb'"elapsed_ms":[0-9.e+-]+')


class KeyedService(Service):
    """A service that is asked with a key."""

    def __init__(self, service: Service, key: str) -> None:
        super().__init__(service.process, service.port)
        self._headers = {"Authorization": f"Bearer {key}"}

    def client(self) -> httpx.Client:
        client = super().client()
        client.headers.update(self._headers)
        return client


def question(text: str, documents: list[int]) -> Request:
    body = {
        "sketch": "tiny",
        "delete": {"documents": documents} if documents else {"subset": "has-x"},
        "measurements": [{"kind": "loss", "text": text}],
    }
    return Request(method="POST", path="/predict", body=body)


QUESTIONS = [question(text, documents) for text in TEXTS for documents in ([], [1], [2, 5, 8])]


def ever_more(start: int) -> Iterator[Request]:
    """Questions without end, each about other documents."""
    for number in itertools.count(start):
        yield question(TEXTS[number % len(TEXTS)], [number % len(NAMES), (number + 7) % len(NAMES)])


def answers(service: Service) -> list[bytes]:
    """What a service says to all questions, but for the time that it took."""
    with service.client() as client:
        responses = [client.request(one.method, one.path, json=one.body) for one in QUESTIONS]
    assert {response.status_code for response in responses} == {200}
    return [ELAPSED.sub(b"", response.content) for response in responses]


def new_key(settings: Settings) -> str:
    """A key, made as operators do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment_of(settings).items():
            patch.setenv(name, value)
        done = CliRunner().invoke(command_line, ["keys", "create", "asker", "--scope", "predict"])
    assert done.exit_code == 0, done.output
    return done.stdout.split()[-1]


def records(settings: Settings) -> list[dict[str, Any]]:
    """The records of the audit, which is unbroken."""
    database = open_database(settings)
    try:
        with transaction(database, writes=False) as session:
            assert catalog.verify_chain(session).broken is None
            return [catalog.as_line(row) for row in catalog.walk_records(session)]
    finally:
        database.dispose()


def dumped(settings: Settings, place: Path) -> list[str]:
    """What `neverseen backup` is to be given, with PostgreSQL after a dump of the catalog."""
    if settings.database_url.startswith("sqlite"):
        return []
    postgresql("pg_dump", "--format=custom", f"--file={place}", url_of(settings))
    return ["--dump", str(place)]


def restored(backup: Path, settings: Settings, place: Path, request: pytest.FixtureRequest) -> Settings:
    """The settings of an installation made of a backup."""
    shutil.copytree(backup, place)
    if settings.database_url.startswith("sqlite"):
        return Settings(data_dir=place)
    cluster: Cluster = request.getfixturevalue("cluster")
    found = Settings(data_dir=place, database_url=cluster.new_database())
    dump = str(place / "catalog.dump")
    postgresql("pg_restore", "--no-owner", "--single-transaction", f"--dbname={url_of(found)}", dump)
    return found


def url_of(settings: Settings) -> str:
    """A database's URL as PostgreSQL's programs take it."""
    return make_url(settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)


def postgresql(program: str, *arguments: str) -> None:
    programs = postgresql_programs()
    assert programs is not None  # or there would be no cluster
    subprocess.run([programs / program, *arguments], check=True, capture_output=True)


def test_a_backup_made_under_load_is_served_and_answers_the_same_to_the_byte(
    served: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pinned(served, 2)
    key = new_key(served)
    backup = tmp_path / "backups" / "monday"
    with serving(served, tmp_path / "first.log") as service:
        keyed = KeyedService(service, key)
        with Load(keyed, [ever_more(0), ever_more(1000), ever_more(2000)]) as load:
            wait_until(lambda: len(load.asked) >= ANSWERS_BEFORE, "it answers")
            before = list(load.asked)
            dump = dumped(served, tmp_path / "dump")
            code, said = neverseen("backup", str(backup), *dump, environment=environment_of(served))
            meanwhile = len(load.asked) - len(before)
            wait_until(lambda: len(load.asked) >= len(before) + ANSWERS_AFTER, "it goes on answering")
        assert code == 0, said
        assert "artifacts of 2 sketch versions" in said
        assert {one.status for one in load.asked} == {200}
        assert meanwhile > 0  # the load was one
        expected = answers(keyed)

    assert sorted(path.name for path in backup.parent.iterdir()) == ["monday"]
    copy = restored(backup, served, tmp_path / "restored", request)
    with serving(copy, tmp_path / "second.log") as service:
        with service.client() as client:
            assert client.post("/predict", json=QUESTIONS[0].body).status_code == 401
        assert answers(KeyedService(service, key)) == expected

    original, copied = records(served), records(copy)
    held = copied[: -len(QUESTIONS)]  # what the copy has answered itself comes last
    assert original[: len(held)] == held
    assert len(held) < len(original) - len(QUESTIONS)
    known = {record["request_id"] for record in held}
    assert {one.response.headers["X-Request-ID"] for one in before if one.response is not None} <= known


# What is in it


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture
def installation(tmp_path: Path, sqlite_template: Path, artifact: Artifact) -> Settings:
    """A SQLite catalog with the sketch "tiny" of two versions, and a secret."""
    data_dir = tmp_path / "var"
    data_dir.mkdir()
    shutil.copy(sqlite_template, data_dir / "catalog.sqlite")
    settings = Settings(data_dir=data_dir)
    fill(settings, artifact)
    load_secret(settings)
    load_signing_key(settings)
    return settings


def versions(settings: Settings) -> dict[int, SketchVersion]:
    database = open_database(settings)
    try:
        with transaction(database, writes=False) as session:
            sketch = catalog.get_sketch(session, "tiny")
            return {row.number: row for row in catalog.list_versions(session, sketch, limit=10, offset=0).items}
    finally:
        database.dispose()


def place_of(settings: Settings, number: int) -> Path:
    return settings.artifacts_dir / versions(settings)[number].location


def pinned(settings: Settings, number: int) -> Path:
    """The file of a model that was retrained beside a version's artifact."""
    database = open_database(settings)
    try:
        with transaction(database, writes=False) as session:
            dataset = catalog.get_dataset(session, "names")
            units = catalog.resolve_units(session, dataset, BySubset("has-x")).units
    finally:
        database.dispose()
    (file,) = supplements.add(open_artifact(place_of(settings, number)), NAMES, [units])
    return file


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_backup_holds_what_rows_name_and_nothing_else(installation: Settings, tmp_path: Path) -> None:
    beside = pinned(installation, 2)
    (beside.parent / "half.uuid.tmp").write_bytes(b"half")
    for leftover in ("killed.partial", "forgotten"):
        (installation.artifacts_dir / leftover).mkdir()
        (installation.artifacts_dir / leftover / "block").write_bytes(b"block")
    database = open_database(installation)
    with transaction(database) as session:
        catalog.retire(session, sketch="tiny", version=1)
        catalog.delete_version(session, sketch="tiny", version=1)
    database.dispose()
    here = files(installation.artifacts_dir)
    made = back_up(installation, tmp_path / "backup", dump=None, progress=silent)
    copied = files(tmp_path / "backup")
    location = versions(installation)[2].location
    assert {name.removeprefix("artifacts/"): content for name, content in copied.items() if "/" in name} == {
        name: content
        for name, content in here.items()
        if name.split("/")[0] in (location, f"{location}.anchors") and not name.endswith(".tmp")
    }
    assert sorted(name for name in copied if "/" not in name) == ["catalog.sqlite", "secret", "signing-key.pem"]
    assert (made.versions, made.damaged) == (1, ())
    assert made.bytes == sum(map(len, copied.values()))
    for key in ("secret", "signing-key.pem"):
        assert (tmp_path / "backup" / key).read_bytes() == (installation.data_dir / key).read_bytes()


def test_only_its_owner_may_read_a_backup(installation: Settings, tmp_path: Path) -> None:
    back_up(installation, tmp_path / "backup", dump=None, progress=silent)
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700
    for key in ("secret", "signing-key.pem"):
        assert stat.S_IMODE((tmp_path / "backup" / key).stat().st_mode) == 0o600


def test_a_secret_of_the_environment_is_not_copied_and_that_is_said(
    installation: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(installation.data_dir))
    monkeypatch.setenv("NEVERSEEN_SECRET", "s" * 32)
    done = CliRunner().invoke(command_line, ["backup", str(tmp_path / "backup")])
    assert done.exit_code == 0, done.output
    assert "Without NEVERSEEN_SECRET: keep it elsewhere." in done.output
    assert not (tmp_path / "backup" / "secret").exists()


def test_a_damaged_artifact_is_left_out_and_named_and_the_others_are_copied(
    installation: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(installation.data_dir))
    damaged = place_of(installation, 1) / "parameters.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = CliRunner().invoke(command_line, ["backup", str(tmp_path / "backup")])
    assert done.exit_code == 1
    assert "artifacts of 1 sketch version" in done.output
    assert "Damaged: tiny v1: parameters.safetensors has" in done.output
    copied = tmp_path / "backup" / "artifacts"
    assert [path.name for path in copied.iterdir()] == [place_of(installation, 2).name]


def test_a_missing_artifact_is_named(installation: Settings, tmp_path: Path) -> None:
    shutil.rmtree(place_of(installation, 1))
    made = back_up(installation, tmp_path / "backup", dump=None, progress=silent)
    assert made.versions == 1
    (sentence,) = made.damaged
    assert sentence.startswith("tiny v1: There is no artifact")


def test_a_damaged_retrained_model_is_named_and_its_artifact_copied(installation: Settings, tmp_path: Path) -> None:
    beside = pinned(installation, 2)
    beside.write_bytes(beside.read_bytes()[:-1])
    made = back_up(installation, tmp_path / "backup", dump=None, progress=silent)
    assert made.versions == 2
    (sentence,) = made.damaged
    assert sentence.startswith("tiny v2: of the models retrained beside it")


@pytest.mark.parametrize("when", ["at once", "while its version is copied"])
def test_a_retrained_model_that_goes_meanwhile_keeps_its_version_in_the_backup(
    installation: Settings, tmp_path: Path, when: str
) -> None:
    beside = pinned(installation, 2)
    begun = tmp_path / "backup.partial" / "artifacts" / place_of(installation, 2).name

    def removed(done: int, total: int) -> None:
        assert done <= total
        if when == "at once" or begun.exists():
            beside.unlink(missing_ok=True)

    made = back_up(installation, tmp_path / "backup", dump=None, progress=removed)
    assert not beside.exists()
    assert (made.versions, made.damaged) == (2, ())
    assert not list((tmp_path / "backup").rglob(beside.name))


def test_a_catalog_whose_file_is_damaged_is_not_copied(installation: Settings, tmp_path: Path) -> None:
    path = installation.data_dir / "catalog.sqlite"
    content = bytearray(path.read_bytes())
    content[-4096:] = bytes(4096)  # the last page
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="catalog"):
        back_up(installation, tmp_path / "backup", dump=None, progress=silent)
    assert not list(tmp_path.glob("backup*"))


# What is refused


def test_nothing_is_left_of_a_backup_that_was_broken_off(installation: Settings, tmp_path: Path) -> None:
    def interrupted(done: int, total: int) -> None:
        assert (tmp_path / "backup.partial").is_dir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(installation, tmp_path / "backup", dump=None, progress=interrupted)
    assert not list(tmp_path.glob("backup*"))


@pytest.mark.parametrize("there", ["backup", "backup.partial"])
def test_what_is_there_is_not_written_over(installation: Settings, tmp_path: Path, there: str) -> None:
    (tmp_path / there).mkdir()
    with pytest.raises(ConflictError, match=f"{there} is there"):
        back_up(installation, tmp_path / "backup", dump=None, progress=silent)
    assert [path.name for path in tmp_path.glob("backup*")] == [there]


def test_a_backup_is_not_made_among_the_artifacts(installation: Settings) -> None:
    with pytest.raises(ConflictError, match="choose another place"):
        back_up(installation, installation.artifacts_dir / "backup", dump=None, progress=silent)


def test_a_catalog_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no catalog"):
        back_up(Settings(data_dir=tmp_path / "wrong"), tmp_path / "backup", dump=None, progress=silent)
    assert not list(tmp_path.iterdir())


def test_a_catalog_of_another_version_is_neither_copied_nor_migrated(installation: Settings, tmp_path: Path) -> None:
    database = open_database(installation)
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(SchemaError, match="with the version that serves it"):
        back_up(installation, tmp_path / "backup", dump=None, progress=silent)
    with database.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
    database.dispose()


def test_a_dump_is_for_postgresql_alone(installation: Settings, tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(b"PGDMP")
    with pytest.raises(ConfigurationError, match="leave out --dump"):
        back_up(installation, tmp_path / "backup", dump=tmp_path / "dump", progress=silent)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hunter2@db.example.org/neverseen", "postgresql://me@db.example.org/neverseen"),
        (
            "postgresql://db.example.org/neverseen?user=me&password=hunter2&sslpassword=hunter2&sslmode=require",
            "postgresql://db.example.org/neverseen?sslmode=require&user=me",
        ),
    ],
)
def test_postgresql_is_to_be_dumped_first_and_how_is_said_without_the_password(
    tmp_path: Path, url: str, shown: str
) -> None:
    settings = Settings(data_dir=tmp_path, database_url=url)
    with pytest.raises(ConfigurationError) as refused:
        back_up(settings, tmp_path / "backup", dump=None, progress=silent)
    assert f"pg_dump --format=custom --file=catalog.dump '{shown}'" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    (tmp_path / "plain.sql").write_text("-- PostgreSQL database dump")
    with pytest.raises(ConfigurationError, match=r"plain\.sql isn't what pg_dump --format=custom writes"):
        back_up(settings, tmp_path / "backup", dump=tmp_path / "plain.sql", progress=silent)
