"""``python -m engine``: from files to figures, as a person would type it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

PNG = b"\x89PNG\r\n"

Done: TypeAlias = "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents and a sketch of them, built by a process of its own, as a person would start it."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "names.txt").write_text("ana\nbob\ncleo\ndana\neli\nbea\nnoel\nleo")
    arguments = ["build", "names.txt", "sketch", "--directions", "6", "--degree", "2"]
    built = subprocess.run(
        [sys.executable, "-m", "engine", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "checksum" in built.stdout
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command line in the folder, within this process, for others take seconds to start."""
    monkeypatch.chdir(folder)

    def run(*arguments: str, package: str = "engine") -> Done:
        monkeypatch.setattr(sys, "argv", [package, *arguments])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"{package}.__main__").main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


def test_a_sketch_is_evaluated_against_retrains(folder: Path, run: Callable[..., Done]) -> None:
    arguments = [
        "evaluate",
        "sketch",
        "names.txt",
        "--size",
        "1",
        "--count",
        "3",
        "--text",
        "ana",
        "--output",
        "a.json",
        "--plot",
        "a.png",
    ]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert (folder / "a.png").read_bytes().startswith(PNG)
    figures = json.loads((folder / "a.json").read_text())["accuracy"]
    assert (figures[0]["kind"], figures[0]["pairs"]) == ("1 random", 3)
    assert all(0 <= f["coverage"] <= 1 for f in figures)


def test_the_figures_are_written_as_pictures_and_json(folder: Path, run: Callable[..., Done]) -> None:
    few = ["--order", "2", "--directions", "3", "--degree", "2", "--sketch-directions", "4"]
    of = ["--text", "ana", "--contains", "d", "--curve-text", "leo", "--curve-contains", "no"]
    done = run("figures", "names.txt", "pictures", *few, *of)
    assert done.returncode == 0, done.stderr
    for name in ("norms", "expansion", "curve"):
        assert (folder / "pictures" / f"{name}.png").read_bytes().startswith(PNG)
    norms, expansion, curve = (
        json.loads((folder / "pictures" / f"{name}.json").read_text()) for name in ("norms", "expansion", "curve")
    )
    assert (norms["orders"], norms["directions"], norms["measurement"]) == ([1, 2], 3, "ana")
    assert (len(expansion["expanded"]), len(expansion["retrained"]), expansion["units"]) == (2, 11, 1)
    assert (len(curve["estimates"]), curve["directions"], curve["units"]) == (3, 4, 1)
    assert f"{expansion['retrained'][-1]:.5f}" in done.stdout
    assert f"{curve['standard_errors'][2][-1]:.4f}" in done.stdout


def test_the_bench_appends_ratios_of_one_run(folder: Path, run: Callable[..., Done]) -> None:
    arguments = ["bench", "--documents", "20", "--directions", "4", "--rounds", "1", "--no-whole", "--no-growth"]
    for runs in (1, 2):
        done = run(*arguments, "--output", "b.jsonl")
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (folder / "b.jsonl").read_text().splitlines()]
        figures = {line["name"]: line for line in lines}
        assert len(lines) == runs * len(figures)
    ring = figures["build, 4 directions, degree 3"]
    assert ring["ratio"] == pytest.approx(ring["value"] / figures["plain training step"]["value"])
    assert ring["target"] == 0.08
    assert ring["conditions"]["cores"] >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "nowhere.txt", "x"], "nowhere.txt can't be read"),
        (["build", "names.txt", "x", "--width", "10", "--heads", "3"], "multiple of heads"),
        (["build", "names.txt", "x", "--directions", "1"], "at least 2"),
        (["build", "names.txt", "x", "--device", "cuda:99"], "cuda"),
        (["build", "names.txt", "sketch"], "another sketch"),
        (["figures", "names.txt", "x", "--contains", "q"], "No document contains 'q'"),
        (["figures", "names.txt", "x", "--contains", "d", "--curve-contains", "no", "--text", "zoe"], "'z'"),
        (["evaluate", "nowhere", "names.txt"], "manifest.json is missing"),
        (["evaluate", "sketch", "names.txt", "--shuffle", "1"], "other documents"),
        (["evaluate", "sketch", "names.txt", "--text", "zoe"], "'z'"),
    ],
)
def test_what_is_refused_is_one_line_and_exit_code_2(
    folder: Path, run: Callable[..., Done], arguments: list[str], message: str
) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "x").exists()


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("engine", ["build", "names.txt", "x", "--cluster", "local"]),
        ("engine", ["evaluate", "sketch", "names.txt", "--cluster", "auto"]),
        ("app", ["sketches", "build", "s", "--dataset", "d", "--cluster", "127.0.0.1:6379"]),
    ],
)
def test_without_the_extra_a_cluster_is_refused_with_what_to_install(
    folder: Path,
    run: Callable[..., Done],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    arguments: list[str],
) -> None:
    """`test_without_extras.py` has processes that never could import it."""
    monkeypatch.setenv("NEVERSEEN_DATA_DIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray", None)
    if package == "app":
        assert run("db", "upgrade", package=package).returncode == 0
    done = run(*arguments, package=package)
    assert done.returncode == 2
    assert done.stderr == "Error: A cluster needs Ray: pip install 'neverseen[cluster]'.\n"
    assert not (folder / "x").exists()
