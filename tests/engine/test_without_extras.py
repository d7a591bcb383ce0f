"""Where Ray isn't installed, builds work as ever, and `serve --cluster` says what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

_WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from {package}.__main__ import main; main()"


def run(package: str, *arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A command line in a process that can't import Ray, and has no setting of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEVERSEEN_")}
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_RAY.format(package=package), *arguments],
        cwd=place,
        env={**kept, "PYTHONPATH": str(ROOT), "NEVERSEEN_DATA_DIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_serving_on_a_cluster_without_ray_says_what_to_install(tmp_path: Path) -> None:
    done = run("app", "serve", "--port", "0", "--cluster", "local", place=tmp_path)
    assert done.returncode == 2
    assert "pip install 'neverseen[cluster]'" in " ".join(done.stderr.split())


def test_builds_work_without_ray(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ann\nbob\neve\n")
    done = run("engine", "build", "names.txt", "a", "--directions", "2", place=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a" / "manifest.json").exists()
