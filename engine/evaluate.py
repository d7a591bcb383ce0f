"""How good the answers are: estimates against fresh retrains, by kind and size of the deletion set.

Retraining here uses the same schedule as the sketch (a deleted document's step has weight zero), and none of the sets
plays a part in the sketch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from engine.documents import Documents
from engine.errors import ArtifactError, DeletionSetError
from engine.estimate import Question
from engine.measure import Measurement, measure_models
from engine.resident import ResidentSketch
from engine.retrain import retrain
from engine.train import Progress


@dataclass(frozen=True, kw_only=True)
class DeletionSet:
    """A set to delete, and the kind of sets that it is counted with."""

    kind: str
    units: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Figures over all (set, measurement) pairs of one kind.

    Attributes:
        kind: of the deletion sets.
        pairs: how many.
        effect: root mean square of the true change, in the measurement's unit.
        error: root mean square of estimate - truth, divided by `effect`.
        rank_correlation: Spearman's, between estimated and true values over the sets, averaged over measurements (LDS);
            None where there are fewer than three sets.
        coverage: share of the pairs whose truth lies in the interval.
        width: median width of the interval, divided by `effect`.
        degrees: how often each degree was chosen.
    """

    kind: str
    pairs: int
    effect: float
    error: float
    rank_correlation: float | None
    coverage: float
    width: float
    degrees: dict[int, int]


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

    Sets that are empty, or everything, are left out.
    """
    sets = []
    for character in documents.vocabulary:
        for kind, belongs in (
            ("first letter", lambda text, c=character: text.startswith(c)),
            ("containing a letter", lambda text, c=character: c in text),
        ):
            units = {unit for text, unit in zip(documents.texts, documents.unit_of, strict=True) if belongs(text)}
            if 0 < len(units) < documents.unit_count:
                sets.append(DeletionSet(kind=kind, units=tuple(sorted(units))))
    return sets


def evaluate(
    sketch: ResidentSketch,
    documents: Documents,
    sets: Sequence[DeletionSet],
    measurements: Sequence[Measurement],
    *,
    question: Question | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Accuracy]:
    """Estimate and retrain for every set, and compare.

    Args:
        sketch: that answers.
        documents: that it was built from.
        sets: deletion sets; those among the sketch's anchors are left out, since its bars were made of them.
        measurements: asked for every set.
        question: how to ask; one downweight of 1.
        progress: of the retrains.

    Raises:
        ArtifactError: the documents aren't the sketch's.
    """
    if documents.fingerprint != sketch.artifact.manifest.plan.source.fingerprint:
        raise ArtifactError("The sketch was built from other documents (their fingerprints differ).")
    question = question or Question()
    calibrated_on = set(sketch.anchor_sets())
    sets = [deletion for deletion in sets if deletion.units not in calibrated_on]
    answers = [sketch.predict(measurements, deletion.units, question) for deletion in sets]
    models = retrain(
        documents,
        sketch.configuration,
        [deletion.units for deletion in sets],
        device=str(sketch.device),
        progress=progress,
    )
    truth = np.stack(
        [measure_models(m, sketch.configuration.model, models).cpu().numpy() for m in measurements], axis=1
    )  # [sets, measurements]
    kinds = dict.fromkeys(deletion.kind for deletion in sets)
    accuracies = []
    for kind in kinds:
        rows = [row for row, deletion in enumerate(sets) if deletion.kind == kind]
        of_kind = [answers[row] for row in rows]
        true = truth[rows]
        baseline = np.array([[p.baseline for p in row] for row in of_kind])
        estimate = np.array([[p.estimate for p in row] for row in of_kind])
        low = np.array([[p.interval[0] for p in row] for row in of_kind])
        high = np.array([[p.interval[1] for p in row] for row in of_kind])
        effect = float(np.sqrt(np.mean((true - baseline) ** 2)))
        chosen = [p.degree for row in of_kind for p in row]
        accuracies.append(
            Accuracy(
                kind=kind,
                pairs=true.size,
                effect=effect,
                error=float(np.sqrt(np.mean((estimate - true) ** 2))) / effect,
                rank_correlation=_rank_correlation(estimate, true) if len(rows) > 2 else None,
                coverage=float(np.mean((low <= true) & (true <= high))),
                width=float(np.median(high - low)) / effect,
                degrees={degree: chosen.count(degree) for degree in sorted(set(chosen))},
            )
        )
    return accuracies


def accuracy_table(figures: list[Accuracy]) -> Table:
    """The figures as a table for people."""
    table = Table(title="Estimates against retrains (error and interval width relative to the r.m.s. effect)")
    for heading in ("deletion sets", "pairs", "effect", "error", "rank corr.", "coverage", "width", "degrees"):
        table.add_column(heading, justify="left" if heading == "deletion sets" else "right")
    for figure in figures:
        correlation = "" if figure.rank_correlation is None else f"{figure.rank_correlation:.3f}"
        table.add_row(
            figure.kind,
            str(figure.pairs),
            f"{figure.effect:.4f}",
            f"{figure.error:.1%}",
            correlation,
            f"{figure.coverage:.1%}",
            f"{figure.width:.2f}",
            " ".join(f"{degree}:{count}" for degree, count in figure.degrees.items()),
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
