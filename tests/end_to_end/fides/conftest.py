"""A Fides server for all tests, and a service with persons in its catalog for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db import Database
from app.settings import Settings
from tests.app.conftest import _no_settings_from_outside, artifact, database, sketch, sqlite_template
from tests.app.privacy.conftest import linked, secret
from tests.drills.conftest import _tests_are_found_by_processes, cluster
from tests.drills.processes import Cluster
from tests.end_to_end.fides.server import Fides, missing, running

__all__ = [
    "_no_settings_from_outside",
    "_tests_are_found_by_processes",
    "artifact",
    "cluster",
    "database",
    "linked",
    "secret",
    "sketch",
    "sqlite_template",
]  # fixtures


@pytest.fixture(scope="session")
def fides(request: pytest.FixtureRequest) -> Iterator[Fides]:
    """A Fides server that runs."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    cluster: Cluster = request.getfixturevalue("cluster")
    with running(cluster) as server:
        yield server


@pytest.fixture
def settings(sqlite_template: Path, tmp_path: Path) -> Settings:
    """Settings with a migrated, empty catalog."""
    shutil.copy(sqlite_template, tmp_path / "catalog.sqlite")
    return Settings(data_dir=tmp_path)


@pytest.fixture
def filled(settings: Settings, linked: str, database: Database) -> Settings:
    """The same with a sketch, a report, and identities that are linked."""
    assert linked
    assert database
    return settings
