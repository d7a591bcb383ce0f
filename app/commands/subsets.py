"""``neverseen subsets``: name deletion sets."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from app import catalog
from app.commands import console, opened
from app.commands.rules import Contains, DocumentNumbers, Matches, UnitNames, exactly_one, rules_of
from app.db import transaction
from app.pinning import one_pin
from app.pinning import pin as pin_
from engine.cluster import retrain_on
from engine.terminal import OnCluster, on_cluster, progress_bar

app = typer.Typer(help="Name deletion sets, and pin them.", no_args_is_help=True)


@app.command()
def add(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.")],
    name: Annotated[str, typer.Argument(help="Name of the subset.")],
    contains: Contains = None,
    matches: Matches = None,
    documents: DocumentNumbers = None,
    units: UnitNames = None,
) -> None:
    """Name a deletion set, by exactly one rule."""
    given = rules_of(contains=contains, matches=matches, documents=documents, units=units)
    rule = exactly_one(given, "--contains, --matches, --document, --unit")
    with opened() as (_, database), transaction(database) as session:
        of = catalog.get_dataset(session, dataset)
        subset = catalog.add_subset(session, dataset=of, name=name, rule=rule)
    console.print(f"Subset {subset.name} of {of.name}: {subset.unit_count:,} units.", highlight=False)


@app.command()
def pin(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.")],
    subset: Annotated[str, typer.Argument(help="Name of the subset.")],
    sketch: Annotated[str, typer.Option(help="Name of the sketch, of this dataset.")],
    version: Annotated[int | None, typer.Option(min=1, max=2**31 - 1, help="By default the current one.")] = None,
    cluster: OnCluster = None,
) -> None:
    """Retrain the model without a subset, and keep the result with a sketch version."""
    with opened() as (settings, database), on_cluster(cluster, console=console) as place:
        pins = one_pin(database, settings, dataset=dataset, subset=subset, sketch=sketch, version=version)
        units = len(pins.subsets[subset])
        if not pins.missing:
            console.print(f"{subset} is pinned to {pins.label} already.", highlight=False)
            return
        console.print(f"Retraining the model of {pins.label} without {subset}: {units:,} units.", highlight=False)
        with progress_bar("Retraining", "steps", console=console) as progress:
            pin_(database, settings, pins, retrain=retrain_on(place, settings.device), progress=progress)
    console.print(f"{subset} is pinned to {pins.label}: its retrained model is kept beside it.", highlight=False)


@app.command("list")
def list_(dataset: Annotated[str, typer.Argument(help="Name of the dataset.")]) -> None:
    """Show the subsets of a dataset."""
    table = Table("subset", "units", "added")
    with opened() as (_, database), transaction(database, writes=False) as session:
        of = catalog.get_dataset(session, dataset)
        for subset in catalog.list_subsets(session, of, limit=1000, offset=0).items:
            table.add_row(subset.name, f"{subset.unit_count:,}", f"{subset.created_at:%Y-%m-%d %H:%M}")
    console.print(table)
