"""``python -m engine``: from files to figures, as a person would type it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PNG = b"\x89PNG\r\n"


def engine(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "names.txt").write_text("ana\nbob\ncleo\ndana\neli\nbea\nnoel\nleo")
    built = engine("build", "names.txt", "sketch", "--directions", "6", "--degree", "2", cwd=folder)
    assert built.returncode == 0, built.stderr
    assert "checksum" in built.stdout
    return folder


def test_a_sketch_is_evaluated_against_retrains(folder: Path) -> None:
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
    done = engine(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "a.png").read_bytes().startswith(PNG)
    figures = json.loads((folder / "a.json").read_text())["accuracy"]
    assert (figures[0]["kind"], figures[0]["pairs"]) == ("1 random", 3)
    assert all(0 <= f["coverage"] <= 1 for f in figures)


def test_the_figures_are_written_as_pictures_and_json(folder: Path) -> None:
    few = ["--order", "2", "--directions", "3", "--degree", "2", "--sketch-directions", "4"]
    of = ["--text", "ana", "--contains", "d", "--curve-text", "leo", "--curve-contains", "no"]
    done = engine("figures", "names.txt", "pictures", *few, *of, cwd=folder)
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


def test_the_bench_appends_ratios_of_one_run(folder: Path) -> None:
    arguments = ["bench", "--documents", "20", "--directions", "4", "--rounds", "1", "--no-whole", "--no-growth"]
    for run in (1, 2):
        done = engine(*arguments, "--output", "b.jsonl", cwd=folder)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (folder / "b.jsonl").read_text().splitlines()]
        figures = {line["name"]: line for line in lines}
        assert len(lines) == run * len(figures)
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
def test_what_is_refused_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], message: str) -> None:
    done = engine(*arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "x").exists()


WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from {package}.__main__ import main; main()"


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("engine", ["build", "names.txt", "x", "--cluster", "local"]),
        ("engine", ["evaluate", "sketch", "names.txt", "--cluster", "auto"]),
        ("app", ["sketches", "build", "s", "--dataset", "d", "--cluster", "127.0.0.1:6379"]),
    ],
)
def test_without_the_extra_a_cluster_is_refused_with_what_to_install(
    folder: Path, tmp_path: Path, package: str, arguments: list[str]
) -> None:
    catalog = {"NEVERSEEN_DATA_DIR": str(tmp_path)}
    for command in ([sys.executable, "-m", "app", "db", "upgrade"],) * (package == "app") + (
        [sys.executable, "-c", WITHOUT_RAY.format(package=package), *arguments],
    ):
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **catalog}, capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "Error: A cluster needs Ray: pip install 'neverseen[cluster]'.\n"
    assert not (folder / "x").exists()
