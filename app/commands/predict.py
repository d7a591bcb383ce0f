"""``neverseen predict``: one question from the command line."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.catalog import ByDocuments, BySubset, ByUnits, Deletion
from app.commands import console, opened
from app.db import transaction
from app.predictor import Predictor
from app.serving import artifact_of
from engine.estimate import Prediction
from engine.measure import Measurement


def predict(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    text: Annotated[list[str], typer.Option(help="Measure the loss on this text; repeatable.")],
    version: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="By default the current one.")] = None,
    document: Annotated[list[int] | None, typer.Option(help="Delete this document number; repeatable.")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="Delete this unit; repeatable.")] = None,
    subset: Annotated[str | None, typer.Option(help="Delete this subset.")] = None,
    estimator: Annotated[
        Literal["auto", "sphere", "axes"], typer.Option(help="auto: axes, if there are any.")
    ] = "auto",
    degree: Annotated[str, typer.Option(help="Highest order in the estimate, or auto.")] = "auto",
    downweight: Annotated[list[float] | None, typer.Option(help="Between 0 and 1; repeatable for a curve.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the interval.")] = 0.95,
    average: Annotated[Literal["mean", "median_of_means"], typer.Option(help="Over the directions.")] = "mean",
) -> None:
    """Predict losses of the model that would have been trained without some of its data."""
    deletions: list[Deletion] = []
    if document:
        deletions.append(ByDocuments(document))
    if unit:
        deletions.append(ByUnits(unit))
    if subset is not None:
        deletions.append(BySubset(subset))
    if len(deletions) != 1:
        raise typer.BadParameter("give exactly one of --document, --unit, --subset")
    if degree != "auto" and not degree.isdecimal():
        raise typer.BadParameter("--degree takes a whole number from 0, or auto")
    with opened() as (settings, database):
        with transaction(database, writes=False) as session:
            row = catalog.get_version(session, sketch, version)
            resolved = catalog.resolve_units(session, row.sketch.dataset, deletions[0])
            artifact = artifact_of(row, settings.artifacts_dir)
        predictor = Predictor(
            device=settings.device,
            resident_bytes=settings.resident_bytes,
            table_cache_bytes=settings.table_cache_bytes,
        )
        predictions = predictor.predict(
            artifact,
            units=resolved.units,
            measurements=[Measurement(text=one) for one in text],
            degree="auto" if degree == "auto" else int(degree),
            downweights=downweight or [1.0],
            confidence=confidence,
            average=average,
            estimator=estimator,
        )
    console.print(
        f"{artifact.label} without {len(resolved.units):,} units ({resolved.documents:,} documents); "
        "losses in nats per token:",
        highlight=False,
    )
    console.print(_table(predictions, max(downweight or [1.0]), confidence))


def _table(predictions: list[Prediction], largest: float, confidence: float) -> Table:
    table = Table(
        "loss on", "downweight", "baseline", "estimate", "± std. error", f"{confidence:g} interval", "estimator"
    )
    for prediction in predictions:
        points = prediction.curve or (prediction,)
        for point in points:
            table.add_row(
                escape(prediction.measurement.text),
                f"{getattr(point, 'downweight', largest):g}",
                f"{prediction.baseline:.4f}",
                f"{point.estimate:.4f}",
                f"{point.standard_error:.4f}",
                f"{point.interval[0]:.4f} … {point.interval[1]:.4f}",
                f"{prediction.estimator}, degree {prediction.degree}",
            )
    return table
