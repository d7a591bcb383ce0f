"""``neverseen samples``: texts of the model, and of the model without some of its data."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.commands import console, deletion_of, opened, predictor_of, resolved, say_erased
from app.commands.asking import Key, Url, service_at
from app.schemas.predict import DeletedAnswer


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
    url: Url = None,
    key: Key = None,
) -> None:
    """Draw texts from the model, and from the model without some of its data."""
    deletion = deletion_of(document, unit, subset)
    if url is None:
        with opened() as (settings, database):
            artifact, without = resolved(
                database, settings, "sample", sketch=sketch, version=version, deletion=deletion
            )
            drawn = predictor_of(settings).draw_texts(
                artifact, units=without.units, count=count, seed=seed, temperature=temperature, prompt=prompt
            )
        label, deleted = artifact.label, DeletedAnswer(units=len(without.units), documents=without.documents)
        pairs, source = list(zip(drawn.baseline, drawn.counterfactual, strict=True)), drawn.source
    else:
        with service_at(url, key) as service:
            answer = service.sample(
                sketch,
                documents=document or None,
                units=unit or None,
                subset=subset,
                count=count,
                seed=seed,
                temperature=temperature,
                prompt=prompt,
                version=version,
            )
        label, deleted = f"{answer.sketch} v{answer.version}", answer.deleted
        say_erased(label, contains_erased=answer.contains_erased)
        pairs, source = [(one.baseline, one.counterfactual) for one in answer.samples], answer.source
    console.print(
        f"{label}, and without {deleted.units:,} units ({deleted.documents:,} documents), parameters from {source}:",
        highlight=False,
    )
    table = Table("baseline", "counterfactual")
    for baseline, counterfactual in pairs:
        changed = counterfactual != baseline
        table.add_row(escape(baseline), f"[bold]{escape(counterfactual)}[/bold]" if changed else escape(counterfactual))
    console.print(table)
