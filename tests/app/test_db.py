"""The transaction: whole or not at all, and committed before anybody is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, insert, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app import catalog
from app.db import Database, migrate, open_database, transaction
from app.errors import SchemaError
from app.main import create_app
from app.settings import Settings
from app.tables import Document
from engine.documents import Documents
from tests.app.conftest import refusal


def test_an_error_takes_everything_back(database: Database, names: Documents) -> None:
    def write_and_fail() -> None:
        with transaction(database) as session:
            catalog.add_dataset(session, name="names", documents=names)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with transaction(database, writes=False) as session:
        assert catalog.list_datasets(session, limit=1, offset=0).total == 0


def test_foreign_keys_are_enforced(database: Database) -> None:
    stray = {"dataset_id": 1, "number": 0, "unit_number": 0, "text": "x"}
    with pytest.raises(IntegrityError), transaction(database) as session:
        session.execute(insert(Document), [stray])


def test_a_reader_sees_one_state_and_a_writer_doesnt_wait_for_it(database: Database, names: Documents) -> None:
    with transaction(database, writes=False) as reader:
        assert catalog.list_datasets(reader, limit=1, offset=0).total == 0
        with transaction(database) as writer:
            catalog.add_dataset(writer, name="names", documents=names)
        if database.dialect.name == "sqlite":  # PostgreSQL's transactions see what others commit
            assert catalog.list_datasets(reader, limit=1, offset=0).total == 0
    with transaction(database, writes=False) as reader:
        assert catalog.list_datasets(reader, limit=1, offset=0).total == 1


def test_a_second_writer_waits_for_the_first(database: Database, names: Documents) -> None:
    """On SQLite a transaction that reads first and writes then would fail, had another one written in between."""
    inside = threading.Event()

    def write_slowly() -> None:
        with transaction(database) as session:
            inside.set()
            time.sleep(0.2)
            catalog.add_dataset(session, name="first", documents=names)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    assert inside.wait(timeout=10)
    with transaction(database) as session:
        catalog.list_datasets(session, limit=1, offset=0)
        catalog.add_dataset(session, name="second", documents=names)
    thread.join()
    with transaction(database, writes=False) as session:
        assert [row.name for row in catalog.list_datasets(session, limit=9, offset=0).items] == ["first", "second"]


@contextmanager
def failing_commits() -> Iterator[None]:
    def fail(session: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("disk full"))

    event.listen(Session, "before_commit", fail)
    try:
        yield
    finally:
        event.remove(Session, "before_commit", fail)


def test_the_commit_precedes_the_answer(client: TestClient) -> None:
    with failing_commits():
        response = client.post("/datasets", json={"name": "names", "content": "ann\nbob"})
    refusal(response, 503)
    assert response.headers["retry-after"]
    assert client.get("/datasets").json()["total"] == 0


def test_a_server_that_is_away_is_noticed_when_it_is_needed() -> None:
    database = open_database(Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing"))
    with pytest.raises(OperationalError), transaction(database) as session:
        session.execute(text("SELECT 1"))
    database.dispose()


def test_a_sqlite_catalog_is_made_at_the_start(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(data_dir=tmp_path / "new" / "place")), base_url="http://127.0.0.1") as client:
        assert client.get("/datasets").json()["items"] == []
    assert (tmp_path / "new" / "place" / "catalog.sqlite").exists()


def test_a_schema_that_isnt_the_newest_is_never_served(empty_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=empty_url)
    migrate(empty_url)
    database = open_database(settings)
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.dispose()
    with pytest.raises(SchemaError), TestClient(create_app(settings), base_url="http://127.0.0.1"):
        pass


@pytest.mark.parametrize("backend", [pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_postgresql_catalog_is_migrated_by_command_only(empty_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=empty_url)
    with (
        pytest.raises(SchemaError, match="neverseen db upgrade"),
        TestClient(create_app(settings), base_url="http://127.0.0.1"),
    ):
        pass
    migrate(empty_url)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert client.get("/datasets").status_code == 200
