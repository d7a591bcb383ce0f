"""Versions: switched when they are loaded, without a failed question, and never deleted while in use."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app import catalog
from app.__main__ import app as command_line
from app.db import Database, transaction
from app.errors import ConflictError
from app.leftovers import find_leftovers, remove_leftovers
from app.predictor import Predictor
from app.serving import Serving
from app.settings import Settings
from app.tables import SketchVersion
from engine.shards import Shards
from engine.store import Artifact
from engine.workspace import lock_directory
from tests.app.conftest import refusal, register, until
from tests.app.test_predict_route import QUESTION, ask
from tests.shards import Processes

pytestmark = pytest.mark.usefixtures("sketch")

Register = Callable[..., Path]


@pytest.fixture
def another(database: Database, settings: Settings, artifact: Artifact) -> Register:
    """Registers the artifact once more, which makes it current; where it lies, and where it may be harmed first."""

    def registered(harm: Callable[[Path], None] = lambda _: None) -> Path:
        with transaction(database) as session:
            place = register(session, settings, catalog.get_dataset(session, "names"), artifact, sketch="tiny")
            harm(place)
            return place

    return registered


def current(client: TestClient) -> int | None:
    number: int | None = client.get("/sketches/tiny").json()["current_version"]
    return number


def actions(database: Database) -> list[tuple[str, dict[str, Any]]]:
    """What the audit holds, in order."""
    with transaction(database, writes=False) as session:
        return [(row.action, dict(row.details)) for row in catalog.walk_records(session)]


def leave(directory: Path) -> Path:
    """A directory with a file that no version names."""
    directory.mkdir(parents=True)
    (directory / "plan.json").write_text("{}")
    return directory


def test_the_version_before_answers_until_the_new_one_is_loaded(
    database: Database, settings: Settings, another: Register
) -> None:
    predictor = Predictor(device="cpu", resident_bytes=2**30, table_cache_bytes=2**20)
    serving = Serving(database, predictor, settings.artifacts)
    serving.look()  # and no thread, so that each step is seen
    another()
    with transaction(database, writes=False) as session:
        first, second = catalog.get_version(session, "tiny", 1).id, catalog.get_version(session, "tiny").id
    assert serving.version_for("tiny", second) == first
    assert not predictor.holds(second)
    serving.look()
    assert predictor.holds(second)
    assert serving.version_for("tiny", second) == second


def test_a_version_that_cant_be_loaded_is_never_switched_to_and_is_reported(
    client: TestClient, another: Register
) -> None:
    before = ask(client)

    def harm(place: Path) -> None:
        parameters = place / "parameters.safetensors"
        parameters.write_bytes(parameters.read_bytes()[:-1])

    another(harm)
    assert until(lambda: bool(client.get("/readyz").json()["failed"]))
    assert client.get("/readyz").json()["failed"][0]["label"] == "tiny v2"
    after = ask(client)
    assert (after["version"], after["predictions"]) == (1, before["predictions"])


def test_a_sketch_whose_shards_are_away_keeps_no_other_from_serving_and_is_reported(
    database: Database, settings: Settings
) -> None:
    processes = Processes(2)
    shards = Shards(processes, least_share=0.5)
    predictor = Predictor(device="cpu", resident_bytes=2**30, table_cache_bytes=2**20, shards=shards)
    processes.kill(1)
    serving = Serving(database, predictor, settings.artifacts)
    serving.look()
    assert predictor.resident() == []
    assert list(predictor.failures()) == ["tiny v1"]
    processes.begin_anew(1)
    shards.look()
    Serving(database, predictor, settings.artifacts).look()
    assert [one.label for one in predictor.resident()] == ["tiny v1"]
    assert predictor.failures() == {}


def test_promotions_under_load_fail_no_question(client: TestClient, another: Register) -> None:
    ask(client)
    answers: list[tuple[int, Any]] = []
    stop = threading.Event()

    def answered(version: int) -> bool:
        return answers[-1:] == [(200, version)]

    def load() -> None:
        while not stop.is_set():
            response = client.post("/predict", json=QUESTION)
            answers.append((response.status_code, response.json().get("version")))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in (2, 3, 4):
            another()
            assert until(partial(answered, number)), answers[-5:]
        client.post("/sketches/tiny/rollback")
        assert until(partial(answered, 3)), answers[-5:]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in answers} == {200}


def test_a_promotion_that_expects_another_version_is_refused(client: TestClient, another: Register) -> None:
    another()
    body = refusal(client.put("/sketches/tiny/current", json={"version": 1, "expected": 1}), 409)
    assert "somebody else moved it" in body["detail"]
    assert current(client) == 2
    promoted = client.put("/sketches/tiny/current", json={"version": 1, "expected": 2})
    assert (promoted.status_code, promoted.json()["current_version"]) == (200, 1)


def test_of_promotions_that_expect_the_same_one_wins(client: TestClient, another: Register) -> None:
    another()
    another()
    results: list[int] = []

    def promote(version: int) -> None:
        answer = client.put("/sketches/tiny/current", json={"version": version, "expected": 3})
        results.append(answer.status_code)

    threads = [threading.Thread(target=promote, args=(version,)) for version in (1, 2, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [200, 409, 409, 409]


def test_a_rollback_goes_back_and_another_takes_that_back(client: TestClient, another: Register) -> None:
    refusal(client.post("/sketches/tiny/rollback"), 409)
    another()
    assert client.post("/sketches/tiny/rollback").json()["current_version"] == 1
    assert client.post("/sketches/tiny/rollback").json()["current_version"] == 2


def test_of_rollbacks_that_expect_the_same_version_one_is_done(client: TestClient, another: Register) -> None:
    another()
    assert client.post("/sketches/tiny/rollback", json={"expected": 2}).json()["current_version"] == 1
    body = refusal(client.post("/sketches/tiny/rollback", json={"expected": 2}), 409)
    assert "somebody else moved it" in body["detail"]
    assert current(client) == 1
    refusal(client.post("/sketches/tiny/rollback", json={"expected": 7}), 404)
    for wrong in ({}, {"expected": None}, {"expected": "1"}, {"expected": 0}, {"expected": 1, "version": 2}):
        assert "body" in refusal(client.post("/sketches/tiny/rollback", json=wrong), 422)["detail"]
    assert current(client) == 1


def test_a_rollback_on_the_command_line_may_expect_a_version(
    settings: Settings, database: Database, another: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEVERSEEN_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(settings.data_dir))
    another()

    def run(*options: str) -> Result:
        return CliRunner().invoke(command_line, ["sketches", "rollback", "tiny", *options])

    assert "tiny v1 is current" in run("--expected", "2").output
    assert run("--expected", "2").exit_code != 0
    with transaction(database, writes=False) as session:
        assert catalog.get_sketch(session, "tiny").current_number == 1
    assert "tiny v2 is current" in run().output


def test_a_promotion_of_the_current_version_leaves_the_way_back(
    client: TestClient, database: Database, another: Register
) -> None:
    another()
    before = actions(database)
    again = client.put("/sketches/tiny/current", json={"version": 2, "expected": 2})
    assert (again.status_code, again.json()["current_version"]) == (200, 2)
    assert actions(database) == before
    refusal(client.put("/sketches/tiny/current", json={"version": 1, "expected": 1}), 409)
    assert client.post("/sketches/tiny/rollback", json={"expected": 2}).json()["current_version"] == 1
    assert actions(database) == [*before, ("sketch.promote", {"sketch": "tiny", "version": 1, "previous": 2})]


def test_a_rollback_to_a_retired_version_is_refused(client: TestClient, another: Register) -> None:
    another()
    assert client.post("/sketches/tiny/versions/1/retire").json()["state"] == "retired"
    refusal(client.post("/sketches/tiny/rollback"), 409)
    assert current(client) == 2


def test_a_version_in_use_is_neither_retired_nor_deleted(client: TestClient, another: Register) -> None:
    refusal(client.post("/sketches/tiny/versions/1/retire"), 409)
    refusal(client.delete("/sketches/tiny/versions/1"), 409)
    another()
    refusal(client.delete("/sketches/tiny/versions/1"), 409)  # still ready: it may be asked for
    assert client.post("/sketches/tiny/versions/1/retire").status_code == 200
    assert client.delete("/sketches/tiny/versions/1").json()["state"] == "deleted"
    refusal(client.post("/predict", json=QUESTION | {"version": 1}), 409)


def test_a_version_that_waits_to_be_verified_isnt_deleted(
    client: TestClient, database: Database, another: Register
) -> None:
    assert client.post("/predict", json=QUESTION | {"verify": True}).status_code == 200
    another()
    client.post("/sketches/tiny/versions/1/retire")
    with transaction(database) as session:
        waiting = catalog.list_verifications(session, limit=1, offset=0).items[0]
        if waiting.state in {"pending", "running"}:
            with pytest.raises(ConflictError, match="still being verified"):
                catalog.delete_version(session, sketch="tiny", version=1)


# Leftovers


def test_only_what_no_version_names_is_left_over(
    client: TestClient, database: Database, settings: Settings, another: Register
) -> None:
    directory = settings.artifacts_dir
    kept = {path.name for path in directory.iterdir()}
    second = another()
    killed = directory / "names" / "abc.partial"
    killed.mkdir(parents=True)
    (killed / "plan.json").write_text("{}")
    (directory / f"{second.name}.anchors").mkdir()
    (directory / f"{second.name}.anchors" / "a.safetensors").write_bytes(b"abc")
    assert [one.location for one in find_leftovers(database, settings.artifacts, idle_seconds=0)] == [
        "names/abc.partial"
    ]
    assert find_leftovers(database, settings.artifacts, idle_seconds=3600) == []
    client.post("/sketches/tiny/rollback")
    client.post("/sketches/tiny/versions/2/retire")
    client.delete("/sketches/tiny/versions/2")
    leftovers = find_leftovers(database, settings.artifacts, idle_seconds=0)
    assert {one.location for one in leftovers} == {"names/abc.partial", second.name, f"{second.name}.anchors"}
    remove_leftovers(database, leftovers, settings.artifacts, idle_seconds=0)
    assert {path.name for path in directory.iterdir()} == kept
    assert client.post("/predict", json=QUESTION).status_code == 200


def test_a_build_that_goes_on_isnt_left_over(database: Database, settings: Settings) -> None:
    building = settings.artifacts_dir / "names" / "abc.partial"
    building.mkdir(parents=True)
    (building / "plan.json").write_text("{}")
    held = lock_directory(building)
    assert find_leftovers(database, settings.artifacts, idle_seconds=0) == []
    os.close(held)
    assert len(find_leftovers(database, settings.artifacts, idle_seconds=0)) == 1


def test_a_look_for_leftovers_beside_a_build_that_writes_finds_what_there_is(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing of a directory and the look at what is in it names come and go."""
    building, gone = leave(settings.artifacts_dir / "abc.partial"), leave(settings.artifacts_dir / "gone.partial")
    (building / "link").symlink_to(settings.artifacts_dir / "nowhere")
    (building / "draft.tmp").write_bytes(b"x")
    real = Path.rglob

    def listed_and_renamed(path: Path, pattern: str) -> list[Path]:
        found = list(real(path, pattern))
        (building / "draft.tmp").unlink(missing_ok=True)
        return found

    def went(path: Path) -> bool:
        shutil.rmtree(gone, ignore_errors=True)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rglob", listed_and_renamed)
        leftovers = find_leftovers(database, settings.artifacts, idle_seconds=0)
        assert [one.location for one in leftovers] == ["abc.partial", "gone.partial"]
        patch.setattr("app.leftovers.is_being_built", went)
        removed = remove_leftovers(database, leftovers, settings.artifacts, idle_seconds=0)
    assert [one.location for one in removed] == ["abc.partial"]
    assert not building.exists()


def test_a_stray_file_makes_nothing_around_it_a_leftover(
    database: Database, settings: Settings, another: Register
) -> None:
    directory = settings.artifacts_dir
    path = another()
    nested = directory / "names" / "abc"
    nested.parent.mkdir()
    path.rename(nested)
    with transaction(database) as session:
        catalog.get_version(session, "tiny").location = "names/abc"
    killed = leave(directory / "names" / "def.partial")
    others = leave(directory / "people" / "abc.partial")
    strays = [directory / "names" / ".DS_Store", directory / "people" / ".DS_Store", directory / ".DS_Store"]
    for stray in strays:
        stray.write_bytes(b"x")
    leftovers = find_leftovers(database, settings.artifacts, idle_seconds=0)
    assert [one.path for one in leftovers] == [killed, others]
    removed = remove_leftovers(database, leftovers, settings.artifacts, idle_seconds=0)
    assert [one.path for one in removed] == [killed, others]
    assert (nested / "manifest.json").exists()
    assert [stray for stray in strays if not stray.exists()] == []
    strays[1].unlink()
    nested.rename(path)  # named, and not there: what is beside its place isn't left over, and what nobody names is
    assert [one.path for one in find_leftovers(database, settings.artifacts, idle_seconds=0)] == [path]


def test_what_is_needed_by_the_time_of_the_removal_is_spared_and_the_rest_recorded(
    database: Database, settings: Settings, another: Register
) -> None:
    directory = settings.artifacts_dir
    registered = another()
    with transaction(database) as session:
        row = catalog.get_version(session, "tiny")
        row.state = "deleted"
    changed, building, left = (leave(directory / name) for name in ("changed", "building.partial", "left"))
    day_ago = time.time() - 86_400
    for path in (registered, changed, building, left):
        for entry in (*path.iterdir(), path):
            os.utime(entry, (day_ago, day_ago))
    leftovers = find_leftovers(database, settings.artifacts, idle_seconds=3_600)
    assert {one.path for one in leftovers} == {registered, changed, building, left}
    with transaction(database) as session:
        catalog.get_version(session, "tiny").state = "ready"
    (changed / "plan.json").write_text("{ }")
    held = lock_directory(building)
    before = actions(database)
    removed = remove_leftovers(database, leftovers, settings.artifacts, idle_seconds=3_600)
    os.close(held)
    assert [one.path for one in removed] == [left]
    assert not left.exists()
    assert all(path.exists() for path in (registered, changed, building))
    assert actions(database) == [*before, ("artifact.remove", {"location": "left"})]


def test_a_removal_that_fails_is_recorded(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record comes first: nothing goes without one, even where the disk or the process fails halfway."""
    left = leave(settings.artifacts_dir / "left")
    leftovers = find_leftovers(database, settings.artifacts, idle_seconds=0)

    def fail(path: Path) -> None:
        raise OSError(f"{path.name} can't be removed")

    monkeypatch.setattr("app.leftovers.shutil.rmtree", fail)
    with pytest.raises(OSError, match="left can't be removed"):
        remove_leftovers(database, leftovers, settings.artifacts, idle_seconds=0)
    assert left.exists()
    assert actions(database)[-1] == ("artifact.remove", {"location": "left"})


def test_gc_says_what_it_would_do_and_asks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEVERSEEN_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(settings.data_dir))
    left = settings.artifacts_dir / "left"
    left.mkdir(parents=True)
    (left / "file").write_bytes(b"x" * 1_000)

    def run(*options: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(command_line, ["sketches", "gc", *options], input=answer)

    assert "nothing to remove" in run().output  # it changed lately
    assert "left" in run("--idle-hours", "0", "--dry-run").output
    assert left.exists()
    assert "Remove them?" in run("--idle-hours", "0", answer="n\n").output
    assert left.exists()
    assert "Removed 1" in run("--idle-hours", "0", "--yes").output
    assert not left.exists()


def register_anew(session: Session, path: Path, *, checksum: str | None = None) -> SketchVersion:
    """Delete version 2, then register what lies in its place now: the same artifact, or one of another checksum."""
    row = catalog.get_version(session, "tiny", 2)
    known = (row.checksum, row.configuration, row.size_bytes)
    catalog.promote(session, sketch="tiny", version=1, expected=2)
    catalog.retire(session, sketch="tiny", version=2)
    catalog.delete_version(session, sketch="tiny", version=2)
    return catalog.register_version(
        session,
        sketch="tiny",
        dataset=catalog.get_dataset(session, "names"),
        location=path.name,
        checksum=checksum or known[0],
        configuration=known[1],
        size_bytes=known[2],
    )


def test_the_same_artifact_registered_again_after_its_deletion_is_the_version_that_it_was(
    database: Database, another: Register
) -> None:
    path = another()
    with transaction(database) as session:
        again = register_anew(session, path)
        assert (again.number, again.state, again.is_current) == (2, "ready", True)


def test_a_promotion_is_served_within_seconds_where_nobody_asks(client: TestClient, another: Register) -> None:
    another()
    started = time.monotonic()
    assert until(lambda: "tiny v2" in {one["label"] for one in client.get("/readyz").json()["resident"]})
    assert time.monotonic() - started < 45


def test_a_build_of_the_same_plan_after_a_deletion_is_a_version_of_its_own(
    database: Database, another: Register
) -> None:
    """A manifest says when it was built, so that a second build of a plan never has the checksum of the first."""
    path = another()
    with transaction(database) as session:
        again = register_anew(session, path, checksum="f" * 64)
        assert (again.number, again.state, again.is_current) == (3, "ready", True)
        assert catalog.get_version(session, "tiny", 2).state == "deleted"
        assert path.name in catalog.named_locations(session)
