"""Answers at anchors as if these weren't known: how right a sketch is, told from the retrained models that it has.

An anchor's set is asked about, and the anchor is left out of everything that its truth is a part of: of the equations
that the regression learns from, of the errors that a candidate is chosen by, of the fits of what error is to be
expected, and of the scores that the interval is a quantile of. The errors of the *other* anchors forget it, too, where
they learned from it: those of the regression, their own choices of a candidate, and their fits. So an answer doesn't
move, whatever the truth at its anchor was.

What has no truth in it is taken from all anchors where it decides little: how similar the others are to each other
(the similarity that decides the answer itself, theirs to the set that is asked about, is exact), how large their
equations are to each other, and which fold each is in. So an answer is nearly what a calibration on the other anchors
would give: of 190 sets the choice differs at four or fewer; where it doesn't, the value is the same, and 1 to 4% of the
intervals are wider or narrower by more than a tenth. (What the tests allow: 5%, and 8%. Of a hundred anchors a sixth.)

Nothing is calibrated anew: each sum over the anchors is made once, and what is left out is taken off. For each set that
is asked about, every anchor's own choice is looked at again, which weighs all others: of Q sets and A anchors that is
about Q A² products, beside numbers of every kind for each of Q A pairs. Who asks about all of thousands waits long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from engine.calibration import (
    FOLDS,
    HANDICAP,
    LEAST_SCALE,
    RIDGE,
    Choice,
    Scores,
    all_candidates,
    check_telling,
    lessons,
    log_errors,
)
from engine.estimators import Candidate, allowed, hold
from engine.evidence import Table
from engine.frame import Frame, product, relatives
from engine.regression import solved
from engine.similarity import CHOICE_BANDWIDTH, LOCAL, every_two, loneliness, products, similarity

_NUMBERS = 1 << 16
"""Of pairs of anchors that are looked at together: memory for ten times as many numbers of each kind stays small."""

_LEAST_ROWS = 64
"""Anchors that are asked about together, however many anchors there are: products of fewer rows are slow."""


class Answer(NamedTuple):
    """What would have been said at an anchor.

    Attributes:
        value: estimated.
        half_width: of the interval.
        candidate: that was chosen.
        likeness: the largest to an anchor that is left, from 0, a stranger, to 1.
    """

    value: float
    half_width: float
    candidate: Candidate
    likeness: float


def leave_one_out(
    table: Table,
    frame: Frame,
    asked: Sequence[int],
    *,
    confidence: float,
    go_on: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Answer at anchors, each without itself.

    Args:
        table: of a measurement that is one number, with axes.
        frame: of the sketch.
        asked: the numbers of the anchors.
        confidence: of the intervals.
        go_on: called again and again meanwhile; what it raises ends the work.

    Raises:
        QuestionError: a confidence that the other anchors can't tell.
    """
    if not asked:
        return []
    anchors = len(frame.anchor_sets)
    check_telling(anchors - 1, confidence)
    others, together = _Others(table, frame), max(_NUMBERS // anchors, _LEAST_ROWS)
    answers: list[Answer] = []
    for start in range(0, len(asked), together):
        go_on()
        answers += _Without(others, asked[start : start + together]).answers(confidence)
    return answers


class _Others:
    """Sums over all anchors, from which some are taken off. A anchors, N candidates, F features."""

    def __init__(self, table: Table, frame: Frame) -> None:
        self.table, self.frame = table, frame
        self.known = known = lessons(table, frame)
        estimates, self.near = known.estimates, known.near
        self.candidates = allowed(all_candidates(estimates), ("auto", "auto"), frame.degree)
        assert self.candidates[-1].estimator == "regression"
        self.values = np.stack([estimates.value(candidate)[:, 0] for candidate in self.candidates[:-1]])
        self.errors = log_errors(self.values, known.truth[:, 0])  # without the regression, [N - 1, A]
        self.features = np.ascontiguousarray(known.features[:, 0])
        self.products = products(self.features)
        self.kin = self.near * frame.anchor_relatives
        self.equations = product(self.kin, known.regression.equations)  # summed at each anchor, [A, 6]
        self.typical = product(self.near, self.errors.T)  # not yet divided by the weights' sum, [A, N - 1]
        self.closest = frame.anchor_likeness.argmax(axis=1)
        self.nearest = frame.anchor_likeness.max(axis=1)

    def regressed(self, changes: np.ndarray) -> np.ndarray:
        """Values of the regression from changes."""
        return hold(self.table.measurement.kind, self.table.baseline[0] + changes)


class _Without:
    """Some anchors, each asked about without itself. B of them, A anchors in all."""

    def __init__(self, others: _Others, asked: Sequence[int]) -> None:
        self._others = others
        self._rows = np.array(asked)
        self._gone = np.arange(len(others.features)) == self._rows[:, None]
        self._left = 1.0 - self._gone
        self._own = others.features[self._rows]  # [B, F]

    def answers(self, confidence: float) -> list[Answer]:
        """What is said at each."""
        others, sets = self._others, range(len(self._rows))
        likeness = others.frame.anchor_likeness[self._rows]
        near = similarity(self._apart, CHOICE_BANDWIDTH**2) * self._left
        of_regression = np.sum((self._regression_errors + HANDICAP) * near, axis=1, keepdims=True)
        best = np.concatenate([product(near, others.errors.T), of_regression], axis=1).argmin(axis=1)
        kin = near * relatives(likeness) * others.known.regression.resized(self._left)
        changes = others.known.regression.changes(kin, others.known.regression.inputs[self._rows])
        values = np.concatenate([others.values[:, self._rows], others.regressed(changes).T])[best, sets]
        expected = np.sum(self._fits(None)[sets, :, best] * self._others.products[self._rows], axis=1)
        scores = self._scores
        found = []
        for row, left in enumerate(~self._gone):
            choice = Choice(
                candidate=others.candidates[best[row]],
                expected=expected[row, None],
                scores=Scores.of(scores[row, left, None]),
                kin=None,
                apart=self._apart[row, left],
            )
            found.append(
                Answer(
                    value=float(values[row]),
                    half_width=float(choice.half_width(confidence)[0]),
                    candidate=choice.candidate,
                    likeness=float(min(max(likeness[row, left].max(), 0.0), 1.0)),
                )
            )
        return found

    @cached_property
    def _spread(self) -> np.ndarray:
        """Of the features without the anchor, in standard deviations of all, [B, F]."""
        features, scale = self._others.features, self._others.known.scale[0]
        center, count = features.mean(axis=0), len(features) - 1
        squares = np.sum((features - center) ** 2, axis=0)
        squares = squares - len(features) / count * (self._own - center) ** 2
        spread = np.sqrt(np.maximum(squares, 0) / np.maximum(count - 1, 1))
        spread = np.maximum(spread * scale, LEAST_SCALE) / scale
        spread[:, 0] = 1  # of the constant
        return np.asarray(spread)

    @cached_property
    def _cost(self) -> np.ndarray:
        """What weights of products cost, had features been standardised without the anchor, [B, F', F'].

        With f' what a feature f then is, f = s f' + c, products of f are a matrix times those of f', and what costs is
        the squares of the latter's weights, but for the constant's.
        """
        center = -self._own / (len(self._others.features) - 1)  # of the others; that of all is 0
        spread = self._spread.copy()
        center[:, 0], spread[:, 0] = 1, 0  # the constant
        first, second = every_two(center.shape[1])
        matrix = np.zeros((len(center), len(first), len(first)))
        number = np.arange(len(first))
        matrix[:, number, number] = spread[:, first] * spread[:, second]
        # The products with the constant come first: features themselves, in their order.
        matrix[:, number, first] += spread[:, first] * center[:, second]
        matrix[:, number, second] += center[:, first] * spread[:, second]
        matrix[:, :, 0] += center[:, first] * center[:, second]
        costly = matrix[:, :, 1:]
        return np.asarray(costly @ costly.swapaxes(1, 2))

    @cached_property
    def _apart(self) -> np.ndarray:
        """Squared distances of the places of all anchors to the anchor's, had they been found without it, [B, A]."""
        others, likeness = self._others, self._others.frame.anchor_likeness
        spread = self._spread[:, None, LOCAL]
        apart = np.sum(((self._own[:, None, LOCAL] - others.features[:, LOCAL]) / spread) ** 2, axis=2)
        nearest = np.repeat(others.nearest[None], len(self._rows), axis=0)
        for row, gone in zip(nearest, self._rows, strict=True):
            bereft = np.flatnonzero(others.closest == gone)  # anchors whose nearest relative is left out
            row[bereft] = np.delete(likeness[bereft], gone, axis=1).max(axis=1)
        own = np.where(self._gone, -np.inf, likeness[self._rows]).max(axis=1, keepdims=True)
        apart += (loneliness(own) - loneliness(nearest)) ** 2
        return np.asarray(apart)

    @cached_property
    def _regression_errors(self) -> np.ndarray:
        """Log |error| of the regression at the other anchors, which doesn't know the set either, [B, A]; else 0."""
        others, known = self._others, self._others.known
        weights = others.kin[:, self._rows].T[:, :, None]
        summed = others.equations - weights * known.regression.equations[self._rows, None]
        changes = solved(summed, known.regression.inputs)[:, :, 0]
        return np.asarray(log_errors(others.regressed(changes), known.truth[:, 0]) * self._left)

    def _fits(self, fold: int | None) -> np.ndarray:
        """Weights for log |error| of each candidate, fitted without the anchor and a fold, [B, F (F + 1) / 2, N]."""
        others, products_of_own = self._others, self._others.products[self._rows]
        kept = np.ones(len(others.features)) if fold is None else (others.known.folds != fold).astype(float)
        fitted = others.products * kept[:, None]
        taken = kept[self._rows, None]
        own = (taken * products_of_own)[:, :, None]
        gram = fitted.T @ others.products - own * products_of_own[:, None]
        gram += RIDGE * (kept.sum() - taken[:, :, None]) * self._cost
        targets = (others.errors @ fitted).T - own * others.errors[:, self._rows].T[:, None]
        of_regression = product(self._regression_errors, fitted)
        return np.asarray(np.linalg.solve(gram, np.concatenate([targets, of_regression[:, :, None]], axis=2)))

    @property
    def _scores(self) -> np.ndarray:
        """Log of error over expected error of the other anchors' own choices, which don't know the set, [B, A]."""
        others = self._others
        weights = others.near[:, self._rows].T[:, :, None]
        typical = others.typical - weights * others.errors.T[self._rows, None]
        of_regression = product((self._regression_errors + HANDICAP) * self._left, others.near.T)
        chosen = np.concatenate([typical, of_regression[:, :, None]], axis=2).argmin(axis=2)
        anchors = np.arange(len(others.features))
        last = len(others.candidates) - 1
        errors = np.where(chosen == last, self._regression_errors, others.errors[np.minimum(chosen, last - 1), anchors])
        for fold in range(FOLDS):
            within = np.flatnonzero(others.known.folds == fold)
            weights = np.take_along_axis(self._fits(fold).swapaxes(1, 2), chosen[:, within, None], axis=1)
            errors[:, within] -= np.einsum("baf,af->ba", weights, others.products[within])
        return np.asarray(errors)
