"""``neverseen privacy reports``: what is measured for a request."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.commands import console, opened
from app.db import transaction
from app.errors import InvalidTextError
from app.schemas.predict import MeasurementBody, measurement_of
from engine.measure import Measurement
from engine.question import LEAST_CONFIDENCE, MOST_CONFIDENCE

app = typer.Typer(help="Say what is measured for a request.", no_args_is_help=True)

_BODIES: TypeAdapter[list[MeasurementBody]] = TypeAdapter(list[MeasurementBody])


@app.command("set")
def set_(
    sketch: Annotated[str, typer.Option(help="Whose current version is asked.")],
    name: Annotated[str, typer.Option(help="Name of the report.")] = "default",
    text: Annotated[list[str] | None, typer.Option(help="Measure the loss of this text; repeatable.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSON: a list of measurements, as POST /predict takes them.")
    ] = None,
    own_documents: Annotated[
        int, typer.Option(min=0, max=64, help="Losses of so many of the person's own documents, too.")
    ] = 5,
    confidence: Annotated[float, typer.Option(min=LEAST_CONFIDENCE, max=MOST_CONFIDENCE, help="Of intervals.")] = 0.9,
    materiality_nats: Annotated[
        float, typer.Option(min=0, help="A change of a loss or log-probability beyond it is material.")
    ] = 0.05,
    materiality_probability: Annotated[
        float, typer.Option(min=0, max=1, help="A change of a probability beyond it is material.")
    ] = 0.01,
) -> None:
    """Say what a report measures of a sketch, for requests that concern its dataset; in place of what it did."""
    measurements = [Measurement(text=one) for one in text or ()] + _measurements(file)
    with opened() as (_, database), transaction(database) as session:
        row = catalog.set_report(
            session,
            name=name,
            sketch=catalog.get_sketch(session, sketch),
            measurements=[asdict(one) for one in measurements],
            own_documents=own_documents,
            confidence=confidence,
            materiality_nats=materiality_nats,
            materiality_probability=materiality_probability,
        )
        dataset = row.dataset.name
    console.print(
        f"Report {name}: {len(measurements)} measurements and up to {own_documents} documents of the person's own, of "
        f"the sketch {sketch}, for the dataset {dataset}.",
        highlight=False,
    )


@app.command("list")
def list_() -> None:
    """Show the reports, a line for each dataset."""
    table = Table("report", "dataset", "sketch", "measurements", "own documents", "confidence", "material beyond")
    with opened() as (_, database), transaction(database, writes=False) as session:
        for row in catalog.list_reports(session, limit=1000, offset=0).items:
            table.add_row(
                row.name,
                row.dataset.name,
                row.sketch.name,
                _some(row.measurements),
                str(row.own_documents),
                f"{row.confidence:g}",
                f"{row.materiality_nats:g} nats, {row.materiality_probability:g}",
            )
    console.print(table)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of the report.")],
    dataset: Annotated[str | None, typer.Option(help="Only what it measures for this dataset.")] = None,
) -> None:
    """Remove a report."""
    with opened() as (_, database), transaction(database) as session:
        catalog.remove_report(session, name, dataset)
    console.print(f"Report {name} is removed.", highlight=False)


def _some(measurements: list[dict[str, Any]]) -> str:
    """How many they are, and the first of them."""
    labels = [Measurement(**one).label or "…" for one in measurements[:2]]
    more = ["…"] if len(measurements) > len(labels) else []
    return escape(f"{len(measurements)}: {', '.join(labels + more)}") if labels else "none"


def _measurements(file: Path | None) -> list[Measurement]:
    """The measurements of a file.

    Raises:
        InvalidTextError: it doesn't hold any.
        OSError: it can't be read.
    """
    if file is None:
        return []
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        return [measurement_of(body) for body in _BODIES.validate_python(content)]
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise InvalidTextError(f"{file.name}: {place}: {fault['msg']}") from None
    except ValueError:
        raise InvalidTextError(f"{file.name} isn't JSON: give a list of measurements.") from None
