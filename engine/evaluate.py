"""How good the answers are: estimates against fresh retrains, by kind and size of the deletion set.

Retraining here uses the same schedule as the sketch (a deleted document's step has weight zero), and none of the sets
plays a part in the sketch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from engine.documents import Documents
from engine.errors import ArtifactError, DeletionSetError
from engine.measure import Measurement, measure_models
from engine.question import Distribution, Prediction, Question
from engine.resident import ResidentSketch
from engine.retrain import Retrain
from engine.retrain import retrain as retrain_here
from engine.threads import cores
from engine.train import Progress


@dataclass(frozen=True, kw_only=True)
class DeletionSet:
    """A set to delete, and the kind of sets that it is counted with.

    Attributes:
        kind: of the set.
        units: that are deleted.
        belongs: whether a text is like those that are deleted; None where they have nothing in common.
    """

    kind: str
    units: tuple[int, ...]
    belongs: Callable[[str], bool] | None = field(default=None, compare=False)


LARGE = 0.25
"""Of all units: coherent sets above are counted apart, since deleting so much is another question."""

_READOUTS = {"probability": "p", "logarithm": "log p", "both": "p, log p"}

OVERALL = "all that aren't exact"
OWN = "on texts that have the letter"
"""Coherent sets up to `LARGE`, on texts that begin with their letter, or contain it: what is measured rests on what is
deleted, and that is asked the most."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Figures over all (set, measurement) pairs of one kind.

    Attributes:
        kind: of the deletion sets.
        pairs: how many.
        exact: how many of them were answered with a retrained value.
        effect: root mean square of the true change, in the measurement's unit.
        spread: standard deviation of the true value over the sets, root mean square over the measurements.
        error: root mean square of estimate - truth, divided by `effect`.
        error_of_spread: the same, divided by `spread`.
        rank_correlation: Spearman's, between estimated and true values over the sets, averaged over measurements (LDS);
            None where there are fewer than three sets, and of a part of the pairs.
        coverage: share of the pairs whose truth lies in the interval.
        width: median width of the interval, divided by `spread`.
        below_resolution: share of the pairs whose interval holds the baseline.
        chosen: how often each estimator, degree and readout was chosen.
    """

    kind: str
    pairs: int
    exact: int
    effect: float
    spread: float
    error: float
    error_of_spread: float
    rank_correlation: float | None
    coverage: float
    width: float
    below_resolution: float
    chosen: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One deletion set and measurement: what was answered, and the truth."""

    kind: str
    units: int
    measurement: str
    baseline: float
    estimate: float
    interval: tuple[float, float]
    truth: float
    estimator: str


def random_sets(documents: Documents, *, sizes: Sequence[int], count: int, seed: int) -> list[DeletionSet]:
    """`count` uniformly random sets of every size.

    Raises:
        DeletionSetError: a size that isn't below the number of units.
    """
    too_large = next((size for size in sizes if size >= documents.unit_count), None)
    if too_large is not None:
        raise DeletionSetError(f"A random set of {too_large} isn't a part of {documents.unit_count} units.")
    generator = random.Random(seed)
    units = range(documents.unit_count)
    return [
        DeletionSet(kind=f"{size} random", units=tuple(sorted(generator.sample(units, size))))
        for size in sizes
        for _ in range(count)
    ]


def coherent_sets(documents: Documents) -> list[DeletionSet]:
    """Units with a document that starts with a character, and that contain one: a set for every character.

    Sets that are empty, or everything, are left out; those above `LARGE` are a kind of their own.
    """
    sets = []
    large = LARGE * documents.unit_count
    for character in documents.vocabulary:
        for kind, belongs in (
            ("first letter", lambda text, c=character: text.startswith(c)),
            ("containing a letter", lambda text, c=character: c in text),
        ):
            units = {unit for text, unit in zip(documents.texts, documents.unit_of, strict=True) if belongs(text)}
            if 0 < len(units) < documents.unit_count:
                named = kind if len(units) <= large else f"{kind}, over {LARGE:.0%}"
                sets.append(DeletionSet(kind=named, units=tuple(sorted(units)), belongs=belongs))
    return sets


def evaluate(
    sketch: ResidentSketch,
    documents: Documents,
    sets: Sequence[DeletionSet],
    measurements: Sequence[Measurement],
    *,
    question: Question | None = None,
    retrain: Retrain = retrain_here,
    progress: Progress = lambda done, total: None,
) -> tuple[list[Accuracy], list[Pair]]:
    """Estimate and retrain for every set, and compare.

    Args:
        sketch: that answers.
        documents: that it was built from.
        sets: deletion sets; those that the sketch was retrained for are left out, except units alone and pairs.
        measurements: asked for every set; losses and log-probabilities.
        question: how to ask; one downweight of 1.
        retrain: trains the models, on this machine if nothing is said.
        progress: of the retrains.

    Returns:
        Figures by kind of set; of coherent sets on texts that have their letter (`OWN`); over all pairs that weren't
        answered exactly. And every pair.

    Raises:
        ArtifactError: the documents aren't the sketch's.
    """
    if documents.fingerprint != sketch.artifact.manifest.plan.source.fingerprint:
        raise ArtifactError("The sketch was built from other documents (their fingerprints differ).")
    question = question or Question()
    known = set(sketch.retrained_sets)
    exact = 2 if sketch.configuration.pairs else 1
    sets = [deletion for deletion in sets if len(deletion.units) <= exact or deletion.units not in known]
    answers = [_scalar(sketch.predict(measurements, deletion.units, question)) for deletion in sets]
    models = retrain(
        documents,
        sketch.configuration,
        [deletion.units for deletion in sets],
        device=str(sketch.device),
        workers=cores(),
        progress=progress,
    )
    truth = np.stack(
        [measure_models(m, sketch.configuration.model, models).cpu().numpy() for m in measurements], axis=1
    )  # [sets, measurements]
    kinds = dict.fromkeys(deletion.kind for deletion in sets)
    rows = {kind: [row for row, deletion in enumerate(sets) if deletion.kind == kind] for kind in kinds}
    figures = [_accuracy(kind, [answers[row] for row in rows[kind]], truth[rows[kind]]) for kind in kinds]
    estimated = [row for row, of_set in enumerate(answers) if all(a.estimator != "retrained" for a in of_set)]
    own = np.array([[_is_own(sets[row], m, sketch.unit_count) for m in measurements] for row in estimated], dtype=bool)
    if own.any():
        figures.append(_accuracy(OWN, [answers[row] for row in estimated], truth[estimated], own))
    if estimated:
        figures.append(_accuracy(OVERALL, [answers[row] for row in estimated], truth[estimated]))
    pairs = [
        Pair(
            kind=deletion.kind,
            units=len(deletion.units),
            measurement=answer.measurement.label,
            baseline=answer.baseline,
            estimate=answer.estimate,
            interval=answer.interval,
            truth=float(true),
            estimator=answer.estimator,
        )
        for deletion, of_set, true_of_set in zip(sets, answers, truth, strict=True)
        for answer, true in zip(of_set, true_of_set, strict=True)
    ]
    return figures, pairs


def _scalar(answers: Sequence[Prediction | Distribution]) -> list[Prediction]:
    """Predictions of numbers; distributions have no single truth to compare."""
    return [answer for answer in answers if isinstance(answer, Prediction)]


def _is_own(deletion: DeletionSet, measurement: Measurement, units: int) -> bool:
    """Whether what is measured is like what is deleted."""
    if deletion.belongs is None or len(deletion.units) > LARGE * units:
        return False
    return deletion.belongs(measurement.text or measurement.prompt + measurement.completion)


def _accuracy(
    kind: str, answers: Sequence[Sequence[Prediction]], true: np.ndarray, counted: np.ndarray | None = None
) -> Accuracy:
    """Figures of one kind; answers and truth by set, then by measurement. Of all pairs, or of some in every row."""
    pairs = np.ones(true.shape, dtype=bool) if counted is None else counted
    columns = [column[those] for column, those in zip(true.T, pairs.T, strict=True) if those.sum() > 1]
    flat = [answers[row][column] for row, column in np.argwhere(pairs)]
    baseline, estimate = np.array([p.baseline for p in flat]), np.array([p.estimate for p in flat])
    low, high = np.array([p.interval for p in flat]).T
    truth = true[pairs]
    effect = float(np.sqrt(np.mean((truth - baseline) ** 2)))
    spread = float(np.sqrt(np.mean([np.var(column) for column in columns]))) if columns else 0.0
    error = float(np.sqrt(np.mean((estimate - truth) ** 2)))
    ranked = counted is None and len(true) > 2
    chosen = [p.estimator if p.readout is None else f"{p.estimator} {p.degree} {_READOUTS[p.readout]}" for p in flat]
    return Accuracy(
        kind=kind,
        pairs=len(flat),
        exact=sum(p.estimator == "retrained" for p in flat),
        effect=effect,
        spread=spread or effect,
        error=error / effect,
        error_of_spread=error / (spread or effect),
        rank_correlation=_rank_correlation(estimate.reshape(true.shape), true) if ranked else None,
        coverage=float(np.mean((low <= truth) & (truth <= high))),
        width=float(np.median(high - low)) / (spread or effect),
        below_resolution=float(np.mean([p.below_resolution for p in flat])),
        chosen={name: chosen.count(name) for name in sorted(set(chosen))},
    )


def accuracy_table(figures: list[Accuracy], confidence: float) -> Table:
    """The figures as a table for people."""
    table = Table(title="Estimates against retrains")
    headings = ("deletion sets", "pairs", "effect", "error/effect", "error/spread", "rank corr.")
    for heading in (*headings, f"in {confidence:.0%} bar", "width/spread", "mostly by"):
        table.add_column(heading, justify="left" if heading in {"deletion sets", "mostly by"} else "right")
    for figure in figures:
        correlation = "" if figure.rank_correlation is None else f"{figure.rank_correlation:.3f}"
        table.add_row(
            figure.kind,
            str(figure.pairs),
            f"{figure.effect:.4f}",
            f"{figure.error:.1%}",
            f"{figure.error_of_spread:.1%}",
            correlation,
            f"{figure.coverage:.1%}",
            f"{figure.width:.2f}",
            max(figure.chosen, key=lambda name: figure.chosen[name]),
        )
    return table


def _rank_correlation(estimate: np.ndarray, true: np.ndarray) -> float:
    """Spearman's correlation down the columns, averaged; a column that doesn't vary counts as 0: it ranks nothing."""
    correlations = []
    for x, y in zip(estimate.T, true.T, strict=True):
        ranks = np.stack([_ranks(x), _ranks(y)])
        correlations.append(np.corrcoef(ranks)[0, 1] if ranks.std(axis=1).all() else 0.0)
    return float(np.mean(correlations))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])
