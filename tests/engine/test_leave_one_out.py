"""Answers at anchors that aren't to be known: against a calibration that really never had them.

For each anchor the sketch is calibrated anew without it, and `predict` is asked about its set with the retrained model
hidden. In which fold an anchor is depends on its place in the list; so that folds stay what they are, the anchor is put
last before it is taken away, in what is asked to leave it out, too.

How similar the other anchors are to each other is taken from all of them, which decides little: so values and choices
are the same but where the regression is nearly as good as another candidate (here at four of 190 sets at most), and
widths mostly: 2 to 4% are off by more than a tenth. Of a hundred anchors each is more of them all: then a sixth is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.calibration import calibrate, choose
from engine.configuration import SketchConfiguration
from engine.data import census_names
from engine.errors import QuestionError
from engine.estimate import Prepared, predict
from engine.estimators import Estimates
from engine.evidence import Table
from engine.frame import Frame
from engine.leave_one_out import Answer, leave_one_out
from engine.measure import Measurement
from engine.question import Prediction, Question
from engine.resident import ResidentSketch
from engine.sketch import build

CONFIDENCE = 0.9
TEXTS = ("ana", "rose", "max")
MEASUREMENTS = [
    *(Measurement(text=text) for text in TEXTS),
    Measurement(kind="log_probability", prompt="ma", completion="ry"),
]


def built(
    configuration: SketchConfiguration,
    place: Path,
    *,
    units: int,
    anchors: int,
    directions: int = 0,
    pairs: bool = False,
) -> ResidentSketch:
    documents = census_names().first(units)
    model = dataclasses.replace(configuration.model, vocabulary=documents.vocabulary)
    wanted = dataclasses.replace(
        configuration,
        model=model,
        axes=True,
        block=64,
        ensemble="unitary",
        anchors=anchors,
        directions=directions,
        pairs=pairs,
    )
    return ResidentSketch(build(documents, wanted, place))


@pytest.fixture(scope="module", params=[False, True], ids=["axes", "axes, pairs and directions"])
def sketch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, configuration: SketchConfiguration
) -> ResidentSketch:
    place = tmp_path_factory.mktemp("anchors") / "a"
    if request.param:
        return built(configuration, place, units=32, pairs=True, directions=12, anchors=200)
    return built(configuration, place, units=60, anchors=240)


def ordered(table: Table, frame: Frame, order: list[int]) -> tuple[Table, Frame]:
    """The same with other anchors, or in another order."""
    assert frame.axes is not None
    assert table.retrained is not None
    models = [frame.axes.models[number] for number in order]
    axes = dataclasses.replace(frame.axes, anchors=frame.axes.anchors[order], models=models)
    return table, dataclasses.replace(frame, axes=axes)


def test_an_answer_at_an_anchor_is_that_of_a_sketch_that_never_had_it(sketch: ResidentSketch) -> None:
    frame, widths, changed = sketch.frame, [], 0
    for measurement in MEASUREMENTS:
        table = sketch.table(measurement).table
        for asked in range(0, len(frame.anchor_sets), 5):
            others = [number for number in range(len(frame.anchor_sets)) if number != asked]
            [found] = leave_one_out(*ordered(table, frame, [*others, asked]), [len(others)], confidence=CONFIDENCE)

            without, fewer = ordered(table, frame, others)
            assert fewer.axes is not None
            assert frame.axes is not None
            deleted = fewer.one_set(np.flatnonzero(frame.axes.rows[asked]).tolist())
            prepared = Prepared(table=without, calibration=calibrate(without, fewer))
            expected = predict(prepared, fewer, deleted, Question(confidence=CONFIDENCE))
            assert isinstance(expected, Prediction)

            assert prepared.calibration is not None
            chosen = choose(prepared.calibration, Estimates(without, fewer, deleted), ("auto", "auto")).candidate
            if found.candidate != chosen:
                # What the regression errs by at other anchors depends on how similar these are to each other.
                assert "regression" in {found.candidate.estimator, chosen.estimator}
                changed += 1
                continue
            assert found.value == pytest.approx(expected.estimate, rel=1e-9)
            widths.append(2 * found.half_width / (expected.interval[1] - expected.interval[0]))
    assert changed <= 0.05 * len(widths)
    # So do their own choices, and then another score is the quantile: seldom, and by a step.
    apart = np.abs(np.log(widths))
    assert np.mean(apart < 1e-6) > 0.4
    assert np.median(apart) < 0.01
    assert np.mean(apart < 0.1) > 0.92


def test_what_is_said_at_an_anchor_is_the_same_whatever_its_truth_was(sketch: ResidentSketch) -> None:
    frame, table = sketch.frame, sketch.table(MEASUREMENTS[1]).table
    asked = range(len(frame.anchor_sets))
    answers = leave_one_out(table, frame, asked, confidence=CONFIDENCE)
    assert table.retrained is not None
    assert frame.axes is not None
    moved = 0
    for number in range(0, len(asked), 7):
        retrained = table.retrained.copy()
        row = frame.axes.models[number]
        retrained[row] += 3 * (retrained[row] - table.baseline) + 1
        again = leave_one_out(dataclasses.replace(table, retrained=retrained), frame, asked, confidence=CONFIDENCE)
        assert again[number].candidate == answers[number].candidate
        assert again[number].value == pytest.approx(answers[number].value, rel=1e-12)
        # Of errors that cancel all but wholly the logarithm shows the last digits of what was taken off.
        assert again[number].half_width == pytest.approx(answers[number].half_width, rel=1e-6)
        moved += again != answers
    assert moved == len(range(0, len(asked), 7))  # which the others' answers do


def test_together_anchors_are_answered_as_each_alone(sketch: ResidentSketch, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, table = sketch.frame, sketch.table(MEASUREMENTS[0]).table
    asked = range(len(frame.anchor_sets))
    together = leave_one_out(table, frame, asked, confidence=CONFIDENCE)
    monkeypatch.setattr("engine.leave_one_out._NUMBERS", 1)
    monkeypatch.setattr("engine.leave_one_out._LEAST_ROWS", 1)
    alone = leave_one_out(table, frame, asked, confidence=CONFIDENCE)

    def numbers(answers: list[Answer], of: Callable[[Answer], float]) -> list[float]:
        return [of(answer) for answer in answers]

    assert [one.candidate for one in together] == [one.candidate for one in alone]
    for of in (lambda one: one.value, lambda one: one.half_width, lambda one: one.likeness):
        assert numbers(together, of) == pytest.approx(numbers(alone, of), rel=1e-9)


def test_intervals_cover_as_often_as_they_say(tmp_path: Path, configuration: SketchConfiguration) -> None:
    """Less four standard deviations of a binomial count, as if anchors were independent; and not much more often."""
    sketch = built(configuration, tmp_path / "a", units=150, anchors=600)
    frame = sketch.frame
    asked = range(len(frame.anchor_sets))
    for measurement in MEASUREMENTS:
        table = sketch.table(measurement).table
        assert table.retrained is not None
        assert frame.axes is not None
        truth = table.retrained[list(frame.axes.models), 0]
        answers = leave_one_out(table, frame, asked, confidence=CONFIDENCE)
        inside = sum(abs(one.value - true) <= one.half_width for one, true in zip(answers, truth, strict=True))
        deviation = (len(asked) * CONFIDENCE * (1 - CONFIDENCE)) ** 0.5
        assert CONFIDENCE * len(asked) - 4 * deviation < inside < (CONFIDENCE + 0.06) * len(asked)
        widest = leave_one_out(table, frame, asked, confidence=0.99)
        assert all(wide.half_width >= one.half_width for wide, one in zip(widest, answers, strict=True))


def test_a_confidence_that_the_other_anchors_can_not_tell_is_refused(sketch: ResidentSketch) -> None:
    frame, table = sketch.frame, sketch.table(MEASUREMENTS[0]).table
    left = len(frame.anchor_sets) - 1
    assert leave_one_out(table, frame, [0], confidence=left / (left + 1))
    with pytest.raises(QuestionError, match=rf"^{left} anchors can't tell"):
        leave_one_out(table, frame, [0], confidence=(left + 1) / (left + 2))


def test_likeness_is_to_the_nearest_anchor_that_is_left(sketch: ResidentSketch) -> None:
    frame, table = sketch.frame, sketch.table(MEASUREMENTS[0]).table
    assert frame.axes is not None
    asked = range(len(frame.anchor_sets))
    correlations = np.corrcoef(frame.axes.rows) - 2 * np.eye(len(asked))
    answers = leave_one_out(table, frame, asked, confidence=CONFIDENCE)
    for to_others, answer in zip(correlations, answers, strict=True):
        assert answer.likeness == pytest.approx(max(to_others.max(), 0), abs=1e-9)
        assert 0 <= answer.likeness < 1


def test_who_asks_may_end_the_work_between_slices(sketch: ResidentSketch) -> None:
    frame, table = sketch.frame, sketch.table(MEASUREMENTS[0]).table
    asked, calls = 64 * 1024 * [0], []

    def enough() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        leave_one_out(table, frame, asked, confidence=CONFIDENCE, go_on=enough)
    assert len(calls) == 3


def test_a_handful_of_anchors_are_answered_with_what_is_left(
    configuration: SketchConfiguration, tmp_path: Path
) -> None:
    sketch = built(configuration, tmp_path / "a", units=12, anchors=36)
    few = ordered(sketch.table(MEASUREMENTS[0]).table, sketch.frame, [0, 3, 5, 8, 9])
    found = leave_one_out(*few, range(5), confidence=0.5)
    assert len(found) == 5
    assert all(np.isfinite([one.value, one.half_width, one.likeness]).all() for one in found)
