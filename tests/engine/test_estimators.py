"""The estimators of sketches with axes: exact where they should be, calibrated where they aren't."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.anchors import anchor_sets, telling
from engine.blocks import block_directions, train_block
from engine.calibration import Choice, Scores
from engine.configuration import FEWEST_ANCHORS, SketchConfiguration
from engine.data import census_names
from engine.directions import dimension, directions, overlaps
from engine.documents import Documents
from engine.errors import ConfigurationError, DegreeError, QuestionError
from engine.estimators import FLOOR, Candidate, Estimates, EstimatorName, variance_of_mean
from engine.evaluate import OVERALL, OWN, DeletionSet, coherent_sets, evaluate, random_sets
from engine.evidence import LINKS, Evidence, Spread
from engine.frame import DeletionSets, Frame, as_real
from engine.interpolation import Interpolation
from engine.jet import Jet, log
from engine.measure import Measurement, measure_models
from engine.model import ModelConfiguration, target_probabilities
from engine.question import Distribution, Prediction, Question
from engine.regression import LocalRegression
from engine.reliability import Reliability
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build
from engine.sphere import term_samples
from engine.stability import Stability, stability
from engine.supplements import add
from engine.train import Step, along_directions, constant_jets, train
from tests.oracles import loss_of

TEXT = Measurement(text="face")


@pytest.fixture(scope="module")
def with_axes(configuration: SketchConfiguration) -> SketchConfiguration:
    return dataclasses.replace(configuration, axes=True, directions=0, anchors=FEWEST_ANCHORS)


@pytest.fixture(scope="module")
def sketch(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, with_axes: SketchConfiguration
) -> ResidentSketch:
    return ResidentSketch(build(documents, with_axes, tmp_path_factory.mktemp("axes") / "a"))


def probability_jets(configuration: SketchConfiguration, steps: list[Step], direction: Tensor) -> Jet:
    """Along one real direction, by training in jets from the first step."""
    initial = constant_jets(configuration.model.initial_parameters().items(), configuration.degree, 1, 1)
    trained = train(configuration.model, configuration.training, steps, initial, along_directions((direction[None],)))
    vocabulary = configuration.model.vocabulary
    ids = [len(vocabulary), *(vocabulary.index(c) for c in TEXT.text), len(vocabulary)]
    return target_probabilities(configuration.model, trained, ids)


def ask(sketch: ResidentSketch, deleted: list[int], question: Question) -> Prediction:
    [answer] = sketch.predict([TEXT], deleted, question)
    assert isinstance(answer, Prediction)
    return answer


def indicator(units: list[int], of: int) -> Tensor:
    row = torch.zeros(of, dtype=torch.float64)
    row[units] = 1
    return row


def retrained_loss(documents: Documents, configuration: SketchConfiguration, deleted: list[int]) -> float:
    models = retrain(documents, configuration, [deleted])
    return measure_models(TEXT, configuration.model, models).item()


def evidence_of(sketch: ResidentSketch) -> Evidence:
    evidence = sketch.table(TEXT).table.evidence
    assert evidence is not None
    return evidence


def functionals(psi: Tensor, rows: Tensor, order: int) -> Tensor:
    """What each direction says of interactions alone, by the definition; [B, 2K]."""
    x = rows.to(psi.dtype)
    at = (x @ psi.T) ** order - (x[:, None, :] * psi[None]).pow(order).sum(dim=2)
    return torch.cat([at.real, at.imag], dim=1)


@pytest.fixture(scope="module")
def mixed(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, with_axes: SketchConfiguration
) -> ResidentSketch:
    """Axes, pairs, and enough directions to span the symmetric tensors of order 2 over 12 units: 78 numbers."""
    configuration = dataclasses.replace(with_axes, pairs=True, directions=48, anchors=64)
    return ResidentSketch(build(documents, configuration, tmp_path_factory.mktemp("mixed") / "a", workers=2))


def test_axes_are_the_jets_along_each_unit(
    sketch: ResidentSketch, with_axes: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    evidence = evidence_of(sketch)
    for unit in range(documents.unit_count):
        expected = probability_jets(with_axes, steps, torch.eye(documents.unit_count, dtype=torch.float64)[unit])
        for order, (plane,) in enumerate(expected.higher):
            np.testing.assert_allclose(evidence.axes[order, unit, 0], plane[0], rtol=1e-10, atol=1e-15)


def test_starting_at_the_first_visit_changes_nothing(
    with_axes: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    block = with_axes.blocks(documents.unit_count)[1]
    assert (block.kind, block.start) == ("axes", 4)
    rows = block_directions(with_axes, block, documents.unit_count, torch.device("cpu"))
    late, early = (train_block(with_axes, steps, rows, start=start) for start in (block.start, 0))
    for name, parameter in early.items():
        for expected, found in zip(parameter.coefficients, late[name].coefficients, strict=True):
            torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-15)


def test_the_first_order_is_exact_for_every_set(
    sketch: ResidentSketch, with_axes: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    deleted = [1, 4, 6]
    jets = probability_jets(with_axes, steps, indicator(deleted, documents.unit_count))
    table = sketch.table(TEXT).table
    estimates = Estimates(table, sketch.frame, sketch.frame.one_set(deleted))
    summed = jets.constant + jets.higher[0][0][0]
    assert estimates.value(Candidate("axes", 1, 0, "probability")).item() == pytest.approx(
        -torch.maximum(summed, FLOOR * jets.constant).log().mean().item(), rel=1e-10
    )
    first = loss_of(jets).constant + loss_of(jets).higher[0][0][0]
    assert estimates.value(Candidate("axes", 1, 0, "logarithm")).item() == pytest.approx(first.item(), rel=1e-10)


def test_a_single_unit_is_exact(sketch: ResidentSketch, with_axes: SketchConfiguration, documents: Documents) -> None:
    for unit in (0, 7):
        truth = retrained_loss(documents, with_axes, [unit])
        for question in (Question(), Question(estimator="axes", degree=3)):
            assert ask(sketch, [unit], question).estimate == pytest.approx(truth, rel=1e-10)
    assert ask(sketch, [7], Question()).estimator == "retrained"


def test_what_the_model_was_retrained_for_is_answered_exactly(
    sketch: ResidentSketch, with_axes: SketchConfiguration, documents: Documents
) -> None:
    anchor = next(units for units in sketch.retrained_sets if len(units) > 2)
    answer = ask(sketch, list(anchor), Question(downweights=(0.0, 0.5, 1.0)))
    assert (answer.estimator, answer.readout) == ("retrained", None)
    truth = retrained_loss(documents, with_axes, list(anchor))
    assert answer.estimate == pytest.approx(truth, rel=1e-10)
    low, high = answer.interval
    assert low <= truth <= high
    assert high - low < 1e-5 * truth
    widths = [point.interval[1] - point.interval[0] for point in answer.curve]
    assert widths[0] == 0
    assert widths[1] > widths[2]


def test_two_units_are_exact_with_pairs(
    mixed: ResidentSketch, with_axes: SketchConfiguration, documents: Documents
) -> None:
    for deleted in ([0, 1], [3, 11]):
        truth = retrained_loss(documents, with_axes, deleted)
        assert ask(mixed, deleted, Question(estimator="pairs")).estimate == pytest.approx(truth, rel=1e-9)
    names: tuple[EstimatorName, ...] = ("axes", "pairs")
    squares = dict.fromkeys(names, 0.0)
    for three in ([2, 5, 9], [0, 3, 6], [1, 4, 10], [7, 8, 11], [0, 1, 2], [3, 7, 10], [4, 6, 9], [2, 8, 10]):
        truth = retrained_loss(documents, with_axes, three)
        for name in squares:
            squares[name] += (ask(mixed, three, Question(estimator=name)).estimate - truth) ** 2
    assert squares["pairs"] < squares["axes"] / 4


def test_the_first_order_along_directions_is_that_of_the_axes(mixed: ResidentSketch) -> None:
    evidence = evidence_of(mixed)
    assert evidence.directions is not None
    for link in range(len(LINKS)):
        expected = mixed.frame.directions.numpy() @ evidence.axes[0, :, link]
        np.testing.assert_allclose(evidence.directions[0, :, link], expected, rtol=1e-9, atol=1e-14)


def test_the_first_order_agrees_in_single_precision(
    tmp_path: Path, documents: Documents, with_axes: SketchConfiguration
) -> None:
    single = dataclasses.replace(with_axes, directions=8, dtype="float32")
    sketch = ResidentSketch(build(documents, single, tmp_path / "a"))
    evidence = evidence_of(sketch)
    assert evidence.directions is not None
    expected = sketch.frame.directions.numpy() @ evidence.axes[0, :, 0]
    assert np.linalg.norm(evidence.directions[0, :, 0] - expected) / np.linalg.norm(expected) < 1e-4


def test_interpolation_is_exact_where_the_directions_span(
    mixed: ResidentSketch, with_axes: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    deleted = [1, 4, 6, 10]
    jets = log(probability_jets(with_axes, steps, indicator(deleted, documents.unit_count)))
    row = indicator(deleted, documents.unit_count)[None]
    evidence, logarithm = evidence_of(mixed), LINKS.index("logarithm")
    alone = row @ torch.from_numpy(evidence.axes[1, :, logarithm])
    weights = torch.from_numpy(evidence.weights[2][:, logarithm])
    second = alone + functionals(mixed.frame.directions, row, 2) @ torch.cat([weights.real, weights.imag])
    torch.testing.assert_close(second[0], jets.higher[1][0][0], rtol=1e-4, atol=1e-8)
    assert (alone - jets.higher[1][0]).norm() > 10 * (second - jets.higher[1][0]).norm()


def test_sums_over_one_set_are_those_over_many_and_follow_their_definitions(mixed: ResidentSketch) -> None:
    frame, m = mixed.frame, mixed.unit_count
    assert frame.axes is not None
    members = [[3], [0, 5], [1, 4, 6, 10]]
    rows = torch.stack([indicator(units, m) for units in members])
    many = DeletionSets(frame, rows=rows.numpy())
    psi = frame.directions.numpy()
    np.testing.assert_allclose(many.overlaps, rows.numpy() @ psi.conj().T)
    weights = np.random.default_rng(0).normal(size=(len(psi), 2)) @ np.array([[1, 2, 3], [1j, 2j, -1j]])
    for order in (1, 2, 3, 4, 6):
        expected = ((rows.numpy() @ psi.conj().T) ** order @ weights).real
        np.testing.assert_allclose(many.along(order, as_real(weights)), expected)
        np.testing.assert_allclose(many.squares(order), np.abs(rows.numpy() @ psi.conj().T) ** (2 * order))
    likeness = np.corrcoef(rows.numpy(), frame.axes.anchors.numpy())[: len(rows), len(rows) :]
    np.testing.assert_allclose(many.likeness, likeness, atol=1e-14)
    kinship = frame.axes.kinship.numpy()
    coherence = [float(kinship[u][:, u].sum() / kinship.diagonal()[u].sum()) ** 0.5 for u in members]
    assert many.coherence.tolist() == pytest.approx(coherence)
    for row, units in enumerate(members):
        one = frame.one_set(units)
        assert (len(one), one.sizes.item()) == (1, len(units))
        for name in ("overlaps", "coherence", "likeness", "sizes"):
            np.testing.assert_allclose(getattr(one, name)[0], getattr(many, name)[row], atol=1e-14)
        for order in (1, 2, 3):
            np.testing.assert_allclose(one.powers(order)[0], many.powers(order)[row])
        for of_pairs in (kinship, kinship[..., None]):
            expected = sum((of_pairs[u, v] for u, v in itertools.combinations(units, 2)), np.zeros_like(of_pairs[0, 0]))
            np.testing.assert_allclose(one.total_of_two(of_pairs)[0], expected, atol=1e-14)
            np.testing.assert_allclose(many.total_of_two(of_pairs)[row], expected, atol=1e-14)


def test_sums_over_large_sets_are_those_of_their_units() -> None:
    m, generator = 300, np.random.default_rng(3)
    of_pairs = generator.normal(size=(m, m, 2))
    of_pairs = of_pairs + of_pairs.swapaxes(0, 1)
    psi = directions("sphere", 3, m, 0, 4)
    model = ModelConfiguration(vocabulary="ab")
    sketch = Frame(model=model, units=m, degree=3, ensemble="sphere", directions=psi, trained={})
    for size in (1, 2, 127, 128, 129, 299):
        units = sorted(generator.permutation(m)[:size].tolist())
        one = sketch.one_set(units)
        expected = (of_pairs[np.ix_(units, units)].sum(axis=(0, 1)) - of_pairs[units, units].sum(axis=0)) / 2
        np.testing.assert_allclose(one.total_of_two(of_pairs)[0], expected, atol=1e-9)
        np.testing.assert_allclose(one.overlaps[0], psi.numpy()[:, units].sum(axis=1).conj())


def test_interpolation_reproduces_what_was_measured_and_shrinks_elsewhere() -> None:
    """A random symmetric tensor of order 2, measured along fewer directions than it has numbers."""
    m, generator = 10, torch.Generator().manual_seed(1)
    tensor = torch.randn(m, m, dtype=torch.float64, generator=generator)
    tensor = tensor + tensor.T
    tensor.fill_diagonal_(0)
    psi = directions("sphere", 5, m, 0, 12)
    measured = torch.einsum("ju,uv,jv->j", psi, tensor.to(psi.dtype), psi)[:, None]
    complex_weights = torch.from_numpy(Interpolation(psi, 2).weights(measured.numpy(), 2))
    weights = torch.cat([complex_weights.real, complex_weights.imag])
    found = torch.zeros(m, m, dtype=torch.float64)
    for u, v in itertools.combinations(range(m), 2):
        found[u, v] = found[v, u] = (functionals(psi, indicator([u, v], m)[None], 2) @ weights).item() / 2
    again = torch.einsum("ju,uv,jv->j", psi, found.to(psi.dtype), psi)
    torch.testing.assert_close(again, measured[:, 0], rtol=1e-4, atol=1e-5)
    assert 0.1 < (found.norm() / tensor.norm()).item() < 0.9


def test_the_variance_of_a_term_is_that_of_its_samples() -> None:
    generator = torch.Generator().manual_seed(2)
    m, count = 8, 40
    psi = directions("sphere", 3, m, 0, count)
    coefficients = torch.randn(count, 2, dtype=torch.complex128, generator=generator).numpy()
    model = ModelConfiguration(vocabulary="ab")
    sketch = Frame(model=model, units=m, degree=3, ensemble="sphere", directions=psi, trained={})
    for order in (1, 2, 3):
        sets = sketch.one_set([0, 3, 5])
        mean = sets.along(order, as_real(coefficients)) * dimension(m, order) / count
        variance = variance_of_mean(mean, Spread.of(coefficients), sets, m, order)
        for token in range(2):
            powers = np.tile(coefficients[:, token], (order, 1))
            samples = term_samples(powers, overlaps(psi, torch.tensor([0, 3, 5])).resolve_conj().numpy(), m)[order - 1]
            assert mean[0, token] == pytest.approx(samples.mean(), rel=1e-10)
            assert variance[0, token] == pytest.approx(samples.var(ddof=1) / count, rel=1e-8)


def test_the_control_variate_lowers_the_variance(mixed: ResidentSketch) -> None:
    """Interactions alone scatter less over the directions than the whole second order does."""
    evidence, logarithm = evidence_of(mixed), LINKS.index("logarithm")
    assert evidence.directions is not None
    assert evidence.interactions is not None
    for deleted in ([1, 4, 6], [0, 2, 3, 9]):
        overlap = overlaps(mixed.frame.directions, torch.tensor(deleted)).resolve_conj().numpy()
        whole, rest = (
            (overlap[:, None] ** 2 * coefficients[:, logarithm]).real.var(axis=0)
            for coefficients in (evidence.directions[1], evidence.interactions[0])
        )
        assert rest.sum() < whole.sum()


def test_every_estimator_can_be_asked_for_and_says_its_name(mixed: ResidentSketch) -> None:
    names: tuple[EstimatorName, ...] = get_args(EstimatorName)
    for name in names:
        degree = 3 if name == "regression" else 2
        answer = ask(mixed, [1, 4, 7], Question(estimator=name, degree=degree))
        assert (answer.estimator, answer.degree) == (name, degree)
        assert answer.interval[0] < answer.estimate < answer.interval[1]


def test_the_regression_finds_how_much_estimates_fall_short() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 1, 2, dtype=torch.float64, generator=generator).numpy()
    alike = np.arange(400) < 200
    changes = (inputs[:, 0] * np.where(alike[:, None], [1.5, 0.5], [0.2, 0.1])).sum(axis=1, keepdims=True)
    fitted = LocalRegression.of(inputs, changes).changes(alike.astype(float)[None], np.eye(2)[None])
    assert fitted[0].tolist() == pytest.approx([1.5, 0.5], rel=0.01)
    nothing_alike = LocalRegression.of(inputs, changes).changes(np.zeros((1, 400)), inputs[:1])
    assert nothing_alike[0, 0].item() == pytest.approx(inputs[0, 0].mean().item(), rel=1e-12)


def test_the_error_of_the_regression_at_an_anchor_leaves_it_out(mixed: ResidentSketch) -> None:
    """Brute force: without the anchor's equation, and with weights computed one by one."""
    measurement = Measurement(text=TEXT.text)
    table, calibration = mixed.table(measurement).table, mixed.table(measurement).calibration
    assert calibration is not None
    assert mixed.frame.axes is not None
    assert table.retrained is not None
    sets = mixed.frame.axes.anchors.numpy()
    likeness = np.corrcoef(sets)
    values = Estimates(table, mixed.frame, DeletionSets(mixed.frame, rows=sets))
    estimates = [values.value(Candidate("pairs", 3, 2, link))[:, 0] - table.baseline for link in LINKS]
    truth = table.retrained[-len(sets) :, 0]
    size = estimates[0] ** 2 + estimates[1] ** 2
    size = size + 3e-3 * size.mean()
    row = next(r for r, c in enumerate(calibration.candidates) if c.estimator == "regression")
    np.fill_diagonal(likeness, 0)
    places = calibration.places.at
    np.testing.assert_allclose(places[:, 3], np.log(1.05 - likeness.max(axis=1)))
    for left_out in (0, 5, len(sets) - 1):
        gram, products = 0.3 * np.eye(2), np.array([0.15, 0.15])
        for anchor in range(len(sets)):
            if anchor == left_out:
                continue
            apart = places[anchor] - places[left_out]
            similarity = max(math.exp(-float(apart @ apart) / (2 * 0.4**2)), 1e-4)
            weight = similarity * math.exp(8 * likeness[anchor, left_out] ** 2) / float(size[anchor])
            changes = np.array([float(estimate[anchor]) for estimate in estimates])
            gram += weight * np.outer(changes, changes)
            products += weight * changes * float(truth[anchor] - table.baseline[0])
        estimate = np.linalg.solve(gram, products) @ np.array([float(e[left_out]) for e in estimates])
        error = abs(float(table.baseline[0]) + estimate - float(truth[left_out]))
        assert math.exp(calibration.errors[row, left_out, 0]) == pytest.approx(error + 1e-7, rel=1e-6)


@pytest.mark.parametrize("estimator", ["auto", "regression"])
def test_a_distribution_adds_up_to_one(mixed: ResidentSketch, estimator: Literal["auto", "regression"]) -> None:
    question = Question(estimator=estimator)
    [answer] = mixed.predict([Measurement(kind="next_token", prompt="fa")], [1, 4, 7], question)
    assert isinstance(answer, Distribution)
    assert sum(outcome.estimate for outcome in answer.outcomes) == pytest.approx(1, rel=1e-9)
    for outcome in answer.outcomes:
        assert 0 <= outcome.interval[0] <= outcome.estimate <= outcome.interval[1] <= 1
        assert outcome.below_resolution == (outcome.interval[0] <= outcome.baseline <= outcome.interval[1])


def test_terms_add_up_to_the_change_and_the_curve_runs_from_the_baseline(sketch: ResidentSketch) -> None:
    question = Question(estimator="axes", degree=3, downweights=(0.0, 0.5, 1.0))
    answer = ask(sketch, [2, 3], question)
    assert sum(term.value for term in answer.terms) == pytest.approx(answer.change, rel=1e-9)
    assert answer.curve[0].estimate == answer.baseline
    assert answer.curve[0].interval == (answer.baseline, answer.baseline)
    assert answer.curve[2].estimate == answer.estimate
    assert answer.estimator == "axes"
    assert answer.average is None


def test_a_probability_never_falls_below_its_floor(sketch: ResidentSketch) -> None:
    table = sketch.table(TEXT).table
    evidence = evidence_of(sketch)
    falling = dataclasses.replace(table, evidence=dataclasses.replace(evidence, by_unit=evidence.by_unit - 10))
    estimates = Estimates(falling, sketch.frame, sketch.frame.one_set([2]))
    floor = -np.log(FLOOR * evidence.origin[LINKS.index("probability")]).mean()
    assert estimates.value(Candidate("axes", 1, 0, "probability")).item() == pytest.approx(floor)


def test_an_estimator_that_the_sketch_was_not_built_for_is_refused(
    sketch: ResidentSketch, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    with pytest.raises(QuestionError, match="no random directions"):
        ask(sketch, [2], Question(estimator="sphere"))
    with pytest.raises(QuestionError, match="build with pairs"):
        ask(sketch, [2], Question(estimator="pairs"))
    with pytest.raises(QuestionError, match="random directions beside axes"):
        ask(sketch, [2], Question(estimator="interpolation"))
    with pytest.raises(DegreeError, match="up to 3"):
        ask(sketch, [2], Question(degree=4))
    without = ResidentSketch(build(documents, configuration, tmp_path / "a"))
    with pytest.raises(QuestionError, match="no axes"):
        ask(without, [2], Question(estimator="axes"))


def test_a_degree_too_low_for_an_estimator_is_refused(mixed: ResidentSketch) -> None:
    with pytest.raises(DegreeError, match="at least degree 2"):
        ask(mixed, [2, 3, 4], Question(estimator="interpolation", degree=1))


def test_pairs_need_axes(configuration: SketchConfiguration) -> None:
    with pytest.raises(ConfigurationError, match="pairs need axes"):
        dataclasses.replace(configuration, pairs=True)


def test_too_few_anchors_are_refused(configuration: SketchConfiguration) -> None:
    with pytest.raises(ConfigurationError, match="anchors"):
        dataclasses.replace(configuration, axes=True, anchors=FEWEST_ANCHORS - 1)
    with pytest.raises(ConfigurationError, match="directions"):
        dataclasses.replace(configuration, directions=0)


def test_a_confidence_that_the_anchors_can_not_tell_is_refused(sketch: ResidentSketch) -> None:
    with pytest.raises(QuestionError, match=r"32 anchors can't tell"):
        sketch.predict([TEXT], [2], Question(confidence=0.99))


def test_anchors_are_not_evaluated_on(sketch: ResidentSketch, documents: Documents) -> None:
    singles, anchors = sketch.retrained_sets[:12], sketch.retrained_sets[12:]
    assert singles == [(unit,) for unit in range(12)]
    assert anchors == anchor_sets(documents, count=FEWEST_ANCHORS, seed=sketch.configuration.seed, exact=1)
    fresh = next(s for s in random_sets(documents, sizes=[4], count=9, seed=8) if s.units not in anchors)
    known = DeletionSet(kind="known", units=next(units for units in anchors if len(units) > 1))
    figures, pairs = evaluate(sketch, documents, [known, fresh], [TEXT])
    assert [(figure.kind, figure.pairs) for figure in figures] == [("4 random", 1), (OVERALL, 1)]
    assert [pair.units for pair in pairs] == [4]


@pytest.mark.parametrize("exact", [1, 2])
def test_anchor_sets_are_deletion_sets_that_differ_and_follow_from_the_seed(documents: Documents, exact: int) -> None:
    sets = anchor_sets(documents, count=60, seed=3, exact=exact)
    assert sets == anchor_sets(documents, count=60, seed=3, exact=exact)
    assert sets != anchor_sets(documents, count=60, seed=4, exact=exact)
    assert sets[:20] == anchor_sets(documents, count=20, seed=3, exact=exact)
    for units in sets:
        assert units == tuple(sorted(set(units)))
        assert exact < len(units) < documents.unit_count
    assert len(set(sets)) == 60
    assert telling(sets, exact=exact) == list(range(60))


def test_documents_that_are_all_alike_still_have_anchors_that_differ() -> None:
    alike = Documents.from_records(("a", None) for _ in range(9))
    sets = anchor_sets(alike, count=40, seed=0, exact=1)
    assert len(set(sets)) == 40
    assert all(1 < len(units) < 9 for units in sets)


@pytest.mark.parametrize("exact", [1, 2])
def test_of_a_handful_of_units_all_sets_that_tell_are_anchors(documents: Documents, exact: int) -> None:
    few = documents.first(6)
    there = sum(math.comb(6, size) for size in range(exact + 1, 6))
    assert len(set(anchor_sets(few, count=300, seed=0, exact=exact))) == there


def test_where_no_other_set_is_found_anchors_are_still_deletion_sets() -> None:
    few = Documents.from_records((text, None) for text in ("a", "ab", "b"))
    for exact in (1, 2):
        sets = anchor_sets(few, count=10, seed=0, exact=exact)
        assert len(sets) == 10
        assert {len(units) for units in sets} == {2}


def test_of_anchors_that_are_equal_the_first_tells_and_none_that_is_exact() -> None:
    sets = [(1,), (2, 3), (0, 4, 5), (2, 3), (0, 4, 5), (1, 2)]
    assert telling(sets, exact=1) == [1, 2, 5]
    assert telling(sets, exact=2) == [2]


def test_twins_and_single_units_among_the_anchors_of_an_artifact_change_nothing(
    documents: Documents, with_axes: SketchConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier release drew such anchors."""
    sets = anchor_sets(documents, count=FEWEST_ANCHORS, seed=5, exact=1)
    doubled = [one for units in sets for one in (units, units, (units[0],))]

    def ask_of(drawn: list[tuple[int, ...]], name: str) -> list[Prediction]:
        monkeypatch.setattr("engine.blocks.anchor_sets", lambda *_, **__: drawn)
        configuration = dataclasses.replace(with_axes, anchors=len(drawn))
        sketch = ResidentSketch(build(documents, configuration, tmp_path / name, workers=1, native=False))
        assert sketch.retrained_sets[12:] == drawn
        assert len(sketch.frame.anchor_sets) == FEWEST_ANCHORS
        return [ask(sketch, deleted, Question(confidence=0.8)) for deleted in ([1, 2], [0, 3, 5, 7], list(range(8)))]

    for once, twice in zip(ask_of(sets, "once"), ask_of(doubled, "twice"), strict=True):
        assert (twice.estimator, twice.degree) == (once.estimator, once.degree)
        assert twice.estimate == pytest.approx(once.estimate, rel=1e-12)
        assert twice.interval == pytest.approx(once.interval, rel=1e-9)


def test_twins_among_the_anchors_change_neither_calibration_nor_stability_nor_what_comes_later(
    documents: Documents, with_axes: SketchConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = anchor_sets(documents, count=FEWEST_ANCHORS, seed=5, exact=1)
    later = (0, 2, 4, 6, 8, 10)
    assert later not in sets

    def known(drawn: list[tuple[int, ...]], name: str) -> tuple[Reliability, Stability | None]:
        monkeypatch.setattr("engine.blocks.anchor_sets", lambda *_, **__: drawn)
        configuration = dataclasses.replace(with_axes, anchors=len(drawn))
        artifact = build(documents, configuration, tmp_path / name, workers=1, native=False)
        add(artifact, documents, [later])
        sketch = ResidentSketch(artifact)
        return sketch.reliability(TEXT, confidence=0.8), stability(sketch)

    (once, stable), (twice, as_stable) = known(sets, "once"), known(2 * sets, "twice")
    assert twice == once
    assert [one.units for one in once.anchors if one.later] == [len(later)]
    assert as_stable == pytest.approx(stable)


def test_an_artifact_with_too_few_anchors_that_differ_is_answered_from_all(
    documents: Documents, with_axes: SketchConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier release drew them."""
    drawn = [(1, 2), (3,), (5, 6, 7), (8, 9)] * (FEWEST_ANCHORS // 4)
    monkeypatch.setattr("engine.blocks.anchor_sets", lambda *_, **__: drawn)
    sketch = ResidentSketch(build(documents, with_axes, tmp_path / "sketch", workers=1, native=False))
    assert len(sketch.frame.anchor_sets) == FEWEST_ANCHORS
    answer = ask(sketch, [0, 4], Question(confidence=0.95))
    assert answer.interval[0] < answer.estimate < answer.interval[1]


def test_a_bar_is_the_quantile_of_similar_anchors() -> None:
    """Half of the anchors err ten times as much; only those like the set that is asked about count."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.randn(4000, dtype=torch.float64, generator=generator).abs().numpy()
    errors[2000:] *= 10
    alike = (np.arange(4000) < 2000).astype(float)
    choice = Choice(
        candidate=Candidate("axes", 3, 0, "probability"),
        expected=np.zeros(1),
        scores=Scores.of(np.log(errors)[:, None]),
        kin=alike[None],
        apart=100 * (1 - alike),
    )
    # Of normal errors 91.4% are below: 58.5 of the 64 that are heard, and of the answer's own.
    assert choice.half_width(0.9).item() == pytest.approx(1.717, rel=0.05)
    assert dataclasses.replace(choice, apart=100 * alike).half_width(0.9).item() == pytest.approx(17.17, rel=0.05)


def test_where_the_nearest_anchors_cannot_tell_a_bar_the_worst_of_them_does() -> None:
    apart = np.arange(1, 401) ** 2.0  # one is near
    scores = np.arange(400) / 400
    choice = Choice(
        candidate=Candidate("axes", 3, 0, "probability"),
        expected=np.zeros(1),
        scores=Scores.of(scores[:, None]),
        kin=None,
        apart=apart,
    )
    assert choice.half_width(0.9).item() == pytest.approx(math.exp(63 / 400))
    assert choice.half_width(0.95).item() == pytest.approx(math.exp(79 / 400))
    assert choice.half_width(0.99).item() == pytest.approx(math.exp(399 / 400))


@pytest.mark.parametrize("rounded", [None, 1])
def test_an_interval_of_more_confidence_is_never_narrower(rounded: int | None) -> None:
    generator = np.random.default_rng(3)
    for _ in range(100):
        apart = generator.chisquare(4, 500) * generator.uniform(0.05, 5)
        choice = Choice(
            candidate=Candidate("axes", 3, 0, "probability"),
            expected=np.zeros(2),
            scores=Scores.of(generator.normal(size=(500, 2))),
            kin=None,
            apart=apart if rounded is None else apart.round(rounded),  # where some are equally far
        )
        widths = np.array([choice.half_width(confidence) for confidence in np.linspace(0.5, 0.998, 250)])
        assert (np.diff(widths, axis=0) >= 0).all()


def test_an_interval_takes_the_answers_own_score_into_account() -> None:
    """Split conformal prediction: of nine scores and the answer's own, the ninth covers 90%; above, the largest."""
    choice = Choice(
        candidate=Candidate("axes", 3, 0, "probability"),
        expected=np.zeros(1),
        scores=Scores.of(np.log(np.arange(1, 10))[:, None]),
        kin=np.ones((1, 9)),
        apart=np.zeros(9),
    )
    assert choice.half_width(0.8).item() == pytest.approx(8)
    assert choice.half_width(0.9).item() == pytest.approx(9)
    with pytest.raises(QuestionError, match=r"9 anchors .* confidence 0\.91"):
        choice.half_width(0.91)


def test_a_part_of_the_set_among_the_anchors_brings_the_estimate_closer(
    tmp_path: Path, configuration: SketchConfiguration
) -> None:
    """Retrained without nine tenths of a coherent set, a sketch knows more of the whole set than it did."""
    documents = census_names().first(60)
    model = dataclasses.replace(configuration.model, vocabulary=documents.vocabulary)
    built = dataclasses.replace(configuration, model=model, axes=True, directions=0, anchors=300, block=64)
    artifact = build(documents, built, tmp_path / "a")
    whole = tuple(number for number, text in enumerate(documents.texts) if "e" in text)
    parts = [tuple(unit for unit in whole if unit % 10 != rest) for rest in range(10)]
    measurements = [Measurement(text=text) for text in ("ana", "rose", "max", "lee", "helen", "joe")]
    models = retrain(documents, built, [whole])
    truth = [measure_models(one, model, models).item() for one in measurements]

    def mean_squared_error() -> float:
        answers = ResidentSketch(artifact).predict(measurements, whole, Question())
        estimates = [answer.estimate for answer in answers if isinstance(answer, Prediction)]
        return float(np.mean(np.square(np.subtract(estimates, truth))))

    before = mean_squared_error()
    add(artifact, documents, parts)
    assert mean_squared_error() < before / 2


def test_intervals_cover_fresh_retrains_and_errors_are_far_below_the_effect(
    tmp_path: Path, configuration: SketchConfiguration
) -> None:
    documents = census_names().first(60)
    model = dataclasses.replace(configuration.model, vocabulary=documents.vocabulary)
    built = dataclasses.replace(
        configuration, model=model, axes=True, directions=0, anchors=300, dtype="float32", block=64
    )
    sketch = ResidentSketch(build(documents, built, tmp_path / "a"))
    sets = random_sets(documents, sizes=(1, 3, 8), count=25, seed=1) + coherent_sets(documents)
    measurements = [Measurement(text=text) for text in ("ana", "rose", "max", "lee")]
    found, _ = evaluate(sketch, documents, sets, measurements, question=Question(confidence=0.9))
    figures = {figure.kind: figure for figure in found}
    for kind, most in (("1 random", 1e-4), ("3 random", 0.3), ("8 random", 0.4)):
        figure = figures[kind]
        assert figure.error_of_spread < most, figure
        assert figure.coverage >= 0.8, figure
        assert figure.width < 3, figure
        assert figure.rank_correlation is not None
        assert figure.rank_correlation > 0.9, figure
    assert 0.85 < figures[OVERALL].coverage < 0.99
    assert math.isfinite(figures[OVERALL].width)


def test_intervals_hold_where_a_text_rests_on_what_is_deleted(
    tmp_path: Path, configuration: SketchConfiguration
) -> None:
    """As where nobody is left who has its letter: such sets go beyond all anchors, and errors with them."""
    documents = census_names().first(200)
    model = dataclasses.replace(configuration.model, vocabulary=documents.vocabulary)
    built = dataclasses.replace(
        configuration, model=model, axes=True, directions=0, anchors=500, dtype="float32", block=64
    )
    sketch = ResidentSketch(build(documents, built, tmp_path / "a"))
    texts = ("oliver", "theo", "freya", "felix", "hugo", "wyatt", "zelda", "jaxon")
    found, _ = evaluate(sketch, documents, coherent_sets(documents), [Measurement(text=text) for text in texts])
    figures = {figure.kind: figure for figure in found}
    own = figures[OWN]
    assert own.pairs > 15
    assert own.rank_correlation is None
    assert own.effect > 1.5 * figures[OVERALL].effect
    assert own.coverage >= 0.8  # of 95%; 89% was seen
