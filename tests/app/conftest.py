"""Catalogs to test on: one of SQLite for every test, and one of PostgreSQL where TEST_DATABASE_URL names a server.

Both are made by the migrations, once; each test finds one empty. Nothing is taken from the environment of
whoever runs the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import trustme
from fastapi.testclient import TestClient
from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, make_url, text
from sqlalchemy.orm import Session
from sqlalchemy.util import LRUCache

from app import catalog
from app.access import BELIEVED_SECONDS
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
from tests.forked import FORKS

_NAMES = """
    ann anna bob bella dana dean ella emma ida jan joan joe liam leo max maxim mia nina noa otto rex roxana sam sara tom
    xena xavi zoe zena zara
"""
NAMES = Documents.from_records((name, None) for name in _NAMES.split())


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_settings(monkeypatch)


def _without_settings(patch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NEVERSEEN_"):
            patch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _statements_are_compiled_once() -> Iterator[None]:
    """Each test opens databases anew, and SQLAlchemy keeps what it compiles with one of them: half of a test's time."""
    kept: dict[str, tuple[Any, LRUCache[Any, Any]]] = {}

    def share(connection: Connection) -> None:
        dialect = connection.dialect
        connection.dialect, cache = kept.setdefault(dialect.name, (dialect, LRUCache(5_000)))
        connection.execution_options(compiled_cache=cache)

    event.listen(Engine, "engine_connect", share)
    yield
    event.remove(Engine, "engine_connect", share)


@pytest.fixture(scope="session", autouse=True)
def _one_authority_is_trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each application loads the authorities that are trusted, twice: those of all the world take 20 ms each time."""
    path = tmp_path_factory.mktemp("authorities") / "one.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("certifi.where", lambda: str(path))
        yield


_get_context = multiprocessing.get_context


@pytest.fixture(scope="session", autouse=True)
def _processes_start_soon() -> Iterator[None]:
    """Who spawns a process gets one that is forked from one that has imported everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            multiprocessing, "get_context", lambda method: FORKS if method == "spawn" else _get_context(method)
        )
        yield


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started as they are outside of tests."""
    monkeypatch.setattr(multiprocessing, "get_context", _get_context)


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
    """The URL of a PostgreSQL database that is emptied at the end; DELETE is ten times quicker than TRUNCATE."""
    yield url.render_as_string(hide_password=False)
    admin = create_engine(url)
    with admin.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))  # what a test left open shall not stop the others
        # Without triggers: those of the audit refuse, and those of foreign keys would ask for an order.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("; ".join(f"DELETE FROM {table}" for table in Table.metadata.tables)))
        connection.execute(text("SELECT setval(CAST(sequencename AS regclass), 1, false) FROM pg_sequences"))
        connection.execute(insert(AuditChain).values(id=1, length=0, head=NO_HASH))
    admin.dispose()


BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=BACKENDS)
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
    return add_sketch(database, settings, artifact)


def add_sketch(database: Database, settings: Settings, artifact: Artifact) -> str:
    """Put the dataset "names", its subset "has-x", and the sketch "tiny" into a catalog; the sketch's name."""
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
def believed_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long the catalog is believed about keys: less than the five seconds that it is, which nobody waits for."""
    assert BELIEVED_SECONDS == 5
    monkeypatch.setattr("app.access.BELIEVED_SECONDS", 0.3)
    return 0.3


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The running application; what crashes it is answered, not raised here."""
    with running(settings) as client:
        yield client


@contextmanager
def running(settings: Settings) -> Iterator[TestClient]:
    """The application, running; what crashes it is answered, not raised here."""
    with TestClient(create_app(settings), raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        yield client


# What all tests of a file share that change nothing in it: a catalog and an application take longer than a question.


@pytest.fixture(scope="module", params=BACKENDS)
def lasting_settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with a migrated catalog."""
    with new_catalog(request, tmp_path_factory.mktemp("lasting")) as settings:
        yield settings


@contextmanager
def new_catalog(request: pytest.FixtureRequest, place: Path) -> Iterator[Settings]:
    """Settings with a migrated catalog of the kind that a fixture has as its parameter."""
    with ExitStack() as stack:
        url = f"sqlite:///{place / 'catalog.sqlite'}"
        if request.param == "sqlite":
            shutil.copy(request.getfixturevalue("sqlite_template"), place / "catalog.sqlite")
        else:
            found = stack.enter_context(scratch_database(request.getfixturevalue("postgres_server")))
            url = found.render_as_string(hide_password=False)
            migrate(url)
        with pytest.MonkeyPatch.context() as patch:
            _without_settings(patch)
            settings = Settings(data_dir=place, database_url=url)
        yield settings


@pytest.fixture(scope="module")
def lasting_database(lasting_settings: Settings) -> Iterator[Database]:
    """The catalog's database."""
    database = open_database(lasting_settings)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def lasting_sketch(lasting_database: Database, lasting_settings: Settings, artifact: Artifact) -> str:
    """The name of a sketch in the catalog, of the dataset "names"."""
    return add_sketch(lasting_database, lasting_settings, artifact)


@pytest.fixture(scope="module")
def lasting_client(lasting_settings: Settings) -> Iterator[TestClient]:
    """The running application, with an empty catalog."""
    with running(lasting_settings) as client:
        yield client


@pytest.fixture(scope="module")
def lasting_service(lasting_settings: Settings, lasting_sketch: str) -> Iterator[TestClient]:
    """The running application, whose catalog has a sketch."""
    assert lasting_sketch
    with running(lasting_settings) as client:
        yield client


def until(happens: Callable[[], bool], *, seconds: float = 60) -> bool:
    """Whether something happens in time, looked at again and again."""
    end = time.monotonic() + seconds
    while not (happened := happens()) and time.monotonic() < end:
        time.sleep(0.02)
    return happened


@contextmanager
def about(case: object) -> Iterator[None]:
    """Of what fails in the block, it is said which of many cases it was."""
    try:
        yield
    except AssertionError as error:
        error.add_note(f"The case: {case!r:.300}")
        raise


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
