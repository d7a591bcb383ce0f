"""The figures of the reference program, printed in float64, by torch and by native code."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import jet
from engine.documents import Documents, tokens
from engine.jet import Jet
from engine.model import ModelConfiguration, matrices, target_probabilities
from engine.native.groups import Schedule, train_models
from engine.train import TrainingConfiguration, along_directions, constant_jets, of_models, schedule, train
from tests.oracles import loss_of
from tests.strategies import native_code, train_natively

FILES = sorted((Path(__file__).parent.parent / "golden").glob("*.json"))
EXACT = 1e-10
LOWER_ORDERS = 1e-9  # relative
TOP_ORDER = 1e-3  # relative: the reference drops the order S + 1 of GELU, which its derivative needs

pytestmark = [
    pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem),
    pytest.mark.parametrize("how", ["torch", "native"]),
]


class Golden:
    def __init__(self, path: Path) -> None:
        self.figures: dict[str, Any] = json.loads(path.read_text())
        self.documents = Documents.from_records((text, None) for text in self.figures["docs"])
        self.model = ModelConfiguration(
            vocabulary=self.figures["vocabulary"], seed=self.figures["seed"], shuffled_first=32_033
        )
        once = schedule(self.model, TrainingConfiguration(), self.documents, torch.device("cpu"))
        self.steps = [once[step % len(once)] for step in range(self.figures["num_steps"])]

    def along_directions(self, degree: int, how: str) -> dict[str, Jet]:
        pairs = torch.tensor([d["direction"] for d in self.figures["directions"]], dtype=torch.float64)
        directions = (pairs[..., 0], pairs[..., 1])
        if how == "native":
            return train_natively(self.model, TrainingConfiguration(), self.steps, directions, degree)
        initial = constant_jets(self.model.initial_parameters().items(), degree, 2, len(pairs))
        return train(self.model, TrainingConfiguration(), self.steps, initial, along_directions(directions))

    def loss(self, parameters: dict[str, Jet], text: str) -> Jet:
        return loss_of(target_probabilities(self.model, parameters, tokens(text, self.model.vocabulary)))


@cache
def golden(path: Path) -> Golden:
    return Golden(path)


@cache
def trained(path: Path, how: str, extra: int = 0) -> dict[str, Jet]:
    return golden(path).along_directions(golden(path).figures["degree"] + extra, how)


def flat(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([matrix.flatten() for matrix in parameters.values()])


def complex_coefficients(value: Jet, direction: int) -> list[complex]:
    """Orders 1 … S along one direction."""
    return [complex(real[direction], imaginary[direction]) for real, imaginary in value.higher]


def test_initial_parameters_are_the_reference_programs(path: Path, how: str) -> None:
    del how  # they are drawn before either begins
    expected = torch.tensor(golden(path).figures["initial_parameters"], dtype=torch.float64)
    assert torch.equal(flat(golden(path).model.initial_parameters()), expected)


def test_trained_parameters_agree(path: Path, how: str) -> None:
    expected = torch.tensor(golden(path).figures["trained_parameters"], dtype=torch.float64)
    constants = flat({name: parameter.constant for name, parameter in trained(path, how).items()})
    torch.testing.assert_close(constants, expected, rtol=0, atol=EXACT)


def test_baseline_losses_agree(path: Path, how: str) -> None:
    for text, loss in golden(path).figures["baseline_loss"].items():
        assert golden(path).loss(trained(path, how), text).constant.item() == pytest.approx(loss, rel=EXACT)


def test_retrained_losses_agree(path: Path, how: str) -> None:
    g = golden(path)
    retrained = g.figures["retrained_loss"]
    downweights = torch.zeros(len(retrained), len(g.documents), dtype=torch.float64)
    for row, entry in enumerate(retrained):
        downweights[row, entry["deletion_set"]] = 1
    if how == "native":
        arrays = Schedule.of(g.model, TrainingConfiguration(), g.steps, torch.float64)
        flat_models = train_models(native_code(torch.float64, 0, 1), arrays, 1 - downweights)
        models = {name: Jet(matrix) for name, matrix in matrices(g.model, flat_models).items()}
    else:
        initial = {name: Jet(m.expand(len(retrained), -1, -1)) for name, m in g.model.initial_parameters().items()}
        models = train(g.model, TrainingConfiguration(), g.steps, initial, of_models(downweights))
    for row, entry in enumerate(retrained):
        for text, loss in entry["loss"].items():
            assert g.loss(models, text).constant[row].item() == pytest.approx(loss, rel=EXACT)


def test_loss_coefficients_agree_and_the_top_one_within_the_references_own_error(path: Path, how: str) -> None:
    g = golden(path)
    for number, direction in enumerate(g.figures["directions"]):
        for text, pairs in direction["loss_taylor_coefficients"].items():
            ours = complex_coefficients(g.loss(trained(path, how), text), number)
            theirs = [complex(*pair) for pair in pairs[1:]]
            for order, (mine, reference) in enumerate(zip(ours, theirs, strict=True), start=1):
                tolerance = LOWER_ORDERS if order < g.figures["degree"] else TOP_ORDER
                assert abs(mine - reference) <= tolerance * abs(reference), (number, text, order)


def test_parameter_coefficients_agree(path: Path, how: str) -> None:
    g = golden(path)
    higher = [
        [torch.cat([p.higher[r][plane].flatten(1) for p in trained(path, how).values()], dim=1) for plane in (0, 1)]
        for r in range(g.figures["degree"])
    ]
    for number, direction in enumerate(g.figures["directions"]):
        for index, pairs in direction["parameter_taylor_coefficients_sample"].items():
            scale = max(abs(complex(*pair)) for pair in pairs[1:])
            for order, pair in enumerate(pairs[1:], start=1):
                mine = complex(*(plane[number, int(index)] for plane in higher[order - 1]))
                tolerance = LOWER_ORDERS if order < g.figures["degree"] else TOP_ORDER
                assert abs(mine - complex(*pair)) <= tolerance * scale, (number, index, order)


def test_the_top_order_equals_the_same_order_computed_at_one_degree_more(path: Path, how: str) -> None:
    g = golden(path)
    degree = g.figures["degree"]
    for text in g.figures["probes"]:
        lower = g.loss(trained(path, how), text)
        higher = jet.truncate(g.loss(trained(path, how, extra=1), text), degree)
        for number in range(len(g.figures["directions"])):
            mine, more = complex_coefficients(lower, number)[-1], complex_coefficients(higher, number)[-1]
            assert abs(mine - more) <= LOWER_ORDERS * abs(more), (text, number)
