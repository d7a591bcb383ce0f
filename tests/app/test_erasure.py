"""Erased units are gone from the catalog, from what is remembered of it and from the disk; the rest goes on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app
from app.catalog import (
    ByDocuments,
    BySubset,
    ByUnits,
    Containing,
    Forgotten,
    HeldMembership,
    Matching,
    ResolvedDeletion,
)
from app.db import Database, open_database, transaction
from app.erasure import check_retrained, scrub
from app.errors import BusyError, ConflictError, NotFoundError
from app.lookup import Lookup
from app.predictor import Artifact, Predictor
from app.serving import Serving
from app.settings import Settings
from app.tables import Dataset, IdentityLink, Report, SketchVersion, Subset, Table, Unit, Verification
from engine import supplements
from engine.documents import Documents
from engine.errors import DeletionSetError
from engine.measure import Measurement
from engine.store import Artifact as Opened
from engine.store import open_artifact
from tests.app.conftest import NAMES, refusal, register

NOW = datetime(2026, 2, 3, tzinfo=UTC)
ANN = ("anns first text", "anns second text")


@pytest.fixture
def letters(session: Session) -> Dataset:
    """Documents of ann (0 and 2), bob (1) and zoë (3), who are the units 0, 1 and 2; ann is in most subsets."""
    documents = Documents.from_records(
        [(ANN[0], "ann-the-person"), ("bobs text", "bob"), (ANN[1], "ann-the-person"), ("zoës text", "zoë")]
    )
    dataset = catalog.add_dataset(session, name="letters", documents=documents)
    catalog.add_subset(session, dataset=dataset, name="hers", rule=ByUnits(["ann-the-person"]))
    catalog.add_subset(session, dataset=dataset, name="ann-and-bob", rule=ByDocuments([0, 1, 2]))
    catalog.add_subset(session, dataset=dataset, name="not-zoe", rule=Matching("first text|bobs"))
    catalog.add_subset(session, dataset=dataset, name="quoted", rule=Containing("bobs"))
    catalog.add_links(session, dataset, [("ann-the-person", ["1" * 64, "2" * 64]), ("bob", ["3" * 64])])
    return dataset


@pytest.fixture
def version(session: Session, letters: Dataset) -> SketchVersion:
    return registered(session, letters, "one")


def registered(session: Session, dataset: Dataset, location: str) -> SketchVersion:
    return catalog.register_version(
        session,
        sketch="letters",
        dataset=dataset,
        location=location,
        checksum=location,
        configuration={},
        size_bytes=1,
    )


def forget(session: Session, dataset: Dataset, *units: int) -> Forgotten:
    return catalog.forget_units(session, dataset, units, now=NOW)


def rows_with(session: Session, sought: str) -> list[str]:
    """The tables in whose rows a string is."""
    return [
        table.name
        for table in Table.metadata.tables.values()
        if any(sought in repr(row) for row in session.execute(select(table)))
    ]


def verification(session: Session, version: SketchVersion, units: list[int], measurement: Measurement) -> str:
    row = Verification(
        id=f"00000000-0000-0000-0000-{len(session.scalars(select(Verification)).all()):012}",
        version_id=version.id,
        units=units,
        document_count=len(units),
        predictions=[{"measurement": asdict(measurement)}],
        confidence=0.9,
    )
    session.add(row)
    session.flush()
    return row.id


# The catalog


def test_text_name_and_links_of_erased_units_are_in_no_row(session: Session, letters: Dataset) -> None:
    for sought in (ANN[0], "ann-the-person", "1" * 64):
        assert rows_with(session, sought), sought
    assert forget(session, letters, 0).dataset_ids == (letters.id,)
    for sought in (*ANN, "ann-the-person", "1" * 64, "2" * 64):
        assert rows_with(session, sought) == [], sought
    for sought in ("bobs text", "3" * 64):
        assert rows_with(session, sought), sought
    unit = session.get_one(Unit, (letters.id, 0))
    assert unit.erased_at == NOW
    assert letters.erased_units == 1


def test_erasing_again_changes_nothing_and_is_not_recorded(session: Session, letters: Dataset) -> None:
    first, second = forget(session, letters, 0), forget(session, letters, 0, 77)
    assert (first.units, first.documents) == (1, 2)
    assert (second.units, second.documents, letters.erased_units) == (0, 0, 1)
    found = [dict(row.details) for row in catalog.walk_records(session) if row.action == "dataset.erase"]
    assert found == [{"dataset": "letters", "units": 1, "documents": 2}]


def test_subsets_lose_their_erased_members_and_empty_ones_go(session: Session, letters: Dataset) -> None:
    forget(session, letters, 0)
    left = catalog.list_subsets(session, letters, limit=9, offset=0).items
    assert {(one.name, one.unit_count, one.document_count) for one in left} == {
        ("ann-and-bob", 1, 1),
        ("not-zoe", 1, 1),
        ("quoted", 1, 1),
    }
    assert catalog.resolve_units(session, letters, BySubset("ann-and-bob")).units == [1]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (Matching(f"zoë|{ANN[0]}"), "[erased]"),
        (Matching(r"zoë|anns\ first\ text"), "[erased]"),
        (Matching("zoë|ann-the-person"), "[erased]"),
        (Matching("zoë|anns"), "zoë|anns"),
    ],
)
def test_only_a_rule_that_tells_an_erased_text_or_name_is_redacted(
    session: Session, letters: Dataset, rule: Matching, left: str
) -> None:
    catalog.add_subset(session, dataset=letters, name="told", rule=rule)
    forget(session, letters, 0)
    patterns = dict(session.execute(select(Subset.name, Subset.pattern)).all())
    assert (patterns["told"], patterns["quoted"]) == (left, "bobs")


def test_a_short_text_is_not_looked_for_within_others(session: Session) -> None:
    dataset = catalog.add_dataset(
        session, name="short", documents=Documents.from_records([("an", None), ("bob", None), ("hannah", None)])
    )
    catalog.add_subset(session, dataset=dataset, name="within", rule=Containing("hannah"))
    catalog.add_subset(session, dataset=dataset, name="itself", rule=Containing("an"))
    forget(session, dataset, 0)
    assert dict(session.execute(select(Subset.name, Subset.pattern)).all()) == {
        "within": "hannah",
        "itself": "[erased]",
    }


def test_verifications_about_them_or_of_their_texts_are_removed(session: Session, version: SketchVersion) -> None:
    start, end = ANN[0][:5], ANN[0][5:]
    gone = {
        verification(session, version, units, measurement)
        for units, measurement in (
            ([0, 1], Measurement(text="abc")),
            ([1], Measurement(text=ANN[1])),
            ([1], Measurement(kind="log_probability", prompt=start, completion=end)),
            ([1], Measurement(kind="next_token", prompt="by ann-the-person")),
        )
    }
    kept = verification(session, version, [1], Measurement(kind="log_probability", prompt=start, completion="x"))
    assert set(forget(session, version.dataset, 0).verifications) == gone
    assert session.scalars(select(Verification.id)).all() == [kept]


def test_measurements_that_tell_an_erased_text_leave_keys_and_reports(session: Session, version: SketchVersion) -> None:
    told, other = asdict(Measurement(text=ANN[0])), asdict(Measurement(text="abc"))
    for prefix, measurements in (("aaaaaaaa", [told]), ("bbbbbbbb", [told, other])):
        catalog.add_key(session, prefix=prefix, name="k", hash=prefix, scopes=["predict"], measurements=measurements)
    set_report(session, [told, other])
    forget(session, version.dataset, 0)
    assert catalog.get_key(session, "aaaaaaaa").measurements == []  # and not None, which allows everything
    assert catalog.get_key(session, "bbbbbbbb").measurements == [other]
    assert catalog.get_report(session, "default")[0].measurements == [other]


def set_report(session: Session, measurements: list[dict[str, Any]]) -> Report:
    return catalog.set_report(
        session,
        name="default",
        sketch=catalog.get_sketch(session, "letters"),
        measurements=measurements,
        own_documents=0,
        confidence=0.9,
        materiality_nats=0.1,
        materiality_probability=0.1,
    )


# What is still answered, and what isn't


def test_lists_leave_erased_units_out(session: Session, letters: Dataset) -> None:
    forget(session, letters, 0)
    documents = catalog.list_documents(session, letters, limit=9, offset=0)
    assert ([one.number for one in documents.items], documents.total) == ([1, 3], 2)
    units = catalog.list_units(session, letters, limit=9, offset=0)
    assert ([one.name for one in units.items], units.total) == (["bob", "zoë"], 2)
    within = catalog.list_documents(session, letters, contains="text", limit=9, offset=0)
    assert ([one.unit for one in within.items], within.total) == (["bob", "zoë"], 2)
    for matches in ("text$", "^"):
        assert [unit for _, unit in catalog.searchable_texts(session, letters).matching(matches)] == [1, 2]
    for name in ("ann", "erased"):
        assert catalog.list_units(session, letters, contains=name, limit=9, offset=0).total == 0
    assert set(catalog.describe_units(session, letters, [0, 1])) == {1}
    assert catalog.list_erased_units(session, letters) == {0}


def test_what_is_erased_while_it_is_searched_for_is_not_shown(session: Session, letters: Dataset) -> None:
    everywhere = [number for number, _ in catalog.searchable_texts(session, letters).matching("^")]
    assert len(everywhere) > 2
    chosen = catalog.resolve_units(session, letters, Containing("first"))
    assert catalog.names_of_deletion(session, letters, chosen) == ["ann-the-person"]
    session.expunge(letters)  # a row that was read before
    forget(session, catalog.get_dataset(session, "letters"), 0)
    assert letters.erased_units == 0
    for found in (None, everywhere):
        listed = catalog.list_documents(session, letters, found=found, limit=9, offset=0)
        assert [one.text for one in listed.items] == ["bobs text", "zoës text"]
    with pytest.raises(ConflictError, match=r"erased in this moment\. Try again\."):
        catalog.names_of_deletion(session, letters, chosen)
    with pytest.raises(ConflictError, match=r"erased in this moment\. Try again\."):
        catalog.resolve_found(session, catalog.get_dataset(session, "letters"), chosen.units)


def test_texts_choose_no_erased_unit(session: Session, letters: Dataset) -> None:
    forget(session, letters, 0)
    for rule in (Containing("bobs"), Matching("^b"), Matching("^$|bobs")):
        chosen = catalog.resolve_units(session, letters, rule)
        assert (chosen.units, chosen.documents) == ([1], 1)
    for rule in (Containing("ann"), Matching("^$")):
        with pytest.raises(DeletionSetError, match="is empty"):
            catalog.resolve_units(session, letters, rule)
    for rule in (Containing("text"), Matching("text")):
        with pytest.raises(DeletionSetError, match="whole dataset"):  # all that is left
            catalog.resolve_units(session, letters, rule)


def test_erased_units_are_refused_by_the_database_and_from_memory(session: Session, letters: Dataset) -> None:
    forget(session, letters, 0)
    held = catalog.hold_membership(session, letters)
    name = session.get_one(Unit, (letters.id, 0)).name
    for delete, error, words in (
        (ByDocuments([1, 2]), DeletionSetError, "Document 2 of the dataset 'letters' was erased"),
        (ByUnits(["bob", name]), NotFoundError, "was erased"),
        (ByUnits(["ann-the-person"]), NotFoundError, "There is no unit"),
        (ByDocuments([1, 3]), DeletionSetError, "whole dataset"),  # all that is left
    ):
        with pytest.raises(error, match=words):
            catalog.resolve_units(session, letters, delete)
        with pytest.raises(error, match=words):
            catalog.resolve_named(held, delete)


def test_rules_about_texts_do_not_choose_erased_units(session: Session, letters: Dataset) -> None:
    forget(session, letters, 0)
    with pytest.raises(DeletionSetError, match="empty"):
        catalog.resolve_units(session, letters, Containing("anns"))
    with pytest.raises(DeletionSetError, match="whole dataset"):
        catalog.resolve_units(session, letters, Matching(""))  # matches the empty text, too: ann's is one now
    assert catalog.resolve_units(session, letters, Matching("bob")).units == [1]


def test_an_erased_dataset_is_neither_trained_on_nor_verified(session: Session, version: SketchVersion) -> None:
    chosen = catalog.resolve_units(session, version.dataset, ByUnits(["bob"]))
    hers = catalog.resolve_units(session, version.dataset, BySubset("ann-and-bob"))
    forget(session, version.dataset, 0)
    with pytest.raises(ConflictError, match=r"1 unit of the dataset 'letters' were erased.*sketches rebuild"):
        catalog.load_documents(session, version.dataset)
    with pytest.raises(ConflictError, match="erased"):
        catalog.add_verification(session, version_id=version.id, deletion=chosen, predictions=[], confidence=0.9)
    with pytest.raises(ConflictError, match="erased in this moment"):
        catalog.add_subset(session, dataset=version.dataset, name="late", rule=ByUnits(["bob"]), chosen=hers)


def test_every_version_of_the_dataset_says_so_also_one_that_is_registered_later(
    session: Session, version: SketchVersion
) -> None:
    assert (version.erased_units, version.contains_erased) == (0, False)
    forget(session, version.dataset, 0, 1)
    later = registered(session, version.dataset, "two")  # whose build began before
    for number in (1, 2):
        found = catalog.get_version(session, "letters", number)
        assert (found.erased_units, found.contains_erased) == (2, True)
    assert later.contains_erased


# Successors


def test_a_successor_holds_what_remains_with_all_that_belongs_to_it(session: Session, version: SketchVersion) -> None:
    dataset = version.dataset
    forget(session, dataset, 0)
    successor = catalog.add_successor(session, dataset.id)
    assert (successor.name, successor.successor_of_id, successor.erased_units) == ("letters-2", dataset.id, 0)
    documents = catalog.load_documents(session, successor)
    assert (documents.texts, documents.unit_names) == (("bobs text", "zoës text"), ("bob", "zoë"))
    assert successor.vocabulary == documents.vocabulary
    assert successor.fingerprint == documents.fingerprint
    subsets = catalog.list_subsets(session, successor, limit=9, offset=0).items
    assert {(one.name, one.kind, one.pattern) for one in subsets} == {
        ("ann-and-bob", "documents", None),
        ("not-zoe", "matches", "first text|bobs"),
        ("quoted", "contains", "bobs"),
    }
    assert catalog.resolve_units(session, successor, BySubset("ann-and-bob")).units == [0]
    links = session.execute(select(IdentityLink.dataset_id, IdentityLink.unit_number)).all()
    assert sorted(links) == [(dataset.id, 1), (successor.id, 0)]
    assert catalog.add_successor(session, dataset.id) is successor  # killed and begun again, it is the same


def test_the_sketch_and_its_reports_move_to_the_successor(session: Session, version: SketchVersion) -> None:
    dataset = version.dataset
    set_report(session, [asdict(Measurement(text="abc"))])
    forget(session, dataset, 0)
    successor = catalog.add_successor(session, dataset.id)
    built = registered(session, successor, "two")
    sketch = catalog.get_sketch(session, "letters")
    assert (sketch.dataset_id, sketch.current_number) == (successor.id, 2)
    assert [(part.dataset_id, part.own_documents) for part in catalog.get_report(session, "default")] == [
        (dataset.id, 0),
        (successor.id, 0),
    ]
    assert not built.contains_erased
    assert catalog.get_version(session, "letters", 1).contains_erased
    other = catalog.add_dataset(session, name="other", documents=Documents.from_records([("x", None), ("y", None)]))
    with pytest.raises(ConflictError, match="another dataset"):
        registered(session, other, "three")


def test_a_person_is_erased_before_and_behind(session: Session, version: SketchVersion) -> None:
    """Whatever dataset of a line it begins with, nothing of the person is left in another one."""
    first = version.dataset
    forget(session, first, 0)
    second = catalog.add_successor(session, first.id)
    forget(session, second, 0)  # bob: unit 1 of the first
    third = catalog.add_successor(session, second.id)
    assert third.name == "letters-3"
    assert catalog.list_erased_units(session, first) == {0, 1}
    assert rows_with(session, "bobs text") == []
    assert catalog.load_documents(session, third).texts == ("zoës text",)
    forgotten = forget(session, first, 2)
    assert forgotten.dataset_ids == (first.id, second.id, third.id)
    assert (forgotten.units, forgotten.documents) == (3, 3)
    assert rows_with(session, "zoës text") == []
    with pytest.raises(ConflictError, match="All of the dataset"):
        catalog.add_successor(session, third.id)


def test_documents_of_a_successor_without_subjects_are_numbered_anew(session: Session, names: Documents) -> None:
    dataset = catalog.add_dataset(session, name="names-1990", documents=names)
    forget(session, dataset, 1)
    assert session.get_one(Unit, (dataset.id, 1)).name == "1"
    successor = catalog.add_successor(session, dataset.id)
    assert successor.name == "names-1990-2"
    assert catalog.load_documents(session, successor) == Documents.from_records(
        (one, None) for one in names.texts if one != "bob"
    )
    forget(session, successor, 1)  # max, who is 2 in the first
    assert catalog.list_erased_units(session, dataset) == {1, 2}


def test_nothing_erased_needs_no_successor(session: Session, letters: Dataset) -> None:
    with pytest.raises(ConflictError, match="Nothing of the dataset 'letters' was erased"):
        catalog.add_successor(session, letters.id)


def test_an_erasure_waits_for_a_successor_that_is_being_written(database: Database, backend: str) -> None:
    """Else the successor would be written with whom nobody erases there any more."""
    with transaction(database) as session:
        documents = Documents.from_records((f"{name}s own text", name) for name in ("ann", "bob", "max"))
        dataset = catalog.add_dataset(session, name="letters", documents=documents)
        forget(session, dataset, 0)
    ended = threading.Event()

    def erase() -> None:
        with transaction(database) as other:
            forget(other, catalog.get_dataset(other, "letters"), 1)
        ended.set()

    thread = threading.Thread(target=erase)
    with transaction(database) as session:
        catalog.add_successor(session, dataset.id)
        thread.start()
        assert not ended.wait(0.5)
    thread.join(timeout=20)
    assert ended.is_set()
    with transaction(database, writes=False) as session:
        assert rows_with(session, "bobs own text") == [], backend
        assert catalog.get_dataset(session, "letters-2").erased_units == 1


# Memory


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(device="cpu", resident_bytes=2**30, table_cache_bytes=2**20)


@pytest.fixture
def serving(database: Database, settings: Settings, predictor: Predictor) -> Serving:
    """It looks when it is told: no thread is started."""
    return Serving(database, predictor, settings.artifacts)


@pytest.fixture
def looking(database: Database, settings: Settings, serving: Serving) -> Iterator[Lookup]:
    lookup = Lookup(database, settings.artifacts, serving)
    serving.when_erased(lookup.forget)
    yield lookup
    lookup.close()


def erase_names(database: Database, *numbers: int) -> None:
    with transaction(database) as session:
        forget(session, catalog.get_dataset(session, "names"), *numbers)


@pytest.mark.usefixtures("sketch")
def test_the_question_after_an_erasure_is_answered_as_after_it(database: Database, looking: Lookup) -> None:
    number = NAMES.texts.index("max")
    before = looking.find("tiny", None, BySubset("has-x"))
    assert number in before.deletion.units
    assert not before.version.contains_erased
    looking.find("tiny", None, ByDocuments([number]))
    erase_names(database, number)
    for find in (looking.remembered, looking.find):  # at once, though nobody has looked
        if find is looking.find:
            with pytest.raises(DeletionSetError, match="was erased"):
                find("tiny", None, ByDocuments([number]))
        found = find("tiny", None, BySubset("has-x"))
        assert found is None or (number not in found.deletion.units and found.version.contains_erased)
    assert looking.find("tiny", None, BySubset("has-x")).version.contains_erased


def test_what_is_remembered_goes_though_nobody_asks(
    database: Database, settings: Settings, looking: Lookup, serving: Serving, predictor: Predictor, sketch: str
) -> None:
    number = NAMES.texts.index("max")
    found = looking.find(sketch, None, ByDocuments([number]))
    looking.find(sketch, None, BySubset("has-x"))
    supplements.add(open_artifact(found.version.artifact.path), NAMES, [[number]])
    serving.look()
    predictor.predict(
        found.version.artifact,
        units=[number],
        measurements=[Measurement(text="max")],
        degree="auto",
        downweights=[1.0],
        confidence=0.9,
    )
    [resident] = predictor.resident()
    del found
    assert remembered(looking, predictor, number) == {"unit", "set", "text"}
    erase_names(database, number)
    serving.look()
    assert remembered(looking, predictor, number) == set()
    assert predictor.resident() == [resident]  # with a model whose file is still there
    assert scrub(database, settings).files == 1
    serving.look()
    assert predictor.resident()[0].bytes < resident.bytes


def remembered(looking: Lookup, predictor: Predictor, number: int) -> set[str]:
    """What is in memory of the document "max", a unit of some number, wherever it is held."""
    found, seen, waiting = set(), set[int](), [looking, predictor]
    while waiting:
        one: object = waiting.pop()
        if id(one) in seen or isinstance(one, ModuleType | type | FunctionType):
            continue
        seen.add(id(one))
        waiting += gc.get_referents(one)
        match one:
            case HeldMembership() if number not in one.erased:
                found.add("unit")
            case ResolvedDeletion() if number in one.units:
                found.add("set")
            case Measurement() if one.text == "max":
                found.add("text")
    return found


def test_a_service_says_in_every_answer_that_its_version_holds_erased_units(
    client: TestClient, database: Database, sketch: str
) -> None:
    number = NAMES.texts.index("max")
    loss = {"kind": "loss", "text": "max"}
    questions: list[tuple[str, dict[str, Any]]] = [
        ("/predict", {"delete": {"subset": "has-x"}, "measurements": [loss]}),
        ("/attributions", {"measurement": loss, "top": 3}),
    ]
    for contains in (False, True):
        for path, question in questions:
            answer = client.post(path, json={"sketch": sketch} | question).json()
            assert answer["contains_erased"] is contains, path
        batch = {"sketch": sketch, "deletions": [{"delete": {"subset": "has-x"}}], "measurements": [loss]}
        assert f'"contains_erased":{str(contains).lower()}' in client.post("/predict/batch", json=batch).text
        version = client.get(f"/sketches/{sketch}/versions/1").json()
        assert (version["contains_erased"], version["erased_units"]) == (contains, int(contains))
        if not contains:
            erase_names(database, number)
    verified = {"sketch": sketch, "delete": {"subset": "has-x"}, "measurements": [loss], "verify": True}
    assert "erased" in refusal(client.post("/predict", json=verified), 409)["detail"]


def test_attributions_name_others_in_place_of_erased_units(client: TestClient, database: Database, sketch: str) -> None:
    question = {"sketch": sketch, "measurement": {"kind": "loss", "text": "max"}, "top": 4}
    before = client.post("/attributions", json=question).json()
    first = before["raising"][0]["unit"]
    erase_names(database, int(first))
    after = client.post("/attributions", json=question).json()
    assert [one["unit"] for one in after["raising"]][:3] == [one["unit"] for one in before["raising"]][1:]
    assert len(after["raising"]) == 4
    assert first not in {one["unit"] for one in (*after["raising"], *after["lowering"])}


# The disk


def on_disk(settings: Settings, database: Database, sought: str) -> bool:
    if database.dialect.name == "sqlite":
        files = settings.data_dir.glob("catalog.sqlite*")
        return any(sought.encode() in file.read_bytes() for file in files)
    with database.connect() as connection:
        connection.execute(text("CHECKPOINT"))
        return any(
            sought.encode()
            in connection.scalar(
                text("SELECT pg_read_binary_file(pg_relation_filepath(CAST(:name AS regclass)))"), {"name": name}
            )
            for name in (*Table.metadata.tables, "pg_statistic")
        )


@pytest.fixture
def written(database: Database) -> str:
    """A text that was erased, and isn't off the disk yet."""
    secret = "a text that nobody else has"
    with transaction(database) as session:
        rows = [(secret, "ann"), ("another text", "bob"), ("a third one", "max")]
        catalog.add_dataset(session, name="letters", documents=Documents.from_records(rows))
    with transaction(database) as session:
        forget(session, catalog.get_dataset(session, "letters"), 0)
    return secret


def test_what_was_erased_is_on_the_disk_until_it_is_scrubbed(
    settings: Settings, database: Database, written: str
) -> None:
    assert on_disk(settings, database, written)
    scrub(database, settings)
    assert not on_disk(settings, database, written)
    assert on_disk(settings, database, "another text")
    scrub(database, settings)  # again is harmless


def test_somebody_who_reads_what_was_is_waited_for_and_then_said(settings: Settings, database: Database) -> None:
    with transaction(database) as session:
        rows = [("a text that nobody else has", "ann"), ("another text", "bob"), ("a third one", "max")]
        catalog.add_dataset(session, name="letters", documents=Documents.from_records(rows))
    reading = database.connect()
    if database.dialect.name != "sqlite":
        reading = reading.execution_options(isolation_level="REPEATABLE READ")
    assert reading.scalar(text("SELECT count(*) FROM datasets")) == 1  # it holds no lock on what is rewritten
    with transaction(database) as session:
        forget(session, catalog.get_dataset(session, "letters"), 0)
    with pytest.raises(BusyError, match="can't be removed from the disk yet"):
        scrub(database, settings, patience_seconds=0.5)
    reading.rollback()
    reading.close()
    scrub(database, settings, patience_seconds=10)
    assert not on_disk(settings, database, "a text that nobody else has")


@pytest.mark.postgres
def test_statistics_of_postgresql_keep_no_text(database: Database) -> None:
    if database.dialect.name == "sqlite":
        pytest.skip("SQLite has no such statistics")
    with transaction(database) as session:
        rows = [("a text that is said often", f"person-{number}") for number in range(300)]
        catalog.add_dataset(session, name="letters", documents=Documents.from_records(rows))
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
        known = connection.execute(
            text("SELECT attname FROM pg_stats WHERE tablename IN ('documents', 'units') AND schemaname = 'public'")
        )
        assert {"text", "name"}.isdisjoint(known.scalars())


def test_connections_to_sqlite_overwrite_what_they_delete(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(sqlite_template.read_bytes())
    database = open_database(Settings(data_dir=tmp_path))
    with database.connect() as connection:  # where kept ones come from, too
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
    database.dispose()


def test_supplements_about_erased_units_go_with_what_does_not_tell(
    settings: Settings, database: Database, sketch: str
) -> None:
    located = artifact_of(database, settings, sketch)
    opened = open_artifact(located.path)
    supplements.add(opened, NAMES, [[1], [1, 2], [3]])
    directory = supplements.directory_of(opened)
    (directory / f"{'0' * 64}.tmp").write_bytes(b"a draft that a killed process left")
    (directory / f"{'1' * 64}.safetensors").write_bytes(b"damaged")
    before = supplements.stamp(opened)
    assert scrub(database, settings).files == 0  # nothing was erased: nothing is touched
    erase_names(database, 1)
    assert scrub(database, settings).files == 4
    assert supplements.read(opened).sets == [(3,)]
    assert supplements.stamp(opened) != before
    assert len(list(directory.iterdir())) == 1


def test_what_was_retrained_while_units_were_erased_is_removed(
    settings: Settings, database: Database, sketch: str
) -> None:
    located = artifact_of(database, settings, sketch)
    check_retrained(database, located)
    erase_names(database, 1)
    scrub(database, settings)
    supplements.add(open_artifact(located.path), NAMES, [[1], [3]])  # as a process that had read the documents before
    with pytest.raises(ConflictError, match="erased"):
        check_retrained(database, located)
    assert supplements.read(open_artifact(located.path)).sets == [(3,)]


def artifact_of(database: Database, settings: Settings, sketch: str) -> Artifact:
    with transaction(database, writes=False) as session:
        row = catalog.get_version(session, sketch)
        return Artifact(
            version_id=row.id,
            label=row.label,
            path=settings.artifacts_dir / row.location,
            checksum=row.checksum,
        )


# The command line


@pytest.fixture
def neverseen(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command says, as if nothing had been broken into lines; its exit code is behind it, where that isn't 0."""
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("NEVERSEEN_DATABASE_URL", settings.database_url)

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        why = "" if result.exception is None or isinstance(result.exception, SystemExit) else str(result.exception)
        code = f" {why} exit code {result.exit_code}" if result.exit_code else ""
        return " ".join(result.output.split()) + code

    return said


def test_commands_say_that_a_version_holds_erased_units_and_train_on_no_such_data(
    neverseen: Callable[..., str], database: Database, sketch: str
) -> None:
    questions = [
        ("predict", sketch, "--subset", "has-x", "--text", "zoe"),
        ("attributions", sketch, "--text", "zoe", "--top", "2"),
    ]
    says = "tiny v1 was trained on units that have been erased since."
    for question in questions:
        assert says not in neverseen(*question)
    erase_names(database, 0)
    for question in questions:
        assert says in neverseen(*question)
    assert "names (1 erased)" in neverseen("sketches", "list")
    for refused in (
        (*questions[0], "--verify"),
        ("subsets", "pin", "names", "has-x", "--sketch", sketch),
        ("sketches", "evaluate", sketch),
        ("sketches", "build", "another", "--dataset", "names"),
    ):
        said = neverseen(*refused)
        assert "1 unit of the dataset 'names' were erased" in said, said
        assert "exit code" in said


def test_a_rebuild_that_was_killed_is_gone_on_with_and_refused_once_it_is_done(
    neverseen: Callable[..., str], database: Database, sketch: str
) -> None:
    assert "Nothing of the dataset 'names' was erased" in neverseen("sketches", "rebuild", sketch)
    number = NAMES.texts.index("max")
    erase_names(database, number)
    with transaction(database) as session:  # as far as the killed one came
        catalog.add_successor(session, catalog.get_dataset(session, "names").id)
    said = neverseen("sketches", "rebuild", sketch, "--retire")
    assert f"tiny v2 is current: {len(NAMES) - 1} documents, the dataset names-2; 1 erased units less" in said
    assert "Pinned 1 subsets" in said
    assert "neverseen sketches delete tiny 1 && neverseen sketches gc" in said
    with transaction(database, writes=False) as session:
        before, after = (catalog.get_version(session, sketch, number) for number in (1, 2))
        assert (before.state, before.contains_erased, after.contains_erased) == ("retired", True, False)
        assert catalog.list_datasets(session, limit=9, offset=0).total == 2
        kept = {name: value for name, value in before.configuration.items() if name != "model"}
        assert {name: value for name, value in after.configuration.items() if name != "model"} == kept
        assert catalog.load_documents(session, after.dataset).texts == tuple(one for one in NAMES.texts if one != "max")
    assert "contains" not in neverseen("predict", sketch, "--subset", "has-x", "--text", "zoe", "--verify")
    assert "is retired and isn't served" in neverseen(
        "predict", sketch, "--subset", "has-x", "--text", "zoe", "--version", "1"
    )
    assert "Nothing of the dataset 'names-2' was erased" in neverseen("sketches", "rebuild", sketch)


def test_two_sketches_of_a_dataset_share_its_successor(
    neverseen: Callable[..., str], database: Database, settings: Settings, artifact: Opened, sketch: str
) -> None:
    with transaction(database) as session:
        register(session, settings, catalog.get_dataset(session, "names"), artifact, sketch="second")
    erase_names(database, 3)
    for name in (sketch, "second"):
        assert "the dataset names-2" in neverseen("sketches", "rebuild", name, "--no-pin")
    with transaction(database, writes=False) as session:
        assert catalog.list_datasets(session, limit=9, offset=0).total == 2
