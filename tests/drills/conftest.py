"""What the drills break: a catalog with a sketch of two versions, on SQLite and on a PostgreSQL cluster of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import catalog
from app.catalog import Containing
from app.db import migrate, open_database, transaction
from app.settings import Settings
from engine.store import Artifact
from tests.app.conftest import (
    NAMES,
    _no_settings_from_outside,
    artifact,
    register,
    sqlite_template,
)
from tests.drills.processes import Cluster, postgresql_programs

__all__ = ["_no_settings_from_outside", "artifact", "sqlite_template"]  # fixtures

ROOT = Path(__file__).parent.parent.parent

TIMES = pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.drill)])
"""How often a drill is repeated: in the ordinary run just enough to know that it works, in `make drills` in earnest."""


@pytest.fixture(scope="session", autouse=True)
def _tests_are_found_by_processes() -> Iterator[None]:
    """Forked processes look up the function that they run by the name of its module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL cluster that runs; who stops it starts it again."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server isn't installed")
    cluster = Cluster(programs)
    yield cluster
    cluster.stop("immediate")
    shutil.rmtree(cluster.directory)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings with a migrated, empty catalog."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "catalog.sqlite")
        return Settings(data_dir=tmp_path)
    cluster: Cluster = request.getfixturevalue("cluster")
    settings = Settings(data_dir=tmp_path, database_url=cluster.new_database())
    migrate(settings.database_url)
    return settings


@pytest.fixture
def served(settings: Settings, artifact: Artifact) -> Settings:
    """The same with the dataset "names", its subset "has-x", and two versions of the sketch "tiny", 2 current."""
    fill(settings, artifact)
    return settings


def fill(settings: Settings, artifact: Artifact, *, sketch: str = "tiny") -> None:
    """Put a dataset, a subset, and two versions of a sketch into a catalog."""
    database = open_database(settings)
    try:
        with transaction(database) as session:
            dataset = catalog.add_dataset(session, name="names", documents=NAMES)
            catalog.add_subset(session, dataset=dataset, name="has-x", rule=Containing("x"))
            for _ in range(2):
                register(session, settings, dataset, artifact, sketch=sketch)
    finally:
        database.dispose()
