"""The same code on a CUDA device gives the same sketch, to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.captured import Replays, replayed
from engine.compiled import worth_fusing
from engine.configuration import SketchConfiguration
from engine.directions import directions, planes
from engine.documents import Documents
from engine.jet import Coefficient, Jet
from engine.measure import Measurement
from engine.question import Prediction, Question
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build
from engine.store import open_artifact
from engine.train import (
    Step,
    TrainingConfiguration,
    along_directions,
    constant_jets,
    initial_state,
    schedule,
    tabulated,
    take_step,
    train,
    update_in_place,
)
from tests.strategies import resident_jets

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is found"),
]

TOLERANCES = {"float64": 1e-9, "float32": 1e-4}  # relative to the largest coefficient of an order


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_sketch_built_on_cuda_is_the_one_built_on_the_processor(
    dtype: str, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    configuration = dataclasses.replace(configuration, dtype=dtype)  # type: ignore[arg-type]
    for device in ("cpu", "cuda"):
        build(documents, configuration, tmp_path / device, device=device)
    on_cpu, on_cuda = (ResidentSketch(open_artifact(tmp_path / device)) for device in ("cpu", "cuda"))
    found_jets = resident_jets(on_cuda)
    for name, parameter in resident_jets(on_cpu).items():
        for expected, found in zip(parameter.higher, found_jets[name].higher, strict=True):
            size = max(plane.abs().max().item() for plane in expected)
            for plane, other in zip(expected, found, strict=True):
                assert (plane - other).abs().max().item() <= TOLERANCES[dtype] * size


def test_answers_from_cuda_are_those_of_the_processor(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    artifact = build(documents, configuration, tmp_path / "a")
    asked = [
        ResidentSketch(artifact, device=device).predict([Measurement(text="face")], [1, 4], Question())[0]
        for device in ("cpu", "cuda")
    ]
    assert isinstance(asked[0], Prediction)
    assert isinstance(asked[1], Prediction)
    assert asked[0].estimate == pytest.approx(asked[1].estimate, rel=1e-9)
    assert asked[0].interval == pytest.approx(asked[1].interval, rel=1e-6)


def test_retrains_on_cuda_are_those_of_the_processor(documents: Documents, configuration: SketchConfiguration) -> None:
    on_cpu, on_cuda = (retrain(documents, configuration, [[2], [3, 4]], device=device) for device in ("cpu", "cuda"))
    for name, matrix in on_cpu.items():
        torch.testing.assert_close(matrix, on_cuda[name].cpu(), rtol=1e-9, atol=1e-11)


# Captured steps. In two epochs every length comes at least twice, so each is warmed up, captured and replayed.

EPOCHS = 6
LONGER = Documents.from_records((text, None) for text in ["abe", "cafe", "dad", "a", "faced", "cab", "beadedface", "b"])
SPHERE = planes(directions("sphere", 0, LONGER.unit_count, 0, 4), dtype=torch.float64, device=torch.device("cpu"))
AXES = (torch.eye(LONGER.unit_count, dtype=torch.float64)[3:6],)


@pytest.fixture
def longer(configuration: SketchConfiguration) -> SketchConfiguration:
    return dataclasses.replace(configuration, training=TrainingConfiguration(epochs=EPOCHS))


def steps_on(configuration: SketchConfiguration, device: str) -> list[Step]:
    return schedule(configuration.model, configuration.training, LONGER, torch.device(device))


def jets_on(configuration: SketchConfiguration, device: str, rows: Coefficient) -> dict[str, Jet]:
    matrices = ((name, matrix.to(device)) for name, matrix in configuration.model.initial_parameters().items())
    return constant_jets(matrices, configuration.degree, len(rows), len(rows[0]))


def trained_on(
    configuration: SketchConfiguration,
    device: str,
    rows: Coefficient,
    *,
    start: int = 0,
    fuse: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
) -> dict[str, Jet]:
    return train(
        configuration.model,
        configuration.training,
        steps_on(configuration, device),
        jets_on(configuration, device, rows),
        along_directions(tuple(plane.to(device) for plane in rows)),
        start=start,
        fuse=fuse,
        on_step=on_step,
    )


def assert_close(found: dict[str, Jet], expected: dict[str, Jet]) -> None:
    for name, parameter in expected.items():
        for expected_planes, others in zip(parameter.coefficients, found[name].coefficients, strict=True):
            size = max(plane.abs().max().item() for plane in expected_planes)
            for plane, other in zip(expected_planes, others, strict=True):
                assert (plane - other.cpu()).abs().max().item() <= TOLERANCES["float64"] * size


@pytest.mark.parametrize(("rows", "start"), [(SPHERE, 0), (AXES, 3)], ids=["directions", "axes"])
def test_replayed_steps_are_those_of_the_processor(longer: SketchConfiguration, rows: Coefficient, start: int) -> None:
    assert_close(trained_on(longer, "cuda", rows, start=start), trained_on(longer, "cpu", rows, start=start))


def test_replayed_steps_of_many_models_are_those_of_the_processor(longer: SketchConfiguration) -> None:
    on_cpu, on_cuda = (retrain(LONGER, longer, [[2], [3, 4], []], device=device) for device in ("cpu", "cuda"))
    for name, matrix in on_cpu.items():
        torch.testing.assert_close(matrix, on_cuda[name].cpu(), rtol=1e-9, atol=1e-11)


def test_fused_updates_can_be_captured(longer: SketchConfiguration) -> None:
    if not worth_fusing(10**9, "cuda"):
        pytest.skip("nothing is compiled for CUDA here")
    assert_close(trained_on(longer, "cuda", SPHERE, fuse=True), trained_on(longer, "cpu", SPHERE))


def test_one_graph_is_captured_for_a_length(longer: SketchConfiguration) -> None:
    steps = steps_on(longer, "cuda")
    state = initial_state(jets_on(longer, "cuda", SPHERE))
    table = tabulated(longer.training, steps, next(iter(state.parameters.values())).constant)
    weight = along_directions(tuple(plane.cuda() for plane in SPHERE))

    def step(length: int) -> None:
        take_step(longer.model, table, weight, state, length, update_in_place)

    lengths = [len(step.inputs) for step in steps]
    with replayed(step, torch.device("cuda")) as take:
        assert isinstance(take, Replays)
        for length in lengths[: len(LONGER)]:
            take(length)
        once = {length for length in lengths[: len(LONGER)] if lengths[: len(LONGER)].count(length) == 1}
        assert take.captured == set(lengths) - once
        for length in lengths[len(LONGER) :]:
            take(length)
        assert take.captured == set(lengths)
    assert not take.captured  # their memory is let go
    assert state.done.item() == len(steps)


def test_memory_does_not_grow_with_the_steps_nor_with_trainings(longer: SketchConfiguration) -> None:
    reserved: list[int] = []
    left: list[int] = []
    for _ in range(3):
        trained_on(longer, "cuda", SPHERE, on_step=lambda step: reserved.append(torch.cuda.memory_reserved()))
        assert reserved[-1] <= reserved[-1 - (EPOCHS - 2) * len(LONGER)]  # all lengths were captured by then
        torch.cuda.empty_cache()
        left.append(torch.cuda.memory_reserved())
    assert left[2] <= left[1]


def test_a_training_that_is_left_can_be_begun_again(longer: SketchConfiguration) -> None:
    def leave(step: int) -> None:
        if step == 3 * len(LONGER):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained_on(longer, "cuda", SPHERE, on_step=leave)
    assert_close(trained_on(longer, "cuda", SPHERE), trained_on(longer, "cpu", SPHERE))
