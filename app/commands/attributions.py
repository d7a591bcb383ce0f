"""``neverseen attributions``: which units matter for a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.commands import console, opened, predictor_of, say_erased
from app.commands.asking import Key, Url, completion_of, number_body_of, service_at
from app.db import transaction
from app.schemas.attributions import AttributionAnswer
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
    url: Url = None,
    key: Key = None,
) -> None:
    """Find the units whose deletion changes a measurement most."""
    if (text is None) == (completion is None):
        raise typer.BadParameter("give either --text or --completion")
    measurement = Measurement(text=text) if text is not None else completion_of(completion or "")
    if url is None:
        found = _by_catalog(sketch, measurement, top=top, version=version, confidence=confidence)
    else:
        with service_at(url, key) as service:
            answer = service.attribute(
                sketch, measurement=number_body_of(measurement), top=top, version=version, confidence=confidence
            )
        found = _Found(
            label=f"{answer.sketch} v{answer.version}",
            contains_erased=answer.contains_erased,
            baseline=answer.baseline,
            estimator=answer.estimator,
            units=[*answer.raising, *reversed(answer.lowering)],
        )
    say_erased(found.label, contains_erased=found.contains_erased)
    by = "each was retrained" if found.estimator == "retrained" else "estimated; intervals hold for all units at once"
    console.print(
        f"{found.label}: {escape(measurement.label)} measures {found.baseline:.4f}. Without one unit ({by}):",
        highlight=False,
    )
    table = Table("unit", "documents", "text", "change", f"{confidence:g} interval of the measurement")
    for unit in found.units:
        low, high = unit.interval
        table.add_row(
            escape(unit.unit),
            f"{unit.documents:,}",
            "not shown to this key" if unit.text is None else escape(unit.text),
            f"{unit.change:+.4f}",
            f"{low:.4f} … {high:.4f}",
        )
    console.print(table)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Units, from the one whose deletion raises the measurement most to the one whose lowers it most."""

    label: str
    contains_erased: bool
    baseline: float
    estimator: str
    units: Sequence[AttributionAnswer]


def _by_catalog(sketch: str, measurement: Measurement, *, top: int, version: int | None, confidence: float) -> _Found:
    with opened() as (settings, database):
        with transaction(database) as session:
            row = catalog.get_version(session, sketch, version)
            erased = catalog.list_erased_units(session, row.dataset)
            catalog.record(session, "attribute", sketch=sketch, version=row.number, top=top)
        found = predictor_of(settings).attribute(
            artifact_of(row, settings.artifacts),
            measurement=measurement,
            top=top,
            confidence=confidence,
            left_out=erased,
        )
        attributed = [*found.raising, *reversed(found.lowering)]
        with transaction(database, writes=False) as session:
            named = catalog.describe_units(session, row.dataset, [one.unit for one in attributed])
        return _Found(
            label=row.label,
            contains_erased=row.contains_erased,
            baseline=found.baseline,
            estimator=found.estimator,
            units=[
                AttributionAnswer(**asdict(one) | asdict(named[one.unit]))
                for one in attributed
                if one.unit in named  # else it was erased in this moment
            ],
        )
