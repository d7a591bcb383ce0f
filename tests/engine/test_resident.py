"""Resident sketches with what was retrained later: exact answers and further anchors, without loading again."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from engine.configuration import SketchConfiguration
from engine.documents import Documents
from engine.measure import Measurement, measure_models
from engine.question import Distribution, Prediction, Question
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build
from engine.supplements import add

LATER = (1, 4, 6)
"""Units that no sketch here was retrained without."""

MEASUREMENTS = [
    Measurement(text="face"),
    Measurement(kind="log_probability", prompt="b", completion="ead"),
    Measurement(kind="next_token", prompt="fa"),
]


@pytest.fixture(params=["axes", "directions"])
def sketch(
    request: pytest.FixtureRequest, documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> ResidentSketch:
    """A sketch of each kind, whose supplement is empty."""
    axes = dataclasses.replace(configuration, axes=True, directions=0, anchors=40)
    built = build(documents, axes if request.param == "axes" else configuration, tmp_path / "sketch")
    return ResidentSketch(built)


def values(answers: list[Prediction | Distribution]) -> list[float]:
    """Every number that was estimated."""
    return [
        estimate
        for answer in answers
        for estimate in (
            [outcome.estimate for outcome in answer.outcomes] if isinstance(answer, Distribution) else [answer.estimate]
        )
    ]


def truths(documents: Documents, configuration: SketchConfiguration, units: tuple[int, ...]) -> list[float]:
    models = retrain(documents, configuration, [units])
    return [
        value for one in MEASUREMENTS for value in measure_models(one, configuration.model, models).flatten().tolist()
    ]


def test_what_is_retrained_later_is_answered_exactly_from_then_on(sketch: ResidentSketch, documents: Documents) -> None:
    true = truths(documents, sketch.configuration, LATER)
    before = sketch.predict(MEASUREMENTS, LATER, Question())
    assert all(answer.estimator != "retrained" for answer in before)
    assert values(before) != pytest.approx(true, abs=1e-5)
    add(sketch.artifact, documents, [LATER])
    after = sketch.predict(MEASUREMENTS, LATER, Question())
    assert {answer.estimator for answer in after} == {"retrained"}
    assert values(after) == pytest.approx(true, abs=1e-9)
    assert values(ResidentSketch(sketch.artifact).predict(MEASUREMENTS, LATER, Question())) == values(after)


def test_a_curve_leads_to_what_was_retrained_later(sketch: ResidentSketch, documents: Documents) -> None:
    add(sketch.artifact, documents, [LATER])
    (answer,) = sketch.predict(MEASUREMENTS[:1], LATER, Question(downweights=(0.0, 0.5, 1.0)))
    assert isinstance(answer, Prediction)
    assert answer.curve[0].estimate == pytest.approx(answer.baseline, abs=1e-9)
    assert answer.curve[-1].estimate == pytest.approx(truths(documents, sketch.configuration, LATER)[0], abs=1e-9)


def test_what_is_retrained_later_is_a_further_anchor(
    documents: Documents, configuration: SketchConfiguration, tmp_path: Path
) -> None:
    axes = dataclasses.replace(configuration, axes=True, directions=0, anchors=40)
    sketch = ResidentSketch(build(documents, axes, tmp_path / "sketch"))
    other = next(units for units in itertools.combinations(range(12), 3) if units not in sketch.retrained_sets)
    assert sketch.frame.axes is not None
    assert len(sketch.frame.axes.anchors) == 40
    (before,) = sketch.predict(MEASUREMENTS[:1], other, Question())
    add(sketch.artifact, documents, [LATER])
    assert sketch.frame.axes.anchors[40:].nonzero()[:, 1].tolist() == list(LATER)
    assert sketch.retrained_sets[-1] == LATER
    (after,) = sketch.predict(MEASUREMENTS[:1], other, Question())
    assert before != after  # the neighbour is calibrated on it, too


def test_what_is_there_already_is_no_second_anchor(sketch: ResidentSketch, documents: Documents) -> None:
    sets = [(3,), LATER]
    add(sketch.artifact, documents, sets)
    found = sketch.retrained_sets
    assert all(found.count(units) == 1 for units in sets)
