"""``neverseen datasets``: import, link to persons, list, and see what a deletion would take away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.catalog import BySubset
from app.commands import console, opened
from app.commands.rules import Contains, DocumentNumbers, Matches, UnitNames, exactly_one, rules_of
from app.db import transaction
from app.privacy.identities import identity_hashes, read_links
from app.schemas.subsets import resolve_answer
from app.secret import load_secret
from engine.data import BUNDLED, BundledName
from engine.documents import Documents, Format, read_documents

_MOST_NAMED: Final = 20
"""Units whose names are printed."""

app = typer.Typer(
    help="Import datasets, link them to persons, list them, and see what deleting would take away.",
    no_args_is_help=True,
)


@app.command()
def add(
    file: Annotated[
        Path | None, typer.Argument(help="Text (a document a line), CSV or JSONL with text and subject.")
    ] = None,
    bundled: Annotated[BundledName | None, typer.Option(help="Data that come along, in place of a file.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name in the catalog; by default the file's, or that of the data.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is, for people.")] = None,
    format: Annotated[Format, typer.Option(help="Of the file; auto goes by its ending.")] = "auto",
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="Shuffle with this seed.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Keep the first so many documents.")] = None,
) -> None:
    """Import a file, or data that come along, as an immutable dataset, in their order or shuffled."""
    own_name, own_description, documents = _source(file, bundled, format)
    if shuffle is not None:
        documents = documents.shuffled(shuffle, limit=limit)
    elif limit is not None:
        documents = documents.first(limit)
    with opened() as (_, database), transaction(database) as session:
        dataset = catalog.add_dataset(
            session,
            name=name or own_name,
            documents=documents,
            description=own_description if description is None else description,
        )
    console.print(
        f"Dataset {dataset.name}: {dataset.document_count:,} documents, {dataset.unit_count:,} units, "
        f"vocabulary {documents.vocabulary!r}.",
        highlight=False,
    )


def _source(file: Path | None, bundled: BundledName | None, format: Format) -> tuple[str, str, Documents]:
    """Name, description and documents of what is to be imported."""
    match file, bundled:
        case Path(), None:
            return file.stem.lower().replace("_", "-"), "", read_documents(file, format=format)
        case None, str():
            return bundled, BUNDLED[bundled].description, BUNDLED[bundled].load()
        case _:
            raise typer.BadParameter("give exactly one of FILE, --bundled")


@app.command()
def link(
    file: Annotated[
        Path, typer.Argument(help="CSV or JSONL with subject, identity_type, identity_value, identity_format.")
    ],
    dataset: Annotated[str, typer.Option(help="Whose subjects they are.")],
    replace: Annotated[bool, typer.Option("--replace", help="Remove the links that there are, first.")] = False,
) -> None:
    """Link persons' identities to their documents, so that requests find these.

    Identities are stored as keyed hashes only; identity_format is raw, sha256, sha1 or md5, by default raw.
    """
    links = list(read_links(file))
    with opened() as (settings, database):
        secret = load_secret(settings)
        with transaction(database) as session:
            row = catalog.get_dataset(session, dataset)
            removed = catalog.remove_links(session, row) if replace else 0
            linked = catalog.add_links(
                session, row, ((one.subject, identity_hashes(one.identity, secret)) for one in links)
            )
    before = f"; {removed:,} were removed" if replace else ""
    console.print(
        f"Dataset {dataset}: {len(links):,} identities of {linked.units:,} units are linked "
        f"({linked.hashes:,} hashes are new, {linked.present:,} were there{before}).",
        highlight=False,
    )


@app.command()
def resolve(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.")],
    contains: Contains = None,
    matches: Matches = None,
    documents: DocumentNumbers = None,
    units: UnitNames = None,
    subset: Annotated[str | None, typer.Option(help="Units of this subset.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all units, as the service answers.")] = False,
) -> None:
    """Say which units a deletion would take away: how many, and the first of their names; nothing is changed."""
    given = [
        *rules_of(contains=contains, matches=matches, documents=documents, units=units),
        *([] if subset is None else [BySubset(subset)]),
    ]
    deletion = exactly_one(given, "--contains, --matches, --document, --unit, --subset")
    with opened() as (_, database), transaction(database, writes=False) as session:
        row = catalog.get_dataset(session, dataset)
        resolved = catalog.resolve_units(session, row, deletion)
        answer = resolve_answer(row.name, resolved, catalog.names_of_deletion(session, row, resolved))
    if json:
        typer.echo(answer.model_dump_json())
        return
    more = answer.unit_count - _MOST_NAMED
    names = ", ".join(answer.units[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    console.print(
        f"{answer.unit_count:,} units ({answer.document_count:,} documents) of {answer.dataset} would be deleted:"
        f" {escape(names)}.",
        highlight=False,
    )


@app.command("list")
def list_() -> None:
    """Show the datasets."""
    table = Table("dataset", "documents", "units", "subjects", "added", "description")
    with opened() as (_, database), transaction(database, writes=False) as session:
        for dataset in catalog.list_datasets(session, limit=1000, offset=0).items:
            table.add_row(
                dataset.name,
                f"{dataset.document_count:,}",
                f"{dataset.unit_count:,}",
                "yes" if dataset.has_subjects else "no",
                f"{dataset.created_at:%Y-%m-%d %H:%M}",
                escape(dataset.description),
            )
    console.print(table)
