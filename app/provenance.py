"""How a version was built, as its artifact says: for the route and the command."""

from __future__ import annotations

from collections.abc import Callable

from app import catalog
from app.artifacts import Artifacts
from app.db import Database, transaction
from app.errors import ConflictError
from app.predictor import Artifact
from app.schemas.sketches import BuildAnswer, build_answer
from app.serving import located
from app.tables import SketchVersion
from engine.store import Manifest


def build_of(
    database: Database,
    artifacts: Artifacts,
    sketch: str,
    version: int | None,
    *,
    manifest_of: Callable[[Artifact], Manifest] = Artifact.manifest,
) -> tuple[SketchVersion, BuildAnswer]:
    """A version and how it was built. No transaction is open while the artifact, be it in a store, is asked.

    Args:
        database: the catalog.
        artifacts: where artifacts are.
        sketch: its name.
        version: its number; None is the current one.
        manifest_of: what gives an artifact's manifest.

    Raises:
        NotFoundError: an unknown sketch or version.
        ConflictError: the version is deleted.
        ArtifactError: the artifact is missing, damaged or foreign.
    """
    with transaction(database, writes=False) as session:
        row = catalog.get_version(session, sketch, version)
        if row.state == "deleted":
            raise ConflictError(f"{row.label} is deleted: its artifact was given up.")
        artifact = located(row, artifacts)
    return row, build_answer(sketch, row.number, manifest_of(artifact))
