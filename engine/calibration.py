"""Calibration on anchors: how wrong each candidate is at sets like the one that is asked about.

The *anchors* are deletion sets for which the model was really retrained, so that the true values of any measurement are
known there. *Similar* anchors, in size and in coherence, weigh more: errors of small random sets say little about large
coherent ones. Whether a set has *relatives*, anchors that share much of it, is a part of how similar it is to others.

- The candidate with the least typical error on similar anchors answers. Typical is the geometric mean: the error of
  one wild set must not decide for all the others.
- One candidate learns from the anchors itself (`engine.regression`), from relatives most. What it says at an anchor,
  and the error there, leave this anchor out. (The choice doesn't listen to relatives more than to others: a lucky one
  would decide it.)
- The bar. For each candidate a linear model of log |error| is fitted on features of a set (`_features`). The errors of
  the anchors' own choices, divided by what the model (fitted without them) expected, are scores; the interval of an
  answer is its expected error times a quantile of the scores of similar anchors. That is split conformal prediction
  with a learned scale (Lei et al. 2018) by cross-validation, localised (Guan 2023).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import QuestionError
from engine.estimators import Candidate, candidate_values
from engine.evidence import LINKS, Table
from engine.frame import DeletionSets, Frame
from engine.measure import hold
from engine.regression import LocalRegression

FOLDS = 8
CHOICE_BANDWIDTH, BAR_BANDWIDTH = 0.4, 0.5
"""Of the weights of anchors, in the units of `_places`. A choice between candidates listens to near ones only; a
quantile needs many."""

_KINSHIP = 8.0
"""An anchor of likeness c weighs exp(c²) to this power as much; random sets, of c below 0.1, are no relatives."""

_ALIKE = 1.05
"""A little more than the largest likeness, 1."""

ONE_SIGMA = 0.6827
"""The share of normal errors within one standard deviation."""

_RIDGE = 0.01
_TINY = 1e-7
"""Effects and errors below are rounding."""

_FAINT = 1e-4
"""The least weight of an anchor."""

_NEAREST = 4
"""Anchors that an interval listens to however far they are. They are enough for a standard error; what so few can't
tell, as a bar of 90%, is as wide as the worst of all anchors."""

_LOCAL = (1, 2, 3)
"""Features that sets are compared by; they are the same for all values of a measurement."""

_HANDICAP = 0.1
"""In log error: the regression answers where it is better by more, since it is noisier than its typical error says."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the anchors say of the candidates for one measurement. A anchors, C candidates, O values, F features.

    Attributes:
        candidates: in the order of the tensors.
        errors: log |error| at the anchors, [C, A, O].
        expected: the same as fitted without each anchor, [C, A, O].
        typical: log error at similar anchors, without the anchor itself, [C, A].
        weights: of the standardised features for log |error|, [O, F, C].
        places: of the anchors, [A, L].
        center: of the features, [O, F].
        scale: of the features, [O, F].
        regression: the candidate that learns from the anchors.
    """

    candidates: tuple[Candidate, ...]
    errors: Tensor
    expected: Tensor
    typical: Tensor
    weights: Tensor
    places: Tensor
    center: Tensor
    scale: Tensor
    regression: LocalRegression

    @property
    def size_bytes(self) -> int:
        """What it occupies."""
        return sum(tensor.nbytes for tensor in (self.errors, self.expected, self.typical, self.regression.inputs))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidate that answers, and what to expect of it.

    Attributes:
        candidate: the one.
        expected: log |error| that is expected, [O].
        scores: log of error over expected error of the anchors' own choices, [A, O].
        kin: weights of the anchors for the regression, [1, A].
        similarity: weights of the anchors for the interval, [A].
    """

    candidate: Candidate
    expected: Tensor
    scores: Tensor
    kin: Tensor
    similarity: Tensor

    def half_width(self, confidence: float) -> Tensor:
        """Half of the interval of every value, [O].

        Raises:
            QuestionError: a confidence that so few anchors can't tell.
        """
        count = len(self.scores)
        if confidence > count / (count + 1):
            most = math.floor(1e4 * count / (count + 1)) / 1e4
            raise QuestionError(
                f"{count} anchors can't tell an interval of confidence {confidence}; at most {most:.4f}."
            )
        order = self.scores.argsort(dim=0)
        weights = self.similarity[order]
        # The answer's own error may be anywhere: it counts like the most similar anchor's, as the largest.
        share = weights.cumsum(dim=0) / (weights.sum(dim=0) + 1)
        rank = (share < confidence).sum(dim=0).clamp(max=count - 1)
        quantile = self.scores.gather(0, order).gather(0, rank[None])[0]
        return (self.expected + quantile).exp()


def calibrate(table: Table, frame: Frame) -> Calibration:
    """Learn from the anchors how wrong each candidate is.

    Args:
        table: of the measurement, with axes.
        frame: of the sketch.
    """
    assert table.retrained is not None
    sets = frame.anchor_sets
    truth = table.retrained[len(table.retrained) - len(sets) :]
    values = candidate_values(table, frame, sets)
    features = _features(table, frame, sets, values)
    center, scale = features.mean(dim=0), features.std(dim=0)
    center[:, 0], scale[:, 0] = 0, 1  # the constant stays one
    scale = scale.clamp(min=1e-3)
    features = (features - center) / scale
    likeness = sets.likeness.clone().fill_diagonal_(0)
    places = _places(features, likeness)
    near = _similarity(places, places, CHOICE_BANDWIDTH).fill_diagonal_(0)
    kin = _with_relatives(near, likeness)
    regression = LocalRegression.of(_both_links(table, frame, values), truth - table.baseline)
    values[_regressed(frame, values)] = _regression_values(table, regression, kin, regression.inputs)
    errors = torch.stack([(value - truth).abs() + _TINY for value in values.values()]).log()
    expected = torch.empty_like(errors)
    folds = torch.arange(len(sets), device=truth.device) // 2 % FOLDS  # random and coherent sets take turns
    for fold in range(FOLDS):
        held_out = folds == fold
        weights = _ridge(features[~held_out], errors[:, ~held_out])
        expected[:, held_out] = torch.einsum("aof,ofc->cao", features[held_out], weights)
    return Calibration(
        candidates=tuple(values),
        errors=errors,
        expected=expected,
        typical=_typical(errors, near),
        weights=_ridge(features, errors),
        places=places,
        center=center,
        scale=scale,
        regression=regression,
    )


def choose(
    calibration: Calibration,
    table: Table,
    frame: Frame,
    chosen_set: DeletionSets,
    values: dict[Candidate, Tensor],
    allowed: Collection[Candidate],
) -> Choice:
    """The allowed candidate with the least typical error at sets like a set.

    Args:
        calibration: of the table.
        table: of the measurement.
        frame: of the sketch.
        chosen_set: a single one.
        values: of `candidate_values` at it, those of `ALWAYS` at least.
        allowed: among which to choose.
    """
    candidates = calibration.candidates
    rows = torch.tensor([candidates.index(candidate) for candidate in allowed], device=calibration.errors.device)
    handicap = torch.tensor([_HANDICAP * (candidates[row].estimator == "regression") for row in rows])
    handicap = handicap.to(calibration.errors)[:, None]
    features = (_features(table, frame, chosen_set, values) - calibration.center) / calibration.scale
    places = _places(features, chosen_set.likeness)
    near = _similarity(places, calibration.places, CHOICE_BANDWIDTH)
    best = int(rows[(_typical(calibration.errors[rows], near) + handicap).argmin()])
    of_anchors = rows[(calibration.typical[rows] + handicap).argmin(dim=0)]
    anchors = torch.arange(len(of_anchors), device=rows.device)
    return Choice(
        candidate=candidates[best],
        expected=torch.einsum("of,of->o", features[0], calibration.weights[:, :, best]),
        scores=calibration.errors[of_anchors, anchors] - calibration.expected[of_anchors, anchors],
        kin=_with_relatives(near, chosen_set.likeness),
        similarity=_similarity(places, calibration.places, BAR_BANDWIDTH, nearest=_NEAREST)[0],
    )


def chosen_values(
    calibration: Calibration, choice: Choice, table: Table, frame: Frame, values: dict[Candidate, Tensor]
) -> Tensor:
    """What the chosen candidate says, [O], from `candidate_values` at the set and any downweight."""
    if choice.candidate.estimator != "regression":
        return values[choice.candidate][0]
    return _regression_values(table, calibration.regression, choice.kin, _both_links(table, frame, values))[0]


def _regressed(frame: Frame, values: dict[Candidate, Tensor]) -> Candidate:
    return _whole(frame, values)._replace(estimator="regression", readout="both")


def _whole(frame: Frame, values: dict[Candidate, Tensor]) -> Candidate:
    """The mean in both links of what is known exactly: units alone, and pairs where there are such."""
    pairs = Candidate("pairs", frame.degree, 2, "both")
    return pairs if pairs in values else Candidate("axes", frame.degree, 0, "both")


def _both_links(table: Table, frame: Frame, values: dict[Candidate, Tensor]) -> Tensor:
    """Estimated changes [B, O, 2]."""
    whole = _whole(frame, values)
    return torch.stack([values[whole._replace(readout=link)] - table.baseline for link in LINKS], dim=-1)


def _regression_values(table: Table, regression: LocalRegression, near: Tensor, inputs: Tensor) -> Tensor:
    return hold(table.measurement.kind, table.baseline + regression.changes(near, inputs))


def _places(features: Tensor, likeness: Tensor) -> Tensor:
    """Where sets are, to be compared with others, [B, L], from standardised features [B, O, F] and likeness [B, A].

    Log size, coherence and depletion, in standard deviations, and the log of how unlike the nearest relative is.
    """
    return torch.cat([features[:, 0, _LOCAL], (_ALIKE - likeness.amax(dim=1, keepdim=True)).log()], dim=1)


def _similarity(places: Tensor, anchors: Tensor, bandwidth: float, *, nearest: int = 0) -> Tensor:
    """Weights [B, A] of anchors for sets, from their places [B, L] and [A, L].

    The bandwidth grows till so many of the nearest are within it.
    """
    apart = torch.cdist(places, anchors)
    widths = torch.full_like(apart[:, :1], bandwidth)
    if nearest:
        widths = apart.kthvalue(min(nearest, len(anchors)), dim=1, keepdim=True).values.clamp(min=bandwidth)
    return (-apart.square() / (2 * widths.square())).exp().clamp(min=_FAINT)


def _with_relatives(weights: Tensor, likeness: Tensor) -> Tensor:
    """Weights of anchors, [B, A], more for relatives."""
    return weights * (_KINSHIP * likeness.square()).exp()


def _typical(errors: Tensor, near: Tensor) -> Tensor:
    """Mean of log errors [C, A, O] over anchors by weights [B, A] and over the values, [C, B]."""
    return errors.mean(dim=-1) @ (near / near.sum(dim=1, keepdim=True)).T


def _features(table: Table, frame: Frame, sets: DeletionSets, values: dict[Candidate, Tensor]) -> Tensor:
    """What errors may grow with, of shape [B, O, F], as logarithms.

    One; size; coherence of the changes of parameters; depletion, the largest share of a token's probability that is
    estimated to go; coherence of the effects, their sum over the root of their squares; that root, which is a random
    set's effect; the estimated effect; and how far candidates differ: by the orders above the first, by the link, and
    by interactions where there are pairs.
    """
    assert table.retrained is not None
    single = table.retrained[: frame.units] - table.baseline
    spread = sets.total(single.square()).sqrt()
    best = values[Candidate("axes", frame.degree, 0, "probability")]
    other = values[Candidate("axes", frame.degree, 0, "logarithm")]
    first = values[Candidate("axes", 1, 0, "probability")]
    size = sets.sizes[:, None].expand_as(best)
    coherence = sets.coherence[:, None].expand_as(best)
    evidence = table.evidence[0]
    relative = sets.total(evidence.axes.sum(dim=0) + evidence.remainder) / evidence.origin
    depletion = -relative.amin(dim=1, keepdim=True).clamp(-2, 0)
    columns = [
        torch.ones_like(best),
        size.log(),
        (coherence + 0.1).log(),
        (depletion.expand_as(best) + 0.03).log(),
        (sets.total(single).abs() / (spread + _TINY) + 0.1).log(),
        (spread + _TINY).log(),
        ((best - table.baseline).abs() + _TINY).log(),
        ((best - first).abs() + _TINY).log(),
        ((best - other).abs() + _TINY).log(),
    ]
    together = values.get(Candidate("pairs", frame.degree, 2, "probability"))
    if together is not None:
        columns.append(((best - together).abs() + _TINY).log())
    return torch.stack(columns, dim=-1)


def _ridge(features: Tensor, targets: Tensor) -> Tensor:
    """Weights [O, F, C] for targets [C, A, O] by features [A, O, F]."""
    inputs = features.transpose(0, 1)  # [O, A, F]
    penalty = _RIDGE * len(features) * torch.eye(inputs.shape[-1], dtype=inputs.dtype, device=inputs.device)
    penalty[0, 0] = 0  # the constant is no effect to shrink
    weights: Tensor = torch.linalg.solve(
        inputs.transpose(1, 2) @ inputs + penalty, inputs.transpose(1, 2) @ targets.permute(2, 1, 0)
    )
    return weights
