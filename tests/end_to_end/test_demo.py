"""The product as a user meets it: the demo, then the service over HTTP, its answers compared with retraining."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest

from app.__main__ import main
from engine.configuration import SketchConfiguration
from engine.data import census_names
from engine.documents import Documents
from engine.measure import Measurement, measure_models
from engine.model import ModelConfiguration
from engine.retrain import retrain
from tests.app.conftest import until
from tests.drills.processes import free_port

NAMES, DIRECTIONS = 300, 150
STANDARD_ERRORS = 4


Done: TypeAlias = "subprocess.CompletedProcess[str]"


def neverseen(*arguments: str, data_dir: Path) -> Done:
    """A command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env={**os.environ, "NEVERSEEN_DATA_DIR": str(data_dir), "COLUMNS": "160"},  # no line is broken
        capture_output=True,
        text=True,
        check=False,
    )


DEMO = ("demo", "--no-serve", "--names", str(NAMES), "--directions", str(DIRECTIONS))


@pytest.fixture
def command(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command line within this process: another one takes seconds to start."""
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(data_dir))
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["neverseen", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo has its data; the same for all processes that the tests run in."""
    session = tmp_path_factory.getbasetemp()
    data_dir = (session.parent if "PYTEST_XDIST_WORKER" in os.environ else session) / "demo" / "var"
    data_dir.mkdir(parents=True, exist_ok=True)
    return data_dir


@pytest.fixture(scope="session")
def first_start(data_dir: Path) -> str:
    """What the demo prints when it starts first; the first process that asks starts it."""
    said = data_dir.parent / "said"
    with (data_dir.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            done = neverseen(*DEMO, data_dir=data_dir)
            assert done.returncode == 0, done.stderr
            said.write_text(done.stdout)
    return said.read_text()


@pytest.fixture(scope="module")
def service(first_start: str, data_dir: Path) -> Iterator[httpx.Client]:
    assert first_start
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--port", str(port)],
        env={**os.environ, "NEVERSEEN_DATA_DIR": str(data_dir)},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            deadline = time.monotonic() + 60
            while not ready(client):
                assert process.poll() is None, "the service stopped"
                assert time.monotonic() < deadline, "the service never became ready"
                time.sleep(0.1)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, -signal.SIGTERM)


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def documents() -> Documents:
    return census_names().first(NAMES)


def retrained_loss(documents: Documents, units: list[int], text: str) -> float:
    """The truth, in double precision and without the service."""
    configuration = SketchConfiguration(model=ModelConfiguration(vocabulary=documents.vocabulary), dtype="float64")
    models = retrain(documents, configuration, [units])
    return measure_models(Measurement(text=text), configuration.model, models).item()


def test_the_demo_shows_estimates_beside_retrained_losses(first_start: str) -> None:
    for heading in ("baseline", "estimate", "retrained", "error"):
        assert heading in first_start
    rows = re.findall(r"\b(max|zoe|annette)\b", first_start)
    assert rows == ["max", "zoe", "annette"]


def test_a_second_start_uses_what_exists(first_start: str, data_dir: Path, command: Callable[..., Done]) -> None:
    artifacts, retrained = artifact_files(data_dir), (data_dir / "demo-retrained.json").stat().st_mtime_ns
    done = neverseen(*DEMO, data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    assert "Retraining" not in done.stdout
    assert (data_dir / "demo-retrained.json").stat().st_mtime_ns == retrained
    assert numbers(done.stdout) == numbers(first_start)
    assert artifacts == artifact_files(data_dir)
    assert command("sketches", "list").stdout.count("names v") == 1


@pytest.mark.parametrize("screen", [True, False])
def test_the_demo_prints_the_address_of_its_page_and_opens_it_where_there_is_a_screen(
    first_start: str, data_dir: Path, tmp_path: Path, screen: bool
) -> None:
    assert first_start
    opened, port = tmp_path / "opened", free_port()
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o700)
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"NEVERSEEN_DATA_DIR": str(data_dir), "NEVERSEEN_PORT": str(port), "BROWSER": f"{browser} %s"}
    if screen:
        environment["DISPLAY"] = ":0"
    arguments = [argument for argument in DEMO if argument != "--no-serve"]
    address = f"http://127.0.0.1:{port}/#/ask?sketch=names&loss=max&subset=has-x"
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen([sys.executable, "-m", "app", *arguments], env=environment, stdout=said)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                assert until(lambda: ready(client), seconds=60)
                assert "Neverseen" in client.get("/").text
            assert until(lambda: opened.exists() and bool(opened.read_text()), seconds=60 if screen else 0.5) is screen
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
        said.seek(0)
        assert f"   {address}\n" in said.read()
    if screen:
        assert opened.read_text().strip() == address


def artifact_files(data_dir: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (data_dir / "artifacts").rglob("*") if path.is_file()}


def numbers(output: str) -> list[str]:
    return re.findall(r"\d\.\d{3}", output)


@pytest.mark.parametrize("estimator", ["axes", "sphere"])
@pytest.mark.parametrize(("subset", "letter", "text"), [("has-x", "x", "max"), ("has-z", "z", "zoe")])
def test_a_prediction_over_http_is_within_four_standard_errors_of_retraining(
    service: httpx.Client, documents: Documents, subset: str, letter: str, text: str, estimator: str
) -> None:
    question = {
        "sketch": "names",
        "delete": {"subset": subset},
        "measurements": [{"kind": "loss", "text": text}],
        "estimator": estimator,
    }
    response = service.post("/predict", json=question)
    assert response.status_code == 200, response.text
    [prediction] = response.json()["predictions"]
    units = [number for number, name in enumerate(documents.texts) if letter in name]
    assert response.json()["deleted"] == {"units": len(units), "documents": len(units)}
    truth = retrained_loss(documents, units, text)
    effect = abs(truth - prediction["baseline"])
    assert abs(prediction["estimate"] - truth) <= STANDARD_ERRORS * prediction["standard_error"]
    assert prediction["standard_error"] < effect / 2
    assert prediction["interval"][0] < prediction["estimate"] < prediction["interval"][1]


def test_naming_the_documents_asks_the_same_as_naming_the_subset(service: httpx.Client, documents: Documents) -> None:
    measurements = [{"kind": "loss", "text": "max"}]
    numbers = [number for number, name in enumerate(documents.texts) if "x" in name]
    answers = [
        service.post("/predict", json={"sketch": "names", "delete": delete, "measurements": measurements}).json()
        for delete in ({"subset": "has-x"}, {"documents": numbers}, {"units": [str(n) for n in numbers]})
    ]
    assert answers[0]["predictions"] == answers[1]["predictions"] == answers[2]["predictions"]


def test_the_curve_starts_at_the_baseline_and_ends_at_the_estimate(service: httpx.Client) -> None:
    question = {
        "sketch": "names",
        "delete": {"subset": "has-x"},
        "measurements": [{"kind": "loss", "text": "max"}],
        "downweight": [0.0, 0.25, 0.5, 1.0],
    }
    [prediction] = service.post("/predict", json=question).json()["predictions"]
    assert [point["downweight"] for point in prediction["curve"]] == question["downweight"]
    assert prediction["curve"][0]["estimate"] == prediction["baseline"]
    assert prediction["curve"][-1]["estimate"] == prediction["estimate"]


def test_the_documentation_page_is_served(service: httpx.Client) -> None:
    assert service.get("/docs").status_code == 200
    assert service.get("/openapi.json").json()["info"]["title"] == "Neverseen"


def test_the_curl_line_of_the_demo_works_as_pasted(first_start: str, service: httpx.Client) -> None:
    """The line itself is printed when the demo serves; here it is made for this service's address and run."""
    from app.commands.demo import curl_line

    line = curl_line(str(service.base_url).rstrip("/"))
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["predictions"][0]["measurement"]["text"] == "max"


def test_the_command_line_answers_what_the_service_answers(service: httpx.Client, command: Callable[..., Done]) -> None:
    question = {"sketch": "names", "delete": {"subset": "has-x"}, "measurements": [{"kind": "loss", "text": "max"}]}
    [prediction] = service.post("/predict", json=question).json()["predictions"]
    done = command("predict", "names", "--subset", "has-x", "--text", "max")
    assert done.returncode == 0, done.stderr
    assert f"{prediction['estimate']:.4f}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "nmaes", "--subset", "has-x", "--text", "max"], "no sketch 'nmaes'"),
        (["predict", "names", "--subset", "has-y", "--text", "max"], "no subset 'has-y'"),
        (["predict", "names", "--unit", "nobody", "--text", "max"], "no unit 'nobody'"),
        (["predict", "names", "--document", "9999", "--text", "max"], "no document 9999"),
        (["predict", "names", "--document", "3", "--document", "3", "--text", "max"], "more than once"),
        (["predict", "names", "--document", "3", "--text", ""], "empty"),
        (["predict", "names", "--document", "3", "--text", "Max"], "'M'"),
        (["predict", "names", "--document", "3", "--text", "m" * 16], "16 characters"),
        (["predict", "names", "--document", "3", "--text", "max", "--degree", "4"], "up to 3"),
        (["predict", "names", "--document", "3", "--text", "max", "--downweight", "1.5"], "outside [0, 1]"),
        (["predict", "names", "--text", "max"], "exactly one"),
        (["datasets", "add", "nowhere.txt"], "nowhere.txt can't be read"),
        (["sketches", "build", "names", "--dataset", "nothing"], "no dataset 'nothing'"),
        (["sketches", "build", "names", "--dataset", "census-names", "--heads", "5"], "multiple of heads"),
        (["subsets", "add", "census-names", "odd", "--matches", "("], "regular expression"),
    ],
)
def test_what_the_command_line_refuses_has_exit_code_2_and_changes_nothing(
    first_start: str, data_dir: Path, command: Callable[..., Done], arguments: list[str], message: str
) -> None:
    before = {path: path.read_bytes() for path in (data_dir / "artifacts").rglob("*.json")}
    done = command(*arguments)
    assert done.returncode == 2, done.stdout
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert before == {path: path.read_bytes() for path in (data_dir / "artifacts").rglob("*.json")}


def test_malformed_files_are_refused_with_their_line(
    tmp_path: Path, data_dir: Path, command: Callable[..., Done]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "ana"}\n{"text": 3}\n')
    done = neverseen("datasets", "add", str(bad), data_dir=data_dir)
    assert (done.returncode, "Line 2" in done.stderr) == (2, True)
    assert "bad" not in command("datasets", "list").stdout
