"""``neverseen attributions``: which units matter for a measurement."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.commands import console, opened, predictor_of
from app.commands.predict import completion_of
from app.db import transaction
from app.serving import artifact_of
from engine.measure import Measurement


def attributions(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    text: Annotated[str | None, typer.Option(help="Measure the loss on this text.")] = None,
    completion: Annotated[
        str | None, typer.Option(help="Measure the log-probability of PROMPT:COMPLETION instead.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many units to name in each direction.")] = 10,
    version: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="By default the current one.")] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
) -> None:
    """Find the units whose deletion changes a measurement most."""
    if (text is None) == (completion is None):
        raise typer.BadParameter("give either --text or --completion")
    measurement = Measurement(text=text) if text is not None else completion_of(completion or "")
    with opened() as (settings, database), transaction(database, writes=False) as session:
        row = catalog.get_version(session, sketch, version)
        found = predictor_of(settings).attribute(
            artifact_of(row, settings.artifacts_dir), measurement=measurement, top=top, confidence=confidence
        )
        units = [attribution.unit for attribution in (*found.raising, *found.lowering)]
        named = catalog.describe_units(session, row.sketch.dataset, units)
        label = row.label
    by = "each was retrained" if found.estimator == "retrained" else "estimated; intervals hold for all units at once"
    console.print(
        f"{label}: {escape(measurement.label)} measures {found.baseline:.4f}. Without one unit ({by}):", highlight=False
    )
    table = Table("unit", "documents", "text", "change", f"{confidence:g} interval of the measurement")
    for attribution in (*found.raising, *reversed(found.lowering)):
        unit, (low, high) = named[attribution.unit], attribution.interval
        table.add_row(
            escape(unit.unit),
            f"{unit.documents:,}",
            escape(unit.text),
            f"{attribution.change:+.4f}",
            f"{low:.4f} … {high:.4f}",
        )
    console.print(table)
