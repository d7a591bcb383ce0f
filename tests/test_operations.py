"""docs/operations.md, the dashboard and the alerts: what they say is run, or compared with the program."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import typer.main
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from typer.core import TyperGroup

from app import access, catalog, db, errors, server, serving
from app.__main__ import app as command_line
from app.actors import Actor
from app.catalog import Containing, Entry
from app.db import move_from_log, open_database, transaction
from app.settings import Settings
from engine.store import Artifact
from tests.app.conftest import (
    NAMES,
    _no_settings_from_outside,
    artifact,
    postgres_catalog,
    postgres_server,
    sqlite_template,
    until,
)
from tests.drills.conftest import _tests_are_found_by_processes
from tests.drills.processes import _FORKS, Service, environment_of
from tests.drills.processes import serving as serving_process

__all__ = [  # fixtures
    "_no_settings_from_outside",
    "_tests_are_found_by_processes",
    "artifact",
    "postgres_catalog",
    "postgres_server",
    "sqlite_template",
]

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GUIDE = (DOCS / "operations.md").read_text(encoding="utf-8")
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((DOCS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [rule["expr"] for rule in ALERTS] + [target["expr"] for panel in PANELS for target in panel["targets"]]

NOT_HERE = re.compile(
    r"\b(docker|systemctl|systemd-run|useradd|pip|pg_dump|pg_restore|createdb|alembic|install)\b|neverseen serve"
)
"""What makes a block one that can't be run in a test: other programs, root's rights, or no end."""

OF_PROMETHEUS = {"instance", "job", "le"}
RECORDS = 5_000


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block, and the line that it begins at."""

    language: str
    text: str
    line: int

    @property
    def runs_here(self) -> bool:
        return self.language == "sh" and not NOT_HERE.search(self.text)


BLOCKS = [
    Block(language=found[1], text=found[2], line=GUIDE[: found.start()].count("\n") + 1)
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
]


def blocks(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def section(heading: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    _, _, rest = GUIDE.partition(f"\n## {heading}\n")
    assert rest
    return rest.partition("\n## ")[0]


# The commands


@contextmanager
def quick_commands(directory: Path) -> Iterator[Path]:
    """A directory for PATH with `neverseen`, forked from a process that has imported it already.

    Starting Python and importing torch takes three seconds, and the guide has two dozen commands.
    """
    address = directory / "socket"
    programs = directory / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    (programs / "neverseen").write_text(
        f"#!{sys.executable} -IS\n"
        "import json, os, socket, sys\n"
        "with socket.socket(socket.AF_UNIX) as asking:\n"
        f"    asking.connect({str(address)!r})\n"
        "    environment = {name: value for name, value in os.environ.items() if name.startswith('NEVERSEEN_')}\n"
        "    file = asking.makefile('rw')\n"
        "    file.write(json.dumps([sys.argv[1:], os.getcwd(), environment]) + '\\n')\n"
        "    file.flush()\n"
        "    code, out, err = json.loads(file.readline())\n"
        "sys.stdout.write(out)\n"
        "sys.stderr.write(err)\n"
        "sys.exit(code)\n"
    )
    (programs / "neverseen").chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        thread = threading.Thread(target=_run_commands, args=(listening, directory), daemon=True)
        thread.start()
        try:
            yield programs
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _run_commands(listening: socket.socket, directory: Path) -> None:
    for number in itertools.count():
        try:
            asking, _ = listening.accept()
        except OSError:
            return  # nobody asks any more
        with asking, asking.makefile("rw") as file:
            said = [directory / f"{number}.{name}" for name in ("out", "err")]
            process = _FORKS.Process(target=_run_command, args=(*json.loads(file.readline()), *said))
            process.start()
            process.join()
            file.write(json.dumps([process.exitcode, *(path.read_text(encoding="utf-8") for path in said)]) + "\n")


def _run_command(arguments: Sequence[str], directory: str, environment: dict[str, str], out: Path, err: Path) -> None:
    from app.__main__ import main

    os.chdir(directory)
    os.environ.update(environment)
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = ["neverseen", *arguments]
    main()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, artifact: Artifact) -> Settings:
    """A catalog with the sketch "names" of two versions."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("operations") / "var")
    settings.data_dir.mkdir()
    shutil.copy(sqlite_template, settings.data_dir / "catalog.sqlite")
    database = open_database(settings)
    with transaction(database) as session:
        dataset = catalog.add_dataset(session, name="names", documents=NAMES)
        catalog.add_subset(session, dataset=dataset, name="has-x", rule=Containing("x"))
        for number in (1, 2):
            shutil.copytree(artifact.path, settings.artifacts_dir / f"names-{number}")
            catalog.register_version(
                session,
                sketch="names",
                dataset=dataset,
                location=f"names-{number}",
                checksum=artifact.checksum,
                configuration=asdict(artifact.manifest.configuration),
                size_bytes=artifact.manifest.size_bytes,
            )
    database.dispose()
    return settings


@pytest.fixture(scope="module")
def log(installation: Settings) -> Path:
    return installation.data_dir / "log"


@pytest.fixture(scope="module")
def service(installation: Settings, log: Path) -> Iterator[Service]:
    """A service that was asked this and that already, and keeps on running."""
    with serving_process(installation, log) as service:
        with service.client() as client:
            assert client.post("/predict", json=QUESTION).status_code == 200
            assert client.get("/nowhere").status_code == 404
        yield service


QUESTION = {"sketch": "names", "delete": {"subset": "has-x"}, "measurements": [{"kind": "loss", "text": "max"}]}


@pytest.fixture(scope="module")
def metrics(service: Service) -> str:
    """Once the service has counted its requests, which it does in the background."""
    found: list[str] = []

    def are_counted() -> bool:
        found.append(httpx.get(f"http://127.0.0.1:{service.port}/metrics", timeout=60).text)
        return "neverseen_erasure_requests{" in found[-1]

    assert until(are_counted)
    return found[-1]


def test_the_commands_of_the_guide_work_in_its_order(
    installation: Settings, service: Service, metrics: str, tmp_path: Path
) -> None:
    if not shutil.which("curl"):
        pytest.skip("there is no curl")
    assert metrics  # looked at before there is a key, and before what is done here is counted
    here = [block for block in blocks("sh") if block.runs_here]
    assert len(here) >= 8
    story = "".join(f"echo 'docs/operations.md:{block.line}' >&2\n{block.text}" for block in here)
    (tmp_path / "work").mkdir()
    with quick_commands(tmp_path) as programs:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", story.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")],
            cwd=tmp_path / "work",
            env={**os.environ, **environment_of(installation), "PATH": f"{programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr

    database = open_database(installation)
    with transaction(database, writes=False) as session:
        states = {row.name: row.state for row in catalog.list_keys(session, limit=10, offset=0).items}
        assert set(states) == {"operator", "erasure-backend", "partner"}
        assert [row.state for row in catalog.list_keys(session, limit=10, offset=0).items].count("revoked") == 1
        versions = catalog.list_versions(session, catalog.get_sketch(session, "names"), limit=10, offset=0).items
        assert [(row.number, row.state, row.is_current) for row in versions] == [
            (2, "ready", True),
            (1, "deleted", False),
        ]
        head = catalog.verify_chain(session).head
    database.dispose()
    assert (tmp_path / "work" / "restored" / "catalog.sqlite").exists()
    exported = (tmp_path / "work" / "audit.jsonl").read_text().splitlines()
    printed = json.loads(exported[-1])["hash"]
    assert printed in done.stdout.split()  # by the program that checks an export without Neverseen
    assert head in done.stdout  # of the backup and the restored copy, in which nothing was done


def commands_in(shell: str) -> list[list[str]]:
    """The arguments of each `neverseen` in a shell's text, be it called by its name or by a container's."""
    called = re.compile(
        r"(?:(?:^|bin/|\(|^\w+=\S+ )neverseen|docker compose run(?: --rm)?(?: --volume \S+)* (?:service|engine)) "
        r"([^\n|;&)]*)",
        re.MULTILINE,
    )
    return [found[1].partition("#")[0].split() for found in called.finditer(shell)]


def check_command(words: Sequence[str]) -> None:
    """Refuse a command or an option that there isn't."""
    command = typer.main.get_command(command_line)
    words = list(words)
    while isinstance(command, TyperGroup):
        name = words.pop(0)
        assert name in command.commands, f"neverseen has no {name}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, f"{command.name} has no {word}"


def test_every_command_and_option_of_the_guide_exists() -> None:
    fenced = [words for block in BLOCKS for words in commands_in(block.text)]
    code = re.findall(r"`(neverseen [^`\n]+)`", GUIDE)
    inline = [words for text in code for words in commands_in(text)]
    assert len(fenced) > 25
    for words in (*fenced, *inline):
        check_command(words)
    with pytest.raises(AssertionError, match="no --nonsense"):
        check_command(["keys", "create", "x", "--nonsense"])


def test_the_unit_of_systemd_starts_the_service() -> None:
    (block,) = blocks("ini")
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # as the library says
    unit.read_string(block.text)
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    (words,) = commands_in(unit["Service"]["ExecStart"])
    assert words[0] == "serve"
    check_command(words)
    assert int(unit["Service"]["TimeoutStopSec"]) > vars(server)["_SHUTDOWN_SECONDS"]


def test_the_pin_of_torch_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (pin,) = (one for one in project["project"]["dependencies"] if one.startswith("torch"))
    assert set(re.findall(r"torch==[\d.]+", GUIDE)) == {pin}


# What is said in words


def test_times_and_numbers_are_the_programs() -> None:
    pool: Any = open_database(Settings(database_url="postgresql://nobody@127.0.0.1/none")).pool
    kept = 2  # see app.kept
    for words in (
        f"every other one within {access.BELIEVED_SECONDS:g} seconds",
        f"tried again every {vars(serving)['_TRY_AGAIN_SECONDS']:g} seconds",
        f"gives the requests in flight {vars(server)['_SHUTDOWN_SECONDS']} seconds",
        f"less than the service's {vars(server)['_KEEP_ALIVE_SECONDS']} s",
        f"busy beyond {vars(db)['_BUSY_TIMEOUT_MS'] / 1000:g} seconds",
        f"at most {pool.size() + vars(pool)['_max_overflow'] + kept} connections",
        f"More than {Settings.model_fields['queue_length'].default // 2} questions",
    ):
        assert words in GUIDE, words
    assert vars(serving)["_LOOK_SECONDS"] == 1


def test_every_refusal_of_the_guide_is_one_and_its_status_is_right() -> None:
    kinds = [*errors.PROBLEM_TYPES.values(), *(one for one in vars(errors).values() if type(one) is errors.ProblemType)]
    known = {(kind.status, kind.slug) for kind in kinds}
    said = {
        (int(status), slug)
        for status, slug in re.findall(r"^\| (\d+) \| `([a-z-]+)` \|", section("Limits and overload"), re.MULTILINE)
    }
    assert said <= known
    assert {kind for kind in known if kind[0] in (401, 403, 408, 413, 429, 431, 503)} - said == {
        (503, "no-key"),  # at the start only
        (503, "schema"),
    }


def test_log_lines_of_the_guide_have_the_fields_of_real_ones(service: Service, log: Path) -> None:
    (block,) = blocks("json")
    request, loaded = (json.loads(line) for line in block.text.splitlines())
    real = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n")]
    assert list(request) == list(next(line for line in real if line["logger"] == "app.requests"))
    assert list(loaded) == list(next(line for line in real if line["logger"] == "app.serving"))
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", section("Logs"), re.MULTILINE))))
    assert named == {*request, "exc_info"}


def test_links_lead_somewhere() -> None:
    def anchors(path: Path) -> set[str]:
        headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        path, _, anchor = target.partition("#")
        file = (DOCS / path).resolve() if path else DOCS / "operations.md"
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


# The audit


def append(settings: Settings) -> None:
    database = open_database(settings)
    details: dict[str, str | int | None] = {
        "sketch": "names",
        "version": 3,
        "answer_digest": "5" * 64,
        "units": 50,
        "deletion_digest": "a" * 64,
        "measurements": 1,
    }
    with transaction(database) as session:
        catalog.append_records(
            session,
            [
                Entry(
                    at=datetime.now(UTC),
                    actor=Actor(name="key:k7d2m9qa", request_id=uuid4().hex),
                    action="predict",
                    details=details,
                )
                for _ in range(RECORDS)
            ],
        )
    if database.dialect.name == "sqlite":
        move_from_log(database)
    database.dispose()


def sizes() -> list[int]:
    """What a record takes, as the guide says: in SQLite, in PostgreSQL, exported, dumped."""
    (row,) = re.findall(r"^\| bytes, .*?\| (.*) \|$", section("The audit"), re.MULTILINE)
    return [int(number) for number in row.split(" | ")]


def test_a_record_takes_what_is_said(sqlite_template: Path, tmp_path: Path) -> None:
    in_sqlite, _, exported, _ = sizes()
    file = Path(shutil.copy(sqlite_template, tmp_path / "catalog.sqlite"))
    empty = file.stat().st_size
    settings = Settings(data_dir=tmp_path)
    append(settings)
    assert (file.stat().st_size - empty) / RECORDS == pytest.approx(in_sqlite, rel=0.05)
    database = open_database(settings)
    with transaction(database, writes=False) as session:
        lines = [json.dumps(catalog.as_line(row), separators=(",", ":")) for row in catalog.walk_records(session)]
    database.dispose()
    assert sum(len(line) + 1 for line in lines) / RECORDS == pytest.approx(exported, rel=0.05)


@pytest.mark.postgres
def test_a_record_takes_what_is_said_with_postgresql(postgres_catalog: Any, tmp_path: Path) -> None:
    from tests.app.conftest import emptied

    _, in_postgresql, _, _ = sizes()
    with emptied(postgres_catalog) as url:
        settings = Settings(data_dir=tmp_path, database_url=url)
        append(settings)
        database = open_database(settings)
        with database.connect() as connection:
            taken = connection.scalar(text("SELECT pg_total_relation_size('audit_records')"))
        database.dispose()
    assert taken is not None
    assert taken / RECORDS == pytest.approx(in_postgresql, rel=0.1)


# Metrics, dashboard, alerts


def families(metrics: str) -> dict[str, str]:
    """The names of metrics as they are asked for, and their kinds."""
    found = re.findall(r"^# TYPE (\w+) (\w+)$", metrics, re.MULTILINE)
    return {name: kind for name, kind in found if not name.endswith("_created")}


def askable(metrics: str) -> set[str]:
    """The names that an expression may have."""
    parts = {
        f"{name}{part}"
        for name, kind in families(metrics).items()
        if kind == "histogram"
        for part in ("_bucket", "_sum", "_count")
    }
    return parts | {name for name, kind in families(metrics).items() if kind != "histogram"} | {"up"}


def test_every_metric_is_in_the_guide_and_every_one_in_the_guide_exists(metrics: str) -> None:
    rows = re.findall(r"^\| (`neverseen_.*?) \|", section("Metrics"), re.MULTILINE)
    assert set(re.findall(r"`(neverseen_\w+)`", " ".join(rows))) == set(families(metrics))
    assert set(re.findall(r"\b(neverseen_\w+)\b", GUIDE)) <= set(families(metrics))


def test_labels_of_metrics_are_those_of_the_guide(metrics: str) -> None:
    rows = re.findall(r"^\| (`neverseen_.*?) \|(.*?)\|", section("Metrics"), re.MULTILINE)
    labels = labels_of(metrics)
    for names, said in rows:
        for name in re.findall(r"`(neverseen_\w+)`", names):
            told = {part.split(":")[0].strip().strip("`") for part in said.split(";" if ":" in said else ",")} - {""}
            assert told == labels[name] - {"le"}, name


@cache
def labels_of(metrics: str) -> dict[str, set[str]]:
    """The labels of each metric, by the name that it is asked for."""
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
            labels.setdefault(re.sub("_(bucket|sum|count)$", "", sample.name), set()).update(sample.labels)
    return labels


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_metrics_and_labels_that_there_are(expression: str, metrics: str) -> None:
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    names = set(re.findall(r"\b(?:neverseen_\w+|up)\b", without_strings))
    assert names
    assert names <= askable(metrics)
    allowed = OF_PROMETHEUS.union(*(labels_of(metrics).get(name, set()) for name in names))
    matched = {label for inside in re.findall(r"\{([^}]*)\}", without_strings) for label in re.findall(r"\w+", inside)}
    grouped = {
        label
        for inside in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", without_strings)
        for label in re.findall(r"\w+", inside)
    }
    assert matched | grouped <= allowed
    assert without_strings.count("(") == without_strings.count(")")


def test_expressions_name_values_that_labels_can_have(metrics: str) -> None:
    kinds = [*errors.PROBLEM_TYPES.values(), *(one for one in vars(errors).values() if type(one) is errors.ProblemType)]
    routes = {"/predict", "/readyz", "/healthz", "/metrics"}
    known = {"type": {kind.slug for kind in kinds}, "route": routes, "job": {"neverseen"}}
    for label in ("phase", "queue", "cache", "result", "below_resolution"):
        found = set(re.findall(rf'\b{label}="([^"]+)"', metrics))
        assert found
        known[label] = found
    for expression in EXPRESSIONS:
        for label, value in re.findall(r'(\w+)[=!]~?"([^"]+)"', expression):
            if label in known:
                assert set(value.split("|")) <= known[label], expression


def test_every_alert_has_a_section_that_says_what_to_do() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(set(names)) == len(names)
    headings = re.findall(r"^### (\w+)$", section("Alerts"), re.MULTILINE)
    assert sorted(headings) == sorted(names)
    for rule in ALERTS:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith((".", "names them."))
        assert rule["annotations"]["runbook"] == f"operations.md#{rule['alert'].lower()}"


def test_promtool_understands_the_alerts() -> None:
    if not shutil.which("promtool"):
        pytest.skip("there is no promtool")
    done = subprocess.run(
        ["promtool", "check", "rules", DOCS / "alerts.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] == 39  # of Grafana 11
    assert "__inputs" not in DASHBOARD  # the data source is a variable
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    used = {name for expression in EXPRESSIONS for name in re.findall(r"\$(\w+)", expression)}
    assert used <= {*variables, "__rate_interval", "__range"}
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        x, y, w, h = (panel["gridPos"][name] for name in "xywh")
        cells = {(column, row) for column in range(x, x + w) for row in range(y, y + h)}
        assert x + w <= 24
        assert not cells & taken
        taken |= cells
