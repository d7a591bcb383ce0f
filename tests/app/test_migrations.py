"""The migrations make the schema that the tables describe, go back and forth, and are all or nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text

from app.db import MIGRATIONS, connect, migrate, schema_is_current
from app.errors import SchemaError
from app.tables import Table


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
