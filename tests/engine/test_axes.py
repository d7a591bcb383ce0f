"""The axes estimator: exact where it should be, calibrated where it isn't."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from engine.anchors import anchor_sets
from engine.axes import FLOOR, Anchors, AxisTable, calibrate, effects, features, losses
from engine.configuration import FEWEST_ANCHORS, SketchConfiguration
from engine.data import census_names
from engine.documents import Documents
from engine.errors import ConfigurationError, DegreeError, QuestionError
from engine.estimate import Question
from engine.evaluate import DeletionSet, coherent_sets, evaluate, random_sets
from engine.jet import Jet
from engine.measure import Measurement, loss_of, measurement_tokens
from engine.model import target_probabilities
from engine.resident import ResidentSketch
from engine.sketch import block_directions, build, train_block
from engine.train import Step, along_directions, constant_jets, train

TEXT = Measurement(text="face")
ESTIMATORS: tuple[Literal["sphere", "axes", "auto"], ...] = ("sphere", "axes", "auto")


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
    return target_probabilities(configuration.model, trained, measurement_tokens(TEXT, configuration.model))


def test_axes_are_the_jets_along_each_unit(
    sketch: ResidentSketch, with_axes: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    table = sketch.table(TEXT).axes
    assert table is not None
    for unit in range(documents.unit_count):
        expected = probability_jets(with_axes, steps, torch.eye(documents.unit_count, dtype=torch.float64)[unit])
        for order, (plane,) in enumerate(expected.higher):
            torch.testing.assert_close(table.coefficients[order, unit], plane[0], rtol=1e-10, atol=1e-15)


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
    indicator = torch.zeros(documents.unit_count, dtype=torch.float64)
    indicator[deleted] = 1
    jets = probability_jets(with_axes, steps, indicator)
    first_order = jets.constant + jets.higher[0][0][0]
    expected = -torch.maximum(first_order, FLOOR * jets.constant).log().mean().item()
    [answer] = sketch.predict([TEXT], deleted, Question(degree=1))
    assert answer.estimate == pytest.approx(expected, rel=1e-10)


def test_a_single_unit_is_exact_to_the_degree(
    sketch: ResidentSketch, with_axes: SketchConfiguration, documents: Documents, steps: list[Step]
) -> None:
    jets = probability_jets(with_axes, steps, torch.eye(documents.unit_count, dtype=torch.float64)[7])
    summed = jets.constant + sum(plane[0] for (plane,) in jets.higher)
    [answer] = sketch.predict([TEXT], [7], Question(degree=3))
    assert answer.estimate == pytest.approx(-summed.log().mean().item(), rel=1e-10)
    assert loss_of(jets).constant.item() == pytest.approx(answer.baseline, rel=1e-10)


def test_terms_add_up_to_the_change_and_the_curve_runs_from_the_baseline(sketch: ResidentSketch) -> None:
    [answer] = sketch.predict([TEXT], [2, 3], Question(degree=3, downweights=(0.0, 0.5, 1.0)))
    assert sum(term.value for term in answer.terms) == pytest.approx(answer.change, rel=1e-9)
    assert answer.curve[0].estimate == answer.baseline
    assert answer.curve[0].interval == (answer.baseline, answer.baseline)
    assert answer.curve[2].estimate == answer.estimate
    assert answer.estimator == "axes"
    assert answer.average is None


def test_a_probability_never_falls_below_its_floor() -> None:
    table = AxisTable(
        constants=torch.tensor([0.5, 0.25], dtype=torch.float64),
        coefficients=torch.tensor([[[-0.4, 0.0], [-0.3, 0.0]]], dtype=torch.float64),
    )
    values = losses(table, table.coefficients.sum(dim=1))
    assert values[1].item() == pytest.approx(-(math.log(0.5 * FLOOR) + math.log(0.25)) / 2)


def test_an_estimator_that_the_sketch_was_not_built_for_is_refused(
    sketch: ResidentSketch, tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    with pytest.raises(QuestionError, match="no random directions"):
        sketch.predict([TEXT], [2], Question(estimator="sphere"))
    with pytest.raises(DegreeError, match="up to 3"):
        sketch.predict([TEXT], [2], Question(degree=4))
    without = ResidentSketch(build(documents, configuration, tmp_path / "a"))
    with pytest.raises(QuestionError, match="no axes"):
        without.predict([TEXT], [2], Question(estimator="axes"))


def test_a_mixed_sketch_answers_by_both_and_auto_takes_the_axes(
    tmp_path: Path, documents: Documents, with_axes: SketchConfiguration
) -> None:
    mixed = ResidentSketch(build(documents, dataclasses.replace(with_axes, directions=8), tmp_path / "a", workers=2))
    answers = {name: mixed.predict([TEXT], [1, 4], Question(estimator=name))[0] for name in ESTIMATORS}
    assert (answers["sphere"].estimator, answers["axes"].estimator) == ("sphere", "axes")
    assert answers["auto"] == answers["axes"]
    assert answers["sphere"].baseline == answers["axes"].baseline


def test_too_few_anchors_are_refused(configuration: SketchConfiguration) -> None:
    with pytest.raises(ConfigurationError, match="anchors"):
        dataclasses.replace(configuration, axes=True, anchors=FEWEST_ANCHORS - 1)
    with pytest.raises(ConfigurationError, match="directions"):
        dataclasses.replace(configuration, directions=0)


def test_a_confidence_that_the_anchors_can_not_tell_is_refused(sketch: ResidentSketch) -> None:
    with pytest.raises(QuestionError, match=r"32 anchors can't tell"):
        sketch.predict([TEXT], [2], Question(confidence=0.99))


def test_anchors_are_not_evaluated_on(sketch: ResidentSketch, documents: Documents) -> None:
    anchors = sketch.anchor_sets()
    assert anchors == anchor_sets(documents, count=FEWEST_ANCHORS, seed=sketch.configuration.seed)
    fresh = next(s for s in random_sets(documents, sizes=[4], count=9, seed=8) if s.units not in anchors)
    known = DeletionSet(kind="known", units=anchors[0])
    [figures] = evaluate(sketch, documents, [known, fresh], [TEXT])
    assert (figures.kind, figures.pairs) == ("4 random", 1)


def test_anchor_sets_are_deletion_sets_and_follow_from_the_seed(documents: Documents) -> None:
    sets = anchor_sets(documents, count=60, seed=3)
    assert sets == anchor_sets(documents, count=60, seed=3)
    assert sets != anchor_sets(documents, count=60, seed=4)
    assert sets[:20] == anchor_sets(documents, count=20, seed=3)
    for units in sets:
        assert units == tuple(sorted(set(units)))
        assert 0 < len(units) < documents.unit_count


def test_documents_that_are_all_alike_still_have_anchors() -> None:
    alike = Documents.from_records(("a", None) for _ in range(4))
    assert all(0 < len(units) < 4 for units in anchor_sets(alike, count=10, seed=0))


def test_calibration_covers_what_it_says_on_errors_that_grow_with_size() -> None:
    """Errors of known law: normal with a scale in proportion to the size. The fitted bars must cover at each size."""
    generator = torch.Generator().manual_seed(0)
    m, count = 400, 600
    table = AxisTable(
        constants=torch.tensor([0.3, 0.6], dtype=torch.float64),
        coefficients=1e-4 * torch.randn(1, m, 2, dtype=torch.float64, generator=generator),
    )
    sizes = torch.randint(1, 60, (count,), generator=generator)
    owners = torch.repeat_interleave(torch.arange(count), sizes)
    members = torch.randint(0, m, (len(owners),), generator=generator)
    sums = torch.zeros(count, 1, 2, dtype=torch.float64).index_add_(
        0, owners, table.coefficients[:, members].transpose(0, 1)
    )
    noise = 0.001 * sizes * torch.randn(count, dtype=torch.float64, generator=generator)
    truth = losses(table, sums)[:, 1] + noise
    calibration = calibrate(table, Anchors(members=members, owners=owners, count=count), truth)
    assert calibration.degree == 1
    for size in (5, 20, 50):
        same = (sizes - size).abs() <= 2
        squares = torch.zeros(count, dtype=torch.float64).index_add_(0, owners, effects(table, 1).square()[members])
        described = features(table, sums, squares, sizes.double())[same].mean(dim=0)
        half = calibration.half_width(described, 0.9)
        assert half == pytest.approx(1.645 * 0.001 * size, rel=0.3)


def test_intervals_cover_fresh_retrains_and_errors_are_far_below_the_effect(
    tmp_path: Path, configuration: SketchConfiguration
) -> None:
    documents = census_names().first(60)
    model = dataclasses.replace(configuration.model, vocabulary=documents.vocabulary)
    built = dataclasses.replace(
        configuration, model=model, axes=True, directions=0, anchors=200, dtype="float32", block=64
    )
    sketch = ResidentSketch(build(documents, built, tmp_path / "a"))
    sets = random_sets(documents, sizes=(1, 3, 8), count=25, seed=1) + coherent_sets(documents)
    measurements = [Measurement(text=text) for text in ("ana", "rose", "max", "lee")]
    figures = {f.kind: f for f in evaluate(sketch, documents, sets, measurements, question=Question(confidence=0.9))}
    for kind, most in (("1 random", 0.3), ("3 random", 0.4), ("8 random", 0.5)):
        assert figures[kind].error < most, figures[kind]
        assert figures[kind].coverage >= 0.8, figures[kind]
        assert figures[kind].width < 3, figures[kind]
        correlation = figures[kind].rank_correlation
        assert correlation is not None
        assert correlation > 0.9, figures[kind]
