"""What is remembered of the catalog answers as the catalog itself would, whoever changes it in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, text

from app import catalog, lookup
from app.catalog import ByDocuments, BySubset, ByUnits, Containing, ResolvedDeletion
from app.db import Database, open_database, transaction
from app.errors import AppError, ConflictError, NotFoundError
from app.kept import KeptReader
from app.lookup import Lookup
from app.main import create_app
from app.predictor import Predictor
from app.serving import Serving
from app.settings import Settings
from engine.documents import Documents
from engine.errors import EngineError
from engine.store import Artifact
from tests.app.conftest import refusal, register
from tests.app.test_predict_route import QUESTION, ask
from tests.forked import begin, succeeds


@pytest.fixture
def looking(database: Database, settings: Settings) -> Iterator[Lookup]:
    predictor = Predictor(device="cpu", resident_bytes=2**30, table_cache_bytes=2**20)
    found = Lookup(database, settings.artifacts, Serving(database, predictor, settings.artifacts))
    yield found
    found.close()


@pytest.fixture
def elsewhere(settings: Settings) -> Iterator[Database]:
    """The catalog as another process sees it: connections of its own, nothing in common."""
    database = open_database(settings)
    yield database
    database.dispose()


def register_another(database: Database, settings: Settings, artifact: Artifact) -> None:
    with transaction(database) as session:
        register(session, settings, catalog.get_dataset(session, "names"), artifact, sketch="tiny")


@contextmanager
def counted_transactions(database: Database) -> Iterator[list[Connection]]:
    begun: list[Connection] = []

    def begin(connection: Connection) -> None:
        begun.append(connection)

    event.listen(database, "begin", begin)
    try:
        yield begun
    finally:
        event.remove(database, "begin", begin)


# What moves


@pytest.mark.usefixtures("sketch")
def test_a_promotion_and_a_retirement_by_another_process_show_in_the_next_answer(
    database: Database, settings: Settings, artifact: Artifact
) -> None:
    register_another(database, settings, artifact)
    program = (
        "from app import catalog; from app.db import open_database, transaction; from app.settings import Settings\n"
        f"database = open_database(Settings(database_url={settings.database_url!r}))\n"
        "with transaction(database) as session:\n"
        "    catalog.promote(session, sketch='tiny', version=1, expected=2)\n"
        "    catalog.retire(session, sketch='tiny', version=2)\n"
    )
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert (ask(client)["version"], ask(client, version=2)["version"]) == (2, 2)
        assert succeeds(begin(program))
        assert ask(client)["version"] == 1
        assert "tiny v2 is retired" in refusal(client.post("/predict", json=QUESTION | {"version": 2}), 409)["detail"]
        assert ask(client, version=1)["version"] == 1


@pytest.mark.usefixtures("sketch")
def test_every_change_is_seen_by_the_question_after_it(
    looking: Lookup, elsewhere: Database, settings: Settings, artifact: Artifact
) -> None:
    current = 1
    for _ in range(3):
        register_another(elsewhere, settings, artifact)
        newest = current + 1
        assert looking.find("tiny", None, BySubset("has-x")).version.number == newest
        for version, expected in ((current, newest), (newest, current)):
            with transaction(elsewhere) as session:
                catalog.promote(session, sketch="tiny", version=version, expected=expected)
            assert looking.find("tiny", None, BySubset("has-x")).version.number == version
        assert looking.find("tiny", current, ByDocuments([0])).version.number == current
        with transaction(elsewhere) as session:
            catalog.retire(session, sketch="tiny", version=current)
        with pytest.raises(ConflictError, match=f"tiny v{current} is retired"):
            looking.find("tiny", current, ByDocuments([0]))
        current = newest


@pytest.mark.usefixtures("sketch")
def test_what_isnt_committed_isnt_seen(
    looking: Lookup, elsewhere: Database, settings: Settings, artifact: Artifact
) -> None:
    register_another(elsewhere, settings, artifact)
    assert looking.find("tiny", None, ByDocuments([0])).version.number == 2
    with transaction(elsewhere) as session:
        catalog.promote(session, sketch="tiny", version=1, expected=2)
        session.flush()
        assert looking.find("tiny", None, ByDocuments([0])).version.number == 2
    assert looking.find("tiny", None, ByDocuments([0])).version.number == 1


@pytest.mark.usefixtures("sketch")
def test_what_is_added_later_is_found_and_was_refused_before(
    looking: Lookup, elsewhere: Database, settings: Settings, artifact: Artifact
) -> None:
    with pytest.raises(NotFoundError, match=r"no subset 'has-z' of the dataset 'names'\. Known: has-x\."):
        looking.find("tiny", None, BySubset("has-z"))
    with pytest.raises(NotFoundError, match=r"'tiny' has no version 2\. Its versions are numbered from 1 to 1\."):
        looking.find("tiny", 2, ByDocuments([0]))
    with pytest.raises(NotFoundError, match=r"no sketch 'other'\. Known: tiny\."):
        looking.find("other", None, ByDocuments([0]))
    with transaction(elsewhere) as session:
        dataset = catalog.get_dataset(session, "names")
        catalog.add_subset(session, dataset=dataset, name="has-z", rule=Containing("z"))
        register(session, settings, dataset, artifact, sketch="tiny")
        register(session, settings, dataset, artifact, sketch="other")
        units = catalog.resolve_units(session, dataset, BySubset("has-z"))
    assert looking.find("tiny", None, BySubset("has-z")).deletion == units
    assert looking.find("tiny", 2, ByDocuments([0])).version.number == 2
    assert looking.find("other", None, ByDocuments([0])).version.sketch == "other"


# What is remembered


@pytest.mark.usefixtures("sketch")
@pytest.mark.parametrize("delete", [ByDocuments([3, 1]), ByUnits(["4", "0"]), BySubset("has-x")])
def test_a_repeated_question_opens_no_transaction(looking: Lookup, database: Database, delete: Any) -> None:
    first = looking.find("tiny", None, delete)
    with counted_transactions(database) as begun:
        assert looking.find("tiny", None, delete) == first
        assert looking.find("tiny", 1, delete) == first
    assert begun == []


@pytest.mark.usefixtures("sketch")
def test_a_dataset_that_is_too_large_to_remember_is_asked_of_the_database(
    looking: Lookup, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = looking.find("tiny", None, ByUnits(["4", "0"]))
    monkeypatch.setattr(lookup, "_MEMBERSHIP_BYTES", 1)
    with counted_transactions(database) as begun:
        assert looking.find("tiny", None, ByUnits(["4", "0"])) == remembered
    assert len(begun) == 1


def outcome(resolve: Any, *arguments: Any) -> ResolvedDeletion | tuple[type[Exception], str]:
    try:
        resolved: ResolvedDeletion = resolve(*arguments)
    except (AppError, EngineError) as error:
        return type(error), str(error)
    return resolved


UNITS_AND_OTHERS = ["ann", "bob", "zoë", "Ann", "", "\0", "\udcff", "0", "1", "5"]
DELETIONS = st.builds(ByDocuments, st.lists(st.integers(-1, 6) | st.just(10**400), max_size=7)) | st.builds(
    ByUnits, st.lists(st.sampled_from(UNITS_AND_OTHERS), max_size=5)
)


# The dataset is shared by all examples, none of which writes.
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(delete=DELETIONS, with_subjects=st.booleans())
def test_memory_resolves_and_refuses_as_the_database_does(
    database: Database, people: Documents, names: Documents, delete: ByDocuments | ByUnits, with_subjects: bool
) -> None:
    name, documents = ("people", people) if with_subjects else ("names", names)
    with transaction(database) as session:
        if name not in [row.name for row in catalog.list_datasets(session, limit=9, offset=0).items]:
            catalog.add_dataset(session, name=name, documents=documents)
        dataset = catalog.get_dataset(session, name)
        held = catalog.hold_membership(session, dataset)
        assert outcome(catalog.resolve_named, held, delete) == outcome(catalog.resolve_units, session, dataset, delete)


# What is quick


@pytest.mark.usefixtures("sketch")
def test_only_what_was_found_before_is_remembered_and_it_is_the_same(
    looking: Lookup, elsewhere: Database, settings: Settings, artifact: Artifact
) -> None:
    for delete in (BySubset("has-x"), ByDocuments([0, 2])):
        assert looking.remembered("tiny", None, delete) is None
        found = looking.find("tiny", None, delete)
        assert looking.remembered("tiny", None, delete) == found
    assert looking.remembered("nobody", None, ByDocuments([0])) is None
    assert looking.remembered("tiny", 7, ByDocuments([0])) is None
    register_another(elsewhere, settings, artifact)
    assert looking.remembered("tiny", None, ByDocuments([0])) is None  # another version, which nobody asked for yet
    assert looking.find("tiny", None, ByDocuments([0])).version.number == 2


@pytest.mark.usefixtures("sketch")
def test_a_reader_that_is_busy_or_not_connected_keeps_nobody_waiting(database: Database) -> None:
    reader = KeptReader(database)
    asked = (catalog.CURRENT_STANDING, {"sketch": "tiny"})
    assert reader.row(*asked, connect=False) is None
    assert reader.row(*asked) == reader.row(*asked, connect=False) == (1, "ready", 0)
    with reader._lock:  # noqa: SLF001 - as while another thread tries to connect
        assert reader.row(*asked) is None
    assert reader.row(*asked) == (1, "ready", 0)
    reader.close()


# The connection that is kept


@pytest.mark.usefixtures("sketch")
def test_a_row_is_read_or_there_is_none(database: Database) -> None:
    reader = KeptReader(database)
    assert reader.row(catalog.CURRENT_STANDING, {"sketch": "tiny"}) == (1, "ready", 0)
    assert reader.row(catalog.NUMBERED_STANDING, {"sketch": "tiny", "number": 1}) == (1, "ready", 0)
    assert reader.row(catalog.NUMBERED_STANDING, {"sketch": "tiny", "number": 2}) is None
    assert reader.row(catalog.CURRENT_STANDING, {"sketch": "nobody"}) is None
    reader.close()
    assert reader.row(catalog.CURRENT_STANDING, {"sketch": "tiny"}) == (1, "ready", 0)
    reader.close()


@pytest.mark.usefixtures("sketch")
@pytest.mark.parametrize("backend", [pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_connection_that_the_server_ended_is_replaced_and_no_question_fails(
    looking: Lookup, elsewhere: Database
) -> None:
    assert looking.find("tiny", None, BySubset("has-x")).version.number == 1
    others = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for _ in range(2):
        with elsewhere.connect() as connection:
            connection.execute(others)
        for _ in range(2):
            assert looking.find("tiny", None, BySubset("has-x")).version.number == 1


def test_a_database_that_is_away_is_nothing_to_read() -> None:
    database = open_database(Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing"))
    assert KeptReader(database).row(catalog.CURRENT_STANDING, {"sketch": "tiny"}) is None
    database.dispose()
