"""``neverseen backup``: a copy of the catalog, its artifacts and the secret, made while the service runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.backup import back_up
from app.commands import console
from app.settings import Settings
from engine.terminal import progress_bar


def backup(
    directory: Annotated[Path, typer.Argument(help="The directory to make.")],
    dump: Annotated[
        Path | None, typer.Option(help="With PostgreSQL: the catalog, as pg_dump --format=custom wrote it just now.")
    ] = None,
) -> None:
    """Copy the catalog, its artifacts and the secret; the exit code is 1 where something is damaged."""
    settings = Settings()
    with progress_bar("Copying", "MB", console=console) as progress:
        made = back_up(settings, directory, dump=dump, progress=progress)
    versions = f"{made.versions:,} sketch version" + ("" if made.versions == 1 else "s")
    console.print(
        f"{directory.name}: the catalog and the artifacts of {versions}, "
        f"{made.bytes / 1e6:.1f} MB; every artifact has its checksums.",
        highlight=False,
        soft_wrap=True,
    )
    if settings.secret is not None:
        console.print("Without NEVERSEEN_SECRET: keep it elsewhere.", highlight=False)
    if made.damaged:
        for sentence in made.damaged:
            console.print(f"Damaged: {sentence}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)
