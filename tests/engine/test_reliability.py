"""How far a sketch may be trusted: truths by retraining, sets that were really not known before, groups by size."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import figures
from engine.configuration import FEWEST_ANCHORS, SketchConfiguration
from engine.documents import Documents
from engine.errors import QuestionError, TextLengthError, UnknownCharacterError
from engine.estimators import Candidate
from engine.leave_one_out import Answer
from engine.measure import Measurement, measure_models
from engine.question import Prediction, Question
from engine.reliability import MOST_GROUPS, AnchorAnswer, Reliability, by_size, coverage_interval, drawn
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build
from engine.supplements import add
from tests.shards import served

TEXT = Measurement(text="face")
LATER = (0, 1, 2, 4, 6, 8, 9, 10)
"""Units that no sketch here was retrained without."""


@pytest.fixture(params=["axes", "axes, pairs and directions", "directions"])
def sketch(
    request: pytest.FixtureRequest, documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> ResidentSketch:
    """A sketch of each kind, whose supplement is empty."""
    axes = dataclasses.replace(configuration, axes=True, directions=0, anchors=60)
    wanted = {
        "axes": axes,
        "axes, pairs and directions": dataclasses.replace(axes, pairs=True, directions=10),
        "directions": configuration,
    }
    return ResidentSketch(build(documents, wanted[request.param], tmp_path / "sketch"))


def ask(sketch: ResidentSketch, measurement: Measurement = TEXT, confidence: float = 0.8) -> Reliability:
    return sketch.reliability(measurement, confidence=confidence)


def test_every_set_that_only_an_anchor_tells_is_there_once_with_its_truth(
    sketch: ResidentSketch, documents: Documents
) -> None:
    configuration = sketch.configuration
    exact = 2 if configuration.pairs else 1
    anchors = sketch.retrained_sets[-configuration.anchors :] if configuration.axes else []
    expected = sorted({units for units in anchors if len(units) > exact}, key=len)
    assert len(expected) > 10 or not configuration.axes
    found = ask(sketch)
    models = retrain(documents, configuration, [[], *expected])
    base, *truth = measure_models(TEXT, configuration.model, models).tolist()
    assert found.baseline == pytest.approx(base, rel=1e-9)
    assert [one.units for one in found.anchors] == [len(units) for units in expected]
    assert sorted(one.truth for one in found.anchors) == pytest.approx(sorted(truth), rel=1e-9)
    for one in found.anchors:
        assert one.inside_interval == (one.interval[0] <= one.truth <= one.interval[1])
        assert one.interval[0] <= one.estimate <= one.interval[1]
    assert any(one.estimate != pytest.approx(one.truth, rel=1e-6) for one in found.anchors) or not configuration.axes


def test_what_is_retrained_later_is_answered_as_before_it_was(sketch: ResidentSketch, documents: Documents) -> None:
    (before,) = sketch.predict([TEXT], LATER, Question(confidence=0.8))
    assert isinstance(before, Prediction)
    without = ask(sketch)
    add(sketch.artifact, documents, [LATER])
    (known,) = sketch.predict([TEXT], LATER, Question(confidence=0.8))
    assert isinstance(known, Prediction)
    assert known.estimator == "retrained"
    found = ask(sketch)
    assert len(found.anchors) == len(without.anchors) + 1
    [one] = [one for one in found.anchors if one.truth == pytest.approx(known.estimate, rel=1e-9)]
    assert one.units == len(LATER)
    assert one.later
    assert [one.later for one in found.anchors].count(True) == 1
    assert one.estimator == before.estimator
    assert one.estimate == pytest.approx(before.estimate, rel=1e-9)
    assert one.interval == pytest.approx(before.interval, rel=0.01)
    if not sketch.configuration.axes:
        assert (one.estimate, one.interval) == (before.estimate, before.interval)


def test_groups_say_what_their_anchors_do(sketch: ResidentSketch, documents: Documents) -> None:
    add(sketch.artifact, documents, [LATER, LATER[:5], LATER[1:6]])
    found = ask(sketch)
    counted = [one for one in found.anchors if not (one.later and sketch.configuration.axes)]
    assert sum(group.anchors for group in found.sizes) == len(counted) >= 3
    assert len(found.anchors) == found.anchors_in_all == len(counted) + (3 if sketch.configuration.axes else 0)
    for group in found.sizes:
        members = [one for one in counted if group.smallest <= one.units <= group.largest]
        assert {group.smallest, group.largest} <= {one.units for one in members}
        assert group.anchors == len(members)
        assert group.inside == sum(one.inside_interval for one in members)
        assert group.coverage_interval == coverage_interval(group.inside, group.anchors)
        errors = [one.estimate - one.truth for one in members]
        changes = [one.truth - found.baseline for one in members]
        assert group.rms_error == pytest.approx(math.sqrt(sum(e * e for e in errors) / len(errors)))
        assert group.rms_change == pytest.approx(math.sqrt(sum(c * c for c in changes) / len(changes)))
        widths = sorted(one.interval[1] - one.interval[0] for one in members)
        assert widths[(len(widths) - 1) // 2] <= group.median_width <= widths[len(widths) // 2]


def anchors_of(sizes: list[int]) -> list[AnchorAnswer]:
    return [
        AnchorAnswer(
            units=size,
            truth=0.0,
            estimate=0.0,
            interval=(0.0, 0.0),
            inside_interval=True,
            estimator="axes",
            likeness=0.0,
            later=False,
        )
        for size in sorted(sizes)
    ]


def test_likeness_is_the_correlation_with_the_set_that_is_most_alike(
    sketch: ResidentSketch, documents: Documents
) -> None:
    later = [LATER, LATER[:5], LATER[1:6], (3, 5, 7)]
    add(sketch.artifact, documents, later)
    found = ask(sketch)
    exact = 2 if sketch.configuration.pairs else 1
    sets = {units for units in sketch.retrained_sets if sketch.configuration.axes is False or len(units) > exact}
    rows = {units: [float(unit in units) for unit in range(len(documents))] for units in sets}

    def likeness(units: tuple[int, ...]) -> float:
        return max(0.0, *(float(np.corrcoef(rows[units], rows[one])[0, 1]) for one in sets if one != units))

    expected = [likeness(units) for units in sets if len(units) > exact]
    assert sorted(one.likeness for one in found.anchors) == pytest.approx(sorted(expected), abs=1e-9)
    assert all(0 <= one.likeness <= 1 for one in found.anchors)


def test_a_set_without_another_is_like_none(
    documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> None:
    sketch = ResidentSketch(build(documents, configuration, tmp_path / "sketch"))
    add(sketch.artifact, documents, [LATER])
    [one] = ask(sketch).anchors
    assert (one.likeness, one.later) == (0, True)


def test_of_several_thousand_anchors_a_thousand_sets_are_asked_about(
    documents: Documents, configuration: SketchConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = Documents.from_records((text + last, None) for text in documents.texts for last in "abcf")
    model = dataclasses.replace(configuration.model, vocabulary=many.vocabulary)
    wanted = dataclasses.replace(configuration, model=model, axes=True, directions=0, anchors=2_500, block=256)
    sketch = ResidentSketch(build(many, wanted, tmp_path / "sketch"))
    rows: list[int] = []

    class Uncalculated:
        def __init__(self, _: object, asked: list[list[int]]) -> None:
            self.asked = asked

        def answers(self, confidence: float) -> list[Answer]:
            rows.append(len(self.asked))
            candidate = Candidate("axes", 3, 0, "probability")
            return [Answer(value=0, half_width=confidence, candidate=candidate, likeness=0) for _ in self.asked]

    monkeypatch.setattr("engine.leave_one_out._Without", Uncalculated)
    calls: list[int] = []
    found = sketch.reliability(TEXT, confidence=0.9, go_on=lambda: calls.append(1))
    assert sum(rows) == len(found.anchors) == 1_000
    assert rows[:-1] == [64] * 15
    assert len(calls) == 16
    different = {units for units in sketch.retrained_sets[-2_500:] if len(units) > 1}
    assert found.anchors_in_all == len(different) > 1_500
    theirs = np.quantile([one.units for one in found.anchors], [0.1, 0.3, 0.5, 0.7, 0.9])
    assert theirs == pytest.approx(np.quantile([len(one) for one in different], [0.1, 0.3, 0.5, 0.7, 0.9]), abs=1)


def test_what_is_retrained_later_is_drawn_from_too_where_there_is_much(
    documents: Documents, configuration: SketchConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sketch = ResidentSketch(build(documents, configuration, tmp_path / "sketch"))
    add(sketch.artifact, documents, [LATER[:end] for end in range(2, 9)])
    whole = ask(sketch)
    monkeypatch.setattr("engine.reliability.MOST_ASKED", 3)
    calls: list[int] = []
    found = sketch.reliability(TEXT, confidence=0.8, go_on=lambda: calls.append(1))
    assert (len(found.anchors), found.anchors_in_all, len(calls)) == (3, 7, 3)
    assert set(found.anchors) < set(whole.anchors)


@given(st.lists(st.integers(1, 30), max_size=80), st.integers(1, 20))
def test_so_many_are_drawn_one_of_each_stretch_of_sizes(sizes: list[int], most: int) -> None:
    found = drawn(sizes, most)
    assert found == sorted(set(found)) == drawn(sizes, most)
    assert len(found) == min(most, len(sizes))
    ordered = sorted(sizes)
    for stretch, size in enumerate(sorted(sizes[which] for which in found)):
        start, stop = (len(sizes) * end // len(found) for end in (stretch, stretch + 1))
        assert ordered[start] <= size <= ordered[stop - 1]


@given(st.integers(1, 400), st.data())
def test_coverage_is_told_as_by_the_score_test(count: int, data: st.DataObject) -> None:
    """At its ends the observed share is 1.96 standard deviations off, as they are there."""
    inside = data.draw(st.integers(0, count))
    low, high = coverage_interval(inside, count)
    assert 0 <= low <= inside / count <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(inside / count - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / count), rel=1e-3)


def test_without_a_shard_the_rest_tells_and_says_what_is_missing(
    documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> None:
    wanted = dataclasses.replace(configuration, directions=29, ensemble="unitary")
    artifact = build(documents, wanted, tmp_path / "sketch")
    add(artifact, documents, [LATER, LATER[:5]])
    with served(artifact, 3) as service:
        whole = ask(service.sketch)
        assert whole == ask(service.alone)
        service.processes.kill(1)
        other = Measurement(text="bead")
        found = ask(service.sketch, other)
        assert found.missing_share == pytest.approx(10 / 29)
        assert ask(service.sketch) == whole  # measured before
        complete = ask(service.alone, other)
        assert [one.truth for one in found.anchors] == [one.truth for one in complete.anchors]
        assert [one.units for one in found.anchors] == [5, 8]
        for one, units in zip(found.anchors, (LATER[:5], LATER), strict=True):
            (answer,) = service.sketch.predict([other], units, Question(estimator="sphere", confidence=0.8))
            assert isinstance(answer, Prediction)
            assert (one.estimate, one.interval) == (answer.estimate, answer.interval)
        assert found.derivative_norms[1] != complete.derivative_norms[1]


@given(st.lists(st.integers(1, 30), max_size=80))
def test_groups_hold_all_anchors_and_no_size_is_in_two(sizes: list[int]) -> None:
    groups = by_size(anchors_of(sizes))
    assert [one for group in groups for one in group] == anchors_of(sizes)
    assert len(groups) <= MOST_GROUPS
    assert all(groups)
    of_sizes = [{one.units for one in group} for group in groups]
    assert sum(map(len, of_sizes)) == len(set(sizes))


@given(st.sets(st.integers(1, 10_000), min_size=MOST_GROUPS, max_size=100))
def test_groups_of_different_sizes_are_about_equal(sizes: set[int]) -> None:
    counts = [len(group) for group in by_size(anchors_of(list(sizes)))]
    assert len(counts) == MOST_GROUPS
    assert max(counts) - min(counts) <= 1


def test_norms_are_those_of_the_derivatives_along_the_sketchs_directions(
    sketch: ResidentSketch, documents: Documents
) -> None:
    found, configuration = ask(sketch).derivative_norms, sketch.configuration
    assert len(found) == (configuration.degree if configuration.directions else 0)
    if found:
        expected = figures.derivative_norms(documents, configuration, TEXT)  # of independent directions, as these are
        assert [one.order for one in found] == expected.orders
        assert [one.norm for one in found] == pytest.approx(expected.norms, rel=1e-6)
        assert [one.standard_error for one in found] == pytest.approx(expected.standard_errors, rel=1e-6)


def test_a_whole_unitary_matrix_gives_the_norm_of_the_first_order_exactly(
    documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> None:
    both = dataclasses.replace(configuration, axes=True, anchors=FEWEST_ANCHORS, directions=12, ensemble="unitary")
    sketch = ResidentSketch(build(documents, both, tmp_path / "whole"))
    first, second, *_ = ask(sketch).derivative_norms
    evidence = sketch.table(TEXT).table.evidence
    assert evidence is not None
    of_units = evidence.axes[0, :, 1].mean(axis=-1)  # of the mean log-probability, which is minus the loss
    assert first.norm == pytest.approx(float(np.sqrt(np.sum(of_units**2))), rel=1e-6)
    assert first.standard_error < 1e-9
    assert second.standard_error > 1e-9


@pytest.mark.parametrize(
    ("measurement", "error"),
    [
        (Measurement(text="fözz"), UnknownCharacterError),
        (Measurement(text="x"), UnknownCharacterError),
        (Measurement(text=""), TextLengthError),
        (Measurement(text="faceface" * 4), TextLengthError),
        (Measurement(kind="log_probability", prompt="fa", completion=""), TextLengthError),
        (Measurement(kind="next_token", prompt="fa"), QuestionError),
    ],
)
def test_what_can_not_be_measured_is_refused(
    sketch: ResidentSketch, measurement: Measurement, error: type[QuestionError]
) -> None:
    with pytest.raises(error):
        ask(sketch, measurement)


@pytest.mark.parametrize("confidence", [0.4, 0.9999])
def test_a_confidence_outside_its_range_is_refused(sketch: ResidentSketch, confidence: float) -> None:
    with pytest.raises(QuestionError, match="must lie between"):
        ask(sketch, confidence=confidence)


def test_a_confidence_that_the_anchors_can_not_tell_is_refused(sketch: ResidentSketch) -> None:
    if sketch.configuration.axes:
        with pytest.raises(QuestionError, match="anchors can't tell"):
            ask(sketch, confidence=0.99)
    else:
        assert ask(sketch, confidence=0.99).anchors == ()
