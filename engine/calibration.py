"""Calibration on anchors: how wrong each candidate is at sets like the one that is asked about.

The *anchors* are deletion sets for which the model was really retrained, so that the true values of any measurement are
known there. *Similar* anchors, in size and in coherence, weigh more: errors of small random sets say little about large
coherent ones. Whether a set has *relatives*, anchors that share much of it, is a part of how similar it is to others.

- The candidate with the least typical error on similar anchors answers. Typical is the geometric mean: the error of
  one wild set must not decide for all the others.
- One candidate learns from the anchors itself (`engine.regression`), from relatives most. What it says at an anchor,
  and the error there, leave this anchor out. (The choice doesn't listen to relatives more than to others: a lucky one
  would decide it.)
- The bar. For each candidate a quadratic model of log |error| is fitted on features of a set (`engine.similarity`). The
  errors of the anchors' own choices, divided by what the model (fitted without them) expected, are scores; the interval
  of an answer is its expected error times a quantile of the scores of the most similar anchors. That is split conformal
  prediction with a learned scale (Lei et al. 2018) by cross-validation, localised (Guan 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from engine.errors import QuestionError
from engine.estimators import Asked, Candidate, Estimates, allowed, candidates, hold
from engine.evidence import Table
from engine.frame import Frame, product, relatives
from engine.regression import LocalRegression
from engine.similarity import (
    CHOICE_BANDWIDTH,
    TINY,
    Places,
    features,
    heard,
    places,
    products,
    similarity,
)

FOLDS = 8

ONE_SIGMA = 0.6827
"""The share of normal errors within one standard deviation."""

RIDGE = 0.3
"""Of the fit of log |error|: what a weight costs, for each anchor, in the units of products of features."""

LEAST_SCALE = 1e-3
"""Features that vary less count as if they varied so much."""

HANDICAP = 0.1
"""In log error: the regression answers where it is better by more, since it is noisier than its typical error says."""


class Scores(NamedTuple):
    """Log of error over expected error of the anchors' own choices, ascending; A anchors, O values.

    Attributes:
        ascending: [O, A].
        order: whose scores these are, anchor numbers, [O, A].
    """

    ascending: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray) -> Scores:
        """From the anchors' scores, [A, O]."""
        order = np.ascontiguousarray(scores.argsort(axis=0).T)
        return cls(ascending=np.take_along_axis(scores.T, order, axis=1), order=order)


class Options(NamedTuple):
    """The N candidates that a question leaves open, and what the anchors say of them.

    Attributes:
        candidates: in the order of the arrays.
        errors: log |error| at the anchors, its mean over the values, and the handicap, [N, A].
        weights: of the products of features for log |error|, [N, O, F (F + 1) / 2].
        scores: of the anchors' own choices among them.
    """

    candidates: tuple[Candidate, ...]
    errors: np.ndarray
    weights: np.ndarray
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the anchors say of the candidates for one measurement. A anchors, C candidates, O values, F features.

    Attributes:
        candidates: in the order of the arrays.
        degree: S.
        errors: log |error| at the anchors, [C, A, O].
        expected: the same as fitted without each anchor, [C, A, O].
        typical: log error at similar anchors, without the anchor itself, [C, A].
        weights: of the products of features for log |error|, [C, O, F (F + 1) / 2].
        effects: changes of the values by each unit alone, and their squares, [m, 2, O].
        places: of the anchors.
        center: of the features, [O, F].
        scale: of the features, [O, F].
        regression: the candidate that learns from the anchors.
    """

    candidates: tuple[Candidate, ...]
    degree: int
    errors: np.ndarray
    expected: np.ndarray
    typical: np.ndarray
    weights: np.ndarray
    effects: np.ndarray
    places: Places
    center: np.ndarray
    scale: np.ndarray
    regression: LocalRegression
    _options: dict[Asked, Options] = field(default_factory=dict, repr=False, compare=False)

    @property
    def size_bytes(self) -> int:
        """What it occupies; the options of several kinds of questions are together about as large as the errors."""
        twice = (self.errors, self.errors, self.weights, self.weights)
        arrays = (*twice, self.expected, self.effects, self.regression.inputs)
        return sum(array.nbytes for array in arrays)

    def options(self, asked: Asked) -> Options:
        """The candidates that a question leaves open; prepared once.

        Raises:
            QuestionError: an estimator that the sketch wasn't built for.
            DegreeError: a degree too low for the estimator.
        """
        if asked not in self._options:
            self._options[asked] = self._prepared(asked)
        return self._options[asked]

    def _prepared(self, asked: Asked) -> Options:
        chosen = allowed(self.candidates, asked, self.degree)
        rows = np.array([self.candidates.index(candidate) for candidate in chosen])
        handicap = handicaps(chosen)[:, None]
        of_anchors = rows[(self.typical[rows] + handicap).argmin(axis=0)]
        anchors = np.arange(len(of_anchors))
        return Options(
            candidates=tuple(chosen),
            errors=self.errors[rows].mean(axis=-1) + handicap,
            weights=self.weights[rows],
            scores=Scores.of(self.errors[of_anchors, anchors] - self.expected[of_anchors, anchors]),
        )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidate that answers, and what to expect of it.

    Attributes:
        candidate: the one.
        expected: log |error| that is expected, [O].
        scores: of the anchors.
        kin: weights of the anchors for the regression, [1, A]; None where another candidate answers.
        apart: squared distances to the anchors, [A].
    """

    candidate: Candidate
    expected: np.ndarray
    scores: Scores
    kin: np.ndarray | None
    apart: np.ndarray

    def half_width(self, confidence: float) -> np.ndarray:
        """Half of the interval of every value, [O].

        Raises:
            QuestionError: a confidence that so few anchors can't tell.
        """
        check_telling(len(self.apart), confidence)
        # What the scores up to each weigh together, [O, A].
        summed = np.add.accumulate(heard(self.apart, confidence).take(self.scores.order), axis=1)
        # The answer's own error may be anywhere: it counts like the most similar anchor's, as the largest.
        sought = np.minimum(confidence * (summed[:, -1] + 1), summed[:, -1])
        ranks = [int(sums.searchsorted(weight)) for sums, weight in zip(summed, sought, strict=True)]
        quantiles = [ascending[rank] for ascending, rank in zip(self.scores.ascending, ranks, strict=True)]
        return np.asarray(np.exp(self.expected + quantiles))


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What the anchors are, for one measurement: all that is learned from. A anchors, O values, F features.

    Attributes:
        estimates: at the anchors.
        truth: of the retrained models, [A, O].
        effects: changes of the values by each unit alone, and their squares, [m, 2, O].
        features: of the anchors, standardised, [A, O, F].
        center: of the features, [O, F].
        scale: of the features, [O, F].
        places: of the anchors.
        near: weights of the anchors for the choice at each other, [A, A]; none for itself.
        regression: the candidate that learns from the anchors.
        folds: in which each anchor is left out together with others, [A].
    """

    estimates: Estimates
    truth: np.ndarray
    effects: np.ndarray
    features: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    places: Places
    near: np.ndarray
    regression: LocalRegression
    folds: np.ndarray


def lessons(table: Table, frame: Frame) -> Lessons:
    """Look at the anchors; nothing is fitted yet.

    Args:
        table: of the measurement, with axes.
        frame: of the sketch.
    """
    assert table.retrained is not None
    assert frame.axes is not None
    sets = frame.anchor_sets
    truth = table.retrained[list(frame.axes.models)]
    singles = table.retrained[: frame.units] - table.baseline
    effects = np.stack([singles, singles**2], axis=1)
    estimates = Estimates(table, frame, sets)
    found = features(estimates, effects)
    center, scale = found.mean(axis=0), found.std(axis=0, ddof=1)
    center[:, 0], scale[:, 0] = 0, 1  # the constant stays one
    scale = np.maximum(scale, LEAST_SCALE)
    found = (found - center) / scale
    at = Places.of(places(found, frame.anchor_likeness))
    near = similarity(at.squared_distances(at.at), CHOICE_BANDWIDTH**2)
    np.fill_diagonal(near, 0)
    return Lessons(
        estimates=estimates,
        truth=truth,
        effects=effects,
        features=found,
        center=center,
        scale=scale,
        places=at,
        near=near,
        regression=LocalRegression.of(_changes_in_both_links(estimates), truth - table.baseline),
        folds=np.arange(len(sets)) // 2 % FOLDS,  # random and coherent sets take turns
    )


def all_candidates(estimates: Estimates) -> tuple[Candidate, ...]:
    """What can answer where there are anchors; the regression is the last."""
    found = candidates(estimates.table, estimates.frame)
    return (*found, _whole(estimates)._replace(estimator="regression", readout="both"))


def handicaps(among: Sequence[Candidate]) -> np.ndarray:
    """What is added to the log errors of some candidates before they are compared, [N]."""
    return np.array([HANDICAP * (candidate.estimator == "regression") for candidate in among])


def calibrate(table: Table, frame: Frame) -> Calibration:
    """Learn from the anchors how wrong each candidate is.

    Args:
        table: of the measurement, with axes.
        frame: of the sketch.
    """
    known = lessons(table, frame)
    estimates, near, regression = known.estimates, known.near, known.regression
    found = all_candidates(estimates)
    values = [estimates.value(candidate) for candidate in found[:-1]]
    values.append(_regressed(table, regression, near * frame.anchor_relatives, regression.inputs))
    errors = log_errors(np.stack(values), known.truth)
    expected, weights = _fits(products(known.features), errors, known.folds)
    return Calibration(
        candidates=found,
        degree=frame.degree,
        errors=errors,
        expected=expected,
        typical=product(near, errors.mean(axis=-1).T).T / near.sum(axis=1),
        weights=weights,
        effects=known.effects,
        places=known.places,
        center=known.center,
        scale=known.scale,
        regression=regression,
    )


def choose(calibration: Calibration, estimates: Estimates, asked: Asked) -> Choice:
    """The candidate with the least typical error at sets like a set, of those that a question leaves open.

    Args:
        calibration: of the table.
        estimates: at a single set, at downweight 1.
        asked: estimator and degree of the question.

    Raises:
        QuestionError, DegreeError: as `allowed`.
    """
    options, likeness = calibration.options(asked), estimates.sets.likeness
    standardised = (features(estimates, calibration.effects) - calibration.center) / calibration.scale
    apart = calibration.places.squared_distances(places(standardised, likeness))
    near = similarity(apart, CHOICE_BANDWIDTH**2)
    best = int((options.errors @ near[0]).argmin())
    candidate = options.candidates[best]
    return Choice(
        candidate=candidate,
        expected=np.add.reduce(products(standardised[0]) * options.weights[best], axis=-1),
        scores=options.scores,
        kin=near * relatives(likeness) if candidate.estimator == "regression" else None,
        apart=apart[0],
    )


def chosen_values(calibration: Calibration, choice: Choice, estimates: Estimates) -> np.ndarray:
    """What the chosen candidate says of the set that it was chosen for, at any downweight, [O]."""
    if choice.kin is None:
        return np.asarray(estimates.value(choice.candidate)[0])
    changes = _changes_in_both_links(estimates)
    return np.asarray(_regressed(estimates.table, calibration.regression, choice.kin, changes)[0])


def check_telling(count: int, confidence: float) -> None:
    """Refuse a confidence that so many anchors can't tell.

    Raises:
        QuestionError: it is beyond the largest score.
    """
    if confidence > count / (count + 1):
        most = math.floor(1e4 * count / (count + 1)) / 1e4
        raise QuestionError(f"{count} anchors can't tell an interval of confidence {confidence}; at most {most:.4f}.")


def log_errors(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Log |error|, rounding counted in, of the shape of both together."""
    return np.asarray(np.log(np.abs(values - truth) + TINY))


def _whole(estimates: Estimates) -> Candidate:
    """The mean in both links of what is known exactly: units alone, and pairs where there are such."""
    degree, paired = estimates.frame.degree, estimates.evidence.pairs is not None
    return Candidate("pairs", degree, 2, "both") if paired else Candidate("axes", degree, 0, "both")


def _changes_in_both_links(estimates: Estimates) -> np.ndarray:
    """Estimated changes [B, O, 2]."""
    return np.asarray((estimates.in_both_links(_whole(estimates)) - estimates.table.baseline).swapaxes(1, 2))


def _regressed(table: Table, regression: LocalRegression, weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    return hold(table.measurement.kind, table.baseline + regression.changes(weights, inputs))


def _fits(features: np.ndarray, errors: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of log |error|, with the constant free.

    Args:
        features: of the anchors, the constant first, [A, O, F].
        errors: the targets, [C, A, O].
        folds: in which each anchor is left out together with others, [A].

    Returns:
        What is expected at the anchors without their folds, [C, A, O]; weights from all of them, [C, O, F].
    """
    inputs, targets = features.transpose(1, 2, 0), errors.transpose(2, 1, 0)  # [O, F, A], [O, A, C]
    parts = [folds == fold for fold in range(FOLDS)]
    grams = [inputs[:, :, part] @ inputs[:, :, part].swapaxes(1, 2) for part in parts]
    moments = [inputs[:, :, part] @ targets[:, part] for part in parts]
    gram, moment = sum(grams), sum(moments)
    expected = np.empty_like(errors)
    for part, its_gram, its_moment in zip(parts, grams, moments, strict=True):
        without = _solved(gram - its_gram, moment - its_moment, int(np.count_nonzero(~part)))
        expected[:, part] = (inputs[:, :, part].swapaxes(1, 2) @ without).transpose(2, 1, 0)
    return expected, np.ascontiguousarray(_solved(gram, moment, len(folds)).transpose(2, 0, 1))


def _solved(gram: np.ndarray, moment: np.ndarray, count: int) -> np.ndarray:
    """Weights [O, F, C] from sums over `count` anchors."""
    penalty = RIDGE * count * np.eye(gram.shape[1])
    penalty[0, 0] = 0  # the constant is no effect to shrink
    return np.asarray(np.linalg.solve(gram + penalty, moment))
