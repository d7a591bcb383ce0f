"""Where deletion sets are: what errors may grow with, and how similar anchors are to a set.

A set has *features* (`features`), and some of them, with its nearest relative among the anchors, are its *place*
(`places`). Anchors weigh by how far their places are from that of a set (`similarity`). What errors grow with is more
than proportional where much of what a text rests on goes, so that the features' products tell, too (`products`).
Nothing here is learned from what retraining gave, but for what each unit does alone.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from engine.estimators import Candidate, Estimates
from engine.frame import product

CHOICE_BANDWIDTH, BAR_BANDWIDTH = 0.4, 0.5
"""Of the weights of anchors, in the units of `places`. A choice between candidates listens to near ones only; a
quantile needs many."""

LOCAL = slice(1, 4)
"""Features that sets are compared by; they are the same for all values of a measurement."""

TINY = 1e-7
"""Effects and errors below are rounding."""

_ALIKE = 1.05
"""A little more than the largest likeness, 1."""

_FAINT = 1e-4
"""The least weight of an anchor."""

_NEAREST = 2
"""Anchors that are within the bandwidth of an interval, however far they are. With more, the many that are far would
outvote the few that are nearest, just where errors are the largest: at sets that measurements rest on."""

_HEARD, _BEYOND = 64, 4
"""Anchors that an interval listens to: the nearest, so many, or as many as have a handful beyond the quantile. Where
they can't tell it, the worst of them does; the worst of all would be absurdly wide."""

_OFFSETS = np.array([math.e, 0, 0.1, 0.03, 0.1, TINY, TINY, TINY, TINY, TINY])
"""What is added to features before their logarithm is taken; of the first, that makes it one."""


class Places(NamedTuple):
    """Where the anchors are.

    Attributes:
        at: [A, L], as `places`.
        squares: their squared lengths, [A].
    """

    at: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, at: np.ndarray) -> Places:
        """From the anchors' places, [A, L]."""
        return cls(at, np.sum(at**2, axis=1))

    def squared_distances(self, places: np.ndarray) -> np.ndarray:
        """From the places of B sets, [B, L], to every anchor, [B, A]."""
        apart = product(-2 * places, self.at.T)  # |p - a|² = |p|² - 2 p·a + |a|²
        apart += self.squares
        apart += np.add.reduce(places * places, axis=1, keepdims=True)
        return apart


def features(estimates: Estimates, effects: np.ndarray) -> np.ndarray:
    """What errors may grow with, of shape [B, O, F], as logarithms.

    One; size; coherence of the changes of parameters; depletion, the largest share of a token's probability that is
    estimated to go; coherence of the effects, their sum over the root of their squares; that root, which is a random
    set's effect; the estimated effect; and how far candidates differ: by the orders above the first, by the link, and
    by interactions where there are pairs.

    Args:
        estimates: at downweight 1.
        effects: changes of the values by each unit alone, and their squares, [m, 2, O].
    """
    baseline, sets, degree = estimates.table.baseline, estimates.sets, estimates.frame.degree
    summed = sets.total(effects)
    spread = np.sqrt(summed[:, 1])
    best, other = estimates.of_axes[:, degree, 0], estimates.of_axes[:, degree, 1]
    first = estimates.of_axes[:, 1, 0]
    relative = estimates.alone[:, degree, 0] / estimates.evidence.origin[0]
    depletion = -np.minimum.reduce(relative, axis=1, keepdims=True)
    pairs = estimates.evidence.pairs is not None
    found = np.empty((*best.shape, len(_OFFSETS) if pairs else len(_OFFSETS) - 1))
    found[..., 0] = 0
    found[..., 1] = sets.sizes[:, None]
    found[..., 2] = sets.coherence[:, None]
    found[..., 3] = np.minimum(np.maximum(depletion, 0), 2)
    found[..., 4] = summed[:, 0] / (spread + TINY)
    found[..., 5] = spread
    found[..., 6] = best - baseline
    found[..., 7] = best - first
    found[..., 8] = best - other
    if pairs:
        found[..., 9] = best - estimates.value(Candidate("pairs", degree, 2, "probability"))
    np.abs(found, out=found)
    found += _OFFSETS[: found.shape[-1]]
    return np.log(found, out=found)


def products(standardised: np.ndarray) -> np.ndarray:
    """Of every two features, from standardised features [..., F]: one, the features and their second powers.

    Returns:
        Of shape [..., F (F + 1) / 2]; the first is the constant.
    """
    first, second = every_two(standardised.shape[-1])
    return np.asarray(standardised.take(first, axis=-1) * standardised.take(second, axis=-1))


@functools.cache
def every_two(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of so many features, the first and the second of each product, in their order."""
    return np.triu_indices(count)


def places(standardised: np.ndarray, likeness: np.ndarray) -> np.ndarray:
    """Where sets are, to be compared with others, [B, L], from standardised features [B, O, F] and likeness [B, A].

    Log size, coherence and depletion, in standard deviations, and how lonely the set is.
    """
    nearest = np.maximum.reduce(likeness, axis=1, keepdims=True)
    return np.concatenate([standardised[:, 0, LOCAL], loneliness(nearest)], axis=1)


def loneliness(nearest: np.ndarray) -> np.ndarray:
    """The log of how unlike the nearest relative is, from its likeness, of the same shape."""
    return np.asarray(np.log(_ALIKE - nearest))


def similarity(apart: np.ndarray, square_bandwidth: float) -> np.ndarray:
    """Weights [B, A] of anchors for sets, from squared distances."""
    weights = apart / (-2 * square_bandwidth)
    np.exp(weights, out=weights)  # for many sets, another array would take longer than the arithmetic
    return np.maximum(weights, _FAINT, out=weights)


def heard(apart: np.ndarray, confidence: float) -> np.ndarray:
    """Weights of anchors for an interval, from squared distances [A]; of those that aren't heard 0."""
    weights, most = similarity(apart, _wide_enough(apart)), max(_HEARD, _BEYOND / (1 - confidence))
    if most >= len(apart):
        return weights
    farthest = np.partition(apart, int(most))[int(most)]
    nearer, last = apart < farthest, apart == farthest
    # A part of the last, so that a higher confidence, of which more are heard, is never told by a narrower interval.
    part = (most - np.count_nonzero(nearer)) / np.count_nonzero(last)
    return np.asarray(weights * np.where(last, part, nearer))


def _wide_enough(apart: np.ndarray) -> float:
    """The squared bandwidth for an interval, from squared distances [A]: so many of the nearest are within it."""
    nearest = min(_NEAREST, len(apart))
    if np.count_nonzero(apart <= BAR_BANDWIDTH**2) >= nearest:  # as mostly: sorting takes far longer
        return BAR_BANDWIDTH**2
    return float(np.partition(apart, nearest - 1)[nearest - 1])
