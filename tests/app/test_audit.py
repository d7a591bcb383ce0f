"""The audit: one chain, of everything that was asked and changed, and nobody changes it unseen."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as command_line
from app.actors import Actor
from app.catalog import Entry
from app.catalog.audit import NO_HASH
from app.db import Database, transaction
from app.recorder import Recorder
from app.settings import Settings
from app.tables import AuditChain, AuditRecord
from tests.app.conftest import NAMES
from tests.app.test_predict_route import QUESTION
from tests.forked import begin, succeeds

WHO = Actor(name="key:abcdefgh", request_id="r1")


def entry(action: str, **details: str | int | None) -> Entry:
    return Entry(at=datetime.now(UTC), actor=WHO, action=action, details=details)


def tampered(database: Database, tamper: Callable[[Session], object]) -> catalog.ChainState:
    """What the chain is found to be after somebody with all rights over the database changed it."""
    with transaction(database) as session:
        if database.dialect.name == "sqlite":
            for change in ("update", "delete"):
                session.execute(text(f"DROP TRIGGER audit_records_no_{change}"))
        else:
            session.execute(text("SET LOCAL session_replication_role = replica"))
        tamper(session)
    with transaction(database, writes=False) as session:
        return catalog.verify_chain(session)


@pytest.fixture
def chain(database: Database) -> list[AuditRecord]:
    """Five records, of two transactions."""
    with transaction(database) as session:
        catalog.append_records(session, [entry("predict", sketch="names", version=1, units=n) for n in range(3)])
    with transaction(database) as session:
        catalog.append_records(session, [entry("predict", sketch="nämes\n", version=None) for _ in range(2)])
    with transaction(database, writes=False) as session:
        return list(catalog.walk_records(session))


def test_each_record_names_the_one_before_and_the_first_none(chain: list[AuditRecord]) -> None:
    assert [row.number for row in chain] == [1, 2, 3, 4, 5]
    assert [row.previous_hash for row in chain] == [NO_HASH, *(row.hash for row in chain[:-1])]


def test_a_hash_is_made_of_all_the_rest_as_the_documentation_says(chain: list[AuditRecord]) -> None:
    for row in chain:
        content = catalog.as_line(row)
        hashed = content.pop("hash")
        told = json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(told.encode("ascii")).hexdigest() == hashed


def test_an_untouched_chain_is_in_order(database: Database, chain: list[AuditRecord]) -> None:
    with transaction(database, writes=False) as session:
        state = catalog.verify_chain(session)
    assert (state.length, state.head, state.broken) == (5, chain[-1].hash, None)


def test_an_empty_chain_is_in_order(database: Database) -> None:
    with transaction(database, writes=False) as session:
        state = catalog.verify_chain(session, head=NO_HASH)
    assert (state.length, state.head, state.broken) == (0, NO_HASH, None)


CHANGES: dict[str, Any] = {
    "at": datetime(2020, 1, 1, tzinfo=UTC),
    "actor": "key:somebody",
    "request_id": None,
    "action": "predicted",
    "details": {"sketch": "other", "version": 1, "units": 1},
    "hash": "f" * 64,
    "previous_hash": "f" * 64,
}


@pytest.mark.usefixtures("chain")
@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_record_is_the_first_that_is_broken(database: Database, column: str) -> None:
    changed = update(AuditRecord).where(AuditRecord.number == 3).values({column: CHANGES[column]})
    state = tampered(database, lambda session: session.execute(changed))
    assert (state.broken, state.length) == (3, 2)


@pytest.mark.usefixtures("chain")
@pytest.mark.parametrize(("number", "broken"), [(1, 1), (3, 3), (5, 5)])
def test_a_record_that_is_taken_out_is_missed(database: Database, number: int, broken: int) -> None:
    gone = delete(AuditRecord).where(AuditRecord.number == number)
    assert tampered(database, lambda session: session.execute(gone)).broken == broken


@pytest.mark.usefixtures("chain")
def test_a_record_that_is_put_in_breaks_the_chain(database: Database) -> None:
    def put_in(session: Session) -> None:
        rows, _ = catalog.chained([entry("predict")], 5, "0" * 64)
        session.execute(insert(AuditRecord), rows)

    assert tampered(database, put_in).broken == 6


def test_a_chain_that_was_made_anew_is_unmasked_by_a_head_that_was_kept(
    database: Database, chain: list[AuditRecord]
) -> None:
    def make_anew(session: Session) -> None:
        session.execute(delete(AuditRecord))
        session.execute(update(AuditChain).values(length=0, head=NO_HASH))
        catalog.append_records(session, [entry("predict") for _ in range(6)])

    assert tampered(database, make_anew).broken is None  # by itself it is in order
    with transaction(database, writes=False) as session:
        assert catalog.verify_chain(session, head=chain[2].hash).broken == 1


def test_a_head_that_was_kept_is_met_in_a_chain_that_grew(database: Database, chain: list[AuditRecord]) -> None:
    with transaction(database, writes=False) as session:
        assert catalog.verify_chain(session, head=chain[2].hash).broken is None


@pytest.mark.usefixtures("chain")
@pytest.mark.parametrize("statement", ["UPDATE audit_records SET actor = 'x'", "DELETE FROM audit_records"])
def test_the_database_itself_refuses_to_change_a_record(database: Database, statement: str) -> None:
    with pytest.raises(DBAPIError, match="append-only"), transaction(database) as session:
        session.execute(text(statement))
    with transaction(database, writes=False) as session:
        assert catalog.verify_chain(session).length == 5


def test_the_database_refuses_to_replace_a_record(database: Database, chain: list[AuditRecord]) -> None:
    how = "INSERT OR REPLACE INTO" if database.dialect.name == "sqlite" else "INSERT INTO"
    columns = "number, at, 'x', request_id, action, details, previous_hash, hash"
    statement = text(f"{how} audit_records SELECT {columns} FROM audit_records WHERE number = {chain[0].number}")
    with pytest.raises(DBAPIError), transaction(database) as session:
        session.execute(statement)


def test_a_chain_that_grows_while_it_is_verified_is_in_order(database: Database) -> None:
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            with transaction(database) as session:
                catalog.append_records(session, [entry("predict") for _ in range(20)])

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        for _ in range(20):
            with transaction(database, writes=False) as session:
                assert catalog.verify_chain(session).broken is None
    finally:
        stop.set()
        growing.join()


def test_what_is_taken_back_leaves_no_record(database: Database) -> None:
    class OvertakenError(Exception):
        pass

    def fail(session: Session) -> None:
        catalog.add_dataset(session, name="names", documents=NAMES)
        raise OvertakenError

    with pytest.raises(OvertakenError), transaction(database) as session:
        fail(session)
    with transaction(database, writes=False) as session:
        assert catalog.verify_chain(session).length == 0


def test_processes_that_write_at_once_write_one_chain(database: Database, settings: Settings) -> None:
    program = f"""
from datetime import UTC, datetime
from app import catalog
from app.actors import Actor
from app.db import connect, transaction
from app.recorder import Recorder
database = connect({settings.database_url!r})
recorder = Recorder(database, written=lambda *_: None)
recorder.start()
for number in range(40):
    recorder.record(Actor(name="key:a"), "predict", {{"number": number}}).result()
    with transaction(database) as session:
        catalog.record(session, "subset.create", number=number)
recorder.stop()
database.dispose()
"""
    processes = [begin(program) for _ in range(3)]
    for process in processes:
        assert succeeds(process)
    with transaction(database, writes=False) as session:
        state = catalog.verify_chain(session)
    assert (state.length, state.broken) == (3 * 2 * 40, None)


def test_records_that_wait_together_are_written_before_the_recorder_ends(database: Database) -> None:
    recorder = Recorder(database, written=lambda *_: None)
    waiting = [recorder.record(WHO, "predict", {"number": number}) for number in range(2_500)]
    recorder.start()
    recorder.stop()
    assert all(one.done() and one.exception() is None for one in waiting)
    with transaction(database, writes=False) as session:
        assert [row.details["number"] for row in catalog.walk_records(session)] == list(range(2_500))
        assert catalog.verify_chain(session).length == 2_500


# Through the service


def records(database: Database) -> list[AuditRecord]:
    with transaction(database, writes=False) as session:
        return list(session.scalars(select(AuditRecord).order_by(AuditRecord.number)))


@pytest.mark.usefixtures("sketch")
def test_an_answer_is_in_the_audit_with_its_digest_and_no_text(client: TestClient, database: Database) -> None:
    before = len(records(database))
    answer = client.post("/predict", json=QUESTION, headers={"X-Request-ID": "mine-1"})
    [row] = records(database)[before:]
    assert (row.action, row.actor, row.request_id) == ("predict", "anonymous", "mine-1")
    assert row.details["answer_digest"] == hashlib.sha256(answer.content).hexdigest()
    assert (row.details["sketch"], row.details["version"], row.details["measurements"]) == ("tiny", 1, 1)
    assert "max" not in json.dumps(catalog.as_line(row))


@pytest.mark.usefixtures("sketch")
def test_the_same_deletion_set_has_the_same_digest_however_it_is_named(client: TestClient, database: Database) -> None:
    members = client.get("/datasets/names/units", params={"subset": "has-x", "limit": 1000}).json()["items"]
    before = len(records(database))
    named = {"units": [unit["name"] for unit in members]}, {"documents": [unit["number"] for unit in members]}
    for delete_ in (QUESTION["delete"], *named, {"documents": [0]}):
        assert client.post("/predict", json=QUESTION | {"delete": delete_}).status_code == 200
    digests = [row.details["deletion_digest"] for row in records(database)[before:]]
    assert digests[0] == digests[1] == digests[2] != digests[3]


@pytest.mark.usefixtures("sketch")
def test_every_answer_and_every_change_leaves_a_record(client: TestClient, database: Database) -> None:
    before = len(records(database))
    deleted = {"delete": {"subset": "has-x"}}
    calls: list[tuple[str, str, dict[str, Any] | None, str]] = [
        ("POST", "/predict", QUESTION, "predict"),
        ("POST", "/predict/batch", {**QUESTION, "deletions": [deleted], "delete": None}, "predict"),
        ("POST", "/attributions", {"sketch": "tiny", "measurement": {"kind": "loss", "text": "max"}}, "attribute"),
        ("POST", "/datasets", {"name": "new", "content": "abc\ncab\n"}, "dataset.create"),
        ("POST", "/datasets/new/subsets", {"name": "first", "documents": [0]}, "subset.create"),
        ("POST", "/keys", {"name": "k", "scopes": ["admin"]}, "key.create"),
    ]
    for method, path, body, _ in calls:
        sent = None if body is None else {name: value for name, value in body.items() if value is not None}
        assert client.request(method, path, json=sent).status_code in {200, 201}, path
    assert [row.action for row in records(database)[before:]] == [action for *_, action in calls]


@pytest.mark.usefixtures("sketch")
def test_what_is_refused_leaves_no_record(client: TestClient, database: Database) -> None:
    before = len(records(database))
    assert client.post("/predict", json=QUESTION | {"delete": {"documents": [10**9]}}).status_code == 400
    assert client.post("/datasets", json={"name": "names", "content": "abc\n"}).status_code == 409
    assert client.put("/sketches/tiny/current", json={"version": 1, "expected": 7}).status_code == 404
    assert len(records(database)) == before


def test_the_list_of_records_is_in_order(client: TestClient) -> None:
    for name in ("one", "two"):
        client.post("/datasets", json={"name": name, "content": "abc\ncab\n"})
    page = client.get("/audit").json()
    assert [(one["number"], one["details"]["dataset"]) for one in page["items"]] == [(1, "one"), (2, "two")]
    assert page["total"] == 2


# On the command line


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("NEVERSEEN_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(settings.data_dir))
    return lambda *arguments: CliRunner().invoke(command_line, arguments)


def test_verify_proves_the_chain_or_names_the_first_broken_record(
    run: Callable[..., Any], database: Database, chain: list[AuditRecord]
) -> None:
    proved = run("audit", "verify")
    assert (proved.exit_code, chain[-1].hash in proved.output) == (0, True)
    changed = update(AuditRecord).where(AuditRecord.number == 4).values(actor="nobody")
    tampered(database, lambda session: session.execute(changed))
    broken = run("audit", "verify")
    assert broken.exit_code == 1
    assert "record 4" in broken.output


def test_export_writes_lines_whose_hashes_anybody_can_check(
    run: Callable[..., Any], chain: list[AuditRecord], tmp_path: Path
) -> None:
    output = tmp_path / "audit.jsonl"
    assert run("audit", "export", "--output", str(output)).exit_code == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["number"] for line in lines] == [row.number for row in chain]
    previous = NO_HASH
    for line in lines:
        assert line["previous_hash"] == previous
        previous = line.pop("hash")
        told = json.dumps(line, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(told.encode()).hexdigest() == previous
    assert run("audit", "export", "--after", "3").stdout.count("\n") == 2
