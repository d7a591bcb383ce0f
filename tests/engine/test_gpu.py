"""The same code on a CUDA device gives the same sketch, to rounding."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.measure import Measurement
from engine.question import Prediction, Question
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build
from engine.store import open_artifact

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
    for name, parameter in on_cpu.frame.parameters.items():
        for expected, found in zip(parameter.higher, on_cuda.frame.parameters[name].higher, strict=True):
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
