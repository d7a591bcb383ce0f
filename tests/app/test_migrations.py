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
from sqlalchemy import MetaData, inspect, select, text
from sqlalchemy.orm import Session

from app import catalog
from app.db import MIGRATIONS, connect, migrate, newest_schema, schema_is_current, transaction
from app.errors import SchemaError
from app.secret import Secret
from app.tables import Table, Verification
from engine.documents import Documents
from tests.forked import begin, succeeds


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


def fill(session: Session) -> None:
    """Something in every table."""
    documents = Documents.from_records([("ann", "a"), ("bob", "b"), ("max", "a")])
    dataset = catalog.add_dataset(session, name="names", documents=documents)
    catalog.add_subset(session, dataset=dataset, name="has-x", rule=catalog.Containing("x"))
    for location in ("one", "two"):
        version = catalog.register_version(
            session, sketch="names", dataset=dataset, location=location, checksum="b", configuration={}, size_bytes=1
        )
    session.add(
        Verification(
            id=str(uuid4()),
            version_id=version.id,
            units=[0],
            document_count=2,
            predictions=[{"baseline": 2.0}],
            confidence=0.95,
            state="finished",
            truths=[2.5],
            finished_at=datetime.now(UTC),
        )
    )
    catalog.add_links(session, dataset, [("a", ["a" * 64])])
    catalog.set_report(
        session,
        name="default",
        sketch=catalog.get_sketch(session, "names"),
        measurements=[],
        own_documents=1,
        confidence=0.9,
        materiality_nats=0.1,
        materiality_probability=0.1,
    )
    secret = Secret(b"s" * 32)
    catalog.add_connection(
        session, name="peer", protocol="webhook", options={}, sealed=secret.seal({}), credential_hash=None
    )
    request, _ = catalog.insert_request(
        session,
        source="api",
        caller_id="dsar-1",
        protocol="native",
        body_digest="d",
        mode="predict",
        report="default",
        verify=False,
        due_at=datetime.now(UTC),
        received_at=datetime.now(UTC),
        next_at=datetime.now(UTC),
    )
    catalog.add_delivery(
        session,
        secret,
        connection="peer",
        request_id=request.id,
        kind="event",
        url="https://example.org",
        method="POST",
        headers={},
        body="{}",
    )
    catalog.add_key(session, prefix="abcdefgh", name="reader", hash="c", scopes=["predict"], decimals=3)


def content(url: str) -> dict[str, list[dict[str, object]]]:
    """Every row of every table that there is, as plain values."""
    database = connect(url)
    with database.connect() as connection:
        present = MetaData()
        present.reflect(connection)
        found = {
            name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for name, table in present.tables.items()
            if name != "alembic_version"
        }
    database.dispose()
    return found


REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]


@pytest.mark.parametrize("revision", [*REVISIONS[1:], "base"])
def test_a_migration_that_is_taken_back_keeps_all_that_was_there_before_it(
    alembic: Config, empty_url: str, revision: str
) -> None:
    migrate(empty_url)
    with rows(empty_url) as session:
        fill(session)
    before = content(empty_url)
    assert all(before.values()), "every table is filled"
    command.downgrade(alembic, revision)
    older = content(empty_url)
    migrate(empty_url)
    after = content(empty_url)
    assert set(after) == set(before)
    for table, kept in older.items():
        assert len(kept) == len(before[table]) == len(after[table]), table
        for was, is_now, then in zip(before[table], after[table], kept, strict=True):
            assert {name: was[name] for name in then} == then, table
            assert {name: is_now[name] for name in then} == then, table
    with rows(empty_url) as session:
        assert catalog.verify_chain(session).broken is None


def test_what_a_verification_holds_is_given_back_as_it_was(empty_url: str) -> None:
    migrate(empty_url)
    with rows(empty_url) as session:
        fill(session)
    with rows(empty_url) as session:
        row = session.scalars(select(Verification)).one()
        assert (row.units, row.predictions, row.truths) == ([0], [{"baseline": 2.0}], [2.5])


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
    processes = [begin(program) for _ in range(3)]
    for process in processes:
        assert succeeds(process)
    assert is_current(url)
