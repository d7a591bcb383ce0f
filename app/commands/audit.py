"""``neverseen audit``: prove that the records are all there and unchanged, and hand them out."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from app import catalog
from app.commands import console, opened
from app.db import transaction

app = typer.Typer(help="Verify and export the audit.", no_args_is_help=True)


@app.command()
def verify(
    head: Annotated[
        str | None, typer.Option(help="The head at an earlier time, kept elsewhere: shows that nothing was made anew.")
    ] = None,
) -> None:
    """Walk along the chain of records; the exit code is 1 where it is broken."""
    with opened() as (_, database), transaction(database, writes=False) as session:
        chain = catalog.verify_chain(session, head=head)
    if chain.broken is not None:
        console.print(
            f"Broken at record {chain.broken:,}: {chain.reason}. The {chain.length:,} records before are in order.",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(1)
    console.print(f"{chain.length:,} records, in order. Head, to be kept elsewhere: {chain.head}", soft_wrap=True)


@app.command()
def export(
    output: Annotated[Path | None, typer.Option(help="File to write; by default standard output.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Leave out the records up to this number.")] = 0,
) -> None:
    """Write the records as JSON lines, each as its hash was made: sha256 of the rest, keys sorted, without spaces."""
    with (
        opened() as (_, database),
        transaction(database, writes=False) as session,
        nullcontext(sys.stdout) if output is None else output.open("w", encoding="ascii") as file,
    ):
        for row in catalog.walk_records(session, after=after):
            file.write(json.dumps(catalog.as_line(row), sort_keys=True, separators=(",", ":")) + "\n")
