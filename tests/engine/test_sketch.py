"""Builds: invariance to blocks, resumption after SIGKILL, and artifacts that are refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from engine.blocks import direction_probe, draw_directions, probe_of
from engine.configuration import SketchConfiguration
from engine.data import census_names
from engine.directions import Ensemble, directions
from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError
from engine.evaluate import evaluate, random_sets
from engine.measure import Measurement
from engine.question import Question
from engine.resident import ResidentSketch
from engine.sketch import build
from engine.store import open_artifact
from engine.train import TrainingConfiguration
from tests.forked import FORKS
from tests.strategies import resident_jets


def coefficients(path: Path) -> dict[str, torch.Tensor]:
    return {
        f"{name} {order} {plane}": tensor
        for name, jet in resident_jets(ResidentSketch.open(path)).items()
        for order, planes in enumerate(jet.higher, start=1)
        for plane, tensor in enumerate(planes)
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration) -> Path:
    path = tmp_path_factory.mktemp("sketch") / "artifact"
    build(documents, configuration, path)
    return path


def test_the_result_does_not_depend_on_the_block_size(
    built: Path, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    expected = coefficients(built)
    for block in (1, 3, 10, 64):
        path = tmp_path / f"block-{block}"
        build(documents, dataclasses.replace(configuration, block=block), path)
        for name, tensor in coefficients(path).items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-10, atol=1e-14)


def test_the_result_does_not_depend_on_the_number_of_workers_to_the_bit(
    built: Path, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    steps: list[int] = []
    artifact = build(
        documents, configuration, tmp_path / "a", workers=2, progress=lambda done, total: steps.append(done)
    )
    assert artifact.manifest.files == open_artifact(built).manifest.files
    assert steps == sorted(steps)
    assert steps[-1] == configuration.directions * len(documents)


def test_what_a_worker_is_refused_ends_the_build_with_its_error(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    def remove_the_workspace(done: int, total: int) -> None:
        shutil.rmtree(tmp_path / "a.partial", ignore_errors=True)

    with pytest.raises(ArtifactError, match=r"directions-0000\d.safetensors can't be written"):
        build(documents, configuration, tmp_path / "a", workers=2, progress=remove_the_workspace)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("ensemble", ["sphere", "unitary"])
@pytest.mark.parametrize("count", [0, 2, 200])
def test_the_probe_draws_two_directions_and_is_that_of_all(
    ensemble: Ensemble, count: int, configuration: SketchConfiguration, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = dataclasses.replace(configuration, ensemble=ensemble, directions=count, axes=True)
    expected = direction_probe(draw_directions(many, 150))
    assert len(expected) == (8 if count else 0)
    drawn: list[range] = []

    def watched(ensemble: Ensemble, seed: int, units: int, start: int, stop: int) -> torch.Tensor:
        drawn.append(range(start, stop))
        return directions(ensemble, seed, units, start, stop)

    monkeypatch.setattr("engine.blocks.directions", watched)
    assert probe_of(many, 150) == expected
    assert sum(map(len, drawn)) <= 2


def test_a_sketch_of_fewer_directions_is_a_prefix(
    built: Path, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    build(documents, dataclasses.replace(configuration, directions=5), tmp_path / "five")
    expected = coefficients(built)
    for name, tensor in coefficients(tmp_path / "five").items():
        torch.testing.assert_close(tensor, expected[name][:5], rtol=1e-10, atol=1e-14)


def test_building_again_returns_what_is_there(
    built: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    before = open_artifact(built)
    assert build(documents, configuration, built) == before
    with pytest.raises(ConfigurationError, match="another sketch"):
        build(documents, dataclasses.replace(configuration, seed=9), built)


def test_a_finished_artifact_is_reused_however_it_was_executed(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    built = build(documents, configuration, tmp_path / "a", native=False)
    assert build(documents, configuration, tmp_path / "a") == built


def test_progress_is_reported_to_the_end(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    seen: list[tuple[int, int]] = []
    build(documents, configuration, tmp_path / "a", progress=lambda done, total: seen.append((done, total)))
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (10 * len(documents), 10 * len(documents))


@pytest.mark.parametrize(
    ("workers", "path", "kills"),
    # Two workers of torch are two more processes, each of which takes seconds to import it.
    [(1, "torch", (1, 3, 5)), (2, "torch", (3,)), (1, "native", (1, 3, 5)), (2, "native", (1, 3, 5))],
)
def test_a_killed_build_leaves_no_artifact_and_goes_on_to_the_same_bits(
    tmp_path: Path,
    configuration: SketchConfiguration,
    documents: Documents,
    workers: int,
    path: str,
    kills: Sequence[int],
) -> None:
    native = path == "native"
    training = TrainingConfiguration(epochs=30 if native else 1)  # long enough to be killed in the middle
    wanted = dataclasses.replace(configuration, training=training, directions=24, block=2)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    build(documents, wanted, undisturbed, native=native)
    workspace = tmp_path / "killed.partial"
    finished: dict[str, int] = {}
    for blocks_to_wait_for in kills:
        options = {"workers": workers, "native": native}
        process = FORKS.Process(target=build, args=(documents, wanted, killed), kwargs=options)
        process.start()
        wait_until(lambda wanted=blocks_to_wait_for: len(list(workspace.glob("directions-*.safetensors"))) >= wanted)  # type: ignore[misc]
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert len(children) >= (workers if workers > 1 and path == "torch" else 0)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        wait_until(lambda gone=children: not any(Path(f"/proc/{pid}").exists() for pid in gone))  # type: ignore[misc]
        assert not killed.exists()
        with pytest.raises(ArtifactError):
            open_artifact(workspace)
        written = {path.name: path.stat().st_mtime_ns for path in workspace.glob("directions-*.safetensors")}
        assert finished.items() <= written.items()  # what was finished is never trained again
        finished = written
    build(documents, wanted, killed, native=native)
    assert not workspace.exists()
    assert open_artifact(killed).manifest.files == open_artifact(undisturbed).manifest.files  # names, sizes, SHA-256
    assert {path.name for path in killed.iterdir()} == {path.name for path in undisturbed.iterdir()}


def test_a_workspace_of_another_plan_is_not_gone_on_with(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    class InterruptedBuildError(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise InterruptedBuildError

    with pytest.raises(InterruptedBuildError):
        build(documents, configuration, tmp_path / "a", progress=interrupt)
    other = dataclasses.replace(configuration, seed=5)
    build(documents, other, tmp_path / "a")
    build(documents, other, tmp_path / "b")
    files = [open_artifact(tmp_path / name).manifest.files for name in "ab"]
    assert files[0] == files[1]


def test_two_builds_of_one_artifact_at_once_are_refused(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    refused: list[str] = []

    def again(done: int, total: int) -> None:
        if not refused:
            with pytest.raises(ConfigurationError, match="Another process") as error:
                build(documents, configuration, tmp_path / "a")
            refused.append(str(error.value))

    build(documents, configuration, tmp_path / "a", progress=again)
    assert refused


def test_what_can_not_be_written_is_one_clear_error(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    (tmp_path / "a.partial").write_text("a file where the workspace belongs")
    with pytest.raises(ArtifactError, match="can't be written"):
        build(documents, configuration, tmp_path / "a")


def test_a_training_that_diverges_is_refused(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    training = dataclasses.replace(configuration.training, learning_rate=1e200)
    with pytest.raises(ConfigurationError, match="diverged"):
        build(documents, dataclasses.replace(configuration, training=training), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def truncate(path: Path) -> None:
    with (path / "directions-00001.safetensors").open("r+b") as file:
        file.truncate(100)


def flip_a_bit(path: Path) -> None:
    with (path / "directions-00001.safetensors").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def edit_manifest(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        change(manifest)
        (path / "manifest.json").write_text(json.dumps(manifest))

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "directions-00001.safetensors has 100 bytes"),
    "flipped bit": (flip_a_bit, "directions-00001.safetensors doesn't have its SHA-256"),
    "missing file": (lambda path: (path / "parameters.safetensors").unlink(), "parameters.safetensors is missing"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "no artifact"),
    "foreign": (lambda path: (path / "manifest.json").write_text('{"format": "other"}'), "Neverseen"),
    "not JSON": (lambda path: (path / "manifest.json").write_bytes(b"\x80\x02}q"), "Neverseen"),
    "newer format": (edit_manifest(lambda m: m.update(format_version=2)), "format version 2"),
    "unknown field": (edit_manifest(lambda m: m.update(surprise=1)), "damaged"),
    "impossible configuration": (
        edit_manifest(lambda m: m["plan"]["configuration"].update(directions=1)),  # type: ignore[index]
        "damaged",
    ),
    "other directions": (edit_manifest(lambda m: m["direction_probe"].reverse()), "other directions"),  # type: ignore[attr-defined]
    "other sizes": (edit_manifest(lambda m: m["plan"]["configuration"].update(degree=4)), "don't fit"),  # type: ignore[index]
    "unlisted file": (edit_manifest(lambda m: m["files"].popitem()), "doesn't fit its configuration"),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_artifact_is_refused_with_what_is_wrong(name: str, tmp_path: Path, built: Path) -> None:
    damage, message = DAMAGES[name]
    shutil.copytree(built, tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(ArtifactError, match=message) as error:
        ResidentSketch.open(tmp_path / "a")
    assert str(tmp_path) not in str(error.value)


def test_an_exchanged_artifact_is_refused(built: Path) -> None:
    with pytest.raises(ArtifactError, match="exchanged"):
        open_artifact(built, checksum="0" * 64)


def test_answers_agree_with_retrains_and_their_intervals_cover_them(
    tmp_path: Path, configuration: SketchConfiguration
) -> None:
    """The whole engine: build, load, ask, retrain; 20 sets a size, 3 texts each."""
    documents = census_names().first(40)
    model = dataclasses.replace(configuration.model, vocabulary=documents.vocabulary)
    many = dataclasses.replace(configuration, model=model, directions=400, block=200, ensemble="unitary")
    sketch = ResidentSketch(build(documents, many, tmp_path / "a"))
    sets = random_sets(documents, sizes=(1, 2, 4), count=20, seed=0)
    measurements = [Measurement(text=text) for text in ("ana", "rose", "max")]
    figures, _ = evaluate(sketch, documents, sets, measurements, question=Question(confidence=0.9))
    assert [figure.pairs for figure in figures] == [60, 60, 60, 180]
    for figure in figures:
        assert figure.coverage >= 0.8, figure
        assert figure.width < 4, figure  # covering by being wide is no achievement
        assert figure.error < 0.8, figure
        assert figure.rank_correlation is not None
        assert figure.rank_correlation > 0.6, figure


def wait_until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.002)
