"""The directory of a build: whose blocks are in it, who holds it, and what is left of builds that were killed."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import engine.sketch
from engine.anchors import DRAWING
from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.errors import ConfigurationError, StoreError
from engine.locations import ObjectStore
from engine.remote import RemoteWorkspace
from engine.sketch import build
from engine.store import PARAMETERS, PLAN, Artifact, Plan, open_artifact, read_tensors, save_tensors
from engine.workspace import LOCK, Workspace, finished_files, is_being_built, lock_directory, workspace_of

FIRST = "directions-00000.safetensors"


@pytest.fixture(scope="module")
def artifact(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration
) -> Artifact:
    return build(documents, configuration, tmp_path_factory.mktemp("built") / "a")


@pytest.fixture
def other(artifact: Artifact) -> Plan:
    """Of files of the same names and sizes."""
    plan = artifact.manifest.plan
    return dataclasses.replace(plan, configuration=dataclasses.replace(plan.configuration, seed=5))


def fill(workspace: Workspace, artifact: Artifact) -> None:
    for name in artifact.manifest.files:
        workspace.save(name, read_tensors(artifact.path / name))


def stop_halfway(done: int, total: int) -> None:
    if done > total / 2:
        raise KeyboardInterrupt


def test_what_is_written_late_is_never_another_plans(
    tmp_path: Path, artifact: Artifact, other: Plan, documents: Documents
) -> None:
    tensors = read_tensors(artifact.path / FIRST)
    with Workspace(tmp_path / "a", artifact.manifest.plan) as before:
        late = before.files
    with Workspace(tmp_path / "a", other) as workspace:
        with pytest.raises(ConfigurationError, match="Another build has taken this place"):
            late.save(FIRST, tensors)
        with pytest.raises(ConfigurationError, match="Another build has taken this place"):
            late.find(FIRST)
        # One that looked just before its place was taken.
        (workspace.path / PLAN).rename(tmp_path / PLAN)
        late.save(FIRST, tensors)
        (tmp_path / PLAN).rename(workspace.path / PLAN)
        assert not workspace.has(FIRST)
        assert workspace.files.find(FIRST) is None
        assert workspace.describe() == {}
    built = build(documents, other.configuration, tmp_path / "a")
    assert built.manifest.files == build(documents, other.configuration, tmp_path / "right").manifest.files
    assert {path.name for path in built.path.iterdir()} == {"manifest.json", *built.manifest.files}


def test_a_writer_whose_place_is_taken_while_it_writes_leaves_nothing(
    tmp_path: Path, artifact: Artifact, other: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workspace(tmp_path / "a", artifact.manifest.plan) as before:
        late = before.files
    written = save_tensors

    def taken(*arguments, **options):  # type: ignore[no-untyped-def]
        with Workspace(tmp_path / "a", other):
            written(*arguments, **options)

    monkeypatch.setattr("engine.workspace.save_tensors", taken)
    with pytest.raises(ConfigurationError, match="Another build has taken this place"):
        late.save(FIRST, read_tensors(artifact.path / FIRST))
    assert {path.name for path in workspace_of(tmp_path / "a").iterdir()} == {PLAN, LOCK}


def test_a_build_whose_place_was_taken_publishes_nothing(tmp_path: Path, artifact: Artifact, other: Plan) -> None:
    slow = Workspace(tmp_path / "a", artifact.manifest.plan)
    fill(slow, artifact)
    (slow.path / LOCK).unlink()  # as where locks of another machine aren't seen
    with Workspace(tmp_path / "a", other) as fast:
        with pytest.raises(ConfigurationError, match="Another build has taken this place"):
            slow.publish(artifact.manifest)
        assert not (tmp_path / "a").exists()
        assert (fast.path / PLAN).exists()
    with slow:
        pass


def test_a_publication_that_was_cut_is_gone_on_with(tmp_path: Path, artifact: Artifact) -> None:
    with Workspace(tmp_path / "a", artifact.manifest.plan) as cut:
        fill(cut, artifact)
        (cut.path / "manifest.json").write_text("{")
        for name in (FIRST, PARAMETERS):
            next(cut.path.glob(f"{name.partition('.')[0]}.*")).rename(cut.path / name)
    with Workspace(tmp_path / "a", artifact.manifest.plan) as workspace:
        assert all(workspace.has(name) for name in artifact.manifest.files)
        assert workspace.describe() == artifact.manifest.files
        workspace.publish(artifact.manifest)
    assert open_artifact(tmp_path / "a").manifest == artifact.manifest


def test_what_killed_writers_left_is_removed_on_opening(tmp_path: Path, artifact: Artifact) -> None:
    with Workspace(tmp_path / "a", artifact.manifest.plan) as workspace:
        workspace.save(FIRST, read_tensors(artifact.path / FIRST))
        before = {path.name for path in workspace.path.iterdir()}
        (workspace.path / f"{FIRST}.0123.tmp").write_bytes(b"half")
    with Workspace(tmp_path / "a", artifact.manifest.plan) as workspace:
        assert {path.name for path in workspace.path.iterdir()} == before
    assert finished_files(tmp_path / "a") == {FIRST}


def test_a_workspace_is_held_by_a_file_that_is_open_for_writing(tmp_path: Path, artifact: Artifact) -> None:
    """NFS refuses an exclusive lock on anything else."""
    (tmp_path / "left").mkdir()
    assert not is_being_built(tmp_path / "left")
    assert not list((tmp_path / "left").iterdir())
    with Workspace(tmp_path / "a", artifact.manifest.plan) as workspace:
        held = [
            (entry.resolve(), fcntl.fcntl(int(entry.name), fcntl.F_GETFL) & os.O_ACCMODE)
            for entry in Path("/proc/self/fd").iterdir()
            if entry.exists() and entry.resolve().is_relative_to(workspace.path)
        ]
        assert held == [(workspace.path / LOCK, os.O_RDWR)]
        assert is_being_built(workspace.path)
        with pytest.raises(ConfigurationError, match="Another process is building this artifact"):
            lock_directory(workspace.path)
    assert not is_being_built(workspace.path)


# Going on elsewhere


def test_a_build_that_would_lose_its_blocks_elsewhere_is_refused_and_says_what_differs(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration, artifact: Artifact
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(documents, configuration, tmp_path / "a", progress=stop_halfway)
    there = finished_files(tmp_path / "a")
    assert FIRST in there
    kinds = (
        r"begun by native code on cpu \(.*\), and would go on by torch on cpu \(.*remove a\.partial to begin anew\.$"
    )
    with pytest.raises(ConfigurationError, match=kinds):
        build(documents, configuration, tmp_path / "a", native=False)
    assert finished_files(tmp_path / "a") == there
    assert build(documents, configuration, tmp_path / "a").manifest.files == artifact.manifest.files


def test_a_build_goes_on_as_it_was_begun_where_that_can_be_done(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    """Begun where there was no compiler, and gone on with where there is one."""
    expected = build(documents, configuration, tmp_path / "undisturbed", native=False).manifest
    with pytest.raises(KeyboardInterrupt):
        build(documents, configuration, tmp_path / "a", native=False, progress=stop_halfway)
    seen: list[int] = []
    built = build(documents, configuration, tmp_path / "a", progress=lambda done, total: seen.append(done))
    assert seen[0] > 0
    assert (built.manifest.files, built.manifest.plan) == (expected.files, expected.plan)


def test_what_an_earlier_release_began_which_drew_other_anchors_is_begun_anew(
    tmp_path: Path,
    documents: Documents,
    configuration: SketchConfiguration,
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert artifact.manifest.plan.drawing == DRAWING > 1
    with monkeypatch.context() as earlier:
        earlier.setattr("engine.sketch.DRAWING", 1)
        with pytest.raises(KeyboardInterrupt):
            build(documents, configuration, tmp_path / "a", progress=stop_halfway)
    assert FIRST in finished_files(tmp_path / "a")
    seen: list[int] = []
    built = build(documents, configuration, tmp_path / "a", progress=lambda done, total: seen.append(done))
    assert seen[0] == 0
    assert (built.manifest.files, built.manifest.plan) == (artifact.manifest.files, artifact.manifest.plan)


OTHER_PROCESSOR = """
import sys
from pathlib import Path
from engine.documents import Documents
from engine.errors import ConfigurationError
from engine.sketch import build
from engine.store import parse_plan
from engine.threads import use_one_thread
use_one_thread()
plan = parse_plan(Path(sys.argv[1]).with_name("a.partial").joinpath("plan.json").read_bytes())
documents = Documents.from_records((name, None) for name in sys.argv[2].split())
try:
    build(documents, plan.configuration, Path(sys.argv[1]))
except ConfigurationError as error:
    print(error)
"""


def test_a_processor_that_rounds_otherwise_is_another_plan(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration, artifact: Artifact
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(documents, configuration, tmp_path / "a", progress=stop_halfway)
    plain = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}  # torch then works as on an old processor
    command = [sys.executable, "-c", OTHER_PROCESSOR, str(tmp_path / "a"), " ".join(documents.texts)]
    said = subprocess.run(command, env=plain, check=True, capture_output=True, text=True).stdout
    processor = artifact.manifest.plan.execution.processor
    assert f"begun by native code on cpu ({processor}), and would go on by native code on cpu (" in said
    assert "DEFAULT" in said


def test_an_artifact_of_before_there_was_a_processor_or_a_drawing_opens(tmp_path: Path, artifact: Artifact) -> None:
    shutil.copytree(artifact.path, tmp_path / "old")
    content = json.loads((tmp_path / "old" / "manifest.json").read_text())
    del content["plan"]["execution"]["processor"], content["plan"]["drawing"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(content))
    plan = open_artifact(tmp_path / "old").manifest.plan
    assert (plan.execution.processor, plan.drawing) == ("", 1)


# Ends


class Away(RemoteWorkspace):
    """In a store that is away from some block on."""

    asked: list[tuple[float, bool]]

    def seconds(self, more: float = 0.0, *, patiently: bool = True) -> float:
        """Noted here alone."""
        self.asked.append((more, patiently))
        raise StoreError("The store is away.")


@pytest.mark.parametrize(
    ("error", "asked"),
    [(KeyboardInterrupt(), []), (SystemExit(143), []), (StoreError("away"), []), (ConfigurationError("no"), [False])],
    ids=lambda value: type(value).__name__,
)
def test_nobody_waits_for_a_store_after_the_end(
    error: BaseException,
    asked: list[bool],
    documents: Documents,
    configuration: SketchConfiguration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[tuple[float, bool]] = []

    def opened(destination: str, plan: Plan) -> Away:
        workspace = Away(ObjectStore(destination), plan)
        workspace.asked = noted
        return workspace

    def end(done: int, total: int) -> None:
        raise error

    monkeypatch.setattr(engine.sketch, "open_workspace", opened)
    with pytest.raises(type(error)) as raised:
        build(documents, configuration, f"memory://{os.urandom(8).hex()}", progress=end)
    assert raised.value is error
    assert [patiently for _, patiently in noted] == asked


def test_seconds_are_noted_without_patience_where_it_is_asked_for(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = RemoteWorkspace(ObjectStore(f"memory://{os.urandom(8).hex()}"), artifact.manifest.plan)
    patience: list[float] = []
    find = ObjectStore.find

    def watched(store: ObjectStore, name: str) -> bytes | None:
        patience.append(store.patience_seconds)
        return find(store, name)

    monkeypatch.setattr(ObjectStore, "find", watched)
    assert workspace.seconds(1.0, patiently=False) == 1.0
    assert workspace.seconds(1.0) == 2.0
    assert patience[0] == 0.0 < patience[-1]
