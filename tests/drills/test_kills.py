"""A service that is killed under load at any moment: what it answered is true and on record, and the next goes on."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select, text

from app import catalog
from app.db import Database, open_database, transaction
from app.settings import Settings
from app.tables import Dataset, Document, Subset, SubsetMember, Unit
from engine.store import open_artifact
from tests.app.conftest import NAMES
from tests.drills.conftest import TIMES
from tests.drills.processes import (
    Asked,
    Load,
    Request,
    Service,
    environment_of,
    neverseen,
    serving,
    wait_until,
)

SEED: Final = 21
LONGEST_SECONDS: Final = 1.0
"""From the start of a load to the kill, at most."""

KINDS: Final = {"predict", "datasets", "sketches"}
"""Of requests, all of which a load asks for."""

COMPARED: Final = 25
"""Answers of the killed service that the next one must give again."""


def question(text: str, **more: Any) -> Request:
    asked = {"sketch": "tiny", "delete": {"subset": "has-x"}, "measurements": [{"kind": "loss", "text": text}]}
    return Request(method="POST", path="/predict", body=asked | more)


def questions(seed: int) -> Iterator[Request]:
    """Of texts that were asked before and new ones, about a subset and documents, of each version and the current."""
    draws = random.Random(seed)
    while True:
        text = draws.choice(NAMES.texts)[: draws.randint(1, 5)]
        delete = draws.choice([{"subset": "has-x"}, {"documents": draws.sample(range(len(NAMES)), 3)}])
        yield question(text, delete=delete, version=draws.choice([1, 2, None]))


def verified(numbers: Iterator[int]) -> Iterator[Request]:
    """Questions that start a process which retrains. Each deletes another document, alone, as the others never do."""
    for number in numbers:
        yield question("max", delete={"documents": [number % len(NAMES)]}, verify=True)
        yield from itertools.repeat(question("max"), 20)


def creations(numbers: Iterator[int]) -> Iterator[Request]:
    """New datasets, and a subset of each."""
    for number in numbers:
        documents = [{"text": f"{name}{number}"} for name in NAMES.texts] * 5
        yield Request(method="POST", path="/datasets", body={"name": f"d{number}", "documents": documents})
        yield Request(method="POST", path=f"/datasets/d{number}/subsets", body={"name": "has-a", "contains": "a"})


def promotions(current: int) -> Iterator[Request]:
    """The other one of two versions, again and again."""
    while True:
        other = 3 - current
        yield Request(method="PUT", path="/sketches/tiny/current", body={"version": other, "expected": current})
        current = other


def kinds(asked: list[Asked]) -> set[str]:
    """What was answered, by the beginning of its path."""
    return {one.request.path.split("/")[1] for one in list(asked) if one.response is not None}


def load(service: Service, settings: Settings, numbers: Iterator[int], seed: int) -> Load:
    askers = [questions(seed), questions(seed + 1000), verified(numbers), creations(numbers)]
    return Load(service, [*askers, promotions(current_version(settings))])


def current_version(settings: Settings) -> int:
    database = open_database(settings)
    with transaction(database, writes=False) as session:
        number = catalog.get_sketch(session, "tiny").current_number
    database.dispose()
    assert number is not None
    return number


def check_catalog(settings: Settings) -> None:
    """The database is sound, and whatever is in it is whole."""
    database = open_database(settings)
    try:
        if database.dialect.name == "sqlite":
            with database.connect() as connection:
                assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
                assert not connection.execute(text("PRAGMA foreign_key_check")).all()
        _check_rows(database, settings)
    finally:
        database.dispose()


def _check_rows(database: Database, settings: Settings) -> None:
    with transaction(database, writes=False) as session:
        for dataset in session.scalars(select(Dataset)):
            loaded = catalog.load_documents(session, dataset)
            assert (loaded.fingerprint, len(loaded), loaded.unit_count) == (
                dataset.fingerprint,
                dataset.document_count,
                dataset.unit_count,
            )
        for of, owner in ((Unit, Unit.dataset_id), (Document, Document.dataset_id)):
            assert session.scalar(select(func.count()).select_from(of).where(owner.not_in(select(Dataset.id)))) == 0
        for subset in session.scalars(select(Subset)):
            members = select(func.count()).select_from(SubsetMember).where(SubsetMember.subset_id == subset.id)
            assert session.scalar(members) == subset.unit_count > 0
        versions = catalog.list_versions(session, catalog.get_sketch(session, "tiny"), limit=10, offset=0).items
        assert [version.number for version in versions] == [2, 1]
    for version in versions:
        open_artifact(settings.artifacts_dir / version.location, checksum=version.checksum)


def check_changes(settings: Settings, asked: list[Asked]) -> None:
    """What was answered to be done is done; of what wasn't answered, all or nothing."""
    database = open_database(settings)
    with transaction(database, writes=False) as session:
        for one in asked:
            if one.status == 201 and one.request.path == "/datasets":
                catalog.get_dataset(session, one.request.body["name"])
            elif one.status == 201:
                _, _, dataset, _ = one.request.path.split("/")
                catalog.get_subset(session, catalog.get_dataset(session, dataset), one.request.body["name"])
    database.dispose()
    promoted = [one for one in asked if one.request.method == "PUT"]
    possible = {one.request.body["version"] for one in promoted[-1:]}
    if promoted and promoted[-1].response is None:
        possible.add(promoted[-1].request.body["expected"])
    assert not promoted or current_version(settings) in possible


def check_audit(settings: Settings, asked: list[Asked]) -> None:
    """The chain is unbroken, and every answer to a question is in it, byte for byte."""
    environment = environment_of(settings)
    code, said = neverseen("audit", "verify", environment=environment)
    assert code == 0, said
    exported = settings.data_dir / "audit.jsonl"
    code, said = neverseen("audit", "export", "--output", str(exported), environment=environment)
    assert code == 0, said
    records = [json.loads(line) for line in exported.read_text().splitlines()]
    exported.unlink()
    assert [record["number"] for record in records] == list(range(1, len(records) + 1))
    digests = {record["request_id"]: record["details"].get("answer_digest") for record in records}
    changes = {record["request_id"] for record in records if "." in record["action"]}
    for one in asked:
        if one.status not in (200, 201) or one.request.method == "GET":
            continue
        assert one.response is not None
        request_id = one.response.headers["X-Request-ID"]
        if one.request.path == "/predict":
            assert digests.get(request_id) == hashlib.sha256(one.response.content).hexdigest(), one.response.text
        else:
            assert request_id in changes, one.response.text


def check_answers(service: Service, asked: list[Asked]) -> None:
    """A service gives the answers that another one gave."""
    numbered = [
        (one.request.body, one.response)
        for one in asked
        if one.request.path == "/predict" and one.request.body.get("version") and one.response is not None
    ]
    with service.client() as client:
        for body, response in numbered[:: max(1, len(numbered) // COMPARED)]:
            again = client.post("/predict", json=body)
            assert {**again.json(), "elapsed_ms": 0} == {**response.json(), "elapsed_ms": 0}


@TIMES
def test_what_a_killed_service_answered_is_true_and_on_record_and_the_next_one_goes_on(
    times: int, served: Settings, tmp_path: Path
) -> None:
    moments, numbers = random.Random(SEED), itertools.count()
    earlier: list[Asked] = []
    with ExitStack() as stack:
        killed = []
        for number in range(times):
            service = stack.enter_context(serving(served, tmp_path / f"{number}.log"))
            check_answers(service, earlier)
            with load(service, served, numbers, seed=number) as asking:
                if number + 1 == times:  # which comes when there is something to lose, however slow the machine is
                    wait_until(lambda: kinds(asking.asked) == KINDS, "answers of each kind")
                time.sleep(LONGEST_SECONDS * (number + moments.random()) / times)
                service.process.kill()
                asking.stop()
            assert service.process.code == -signal.SIGKILL
            assert "Traceback" not in service.process.said
            assert {one.status for one in asking.asked} <= {200, 201, 0}
            check_catalog(served)
            check_changes(served, asking.asked)
            earlier += asking.asked
            check_audit(served, earlier)
            killed.append(service.process)
        wait_until(lambda: not any(process.orphans() for process in killed), "processes that retrain end")
    with serving(served, tmp_path / "last.log") as service:
        check_answers(service, earlier)
        with load(service, served, numbers, seed=SEED) as asking:
            time.sleep(LONGEST_SECONDS)
            wait_until(lambda: kinds(asking.asked) == KINDS, "answers of each kind")
        assert {one.status for one in asking.asked} == {200, 201}
        service.process.stop()
    check_audit(served, earlier + asking.asked)
