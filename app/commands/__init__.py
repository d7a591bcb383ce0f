"""The command line: one file a resource, as in `app.routes`.

Commands open the catalog named by the settings, use the same catalog functions as the routes, and print for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from sqlalchemy.orm import Session

from app import catalog
from app.catalog import ByDocuments, BySubset, ByUnits, Deletion, ResolvedDeletion
from app.db import Database, open_ready_database, transaction
from app.predictor import Artifact, Predictor
from app.secret import load_secret
from app.serving import artifact_of
from app.settings import Settings
from app.tables import SketchVersion
from engine.documents import Documents

console = Console()


@contextmanager
def opened() -> Iterator[tuple[Settings, Database]]:
    """The settings, and the catalog with its schema in order."""
    settings = Settings()
    database = open_ready_database(settings)
    try:
        yield settings, database
    finally:
        database.dispose()


def deletion_of(documents: list[int] | None, units: list[str] | None, subset: str | None) -> Deletion:
    """What the options --document, --unit and --subset delete.

    Raises:
        BadParameter: not exactly one of them was given.
    """
    deletions: list[Deletion] = []
    if documents:
        deletions.append(ByDocuments(documents))
    if units:
        deletions.append(ByUnits(units))
    if subset is not None:
        deletions.append(BySubset(subset))
    if len(deletions) != 1:
        raise typer.BadParameter("give exactly one of --document, --unit, --subset")
    return deletions[0]


def resolved(
    database: Database, settings: Settings, action: str, *, sketch: str, version: int | None, deletion: Deletion
) -> tuple[Artifact, ResolvedDeletion]:
    """The artifact of a version, the current one where none is named, and the units of a deletion.

    What is done with them is recorded in the audit, as the service does: `action`.
    """
    with transaction(database) as session:
        row = catalog.get_version(session, sketch, version)
        artifact = artifact_of(row, settings.artifacts)
        units = catalog.resolve_units(session, row.dataset, deletion)
        record_question(session, settings, action, row, units)
    say_erased(row.label, contains_erased=row.contains_erased)
    return artifact, units


def say_erased(label: str, *, contains_erased: bool) -> None:
    """Say of an answer's version that it was trained on what has been erased since, where that is so."""
    if contains_erased:
        console.print(f"{label} was trained on units that have been erased since.", style="yellow", highlight=False)


def record_question(
    session: Session, settings: Settings, action: str, version: SketchVersion, deletion: ResolvedDeletion
) -> None:
    """Record in the audit that somebody here asks about a deletion set."""
    digest = load_secret(settings).deletion_digest(version.dataset.fingerprint, deletion.units)
    catalog.record(
        session,
        action,
        sketch=version.sketch.name,
        version=version.number,
        units=len(deletion.units),
        deletion_digest=digest,
    )


def documents_of(database: Database, *, version_id: int) -> Documents:
    """What a version was built from.

    Raises:
        ConflictError: some of it was erased.
    """
    with transaction(database, writes=False) as session:
        return catalog.load_documents(session, catalog.get_version_of_id(session, version_id).dataset)


def predictor_of(settings: Settings) -> Predictor:
    """A predictor with nothing resident."""
    return Predictor(
        device=settings.device, resident_bytes=settings.resident_bytes, table_cache_bytes=settings.table_cache_bytes
    )
