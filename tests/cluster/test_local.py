"""A cluster of this machine, which a command starts for itself: nobody else's, and gone with it however it ends."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from uuid import uuid4

import pytest

from engine.documents import Documents
from engine.store import open_artifact
from tests.cluster.commands import BLOCKS, LONG, but_silence, engine, python
from tests.cluster.nodes import HANG_SECONDS, MARK, ROOT, processes, wait_until

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 0)])
def test_a_cluster_of_this_machine_leaves_nothing_behind_however_it_ends(
    ending: signal.Signals | None, code: int, tmp_path: Path, documents: Documents
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(documents.texts))
    mark = uuid4().hex
    arguments = ["build", "names.txt", "a", *BLOCKS, *(() if ending is None else LONG), "--cluster", "local"]
    with engine(*arguments, cwd=tmp_path, **{MARK: mark}) as process:
        place = directory(mark)
        if ending is not None:
            wait_until(lambda: some_are_finished(tmp_path) or process.poll() is not None, "some blocks are there")
            process.send_signal(ending)
        said, complained = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, but_silence(complained)) == (code, ""), said + complained
    assert said.startswith("On a cluster of 1 node: ")
    assert "Traceback" not in said
    assert not place.exists()
    wait_until(lambda: not processes(mark), "all processes end")
    assert not place.exists()
    if ending is None:
        _, bar, last = said.splitlines()[0:3]
        assert bar.startswith("Sketching")
        assert last.startswith("a: ")
    else:
        assert some_are_finished(tmp_path)


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("started", ["gcs_server", "raylet"])
def test_a_cluster_that_is_interrupted_as_it_starts_leaves_nothing_behind(
    started: str, ending: signal.Signals, code: int, tmp_path: Path, documents: Documents
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(documents.texts))
    mark = uuid4().hex
    with engine("build", "names.txt", "a", "--cluster", "local", cwd=tmp_path, **{MARK: mark}) as process:
        wait_until(lambda: any(f"/{started} " in command for command in processes(mark).values()), "the cluster starts")
        place = directory(mark)
        process.send_signal(ending)
        said, complained = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == code, said + complained
    assert "Traceback" not in said + complained
    assert not place.exists()
    wait_until(lambda: not processes(mark), "all processes end")
    assert not place.exists()


@pytest.mark.drill
def test_a_cluster_of_this_machine_that_starts_too_slowly_is_started_again(
    tmp_path: Path, documents: Documents
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(_SLOW_AGENT)
    (tmp_path / "names.txt").write_text("\n".join(documents.texts))
    mark, slow = uuid4().hex, tmp_path / "slow"
    slow.touch()
    variables = {MARK: mark, "PYTHONPATH": f"{hooks}{os.pathsep}{ROOT}", "SLOW": str(slow)}
    with engine("build", "names.txt", "a", *BLOCKS, "--cluster", "local", cwd=tmp_path, **variables) as process:
        said, complained = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, said + complained
    assert complained.startswith("The cluster hasn't started in time: the machine may be very busy.")
    assert open_artifact(tmp_path / "a").manifest.files
    wait_until(lambda: not processes(mark), "all processes end")
    assert not slow.exists()


_SLOW_AGENT = """
import contextlib, os, sys, time
if any(argument.endswith("dashboard/agent.py") for argument in sys.orig_argv):
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.environ["SLOW"])  # the first one alone
        time.sleep(60)
"""


def test_nobody_else_reaches_the_sockets_of_a_cluster_of_this_machine(tmp_path: Path) -> None:
    with python("-c", _SHOW_SESSION, cwd=tmp_path, PYTHONPATH=str(ROOT)) as process:
        said, complained = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, complained
    session, *modes = said.split()
    assert session.startswith("/tmp/ns-")
    assert modes[0] == "0o700"  # of the directory in /tmp, through which all ways lead


_SHOW_SESSION = """
from pathlib import Path
from engine.cluster import connected
with connected("local") as ray:
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    ways = [path for path in reversed((session / "sockets", *session.parents, session)) if path.is_relative_to("/tmp")]
    ways = sorted({path for path in ways if path != Path("/tmp")}, key=lambda path: len(path.parts))
    assert list((session / "sockets").iterdir())
    print(session, *(oct(path.stat().st_mode & 0o777) for path in ways))
"""


def directory(mark: str) -> Path:
    """Of the cluster of this machine that a command with a mark starts, once it does."""
    found: set[str] = set()

    def is_there() -> bool:
        found.update(name for command in processes(mark).values() for name in re.findall(r"/tmp/ns-\w+", command))
        return bool(found)

    wait_until(is_there, "the cluster starts")
    (one,) = found
    return Path(one)


def some_are_finished(directory: Path) -> bool:
    """Whether a build of an artifact "a" has finished two blocks at least."""
    return len(list((directory / "a.partial").glob("directions-*.safetensors"))) >= 2
