"""``neverseen predict``: one question, and on request the truth; or one for each deletion set of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from app.commands import console, deletion_of, documents_of, opened, predictor_of, resolved, say_erased
from app.commands.answers import predict_sets
from app.commands.asking import (
    Asked,
    Key,
    Predicted,
    Url,
    answered_by,
    completion_of,
    label_of,
    service_at,
)
from app.erasure import check_retrained
from app.schemas.predict import DeletedAnswer, DistributionAnswer, PredictionAnswer
from engine.measure import Measurement
from engine.question import Question
from engine.supplements import Value, retrained_values
from engine.terminal import progress_bar, refuse


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
    file: Annotated[
        Path | None,
        typer.Option(
            help="Delete each set of this file, each alone: CSV (set, and document, unit or subset) or JSONL."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Keep the answers to --file here: .csv or .jsonl.")] = None,
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
    url: Url = None,
    key: Key = None,
) -> None:
    """Predict measurements of the model that would have been trained without some of its data."""
    if degree != "auto" and not degree.isdecimal():
        raise typer.BadParameter("--degree takes a whole number from 0, or auto")
    asked = Asked(
        sketch=sketch,
        version=version,
        measurements=_measurements(text, completion, next_token),
        question=Question(
            estimator=estimator,
            degree="auto" if degree == "auto" else int(degree),
            downweights=tuple(downweight or [1.0]),
            confidence=confidence,
            average=average,
        ),
    )
    if file is not None:
        if document or unit or subset is not None or verify:
            raise typer.BadParameter("--file goes without --document, --unit, --subset and --verify")
        predict_sets(asked, file, output=output, url=url, key=key)
        return
    if output is not None:
        raise typer.BadParameter("--output keeps the answers to --file")
    if verify and max(asked.question.downweights) != 1:
        raise typer.BadParameter("--verify retrains with all of the losses taken away: let the largest downweight be 1")
    if url is None:
        answered = _by_catalog(asked, document, unit, subset, verify=verify)
    else:
        answered = _by_service(url, key, asked, document, unit, subset, verify=verify)
    _show(answered, asked.question, verified=verify)


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """An answer.

    Attributes:
        label: of the version that gave it.
        deleted: how much was.
        predictions: one for each measurement.
        truths: for each of them, where the model was retrained.
    """

    label: str
    deleted: DeletedAnswer
    predictions: Sequence[Predicted]
    truths: Sequence[Value | None]


def _measurements(
    texts: list[str] | None, completions: list[str] | None, prompts: list[str] | None
) -> list[Measurement]:
    measurements = [
        *(Measurement(text=one) for one in texts or ()),
        *(completion_of(one) for one in completions or ()),
        *(Measurement(kind="next_token", prompt=one) for one in prompts or ()),
    ]
    if not measurements:
        raise typer.BadParameter("give at least one of --text, --completion, --next-token")
    return measurements


def _by_catalog(
    asked: Asked, documents: list[int] | None, units: list[str] | None, subset: str | None, *, verify: bool
) -> _Answered:
    deletion = deletion_of(documents, units, subset)
    with opened() as (settings, database):
        artifact, without = resolved(
            database, settings, "predict", sketch=asked.sketch, version=asked.version, deletion=deletion
        )
        trained_on = documents_of(database, version_id=artifact.version_id) if verify else None
        predictions = asked.predict(predictor_of(settings), artifact, without.units)
        truths: Sequence[Value | None] = [None] * len(predictions)
        if trained_on is not None:
            of = artifact.open(files=())
            with progress_bar("Retraining", "steps", console=console) as progress:
                # The retrained model stays with the sketch version.
                truths = retrained_values(
                    of, trained_on, without.units, asked.measurements, device=settings.device, progress=progress
                )
            check_retrained(database, artifact)
    deleted = DeletedAnswer(units=len(without.units), documents=without.documents)
    return _Answered(label=artifact.label, deleted=deleted, predictions=predictions, truths=truths)


def _by_service(
    url: str,
    key: str | None,
    asked: Asked,
    documents: list[int] | None,
    units: list[str] | None,
    subset: str | None,
    *,
    verify: bool,
) -> _Answered:
    deletion_of(documents, units, subset)  # says in the words of the command line what is missing
    question = asked.question
    with service_at(url, key) as service:
        answer = service.predict(
            asked.sketch,
            documents=documents or None,
            units=units or None,
            subset=subset,
            measurements=asked.bodies(),
            version=asked.version,
            estimator=question.estimator,
            degree=question.degree,
            downweight=question.downweights,
            confidence=question.confidence,
            average=question.average,
            verify=verify,
        )
        truths: Sequence[Value | None] = [None] * len(answer.predictions)
        if answer.verification is not None:
            with console.status("The service retrains"):
                verification = service.wait_for_verification(answer.verification.id, timeout_seconds=math.inf)
            if verification.state == "failed":
                refuse(verification.reason)
            truths = [one.truth for one in verification.measurements]
    say_erased(f"{answer.sketch} v{answer.version}", contains_erased=answer.contains_erased)
    return _Answered(
        label=f"{answer.sketch} v{answer.version}",
        deleted=answer.deleted,
        predictions=answer.predictions,
        truths=truths,
    )


def _show(answered: _Answered, question: Question, *, verified: bool) -> None:
    deleted = answered.deleted
    console.print(
        f"{answered.label} without {deleted.units:,} units ({deleted.documents:,} documents); "
        "losses in nats per token, log-probabilities in nats:",
        highlight=False,
    )
    known = list(zip(answered.predictions, answered.truths, strict=True))
    numbers = [(one, truth) for one, truth in known if isinstance(one, PredictionAnswer)]
    if numbers:
        console.print(_table(numbers, max(question.downweights), question.confidence, verified=verified))
    for prediction, truth in known:
        if isinstance(prediction, DistributionAnswer):
            console.print(_distribution_table(prediction, question.confidence, truth))


def _table(
    predictions: Sequence[tuple[PredictionAnswer, Value | None]],
    largest: float,
    confidence: float,
    *,
    verified: bool,
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
                escape(label_of(prediction)),
                f"{getattr(point, 'downweight', largest):g}",
                f"{prediction.baseline:.4f}",
                f"{point.estimate:.4f}",
                f"{point.standard_error:.4f}",
                f"{point.interval[0]:.4f} … {point.interval[1]:.4f}",
                answered_by(prediction),
                *(_comparison(truth, point.estimate, point.interval) if is_largest else ()),
            )
    return table


def _distribution_table(distribution: DistributionAnswer, confidence: float, truths: Value | None) -> Table:
    after = escape(distribution.measurement.prompt) or "the start"
    table = Table(
        "next", "baseline", "estimate", f"{confidence:g} interval", title=f"after {after}, {answered_by(distribution)}"
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


def _add_comparison(table: Table) -> None:
    for heading in ("retrained", "error", "in interval"):
        table.add_column(heading)


def _comparison(truth: Value | None, estimate: float, interval: tuple[float, float]) -> tuple[str, ...]:
    """The truth beside an estimate, where it is known."""
    if not isinstance(truth, float):
        return ()
    inside = "yes" if interval[0] <= truth <= interval[1] else "no"
    return f"{truth:.4f}", f"{truth - estimate:+.4f}", inside
