"""Answers against slow ones: every candidate by its definition, and the choice and its bar anchor by anchor.

Nothing here gathers, sorts or sums as the engine does; loops over units, directions and anchors are meant.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from engine.calibration import Calibration, choose, lessons
from engine.configuration import SketchConfiguration
from engine.directions import dimension
from engine.documents import Documents
from engine.estimators import Candidate, Estimates, candidates
from engine.evidence import LINKS, Evidence
from engine.frame import Frame
from engine.measure import Measurement
from engine.resident import ResidentSketch
from engine.sketch import build

MEASUREMENTS = [
    Measurement(text="face"),
    Measurement(kind="log_probability", prompt="b", completion="ead"),
    Measurement(kind="next_token", prompt="fa"),
]

SETS = [(3,), (0, 5), (1, 4, 6, 10), (0, 1, 2, 3, 5, 7, 8, 9, 11)]


@pytest.fixture(scope="module", params=[False, True], ids=["axes", "axes, pairs and directions"])
def sketch(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    documents: Documents,
    configuration: SketchConfiguration,
) -> ResidentSketch:
    directions = 20 if request.param else 0
    built = dataclasses.replace(configuration, axes=True, pairs=request.param, directions=directions, anchors=40)
    return ResidentSketch(build(documents, built, tmp_path_factory.mktemp("answers") / "a"))


def change(evidence: Evidence, frame: Frame, units: tuple[int, ...], w: float, candidate: Candidate) -> np.ndarray:
    """What a candidate adds up in link space, [T], unit by unit and direction by direction."""
    link, total = LINKS.index(candidate.readout), np.zeros(evidence.origin.shape[1])
    if candidate.estimator == "sphere":
        assert evidence.directions is not None
        for order in range(1, candidate.degree + 1):
            total = total + w**order * samples(evidence.directions[order - 1, :, link], frame, units, order).mean(
                axis=0
            )
        return total
    for unit in units:
        for order in range(1, candidate.degree + 1):
            total = total + w**order * evidence.axes[order - 1, unit, link]
        if candidate.degree == frame.degree:
            total = total + w ** (frame.degree + 1) * evidence.remainder[unit, link]
    if candidate.estimator == "pairs":
        assert evidence.pairs is not None
        for first, second in itertools.combinations(units, 2):
            total = total + w**2 * evidence.pairs[first, second, link]
        return total
    part = interpolated if candidate.estimator == "interpolation" else shrunk
    for order in range(2, candidate.interactions + 1):
        total = total + w**order * part(evidence, frame, units, order, link)
    return total


def samples(y: np.ndarray, frame: Frame, units: tuple[int, ...], order: int) -> np.ndarray:
    """Re(N_r <ψ_j, x>^r y_j), [K, T]."""
    factor, psi = dimension(frame.units, order), frame.directions.numpy()
    return np.array([(factor * sum(psi[j, list(units)].conj()) ** order * y[j]).real for j in range(len(psi))])


def shrunk(evidence: Evidence, frame: Frame, units: tuple[int, ...], order: int, link: int) -> np.ndarray:
    """Of the hybrid."""
    assert evidence.interactions is not None
    found = samples(evidence.interactions[order - 2, :, link], frame, units, order)
    mean, noise = found.mean(axis=0), found.var(axis=0, ddof=1) / len(found)
    return np.asarray(mean * max(0, 1 - noise.sum() / (mean**2).sum()))


def interpolated(evidence: Evidence, frame: Frame, units: tuple[int, ...], order: int, link: int) -> np.ndarray:
    """From the functionals as they are defined, and the weights of the tensor of least norm."""
    total = np.zeros(evidence.origin.shape[1])
    for row, weight in zip(frame.directions.numpy(), evidence.weights[order][:, link], strict=True):
        functional = sum(row[list(units)]) ** order - sum(row[unit] ** order for unit in units)
        total += functional.real * weight.real + functional.imag * weight.imag
    return total


def slow_value(table_of: Estimates, frame: Frame, units: tuple[int, ...], w: float, candidate: Candidate) -> np.ndarray:
    if candidate.readout == "both":
        found = [slow_value(table_of, frame, units, w, candidate._replace(readout=link)) for link in LINKS]
        return np.asarray((found[0] + found[1]) / 2)
    evidence, kind = table_of.evidence, table_of.table.measurement.kind
    link = LINKS.index(candidate.readout)
    summed = evidence.origin[link] + change(evidence, frame, units, w, candidate)
    if candidate.readout == "probability":
        p = np.array([min(max(x, 0.05 * y), 1) for x, y in zip(summed, evidence.origin[link], strict=True)])
    else:
        p = np.array([math.exp(min(max(x, -50), 0)) for x in summed])
    if kind == "next_token":
        return np.asarray(p / sum(p))
    logarithms = [math.log(x) for x in p]
    return np.array([-sum(logarithms) / len(p) if kind == "loss" else sum(logarithms)])


def test_every_candidate_is_what_its_definition_adds_up(sketch: ResidentSketch) -> None:
    frame = sketch.frame
    for measurement in MEASUREMENTS:
        table = sketch.table(measurement).table
        found = candidates(table, frame)
        assert {c.estimator for c in found} >= {"axes"}
        assert len(found) == len(set(found))
        for units, w in itertools.product(SETS, (1.0, 0.4)):
            estimates = Estimates(table, frame, frame.one_set(units), w)
            for candidate in found:
                expected = slow_value(estimates, frame, units, w, candidate)
                np.testing.assert_allclose(estimates.value(candidate)[0], expected, rtol=1e-8, err_msg=str(candidate))


def test_many_sets_are_estimated_like_each_alone(sketch: ResidentSketch) -> None:
    frame = sketch.frame
    for measurement in MEASUREMENTS:
        table = sketch.table(measurement).table
        many = Estimates(table, frame, frame.anchor_sets)
        for candidate in candidates(table, frame):
            for row, units in enumerate(sketch.retrained_sets[-len(frame.anchor_sets) :][:5]):
                alone = Estimates(table, frame, frame.one_set(units)).value(candidate)
                np.testing.assert_allclose(many.value(candidate)[row], alone[0], rtol=1e-8)


def slow_weight(place: np.ndarray, other: np.ndarray, bandwidth: float) -> float:
    return max(math.exp(-float(np.sum((place - other) ** 2)) / (2 * bandwidth**2)), 1e-4)


def slow_place(
    sketch: ResidentSketch, calibration: Calibration, measurement: Measurement, units: list[int]
) -> np.ndarray:
    """Log size, coherence and depletion, standardised, and how unlike the nearest anchor is."""
    frame = sketch.frame
    assert frame.axes is not None
    evidence = sketch.table(measurement).table.evidence
    assert evidence is not None
    kinship = frame.axes.kinship.numpy()
    coherence = math.sqrt(max(kinship[np.ix_(units, units)].sum() / kinship.diagonal()[units].sum(), 0))
    whole = sum(evidence.axes[r, u, 0] for r in range(frame.degree) for u in units)
    lost = -min((whole + sum(evidence.remainder[u, 0] for u in units)) / evidence.origin[0])
    raw = [math.log(len(units)), math.log(coherence + 0.1), math.log(min(max(lost, 0), 2) + 0.03)]
    row = np.zeros(frame.units)
    row[units] = 1
    nearest = max(np.corrcoef(row, anchor)[0, 1] for anchor in frame.axes.anchors.numpy())
    standardised = (np.array(raw) - calibration.center[0, 1:4]) / calibration.scale[0, 1:4]
    return np.array([*standardised, math.log(1.05 - nearest)])


def slow_products(features: np.ndarray) -> list[float]:
    return [features[i] * features[j] for i in range(len(features)) for j in range(i, len(features))]


def slow_fit(rows: list[list[float]], targets: np.ndarray) -> np.ndarray:
    """Least squares on the products, where the square of each weight but the constant's costs three tenths a row."""
    inputs = np.array(rows)
    costs = np.sqrt(0.3 * len(rows)) * np.eye(inputs.shape[1])[1:]
    found, *_ = np.linalg.lstsq(np.vstack([inputs, costs]), np.concatenate([targets, np.zeros(len(costs))]), rcond=None)
    return np.asarray(found)


def test_the_error_that_is_expected_follows_its_definition(sketch: ResidentSketch) -> None:
    frame = sketch.frame
    for measurement in MEASUREMENTS:
        table = sketch.table(measurement).table
        calibration = sketch.table(measurement).calibration
        assert calibration is not None
        known = lessons(table, frame)
        for which in range(min(2, len(table.baseline))):
            rows = [slow_products(features) for features in known.features[:, which]]
            for row, errors in enumerate(calibration.errors[:, :, which]):
                weights = slow_fit(rows, errors)
                np.testing.assert_allclose(calibration.weights[row, which], weights, rtol=1e-6, atol=1e-9)
                anchor = row % len(rows)
                others = [n for n in range(len(rows)) if n // 2 % 8 != anchor // 2 % 8]
                without = slow_fit([rows[n] for n in others], errors[others])
                assert calibration.expected[row, anchor, which] == pytest.approx(
                    np.dot(rows[anchor], without), rel=1e-6
                )


def test_the_choice_and_its_bar_follow_their_definitions(
    sketch: ResidentSketch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least typical error answers; the bar is the quantile of the scores of the anchors' own choices."""
    for measurement, units in itertools.product(MEASUREMENTS[:2], ([0, 5], [1, 4, 6, 10])):
        prepared = sketch.table(measurement)
        calibration = prepared.calibration
        assert calibration is not None
        estimates = Estimates(prepared.table, sketch.frame, sketch.frame.one_set(units))
        choice = choose(calibration, estimates, ("auto", "auto"))
        place = slow_place(sketch, calibration, measurement, units)
        places, rows = calibration.places.at, range(len(calibration.candidates))
        whole = [row for row in rows if calibration.candidates[row].degree == sketch.frame.degree]

        def handicap(row: int, calibration: Calibration = calibration) -> float:
            return 0.1 if calibration.candidates[row].estimator == "regression" else 0.0

        def typical(row: int, weights: list[float], calibration: Calibration = calibration) -> float:
            errors = calibration.errors[row].mean(axis=-1)
            return float(np.dot(weights, errors)) / sum(weights) + handicap(row)

        near = [slow_weight(place, other, 0.4) for other in places]
        best = min(whole, key=lambda row: typical(row, near))
        assert choice.candidate == calibration.candidates[best]
        scores = []
        for anchor, at in enumerate(places):
            others = [slow_weight(at, other, 0.4) * (number != anchor) for number, other in enumerate(places)]
            own = min(whole, key=lambda row: typical(row, others))
            scores.append(float(calibration.errors[own, anchor, 0] - calibration.expected[own, anchor, 0]))
        apart = sorted(math.sqrt(float(np.sum((place - other) ** 2))) for other in places)
        similar = [slow_weight(place, other, max(0.5, apart[1])) for other in places]
        monkeypatch.setattr("engine.similarity._HEARD", 20)
        for confidence, count in ((0.6827, 20.0), (0.85, 80 / 3), (0.9, 40.0)):  # a handful is beyond the quantile
            distances = [float(np.sum((place - other) ** 2)) for other in places]
            ranked = sorted(range(len(places)), key=distances.__getitem__)
            weights = {n: similar[n] * min(1, count - rank) for rank, n in enumerate(ranked) if rank < count}
            reached, quantile = 0.0, math.inf
            for number in sorted(weights, key=scores.__getitem__):
                reached += weights[number]
                quantile = scores[number]
                if reached / (sum(weights.values()) + 1) >= confidence:
                    break
            assert choice.half_width(confidence)[0] == pytest.approx(math.exp(choice.expected[0] + quantile), rel=1e-6)
