"""The sphere estimator against brute force on a tiny run, and the statistics that its bars rest on."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.configuration import SketchConfiguration
from engine.directions import Ensemble, directions, overlaps, remaining_fraction
from engine.documents import Documents
from engine.errors import DegreeError, DeletionSetError, DownweightError, QuestionError
from engine.estimate import Prepared, predict
from engine.evidence import Table, tabulate
from engine.frame import Frame
from engine.held import Held
from engine.holdings import Kept
from engine.jet import Jet
from engine.measure import Measurement
from engine.model import ModelConfiguration, target_probabilities
from engine.question import Prediction, Question, check_units
from engine.sphere import derivative_norms, term_samples
from engine.train import Step, constant_jets, train
from tests.oracles import loss_of
from tests.strategies import held, train_along

SIGMAS = 5
MEASUREMENT = Measurement(text="face")


@pytest.fixture(scope="module")
def rows(documents: Documents) -> Tensor:
    return directions("sphere", 7, documents.unit_count, 0, 600)


@pytest.fixture(scope="module")
def table(configuration: SketchConfiguration, steps: list[Step], rows: Tensor) -> Table:
    return measured(configuration, steps, rows)


@pytest.fixture(scope="module")
def exact_terms(configuration: SketchConfiguration, documents: Documents, steps: list[Step]) -> dict[int, Tensor]:
    """T_r[1_D, …] for D = {1, 4, 6} along 1_D itself, by real jets."""
    indicator = torch.zeros(1, documents.unit_count, dtype=torch.float64)
    indicator[0, [1, 4, 6]] = 1
    from engine.train import along_directions

    initial = constant_jets(configuration.model.initial_parameters().items(), 3, 1, 1)
    trained = train(configuration.model, configuration.training, steps, initial, along_directions((indicator,)))
    ids = [len(documents.vocabulary), *(documents.vocabulary.find(c) for c in "face"), len(documents.vocabulary)]
    jets: Jet = loss_of(target_probabilities(configuration.model, trained, ids))
    return {order: planes[0][0] for order, planes in enumerate(jets.higher, start=1)}


def test_every_order_is_estimated_without_bias(
    table: Table, rows: Tensor, exact_terms: dict[int, Tensor], documents: Documents
) -> None:
    overlap = overlaps(rows, torch.tensor([1, 4, 6])).resolve_conj().numpy()
    samples = term_samples(table.coefficients[:, :, 0], overlap, documents.unit_count)
    for order, exact in exact_terms.items():
        values = samples[order - 1]
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert error < [0.02, 0.06, 0.2][order - 1], order  # a bar too wide would make the next line empty
        assert abs(values.mean().item() - exact.item()) <= SIGMAS * error, order


def test_the_standard_error_is_that_of_the_mean(table: Table, rows: Tensor, documents: Documents) -> None:
    units = torch.tensor([1, 4, 6])
    answer = ask(table, (rows, units), documents.unit_count, Question(degree=2))
    samples = term_samples(
        table.coefficients[:, :, 0], overlaps(rows, units).resolve_conj().numpy(), documents.unit_count
    )
    expected = samples[:2].sum(axis=0).std(ddof=1) / math.sqrt(len(rows))
    assert answer.standard_error == pytest.approx(expected)
    assert [term.standard_error for term in answer.terms] == pytest.approx(
        (samples.std(axis=1, ddof=1) / math.sqrt(len(rows))).tolist()
    )


def test_the_norm_of_the_first_derivative_is_estimated(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step], table: Table
) -> None:
    m = documents.unit_count
    from engine.train import along_directions

    initial = constant_jets(configuration.model.initial_parameters().items(), 1, 1, m)
    trained = train(
        configuration.model,
        configuration.training,
        steps,
        initial,
        along_directions((torch.eye(m, dtype=torch.float64),)),
    )
    ids = [len(documents.vocabulary), *(documents.vocabulary.find(c) for c in "face"), len(documents.vocabulary)]
    gradient = loss_of(target_probabilities(configuration.model, trained, ids)).higher[0][0]
    norms, errors = derivative_norms(table.coefficients[:, :, 0], m)
    assert norms[0] == pytest.approx(gradient.norm().item(), abs=4 * errors[0])
    assert errors[0] < 0.05 * norms[0]


def test_a_complete_unitary_block_gives_the_first_order_exactly(
    configuration: SketchConfiguration, documents: Documents, steps: list[Step], exact_terms: dict[int, Tensor]
) -> None:
    m = documents.unit_count
    rows = directions("unitary", 3, m, 0, m)
    table = measured(configuration, steps, rows)
    units = torch.tensor([1, 4, 6])
    answer = ask(table, (rows, units), m, Question(degree=1), ensemble="unitary")
    assert answer.change == pytest.approx(exact_terms[1].item(), rel=1e-9)
    assert answer.standard_error < 1e-12


def test_the_finite_population_error_of_the_unitary_ensemble_is_its_scatter(documents: Documents) -> None:
    """An incomplete block, many seeds, a linear measurement: the stated standard error is that of the answers."""
    m, count = 12, 8
    gradient = torch.linspace(-1, 2, m, dtype=torch.complex128)
    units = torch.tensor([0, 3, 5])
    answers, errors = [], []
    for seed in range(400):
        rows = directions("unitary", seed, m, 0, count)
        linear = fake_table((rows @ gradient)[None])
        answer = ask(linear, (rows, units), m, Question(degree=1), ensemble="unitary")
        answers.append(answer.change)
        errors.append(answer.standard_error**2)
    scatter = torch.tensor(answers).std().item()
    assert torch.tensor(errors).mean().sqrt().item() == pytest.approx(scatter, rel=0.1)


@pytest.mark.parametrize("ensemble", ["sphere", "unitary"])
def test_the_standard_error_of_a_norm_is_its_scatter(ensemble: Ensemble) -> None:
    """Many seeds, a linear measurement; of the unitary ensemble with two thirds of a matrix."""
    m, count = 12, 8
    gradient = torch.linspace(-1, 2, m, dtype=torch.complex128)
    remaining = remaining_fraction(ensemble, m, (range(count),))
    norms, errors = [], []
    for seed in range(600):
        linear = (directions(ensemble, seed, m, 0, count) @ gradient)[None].numpy()
        (norm,), (error,) = derivative_norms(linear, m, remaining=remaining)
        norms.append(norm**2)
        errors.append((2 * norm * error) ** 2)
    assert np.mean(norms) == pytest.approx(gradient.norm().item() ** 2, abs=5 * np.std(norms) / 600**0.5)
    assert np.mean(errors) == pytest.approx(np.var(norms), rel=0.25)


def test_the_curve_follows_from_the_terms(table: Table, rows: Tensor, documents: Documents) -> None:
    overlap = (rows, torch.tensor([1, 4, 6]))
    answer = ask(table, overlap, documents.unit_count, Question(degree=3, downweights=(0.0, 0.5, 1.0)))
    for point in answer.curve:
        expected = table.baseline.item() + sum(term.value * point.downweight**term.degree for term in answer.terms)
        assert point.estimate == pytest.approx(expected, rel=1e-12)
        single = ask(table, overlap, documents.unit_count, Question(degree=3, downweights=(point.downweight,)))
        assert point.estimate == pytest.approx(single.estimate)
        assert point.interval == pytest.approx(single.interval)
    assert answer.curve[0].interval == pytest.approx((table.baseline.item(), table.baseline.item()))
    assert answer.estimate == answer.curve[-1].estimate


def test_degree_zero_is_the_baseline(table: Table, rows: Tensor, documents: Documents) -> None:
    answer = ask(table, (rows, torch.tensor([2])), documents.unit_count, Question(degree=0))
    assert (answer.change, answer.standard_error, answer.degree) == (0, 0, 0)
    assert answer.interval[0] < table.baseline.item() < answer.interval[1]


def test_the_automatic_degree_grows_with_the_directions() -> None:
    """Terms 1, 1/2, 1/4: few directions can't tell the higher ones from noise, many can."""
    m = 5
    gradient = torch.ones(m, dtype=torch.complex128)
    chosen = []
    for count in (4, 60, 20_000):
        rows = directions("sphere", 2, m, 0, count)
        linear = rows @ gradient
        coefficients = torch.stack([linear / 3, linear**2 / 18, linear**3 / 108])
        overlap = (rows, torch.tensor([0, 1, 2]))
        chosen.append(ask(fake_table(coefficients), overlap, m, Question()).degree)
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1] == 3


def test_the_median_of_means_resists_one_wild_direction(table: Table, rows: Tensor, documents: Documents) -> None:
    overlap = (rows, torch.tensor([1, 4, 6]))
    wild = dataclasses.replace(table, coefficients=table.coefficients.copy())
    wild.coefficients[:, 17] *= 1e6
    question = Question(degree=1, average="median_of_means")
    clean, spoilt = (ask(t, overlap, documents.unit_count, question) for t in (table, wild))
    assert abs(spoilt.estimate - clean.estimate) < clean.standard_error
    mean = ask(wild, overlap, documents.unit_count, Question(degree=1))
    assert abs(mean.estimate - clean.estimate) > 100 * clean.standard_error


def test_the_bar_of_the_median_resists_it_too(table: Table, rows: Tensor, documents: Documents) -> None:
    overlap = (rows, torch.tensor([1, 4, 6]))
    wild = dataclasses.replace(table, coefficients=table.coefficients.copy())
    wild.coefficients[:, 17] *= 1e6
    question = Question(degree=1, average="median_of_means")
    clean, spoilt = (ask(t, overlap, documents.unit_count, question) for t in (table, wild))
    assert spoilt.standard_error < 2 * clean.standard_error


def test_the_standard_error_of_a_sum_of_orders_is_its_scatter_in_an_incomplete_unitary_block() -> None:
    """Orders 1 and 2 vary together; without replacement, both the variance of order 1 and this covariance shrink."""
    m, count = 12, 8
    gradient = torch.linspace(-1, 2, m, dtype=torch.complex128)
    units = torch.tensor([0, 3, 5])
    answers, variances = [], []
    for seed in range(1500):
        rows = directions("unitary", seed, m, 0, count)
        linear = rows @ gradient
        answer = ask(
            fake_table(torch.stack([linear, linear**2])), (rows, units), m, Question(degree=2), ensemble="unitary"
        )
        answers.append(answer.change)
        variances.append(answer.standard_error**2)
    scatter = torch.tensor(answers).std().item()
    assert torch.tensor(variances).mean().sqrt().item() == pytest.approx(scatter, rel=0.1)


def test_intervals_shrink_with_the_downweight_at_least_in_proportion(
    table: Table, rows: Tensor, documents: Documents
) -> None:
    overlap = (rows, torch.tensor([1, 4, 6]))
    question = Question(degree=2, downweights=(0.01, 0.1, 0.5, 1.0))
    curve = ask(table, overlap, documents.unit_count, question).curve
    relative = [(point.interval[1] - point.interval[0]) / point.downweight for point in curve]
    assert relative == sorted(relative)


def test_intervals_widen_with_the_confidence(table: Table, rows: Tensor, documents: Documents) -> None:
    overlap = (rows, torch.tensor([1, 4, 6]))
    widths = [
        high - low
        for confidence in (0.5, 0.9, 0.99)
        for low, high in [ask(table, overlap, documents.unit_count, Question(confidence=confidence)).interval]
    ]
    assert all(narrow < wide for narrow, wide in itertools.pairwise(widths))


def test_a_degree_above_the_sketchs_is_refused(table: Table, rows: Tensor, documents: Documents) -> None:
    with pytest.raises(DegreeError, match="up to 3"):
        ask(table, (rows, torch.tensor([0])), documents.unit_count, Question(degree=4))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"degree": -1}, DegreeError),
        ({"downweights": ()}, DownweightError),
        ({"downweights": (0.5, 1.1)}, DownweightError),
        ({"downweights": (math.nan,)}, DownweightError),
        ({"confidence": 0.9999999999999999}, QuestionError),
        ({"confidence": 1e-17}, QuestionError),
    ],
)
def test_impossible_questions_are_refused(change: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Question(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("units", "message"),
    [([], "empty"), ([3, 1, 3], "Unit 3"), ([5], "no unit 5"), ([-1], "no unit -1"), ([0, 1, 2, 3, 4], "whole")],
)
def test_what_is_no_deletion_set_is_refused(units: list[int], message: str) -> None:
    with pytest.raises(DeletionSetError, match=message):
        check_units(units, 5)


def ask(
    table: Table, where: tuple[Tensor, Tensor], units: int, question: Question, *, ensemble: Ensemble = "sphere"
) -> Prediction:
    """Directions and deletion set → the answer."""
    rows, deleted = where
    highest = len(table.coefficients)
    of = frame(rows, ensemble=ensemble, degree=highest)
    answer = predict(Prepared(table=table, calibration=None), of, of.one_set(deleted.tolist()), question)
    assert isinstance(answer, Prediction)
    assert rows.shape[1] == units
    return answer


def frame(
    rows: Tensor,
    *,
    ensemble: Ensemble = "sphere",
    degree: int = 3,
    model: ModelConfiguration | None = None,
    parameters: Held | None = None,
) -> Frame:
    """A sketch of random directions alone."""
    return Frame(
        model=model or ModelConfiguration(vocabulary="ab"),
        units=rows.shape[1],
        degree=degree,
        ensemble=ensemble,
        directions=rows,
        trained={},
        holdings=Kept(parts=(range(len(rows)),), directions=parameters, axes=None, retrained=None, sets=()),
    )


def measured(configuration: SketchConfiguration, steps: list[Step], rows: Tensor) -> Table:
    """The measurement along some directions."""
    model = configuration.model
    parameters = held(model, train_along(configuration, steps, rows))
    [table] = tabulate([MEASUREMENT], frame(rows, model=model, parameters=parameters))
    return table


def fake_table(coefficients: Tensor) -> Table:
    """A measurement with known jets."""
    return Table(measurement=MEASUREMENT, baseline=np.zeros(1), coefficients=coefficients[:, :, None].numpy())
