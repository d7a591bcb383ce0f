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
from engine.measure import Measurement, measure_models
from engine.question import Prediction, Question
from engine.reliability import MOST_GROUPS, AnchorAnswer, Reliability, by_size
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build
from engine.supplements import add

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
    assert one.estimator == before.estimator
    assert one.estimate == pytest.approx(before.estimate, rel=1e-9)
    assert one.interval == pytest.approx(before.interval, rel=0.01)
    if not sketch.configuration.axes:
        assert (one.estimate, one.interval) == (before.estimate, before.interval)


def test_groups_say_what_their_anchors_do(sketch: ResidentSketch, documents: Documents) -> None:
    add(sketch.artifact, documents, [LATER, LATER[:5], LATER[1:6]])
    found = ask(sketch)
    assert sum(group.anchors for group in found.sizes) == len(found.anchors) >= 3
    for group in found.sizes:
        members = [one for one in found.anchors if group.smallest <= one.units <= group.largest]
        assert {group.smallest, group.largest} <= {one.units for one in members}
        assert group.anchors == len(members)
        assert group.inside == sum(one.inside_interval for one in members)
        errors = [one.estimate - one.truth for one in members]
        changes = [one.truth - found.baseline for one in members]
        assert group.rms_error == pytest.approx(math.sqrt(sum(e * e for e in errors) / len(errors)))
        assert group.rms_change == pytest.approx(math.sqrt(sum(c * c for c in changes) / len(changes)))
        widths = sorted(one.interval[1] - one.interval[0] for one in members)
        assert widths[(len(widths) - 1) // 2] <= group.median_width <= widths[len(widths) // 2]


def anchors_of(sizes: list[int]) -> list[AnchorAnswer]:
    return [
        AnchorAnswer(units=size, truth=0.0, estimate=0.0, interval=(0.0, 0.0), inside_interval=True, estimator="axes")
        for size in sorted(sizes)
    ]


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
