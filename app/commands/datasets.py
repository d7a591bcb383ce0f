"""``neverseen datasets``: import and list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app import catalog
from app.commands import console, opened
from app.db import transaction
from engine.documents import Format, read_documents

app = typer.Typer(help="Import and list datasets.", no_args_is_help=True)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="Text (a document a line), CSV or JSONL with text and subject.")],
    name: Annotated[str | None, typer.Option(help="Name in the catalog; by default the file's.")] = None,
    description: Annotated[str, typer.Option(help="What it is, for people.")] = "",
    format: Annotated[Format, typer.Option(help="auto goes by the file's ending.")] = "auto",
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="Shuffle with this seed.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Keep the first so many documents.")] = None,
) -> None:
    """Import a file as an immutable dataset; training order is the file's, or the shuffled one."""
    documents = read_documents(file, format=format)
    if shuffle is not None:
        documents = documents.shuffled(shuffle, limit=limit)
    elif limit is not None:
        documents = documents.first(limit)
    with opened() as (_, database), transaction(database) as session:
        dataset = catalog.add_dataset(
            session, name=name or file.stem.lower().replace("_", "-"), documents=documents, description=description
        )
        console.print(
            f"Dataset {dataset.name}: {dataset.document_count:,} documents, {dataset.unit_count:,} units, "
            f"vocabulary {documents.vocabulary!r}.",
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
