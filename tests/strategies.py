"""Random jets for property-based tests, and training along any directions, by torch and by native code."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st

from engine.blocks import train_block
from engine.configuration import SketchConfiguration
from engine.directions import planes as planes_of
from engine.held import Held, room
from engine.holdings import Kept
from engine.jet import Coefficient, Jet
from engine.model import ModelConfiguration, matrices
from engine.native.groups import Code, Schedule, train_directions, train_models
from engine.native.library import Library, library
from engine.resident import ResidentSketch
from engine.train import Step, TrainingConfiguration

degrees = st.integers(min_value=0, max_value=6)
seeds = st.integers(min_value=0, max_value=2**31 - 1)
planes = st.sampled_from([1, 2])


def random_jet(seed: int, degree: int, planes: int, shape: tuple[int, ...] = (3, 4), *, positive: bool = False) -> Jet:
    """A float64 jet along two directions; `positive` keeps the constant term in [0.5, 2]."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, dtype=torch.float64, generator=generator)

    constant = normal(*shape)
    if positive:
        constant = 0.5 + 1.5 * torch.sigmoid(constant)
    return Jet(constant, tuple(tuple(normal(2, *shape) for _ in range(planes)) for _ in range(degree)))


def train_along(configuration: SketchConfiguration, steps: list[Step], rows: torch.Tensor) -> dict[str, Jet]:
    """Train along complex directions, of shape [K, m]."""
    place = steps[0].inputs.device
    return train_block(configuration, steps, planes_of(rows, dtype=configuration.torch_dtype, device=place))


def native_code(dtype: torch.dtype, degree: int, planes: int) -> Library:
    """Native code, or a skipped test."""
    code = library(dtype, degree, planes)
    if code is None:
        pytest.skip("no C++ compiler is found, so torch does all the work")
    return code


def held(model: ModelConfiguration, parameters: dict[str, Jet]) -> Held:
    """Jets of the trained parameters, kept to be measured."""
    jets = list(parameters.values())
    higher, constant = jets[0].higher, torch.cat([jet.constant.flatten() for jet in jets])
    kept = room(
        model,
        len(higher[0][0]),
        dtype=constant.dtype,
        device=constant.device,
        degree=len(higher),
        planes=len(higher[0]),
        constant=constant,
    )
    for order in range(1, len(higher) + 1):
        for plane in range(len(higher[0])):
            rows = torch.cat([jet.higher[order - 1][plane].flatten(1) for jet in jets], dim=1)
            kept.put(0, rows, order=order, plane=plane)
    return kept


def resident_jets(sketch: ResidentSketch) -> dict[str, Jet]:
    """Jets of a sketch's trained parameters along its random directions."""
    frame, holdings = sketch.frame, sketch.frame.holdings
    assert isinstance(holdings, Kept)
    kept = holdings.directions
    assert kept is not None
    orders = [
        [matrices(frame.model, kept.rows(order=order, plane=plane)) for plane in (0, 1)]
        for order in range(1, frame.degree + 1)
    ]
    return {
        name: Jet(matrix, tuple(tuple(plane[name] for plane in planes) for planes in orders))
        for name, matrix in frame.trained.items()
    }


def train_natively(
    model: ModelConfiguration,
    training: TrainingConfiguration,
    steps: list[Step],
    directions: Coefficient,
    degree: int,
) -> dict[str, Jet]:
    """Train along directions, planes of shape [K, m], by native code; the jets that torch would give."""
    dtype = directions[0].dtype
    code = Code(plain=native_code(dtype, 0, 1), jets=native_code(dtype, degree, len(directions)))
    schedule = Schedule.of(model, training, steps, dtype)
    constant = train_models(code.plain, schedule, torch.ones(1, directions[0].shape[1], dtype=dtype))[0]
    orders = [[matrices(model, plane) for plane in planes] for planes in train_directions(code, schedule, directions)]
    return {
        name: Jet(matrix, tuple(tuple(plane[name] for plane in planes) for planes in orders))
        for name, matrix in matrices(model, constant).items()
    }
