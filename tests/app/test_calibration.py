"""POST /calibration, the build of a version, and their commands, on real sketches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import QueuePool, select
from typer.testing import CliRunner

from app import catalog
from app.__main__ import app as commands
from app.db import Database, transaction
from app.errors import ConflictError
from app.main import create_app
from app.predictor import Artifact as Served
from app.predictor import Predictor
from app.provenance import build_of
from app.schemas.keys import NewKey
from app.settings import Settings
from app.tables import AuditRecord
from engine.errors import ArtifactError
from engine.estimators import Candidate
from engine.leave_one_out import Answer
from engine.measure import Measurement
from engine.question import Prediction, Question
from engine.resident import ResidentSketch
from engine.sketch import build
from engine.store import Artifact, Manifest, open_artifact
from engine.supplements import add
from tests.app.conftest import NAMES, refusal, register, until
from tests.app.servers import served

MAX = {"kind": "loss", "text": "max"}
SOME = (0, 4, 9, 17, 20)
CANDIDATE = Candidate("axes", 2, 0, "probability")


@pytest.fixture(scope="module")
def with_axes(tmp_path_factory: pytest.TempPathFactory, artifact: Artifact) -> Artifact:
    wanted = dataclasses.replace(artifact.manifest.configuration, axes=True, directions=8, anchors=60)
    return build(NAMES, wanted, tmp_path_factory.mktemp("artifacts") / "axes")


@pytest.fixture
def place(database: Database, settings: Settings, sketch: str, with_axes: Artifact) -> Path:
    """Where the artifact of a sketch "axes" lies, which is beside the one without."""
    with transaction(database) as session:
        return register(session, settings, catalog.get_dataset(session, "names"), with_axes, sketch="axes")


def post(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/calibration", json={"measurement": MAX} | body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


# Calibration


@pytest.mark.usefixtures("place")
def test_answers_are_compared_with_what_was_retrained(client: TestClient, with_axes: Artifact) -> None:
    answer = post(client, sketch="axes", confidence=0.8)
    found = ResidentSketch(with_axes).reliability(Measurement(text="max"), confidence=0.8)
    assert len(found.anchors) > 20
    assert answer == {
        "sketch": "axes",
        "version": 1,
        "contains_erased": False,
        "measurement": MAX,
        "confidence": 0.8,
        "elapsed_ms": answer["elapsed_ms"],
        **{
            name: json.loads(json.dumps(asdict(found)[name]))
            for name in ("baseline", "anchors", "anchors_in_all", "sizes", "derivative_norms", "missing_share")
        },
    }
    assert answer["elapsed_ms"] > 0
    wider = post(client, sketch="axes", confidence=0.9, version=1)["anchors"]
    for narrow, wide in zip(answer["anchors"], wider, strict=True):
        assert (narrow["estimate"], narrow["truth"]) == (wide["estimate"], wide["truth"])
        assert wide["interval"][0] <= narrow["interval"][0] <= narrow["interval"][1] <= wide["interval"][1]


def test_of_directions_alone_what_was_retrained_later_is_compared(
    client: TestClient, settings: Settings, sketch: str
) -> None:
    measured = Measurement(kind="log_probability", prompt="ma", completion="x")
    measurement = {"kind": measured.kind, "prompt": measured.prompt, "completion": measured.completion}
    before = post(client, sketch=sketch, measurement=measurement)
    assert (before["anchors"], before["anchors_in_all"], before["sizes"]) == ([], 0, [])
    assert [norm["order"] for norm in before["derivative_norms"]] == [1, 2]
    [path] = settings.artifacts_dir.iterdir()
    opened = open_artifact(path)
    (estimated,) = ResidentSketch(opened).predict([measured], SOME, Question())
    add(opened, NAMES, [SOME])
    after = post(client, sketch=sketch, measurement=measurement)
    [anchor] = after["anchors"]
    assert isinstance(estimated, Prediction)
    assert (anchor["units"], anchor["estimator"]) == (len(SOME), "sphere")
    assert (anchor["likeness"], anchor["later"], after["anchors_in_all"]) == (0, True, 1)
    assert (anchor["estimate"], tuple(anchor["interval"])) == (estimated.estimate, estimated.interval)
    (known,) = ResidentSketch(opened).predict([measured], SOME, Question())
    assert isinstance(known, Prediction)
    assert anchor["truth"] == known.estimate != anchor["estimate"]
    assert [(group["anchors"], group["smallest"], group["largest"]) for group in after["sizes"]] == [(1, 5, 5)]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"measurement": {"kind": "next_token", "prompt": "a"}}, 422),
        ({"confidence": 0.4}, 422),
        ({"confidence": 1}, 422),
        ({"top": 3}, 422),
        ({"confidence": 0.999}, 400),
        ({"measurement": {"kind": "loss", "text": "mäx"}}, 400),
        ({"measurement": {"kind": "loss", "text": "maxmaxmax"}}, 400),
        ({"measurement": {"kind": "log_probability", "completion": ""}}, 400),
        ({"sketch": "nothing"}, 404),
        ({"version": 2}, 404),
    ],
)
def test_what_cannot_be_told_is_refused(client: TestClient, changed: dict[str, Any], status: int) -> None:
    refusal(client.post("/calibration", json={"sketch": "axes", "measurement": MAX} | changed), status)


@pytest.mark.usefixtures("place")
def test_an_answer_is_in_the_audit_without_its_text(client: TestClient, database: Database) -> None:
    sent = client.post("/calibration", json={"sketch": "axes", "measurement": MAX, "confidence": 0.8})
    with transaction(database, writes=False) as session:
        row = session.scalars(select(AuditRecord).order_by(AuditRecord.number.desc())).first()
    assert row is not None
    assert row.action == "calibrate"
    assert row.details == {
        "sketch": "axes",
        "version": 1,
        "anchors": len(sent.json()["anchors"]),
        "answer_digest": hashlib.sha256(sent.content).hexdigest(),
    }


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("limit", [{"decimals": 9}, {"measurements": [MAX]}])
def test_a_key_with_limits_on_what_it_sees_is_refused(client: TestClient, limit: dict[str, Any]) -> None:
    """Booleans would tell what rounding hides, and truths what others had verified."""
    made = NewKey.model_validate({"name": "k", "scopes": ["predict"], **limit})
    key = client.post("/keys", json=made.model_dump(mode="json")).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    question = {"sketch": "axes", "measurement": MAX, "confidence": 0.8}
    body = refusal(client.post("/calibration", json=question, headers=headers), 403)
    assert body["detail"] == "This key is for predictions only: its answers are rounded, or of listed measurements."
    asked = {"sketch": "axes", "delete": {"documents": [0]}, "measurements": [MAX]}
    assert client.post("/predict", json=asked, headers=headers).status_code == 200


@pytest.mark.usefixtures("place")
def test_a_key_without_limits_is_answered_but_needs_the_catalogs_scope_for_a_build(client: TestClient) -> None:
    made = NewKey.model_validate({"name": "k", "scopes": ["predict"]})
    key = client.post("/keys", json=made.model_dump(mode="json")).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    question = {"sketch": "axes", "measurement": MAX, "confidence": 0.8}
    assert client.post("/calibration", json=question, headers=headers).json()["anchors"]
    refusal(client.get("/sketches/axes/versions/1/build", headers=headers), 403)


@pytest.mark.usefixtures("place")
def test_a_calibration_ends_when_its_time_is_over_and_leaves_its_thread(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice takes longer than the request may: the thread is free again after the one that runs."""
    slices: list[int] = []
    go_on = threading.Event()

    class Slow:
        def __init__(self, _: object, asked: list[list[int]]) -> None:
            self.asked = asked

        def answers(self, confidence: float) -> list[Answer]:
            slices.append(len(self.asked))
            go_on.wait(60)
            return [Answer(value=0, half_width=confidence, candidate=CANDIDATE, likeness=0) for _ in self.asked]

    monkeypatch.setattr("engine.leave_one_out._NUMBERS", 1)
    monkeypatch.setattr("engine.leave_one_out._LEAST_ROWS", 1)
    monkeypatch.setattr("engine.leave_one_out._Without", Slow)
    hurried = create_app(settings.model_copy(update={"request_seconds": 4.0}))
    with TestClient(hurried, base_url="http://127.0.0.1") as client:
        asked = {"sketch": "axes", "delete": {"documents": [0]}, "measurements": [MAX]}
        assert client.post("/predict", json=asked).status_code == 200  # so that it is measured
        question = {"sketch": "axes", "measurement": MAX, "confidence": 0.8}
        assert refusal(client.post("/calibration", json=question), 503)["type"].endswith(":deadline")
        queues = hurried.state.parts.queues
        assert queues.lengths()["calibration"] == 1
        go_on.set()
        assert until(lambda: queues.lengths()["calibration"] == 0)
    assert slices == [1]


@pytest.mark.usefixtures("place")
def test_what_was_verified_since_is_listed_and_not_counted(client: TestClient, place: Path) -> None:
    before = post(client, sketch="axes", confidence=0.8)
    add(open_artifact(place), NAMES, [SOME])
    after = post(client, sketch="axes", confidence=0.8)
    assert after["anchors_in_all"] == before["anchors_in_all"] + 1 == len(after["anchors"])
    assert [one["units"] for one in after["anchors"] if one["later"]] == [len(SOME)]
    assert not any(one["later"] for one in before["anchors"])
    for answer in (before, after):
        assert sum(group["anchors"] for group in answer["sizes"]) == len(before["anchors"])
        for group in answer["sizes"]:
            low, high = group["coverage_interval"]
            assert 0 <= low <= group["inside"] / group["anchors"] <= high <= 1


@pytest.mark.usefixtures("place")
def test_calibrations_are_timed_as_themselves(client: TestClient) -> None:
    def counts() -> list[str]:
        lines = client.get("/metrics").text.splitlines()
        return [one for one in lines if one.startswith('neverseen_phase_seconds_count{phase="')]

    post(client, sketch="axes", confidence=0.8)
    assert 'neverseen_phase_seconds_count{phase="calibration"} 1.0' in counts()
    assert 'neverseen_phase_seconds_count{phase="engine"} 0.0' in counts()


@pytest.mark.usefixtures("place")
def test_a_version_that_holds_erased_units_answers_and_says_so(client: TestClient, database: Database) -> None:
    before = post(client, sketch="axes", confidence=0.8)
    with transaction(database) as session:
        dataset = catalog.get_dataset(session, "names")
        catalog.forget_units(session, dataset, [NAMES.texts.index("max")], now=datetime.now(UTC))
    after = post(client, sketch="axes", confidence=0.8)
    assert after == before | {"contains_erased": True, "elapsed_ms": after["elapsed_ms"]}


# Builds


def test_a_build_is_told_as_its_manifest_has_it(client: TestClient, place: Path, with_axes: Artifact) -> None:
    manifest = open_artifact(place).manifest
    told = client.get("/sketches/axes/versions/1/build").json()
    assert told == {
        "sketch": "axes",
        "version": 1,
        "document_count": len(NAMES),
        "unit_count": len(NAMES),
        "fingerprint": NAMES.fingerprint,
        "parameter_count": sum(rows * columns for rows, columns in manifest.shapes.values()),
        "device": "cpu",
        "native": manifest.plan.execution.native,
        "build_seconds": manifest.build_seconds,
        "created_at": told["created_at"],
        "directions": 8,
        "degree": 2,
        "axes": True,
        "retrained_count": len(NAMES) + 60,
        "step_count": len(NAMES),
        "libraries": manifest.versions,
    }
    assert told["created_at"] == manifest.created_at.isoformat().replace("+00:00", "Z")
    assert client.get("/sketches/tiny/versions/1/build").json()["retrained_count"] == 0
    refusal(client.get("/sketches/axes/versions/2/build"), 404)
    refusal(client.get("/sketches/axes/versions/0/build"), 422)


def test_a_build_is_told_though_its_version_isnt_served_and_as_long_as_it_is_there(
    client: TestClient, place: Path, settings: Settings, database: Database, with_axes: Artifact
) -> None:
    with transaction(database) as session:
        register(session, settings, catalog.get_dataset(session, "names"), with_axes, sketch="axes")
        catalog.retire(session, sketch="axes", version=1)
    assert client.get("/sketches/axes/versions/1/build").json()["unit_count"] == len(NAMES)
    content = (place / "manifest.json").read_bytes()
    (place / "manifest.json").write_bytes(content.replace(b'"degree": 2', b'"degree": 3'))
    assert "axes v1: manifest.json has SHA-256" in refusal(client.get("/sketches/axes/versions/1/build"), 500)["detail"]
    shutil.rmtree(place)
    body = refusal(client.get("/sketches/axes/versions/1/build"), 500)
    assert body["detail"] == "axes v1: There is no artifact: manifest.json is missing or can't be read."
    with transaction(database) as session:
        catalog.delete_version(session, sketch="axes", version=1)
    assert "given up" in refusal(client.get("/sketches/axes/versions/1/build"), 409)["detail"]


def test_what_is_resident_tells_its_manifest_whatever_becomes_of_the_file(place: Path, tmp_path: Path) -> None:
    opened = open_artifact(place)
    predictor = Predictor(device="cpu", resident_bytes=2**30, table_cache_bytes=2**20)
    artifact = Served(version_id=1, label="axes v1", path=place, checksum=opened.checksum)
    assert predictor.manifest(artifact) == opened.manifest
    assert predictor.resident() == []
    predictor.load(artifact)
    shutil.rmtree(place)
    assert predictor.manifest(artifact) == opened.manifest
    other = dataclasses.replace(artifact, version_id=2)
    with pytest.raises(ArtifactError, match=r"^axes v1: There is no artifact"):
        predictor.manifest(other)


# Commands


@pytest.fixture
def url(settings: Settings, place: Path) -> Iterator[str]:
    with served(settings) as url:
        yield url


def run(*arguments: str) -> str:
    done = CliRunner().invoke(commands, arguments)
    assert done.exception is None, done.output
    return done.output


@pytest.fixture
def _local_catalog(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("NEVERSEEN_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.usefixtures("_local_catalog")
@pytest.mark.parametrize(
    "question",
    [
        ("axes", "--text", "max", "--confidence", "0.8"),
        ("axes", "--completion", "m:ax", "--confidence", "0.9", "--version", "1"),
        ("tiny", "--text", "zoe"),
    ],
)
def test_a_service_is_asked_as_the_catalog_is(url: str, question: tuple[str, ...], tmp_path: Path) -> None:
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    printed = run("calibration", *question, "--output", str(here))
    assert run("calibration", *question, "--output", str(there), "--url", url) == printed
    assert here.read_text() == there.read_text()
    told = json.loads(here.read_text())
    assert f"{told['sketch']} v1" in printed
    for group in told["sizes"]:
        assert f"{group['rms_error']:.4f}" in printed
        low, high = group["coverage_interval"]
        assert f"{low:.1%} … {high:.1%}" in printed
    nothing = told["sketch"] == "tiny"
    assert ("Nothing was retrained" in printed) == nothing
    warning = "Sets that are less like what the model was retrained without are covered less often."
    assert (warning in " ".join(printed.split())) != nothing


@pytest.mark.usefixtures("_local_catalog", "place")
def test_what_a_command_cant_answer_is_refused() -> None:
    for wrong in (("axes",), ("axes", "--text", "max", "--completion", "m:ax")):
        refused = CliRunner().invoke(commands, ["calibration", *wrong])
        assert refused.exit_code == 2
        assert "either --text or --completion" in " ".join(refused.output.replace("│", " ").split())


@pytest.mark.usefixtures("_local_catalog")
def test_a_command_shows_how_a_version_was_built(place: Path, database: Database) -> None:
    manifest = open_artifact(place).manifest
    shown = " ".join(run("sketches", "show", "axes").split())
    assert shown == " ".join(run("sketches", "show", "axes", "1").split())
    assert "axes v1, ready" in shown
    assert manifest.plan.source.fingerprint in shown
    assert f"axes and 8 random directions to order 2 retrained {len(NAMES) + 60:,} models" in shown
    assert all(f"{name} {number}" in shown for name, number in manifest.versions.items())
    assert "axes" not in run("sketches", "show", "tiny").replace("tiny", "")
    shutil.rmtree(place)
    gone = CliRunner().invoke(commands, ["sketches", "show", "axes"])
    assert isinstance(gone.exception, ArtifactError)
    assert str(gone.exception).startswith("axes v1: There is no artifact")


@pytest.mark.usefixtures("_local_catalog", "place")
def test_a_deleted_version_is_shown_neither_by_the_command_nor_by_the_service(
    client: TestClient, settings: Settings, database: Database, with_axes: Artifact
) -> None:
    with transaction(database) as session:
        register(session, settings, catalog.get_dataset(session, "names"), with_axes, sketch="axes")
        catalog.retire(session, sketch="axes", version=1)
        catalog.delete_version(session, sketch="axes", version=1)
    refused = CliRunner().invoke(commands, ["sketches", "show", "axes", "1"])
    assert isinstance(refused.exception, ConflictError)
    assert str(refused.exception) == "axes v1 is deleted: its artifact was given up."
    assert refusal(client.get("/sketches/axes/versions/1/build"), 409)["detail"] == str(refused.exception)


@pytest.mark.usefixtures("place")
def test_no_transaction_is_open_while_an_artifact_is_asked(settings: Settings, database: Database) -> None:
    open_then: list[int] = []

    def manifest_of(artifact: Served) -> Manifest:
        pool = database.pool
        assert isinstance(pool, QueuePool)
        open_then.append(pool.checkedout())
        return artifact.manifest()

    row, build = build_of(database, settings.artifacts, "axes", None, manifest_of=manifest_of)
    assert (row.label, row.state, build.axes) == ("axes v1", "ready", True)
    assert open_then == [0]
