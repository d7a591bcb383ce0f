"""Catalogs to test on: one of SQLite for every test, and one of PostgreSQL where TEST_DATABASE_URL names a server.

Both are made by the migrations, once; each test finds one empty. Nothing is taken from the environment of
whoever runs the tests.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import URL, create_engine, insert, make_url, text
from sqlalchemy.orm import Session

from app import catalog
from app.catalog import Containing
from app.catalog.audit import NO_HASH
from app.db import Database, migrate, open_database, transaction
from app.main import create_app
from app.settings import Settings
from app.tables import AuditChain, Dataset, Table
from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.model import ModelConfiguration
from engine.sketch import build
from engine.store import Artifact

_NAMES = """
    ann anna bob bella dana dean ella emma ida jan joan joe liam leo max maxim mia nina noa otto rex roxana sam sara tom
    xena xavi zoe zena zara
"""
NAMES = Documents.from_records((name, None) for name in _NAMES.split())


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NEVERSEEN_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> URL:
    """The PostgreSQL server to test on, with a user who may create databases."""
    if "TEST_DATABASE_URL" not in os.environ:
        pytest.skip("TEST_DATABASE_URL names no PostgreSQL server")
    return make_url(Settings(database_url=os.environ["TEST_DATABASE_URL"]).database_url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_catalog(postgres_server: URL) -> Iterator[URL]:
    """A migrated PostgreSQL database, which each test leaves empty."""
    with scratch_database(postgres_server) as url:
        migrate(url.render_as_string(hide_password=False))
        yield url


@contextmanager
def scratch_database(server: URL) -> Iterator[URL]:
    """A database of its own on a PostgreSQL server, dropped at the end."""
    name = f"neverseen_test_{uuid4().hex}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@contextmanager
def emptied(url: URL) -> Iterator[str]:
    """The URL of a PostgreSQL database whose tables are emptied at the end; making databases is ten times slower."""
    yield url.render_as_string(hide_password=False)
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))  # what a test left open shall not stop the others
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # without the triggers of the audit
        connection.execute(text(f"TRUNCATE {', '.join(Table.metadata.tables)} RESTART IDENTITY"))
        connection.execute(insert(AuditChain).values(id=1, length=0, head=NO_HASH))
    admin.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database."""
    kind: str = request.param
    return kind


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite'}"
    else:
        with scratch_database(request.getfixturevalue("postgres_server")) as url:
            yield url.render_as_string(hide_password=False)


@pytest.fixture
def settings(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings with a migrated, empty catalog."""
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "catalog.sqlite")
        yield Settings(data_dir=tmp_path)
    else:
        with emptied(request.getfixturevalue("postgres_catalog")) as url:
            yield Settings(data_dir=tmp_path, database_url=url)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The catalog's database."""
    database = open_database(settings)
    yield database
    database.dispose()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A transaction of the catalog."""
    with transaction(database) as session:
        yield session


@pytest.fixture
def names() -> Documents:
    """Documents without subjects: each is a unit."""
    return Documents.from_records((text, None) for text in ("ann", "bob", "max", "Max", "zoe", "xena"))


@pytest.fixture
def people() -> Documents:
    """Documents of three subjects: ann has 0, 2 and 5, bob has 1, zoë has 3 and 4."""
    subjects = ("ann", "bob", "ann", "zoë", "zoë", "ann")
    return Documents.from_records((f"text {i}", subject) for i, subject in enumerate(subjects))


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A real sketch of `NAMES`, of degree 2 along 64 directions."""
    configuration = SketchConfiguration(
        model=ModelConfiguration(vocabulary=NAMES.vocabulary, width=8, heads=2, context=6),
        directions=64,
        degree=2,
        dtype="float64",
    )
    return build(NAMES, configuration, tmp_path_factory.mktemp("artifacts") / "tiny")


@pytest.fixture
def sketch(database: Database, settings: Settings, artifact: Artifact) -> str:
    """The name of a sketch in the catalog, of the dataset "names"."""
    with transaction(database) as session:
        dataset = catalog.add_dataset(session, name="names", documents=NAMES)
        catalog.add_subset(session, dataset=dataset, name="has-x", rule=Containing("x"))
        register(session, settings, dataset, artifact, sketch="tiny")
    return "tiny"


def register(session: Session, settings: Settings, dataset: Dataset, artifact: Artifact, *, sketch: str) -> Path:
    """Copy an artifact to the catalog's and register it as a new version; where it now is."""
    location = f"{sketch}-{uuid4().hex}"
    shutil.copytree(artifact.path, settings.artifacts_dir / location)
    catalog.register_version(
        session,
        sketch=sketch,
        dataset=dataset,
        location=location,
        checksum=artifact.checksum,
        configuration=asdict(artifact.manifest.configuration),
        size_bytes=artifact.manifest.size_bytes,
    )
    return settings.artifacts_dir / location


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The running application; what crashes it is answered, not raised here."""
    with TestClient(create_app(settings), raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client


def until(happens: Callable[[], bool], *, seconds: float = 20) -> bool:
    """Whether something happens in time, looked at again and again."""
    end = time.monotonic() + seconds
    while not (happened := happens()) and time.monotonic() < end:
        time.sleep(0.02)
    return happened


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """The body of a refusal, after a check of its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"type", "title", "status", "detail", "errors"}
    assert body["status"] == status
    assert body["type"].startswith("urn:neverseen:problem:")
    assert body["detail"]
    assert len(response.content) < 8_000  # whatever the request was
    return body
