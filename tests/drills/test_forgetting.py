"""An erased person is gone: from every file of an installation, from its answers, and from what is built afterwards.

A service in a process of its own is asked whatever leaves traces; then the person is erased over HTTP, and all files
are searched for their text, their name and their address. Of a person who wasn't erased all three are found.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

from app.db import Database, open_database
from app.privacy.identities import Identity, identity_hashes
from app.secret import load_secret
from app.settings import Settings
from app.tables import Table
from tests.app.conftest import until
from tests.drills.processes import Neverseen, environment_of, neverseen, running, serving

ERASED, KEPT = ("qzkvwjxq", "wqvzkjqq"), ("yfpbgdyf", "fydgbpfy")
"""Texts of two persons, of letters that no other text has."""

NAMES = {"erased": "Subject-Zbigniew", "kept": "Subject-Yolanda"}
ADDRESSES = {"erased": "zbigniew@example.org", "kept": "yolanda@example.org"}


def write_people(directory: Path) -> None:
    """A file of documents with their subjects, and a file of links."""
    generator = random.Random(5)
    rows = [("".join(generator.choices("abcde", k=6)), f"subject-{number % 10}") for number in range(30)]
    rows[7:7] = [(ERASED[0], NAMES["erased"]), (KEPT[0], NAMES["kept"])]
    rows += [(ERASED[1], NAMES["erased"]), (KEPT[1], NAMES["kept"])]
    lines = [json.dumps({"text": text, "subject": subject}) for text, subject in rows]
    (directory / "people.jsonl").write_text("\n".join(lines), encoding="utf-8")
    links = [f"{NAMES[who]},email,{ADDRESSES[who]}" for who in NAMES]
    (directory / "links.csv").write_text("\n".join(["subject,identity_type,identity_value", *links]), encoding="utf-8")


@pytest.fixture
def installation(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A catalog with a small sketch of two persons and ten others, made by the command line from files elsewhere."""
    outside, environment = tmp_path_factory.mktemp("outside"), environment_of(settings)
    write_people(outside)
    for arguments in (
        ["datasets", "add", str(outside / "people.jsonl"), "--name", "people"],
        ["datasets", "link", str(outside / "links.csv"), "--dataset", "people"],
        ["subsets", "add", "people", "theirs", "--contains", ERASED[0]],
        ["subsets", "add", "people", "all-q", "--contains", "q"],
        ["subsets", "add", "people", "others", "--contains", "a"],
        [
            "sketches",
            "build",
            "people",
            "--dataset",
            "people",
            "--axes",
            "--anchors",
            "32",
            "--directions",
            "8",
            "--width",
            "8",
            "--heads",
            "2",
            "--context",
            "10",
        ],
        ["privacy", "reports", "set", "--sketch", "people", "--text", "abc", "--own-documents", "2"],
    ):
        code, said = neverseen(*arguments, environment=environment)
        assert code == 0, said
    return settings


def files_with(directory: Path, sought: str) -> list[str]:
    """The files in which a string is, as it is or as JSON writes it."""
    forms = {sought.encode(), json.dumps(sought)[1:-1].encode(), sought.lower().encode()}
    return [
        path.relative_to(directory).as_posix()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and any(form in path.read_bytes() for form in forms)
    ]


def tables_with(database: Database, sought: str) -> list[str]:
    """The tables of PostgreSQL in whose files a string is, or in whose rows."""
    found = []
    with database.connect() as connection:
        connection.execute(text("CHECKPOINT"))
        for name in [*Table.metadata.tables, "pg_statistic"]:
            content = connection.scalar(
                text("SELECT pg_read_binary_file(pg_relation_filepath(CAST(:name AS regclass)))"), {"name": name}
            )
            toast = connection.scalar(
                text("SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE oid = CAST(:name AS regclass)"),
                {"name": name},
            )
            if toast is not None:
                content += connection.scalar(text("SELECT pg_read_binary_file(:file)"), {"file": toast})
            if sought.encode() in content:
                found.append(name)
    return found


def traces(settings: Settings, database: Database, sought: str) -> list[str]:
    """Wherever a string still is."""
    found = files_with(settings.data_dir, sought)
    return found if database.dialect.name == "sqlite" else found + tables_with(database, sought)


def ask_all(client: httpx.Client) -> None:
    """Everything that may leave a trace of the two persons in catalog, caches, supplements, logs and audit."""
    for texts, name in ((ERASED, NAMES["erased"]), (KEPT, NAMES["kept"])):
        measured = [{"kind": "loss", "text": one} for one in texts]
        question = {"sketch": "people", "delete": {"units": [name]}, "measurements": measured, "verify": True}
        answer = client.post("/predict", json=question)
        assert answer.status_code == 200, answer.text
        place = answer.json()["verification"]["url"]
        assert until(partial(is_verified, client, place), seconds=60)
        assert client.post("/predict", json=question | {"verify": False}).status_code == 200
        batch = {"sketch": "people", "deletions": [{"id": name, "delete": {"units": [name]}}], "measurements": measured}
        assert client.post("/predict/batch", json=batch).status_code == 200
        wrong = client.post("/predict", json=question | {"delete": {"units": [f"{name}!"]}})
        assert wrong.status_code == 404
        assert client.post("/attributions", json={"sketch": "people", "measurement": measured[0]}).status_code == 200
        assert client.get("/datasets/people/documents", params={"contains": texts[0]}).json()["total"] == 1
    for subset in ("theirs", "all-q"):
        question = {"sketch": "people", "delete": {"subset": subset}, "measurements": measured}
        assert client.post("/predict", json=question).status_code == 200


def is_verified(client: httpx.Client, place: str) -> bool:
    """Whether a verification is finished."""
    return bool(client.get(place).json()["state"] == "finished")


def erase(client: httpx.Client) -> dict[str, Any]:
    """Erase one of the two, over HTTP; what is answered when that is done."""
    identity = {"type": "email", "value": ADDRESSES["erased"]}
    body = {"id": "dsar-1", "mode": "erase", "identities": [identity]}
    request = client.post("/erasure-requests", json=body).json()["id"]
    answer: dict[str, Any] = {}

    def done() -> bool:
        answer.update(client.get(f"/erasure-requests/{request}").json())
        return bool(answer["state"] == "completed")

    assert until(done, seconds=60), answer
    return answer


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The catalog's database, seen from outside."""
    database = open_database(settings)
    yield database
    database.dispose()


def test_an_erased_person_is_nowhere_and_another_one_still_is(installation: Settings, database: Database) -> None:
    log = installation.data_dir / "service.log"
    sought = [*ERASED, NAMES["erased"], ADDRESSES["erased"]]
    with serving(installation, log) as service, service.client() as client:
        ask_all(client)
        for one in (ERASED[0], NAMES["erased"], KEPT[0], NAMES["kept"]):
            assert traces(installation, database, one), one  # what is looked for can be found
        supplements = set(installation.artifacts_dir.rglob("*.anchors/*.safetensors"))
        answer = erase(client)
        assert (answer["units"], answer["documents"]) == (1, 2)
        for one in sought:
            assert traces(installation, database, one) == [], one
        for one in (KEPT[0], NAMES["kept"]):
            assert traces(installation, database, one), one
        assert len(set(installation.artifacts_dir.rglob("*.anchors/*.safetensors"))) < len(supplements)

        named = {
            "sketch": "people",
            "delete": {"units": [NAMES["erased"]]},
            "measurements": [{"kind": "loss", "text": "abc"}],
        }
        assert client.post("/predict", json=named).status_code == 404
        assert client.get("/datasets/people/documents", params={"contains": ERASED[0]}).json()["total"] == 0
        assert client.get("/datasets/people/subsets/theirs").status_code == 404  # nobody else was in it
        others = named | {"delete": {"subset": "others"}}
        said = client.post("/predict", json=others).json()
        assert said["contains_erased"] is True
        assert client.post("/predict", json=others | {"verify": True}).status_code == 409
        evidence = client.get(answer["evidence"])
        assert evidence.status_code == 200
        for one in sought:
            assert one not in evidence.text
    secret = load_secret(installation)
    hashes = identity_hashes(Identity(kind="email", value=ADDRESSES["erased"]), secret)
    with database.connect() as connection:
        for table in Table.metadata.tables.values():
            for row in connection.execute(select(table)):
                assert not any(one in repr(row) for one in hashes), table.name
    for one in sought:
        assert traces(installation, database, one) == [], one


def test_the_successor_is_built_without_them_and_takes_over(installation: Settings, database: Database) -> None:
    environment = environment_of(installation)
    with serving(installation, installation.data_dir / "service.log") as service, service.client() as client:
        erase(client)
        code, said = neverseen("sketches", "rebuild", "people", "--retire", environment=environment)
        assert code == 0, said
        assert "people v2 is current" in said
        question = {
            "sketch": "people",
            "delete": {"subset": "others"},
            "measurements": [{"kind": "loss", "text": "abc"}],
        }

        def served() -> bool:
            answer = client.post("/predict", json=question).json()
            return (answer.get("version"), answer.get("contains_erased")) == (2, False)

        assert until(served)
        assert client.post("/predict", json=question | {"verify": True}).status_code == 200
        version = client.get("/sketches/people/versions/2").json()
        assert (version["dataset"], version["erased_units"]) == ("people-2", 0)
        kept = {"id": "dsar-2", "identities": [{"type": "email", "value": ADDRESSES["kept"]}]}
        request = client.post("/erasure-requests", json=kept).json()["id"]
        assert until(lambda: client.get(f"/erasure-requests/{request}").json()["state"] == "completed", seconds=60)
        evidence = client.get(f"/erasure-requests/{request}/evidence").json()
        assert {match["dataset"] for match in evidence["matches"]} == {"people", "people-2"}
        [report] = evidence["reports"]
        assert (report["sketch"]["version"], report["sketch"]["contains_erased"]) == (2, False)
    code, said = neverseen("sketches", "rebuild", "people", environment=environment)
    assert code == 2
    assert "Nothing of the dataset" in said


@pytest.mark.drill  # a dead worker's claim is believed for half a minute
def test_an_erasure_that_a_kill_interrupts_is_ended_by_the_next_process(
    installation: Settings, database: Database
) -> None:
    sought = [*ERASED, NAMES["erased"], ADDRESSES["erased"]]
    idle = serving(installation, installation.data_dir / "first.log", privacy_worker=False)
    with idle as service, service.client() as client:
        body = {
            "id": "dsar-1",
            "mode": "erase",
            "identities": [{"type": "email", "value": ADDRESSES["erased"]}],
        }
        request = client.post("/erasure-requests", json=body).json()["id"]
        environment = environment_of(installation)
        for _ in range(3):
            with running("worker", environment=environment, log=installation.data_dir / "worker.log") as worker:
                kill_as_soon_as_it_works(worker, client, request)
        with running("worker", environment=environment, log=installation.data_dir / "worker.log"):
            completed = until(
                lambda: client.get(f"/erasure-requests/{request}").json()["state"] == "completed", seconds=90
            )
        assert completed
    for one in sought:
        assert traces(installation, database, one) == [], one


def kill_as_soon_as_it_works(worker: Neverseen, client: httpx.Client, request: str) -> None:
    """Kill a worker in the middle of a request, or when the request is done."""
    until(lambda: client.get(f"/erasure-requests/{request}").json()["state"] != "pending", seconds=30)
    worker.kill()
