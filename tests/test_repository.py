"""The repository's own files: what the Dockerfile, compose, make and continuous integration name exists and fits."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from sqlalchemy import make_url
from typer.testing import CliRunner

from app.__main__ import app as command_line
from app.main import create_app
from app.settings import Settings

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DATA = ROOT / "engine" / "data"
MAX_FILE_BYTES = 1_000_000

COMPOSE_FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
COMPOSE: dict[str, dict[str, Any]] = {name: yaml.safe_load((ROOT / name).read_text()) for name in COMPOSE_FILES}
SERVICES: dict[str, dict[str, Any]] = COMPOSE["docker-compose.yml"]["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in arguments("ENV") for pair in rest.split())


def stages() -> list[str]:
    return [rest.split(" AS ")[1] for rest in arguments("FROM")]


def copied() -> set[str]:
    """What the image takes from the repository."""
    return {source for rest in arguments("COPY") if "--from" not in rest for source in rest.split()[:-1]}


def interpolated(value: str) -> str:
    """A value of a compose file as it is where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def environment(service: str) -> dict[str, str]:
    """What a container of a service is told, override for a GPU included."""
    own = {key: value for file in COMPOSE.values() for key, value in file["services"][service]["environment"].items()}
    return {key: interpolated(value) for key, value in own.items()}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NEVERSEEN_"):
            monkeypatch.delenv(name)


# The image


def test_what_the_image_copies_exists_and_nothing_else_goes_to_the_builder() -> None:
    assert len(copied()) >= 4
    for source in copied():
        assert (ROOT / source).exists(), source
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made of nothing but what the image copies."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", target, source], check=True)
    return next(target.glob("neverseen-*.whl"))


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = set(ZipFile(wheel).namelist())
    for package in ("app", "engine", "migrations"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert path.relative_to(ROOT).as_posix() in held


def test_the_wheel_finds_its_migrations_and_data_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        "import app, sys\n"
        "from app.__main__ import main\n"
        "from engine.data import census_names\n"
        "print(app.__file__, len(census_names()))\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "db", "upgrade"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(tmp_path / "site"),
            "NEVERSEEN_DATABASE_URL": f"sqlite:///{tmp_path}/made.sqlite",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "site" / "app" / "__init__.py"), "5163"]
    assert (tmp_path / "made.sqlite").stat().st_size > 10_000  # tables, not an empty file


def test_the_image_starts_a_console_script_that_there_is() -> None:
    (entrypoint,) = (json.loads(rest) for rest in arguments("ENTRYPOINT"))
    (script,) = entrypoint
    module, _, function = PROJECT["project"]["scripts"][script].partition(":")
    assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize(
    "command",
    [json.loads(rest) for rest in arguments("CMD")] + [SERVICES[name]["command"] for name in OURS],
    ids=" ".join,
)
def test_containers_run_commands_that_there_are(command: list[str]) -> None:
    assert CliRunner().invoke(command_line, [*command, "--help"]).exit_code == 0
    assert CliRunner().invoke(command_line, [*command, "--no-such-option", "--help"]).exit_code != 0


def test_the_image_listens_where_it_says_and_is_asked_for_its_health(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in image_environment().items():
        if name.startswith("NEVERSEEN_"):
            monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.host == "0.0.0.0"  # or nothing outside the container reaches it
    assert [int(port) for port in arguments("EXPOSE")] == [settings.port]
    assert str(settings.data_dir) in arguments("VOLUME")
    (check,) = arguments("HEALTHCHECK")
    port, path = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", check)[0]
    assert int(port) == settings.port
    assert "get" in create_app(settings).openapi()["paths"][path]


def test_nothing_runs_as_root() -> None:
    users = {"packages": "root"}
    for name, rest in instructions():
        if name == "FROM":
            source, stage = rest.split(" AS ")
            users[stage] = users.get(source, "root")
        elif name == "USER":
            users[stage] = rest
    assert {stage for stage, user in users.items() if user == "root"} == {"packages"}


def test_the_default_target_is_the_service() -> None:
    assert stages()[-1] == "service"


# make and continuous integration


@pytest.mark.parametrize("file", ["Dockerfile", "Makefile"])
def test_the_pin_of_torch_is_found_where_it_is_installed_first(file: str) -> None:
    (expression,) = re.findall(r"sed -n '([^']*torch[^']*)' pyproject\.toml", (ROOT / file).read_text())
    found = subprocess.run(
        ["sed", "-n", expression, ROOT / "pyproject.toml"], capture_output=True, text=True, check=True
    )
    (pin,) = (one for one in PROJECT["project"]["dependencies"] if one.startswith("torch"))
    assert found.stdout.split() == [pin]
    assert re.fullmatch(r"torch==[\d.]+", pin)


def test_the_readme_names_targets_of_make_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    code = re.findall(r"```.*?```|`[^`\n]+`|^ {4}[^\n]+", README, re.DOTALL | re.MULTILINE)
    named = {name for part in code for name in re.findall(r"\bmake (?:[A-Z_]+=\S+ )*([a-z]+)", part)}
    assert {"demo", "test"} <= named <= targets


def test_make_helps_with_every_target() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^  make ([\w-]+)\t\w", done.stdout, re.MULTILINE) == phony.split()


def test_continuous_integration_runs_make_test() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert "make test" in run.read_text().splitlines()
    subprocess.run(["bash", "-n", run], check=True)


# Compose


@pytest.mark.parametrize(
    "arguments",
    [["-f", "docker-compose.yml"], [word for name in COMPOSE_FILES for word in ("-f", name)]],
    ids=["cpu", "gpu"],
)
def test_docker_compose_understands_the_files(arguments: list[str]) -> None:
    if not shutil.which("docker"):
        pytest.skip("there is no docker command")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("the docker command has no compose")
    done = subprocess.run(
        ["docker", "compose", *arguments, "--profile", "engine", "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_services_are_these() -> None:
    assert list(SERVICES) == ["database", "migrate", "engine", "service"]
    assert set(COMPOSE["docker-compose.gpu.yml"]["services"]) == set(OURS) == {"migrate", "engine", "service"}


@pytest.mark.parametrize("file", COMPOSE_FILES)
@pytest.mark.parametrize("name", OURS)
def test_a_service_is_built_as_the_dockerfile_can(name: str, file: str) -> None:
    build = COMPOSE[file]["services"][name]["build"]
    assert build.get("target", "service") in stages()
    assert set(build.get("args", ())) <= {rest.partition("=")[0] for rest in arguments("ARG")}


@pytest.mark.parametrize("name", OURS)
def test_one_image_has_one_build(name: str) -> None:
    for file in COMPOSE.values():
        this = file["services"][name]
        for other in OURS:
            if file["services"][other]["image"] == this["image"]:
                assert file["services"][other]["build"] == this["build"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_and_keeps_what_there_is(name: str) -> None:
    service = SERVICES[name]
    for other, how in service.get("depends_on", {}).items():
        match how["condition"]:
            case "service_healthy":
                assert SERVICES[other]["healthcheck"]["test"]
            case "service_completed_successfully":
                assert "restart" not in SERVICES[other]
            case condition:
                pytest.fail(f"unexpected condition {condition}")
    volumes = dict(volume.split(":") for volume in service["volumes"])
    assert set(volumes) <= set(COMPOSE["docker-compose.yml"]["volumes"])
    if name in OURS:
        assert list(volumes.values()) == [image_environment()["NEVERSEEN_DATA_DIR"]]


@pytest.mark.parametrize("name", [name for name in OURS if name != "migrate"])
def test_a_service_has_settings_that_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = environment(name)
    assert told["NEVERSEEN_DEVICE"] == "cuda"  # of the override
    for key, value in told.items():
        monkeypatch.setenv(key, value)
    url, database = make_url(Settings().database_url), SERVICES["database"]["environment"]
    assert url.host in SERVICES
    assert url.username == database["POSTGRES_USER"]
    assert url.password == interpolated(database["POSTGRES_PASSWORD"])
    assert url.database == database["POSTGRES_DB"]


def test_the_service_is_published_on_this_machine_only() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["service"]
    (published,) = SERVICES["service"]["ports"]
    address, _, inside = published.split(":")
    assert address == "127.0.0.1"
    assert inside == image_environment()["NEVERSEEN_PORT"]


# All of it


@pytest.mark.parametrize(
    "file", ["Dockerfile", "Makefile", "README.md", ".ci/run", *COMPOSE_FILES, *map(str, (ROOT / "docs").glob("*.md"))]
)
def test_a_setting_that_a_file_names_is_one(file: str) -> None:
    named = set(re.findall(r"\bNEVERSEEN_([A-Z_]*[A-Z])\b", (ROOT / file).read_text()))
    assert named <= {name.upper() for name in Settings.model_fields} | {"KEY"}  # of the command line, for a service


def test_the_bundled_names_are_the_stated_ones() -> None:
    note = (DATA / "README.md").read_text()
    content = (DATA / "census_names.txt").read_bytes()
    assert re.findall(r"\b[0-9a-f]{64}\b", note) == [hashlib.sha256(content).hexdigest()]
    names = content.decode("ascii").splitlines()
    assert f"the {len(names):,} first names" in note
    assert f"the longest name has {max(map(len, names))}" in note
    assert len(names) >= 4000
    assert all(re.fullmatch("[a-z]+", name) for name in names)
    assert "`random.Random(1990).shuffle`" in note
    again = sorted(set(names))
    random.Random(1990).shuffle(again)
    assert names == again


def committed() -> list[Path]:
    """The files that git keeps."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no git repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


def test_no_committed_file_is_large() -> None:
    assert {path.name: path.stat().st_size for path in committed() if path.stat().st_size > MAX_FILE_BYTES} == {}


def test_nothing_is_committed_that_git_ignores() -> None:
    committed()
    ignored = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(ignored, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""
