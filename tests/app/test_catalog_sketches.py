"""Sketches and versions: numbering, the current version, and who wins when two want to move it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app import catalog
from app.db import Database, transaction
from app.errors import ConflictError, InvalidTextError, NotFoundError
from app.tables import Dataset, SketchVersion
from engine.documents import Documents


@pytest.fixture
def dataset(database: Database, names: Documents) -> Dataset:
    with transaction(database) as session:
        return catalog.add_dataset(session, name="names", documents=names)


def register(session: Session, dataset: Dataset, place: str, **changed: Any) -> SketchVersion:
    """Register an artifact that only the catalog believes in."""
    given: dict[str, Any] = {
        "sketch": "names",
        "dataset": dataset,
        "location": f"names/{place}",
        "checksum": f"checksum of {place}",
        "configuration": {"degree": 3, "model": {"width": 16}, "rate": 0.01},
        "size_bytes": 5 * 2**31,  # more than 32 bits hold
    }
    return catalog.register_version(session, **given | changed)


def test_versions_are_numbered_and_the_last_is_current(session: Session, dataset: Dataset) -> None:
    for number in (1, 2, 3):
        assert register(session, dataset, f"place-{number}").number == number
        current = catalog.get_version(session, "names")
        assert (current.number, current.is_current, current.label) == (number, True, f"names v{number}")
    sketch = catalog.get_sketch(session, "names")
    assert (sketch.current_number, sketch.dataset.name) == (3, "names")
    listed = catalog.list_versions(session, sketch, limit=2, offset=0)
    assert ([version.number for version in listed.items], listed.total) == ([3, 2], 3)
    assert [version.is_current for version in listed.items] == [True, False]
    assert [version.label for version in catalog.current_versions(session)] == ["names v3"]


def test_a_version_is_read_as_it_was_written(database: Database, dataset: Dataset) -> None:
    with transaction(database) as session:
        written = register(session, dataset, "place")
    with transaction(database, writes=False) as session:
        read = catalog.get_version(session, "names", 1)
    assert (read.size_bytes, read.state, read.location) == (5 * 2**31, "ready", "names/place")
    assert read.configuration == {"degree": 3, "model": {"width": 16}, "rate": 0.01}
    assert read.created_at == written.created_at
    assert read.created_at.utcoffset() is not None


def test_the_same_artifact_again_is_the_same_version(session: Session, dataset: Dataset) -> None:
    first = register(session, dataset, "place-1")
    second = register(session, dataset, "place-2")
    assert catalog.get_version(session, "names") is second
    assert register(session, dataset, "place-1") is first
    assert catalog.get_version(session, "names") is first  # built again, and so meant to be served


def test_another_artifact_at_a_known_place_is_refused(session: Session, dataset: Dataset) -> None:
    register(session, dataset, "place")
    with pytest.raises(ConflictError, match="location of names v1 now holds another artifact"):
        register(session, dataset, "place", checksum="another")


def test_a_sketch_stays_with_its_dataset(session: Session, dataset: Dataset, people: Documents) -> None:
    register(session, dataset, "place")
    other = catalog.add_dataset(session, name="people", documents=people)
    with pytest.raises(ConflictError, match="'names' is one of another dataset than 'people'"):
        register(session, other, "place-2")
    with pytest.raises(ConflictError, match="'names' is one of another dataset than 'people'"):
        catalog.check_sketch(session, "names", "people")
    catalog.check_sketch(session, "names", "names")
    catalog.check_sketch(session, "new", "people")
    assert catalog.list_sketches(session, limit=9, offset=0).total == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sketch": "Names"}, "can't name a sketch"),
        ({"location": "/etc"}, "within the artifacts directory"),
        ({"location": "names/../../etc"}, "within the artifacts directory"),
        ({"location": ""}, "within the artifacts directory"),
        ({"location": "names\\v1"}, "within the artifacts directory"),
        ({"location": "names/\0"}, "unprintable"),
        ({"configuration": {"rate": float("nan")}}, "finite numbers"),
        ({"configuration": {"rate": object()}}, "isn't JSON"),
    ],
)
def test_what_cant_be_stored_is_refused(
    session: Session, dataset: Dataset, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidTextError, match=message):
        register(session, dataset, "place", **changed)
    assert catalog.list_sketches(session, limit=9, offset=0).total == 0


def test_unknown_names_are_told_which_there_are(session: Session, dataset: Dataset) -> None:
    with pytest.raises(NotFoundError, match=r"no sketch 'nmaes'. None exists yet."):
        catalog.get_version(session, "nmaes")
    register(session, dataset, "place")
    with pytest.raises(NotFoundError, match=r"no sketch 'nmaes'. Known: names."):
        catalog.get_version(session, "nmaes", 1)
    with pytest.raises(NotFoundError, match=r"'names' has no version 7. Its versions are numbered from 1 to 1."):
        catalog.get_version(session, "names", 7)
    with pytest.raises(NotFoundError, match="no version 7"):
        catalog.promote(session, sketch="names", version=1, expected=7)


def test_promotion_goes_back_and_forth(session: Session, dataset: Dataset) -> None:
    for place in ("one", "two"):
        register(session, dataset, place)
    catalog.promote(session, sketch="names", version=1, expected=2)
    assert catalog.get_version(session, "names").number == 1
    catalog.promote(session, sketch="names", version=2, expected=1)
    assert catalog.get_sketch(session, "names").current_number == 2


@pytest.mark.parametrize("expected", [1, None])
def test_promotion_with_a_stale_expectation_is_refused(
    session: Session, dataset: Dataset, expected: int | None
) -> None:
    for place in ("one", "two", "three"):
        register(session, dataset, place)
    with pytest.raises(ConflictError, match="somebody else moved it"):
        catalog.promote(session, sketch="names", version=2, expected=expected)
    assert catalog.get_version(session, "names").number == 3


def test_a_retired_version_is_out_of_service(session: Session, dataset: Dataset) -> None:
    for place in ("one", "two"):
        register(session, dataset, place)
    with pytest.raises(ConflictError, match="names v2 is the current version"):
        catalog.retire(session, sketch="names", version=2)
    assert catalog.retire(session, sketch="names", version=1).state == "retired"
    with pytest.raises(ConflictError, match="names v1 is retired"):
        catalog.promote(session, sketch="names", version=1, expected=2)
    assert catalog.get_version(session, "names", 1).state == "retired"
    assert catalog.get_version(session, "names").number == 2
    assert register(session, dataset, "three").number == 3


def race(database: Database, *acts: Callable[[Session], object]) -> list[BaseException | None]:
    """Let transactions act at the same time; what each of them raised."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[Session], object]) -> None:
        barrier.wait(timeout=30)
        with transaction(database) as session:
            act(session)

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.exception() for future in [pool.submit(run, act) for act in acts]]


def test_of_two_who_move_the_same_version_one_wins(database: Database, dataset: Dataset) -> None:
    with transaction(database) as session:
        for place in ("one", "two", "three"):
            register(session, dataset, place)
    outcomes = race(
        database,
        *[lambda session, v=v: catalog.promote(session, sketch="names", version=v, expected=3) for v in (1, 2)],
    )
    assert [type(outcome) for outcome in outcomes].count(type(None)) == 1
    assert [type(outcome) for outcome in outcomes].count(ConflictError) == 1
    with transaction(database, writes=False) as session:
        assert catalog.get_version(session, "names").number == 1 + outcomes.index(None)


def test_interleaved_transactions_cant_both_move_a_version(database: Database, dataset: Dataset) -> None:
    """The decision is taken on what was read before; the swap is what notices."""
    with transaction(database) as session:
        for place in ("one", "two", "three"):
            register(session, dataset, place)
    with transaction(database, writes=False) as early:
        seen = catalog.get_sketch(early, "names").current_number
    with transaction(database) as faster:
        catalog.promote(faster, sketch="names", version=1, expected=seen)
    with pytest.raises(ConflictError), transaction(database) as slower:
        catalog.promote(slower, sketch="names", version=2, expected=seen)


def test_registrations_at_the_same_time_all_get_a_number(database: Database, dataset: Dataset) -> None:
    with transaction(database) as session:
        register(session, dataset, "first")
    acts = [lambda session, place=f"place-{i}": register(session, dataset, place) for i in range(5)]
    assert race(database, *acts) == [None] * 5
    with transaction(database, writes=False) as session:
        listed = catalog.list_versions(session, catalog.get_sketch(session, "names"), limit=9, offset=0)
        assert [version.number for version in listed.items] == [6, 5, 4, 3, 2, 1]
        assert catalog.get_version(session, "names").number == 6


def test_a_version_cant_be_promoted_and_retired_at_once(database: Database, dataset: Dataset) -> None:
    with transaction(database) as session:
        for place in ("one", "two"):
            register(session, dataset, place)
    outcomes = race(
        database,
        lambda session: catalog.promote(session, sketch="names", version=1, expected=2),
        lambda session: catalog.retire(session, sketch="names", version=1),
    )
    assert [type(outcome) for outcome in outcomes].count(ConflictError) == 1
    with transaction(database, writes=False) as session:
        assert catalog.get_version(session, "names").state == "ready"


def test_of_two_who_take_a_new_name_one_wins(database: Database, names: Documents, people: Documents) -> None:
    outcomes = race(
        database,
        *[lambda session, d=d: catalog.add_dataset(session, name="new", documents=d) for d in (names, people)],
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "NoneType"]
