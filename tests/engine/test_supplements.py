"""Supplements: models retrained beside an artifact come back to the bit, and nothing damaged is believed."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine import supplements
from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.errors import ArtifactError, ConfigurationError, DeletionSetError
from engine.measure import Measurement, measure_models
from engine.model import matrices
from engine.retrain import retrain
from engine.sketch import build
from engine.store import Artifact, open_artifact
from engine.supplements import BATCH, add, contains, directory_of, read, retrained_values, stamp
from tests.forked import begin, succeeds

SETS = [(3,), (0, 5, 7), (1, 2)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration) -> Path:
    path = tmp_path_factory.mktemp("sketch") / "artifact"
    build(documents, configuration, path)
    return path


@pytest.fixture
def artifact(built: Path, tmp_path: Path) -> Artifact:
    """An artifact of the test's own, without a supplement."""
    shutil.copytree(built, tmp_path / "artifact")
    return open_artifact(tmp_path / "artifact")


@pytest.fixture
def directory(artifact: Artifact, documents: Documents) -> Path:
    """Of the artifact's supplement, with the models of `SETS`."""
    add(artifact, documents, SETS)
    return directory_of(artifact)


def test_what_is_added_is_read_as_it_was_retrained(artifact: Artifact, documents: Documents) -> None:
    paths = add(artifact, documents, [[7, 5, 0], [3], [2, 1]])
    supplement = read(artifact)
    assert supplement.sets == sorted(SETS)
    assert supplement.damaged == ()
    assert [path.parent for path in paths] == [artifact.path.with_name("artifact.anchors")] * 3
    expected = retrain(documents, artifact.manifest.configuration, supplement.sets)
    for name, matrix in matrices(artifact.manifest.configuration.model, supplement.models).items():
        torch.testing.assert_close(matrix, expected[name], rtol=1e-12, atol=1e-14)
    assert all(contains(artifact, units) for units in SETS)
    assert not contains(artifact, (4,))


def test_an_artifact_without_a_supplement_has_an_empty_one(artifact: Artifact) -> None:
    assert stamp(artifact) is None
    supplement = read(artifact)
    assert (supplement.sets, supplement.damaged) == ([], ())
    assert supplement.models.shape == (0, artifact.manifest.configuration.model.parameter_count)
    assert not directory_of(artifact).exists()


def test_the_artifact_stays_what_it_was(built: Path, artifact: Artifact, directory: Path) -> None:
    assert open_artifact(artifact.path).checksum == open_artifact(built).checksum
    assert {path.name for path in artifact.path.iterdir()} == {path.name for path in built.iterdir()}


def test_a_set_is_retrained_once(artifact: Artifact, documents: Documents) -> None:
    steps: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        steps.append((done, total))

    first = add(artifact, documents, [[5], [6, 7], [7, 6]], progress=progress)
    assert first[1] == first[2]
    assert steps[-1] == (2 * len(documents), 2 * len(documents))
    content = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first}
    steps.clear()
    assert add(artifact, documents, [[7, 6], [5]], progress=progress) == [first[1], first[0]]
    assert steps == [(len(documents), len(documents))]
    add(artifact, documents, [[5], [8]], progress=progress)
    assert steps[-1] == (len(documents), len(documents))
    assert content == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in first}


def test_progress_goes_on_from_batch_to_batch(
    artifact: Artifact, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BATCH > 2
    monkeypatch.setattr(supplements, "BATCH", 2)
    steps: list[tuple[int, int]] = []
    add(artifact, documents, [[unit] for unit in range(5)], progress=lambda done, total: steps.append((done, total)))
    done = [one for one, _ in steps]
    assert done == sorted(done)
    assert steps[-1] == (5 * len(documents), 5 * len(documents))
    assert read(artifact).sets == [(unit,) for unit in range(5)]


def test_every_addition_changes_the_stamp(artifact: Artifact, documents: Documents) -> None:
    stamps = {stamp(artifact)}
    for unit in range(4):
        add(artifact, documents, [[unit]])
        stamps.add(stamp(artifact))
    assert len(stamps) == 5
    before = stamp(artifact)
    add(artifact, documents, [[0]])
    assert stamp(artifact) == before


def test_the_truth_is_the_measurement_of_the_retrained_model(artifact: Artifact, documents: Documents) -> None:
    measurements = [Measurement(text="abe"), Measurement(text="face")]
    values = retrained_values(artifact, documents, [4, 1], measurements)
    configuration = artifact.manifest.configuration
    models = retrain(documents, configuration, [(1, 4)])
    expected = [measure_models(one, configuration.model, models).item() for one in measurements]
    assert values == pytest.approx(expected, abs=1e-12)
    assert contains(artifact, (1, 4))
    (path,) = directory_of(artifact).iterdir()
    written = path.stat().st_mtime_ns
    assert retrained_values(artifact, documents, [1, 4], measurements) == values
    assert path.stat().st_mtime_ns == written


def test_other_documents_are_refused(artifact: Artifact, documents: Documents) -> None:
    with pytest.raises(ArtifactError, match="other documents"):
        add(artifact, documents.shuffled(1), SETS)
    assert stamp(artifact) is None


@pytest.mark.parametrize("units", [(), (12,), (-1,), (3, 3), tuple(range(12))])
def test_what_is_no_deletion_set_is_refused(artifact: Artifact, documents: Documents, units: tuple[int, ...]) -> None:
    with pytest.raises(DeletionSetError):
        add(artifact, documents, [(1,), units])
    assert stamp(artifact) is None


def test_a_retrain_that_diverges_is_refused_and_not_kept(artifact: Artifact, documents: Documents) -> None:
    def diverging(*_: object, **__: object) -> dict[str, torch.Tensor]:
        return {"wte": torch.full((1, 7, 8), float("nan"), dtype=torch.float64)}

    with pytest.raises(ConfigurationError, match="diverged"):
        add(artifact, documents, [(1,)], retrain=diverging)
    assert stamp(artifact) is None


def test_what_can_not_be_written_is_one_clear_error(artifact: Artifact, documents: Documents) -> None:
    directory_of(artifact).write_text("a file where the directory belongs")
    with pytest.raises(ArtifactError, match="can't be written") as refused:
        add(artifact, documents, [(1,)])
    assert str(artifact.path.parent) not in str(refused.value)
    assert read(artifact).sets == []
    assert "directory can't be read" in read(artifact).damaged[0]


# Damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rewrite(**changed: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata())
        save_file(load_file(path), path, metadata=metadata | changed)

    return damage


def cut_the_parameters(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    save_file({**tensors, "parameters": tensors["parameters"][:-1].clone()}, path, metadata=metadata)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "isn't a readable safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "isn't a readable safetensors file"),
    "garbled": (lambda path: path.write_bytes(b"\xff" * 100), "isn't a readable safetensors file"),
    "flipped bit": (flip_a_bit, "doesn't have its SHA-256"),
    "of another artifact": (rewrite(artifact="0" * 64), "belongs to another artifact"),
    "newer": (rewrite(format_version="2"), "format version '2'"),
    "something else": (lambda path: save_file({"parameters": torch.zeros(1)}, path), "isn't a file of a supplement"),
    "of another model": (cut_the_parameters, "doesn't hold the parameters"),
    "exchanged": (
        lambda path: shutil.copy(next(one for one in sorted(path.parent.iterdir()) if one != path), path),
        "doesn't have the name of its deletion set",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_left_out_and_said_and_replaced(
    artifact: Artifact, documents: Documents, directory: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, message = DAMAGES[name]
    (path,) = add(artifact, documents, [SETS[0]])
    sound = read(artifact)
    damage(path)
    with caplog.at_level(logging.WARNING, logger="engine.supplements"):
        supplement = read(artifact)
    assert supplement.sets == sorted(SETS[1:])
    assert len(supplement.models) == 2
    (said,) = supplement.damaged
    assert message in said
    assert [said in record.getMessage() for record in caplog.records] == [True]
    assert str(directory) not in caplog.text
    assert not contains(artifact, SETS[0])
    add(artifact, documents, [SETS[0]])
    replaced = read(artifact)
    assert replaced.sets == sound.sets
    torch.testing.assert_close(replaced.models, sound.models, rtol=1e-12, atol=1e-14)


def test_a_supplement_of_another_sketch_is_left_out(
    artifact: Artifact, documents: Documents, configuration: SketchConfiguration, directory: Path, tmp_path: Path
) -> None:
    other = build(documents, dataclasses.replace(configuration, seed=9), tmp_path / "other")
    shutil.copytree(directory, directory_of(other))
    supplement = read(other)
    assert supplement.sets == []
    assert [message.endswith("belongs to another artifact.") for message in supplement.damaged] == [True] * 3


def test_what_a_killed_process_left_is_no_part_of_it(artifact: Artifact, directory: Path) -> None:
    (directory / "0123.tmp").write_bytes(b"half")
    assert (read(artifact).sets, read(artifact).damaged) == (sorted(SETS), ())


ADDING_PROCESS = """
from pathlib import Path
from engine.documents import Documents
from engine.store import open_artifact
from engine.supplements import add
from engine.threads import use_one_thread
use_one_thread()
documents = Documents.from_records((name, None) for name in {names!r})
artifact = open_artifact(Path({path!r}))
for unit in range(len(documents)):
    add(artifact, documents, [[unit]])
"""


def test_two_processes_may_add_the_same_at_once(artifact: Artifact, documents: Documents) -> None:
    program = ADDING_PROCESS.format(names=documents.texts, path=str(artifact.path))
    processes = [begin(program) for _ in range(2)]
    for process in processes:
        assert succeeds(process)
    supplement = read(artifact)
    assert supplement.sets == [(unit,) for unit in range(len(documents))]
    assert supplement.damaged == ()
    assert {path.suffix for path in directory_of(artifact).iterdir()} == {".safetensors"}
    expected = retrain(documents, artifact.manifest.configuration, supplement.sets)
    flat = torch.cat([matrix.flatten(1) for matrix in expected.values()], dim=1)
    torch.testing.assert_close(supplement.models, flat, rtol=1e-12, atol=1e-14)
