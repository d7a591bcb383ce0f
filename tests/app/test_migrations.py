"""The migrations make the schema that the tables describe, go back and forth, and are all or nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text
from sqlalchemy.orm import Session

from app import catalog
from app.db import MIGRATIONS, connect, migrate, newest_schema, schema_is_current, transaction
from app.errors import SchemaError
from app.tables import Table, Verification
from engine.documents import Documents


@pytest.fixture
def alembic(empty_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = empty_url
    return config


def tables(url: str) -> set[str]:
    database = connect(url)
    found = set(inspect(database).get_table_names())
    database.dispose()
    return found


def is_current(url: str) -> bool:
    database = connect(url)
    current = schema_is_current(database)
    database.dispose()
    return current


def test_the_newest_schema_is_what_alembic_says_it_is(alembic: Config) -> None:
    assert newest_schema() == set(ScriptDirectory.from_config(alembic).get_heads())


def test_a_catalog_in_order_is_opened_without_what_takes_long_to_import(empty_url: str) -> None:
    migrate(empty_url)
    program = (
        "import sys, app.__main__; from app.db import open_ready_database; from app.settings import Settings\n"
        f"open_ready_database(Settings(database_url={empty_url!r})).dispose()\n"
        "print({'alembic', 'matplotlib', 'torch._dynamo'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_tables_and_migrations_agree(alembic: Config, empty_url: str) -> None:
    migrate(empty_url)
    command.check(alembic)


def test_constraints_have_the_names_of_the_tables(empty_url: str) -> None:
    """Alembic doesn't compare check constraints, and a name that differs can't be dropped later."""
    migrate(empty_url)
    database = connect(empty_url)
    inspector = inspect(database)
    for table in Table.metadata.sorted_tables:
        made = {check["name"] for check in inspector.get_check_constraints(table.name)}
        made |= {key["name"] for key in inspector.get_foreign_keys(table.name)}
        made |= {unique["name"] for unique in inspector.get_unique_constraints(table.name)}
        made |= {inspector.get_pk_constraint(table.name)["name"]}
        assert made == {constraint.name for constraint in table.constraints}, table.name
    database.dispose()


def test_migrations_go_down_and_up_again(alembic: Config, empty_url: str) -> None:
    assert not is_current(empty_url)
    migrate(empty_url)
    assert is_current(empty_url)
    command.downgrade(alembic, "base")
    assert tables(empty_url) == {"alembic_version"}
    assert not is_current(empty_url)
    migrate(empty_url)
    assert is_current(empty_url)
    assert tables(empty_url) == {"alembic_version", *Table.metadata.tables}


def test_verifications_go_and_the_rest_stays_when_their_migration_is_taken_back(
    alembic: Config, empty_url: str
) -> None:
    migrate(empty_url)
    now = datetime.now(UTC)
    with rows(empty_url) as session:
        documents = Documents.from_records([("ann", None), ("bob", None)])
        dataset = catalog.add_dataset(session, name="names", documents=documents)
        version = catalog.register_version(
            session, sketch="names", dataset=dataset, location="a", checksum="b", configuration={}, size_bytes=1
        )
        session.add(
            Verification(
                id=str(uuid4()),
                version_id=version.id,
                units=[0],
                document_count=1,
                predictions=[{"baseline": 2.0}],
                confidence=0.95,
                state="finished",
                truths=[2.5],
                finished_at=now,
            )
        )
    with rows(empty_url) as session:
        row = session.scalars(select(Verification)).one()
        assert (row.units, row.predictions, row.truths, row.finished_at) == ([0], [{"baseline": 2.0}], [2.5], now)
    command.downgrade(alembic, "0001")
    assert tables(empty_url) == {"alembic_version", *Table.metadata.tables} - {"verifications"}
    migrate(empty_url)
    with rows(empty_url) as session:
        assert session.scalars(select(Verification)).all() == []
        assert catalog.get_version(session, "names").number == 1


@contextmanager
def rows(url: str) -> Iterator[Session]:
    database = connect(url)
    with transaction(database) as session:
        yield session
    database.dispose()


def test_migrating_again_changes_nothing(empty_url: str) -> None:
    migrate(empty_url)
    migrate(empty_url)
    assert is_current(empty_url)


def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    database = connect(empty_url)
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE subsets (id INTEGER)"))  # in the way of the third table
    with pytest.raises(Exception, match="subsets"):
        migrate(empty_url)
    assert tables(empty_url) == {"subsets"}
    database.dispose()


def test_the_schema_of_a_newer_version_is_refused(empty_url: str) -> None:
    migrate(empty_url)
    database = connect(empty_url)
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert not schema_is_current(database)
    database.dispose()
    with pytest.raises(SchemaError, match="use the newer one"):
        migrate(empty_url)


def test_processes_that_migrate_the_same_file_take_turns(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    program = f"from app.db import migrate; migrate({url!r})"
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, cwd=MIGRATIONS.parent)
        for _ in range(3)
    ]
    for process in processes:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint.decode()
    assert is_current(url)
