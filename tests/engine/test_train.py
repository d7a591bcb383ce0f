"""Training in jets against training with ordinary numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine import jet, plain
from engine.compiled import fused, worth_fusing
from engine.configuration import SketchConfiguration
from engine.directions import directions
from engine.documents import Documents, tokens
from engine.errors import ConfigurationError
from engine.jet import Jet
from engine.model import ModelConfiguration, forward, loss_gradient, target_probabilities
from engine.retrain import retrain
from engine.train import Step, TrainingConfiguration, adam_rates, adam_update, constant_jets, schedule
from tests import oracles, strategies
from tests.oracles import loss_of
from tests.strategies import train_along


def loss(configuration: SketchConfiguration, parameters: dict[str, Jet], text: str) -> Jet:
    model = configuration.model
    return loss_of(target_probabilities(model, parameters, tokens(text, model.vocabulary)))


def test_coefficients_agree_with_complex_training_on_a_circle(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    """12 steps; the oracle's error is about T_{r+16}·radius^16 + 1e-16/radius^r, far below the tolerance."""
    assert len(steps) >= 12
    rows = directions("sphere", 5, documents.unit_count, 0, 2)
    ours = loss(configuration, train_along(configuration, steps, rows), "fade")
    for number, row in enumerate(rows):
        expected = oracles.circle(
            configuration.model, configuration.training, documents, row, "fade", radius=0.3, points=16
        )
        assert ours.constant.item() == pytest.approx(expected[0].real.item(), rel=1e-12)
        for order, (real, imaginary) in enumerate(ours.higher, start=1):
            mine = complex(real[number], imaginary[number])
            assert abs(mine - expected[order].item()) <= 1e-9 * abs(expected[order].item()), order


def test_training_at_a_degree_and_cutting_equals_training_at_the_lower_degree(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    rows = directions("sphere", 1, documents.unit_count, 0, 3)
    high = train_along(configuration, steps, rows)
    low = train_along(dataclasses.replace(configuration, degree=2), steps, rows)
    for name, parameter in low.items():
        for planes, expected in zip(parameter.higher, jet.truncate(high[name], 2).higher, strict=True):
            for plane, other in zip(planes, expected, strict=True):
                torch.testing.assert_close(plane, other, rtol=1e-10, atol=1e-14)


def test_the_ring_gradient_is_what_autograd_says_of_the_top_coefficient(
    configuration: SketchConfiguration, steps: list[Step]
) -> None:
    """The derivative of L_S by θ_j is coefficient S - j of the ring gradient; torch only sees the forward pass."""
    model, degree = configuration.model, 3
    parameters = {
        name: Jet(
            matrix,
            tuple((torch.randn(1, *matrix.shape, dtype=torch.float64) * 0.05,) for _ in range(degree)),
        )
        for name, matrix in model.initial_parameters().items()
    }
    leaves = [plane.requires_grad_() for p in parameters.values() for planes in p.coefficients for plane in planes]
    logits, pull = forward(model, parameters, steps[0].inputs)
    probabilities = jet.softmax(logits)
    hot = torch.nn.functional.one_hot(steps[0].targets, len(model.vocabulary) + 1).double()
    target = jet.linear_map(lambda plane: (plane * hot).sum(-1), probabilities)
    top = loss_of(target).higher[-1][0].sum()
    by_autograd = torch.autograd.grad(top, leaves)
    ring = pull(loss_gradient(logits, steps[0].targets))
    expected = [planes[0] for gradient in ring.values() for planes in reversed(gradient.coefficients)]
    for found, coefficient in zip(by_autograd, expected, strict=True):
        torch.testing.assert_close(found.squeeze(), coefficient.detach().squeeze(), rtol=1e-9, atol=1e-12)


def test_a_document_longer_than_the_context_is_cut(model: ModelConfiguration) -> None:
    long = Documents.from_records([("abcdefabcdefabcdef", None)])
    [step] = schedule(model, TrainingConfiguration(), long, torch.device("cpu"))
    assert len(step.inputs) == len(step.targets) == model.context


def test_several_epochs_are_the_schedule_repeated(configuration: SketchConfiguration, documents: Documents) -> None:
    training = TrainingConfiguration(epochs=3)
    configuration = dataclasses.replace(configuration, training=training)
    steps = schedule(configuration.model, training, documents, torch.device("cpu"))
    assert len(steps) == 3 * len(documents)
    models = retrain(documents, configuration, [[2, 5]])
    initial = configuration.model.initial_parameters()
    expected = plain.train(
        configuration.model, training, steps, initial, weight=lambda unit: 0.0 if unit in (2, 5) else 1.0
    )
    for name, matrix in expected.items():
        torch.testing.assert_close(models[name][0], matrix, rtol=1e-9, atol=1e-11)


def test_many_retrains_at_once_equal_plain_training_one_by_one(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    sets = [[], [0], [3, 7, 11], [1, 2, 4, 5, 6]]
    models = retrain(documents, configuration, sets, batch=3)
    for row, units in enumerate(sets):
        expected = plain.train(
            configuration.model,
            configuration.training,
            steps,
            configuration.model.initial_parameters(),
            weight=lambda unit, units=units: 0.0 if unit in units else 1.0,  # type: ignore[misc]
        )
        for name, matrix in expected.items():
            torch.testing.assert_close(models[name][row], matrix, rtol=1e-9, atol=1e-11)


def test_deeper_models_train(documents: Documents, configuration: SketchConfiguration) -> None:
    model = dataclasses.replace(configuration.model, layers=2, width=12, heads=3, context=6)
    deep = dataclasses.replace(configuration, model=model)
    steps = schedule(model, deep.training, documents, torch.device("cpu"))
    rows = directions("sphere", 5, documents.unit_count, 0, 1)
    ours = loss(deep, train_along(deep, steps, rows), "bed")
    expected = oracles.circle(model, deep.training, documents, rows[0], "bed", radius=0.3, points=16)
    for order, (real, imaginary) in enumerate(ours.higher, start=1):
        mine = complex(real[0], imaginary[0])
        assert abs(mine - expected[order].item()) <= 1e-9 * abs(expected[order].item()), order


def test_the_fused_update_agrees_with_the_plain_one() -> None:
    if not worth_fusing(10**9):
        pytest.skip("no C++ compiler is found, so nothing is ever fused here")
    jets = [strategies.random_jet(seed, 3, 2, (5, 7)) for seed in range(4)]
    parameter, first, gradient = jets[0], jets[1], jets[3]
    second = jet.square(jets[2])
    rates = adam_rates(TrainingConfiguration(), 4, 100)
    plainly = adam_update(parameter, first, second, gradient, rates)
    at_once = fused(adam_update)(parameter, first, second, gradient, rates)
    for a, b in zip(plainly, at_once, strict=True):
        for expected, found in zip(a.coefficients, b.coefficients, strict=True):
            for plane, other in zip(expected, found, strict=True):
                torch.testing.assert_close(plane, other, rtol=1e-12, atol=1e-12)


def test_single_precision_stays_close_to_double(configuration: SketchConfiguration, documents: Documents) -> None:
    single = dataclasses.replace(configuration, dtype="float32")
    rows = directions("sphere", 0, documents.unit_count, 0, 8)
    place = torch.device("cpu")
    exact, rounded = (
        loss(c, train_along(c, schedule(c.model, c.training, documents, place), rows), "cafe")
        for c in (configuration, single)
    )
    assert rounded.constant.item() == pytest.approx(exact.constant.item(), rel=1e-6)
    for planes, expected in zip(rounded.higher, exact.higher, strict=True):
        size = max(plane.abs().max().item() for plane in expected)
        for plane, other in zip(planes, expected, strict=True):
            assert (plane - other).abs().max().item() <= 1e-4 * size


def test_zero_jets_start_every_direction_at_the_same_point(model: ModelConfiguration) -> None:
    jets = constant_jets(model.initial_parameters().items(), 2, 2, 5)
    assert all(not plane.any() for p in jets.values() for planes in p.higher for plane in planes)
    assert all(plane.shape[0] == 5 for p in jets.values() for planes in p.higher for plane in planes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"beta2": 1.0}, "beta"),
    ],
)
def test_impossible_training_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfiguration(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"width": 10, "heads": 4}, "multiple"), ({"layers": 0}, "layers"), ({"vocabulary": ""}, "vocabulary")],
)
def test_impossible_models_are_refused(change: dict[str, int | str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ModelConfiguration(**{"vocabulary": "abc", **change})  # type: ignore[arg-type]
