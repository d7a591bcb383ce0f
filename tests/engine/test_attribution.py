"""Attributions against the model retrained without every unit, and their bars."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine.attribution import Attributions
from engine.configuration import FEWEST_ANCHORS, SketchConfiguration
from engine.documents import Documents
from engine.errors import QuestionError
from engine.evidence import LINKS
from engine.measure import Measurement, measure_models
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.sketch import build

TEXT = Measurement(text="face")


@pytest.fixture(scope="module")
def sketches(
    tmp_path_factory: pytest.TempPathFactory, documents: Documents, configuration: SketchConfiguration
) -> dict[str, ResidentSketch]:
    """A sketch with axes, and one of random directions alone, enough to span the units."""
    place = tmp_path_factory.mktemp("attribution")
    wanted = {
        "axes": dataclasses.replace(configuration, axes=True, directions=0, anchors=FEWEST_ANCHORS),
        "sphere": dataclasses.replace(configuration, directions=24, ensemble="unitary"),
    }
    return {name: ResidentSketch(build(documents, one, place / name)) for name, one in wanted.items()}


@pytest.fixture(scope="module")
def changes(documents: Documents, configuration: SketchConfiguration) -> list[float]:
    """True change by every unit."""
    models = retrain(documents, configuration, [[], *([unit] for unit in range(12))])
    base, *values = measure_models(TEXT, configuration.model, models).tolist()
    return [value - base for value in values]


def ask(sketch: ResidentSketch, top: int, measurement: Measurement = TEXT) -> Attributions:
    return sketch.attribute(measurement, top=top, confidence=0.9)


def test_with_axes_the_extremes_of_all_units_are_found_exactly(
    sketches: dict[str, ResidentSketch], changes: list[float]
) -> None:
    by_change = sorted(range(12), key=lambda unit: changes[unit])
    found = ask(sketches["axes"], 3)
    assert found.estimator == "retrained"
    assert [a.unit for a in found.lowering] == [u for u in by_change[:3] if changes[u] < 0]
    assert [a.unit for a in found.raising] == [u for u in by_change[:-4:-1] if changes[u] > 0]
    for a in (*found.raising, *found.lowering):
        assert a.change == pytest.approx(changes[a.unit], rel=1e-6, abs=1e-9)
        assert a.estimate == pytest.approx(found.baseline + a.change, rel=1e-12)
        assert a.interval[0] <= a.estimate <= a.interval[1]
        assert not a.below_resolution


def test_all_units_are_named_once(sketches: dict[str, ResidentSketch]) -> None:
    for sketch in sketches.values():
        found = ask(sketch, 12)
        assert sorted(a.unit for a in (*found.raising, *found.lowering)) == list(range(12))
        changes = [a.change for a in (*found.raising, *reversed(found.lowering))]
        assert changes == sorted(changes, reverse=True)


def test_directions_alone_estimate_the_first_order_and_their_bars_hold_for_all_units(
    sketches: dict[str, ResidentSketch], changes: list[float]
) -> None:
    found = ask(sketches["sphere"], 12)
    assert found.estimator == "sphere"
    for a in (*found.raising, *found.lowering):
        truth = found.baseline + changes[a.unit]
        assert a.interval[0] <= truth <= a.interval[1]
    one = sketches["sphere"].attribute(TEXT, top=12, confidence=0.9).raising[0]
    wider = sketches["sphere"].attribute(TEXT, top=12, confidence=0.99).raising[0]
    assert wider.interval[1] - wider.interval[0] > one.interval[1] - one.interval[0]


def test_directions_that_span_the_units_find_the_first_order_of_each(
    sketches: dict[str, ResidentSketch], tmp_path: Path, documents: Documents, configuration: SketchConfiguration
) -> None:
    spanning = dataclasses.replace(configuration, directions=12, ensemble="unitary", degree=1)
    axes = dataclasses.replace(configuration, axes=True, directions=0, degree=1, anchors=FEWEST_ANCHORS)
    found = ask(ResidentSketch(build(documents, spanning, tmp_path / "spanning")), 12)
    known = ResidentSketch(build(documents, axes, tmp_path / "axes")).table(TEXT).table
    assert known.evidence is not None
    first = -known.evidence.axes[0, :, LINKS.index("logarithm")].mean(axis=-1)  # of the mean loss
    for a in (*found.raising, *found.lowering):
        assert a.change == pytest.approx(float(first[a.unit]), rel=1e-6)


@pytest.mark.parametrize("top", [0, -1, 13])
def test_a_top_outside_the_units_is_refused(sketches: dict[str, ResidentSketch], top: int) -> None:
    with pytest.raises(QuestionError, match="between 1 and 12"):
        ask(sketches["axes"], top)


def test_a_distribution_is_refused(sketches: dict[str, ResidentSketch]) -> None:
    with pytest.raises(QuestionError, match="distribution"):
        ask(sketches["axes"], 1, Measurement(kind="next_token", prompt="a"))
