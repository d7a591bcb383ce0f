"""``neverseen samples``: texts of the model, and of the model without some of its data."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.commands import console, deletion_of, opened, predictor_of, resolved


def samples(
    sketch: Annotated[str, typer.Argument(help="Name of the sketch.")],
    document: Annotated[list[int] | None, typer.Option(help="Delete this document number; repeatable.")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="Delete this unit; repeatable.")] = None,
    subset: Annotated[str | None, typer.Option(help="Delete this subset.")] = None,
    count: Annotated[int, typer.Option(help="How many texts of each model.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the random numbers, the same for both models.")] = 0,
    temperature: Annotated[float, typer.Option(help="Below 1 the likely is drawn more often.")] = 1.0,
    prompt: Annotated[str, typer.Option(help="What every text begins with.")] = "",
    version: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="By default the current one.")] = None,
) -> None:
    """Draw texts from the model, and from the model without some of its data."""
    deletion = deletion_of(document, unit, subset)
    with opened() as (settings, database):
        artifact, without = resolved(database, settings, sketch=sketch, version=version, deletion=deletion)
        drawn = predictor_of(settings).draw_texts(
            artifact, units=without.units, count=count, seed=seed, temperature=temperature, prompt=prompt
        )
    console.print(
        f"{artifact.label}, and without {len(without.units):,} units ({without.documents:,} documents), "
        f"parameters from {drawn.source}:",
        highlight=False,
    )
    table = Table("baseline", "counterfactual")
    for baseline, counterfactual in zip(drawn.baseline, drawn.counterfactual, strict=True):
        changed = counterfactual != baseline
        table.add_row(escape(baseline), f"[bold]{escape(counterfactual)}[/bold]" if changed else escape(counterfactual))
    console.print(table)
