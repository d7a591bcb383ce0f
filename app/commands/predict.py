"""``neverseen predict``: one question from the command line, and on request the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from app.commands import console, deletion_of, documents_of, opened, predictor_of, resolved
from app.predictor import Artifact
from app.settings import Settings
from engine.documents import Documents
from engine.measure import Measurement
from engine.question import Distribution, Prediction
from engine.store import open_artifact
from engine.supplements import Value, retrained_values
from engine.terminal import progress_bar


def predict(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    text: Annotated[list[str] | None, typer.Option(help="Measure the loss on this text; repeatable.")] = None,
    completion: Annotated[
        list[str] | None, typer.Option(help="Measure the log-probability of PROMPT:COMPLETION; repeatable.")
    ] = None,
    next_token: Annotated[
        list[str] | None, typer.Option(help="Measure what follows this prompt, '' for the start; repeatable.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="By default the current one.")] = None,
    document: Annotated[list[int] | None, typer.Option(help="Delete this document number; repeatable.")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="Delete this unit; repeatable.")] = None,
    subset: Annotated[str | None, typer.Option(help="Delete this subset.")] = None,
    estimator: Annotated[
        Literal["auto", "sphere", "axes", "pairs", "hybrid", "interpolation", "regression"],
        typer.Option(help="auto: the least error at similar retrained sets."),
    ] = "auto",
    degree: Annotated[str, typer.Option(help="Highest order in the estimate, or auto.")] = "auto",
    downweight: Annotated[list[float] | None, typer.Option(help="Between 0 and 1; repeatable for a curve.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the interval.")] = 0.95,
    average: Annotated[Literal["mean", "median_of_means"], typer.Option(help="Over the directions.")] = "mean",
    verify: Annotated[
        bool, typer.Option("--verify", help="Retrain without it and compare; the (largest) downweight must be 1.")
    ] = False,
) -> None:
    """Predict measurements of the model that would have been trained without some of its data."""
    deletion = deletion_of(document, unit, subset)
    measurements = [
        *(Measurement(text=one) for one in text or ()),
        *(completion_of(one) for one in completion or ()),
        *(Measurement(kind="next_token", prompt=one) for one in next_token or ()),
    ]
    if not measurements:
        raise typer.BadParameter("give at least one of --text, --completion, --next-token")
    if degree != "auto" and not degree.isdecimal():
        raise typer.BadParameter("--degree takes a whole number from 0, or auto")
    if verify and max(downweight or [1.0]) != 1:
        raise typer.BadParameter("--verify retrains with all of the losses taken away: let the largest downweight be 1")
    with opened() as (settings, database):
        artifact, without = resolved(database, settings, sketch=sketch, version=version, deletion=deletion)
        documents = documents_of(database, sketch=sketch) if verify else None
        predictions = predictor_of(settings).predict(
            artifact,
            units=without.units,
            measurements=measurements,
            degree="auto" if degree == "auto" else int(degree),
            downweights=downweight or [1.0],
            confidence=confidence,
            average=average,
            estimator=estimator,
        )
        truths = None if documents is None else _retrained(settings, artifact, documents, without.units, predictions)
    console.print(
        f"{artifact.label} without {len(without.units):,} units ({without.documents:,} documents); "
        "losses in nats per token, log-probabilities in nats:",
        highlight=False,
    )
    known: Sequence[Value | None] = truths or [None] * len(predictions)
    numbers = [(one, truth) for one, truth in zip(predictions, known, strict=True) if isinstance(one, Prediction)]
    if numbers:
        console.print(_table(numbers, max(downweight or [1.0]), confidence, verified=verify))
    for prediction, truth in zip(predictions, known, strict=True):
        if isinstance(prediction, Distribution):
            console.print(_distribution_table(prediction, confidence, truth))


def completion_of(option: str) -> Measurement:
    """The log-probability that the option --completion asks for.

    Raises:
        BadParameter: it has no colon.
    """
    prompt, colon, completion = option.partition(":")
    if not colon:
        raise typer.BadParameter("--completion takes PROMPT:COMPLETION; the prompt may be empty")
    return Measurement(kind="log_probability", prompt=prompt, completion=completion)


def _retrained(
    settings: Settings,
    artifact: Artifact,
    documents: Documents,
    units: Sequence[int],
    predictions: Sequence[Prediction | Distribution],
) -> list[Value]:
    """The truth for each prediction; the retrained model stays with the sketch version."""
    opened_artifact = open_artifact(artifact.path, checksum=artifact.checksum)
    measurements = [prediction.measurement for prediction in predictions]
    with progress_bar("Retraining", "steps", console=console) as progress:
        return retrained_values(
            opened_artifact, documents, units, measurements, device=settings.device, progress=progress
        )


def _table(
    predictions: Sequence[tuple[Prediction, Value | None]], largest: float, confidence: float, *, verified: bool
) -> Table:
    table = Table(
        "measured", "downweight", "baseline", "estimate", "± std. error", f"{confidence:g} interval", "estimator"
    )
    if verified:
        _add_comparison(table)
    for prediction, truth in predictions:
        points = prediction.curve or (prediction,)
        for point in points:
            is_largest = getattr(point, "downweight", largest) == largest
            table.add_row(
                escape(prediction.measurement.label),
                f"{getattr(point, 'downweight', largest):g}",
                f"{prediction.baseline:.4f}",
                f"{point.estimate:.4f}",
                f"{point.standard_error:.4f}",
                f"{point.interval[0]:.4f} … {point.interval[1]:.4f}",
                _answered_by(prediction),
                *(_comparison(truth, point.estimate, point.interval) if is_largest else ()),
            )
    return table


def _distribution_table(distribution: Distribution, confidence: float, truths: Value | None) -> Table:
    after = escape(distribution.measurement.prompt) or "the start"
    table = Table(
        "next", "baseline", "estimate", f"{confidence:g} interval", title=f"after {after}, {_answered_by(distribution)}"
    )
    if truths is not None:
        _add_comparison(table)
    known = truths if isinstance(truths, list) else [None] * len(distribution.outcomes)
    for outcome, truth in sorted(zip(distribution.outcomes, known, strict=True), key=lambda row: -row[0].estimate):
        table.add_row(
            escape(outcome.token) or "(end)",
            f"{outcome.baseline:.4f}",
            f"{outcome.estimate:.4f}",
            f"{outcome.interval[0]:.4f} … {outcome.interval[1]:.4f}",
            *_comparison(truth, outcome.estimate, outcome.interval),
        )
    return table


def _answered_by(prediction: Prediction | Distribution) -> str:
    if prediction.estimator == "retrained":
        return "retrained"
    return f"{prediction.estimator}, degree {prediction.degree}"


def _add_comparison(table: Table) -> None:
    for heading in ("retrained", "error", "in interval"):
        table.add_column(heading)


def _comparison(truth: Value | None, estimate: float, interval: tuple[float, float]) -> tuple[str, ...]:
    """The truth beside an estimate, where it is known."""
    if not isinstance(truth, float):
        return ()
    inside = "yes" if interval[0] <= truth <= interval[1] else "no"
    return f"{truth:.4f}", f"{truth - estimate:+.4f}", inside
