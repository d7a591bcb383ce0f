"""How stable a run is: sums of single units against retrained parameters, one by one."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from engine.configuration import FEWEST_ANCHORS, SketchConfiguration
from engine.documents import Documents
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build
from engine.stability import stability


def test_it_is_what_sums_of_single_units_leave(
    tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    wanted = dataclasses.replace(configuration, axes=True, directions=0, anchors=FEWEST_ANCHORS)
    sketch = ResidentSketch(build(documents, wanted, tmp_path / "axes"))
    sets = sketch.retrained_sets[-FEWEST_ANCHORS:]
    models = retrain(documents, configuration, [(), *((unit,) for unit in range(12)), *sets])
    flat = torch.cat([matrix.flatten(start_dim=1) for matrix in models.values()], dim=1)
    base, singles, whole = flat[0], flat[1:13] - flat[0], flat[13:] - flat[0]
    shares = [
        float((true - singles[list(units)].sum(dim=0)).square().sum() / true.square().sum())
        for units, true in zip(sets, whole, strict=True)
    ]
    assert base.norm() > 0
    found = stability(sketch)
    assert found is not None
    assert found.random == pytest.approx(math.sqrt(sum(shares[::2]) / len(shares[::2])), rel=1e-9)
    assert found.coherent == pytest.approx(math.sqrt(sum(shares[1::2]) / len(shares[1::2])), rel=1e-9)
    assert f"{found.random:.0%} for random sets" in found.sentence


def test_it_takes_axes(tmp_path: Path, documents: Documents, configuration: SketchConfiguration) -> None:
    assert stability(ResidentSketch(build(documents, configuration, tmp_path / "sphere"))) is None
